"""The part of the model that a reloaded SharedMasker reads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from captum_aml import AMLAttribution, SharedMasker
from captum_aml.exceptions import CheckpointError, InvalidInputError

C = 3


class Mean(nn.Module):
    def forward(self, states: Tensor) -> Tensor:
        return states.mean(1)[:, :C]


def nested() -> nn.Sequential:
    """Two modules of one class, and layers of the same names in both."""
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))
    return nn.Sequential(nn.Linear(8, 8), inner, Mean())


def masker_of(model: nn.Module, layers: list[str]) -> SharedMasker:
    return SharedMasker.from_model(model, layers=layers, state_size=8, n_classes=C, width=8)


@pytest.mark.parametrize("path", ["", "1"])
def test_it_reads_the_part_that_it_was_made_from(path: str, tmp_path: Path) -> None:
    model, x = nested(), torch.randn(4, 5, 8)
    part = model.get_submodule(path)
    attribution = AMLAttribution(model, masker=masker_of(part, ["0", "1"]))
    attribution.fit([x], epochs=1).save_pretrained(tmp_path)
    loaded = AMLAttribution.from_pretrained(tmp_path, model)
    assert loaded.masker_.explained_layers.model is part
    assert torch.equal(loaded.attribute(x), attribution.attribute(x))
    # Within another module the path is another, and nothing tells which of both is meant.
    with pytest.raises(CheckpointError, match=r"^masker: .*several.*SharedMasker.from_model"):
        AMLAttribution.from_pretrained(tmp_path, nn.Sequential(nn.Identity(), nn.Identity(), model))


def test_without_a_path_the_only_part_with_all_layers_is_read() -> None:
    model = nested()
    config = masker_of(model[1], ["0", "2"]).config
    with pytest.raises(InvalidInputError, match="several"):
        SharedMasker.from_config(config, model)
    del model[2]  # now the outer one has no such layer
    assert SharedMasker.from_config(config, model).explained_layers.model is model[1]
