"""Padding, positions and the last token of causal decoders.

A decoder answers at the last token. Which token that is, and which position a token has, is given
by the attention mask here: the padding token's id, which transformers goes by, may stand in a text
or may not exist, and is what an attribution method's baseline often consists of.
"""

from __future__ import annotations

import torch
from torch import Tensor


def shown_tokens(attention_mask: Tensor | None, ids: Tensor) -> Tensor:
    """Mask of tokens, False at padding, bool (N, L).

    Args:
        attention_mask: (N, L); or what is added to attention logits, (N, 1, Q, L), in which padding
            has the lowest number there is; or None.
        ids: (N, L).
    """
    if attention_mask is None:
        return torch.ones(ids.shape, dtype=torch.bool, device=ids.device)
    if attention_mask.dim() == 2:
        return attention_mask > 0
    seen_last = attention_mask[:, 0, -1, :]
    if seen_last.dtype == torch.bool:
        return seen_last
    return seen_last > torch.finfo(seen_last.dtype).min


def last_tokens(shown: Tensor) -> Tensor:
    """The position of each example's last token (N,), 0 where there is none."""
    places = torch.arange(shown.shape[1], device=shown.device)
    return (places * shown).amax(dim=1)


def positions(shown: Tensor) -> Tensor:
    """Positions (N, L) that count tokens, not padding; 0 for padding before them."""
    return (shown.long().cumsum(dim=1) - 1).clamp(min=0)


def extended_mask(attention_mask: Tensor | None, ids: Tensor, n_more: int) -> Tensor:
    """The attention mask of sequences that go on by ``n_more`` tokens after position L.

    Args:
        attention_mask: See :func:`shown_tokens`.
        ids: (N, L).
        n_more: The number of tokens T that follow.

    Returns:
        (N, L + T), or (N, 1, L + T, L + T): what follows sees what the last position saw, and
        what came after that up to itself.
    """
    if attention_mask is None or attention_mask.dim() == 2:
        shown = shown_tokens(attention_mask, ids)
        return torch.cat([shown, shown.new_ones(len(ids), n_more)], dim=1).long()
    n, length = ids.shape
    if attention_mask.dtype == torch.bool:
        hidden: bool | float = False
        seen: bool | float = True
    else:
        hidden, seen = torch.finfo(attention_mask.dtype).min, 0.0
    total = length + n_more
    mask = attention_mask.new_full((n, 1, total, total), hidden)
    mask[:, :, :length, :length] = attention_mask
    mask[:, :, length:, :length] = attention_mask[:, :, -1:, :]
    within = torch.ones(n_more, n_more, dtype=torch.bool, device=ids.device).tril()
    mask[:, :, length:, length:].masked_fill_(within, seen)
    return mask
