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

from captum_aml._utils.checks import as_count
from captum_aml.metrics.conventions import Convention
from captum_aml.metrics.evaluation import RemovalEvaluator
from captum_aml.metrics.registry import Metric, MetricInputs, register_metric
from captum_aml.metrics.removal import Removal
from captum_aml.metrics.scoring import ranks, score_examples
from captum_aml.typing import Baselines, ForwardFunc, Target, TensorOrTuple

#: Shares at which curves are measured unless told otherwise: steps of 10 %.
CURVE_POINTS = 11


def deletion_curve(
    forward_func: ForwardFunc,
    inputs: TensorOrTuple,
    attributions: TensorOrTuple,
    baselines: Baselines = None,
    additional_forward_args: object | None = None,
    target: Target = None,
    *,
    n_points: int = CURVE_POINTS,
    removal: str | Removal = "delete",
    output: str = "auto",
    batch_size: int = 32,
    show_progress: bool = False,
) -> Tensor:
    r"""The prediction while tokens are taken away; the faster it falls, the better.

    Args:
        forward_func: What is explained.
        inputs: As for :func:`~captum_aml.metrics.comprehensiveness`.
        attributions: Likewise.
        baselines: Likewise.
        additional_forward_args: Likewise.
        target: Likewise.
        n_points: The number of shares from 0 to 1, both among them. Default: 11, steps of 10 %.
        removal: How tokens are removed. Default: "delete".
        output: What the forward function returns. Default: "auto".
        batch_size: The most inputs in a pass of the model. Default: 32.
        show_progress: Whether to show a progress bar. Default: False.

    Returns:
        Probabilities (N, n_points), float64 on the CPU; NaN for examples without a token.

    Raises:
        InvalidInputError: An argument has a wrong type, shape or range.
        NonFiniteError: Scores, or the model's output, are NaN or infinite.
    """
    return score_examples(
        partial(
            curve_of,
            removal=removal,
            n_points=as_count("n_points", n_points, least=2),
            insertion=False,
        ),
        forward_func,
        inputs,
        attributions,
        baselines,
        additional_forward_args,
        target,
        output=output,
        batch_size=batch_size,
        show_progress=show_progress,
    )


def insertion_curve(
    forward_func: ForwardFunc,
    inputs: TensorOrTuple,
    attributions: TensorOrTuple,
    baselines: Baselines = None,
    additional_forward_args: object | None = None,
    target: Target = None,
    *,
    n_points: int = CURVE_POINTS,
    removal: str | Removal = "delete",
    output: str = "auto",
    batch_size: int = 32,
    show_progress: bool = False,
) -> Tensor:
    """The prediction while tokens are added to nothing; the faster it rises, the better.

    Arguments, result and errors are those of :func:`deletion_curve`.
    """
    return score_examples(
        partial(
            curve_of,
            removal=removal,
            n_points=as_count("n_points", n_points, least=2),
            insertion=True,
        ),
        forward_func,
        inputs,
        attributions,
        baselines,
        additional_forward_args,
        target,
        output=output,
        batch_size=batch_size,
        show_progress=show_progress,
    )


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


def _register(name: str, title: str, what: str, *, insertion: bool) -> None:
    """Registers the area under a curve."""

    def compute(
        inputs: MetricInputs, scores: Tensor, _: Convention, removal: Removal | None
    ) -> Tensor:
        assert removal is not None
        curve = curve_of(
            inputs.evaluator, scores, removal, n_points=CURVE_POINTS, insertion=insertion
        )
        return area_under_curve(curve)

    register_metric(
        Metric(
            name,
            title,
            insertion,
            "faithfulness",
            f"Area under the probability while tokens are {what} in steps of 10 %, most "
            "important first; removal by {removal}.",
        ),
        compute,
        removal="convention",
        is_default=False,
    )


_register("deletion-auc", "Deletion AUC", "taken away", insertion=False)
_register("insertion-auc", "Insertion AUC", "added to nothing", insertion=True)

__all__ = ["CURVE_POINTS", "area_under_curve", "curve_of", "deletion_curve", "insertion_curve"]
