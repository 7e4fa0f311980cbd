"""First maskers for a text model."""

from __future__ import annotations

import os

from torch import nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from captum_aml.exceptions import InvalidInputError
from captum_aml.maskers import AlignedMasker, SharedMasker, TransformerMasker
from captum_aml.text.model import TextModel
from captum_aml.text.prompt import PromptClassifier


def first_masker(
    given: str | os.PathLike[str] | nn.Module | None, text_model: TextModel, *, seed: int = 0
) -> nn.Module:
    """What fitting starts from.

    Args:
        given: ``transformer``, a copy of the model's own encoder; ``shared``, a head on its hidden
            states; an encoder's folder or hub id; a module; or None, for the first of these for an
            encoder and the second for a decoder.
        text_model: The model to explain.
        seed: The seed of first weights. Default: 0.

    Raises:
        InvalidInputError: The model has no such masker.
        OSError: There is no such encoder.
    """
    if isinstance(given, nn.Module):
        return given
    if given is None:
        given = "shared" if text_model.is_decoder else "transformer"
    model, n_classes = text_model.model, text_model.n_classes
    if given == "transformer":
        return TransformerMasker.from_model(model, n_classes=n_classes, seed=seed)
    if given == "shared":
        _check_runs_once(text_model)
        return SharedMasker.from_model(model, n_classes=n_classes, seed=seed)
    return encoder_masker(given, text_model, seed=seed)


def _check_runs_once(text_model: TextModel) -> None:
    """Checks that a pass has the texts' rows and positions, for a head on its hidden states."""
    if isinstance(text_model, PromptClassifier) and not text_model.model.config.is_encoder_decoder:
        longer = [
            name
            for name, ids in zip(text_model.label_names, text_model.label_ids, strict=True)
            if len(ids) > 1
        ]
        if longer:
            raise InvalidInputError(
                "masker: a head on the model's hidden states needs label words of one token each, "
                f"since longer ones are read in passes of their own; got {', '.join(longer)}. "
                "Choose other words, or give an encoder's folder or hub id as masker="
            )


def encoder_masker(
    source: str | os.PathLike[str], text_model: TextModel, *, seed: int = 0
) -> nn.Module:
    """A masker from an encoder, aligned by characters where it has a tokenizer of its own.

    Args:
        source: A folder or a hub id. Where there is no tokenizer in it, it takes the model's.
        text_model: The model to explain.
        seed: The seed of the head's first weights. Default: 0.

    Raises:
        InvalidInputError: It has neither a tokenizer of its own nor the model's vocabulary.
        OSError: There is no such encoder.
    """
    name = os.fspath(source)
    own = _tokenizer(name)
    if own is not None and not _same(own, text_model.tokenizer):
        return AlignedMasker.from_pretrained(
            name,
            tokenizer=text_model.tokenizer,
            masker_tokenizer=own,
            n_classes=text_model.n_classes,
            seed=seed,
        )
    masker = TransformerMasker.from_pretrained(name, n_classes=text_model.n_classes, seed=seed)
    entries = getattr(masker.encoder.get_input_embeddings(), "num_embeddings", None)
    known = getattr(text_model.embedding_layer, "num_embeddings", None)
    if entries != known:
        raise InvalidInputError(
            "masker: expected an encoder with a tokenizer of its own beside it, or with the "
            f"model's vocabulary of {known} entries, got {name!r} with {entries}"
        )
    return masker


def _tokenizer(name: str) -> PreTrainedTokenizerBase | None:
    """The fast tokenizer beside an encoder; None where there is none."""
    try:
        found = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception:  # transformers raises errors of many types where there is no tokenizer
        return None
    # Without files of one, some architectures give a tokenizer that knows special tokens only.
    known = len(found) > len(set(found.all_special_ids))
    return found if known and getattr(found, "is_fast", False) else None


def _same(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> bool:
    """Whether two tokenizers give every token the same id."""
    return one.get_vocab() == other.get_vocab()


__all__ = ["encoder_masker", "first_masker"]
