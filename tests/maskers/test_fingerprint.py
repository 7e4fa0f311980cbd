"""Fingerprints of models that are not of transformers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from captum_aml import AMLAttribution, EmbeddingMasker
from tests._helpers.models import PlantedClassifier

IDS = torch.tensor([[3, 1, 4], [5, 9, 2]])


def masker() -> EmbeddingMasker:
    torch.manual_seed(0)
    return EmbeddingMasker(feature_shapes=[(3, 8)], n_classes=3)


class PlainForSequenceClassification(PlantedClassifier):
    """Named as models of transformers are, and without a configuration."""


class OtherForSequenceClassification(PlantedClassifier):
    """With a configuration that means something else."""

    config = "large"


@pytest.mark.parametrize("kind", [PlainForSequenceClassification, OtherForSequenceClassification])
def test_a_plain_module_may_be_named_as_models_of_transformers_are(
    kind: type[PlantedClassifier],
) -> None:
    attribution = AMLAttribution(kind(), masker=masker())
    attribution.fit([IDS], epochs=1)
    scores = attribution.attribute(IDS)
    assert isinstance(scores, Tensor)
    assert scores.shape == IDS.shape


def test_a_model_with_a_part_called_module_is_fitted() -> None:
    model = PlantedClassifier()
    model.module = nn.Linear(2, 2)
    attribution = AMLAttribution(model, masker=masker())
    attribution.fit([IDS], epochs=1)
    assert attribution.attribute(IDS).shape == IDS.shape
