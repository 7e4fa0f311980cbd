"""Small models whose explanations can be derived, tiny encoders, and masking problems of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from captum_aml.masking.call import parse_call
from captum_aml.masking.problem import MaskingProblem
from captum_aml.masking.sites import InputSite, LayerSite, Site
from captum_aml.perturbation import resolve_perturbation

#: The token that decides for class 1, and the one that decides for class 2, of PlantedClassifier.
DECIDING = (1, 2)


class LinearLogits(nn.Module):
    """Logits ``(0, w . x + b)`` of float inputs (N, F): everything about it can be worked out."""

    def __init__(self, weights: list[float], bias: float) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(weights, dtype=torch.float64))
        self.bias = nn.Parameter(torch.tensor(bias, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        z = x @ self.weights.to(x.dtype) + self.bias.to(x.dtype)
        return torch.stack([torch.zeros_like(z), z], dim=1)


class PlantedClassifier(nn.Module):
    """Ids (N, L) or embeddings to logits (N, 3): one of two tokens decides, all others are neutral.

    A token's first three channels are its evidence, added up over the text; the others only tell
    neutral tokens apart. Without a deciding token class 0 is predicted. Id 0 is the baseline.
    """

    def __init__(self, vocabulary_size: int = 30) -> None:
        super().__init__()
        table = torch.zeros(vocabulary_size, 8)
        table[:, 3:] = torch.randn(vocabulary_size, 5, generator=torch.Generator().manual_seed(1))
        table[DECIDING[0], 1] = 5.0
        table[DECIDING[1], 2] = 5.0
        table[0] = 0.0
        self.embedding = nn.Embedding.from_pretrained(table, freeze=False)
        self.bias = nn.Parameter(torch.tensor([2.0, 0.0, 0.0]))

    def forward(self, ids: Tensor) -> Tensor:
        return self.embedding(ids)[..., :3].sum(dim=1) + self.bias

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding


def planted_texts(n: int, length: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Ids (N, L) with one deciding token each, and its place (N,)."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 30, (n, length), generator=generator)
    places = torch.randint(0, length, (n,), generator=generator)
    which = torch.randint(0, 2, (n,), generator=generator)
    ids[torch.arange(n), places] = torch.tensor(DECIDING)[which]
    return ids, places


#: The most tokens that the tiny encoders take.
MAX_LENGTH = 12
VOCABULARY = 30
ENCODERS = ("bert", "distilbert", "roberta", "electra", "deberta-v2", "modernbert")


def tiny_encoder(kind: str, *, n_labels: int = 3, vocabulary: int = VOCABULARY) -> PreTrainedModel:
    """A sequence classifier of a few thousand random weights, large enough to tell tokens apart."""
    common: dict[str, Any] = {
        "vocab_size": vocabulary,
        "num_labels": n_labels,
        "initializer_range": 0.5,
    }
    layers: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model: PreTrainedModel
        if kind == "bert":
            model = BertForSequenceClassification(
                BertConfig(**common, **layers, max_position_embeddings=MAX_LENGTH)
            )
        elif kind == "distilbert":
            model = DistilBertForSequenceClassification(
                DistilBertConfig(
                    **common,
                    dim=16,
                    n_layers=2,
                    n_heads=2,
                    hidden_dim=32,
                    max_position_embeddings=MAX_LENGTH,
                )
            )
        elif kind == "roberta":
            # Its positions start after the padding index, 1: two more entries than tokens.
            model = RobertaForSequenceClassification(
                RobertaConfig(**common, **layers, max_position_embeddings=MAX_LENGTH + 2)
            )
        elif kind == "electra":
            # Its embeddings are narrower than its hidden states.
            model = ElectraForSequenceClassification(
                ElectraConfig(
                    **common, **layers, embedding_size=8, max_position_embeddings=MAX_LENGTH
                )
            )
        elif kind == "deberta-v2":
            # Relative positions in buckets and none absolute, as published.
            model = DebertaV2ForSequenceClassification(
                DebertaV2Config(
                    **common,
                    **layers,
                    max_position_embeddings=MAX_LENGTH,
                    relative_attention=True,
                    position_buckets=4,
                    pos_att_type=["p2c", "c2p"],
                    norm_rel_ebd="layer_norm",
                    share_att_key=True,
                    position_biased_input=False,
                    type_vocab_size=0,
                )
            )
        elif kind == "modernbert":
            # Rotary positions; its second layer sees two tokens to either side.
            model = ModernBertForSequenceClassification(
                ModernBertConfig(
                    **common,
                    **layers,
                    max_position_embeddings=MAX_LENGTH,
                    global_attn_every_n_layers=2,
                    local_attention=4,
                    pad_token_id=0,
                    bos_token_id=1,
                    eos_token_id=2,
                    cls_token_id=1,
                    sep_token_id=2,
                )
            )
        else:
            raise AssertionError(kind)
    return model.eval()


def problem_for(
    forward_func: Any,
    inputs: Any,
    *,
    site: Site | None = None,
    layer: nn.Module | None = None,
    output: str = "auto",
    **call: Any,
) -> MaskingProblem:
    """A masking problem with the published blending, at the inputs unless a layer is given."""
    if site is None:
        site = InputSite(forward_func, ()) if layer is None else LayerSite(forward_func, (layer,))
    return MaskingProblem.build(
        parse_call(inputs, **call), site, resolve_perturbation("blend"), output
    )
