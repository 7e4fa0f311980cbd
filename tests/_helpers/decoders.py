"""Tiny decoders and encoder-decoders with tokenizers of several kinds."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    BartConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    T5Config,
)

#: What the tokenizers learn their merges from.
CORPUS = [
    "Text: a gripping film Label: positive",
    "Text: a dull plot Label: negative",
    "Text: the film was good and the plot was not Label: positive",
    "an awful , awful film . Premise: he sleeps Hypothesis: he is awake Label: contradiction",
] * 8

DECODERS = ("gpt2", "llama", "mistral", "qwen2")

_SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
}


def bpe_tokenizer(*, metaspace: bool = False, **special: str) -> PreTrainedTokenizerFast:
    """A trained BPE: byte-level as GPT-2's and Llama-3's, or over characters with "▁".

    Args:
        metaspace: Whether spaces are part of tokens as "▁", with a beginning-of-sequence token.
        **special: Special tokens by name, ``pad_token`` for instance.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>" if metaspace else None))
    named = ["<s>", "</s>", "<unk>"] if metaspace else []
    names = named + [token for token in special.values() if token not in named]
    if metaspace:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        trainer = trainers.BpeTrainer(vocab_size=220, special_tokens=names)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=360,
            special_tokens=names,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        )
    tokenizer.train_from_iterator(CORPUS, trainer)
    given = dict(special)
    if metaspace:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A",
            pair="<s> $A <s> $B",
            special_tokens=[("<s>", tokenizer.token_to_id("<s>"))],
        )
        given = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", **special}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **given)


def decoder_config(kind: str, vocabulary_size: int, **settings: Any) -> PreTrainedConfig:
    """A configuration of a few thousand weights."""
    if kind == "gpt2":
        return GPT2Config(
            vocab_size=vocabulary_size,
            n_embd=16,
            n_layer=2,
            n_head=2,
            n_positions=128,
            bos_token_id=None,
            eos_token_id=None,
            initializer_range=0.5,
            **settings,
        )
    kinds: dict[str, type[PreTrainedConfig]] = {
        "llama": LlamaConfig,
        "mistral": MistralConfig,
        "qwen2": Qwen2Config,
    }
    return kinds[kind](
        vocab_size=vocabulary_size,
        bos_token_id=None,
        eos_token_id=None,
        initializer_range=0.5,
        **_SIZES,
        **settings,
    )


def language_model(kind: str, vocabulary_size: int, *, seed: int = 0) -> PreTrainedModel:
    """A decoder, or the encoder-decoder ``t5`` or ``bart``, with a language-model head."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if kind == "bart":
            config = BartConfig(
                vocab_size=vocabulary_size,
                d_model=16,
                encoder_layers=1,
                decoder_layers=1,
                encoder_attention_heads=2,
                decoder_attention_heads=2,
                encoder_ffn_dim=32,
                decoder_ffn_dim=32,
                max_position_embeddings=64,
                init_std=0.5,
                scale_embedding=True,
                decoder_start_token_id=1,
                eos_token_id=1,
                forced_eos_token_id=None,
            )
            model = AutoModelForSeq2SeqLM.from_config(config).eval()
            model.generation_config.forced_bos_token_id = 0
            return model
        if kind == "t5":
            config = T5Config(
                vocab_size=vocabulary_size,
                d_model=16,
                d_kv=8,
                d_ff=32,
                num_layers=2,
                num_heads=2,
                decoder_start_token_id=0,
                initializer_factor=2.0,
            )
            return AutoModelForSeq2SeqLM.from_config(config).eval()
        config = decoder_config(kind, vocabulary_size)
        return AutoModelForCausalLM.from_config(config).eval()


def decoder_classifier(
    kind: str, vocabulary_size: int, *, seed: int = 0, **settings: Any
) -> PreTrainedModel:
    """A decoder with a classification head of two classes."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        config = decoder_config(kind, vocabulary_size, **settings)
        config.id2label = {0: "negative", 1: "positive"}
        return AutoModelForSequenceClassification.from_config(config).eval()
