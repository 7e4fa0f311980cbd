r"""Spans of tokens as outcomes: probabilities of a start times those of an end.

The probability of the answer from token a to token b is

.. math:: p_{ab} = p_{start}(a)\, p_{end}(b),

so that all pairs of tokens together have probability 1, and answers exclude each other. (Pairs that
end before they start are among them, as in the model's training.) A start alone, or an end alone,
is an outcome as well.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

#: The logarithm of a probability that is as good as 0, with which half precision can go on.
NOTHING = -1e4


def token_log_probabilities(logits: Tensor, allowed: Tensor) -> Tensor:
    """Log-probabilities (..., L) of tokens of which some are allowed, in float32.

    Args:
        logits: (..., L).
        allowed: bool (..., L).
    """
    return logits.float().masked_fill(~allowed, NOTHING).log_softmax(dim=-1)


def span_logits(start: Tensor, end: Tensor, spans: Tensor) -> Tensor:
    r"""Logits of S outcomes and of all others together, the log-odds of the first in their midst.

    .. math:: z_k = \log p_k - \log (1 - p_1)

    Their softmax gives the probabilities, and differences are logarithms of their ratios.

    Args:
        start: Log-probabilities of tokens as start (N, L).
        end: The same as end (N, L).
        spans: First and last token of each outcome in turn (N, 2 S), all different; -1 for any, of
            starts of all outcomes of an example, or of ends.

    Returns:
        (N, S + 1).
    """
    first, last = spans.unflatten(1, (-1, 2)).unbind(dim=-1)
    # Of ends alone the ends are what the starts are of others.
    ends_alone = (first < 0).all(dim=1, keepdim=True)
    start, end = torch.where(ends_alone, end, start), torch.where(ends_alone, start, end)
    first, last = torch.where(ends_alone, last, first), torch.where(ends_alone, first, last)

    length, any_end = start.shape[1], (last < 0)[..., None]
    at_first = F.one_hot(first, length).bool()  # (N, S, L)
    at_last = F.one_hot(last.clamp(min=0), length).bool() | any_end
    log_start = start.gather(1, first)
    own = log_start + end[:, None].masked_fill(~at_last, NOTHING).logsumexp(dim=-1)

    # Other starts; and the starts of the outcomes, each once, with other ends.
    same = first[:, :, None] == first[:, None, :]
    ends_of_start = (same[..., None] & at_last[:, None]).any(dim=2)
    other_ends = end[:, None].masked_fill(ends_of_start, NOTHING).logsumexp(dim=-1)
    again = same.tril(diagonal=-1).any(dim=-1)
    with_others = (log_start + other_ends).masked_fill(again, NOTHING)
    other_starts = start.masked_fill(at_first.any(dim=1), NOTHING).logsumexp(dim=-1, keepdim=True)
    rest = torch.cat([other_starts, with_others], dim=1).logsumexp(dim=1, keepdim=True)

    outcomes = torch.cat([own, rest], dim=1)
    return outcomes - outcomes[:, 1:].logsumexp(dim=1, keepdim=True)


def best_span(
    start: Tensor, end: Tensor, first: int, stop: int, max_length: int
) -> tuple[int, int]:
    """The likeliest span of a text's tokens from ``first`` to before ``stop``, as (start, end).

    Args:
        start: Log-probabilities of tokens as start (L,).
        end: The same as end (L,).
        first: The first token that may be in it.
        stop: The token after the last that may be in it.
        max_length: The most tokens that it may have.
    """
    scores = start[first:stop, None] + end[None, first:stop]
    fits = torch.ones_like(scores, dtype=torch.bool).triu().tril(max_length - 1)
    best = int(scores.masked_fill(~fits, -torch.inf).argmax())
    row, column = divmod(best, stop - first)
    return first + row, first + column
