"""Classifiers that read their answer at a text's last end-of-sequence token, as BART and T5 do.

Of a batch they want equally many of these tokens in every row, and refuse it otherwise. A text may
have more of them than the one that its tokenizer adds, when their characters stand in it.
"""

from __future__ import annotations

from dataclasses import replace

from transformers import PreTrainedModel

from captum_aml._utils.rows import shown
from captum_aml.exceptions import InvalidInputError
from captum_aml.text.encoding import TokenizedText


def end_token(model: PreTrainedModel) -> int | None:
    """The id of the token that a classifier reads its answer at; None where it reads elsewhere."""
    token = model.config.eos_token_id
    reads = model.config.is_encoder_decoder and hasattr(model, "classification_head")
    return token if reads and isinstance(token, int) else None


def count_ends(text: TokenizedText, token: int) -> int:
    """The number of such tokens in a text."""
    return text.model_inputs["input_ids"].count(token)


def with_end(text: TokenizedText, token: int) -> TokenizedText:
    """The text, whose last such token is not maskable: without it there is no answer.

    Raises:
        InvalidInputError: It has none.
    """
    ids = text.model_inputs["input_ids"]
    if token not in ids:
        raise InvalidInputError(
            f"texts: expected the end-of-sequence token with id {token}, at which the model reads "
            f"its answer, got none for the text {shown(text.text)}; its tokenizer has to add it"
        )
    last = len(ids) - 1 - ids[::-1].index(token)
    if not text.maskable[last]:
        return text
    maskable = tuple(can and place != last for place, can in enumerate(text.maskable))
    return replace(text, maskable=maskable)
