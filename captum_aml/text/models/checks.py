"""Whether a model and its tokenizer go together, and how long a text may be for both."""

from __future__ import annotations

import warnings

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from captum_aml.exceptions import InvalidInputError
from captum_aml.text.models.entry import input_embeddings

#: What configurations call the number of positions.
_POSITIONS = ("max_position_embeddings", "max_seq_len")


def check_belong_together(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuses a tokenizer of another model, as far as it can be seen.

    Raises:
        InvalidInputError: It has no vocabulary, or more entries than there are embeddings.
    """
    entries = len(tokenizer)
    if entries <= len(set(tokenizer.all_special_ids)):
        raise InvalidInputError(
            "tokenizer: expected a vocabulary, got special tokens only; are its files beside the "
            "model's?"
        )
    table = input_embeddings(model)
    n_embeddings = getattr(table, "num_embeddings", None)
    if n_embeddings is not None and entries > n_embeddings:
        raise InvalidInputError(
            f"tokenizer: expected at most the {n_embeddings} entries the model has embeddings "
            f"for, got {entries}; does it belong to this model?"
        )
    own, its = getattr(model.config, "pad_token_id", None), tokenizer.pad_token_id
    padding_idx = getattr(table, "padding_idx", None)
    if padding_idx is not None and own is not None and its is not None and own != its:
        # Not an error: such models exist, and the attention mask hides what padding looks like.
        warnings.warn(
            f"tokenizer: its padding token has the id {its}, the model's {own}; does it belong to "
            "this model?",
            stacklevel=4,
        )


def first_position(model: PreTrainedModel) -> int:
    """The first token's position: the padding index plus one of RoBERTa and its kin, else 0."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and hasattr(module, "weight"):
            padding = getattr(module, "padding_idx", None)
            return padding + 1 if isinstance(padding, int) else 0
    return 0


def checked_length(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    wanted: int | None,
    *,
    least: int,
    n_reserved: int = 0,
) -> int | None:
    """The most tokens that texts are cut to, special ones included; None where there is no limit.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        wanted: The number that the user gives; None for what the model takes.
        least: The fewest tokens with one of the text.
        n_reserved: The positions of the model that its inputs have to leave free. Default: 0.

    Raises:
        InvalidInputError: The number is below the least, or above what the model takes.
    """
    limits = [int(tokenizer.model_max_length)]
    config = model.config.get_text_config()
    for positions in (getattr(config, name, None) for name in _POSITIONS):
        if isinstance(positions, int) and positions > 0:
            limits.append(positions - first_position(model))
    # Tokenizers without a limit of their own report a number of about 1e30.
    limit = None if min(limits) >= 10**9 else min(limits) - n_reserved
    if wanted is not None and not least <= wanted <= (limit or wanted):
        raise InvalidInputError(
            f"max_length: expected {least} to {limit or 'any number of'} tokens, got {wanted}"
        )
    return limit if wanted is None else wanted
