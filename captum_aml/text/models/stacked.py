r"""Several sequences of one example as one row of ids.

A context with each of several options, a premise with each hypothesis, two texts that are compared:
the model is run on :math:`R` sequences for one example. Their ids stand one after the other in one
row, :math:`(N, R L')`, each padded to :math:`L'`, and are embedded together, so that a mask over
the row is one over all sequences. For the model the row is then cut into its sequences,
:math:`(N R, L')`, and where padding changes what it says of one, without their padding, in a pass
for each length. Tokens that several sequences repeat are copies of one token: they share a mask
value and a score.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import accumulate, islice
from typing import ClassVar

import torch
from torch import Tensor

from captum_aml.exceptions import InvalidInputError
from captum_aml.text.encoding import (
    Cut,
    TextBatch,
    TokenizedText,
    collate,
    own_tensors,
    sequences_of,
    tokenize,
)
from captum_aml.text.inputs import Span, Text, TextLike, each_text
from captum_aml.text.models._ends import end_token
from captum_aml.text.models._groups import in_groups
from captum_aml.text.models._sparse import kept_sparse
from captum_aml.text.models.base import TextModel
from captum_aml.text.models.entry import TokenEntry
from captum_aml.text.models.trial import PaddingSide


@dataclass(frozen=True)
class Sequenced:
    """One of the sequences that a model is run on for a text.

    Attributes:
        text: The text or pair that the tokenizer is given.
        places: Spans in it that are taken from the text, and where each of them begins there.
    """

    text: Text
    places: tuple[tuple[Span, int], ...]

    @classmethod
    def of(cls, *sides: Sequence[tuple[str, int | None]]) -> Sequenced:
        """A sequence of one or two sides, each of strings one after the other.

        Args:
            *sides: Strings, each with where it begins in the text, None where it is not of it.
        """
        joined = ["".join(string for string, _ in side) for side in sides]
        text = Text.of(joined[0] if len(joined) == 1 else tuple(joined))
        places = []
        for (start, _), side in zip(text.regions, sides, strict=True):
            ends = accumulate((len(string) for string, _ in side), initial=start)
            for (string, origin), at in zip(side, ends, strict=False):
                if origin is not None:
                    places.append(((at, at + len(string)), origin))
        return cls(text, tuple(places))


def stack(text: Text, given: Sequence[Sequenced], found: Sequence[TokenizedText]) -> TokenizedText:
    """One tokenized text of its R sequences.

    Tokens of the same characters of the text are copies of one, in the order of the text. What is
    not of the text is not maskable.

    Args:
        text: The text.
        given: The sequences (R).
        found: The same tokenized (R).
    """
    offsets: list[Span] = []
    keys: list[tuple[Span, int] | None] = []
    for sequence, tokenized in zip(given, found, strict=True):
        seen: dict[Span, int] = {}
        for span, keep in zip(tokenized.offsets, tokenized.maskable, strict=True):
            moved = _moved(span, sequence.places) if keep else None
            offsets.append(moved or (0, 0))
            keys.append(None if moved is None else (moved, seen.get(moved, 0)))
            if moved is not None:  # several tokens may be parts of one character
                seen[moved] = seen.get(moved, 0) + 1
    numbers = {key: number for number, key in enumerate(sorted({key for key in keys if key}))}
    repeated = len(numbers) < sum(key is not None for key in keys)
    return TokenizedText(
        text=text.text,
        model_inputs={
            name: [value for each in found for value in each.model_inputs[name]]
            for name in found[0].model_inputs
        },
        tokens=tuple(token for each in found for token in each.tokens),
        offsets=tuple(offsets),
        maskable=tuple(key is not None for key in keys),
        n_tokens_cut=0,
        parts=text.parts,
        words=text.words,
        own_inputs={"lengths": tuple(map(len, found))},
        sequences=tuple(map(len, found)),
        copies=tuple(numbers[key] for key in keys if key is not None) if repeated else None,
    )


class MultiSequenceModel(TextModel):
    """A model that is run on several sequences for one text, and its tokenizer.

    A subclass says by ``tokenize`` which they are, by ``run`` what the model gives for each, and
    by ``joined`` how that becomes the outputs for the text. A pass over a text is one pass of the
    model over its R sequences, or one for each of their lengths where padding changes outputs.
    Texts with different numbers of sequences share no batch, nor with different lengths then.

    Args:
        model: The model.
        tokenizer: Its fast tokenizer.
        baseline (str, optional): See :class:`TextModel`.
        max_length (int, optional): Each sequence is cut to this many tokens. Default: None, to
            what the model takes.
    """

    no_fit = "a text is read as several sequences"
    own_inputs: ClassVar[tuple[str, ...]] = ("lengths",)

    @abstractmethod
    def run(self, input_ids: Tensor, attention_mask: Tensor, *extra_inputs: Tensor) -> Tensor:
        """What the model gives for sequences.

        Args:
            input_ids: (N R, L').
            attention_mask: (N R, L'), or what is added to attention logits, (N R, 1, Q, L').
            *extra_inputs: What else the model takes, (N R, L') each.

        Returns:
            (N R, ...).
        """

    @abstractmethod
    def joined(self, found: Tensor) -> Tensor:
        """Outputs (N, C) from what the model gives for the sequences, (N, R, ...)."""

    def collate(
        self, texts: Sequence[TokenizedText], *, padding_side: PaddingSide | None = None
    ) -> TextBatch:
        """Pads the sequences of N texts to the longest one, (N, R L'); see the base class.

        The lengths in the batch are those that the model is given the sequences in: without their
        padding where it has no padding side.
        """
        if len({len(text.sequences) for text in texts}) > 1:
            raise InvalidInputError(
                "texts: expected as many sequences of each text in a batch, got "
                f"{sorted({len(text.sequences) for text in texts})}"
            )
        flat = [sequence for text in texts for sequence in sequences_of(text)]
        if padding_side is None:
            alike = len({len(sequence) for sequence in flat}) == 1
            padding_side = "right" if alike else self.padding_side
        batch = collate(
            self.tokenizer,
            flat,
            extra_inputs=self._extra_inputs,
            padding_side=padding_side or "right",
            device=self.device,
        )
        n = len(texts)
        own = own_tensors(texts, self.own_inputs, self.device)
        if padding_side is not None:
            own["lengths"].fill_(batch.input_ids.shape[1])
        return TextBatch(
            texts=tuple(texts),
            input_ids=batch.input_ids.reshape(n, -1),
            attention_mask=batch.attention_mask.reshape(n, -1),
            extra_inputs={
                **{name: values.reshape(n, -1) for name, values in batch.extra_inputs.items()},
                **own,
            },
            maskable=batch.maskable.reshape(n, -1),
        )

    def batch_key(self, text: TokenizedText) -> Hashable:
        """The number of sequences, and where padding changes outputs their lengths."""
        return text.sequences if self.padding_side is None else len(text.sequences)

    def tried(self, batch: TextBatch) -> Tensor:
        """What the model gives for sequences."""
        extra = [v for name, v in batch.extra_inputs.items() if name in self._extra_inputs]
        with kept_sparse(self._sparse):
            return self.run(batch.input_ids, batch.attention_mask, *extra)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, *extra_inputs: Tensor
    ) -> Tensor:
        """Outputs (N, C) for the ids of R sequences, (N, R L').

        Args:
            input_ids: (N, R L').
            attention_mask: (N, R L'); or what is added to attention logits, (N, 1, Q, R L') with a
                Q of 1 or R L'. Default: None, tokens everywhere.
            *extra_inputs: What else the model takes, (N, R L') each, and at last the lengths that
                the model is given the sequences in, (N, R).
        """
        *extra, lengths = extra_inputs
        n, r = lengths.shape
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        places = torch.arange(input_ids.numel(), device=input_ids.device)
        ids, keys = flat_rows(input_ids, r), lengths.flatten()
        end = end_token(self.model)
        if end is not None:  # it takes rows together that have equally many
            keys = keys * (ids.shape[1] + 1) + (ids == end).sum(dim=1)
        found = in_groups(
            self._run_alike,
            keys,
            lengths.flatten(),
            places.reshape(n * r, -1),
            ids,
            sequence_masks(attention_mask, r),
            *(flat_rows(values, r) for values in extra),
        )
        return self.joined(found.reshape(n, r, *found.shape[1:])).to(input_ids.device)

    def _run_alike(
        self, lengths: Tensor, places: Tensor, ids: Tensor, mask: Tensor, *extra: Tensor
    ) -> Tensor:
        """What the model gives for rows of one length, without what is behind it."""
        length = int(lengths[0])
        mask = mask[..., :length]
        if mask.dim() == 4:  # Q is 1 or L'
            mask = mask[:, :, :length]
        # The model embeds the ids in this other shape.
        entry: TokenEntry | None = self.__dict__.get("entry")
        given = nullcontext() if entry is None else entry.given(places[:, :length])
        with given, kept_sparse(self._sparse):
            return self.run(ids[:, :length], mask, *(values[:, :length] for values in extra))


class StackedTextModel(MultiSequenceModel):
    """A model that is run on several sequences made of the parts of a text, and its tokenizer.

    A subclass says by ``sequences`` which they are; see :class:`MultiSequenceModel`.

    Args:
        model: The model.
        tokenizer: Its fast tokenizer.
        baseline (str, optional): See :class:`TextModel`.
        max_length (int, optional): Each sequence is cut to this many tokens. Default: None, to
            what the model takes.
    """

    #: What is cut of a pair that is too long.
    cuts: ClassVar[Cut] = "longest_first"

    @abstractmethod
    def sequences(self, text: Text) -> list[Sequenced]:
        """The R sequences that the model is run on for a text.

        Raises:
            InvalidInputError: The text is not of the form that the task takes.
        """

    def tokenize(self, texts: Iterable[TextLike]) -> list[TokenizedText]:
        """Tokenizes texts, each as its sequences, which are cut to what the model takes.

        Raises:
            InvalidInputError: A text is not of the form that the task takes, or ``max_length``
                leaves no room for a token.
        """
        read = list(each_text(texts))
        given = [self.sequences(text) for text in read]
        flat = [sequence.text for some in given for sequence in some]
        found = iter(tokenize(self.tokenizer, flat, max_length=self.max_length, cuts=self.cuts))
        rows = [list(islice(found, len(some))) for some in given]
        return [
            self._counted(stack(text, some, row), text, some, any(t.n_tokens_cut for t in row))
            for text, some, row in zip(read, given, rows, strict=True)
        ]

    def _counted(
        self, stacked: TokenizedText, text: Text, given: Sequence[Sequenced], is_cut: bool
    ) -> TokenizedText:
        """The same with the number of tokens that no sequence has room for."""
        if not is_cut:
            return stacked
        whole = stack(text, given, tokenize(self.tokenizer, [each.text for each in given]))
        return replace(stacked, n_tokens_cut=_n_distinct(whole) - _n_distinct(stacked))


def flat_rows(values: Tensor, r: int) -> Tensor:
    """The rows of R sequences, (N R, L'), from those of all of them, (N, R L')."""
    return values.reshape(len(values) * r, -1)


def sequence_masks(mask: Tensor, r: int) -> Tensor:
    """The attention masks of R sequences from that of a row of them.

    Args:
        mask: (N, R L'), or additive (N, H, Q, R L') with a Q of 1 or R L'.
        r: R.

    Returns:
        (N R, L'), or (N R, H, Q, L') with a Q of 1 or L': what tokens of a sequence see of it.
    """
    if mask.dim() == 2:
        return flat_rows(mask, r)
    n, heads, queries, _ = mask.shape
    if queries == 1:
        return mask.reshape(n, heads, 1, r, -1).movedim(3, 1).flatten(0, 1)
    blocks = mask.reshape(n, heads, r, queries // r, r, -1)
    return blocks.diagonal(dim1=2, dim2=4).movedim(-1, 1).flatten(0, 1)


def _moved(span: Span, places: Sequence[tuple[Span, int]]) -> Span | None:
    """A span in a sequence as one in the text; None where it is not of the text."""
    start, end = span
    for (first, last), origin in places:
        low, high = max(start, first), min(end, last)
        if low < high or start == end == low == high:
            return low - first + origin, high - first + origin
    return None


def _n_distinct(text: TokenizedText) -> int:
    return sum(text.maskable) if text.copies is None else len(set(text.copies))
