r"""Over how many tokens an explanation spreads.

With the shares :math:`s_i = |a_i| / \sum_j |a_j|` of the tokens that count,

.. math:: H(a) = -\sum_i s_i \ln s_i, \qquad n_{\mathrm{eff}}(a) = e^{H(a)}.

Scores on one token alone have :math:`H = 0` and :math:`n_{\mathrm{eff}} = 1`; equal scores on n
tokens have :math:`H = \ln n` and :math:`n_{\mathrm{eff}} = n`. Lower is sparser. Neither direction
is better by itself: a single token is read quickly, and may be the wrong one.

Source: Bhatt, Weller, Moura, "Evaluating and Aggregating Feature-based Model Explanations", IJCAI
2020 (complexity). Deviation: they do not say what scores that are all 0 have. Here such scores
single out nothing and count as equal ones.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from captum_aml.metrics.conventions import Convention
from captum_aml.metrics.registry import Metric, MetricInputs, register_metric
from captum_aml.metrics.removal import Removal
from captum_aml.metrics.scoring import parse_scores


def entropy(attributions: Tensor, tokens: Tensor | None = None) -> Tensor:
    r"""Entropy of the shares :math:`|a_i| / \sum_j |a_j|`, in nats; lower is sparser.

    Args:
        attributions: Scores (N, L), signed or not.
        tokens: Bool (N, L), the positions that count; what stands elsewhere is ignored, NaN too.
            Default: None, all.

    Returns:
        Tensor (N,), at least float32, from 0 to the logarithm of the number of tokens; NaN for an
        example without tokens.

    Raises:
        InvalidInputError: An argument has a wrong type, shape or dtype.
        NonFiniteError: A score that counts is NaN or infinite.
    """
    scores, counted = parse_scores(attributions, tokens)
    magnitudes = scores.abs()
    largest = magnitudes.amax(dim=1, keepdim=True)
    # Divided by the largest first: sums of huge scores would overflow, tiny ones round to 0.
    weights = torch.where(largest > 0, magnitudes / largest, counted.to(scores))
    shares = weights / weights.sum(dim=1, keepdim=True)
    values: Tensor = torch.special.entr(shares).sum(dim=1)
    return values


def effective_tokens(attributions: Tensor, tokens: Tensor | None = None) -> Tensor:
    r"""The number of equally important tokens with the same entropy, :math:`e^H`.

    Lower is sparser.

    Args:
        attributions: Scores (N, L), signed or not.
        tokens: Bool (N, L), the positions that count. Default: None, all.

    Returns:
        Tensor (N,), at least float32, from 1 to the number of tokens; NaN for an example without
        tokens.

    Raises:
        InvalidInputError: An argument has a wrong type, shape or dtype.
        NonFiniteError: A score that counts is NaN or infinite.
    """
    return entropy(attributions, tokens).exp()


def _register(
    name: str, title: str, of: Callable[..., Tensor], description: str, *, is_default: bool
) -> None:
    """Registers a metric of complexity, which has no better direction."""

    def compute(inputs: MetricInputs, scores: Tensor, _: Convention, __: Removal | None) -> Tensor:
        return of(scores.cpu(), tokens=inputs.tokens.cpu()).double()

    metric = Metric(name, title, None, "complexity", description)
    register_metric(metric, compute, is_default=is_default)


_register(
    "entropy",
    "Entropy",
    entropy,
    "Entropy in nats of the scores' absolute values as shares.",
    is_default=False,
)
_register(
    "effective-tokens",
    "Effective tokens",
    effective_tokens,
    "The number of tokens that the scores are spread over: the exponential of their entropy.",
    is_default=True,
)

__all__ = ["effective_tokens", "entropy"]
