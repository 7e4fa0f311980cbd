"""Modules as matrices: their rows times their weight are their output."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_aml.tuning._rows import (
    as_output,
    has_bias,
    input_rows,
    is_batched,
    is_matrix,
    matrix_shape,
    output_rows,
)

CONV1D: list[dict[str, Any]] = [
    {"kernel_size": 1},
    {"kernel_size": 5, "padding": 2},
    {"kernel_size": 3, "stride": 2, "dilation": 2, "padding": 1, "bias": False},
    {"kernel_size": 4, "padding": "same", "dilation": 3},
    {"kernel_size": 3, "padding": "valid"},
    {"kernel_size": 3, "padding": 1, "padding_mode": "circular"},
]
CONV2D: list[dict[str, Any]] = [
    {"kernel_size": (3, 2), "padding": (2, 1), "stride": (1, 2)},
    {"kernel_size": (2, 3), "dilation": (2, 1), "bias": False},
    {"kernel_size": (4, 3), "padding": "same"},
    {"kernel_size": 3, "padding": (1, 2), "padding_mode": "reflect"},
]
CASES = [
    (nn.Linear(5, 3), (4, 5)),
    (nn.Linear(5, 3, bias=False), (4, 7, 5)),
    (nn.Linear(5, 3), (8, 2, 7, 5)),
    *((nn.Conv1d(3, 4, **c), (6, 3, 15)) for c in CONV1D),
    *((nn.Conv2d(3, 4, **c), (6, 3, 9, 8)) for c in CONV2D),
]


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize(("module", "shape"), CASES, ids=lambda v: str(v))
@pytest.mark.parametrize("n_examples", [2, 1])
def test_rows_times_the_matrix_are_the_output(
    module: nn.Module, shape: tuple[int, ...], n_examples: int
) -> None:
    given = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    assert is_matrix(module)
    assert is_batched(module, given)
    weight, bias = module.weight, module.bias
    assert isinstance(weight, Tensor)
    matrix = weight.flatten(1)
    assert has_bias(module) == (bias is not None)
    assert matrix_shape(module) == (matrix.shape[1], matrix.shape[0])
    output = module(given)
    rows = input_rows(module, given, n_examples) @ matrix.T
    if isinstance(bias, Tensor):
        rows = rows + bias
    torch.testing.assert_close(rows, output_rows(module, output, n_examples))
    torch.testing.assert_close(as_output(module, rows, output), output)


def test_rows_of_an_example_are_those_of_the_example_alone() -> None:
    module = nn.Conv1d(3, 4, kernel_size=3, padding=1)
    given = torch.randn(6, 3, 5)
    rows = input_rows(module, given, 3)
    assert rows.shape == (3, 10, 9)
    for i in range(3):
        alone = input_rows(module, given[2 * i : 2 * i + 2], 1)
        assert torch.equal(rows[i], alone[0])


def test_half_precision_becomes_float32_and_back() -> None:
    module = nn.Linear(5, 3).half()
    rows = input_rows(module, torch.ones(2, 5).half(), 2)
    assert rows.dtype == torch.float32
    assert as_output(module, torch.ones(2, 1, 3), torch.ones(2, 3).half()).dtype == torch.float16
    assert input_rows(module.double(), torch.ones(2, 5).double(), 2).dtype == torch.float64


def test_a_frozen_bias_is_no_input() -> None:
    module = nn.Linear(5, 3)
    module.bias.requires_grad_(False)
    assert not has_bias(module)
    assert has_bias(module, frozen=True)
    assert has_bias(nn.Linear(5, 3))


def test_what_is_no_matrix() -> None:
    assert not is_matrix(nn.LayerNorm(3))
    assert not is_matrix(nn.Embedding(3, 3))
    assert not is_matrix(nn.Conv1d(4, 4, 3, groups=2))
    assert not is_matrix(nn.Linear(3, 3).requires_grad_(False))
    assert is_matrix(nn.Linear(3, 3).requires_grad_(False), frozen=True)
    assert not is_matrix(nn.LayerNorm(3), frozen=True)
    assert not is_batched(nn.Linear(3, 3), torch.ones(3))
    assert not is_batched(nn.Conv1d(3, 3, 1), torch.ones(3, 4))
