"""From texts to the tensors a model takes, with the way back to characters.

Texts are tokenized one by one and padded afterwards by us, so that a tokenizer without a padding
token works, the tokenizer's own settings stay as they are, and texts can be sorted by length
between the two steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from captum_aml._utils.tokenizers import BASELINE_KINDS, baseline_id
from captum_aml.exceptions import InvalidInputError
from captum_aml.text.inputs import Span, Text, TextLike, each_text

#: What is cut of a pair that is too long.
Cut: TypeAlias = Literal["longest_first", "only_first"]


@dataclass(frozen=True)
class TokenizedText:
    """One text as its model will see it; L tokens, special ones included.

    Attributes:
        text: The text; lone surrogates, which no encoding can hold, became U+FFFD.
        model_inputs: The tokenizer's outputs by name, each a list of L integers.
        tokens: The L vocabulary entries.
        offsets: Character span of each token in ``text``; (0, 0) for special tokens.
        maskable: For each token whether it stands for characters of the text, rather than being
            added by the tokenizer.
        n_tokens_cut: Ordinary tokens beyond the model's maximum length, which it never sees.
        parts: The spans of both texts of a pair, or of context, question and options; () for a
            single text.
        words: The spans of words that were given one by one; None otherwise.
        own_inputs: The task's own inputs by name, each a tuple of any length, such as the positions
            of the tokens whose label is explained.
        labels: The names of the text's own outcomes; None where they are the model's.
        place: The characters that the outcome is about, such as an entity; None for the text.
        sequences: The lengths of the sequences that the tokens are those of, one after the other;
            () for one.
        copies: For each maskable token the number of the token it is a copy of, from 0, where
            several sequences repeat a text; None where every token is one of its own.
    """

    text: str
    model_inputs: dict[str, list[int]]
    tokens: tuple[str, ...]
    offsets: tuple[Span, ...]
    maskable: tuple[bool, ...]
    n_tokens_cut: int
    parts: tuple[Span, ...] = ()
    words: tuple[Span, ...] | None = None
    own_inputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    labels: tuple[str, ...] | None = None
    place: Span | None = None
    sequences: tuple[int, ...] = ()
    copies: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class TextBatch:
    """N tokenized texts as padded tensors.

    Attributes:
        texts: The tokenized texts.
        input_ids: Token ids (N, L).
        attention_mask: 1 at tokens and 0 at padding (N, L).
        extra_inputs: What else the model takes, by name: token types for BERT, (N, L), and the
            task's own inputs, (N, P), -1 where a text has fewer.
        maskable: True at tokens of the text, False at special tokens and padding (N, L).
    """

    texts: tuple[TokenizedText, ...]
    input_ids: Tensor
    attention_mask: Tensor
    extra_inputs: dict[str, Tensor]
    maskable: Tensor

    @property
    def forward_args(self) -> tuple[Tensor, ...]:
        """The forward function's arguments after the ids: attention mask, then the extra ones."""
        return (self.attention_mask, *self.extra_inputs.values())


@dataclass(frozen=True)
class BaselineToken:
    """The token that stands for "nothing here".

    Attributes:
        id: Its id.
        token: Its vocabulary entry.
        kind: Where it comes from: "mask", "unk", "eos", "pad", or "given" by the user.
    """

    id: int
    token: str
    kind: str


def baseline_token(tokenizer: PreTrainedTokenizerBase, token: str | None = None) -> BaselineToken:
    """The token to put in place of those that are taken away.

    Args:
        tokenizer: The model's tokenizer.
        token (str, optional): A vocabulary entry to use. Default: None, which takes the first
            that the tokenizer has of: mask, unknown, end of sequence, padding.

    Raises:
        InvalidInputError: ``token`` is not in the vocabulary, or the tokenizer has none of the
            four.
    """
    found = baseline_id(tokenizer, token)
    if token is not None:
        return BaselineToken(id=found, token=token, kind="given")
    kind = next(k for k in BASELINE_KINDS if getattr(tokenizer, f"{k}_token_id") is not None)
    return BaselineToken(id=found, token=str(tokenizer.convert_ids_to_tokens(found)), kind=kind)


def baseline_ids(batch: TextBatch, baseline: BaselineToken) -> Tensor:
    """The ids (N, L) of the same texts without their tokens.

    Every maskable token becomes the baseline token. Special tokens and padding stay, which is how
    attribution methods know that they are not to be explained.
    """
    return batch.input_ids.masked_fill(batch.maskable, baseline.id)


def tokenize(
    tokenizer: PreTrainedTokenizerBase,
    texts: Iterable[TextLike],
    *,
    max_length: int | None = None,
    cuts: Cut = "longest_first",
) -> list[TokenizedText]:
    """Tokenizes texts without padding.

    A text without any token, such as an empty one for a tokenizer that adds no special tokens,
    gets one special token, because models take no empty sequences.

    Args:
        tokenizer: A fast tokenizer.
        texts: Strings, pairs of strings, or lists of words.
        max_length (int, optional): The most tokens the model takes; the rest is cut off and
            counted. Default: None, no limit.
        cuts: What is cut of a pair that is too long, the longer text or the first one. Default:
            "longest_first".

    Raises:
        InvalidInputError: The tokenizer gives no character offsets, or a text is no string.
    """
    require_offsets(tokenizer)
    given = list(each_text(texts))
    for row, text in enumerate(given):
        if text.n_options:
            raise InvalidInputError(
                f"texts: expected texts or pairs, got options at position {row}, which are for a "
                "multiple-choice model; name the column with the texts by column="
            )
        if text.messages:
            raise InvalidInputError(
                "texts: expected texts or pairs, got the messages of a chat at position "
                f"{row}, which are for a model that writes"
            )
    results: dict[int, TokenizedText] = {}
    # A tokenizer takes strings or pairs of them, not both at once.
    for pair in (False, True):
        rows = [row for row, text in enumerate(given) if bool(text.parts) is pair]
        if rows:
            chosen = [given[row] for row in rows]
            tokenized = _tokenize_alike(tokenizer, chosen, max_length=max_length, cuts=cuts)
            results.update(zip(rows, tokenized, strict=True))
    return [results[row] for row in range(len(given))]


def _tokenize_alike(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[Text], *, max_length: int | None, cuts: Cut
) -> list[TokenizedText]:
    """Tokenizes texts that are all single, or all pairs."""
    pieces = [text.pieces for text in texts]
    if max_length is not None and len(pieces[0]) == 2:
        n_added = int(tokenizer.num_special_tokens_to_add(pair=True))
        if max_length <= n_added:
            raise InvalidInputError(
                f"max_length: expected more than the {n_added} tokens that are added to a pair of "
                f"texts, got {max_length}"
            )
    encoded = tokenizer(
        *([text[i] for text in pieces] for i in range(len(pieces[0]))),
        truncation="do_not_truncate" if max_length is None else cuts,
        max_length=max_length,
        return_attention_mask=True,
        verbose=False,  # else it warns of texts longer than the model takes
    )
    encodings = encoded.encodings
    assert encodings is not None, "fast tokenizers give encodings"
    names = [name for name in encoded if name in tokenizer.model_input_names]
    results = []
    for row, (text, encoding) in enumerate(zip(texts, encodings, strict=True)):
        if not encoding.ids:
            lone = _special_id(tokenizer, ("bos", "cls", "eos", "pad", "unk"))
            values = {"input_ids": lone, "attention_mask": 1}
            results.append(
                TokenizedText(
                    text=text.text,
                    model_inputs={name: [values.get(name, 0)] for name in names},
                    tokens=(str(tokenizer.convert_ids_to_tokens(lone)),),
                    offsets=((0, 0),),
                    maskable=(False,),
                    n_tokens_cut=0,
                    parts=text.parts,
                    words=text.words,
                )
            )
            continue
        maskable = tuple(not special for special in encoding.special_tokens_mask)
        starts = [start for start, _ in text.parts] or [0]
        cut = sum(part.special_tokens_mask.count(0) for part in encoding.overflowing)
        if text.parts and len(encoding.ids) == max_length:
            # What overflows of a pair, tokenizers repeat for each of its texts.
            whole = tokenizer(*text.pieces).encodings[0]
            cut = whole.special_tokens_mask.count(0) - sum(maskable)
        results.append(
            TokenizedText(
                text=text.text,
                model_inputs={name: list(encoded[name][row]) for name in names},
                tokens=tuple(encoding.tokens),
                offsets=tuple(
                    (start + starts[part or 0], end + starts[part or 0]) if keep else (0, 0)
                    for (start, end), keep, part in zip(
                        encoding.offsets, maskable, encoding.sequence_ids, strict=True
                    )
                ),
                maskable=maskable,
                n_tokens_cut=cut,
                parts=text.parts,
                words=text.words,
            )
        )
    return results


def collate(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[TokenizedText],
    *,
    extra_inputs: Sequence[str] = (),
    own_inputs: Sequence[str] = (),
    padding_side: str | None = None,
    device: torch.device | None = None,
) -> TextBatch:
    """Pads tokenized texts to the longest one.

    Args:
        tokenizer: The tokenizer that made them.
        texts: At least one tokenized text.
        extra_inputs: Names of further model inputs, in the order in which the forward function
            takes them after ids and attention mask; those that the tokenizer does not give are
            left out.
        own_inputs: Names of the task's own inputs, which follow them. Default: ().
        padding_side (str, optional): "left" or "right". Default: None, the tokenizer's.
        device (optional): Where the tensors go. Default: None, the CPU.

    Raises:
        InvalidInputError: There is no text.
    """
    if not texts:
        raise InvalidInputError("texts: expected at least one text, got none")
    length = max(len(text) for text in texts)
    left = (padding_side or tokenizer.padding_side) == "left"

    def padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
        filled = torch.full((len(rows), length), value, dtype=torch.long)
        for row, values in enumerate(rows):
            start = length - len(values) if left else 0
            filled[row, start : start + len(values)] = torch.tensor(values, dtype=torch.long)
        return filled.to(device)

    given = [name for name in extra_inputs if name in texts[0].model_inputs]
    fill = {"token_type_ids": int(tokenizer.pad_token_type_id)}
    # Which id fills masked positions does not matter to a model that honours the attention mask.
    padding_id = _special_id(tokenizer, ("pad", "eos", "unk"))
    return TextBatch(
        texts=tuple(texts),
        input_ids=padded([t.model_inputs["input_ids"] for t in texts], padding_id),
        attention_mask=padded([[1] * len(t) for t in texts], 0),
        extra_inputs={
            **{
                name: padded([t.model_inputs[name] for t in texts], fill.get(name, 0))
                for name in given
            },
            **own_tensors(texts, own_inputs, device),
        },
        maskable=padded([t.maskable for t in texts], 0).bool(),
    )


def own_tensors(
    texts: Sequence[TokenizedText], names: Sequence[str], device: torch.device | None = None
) -> dict[str, Tensor]:
    """The tasks' own inputs of N texts by name, (N, P), -1 where a text has fewer."""
    rows = {
        name: [torch.tensor(text.own_inputs[name], dtype=torch.long) for text in texts]
        for name in names
    }
    return {
        name: pad_sequence(values, batch_first=True, padding_value=-1).to(device)
        for name, values in rows.items()
    }


def sequences_of(text: TokenizedText) -> list[TokenizedText]:
    """The R sequences of a tokenized text, each a text of its own; the text itself if it is one."""
    if not text.sequences:
        return [text]
    ends = accumulate(text.sequences)
    parts = [slice(end - length, end) for end, length in zip(ends, text.sequences, strict=True)]
    return [
        replace(
            text,
            model_inputs={name: values[part] for name, values in text.model_inputs.items()},
            tokens=text.tokens[part],
            offsets=text.offsets[part],
            maskable=text.maskable[part],
            own_inputs={"lengths": (length,)},
            sequences=(length,),
            copies=None,
        )
        for part, length in zip(parts, text.sequences, strict=True)
    ]


def require_offsets(tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuses a tokenizer that cannot say which characters a token stands for.

    Raises:
        InvalidInputError: It is a slow tokenizer.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise InvalidInputError(
            f"tokenizer: expected a fast tokenizer, which gives character offsets, got the slow "
            f"{type(tokenizer).__name__}; load it with AutoTokenizer.from_pretrained(..., "
            "use_fast=True) or save it in the tokenizer.json format"
        )


def _special_id(tokenizer: PreTrainedTokenizerBase, kinds: Sequence[str]) -> int:
    for kind in kinds:
        candidate = getattr(tokenizer, f"{kind}_token_id")
        if candidate is not None:
            return int(candidate)
    return 0
