"""An encoder with another tokenizer learns which word a decoder goes by."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from captum_aml import AlignedMasker, AMLAttribution, TransformerMasker
from tests._helpers.tokenizer_kinds import byte_level, word_piece

#: Each of these is one token of the decoder, and several of the encoder.
DECIDING = {" gripping": 1, " slow": 2}
OTHERS = [
    " a", " actors", " all", " and", " at", " bad", " beautifully", " but", " ending", " film",
    " first", " good", " is", " not", " plot", " shot", " the", " very", " was",
]  # fmt: skip

TOKENIZER = byte_level(size=1000)
PROMPT = TOKENIZER("Text:")["input_ids"]


def token_of(word: str) -> int:
    (token,) = TOKENIZER(word)["input_ids"]
    return int(token)


class PlantedDecoder(nn.Module):
    """Logits (N, 3) at the last token, attending to all before it; two words support a class."""

    def __init__(self) -> None:
        super().__init__()
        table = torch.zeros(len(TOKENIZER), 8)
        table[:, 3:] = torch.randn(len(table), 5, generator=torch.Generator().manual_seed(1))
        for word, label in DECIDING.items():
            table[token_of(word), label] = 5.0
        table[TOKENIZER.eos_token_id] = 0.0
        self.embedding = nn.Embedding.from_pretrained(table, freeze=False)
        self.bias = nn.Parameter(torch.tensor([2.0, 0.0, 0.0]))

    def forward(self, ids: Tensor, attention_mask: Tensor) -> Tensor:
        attended = (self.embedding(ids)[..., :3] * attention_mask.unsqueeze(-1)).cumsum(dim=1)
        last = (attention_mask * torch.arange(1, ids.shape[1] + 1)).argmax(dim=1)
        return attended[torch.arange(len(ids)), last] + self.bias

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding


def batch_of(n: int, *, seed: int) -> tuple[dict[str, Any], Tensor]:
    """Texts behind a prompt, padded on the left, and the places of what decides (N,)."""
    draw = random.Random(seed)
    texts = [[draw.choice(OTHERS) for _ in range(draw.randint(5, 9))] for _ in range(n)]
    places = [draw.randrange(len(text)) for text in texts]
    for text, place in zip(texts, places, strict=True):
        text[place] = draw.choice(list(DECIDING))
    length = len(PROMPT) + max(map(len, texts))
    ids = torch.full((n, length), TOKENIZER.eos_token_id)
    attention, reference = torch.zeros_like(ids), ids.clone()
    for row, text in enumerate(texts):
        start = length - len(text) - len(PROMPT)
        ids[row, start:] = torch.tensor([*PROMPT, *map(token_of, text)])
        attention[row, start:] = 1
        reference[row, start : start + len(PROMPT)] = torch.tensor(PROMPT)
        places[row] += start + len(PROMPT)
    call = {"inputs": ids, "baselines": reference, "additional_forward_args": (attention,)}
    return call, torch.tensor(places)


def masker() -> AlignedMasker:
    own = word_piece()
    assert all(len(own.tokenize(word)) > 1 for word in DECIDING)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = BertModel(
            BertConfig(
                vocab_size=len(own),
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=64,
                max_position_embeddings=64,
                initializer_range=0.2,
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
            )
        )
        return AlignedMasker(
            TransformerMasker(encoder, n_classes=3), tokenizer=TOKENIZER, masker_tokenizer=own
        )


@pytest.mark.parametrize("loss", ["objective", "regression"])
def test_the_deciding_word_comes_first(loss: str) -> None:
    attribution = AMLAttribution(PlantedDecoder(), masker=masker(), output="logits").fit(
        [batch_of(32, seed=seed)[0] for seed in range(32)],
        epochs=12,
        learning_rate=3e-3,
        loss=loss,
    )
    call, places = batch_of(100, seed=99)
    scores = attribution.attribute(**call, n_steps=0)
    # With other seeds it is 0.95 to 1: kernels of another processor should not decide.
    assert int((scores.argmax(dim=1) == places).sum()) >= 90
    # At random it would be about one in seven.
    noise = torch.rand(scores.shape, generator=torch.Generator().manual_seed(0)) * (scores != 0)
    assert float((noise.argmax(dim=1) == places).float().mean()) < 0.3
