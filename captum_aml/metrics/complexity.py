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

from captum_aml.exceptions import InvalidInputError, NonFiniteError
from captum_aml.readout import as_float


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


__all__ = ["effective_tokens", "entropy"]
