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

import torch
from torch import Tensor

from captum_aml.metrics.registry import Metric, MetricInputs, register_metric
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

    Lower is sparser. Arguments and errors are those of :func:`entropy`.

    Returns:
        Tensor (N,), at least float32, from 1 to the number of tokens; NaN for an example without
        tokens.
    """
    return entropy(attributions, tokens).exp()


@register_metric(
    Metric(
        "entropy",
        "Entropy",
        None,
        "complexity",
        "Entropy in nats of the scores' absolute values as shares.",
    ),
    is_default=False,
)
def _entropy(inputs: MetricInputs, scores: Tensor, *_: object) -> Tensor:
    return entropy(scores.cpu(), inputs.tokens.cpu()).double()


@register_metric(
    Metric(
        "effective-tokens",
        "Effective tokens",
        None,
        "complexity",
        "The number of tokens that the scores are spread over: the exponential of their entropy.",
    )
)
def _effective_tokens(inputs: MetricInputs, scores: Tensor, *_: object) -> Tensor:
    return effective_tokens(scores.cpu(), inputs.tokens.cpu()).double()
