"""A fitted masker on disk: what is written comes back, and anything damaged is refused."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_aml import AMLAttribution, AMLObjective, LAAttribution, LAObjective
from captum_aml.attr.persistence import (
    objective_description,
    rebuild_objective,
)
from captum_aml.exceptions import CheckpointError
from captum_aml.maskers import (
    Checkpoint,
    EmbeddingMasker,
    MaskerInputs,
    ModelFingerprint,
    TrainingCost,
    TransformerMasker,
)
from captum_aml.maskers.registry import describe_masker, rebuild_masker
from tests._helpers import processes
from tests._helpers.models import PlantedClassifier, planted_texts, tiny_encoder


def checkpoint_of(seed: int = 0, **changes: Any) -> Checkpoint:
    g = torch.Generator().manual_seed(seed)
    masker = EmbeddingMasker(feature_shapes=[(5, 4)], n_classes=2, hidden_size=3)
    tensors = {k: torch.rand(v.shape, generator=g) for k, v in masker.state_dict().items()}
    plain = Checkpoint(
        method="aml",
        masker=describe_masker(masker),
        settings={"objective": {"name": "aml", "size_weight": 0.5}, "output": "auto"},
        fingerprint=ModelFingerprint(embedding_dim=4, vocab_size=30, n_classes=2),
        tensors=tensors,
        training=TrainingCost(n_examples=20, epochs=3, seconds=1.25),
    )
    return replace(plain, **changes)


def same(a: Checkpoint, b: Checkpoint) -> bool:
    plain = replace(a, tensors={}) == replace(b, tensors={})
    return (
        plain
        and a.tensors.keys() == b.tensors.keys()
        and all(torch.equal(a.tensors[k], b.tensors[k]) for k in a.tensors)
    )


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    folder = tmp_path / "masker"
    checkpoint_of().save(folder)
    return folder


def weights_file(folder: Path) -> Path:
    (file,) = folder.glob("*.safetensors")
    return file


def edit_config(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    change(config)
    # Signed again: what is wrong is its content, not that it was changed.
    content = {k: v for k, v in config.items() if k != "sha256"}
    config["sha256"] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    file.write_text(json.dumps(config), encoding="utf-8")


# What is written comes back


def test_a_round_trip_gives_everything_back(tmp_path: Path) -> None:
    given = checkpoint_of()
    given.save(tmp_path / "new" / "folder")
    assert same(Checkpoint.load(tmp_path / "new" / "folder"), given)
    assert same(Checkpoint.load(str(tmp_path / "new" / "folder")), given)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64])
def test_dtypes_and_layouts_survive(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {
        "transposed": torch.arange(6).reshape(2, 3).T.to(dtype),
        "scalar": torch.tensor(3).to(dtype),
        "empty": torch.zeros(0, 2, dtype=dtype),
    }
    checkpoint_of(tensors=tensors).save(tmp_path)
    loaded = Checkpoint.load(tmp_path).tensors
    for name, tensor in tensors.items():
        assert loaded[name].dtype == dtype
        assert torch.equal(loaded[name], tensor)


def test_weights_that_share_memory_survive(tmp_path: Path) -> None:
    """Tied weights, as many language models have them."""
    shared = torch.rand(3, 2)
    checkpoint_of(tensors={"a": shared, "b": shared, "view": shared[0]}).save(tmp_path)
    loaded = Checkpoint.load(tmp_path).tensors
    assert torch.equal(loaded["a"], shared)
    assert torch.equal(loaded["b"], shared)
    assert torch.equal(loaded["view"], shared[0])


def test_text_in_any_script_survives(tmp_path: Path) -> None:
    given = checkpoint_of(settings={"name": '日本語 🎬 "quoted" \\ \n'})
    given.save(tmp_path / "映画")
    assert same(Checkpoint.load(tmp_path / "映画"), given)


def test_a_masker_for_many_labels_survives(tmp_path: Path) -> None:
    """JSON makes text of number keys, and "10" comes before "2"."""
    names = {i: f"label {i}" for i in range(12)}
    model = tiny_encoder("bert", n_labels=12)
    model.config.id2label = dict(names)
    masker = TransformerMasker.from_model(model)
    checkpoint_of(
        masker=describe_masker(masker),
        settings={"names": names},
        tensors=copy.deepcopy(masker.state_dict()),
    ).save(tmp_path)
    loaded = Checkpoint.load(tmp_path)
    assert loaded.settings == {"names": {str(i): name for i, name in names.items()}}
    again = rebuild_masker(loaded, None)
    assert isinstance(again, TransformerMasker)
    assert again.prediction.classes.shape[0] == 12


def test_the_folder_holds_two_files_and_no_code(saved: Path) -> None:
    names = sorted(f.name for f in saved.iterdir())
    assert names == ["config.json", weights_file(saved).name]
    config = json.loads((saved / "config.json").read_text(encoding="utf-8"))
    assert config["weights"]["file"] == weights_file(saved).name


def test_saving_again_replaces_the_old_masker(saved: Path) -> None:
    second = checkpoint_of(seed=1, method="la")
    second.save(saved)
    assert same(Checkpoint.load(saved), second)
    assert len(list(saved.iterdir())) == 2


def test_saving_the_same_again_keeps_it(saved: Path) -> None:
    before = {f.name: f.read_bytes() for f in saved.iterdir()}
    checkpoint_of().save(saved)
    assert {f.name: f.read_bytes() for f in saved.iterdir()} == before


def test_other_files_of_the_folder_stay(saved: Path) -> None:
    (saved / "README.md").write_text("mine")
    (saved / "model.safetensors").write_bytes(b"mine too")
    checkpoint_of(seed=1).save(saved)
    assert (saved / "README.md").read_text() == "mine"
    assert (saved / "model.safetensors").read_bytes() == b"mine too"


# A crash


@pytest.mark.parametrize("at_write", [1, 2])
def test_a_crash_while_saving_leaves_the_old_masker(
    saved: Path, monkeypatch: pytest.MonkeyPatch, at_write: int
) -> None:
    """The weights are the first file that takes its name, the configuration the second."""
    named: list[str] = []
    replace_file = os.replace

    def crash(source: Any, target: Any) -> None:
        named.append(Path(target).suffix)
        if len(named) == at_write:
            raise OSError("no space left on device")
        replace_file(source, target)

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(OSError, match="no space left"):
        checkpoint_of(seed=1).save(saved)
    monkeypatch.undo()
    assert named == [".safetensors", ".json"][:at_write]
    assert same(Checkpoint.load(saved), checkpoint_of())
    # The next save clears up what the crash left.
    checkpoint_of(seed=2).save(saved)
    assert same(Checkpoint.load(saved), checkpoint_of(seed=2))
    assert len(list(saved.iterdir())) == 2


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failed_write_leaves_no_temporary_file(
    saved: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("disk gone")

    before = {f.name: f.read_bytes() for f in saved.iterdir()}
    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="disk gone"):
        checkpoint_of(seed=1).save(saved)
    monkeypatch.undo()
    assert {f.name: f.read_bytes() for f in saved.iterdir()} == before


def test_settings_that_are_no_json_leave_the_old_masker(saved: Path) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        checkpoint_of(seed=1, settings={"what": object()}).save(saved)
    assert same(Checkpoint.load(saved), checkpoint_of())
    assert len(list(saved.iterdir())) == 2


# Damage


@pytest.mark.parametrize("part", [0.0, 0.001, 0.25, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("which", ["weights", "config"])
def test_a_truncated_file_is_refused(saved: Path, which: str, part: float) -> None:
    file = weights_file(saved) if which == "weights" else saved / "config.json"
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(CheckpointError, match="damaged or truncated") as caught:
        Checkpoint.load(saved)
    assert file.name in str(caught.value)


def test_a_flipped_byte_of_the_weights_is_refused_wherever_it_is(saved: Path) -> None:
    file = weights_file(saved)
    content = file.read_bytes()
    places = {0, 7, 8, 20, len(content) // 2, len(content) - 1}
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 0x01
        file.write_bytes(bytes(damaged))
        with pytest.raises(CheckpointError, match="damaged or truncated"):
            Checkpoint.load(saved)


def loads_with_flipped_bytes(folder: Path, bit: int) -> list[tuple[int, Checkpoint]]:
    """What loads, and is not what was saved, with one byte of the configuration changed."""
    file = folder / "config.json"
    content = file.read_bytes()
    accepted = []
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= bit
        file.write_bytes(bytes(damaged))
        try:
            loaded = Checkpoint.load(folder)
        except CheckpointError:
            continue
        if not same(loaded, checkpoint_of()):
            accepted.append((place, loaded))
    return accepted


def test_a_flipped_byte_that_is_no_text_is_refused_wherever_it_is(saved: Path) -> None:
    assert loads_with_flipped_bytes(saved, 0x80) == []


def test_a_flipped_byte_in_the_configuration_is_refused_wherever_it_is(saved: Path) -> None:
    """A changed digit in a setting or a fingerprint must not be taken for what was saved."""
    content = (saved / "config.json").read_bytes()
    accepted = loads_with_flipped_bytes(saved, 0x01)
    assert [content[max(0, place - 20) : place + 1] for place, _ in accepted] == []


def test_a_missing_file_is_named(saved: Path) -> None:
    name = weights_file(saved).name
    weights_file(saved).unlink()
    with pytest.raises(CheckpointError, match="weights cannot be read") as caught:
        Checkpoint.load(saved)
    assert name in str(caught.value)
    (saved / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"expected a masker folder, .* no config\.json"):
        Checkpoint.load(saved)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"masker: '.*nowhere' is neither a folder here"):
        Checkpoint.load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "content",
    [
        b"{}",
        b"[]",
        b'"captum_aml.masker"',
        b"null",
        b'{"architectures": ["BertModel"], "model_type": "bert"}',
        b'{"format": "another"}',
    ],
)
def test_foreign_json_is_refused(saved: Path, content: bytes) -> None:
    (saved / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"config\.json: this is not a masker saved by"):
        Checkpoint.load(saved)


@pytest.mark.parametrize("content", [b"\xff\xfe{", b"not json", b"{'format': 1}", b"\x00" * 20])
def test_what_is_no_json_is_refused(saved: Path, content: bytes) -> None:
    (saved / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"config\.json: damaged or truncated"):
        Checkpoint.load(saved)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_format_version_is_refused(saved: Path, version: Any) -> None:
    edit_config(saved, lambda c: c.update(format_version=version))
    with pytest.raises(CheckpointError, match=rf"expected format version 1, got {version!r}"):
        Checkpoint.load(saved)


@pytest.mark.parametrize(
    "name",
    [
        "../outside.safetensors",
        "/etc/outside.safetensors",
        "sub/inside.safetensors",
        "..",
        "weights.bin",
        "masker.safetensors.pkl",
        "",
    ],
)
def test_a_weights_name_that_leaves_the_folder_is_refused(saved: Path, name: str) -> None:
    (saved.parent / "outside.safetensors").write_bytes(weights_file(saved).read_bytes())
    edit_config(saved, lambda c: c["weights"].update(file=name))
    with pytest.raises(CheckpointError, match="expected a weights file name, got"):
        Checkpoint.load(saved)


def test_a_file_with_the_right_checksum_that_holds_no_tensors_is_refused(saved: Path) -> None:
    junk = b"junk" * 10
    weights_file(saved).write_bytes(junk)
    digest = hashlib.sha256(junk).hexdigest()
    edit_config(saved, lambda c: c["weights"].update(sha256=digest))
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        Checkpoint.load(saved)


MALFORMED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no weights": lambda c: c.pop("weights"),
    "no checksum": lambda c: c["weights"].pop("sha256"),
    "weights are text": lambda c: c.update(weights="masker.safetensors"),
    "file is a number": lambda c: c["weights"].update(file=5),
    "file is null": lambda c: c["weights"].update(file=None),
    "no fingerprint": lambda c: c.pop("fingerprint"),
    "fingerprint is a list": lambda c: c.update(fingerprint=[1, 2, 3]),
    "fingerprint lacks a field": lambda c: c["fingerprint"].pop("vocab_size"),
    "fingerprint has another field": lambda c: c["fingerprint"].update(hair="brown"),
    "vocabulary size is text": lambda c: c["fingerprint"].update(vocab_size="many"),
    "no method": lambda c: c.pop("method"),
    "method is a list": lambda c: c.update(method=["aml"]),
    "no masker": lambda c: c.pop("masker"),
    "masker is text": lambda c: c.update(masker="embedding"),
    "masker config is a list": lambda c: c["masker"].update(config=[1]),
    "masker config lacks fields": lambda c: c["masker"].update(config={"hidden_size": 3}),
    "masker shapes are a number": lambda c: c["masker"].update(
        config={**c["masker"]["config"], "feature_shapes": 7}
    ),
    "unknown masker": lambda c: c["masker"].update(type="unheard of"),
    "no settings": lambda c: c.pop("settings"),
    "settings are a list": lambda c: c.update(settings=[1]),
    "settings are text": lambda c: c.update(settings="auto"),
    "objective is text": lambda c: c["settings"].update(objective="aml"),
    "unknown objective": lambda c: c["settings"].update(objective={"name": "unheard of"}),
    "objective without a name": lambda c: c["settings"].update(objective={"size_weight": 1.0}),
    "objective with another field": lambda c: c["settings"].update(
        objective={"name": "aml", "hair": 1.0}
    ),
    "objective with a bad weight": lambda c: c["settings"].update(
        objective={"name": "aml", "size_weight": -1.0}
    ),
    "no version": lambda c: c.pop("captum_aml_version"),
}


@pytest.mark.parametrize("change", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_configuration_is_a_checkpoint_error(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any]
) -> None:
    """Whatever a file holds, the message says that the file is wrong."""
    fitted().save_pretrained(tmp_path)
    edit_config(tmp_path, change)
    with pytest.raises(CheckpointError):
        AMLAttribution.from_pretrained(tmp_path, PlantedClassifier())


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(CheckpointError, match=r"folder: expected a folder, got the file .*file"):
        checkpoint_of().save(file)
    assert file.read_text() == "mine"


# Fingerprints

FINGERPRINT = ModelFingerprint(embedding_dim=4, vocab_size=30, n_classes=2)


@pytest.mark.parametrize("field", ["embedding_dim", "vocab_size", "n_classes"])
def test_a_field_that_differs_is_named_with_both_values(field: str) -> None:
    saved_value = getattr(FINGERPRINT, field)
    with pytest.raises(CheckpointError) as caught:
        FINGERPRINT.check(replace(FINGERPRINT, **{field: 77}))
    assert f"{field}={saved_value}" in str(caught.value)
    assert f"{field}=77" in str(caught.value)


def test_what_is_not_known_is_not_compared() -> None:
    FINGERPRINT.check(FINGERPRINT)
    FINGERPRINT.check(ModelFingerprint(None, None, None))
    ModelFingerprint(None, None, None).check(FINGERPRINT)


# Maskers and objectives


def fitted(cls: Any = AMLAttribution, **settings: Any) -> Any:
    ids, _ = planted_texts(16, 5, seed=0)
    return cls(PlantedClassifier(), **settings).fit([ids], epochs=1, learning_rate=1e-2)


@pytest.mark.parametrize("cls", [AMLAttribution, LAAttribution])
def test_a_fitted_attribution_comes_back_with_the_same_scores(tmp_path: Path, cls: Any) -> None:
    attribution = fitted(cls)
    attribution.save_pretrained(tmp_path)
    loaded = cls.from_pretrained(tmp_path, PlantedClassifier())
    ids, _ = planted_texts(8, 5, seed=1)
    assert torch.equal(loaded.attribute(ids), attribution.attribute(ids))
    assert loaded.is_fitted


def test_settings_come_back_and_can_be_replaced(tmp_path: Path) -> None:
    objective = AMLObjective(size_weight=0.25, size_penalty="l1")
    fitted(objective=objective, output="logits").save_pretrained(tmp_path)
    loaded = AMLAttribution.from_pretrained(tmp_path, PlantedClassifier())
    assert loaded.objective == objective
    assert loaded.output == "logits"
    other = AMLAttribution.from_pretrained(tmp_path, PlantedClassifier(), output="auto")
    assert other.output == "auto"


def test_the_other_method_is_named(tmp_path: Path) -> None:
    fitted().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"masker: .* method 'aml', but this is 'la'"):
        LAAttribution.from_pretrained(tmp_path, PlantedClassifier())


def test_a_model_with_another_vocabulary_is_named(tmp_path: Path) -> None:
    fitted().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"vocab_size=30, .* vocab_size=40"):
        AMLAttribution.from_pretrained(tmp_path, PlantedClassifier(vocabulary_size=40))


@pytest.mark.parametrize("kind", ["embedding", "transformer"])
def test_a_masker_is_rebuilt_from_its_description(tmp_path: Path, kind: str) -> None:
    masker: nn.Module
    if kind == "embedding":
        masker = EmbeddingMasker(feature_shapes=[(5, 4)], n_classes=2, hidden_size=3)
    else:
        masker = TransformerMasker.from_model(tiny_encoder("distilbert", n_labels=2))
    given = checkpoint_of(
        masker=describe_masker(masker), tensors=copy.deepcopy(masker.state_dict())
    )
    given.save(tmp_path)
    again = rebuild_masker(Checkpoint.load(tmp_path), None)
    assert type(again) is type(masker)
    state = again.state_dict()
    assert state.keys() == masker.state_dict().keys()
    assert all(torch.equal(state[k], v) for k, v in masker.state_dict().items())


class Own(nn.Module):
    """A masker of the user's own."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1)
        self.again = nn.Linear(width, 1)
        self.again.weight = self.score.weight

    def forward(self, inputs: MaskerInputs) -> Tensor:
        return (self.score(inputs.features[0]) - self.again(inputs.features[0] / 2)).squeeze(-1)


def test_a_masker_of_ones_own_needs_a_module_to_load_into(tmp_path: Path) -> None:
    attribution = fitted(masker=Own())
    attribution.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"masker: .* type 'custom'.* pass masker="):
        AMLAttribution.from_pretrained(tmp_path, PlantedClassifier())
    loaded = AMLAttribution.from_pretrained(tmp_path, PlantedClassifier(), masker=Own())
    ids, _ = planted_texts(8, 5, seed=1)
    assert torch.equal(loaded.attribute(ids), attribution.attribute(ids))
    with pytest.raises(CheckpointError, match=r"masker: .* cannot be rebuilt"):
        AMLAttribution.from_pretrained(tmp_path, PlantedClassifier(), masker=Own(9))


@pytest.mark.parametrize(
    "objective",
    [AMLObjective(), AMLObjective(size_penalty="l1", eps=0.01), LAObjective(inverse_weight=3.0)],
)
def test_objectives_are_described_and_rebuilt(objective: Any) -> None:
    description = json.loads(json.dumps(objective_description(objective)))
    again = rebuild_objective(description)
    assert again == objective
    assert type(again) is type(objective)


def test_an_objective_of_ones_own_is_not_described() -> None:
    class Mine(AMLObjective):
        pass

    assert objective_description(Mine()) == {"name": "custom"}


def test_an_objective_of_ones_own_is_not_silently_replaced(tmp_path: Path) -> None:
    """A masker fitted with another loss, then tuned with the default one, is a half result."""

    class Mine(AMLObjective):
        pass

    fitted(objective=Mine(size_weight=0.1)).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="objective"):
        AMLAttribution.from_pretrained(tmp_path, PlantedClassifier())
    mine = Mine(size_weight=0.1)
    loaded = AMLAttribution.from_pretrained(tmp_path, PlantedClassifier(), objective=mine)
    assert loaded.objective is mine


def _save_often(folder: Path, seed: int) -> None:
    for _ in range(40):
        checkpoint_of(seed=seed).save(folder)


def test_two_processes_that_save_to_one_folder_leave_a_whole_masker(tmp_path: Path) -> None:
    folder = tmp_path / "masker"
    writers = [processes.start(_save_often, folder, seed) for seed in (1, 2)]
    assert [processes.exit_code(writer) for writer in writers] == [0, 0]
    loaded = Checkpoint.load(folder)
    assert any(same(loaded, checkpoint_of(seed=seed)) for seed in (1, 2))
    assert len(list(folder.iterdir())) == 2
