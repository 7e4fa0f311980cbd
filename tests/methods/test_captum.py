"""Captum's gradient and perturbation methods against closed forms and computations by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests._helpers.methods import (
    IDS,
    LINEAR,
    LOGISTIC,
    MASK,
    REFERENCE,
    WithModel,
    at_tokens,
    named,
    run,
    token_weights,
)
from tests._helpers.text_models import BagOfTokens, bert_classifier, shapley_values


@pytest.mark.parametrize(
    "name",
    named(
        "integrated-gradients",
        "gradient-shap",
        "occlusion",
        "kernel-shap",
        "shapley-sampling",
        "shap",
    ),
)
def test_additive_probability_is_split_into_its_terms(name: str) -> None:
    # The probability is a sum over tokens, so each token's share is its weight less that of the
    # reference token, for every method that is complete or removes one token at a time.
    scores = run(name, LINEAR)
    for row in range(2):
        expected = [weight - 0.05 for weight in token_weights(row)]
        assert at_tokens(scores, row) == pytest.approx(expected, abs=2e-4)


def test_the_other_class_gets_the_opposite_scores() -> None:
    for name in ("integrated-gradients", "occlusion"):
        assert torch.allclose(run(name, LINEAR, target=0), -run(name, LINEAR), atol=1e-5)


def test_input_x_gradient_of_an_additive_probability_is_the_embedding() -> None:
    # d probability / d embedding is 1, so gradient times embedding is the token's weight.
    scores = run("input-x-gradient", LINEAR)
    for row in range(2):
        assert at_tokens(scores, row) == pytest.approx(token_weights(row), abs=1e-5)


def test_integrated_gradients_of_a_logistic_probability() -> None:
    # Along a straight path of a logistic sum S, IG gives each token
    # (weight - reference) / (S(text) - S(reference)) of the difference in probability.
    scores = run("integrated-gradients", LOGISTIC, n_steps=200)
    for row in range(2):
        weights = token_weights(row)
        # Row 0 holds the special token alone; row 1 as well: -5 added to the offset.
        rest = [-5.0]
        gap = math.fsum(w - 0.05 for w in weights)
        difference = LOGISTIC.probability(rest + weights) - LOGISTIC.probability(
            rest + [0.05] * len(weights)
        )
        expected = [(w - 0.05) / gap * difference for w in weights]
        assert at_tokens(scores, row) == pytest.approx(expected, abs=1e-5)


def test_gradient_shap_converges_to_integrated_gradients_of_its_own_reference() -> None:
    # With one reference for each text, the expectation over random points is the path integral.
    # A reference drawn from the other text would shift the scores by far more.
    estimate = run("gradient-shap", LOGISTIC, n_steps=4000)
    assert torch.allclose(estimate, run("integrated-gradients", LOGISTIC, n_steps=200), atol=2e-4)


def test_gradient_shap_keeps_each_texts_own_reference() -> None:
    ids = torch.tensor([[1, 3], [1, 3]])
    reference = torch.tensor([[1, 2], [1, 4]])
    scores = run("gradient-shap", LINEAR, ids=ids, reference=reference, mask=torch.ones(2, 2))
    assert scores[:, 1].tolist() == pytest.approx([0.3 - 0.05, 0.3 + 0.1], abs=1e-5)


def test_occlusion_of_a_logistic_probability() -> None:
    scores = run("occlusion", LOGISTIC)
    for row in range(2):
        weights = token_weights(row)
        full = LOGISTIC.probability([-5.0, *weights])
        expected = [
            full - LOGISTIC.probability([-5.0, *weights[:i], 0.05, *weights[i + 1 :]])
            for i in range(len(weights))
        ]
        assert at_tokens(scores, row) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "n_steps"),
    # A token's marginal contributions spread by about 0.1 here, so that the mean of 600 is within
    # 0.02 of the exact value with room to spare.
    [("shapley-sampling", 600), ("kernel-shap", 1500)],
)
def test_shapley_values_of_a_logistic_probability(name: str, n_steps: int) -> None:
    model = BagOfTokens([9.0, -5.0, 0.0, 2.0, -1.0, 1.5, 0.5], offset=4.8, link="logistic")
    scores = run(name, model, n_steps=n_steps)
    for row in range(2):
        ids = [i for i, r in zip(IDS[row].tolist(), REFERENCE[row].tolist(), strict=True) if i != r]
        values = [-5.0, *(float(model.embedding.weight[i, 0]) for i in ids)]
        references = [-5.0] + [0.0] * len(ids)
        exact = shapley_values(model, values, references)[1:]
        assert at_tokens(scores, row) == pytest.approx(exact, abs=0.02)
        assert sum(at_tokens(scores, row)) == pytest.approx(sum(exact), abs=1e-4)


def test_lime_is_the_weighted_ridge_regression_it_says_it_is() -> None:
    # The kept tokens are a fair coin each. With many samples the weighted regression of an
    # additive probability is exact but for the ridge penalty, which shrinks towards zero.
    scores = run("lime", LINEAR, n_steps=3000)
    for row in range(2):
        expected = [weight - 0.05 for weight in token_weights(row)]
        assert at_tokens(scores, row) == pytest.approx(expected, rel=0.02, abs=1e-4)
        assert all(
            abs(s) <= abs(e) + 1e-6 for s, e in zip(at_tokens(scores, row), expected, strict=True)
        )


def test_saliency_of_a_logistic_probability_is_its_slope() -> None:
    # d probability / d embedding is p (1 - p) in the first channel and 0 in the second.
    scores = run("saliency", LOGISTIC)
    for row in range(2):
        p = LOGISTIC.probability([-5.0, *token_weights(row)])
        expected = [p * (1 - p)] * len(token_weights(row))
        assert at_tokens(scores, row) == pytest.approx(expected, abs=1e-6)


def mean_gradient(copies: Tensor, mask: Tensor) -> Tensor:
    """The mean gradient (L, D) of class 1's probability at the word embeddings ``copies``."""
    model = bert_classifier(40)
    copies = copies.detach().requires_grad_()
    logits = model(inputs_embeds=copies, attention_mask=mask.expand(len(copies), -1)).logits
    (gradient,) = torch.autograd.grad(logits.softmax(dim=-1)[:, 1].sum(), copies)
    return gradient.mean(dim=0)


@pytest.mark.parametrize(("name", "n_copies"), [("saliency", 1), ("smooth-grad", 30)])
def test_norms_of_gradients_of_a_transformer(name: str, n_copies: int) -> None:
    # By hand, one text at a time, with the embeddings given to the model as such.
    model = bert_classifier(40)
    layer = model.get_input_embeddings()
    steps = n_copies if name == "smooth-grad" else None
    scores = run(name, (WithModel(model), layer), n_steps=steps, seed=7)
    for row in range(2):
        words = IDS[row] != REFERENCE[row]
        copies = layer(IDS[row]).detach().repeat(n_copies, 1, 1)
        if name == "smooth-grad":
            chosen = copies[0, words]
            spread = 0.15 * chosen.std(correction=0)
            generator = torch.Generator().manual_seed(7)
            # 25 copies pass the model together.
            for part in (copies[:25], copies[25:]):
                noise = torch.zeros(len(part), *chosen.shape)
                noise.normal_(generator=generator)
                part[:, words] += spread * noise
        expected = mean_gradient(copies, MASK[row : row + 1]).norm(dim=-1) * words
        assert torch.allclose(scores[row], expected, rtol=1e-4, atol=1e-6)
        assert scores[row].max() > 0.01
