"""Tiny models of several tasks, trained in a second on texts of which it is known what decides.

Some words are hidden while they learn, as they are where they are explained.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeAlias

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from tests._helpers.planted_texts import (
    COLOURS,
    CUES,
    FILLERS,
    INKS,
    KINDS,
    NAMES,
    NUMBERS,
    OPINIONS,
    PRONOUNS,
    TOPICS,
    VALUES,
    Draw,
    Planted,
    asked,
    blank,
    opinion,
    pair,
    prompt,
    tagged,
    topics,
    two_colours,
    values,
)

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

Trained: TypeAlias = tuple[PreTrainedModel, PreTrainedTokenizerFast]
Batch: TypeAlias = Callable[[Sequence[Planted], random.Random], dict[str, Tensor]]


def word_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """Every word a token, with the special tokens of BERT around texts and pairs."""
    vocabulary = {word: i for i, word in enumerate((*SPECIAL, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def tiny_bert(tokenizer: PreTrainedTokenizerFast, **options: object) -> BertConfig:
    """The configuration of a BERT of a few thousand weights without dropout."""
    return BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.2,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        **options,  # type: ignore[arg-type]  # its fields
    )


def tiny_llama(tokenizer: PreTrainedTokenizerFast, **options: object) -> LlamaConfig:
    """The configuration of a decoder as small."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        initializer_range=0.2,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **options,  # type: ignore[arg-type]  # its fields
    )


def _loss_of(model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    loss: Tensor = model(**batch).loss
    return loss


def trained(
    kind: Callable[..., PreTrainedModel],
    config: PreTrainedConfig,
    texts: Draw,
    batch: Batch,
    *,
    n_steps: int,
    loss_of: Callable[[PreTrainedModel, dict[str, Tensor]], Tensor] = _loss_of,
    seed: int = 0,
) -> PreTrainedModel:
    """A model after as many steps on batches of 32 texts."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = kind(config).train()
    draw = random.Random(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, 2 * (1 - step / n_steps))
    )
    for _ in range(n_steps):
        optimizer.zero_grad()
        loss_of(model, batch([texts(draw) for _ in range(32)], draw)).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def hidden(text: str, draw: random.Random, *, share: float = 0.2) -> str:
    """A text with mask tokens in place of some words."""
    return " ".join("[MASK]" if draw.random() < share else word for word in text.split())


def _classes(
    names: Sequence[str], words: dict[str, str], tokenizer: PreTrainedTokenizerFast
) -> Batch:
    """Batches of texts whose class is that of the word that is left, or else the first."""

    def batch(texts: Sequence[Planted], draw: random.Random) -> dict[str, Tensor]:
        shown = [hidden(each.text, draw) for each in texts]
        left = [[words[w] for w in text.split() if w in words] for text in shown]
        labels = [names.index(some[0]) if some else 0 for some in left]
        return {**tokenizer(shown, return_tensors="pt"), "labels": torch.tensor(labels)}

    return batch


OPINION_NAMES = ("neither", *sorted(set(OPINIONS.values())))


def _sentiment(kind: Callable[..., PreTrainedModel], config: Any, n_steps: int) -> Trained:
    tokenizer = word_tokenizer((*FILLERS, *OPINIONS))
    configured = config(tokenizer, id2label=dict(enumerate(OPINION_NAMES)))
    batch = _classes(OPINION_NAMES, OPINIONS, tokenizer)
    return trained(kind, configured, opinion, batch, n_steps=n_steps), tokenizer


@cache
def classifier() -> Trained:
    """An encoder with a head: the class of the text's only opinion."""
    return _sentiment(BertForSequenceClassification, tiny_bert, 80)


@cache
def decoder_classifier() -> Trained:
    """The same by a decoder with a head."""
    return _sentiment(LlamaForSequenceClassification, tiny_llama, 80)


@cache
def multi_label() -> Trained:
    """A classifier of labels that do not exclude each other: each has its own word."""
    tokenizer = word_tokenizer((*FILLERS, *TOPICS))
    config = tiny_bert(
        tokenizer,
        id2label=dict(enumerate(TOPICS.values())),
        problem_type="multi_label_classification",
    )

    def batch(texts: Sequence[Planted], draw: random.Random) -> dict[str, Tensor]:
        shown = [hidden(each.text, draw) for each in texts]
        labels = [[float(word in text.split()) for word in TOPICS] for text in shown]
        return {**tokenizer(shown, return_tensors="pt"), "labels": torch.tensor(labels)}

    return trained(BertForSequenceClassification, config, topics, batch, n_steps=100), tokenizer


@cache
def regressor() -> Trained:
    """A value: the sum of those of the text's words."""
    tokenizer = word_tokenizer((*FILLERS, *VALUES))

    def batch(texts: Sequence[Planted], draw: random.Random) -> dict[str, Tensor]:
        shown = [hidden(each.text, draw) for each in texts]
        sums = [sum(VALUES.get(word, 0.0) for word in text.split()) for text in shown]
        return {**tokenizer(shown, return_tensors="pt"), "labels": torch.tensor(sums)}

    config = tiny_bert(tokenizer, num_labels=1)
    return trained(BertForSequenceClassification, config, values, batch, n_steps=160), tokenizer


RELATIONS = ("neutral", "entailment", "contradiction")


@cache
def inference() -> Trained:
    """Natural language inference: of two texts with equal colours the second follows.

    Other colours contradict each other; without both colours there is neither.
    """
    tokenizer = word_tokenizer((*FILLERS, *INKS))

    def batch(texts: Sequence[Planted], draw: random.Random) -> dict[str, Tensor]:
        pairs, labels = [], []
        for each in texts:
            first, second = (hidden(text, draw) for text in each.text)
            left = [set(text.split()) & set(INKS) for text in (first, second)]
            labels.append(0 if not all(left) else 1 if left[0] == left[1] else 2)
            pairs.append((first, second))
        encoded = tokenizer(pairs, return_tensors="pt", padding=True)
        return {**encoded, "labels": torch.tensor(labels)}

    config = tiny_bert(tokenizer, id2label=dict(enumerate(RELATIONS)))
    # What is equal is learned late and all at once, by some seeds not within as many steps.
    for seed in range(4, 9):
        model = trained(BertForSequenceClassification, config, pair, batch, n_steps=180, seed=seed)
        draw = random.Random(0)
        fresh = batch([pair(draw) for _ in range(200)], draw)
        with torch.no_grad():
            right = model(**fresh).logits.argmax(dim=-1) == fresh["labels"]
        if right.float().mean() > 0.99:
            break
    return model, tokenizer


def _by_inference(kind: Callable[[BertConfig], PreTrainedModel]) -> Trained:
    """A model with a single output: the log-odds of entailment against contradiction."""
    model, tokenizer = inference()
    made = kind(tiny_bert(tokenizer, num_labels=1)).eval()
    state = {name: each.clone() for name, each in model.state_dict().items()}
    for name in ("classifier.weight", "classifier.bias"):
        state[name] = state[name][1:2] - state[name][2:3]
    made.load_state_dict(state)
    return made, tokenizer


@cache
def reranker() -> Trained:
    """A cross-encoder: high for equal colours, low for others."""
    return _by_inference(BertForSequenceClassification)


@cache
def chooser() -> Trained:
    """A multiple-choice model: the option with the context's colour."""
    return _by_inference(BertForMultipleChoice)


@cache
def bi_encoder() -> Trained:
    """An encoder whose mean states are alike for texts of the same colour, and else orthogonal."""
    tokenizer = word_tokenizer((*FILLERS, *COLOURS))

    def batch(texts: Sequence[Planted], draw: random.Random) -> dict[str, Tensor]:
        sides = [[hidden(each.text[i], draw) for each in texts] for i in (0, 1)]
        colours = [[set(text.split()) & set(COLOURS) for text in side] for side in sides]
        same = [float(a == b) for a, b in zip(*colours, strict=True)]
        encoded = tokenizer([*sides[0], *sides[1]], return_tensors="pt")
        return {**encoded, "labels": torch.tensor(same)}

    def loss_of(model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
        same = batch.pop("labels")
        a, b = model(**batch).last_hidden_state.mean(dim=1).chunk(2)
        return F.mse_loss(F.cosine_similarity(a, b), same)

    config = tiny_bert(tokenizer)
    return trained(BertModel, config, two_colours, batch, n_steps=100, loss_of=loss_of), tokenizer


TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


@cache
def tagger() -> Trained:
    """A token classifier: a name is a person's or a place's, as the text's only cue says."""
    tokenizer = word_tokenizer((*FILLERS, *NAMES, *CUES))
    config = tiny_bert(tokenizer, id2label=dict(enumerate(TAGS)))

    def batch(texts: Sequence[Planted], draw: random.Random) -> dict[str, Tensor]:
        shown = [hidden(each.text, draw, share=0.3) for each in texts]
        labels = [
            [-100, *(TAGS.index(f"B-{each.said}") if w in NAMES else 0 for w in text.split()), -100]
            for each, text in zip(texts, shown, strict=True)
        ]
        return {**tokenizer(shown, return_tensors="pt"), "labels": torch.tensor(labels)}

    return trained(BertForTokenClassification, config, tagged, batch, n_steps=200), tokenizer


@cache
def answerer() -> Trained:
    """A question-answering model: the question's kind decides which word is the answer.

    Where the answer, or the kind, is masked there is none, which is read at the first token.
    """
    tokenizer = word_tokenizer((*FILLERS, *KINDS, *COLOURS, *NUMBERS))

    def batch(texts: Sequence[Planted], draw: random.Random) -> dict[str, Tensor]:
        pairs, places = [], []
        for each in texts:
            first, second = (hidden(text, draw) for text in each.text)
            left = {*first.split(), *second.split()}
            decided = left.issuperset(each.deciding[each.said])
            pairs.append((first, second))
            places.append(5 + second.split().index(each.said) if decided else 0)
        at = torch.tensor(places)
        encoded = tokenizer(pairs, return_tensors="pt")
        return {**encoded, "start_positions": at, "end_positions": at}

    config = tiny_bert(tokenizer)
    return trained(BertForQuestionAnswering, config, asked, batch, n_steps=120), tokenizer


@cache
def filler() -> Trained:
    """A masked language model: the word at the mask is that which the text's only title asks."""
    tokenizer = word_tokenizer((*FILLERS, *PRONOUNS, *PRONOUNS.values()))

    def batch(texts: Sequence[Planted], draw: random.Random) -> dict[str, Tensor]:
        shown, labels = [], []
        for each in texts:
            words = each.text.split()
            place = words.index("[MASK]")
            own = [-100] * (len(words) + 2)
            own[place + 1] = tokenizer.convert_tokens_to_ids(each.said)
            # Without the title nothing tells the word. Another entry hides, since there is to be a
            # single mask token.
            hides = (w != "[MASK]" and draw.random() < 0.2 for w in words)
            some = ["[UNK]" if h else w for w, h in zip(words, hides, strict=True)]
            shown.append(" ".join(some))
            labels.append(own)
        return {**tokenizer(shown, return_tensors="pt"), "labels": torch.tensor(labels)}

    return trained(BertForMaskedLM, tiny_bert(tokenizer), blank, batch, n_steps=130), tokenizer


def writing_tokenizer() -> PreTrainedTokenizerFast:
    """Words of prompts and answers."""
    words = (*COLOURS, *NUMBERS)
    return word_tokenizer((*FILLERS, *words, *map(str.upper, words)))


def _shown(texts: Sequence[Planted], draw: random.Random) -> list[str]:
    return [hidden(each.text, draw) for each in texts]


@cache
def writer() -> Trained:
    """A decoder: it writes the prompt's colour and then its number in capitals, and stops."""
    tokenizer = writing_tokenizer()

    def batch(texts: Sequence[Planted], draw: random.Random) -> dict[str, Tensor]:
        answers = [" ".join(each.deciding) for each in texts]
        shown = [f"{a} {b}" for a, b in zip(_shown(texts, draw), answers, strict=True)]
        ids = tokenizer(shown, return_tensors="pt")["input_ids"]
        asked_for = torch.arange(ids.shape[1]) > 8
        return {"input_ids": ids, "labels": torch.where(asked_for, ids, -100)}

    return trained(LlamaForCausalLM, tiny_llama(tokenizer), prompt, batch, n_steps=170), tokenizer


@cache
def translator() -> Trained:
    """An encoder-decoder that writes the same."""
    tokenizer = writing_tokenizer()
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=1,
        num_heads=4,
        dropout_rate=0.0,
        decoder_start_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.sep_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )

    def batch(texts: Sequence[Planted], draw: random.Random) -> dict[str, Tensor]:
        answers = [" ".join(each.deciding) for each in texts]
        labels = tokenizer(answers, return_tensors="pt")["input_ids"][:, 1:].contiguous()
        encoded = tokenizer(_shown(texts, draw), return_tensors="pt")
        return {
            "input_ids": encoded["input_ids"],
            "attention_mask": encoded["attention_mask"],
            "labels": labels,
        }

    return trained(T5ForConditionalGeneration, config, prompt, batch, n_steps=160), tokenizer
