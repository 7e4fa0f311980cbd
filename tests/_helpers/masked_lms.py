"""Tiny masked language models and tokenizers of three kinds, each with a mask token."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import AddedToken
from transformers import AutoModelForMaskedLM, PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from tests._helpers.decoders import bpe_tokenizer
from tests._helpers.text_models import word_piece_tokenizer

KINDS = ("bert", "modernbert", "roberta", "albert", "distilbert", "electra", "mobilebert")

_SIZES: dict[str, dict[str, Any]] = {
    "albert": {"embedding_size": 8},
    "electra": {"embedding_size": 8},
    "roberta": {"max_position_embeddings": 66},
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
    "mobilebert": {"embedding_size": 8, "true_hidden_size": 16, "intra_bottleneck_size": 16},
}


def masked_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """ "pieces" as BERT's, "bytes" as RoBERTa's, or "metaspace" as ALBERT's."""
    if kind == "pieces":
        return word_piece_tokenizer()
    tokenizer = bpe_tokenizer(metaspace=kind == "metaspace", unk_token="<unk>")
    # The space before such a token belongs to it.
    tokenizer.add_special_tokens({"mask_token": AddedToken("<mask>", lstrip=True, special=True)})
    return tokenizer


def masked_model(kind: str, vocabulary_size: int, *, seed: int = 0) -> PreTrainedModel:
    """A masked language model of a few thousand weights, drawn large."""
    sizes = {
        "vocab_size": vocabulary_size,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 64,
        "initializer_range": 0.5,
        "pad_token_id": 0,
    }
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        config = CONFIG_MAPPING[kind](**{**sizes, **_SIZES.get(kind, {})})
        return AutoModelForMaskedLM.from_config(config).eval()
