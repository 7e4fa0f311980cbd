"""Captum attributions as token methods, against the same instances called as Captum's users do."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import captum.attr
import numpy as np
import pytest
import torch
from captum.attr import (
    Attribution,
    FeatureAblation,
    KernelShap,
    LayerActivation,
    LayerDeepLift,
    LayerFeatureAblation,
    LayerGradCam,
    LayerGradientXActivation,
    LayerIntegratedGradients,
    Lime,
    Occlusion,
    ShapleyValues,
    ShapleyValueSampling,
)
from torch import Tensor, nn

from captum_aml import (
    AMLAttribution,
    LAAttribution,
    LayerAMLAttribution,
    LayerLAAttribution,
    methods,
)
from captum_aml.attr.base import MaskAttribution
from captum_aml.exceptions import InvalidInputError
from captum_aml.methods.adapter import number_groups
from tests._helpers.methods import IDS, MASK, REFERENCE, WithModel
from tests._helpers.text_models import BagOfTokens, bert_classifier

EXPLAINED = IDS != REFERENCE
# Of gradients through a batch and through a row by itself: kernels add them up in other orders.
CLOSE = 1e-5
GROUPS = torch.tensor([[7, 7, -2, 7, 7, -2], [3, 9, 9, 3, 9, 1]])
# Features of Captum's: numbers from 0, where positions to leave alone go with any.
TOKENS = (EXPLAINED.cumsum(dim=1) - 1).clamp(min=0)
WORDS = torch.tensor([[0, 0, 1, 0, 0, 0], [0, 0, 0, 1, 0, 2]])

MODEL = bert_classifier(40)
LAYER = MODEL.get_input_embeddings()
BAG = BagOfTokens([9.0, -5.0, 0.0, 2.0, -1.0, 1.5, 0.5], offset=4.8, link="logistic")


def logits(ids: Tensor, mask: Tensor) -> Tensor:
    return WithModel(MODEL)(ids, mask)


GRADIENTS: dict[str, Callable[[], Attribution]] = {
    "layer-ig": lambda: LayerIntegratedGradients(logits, LAYER),
    "layer-gradient-x-activation": lambda: LayerGradientXActivation(logits, LAYER),
    "layer-activation": lambda: LayerActivation(logits, LAYER),
    "layer-deep-lift": lambda: LayerDeepLift(BAG, BAG.embedding),
    "layer-ig-of-all-embeddings": lambda: LayerIntegratedGradients(logits, MODEL.bert.embeddings),
}
PERTURBATIONS: dict[str, Callable[[], Attribution]] = {
    "feature-ablation": lambda: FeatureAblation(logits),
    "lime": lambda: Lime(logits),
    "kernel-shap": lambda: KernelShap(logits),
    "shapley-sampling": lambda: ShapleyValueSampling(logits),
    "shapley": lambda: ShapleyValues(BAG),
}
MASKS: dict[str, Callable[[], Attribution]] = {
    "aml": lambda: AMLAttribution(logits, embedding_layer=LAYER),
    "la": lambda: LAAttribution(logits, embedding_layer=LAYER),
    "layer-aml": lambda: LayerAMLAttribution(logits, LAYER),
    "layer-la": lambda: LayerLAAttribution(logits, LAYER),
    "aml-mask": lambda: AMLAttribution(logits, False, embedding_layer=LAYER),
}
OTHERS: dict[str, Callable[[], Attribution]] = {
    "occlusion": lambda: Occlusion(logits),
    "layer-feature-ablation": lambda: LayerFeatureAblation(logits, LAYER),
}
ALL = {**GRADIENTS, **PERTURBATIONS, **MASKS, **OTHERS}


def few(attribution: Attribution) -> int | None:
    takes = attribution.attribute.__wrapped__.__code__.co_varnames
    if isinstance(attribution, MaskAttribution):
        return 4
    return 3 if "n_steps" in takes or "n_samples" in takes else None


def scores_of(
    attribution: Attribution,
    *,
    rows: slice = slice(None),
    length: int = 6,
    target: Tensor | int | None = 1,
    feature_mask: Tensor | None = None,
    args: tuple[object, ...] | None = None,
    **options: Any,
) -> Tensor:
    method = methods.AttributionMethod(
        attribution, **{"n_steps": few(attribution), "seed": 4, **options}
    )
    return method(
        IDS[rows, :length],
        REFERENCE[rows, :length],
        target=target,
        additional_forward_args=(MASK[rows, :length],) if args is None else args,
        feature_mask=None if feature_mask is None else feature_mask[rows, :length],
    )


@pytest.fixture(params=ALL.values(), ids=ALL.keys())
def make(request: pytest.FixtureRequest) -> Callable[[], Attribution]:
    return request.param


class TestContract:
    def test_only_what_differs_from_the_reference_has_a_score(
        self, make: Callable[[], Attribution]
    ) -> None:
        scores = scores_of(make())
        assert scores.shape == IDS.shape
        assert scores.dtype == torch.float32
        assert torch.all(scores[~EXPLAINED] == 0)
        assert torch.isfinite(scores).all()
        assert scores[EXPLAINED].abs().max() > 1e-4
        assert not scores.requires_grad

    def test_a_text_scores_the_same_alone_as_in_a_batch(
        self, make: Callable[[], Attribution]
    ) -> None:
        together = scores_of(make())
        for row, length in ((0, 4), (1, 6)):
            alone = scores_of(make(), rows=slice(row, row + 1), length=length)
            assert torch.allclose(together[row : row + 1, :length], alone, atol=1e-4)

    def test_repeats_and_leaves_the_global_random_state(
        self, make: Callable[[], Attribution]
    ) -> None:
        first = scores_of(make())
        torch.rand(5), np.random.rand(5), random.random()
        before = torch.get_rng_state(), np.random.get_state(), random.getstate()
        assert torch.equal(scores_of(make()), first)
        assert torch.equal(torch.get_rng_state(), before[0])
        assert np.array_equal(np.random.get_state()[1], before[1][1])
        assert random.getstate() == before[2]

    def test_without_gradients_and_in_inference_mode(self, make: Callable[[], Attribution]) -> None:
        expected = scores_of(make())
        with torch.no_grad():
            assert torch.allclose(scores_of(make()), expected, atol=1e-4)
        with torch.inference_mode():
            method = methods.AttributionMethod(make(), n_steps=few(make()), seed=4)
            scores = method(
                IDS.clone(),
                REFERENCE.clone(),
                target=1,
                additional_forward_args=(MASK.clone(),),
                feature_mask=None,
            )
        assert torch.allclose(scores, expected, atol=1e-4)

    def test_a_group_for_each_token_is_no_groups(self, make: Callable[[], Attribution]) -> None:
        mask = torch.tensor([[9, 4, 2, 7, 9, 9], [0, -3, 8, 1, 5, 2]])
        assert torch.equal(scores_of(make(), feature_mask=mask), scores_of(make()))

    def test_groups_have_one_score(self, make: Callable[[], Attribution]) -> None:
        if isinstance(make(), Occlusion):
            with pytest.raises(InvalidInputError, match="feature_mask: expected None for Occlu"):
                scores_of(make(), feature_mask=GROUPS)
            return
        scores = scores_of(make(), feature_mask=GROUPS)
        assert torch.all(scores[~EXPLAINED] == 0)
        assert scores[0, 1] == scores[0, 3] != scores[0, 2]
        assert scores[1, 1] == scores[1, 2] == scores[1, 4] != scores[1, 3]
        # Neither the numbers nor what the rest has of them count.
        renamed = torch.where(EXPLAINED, 100 - 3 * GROUPS, torch.arange(6) - 2)
        assert torch.equal(scores_of(make(), feature_mask=renamed), scores)

    def test_nothing_of_the_models_changes(self, make: Callable[[], Attribution]) -> None:
        model = bert_classifier(40)
        model.load_state_dict(MODEL.state_dict())
        for module in (MODEL, BAG):
            module.train()
        MODEL.bert.encoder.eval()
        try:
            modes = [m.training for m in MODEL.modules()]
            flags = [p.requires_grad for p in MODEL.parameters()]
            scores_of(make())
            assert [m.training for m in MODEL.modules()] == modes
            assert [p.requires_grad for p in MODEL.parameters()] == flags
            assert all(p.grad is None for m in (MODEL, BAG) for p in m.parameters())
            for module in (*MODEL.modules(), *BAG.modules()):
                assert not module._forward_hooks
                assert not module._forward_pre_hooks
                assert not {"input", "output"} & set(vars(module))
            for key, value in model.state_dict().items():
                assert torch.equal(MODEL.state_dict()[key], value)
        finally:
            MODEL.eval(), BAG.eval()

    def test_nothing_to_explain_scores_zero(self, make: Callable[[], Attribution]) -> None:
        method = methods.AttributionMethod(make(), n_steps=few(make()))
        assert torch.all(method(IDS, IDS, target=1, additional_forward_args=(MASK,)) == 0)

    def test_no_target_means_the_predicted_class(self, make: Callable[[], Attribution]) -> None:
        model = BAG if make().forward_func is BAG else logits
        with torch.no_grad():
            predicted = model(IDS, MASK).argmax(dim=-1)
        found = scores_of(make(), target=None)
        assert torch.allclose(found, scores_of(make(), target=predicted), atol=1e-6)
        # Where another function is given, its prediction is explained: here, always class 0.
        other = scores_of(make(), target=None, forward_func=lambda i, m: -i[:, :2] * 0.0)
        assert torch.equal(other, scores_of(make(), target=0))

    def test_settings_are_plain_and_tell_the_class(self, make: Callable[[], Attribution]) -> None:
        attribution = make()
        settings = methods.AttributionMethod(attribution, seed=0).settings
        assert settings["attribution"] == type(attribution).__name__
        assert settings["seed"] == 0
        assert all(v is None or isinstance(v, str | int | float) for v in settings.values())


@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.parametrize("row", [0, 1])
def test_gradient_methods_are_what_captum_gives(name: str, row: int) -> None:
    attribution = GRADIENTS[name]()
    cut = slice(row, row + 1)
    call: dict[str, Any] = {"additional_forward_args": (MASK[cut],)}
    if name != "layer-activation":
        call["target"] = 1
    if "ig" in name or "deep" in name:
        call["baselines"] = REFERENCE[cut]
    if "ig" in name:
        call["n_steps"] = few(attribution)
    expected = attribution.attribute(IDS[cut], **call).sum(dim=-1) * EXPLAINED[cut]
    assert torch.allclose(scores_of(attribution)[cut], expected, atol=CLOSE)
    # Groups have their tokens' sums.
    grouped = scores_of(attribution, feature_mask=GROUPS)[row]
    for place in EXPLAINED[row].nonzero().flatten():
        same = EXPLAINED[row] & (GROUPS[row] == GROUPS[row, place])
        assert float(grouped[place]) == pytest.approx(float(expected[0, same].sum()), abs=1e-5)


@pytest.mark.parametrize("name", PERTURBATIONS)
@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.parametrize(
    ("feature_mask", "features"), [(None, TOKENS), (GROUPS, WORDS)], ids=["tokens", "groups"]
)
def test_perturbation_methods_are_what_captum_gives(
    name: str, row: int, feature_mask: Tensor | None, features: Tensor
) -> None:
    attribution = PERTURBATIONS[name]()
    cut = slice(row, row + 1)
    call: dict[str, Any] = {
        "baselines": REFERENCE[cut],
        "target": 1,
        "additional_forward_args": (MASK[cut],),
        "feature_mask": features[cut],
    }
    if few(attribution) is not None:
        call["n_samples"] = few(attribution)
    state = torch.get_rng_state()
    torch.manual_seed(4), np.random.seed(4)
    expected = attribution.attribute(IDS[cut], **call) * EXPLAINED[cut]
    torch.set_rng_state(state)
    scores = scores_of(attribution, feature_mask=feature_mask)
    assert torch.allclose(scores[cut], expected.float(), atol=1e-6)


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("grouped", [False, True])
def test_learned_masks_are_what_they_are_by_themselves(name: str, grouped: bool) -> None:
    attribution = MASKS[name]()
    # Numbered in order of appearance, as masks are drawn for groups in the order of their numbers.
    apart = number_groups(EXPLAINED, GROUPS) if grouped else None
    expected = attribution.attribute(
        IDS,
        baselines=REFERENCE,
        target=1,
        additional_forward_args=(MASK,),
        n_steps=few(attribution),
        feature_mask=apart,
    )
    expected = expected.sum(dim=-1) if expected.dim() == 3 else expected
    if apart is not None and attribution.multiplies_by_inputs:  # a group's share, times its tokens
        expected = expected * (apart[:, :, None] == apart[:, None]).sum(dim=-1)
    scores = scores_of(attribution, feature_mask=GROUPS if grouped else None)
    assert torch.allclose(scores, expected, atol=1e-6)
    settings = methods.AttributionMethod(attribution).settings
    assert (settings["n_steps"], settings["tune"], settings["masker"]) == (16, None, None)


@pytest.mark.parametrize(
    ("make", "signed"),
    [
        (lambda: FeatureAblation(logits), True),
        (lambda: LayerIntegratedGradients(logits, LAYER), True),
        (lambda: AMLAttribution(logits, embedding_layer=LAYER), True),
        (lambda: LayerLAAttribution(logits, LAYER), True),
        (lambda: AMLAttribution(logits, embedding_layer=LAYER, scores="mask"), False),
        (lambda: LayerLAAttribution(logits, LAYER, multiply_by_inputs=False), False),
    ],
)
def test_which_scores_are_signed(make: Callable[[], Attribution], signed: bool) -> None:
    assert methods.AttributionMethod(make()).signed is signed


def test_what_scores_are() -> None:
    def said(**options: object) -> methods.ScoreMeaning:
        attribution = AMLAttribution(logits, embedding_layer=LAYER, **options)
        return methods.score_meaning(methods.AttributionMethod(attribution))

    contribution = "contribution to the output of the explained class"
    assert said(scores="contribution") == methods.ScoreMeaning(score=contribution)
    mask = methods.ScoreMeaning(signed=False, score="value of the mask for the explained class")
    assert said(scores="mask") == mask
    by_name = methods.create("random", logits, LAYER)
    entry = methods.spec("random")
    assert methods.score_meaning(by_name, entry) == methods.ScoreMeaning(
        signed=False, score="random number"
    )
    # Of a user's own method nothing is known but what it says.
    assert methods.score_meaning(lambda *_, **__: None) == methods.ScoreMeaning()


def test_occlusion_moves_over_single_tokens() -> None:
    scores = scores_of(Occlusion(logits))
    assert torch.allclose(scores, scores_of(FeatureAblation(logits)), atol=1e-6)
    expected = Occlusion(logits).attribute(
        IDS[1:],
        sliding_window_shapes=(1,),
        baselines=REFERENCE[1:],
        target=1,
        additional_forward_args=(MASK[1:],),
    )
    assert torch.allclose(scores[1:], expected, atol=1e-6)


def test_ablation_at_a_layer_takes_a_tokens_channels_together() -> None:
    # Embeddings are set to zero, and the model sums their first channels: drops are weights.
    def log_odds(ids: Tensor, mask: Tensor) -> Tensor:
        return BAG(ids, mask)[:, 1]

    attribution = LayerFeatureAblation(log_odds, BAG.embedding)
    weights = BAG.embedding.weight[IDS, 0].detach() * EXPLAINED
    assert torch.allclose(scores_of(attribution), weights, atol=1e-6)
    grouped = scores_of(attribution, feature_mask=GROUPS)
    for row in range(2):
        for place in EXPLAINED[row].nonzero().flatten():
            same = GROUPS[row] == GROUPS[row, place]
            assert float(grouped[row, place]) == pytest.approx(float(weights[row, same].sum()))


def test_kernel_shap_of_one_token_is_the_whole_difference() -> None:
    scores = scores_of(KernelShap(logits), feature_mask=torch.zeros_like(IDS))
    with torch.no_grad():
        gap = (logits(IDS, MASK) - logits(REFERENCE, MASK))[:, 1:]
    assert torch.allclose(scores, gap * EXPLAINED, atol=1e-6)


class TestForwardFunctions:
    """The attribution's own forward function need not take or give what a text model does."""

    def test_fewer_arguments(self) -> None:
        def without_types(ids: Tensor, attention_mask: Tensor) -> Tensor:
            return logits(ids, attention_mask)

        def types_first(
            ids: Tensor, token_type_ids: Tensor | None = None, attention_mask: Tensor | None = None
        ) -> Tensor:
            assert not token_type_ids.any()
            return logits(ids, attention_mask)

        def of_text(ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
            return logits(ids, attention_mask)

        types = torch.zeros_like(IDS)
        expected = scores_of(LayerIntegratedGradients(logits, LAYER))
        for function in (without_types, types_first, of_text):
            attribution = LayerIntegratedGradients(function, LAYER)
            scores = scores_of(attribution, forward_func=of_text, args=(MASK, types))
            assert torch.equal(scores, expected)

    def test_more_arguments_than_there_are(self) -> None:
        attribution = FeatureAblation(lambda ids, mask, more: logits(ids, mask))
        with pytest.raises(
            InvalidInputError, match=r"needs \['mask', 'more'\] after the ids, got 1"
        ):
            scores_of(attribution)

    @pytest.mark.parametrize("target", [None, 0, 1])
    @pytest.mark.parametrize("kept", [False, True])
    def test_a_value_for_each_example_whatever_the_target(
        self, target: int | None, kept: bool
    ) -> None:
        def log_odds(ids: Tensor, mask: Tensor) -> Tensor:
            both = logits(ids, mask)
            return (both[:, 1:] - both[:, :1]) if kept else (both[:, 1] - both[:, 0])

        for make in (
            lambda: LayerIntegratedGradients(log_odds, LAYER),
            lambda: FeatureAblation(log_odds),
        ):
            scores = scores_of(make(), target=target)
            for row in range(2):
                cut = slice(row, row + 1)
                call: dict[str, Any] = {"n_steps": few(make())} if few(make()) else {}
                expected = make().attribute(
                    IDS[cut],
                    baselines=REFERENCE[cut],
                    target=0 if kept else None,
                    additional_forward_args=(MASK[cut],),
                    **call,
                )
                expected = expected.sum(dim=-1) if expected.dim() == 3 else expected
                assert torch.allclose(scores[cut], expected * EXPLAINED[cut], atol=CLOSE)

    def test_one_number_for_all_examples(self) -> None:
        def loss(ids: Tensor, mask: Tensor) -> float:
            return float(BAG(ids, mask)[:, 1].sum())

        scores = scores_of(FeatureAblation(loss), target=None)
        weights = BAG.embedding.weight[IDS, 0].detach() * EXPLAINED
        assert torch.allclose(scores, weights, atol=1e-6)

    def test_several_outputs_for_each_token(self) -> None:
        attribution = FeatureAblation(lambda ids, mask: torch.zeros(len(ids), 6, 3))
        with pytest.raises(InvalidInputError, match=r"gives \(N, C\) or \(N,\), .* \(N, 6, 3\)"):
            scores_of(attribution)

    def test_no_tensor(self) -> None:
        attribution = FeatureAblation(lambda ids, mask: MODEL(ids, attention_mask=mask))
        with pytest.raises(InvalidInputError, match=r"gives a tensor, got one .* Sequence"):
            scores_of(attribution)

    def test_a_class_that_is_not_there(self, make: Callable[[], Attribution]) -> None:
        with pytest.raises(InvalidInputError, match="target: expected classes from 0 to 1, got 2"):
            scores_of(make(), target=2)

    def test_variants_pass_in_batches(self) -> None:
        sizes: list[int] = []

        def counted(ids: Tensor, mask: Tensor) -> Tensor:
            sizes.append(len(ids))
            return logits(ids, mask)

        for attribution in (FeatureAblation(counted), LayerIntegratedGradients(counted, LAYER)):
            sizes.clear()
            scores_of(attribution, batch_size=3)
            assert 1 < max(sizes) <= 3


class TestRefused:
    @pytest.mark.parametrize(
        ("make", "instead"),
        [
            (
                lambda: captum.attr.IntegratedGradients(logits),
                "LayerIntegratedGradients at the emb",
            ),
            (lambda: captum.attr.InputXGradient(logits), "LayerGradientXActivation at the emb"),
            (lambda: captum.attr.DeepLift(BAG), "LayerDeepLift at the embedding layer"),
            (lambda: captum.attr.Saliency(logits), "method 'saliency'"),
            (lambda: captum.attr.GradientShap(logits), "method 'gradient-shap'"),
            (lambda: captum.attr.GuidedBackprop(BAG), "LayerIntegratedGradients at the embedding"),
            (lambda: captum.attr.LayerGradientShap(logits, LAYER), "method 'gradient-shap'"),
            (lambda: captum.attr.LayerConductance(logits, LAYER), "LayerIntegratedGradients"),
            (lambda: captum.attr.LayerDeepLiftShap(BAG, BAG.embedding), "LayerDeepLift"),
            (lambda: captum.attr.FeaturePermutation(logits), "FeatureAblation"),
            (
                lambda: captum.attr.NoiseTunnel(LayerIntegratedGradients(logits, LAYER)),
                "method 'smooth-grad'",
            ),
        ],
    )
    def test_what_cannot_explain_ids(self, make: Callable[[], Attribution], instead: str) -> None:
        attribution = make()
        with pytest.raises(
            InvalidInputError, match=rf"token ids, got {type(attribution).__name__}, .*{instead}"
        ):
            methods.AttributionMethod(attribution)
        # Captum itself fails on them, or gives nothing that means something.
        if isinstance(attribution, captum.attr.FeaturePermutation):
            return
        with pytest.raises((RuntimeError, AssertionError, IndexError)):
            attribution.attribute(
                IDS[:1],
                target=1,
                additional_forward_args=(MASK[:1],),
                **(
                    {"baselines": REFERENCE[:1]}
                    if "baselines" in attribution.attribute.__wrapped__.__code__.co_varnames
                    else {}
                ),
            )

    def test_what_is_no_instance(self) -> None:
        with pytest.raises(InvalidInputError, match="an instance, got the class LayerIntegratedG"):
            methods.AttributionMethod(LayerIntegratedGradients)
        with pytest.raises(InvalidInputError, match="instance of a Captum attribution, got str"):
            methods.AttributionMethod("integrated-gradients")

    def test_what_asks_for_more(self) -> None:
        attribution = captum.attr.NeuronGradient(logits, LAYER)
        with pytest.raises(InvalidInputError, match="NeuronGradient, which needs neuron_selector"):
            methods.AttributionMethod(attribution)
        loader = captum.attr.DataLoaderAttribution(FeatureAblation(logits))
        with pytest.raises(
            InvalidInputError, match="DataLoaderAttribution, which needs dataloader"
        ):
            methods.AttributionMethod(loader)

    def test_steps_where_there_are_none(self) -> None:
        with pytest.raises(InvalidInputError, match="n_steps: FeatureAblation has no steps"):
            methods.AttributionMethod(FeatureAblation(logits), n_steps=3)
        with pytest.raises(InvalidInputError, match="n_steps: expected an integer of at least 1"):
            methods.AttributionMethod(Lime(logits), n_steps=0)

    @pytest.mark.parametrize(
        ("layer", "came"),
        [
            (MODEL.bert.pooler, r"\(2, 16\)"),
            (MODEL.classifier, r"\(2, 2\)"),
        ],
        ids=["pooler", "classifier"],
    )
    def test_attributions_of_another_shape(self, layer: nn.Module, came: str) -> None:
        with pytest.raises(
            InvalidInputError, match=rf"shape \(2, 6\) or .*, got {came}; attribute to"
        ):
            scores_of(LayerIntegratedGradients(logits, layer))

    def test_attributions_summed_over_positions(self) -> None:
        with pytest.raises(InvalidInputError, match=r"shape \(1, 6\) .*, got \(1, 1, 16\)"):
            scores_of(LayerGradCam(logits, LAYER))

    def test_several_layers(self) -> None:
        layers = [LAYER, MODEL.bert.embeddings.position_embeddings]
        with pytest.raises(InvalidInputError, match=r"as one tensor, .* got a list of 2"):
            scores_of(LayerGradientXActivation(logits, layers))


def test_a_users_own_attribution() -> None:
    class Ids(Attribution):
        def attribute(self, inputs: Tensor, baselines: Tensor) -> Tensor:
            return (inputs - baselines).float()

    assert torch.equal(scores_of_own(Ids(logits)), (IDS - REFERENCE).float())
    sums = torch.tensor([[0, 1 + 3, 2, 1 + 3, 0, 0], [0, 2 + 1 + 4, 2 + 1 + 4, 1, 7, 3]]).float()
    assert torch.equal(scores_of_own(Ids(logits), feature_mask=GROUPS), sums)


def scores_of_own(attribution: Attribution, feature_mask: Tensor | None = None) -> Tensor:
    return methods.AttributionMethod(attribution)(
        IDS, REFERENCE, target=1, additional_forward_args=(MASK,), feature_mask=feature_mask
    )


class TestLastOutputs:
    def outputs(
        self, attribution: Attribution, forward_func: Callable[..., Tensor], target: int | None
    ) -> Tensor | None:
        method = methods.AttributionMethod(attribution, forward_func, n_steps=few(attribution))
        assert method.last_outputs is None
        method(IDS, REFERENCE, target=target, additional_forward_args=(MASK,))
        found = method.last_outputs
        method(IDS, IDS, additional_forward_args=(MASK,))
        assert method.last_outputs is None, "of the last call, which ran no model"
        return found

    @pytest.mark.parametrize("target", [None, 1])
    def test_of_a_learned_mask(self, target: int | None) -> None:
        found = self.outputs(AMLAttribution(logits, embedding_layer=LAYER), logits, target)
        assert torch.allclose(found, logits(IDS, MASK), atol=1e-6)

    def test_of_others_where_they_predict(self) -> None:
        expected = logits(IDS, MASK)
        assert torch.equal(self.outputs(FeatureAblation(logits), logits, None), expected)
        assert self.outputs(FeatureAblation(logits), logits, 1) is None

    def test_it_is_the_text_models(self) -> None:
        def twice(ids: Tensor, mask: Tensor) -> Tensor:
            return 2 * logits(ids, mask)

        attribution = AMLAttribution(logits, embedding_layer=LAYER)
        assert torch.equal(self.outputs(attribution, twice, None), twice(IDS, MASK))
        assert self.outputs(attribution, twice, 1) is None


@pytest.mark.parametrize(
    ("make", "name", "number"),
    [
        (lambda: LayerIntegratedGradients(logits, LAYER), "n_steps", 50),
        (lambda: Lime(logits), "n_samples", 25),
        (lambda: ShapleyValueSampling(logits), "n_samples", 25),
    ],
)
def test_steps_are_recorded(make: Callable[[], Attribution], name: str, number: int) -> None:
    assert methods.AttributionMethod(make()).settings[name] == number
    assert methods.AttributionMethod(make(), n_steps=7).settings[name] == 7
