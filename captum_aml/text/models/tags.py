"""Tags of tokens: labels without the prefixes of their scheme, and the entities that they make."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

_INSIDE_OUTSIDE = re.compile("([BI])-(.+)")
_ALL_POSITIONS = re.compile("([BIELSU])-(.+)")


@dataclass(frozen=True)
class TagScheme:
    """The labels of a token classifier, such as "B-PER", and their tags, such as "PER".

    A prefix says where in an entity a token stands: B and I in the schemes IOB1 and IOB2; also E,
    L, S and U in IOBES and BILOU, which are prefixes where every label but "O" has one.

    Attributes:
        labels: The names of the K outputs.
    """

    labels: tuple[str, ...]

    @cached_property
    def _split(self) -> tuple[tuple[str, str], ...]:
        """Prefix, "" for none, and tag of each label."""
        inside = [label for label in self.labels if label != "O"]
        found = [_INSIDE_OUTSIDE.fullmatch(label) for label in inside]
        full = any(found) and all(_ALL_POSITIONS.fullmatch(label) for label in inside)
        prefixed = _ALL_POSITIONS if full else _INSIDE_OUTSIDE
        matches = [(label, prefixed.fullmatch(label)) for label in self.labels]
        return tuple((m[1], m[2]) if m else ("", label) for label, m in matches)

    @cached_property
    def tags(self) -> tuple[str, ...]:
        """The C tags, in the order in which labels have them first."""
        return tuple(dict.fromkeys(tag for _, tag in self._split))

    @cached_property
    def tag_of(self) -> tuple[int, ...]:
        """The number of each label's tag (K)."""
        return tuple(self.tags.index(tag) for _, tag in self._split)

    def logits(self, logits: Tensor) -> Tensor:
        r"""Logits of tags (..., C) of logits of labels (..., K).

        .. math:: z_t = \log \sum_{k:\ t_k = t} \exp z_k,

        whose softmax is the sum of the probabilities of the tag's labels.
        """
        if len(self.tags) == len(self.labels):
            return logits
        columns = [
            [label for label, tag in enumerate(self.tag_of) if tag == number]
            for number in range(len(self.tags))
        ]
        return torch.stack([logits[..., some].logsumexp(dim=-1) for some in columns], dim=-1)

    def grouped(self, labels: Sequence[int], breaks: Container[int] = ()) -> list[tuple[int, int]]:
        """Stretches (start, end) of neighbours that are one entity, or one stretch of outside.

        A label with the tag of the one before it goes on with its stretch, unless it says that an
        entity begins there: B, S and U do.

        Args:
            labels: The label of each token or word.
            breaks: Where a stretch begins in any case, as the second text of a pair does.
                Default: ().
        """
        starts = [
            i
            for i, label in enumerate(labels)
            if i == 0
            or i in breaks
            or self.tag_of[label] != self.tag_of[labels[i - 1]]
            or self._split[label][0] in ("B", "S", "U")
        ]
        return list(pairwise([*starts, len(labels)]))
