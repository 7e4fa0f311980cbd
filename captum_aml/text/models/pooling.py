"""Pooling: one embedding of a text from those of its tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from captum_aml.exceptions import InvalidInputError

#: Hidden states (N, L, D) and the tokens' shares (N, L) to embeddings (N, D).
Pooling = Callable[[Tensor, Tensor], Tensor]


def token_shares(attention_mask: Tensor) -> Tensor:
    """How much of each token is there, (N, L), from 0 to 1.

    Args:
        attention_mask: (N, L); or what is added to attention logits, (N, 1, Q, L), the logarithm
            of the share: a token that is hidden from all others is not pooled either.
    """
    if attention_mask.dim() == 2:
        return attention_mask.float()
    last = attention_mask[:, 0, -1]
    return last.float() if last.dtype == torch.bool else last.float().exp().clamp(max=1.0)


def pooled(hidden: Tensor, shares: Tensor, modes: Sequence[str]) -> Tensor:
    """Embeddings by one mode or several, whose results stand one after the other.

    Args:
        hidden: Hidden states (N, L, D).
        shares: How much of each token is there, (N, L).
        modes: Names of ``MODES``.

    Returns:
        (N, D) for one mode.
    """
    return torch.cat([MODES[mode](hidden, shares.to(hidden.dtype)) for mode in modes], dim=-1)


def checked_modes(modes: str | Sequence[str]) -> tuple[str, ...]:
    """Names of ways to pool.

    Raises:
        InvalidInputError: There is none of such a name.
    """
    given = (modes,) if isinstance(modes, str) else tuple(modes)
    if not given or any(mode not in MODES for mode in given):
        raise InvalidInputError(f"pooling: expected one of {', '.join(MODES)}, got {modes!r}")
    return given


def _mean(hidden: Tensor, shares: Tensor) -> Tensor:
    return torch.einsum("nld,nl->nd", hidden, shares) / shares.sum(dim=1, keepdim=True)


def _mean_sqrt(hidden: Tensor, shares: Tensor) -> Tensor:
    return _mean(hidden, shares) * shares.sum(dim=1, keepdim=True).sqrt()


def _weighted_mean(hidden: Tensor, shares: Tensor) -> Tensor:
    return _mean(hidden, shares * (shares > 0).cumsum(dim=1))


def _first(hidden: Tensor, shares: Tensor) -> Tensor:
    first = (shares > 0).int().argmax(dim=1)
    return hidden[torch.arange(len(hidden), device=hidden.device), first]


def _last(hidden: Tensor, shares: Tensor) -> Tensor:
    places = torch.arange(shares.shape[1], device=shares.device)
    last = (places * (shares > 0)).amax(dim=1)
    return hidden[torch.arange(len(hidden), device=hidden.device), last]


def _max(hidden: Tensor, shares: Tensor) -> Tensor:
    # As in a softmax: log m is what removal adds to a token's attention logit.
    lowest = torch.finfo(hidden.dtype).min
    return (hidden + shares.log().clamp(min=lowest)[..., None]).amax(dim=1)


#: By the names of sentence-transformers.
MODES: dict[str, Pooling] = {
    "mean": _mean,
    "cls": _first,
    "max": _max,
    "lasttoken": _last,
    "weightedmean": _weighted_mean,
    "mean_sqrt_len_tokens": _mean_sqrt,
}
