"""Answers of language models: their tokens, and the characters and the parts of them."""

from __future__ import annotations

import copy
import operator
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import dropwhile, takewhile
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from captum_aml._utils.rows import shown
from captum_aml.exceptions import InvalidInputError
from captum_aml.text.inputs import Span

#: What stands for a space at the beginning of vocabulary entries.
_SPACES = ("Ġ", "▁")


@dataclass(frozen=True)
class Answer:
    """What follows a prompt; T tokens.

    Attributes:
        lead: The tokens before it that say nothing, such as the one for its language.
        ids: Its tokens.
        entries: They as the vocabulary spells them.
        text: It as it is written.
        spans: The characters of each token in ``text``.
    """

    lead: tuple[int, ...]
    ids: tuple[int, ...]
    entries: tuple[str, ...]
    text: str
    spans: tuple[Span, ...]

    @classmethod
    def of(
        cls, tokenizer: PreTrainedTokenizerBase, written: Sequence[int], ends: Collection[int] = ()
    ) -> Answer:
        """The answer in what was written, up to what marks its end.

        Args:
            tokenizer: The model's tokenizer.
            written: Token ids.
            ends: The ids that mark the end. Default: none.
        """
        special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
        lead = tuple(takewhile(special.__contains__, written))
        rest = list(takewhile(lambda i: i not in ends, written[len(lead) :]))
        rest = list(dropwhile(special.__contains__, reversed(rest)))[::-1]
        stops: list[int] = []
        for number in range(len(rest)):
            # A part of a character is written as a replacement for it.
            stops.append(len(_decoded(tokenizer, rest[: number + 1])))
        text = _decoded(tokenizer, rest)
        starts = [0, *stops][: len(rest)]
        return cls(
            lead=() if any(i in ends for i in lead) else lead,
            ids=tuple(rest),
            entries=tuple(map(str, tokenizer.convert_ids_to_tokens(rest))),
            text=text,
            spans=tuple(zip(starts, stops, strict=True)),
        )

    def label(self, part: Span) -> str:
        """What tokens say, in one line."""
        first, last = part
        said = " ".join(self.text[self.spans[first][0] : self.spans[last - 1][1]].split())
        known = said.strip("\N{REPLACEMENT CHARACTER} ")
        return said if known else "".join(self.entries[first:last])

    def begins_with_space(self, number: int) -> bool:
        """Whether a token has a space before its first letter."""
        start, end = self.spans[number]
        return self.entries[number].startswith(_SPACES) or self.text[start:end][:1].isspace()

    def part(self, asked: Any) -> Span | None:  # of any type, which is checked
        """The tokens (first, one behind the last) of a part; None for a string that is not in it.

        Args:
            asked: A string in the answer, where it stands first; 0 for the whole answer, or the
                number of a token, from 1; or a slice of these numbers.

        Raises:
            InvalidInputError: It is neither, or beyond the answer.
        """
        n_tokens = len(self.ids)
        if isinstance(asked, str):
            wanted = asked.strip()
            start = self.text.find(wanted) if wanted else -1
            if start < 0:
                return None
            inside = [
                i for i, (a, b) in enumerate(self.spans) if a < start + len(wanted) and b > start
            ]
            return inside[0], inside[-1] + 1
        if isinstance(asked, slice):
            first = 1 if asked.start is None else asked.start
            last = n_tokens + 1 if asked.stop is None else asked.stop
            if asked.step is None and 1 <= first < last <= n_tokens + 1:
                return first - 1, last - 1
        elif not isinstance(asked, bool) and hasattr(asked, "__index__"):
            number = operator.index(asked)
            if number == 0:
                return 0, n_tokens
            if 1 <= number <= n_tokens:
                return number - 1, number
        raise InvalidInputError(
            f"target: expected a part of the answer {self.text!r} as a string, 0 for all of it, or "
            f"a number from 1 to {n_tokens} or a slice of these for its tokens, got {asked!r}"
        )


@torch.no_grad()
def written_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    ids: Tensor,
    attention_mask: Tensor,
    *,
    max_new_tokens: int,
) -> list[Answer]:
    """What a model writes after prompts (N, L), the likeliest token each time.

    Args:
        model: A language model, in evaluation mode.
        tokenizer: Its tokenizer.
        ids: The prompts, without padding.
        attention_mask: (N, L).
        max_new_tokens: The most tokens that it writes.
    """
    config = copy.deepcopy(model.generation_config)
    padding = (config.pad_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    config.update(
        do_sample=False,
        num_beams=1,
        temperature=None,
        top_p=None,
        top_k=None,
        max_length=None,
        max_new_tokens=max_new_tokens,
        pad_token_id=next(i for i in padding if i is not None),
        return_dict_in_generate=False,
    )
    written: Any = model.generate(  # type: ignore[operator]  # of a mixin
        ids, attention_mask=attention_mask, generation_config=config
    )
    start = 1 if model.config.is_encoder_decoder else ids.shape[1]
    ends = config.eos_token_id
    end_ids = {*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id}
    return [Answer.of(tokenizer, row[start:].tolist(), end_ids) for row in written.cpu()]


def continued(tokenizer: PreTrainedTokenizerBase, before: str, word: str) -> tuple[int, ...]:
    """The tokens of what follows a string.

    Which they are may depend on what is before: a tokenizer may put a space before what comes
    first. Where it joins both, as a space that the string ends with and a word, they are those
    after a colon.

    Raises:
        InvalidInputError: It joins the word with that, too.
    """
    for known in (before, ":"):
        alone, joined = (
            tokenizer(string, add_special_tokens=False, verbose=False)["input_ids"]
            for string in (known, known + word)
        )
        if joined[: len(alone)] == alone and len(joined) > len(alone):
            return tuple(int(i) for i in joined[len(alone) :])
    raise InvalidInputError(
        f"target: expected words that begin a token where they stand, but the tokenizer joins "
        f"{shown(word)} with {before[-10:]!r}"
    )


def _decoded(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(
        tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    )
