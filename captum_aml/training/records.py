"""Records of fits: epochs, validations, a summary, where a fit stands, and a search's trials."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from captum_aml.objectives import Terms

TrialState = Literal["complete", "pruned", "failed"]


@dataclass(frozen=True)
class ValidationRecord:
    """One validation.

    Attributes:
        epoch: The epoch it belongs to, from 1.
        step: Optimizer steps done before it.
        means: Means over the validation examples of the total, of each term, and of the metric
            that the weights are chosen by, under its name.
        value: The figure that the weights are chosen by.
        improved: Whether it is the best so far.
    """

    epoch: int
    step: int
    means: Mapping[str, float]
    value: float
    improved: bool


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of fitting.

    Attributes:
        epoch: Its number, from 1.
        train: Means over the training examples of the total and of each term, before the updates
            that each batch led to.
        validation: The same over the validation examples after the epoch, or None.
        learning_rate: The learning rate at the end of the epoch.
        n_examples: The number of training examples, without those of skipped steps.
        n_steps: Optimizer steps, skipped ones included.
        n_skipped_steps: Steps that were skipped for a non-finite loss or gradient.
        validations: Every validation of the epoch, the last one at its end.
    """

    epoch: int
    train: Mapping[str, float]
    validation: Mapping[str, float] | None
    learning_rate: float
    n_examples: int
    n_steps: int = 0
    n_skipped_steps: int = 0
    validations: tuple[ValidationRecord, ...] = ()


@dataclass(frozen=True)
class FitSummary:
    """The record of a fit.

    Attributes:
        history: A record of each epoch; the last one may be of a part of it.
        n_steps: Optimizer steps, skipped ones included.
        n_skipped_steps: Steps that were skipped for a non-finite loss or gradient.
        best: The validation whose weights were kept, or None.
        stopped: ``completed``, ``patience`` or ``callback``.
        seconds: Wall time of the whole run, that before it was resumed included.
    """

    history: list[EpochRecord]
    n_steps: int
    n_skipped_steps: int
    best: ValidationRecord | None
    stopped: str
    seconds: float


@dataclass
class Means:
    """Means of terms over examples.

    Attributes:
        sums: The sum of each term.
        counts: The examples that each term has a value for.
    """

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add_terms(self, terms: Terms) -> None:
        """Adds an objective's terms."""
        for name, value in (("total", terms.total), *terms.parts.items()):
            self.add(name, float(value.sum()), len(value))

    def add(self, name: str, value: float, count: int) -> None:
        """Adds a sum over some examples."""
        self.sums[name] = self.sums.get(name, 0.0) + value
        self.counts[name] = self.counts.get(name, 0) + count

    def merge(self, other: Means) -> None:
        """Adds what another one holds."""
        for name, value in other.sums.items():
            self.add(name, value, other.counts[name])

    @property
    def count(self) -> int:
        """The number of examples."""
        return self.counts.get("total", 0)

    def result(self) -> dict[str, float]:
        """The means; NaN where no example has a value."""
        return {
            name: value / self.counts[name] if self.counts[name] else float("nan")
            for name, value in self.sums.items()
        }


@dataclass
class Progress:
    """The progress of a run, after the validations and records that were due.

    Attributes:
        epoch: The epoch that goes on, from 1.
        step: Optimizer steps done, skipped ones included.
        step_in_epoch: Those of them in this epoch.
        batches: Training batches consumed in this epoch, over all processes.
        means: Sums over the training examples of this epoch.
        validations: The validations of this epoch.
        history: The epochs that are done.
        best: The best validation.
        since_best: Validations since then.
        skipped: Steps that were skipped.
        skipped_in_epoch: Those of them in this epoch.
        skipped_in_row: Those of them since the last step that was not.
        classes: The explained classes that were seen, two at most.
        seconds: Wall time so far.
        stopped: Why the run is over, or None.
    """

    epoch: int = 1
    step: int = 0
    step_in_epoch: int = 0
    batches: int = 0
    means: Means = field(default_factory=Means)
    validations: list[ValidationRecord] = field(default_factory=list)
    history: list[EpochRecord] = field(default_factory=list)
    best: ValidationRecord | None = None
    since_best: int = 0
    skipped: int = 0
    skipped_in_epoch: int = 0
    skipped_in_row: int = 0
    classes: list[int] = field(default_factory=list)
    seconds: float = 0.0
    stopped: str | None = None

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Progress:
        """The values of ``asdict``, after a round trip through JSON."""
        epochs = [
            EpochRecord(**{**record, "validations": tuple(_validations(record["validations"]))})
            for record in values["history"]
        ]
        best = values["best"]
        return cls(
            **{
                **values,
                "means": Means(**values["means"]),
                "validations": _validations(values["validations"]),
                "history": epochs,
                "best": None if best is None else ValidationRecord(**best),
            }
        )


def _validations(values: list[dict[str, Any]]) -> list[ValidationRecord]:
    return [ValidationRecord(**value) for value in values]


@dataclass(frozen=True)
class Trial:
    """One trial of a search.

    Attributes:
        number: Its number in the study, from 0.
        state: ``complete``, ``pruned`` or ``failed``.
        weights: The objective's weights by name.
        learning_rate: The learning rate.
        value: The metric at the best checkpoint; of a pruned trial the last one; None if it failed.
        values: What ``score`` gave for a complete trial, by name.
        seconds: Wall time.
        error: Why it failed, or "".
    """

    number: int
    state: TrialState
    weights: Mapping[str, float]
    learning_rate: float
    value: float | None
    values: Mapping[str, float] = field(default_factory=dict)
    seconds: float = math.nan
    error: str = ""
