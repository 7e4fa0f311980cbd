"""Words as single entries of a vocabulary, where they stand in a text."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from captum_aml.exceptions import InvalidInputError


def entry_names(tokenizer: PreTrainedTokenizerBase, n_entries: int) -> tuple[str, ...]:
    """The entries as the vocabulary spells them; ``LABEL_i`` for numbers without one.

    Args:
        tokenizer: The tokenizer.
        n_entries: The number of outputs, which may be more than the vocabulary has.
    """
    known = tokenizer.convert_ids_to_tokens(list(range(min(n_entries, len(tokenizer)))))
    names = [name or f"LABEL_{number}" for number, name in enumerate(known)]
    return (*names, *(f"LABEL_{number}" for number in range(len(names), n_entries)))


def entry_of(
    tokenizer: PreTrainedTokenizerBase, word: str, *, before: str, after: str, name: str
) -> int:
    """The number of the one entry that a word is between two strings.

    Args:
        tokenizer: A fast tokenizer.
        word: The word as it is written, or an entry as the vocabulary spells it.
        before: What stands before it.
        after: What stands after it.
        name: What an error calls it.

    Raises:
        InvalidInputError: It is several tokens, or none.
    """
    pieces = _pieces(tokenizer, word, before, after)
    if len(pieces) == 1 and pieces[0] != tokenizer.unk_token_id:
        return pieces[0]
    entry = tokenizer.convert_tokens_to_ids(word)
    if isinstance(entry, int) and tokenizer.convert_ids_to_tokens(entry) == word:
        return entry
    if len(pieces) < 2:
        raise InvalidInputError(
            f"{name}: expected a word of the tokenizer's vocabulary, got {word!r}"
        )
    spelled = tokenizer.convert_ids_to_tokens(pieces)
    raise InvalidInputError(
        f"{name}: expected a word of one token, as the mask token stands for one, got {word!r}, "
        f"which is {len(pieces)}: {', '.join(map(repr, spelled))}"
    )


def _pieces(tokenizer: PreTrainedTokenizerBase, word: str, before: str, after: str) -> list[int]:
    """The tokens with a character of a word between two strings, or with the space before it."""
    if before[-1:].isspace():
        word = word.lstrip()
    start, end = len(before), len(before) + len(word)
    space = start - before.endswith(" ")
    encoding = tokenizer(before + word + after, add_special_tokens=False, verbose=False).encodings[
        0
    ]
    return [
        token
        for token, (first, last) in zip(encoding.ids, encoding.offsets, strict=True)
        if first < end and last > space
    ]
