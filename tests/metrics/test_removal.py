"""Removal operators: what they say of themselves, and the user's own."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from captum_aml.exceptions import InvalidInputError
from captum_aml.metrics import Removal, comprehensiveness
from captum_aml.metrics.removal import REMOVALS, replace_by_baseline, resolve_removal
from tests._helpers.removals import TEXT, additive, evaluator_of


def test_named_operators() -> None:
    assert {name: removal.place for name, removal in REMOVALS.items()} == {
        "delete": "gone",
        "mask": "stays",
        "pad": "hidden",
    }
    assert all(removal.name == name for name, removal in REMOVALS.items())
    with pytest.raises(TypeError):
        REMOVALS["mine"] = Removal("mine")  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        REMOVALS["mask"].place = "gone"  # type: ignore[misc]


def test_an_operator_stands_for_itself_and_a_name_for_the_one_that_has_it() -> None:
    mine = Removal("mine")
    assert resolve_removal(mine) is mine
    assert resolve_removal("pad") is REMOVALS["pad"]


def test_unknown_names_and_places_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"removal: .*delete, mask, pad, got 'erase'"):
        resolve_removal("erase")
    with pytest.raises(InvalidInputError, match=r"place: .*got 'away'"):
        Removal("mine", place="away")  # type: ignore[arg-type]


def test_the_baseline_stands_where_nothing_is_kept() -> None:
    keep = torch.tensor([[True, False, True]])
    got = replace_by_baseline(torch.tensor([[7, 8, 9]]), torch.tensor([[1, 2, 3]]), keep)
    assert got.tolist() == [[7, 2, 9]]


def to(token: int) -> Removal:
    def replace(inputs: Tensor, baselines: Tensor, keep: Tensor) -> Tensor:
        return torch.where(keep, inputs, token)

    return Removal("to", replace=replace)


def call() -> tuple[Tensor, Tensor, Tensor]:
    ids = torch.tensor([TEXT])
    return ids, torch.tensor([[5.0, 4.0, 3.0, 2.0, 1.0]]), torch.full_like(ids, 9)


def test_an_operator_of_ones_own() -> None:
    ids, scores, baselines = call()
    # 20 % of 5 tokens is the first, of weight 1/4; token 5, of weight 1/8, comes in its place.
    got = comprehensiveness(additive(), ids, scores, baselines, torch.ones_like(ids), removal=to(5))
    assert got.item() == pytest.approx(1 / 4 - 1 / 8, abs=1e-12)


def test_operators_of_one_name_are_not_taken_for_each_other() -> None:
    ids, _, baselines = call()
    evaluator = evaluator_of(additive(), ids, baselines, torch.ones_like(ids))
    keep = torch.tensor([[False, True, True, True, True]])
    row = torch.tensor([0])
    # p(X) is 21/32; the first token's 1/4 is replaced by 1/8, and by 0.
    assert evaluator.values(row, keep, to(5)).item() == pytest.approx(17 / 32, abs=1e-12)
    assert evaluator.values(row, keep, to(9)).item() == pytest.approx(13 / 32, abs=1e-12)
    mask = Removal("mask", replace=to(5).replace)
    assert evaluator.values(row, keep, "mask").item() == pytest.approx(13 / 32, abs=1e-12)
    assert evaluator.values(row, keep, mask).item() == pytest.approx(17 / 32, abs=1e-12)
