"""The benchmark's measures by name, each computed for all texts of a window together.

A name may end in an operator, as in ``aopc-sufficiency@mask``; without one the convention's is
used. Users add their own with ``register_measure``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from captum_aml.benchmark.results import Measure
from captum_aml.exceptions import InvalidInputError
from captum_aml.metrics import (
    REMOVALS,
    AOPCLimits,
    Convention,
    Removal,
    RemovalEvaluator,
    area_under_curve,
    auprc,
    average_precision,
    effective_tokens,
    entropy,
    iou_f1,
    recall_at_k,
    token_f1,
)
from captum_aml.metrics.conventions import PRESETS
from captum_aml.metrics.curves import curve_of
from captum_aml.metrics.faithfulness import comprehensiveness_of, log_odds_of, sufficiency_of
from captum_aml.metrics.limits import normalize
from captum_aml.metrics.removal import resolve_removal
from captum_aml.metrics.soft import soft_of
from captum_aml.text import TextModel

#: Shares at which the removal curves are measured: steps of 10 %.
CURVE_POINTS = 11

#: Draws per text for the soft metrics.
_SOFT_SAMPLES = 5


@dataclass
class Window:
    """Texts that are scored together; N texts, L positions.

    Attributes:
        classifier: The explained model.
        evaluator: Its values for subsets of their tokens.
        ordinary: Where the texts' own tokens are, neither special ones nor padding, (N, L) of
            bool: the positions of an explanation's scores.
        rationales: Human rationales by position, (N, L) of bool; None where no text has any.
        limits_of: Gives the limits of normalized AOPC for a removal operator.
    """

    classifier: TextModel
    evaluator: RemovalEvaluator
    ordinary: Tensor
    rationales: Tensor | None
    limits_of: Callable[[Removal], AOPCLimits]


#: Values (N,) from a window and scores (N, L); NaN where a text has none.
MeasureFunction: TypeAlias = Callable[[Window, Tensor], Tensor]

#: Makes it from the convention and the removal operator, if the name says one.
MeasureFactory: TypeAlias = Callable[[Convention, Removal | None], MeasureFunction]


@dataclass(frozen=True)
class MeasureSpec:
    """A measure's entry.

    Attributes:
        measure: What it is; ``{removal}`` in its description stands for the operator.
        factory: Makes what computes it.
        removal: The operator it uses by itself: the convention's (``"convention"``), that for
            log-odds (``"log-odds"``), a name, or None where nothing is removed.
        needs_rationales: Whether texts without a human rationale have no value.
        needs_limits: Whether it needs a search for the best and the worst ranking.
        is_default: Whether a benchmark measures it unless told otherwise.
    """

    measure: Measure
    factory: MeasureFactory
    removal: str | None = None
    needs_rationales: bool = False
    needs_limits: bool = False
    is_default: bool = True


@dataclass(frozen=True)
class BoundMeasure:
    """A measure with its convention and operator settled.

    Attributes:
        measure: What it is.
        function: What computes it.
        limits: The operator for whose limits it has to be searched, or None.
    """

    measure: Measure
    function: MeasureFunction = field(compare=False)
    limits: Removal | None = None


_REGISTRY: dict[str, MeasureSpec] = {}


def register_measure(entry: MeasureSpec, *, replace: bool = False) -> None:
    """Adds a measure under its name.

    Raises:
        InvalidInputError: The name is taken, empty, or holds an ``@``.
    """
    name = entry.measure.name
    if not name or "@" in name:
        raise InvalidInputError(f"measure: expected a name without '@', got {name!r}")
    if name in _REGISTRY and not replace:
        raise InvalidInputError(f"measure: {name!r} is registered already")
    _REGISTRY[name] = entry


def available_measures() -> tuple[str, ...]:
    """The names of all measures."""
    return tuple(_REGISTRY)


def measure_of(name: str) -> Measure:
    """What a measure is, by its name without an operator.

    Raises:
        InvalidInputError: There is none of that name.
    """
    return _bind(name, PRESETS["default"]).measure


def default_measures(convention: Convention, *, rationales: bool) -> list[str]:
    """What a benchmark measures unless told otherwise.

    The AOPC forms come under a second operator, too: masking where the convention deletes, and
    deletion otherwise.

    Args:
        convention: The convention.
        rationales: Whether there are human rationales.
    """
    second = "mask" if resolve_removal(convention.removal).name == "delete" else "delete"
    names = []
    for name, entry in _REGISTRY.items():
        if not entry.is_default or (entry.needs_rationales and not rationales):
            continue
        names.append(name)
        if entry.removal == "convention" and name.startswith("aopc-"):
            names.append(f"{name}@{second}")
    return names


def bind(names: Sequence[str], convention: Convention) -> list[BoundMeasure]:
    """Measures by name.

    Raises:
        InvalidInputError: A name is unknown or given twice, or its operator is.
    """
    bound = [_bind(name, convention) for name in names]
    if not bound:
        raise InvalidInputError("metrics: expected at least one, got none")
    if len({entry.measure.name for entry in bound}) != len(bound):
        raise InvalidInputError(f"metrics: expected each once, got {', '.join(names)}")
    return bound


def _bind(name: str, convention: Convention) -> BoundMeasure:
    base, _, operator = name.partition("@")
    if base not in _REGISTRY:
        raise InvalidInputError(
            f"metrics: expected some of {', '.join(available_measures())}, got {name!r}"
        )
    entry = _REGISTRY[base]
    if operator and (entry.removal is None or operator not in REMOVALS):
        known = "no operator" if entry.removal is None else f"one of {', '.join(REMOVALS)}"
        raise InvalidInputError(f"metrics: expected {known} after {base!r}, got {name!r}")
    removal = _removal(entry, operator, convention)
    description = entry.measure.description
    title = entry.measure.title
    if removal is not None:
        description = description.replace("{removal}", removal.name)
        title = f"{title} ({removal.name})"
    return BoundMeasure(
        measure=replace(entry.measure, name=name, title=title, description=description),
        function=entry.factory(convention, removal),
        limits=removal if entry.needs_limits else None,
    )


def _removal(entry: MeasureSpec, operator: str, convention: Convention) -> Removal | None:
    if entry.removal is None:
        return None
    own: str | Removal = entry.removal
    if own == "convention":
        own = convention.removal
    elif own == "log-odds":
        own = convention.log_odds_removal
    return resolve_removal(operator or own)


def _faithful(
    name: str,
    title: str,
    of: Callable[..., Tensor],
    *,
    higher: bool,
    aopc: bool,
    description: str,
    removal: str = "convention",
) -> MeasureSpec:
    def factory(convention: Convention, removal: Removal | None) -> MeasureFunction:
        def function(window: Window, scores: Tensor) -> Tensor:
            return of(window.evaluator, scores, convention, removal, aopc=aopc)

        return function

    return MeasureSpec(
        measure=Measure(name, title, higher, "faithfulness", description),
        factory=factory,
        removal=removal,
        is_default=aopc,
    )


def _normalized(name: str, title: str, of: Callable[..., Tensor], *, metric: str) -> MeasureSpec:
    def factory(_: Convention, removal: Removal | None) -> MeasureFunction:
        assert removal is not None

        def function(window: Window, scores: Tensor) -> Tensor:
            values = of(window.evaluator, scores, PRESETS["naopc"], removal, aopc=True)
            return normalize(values, window.limits_of(removal), metric=metric)

        return function

    higher = metric == "comprehensiveness"
    best, worst = ("1", "0") if higher else ("0", "1")
    return MeasureSpec(
        measure=Measure(
            name,
            title,
            higher,
            "faithfulness",
            f"AOPC {metric} over every number of tokens on a scale where {best} is the best "
            f"ranking that a search finds for the text and {worst} the worst; removal by "
            "{removal}.",
        ),
        factory=factory,
        removal="convention",
        needs_limits=True,
        is_default=higher,
    )


def _area(name: str, title: str, *, insertion: bool) -> MeasureSpec:
    def factory(_: Convention, removal: Removal | None) -> MeasureFunction:
        assert removal is not None

        def function(window: Window, scores: Tensor) -> Tensor:
            return area_under_curve(
                curve_of(
                    window.evaluator,
                    scores,
                    removal,
                    n_points=CURVE_POINTS,
                    insertion=insertion,
                )
            )

        return function

    what = "added to nothing" if insertion else "taken away"
    return MeasureSpec(
        measure=Measure(
            name,
            title,
            insertion,
            "faithfulness",
            f"Area under the probability while tokens are {what} in steps of 10 %, most important "
            "first; removal by {removal}.",
        ),
        factory=factory,
        removal="convention",
        is_default=False,
    )


def _soft(name: str, title: str, *, complement: bool) -> MeasureSpec:
    def factory(_: Convention, __: Removal | None) -> MeasureFunction:
        def function(window: Window, scores: Tensor) -> Tensor:
            return soft_of(
                window.evaluator,
                scores,
                window.classifier.embedding_layer,
                complement=complement,
                normalize=False,
                n_samples=_SOFT_SAMPLES,
                seed=0,
            )

        return function

    what = "lost when elements of important" if complement else "kept when elements of unimportant"
    return MeasureSpec(
        measure=Measure(
            name,
            title,
            True,
            "faithfulness",
            f"Probability {what} tokens' embeddings are dropped at random, not normalized; "
            f"{_SOFT_SAMPLES} draws (Zhao and Aletras 2023).",
        ),
        factory=factory,
        is_default=False,
    )


def _plausible(name: str, title: str, of: Callable[..., Tensor], description: str) -> MeasureSpec:
    def factory(_: Convention, __: Removal | None) -> MeasureFunction:
        def function(window: Window, scores: Tensor) -> Tensor:
            if window.rationales is None:
                return torch.full((len(scores),), torch.nan, dtype=torch.float64)
            tokens = window.evaluator.tokens.cpu()
            return of(scores.cpu(), window.rationales, tokens=tokens).double()

        return function

    return MeasureSpec(
        measure=Measure(name, title, True, "plausibility", description),
        factory=factory,
        needs_rationales=True,
    )


def _complex(name: str, title: str, of: Callable[..., Tensor], description: str) -> MeasureSpec:
    def factory(_: Convention, __: Removal | None) -> MeasureFunction:
        def function(window: Window, scores: Tensor) -> Tensor:
            return of(scores.cpu(), tokens=window.evaluator.tokens.cpu()).double()

        return function

    return MeasureSpec(
        measure=Measure(name, title, None, "complexity", description),
        factory=factory,
        is_default=name == "effective-tokens",
    )


_ENTRIES = (
    _faithful(
        "aopc-comprehensiveness",
        "AOPC comp.",
        comprehensiveness_of,
        higher=True,
        aopc=True,
        description="Probability lost without the top tokens, averaged over the convention's "
        "numbers of tokens; removal by {removal}.",
    ),
    _faithful(
        "aopc-sufficiency",
        "AOPC suff.",
        sufficiency_of,
        higher=False,
        aopc=True,
        description="Probability lost with the top tokens alone, averaged over the convention's "
        "numbers of tokens; removal by {removal}.",
    ),
    _faithful(
        "aopc-log-odds",
        "AOPC log-odds",
        log_odds_of,
        higher=False,
        aopc=True,
        removal="log-odds",
        description="Change of the log-probability without the top tokens, in nats, averaged over "
        "the convention's numbers of tokens; removal by {removal}.",
    ),
    _normalized("normalized-aopc", "NAOPC", comprehensiveness_of, metric="comprehensiveness"),
    _normalized("normalized-aopc-sufficiency", "NAOPC suff.", sufficiency_of, metric="sufficiency"),
    _faithful(
        "comprehensiveness",
        "Comp.",
        comprehensiveness_of,
        higher=True,
        aopc=False,
        description="Probability lost without the top tokens, as many as the convention's share; "
        "removal by {removal}.",
    ),
    _faithful(
        "sufficiency",
        "Suff.",
        sufficiency_of,
        higher=False,
        aopc=False,
        description="Probability lost with the top tokens alone, as many as the convention's "
        "share; removal by {removal}.",
    ),
    _faithful(
        "log-odds",
        "Log-odds",
        log_odds_of,
        higher=False,
        aopc=False,
        removal="log-odds",
        description="Change of the log-probability without the top tokens, in nats, as many as "
        "the convention's share; removal by {removal}.",
    ),
    _area("deletion-auc", "Deletion AUC", insertion=False),
    _area("insertion-auc", "Insertion AUC", insertion=True),
    _soft("soft-comprehensiveness", "Soft comp.", complement=True),
    _soft("soft-sufficiency", "Soft suff.", complement=False),
    _plausible(
        "auprc",
        "AUPRC",
        auprc,
        "Area under the precision-recall curve of the scores against the human rationale.",
    ),
    _plausible(
        "average-precision",
        "Avg. precision",
        average_precision,
        "Average precision of the scores against the human rationale.",
    ),
    _plausible(
        "token-f1",
        "Token F1",
        token_f1,
        "F1 of the top tokens, as many as the human rationale has.",
    ),
    _plausible(
        "iou-f1",
        "IOU-F1",
        iou_f1,
        "F1 of the spans that the top tokens form, as many as the human rationale has; a span "
        "counts if it shares half of its union with one of the rationale's.",
    ),
    _plausible(
        "recall-at-10",
        "Recall at 10",
        partial(recall_at_k, k=10),
        "Share of the human rationale among the top ten tokens.",
    ),
    _complex(
        "entropy", "Entropy", entropy, "Entropy in nats of the scores' absolute values as shares."
    ),
    _complex(
        "effective-tokens",
        "Effective tokens",
        effective_tokens,
        "The number of tokens that the scores are spread over: the exponential of their entropy.",
    ),
)
for _entry in _ENTRIES:
    register_measure(_entry)

__all__ = [
    "CURVE_POINTS",
    "BoundMeasure",
    "MeasureFactory",
    "MeasureFunction",
    "MeasureSpec",
    "Window",
    "available_measures",
    "bind",
    "default_measures",
    "measure_of",
    "register_measure",
]
