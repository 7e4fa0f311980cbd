"""Layers of every kind, forward functions of every kind, and what they have in common."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import pytest
import torch
from captum.attr import LayerIntegratedGradients
from captum.testing.helpers.basic_models import (
    BasicModel_MultiLayer,
    BasicModelWithReusedModules,
    ReLULinearModel,
)
from torch import Tensor, nn

from captum_aml import AMLAttribution, LayerAMLAttribution
from captum_aml.exceptions import InvalidInputError, LayerNotReachedError, NoGradientError
from captum_aml.maskers import MaskerInputs
from tests._helpers import cases
from tests._helpers.cases import CASES, Case, TokenClassifier
from tests._helpers.checks import (
    BATCH_TOLERANCE,
    METHODS,
    STEPS,
    KnownMasker,
    Method,
    Snapshot,
    assert_same,
    differs,
    form,
)

LAYER_METHODS = {name: m for name, m in METHODS.items() if m.at_layer}
INPUT_METHODS = {name: m for name, m in METHODS.items() if not m.at_layer}


@pytest.fixture(params=LAYER_METHODS.values(), ids=LAYER_METHODS.keys())
def layer_method(request: pytest.FixtureRequest) -> Method:
    return request.param


@pytest.fixture(params=INPUT_METHODS.values(), ids=INPUT_METHODS.keys())
def input_method(request: pytest.FixtureRequest) -> Method:
    return request.param


@pytest.fixture(params=METHODS.values(), ids=METHODS.keys())
def method(request: pytest.FixtureRequest) -> Method:
    return request.param


# --- The same place by another name ---------------------------------------------------------------


def test_the_input_of_a_layer_is_the_output_of_the_one_before(layer_method: Method) -> None:
    case = CASES["multi_layer"].build()
    model: Any = case.forward
    at_input = layer_method.scores(case, attribute_to_layer_input=True)
    assert_same(at_input, layer_method.scores(replace(case, layer=model.linear0)))


def test_two_layers_are_the_two_inputs_of_the_layer_behind(layer_method: Method) -> None:
    case = CASES["tuple_layer"].build()
    model: Any = case.forward
    layers = [model.linear1, model.linear1_alt]
    several = replace(case, layer=layers)
    got, delta = layer_method(several).attribute(
        case.inputs, n_steps=STEPS, return_convergence_delta=True, **case.call
    )
    with pytest.warns(UserWarning, match="Multiple layers"):  # Captum's own, for information
        captums = LayerIntegratedGradients(model, layers)
    expected, expected_delta = captums.attribute(
        case.inputs, return_convergence_delta=True, **case.call
    )
    assert form(got) == form(expected)
    assert form(delta) == form(expected_delta)
    at_input = layer_method.scores(case, attribute_to_layer_input=True)
    assert_same(got, at_input)
    # The other way round the random masks meet other positions; a masker's proposals do not.
    one_way, other_way = (
        layer_method(replace(case, layer=order), masker=KnownMasker()).attribute(
            case.inputs, n_steps=STEPS, **case.call
        )
        for order in (layers, layers[::-1])
    )
    assert_same(other_way, one_way[::-1])


def test_an_embedding_layer_has_the_scores_of_its_ids() -> None:
    for name in ("text", "bert"):
        case = CASES[name].build()
        for inputs, layers in (
            ("AMLAttribution", "LayerAMLAttribution"),
            ("LAAttribution", "LayerLAAttribution"),
        ):
            # BERT's word embeddings, where AMLAttribution masks too.
            layer = case.embedding_layer or case.forward.get_input_embeddings()
            (by_layer,) = METHODS[layers].scores(replace(case, layer=layer))
            assert_same(by_layer.sum(-1), METHODS[inputs].scores(case), tolerance=BATCH_TOLERANCE)


def test_a_layer_that_passes_the_inputs_on_has_their_scores() -> None:
    case = CASES["sequence"].build()
    identity = nn.Identity()

    def forward(embeddings: Tensor, attention: Tensor) -> Tensor:
        return case.forward(identity(embeddings), attention)

    at_layer = replace(case, forward=forward, layer=identity)
    for inputs, layers in (
        ("AMLAttribution", "LayerAMLAttribution"),
        ("LAAttribution", "LayerLAAttribution"),
    ):
        assert_same(METHODS[layers].scores(at_layer), METHODS[inputs].scores(case))


# --- Like Captum's layer methods ------------------------------------------------------------------


def test_keyword_arguments_are_not_the_layers_input(layer_method: Method) -> None:
    # As Captum has it: encoders are given attention masks and position embeddings by keyword.
    case = cases.keyword_layer()
    expected = layer_method.captum(case, attribute_to_layer_input=True)
    got = layer_method(case).attribute(
        case.inputs, n_steps=2, attribute_to_layer_input=True, **case.call
    )
    assert form(got) == form(expected)
    at_output = layer_method(case).attribute(case.inputs, n_steps=2, **case.call)
    assert form(at_output) == form(layer_method.captum(case))


def test_half_precision_has_the_form_of_captums_counterpart(method: Method) -> None:
    case = cases.bfloat16()
    expected, expected_delta = method.captum(case, return_convergence_delta=True)
    got, delta = method(case).attribute(
        case.inputs, n_steps=2, return_convergence_delta=True, **case.call
    )
    assert form(delta) == form(expected_delta)
    # Integrated Gradients gives float32 here, which NumPy can read and ranking needs.
    assert form(got) == form(expected)


def test_inputs_of_different_precision_keep_their_own(input_method: Method) -> None:
    def forward(a: Tensor, b: Tensor) -> Tensor:
        total = (a.double() * b).sum(1)
        return torch.stack([total, -total], 1)

    inputs = (torch.rand(4, 3), torch.rand(4, 3, dtype=torch.float64))
    case = Case(forward, inputs, (2,), target=0)
    got = input_method.scores(case)
    assert form(got) == form(input_method.captum(case))


# --- Models that write in place -------------------------------------------------------------------


def test_a_layer_whose_output_is_overwritten(layer_method: Method) -> None:
    # Captum's toy models come in a form whose ReLU works in place.
    scores = []
    for inplace in (False, True):
        case = CASES["multi_layer"].build()
        model = BasicModel_MultiLayer(inplace=inplace)
        model.load_state_dict(case.forward.state_dict())
        scores.append(layer_method.scores(replace(case, forward=model, layer=model.linear1)))
    assert_same(scores[1], scores[0])


def test_inputs_that_the_model_overwrites(method: Method) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(3, 2)
    scores = []
    for inplace in (False, True):
        model = nn.Sequential(nn.ReLU(inplace=inplace), linear, nn.Identity())
        inputs = torch.tensor([[1.0, -1.0, 2.0], [-0.5, 0.5, 1.0], [2.0, 1.0, -3.0]])
        case = Case(model, inputs, (2,), layer=model[1], target=1, baselines=0.25)
        before = Snapshot(case)
        scores.append(method.scores(case))
        before.assert_kept()
    assert_same(scores[1], scores[0], tolerance=BATCH_TOLERANCE)


# --- Layers that are not run, or more than once ---------------------------------------------------


def test_a_layer_that_is_not_run_is_refused(layer_method: Method) -> None:
    case = CASES["multi_layer"].build()
    model: Any = case.forward
    before = Snapshot(case)
    with pytest.raises(LayerNotReachedError, match=r"^layer: .*never ran Linear"):
        layer_method.scores(replace(case, layer=model.linear1_alt))
    before.assert_kept()


def test_a_layer_without_influence_is_refused(layer_method: Method) -> None:
    # multi_input_module: this ReLU runs, but its output is dropped.
    case = CASES["tuple_layer"].build()
    model: Any = case.forward
    before = Snapshot(case)
    with pytest.raises(NoGradientError, match=r"^forward_func: .*no gradient"):
        layer_method.scores(replace(case, layer=model.relu))
    before.assert_kept()


def test_a_layer_that_is_run_twice_is_refused(layer_method: Method) -> None:
    model = BasicModelWithReusedModules()
    case = Case(model, torch.randn(4, 3), (2,), layer=model.relu, target=0)
    with pytest.raises(LayerNotReachedError, match=r"^layer: .* runs ReLU 2 times"):
        layer_method.scores(case)


class TwoTexts(nn.Module):
    """Compares two texts that are embedded by the same layer."""

    def __init__(self) -> None:
        super().__init__()
        self.reader = TokenClassifier(n_classes=4)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Logits (N, 4) of ids (N, L) and (N, M)."""
        a, b = (self.reader(ids, torch.ones_like(ids)) for ids in (first, second))
        return a - 2 * b


@pytest.fixture
def two_texts() -> Case:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = TwoTexts()
        inputs = (cases.random_ids(4, 5), cases.random_ids(4, 5))
    inputs[1][2] = inputs[0][2]
    return Case(
        model,
        inputs,
        (4,),
        layer=model.reader.embedding,
        target=1,
        baselines=(cases.MASK, cases.MASK),
        embedding_layer=model.reader.embedding,
    )


def test_two_inputs_of_one_embedding_layer(input_method: Method, two_texts: Case) -> None:
    got = input_method.scores(two_texts)
    model: Any = two_texts.forward
    reader = model.reader

    # The same with a layer for each, and with the embeddings themselves as inputs.
    def from_embeddings(a: Tensor, b: Tensor) -> Tensor:
        mask = torch.ones(a.shape[:2])
        return reader.head(a, mask) - 2 * reader.head(b, mask)

    with torch.no_grad():
        embedded = tuple(reader.embedding(ids) for ids in two_texts.inputs)
        removed = tuple(reader.embedding(b) for b in two_texts.baseline_tensors)
    expected = input_method.scores(
        replace(two_texts, forward=from_embeddings, inputs=embedded, baselines=removed)
    )
    assert_same(got, [t.sum(-1) for t in expected], tolerance=BATCH_TOLERANCE)


def test_two_inputs_that_are_equal(input_method: Method, two_texts: Case) -> None:
    # Alone, the third example has the same ids twice.
    together = input_method.scores(two_texts)
    alone = input_method.scores(two_texts.rows([2]))
    assert_same(alone, [t[2:3] for t in together], tolerance=BATCH_TOLERANCE)


# --- Hugging Face models, and wrappers around them ------------------------------------------------


def test_a_hugging_face_model_is_taken_as_it_is(method: Method) -> None:
    case = CASES["bert"].build()
    expected = method.scores(case)
    assert differs(expected, method.scores(case, target=[0, 1, 1, 0]))
    model: Any = case.forward
    words = replace(case, embedding_layer=model.get_input_embeddings())

    def closure(ids: Tensor, attention_mask: Tensor) -> Tensor:
        return model(ids, attention_mask=attention_mask).logits

    # DataParallel is looked through; a closure needs the embedding layer.
    for wrapped in (
        replace(case, forward=nn.DataParallel(model)),
        replace(words, forward=closure),
        replace(words, forward=functools.partial(model, return_dict=True)),
        replace(words, forward=case.tensor_forward),
    ):
        assert_same(method.scores(wrapped), expected)


def test_embeddings_can_be_given_to_a_hugging_face_model(input_method: Method) -> None:
    case = CASES["bert"].build()
    model: Any = case.forward
    words = model.get_input_embeddings()
    with torch.no_grad():
        embedded, removed = words(case.inputs), words(case.baselines)
    floats = replace(
        case,
        forward=lambda e, attention_mask: model(inputs_embeds=e, attention_mask=attention_mask),
        inputs=embedded,
        baselines=removed,
    )
    (got,) = input_method.scores(floats)
    assert_same(got.sum(-1), input_method.scores(case), tolerance=BATCH_TOLERANCE)


class AttentionMasker(KnownMasker):
    """Proposes by the forward function's attention mask alone."""

    def forward(self, inputs: MaskerInputs) -> tuple[Tensor, ...]:
        """1 for what is attended to, -1 for the rest; 0 where it is not given."""
        (token,) = super().forward(inputs)
        if inputs.attention_mask is None:
            return (torch.zeros_like(token),)
        return (self.scale * 3 * (2.0 * inputs.attention_mask - 1),)


def test_a_masker_is_given_the_attention_mask_through_wrappers(method: Method) -> None:
    case = CASES["bert"].build()
    # Every position differs from its baseline, also what is not attended to.
    case = replace(case, inputs=case.inputs.clamp(min=2), baselines=cases.MASK, tensor_forward=None)
    model: Any = case.forward
    masker = AttentionMasker()
    settings = {"masker": masker, "embedding_layer": model.get_input_embeddings()}
    if method.at_layer:
        del settings["embedding_layer"]
    (attention,) = case.args
    for name, forward in {
        "plain": model,
        "DataParallel": nn.DataParallel(model),
        "partial": functools.partial(model, return_dict=True),
    }.items():
        attribution = method(replace(case, forward=forward), **settings)
        scores = attribution.attribute(case.inputs, **case.call)
        by_token = scores.sum(-1) if method.at_layer else scores
        expected = torch.sigmoid(2.0 * attention - 1)
        torch.testing.assert_close(
            by_token, expected, rtol=1e-5, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}"
        )


# --- Arguments of the constructors ----------------------------------------------------------------


@pytest.mark.parametrize("layer", ["linear", (nn.ReLU(),), [], [nn.ReLU(), "linear"]])
def test_a_layer_must_be_a_module(layer: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"^layer: expected .* got"):
        LayerAMLAttribution(ReLULinearModel(), layer)


def test_an_embedding_layer_must_be_a_module() -> None:
    with pytest.raises(InvalidInputError, match=r"^embedding_layer: expected .* got str"):
        AMLAttribution(ReLULinearModel(), embedding_layer="words")  # type: ignore[arg-type]


def test_as_many_embedding_layers_as_inputs_of_ids(two_texts: Case) -> None:
    layer = two_texts.embedding_layer
    attribution = AMLAttribution(two_texts.forward, embedding_layer=(layer,) * 3)
    with pytest.raises(InvalidInputError, match=r"^embedding_layer: .*for each of the 2 .*got 3"):
        attribution.attribute(two_texts.inputs, n_steps=1, **two_texts.call)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("output", "softmax"),
        ("scores", "signed"),
        ("perturbation", "delete"),
        ("perturbation", 3),
        ("learning_rate", 0.0),
        ("learning_rate", -0.1),
        ("learning_rate", float("nan")),
        ("learning_rate", "fast"),
        ("objective", "aml"),
        ("masker", lambda inputs: inputs),
        ("seed", "zero"),
        ("seed", None),
    ],
)
def test_a_wrong_setting_is_refused_at_once(method: Method, name: str, value: Any) -> None:
    case = CASES["multi_layer"].build()
    with pytest.raises(InvalidInputError, match=rf"^{name}: expected .*got"):
        method(case, **{name: value})


def test_what_is_explained_must_be_callable() -> None:
    with pytest.raises(InvalidInputError, match=r"^forward_func: expected .*got"):
        AMLAttribution(None)  # type: ignore[arg-type]


def test_names() -> None:
    names = {m.cls.__name__: m.cls.get_name() for m in METHODS.values()}
    assert names == {
        "AMLAttribution": "AML",
        "LAAttribution": "LA",
        "LayerAMLAttribution": "Layer AML",
        "LayerLAAttribution": "Layer LA",
    }
