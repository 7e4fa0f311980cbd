"""``tune="masker"``: what the attribution classes make of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from captum_aml import EmbeddingMasker
from captum_aml.exceptions import InvalidInputError, NotFittedError
from tests._helpers.cases import CASES, Case
from tests._helpers.checks import BATCH_TOLERANCE, METHODS, Method, assert_same, differs, flat

RATE = 0.01


@pytest.fixture(params=METHODS.values(), ids=METHODS.keys())
def method(request: pytest.FixtureRequest) -> Method:
    return request.param


@pytest.fixture
def text() -> Case:
    return CASES["text"].build()


def fitted(method: Method, case: Case, **settings: Any) -> Any:
    attribution = method(case, **{"tune": "masker", "learning_rate": RATE, **settings})
    return attribution.fit([{"inputs": case.inputs, **case.call}], epochs=1)


def test_tuning_starts_from_the_proposal_and_keeps_the_best(method: Method, text: Case) -> None:
    attribution = fitted(method, text)
    proposed = attribution.evaluate(text.inputs, **text.call)
    default = attribution.attribute(text.inputs, **text.call)
    assert attribution.best_step_ is None
    before = {k: v.clone() for k, v in attribution.masker_.state_dict().items()}
    tuned = attribution.attribute(text.inputs, n_steps=8, **text.call)
    assert differs([tuned], [default])
    assert bool((attribution.last_terms_.total < proposed.total - 0.01).all())
    assert attribution.best_step_.shape == (text.n_examples,)
    for name, value in attribution.masker_.state_dict().items():
        assert torch.equal(value, before[name])
    # Whatever was tuned before, a call gives the same again.
    assert_same(attribution.attribute(text.inputs, n_steps=8, **text.call), tuned)
    assert_same(attribution.attribute(text.inputs, **text.call), default)
    # It is another form than tuning the mask.
    attribution.tune = "mask"
    assert differs([attribution.attribute(text.inputs, n_steps=8, **text.call)], [tuned])


@pytest.mark.parametrize("name", ["text", "linear_model", "images"])
def test_chunks_are_the_whole(method: Method, name: str) -> None:
    case = CASES[name].build()
    attribution = fitted(method, case)
    whole = attribution.attribute(case.inputs, n_steps=3, **case.call)
    steps = attribution.best_step_
    for size in (1, 2):
        parts = attribution.attribute(case.inputs, n_steps=3, internal_batch_size=size, **case.call)
        for a, b in zip(flat(whole), flat(parts), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=BATCH_TOLERANCE)
        assert torch.equal(steps, attribution.best_step_)


def test_the_default_learning_rates_are_of_their_own(method: Method, text: Case) -> None:
    attribution = fitted(method, text, learning_rate=None)
    of_masker = attribution.tuning_learning_rate
    attribution.tune = "mask"
    assert of_masker < attribution.tuning_learning_rate / 100
    attribution.learning_rate = 0.7
    assert attribution.tuning_learning_rate == 0.7


def test_where_nothing_is_maskable_nothing_is_tuned(method: Method, text: Case) -> None:
    attribution = fitted(method, text)
    scores = attribution.attribute(
        text.inputs, n_steps=2, **{**text.call, "baselines": text.inputs}
    )
    assert all(bool((s == 0).all()) for s in flat(scores))
    assert attribution.best_step_.tolist() == [0] * text.n_examples


def test_it_needs_a_fitted_masker(method: Method, text: Case) -> None:
    for masker in (None, EmbeddingMasker(feature_shapes=[(7, 5)], n_classes=3)):
        attribution = method(text, tune="masker", masker=masker)
        for n_steps in (None, 5):
            with pytest.raises(
                NotFittedError, match=r"tune='masker' needs a fitted masker; call fit .*tune='mask'"
            ):
                attribution.attribute(text.inputs, n_steps=n_steps, **text.call)


@pytest.mark.parametrize("tune", ["masks", True])
def test_other_forms_are_refused(method: Method, text: Case, tune: Any) -> None:
    with pytest.raises(
        InvalidInputError, match=r"^tune: expected one of \('mask', 'masker', None\), got"
    ):
        method(text, tune=tune)
