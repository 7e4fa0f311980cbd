"""The contract that all methods share, by name."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import Tensor

from captum_aml import methods
from captum_aml.exceptions import InvalidInputError
from tests._helpers.methods import (
    IDS,
    LOGISTIC,
    MASK,
    REFERENCE,
    WithModel,
    all_names,
    few,
    named,
    run,
    subject,
)
from tests._helpers.text_models import BagOfTokens, bert_classifier


def tolerance(name: str) -> float:
    # The optimizer of a mask divides by the size of gradients, which lifts rounding errors.
    return 1e-4 if methods.spec(name).family == "learned" else 1e-6


@pytest.mark.parametrize("name", all_names())
class TestContract:
    def test_special_tokens_and_padding_score_zero(self, name: str) -> None:
        scores = run(name, subject(name), n_steps=few(name))
        assert scores.shape == IDS.shape
        assert scores.dtype == torch.float32
        assert torch.all(scores[IDS == REFERENCE] == 0)

    def test_a_text_scores_the_same_alone_as_in_a_batch(self, name: str) -> None:
        together = run(name, subject(name), n_steps=few(name))
        alone = run(
            name,
            subject(name),
            n_steps=few(name),
            ids=IDS[:1, :4],
            reference=REFERENCE[:1, :4],
            mask=MASK[:1, :4],
        )
        assert torch.allclose(together[:1, :4], alone, atol=tolerance(name))

    def test_the_batch_size_changes_nothing(self, name: str) -> None:
        assert torch.allclose(
            run(name, subject(name), n_steps=few(name), batch_size=2),
            run(name, subject(name), n_steps=few(name), batch_size=64),
            atol=1e-6,
        )

    def test_no_target_means_the_predicted_class(self, name: str) -> None:
        model = BagOfTokens([9.0, -5.0, 0.0, 2.0, -1.0, -1.5, 0.5], offset=4.8, link="logistic")
        predicted = model(IDS, MASK).argmax(dim=-1)
        assert predicted.tolist() == [0, 1]
        about = (model, model.embedding)
        if methods.spec(name).family == "attention":
            about = subject(name)
            predicted = about[0](IDS, MASK).argmax(dim=-1)
        assert torch.equal(
            run(name, about, target=None, n_steps=few(name)),
            run(name, about, target=predicted, n_steps=few(name)),
        )

    def test_a_seed_gives_the_same_again_and_global_state_stays(self, name: str) -> None:
        first = run(name, subject(name), n_steps=few(name), seed=3)
        torch.rand(5), np.random.rand(5), random.random()
        before = torch.get_rng_state(), np.random.get_state(), random.getstate()
        assert torch.equal(run(name, subject(name), n_steps=few(name), seed=3), first)
        assert torch.equal(torch.get_rng_state(), before[0])
        assert np.array_equal(np.random.get_state()[1], before[1][1])
        assert np.random.get_state()[2] == before[1][2]
        assert random.getstate() == before[2]

    def test_another_seed_gives_other_scores_where_it_says_so(self, name: str) -> None:
        n_steps, about, entry = few(name), subject(name), methods.spec(name)
        if entry.family == "learned":  # any masks give the weights of an additive model
            model = bert_classifier(40)
            about = WithModel(model), model.get_input_embeddings()
        first = run(name, about, seed=0, n_steps=n_steps)
        second = run(name, about, seed=1, n_steps=n_steps)
        # Here there is no masker: those that take one draw masks as well.
        assert torch.equal(first, second) != (entry.stochastic or entry.takes_masker)

    def test_nothing_to_explain_scores_zero(self, name: str) -> None:
        scores = run(name, subject(name), n_steps=few(name), reference=IDS)
        assert torch.all(scores == 0)

    def test_scores_are_finite_and_keep_to_their_range(self, name: str) -> None:
        scores = run(name, subject(name), n_steps=few(name))
        assert torch.isfinite(scores).all()
        assert scores.abs().max() > 1e-4, "the scores should not all vanish"
        entry = methods.spec(name)
        if not entry.signed:
            assert torch.all(scores >= 0)
            assert entry.relative or torch.all(scores <= 1)

    def test_nothing_is_printed(self, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        run(name, subject(name), n_steps=few(name))
        assert capsys.readouterr() == ("", "")

    def test_works_without_gradients_and_in_inference_mode(self, name: str) -> None:
        expected = run(name, subject(name), n_steps=few(name))
        with torch.no_grad():
            assert torch.allclose(
                run(name, subject(name), n_steps=few(name)), expected, atol=tolerance(name)
            )
        about = subject(name)
        with torch.inference_mode():
            scores = run(
                name,
                about,
                n_steps=few(name),
                ids=IDS.clone(),
                reference=REFERENCE.clone(),
                mask=MASK.clone(),
            )
        assert torch.allclose(scores, expected, atol=tolerance(name))

    def test_a_transformer_keeps_its_gradients_and_hooks(self, name: str) -> None:
        model = bert_classifier(40)
        model.train()
        flags = [p.requires_grad for p in model.parameters()]
        implementation = model.config._attn_implementation
        logits = WithModel(model)
        layer = model.get_input_embeddings()
        methods.create(name, logits, layer, n_steps=few(name))(
            IDS, REFERENCE, additional_forward_args=(MASK,)
        )
        assert model.training
        assert [p.requires_grad for p in model.parameters()] == flags
        assert all(p.grad is None for p in model.parameters())
        assert model.config._attn_implementation == implementation == "sdpa"
        assert not layer._forward_hooks
        assert not layer._forward_pre_hooks

    def test_padding_changes_nothing_for_a_transformer(self, name: str) -> None:
        model = bert_classifier(40)
        logits = WithModel(model)
        method = methods.create(name, logits, model.get_input_embeddings(), n_steps=few(name))
        together = method(IDS, REFERENCE, target=1, additional_forward_args=(MASK,))
        alone = method(
            IDS[:1, :4], REFERENCE[:1, :4], target=1, additional_forward_args=(MASK[:1, :4],)
        )
        assert torch.allclose(together[:1, :4], alone, atol=max(1e-5, tolerance(name)))

    def test_settings_can_be_recorded(self, name: str) -> None:
        method = methods.create(name, *subject(name), seed=5)
        assert all(v is None or isinstance(v, str | int | float) for v in method.settings.values())
        if methods.spec(name).steps is not None:
            assert any(key in method.settings for key in ("n_steps", "n_samples"))
        if methods.spec(name).stochastic:
            assert method.settings["seed"] == 5

    def test_a_negative_class_is_refused(self, name: str) -> None:
        with pytest.raises(InvalidInputError, match=r"target: expected .*got -1|-1"):
            run(name, subject(name), target=-1, n_steps=few(name))


@pytest.mark.parametrize(
    "name",
    named(
        "integrated-gradients",
        "gradient-shap",
        "deep-lift",
        "occlusion",
        "kernel-shap",
        "shapley-sampling",
        "shap",
    ),
)
def test_one_token_gets_the_whole_difference(name: str) -> None:
    ids, reference = torch.tensor([[1, 3]]), torch.tensor([[1, 2]])
    scores = run(name, LOGISTIC, ids=ids, reference=reference, mask=torch.ones(1, 2), n_steps=None)
    expected = LOGISTIC.probability([-5.0, 0.3]) - LOGISTIC.probability([-5.0, 0.05])
    # The slope hardly changes between the two, so that 50 random points give the mean.
    assert scores[0, 1].item() == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize("name", [n for n in all_names() if n.values[0] != "random"])
@pytest.mark.parametrize("target", [2, torch.tensor([0, 5])])
def test_a_class_that_is_not_there_is_refused(name: str, target: Tensor | int) -> None:
    if methods.spec(name).family == "learned":
        pytest.skip("its errors are tested with the attributions")
    with pytest.raises(InvalidInputError, match=r"target: expected classes from 0.* got (5|2)"):
        run(name, subject(name), target=target, n_steps=few(name))


@pytest.mark.parametrize("name", all_names())
@pytest.mark.parametrize("target", [0, 1])
def test_a_target_for_each_text_is_the_target_for_all(name: str, target: int) -> None:
    both = run(name, subject(name), target=torch.tensor([0, 1]), n_steps=few(name))
    alone = run(name, subject(name), target=target, n_steps=few(name))
    assert torch.allclose(both[target], alone[target], atol=tolerance(name))


def test_the_other_class_gets_the_opposite_scores() -> None:
    for name in ("integrated-gradients", "input-x-gradient", "deep-lift"):
        other = run(name, LOGISTIC, target=0)
        assert torch.allclose(other, -run(name, LOGISTIC), atol=1e-6)
