"""Texts as batches for ``fit``."""

from __future__ import annotations

import pytest

from captum_aml import AMLAttribution
from captum_aml.assets import load_reviews_classifier
from captum_aml.exceptions import InvalidInputError
from captum_aml.text import TextClassifier, fit_batches

TEXTS = ["good", "the plot was slow", "bad", "it was not a good film at all", "fine , really"]


@pytest.fixture(scope="module")
def classifier() -> TextClassifier:
    return TextClassifier(*load_reviews_classifier())


def test_every_text_is_in_one_batch_beside_those_of_its_length(classifier: TextClassifier) -> None:
    batches = fit_batches(classifier, TEXTS, batch_size=2)
    rows = [
        tuple(ids[mask.bool()].tolist())
        for batch in batches
        for ids, mask in zip(batch["inputs"], batch["additional_forward_args"][0], strict=True)
    ]
    own = [tuple(text.model_inputs["input_ids"]) for text in classifier.tokenize(TEXTS)]
    assert sorted(rows) == sorted(own)
    sizes = sorted(batch["inputs"].shape[1] for batch in batches)
    lengths = sorted(len(ids) for ids in own)
    # In pairs by length; of the last pair there is one.
    assert sizes == [lengths[1], lengths[3], lengths[4]]


def test_baselines_are_the_reference(classifier: TextClassifier) -> None:
    for batch in fit_batches(classifier, TEXTS, batch_size=2):
        changed = batch["inputs"] != batch["baselines"]
        assert bool((batch["baselines"][changed] == classifier.baseline.id).all())
        assert not bool(changed[:, 0].any())
        assert bool(changed.any(dim=1).all())


def test_the_seed_decides_the_order_of_batches_alone(classifier: TextClassifier) -> None:
    texts = TEXTS * 8
    first, again, other = (
        [batch["inputs"].tolist() for batch in fit_batches(classifier, texts, seed=s, batch_size=2)]
        for s in (0, 0, 1)
    )
    assert first == again
    assert first != other
    assert sorted(first) == sorted(other)


def test_it_can_be_fitted_with(classifier: TextClassifier) -> None:
    layer = classifier.embedding_layer
    aml = AMLAttribution(classifier, embedding_layer=layer, output="logits")
    aml.fit(fit_batches(classifier, TEXTS, batch_size=2), epochs=1)
    assert aml.history_ is not None
    assert aml.history_[0].n_examples == len(TEXTS)


@pytest.mark.parametrize(("texts", "size"), [([], 2), ("one string", 2), (TEXTS, 0)])
def test_bad_input_is_named(classifier: TextClassifier, texts: list[str], size: int) -> None:
    with pytest.raises(InvalidInputError, match=r"texts|batch_size"):
        fit_batches(classifier, texts, batch_size=size)
