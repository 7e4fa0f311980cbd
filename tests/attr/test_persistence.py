"""Saving and loading through the attribution classes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import ElectraConfig, ElectraForSequenceClassification

from captum_aml import AMLAttribution, AMLObjective, LayerAMLAttribution, TransformerMasker
from captum_aml.exceptions import CheckpointError, NotFittedError
from captum_aml.perturbation import Blend
from tests._helpers.cases import CASES, Case, TokenClassifier, bert_model, random_ids
from tests._helpers.checks import METHODS, KnownMasker, Method, assert_same, differs, flat


@pytest.fixture(params=METHODS.values(), ids=METHODS.keys())
def method(request: pytest.FixtureRequest) -> Method:
    return request.param


def _fitted(method: Method, case: Case, **settings: Any) -> Any:
    batch = {"inputs": case.inputs, **case.call}
    return method(case, **settings).fit([batch], epochs=2, learning_rate=0.01)


def _loaded(method: Method, case: Case, folder: Path, **settings: Any) -> Any:
    settings = {**method.where(case), **method.loading, **settings}
    return method.cls.from_pretrained(folder, case.forward, **settings)


def _seeded(build: Callable[[], Any]) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        return build()


# --- The same scores again ------------------------------------------------------------------------


def test_a_transformer_masker_comes_back(method: Method, tmp_path: Path) -> None:
    case = CASES["bert"].build()
    masker = _seeded(lambda: TransformerMasker.from_model(case.forward))
    attribution = _fitted(method, case, masker=masker)
    expected = attribution.attribute(case.inputs, **case.call)
    attribution.save_pretrained(tmp_path)
    loaded = _loaded(method, case, tmp_path)
    assert loaded.is_fitted
    assert_same(loaded.attribute(case.inputs, **case.call), expected)
    assert loaded.history_ is None


def test_what_fitting_took_comes_back(method: Method, tmp_path: Path) -> None:
    case = CASES["text"].build()
    attribution = _fitted(method, case)
    cost = attribution.training_cost_
    assert (cost.n_examples, cost.epochs) == (len(case.inputs), 2)
    assert 0 < cost.seconds < 60
    attribution.save_pretrained(tmp_path)
    assert _loaded(method, case, tmp_path).training_cost_ == cost


def test_a_masker_of_the_users_own_comes_back(method: Method, tmp_path: Path) -> None:
    case = CASES["text"].build()
    attribution = _fitted(method, case, masker=KnownMasker())
    expected = attribution.attribute(case.inputs, **case.call)
    untouched = method(case, masker=KnownMasker()).attribute(case.inputs, **case.call)
    assert differs(flat(expected), flat(untouched))
    attribution.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"^masker: .*pass masker="):
        _loaded(method, case, tmp_path)
    loaded = _loaded(method, case, tmp_path, masker=KnownMasker())
    assert_same(loaded.attribute(case.inputs, **case.call), expected)
    with pytest.raises(CheckpointError, match=r"^masker: "):
        _loaded(method, case, tmp_path, masker=nn.Linear(3, 3))


def test_what_was_learned_comes_back_with_how(method: Method, tmp_path: Path) -> None:
    case = CASES["text"].build()
    attribution = _fitted(method, case, output="logits")
    attribution.save_pretrained(tmp_path)
    loaded = _loaded(method, case, tmp_path)
    assert loaded.objective == method.objective
    assert loaded.output == "logits"
    # What "auto" was fitted through.
    assert loaded.perturbation == Blend()
    # What is given now replaces what was saved.
    replaced = _loaded(method, case, tmp_path, output="auto")
    assert replaced.output == "auto"


def test_saving_again_replaces(method: Method, tmp_path: Path) -> None:
    case = CASES["text"].build()
    attribution = _fitted(method, case)
    attribution.save_pretrained(tmp_path)
    first = attribution.attribute(case.inputs, **case.call)
    batch = {"inputs": case.inputs, **case.call}
    attribution.fit([batch], epochs=3, learning_rate=0.02)
    second = attribution.attribute(case.inputs, **case.call)
    assert differs(flat(second), flat(first))
    attribution.save_pretrained(tmp_path)
    assert_same(_loaded(method, case, tmp_path).attribute(case.inputs, **case.call), second)
    assert len(list(tmp_path.iterdir())) == 2


def test_there_must_be_something_to_save(method: Method, tmp_path: Path) -> None:
    case = CASES["text"].build()
    with pytest.raises(NotFittedError, match="nothing to save"):
        method(case).save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


# --- The same model is recognized, another one refused --------------------------------------------


class Narrow(nn.Module):
    """Embeddings that are widened before they are read, as ALBERT's are."""

    def __init__(self, n_tokens: int = 20) -> None:
        super().__init__()
        self.words = nn.Embedding(n_tokens, 4)
        self.widen = nn.Linear(4, 6)
        self.out = nn.Linear(6, 2)

    def get_input_embeddings(self) -> nn.Module:
        """The word embeddings."""
        return self.words

    def forward(self, ids: Tensor) -> Tensor:
        """Logits (N, 2) of ids (N, L)."""
        return self.out(torch.tanh(self.widen(self.words(ids))).sum(1))


def _narrow() -> Case:
    model = Narrow()
    return Case(model, random_ids(4, 5), (2,), layer=model.widen, target=1)


def _regression() -> Case:
    model = bert_model(n_labels=1)
    return Case(
        model, random_ids(4, 5), (1,), layer=model.bert.embeddings, args=(torch.ones(4, 5),)
    )


def _three_labels() -> Case:
    model = bert_model(n_labels=3)
    return Case(
        model,
        random_ids(4, 5),
        (3,),
        layer=model.bert.embeddings,
        target=2,
        args=(torch.ones(4, 5),),
    )


@pytest.mark.parametrize(
    ("build", "settings"),
    [
        (_narrow, {}),
        (_regression, {}),
        (_three_labels, {}),
        # The one value that the target picks has a distribution of two outcomes.
        (_three_labels, {"output": "value"}),
    ],
    ids=["layer-wider-than-embeddings", "regression", "three-labels", "value-of-three-labels"],
)
def test_the_model_it_was_fitted_for_is_recognized(
    method: Method, tmp_path: Path, build: Callable[[], Case], settings: dict[str, Any]
) -> None:
    case = _seeded(build)
    attribution = _fitted(method, case, **settings)
    expected = attribution.attribute(case.inputs, **case.call)
    attribution.save_pretrained(tmp_path)
    assert_same(_loaded(method, case, tmp_path).attribute(case.inputs, **case.call), expected)


@pytest.mark.parametrize(
    ("other", "field"),
    [
        ({"n_tokens": 21}, "vocab_size=20.*vocab_size=21"),
        ({"n_channels": 6}, "embedding_dim=5.*embedding_dim=6"),
        ({"n_classes": 4}, "n_classes=3.*n_classes=4"),
    ],
    ids=["vocabulary", "width", "classes"],
)
def test_another_model_is_refused(
    method: Method, tmp_path: Path, other: dict[str, int], field: str
) -> None:
    case = CASES["text"].build()
    attribution = _fitted(method, case)
    attribution.save_pretrained(tmp_path)
    model = _seeded(lambda: TokenClassifier(**other))
    another = replace(case, forward=model, layer=model.embedding, embedding_layer=model.embedding)
    # The number of classes is not known before the model is run.
    with pytest.raises(CheckpointError, match=f"^masker: .*{field}") as raised:
        _loaded(method, another, tmp_path).attribute(case.inputs, **case.call)
    assert isinstance(raised.value, ValueError)


def test_another_hugging_face_model_is_refused_at_once(method: Method, tmp_path: Path) -> None:
    case = _seeded(_three_labels)
    _fitted(method, case).save_pretrained(tmp_path)
    for model, field in (
        (_seeded(bert_model), "n_classes=3.*n_classes=2"),
        (_seeded(lambda: bert_model(n_labels=3, vocab_size=25)), "vocab_size=20.*vocab_size=25"),
    ):
        another = replace(case, forward=model, layer=model.bert.embeddings)
        with pytest.raises(CheckpointError, match=f"^masker: .*{field}"):
            _loaded(method, another, tmp_path)


@pytest.mark.parametrize(
    ("other", "field"),
    [
        ({"num_hidden_layers": 1}, "num_hidden_layers=2.*num_hidden_layers=1"),
        ({"hidden_size": 12, "embedding_size": 4}, "hidden_size=8.*hidden_size=12"),
    ],
    ids=["layers", "hidden-size"],
)
def test_a_model_of_other_layers_is_refused(
    method: Method, tmp_path: Path, other: dict[str, int], field: str
) -> None:
    # Embeddings, vocabulary and classes are alike, so that nothing else tells them apart.
    def electra(**settings: int) -> Any:
        common = {"vocab_size": 20, "embedding_size": 4, "num_attention_heads": 2}
        sizes = {"hidden_size": 8, "num_hidden_layers": 2, "intermediate_size": 8, **settings}
        return ElectraForSequenceClassification(ElectraConfig(**{**common, **sizes})).eval()

    model = _seeded(electra)
    case = Case(
        model,
        random_ids(4, 5),
        (2,),
        layer=model.get_input_embeddings(),
        target=1,
        args=(torch.ones(4, 5),),
    )
    _fitted(method, case).save_pretrained(tmp_path)
    another = _seeded(lambda: electra(**other))
    with pytest.raises(CheckpointError, match=f"^masker: .*{field}"):
        _loaded(
            method,
            replace(case, forward=another, layer=another.get_input_embeddings()),
            tmp_path,
        )


def test_another_architecture_is_refused(method: Method, tmp_path: Path) -> None:
    case = _seeded(_three_labels)
    _fitted(method, case).save_pretrained(tmp_path)
    model = _seeded(lambda: ElectraForSequenceClassification(_electra_like(case.forward.config)))
    another = replace(case, forward=model, layer=model.electra.embeddings)
    with pytest.raises(CheckpointError, match=r"^masker: .*model_type=bert.*model_type=electra"):
        _loaded(method, another, tmp_path)


def _electra_like(config: Any) -> ElectraConfig:
    settings = {k: v for k, v in config.to_dict().items() if k not in ("model_type", "dtype")}
    return ElectraConfig(**{**settings, "embedding_size": config.hidden_size})


def test_a_masker_of_the_other_method_is_refused(tmp_path: Path) -> None:
    case = CASES["text"].build()
    _fitted(METHODS["AMLAttribution"], case).save_pretrained(tmp_path)
    for name in ("LAAttribution", "LayerLAAttribution"):
        with pytest.raises(CheckpointError, match=r"'aml'.*'la'"):
            _loaded(METHODS[name], case, tmp_path)


def test_inputs_and_their_embedding_layer_share_a_masker(tmp_path: Path) -> None:
    case = CASES["text"].build()
    attribution = _fitted(METHODS["AMLAttribution"], case)
    expected = attribution.attribute(case.inputs, **case.call)
    attribution.save_pretrained(tmp_path)
    loaded = _loaded(METHODS["LayerAMLAttribution"], case, tmp_path)
    got = loaded.attribute(case.inputs, **case.call)
    assert_same(got.sum(-1), expected, tolerance=1e-6)


# --- Damage ---------------------------------------------------------------------------------------


def _truncate(folder: Path) -> None:
    (weights,) = folder.glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-10])


def _flip(folder: Path) -> None:
    (weights,) = folder.glob("*.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 255
    weights.write_bytes(content)


def _no_weights(folder: Path) -> None:
    (weights,) = folder.glob("*.safetensors")
    weights.unlink()


def _edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        change(config)
        (folder / "config.json").write_text(json.dumps(config))

    return damage


DAMAGES: dict[str, Callable[[Path], object]] = {
    "weights-truncated": _truncate,
    "weights-flipped": _flip,
    "weights-missing": _no_weights,
    "config-missing": lambda f: (f / "config.json").unlink(),
    "config-truncated": lambda f: (f / "config.json").write_text('{"format": '),
    "config-not-text": lambda f: (f / "config.json").write_bytes(b"\xff\xfe\x00"),
    "config-a-list": lambda f: (f / "config.json").write_text("[]"),
    "foreign": lambda f: (f / "config.json").write_text('{"model_type": "bert"}'),
    "newer": _edit(lambda c: c.update(format_version=99)),
    "no-fingerprint": _edit(lambda c: c.pop("fingerprint")),
    "other-fingerprint": _edit(lambda c: c["fingerprint"].update(colour=3)),
    "outside": _edit(lambda c: c["weights"].update(file="../masker.safetensors")),
    "unknown-masker": _edit(lambda c: c["masker"].update(type="unknown")),
    "other-size": _edit(lambda c: c["masker"]["config"].update(hidden_size=3)),
    "bad-objective": _edit(lambda c: c["settings"]["objective"].update(size_weight=-1)),
    "unknown-objective": _edit(lambda c: c["settings"]["objective"].update(name="other")),
    "bad-output": _edit(lambda c: c["settings"].update(output="other")),
    "bad-perturbation": _edit(lambda c: c["settings"].update(perturbation="other")),
    "settings-a-list": _edit(lambda c: c.update(settings=[])),
    "masker-a-text": _edit(lambda c: c.update(masker="embedding")),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_folder_is_refused(tmp_path: Path, name: str) -> None:
    case = CASES["text"].build()
    method = METHODS["LayerAMLAttribution"]
    _fitted(method, case).save_pretrained(tmp_path)
    DAMAGES[name](tmp_path)
    with pytest.raises(CheckpointError):
        _loaded(method, case, tmp_path)


def test_a_folder_must_be_a_folder(tmp_path: Path) -> None:
    case = CASES["text"].build()
    attribution = _fitted(METHODS["AMLAttribution"], case)
    file = tmp_path / "file"
    file.write_text("something else")
    with pytest.raises(CheckpointError, match=r"^folder: expected a folder, got"):
        attribution.save_pretrained(file)
    assert file.read_text() == "something else"


# --- Objectives -----------------------------------------------------------------------------------


def test_weights_of_the_objective_come_back(tmp_path: Path) -> None:
    case = CASES["text"].build()
    objective = AMLObjective(
        prediction_weight=0.5, inverse_weight=0.25, size_weight=2.0, size_penalty="l1", eps=1e-4
    )
    aml = LayerAMLAttribution(case.forward, case.layer, objective=objective)
    aml.fit([{"inputs": case.inputs, **case.call}], epochs=1).save_pretrained(tmp_path)
    loaded = LayerAMLAttribution.from_pretrained(tmp_path, case.forward, case.layer)
    assert loaded.objective == objective
    other = AMLAttribution.from_pretrained(
        tmp_path, case.forward, embedding_layer=case.layer, objective=AMLObjective()
    )
    assert other.objective == AMLObjective()
