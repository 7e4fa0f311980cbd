r"""Deletion and insertion curves: the prediction while tokens go, or come, most important first.

With :math:`R_{s}` the top share :math:`s` of an example's tokens, rounded to the nearest number,

.. math:: \mathrm{deletion}(s) = p(X \setminus R_s), \qquad \mathrm{insertion}(s) = p(R_s),

at equally spaced shares from 0 to 1. The area under the deletion curve is better the lower it is,
that under the insertion curve the higher.

Source: Petsiuk et al., "RISE: Randomized Input Sampling for Explanation of Black-box Models", 2018.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from typing_extensions import Unpack

from captum_aml._utils.checks import as_count
from captum_aml.masking.call import Call, parse_call
from captum_aml.metrics.conventions import Convention
from captum_aml.metrics.evaluation import RemovalEvaluator
from captum_aml.metrics.registry import Metric, MetricInputs, register_metric
from captum_aml.metrics.removal import Removal
from captum_aml.metrics.scoring import EvaluationOptions, ranks, score_examples
from captum_aml.typing import Baselines, ForwardFunc, Target, TensorOrTuple

#: Shares at which curves are measured unless given: steps of 10 %.
CURVE_POINTS = 11


class CurveOptions(EvaluationOptions, total=False):
    """Those, and where a curve is measured: keyword arguments of the curves.

    Attributes:
        n_points: The number of shares from 0 to 1, both among them. Default: 11, steps of 10 %.
        removal: How tokens are removed. Default: "delete".
    """

    n_points: int
    removal: str | Removal


def deletion_curve(
    forward_func: ForwardFunc,
    inputs: TensorOrTuple,
    attributions: TensorOrTuple,
    baselines: Baselines = None,
    additional_forward_args: object | None = None,
    target: Target = None,
    **options: Unpack[CurveOptions],
) -> Tensor:
    r"""The prediction while tokens are taken away; the faster it falls, the better.

    Arguments and errors are those of :func:`~captum_aml.metrics.comprehensiveness`, with
    ``n_points`` and ``removal`` of :class:`CurveOptions` in place of its own options.

    Returns:
        Probabilities (N, n_points), float64 on the CPU; NaN for examples without a token.
    """
    call = parse_call(inputs, baselines, target, additional_forward_args)
    return _curve(forward_func, call, attributions, insertion=False, **options)


def insertion_curve(
    forward_func: ForwardFunc,
    inputs: TensorOrTuple,
    attributions: TensorOrTuple,
    baselines: Baselines = None,
    additional_forward_args: object | None = None,
    target: Target = None,
    **options: Unpack[CurveOptions],
) -> Tensor:
    """The prediction while tokens are added to nothing; the faster it rises, the better.

    Arguments, result and errors are those of :func:`deletion_curve`.
    """
    call = parse_call(inputs, baselines, target, additional_forward_args)
    return _curve(forward_func, call, attributions, insertion=True, **options)


def _curve(
    forward_func: ForwardFunc,
    call: Call,
    attributions: TensorOrTuple,
    *,
    insertion: bool,
    n_points: int = CURVE_POINTS,
    removal: str | Removal = "delete",
    **options: Unpack[EvaluationOptions],
) -> Tensor:
    n_points = as_count("n_points", n_points, least=2)
    score = partial(curve_of, removal=removal, n_points=n_points, insertion=insertion)
    return score_examples(score, forward_func, call, attributions, **options)


def area_under_curve(curve: Tensor) -> Tensor:
    """The area (N,) under curves (N, n_points) over shares from 0 to 1, by trapezoids."""
    return torch.trapezoid(curve, dx=1 / (curve.shape[1] - 1), dim=1)


def curve_of(
    evaluator: RemovalEvaluator,
    scores: Tensor,
    removal: str | Removal,
    *,
    n_points: int,
    insertion: bool,
) -> Tensor:
    """A curve (N, n_points) from an evaluator and scores (N, U)."""
    device = evaluator.tokens.device
    sizes = torch.tensor(evaluator.n_tokens)
    shares = torch.linspace(0, 1, n_points, dtype=torch.float64)
    # Halves go up, also where a share is a little below what it stands for.
    counts = (sizes[:, None] * shares + 0.5 + 1e-9).floor().long()
    rows = torch.arange(len(sizes)).repeat_interleave(n_points).to(device)
    top = ranks(scores, evaluator.tokens)[rows] < counts.reshape(-1, 1).to(device)
    values = evaluator.values(rows, top if insertion else ~top, removal).reshape(-1, n_points)
    return values.masked_fill((sizes == 0)[:, None], torch.nan)


def _register(title: str, what: str, *, insertion: bool) -> None:
    """Registers the area under a curve."""

    def compute(
        inputs: MetricInputs, scores: Tensor, _: Convention, removal: Removal | None
    ) -> Tensor:
        assert removal is not None
        return area_under_curve(
            curve_of(inputs.evaluator, scores, removal, n_points=CURVE_POINTS, insertion=insertion)
        )

    description = (
        f"Area under the probability while tokens are {what} in steps of 10 %, most important "
        "first; removal by {removal}."
    )
    name = title.lower().replace(" ", "-")
    metric = Metric(name, title, insertion, "faithfulness", description)
    register_metric(metric, removal="convention", is_default=False)(compute)


_register("Deletion AUC", "taken away", insertion=False)
_register("Insertion AUC", "added to nothing", insertion=True)
