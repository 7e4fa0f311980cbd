r"""The published masker: a pretrained encoder that proposes a mask logit for every token.

The encoder reads the tokens' own (frozen) word embeddings and one embedding more, that of
the prediction (:class:`~captum_aml.maskers.base.PredictionEmbedding`) and stands right after
the last token. That position is dropped again, and a head Linear(H, H) - Tanh - Linear(H, 1) gives
each token its logit; the mask is the sigmoid.

Source: Barkan et al., Findings of EMNLP 2024, and its reference code. Deviation: class vectors have
no padding index, so that every class learns.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from captum_aml._utils.checks import as_count, is_integral
from captum_aml._utils.isolation import (
    copy_without_hooks,
    evaluating,
    isolated_rng,
    without_hooks,
    without_inference_tensors,
)
from captum_aml.exceptions import InvalidInputError
from captum_aml.maskers.base import MaskerInputs, PredictionEmbedding
from captum_aml.maskers.registry import register_masker

if TYPE_CHECKING:  # importing transformers takes seconds: only what needs it pays for it
    from transformers import PreTrainedModel


@register_masker("transformer")
class TransformerMasker(nn.Module):
    """A Hugging Face encoder with the prediction embedding and a head for mask logits.

    Args:
        encoder: An encoder that takes ``inputs_embeds`` and returns ``last_hidden_state``. It
            becomes part of the masker: its pooler is dropped and its embeddings are frozen.
            :meth:`from_model` makes a copy.
        n_classes: The number of outcomes C of the explained distribution.

    Raises:
        InvalidInputError: ``n_classes`` is below 1, or no position of the encoder attends to those
            after it, as in causal decoders: none would attend to the prediction, which stands last.
    """

    def __init__(self, encoder: PreTrainedModel, *, n_classes: int) -> None:
        super().__init__()
        if n_classes < 1:
            raise InvalidInputError(f"n_classes: expected at least 1, got {n_classes}")
        with torch.inference_mode(False):
            without_inference_tensors(encoder)
            _check_attends_to_all(encoder)
            self.fitted = False
            self.encoder = encoder
            if getattr(encoder, "pooler", None) is not None:
                # Its output is not used, so its weights would never learn.
                setattr(encoder, "pooler", None)  # noqa: B010  (a module may hold None, its stub not)
            word_embeddings = encoder.get_input_embeddings()
            assert isinstance(word_embeddings, nn.Module)
            getattr(encoder, "embeddings", word_embeddings).requires_grad_(False)
            hidden_size = int(encoder.config.hidden_size)
            self.prediction = PredictionEmbedding(n_classes, _table(encoder).shape[1])
            self.head = nn.Sequential(
                nn.Linear(hidden_size, hidden_size), nn.Tanh(), nn.Linear(hidden_size, 1)
            )
            self.to(_table(encoder).dtype)

    @classmethod
    def from_model(
        cls, model: PreTrainedModel, *, n_classes: int | None = None, seed: int = 0
    ) -> TransformerMasker:
        """Starts from a copy of the explained model's own encoder, in float32 or wider.

        Half precision is too coarse for the small steps of training; mixed precision is a matter
        of ``fit``.

        Args:
            model: The explained model, for example a ``BertForSequenceClassification``.
            n_classes: The number of outcomes. Default: the model's ``num_labels``, at least 2
            seed: The seed of the head's first weights; torch's own state is left as it is.
                Default: 0

        Raises:
            InvalidInputError: The model is a causal decoder, whose tokens would not attend to
                the prediction.
        """
        source = cast("PreTrainedModel", model.base_model)  # stubbed as Module
        with torch.inference_mode(False), isolated_rng(as_count("seed", seed)):
            _check_attends_to_all(source)  # before copying, as decoders are large
            encoder = copy_without_hooks(source)
            encoder.requires_grad_(True)
            # Called as the module's own: transformers hides the signature of its `to`.
            nn.Module.to(encoder, torch.promote_types(_table(encoder).dtype, torch.float32))
            # One value per example is explained as two outcomes: retained, or not.
            known = max(2, int(model.config.num_labels or 0))
            return cls(encoder, n_classes=known if n_classes is None else n_classes)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        n_classes: int,
        revision: str | None = None,
        seed: int = 0,
    ) -> TransformerMasker:
        """Starts from a pretrained encoder in float32: a local folder or a hub id.

        It must know the explained model's token ids. Code that comes with a model is never run.

        Args:
            name_or_path: What ``transformers.AutoModel`` takes.
            n_classes: The number of classes of the explained model.
            revision: Branch, tag or commit of a hub repository. Default: None, its main branch
            seed: The seed of the head's first weights; torch's own state is left as it is.
                Default: 0

        Raises:
            InvalidInputError: It is a causal decoder, whose tokens would not attend to the
                prediction.
        """
        from transformers import AutoModel

        with torch.inference_mode(False), isolated_rng(as_count("seed", seed)):
            encoder = AutoModel.from_pretrained(
                os.fspath(name_or_path),
                revision="main" if revision is None else revision,
                trust_remote_code=False,
                dtype=torch.float32,
            )
            return cls(encoder, n_classes=n_classes)

    @property
    def config(self) -> dict[str, Any]:
        """The argument of :meth:`from_config`, as JSON values."""
        encoder = self.encoder.config.to_dict()
        encoder.pop("_name_or_path", None)
        # Two ways to compute attention differ in their last bits; others may not be installed.
        attention = getattr(self.encoder.config, "_attn_implementation", None)
        return {
            "encoder": encoder,
            "n_classes": self.prediction.classes.shape[0],
            "dtype": str(_table(self.encoder).dtype).removeprefix("torch."),
            "attention": attention if attention in ("eager", "sdpa") else None,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> TransformerMasker:
        """Builds the network with random weights from :attr:`config`.

        Torch's own random state is left as it is.
        """
        from transformers import AutoConfig, AutoModel

        settings = dict(config["encoder"])
        built = AutoConfig.for_model(settings.pop("model_type"), **settings)
        attention = config.get("attention")
        chosen = {} if attention is None else {"attn_implementation": attention}
        with torch.inference_mode(False), isolated_rng(0):
            encoder = AutoModel.from_config(built, trust_remote_code=False, **chosen)
            # What was saved, whatever the configuration says of the weights it was loaded from.
            encoder.to(getattr(torch, config.get("dtype", "float32")))
            return cls(encoder, n_classes=config["n_classes"])

    @property
    def max_length(self) -> int | None:
        """The most tokens that it takes beside the prediction; None if that is not known."""
        positions = getattr(self.encoder.config, "max_position_embeddings", None)
        if not isinstance(positions, int) or positions < 1:
            return None
        table = getattr(getattr(self.encoder, "embeddings", None), "position_embeddings", None)
        # RoBERTa and its kin number positions from the padding index plus one.
        padding = table.padding_idx if isinstance(table, nn.Embedding) else None
        return positions - (0 if padding is None else padding + 1) - 1

    def forward(self, inputs: MaskerInputs) -> Tensor:
        """One logit for each token, (N, L).

        Raises:
            InvalidInputError: The explained inputs are no single sequence of ids or embeddings.
        """
        embeddings = self._embeddings(inputs)
        n, length = embeddings.shape[:2]
        attention = self._attention(inputs, n, length, embeddings.device)
        # The prediction's embedding goes right after the last token; what follows moves by one.
        places = torch.arange(length + 1, device=embeddings.device)
        last = (attention * places[1:]).amax(dim=1, keepdim=True)
        source = (places - (places > last).long()).clamp(min=0, max=length - 1)
        prediction = self.prediction(inputs.probabilities).unsqueeze(1).to(embeddings.dtype)
        is_prediction = (places == last).unsqueeze(-1)
        joined = torch.where(
            is_prediction,
            prediction,
            embeddings.gather(1, source.unsqueeze(-1).expand(-1, -1, embeddings.shape[2])),
        )
        joined_attention = torch.where(is_prediction.squeeze(-1), 1, attention.gather(1, source))
        hidden = self.encoder(
            inputs_embeds=joined,
            attention_mask=joined_attention,
            **self._positions(joined_attention),
            **self._token_types(inputs, source, last),
        ).last_hidden_state
        tokens = places[:-1] + (places[:-1] >= last).long()
        own = hidden.gather(1, tokens.unsqueeze(-1).expand(-1, -1, hidden.shape[2]))
        logits: Tensor = self.head(own).squeeze(-1)
        return logits

    def _embeddings(self, inputs: MaskerInputs) -> Tensor:
        weight = _table(self.encoder)
        first = inputs.inputs[0]
        if len(inputs.inputs) == 1 and is_integral(first) and first.dim() == 2:
            high = int(first.max())
            if high >= weight.shape[0]:
                raise InvalidInputError(
                    f"masker: it embeds ids below {weight.shape[0]}, got {high}; was it made for "
                    "another model?"
                )
            return torch.nn.functional.embedding(first, weight)
        feature = inputs.features[0]
        if len(inputs.features) == 1 and feature.dim() == 3 and feature.shape[2] == weight.shape[1]:
            return feature.to(weight.dtype)
        raise InvalidInputError(
            f"masker: a TransformerMasker explains one tensor of ids (N, L), or of embeddings "
            f"(N, L, {weight.shape[1]}); got inputs of shapes "
            f"{[tuple(t.shape) for t in inputs.inputs]}"
        )

    def _attention(self, inputs: MaskerInputs, n: int, length: int, device: torch.device) -> Tensor:
        given = inputs.attention_mask
        if given is not None and given.shape == (n, length):
            return given.gt(0).long()
        pad = getattr(self.encoder.config, "pad_token_id", None)
        first = inputs.inputs[0]
        if pad is not None and is_integral(first) and first.shape == (n, length):
            return first.ne(int(pad)).long()
        return torch.ones(n, length, dtype=torch.long, device=device)

    def _token_types(self, inputs: MaskerInputs, source: Tensor, last: Tensor) -> dict[str, Tensor]:
        """Token types for an encoder that takes them; the prediction has that of the last token."""
        if "token_type_ids" not in self._accepted():
            return {}
        n, length = source.shape[0], source.shape[1] - 1
        given = inputs.token_type_ids
        if given is None or given.shape != (n, length):
            return {"token_type_ids": torch.zeros_like(source)}
        # An encoder of another family may distinguish fewer.
        highest = max(0, int(getattr(self.encoder.config, "type_vocab_size", 0) or 0) - 1)
        types = given.long().clamp(max=highest)
        own_last = types.gather(1, (last - 1).clamp(min=0))
        is_prediction = torch.arange(length + 1, device=types.device) == last
        return {"token_type_ids": torch.where(is_prediction, own_last, types.gather(1, source))}

    def _accepted(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(self.encoder.forward).parameters

    def _positions(self, attention: Tensor) -> dict[str, Tensor]:
        """Positions counted over what is attended to, so that padding does not move them."""
        if "position_ids" not in self._accepted():
            return {}
        positions = (attention.cumsum(dim=1) - 1).clamp(min=0)
        table = getattr(getattr(self.encoder, "embeddings", None), "position_embeddings", None)
        if isinstance(table, nn.Embedding):
            offset = 0 if table.padding_idx is None else table.padding_idx + 1
            # A text as long as the model takes leaves no position for the one that was added.
            positions = (positions + offset).clamp(max=table.num_embeddings - 1)
        return {"position_ids": positions}


def _check_attends_to_all(encoder: PreTrainedModel) -> None:
    if _is_causal(encoder, _table(encoder)):
        raise InvalidInputError(
            "encoder: expected one in which every token attends to those after it, but in "
            f"this {type(encoder).__name__} none does, so that none would attend to the "
            "prediction, which stands last. Use SharedMasker.from_model(model), or "
            "TransformerMasker.from_pretrained(encoder) with a bidirectional encoder of the "
            "same vocabulary"
        )


@torch.no_grad()
def _is_causal(encoder: nn.Module, table: Tensor) -> bool:
    """Whether no position attends to those after it, found out by changing one embedding at a time.

    Args:
        encoder: A network that takes ``inputs_embeds`` and returns ``last_hidden_state``.
        table: Its word embeddings (V, D), for their size and scale.

    Returns:
        False also where that cannot be found out, as of a network that cannot be run like this, or
        without any exchange between positions.
    """
    if table.is_meta:
        return False
    generator = torch.Generator().manual_seed(0)
    scale = table[:64].float().std().nan_to_num() if table.numel() > 1 else torch.ones(())
    embeddings = torch.randn(3, 4, table.shape[1], generator=generator).to(table.device)
    embeddings = (embeddings * torch.where(scale > 0, scale, 1.0)).to(table.dtype)
    plain, first, last = embeddings[:1], embeddings[:1].clone(), embeddings[:1].clone()
    first[:, 0], last[:, -1] = embeddings[1, 0], embeddings[1, -1]
    ones = torch.ones(1, 4, dtype=torch.long, device=table.device)
    try:
        with evaluating(encoder), without_hooks(encoder):
            # One by one: rows of a batch may differ in their last bits.
            states, after_first, after_last = (
                encoder(inputs_embeds=x, attention_mask=ones).last_hidden_state.float()
                for x in (plain, first, last)
            )
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        return False  # what does not run says so itself when it is used
    onwards = (after_first - states)[:, 1:].abs().max()
    backwards = (after_last - states)[:, :-1].abs().max()
    return bool((onwards > 0) & (backwards <= 1e-3 * onwards))


def _table(encoder: PreTrainedModel) -> Tensor:
    """The word embeddings' weights, (V, D)."""
    weight = getattr(encoder.get_input_embeddings(), "weight", None)
    if not isinstance(weight, Tensor):
        raise InvalidInputError(
            f"encoder: expected one with a table of word embeddings, got {type(encoder).__name__}"
        )
    return weight
