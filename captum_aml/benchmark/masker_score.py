"""Measures of the benchmark on validation texts, while a masker is being fitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from captum_aml._utils.checks import as_count
from captum_aml.benchmark.measures import Window, bind
from captum_aml.benchmark.plan import Plan, ranges
from captum_aml.benchmark.scoring import Search, rationales_of
from captum_aml.exceptions import InvalidInputError
from captum_aml.metrics import AOPCLimits, Convention, Removal, RemovalEvaluator
from captum_aml.metrics.conventions import resolve_convention
from captum_aml.metrics.limits import limits_of
from captum_aml.text import TextBatch, TextModel
from captum_aml.text.data import LabelledText
from captum_aml.training import ValidationMetric


def directions(metrics: Sequence[str], preset: str | Convention = "default") -> dict[str, int]:
    """By metric 1 where higher is better and -1 where lower is.

    Raises:
        InvalidInputError: A metric is unknown, given twice, or has no direction; or the preset is
            unknown.
    """
    signs = {}
    for entry in bind(metrics, resolve_convention(preset)):
        higher = entry.measure.higher_is_better
        if higher is None:
            raise InvalidInputError(
                "metrics: expected ones of which it is known whether higher or lower is better, "
                f"got {entry.measure.name!r}"
            )
        signs[entry.measure.name] = 1 if higher else -1
    return signs


def signed_sum(signs: Mapping[str, int]) -> str:
    """The sum in words, ``aopc-comprehensiveness - aopc-sufficiency`` for instance."""
    ordered = sorted(signs, key=lambda name: -signs[name])  # what is added goes first
    words = " ".join(f"{'+' if signs[name] > 0 else '-'} {name}" for name in ordered)
    return words.removeprefix("+ ")


class MaskerScore:
    """Measures of the benchmark, for the masks that a masker proposes for validation texts.

    The explained class is the one that the model predicts. Every removal of tokens is passed
    through the model once in this object's lifetime: it is made for scoring many maskers on the
    same few hundred texts, and what it remembers grows with the number of different removals.

    Args:
        classifier: The explained model.
        texts: Validation texts; with rationales where a measure needs them.
        metrics: Names of measures, perhaps with an operator: ``aopc-sufficiency@mask``.
        preset: The convention. Default: "default".
        batch_size: Texts, or removals, in one pass. Default: 32.

    Attributes:
        signs: By measure 1 where higher is better and -1 where lower is.
        batches: The texts as validation batches for ``fit``.

    Raises:
        InvalidInputError: There is no text, a measure is unknown or has no direction, or an
            argument is not as described.
    """

    def __init__(
        self,
        classifier: TextModel,
        texts: Sequence[LabelledText],
        metrics: Sequence[str],
        *,
        preset: str | Convention = "default",
        batch_size: int = 32,
    ) -> None:
        if not texts:
            raise InvalidInputError("texts: expected one validation text or more, got none")
        self.signs = directions(metrics, preset)
        self._measures = bind(metrics, resolve_convention(preset))
        self._classifier = classifier
        self._batch_size = as_count("batch_size", batch_size, least=1)
        self._search = Search()
        self._windows: dict[bytes, Window] = {}
        self._batches: dict[bytes, TextBatch] = {}
        self._items: dict[bytes, list[LabelledText]] = {}
        self.batches: list[dict[str, Any]] = []  # keyword arguments of ``attribute``
        plan = Plan.of(classifier, [item.text for item in texts], batch_size=self._batch_size)
        for places in ranges(plan.batch_sizes):
            batch = classifier.collate([plan.texts[place] for place in places])
            key = _key(batch.input_ids)
            self._batches[key] = batch
            self._items[key] = [texts[plan.indices[place]] for place in places]
            self.batches.append(
                {
                    "inputs": batch.input_ids,
                    "baselines": classifier.reference_ids(batch),
                    "additional_forward_args": batch.forward_args,
                }
            )

    @property
    def metric(self) -> ValidationMetric:
        """What ``fit`` can choose the best weights by: the measure, or the signed sum of several.

        It is for these texts alone: ``batches`` have to be the validation batches. Of several
        measures a text counts if it has a value of every one.
        """
        if len(self.signs) == 1:
            ((name, sign),) = self.signs.items()
            return ValidationMetric(name, partial(self._sum, signs={name: 1}), sign > 0)
        return ValidationMetric(
            signed_sum(self.signs), partial(self._sum, signs=self.signs), higher_is_better=True
        )

    def __call__(self, attribution: Any) -> dict[str, float]:
        """The mean of each measure over the texts that have a value of every one of them.

        So their signed sum is the mean that ``metric`` leads to, which counts the same texts.

        Args:
            attribution: A fitted ``AMLAttribution`` or ``LAAttribution``.

        Raises:
            InvalidInputError: No text has a value for a measure, or for all of them.
            NonFiniteError: The model or the masker gave NaN or an infinite value.
        """
        parts = [self._values(attribution, batch) for batch in self.batches]
        values = torch.stack([torch.cat([part[name] for part in parts]) for name in self.signs])
        for name, row in zip(self.signs, values, strict=True):
            if bool(row.isnan().all()):
                raise InvalidInputError(
                    f"metrics: expected some with a value for the validation texts, {name!r} has "
                    "none for any of them"
                )
        complete = values[:, ~values.isnan().any(dim=0)]
        if not complete.shape[1]:
            raise InvalidInputError(
                "metrics: expected a validation text with a value of every one of "
                f"{', '.join(self.signs)}; there is none"
            )
        return dict(zip(self.signs, complete.mean(dim=1).tolist(), strict=True))

    def _sum(self, attribution: Any, batch: Mapping[str, Any], *, signs: dict[str, int]) -> Tensor:
        """The sum (N,), NaN for a text without a value of one measure: means leave it out."""
        values = self._values(attribution, batch)
        return torch.stack([sign * values[name] for name, sign in signs.items()]).sum(dim=0)

    def _values(self, attribution: Any, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """By measure the values (N,) of a batch's texts, on the CPU."""
        window = self._window(_key(batch["inputs"]))
        with self._classifier.evaluating(), torch.no_grad():
            scores = attribution.attribute(**batch, n_steps=0)
            scores = scores.detach().double() * window.ordinary
            return {
                entry.measure.name: entry.function(window, scores).double().cpu()
                for entry in self._measures
            }

    def _window(self, key: bytes) -> Window:
        if key in self._windows:
            return self._windows[key]
        if key not in self._batches:
            raise InvalidInputError(
                "val_batches: expected the batches of the texts that the metric is for, got others"
            )
        batch, classifier = self._batches[key], self._classifier
        with classifier.evaluating():
            evaluator = RemovalEvaluator(
                classifier,
                batch.input_ids,
                classifier.reference_ids(batch),
                batch.forward_args,
                output="logits",
                batch_size=self._batch_size,
            )
        self._windows[key] = Window(
            classifier=classifier,
            evaluator=evaluator,
            ordinary=batch.ordinary,
            rationales=rationales_of(batch, self._items[key]),
            limits_of=partial(self._limits, evaluator, {}),
        )
        return self._windows[key]

    def _limits(
        self, evaluator: RemovalEvaluator, known: dict[str, AOPCLimits], removal: Removal
    ) -> AOPCLimits:
        if removal.name not in known:
            known[removal.name] = limits_of(
                evaluator,
                removal,
                beam_size=self._search.beam_size,
                max_tokens=self._search.max_tokens,
            )
        return known[removal.name]


def _key(ids: Tensor) -> bytes:
    """What tells batches apart, wherever their tensors lie."""
    return repr(tuple(ids.shape)).encode() + ids.detach().cpu().numpy().tobytes()


__all__ = ["MaskerScore", "directions", "signed_sum"]
