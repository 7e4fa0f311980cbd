"""Integer inputs: numbers where nothing says that they are ids, against Integrated Gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from captum.attr import IntegratedGradients
from torch import Tensor, nn

from captum_aml import AMLAttribution, LAAttribution
from captum_aml.exceptions import InvalidInputError, NoGradientError
from tests._helpers.models import PlantedClassifier

TABLE = torch.tensor([[3, 200, 7], [12, 5, 0]])


class Linear(nn.Module):
    """F(x) = 2 x_0 - x_1 + 0.5 x_2: its contributions are known."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[2.0, -1.0, 0.5]]))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T


@pytest.mark.parametrize("method", [AMLAttribution, LAAttribution])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
@pytest.mark.parametrize("baselines", [None, 1, 0.5, torch.tensor([[1, 2, 3]])])
def test_a_table_of_integers_is_explained_as_by_integrated_gradients(
    method: Any, dtype: torch.dtype, baselines: Any
) -> None:
    table, model = TABLE.to(dtype), Linear()
    scores, delta = method(model).attribute(
        table, baselines, target=0, return_convergence_delta=True
    )
    b = 0 if baselines is None else baselines
    expected = (table.float() - b) * model.weight.detach()
    assert scores.dtype == torch.float32
    # Single precision of sums near 200.
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-3)
    assert delta.abs().max() < 1e-3
    # Captum subtracts a number within the inputs' dtype, where 0 - 1 is 255.
    if not isinstance(baselines, float) and (dtype != torch.uint8 or not isinstance(b, int)):
        reference = IntegratedGradients(model).attribute(table, baselines, target=0)
        torch.testing.assert_close(scores, reference, rtol=0, atol=1e-3)
    again = method(model)
    found = again.compute_convergence_delta(scores, b, table, target=0)
    torch.testing.assert_close(found, delta, rtol=0, atol=1e-4)


def test_an_image_of_bytes_gets_scores_in_its_shape() -> None:
    image = torch.randint(1, 256, (2, 3, 4, 4), dtype=torch.uint8)
    scores = AMLAttribution(lambda x: x.float().mean(dim=(1, 2, 3)) / 255).attribute(image)
    assert scores.shape == image.shape
    torch.testing.assert_close(scores, image / (48 * 255.0), rtol=0, atol=1e-6)


def test_integers_beside_floats_are_both_numbers() -> None:
    x, y = TABLE, torch.rand(2, 2)
    first, second = AMLAttribution(lambda x, y: x.sum(dim=1) - 3 * y.sum(dim=1)).attribute((x, y))
    torch.testing.assert_close(first, x.float(), rtol=0, atol=1e-3)
    torch.testing.assert_close(second, -3 * y, rtol=0, atol=1e-3)


def test_ids_stay_ids_where_the_model_names_its_embeddings() -> None:
    """The second token equals its baseline, so it scores 0 although its id is a number too."""
    model = PlantedClassifier()
    ids = torch.tensor([[1, 5, 2]])
    scores = AMLAttribution(model).attribute(ids, torch.tensor([[0, 5, 0]]), target=1)
    given = AMLAttribution(lambda x: model(x), embedding_layer=model.embedding)
    assert torch.equal(given.attribute(ids, torch.tensor([[0, 5, 0]]), target=1), scores)
    assert scores[0, 1] == 0
    with pytest.raises(InvalidInputError, match="integer ids"):
        AMLAttribution(model).attribute(ids, torch.rand(1, 3))


def test_ids_without_a_known_embedding_layer_are_an_error_never_a_score() -> None:
    model = PlantedClassifier()
    ids = torch.tensor([[1, 5, 2]])
    with pytest.raises(InvalidInputError, match=r"^embedding_layer: .*pass embedding_layer="):
        AMLAttribution(lambda x: model(x)).attribute(ids, target=1)
    with pytest.raises(NoGradientError):
        AMLAttribution(lambda x: model(x.long())).attribute(ids, target=1)
