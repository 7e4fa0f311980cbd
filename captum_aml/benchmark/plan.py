"""Texts of a benchmark: their order, their labels as classes, and their fingerprint.

Which texts are explained together follows from the texts alone: a run that goes on after an
interruption has to form the same batches, so that it gives the same results to the last bit.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

from captum_aml._utils.batching import length_order
from captum_aml.exceptions import InvalidInputError
from captum_aml.text import TextModel, TokenizedText
from captum_aml.text.data import LabelledText

#: Texts that are scored together, in batches.
_BATCHES_PER_WINDOW = 4


@dataclass(frozen=True)
class Plan:
    """The texts in the order in which they are explained, shortest first.

    Attributes:
        texts: The tokenized texts, in that order.
        indices: The number of each in the data.
        batch_size: The most texts in a batch.
        runs: The numbers of texts, one after the other, that may share a batch.
        digest: Of the texts' ids and numbers in that order; batches are checked apart.
    """

    texts: Sequence[TokenizedText]
    indices: Sequence[int]
    batch_size: int
    runs: Sequence[int]
    digest: str

    @classmethod
    def of(cls, text_model: TextModel, texts: Sequence[str], *, batch_size: int) -> Plan:
        """The plan for texts."""
        tokenized = text_model.tokenize(texts)
        indices = length_order(tokenized)
        ordered = [tokenized[index] for index in indices]
        digest = hashlib.sha256()
        for index in indices:
            digest.update(f"{index}:{tokenized[index].model_inputs['input_ids']}\n".encode())
        return cls(
            texts=ordered,
            indices=indices,
            batch_size=batch_size,
            runs=[len(list(run)) for _, run in groupby(ordered, key=text_model.shared_key)],
            digest=digest.hexdigest(),
        )

    @property
    def batch_sizes(self) -> list[int]:
        """The number of texts in each batch."""
        return self._cut(self.batch_size)

    @property
    def window_sizes(self) -> list[int]:
        """The number of texts in each window, which are scored together."""
        return self._cut(self.batch_size * _BATCHES_PER_WINDOW)

    def _cut(self, size: int) -> list[int]:
        return [min(size, total - start) for total in self.runs for start in range(0, total, size)]


def ranges(sizes: Sequence[int]) -> Iterator[range]:
    """The places of parts of these sizes, one after the other."""
    return (range(end - size, end) for size, end in zip(sizes, accumulate(sizes), strict=True))


def data_fingerprint(texts: Iterable[LabelledText]) -> str:
    """SHA-256 of texts, labels and rationales in their order, in hexadecimal digits."""
    digest = hashlib.sha256()
    for item in texts:
        line = json.dumps([item.text, item.label, item.rationale])
        digest.update(line.encode("ascii") + b"\n")
    return digest.hexdigest()


def label_indices(texts: Sequence[LabelledText], label_names: Sequence[str]) -> list[int | None]:
    """The model's class index for the label of each text; None where a text has no label.

    An integer is an index. A string is a class name, whose capitals count only where two names
    differ in nothing else; or an index written in digits, where no class has that name, also as
    pandas writes a column with gaps, such as "1.0".

    Args:
        texts: The texts.
        label_names: The model's class names by index.

    Raises:
        InvalidInputError: A label is none of the model's. The message names it, the number of
            its text, counted from 1, and the labels there are.
    """
    exact = {name: index for index, name in enumerate(label_names)}
    folded: dict[str, list[int]] = {}
    for index, name in enumerate(label_names):
        folded.setdefault(name.casefold(), []).append(index)

    def find(label: int | str) -> int | None:
        if isinstance(label, str):
            label = " ".join(label.split())  # names are written in one line
            alike = folded.get(label.casefold(), [])
            if label in exact or len(alike) == 1:
                return exact.get(label, alike[0])
            digits = re.fullmatch(r"([0-9]{1,9})(\.0+)?", label)
            index = int(digits[1]) if digits else -1
        else:
            index = label
        return index if 0 <= index < len(label_names) else None

    indices: list[int | None] = []
    for number, item in enumerate(texts, start=1):
        found = None if item.label is None else find(item.label)
        if found is None and item.label is not None:
            known = ", ".join(f"{i} ({name!r})" for i, name in enumerate(label_names))
            raise InvalidInputError(
                f"label: expected one of the model's classes {known}, got {item.label!r} for "
                f"text {number}"
            )
        indices.append(found)
    return indices
