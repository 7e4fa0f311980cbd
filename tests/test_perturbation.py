"""Blending with the baseline, and finding a perturbation by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from captum._utils.common import _expand_additional_forward_args
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from captum_aml.exceptions import InvalidInputError
from captum_aml.perturbation import Blend, ForwardState, Perturbation, resolve_perturbation
from tests._helpers import references

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def state_of(seed: int, dtype: torch.dtype = torch.float64) -> ForwardState:
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return (torch.randn(*shape, generator=g, dtype=torch.float64) * 3).to(dtype)

    return ForwardState((draw(2, 3, 4), draw(2, 5)), (draw(2, 3, 4), draw(2, 5)), ("argument",))


@given(st.integers(0, 1000))
def test_blending_is_the_equation_element_by_element(seed: int) -> None:
    state = state_of(seed)
    keep = (torch.rand(2, 3, 1, dtype=torch.float64), torch.rand(2, 5, dtype=torch.float64))
    words, values = Blend()(state, keep).features
    for i in range(2):
        for j in range(3):
            for d in range(4):
                expected = references.blend(
                    keep[0][i, j, 0].item(),
                    state.features[0][i, j, d].item(),
                    state.baselines[0][i, j, d].item(),
                )
                # Rounding of one product and one sum of numbers of size 10.
                assert words[i, j, d].item() == pytest.approx(expected, abs=1e-14)
        for j in range(5):
            expected = references.blend(
                keep[1][i, j].item(),
                state.features[1][i, j].item(),
                state.baselines[1][i, j].item(),
            )
            assert values[i, j].item() == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_full_mask_gives_the_inputs_and_an_empty_one_the_baselines_exactly(
    dtype: torch.dtype,
) -> None:
    state = state_of(3, dtype)
    # The mask is float32 whatever the features are.
    for value, expected in ((1.0, state.features), (0.0, state.baselines)):
        keep = (torch.full((2, 3, 1), value), torch.full((2, 5), value))
        for part, tensor in zip(Blend()(state, keep).features, expected, strict=True):
            assert part.dtype == dtype
            assert torch.equal(part, tensor)


@given(st.integers(0, 1000))
def test_a_mask_and_its_complement_add_up_to_inputs_and_baselines(seed: int) -> None:
    state = state_of(seed)
    keep = (torch.rand(2, 3, 1, dtype=torch.float64), torch.rand(2, 5, dtype=torch.float64))
    kept = Blend()(state, keep).features
    left_out = Blend()(state, tuple(1 - k for k in keep)).features
    for a, b, x, y in zip(kept, left_out, state.features, state.baselines, strict=True):
        torch.testing.assert_close(a + b, x + y, rtol=0, atol=1e-13)


def test_the_gradient_by_the_mask_is_inputs_minus_baselines() -> None:
    state = state_of(5)
    for start in (0.0, 0.3, 0.5, 1.0):
        keep = torch.full((2, 3, 1), start, dtype=torch.float64, requires_grad=True)
        words, _ = Blend()(state, (keep, torch.ones(2, 5, dtype=torch.float64))).features
        words.sum().backward()
        expected = (state.features[0] - state.baselines[0]).sum(dim=2, keepdim=True)
        assert keep.grad is not None
        torch.testing.assert_close(keep.grad, expected, rtol=0, atol=1e-13)


def test_nothing_else_of_the_state_changes() -> None:
    state = state_of(0)
    before = [t.clone() for t in state.features]
    after = Blend()(state, (torch.zeros(2, 3, 1), torch.zeros(2, 5)))
    assert after.args is state.args
    assert after.baselines is state.baselines
    assert all(torch.equal(a, b) for a, b in zip(state.features, before, strict=True))


def test_rows_are_repeated_as_a_whole_and_arguments_as_captum_does() -> None:
    args: tuple[Any, ...] = (torch.tensor([1.0, 2.0]), torch.tensor(7.0), "text", [3])
    state = ForwardState((torch.tensor([[1.0], [2.0]]),), (torch.tensor([[3.0], [4.0]]),), args)
    twice = state.repeat(3)
    assert twice.features[0].flatten().tolist() == [1, 2, 1, 2, 1, 2]
    assert twice.baselines[0].flatten().tolist() == [3, 4, 3, 4, 3, 4]
    expected = _expand_additional_forward_args(args, 3)
    assert twice.args[0].tolist() == expected[0].tolist() == [1, 2, 1, 2, 1, 2]
    assert twice.args[1:] == expected[1:]
    assert state.repeat(1) is state


# By name


def test_a_perturbation_is_found_by_name_or_taken_as_it_is() -> None:
    assert isinstance(resolve_perturbation("blend"), Blend)
    mine = Blend(name="mine")
    assert resolve_perturbation(mine) is mine
    assert isinstance(mine, Perturbation)


@pytest.mark.parametrize(
    ("given_", "fragments"),
    [
        ("blur", ("['blend']", "'blur'")),
        (None, ("a name or an object", "NoneType")),
        (lambda state, keep: state, ("`name`", "<lambda>")),
        (Blend, ("an object with `name`",)),
    ],
)
def test_an_unknown_perturbation_is_named(given_: Any, fragments: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInputError, match=r"^perturbation: ") as caught:
        resolve_perturbation(given_)
    assert all(f in str(caught.value) for f in fragments)
