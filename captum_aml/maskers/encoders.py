"""Causality of a network that a masker takes over."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from captum_aml._utils.modules import evaluating, without_hooks


@torch.no_grad()
def is_causal(encoder: nn.Module, table: Tensor) -> bool:
    """Whether no position hears those after it, found out by changing one embedding at a time.

    Args:
        encoder: A network that takes ``inputs_embeds`` and returns ``last_hidden_state``.
        table: Its word embeddings (V, D), for their size and scale.

    Returns:
        False also where that cannot be told, as of a network that cannot be run like this, or
        without any exchange between positions.
    """
    if table.is_meta:
        return False
    generator = torch.Generator().manual_seed(0)
    scale = table[:64].float().std().nan_to_num() if table.numel() > 1 else torch.ones(())
    embeddings = torch.randn(3, 4, table.shape[1], generator=generator).to(table.device)
    embeddings = (embeddings * torch.where(scale > 0, scale, 1.0)).to(table.dtype)
    plain, first, last = embeddings[:1], embeddings[:1].clone(), embeddings[:1].clone()
    first[:, 0], last[:, -1] = embeddings[1, 0], embeddings[1, -1]
    ones = torch.ones(1, 4, dtype=torch.long, device=table.device)
    try:
        with evaluating(encoder), without_hooks(encoder):
            # One by one: rows of a batch may differ in their last bits.
            states, after_first, after_last = (
                encoder(inputs_embeds=x, attention_mask=ones).last_hidden_state.float()
                for x in (plain, first, last)
            )
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        return False  # what does not run says so itself when it is used
    onwards = (after_first - states)[:, 1:].abs().max()
    backwards = (after_last - states)[:, :-1].abs().max()
    return bool((onwards > 0) & (backwards <= 1e-3 * onwards))


__all__ = ["is_causal"]
