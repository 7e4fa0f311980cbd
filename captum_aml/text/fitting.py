"""The recipe for fitting a masker on texts: perturbation, first masker, and what is fitted."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from captum_aml._utils.hub import check_source
from captum_aml.attr.aml import AMLAttribution
from captum_aml.attr.la import LEARNED, LAAttribution
from captum_aml.exceptions import InvalidInputError
from captum_aml.maskers import AlignedMasker, TransformerMasker
from captum_aml.maskers.base import explained_layers_of
from captum_aml.maskers.fingerprint import ModelFingerprint
from captum_aml.maskers.registry import build_masker, masker_names
from captum_aml.masking.attention import taken_removal
from captum_aml.objectives import AMLObjective, LAObjective
from captum_aml.text.inputs import TextLike
from captum_aml.text.models.base import TextModel
from captum_aml.text.models.prompt import PromptClassifier
from captum_aml.training.recipes import default_loss, default_rate
from captum_aml.training.settings import LossName

#: What tells a folder with a fitted masker from one with an encoder.
_MASKER_CONFIG = '"captum_aml.masker"'


@dataclass(frozen=True)
class TextRecipe:
    """The recipe of a fit on texts, as far as model, method and masker decide it.

    Attributes:
        masker: What fitting starts from.
        perturbation: How a mask is applied.
        loss: What the masker learns from.
        learning_rate: AdamW's highest rate.
    """

    masker: nn.Module
    perturbation: str
    loss: LossName
    learning_rate: float


def text_recipe(
    text_model: TextModel,
    texts: Sequence[TextLike],
    *,
    method: str,
    masker: str | os.PathLike[str] | nn.Module | None = None,
    perturbation: str | None = None,
    seed: int = 0,
) -> TextRecipe:
    """The recipe for a text model, which did best in our measurements.

    The learning rate depends on the masker itself, wherever it is from: a head on the model's
    hidden states starts from random weights, all else from those of an encoder.

    Args:
        text_model: The model to explain.
        texts: One or more, on which it is tried out what the model takes.
        method: ``aml`` or ``la``.
        masker: As :func:`first_masker` takes it. Default: None.
        perturbation: How a mask is applied. Default: None, through attention where the model takes
            it, otherwise by blending.
        seed: The seed of first weights. Default: 0.

    Raises:
        InvalidInputError: The model has no such masker, or there is no such encoder.
        CheckpointError: The fitted masker is of another model.
    """
    if text_model.no_fit:
        raise InvalidInputError(
            f"model: a masker cannot be fitted where {text_model.no_fit}; explain without one"
        )
    if perturbation is None:
        perturbation = attention_removal(text_model, texts) or "blend"
    first = first_masker(masker, text_model, method=method, seed=seed)
    rate = default_rate(head=explained_layers_of(first) is not None)
    return TextRecipe(first, perturbation, default_loss(method), rate)


def text_attribution(
    text_model: TextModel,
    method: str,
    *,
    masker: nn.Module,
    perturbation: str,
    objective: AMLObjective | LAObjective | None = None,
    seed: int = 0,
) -> AMLAttribution | LAAttribution:
    """An attribution whose ``fit`` learns from a text model.

    Args:
        text_model: The model to explain.
        method: ``aml`` or ``la``.
        masker: What fitting starts from.
        perturbation: How a mask is applied.
        objective: Default: None, the method's own.
        seed: The seed of everything random. Default: 0.
    """
    return LEARNED[method](
        text_model,
        embedding_layer=text_model.embedding_layer,
        masker=masker,
        objective=objective,
        perturbation=perturbation,
        output=text_model.output,
        seed=seed,
    )


def load_text_attribution(
    folder: str | os.PathLike[str], text_model: TextModel, method: str, *, seed: int = 0
) -> AMLAttribution | LAAttribution:
    """A fitted attribution from a folder that it, or another of its masker, was saved to.

    Raises:
        CheckpointError: The folder is missing, damaged, or of another model.
    """
    return LEARNED[method].from_pretrained(
        folder,
        text_model,
        embedding_layer=text_model.embedding_layer,
        output=text_model.output,
        seed=seed,
    )


def attention_removal(text_model: TextModel, texts: Sequence[TextLike]) -> str | None:
    """The perturbation that hides tokens from a model's attention, if the model takes it.

    ``attention`` and ``causal-attention`` give the model an additive mask (N, 1, Q, L). Whether it
    takes such a mask, and whether its own attention is causal, is tried out: with nothing hidden
    the logits have to be those of the usual mask, and with something hidden others.

    Args:
        text_model: The model.
        texts: One or more, of which the two shortest and the two longest are tried, so that
            padding takes part, and windows of attention.

    Returns:
        ``attention``, ``causal-attention``, or None where the model takes neither.
    """
    ordered = sorted(text_model.tokenize(texts), key=len)
    batch = text_model.collate(ordered[:2] + ordered[2:][-2:])
    with text_model.evaluating():
        removal = taken_removal(
            text_model, batch.input_ids, batch.maskable, batch.forward_args, attention_mask=0
        )
    return None if removal is None else removal.name


def default_masker(text_model: TextModel) -> str:
    """The name of the first masker: a copy of an encoder, or a head on a decoder's states."""
    return "shared" if text_model.is_decoder else "transformer"


def first_masker(
    given: str | os.PathLike[str] | nn.Module | None,
    text_model: TextModel,
    *,
    method: str = "aml",
    seed: int = 0,
) -> nn.Module:
    """The masker that fitting starts from.

    Args:
        given: A registered name such as ``transformer``, a copy of the model's own encoder, or
            ``shared``, a head on its hidden states; the folder of a fitted masker; an encoder's
            folder or hub id; a module; or None, for the first of these for an encoder and the
            second for a decoder.
        text_model: The model to explain.
        method: ``aml`` or ``la``, as which a fitted masker is loaded. Default: "aml".
        seed: The seed of first weights. Default: 0.

    Raises:
        InvalidInputError: The model has no such masker, or there is no such encoder.
        CheckpointError: The fitted masker is of another model.
    """
    if isinstance(given, nn.Module):
        return given
    if given is None:
        given = default_masker(text_model)
    if given in masker_names():
        masker = build_masker(
            str(given), text_model.model, n_classes=text_model.n_outcomes, seed=seed
        )
        if explained_layers_of(masker) is not None:
            _check_runs_once(text_model)
        return masker
    file = Path(given) / "config.json"
    if file.is_file() and _MASKER_CONFIG in file.read_text("utf-8", errors="replace"):
        return _fitted_masker(given, text_model, method)
    return _encoder_masker(given, text_model, seed=seed)


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


def _fitted_masker(folder: str | os.PathLike[str], text_model: TextModel, method: str) -> nn.Module:
    loaded = load_text_attribution(folder, text_model, method)
    layer: Any = text_model.embedding_layer
    assert loaded.masker_ is not None
    assert loaded.fingerprint_ is not None
    loaded.fingerprint_.check(
        ModelFingerprint(
            embedding_dim=getattr(layer, "embedding_dim", None),
            vocab_size=getattr(layer, "num_embeddings", None),
            n_classes=text_model.n_outcomes,
        )
    )
    return loaded.masker_


def _encoder_masker(
    source: str | os.PathLike[str], text_model: TextModel, *, seed: int
) -> nn.Module:
    """A masker from an encoder, aligned by characters where it has a tokenizer of its own.

    Where there is no tokenizer beside it, it takes the model's.

    Raises:
        InvalidInputError: There is none, or it has neither a tokenizer of its own nor the model's
            vocabulary.
    """
    name = os.fspath(source)
    expected = (
        f"{', '.join(masker_names())}, a folder with a fitted masker, or an encoder (a folder or a "
        "hub id)"
    )
    check_source(name, expected, argument="masker")
    own = _tokenizer(name)
    if own is not None and own.get_vocab() != text_model.tokenizer.get_vocab():
        return AlignedMasker.from_pretrained(
            name,
            tokenizer=text_model.tokenizer,
            masker_tokenizer=own,
            n_classes=text_model.n_outcomes,
            seed=seed,
        )
    masker = TransformerMasker.from_pretrained(name, n_classes=text_model.n_outcomes, seed=seed)
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
