"""Learning of the small masker without a language model: planted answers come first."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_aml import AMLAttribution, EmbeddingMasker

N_TRAIN, N_HELD_OUT = 256, 64


class Summed(nn.Module):
    """Logits (-s, s) with s a weighted sum over all elements: what has weight 0 is never looked at.

    Args:
        weights: Of the shape of an example, or broadcast to it.
    """

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)

    def forward(self, x: Tensor) -> Tensor:
        s = (x * self.weights).flatten(1).sum(dim=1)
        return torch.stack([-s, s], dim=1)


def planted(seed: int, n: int, n_places: int) -> tuple[Tensor, Tensor, torch.Generator]:
    """Places that decide (N,), and their signs: which class they decide for."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.randint(0, n_places, (n,), generator=generator)
    signs = torch.randint(0, 2, (n,), generator=generator) * 2.0 - 1.0
    return places, signs, generator


def table(seed: int, n: int) -> tuple[Tensor, Tensor]:
    """Rows (N, 5) in which one of the first three values decides; the last two are loud noise."""
    places, signs, generator = planted(seed, n, 3)
    x = 0.1 * torch.randn(n, 5, generator=generator)
    x[:, 3:] = 3 * torch.randn(n, 2, generator=generator)
    x[torch.arange(n), places] = 3 * signs
    return x, places


def images(seed: int, n: int) -> tuple[Tensor, Tensor]:
    """Images (N, 1, 6, 6) of which one quarter is bright or dark, which decides."""
    places, signs, generator = planted(seed, n, 4)
    x = 0.1 * torch.randn(n, 1, 6, 6, generator=generator)
    for i in range(n):
        row, column = divmod(int(places[i]), 2)
        x[i, 0, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3] += signs[i]
    return x, places


def series(seed: int, n: int) -> tuple[Tensor, Tensor]:
    """Series (N, 7, 3) with a spike in one channel; another one is loud noise."""
    places, signs, generator = planted(seed, n, 7)
    x = 0.1 * torch.randn(n, 7, 3, generator=generator)
    x[:, :, 2] = 3 * torch.randn(n, 7, generator=generator)
    x[torch.arange(n), places, 0] = 3 * signs
    return x, places


def fitted_scores(
    model: nn.Module, train: Tensor, held_out: Tensor, masker: nn.Module | None, **call: Any
) -> Tensor:
    attribution = AMLAttribution(model, masker=masker)
    batches = [{"inputs": x, **call} for x in train.split(64)]
    attribution.fit(batches, epochs=12, learning_rate=2e-2)
    assert attribution.history_[-1].train["total"] < attribution.history_[0].train["total"]
    return attribution.attribute(held_out, **call)


@pytest.mark.parametrize("own", [True, False])
def test_of_a_table_the_deciding_column_comes_first(own: bool) -> None:
    model = Summed(torch.tensor([2.0, 2.0, 2.0, 0.0, 0.0]))
    masker = EmbeddingMasker(feature_shapes=[(5,)], n_classes=2, hidden_size=32) if own else None
    held_out, places = table(1, N_HELD_OUT)
    scores = fitted_scores(model, table(0, N_TRAIN)[0], held_out, masker)
    assert (scores.argmax(dim=1) == places).float().mean() >= 0.95


def test_of_an_image_the_deciding_group_of_pixels_comes_first() -> None:
    model = Summed(torch.ones(1, 6, 6))
    quarters = torch.tensor([[0, 1], [2, 3]]).repeat_interleave(3, 0).repeat_interleave(3, 1)
    held_out, places = images(1, N_HELD_OUT)
    scores = fitted_scores(
        model, images(0, N_TRAIN)[0], held_out, None, feature_mask=quarters.reshape(1, 1, 6, 6)
    )
    corners = scores[:, 0, ::3, ::3].flatten(1)  # one pixel of each quarter
    assert torch.equal(
        scores[:, 0],
        corners.gather(1, quarters.reshape(1, -1).expand(len(scores), -1)).reshape(-1, 6, 6),
    )
    assert (corners.argmax(dim=1) == places).float().mean() >= 0.95


def test_of_a_plain_networks_series_the_deciding_step_comes_first() -> None:
    weights = torch.tensor([2.0, 0.0, 0.0]).expand(7, 3).clone()
    model = nn.Sequential(nn.Identity(), Summed(weights))
    held_out, places = series(1, N_HELD_OUT)
    scores = fitted_scores(model, series(0, N_TRAIN)[0], held_out, None)
    # A step's score is spread evenly over its channels.
    assert torch.equal(scores[:, :, 0], scores[:, :, 2])
    assert (scores.sum(dim=2).argmax(dim=1) == places).float().mean() >= 0.95
