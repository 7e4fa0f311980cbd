"""Every method against closed forms, and the contract that all of them share."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from captum_aml import AMLAttribution, LAAttribution, methods
from captum_aml.exceptions import CheckpointError, InvalidInputError
from tests._helpers.text_models import BagOfTokens, bert_classifier, shapley_values

# Ids: 0 padding, 1 a special token, 2 the reference token, 3 to 6 words.
WEIGHTS = [9.0, -5.0, 0.05, 0.3, -0.1, 0.15, 0.0]
LINEAR = BagOfTokens(WEIGHTS, offset=5.1, link="linear")
LOGISTIC = BagOfTokens(WEIGHTS, offset=4.8, link="logistic")
IDS = torch.tensor([[1, 3, 4, 5, 0, 0], [1, 4, 3, 3, 6, 5]])
REFERENCE = torch.tensor([[1, 2, 2, 2, 0, 0], [1, 2, 2, 2, 2, 2]])
MASK = (IDS != 0).long()

CAPTUM_METHODS = [
    "ig",
    "gradient-shap",
    "input-x-gradient",
    "occlusion",
    "lime",
    "kernel-shap",
    "shapley-sampling",
]


def run(
    name: str,
    model: BagOfTokens,
    *,
    ids: Tensor = IDS,
    reference: Tensor = REFERENCE,
    mask: Tensor = MASK,
    target: Tensor | int | None = 1,
    n_steps: int | None = None,
    seed: int = 0,
    batch_size: int = 32,
) -> Tensor:
    method = methods.create(
        name, model, model.embedding, n_steps=n_steps, seed=seed, batch_size=batch_size
    )
    return method(ids, reference, target=target, additional_forward_args=(mask,))


def token_weights(row: int) -> list[float]:
    return [
        WEIGHTS[i]
        for i, r in zip(IDS[row].tolist(), REFERENCE[row].tolist(), strict=True)
        if i != r
    ]


def at_tokens(scores: Tensor, row: int) -> list[float]:
    return scores[row][IDS[row] != REFERENCE[row]].tolist()


@pytest.mark.parametrize(
    "name", ["ig", "gradient-shap", "occlusion", "kernel-shap", "shapley-sampling"]
)
def test_additive_probability_is_split_into_its_terms(name: str) -> None:
    # The probability is a sum over tokens, so each token's share is its weight less that of the
    # reference token, for every method that is complete or removes one token at a time.
    scores = run(name, LINEAR)
    for row in range(2):
        expected = [weight - 0.05 for weight in token_weights(row)]
        assert at_tokens(scores, row) == pytest.approx(expected, abs=2e-4)


def test_the_other_class_gets_the_opposite_scores() -> None:
    for name in ("ig", "occlusion"):
        assert torch.allclose(run(name, LINEAR, target=0), -run(name, LINEAR), atol=1e-5)


def test_input_x_gradient_of_an_additive_probability_is_the_embedding() -> None:
    # d probability / d embedding is 1, so gradient times embedding is the token's weight.
    scores = run("input-x-gradient", LINEAR)
    for row in range(2):
        assert at_tokens(scores, row) == pytest.approx(token_weights(row), abs=1e-5)


def test_integrated_gradients_of_a_logistic_probability() -> None:
    # Along a straight path of a logistic sum S, IG gives each token
    # (weight - reference) / (S(text) - S(reference)) of the difference in probability.
    scores = run("ig", LOGISTIC, n_steps=200)
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
    assert torch.allclose(estimate, run("ig", LOGISTIC, n_steps=200), atol=2e-4)


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


@pytest.mark.parametrize("name", CAPTUM_METHODS)
class TestContract:
    def test_special_tokens_and_padding_score_zero(self, name: str) -> None:
        scores = run(name, LOGISTIC, n_steps=_few(name))
        assert scores.shape == IDS.shape
        assert scores.dtype == torch.float32
        assert torch.all(scores[IDS == REFERENCE] == 0)

    def test_a_text_scores_the_same_alone_as_in_a_batch(self, name: str) -> None:
        together = run(name, LOGISTIC, n_steps=_few(name))
        alone = run(
            name,
            LOGISTIC,
            n_steps=_few(name),
            ids=IDS[:1, :4],
            reference=REFERENCE[:1, :4],
            mask=MASK[:1, :4],
        )
        assert torch.allclose(together[:1, :4], alone, atol=1e-6)

    def test_the_batch_size_changes_nothing(self, name: str) -> None:
        assert torch.allclose(
            run(name, LOGISTIC, n_steps=_few(name), batch_size=2),
            run(name, LOGISTIC, n_steps=_few(name), batch_size=64),
            atol=1e-6,
        )

    def test_no_target_means_the_predicted_class(self, name: str) -> None:
        model = BagOfTokens([9.0, -5.0, 0.0, 2.0, -1.0, -1.5, 0.5], offset=4.8, link="logistic")
        predicted = model(IDS, MASK).argmax(dim=-1)
        assert predicted.tolist() == [0, 1]
        assert torch.equal(
            run(name, model, target=None, n_steps=_few(name)),
            run(name, model, target=predicted, n_steps=_few(name)),
        )

    def test_a_seed_gives_the_same_again_and_global_state_stays(self, name: str) -> None:
        first = run(name, LOGISTIC, n_steps=_few(name), seed=3)
        torch.rand(5), np.random.rand(5), random.random()
        before = torch.get_rng_state(), np.random.get_state(), random.getstate()
        assert torch.equal(run(name, LOGISTIC, n_steps=_few(name), seed=3), first)
        assert torch.equal(torch.get_rng_state(), before[0])
        assert np.array_equal(np.random.get_state()[1], before[1][1])
        assert np.random.get_state()[2] == before[1][2]
        assert random.getstate() == before[2]

    def test_another_seed_gives_other_samples(self, name: str) -> None:
        if name in ("ig", "input-x-gradient", "occlusion"):
            pytest.skip("draws nothing at random")
        assert not torch.equal(
            run(name, LOGISTIC, seed=0, n_steps=9), run(name, LOGISTIC, seed=1, n_steps=9)
        )

    def test_nothing_to_explain_scores_zero(self, name: str) -> None:
        scores = run(name, LOGISTIC, n_steps=_few(name), reference=IDS)
        assert torch.all(scores == 0)

    def test_one_token_gets_the_whole_difference(self, name: str) -> None:
        if name in ("input-x-gradient", "lime"):
            pytest.skip("not a complete method")
        ids, reference = torch.tensor([[1, 3]]), torch.tensor([[1, 2]])
        scores = run(name, LINEAR, ids=ids, reference=reference, mask=torch.ones(1, 2))
        assert scores[0, 1].item() == pytest.approx(0.25, abs=1e-4)

    def test_works_without_gradients_and_in_inference_mode(self, name: str) -> None:
        expected = run(name, LOGISTIC, n_steps=_few(name))
        with torch.no_grad():
            assert torch.allclose(run(name, LOGISTIC, n_steps=_few(name)), expected, atol=1e-6)
        with torch.inference_mode():
            scores = run(
                name,
                LOGISTIC,
                n_steps=_few(name),
                ids=IDS.clone(),
                reference=REFERENCE.clone(),
                mask=MASK.clone(),
            )
        assert torch.allclose(scores, expected, atol=1e-6)

    def test_a_transformer_keeps_its_gradients_and_hooks(self, name: str) -> None:
        model = bert_classifier(40)
        model.train()
        flags = [p.requires_grad for p in model.parameters()]

        def logits(ids: Tensor, mask: Tensor) -> Tensor:
            return model(input_ids=ids, attention_mask=mask).logits

        layer = model.get_input_embeddings()
        methods.create(name, logits, layer, n_steps=_few(name))(
            IDS, REFERENCE, additional_forward_args=(MASK,)
        )
        assert model.training
        assert [p.requires_grad for p in model.parameters()] == flags
        assert all(p.grad is None for p in model.parameters())
        assert not layer._forward_hooks
        assert not layer._forward_pre_hooks

    def test_padding_changes_nothing_for_a_transformer(self, name: str) -> None:
        model = bert_classifier(40)

        def logits(ids: Tensor, mask: Tensor) -> Tensor:
            return model(input_ids=ids, attention_mask=mask).logits

        method = methods.create(name, logits, model.get_input_embeddings(), n_steps=_few(name))
        together = method(IDS, REFERENCE, target=1, additional_forward_args=(MASK,))
        alone = method(
            IDS[:1, :4], REFERENCE[:1, :4], target=1, additional_forward_args=(MASK[:1, :4],)
        )
        assert together.abs().max() > 1e-4, "the scores should not all vanish"
        assert torch.allclose(together[:1, :4], alone, atol=1e-5)

    def test_settings_can_be_recorded(self, name: str) -> None:
        method = methods.create(name, LINEAR, LINEAR.embedding, seed=5)
        assert all(v is None or isinstance(v, str | int | float) for v in method.settings.values())
        if methods.spec(name).steps is not None:
            assert any(key in method.settings for key in ("n_steps", "n_samples"))


def _few(name: str) -> int | None:
    return None if methods.spec(name).steps is None else 8


class TestBadInput:
    def test_unknown_name_lists_the_known_ones(self) -> None:
        with pytest.raises(InvalidInputError, match=r"expected one of aml, la, ig.*got 'limee'"):
            methods.create("limee", LINEAR, LINEAR.embedding)

    def test_steps_where_there_are_none(self) -> None:
        with pytest.raises(InvalidInputError, match="n_steps: method 'occlusion' has no steps"):
            methods.create("occlusion", LINEAR, LINEAR.embedding, n_steps=3)

    def test_no_steps_at_all(self) -> None:
        with pytest.raises(InvalidInputError, match="n_steps: expected a positive number"):
            methods.create("ig", LINEAR, LINEAR.embedding, n_steps=0)

    def test_masker_where_none_is_used(self) -> None:
        with pytest.raises(InvalidInputError, match=r"masker: method 'ig' uses none.*aml, la"):
            methods.create("ig", LINEAR, LINEAR.embedding, masker="folder")

    def test_batch_size_of_zero(self) -> None:
        with pytest.raises(InvalidInputError, match="batch_size: expected 1 or more, got 0"):
            methods.create("ig", LINEAR, LINEAR.embedding, batch_size=0)

    def test_kernel_shap_with_one_sample(self) -> None:
        with pytest.raises(InvalidInputError, match="kernel-shap needs 2 samples"):
            methods.create("kernel-shap", LINEAR, LINEAR.embedding, n_steps=1)

    @pytest.mark.parametrize("name", ["lime", "kernel-shap"])
    def test_without_sklearn_the_extra_is_named(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
        with pytest.raises(ImportError, match=r'pip install "captum-aml\[all\]"'):
            methods.create(name, LINEAR, LINEAR.embedding)

    def test_float_ids(self) -> None:
        with pytest.raises(InvalidInputError, match="ids: expected integer token ids"):
            run("ig", LINEAR, ids=IDS.float())

    def test_reference_of_another_shape(self) -> None:
        with pytest.raises(InvalidInputError, match=r"reference_ids: .*\(2, 6\).*got.*\(2, 5\)"):
            run("occlusion", LINEAR, reference=REFERENCE[:, :5])

    @pytest.mark.parametrize("name", CAPTUM_METHODS)
    @pytest.mark.parametrize("target", [2, -1, torch.tensor([0, 5])])
    def test_target_out_of_range(self, name: str, target: Tensor | int) -> None:
        with pytest.raises(
            InvalidInputError, match=r"target: expected classes from 0.* got (1|-1|5|2)"
        ):
            run(name, LINEAR, target=target)

    def test_target_of_wrong_length(self) -> None:
        with pytest.raises(InvalidInputError, match=r"class per example \(2,\)"):
            run("ig", LINEAR, target=torch.tensor([0, 1, 0]))

    def test_a_forward_function_without_classes(self) -> None:
        method = methods.create(
            "occlusion", lambda ids, mask: ids.float().sum(-1), LINEAR.embedding
        )
        with pytest.raises(InvalidInputError, match=r"forward_func: expected logits \(N, C\)"):
            method(IDS, REFERENCE, additional_forward_args=(MASK,))


class TestMasks:
    """AML and LA by name. Id 3 alone decides; the others hardly matter."""

    WEIGHTS = (0.0, 0.0, 0.0, 8.0, 0.1, -0.1, 0.0)

    def model(self) -> BagOfTokens:
        return BagOfTokens(list(self.WEIGHTS), offset=-4.0, link="logistic")

    @pytest.mark.parametrize("name", ["aml", "la"])
    def test_the_deciding_token_comes_first(self, name: str) -> None:
        scores = run(name, self.model(), target=1)
        assert scores.shape == IDS.shape
        assert torch.all((scores >= 0) & (scores <= 1))
        assert torch.all(scores[IDS == REFERENCE] == 0)
        decides = IDS == 3
        assert scores[decides].min() > scores[~decides].max() + 0.2

    @pytest.mark.parametrize("name", ["aml", "la"])
    def test_a_text_scores_the_same_alone_as_in_a_batch(self, name: str) -> None:
        together = run(name, self.model(), n_steps=10)
        alone = run(
            name,
            self.model(),
            n_steps=10,
            ids=IDS[:1, :4],
            reference=REFERENCE[:1, :4],
            mask=MASK[:1, :4],
        )
        assert torch.allclose(together[:1, :4], alone, atol=1e-4)

    def test_settings_tell_what_was_done(self) -> None:
        model = self.model()
        settings = methods.create("aml", model, model.embedding, seed=4).settings
        assert (settings["n_steps"], settings["seed"], settings["masker"]) == (50, 4, None)
        assert "size_weight=1.0" in str(settings["objective"])

    @pytest.mark.parametrize(
        ("name", "attribution"), [("aml", AMLAttribution), ("la", LAAttribution)]
    )
    def test_a_saved_masker_explains_in_one_pass(
        self, name: str, attribution: type[AMLAttribution], tmp_path: Path
    ) -> None:
        model = self.model()
        fitted = attribution(model, embedding_layer=model.embedding, output="logits")
        batch = {
            "inputs": IDS,
            "baselines": REFERENCE,
            "target": torch.tensor([1, 1]),
            "additional_forward_args": (MASK,),
        }
        fitted.fit([batch], epochs=2).save_pretrained(tmp_path / "masker")
        method = methods.create(name, model, model.embedding, masker=tmp_path / "masker")
        scores = method(IDS, REFERENCE, target=1, additional_forward_args=(MASK,))
        assert method.settings["n_steps"] == 0
        assert method.settings["masker"] == str(tmp_path / "masker")
        expected = fitted.attribute(
            IDS, baselines=REFERENCE, target=1, additional_forward_args=(MASK,)
        )
        assert torch.allclose(scores, expected, atol=1e-6)

        tuned = methods.create(name, model, model.embedding, masker=tmp_path / "masker", n_steps=30)
        assert tuned.settings["n_steps"] == 30
        assert not torch.allclose(
            tuned(IDS, REFERENCE, target=1, additional_forward_args=(MASK,)), scores, atol=1e-3
        )

    def test_a_folder_without_a_masker(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"masker"):
            methods.create("aml", LINEAR, LINEAR.embedding, masker=tmp_path)


class TestRegistry:
    def test_users_add_a_method_and_use_it_by_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("captum_aml.methods.registry._REGISTRY", {})

        def length(*_: object) -> object:
            def scores(ids: Tensor, reference_ids: Tensor, **__: object) -> Tensor:
                return (ids != reference_ids).float()

            return scores

        entry = methods.MethodSpec(name="flat", summary="all alike", factory=length)
        methods.register(entry)
        assert methods.available() == ("flat",)
        scores = methods.create("flat", LINEAR, LINEAR.embedding)(IDS, REFERENCE)
        assert scores.sum().item() == 8
        with pytest.raises(InvalidInputError, match="registered already"):
            methods.register(entry)
        methods.register(entry, replace=True)

    def test_the_names_users_can_give(self) -> None:
        assert methods.available() == ("aml", "la", *CAPTUM_METHODS)
        assert [name for name in methods.available() if not methods.spec(name).signed] == [
            "aml",
            "la",
        ]
