"""Shared parts of the metrics of attributions: checked arguments, rankings, bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypedDict

import torch
from torch import Tensor
from tqdm.auto import tqdm
from typing_extensions import Unpack

from captum_aml._utils.checks import as_count, is_integral
from captum_aml.exceptions import InvalidInputError, NonFiniteError
from captum_aml.masking.call import Call
from captum_aml.metrics.evaluation import RemovalEvaluator
from captum_aml.readout import as_float
from captum_aml.typing import ForwardFunc, TensorOrTuple

#: Examples that are evaluated together, in batches: what is held at once stays the same however
#: many examples there are.
_BATCHES_PER_WINDOW = 8

#: One value, or one row of values, per example, from an evaluator and scores (N, U).
Score = Callable[[RemovalEvaluator, Tensor], Tensor]


class EvaluationOptions(TypedDict, total=False):
    """Keyword arguments of every metric that evaluates the explained model.

    Attributes:
        output: What the forward function returns, see :mod:`captum_aml.readout`. Default: "auto".
        batch_size: The most inputs in a pass of the model; memory is bounded by it whatever the
            number of examples. Default: 32.
        show_progress: Whether to show a progress bar. Default: False.
    """

    output: str
    batch_size: int
    show_progress: bool


def score_examples(
    score: Score,
    forward_func: ForwardFunc,
    call: Call,
    attributions: TensorOrTuple,
    **options: Unpack[EvaluationOptions],
) -> Tensor:
    """Applies a metric to all examples, a window of them at a time.

    Returns:
        What ``score`` gives, for all examples, in float64 on the CPU.

    Raises:
        InvalidInputError: An argument has a wrong type, shape or range.
        NonFiniteError: Scores, or the model's output, are NaN or infinite.
    """
    scores = unit_scores(attributions, call)
    parts = []
    start = 0
    for evaluator in evaluators(forward_func, call, **options):
        stop = start + evaluator.n_examples
        parts.append(score(evaluator, scores[start:stop].to(evaluator.tokens.device)).cpu())
        start = stop
    return torch.cat(parts)


def evaluators(
    forward_func: ForwardFunc,
    call: Call,
    *,
    output: str = "auto",
    batch_size: int = 32,
    show_progress: bool = False,
) -> Iterator[RemovalEvaluator]:
    """Evaluators for a window of a call's examples at a time."""
    n_examples = call.n_examples
    size = _BATCHES_PER_WINDOW * as_count("batch_size", batch_size, least=1)
    starts = range(0, n_examples, size)
    for start in tqdm(starts, desc="Evaluating", unit="window", disable=not show_progress):
        rows = call.rows(start, min(start + size, n_examples))
        evaluator = RemovalEvaluator(forward_func, rows, output=output, batch_size=batch_size)
        output = evaluator.output_kind
        yield evaluator


def unit_scores(attributions: TensorOrTuple, call: Call) -> Tensor:
    """One score per token, (N, U), from attributions in any form that methods return.

    Attributions of the inputs' shape, (N, L) for embeddings (N, L, D), or those of an embedding
    layer (N, L, D) for ids (N, L); those of a token's channels are added up.

    Raises:
        InvalidInputError: They are no tensor of real numbers, or have another shape.
        NonFiniteError: One is NaN or infinite.
    """
    given = attributions if isinstance(attributions, tuple) else (attributions,)
    inputs = call.inputs[0]
    if len(given) != 1 or len(call.inputs) != 1:
        raise InvalidInputError(
            f"attributions: expected one tensor for one tensor of inputs, got {len(given)} for "
            f"{len(call.inputs)}"
        )
    scores = given[0]
    if not isinstance(scores, Tensor):
        raise InvalidInputError(f"attributions: expected a tensor, got {type(scores).__name__}")
    if scores.dtype == torch.bool or scores.is_complex():
        raise InvalidInputError(f"attributions: expected real numbers, got {scores.dtype}")
    shapes = [tuple(inputs.shape)] + ([tuple(inputs.shape[:2])] if inputs.dim() == 3 else [])
    of_layer = inputs.dim() == 2 and is_integral(inputs) and scores.dim() == 3
    if tuple(scores.shape[:2] if of_layer else scores.shape) not in shapes:
        raise InvalidInputError(
            f"attributions: expected shape {' or '.join(map(str, shapes))} as the inputs, got "
            f"{tuple(scores.shape)}"
        )
    scores = scores.detach()
    if not bool(torch.isfinite(scores).all()):
        rows = (~torch.isfinite(scores)).reshape(len(scores), -1).any(dim=1).nonzero()
        raise NonFiniteError(
            "attributions: expected finite scores, got NaN or an infinite one in the examples "
            f"{rows.flatten().tolist()[:10]}"
        )
    scores = scores.double()
    if of_layer or inputs.dim() == scores.dim() == 3:
        scores = scores.sum(dim=2)
    return scores.reshape(call.n_examples, -1)


def parse_scores(
    attributions: Tensor, tokens: Tensor | None, *, name: str = "attributions"
) -> tuple[Tensor, Tensor]:
    """Checks scores and the positions that count.

    Args:
        attributions: Scores (N, L).
        tokens: Bool (N, L), or None for all positions.
        name: What an error calls the scores. Default: "attributions"

    Returns:
        A copy of the scores, detached, at least float32 and 0 where nothing counts; and the
        positions, bool, on the same device; both (N, L).

    Raises:
        InvalidInputError: An argument has a wrong type, shape or dtype.
        NonFiniteError: A score that counts is NaN or infinite.
    """
    if not isinstance(attributions, Tensor):
        raise InvalidInputError(
            f"{name}: expected a tensor of scores (N, L), got {type(attributions).__name__}"
        )
    if attributions.dim() != 2 or not attributions.is_floating_point() or not attributions.numel():
        raise InvalidInputError(
            f"{name}: expected floating point scores (N, L) with N and L at least 1, got "
            f"{attributions.dtype} of shape {tuple(attributions.shape)}"
        )
    if tokens is None:
        counted = torch.ones_like(attributions, dtype=torch.bool)
    elif not isinstance(tokens, Tensor):
        raise InvalidInputError(f"tokens: expected a bool tensor, got {type(tokens).__name__}")
    elif tokens.dtype != torch.bool or tokens.shape != attributions.shape:
        raise InvalidInputError(
            f"tokens: expected bool of shape {tuple(attributions.shape)} as the scores, got "
            f"{tokens.dtype} of shape {tuple(tokens.shape)}"
        )
    else:
        counted = tokens.to(attributions.device)
    scores = as_float(attributions.detach()).masked_fill(~counted, 0.0)
    bad = ~torch.isfinite(scores).all(dim=1)
    if bool(bad.any()):
        raise NonFiniteError(
            f"{name}: expected finite scores, got NaN or an infinite value "
            f"(rows {bad.nonzero().flatten().tolist()[:10]})"
        )
    return scores, counted


def ranks(scores: Tensor, tokens: Tensor) -> Tensor:
    """The place of each token in the ranking by value, highest first, from 0, (N, U).

    Ties go by position. Units that are no tokens come after all tokens.

    Args:
        scores: (N, U).
        tokens: Which units are tokens, (N, U).
    """
    order = torch.argsort(
        scores.masked_fill(~tokens, -torch.inf), dim=1, descending=True, stable=True
    )
    # Minus infinity ties with no finite score, so what is no token comes last.
    places = torch.arange(scores.shape[1], device=scores.device, dtype=torch.int32).expand_as(order)
    return torch.empty_like(order, dtype=torch.int32).scatter_(1, order, places)
