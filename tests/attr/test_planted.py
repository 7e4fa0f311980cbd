"""Planted evidence: one or two known tokens decide, and must have the highest scores.

The hit rate of a ranking is the share of the deciding tokens among its first k, where k is their
number. Texts are drawn anew for every test, and a random ranking is scored beside each method.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_aml import AMLAttribution, LAAttribution, LayerAMLAttribution, LayerLAAttribution

PAD, MASK, FIRST_NEUTRAL, N_TOKENS = 0, 1, 12, 60
#: Two tokens support each of three classes.
EVIDENCE = {0: (2, 3), 1: (4, 5), 2: (6, 7)}
#: Either of these decides for class 1 together with the other, and neither alone.
PAIR = (8, 9)
N_TEXTS, LENGTH = 50, 14


class Planted(nn.Module):
    """Three classes, decided by the tokens of ``EVIDENCE``; other tokens have no influence.

    A token's evidence is read from its embedding through a saturating function, so that several
    tokens of one class say no more than one, and half a token says little.
    """

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.embedding = nn.Embedding(N_TOKENS, 16)
            # Three orthogonal directions carry the evidence; no other token has any of them.
            directions = torch.linalg.qr(torch.randn(16, 5)).Q.T
            with torch.no_grad():
                table = self.embedding.weight
                table -= table @ directions.T @ directions
                for label, tokens in EVIDENCE.items():
                    table[list(tokens)] += directions[label]
                for k, token in enumerate(PAIR):
                    table[token] += directions[3 + k]
            self.register_buffer("directions", directions)

    def head(self, embeddings: Tensor, attention: Tensor) -> Tensor:
        """Logits (N, 3) of embeddings (N, L, D)."""
        found = (embeddings @ self.directions.T) * attention.unsqueeze(-1)
        total = found.sum(1)
        classes = 4 * torch.tanh(2 * total[:, :3])
        both = 8 * total[:, 3].clamp(0, 1) * total[:, 4].clamp(0, 1) - 3
        return classes + torch.nn.functional.pad(both.clamp(min=0).unsqueeze(1), (1, 1))

    def forward(self, ids: Tensor, attention: Tensor) -> Tensor:
        """Logits (N, 3) of ids (N, L)."""
        return self.head(self.embedding(ids), attention)


@dataclass(frozen=True)
class Texts:
    """Texts of different lengths and what decides them.

    Attributes:
        ids: Token ids, (N, L), the first of which is not maskable.
        attention: Which are text, (N, L).
        labels: The explained class of each.
        deciding: The positions that decide for it.
    """

    ids: Tensor
    attention: Tensor
    labels: list[int]
    deciding: list[set[int]]

    @property
    def call(self) -> dict[str, Any]:
        """The keyword arguments of ``attribute`` but for the target."""
        reference = torch.full_like(self.ids, MASK) * self.attention
        reference[:, 0] = self.ids[:, 0]
        return {"baselines": reference, "additional_forward_args": (self.attention,)}


def make_texts(kind: str, seed: int, n: int = N_TEXTS) -> Texts:
    """Random neutral texts with planted evidence.

    Args:
        kind: ``one`` token that decides, ``two`` of the same class, ``pair`` that decides only
            together, or ``both`` (one for each of two classes, the label being either).
        seed: The seed.
        n: How many.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(high: int) -> int:
        return int(torch.randint(high, (), generator=generator))

    ids = torch.randint(FIRST_NEUTRAL, N_TOKENS, (n, LENGTH), generator=generator)
    lengths = torch.randint(8, LENGTH + 1, (n,), generator=generator)
    labels: list[int] = []
    deciding: list[set[int]] = []
    for i in range(n):
        first, second = (1 + torch.randperm(int(lengths[i]) - 1, generator=generator)[:2]).tolist()
        label, other = torch.randperm(3, generator=generator)[:2].tolist()
        if kind == "pair":
            label = 1
            ids[i, first], ids[i, second] = PAIR
            deciding.append({first, second})
        else:
            ids[i, first] = EVIDENCE[label][draw(2)]
            deciding.append({first})
            if kind == "two":
                ids[i, second] = EVIDENCE[label][draw(2)]
                deciding[-1].add(second)
            elif kind == "both":
                ids[i, second] = EVIDENCE[other][draw(2)]
        labels.append(label)
    attention = (torch.arange(LENGTH) < lengths.unsqueeze(1)).long()
    return Texts(ids * attention, attention, labels, deciding)


def hit_rate(scores: Tensor, texts: Texts) -> float:
    """The mean share of the deciding positions among the first k."""
    shares = []
    for row, deciding in zip(scores, texts.deciding, strict=True):
        first = set(row.argsort(descending=True)[: len(deciding)].tolist())
        shares.append(len(first & deciding) / len(deciding))
    return sum(shares) / len(shares)


def random_hit_rate(texts: Texts) -> float:
    """The hit rate of random scores on the same tokens, over twenty draws."""
    generator = torch.Generator().manual_seed(0)
    rates = []
    for _ in range(20):
        scores = torch.rand(texts.ids.shape, generator=generator) * texts.attention
        scores[:, 0] = 0.0
        rates.append(hit_rate(scores, texts))
    return sum(rates) / len(rates)


def target_forms(labels: list[int]) -> list[Any]:
    """The labels in each of Captum's forms."""
    return [labels, torch.tensor(labels), [(label,) for label in labels]]


@pytest.fixture(scope="module")
def model() -> Planted:
    return Planted()


METHODS = {
    "AML": lambda model, **kw: AMLAttribution(model, embedding_layer=model.embedding, **kw),
    "LA": lambda model, **kw: LAAttribution(model, embedding_layer=model.embedding, **kw),
    "Layer AML": lambda model, **kw: LayerAMLAttribution(model, model.embedding, **kw),
    "Layer LA": lambda model, **kw: LayerLAAttribution(model, model.embedding, **kw),
}


#: The default call, and masks that are tuned from there.
TUNED = {"tune": "mask", "scores": "mask"}


@pytest.fixture(params=[(m, s) for m in METHODS for s in ("default", "tuned")], ids="-".join)
def attribution(request: pytest.FixtureRequest, model: Planted) -> Any:
    name, how = request.param
    return METHODS[name](model, **(TUNED if how == "tuned" else {}))


def by_token(scores: Tensor) -> Tensor:
    return scores.sum(-1) if scores.dim() == 3 else scores


@pytest.mark.parametrize("kind", ["one", "two", "pair"])
def test_what_decides_is_found(attribution: Any, model: Planted, kind: str) -> None:
    texts = make_texts(kind, seed=1)
    predicted = model(texts.ids, texts.attention).argmax(1).tolist()
    assert predicted == texts.labels
    scores = by_token(attribution.attribute(texts.ids, **texts.call))
    assert hit_rate(scores, texts) > 0.9
    # About one in ten positions is a deciding one.
    assert random_hit_rate(texts) < 0.35


@pytest.mark.parametrize("kind", ["one", "both"])
def test_what_speaks_for_a_given_class_is_found(
    attribution: Any, model: Planted, kind: str
) -> None:
    texts = make_texts(kind, seed=2)
    assert random_hit_rate(texts) < 0.35
    expected = None
    for target in target_forms(texts.labels):
        scores = by_token(attribution.attribute(texts.ids, target=target, **texts.call))
        assert hit_rate(scores, texts) > 0.9
        # Every form is the same call.
        assert expected is None or torch.equal(scores, expected)
        expected = scores


def test_one_class_for_all_texts(attribution: Any, model: Planted) -> None:
    # Texts with evidence for two classes, of which each is the target in turn.
    texts = make_texts("both", seed=3)
    for label in range(3):
        rows = [i for i, own in enumerate(texts.labels) if own == label]
        assert len(rows) > 10
        chosen = Texts(
            texts.ids[rows],
            texts.attention[rows],
            [label] * len(rows),
            [texts.deciding[i] for i in rows],
        )
        # Captum's forms of one target for all, one for each class.
        target = (label, torch.tensor(label), (label,))[label]
        scores = by_token(attribution.attribute(chosen.ids, target=target, **chosen.call))
        assert hit_rate(scores, chosen) > 0.9


def test_embeddings_as_inputs(model: Planted) -> None:
    texts = make_texts("one", seed=4)
    with torch.no_grad():
        inputs, baselines = (model.embedding(ids) for ids in (texts.ids, texts.call["baselines"]))
    for method in (AMLAttribution(model.head), LAAttribution(model.head)):
        scores = method.attribute(
            inputs, baselines=baselines, additional_forward_args=texts.attention
        )
        assert hit_rate(scores.sum(-1), texts) > 0.9


def test_one_probability_as_output(model: Planted) -> None:
    # The probability of class 2, given as one number for each example.
    texts = make_texts("one", seed=5, n=180)
    rows = [i for i, own in enumerate(texts.labels) if own == 2]
    assert len(rows) >= 50
    chosen = Texts(
        texts.ids[rows], texts.attention[rows], [2] * len(rows), [texts.deciding[i] for i in rows]
    )

    def forward(ids: Tensor, attention: Tensor) -> Tensor:
        return model(ids, attention).softmax(-1)[:, 2]

    for output in ("probability", "value"):
        for cls in (AMLAttribution, LAAttribution):
            method = cls(forward, embedding_layer=model.embedding, output=output)
            scores = method.attribute(chosen.ids, **chosen.call)
            assert hit_rate(scores, chosen) > 0.9


@pytest.mark.parametrize("name", METHODS)
def test_a_fitted_masker_finds_what_decides(name: str, model: Planted) -> None:
    train, held_out = make_texts("one", seed=6, n=256), make_texts("one", seed=7)
    method = METHODS[name](model)
    batches = [
        {
            "inputs": train.ids[i : i + 32],
            "baselines": train.call["baselines"][i : i + 32],
            "additional_forward_args": (train.attention[i : i + 32],),
        }
        for i in range(0, 256, 32)
    ]
    method.fit(batches, epochs=6, learning_rate=3e-3)
    losses = [record.train["total"] for record in method.history_]
    assert losses[-1] < losses[0]
    scores = by_token(method.attribute(held_out.ids, **held_out.call))
    assert hit_rate(scores, held_out) > 0.9
    assert random_hit_rate(held_out) < 0.35
    # Tuning from there does not lose it.
    tuned = by_token(method.attribute(held_out.ids, n_steps=10, **held_out.call))
    assert hit_rate(tuned, held_out) > 0.9


def test_a_fitted_masker_is_conditioned_on_the_class(model: Planted) -> None:
    # Only the target says which of two pieces of evidence is meant.
    train, held_out = make_texts("both", seed=8, n=1536), make_texts("both", seed=9, n=200)
    method = AMLAttribution(model, embedding_layer=model.embedding)
    batches = [
        {
            "inputs": train.ids[i : i + 32],
            "target": train.labels[i : i + 32],
            "baselines": train.call["baselines"][i : i + 32],
            "additional_forward_args": (train.attention[i : i + 32],),
        }
        for i in range(0, 1536, 32)
    ]
    method.fit(batches, epochs=8, learning_rate=3e-3)
    # Told nothing, it would find the evidence for either class, and be right half of the time;
    # so small a network, after seconds, is right in most of the other half too.
    for target in target_forms(held_out.labels):
        scores = method.attribute(held_out.ids, target=target, **held_out.call)
        assert hit_rate(scores, held_out) > 0.6
    absent = [(label + 1) % 3 for label in held_out.labels]
    scores = method.attribute(held_out.ids, target=absent, **held_out.call)
    assert hit_rate(scores, held_out) < 0.4
