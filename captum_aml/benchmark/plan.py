"""Which texts are explained together, in which order: fixed by the texts alone.

A run that goes on after an interruption has to form the same batches, so that it gives the same
results to the last bit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from captum_aml._utils.batching import length_order
from captum_aml.text import TextModel, TokenizedText

#: Texts that are scored together, in batches.
_BATCHES_PER_WINDOW = 4


@dataclass(frozen=True)
class Plan:
    """The texts in the order in which they are explained, shortest first.

    Attributes:
        texts: The tokenized texts, in that order.
        indices: The number of each in the data.
        batch_size: The most texts in a batch.
        digest: Of the texts' ids and numbers in that order; batches are checked apart.
    """

    texts: Sequence[TokenizedText]
    indices: Sequence[int]
    batch_size: int
    digest: str

    @classmethod
    def of(cls, classifier: TextModel, texts: Sequence[str], *, batch_size: int) -> Plan:
        """The plan for texts."""
        tokenized = classifier.tokenize(texts)
        indices = length_order(tokenized)
        digest = hashlib.sha256()
        for index in indices:
            digest.update(f"{index}:{tokenized[index].model_inputs['input_ids']}\n".encode())
        return cls(
            texts=[tokenized[i] for i in indices],
            indices=indices,
            batch_size=batch_size,
            digest=digest.hexdigest(),
        )

    @property
    def batch_sizes(self) -> list[int]:
        """The number of texts in each batch."""
        return _cut(len(self.texts), self.batch_size)

    @property
    def window_sizes(self) -> list[int]:
        """The number of texts in each window, which are scored together."""
        return _cut(len(self.texts), self.batch_size * _BATCHES_PER_WINDOW)


def ranges(sizes: Sequence[int]) -> Iterator[range]:
    """The places of parts of these sizes, one after the other."""
    return (range(end - size, end) for size, end in zip(sizes, accumulate(sizes), strict=True))


def _cut(total: int, size: int) -> list[int]:
    return [min(size, total - start) for start in range(0, total, size)]


__all__ = ["Plan", "ranges"]
