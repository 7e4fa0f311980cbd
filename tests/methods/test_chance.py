"""Random scores: uniform, a text's own, and free of the model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from captum_aml import methods
from tests._helpers.methods import IDS, LINEAR, REFERENCE, run


def scores_of(ids: Tensor, *, seed: int = 0) -> Tensor:
    return run("random", LINEAR, ids=ids, reference=torch.full_like(ids, -1), seed=seed)


def test_scores_are_uniform_over_texts_and_seeds() -> None:
    # 40,000 numbers: their mean has a standard error of 0.0014, their deciles of 0.0016.
    texts = torch.arange(2000).reshape(200, 10)
    scores = torch.cat([scores_of(texts, seed=seed) for seed in range(20)]).flatten()
    assert scores.min() >= 0
    assert scores.max() < 1
    assert scores.mean().item() == pytest.approx(0.5, abs=0.006)
    deciles = torch.histc(scores, bins=10, min=0, max=1) / len(scores)
    assert deciles.tolist() == pytest.approx([0.1] * 10, abs=0.008)


def test_texts_have_rankings_of_their_own() -> None:
    texts = torch.arange(300).reshape(30, 10)
    rankings = {tuple(row.argsort().tolist()) for row in scores_of(texts)}
    assert len(rankings) == 30
    # One token more or less is another text; the same text again is the same.
    text = torch.tensor([[3, 4, 5, 6]])
    assert not torch.equal(scores_of(text)[:, :3], scores_of(text[:, :3]))
    assert torch.equal(scores_of(text), scores_of(text.repeat(2, 1))[1:])


def test_seeds_differ_and_may_be_negative() -> None:
    text = torch.tensor([[3, 4, 5, 6]])
    seeds = [scores_of(text, seed=seed) for seed in (0, 1, -1)]
    assert not any(torch.equal(seeds[i], seeds[j]) for i, j in [(0, 1), (0, 2), (1, 2)])


def test_the_model_is_never_run() -> None:
    def refuses(*_: object) -> Tensor:
        raise AssertionError

    scores = methods.create("random", refuses, LINEAR.embedding)(IDS, REFERENCE)
    assert torch.equal(scores, run("random", LINEAR))
