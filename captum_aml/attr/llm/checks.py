"""Checks of what a method for prompts is made of: its model, and how tokens are removed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from captum_aml._captum import LLMAttribution, LLMGradientAttribution
from captum_aml.attr.aml import AMLAttribution
from captum_aml.attr.base import MaskAttribution
from captum_aml.attr.la import LAAttribution
from captum_aml.attr.llm.rows import Example, Row, collate
from captum_aml.exceptions import InvalidInputError
from captum_aml.masking.attention import taken_removal
from captum_aml.masking.forward import find_embedding_layer
from captum_aml.perturbation import AttentionRemoval, JointRemoval


def checked_embedding_layer(attr_method: object) -> nn.Module:
    """The input embeddings of the model that a method was made with.

    Raises:
        InvalidInputError: The method is not one of ours, or what it explains cannot write.
    """
    if not isinstance(attr_method, AMLAttribution | LAAttribution):
        kind = getattr(attr_method, "__name__", type(attr_method).__name__)
        hint = ""
        if isinstance(attr_method, MaskAttribution):
            hint = ": those mask a prompt at the model's input embeddings"
        elif isinstance(attr_method, LLMAttribution.SUPPORTED_METHODS):
            hint = "; captum.attr.LLMAttribution takes it"
        elif isinstance(attr_method, LLMGradientAttribution.SUPPORTED_METHODS):
            hint = "; captum.attr.LLMGradientAttribution takes it"
        raise InvalidInputError(
            f"attr_method: expected an AMLAttribution or LAAttribution, got {kind}{hint}"
        )
    model = attr_method.forward_func
    if not isinstance(model, nn.Module):
        raise InvalidInputError(
            "attr_method: expected a method made with the language model itself, such as "
            f"AMLAttribution(model), got one with the forward function {type(model).__name__}"
        )
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        raise InvalidInputError(
            f"attr_method: expected a causal (decoder-only) language model, got the "
            f"{type(model).__name__}, an encoder-decoder"
        )
    if len(attr_method.embedding_layers) > 1:
        raise InvalidInputError(
            "embedding_layer: expected the one layer that embeds token ids, got "
            f"{len(attr_method.embedding_layers)}"
        )
    if attr_method.embedding_layers:
        return attr_method.embedding_layers[0]
    layer = find_embedding_layer(model)
    if layer is None:
        raise InvalidInputError(
            f"embedding_layer: expected the layer that embeds token ids, since the "
            f"{type(model).__name__} has no get_input_embeddings(); make the method with "
            "embedding_layer="
        )
    return layer


def check_removal(
    attr_method: AMLAttribution | LAAttribution, examples: Sequence[Example], device: torch.device
) -> None:
    """Checks, where tokens are to be hidden from attention, whether they can be.

    The model has to take such masks: that is tried out on the longest. And unless tokens are
    blended as well, something of each prompt has to stay. What ``auto`` chooses can be.

    Raises:
        InvalidInputError: They cannot.
    """
    perturbation = attr_method.perturbation
    if not isinstance(perturbation, AttentionRemoval | JointRemoval):
        return
    name = perturbation.name
    for example in examples:
        if isinstance(perturbation, JointRemoval):
            break
        if bool((example.prompt.ids != example.prompt.baselines).all()):
            raise InvalidInputError(
                f"perturbation: {name!r} needs a prompt of which something stays, since "
                "attention is shared out among what is there and hiding all tokens alike hides "
                "none; got one whose tokens can all be removed. Skip its first token "
                "(skip_tokens of TextTokenInput), put its values into a template, or use "
                "'blend'"
            )
    call = collate([Row(max(examples, key=len))], device)
    ids, args = call["inputs"], call["additional_forward_args"]
    function = attr_method.forward_func
    removable = ids != call["baselines"]
    if bool(removable.any()) and taken_removal(function, ids, removable, args, 0) is None:
        raise InvalidInputError(
            f"perturbation: {name!r} needs a model whose "
            "attention takes an additive mask of four dimensions in place of its own (not one "
            "with flash attention, nor prompts beyond a sliding window); use 'blend'"
        )
