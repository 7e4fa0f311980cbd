r"""Two tokenizations of one text, brought together through its characters.

Tokens are given by their spans of characters, half-open. Two spans overlap where they share a
character, and a token of the one tokenization gets the pool of its partners' values in the other:

.. math:: g_t = \mathrm{pool} \{ h_s : a_t \cap b_s \ne \emptyset \}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, cast, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from captum_aml.exceptions import InvalidInputError

Integers: TypeAlias = npt.NDArray[np.int64]

Pooling = Literal["max", "mean", "min"]

_REDUCTIONS = {"max": "amax", "mean": "mean", "min": "amin"}


def checked_pooling(pooling: str) -> Pooling:
    """The pooling of that name.

    Raises:
        InvalidInputError: There is none.
    """
    if pooling not in get_args(Pooling):
        raise InvalidInputError(f"pooling: expected one of {get_args(Pooling)}, got {pooling!r}")
    return cast(Pooling, pooling)


def token_spans(lengths: Sequence[int]) -> Integers:
    """Spans (T, 2) of tokens that follow one another, from their lengths."""
    ends = np.cumsum(np.asarray(lengths, dtype=np.int64), dtype=np.int64)
    return np.stack([ends - np.asarray(lengths, dtype=np.int64), ends], axis=1)


def overlapping(ours: Integers, theirs: Integers) -> tuple[Integers, Integers]:
    """All pairs of spans that share a character.

    Takes time in the order of the spans, sorted, plus that of the pairs, as long as both lists
    advance through the text, as those of tokenizers do; it is right for any.

    Args:
        ours: Spans (T, 2).
        theirs: Spans (S, 2).

    Returns:
        Indices into ``ours`` and into ``theirs``, (P,) each, sorted by the first.
    """
    if not len(ours) or not len(theirs):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    order = np.argsort(theirs[:, 0], kind="stable")
    starts, ends = theirs[order, 0], theirs[order, 1]
    # Ends need not ascend with starts. A running maximum does, and lets through a superset.
    reached = np.maximum.accumulate(ends)
    first = np.searchsorted(reached, ours[:, 0], side="right")
    last = np.searchsorted(starts, ours[:, 1], side="left")
    counts = np.where(ours[:, 1] > ours[:, 0], np.maximum(last - first, 0), 0)
    mine = np.repeat(np.arange(len(ours)), counts)
    within = np.arange(len(mine)) - np.repeat(np.cumsum(counts) - counts, counts)
    other = np.repeat(first, counts) + within
    real = (ends[other] > ours[mine, 0]) & (ends[other] > starts[other])
    return mine[real], order[other[real]]


def pooled(
    values: Tensor, partners: tuple[Tensor, Tensor], n_tokens: int, pooling: Pooling
) -> tuple[Tensor, Tensor]:
    """The pool of each token's partners.

    Args:
        values: Values of the other tokenization's tokens, (S,).
        partners: Indices of tokens, below ``n_tokens``, and of their partners, (P,) each.
        n_tokens: The number of tokens T.
        pooling: How the values of several partners become one.

    Returns:
        The pools (T,), 0 where there is no partner, and whether there is one, (T,).
    """
    tokens, others = partners
    has_partner = torch.zeros(n_tokens, dtype=torch.bool, device=values.device)
    has_partner[tokens] = True
    pools = values.new_zeros(n_tokens).scatter_reduce(
        0, tokens, values[others], _REDUCTIONS[pooling], include_self=False
    )
    return pools, has_partner
