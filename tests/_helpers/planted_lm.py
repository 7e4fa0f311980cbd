"""A language model whose answers can be derived: it looks one word of the prompt up for each token.

A prompt has one colour and one number among words that say nothing. The model answers with the
colour, then with the number, in capitals: "a red b two c" is followed by "RED TWO".
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

COLOURS, NUMBERS = ("red", "blue"), ("one", "two")
ANSWERS = ("RED", "BLUE", "ONE", "TWO")
FILLERS = ("a", "b", "c", "d", "e", "f", "g", "h")
_SPECIAL = ("<unk>", "<eos>")
VOCABULARY = (*_SPECIAL, *COLOURS, *NUMBERS, *ANSWERS, *FILLERS)

#: Attention logit of a word that is looked for, and logit of what it says, unless given.
ATTENTION, SAYS = 6.0, 8.0

CHANNELS = 16


def word_tokenizer() -> PreTrainedTokenizerFast:
    """One token for each word, nothing added."""
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<eos>")


class PlantedLM(nn.Module):
    """Looks for a colour, after a colour's answer for a number, and says what it finds.

    Channels of a token: 0 and 1, whether it is a colour or a number; 2 and 3, which of them its
    place looks for; 4 to 7, the answer it stands for. With keys k and queries q of these channels
    one attention head has the logits ``ATTENTION * q k``, and the answer at the attended place gets
    the logit ``says``. The other channels only tell words apart.
    """

    def __init__(self, *, says: float = SAYS) -> None:
        super().__init__()
        self.says = says
        table = torch.zeros(len(VOCABULARY), CHANNELS)
        generator = torch.Generator().manual_seed(1)
        table[:, 8:] = torch.randn(len(VOCABULARY), CHANNELS - 8, generator=generator)
        for row, word in enumerate(VOCABULARY):
            table[row, 3 if word in ANSWERS[:2] else 2] = 1.0
            if word in (*COLOURS, *NUMBERS):
                table[row, 0 if word in COLOURS else 1] = 1.0
                table[row, 4 + ANSWERS.index(word.upper())] = 1.0
        self.embedding = nn.Embedding.from_pretrained(table, freeze=False)
        self.dropout = nn.Dropout(0.5)

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, use_cache: bool = True
    ) -> SimpleNamespace:
        """Logits (N, L, V); ``attention_mask`` is (N, L), or additive (N, 1, L, L)."""
        assert not use_cache
        hidden = self.dropout(self.embedding(input_ids))
        length = input_ids.shape[1]
        attention = ATTENTION * hidden[..., 2:4] @ hidden[..., :2].transpose(1, 2)
        later = torch.ones(length, length, dtype=torch.bool).triu(1)
        attention = attention.masked_fill(later, -math.inf)
        if attention_mask is not None and attention_mask.dim() == 2:
            attention = attention.masked_fill(attention_mask[:, None, :] == 0, -math.inf)
        elif attention_mask is not None:
            attention = attention + attention_mask[:, 0]
        said = attention.softmax(dim=-1) @ hidden[..., 4:8]
        logits = said.new_zeros(*input_ids.shape, len(VOCABULARY))
        first = VOCABULARY.index(ANSWERS[0])
        logits[..., first : first + len(ANSWERS)] = self.says * said
        return SimpleNamespace(logits=logits)


def log_probability(n_words: int, *, found: bool = True) -> float:
    """What the model gives the right answer at a place that sees so many words.

    Args:
        n_words: Words that are seen, the one that is looked for included.
        found: Whether that one is among them.
    """
    share = math.exp(ATTENTION) / (math.exp(ATTENTION) + n_words - 1) if found else 0.0
    # A word of the other kind says its own answer, with the share of any word.
    other = 1 / (math.exp(ATTENTION) + n_words - 1)
    logits = [SAYS * share, SAYS * other] + [0.0] * (len(VOCABULARY) - 2)
    return logits[0] - math.log(sum(map(math.exp, logits)))


def planted_prompt(n_words: int, *, seed: int) -> tuple[list[str], tuple[int, int], str]:
    """Words with a colour and a number, their places, and the answer."""
    generator = torch.Generator().manual_seed(seed)

    def draw(limit: int) -> int:
        return int(torch.randint(limit, (), generator=generator))

    words = [FILLERS[draw(len(FILLERS))] for _ in range(n_words)]
    first, second = torch.randperm(n_words, generator=generator)[:2].tolist()
    words[first], words[second] = COLOURS[draw(2)], NUMBERS[draw(2)]
    return words, (first, second), f"{words[first].upper()} {words[second].upper()}"
