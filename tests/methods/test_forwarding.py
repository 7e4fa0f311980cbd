"""Arguments of one forward function as another takes them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from captum_aml.exceptions import InvalidInputError
from captum_aml.methods._forwarding import forwarded_args


def known(ids: object, attention_mask: object, token_type_ids: object) -> None: ...


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda ids: None, ()),
        (lambda ids, mask: None, ("mask",)),
        (lambda ids, mask=None: None, ("mask",)),
        (lambda ids, mask, segments: None, ("mask", "types")),
        (lambda ids, mask=None, segments=None: None, ("mask", "types")),
        (lambda ids, *args: None, ("mask", "types")),
        (lambda ids, mask, *args: None, ("mask", "types")),
        # By name, in whatever order.
        (lambda ids, token_type_ids, attention_mask: None, ("types", "mask")),
        (lambda ids, token_type_ids=None: None, ("types",)),
        # The order of the BERT models of transformers in Captum's tutorials.
        (
            lambda inputs, token_type_ids=None, position_ids=None, attention_mask=None: None,
            ("types", None, "mask"),
        ),
        # What has no name of the other's gets what is left over, if it needs something.
        (lambda ids, token_type_ids, mask: None, ("types", "mask")),
        (lambda ids, flag=True, attention_mask=None: None, (True, "mask")),
        (functools.partial(lambda ids, mask, scale: None, scale=2), ("mask",)),
        (max, ("mask", "types")),  # no signature
    ],
)
def test_what_a_function_takes(function: Callable[..., Any], expected: tuple[object, ...]) -> None:
    assert forwarded_args(("mask", "types"), known, function) == expected


def test_the_same_function_gets_everything() -> None:
    assert forwarded_args((1, 2, 3), known, known) == (1, 2, 3)


def test_without_the_other_function_it_is_the_order_that_counts() -> None:
    def reversed_order(ids: object, token_type_ids: object, attention_mask: object) -> None: ...

    assert forwarded_args(("mask", "types"), None, reversed_order) == ("mask", "types")
    assert forwarded_args(("mask", "types"), None, lambda ids, m: None) == ("mask",)
    assert forwarded_args((), None, lambda ids, m=None: None) == (None,)


def test_modules_are_read_by_their_forward() -> None:
    class Model(nn.Module):
        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return ids * mask

    for model in (Model(), nn.DataParallel(Model())):
        assert forwarded_args(("mask", "types"), known, model) == ("mask",)
    assert forwarded_args(("mask",), Model(), lambda ids, mask: None) == ("mask",)


def test_too_few_arguments() -> None:
    with pytest.raises(
        InvalidInputError, match=r"function needs \['a', 'b'\] after the ids, got 1 arguments"
    ):
        forwarded_args((1,), known, lambda ids, a, b: None)
