"""The words that a prompt is answered with, and how their tokens are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_aml.exceptions import InvalidInputError


@dataclass(frozen=True)
class Word:
    """How a class's word is read.

    Attributes:
        ids: Its T tokens.
        branch: The number of the continuation that its own one, all tokens but the last, begins.
    """

    ids: tuple[int, ...]
    branch: int


def named_words(
    labels: Mapping[str, str] | Sequence[str],
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The classes' names and their words."""
    if isinstance(labels, str) or not isinstance(labels, Mapping | Sequence):
        raise InvalidInputError(
            f"labels: expected a mapping from names to words, or words, got {labels!r}"
        )
    words = list(labels.values()) if isinstance(labels, Mapping) else list(labels)
    names = list(labels) if isinstance(labels, Mapping) else [str(word).strip() for word in words]
    for word in (*names, *words):
        if not isinstance(word, str) or not word.strip():
            raise InvalidInputError(f"labels: expected words, got {word!r}")
    if len(words) < 2 or len(set(names)) != len(names):
        raise InvalidInputError(f"labels: expected two different words or more, got {words}")
    return tuple(names), tuple(words)


def read_words(
    ids: Sequence[tuple[int, ...]], names: Sequence[str], *, whole: bool
) -> tuple[list[Word], Tensor]:
    """How each word is read, and what the model is given after the prompt, (B, T).

    Words that begin alike share a branch; branches that are shorter than the longest are filled up
    with a token that nothing of theirs is read after.
    """
    for index, own in enumerate(ids):
        if own in ids[:index]:
            raise InvalidInputError(
                f"labels: expected different words, got the same tokens for "
                f"{names[ids.index(own)]!r} and {names[index]!r}"
            )
        if not own:
            raise InvalidInputError(f"labels: the tokenizer has no token for {names[index]!r}")
    given = sorted({own[:-1] for own in ids}, key=lambda b: (-len(b), b))
    branches: list[tuple[int, ...]] = []
    for prefix in given:
        if not any(branch[: len(prefix)] == prefix for branch in branches):
            branches.append(prefix)
    words = [
        Word(own, next(i for i, b in enumerate(branches) if b[: len(own) - 1] == own[:-1]))
        for own in ids
    ]
    longest = max(len(branch) for branch in branches)
    table = torch.zeros(len(branches), longest, dtype=torch.long)
    for row, branch in enumerate(branches):
        table[row, : len(branch)] = torch.tensor(branch, dtype=torch.long)
    return words, table


__all__ = ["Word", "named_words", "read_words"]
