"""Seeds without a trace."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from captum_aml._utils.isolation import isolated_rng, seeded


def test_a_seed_gives_what_the_seed_alone_gives_and_leaves_the_state() -> None:
    expected = torch.rand(3, generator=torch.Generator().manual_seed(7))
    state = torch.get_rng_state()
    with isolated_rng(7):
        assert torch.equal(torch.rand(3), expected)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_state_comes_back_after_an_exception() -> None:
    state = torch.get_rng_state()

    def fail() -> None:
        with isolated_rng(7):
            torch.rand(3)
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert torch.equal(torch.get_rng_state(), state)


def test_all_three_generators_are_seeded_and_get_their_state_back() -> None:
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()

    def drawn() -> tuple[float, float, float]:
        with seeded(3):
            return float(torch.rand(())), float(np.random.rand()), random.random()

    assert drawn() == drawn()
    assert drawn()[1:] == (np.random.RandomState(3).rand(), random.Random(3).random())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]
    assert random.getstate() == states[2]
