"""The arguments of a call: every form that Captum takes, and every way to get them wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from captum._utils.common import _expand_additional_forward_args, _format_additional_forward_args
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from captum_aml._utils.checks import is_integral
from captum_aml.exceptions import CaptumAMLError, InvalidInputError
from captum_aml.masking.call import parse_call, repeat_rows

IDS = torch.tensor([[5, 6, 7], [8, 9, 2]])


# Inputs


def test_inputs_keep_their_values_and_leave_the_callers_graph() -> None:
    x = torch.rand(2, 3, requires_grad=True)
    y = x * 2
    call = parse_call((x, y))
    assert call.is_tuple
    for parsed, given_ in zip(call.inputs, (x, y), strict=True):
        assert torch.equal(parsed, given_)
        assert not parsed.requires_grad
    assert x.requires_grad
    assert y.grad_fn is not None


def test_a_tensor_is_remembered_as_no_tuple() -> None:
    assert not parse_call(IDS).is_tuple
    assert parse_call((IDS,)).is_tuple


def test_tensors_made_under_inference_mode_can_take_part_in_autograd() -> None:
    with torch.inference_mode():
        x, b, arg = torch.rand(2, 3), torch.rand(2, 3), torch.rand(2, 3)
    call = parse_call(x, b, additional_forward_args=arg)
    weight = torch.ones(3, requires_grad=True)
    (arg_parsed,) = call.additional_forward_args
    (weight * call.inputs[0] * call.baselines[0] * arg_parsed).sum().backward()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, (x * b * arg).sum(dim=0).clone())


@pytest.mark.parametrize(
    ("dtype", "integral"),
    [
        (torch.int64, True),
        (torch.int32, True),
        (torch.uint8, True),
        (torch.bool, False),
        (torch.float16, False),
        (torch.float64, False),
        (torch.complex64, False),
    ],
)
def test_ids_are_integers_that_are_no_bools(dtype: torch.dtype, integral: bool) -> None:
    assert is_integral(torch.ones(2, dtype=dtype)) is integral


# Baselines


@pytest.mark.parametrize(
    ("baselines", "expected"),
    [
        (None, [[0, 0, 0], [0, 0, 0]]),
        (4, [[4, 4, 4], [4, 4, 4]]),
        (4.0, [[4, 4, 4], [4, 4, 4]]),
        (torch.tensor([[1, 2, 3]]), [[1, 2, 3], [1, 2, 3]]),
        (torch.tensor([[1, 2, 3], [4, 5, 6]]), [[1, 2, 3], [4, 5, 6]]),
        (torch.tensor([[1, 2, 3]], dtype=torch.int32), [[1, 2, 3], [1, 2, 3]]),
        ((4,), [[4, 4, 4], [4, 4, 4]]),
    ],
)
def test_every_form_of_baseline_gets_the_inputs_shape_and_dtype(
    baselines: Any, expected: list[list[int]]
) -> None:
    (baseline,) = parse_call(IDS, baselines).baselines
    assert baseline.dtype == torch.int64
    assert baseline.tolist() == expected


def test_baselines_of_a_tuple_are_taken_one_by_one() -> None:
    floats = torch.rand(2, 2, dtype=torch.float64)
    baselines = (torch.tensor([[1, 2, 3]]), 0.5)
    ids, values = parse_call((IDS, floats), baselines).baselines
    assert ids.tolist() == [[1, 2, 3], [1, 2, 3]]
    assert values.tolist() == [[0.5, 0.5], [0.5, 0.5]]
    assert values.dtype == torch.float64


def test_a_baseline_takes_the_dtype_of_float_inputs() -> None:
    baseline = torch.tensor([[1, 2]])
    assert parse_call(torch.rand(3, 2), baseline).baselines[0].dtype == torch.float32


# Targets


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (1, [[1], [1]]),
        (-1, [[-1], [-1]]),
        ((1, 2), [[1, 2], [1, 2]]),
        (torch.tensor(2), [[2], [2]]),
        (torch.tensor([2]), [[2], [2]]),
        (torch.tensor([2, 0]), [[2], [0]]),
        (torch.tensor([2, 0], dtype=torch.uint8), [[2], [0]]),
        ([2, 0], [[2], [0]]),
        ([(2, 1), (0, 3)], [[2, 1], [0, 3]]),
        (np.int64(2), [[2], [2]]),
        ([torch.tensor(2), torch.tensor(0)], [[2], [0]]),
    ],
)
def test_every_form_of_target_becomes_one_row_of_indices_per_example(
    target: Any, expected: list[list[int]]
) -> None:
    parsed = parse_call(IDS, target=target).target
    assert parsed is not None
    assert parsed.dtype == torch.int64
    assert parsed.tolist() == expected


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=4))
def test_forms_that_say_the_same_are_the_same(indices: list[int]) -> None:
    inputs = torch.zeros(len(indices), 2)
    forms = [indices, [(i,) for i in indices], torch.tensor(indices)]
    assert [parse_call(inputs, target=form).target.tolist() for form in forms] == [
        [[i] for i in indices]
    ] * 3


# Further arguments and feature masks


@pytest.mark.parametrize("given_", [7, "text", [1, 2], (1, "text"), IDS, (IDS, None)])
def test_further_arguments_are_wrapped_as_captum_does(given_: Any) -> None:
    expected = _format_additional_forward_args(given_)
    parsed = parse_call(IDS, additional_forward_args=given_).additional_forward_args
    assert len(parsed) == len(expected)
    assert all(a is b for a, b in zip(parsed, expected, strict=True))


def test_no_further_arguments_are_an_empty_tuple() -> None:
    assert parse_call(IDS).additional_forward_args == ()


def test_a_feature_mask_of_one_dimension_is_shared_by_all_examples() -> None:
    call = parse_call(torch.rand(2, 3), feature_mask=torch.tensor([0, 0, 1]))
    assert call.feature_mask is not None
    assert call.feature_mask[0].tolist() == [[0, 0, 1]]


def test_the_mask_of_examples_that_are_single_values_stays_as_it_is() -> None:
    call = parse_call(
        (torch.rand(4, 3), torch.rand(4)),
        feature_mask=(torch.tensor([[0, 1, 2]]), torch.tensor([3, 4, 5, 6])),
    )
    assert call.feature_mask is not None
    assert call.feature_mask[1].tolist() == [3, 4, 5, 6]


# Rows


def _rows_of(call: Any) -> list[list[Any]]:
    return [
        [
            [t.tolist() for t in part.inputs],
            [t.tolist() for t in part.baselines],
            part.target.tolist(),
            [a.tolist() if isinstance(a, Tensor) else a for a in part.additional_forward_args],
            [m.tolist() for m in part.feature_mask],
        ]
        for part in (call.rows(i, i + 1) for i in range(call.n_examples))
    ]


def test_rows_cut_what_has_examples_and_leave_the_rest() -> None:
    call = parse_call(
        (IDS, torch.tensor([0.5, 1.5])),
        (torch.tensor([[1, 2, 3]]), 0.0),
        target=[(0, 1), (1, 0)],
        additional_forward_args=(torch.tensor([[1], [2]]), torch.tensor(9.0), [4, 5], "text"),
        feature_mask=(torch.tensor([[0, 0, 1]]), torch.tensor([[2], [3]])),
    )
    assert _rows_of(call) == [
        [
            [[[5, 6, 7]], [0.5]],
            [[[1, 2, 3]], [0.0]],
            [[0, 1]],
            [[[1]], 9.0, [4, 5], "text"],
            [[[0, 0, 1]], [[2]]],
        ],
        [
            [[[8, 9, 2]], [1.5]],
            [[[1, 2, 3]], [0.0]],
            [[1, 0]],
            [[[2]], 9.0, [4, 5], "text"],
            [[[0, 0, 1]], [[3]]],
        ],
    ]


def test_what_goes_with_the_examples_is_told_by_all_of_them() -> None:
    """Of two of four examples, an argument of two rows has as many by chance."""
    args = (torch.arange(4), torch.tensor([7, 8]), torch.tensor(9), "text")
    call = parse_call(torch.rand(4, 3), additional_forward_args=args)
    assert call.batched == (0,)
    part = call.rows(2, 4)
    assert part.additional_forward_args[0].tolist() == [2, 3]
    one = part.rows(1, 2)
    assert one.additional_forward_args[0].tolist() == [3]
    for found in (part, one):
        assert found.additional_forward_args[1].tolist() == [7, 8]


def test_rows_keep_a_shared_feature_mask_whose_first_size_happens_to_be_n() -> None:
    # By Captum's rule a (4, 2) mask groups the elements of each of the (4, 4, 2) examples alike.
    mask = torch.arange(8).reshape(4, 2)
    call = parse_call(torch.rand(4, 4, 2), feature_mask=mask)
    part = call.rows(1, 2)
    assert part.feature_mask is not None
    assert part.feature_mask[0].expand(1, 4, 2).tolist() == [mask.tolist()]


@given(st.integers(1, 5), st.integers(1, 5))
def test_rows_put_together_are_the_call(n: int, size: int) -> None:
    inputs = torch.arange(n * 2.0).reshape(n, 2)
    call = parse_call(inputs, inputs + 100, target=list(range(n)))
    parts = [call.rows(start, start + size) for start in range(0, n, size)]
    assert sum(p.n_examples for p in parts) == n
    assert torch.equal(torch.cat([p.inputs[0] for p in parts]), call.inputs[0])
    assert torch.equal(torch.cat([p.baselines[0] for p in parts]), call.baselines[0])
    assert call.target is not None
    assert torch.equal(torch.cat([p.target for p in parts if p.target is not None]), call.target)


# Bad input: each message names the argument, what was expected, and what came

FLOATS = torch.rand(2, 3)
BAD_CALLS: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"inputs": ()}, ("inputs", "at least one tensor", "empty tuple")),
    ({"inputs": [[1.0]]}, ("inputs", "tensor or a tuple of tensors", "list")),
    ({"inputs": (FLOATS, "x")}, ("inputs", "tensor", "str")),
    ({"inputs": torch.tensor(1.0)}, ("inputs", "dimension 0", "without dimensions")),
    ({"inputs": torch.ones(2, dtype=torch.bool)}, ("inputs", "floating point", "torch.bool")),
    ({"inputs": torch.ones(2, dtype=torch.complex64)}, ("inputs", "floating", "torch.complex64")),
    ({"inputs": (FLOATS, torch.rand(3, 3))}, ("inputs", "same number of examples", "[2, 3]")),
    ({"inputs": torch.rand(0, 3)}, ("inputs", "at least one example", "(0, 3)")),
    ({"inputs": torch.rand(2, 0)}, ("inputs", "at least one element", "(2, 0)")),
    ({"baselines": "zero"}, ("baselines", "tensor or a number", "str")),
    ({"baselines": True}, ("baselines", "tensor or a number", "bool")),
    ({"baselines": (0, 0)}, ("baselines", "each of the 1 input", "got 2")),
    ({"baselines": torch.rand(2, 4)}, ("baselines", "(2, 3) or (1, 3)", "(2, 4)")),
    ({"baselines": torch.rand(3, 3)}, ("baselines", "(2, 3) or (1, 3)", "(3, 3)")),
    ({"baselines": torch.rand(3)}, ("baselines", "(2, 3) or (1, 3)", "(3,)")),
    ({"baselines": torch.ones(2, 3).bool()}, ("baselines", "numbers", "torch.bool")),
    ({"inputs": IDS, "baselines": torch.rand(2, 3)}, ("baselines", "integer ids", "torch.float32")),
    ({"inputs": IDS, "baselines": 0.5}, ("baselines", "integer id", "0.5")),
    ({"inputs": IDS, "baselines": float("nan")}, ("baselines", "integer id", "nan")),
    ({"target": 1.0}, ("target", "integer", "1.0")),
    ({"target": "positive"}, ("target", "integer", "'positive'")),
    ({"target": [0, 1, 0]}, ("target", "each of the 2 examples", "got 3")),
    ({"target": []}, ("target", "each of the 2 examples", "got 0")),
    ({"target": [0, None]}, ("target", "integer", "None")),
    ({"target": [(0, 1), (0,)]}, ("target", "one length", "[1, 2]")),
    ({"target": ()}, ("target", "at least one index", "[0]")),
    ({"target": torch.tensor([0.0, 1.0])}, ("target", "integer indices", "torch.float32")),
    ({"target": torch.tensor([0, 1, 0])}, ("target", "each of the 2 examples", "got 3")),
    ({"target": torch.tensor([[0], [1]])}, ("target", "2 examples", "(2, 1)")),
    ({"feature_mask": [0, 1]}, ("feature_mask", "tensor", "list")),
    ({"feature_mask": torch.rand(1, 3)}, ("feature_mask", "integer group ids", "torch.float32")),
]


@pytest.mark.parametrize(("arguments", "fragments"), BAD_CALLS)
def test_bad_arguments_are_named(arguments: dict[str, Any], fragments: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_call(**{"inputs": FLOATS, **arguments})
    message = str(caught.value)
    assert message.startswith(f"{fragments[0]}: ")
    for fragment in fragments[1:]:
        assert fragment in message
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, CaptumAMLError)


def test_a_baseline_that_the_inputs_dtype_cannot_hold_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="baselines"):
        parse_call(torch.ones(2, 2, dtype=torch.uint8), -1)


def test_arguments_are_repeated_as_captum_does_where_they_go_with_the_examples() -> None:
    args: tuple[Any, ...] = (torch.tensor([1.0, 2.0]), torch.tensor(7.0), "text", [3])
    call = parse_call(torch.ones(2, 3), additional_forward_args=args)
    repeated = call.repeated_args(3)
    expected = _expand_additional_forward_args(args, 3)
    assert repeated[0].tolist() == expected[0].tolist() == [1, 2, 1, 2, 1, 2]
    assert repeated[1:] == expected[1:]
    assert call.repeated_args(1) == args
    table = torch.ones(1, 3)  # broadcast over the examples, which Captum's rule does not know
    assert parse_call(torch.ones(2, 3), additional_forward_args=table).repeated_args(3) == (table,)


def test_rows_are_repeated_as_a_whole() -> None:
    rows = torch.tensor([[1.0], [2.0]])
    assert repeat_rows(rows, 3).flatten().tolist() == [1, 2, 1, 2, 1, 2]
    assert repeat_rows(rows, 1) is rows


# Integers that are numbers


def test_integers_that_are_no_ids_become_floating_point_values() -> None:
    call = parse_call(
        (torch.tensor([[1, 200]], dtype=torch.uint8), torch.tensor([[0.5]])),
        (0.25, torch.tensor([[1]])),
        integers_are_ids=False,
    )
    assert [x.dtype for x in (*call.inputs, *call.baselines)] == [torch.float32] * 4
    assert call.inputs[0].tolist() == [[1.0, 200.0]]
    assert call.baselines[0].tolist() == [[0.25, 0.25]]
    with pytest.raises(InvalidInputError, match=r"inputs: .* torch.bool"):
        parse_call(torch.tensor([[True]]), integers_are_ids=False)
