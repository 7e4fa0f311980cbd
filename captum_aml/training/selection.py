"""Metrics of the registry on validation batches, to choose the best weights by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from captum_aml._utils.checks import as_count
from captum_aml._utils.options import comma_separated
from captum_aml.exceptions import InvalidInputError
from captum_aml.masking.call import Call, parse_call
from captum_aml.metrics import AOPCLimits, Convention, MetricInputs, Removal, RemovalEvaluator
from captum_aml.metrics.limits import LimitSearch, limits_of
from captum_aml.metrics.registry import available_metrics, bind, directions, metric_of
from captum_aml.metrics.scoring import unit_scores
from captum_aml.training.data import example_keys
from captum_aml.training.settings import ValidationMetric


def validation_metrics() -> tuple[str, ...]:
    """The names that ``select_by`` takes beside ``loss``; an operator may follow.

    Not those of complexity, of which neither direction is better, nor those of plausibility, which
    need human rationales: :class:`MaskerScore` takes these, batches do not.
    """
    metrics = map(metric_of, available_metrics())
    return tuple(
        metric.name
        for metric in metrics
        if metric.higher_is_better is not None and metric.group != "plausibility"
    )


def named_metric(select_by: str) -> ValidationMetric:
    """The metric of that name, or the signed sum of several that commas separate.

    Raises:
        InvalidInputError: A name is unknown, or of a metric that cannot choose from batches; the
            message lists those that can.
    """
    names = comma_separated(select_by)
    known = validation_metrics()
    for name in names or [select_by]:
        base = name.partition("@")[0]
        if base in known:
            continue
        why = ""
        if base in available_metrics() and metric_of(base).group == "plausibility":
            why = "; it needs human rationales, which batches do not hold: a MaskerScore takes them"
        elif base in available_metrics():
            why = "; neither of its directions is better"
        raise InvalidInputError(
            f"select_by: expected one of loss, {', '.join(known)}, or a ValidationMetric, got "
            f"{name!r}{why}"
        )
    return MaskerScore(names).metric


def signed_sum(signs: Mapping[str, int]) -> str:
    """The sum in words, ``aopc-comprehensiveness - aopc-sufficiency`` for instance."""
    ordered = sorted(signs, key=lambda name: -signs[name])  # what is added goes first
    words = " ".join(f"{'+' if signs[name] > 0 else '-'} {name}" for name in ordered)
    return words.removeprefix("+ ")


class MaskerScore:
    """Metrics of the registry, for the masks that a masker proposes for validation batches.

    The searches for the limits of normalized AOPC are made once for a batch. Where the batches are
    given, so is every removal of tokens: this is for scoring many maskers on the same few hundred
    examples, and what is remembered grows with the number of different removals.

    Args:
        metrics: Names of metrics, perhaps with an operator: ``aopc-sufficiency@mask``.
        batches: Validation batches as ``fit`` takes them, each a mapping of ``attribute``'s
            arguments. Default: None, any batches, of which nothing but limits is remembered.
        rationales: Human rationales by position of each of ``batches``, (N, L) of bool, or None.
            Default: None, none.
        convention: The convention. Default: "default".
        batch_size: Removals in one pass. Default: 32.

    Attributes:
        signs: By metric 1 where higher is better and -1 where lower is.
        batches: The batches.

    Raises:
        InvalidInputError: A metric is unknown or has no direction, or an argument is not as
            described.
    """

    def __init__(
        self,
        metrics: Sequence[str],
        batches: Sequence[Mapping[str, Any]] | None = None,
        rationales: Sequence[Tensor | None] | None = None,
        *,
        convention: str | Convention = "default",
        batch_size: int = 32,
    ) -> None:
        self._metrics = bind(metrics, convention)
        self.signs = directions(self._metrics)
        self.batches = list(batches or ())
        self._batch_size = as_count("batch_size", batch_size, least=1)
        self._limits: dict[tuple[bytes, Removal], AOPCLimits] = {}
        self._known: dict[bytes | None, MetricInputs] = {}
        self._rationales: dict[bytes | None, Tensor | None] | None = None
        if batches is not None:
            given = [None] * len(self.batches) if rationales is None else rationales
            keys = [_key(_call(batch)) for batch in self.batches]
            if None in keys:
                raise InvalidInputError(
                    "batches: expected further arguments that are tensors, numbers or strings, got "
                    "others"
                )
            self._rationales = dict(zip(keys, given, strict=True))

    @property
    def metric(self) -> ValidationMetric:
        """The criterion for the best weights: the metric, or the signed sum of several.

        Where ``batches`` were given they have to be the validation batches. Of several metrics an
        example counts if it has a value of every one.
        """
        if len(self.signs) == 1:
            ((name, sign),) = self.signs.items()
            return ValidationMetric(name, partial(self._sum, signs={name: 1}), sign > 0)
        return ValidationMetric(
            signed_sum(self.signs), partial(self._sum, signs=self.signs), higher_is_better=True
        )

    # The attribution is one of captum_aml.attr, which is built on top of this module; here and
    # below.
    def __call__(self, attribution: Any) -> dict[str, float]:
        """The mean of each metric over the examples that have a value of every one of them.

        So their signed sum is the mean that ``metric`` leads to, which counts the same examples.

        Args:
            attribution: A fitted attribution.

        Raises:
            InvalidInputError: No example has a value for a metric, or for all of them.
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
        """The sum (N,), NaN for an example without a value of one: means leave it out."""
        values = self._values(attribution, batch)
        return torch.stack([sign * values[name] for name, sign in signs.items()]).sum(dim=0)

    @torch.no_grad()
    def _values(self, attribution: Any, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """By metric the values (N,) of a batch's examples, on the CPU."""
        call = _call(batch)
        scores = unit_scores(attribution.attribute(**batch, n_steps=0), call)
        groups = batch.get("feature_mask")
        if groups is not None and attribution.multiplies_by_inputs:
            scores = _group_sums(scores, groups)
        inputs = self._inputs(attribution, call)
        scores = scores.to(inputs.tokens.device)
        return {entry.metric.name: entry(inputs, scores).double().cpu() for entry in self._metrics}

    def _inputs(self, attribution: Any, call: Call) -> MetricInputs:
        key = None if self._rationales is None else _key(call)
        if key in self._known:
            return self._known[key]
        if self._rationales is not None and key not in self._rationales:
            raise InvalidInputError(
                "val_batches: expected the batches that the metric is for, got others"
            )
        evaluator = RemovalEvaluator(
            attribution.forward_func, call, output=attribution.output, batch_size=self._batch_size
        )
        inputs = MetricInputs(
            evaluator,
            limits_of=partial(self._limits_of, call, evaluator),
            rationales=None if self._rationales is None else self._rationales[key],
            embedding_layer=_embedding_layer(attribution),
        )
        if key is not None:
            self._known[key] = inputs
        return inputs

    def _limits_of(self, call: Call, evaluator: RemovalEvaluator, removal: Removal) -> AOPCLimits:
        key = _key(call)
        if key is not None and (key, removal) in self._limits:
            return self._limits[key, removal]
        found = limits_of(evaluator, removal, LimitSearch())
        if key is not None:
            self._limits[key, removal] = found
        return found


def _call(batch: Mapping[str, Any]) -> Call:
    names = ("inputs", "baselines", "target", "additional_forward_args")
    return parse_call(**{name: batch[name] for name in names if name in batch})


def _group_sums(scores: Tensor, groups: Any) -> Tensor:
    """Contributions of tokens (N, U) as those of their groups, which share them out evenly.

    As they are where groups are not of tokens.
    """
    if not isinstance(groups, Tensor) or groups.dim() > 2 or groups.shape[-1] != scores.shape[1]:
        return scores
    number = groups.to(scores.device).unique(return_inverse=True)[1].expand_as(scores)
    sums = scores.new_zeros(len(scores), int(number.max()) + 1).scatter_add(1, number, scores)
    return sums.gather(1, number)


def _key(call: Call) -> bytes | None:
    """The keys of batches, wherever their tensors lie; None where there are none."""
    target = () if call.target is None else (call.target,)
    keys = example_keys(call, *call.baselines, *target)
    return None if keys is None else b"".join(keys)


def _embedding_layer(attribution: Any) -> nn.Module | None:
    """The layer that embeds ids, as far as the attribution knows it."""
    for layer in (*getattr(attribution, "embedding_layers", ()), getattr(attribution, "layer", 0)):
        if isinstance(layer, nn.Module):
            return layer
    return None
