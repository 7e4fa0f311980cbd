"""The texts that a masker is fitted on, and those that it is validated on."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass

from captum_aml.cli.config import FitConfig
from captum_aml.exceptions import InvalidInputError
from captum_aml.text.data import LabelledText, TextSource, is_text_file, load_texts

#: Of the training texts, the share that is held out where there are no validation texts.
_HELD_OUT = 10


class TrainingTexts(Iterable[str]):
    """The strings of a source but those that are held out, read anew each time.

    Args:
        source: The texts.
        held_out: Numbers of texts to leave out, from 0.
    """

    def __init__(self, source: TextSource, held_out: Container[int]) -> None:
        self._source = source
        self._held_out = held_out

    def __iter__(self) -> Iterator[str]:
        return (item.text for i, item in enumerate(self._source) if i not in self._held_out)


@dataclass(frozen=True)
class FitData:
    """Texts for fitting.

    Attributes:
        training: The training texts, which are read anew in each epoch.
        n_training: Their number.
        validation: The validation texts.
        held_out: Whether these are some of the data, for lack of others.
        digest: Of all texts in their order.
        first: The first training texts, to try the model with.
    """

    training: TrainingTexts
    n_training: int
    validation: list[LabelledText]
    held_out: bool
    digest: str
    first: list[str]


def load_data(config: FitConfig) -> FitData:
    """Reads all texts once, so that what is wrong with them is told before anything is fitted.

    Without validation texts every so many-th text of the data is held out: a tenth of them, and no
    more than ``validation_limit``.

    Raises:
        InvalidInputError: A file is missing or broken, or has too few texts.
    """
    split = config.split
    if split is None and not is_text_file(config.data):
        split = "train"
    source = TextSource(
        config.data, split=split, limit=config.limit, text_column=config.text_column
    )
    digest, n_texts = hashlib.sha256(), 0
    first: list[str] = []
    for item in source:
        digest.update(item.text.encode() + b"\n")
        n_texts += 1
        if len(first) < 64:
            first.append(item.text)
    if n_texts == 0:
        raise InvalidInputError(f"data: expected texts to fit on, got none in {config.data!r}")
    if n_texts == 1:
        raise InvalidInputError(
            f"data: expected two texts or more, got one in {config.data!r}; a masker learns from "
            "many, hundreds at least"
        )
    held_out: frozenset[int] = frozenset()
    if config.validation is not None:
        validation = load_texts(
            config.validation, limit=config.validation_limit, text_column=config.text_column
        )
    else:
        n_held_out = min(config.validation_limit, max(1, n_texts // _HELD_OUT))
        held_out = frozenset(i * n_texts // n_held_out for i in range(n_held_out))
        validation = [item for i, item in enumerate(source) if i in held_out]
    for item in validation:
        digest.update(b"validation" + item.text.encode() + b"\n")
    return FitData(
        training=TrainingTexts(source, held_out),
        n_training=n_texts - len(held_out),
        validation=validation,
        held_out=config.validation is None,
        digest=digest.hexdigest(),
        first=first,
    )


__all__ = ["FitData", "TrainingTexts", "load_data"]
