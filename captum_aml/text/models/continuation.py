"""The logits of language models along continuations of their prompts, in one pass.

The prompt's tokens go through the embedding layer once, where a mask replaces what it gives; those
of the continuations by ``forward``, past its hooks, so that they are never masked.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from captum_aml._utils.isolation import evaluating
from captum_aml.exceptions import InvalidInputError
from captum_aml.text.models._causal import extended_mask, last_tokens, positions, shown_tokens
from captum_aml.text.models.checks import first_position


def decoder_logits(
    model: PreTrainedModel,
    layer: nn.Module,
    ids: Tensor,
    attention_mask: Tensor | None,
    branches: Tensor,
    *,
    accepted: Container[str],
) -> Tensor:
    """A decoder's logits after the prompt and after each token that follows it.

    Args:
        model: A causal language model.
        layer: Its embedding layer.
        ids: The prompts (N, L), padded on either side.
        attention_mask: See :func:`captum_aml.text.models._causal.shown_tokens`.
        branches: The tokens (N, B, T) of the B continuations of each prompt.
        accepted: The names of the model's arguments.

    Returns:
        (N, B, T + 1, V) in float32.
    """
    shown = shown_tokens(attention_mask, ids)
    ends, (n, n_branches, n_more) = last_tokens(shown), branches.shape
    # Where a model could number positions by itself it does: RoBERTa's do not begin at 0.
    numbered = "position_ids" in accepted and (
        not bool(shown.all()) or (attention_mask is not None and attention_mask.dim() == 4)
    )
    if n_more == 0:
        named: dict[str, Any] = {"input_ids": ids, "attention_mask": attention_mask}
        if numbered:
            named["position_ids"] = positions(shown) + first_position(model)
        places = ends[:, None]
    else:
        more = layer.forward(branches.flatten(0, 1))
        embedded = layer(ids).repeat_interleave(n_branches, dim=0)
        mask = extended_mask(attention_mask, ids, n_more).repeat_interleave(n_branches, dim=0)
        named = {"inputs_embeds": torch.cat([embedded, more], dim=1), "attention_mask": mask}
        if numbered:
            following = torch.ones(n, n_more, dtype=torch.bool, device=ids.device)
            own = positions(torch.cat([shown, following], dim=1)) + first_position(model)
            named["position_ids"] = own.repeat_interleave(n_branches, dim=0)
        onwards = torch.arange(ids.shape[1], ids.shape[1] + n_more, device=ids.device)
        places = torch.cat([ends[:, None], onwards.expand(n, -1)], dim=1)
        places = places.repeat_interleave(n_branches, dim=0)
    kept, where = torch.unique(places, return_inverse=True)
    if "logits_to_keep" in accepted:
        named["logits_to_keep"] = kept
    else:
        where = places
    logits: Tensor = model(**named, use_cache=False).logits
    rows = torch.arange(len(where), device=logits.device)[:, None]
    chosen = logits[rows, where.to(logits.device)].float()
    if n_more == 0:  # all continuations are empty, and alike
        chosen = chosen.repeat_interleave(n_branches, dim=0)
    return chosen.reshape(n, n_branches, n_more + 1, -1)


def encoder_decoder_logits(
    model: PreTrainedModel,
    layer: nn.Module,
    ids: Tensor,
    attention_mask: Tensor | None,
    branches: Tensor,
) -> Tensor:
    """An encoder-decoder's logits at the beginning of its answer and after each token of it.

    Args:
        model: A sequence-to-sequence language model.
        layer: The embedding layer of its encoder.
        ids: What the encoder reads, (N, L).
        attention_mask: See :func:`captum_aml.text.models._causal.shown_tokens`.
        branches: The tokens (N, B, T) of the B answers to each, without the one that begins them.

    Returns:
        (N, B, T + 1, V) in float32.
    """
    n, n_branches, n_more = branches.shape
    states = model.get_encoder()(
        input_ids=None, inputs_embeds=layer(ids), attention_mask=attention_mask
    ).last_hidden_state
    begun = branches.new_full((n, n_branches, 1), start_id(model))
    given = torch.cat([begun, branches], dim=2).flatten(0, 1)
    mask = attention_mask
    if mask is not None and mask.dim() == 4:
        # What the decoder sees of the encoder is what the encoder's last position saw.
        mask = mask[:, :, -1:, :]
    decoder = model.get_decoder()
    shared = isinstance(decoder, PreTrainedModel) and decoder.get_input_embeddings() is layer
    answers = (
        {"decoder_inputs_embeds": layer.forward(given)} if shared else {"decoder_input_ids": given}
    )
    output = model(
        encoder_outputs=BaseModelOutput(
            last_hidden_state=states.repeat_interleave(n_branches, dim=0)
        ),
        attention_mask=None if mask is None else mask.repeat_interleave(n_branches, dim=0),
        **answers,
        use_cache=False,
    )
    logits: Tensor = output.logits
    return logits.float().reshape(n, n_branches, n_more + 1, -1)


def check_causal(model: PreTrainedModel) -> None:
    """Refuses a decoder whose tokens see later ones, which says nothing about what follows.

    Raises:
        InvalidInputError: The last of three tokens changes what is predicted before it.
    """
    layer = model.get_input_embeddings()
    device = next(layer.parameters()).device if isinstance(layer, nn.Module) else None
    with evaluating(model), torch.no_grad():
        first, second = (
            model(input_ids=torch.tensor([[3, 4, last]], device=device)).logits[0, :2].float()
            for last in (5, 6)
        )
    if not torch.allclose(first, second, rtol=1e-2, atol=1e-2 * float(first.abs().max())):
        raise InvalidInputError(
            f"model: expected one whose tokens see only those before them, got a "
            f"{type(model).__name__}, whose tokens see later ones too; an encoder of the kind of "
            "BERT is loaded as a decoder with is_decoder=True, or explained at a mask with "
            "AutoModelForMaskedLM, and any other model as a forward function with "
            "captum_aml.LayerAMLAttribution"
        )


def start_id(model: PreTrainedModel) -> int:
    """The token that an encoder-decoder's answers begin with."""
    names = ("decoder_start_token_id", "bos_token_id")
    found = (getattr(c, n, None) for n in names for c in (model.generation_config, model.config))
    return next((int(token) for token in found if token is not None), 0)


def forced_ids(model: PreTrainedModel) -> tuple[int, ...]:
    """The token that comes next in every answer: BART's beginning, mBART's language."""
    found = getattr(model.generation_config, "forced_bos_token_id", None)
    return () if found is None else (int(found),)
