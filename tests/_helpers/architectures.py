"""Tiny sequence classifiers of every architecture of transformers, made from configurations.

Each has a few thousand random weights, large enough that texts get visibly different logits, and
takes 32 positions where it has a limit. What is listed for an architecture are the options of its
configuration beyond those that all have in common; None takes a common one away.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CONFIG_MAPPING,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
WORDS = ("a", "the", "film", "was", "not", "very", "dull", "bright", "slow", "long", "and", "good")

#: Options (of several types) of every configuration.
_COMMON: Mapping[str, Any] = {
    "vocab_size": len(SPECIAL) + len(WORDS),
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 32,
    # Beyond 32 texts are cut; RoBERTa and its kin number positions from 2.
    "max_position_embeddings": 34,
    "initializer_range": 0.5,
    "bos_token_id": SPECIAL.index("<s>"),
    "pad_token_id": SPECIAL.index("<pad>"),
    "eos_token_id": SPECIAL.index("</s>"),
    # Named, since transformers saves no number of labels beside the default names.
    "id2label": {0: "negative", 1: "positive"},
    "label2id": {"negative": 0, "positive": 1},
}
_BART = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "init_std": 0.5,
    "decoder_start_token_id": 2,
}
_T5 = {
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 32,
    "num_layers": 1,
    "num_decoder_layers": 1,
    "num_heads": 2,
    "decoder_start_token_id": 1,
}
_EXPERTS = {
    "head_dim": 8,
    "num_experts": 2,
    "num_local_experts": 2,
    "num_experts_per_tok": 1,
    "moe_intermediate_size": 8,
    "shared_expert_intermediate_size": 8,
}
_LATENT_ATTENTION = {
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
    "n_routed_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 8,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
_GEMMA = {**_COMMON, "head_dim": 8}
_MAMBA = {"mamba_d_state": 4, "mamba_dt_rank": 4, "use_mamba_kernels": False}
_LINEAR_ATTENTION = {
    **_EXPERTS,
    "layer_types": ["linear_attention", "full_attention"],
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
}

#: The options of each architecture, by its name in transformers.
ARCHITECTURES: Mapping[str, Mapping[str, Any]] = {
    "albert": {"embedding_size": 16},
    "arcee": {},
    "axk1": {**_LATENT_ATTENTION, "head_dim": 4},
    "axk2": _LATENT_ATTENTION,
    "bart": _BART,
    "bert": {},
    "big_bird": {"block_size": 2, "num_random_blocks": 1},
    "bigbird_pegasus": {**_BART, "block_size": 2, "num_random_blocks": 1},
    "biogpt": {},
    "bloom": {},
    "camembert": {},
    "canine": {"num_hash_buckets": 64},
    "convbert": {"embedding_size": 16},
    "ctrl": {"dff": 32},
    "data2vec-text": {},
    "deberta": {},
    "deberta-v2": {},
    "deepseek_v2": _LATENT_ATTENTION,
    "deepseek_v3": {**_LATENT_ATTENTION, "head_dim": 4},
    "diffllama": {},
    "distilbert": {"hidden_dim": 32},
    "doge": {},
    "electra": {"embedding_size": 16},
    "ernie": {},
    "esm": {"mask_token_id": SPECIAL.index("<mask>")},
    "esmc": {},
    "eurobert": {},
    "exaone4": {},
    "falcon": {"alibi": True},
    "flaubert": {"emb_dim": 16, "n_layers": 2, "n_heads": 2, "embed_init_std": 0.5},
    "fnet": {},
    "funnel": {
        "num_hidden_layers": None,
        "block_sizes": [1, 1],
        "d_head": 8,
        "d_inner": 32,
        "initializer_std": 0.5,
    },
    "gemma": {"head_dim": 8},
    "gemma2": {"head_dim": 8},
    "gemma3_text": {"head_dim": 8},
    "glm": {"head_dim": 8},
    "glm4": {"head_dim": 8},
    "gpt2": {},
    "gpt_bigcode": {},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 4},
    "gpt_neox": {},
    "gpt_oss": _EXPERTS,
    "gptj": {"rotary_dim": 4},
    "gte": {},
    "helium": {"head_dim": 8},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8, "num_experts": 2, "moe_topk": 1},
    "ibert": {},
    "jamba": {**_MAMBA, "attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 2},
    "jetmoe": {"kv_channels": 8, "num_local_experts": 2, "num_experts_per_tok": 1},
    "jina_embeddings_v3": {},
    "layoutlm": {"max_2d_position_embeddings": 16},
    "layoutlmv3": {"visual_embed": False, "coordinate_size": 2, "shape_size": 4, "input_size": 16},
    # It divides its width by six.
    "lilt": {"hidden_size": 24, "channel_shrink_ratio": 2},
    "llama": {},
    "longformer": {"attention_window": [4, 4]},
    "luke": {"entity_vocab_size": 4, "entity_emb_size": 8},
    "markuplm": {
        "max_depth": 2,
        "xpath_unit_hidden_size": 4,
        "max_xpath_tag_unit_embeddings": 8,
        "max_xpath_subs_unit_embeddings": 8,
        "tag_pad_id": 7,
        "subs_pad_id": 7,
    },
    "mbart": _BART,
    "megatron-bert": {},
    "minicpm3": _LATENT_ATTENTION,
    "minimax": {"num_local_experts": 2, "num_experts_per_tok": 1, "head_dim": 8},
    "ministral": {"head_dim": 8},
    "ministral3": {"head_dim": 8},
    "mistral": {"head_dim": 8},
    "mistral4": _LATENT_ATTENTION,
    "mixtral": {"num_local_experts": 2, "num_experts_per_tok": 1, "head_dim": 8},
    # Without norms: its gradients overflow with larger weights.
    "mobilebert": {
        "embedding_size": 16,
        "intra_bottleneck_size": 16,
        "true_hidden_size": 16,
        "initializer_range": 0.2,
    },
    "modernbert": {},
    "modernbert-decoder": {},
    "mpnet": {},
    "mpt": {"max_seq_len": 32},
    "mt5": _T5,
    "mvp": _BART,
    "nemotron": {},
    "nomic_bert": {},
    "nystromformer": {},
    "olmo": {},
    "olmo2": {},
    "olmo3": {},
    "openai-gpt": {},
    "opt": {"ffn_dim": 32, "word_embed_proj_dim": 16},
    "perceiver": {
        "d_model": 16,
        "d_latents": 16,
        "num_latents": 4,
        "num_self_attends_per_block": 1,
        "num_cross_attention_heads": 2,
        "num_self_attention_heads": 2,
    },
    "persimmon": {},
    "phi": {},
    "phi3": {},
    "phimoe": {"num_local_experts": 2, "num_experts_per_tok": 1},
    "plbart": _BART,
    "qwen2": {},
    "qwen2_moe": _EXPERTS,
    "qwen3": {"head_dim": 8},
    "qwen3_5_text": _LINEAR_ATTENTION,
    "qwen3_moe": _EXPERTS,
    "qwen3_next": _LINEAR_ATTENTION,
    "reformer": {
        "attn_layers": ["local", "lsh"],
        "attention_head_size": 8,
        "axial_pos_embds_dim": [8, 8],
        "axial_pos_shape": [4, 8],
        "max_position_embeddings": 32,
        "feed_forward_size": 32,
        "local_attn_chunk_length": 4,
        "lsh_attn_chunk_length": 4,
        "num_buckets": 2,
        "hash_seed": 0,
        "is_decoder": False,
    },
    "rembert": {"input_embedding_size": 16, "output_embedding_size": 16},
    "roberta": {},
    "roberta-prelayernorm": {},
    "roc_bert": {"pronunciation_vocab_size": 20, "shape_vocab_size": 20},
    "roformer": {"embedding_size": 16},
    "seed_oss": {"head_dim": 8},
    "smollm3": {},
    "squeezebert": {
        "embedding_size": 16,
        "q_groups": 1,
        "k_groups": 1,
        "v_groups": 1,
        "post_attention_groups": 1,
        "intermediate_groups": 1,
        "output_groups": 1,
    },
    "stablelm": {},
    "starcoder2": {},
    "t5": _T5,
    # Encoder and decoder have configurations, and tables, of their own.
    "t5gemma": {"encoder": {**_GEMMA}, "decoder": {**_GEMMA, "cross_attention_hidden_size": 16}},
    "tapas": {},
    "ultrabert": {},
    "umt5": _T5,
    "xlm": {"emb_dim": 16, "n_layers": 2, "n_heads": 2, "embed_init_std": 0.5, "init_std": 0.5},
    "xlm-roberta": {},
    "xlm-roberta-xl": {},
    "xlnet": {"max_position_embeddings": None, "d_head": 8, "d_inner": 32},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
    "yoso": {},
    "zamba2": {
        **_MAMBA,
        "layers_block_type": ["mamba", "hybrid"],
        "hybrid_layer_ids": [1],
        "mamba_headdim": 8,
        "n_mamba_heads": 4,
        "mamba_ngroups": 1,
        "chunk_size": 4,
        "num_mem_blocks": 1,
        "adapter_rank": 4,
    },
}

#: Where each kind of model wants its special tokens; "<s> $A </s>" for those that are not named.
_TEMPLATES = {
    "$A </s>": ("t5", "mt5", "umt5", "bigbird_pegasus", "plbart", "mbart"),
    "$A </s> <s>": ("xlnet",),
    "<s> $A": ("llama", "mistral", "gemma", "gemma2", "gemma3_text", "minimax", "jamba", "zamba2"),
    "$A": ("gpt2", "falcon", "mpt", "bloom", "gpt_neox", "qwen3", "qwen3_next", "openai-gpt"),
}


def word_level_tokenizer(template: str = "<s> $A </s>") -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are the words above.

    Args:
        template: What is added to a text, which stands in it as ``$A``.
    """
    vocabulary = {token: index for index, token in enumerate((*SPECIAL, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template,
        pair=template.replace("$A", "$A $B"),
        special_tokens=[(t, vocabulary[t]) for t in ("<s>", "</s>")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_input_names=["input_ids", "attention_mask"],
    )


# The class is one of transformers' automatic ones, and the options are a configuration's.
def tiny_model(auto: Any, name: str, *, seed: int = 0, **given: Any) -> PreTrainedModel:
    """A model of an architecture with random weights, in evaluation mode."""
    options = {**_COMMON, **ARCHITECTURES[name], **given}
    config = CONFIG_MAPPING[name](**{k: v for k, v in options.items() if v is not None})
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model: PreTrainedModel = auto.from_config(config)
    return model.eval()


def tiny_classifier(name: str, *, seed: int = 0) -> PreTrainedModel:
    """A classifier of an architecture with random weights, in evaluation mode."""
    return tiny_model(AutoModelForSequenceClassification, name, seed=seed)


def tokenizer_for(name: str) -> PreTrainedTokenizerFast:
    """The tokenizer that adds what models of an architecture want."""
    found = [template for template, names in _TEMPLATES.items() if name in names]
    return word_level_tokenizer(*found)


def save_architecture(name: str, folder: Path, *, seed: int = 0) -> Path:
    """Saves a tiny classifier and its tokenizer; gives the folder."""
    tiny_classifier(name, seed=seed).save_pretrained(folder)
    tokenizer_for(name).save_pretrained(folder)
    return folder
