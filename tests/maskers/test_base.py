"""The logits that a masker must give back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from captum_aml.exceptions import InvalidInputError
from captum_aml.maskers import Masker
from captum_aml.maskers.base import PredictionEmbedding, as_logits


def test_one_tensor_or_a_tuple_of_them_is_taken() -> None:
    a, b = torch.rand(2, 3), torch.rand(2, 4)
    assert as_logits(a, [(2, 3)])[0] is a
    assert as_logits((a, b), [(2, 3), torch.Size((2, 4))]) == (a, b)


@pytest.mark.parametrize(
    ("proposal", "fragments"),
    [
        (torch.rand(2, 4), ("[(2, 3)]", "[(2, 4)]")),
        (torch.rand(2, 3, 1), ("[(2, 3)]", "[(2, 3, 1)]")),
        ((torch.rand(2, 3),) * 2, ("[(2, 3)]", "[(2, 3), (2, 3)]")),
        ((), ("[(2, 3)]", "got []")),
        ([[0.0]], ("tensors of logits", "['list']")),
        (None, ("tensors of logits", "['NoneType']")),
    ],
)
def test_any_other_result_is_named(proposal: Any, fragments: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInputError, match=r"^masker: ") as caught:
        as_logits(proposal, [(2, 3)])
    assert all(f in str(caught.value) for f in fragments)


def test_any_module_is_a_masker() -> None:
    module = nn.Linear(2, 2)
    assert isinstance(module, Masker)


def test_a_prediction_is_the_weighted_sum_of_class_vectors_and_a_shared_one() -> None:
    embedding = PredictionEmbedding(3, 2).double()
    q = torch.tensor([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]], dtype=torch.float64)
    result = embedding(q)
    for i in range(2):
        for d in range(2):
            expected = embedding.shared[d].item() + sum(
                q[i, c].item() * embedding.classes[c, d].item() for c in range(3)
            )
            assert result[i, d].item() == pytest.approx(expected, rel=1e-13)


def test_every_class_learns_in_proportion_to_its_probability() -> None:
    embedding = PredictionEmbedding(3, 2)
    q = torch.tensor([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]])
    embedding(q).sum().backward()
    assert embedding.classes.grad is not None
    assert embedding.classes.grad.tolist() == [[0.5, 0.5], [1.25, 1.25], [0.25, 0.25]]
    assert embedding.shared.grad is not None
    assert embedding.shared.grad.tolist() == [2.0, 2.0]


def test_a_distribution_over_another_number_of_classes_is_named() -> None:
    with pytest.raises(InvalidInputError, match=r"masker: .* 3 classes, .* 2"):
        PredictionEmbedding(3, 2)(torch.tensor([[0.5, 0.5]]))
