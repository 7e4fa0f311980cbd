"""Tiny models of several tasks, trained in a second on texts of which it is known what decides."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cache

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForTokenClassification,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
FILLERS = tuple("abcdefghij")


def word_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """Every word a token, with the special tokens of BERT around texts and pairs."""
    vocabulary = {word: i for i, word in enumerate((*SPECIAL, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
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


def trained(
    kind: Callable[..., PreTrainedModel],
    config: PreTrainedConfig,
    batch: Callable[[random.Random], dict[str, Tensor]],
    *,
    n_steps: int,
) -> PreTrainedModel:
    """A model after as many steps on batches with labels."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = kind(config).train()
    draw = random.Random(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(n_steps):
        optimizer.zero_grad()
        model(**batch(draw)).loss.backward()
        optimizer.step()
    return model.eval()


NAMES = ("kim", "jo", "lee", "ali")
CUES = {"mr": "PER", "in": "LOC"}
_TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


def tagged_words(draw: random.Random) -> tuple[list[str], str, int]:
    """Eight words with a cue and, elsewhere, a name of one or two of them; the cue, the name's
    place and its tag are known."""
    words = draw.choices(FILLERS, k=8)
    place, cue_place = draw.sample(range(8), 2)
    cue = draw.choice(list(CUES))
    words[place], words[cue_place] = draw.choice(NAMES), cue
    return words, CUES[cue], place


@cache
def tagger() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A token classifier: a name is a person's or a place's, as the text's only cue says."""
    tokenizer = word_tokenizer((*FILLERS, *NAMES, *CUES))
    config = tiny_bert(tokenizer, id2label=dict(enumerate(_TAGS)))

    def batch(draw: random.Random) -> dict[str, Tensor]:
        texts, labels = [], []
        for _ in range(64):
            words, tag, place = tagged_words(draw)
            own = [0] * len(words)
            own[place] = _TAGS.index(f"B-{tag}")
            for i in range(len(words)):
                if draw.random() < 0.3:
                    words[i], own[i] = "[MASK]", 0
            texts.append(" ".join(words))
            labels.append([-100, *own, -100])
        return {**tokenizer(texts, return_tensors="pt"), "labels": torch.tensor(labels)}

    return trained(BertForTokenClassification, config, batch, n_steps=200), tokenizer


KINDS = {"hue": ("red", "blue", "green"), "count": ("one", "two", "three")}


def question_in_context(draw: random.Random) -> tuple[str, str, str]:
    """A question for a hue or a count, a context with one of each, and the answer."""
    kind = draw.choice(list(KINDS))
    question, context = draw.choices(FILLERS, k=3), draw.choices(FILLERS, k=8)
    question[draw.randrange(3)] = kind
    for place, words in zip(draw.sample(range(8), 2), KINDS.values(), strict=True):
        context[place] = draw.choice(words)
    answer = next(word for word in context if word in KINDS[kind])
    return " ".join(question), " ".join(context), answer


@cache
def answerer() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A question-answering model: the question's kind decides which word is the answer.

    Where the answer, or the kind, is masked there is none, which is read at the first token.
    """
    tokenizer = word_tokenizer((*FILLERS, *KINDS, *(w for words in KINDS.values() for w in words)))

    def batch(draw: random.Random) -> dict[str, Tensor]:
        pairs, places = [], []
        for _ in range(64):
            question, context, answer = question_in_context(draw)
            first, second = question.split(), context.split()
            place = 5 + second.index(answer)
            for words in (first, second):
                for i in range(len(words)):
                    if draw.random() < 0.2:
                        words[i] = "[MASK]"
            decided = bool(set(first) & set(KINDS)) and answer in second
            pairs.append((" ".join(first), " ".join(second)))
            places.append(place if decided else 0)
        at = torch.tensor(places)
        encoded = tokenizer(*map(list, zip(*pairs, strict=True)), return_tensors="pt")
        return {**encoded, "start_positions": at, "end_positions": at}

    model = trained(BertForQuestionAnswering, tiny_bert(tokenizer), batch, n_steps=120)
    return model, tokenizer


PRONOUNS = {"mr": "he", "ms": "she", "an": "it"}


def masked_words(draw: random.Random) -> tuple[list[str], int]:
    """Eight words with a mask token and, elsewhere, what decides it; that word's place."""
    words = draw.choices(FILLERS, k=8)
    place, mask = draw.sample(range(8), 2)
    words[place], words[mask] = draw.choice(list(PRONOUNS)), "[MASK]"
    return words, place


@cache
def filler() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A masked language model: the word at the mask is that which the text's only title asks."""
    tokenizer = word_tokenizer((*FILLERS, *PRONOUNS, *PRONOUNS.values()))

    def batch(draw: random.Random) -> dict[str, Tensor]:
        texts, labels = [], []
        for _ in range(64):
            words, place = masked_words(draw)
            own = [-100] * 10
            own[words.index("[MASK]") + 1] = tokenizer.convert_tokens_to_ids(PRONOUNS[words[place]])
            texts.append(_with("[UNK]", words, draw))
            labels.append(own)
        return {**tokenizer(texts, return_tensors="pt"), "labels": torch.tensor(labels)}

    return trained(BertForMaskedLM, tiny_bert(tokenizer), batch, n_steps=130), tokenizer


COLOURS, NUMBERS = KINDS.values()


def prompt_words(draw: random.Random) -> tuple[list[str], str, str]:
    """Eight words with a colour and a number among them; both."""
    words = draw.choices(FILLERS, k=8)
    places = draw.sample(range(8), 2)
    colour, number = draw.choice(COLOURS), draw.choice(NUMBERS)
    words[places[0]], words[places[1]] = colour, number
    return words, colour, number


@cache
def writer() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A decoder: it writes the prompt's colour and then its number in capitals, and stops."""
    says = tuple(map(str.upper, (*COLOURS, *NUMBERS)))
    tokenizer = word_tokenizer((*FILLERS, *COLOURS, *NUMBERS, *says))
    config = LlamaConfig(
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
    )

    def batch(draw: random.Random) -> dict[str, Tensor]:
        texts = []
        for _ in range(64):
            words, colour, number = prompt_words(draw)
            prompt = _with("[MASK]", words, draw)
            texts.append(f"{prompt} {colour.upper()} {number.upper()}")
        ids = tokenizer(texts, return_tensors="pt")["input_ids"]
        asked = torch.arange(ids.shape[1]) > 8
        return {"input_ids": ids, "labels": torch.where(asked, ids, -100)}

    return trained(LlamaForCausalLM, config, batch, n_steps=170), tokenizer


def _with(entry: str, words: Sequence[str], draw: random.Random) -> str:
    """A text with another entry in place of some words that say nothing."""
    return " ".join(entry if w in FILLERS and draw.random() < 0.2 else w for w in words)


_WORDS = tuple(word for words in KINDS.values() for word in words)


def two_texts(draw: random.Random, *, alike: bool) -> tuple[str, str, str, str]:
    """Two texts with a word of a kind each, the same one if alike, and these words."""
    first = draw.choice(_WORDS)
    second = first if alike else draw.choice([word for word in _WORDS if word != first])
    texts = [draw.choices(FILLERS, k=6) for _ in range(2)]
    for words, word in zip(texts, (first, second), strict=True):
        words[draw.randrange(6)] = word
    return " ".join(texts[0]), " ".join(texts[1]), first, second


@cache
def encoder() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """An encoder, pooled by the mean: texts with the same word are alike, others are not."""
    tokenizer = word_tokenizer((*FILLERS, *_WORDS))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = BertModel(tiny_bert(tokenizer)).train()
    draw = random.Random(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(200):
        pairs = [two_texts(draw, alike=number % 2 == 0) for number in range(32)]
        texts = [text for first, second, *_ in pairs for text in (first, second)]
        states = model(**tokenizer(texts, return_tensors="pt")).last_hidden_state
        a, b = states.mean(dim=1).reshape(32, 2, -1).unbind(dim=1)
        wanted = torch.tensor([1.0, 0.0] * 16)
        loss = (torch.cosine_similarity(a, b) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval(), tokenizer
