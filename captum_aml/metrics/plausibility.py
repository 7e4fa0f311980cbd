r"""Agreement of token scores with the rationales that people marked.

Tokens are ranked by value, highest first, tokens of equal value by position. With
:math:`y_i \in \{0, 1\}` for whether token i is in the rationale, :math:`R = \sum_i y_i` and
:math:`T_k` the k tokens ranked first:

.. math::
    \mathrm{AUPRC} &= \sum_j (r_j - r_{j-1}) \, \tfrac{1}{2} (p_j + p_{j-1}) \\
    \mathrm{AP} &= \sum_j (r_j - r_{j-1}) \, p_j \\
    \mathrm{F1} &= |T_R \cap y| \,/\, R \\
    \text{IOU-F1} &= 2 h \,/\, (P + G) \\
    \mathrm{recall}@k &= |T_k \cap y| \,/\, R

where :math:`p_j, r_j` are precision and recall of the tokens that score at least the j-th largest
distinct value (:math:`p_0 = 1, r_0 = 0`), and P, G and h are the numbers of predicted spans, of
gold spans, and of predicted spans that overlap a gold span enough.

Every value is from 0 to 1, higher is better. It says whether an explanation looks right to people,
not whether it is true to the model. Each function gives one value per example. An example without
any rationale token has NaN. Where every token is in the rationale all rankings are the same, and
the two areas, which rate the ranking alone, have NaN as well; the others keep their value. A
rationale's tokens that do not count (``tokens``) are as if they were not there, and end a span.

Source: DeYoung et al., "ERASER: A Benchmark to Evaluate Rationalized NLP Models", ACL 2020, section
4.1, and its published code. Deviations: ERASER averages precision and recall over the data before
it takes F1, here each example has its own F1; its code counts the AUPRC of examples whose tokens
are all of one kind, which it leaves out for AP only; models there choose how many tokens they
predict, here it is as many as the rationale has; its gold spans are as annotated, here spans that
touch are one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from numbers import Real
from typing import Any, TypeVar

import torch
from torch import Tensor

from captum_aml._utils.checks import as_count, is_integral
from captum_aml._utils.optional import require
from captum_aml.exceptions import InvalidInputError
from captum_aml.metrics.registry import Metric, MetricInputs, register_metric
from captum_aml.metrics.scoring import parse_scores, ranks

_F = TypeVar("_F", bound=Callable[..., Tensor])


def _registered(title: str, description: str, *, name: str = "") -> Callable[[_F], _F]:
    """Registers a metric of agreement, by its function's name if no other one is given."""

    def register(of: _F) -> _F:
        def compute(inputs: MetricInputs, scores: Tensor, *_: object) -> Tensor:
            if inputs.rationales is None:
                return torch.full((len(scores),), torch.nan, dtype=torch.float64)
            return of(scores.cpu(), inputs.rationales.cpu(), inputs.tokens.cpu()).double()

        known = name or of.__name__.replace("_", "-")
        register_metric(Metric(known, title, True, "plausibility", description))(compute)
        return of

    return register


@_registered(
    "AUPRC", "Area under the precision-recall curve of the scores against the human rationale."
)
def auprc(attributions: Tensor, rationales: Tensor, tokens: Tensor | None = None) -> Tensor:
    r"""Area under the precision-recall curve by the trapezoidal rule; higher is better.

    .. math:: \sum_j (r_j - r_{j-1}) \, \tfrac{1}{2} (p_j + p_{j-1})

    Args:
        attributions: Scores (N, L).
        rationales: Bool, or integers 0 and 1, (N, L): the tokens that people marked.
        tokens: Bool (N, L), the positions that count. Default: None, all.

    Returns:
        Tensor (N,), at least float32; NaN where no token, or every token, is in the rationale.

    Raises:
        ImportError: scikit-learn is not installed.
        InvalidInputError: An argument has a wrong type, shape, dtype or value.
        NonFiniteError: A score that counts is NaN or infinite.

    Source: ERASER (see the module), soft rationales.
    """
    require("sklearn", package="scikit-learn", feature="auprc")
    # scikit-learn is published without types.
    from sklearn.metrics import auc, precision_recall_curve  # type: ignore[import-untyped]

    def area(labels: Any, scores: Any) -> float:  # NumPy arrays, which have no better type here
        precision, recall, _ = precision_recall_curve(labels, scores)
        return float(auc(recall, precision))

    return _by_example(area, attributions, rationales, tokens)


@_registered("Avg. precision", "Average precision of the scores against the human rationale.")
def average_precision(
    attributions: Tensor, rationales: Tensor, tokens: Tensor | None = None
) -> Tensor:
    r"""Precision averaged over the steps in recall, without interpolation; higher is better.

    .. math:: \sum_j (r_j - r_{j-1}) \, p_j

    Arguments, result and errors are those of :func:`auprc`.

    Source: ERASER (see the module), soft rationales.
    """
    require("sklearn", package="scikit-learn", feature="average_precision")
    from sklearn.metrics import average_precision_score

    return _by_example(average_precision_score, attributions, rationales, tokens)


@_registered("Token F1", "F1 of the top tokens, as many as the human rationale has.")
def token_f1(attributions: Tensor, rationales: Tensor, tokens: Tensor | None = None) -> Tensor:
    r"""F1 of the R tokens ranked first, R being the rationale's size; higher is better.

    .. math:: |T_R \cap y| \,/\, R

    As many tokens are predicted as there are, so precision, recall and F1 are one number, which is
    also ``recall_at_k`` with ``k=None``. Arguments and errors are those of :func:`auprc`.

    Returns:
        Tensor (N,), at least float32; NaN for an example without rationale.

    Source: ERASER (see the module), hard rationales.
    """
    return recall_at_k(attributions, rationales, tokens)


@_registered(
    "IOU-F1",
    "F1 of the spans that the top tokens form, as many as the human rationale has; a span counts "
    "if it shares half of its union with one of the rationale's.",
)
def iou_f1(
    attributions: Tensor,
    rationales: Tensor,
    tokens: Tensor | None = None,
    *,
    threshold: float = 0.5,
) -> Tensor:
    r"""F1 of spans that match if they overlap enough; higher is better.

    .. math::
        \text{IOU-F1} = \frac{2 h}{P + G}, \qquad
        h = \sum_{s \in \text{predicted}} \Bigl[\max_{g \in \text{gold}}
        \frac{|s \cap g|}{|s \cup g|} \ge \text{threshold}\Bigr]

    Predicted spans, P in number, are the longest runs of neighbours among the R tokens ranked
    first, gold spans, G in number, those of the rationale's tokens. A position that does not count
    ends a span. Precision is h / P and recall h / G: hits are predicted spans in both.

    Args:
        attributions: As for :func:`auprc`.
        rationales: Likewise.
        tokens: Likewise.
        threshold: The intersection over union that makes a hit, from 0.5 to 1. Below 0.5 several
            predicted spans could hit one gold span and recall exceed 1. Default: 0.5

    Returns:
        Tensor (N,), at least float32; NaN for an example without rationale.

    Raises:
        InvalidInputError: An argument has a wrong type, shape, dtype or value.
        NonFiniteError: A score that counts is NaN or infinite.

    Source: ERASER (see the module), ``partial_match_score`` of its code, for one example.
    """
    if isinstance(threshold, bool) or not isinstance(threshold, Real) or not 0.5 <= threshold <= 1:
        raise InvalidInputError(f"threshold: expected a number from 0.5 to 1, got {threshold!r}")
    scores, gold, counted = _parse(attributions, rationales, tokens)
    predicted = ranks(scores, counted) < gold.sum(dim=1, keepdim=True)
    values = [
        _span_f1(_runs(p), _runs(g), float(threshold))
        for p, g in zip(predicted.tolist(), gold.tolist(), strict=True)
    ]
    return scores.new_tensor(values)


def recall_at_k(
    attributions: Tensor,
    rationales: Tensor,
    tokens: Tensor | None = None,
    *,
    k: int | None = None,
) -> Tensor:
    r"""Share of the rationale's tokens among the k tokens ranked first; higher is better.

    .. math:: |T_k \cap y| \,/\, R

    Args:
        attributions: As for :func:`auprc`.
        rationales: Likewise.
        tokens: Likewise.
        k: How many tokens to look at, all of them where an example has fewer. With k below R the
            value cannot reach 1. Default: None, R of each example.

    Returns:
        Tensor (N,), at least float32; NaN for an example without rationale.

    Raises:
        InvalidInputError: An argument has a wrong type, shape, dtype or value.
        NonFiniteError: A score that counts is NaN or infinite.
    """
    if k is not None:
        k = as_count("k", k, least=1)
    scores, gold, counted = _parse(attributions, rationales, tokens)
    sizes = gold.sum(dim=1)
    top = ranks(scores, counted) < (sizes if k is None else torch.full_like(sizes, k))[:, None]
    return (top & gold).sum(dim=1).to(scores) / sizes.to(scores)


_registered(
    "Recall at 10", "Share of the human rationale among the top ten tokens.", name="recall-at-10"
)(partial(recall_at_k, k=10))


def rationale_labels(
    offsets: Sequence[Sequence[int]],
    spans: Sequence[Sequence[int]],
    *,
    text_length: int | None = None,
) -> Tensor:
    """True for tokens of a text with characters in a marked span.

    Args:
        offsets: Start and end (exclusive) of each of the L tokens, in characters. Tokens without
            characters, such as special tokens at (0, 0), are in no rationale.
        spans: Start and end (exclusive) of each marked span, in characters; they may overlap.
        text_length: The text's number of characters. Default: None, ends are not checked.

    Returns:
        Bool tensor (L,).

    Raises:
        InvalidInputError: A span or an offset is no pair of integers, starts before the text or
            ends after it, or ends before it starts; or a span is empty.
    """
    if text_length is not None:
        text_length = as_count("text_length", text_length)
    marked = [_parse_span("spans", i, s, text_length, least=1) for i, s in enumerate(spans)]
    places = [_parse_span("offsets", i, o, text_length, least=0) for i, o in enumerate(offsets)]
    labels = [
        start < end and any(start < stop and first < end for first, stop in marked)
        for start, end in places
    ]
    return torch.tensor(labels, dtype=torch.bool)


def rationale_spans(text: str, marks: Sequence[float]) -> list[tuple[int, int]]:
    """Spans of characters of a rationale that is given as 0 or 1 for each word.

    Words are what white space separates, as in the data of ERASER, HateXplain and e-SNLI. Marked
    words that follow each other make one span.

    Args:
        text: The text.
        marks: 1 for each of its words that people marked, 0 for each other one.

    Returns:
        Start and end (exclusive) of each span, as :func:`rationale_labels` takes them.

    Raises:
        InvalidInputError: There are more or fewer marks than words, or one is not 0 or 1.
    """
    words = [word.span() for word in re.finditer(r"\S+", text)]
    if len(marks) != len(words):
        raise InvalidInputError(
            f"rationale: expected 0 or 1 for each of the text's {len(words)} words, got "
            f"{len(marks)} numbers"
        )
    wrong = [mark for mark in marks if mark not in (0, 1)]
    if wrong:
        raise InvalidInputError(f"rationale: expected 0 or 1 for each word, got {wrong[0]!r}")
    runs = _runs([bool(mark) for mark in marks])
    return [(words[first][0], words[stop - 1][1]) for first, stop in runs]


def _parse(
    attributions: Tensor, rationales: Tensor, tokens: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, the rationale's tokens that count, and all that count, each (N, L)."""
    scores, counted = parse_scores(attributions, tokens)
    if not isinstance(rationales, Tensor):
        raise InvalidInputError(
            f"rationales: expected a bool or integer tensor, got {type(rationales).__name__}"
        )
    if rationales.shape != scores.shape:
        raise InvalidInputError(
            f"rationales: expected shape {tuple(scores.shape)} as the attributions, got "
            f"{tuple(rationales.shape)}"
        )
    if rationales.dtype != torch.bool and not is_integral(rationales):
        raise InvalidInputError(f"rationales: expected bool or integers, got {rationales.dtype}")
    labels = rationales.to(scores.device)
    # What marks padding among integer labels, such as -100, is no label.
    foreign = counted & (labels != 0) & (labels != 1)
    if bool(foreign.any()):
        raise InvalidInputError(
            "rationales: expected 0 or 1 wherever a token counts, got "
            f"{labels[foreign].unique().tolist()[:10]}"
        )
    return scores, (labels == 1) & counted, counted


def _by_example(
    area: Callable[[Any, Any], float],  # of NumPy arrays
    attributions: Tensor,
    rationales: Tensor,
    tokens: Tensor | None,
) -> Tensor:
    """A curve's area for each example, (N,); NaN where all its tokens are of one kind."""
    scores, gold, counted = _parse(attributions, rationales, tokens)
    values = []
    for row, labels, here in zip(scores.cpu(), gold.cpu(), counted.cpu(), strict=True):
        marked = labels[here]
        mixed = bool(marked.any()) and not bool(marked.all())
        values.append(area(marked.numpy(), row[here].numpy()) if mixed else torch.nan)
    return scores.new_tensor(values)


def _runs(labels: Sequence[bool]) -> list[tuple[int, int]]:
    """Start and end (exclusive) of the longest runs of true labels."""
    starts = [i for i, label in enumerate(labels) if label and (i == 0 or not labels[i - 1])]
    ends = [i for i in range(1, len(labels) + 1) if labels[i - 1] and not any(labels[i : i + 1])]
    return list(zip(starts, ends, strict=True))


def _span_f1(
    predicted: list[tuple[int, int]], gold: list[tuple[int, int]], threshold: float
) -> float:
    hits = sum(any(_iou(p, g) >= threshold for g in gold) for p in predicted)
    return 2 * hits / (len(predicted) + len(gold)) if gold else torch.nan


def _iou(a: tuple[int, int], b: tuple[int, int]) -> float:
    """Intersection over union of two spans that are not empty."""
    common = max(0, min(a[1], b[1]) - max(a[0], b[0]))
    return common / (a[1] - a[0] + b[1] - b[0] - common)


def _parse_span(
    name: str, index: int, span: Sequence[int], text_length: int | None, *, least: int
) -> tuple[int, int]:
    """A span as two integers, at least ``least`` characters long and inside the text."""
    shown = f"{name}[{index}]"
    try:
        start, end = span
    except (TypeError, ValueError):
        raise InvalidInputError(f"{shown}: expected a start and an end, got {span!r}") from None
    start, end = as_count(f"{shown} start", start), as_count(f"{shown} end", end)
    if end - start < least:
        order = "below" if least else "at or below"
        raise InvalidInputError(f"{shown}: expected a start {order} the end, got {(start, end)}")
    if text_length is not None and end > text_length:
        raise InvalidInputError(
            f"{shown}: expected an end at or below the text's length {text_length}, got "
            f"{(start, end)}"
        )
    return start, end
