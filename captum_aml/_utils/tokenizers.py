"""Properties of a tokenizer beside token ids: its baseline token, and characters."""

from __future__ import annotations

from itertools import takewhile
from typing import Any

from captum_aml.exceptions import InvalidInputError

#: The special tokens that may stand for a removed one, the most fitting first. Padding comes last:
#: its embedding is often zero or was never trained, and where a model divides embeddings by their
#: norm (Llama and its kin), a blend with zeros is the token itself.
BASELINE_KINDS = ("mask", "unk", "eos", "pad")


# Any tokenizer that Captum takes, of transformers or not.
def baseline_id(tokenizer: Any, token: str | None = None) -> int:
    """The id of the token to put in place of those that are taken away.

    Args:
        tokenizer: The model's tokenizer.
        token (str, optional): A vocabulary entry to use. Default: None, which takes the first that
            the tokenizer has of: mask, unknown, end of sequence, padding.

    Raises:
        InvalidInputError: ``token`` is not in the vocabulary, or the tokenizer has none of the
            four.
    """
    if token is not None:
        vocabulary = tokenizer.get_vocab()
        if token not in vocabulary:
            raise InvalidInputError(
                f"baseline: expected an entry of the tokenizer's vocabulary, got {token!r}"
            )
        return int(vocabulary[token])
    for kind in BASELINE_KINDS:
        candidate = getattr(tokenizer, f"{kind}_token_id", None)
        if candidate is not None:
            return int(candidate)
    raise InvalidInputError(
        "baseline: expected a vocabulary entry to stand for a removed token, since the tokenizer "
        f"has no {', '.join(BASELINE_KINDS)} token; got None"
    )


def has_beginning(tokenizer: Any, text: str) -> bool:
    """Whether a text begins with the token that the tokenizer would put before it.

    As the prompts do that a chat template has rendered: they have all their special tokens, and
    are to be tokenized without adding any.
    """
    own, whole = (tokenizer.encode(text, add_special_tokens=added) for added in (False, True))
    if not own:
        return False
    run, longer = (len(list(takewhile(lambda i: i == own[0], ids))) for ids in (own, whole))
    return run < longer


def ids_with_offsets(tokenizer: Any, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """A text's token ids, special tokens included, and the characters that each stands for.

    None is added to a text that :func:`has_beginning`.

    Raises:
        InvalidInputError: The tokenizer cannot say them.
    """
    kind = type(tokenizer).__name__
    try:
        encoded = tokenizer(
            text,
            return_offsets_mapping=True,
            add_special_tokens=not has_beginning(tokenizer, text),
        )
        ids, offsets = list(encoded["input_ids"]), list(encoded["offset_mapping"])
    except (KeyError, NotImplementedError, TypeError) as error:
        raise InvalidInputError(
            "tokenizer: expected a fast tokenizer, which gives character offsets, got the slow "
            f"{kind} ({error}); load it with AutoTokenizer.from_pretrained(..., use_fast=True), or "
            "explain tokens with TextTokenInput, which needs no characters"
        ) from error
    spans = [(int(start), int(end)) for start, end in offsets]
    if text and ids and not any(end > start for start, end in spans):
        raise InvalidInputError(
            f"tokenizer: expected character offsets, got a {kind} whose tokens stand for none"
        )
    return ids, spans
