"""Conditions that hold before a fitted masker proposes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_aml import AMLAttribution
from captum_aml.exceptions import CheckpointError
from captum_aml.maskers import MaskerInputs
from tests._helpers.models import PlantedClassifier, planted_texts


class NotesMoves(nn.Module):
    """A masker that notes where it was moved to before each proposal."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.moved: list[Any] = []
        self.moved_before: list[bool] = []

    def to(self, *args: Any, **kwargs: Any) -> Any:
        self.moved.append(args[0])
        return super().to(*args, **kwargs)

    def forward(self, inputs: MaskerInputs) -> Tensor:
        self.moved_before.append(bool(self.moved))
        return inputs.features[0].sum(-1) * self.scale


@pytest.mark.parametrize("call", ["attribute", "evaluate"])
@pytest.mark.parametrize("given", [True, False], ids=["given", "fitted"])
def test_the_masker_follows_the_data(call: str, given: bool) -> None:
    ids, _ = planted_texts(4, 5, seed=0)
    masker = NotesMoves()
    attribution = AMLAttribution(PlantedClassifier(), masker=masker)
    if not given:
        masker = attribution.fit([ids], epochs=1).masker_
        masker.moved.clear()
        masker.moved_before.clear()
    getattr(attribution, call)(ids)
    assert masker.moved == [torch.device("cpu")]
    assert masker.moved_before == [True]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("given", [True, False], ids=["given", "fitted"])
def test_the_masker_follows_the_data_to_another_device(given: bool) -> None:
    ids, _ = planted_texts(4, 5, seed=0)
    model = PlantedClassifier()
    attribution = AMLAttribution(model).fit([ids], epochs=1)
    expected = attribution.evaluate(ids).total
    if given:
        attribution = AMLAttribution(model, masker=attribution.masker_)
    model.to("cuda")
    total = attribution.evaluate(ids.cuda()).total
    torch.testing.assert_close(total.cpu(), expected, rtol=1e-4, atol=1e-4)
    assert attribution.attribute(ids.cuda()).is_cuda


@pytest.mark.parametrize("call", ["attribute", "evaluate"])
def test_a_model_of_other_sizes_is_refused(call: str) -> None:
    ids, _ = planted_texts(4, 5, seed=0)
    attribution = AMLAttribution(PlantedClassifier()).fit([ids], epochs=1)
    attribution.forward_func = PlantedClassifier(31)
    with pytest.raises(CheckpointError, match="vocab_size"):
        getattr(attribution, call)(ids)
