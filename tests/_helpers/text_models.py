"""Small text classifiers whose explanations are known, and tokenizers to go with them."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
)

from captum_aml.text import Explanation

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [
    "a", "the", "film", "is", "was", "good", "bad", "great", "awful", "not", "very", "plot",
    "actor", "slow", "at", "first", "but", "gripping", "un", "##believ", "##able", "##ing",
    "grip", "##p", "日", "本", "語", "映", "画", "🎬", "cafe", ",", ".", "!", "<", ">", "/",
    "script", "&", "amp", ";", "(", ")", "alert", "1", "'", '"', "=",
]  # fmt: skip

#: An explanation by a mask, of a class that was not predicted.
EXPLANATION = Explanation(
    text="Unbelievably good!",
    tokens=("un", "##believ", "##ably", "good", "!"),
    offsets=((0, 2), (2, 8), (8, 12), (13, 17), (17, 18)),
    scores=(0.1, 0.9, 0.1, 0.95, 0.0),
    predicted=1,
    predicted_label="positive",
    probability=0.97,
    target=0,
    target_label="negative",
    target_probability=0.03,
    method="aml",
    signed=False,
    settings={"n_steps": 50, "masker": None},
)


def word_piece_tokenizer() -> PreTrainedTokenizerFast:
    """A BERT-style tokenizer over a few dozen pieces."""
    vocabulary = {token: index for index, token in enumerate(SPECIAL + WORDS)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
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


def byte_level_tokenizer(*, eos: str | None = "<eos>") -> PreTrainedTokenizerFast:
    """A GPT-2-style tokenizer: every byte a token, no special tokens around a text, no padding."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(alphabet)}
    if eos is not None:
        vocabulary[eos] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=eos)


def bert_classifier(
    vocabulary_size: int, *, seed: int = 0, labels: tuple[str, ...] = ("negative", "positive")
) -> BertForSequenceClassification:
    """A BERT of a few thousand weights, drawn large enough that its predictions differ."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = BertForSequenceClassification(
            BertConfig(
                vocab_size=vocabulary_size,
                hidden_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=32,
                max_position_embeddings=64,
                initializer_range=0.5,
                id2label=dict(enumerate(labels)),
                label2id={label: index for index, label in enumerate(labels)},
            )
        )
    return model.eval()


def save_classifier(
    folder: Path, *, seed: int = 0, labels: tuple[str, ...] = ("negative", "positive")
) -> Path:
    """Saves the small BERT and its tokenizer; gives the folder."""
    tokenizer = word_piece_tokenizer()
    bert_classifier(len(tokenizer), seed=seed, labels=labels).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


class BagOfTokens(nn.Module):
    """Two classes decided by a sum over tokens; every attribution has a closed form.

    With ``link="linear"`` the probability of class 1 is ``offset + sum of weights``, with
    ``link="logistic"`` it is ``sigmoid(offset + sum of weights)``. The embedding of a token is its
    weight, in the first of two channels.

    Args:
        weights: The weight of each token id.
        offset: What remains without tokens.
        link: "linear" or "logistic".
    """

    def __init__(self, weights: list[float], *, offset: float, link: str) -> None:
        super().__init__()
        table = torch.zeros(len(weights), 2)
        table[:, 0] = torch.tensor(weights)
        table[:, 1] = 7.0  # the classifier does not look at this channel
        self.embedding = nn.Embedding.from_pretrained(table)
        self.offset = offset
        self.link = link

    def forward(self, ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits (N, 2) of ids (N, L)."""
        total = self.offset + (self.embedding(ids)[..., 0] * attention_mask).sum(dim=-1)
        if self.link == "linear":
            return torch.stack([1 - total, total], dim=-1).log()
        return torch.stack([torch.zeros_like(total), total], dim=-1)

    def probability(self, values: list[float]) -> float:
        """The probability of class 1 for the token weights ``values``."""
        total = self.offset + math.fsum(values)
        return total if self.link == "linear" else 1 / (1 + math.exp(-total))


def shapley_values(model: BagOfTokens, values: list[float], references: list[float]) -> list[float]:
    """Exact Shapley values of the probability of class 1, over all orders of the tokens."""
    totals = [0.0] * len(values)
    orders = list(itertools.permutations(range(len(values))))
    for order in orders:
        current = list(references)
        before = model.probability(current)
        for token in order:
            current[token] = values[token]
            after = model.probability(current)
            totals[token] += after - before
            before = after
    return [total / len(orders) for total in totals]
