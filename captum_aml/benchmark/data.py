"""Labelled texts as a benchmark compares them: their fingerprint, and their labels as classes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence

from captum_aml.exceptions import InvalidInputError
from captum_aml.text.data import LabelledText


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
    differ in nothing else; or an index written in digits, where no class has that name.

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
            alike = folded.get(label.casefold(), [])
            if label in exact or len(alike) == 1:
                return exact.get(label, alike[0])
            index = int(label) if re.fullmatch("[0-9]{1,9}", label) else -1
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


__all__ = ["data_fingerprint", "label_indices"]
