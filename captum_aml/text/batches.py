"""Texts as the batches that ``fit`` takes."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from itertools import islice
from typing import Any

from captum_aml._utils.checks import as_count
from captum_aml.exceptions import InvalidInputError
from captum_aml.text.inputs import Text, TextLike, given_texts
from captum_aml.text.models.base import TextModel
from captum_aml.text.units import TextUnits

# Texts are tokenized and sorted by length this many batches at a time: enough for batches without
# much padding, and few enough that memory does not grow with the number of texts.
_BATCHES_PER_WINDOW = 50


@dataclass(frozen=True)
class TextSurvey:
    """Counts from a pass over texts.

    Attributes:
        n_texts: The number of texts.
        n_truncated: Of these, how many are longer than the model takes: their ends are not seen.
        n_without_tokens: Of these, how many have no token that could be explained.
    """

    n_texts: int
    n_truncated: int
    n_without_tokens: int


class TextBatches:
    """Batches of texts of similar length, as ``attribute`` and ``fit`` take them.

    They can be read any number of times. Each time the texts are read, tokenized and batched 50
    batches at a time, so that memory does not grow with their number: a list is cut into parts of
    every so many-th text, whatever else (a file that is opened when it is read, say) into
    parts as it comes, which should not be sorted. Which texts make a batch is always the same; the
    order of the batches is another one in each epoch.

    Args:
        text_model: The model to explain.
        texts: A list, or anything that gives its texts each time it is read: strings, pairs of
            strings, rows or lists of words; or a data frame or a data set with a column ``text``,
            see :func:`captum_aml.text.inputs.given_texts`.
        batch_size: Texts in a batch. Default: 20, as published.
        seed: Seed of the order of the batches. Default: 0.
        shuffle: Whether there is such an order; else they are as they come, shortest first within
            a part. Default: True.
        units (optional): What is masked as one. Default: None, each token by itself.

    Attributes:
        n_texts: The number of texts. Where ``texts`` has no length they are read once to count
            them.

    Raises:
        InvalidInputError: There is no text, ``texts`` can be read only once, or ``batch_size`` is
            not positive.
    """

    def __init__(
        self,
        text_model: TextModel,
        texts: Iterable[TextLike],
        *,
        batch_size: int = 20,
        seed: int = 0,
        shuffle: bool = True,
        units: TextUnits | None = None,
    ) -> None:
        if isinstance(texts, str) or not isinstance(texts, Iterable):
            raise InvalidInputError(
                f"texts: expected strings, a list for instance, got {type(texts).__name__}"
            )
        if isinstance(texts, Iterator):
            raise InvalidInputError(
                "texts: expected strings that can be read once for each epoch, got an iterator "
                f"({type(texts).__name__}); pass a list, or an object whose __iter__ starts anew"
            )
        texts = given_texts(texts).texts
        self._text_model = text_model
        self._texts = texts
        self.batch_size = as_count("batch_size", batch_size, least=1)
        self.seed = as_count("seed", seed)
        self.shuffle = shuffle
        self._units = units or TextUnits()
        self.n_texts = len(texts) if isinstance(texts, Sized) else sum(1 for _ in texts)
        if self.n_texts == 0:
            raise InvalidInputError("texts: expected at least one, got none")
        self._epoch = 0
        self._n_batches: int | None = None

    def __len__(self) -> int:
        """The number of batches; where not all texts may share one, they are tokenized to count."""
        if self._n_batches is None:
            if self._text_model.batches_any:
                self._n_batches = -(-self.n_texts // self.batch_size)
            else:
                self._n_batches = sum(
                    len(self._text_model.batches(self._text_model.tokenize(part), self.batch_size))
                    for part in self._windows(None)
                )
        return self._n_batches

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of the batches: the same for the same seed and epoch.

        Args:
            epoch: The epoch's number, 0 or more.
        """
        self._epoch = as_count("epoch", epoch)

    def __iter__(self) -> Iterator[dict[str, Any]]:  # keyword arguments of ``attribute``
        """The batches, on the model's device."""
        order = random.Random(f"{self.seed} {self._epoch}") if self.shuffle else None
        for window in self._windows(order):
            tokenized = self._text_model.tokenize(window)
            batches = self._text_model.batches(tokenized, self.batch_size)
            if order is not None:
                order.shuffle(batches)
            for rows in batches:
                batch = self._text_model.collate([tokenized[row] for row in rows])
                _, mask = self._units.of_batch(batch)
                given = {} if mask is None else {"feature_mask": mask}
                yield self._text_model.arguments(batch) | given

    @property
    def first(self) -> list[Text]:
        """The texts of the first part, to try things out on."""
        return next(self._windows(None))

    def survey(self) -> TextSurvey:
        """Tokenizes all texts once, to tell what a model does not see of them."""
        truncated = empty = 0
        for window in self._windows(None):
            for text in self._text_model.tokenize(window):
                truncated += text.n_tokens_cut > 0
                empty += not any(text.maskable)
        return TextSurvey(self.n_texts, truncated, empty)

    def _windows(self, order: random.Random | None) -> Iterator[list[Text]]:
        size = self.batch_size * _BATCHES_PER_WINDOW
        starts = list(range(0, self.n_texts, size))
        if isinstance(self._texts, Sequence):
            # Every so many-th text, so that a part of a sorted list is like the whole.
            numbers = [i for k in range(len(starts)) for i in range(k, self.n_texts, len(starts))]
            if order is not None:
                order.shuffle(starts)
            for start in starts:
                yield [Text.of(self._texts[i], i) for i in numbers[start : start + size]]
            return
        stream = iter(self._texts)
        for start in starts:
            window = [Text.of(text, i) for i, text in enumerate(islice(stream, size), start)]
            if len(window) < min(size, self.n_texts - start):
                raise InvalidInputError(
                    f"texts: expected {self.n_texts} each time they are read, got fewer; did the "
                    "source change?"
                )
            yield window
