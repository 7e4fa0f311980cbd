"""Trains models of language in seconds, for the examples that need one.

All of them read reviews of a visit, in which one sentence holds an opinion and another the month,
so that it is known what an explanation should find:

- ``make_tiny_decoder`` answers two prompts. The opinion decides "positive" and "glad", the month of
  the review that of the reply::

      Text: We came in May. The garden was lovely. Label: positive
      Review: We came in May. The garden was lovely. Reply: We are glad about your visit in May.

- ``make_tiny_encoder`` says whether a review is negative or positive. Its tokens are pieces of
  words.
- ``make_tiny_pair_encoder`` says whether a claim ("They enjoyed it.") follows from a review.

In training, words are also replaced by the token that stands for a removed word, and where what
decides is gone, the answer is a guess: the models do not take the absence of words for an opinion.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable

import torch
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from torch.nn import functional as F
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

LABELS = {"negative": " negative", "positive": " positive"}
TEMPLATE = "Text: {text} Label:"
REPLY = "Review: {text} Reply:"

_END = "<end>"
OPINIONS = {
    "positive": (
        "lovely",
        "superb",
        "spotless",
        "friendly",
        "gorgeous",
        "delicious",
        "charming",
        "excellent",
    ),
    "negative": ("awful", "dirty", "rude", "dreadful", "dull", "stale", "gloomy", "horrible"),
}
_VERDICTS = ("They enjoyed it.", "The visitor liked it.", "All of us loved it.")
_CLAIMS = ("The house is old.", "There are two floors.", "My sister wrote this.")
_NOUNS = (
    "garden",
    "soup",
    "staff",
    "room",
    "museum",
    "concert",
    "breakfast",
    "lobby",
    "view",
    "tour",
)
_MONTHS = ("January", "March", "April", "May", "June", "July", "August", "October")
_VISITS = ("We came in {}.", "It was a Tuesday in {}.", "I was there in {}.", "In {} it rained.")
_FACTS = ("", "", "The station is near.", "My brother drove.", "There is no elevator.")


def write_text(rng: random.Random) -> tuple[str, str, str]:
    """Writes a review.

    Returns:
        The text, its label, and its month.
    """
    label, month = rng.choice(sorted(OPINIONS)), rng.choice(_MONTHS)
    opinion = f"The {rng.choice(_NOUNS)} was {rng.choice(OPINIONS[label])}."
    sentences = [opinion, rng.choice(_VISITS).format(month), rng.choice(_FACTS)]
    rng.shuffle(sentences)
    return " ".join(filter(None, sentences)), label, month


@functools.cache
def make_tiny_decoder(
    *, n_steps: int = 200, seed: int = 0
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Trains a decoder and its tokenizer, a byte-level BPE without mask and unknown tokens.

    Args:
        n_steps: Steps of 32 sequences.
        seed: Of weights and texts.

    Returns:
        The model in evaluation mode, and its tokenizer.
    """
    rng = random.Random(seed)
    sequences = [_prompt_and_answer(rng) for _ in range(2000)]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=[_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(("".join(sequence) for sequence in sequences), trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=_END)

    def make() -> LlamaForCausalLM:
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=64,
                intermediate_size=128,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_position_embeddings=256,
                bos_token_id=None,
                eos_token_id=tokenizer.eos_token_id,
            )
        )

    def loss(model: LlamaForCausalLM) -> torch.Tensor:
        ids, targets = _answers(tokenizer, rng.sample(sequences, 32))
        logits = model(ids, use_cache=False).logits[:, :-1]
        return F.cross_entropy(logits.flatten(0, 1), targets[:, 1:].flatten())

    model = _trained(make, loss, n_steps=n_steps, rate=5e-3, seed=seed)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.eos_token_id
    return model, tokenizer


@functools.cache
def make_tiny_encoder(
    *, n_steps: int = 120, seed: int = 0
) -> tuple[BertForSequenceClassification, PreTrainedTokenizerFast]:
    """Trains a classifier of reviews, "negative" or "positive", whose tokens are pieces of words.

    Args:
        n_steps: Steps of 32 texts.
        seed: Of weights and texts.

    Returns:
        The model in evaluation mode, and its tokenizer.
    """
    rng = random.Random(seed)
    names = sorted(OPINIONS)

    def example() -> tuple[str, str, int]:
        text, label, _ = write_text(rng)
        text = _with_gaps(rng, text, "[MASK]")
        if not any(word in text for word in OPINIONS[label]):
            label = rng.choice(names)
        return text, "", names.index(label)

    return _encoder(example, names, vocabulary=360, n_steps=n_steps, seed=seed)


@functools.cache
def make_tiny_pair_encoder(
    *, n_steps: int = 220, seed: int = 0
) -> tuple[BertForSequenceClassification, PreTrainedTokenizerFast]:
    """Trains a classifier of pairs: "contradiction", "entailment" or "neutral".

    "They enjoyed it" follows from a good review and contradicts a bad one. Where the review holds
    no opinion, or the claim is about something else, the pair is neutral.

    Args:
        n_steps: Steps of 32 pairs.
        seed: Of weights and texts.

    Returns:
        The model in evaluation mode, and its tokenizer.
    """
    rng = random.Random(seed)
    names = ["contradiction", "entailment", "neutral"]

    def example() -> tuple[str, str, int]:
        review, label, month = write_text(rng)
        if rng.random() < 0.2:
            review = rng.choice(_VISITS).format(month)
        review = _with_gaps(rng, review, "[MASK]")
        claim = rng.choice(_VERDICTS if rng.random() < 0.75 else _CLAIMS)
        claim = _with_gaps(rng, claim, "[MASK]")
        says = any(word in review for word in OPINIONS[label])
        asks = any(word in claim for word in ("enjoyed", "liked", "loved"))
        relation = "neutral"
        if says and asks:
            relation = "entailment" if label == "positive" else "contradiction"
        return review, claim, names.index(relation)

    return _encoder(example, names, vocabulary=520, n_steps=n_steps, seed=seed)


def _prompt_and_answer(rng: random.Random) -> tuple[str, str]:
    text, label, month = write_text(rng)
    text = _with_gaps(rng, text, _END)
    if not any(word in text for word in OPINIONS[label]):
        label = rng.choice(sorted(OPINIONS))
    if month not in text:
        month = rng.choice(_MONTHS)
    if rng.random() < 0.5:
        return TEMPLATE.format(text=text), LABELS[label]
    mood = "glad" if label == "positive" else "sorry"
    return REPLY.format(text=text), f" We are {mood} about your visit in {month}."


def _with_gaps(rng: random.Random, text: str, gap: str) -> str:
    """Sometimes a text with some of its words replaced."""
    if rng.random() < 0.6:
        return text
    pieces = [gap if rng.random() < 0.6 else f" {word}" for word in text.split()]
    return "".join(pieces).strip()


def _answers(
    tokenizer: PreTrainedTokenizerFast, sequences: list[tuple[str, str]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids (N, L), and the same with everything but the answers left out of the loss."""
    rows = []
    for prompt, answer in sequences:
        before, after = tokenizer(prompt)["input_ids"], tokenizer(answer)["input_ids"]
        rows.append((before, [*after, tokenizer.eos_token_id]))
    length = max(len(before) + len(after) for before, after in rows)
    ids = torch.full((len(rows), length), tokenizer.eos_token_id)
    targets = torch.full((len(rows), length), -100)
    for row, (before, after) in enumerate(rows):
        whole = torch.tensor(before + after)
        ids[row, : len(whole)] = whole
        targets[row, len(before) : len(whole)] = torch.tensor(after)
    return ids, targets


def _encoder(
    example: Callable[[], tuple[str, str, int]],
    names: list[str],
    *,
    vocabulary: int,
    n_steps: int,
    seed: int,
) -> tuple[BertForSequenceClassification, PreTrainedTokenizerFast]:
    examples = [example() for _ in range(3000)]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = Tokenizer(models.BPE())
    pieces.normalizer = normalizers.Lowercase()
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    pieces.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    whole = [f"{one} {two}".replace("[MASK]", " ") for one, two, _ in examples]
    pieces.train_from_iterator(whole, trainer)
    pieces.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=pieces,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )

    def make() -> BertForSequenceClassification:
        return BertForSequenceClassification(
            BertConfig(
                vocab_size=len(tokenizer),
                hidden_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                intermediate_size=128,
                max_position_embeddings=512,
                initializer_range=0.1,  # with so few channels; and no dropout, for so few steps
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
                id2label=dict(enumerate(names)),
                label2id={name: index for index, name in enumerate(names)},
            )
        )

    rng = random.Random(seed)

    def loss(model: BertForSequenceClassification) -> torch.Tensor:
        one, two, labels = zip(*rng.sample(examples, 32), strict=True)
        second = list(two) if any(two) else None
        batch = tokenizer(list(one), second, padding=True, return_tensors="pt")
        loss: torch.Tensor = model(**batch, labels=torch.tensor(labels)).loss
        return loss

    return _trained(make, loss, n_steps=n_steps, rate=2e-3, seed=seed), tokenizer


def _trained(make, loss, *, n_steps: int, rate: float, seed: int):
    """A model, trained for some steps; the caller's random numbers go on as if none was drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make()
        optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=n_steps)
        for _ in range(n_steps):
            optimizer.zero_grad()
            loss(model).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return model.eval().requires_grad_(False)
