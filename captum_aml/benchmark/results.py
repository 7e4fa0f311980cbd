"""Results of a benchmark as plain values: the source of every page, table and figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from captum_aml.methods import Setting
from captum_aml.metrics import Metric
from captum_aml.visualization import TextCard

#: What a row is to the comparison: ours, one of the methods it has to beat, or the floor.
Role: TypeAlias = Literal["learned", "baseline", "random"]


@dataclass(frozen=True)
class Comparison:
    """A paired test of a row against the best baseline, on the same texts.

    Attributes:
        baseline: The method compared with.
        difference: Mean of this row minus mean of that one.
        p_value: Two-sided, corrected for the number of comparisons.
        better: Whether the difference points in the metric's direction.
    """

    baseline: str
    difference: float
    p_value: float
    better: bool


@dataclass(frozen=True)
class Cell:
    """One metric of one row.

    Attributes:
        mean: Mean over examples and seeds.
        low: Lower end of the 95 % bootstrap interval.
        high: Its upper end.
        n: Texts with a value.
        comparison: The test against the best baseline; None for baselines and where none was made.
    """

    mean: float
    low: float
    high: float
    n: int
    comparison: Comparison | None = None


@dataclass
class Cost:
    """Passes, time and memory of a block of code; in a row, means per text.

    Attributes:
        forward_passes: Texts sent through the explained model, or through a masker.
        backward_passes: Gradients taken through either.
        seconds: Wall time.
        peak_memory_mib: The highest use of memory beyond what was in use before, in MiB; None
            where it cannot be measured.
    """

    forward_passes: float = 0.0
    backward_passes: float = 0.0
    seconds: float = 0.0
    peak_memory_mib: float | None = None

    @classmethod
    def unknown(cls) -> Cost:
        """The cost of what nobody measured."""
        return cls(math.nan, math.nan, math.nan)

    def shared(self, n_texts: int) -> Cost:
        """The cost of one of several texts that were explained together."""
        return Cost(
            self.forward_passes / n_texts,
            self.backward_passes / n_texts,
            self.seconds / n_texts,
            self.peak_memory_mib,
        )


@dataclass(frozen=True)
class Failure:
    """A text that a method could not explain.

    Attributes:
        index: The text's number in the data.
        seed: The seed of the run.
        message: What went wrong.
    """

    index: int
    seed: int
    message: str


@dataclass(frozen=True)
class MethodRow:
    """One method.

    Attributes:
        method: Its name.
        role: What it is to the comparison.
        cells: By metric; a metric without any value is left out.
        cost: Of explaining one text.
        seeds: The seeds it was run with; one for methods without randomness.
        training: For a fitted masker what its training took, in words and figures; else "".
        rank: Mean of its ranks over the metrics that have a direction; None if it has none.
        failures: Texts it could not explain.
        settings: Everything that decided its scores.
    """

    method: str
    role: Role
    cells: Mapping[str, Cell] = field(default_factory=dict)
    cost: Cost = field(default_factory=Cost.unknown)
    seeds: Sequence[int] = ()
    training: str = ""
    rank: float | None = None
    failures: Sequence[Failure] = ()
    settings: Mapping[str, Setting] = field(default_factory=dict)


@dataclass(frozen=True)
class Curve:
    """Mean probability of the explained class while tokens are taken away, most important first.

    Attributes:
        method: The method.
        shares: Shares of the tokens taken away, rising from 0 to 1.
        probabilities: Mean over texts and seeds at each share.
    """

    method: str
    shares: Sequence[float]
    probabilities: Sequence[float]


@dataclass(frozen=True)
class BenchmarkResults:
    """Everything that a benchmark found and how.

    Attributes:
        model: The explained model, as the user named it.
        data: The data, as the user named it.
        n_texts: The number of texts.
        metrics: The columns.
        rows: The methods.
        curves: Removal curves.
        examples: Some texts with every method's scores.
        protocol: What was measured and how, in sentences.
        settings: The run's settings.
        versions: Versions of the packages that took part.
        fingerprints: Digests of model, data and maskers.
        notes: What a reader has to know beyond that, such as methods left out and why.
    """

    model: str
    data: str
    n_texts: int
    metrics: Sequence[Metric]
    rows: Sequence[MethodRow]
    curves: Sequence[Curve] = ()
    examples: Sequence[TextCard] = ()
    protocol: Sequence[str] = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
