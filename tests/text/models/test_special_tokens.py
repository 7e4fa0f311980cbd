"""Strings of special tokens inside a text: the model's own answer, in every batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BartConfig,
    BartForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
    T5Config,
    T5ForSequenceClassification,
)

from captum_aml.exceptions import InvalidInputError
from captum_aml.text import TextClassifier, TextExplainer

WORDS = ["<pad>", "</s>", "<unk>", "<mask>", "<s>", "a", "dull", "film"]
TEXTS = ["a film", "dull </s> film", "</s>", "a </s> <pad> dull <mask> film </s>", "<s> a <unk>"]
SIZES: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


def tokenizer(template: str | None = "$A </s>", **special: str) -> PreTrainedTokenizerFast:
    """Words as tokens, the special ones by their characters, and more of these around a text."""
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    if template is not None:
        added = [(w, i) for i, w in enumerate(WORDS) if w in template]
        words.post_processor = processors.TemplateProcessing(single=template, special_tokens=added)
    special = {"pad_token": "<pad>", "eos_token": "</s>", "mask_token": "<mask>", **special}
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        unk_token="<unk>",
        bos_token="<s>",
        model_max_length=32,
        **special,
    )


def classifier(kind: str) -> PreTrainedModel:
    """A tiny classifier with weights that tell texts apart."""
    ids: dict[str, Any] = {"vocab_size": len(WORDS), "pad_token_id": 0, "eos_token_id": 1}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        if kind.startswith("bart"):
            parts = {"layers": 1, "attention_heads": 2, "ffn_dim": 16}
            sizes = {f"{part}_{k}": n for part in ("encoder", "decoder") for k, n in parts.items()}
            config = BartConfig(
                d_model=16, num_labels=2, decoder_start_token_id=1, init_std=0.5, **ids, **sizes
            )
            return BartForSequenceClassification(config).eval()
        if kind == "t5":
            config = T5Config(d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2,
                              decoder_start_token_id=0, initializer_factor=2.0, **ids)  # fmt: skip
            return T5ForSequenceClassification(config).eval()
        if kind == "gpt2":
            return GPT2ForSequenceClassification(
                GPT2Config(n_embd=16, n_layer=2, n_head=2, initializer_range=0.5, **ids)
            ).eval()
        kinds = {
            "bert": (BertConfig, BertForSequenceClassification),
            "roberta": (RobertaConfig, RobertaForSequenceClassification),
        }
        made, model = kinds[kind]
        return model(made(intermediate_size=16, initializer_range=0.5, **SIZES, **ids)).eval()


KINDS = {
    "bart": tokenizer(),
    "t5": tokenizer(),
    "bert": tokenizer("<s> $A </s>", cls_token="<s>", sep_token="</s>"),
    "roberta": tokenizer("<s> $A </s>", cls_token="<s>", sep_token="</s>"),
    "gpt2": tokenizer(None, pad_token="</s>"),
    "bart padded by it": tokenizer(pad_token="</s>"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_answer_is_the_models_own_in_every_batch(kind: str) -> None:
    model = classifier(kind)
    found = TextClassifier(model, KINDS[kind])
    probabilities = found.predict(TEXTS)
    for text, row in zip(TEXTS, probabilities, strict=True):
        assert torch.allclose(found.predict([text])[0], row, atol=1e-6)
        if kind == "gpt2" and text.endswith("</s>"):
            continue  # transformers itself reads it before what it takes for padding
        with torch.no_grad():
            logits = model(**KINDS[kind](text, return_tensors="pt")).logits
        assert torch.allclose(logits.softmax(-1)[0], row, atol=1e-6)
    assert probabilities.std(dim=0).min() > 1e-3, "the texts should differ"


EXPLAINED = [
    *((kind, "occlusion", None) for kind in KINDS),
    ("bart", "lime", 20),
    *((kind, "aml", 4) for kind in ("bert", "roberta", "gpt2")),
]


@pytest.mark.parametrize(("kind", "method", "n_steps"), EXPLAINED)
def test_texts_are_explained_in_batches_as_alone(
    kind: str, method: str, n_steps: int | None
) -> None:
    explainer = TextExplainer(classifier(kind), KINDS[kind], method=method, n_steps=n_steps)
    together = explainer(TEXTS)
    assert [len(e.scores) for e in together[:2]] == [2, 3]
    for text, explanation in zip(TEXTS, together, strict=True):
        (alone,) = explainer(text)
        assert alone.tokens == explanation.tokens
        assert alone.scores == pytest.approx(explanation.scores, abs=1e-5)


def test_a_decoder_reads_the_last_token_whatever_its_id() -> None:
    model = classifier("gpt2")
    words = KINDS["gpt2"]
    ids = words("a film </s>", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logits = model.score(model.transformer(ids).last_hidden_state)[:, -1]
    found = TextClassifier(model, words).predict(["a film </s>", "a"])[0]
    assert torch.allclose(found, logits.softmax(-1)[0], atol=1e-6)


def test_a_text_without_the_token_that_is_read_is_named() -> None:
    explainer = TextExplainer(classifier("bart"), tokenizer(None), method="occlusion")
    with pytest.raises(InvalidInputError, match=r"token with id 1, .* the text 'a film'"):
        explainer(["a </s>", "a film"])
    # The one at which it is read is not removed.
    (explanation,) = explainer("a </s> dull </s>")
    assert explanation.tokens == ("a", "</s>", "dull")
