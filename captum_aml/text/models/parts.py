"""Parts of what a model writes: their probabilities, and how a text says which ones are meant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor

from captum_aml.text.encoding import TokenizedText

# What outputs that a text does not have are filled with: log-odds of next to nothing.
_NONE = -1e4


def completed_text(
    text: TokenizedText,
    lead: tuple[int, ...],
    answer: tuple[int, ...],
    other: tuple[int, ...],
    parts: Sequence[tuple[int, int, int]],
    names: Sequence[str],
) -> TokenizedText:
    """A text with its answer, another continuation and the parts that are explained."""
    shift = len(lead)
    flat = [(branch, first + shift, last + shift) for branch, first, last in parts]
    own_inputs = {
        "answer": (*lead, *answer),
        "other": (*lead, *other) if other else (),
        "parts": tuple(chain.from_iterable(flat)),
    }
    return replace(text, own_inputs=own_inputs, labels=tuple(names))


def log_odds(logits: Tensor, wanted: Tensor) -> Tensor:
    """Log-odds (...) of tokens (...) by logits (..., V), exact also next to certainty."""
    places = wanted[..., None]
    others = logits.scatter(-1, places, -torch.inf).logsumexp(dim=-1)
    return logits.gather(-1, places)[..., 0] - others


def odds_of_parts(log_probs: Tensor, parts: Tensor) -> Tensor:
    """Log-odds (N, C) of parts (N, 3 C) by log-probabilities (N, B, T) of tokens."""
    branch, first, last = parts.unflatten(1, (-1, 3)).unbind(dim=2)
    n_tokens = log_probs.shape[2]
    places = torch.arange(n_tokens, device=parts.device)
    inside = (places >= first[..., None]) & (places < last[..., None])
    rows = branch.clamp(min=0)[..., None].expand(-1, -1, n_tokens)
    total = (log_probs.gather(1, rows) * inside).sum(dim=2)
    total = total.clamp(max=-torch.finfo(total.dtype).tiny)
    return torch.where(branch < 0, _NONE, total - torch.log(-torch.expm1(total)))
