"""The mean of metrics over validation texts, and what fitting takes the mean of."""

from __future__ import annotations

import pytest
import torch

from captum_aml import AMLAttribution
from captum_aml.exceptions import InvalidInputError
from captum_aml.reviews import reviews_masker_path
from captum_aml.text import LabelledText
from captum_aml.text.validation import validation_batches
from captum_aml.training import MaskerScore
from tests._helpers.benchmark_runs import reviews, reviews_classifier

METRICS = ["aopc-comprehensiveness", "auprc"]


def attribution() -> AMLAttribution:
    classifier = reviews_classifier()
    return AMLAttribution.from_pretrained(
        reviews_masker_path(), classifier, embedding_layer=classifier.embedding_layer
    )


def without_rationale(texts: list[LabelledText]) -> list[LabelledText]:
    return [LabelledText(item.text, item.label, None) for item in texts]


def scored(texts: list[LabelledText], metrics: list[str], *, batch_size: int = 32) -> MaskerScore:
    found = validation_batches(reviews_classifier(), texts, batch_size=batch_size)
    return MaskerScore(metrics, *found)


def test_all_measures_are_averaged_over_the_texts_that_have_a_value_of_each() -> None:
    texts, fitted = reviews(6), attribution()
    mixed = scored([*texts[:4], *without_rationale(texts[4:])], METRICS, batch_size=2)
    means = mixed(fitted)
    complete = scored(texts[:4], METRICS, batch_size=2)(fitted)
    assert means == pytest.approx(complete, abs=1e-6)
    values = torch.cat([mixed.metric.function(fitted, batch) for batch in mixed.batches])
    assert values.isnan().sum() == 2
    assert values.nanmean().item() == pytest.approx(sum(means.values()), abs=1e-6)
    # The two texts that are left out would change the mean.
    alone = scored(texts, METRICS[:1], batch_size=2)(fitted)
    assert abs(alone[METRICS[0]] - means[METRICS[0]]) > 1e-4


def test_a_measure_without_any_value_is_named() -> None:
    score = scored(without_rationale(reviews(2)), METRICS)
    with pytest.raises(InvalidInputError, match=r"^metrics: .*'auprc' has none for any of them"):
        score(attribution())
