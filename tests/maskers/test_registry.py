"""Registry of maskers: one line beside a class, and it is fitted, saved, rebuilt and named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_aml import AMLAttribution, TextExplainer
from captum_aml.benchmark import results_from_json
from captum_aml.cli.main import main
from captum_aml.exceptions import CheckpointError, InvalidInputError
from captum_aml.maskers import (
    Checkpoint,
    EmbeddingMasker,
    MaskerInputs,
    SharedMasker,
    TransformerMasker,
    registry,
)
from captum_aml.maskers.registry import (
    build_masker,
    describe_masker,
    masker_files,
    masker_from,
    masker_names,
    register_masker,
)
from tests._helpers.models import PlantedClassifier, planted_texts, tiny_encoder
from tests._helpers.text_models import save_classifier


class LinearMasker(nn.Module):
    """A logit from each token's own features."""

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.fitted = False
        self.config = {"n_channels": n_channels}
        self.score = nn.Linear(n_channels, 1)

    @classmethod
    def from_model(
        cls, model: PlantedClassifier, *, n_classes: int | None = None, seed: int = 0
    ) -> LinearMasker:
        torch.manual_seed(seed)
        return cls(model.get_input_embeddings().embedding_dim)

    def forward(self, inputs: MaskerInputs) -> Tensor:
        logits: Tensor = self.score(inputs.features[0]).squeeze(-1)
        return logits


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_BY_NAME", dict(registry._BY_NAME))


def test_a_registered_masker_is_found_by_fit_and_saving_and_loading(tmp_path: Path) -> None:
    register_masker("linear")(LinearMasker)
    model = PlantedClassifier()
    assert "linear" in masker_names()
    masker = build_masker("linear", model, seed=1)
    assert isinstance(masker, LinearMasker)
    attribution = AMLAttribution(model, masker=masker)
    ids, _ = planted_texts(16, 5, seed=0)
    runs: dict[str, Any] = {"checkpoint_dir": tmp_path / "run", "learning_rate": 1e-2}
    attribution.fit([ids[:8], ids[8:]], epochs=2, **runs)
    assert isinstance(attribution.masker_, LinearMasker)
    assert '"linear"' in (tmp_path / "run" / "run.json").read_text()
    attribution.save_pretrained(tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    width = model.get_input_embeddings().embedding_dim
    assert config["masker"] == {"type": "linear", "config": {"n_channels": width}}
    loaded = AMLAttribution.from_pretrained(tmp_path / "saved", model)
    assert isinstance(loaded.masker_, LinearMasker)
    assert loaded.masker_.fitted
    assert torch.equal(loaded.attribute(ids), attribution.attribute(ids))


def test_a_registered_masker_is_found_by_the_explainer_and_the_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    register_masker("linear")(LinearMasker)
    model = str(save_classifier(tmp_path / "model"))
    texts = ["a good film", "a bad plot", "the actor is great", "not very slow"]
    explainer = TextExplainer(model, device="cpu")
    explainer.fit(texts, epochs=1, masker="linear", show_progress=False)
    assert explainer.attribution_ is not None
    assert isinstance(explainer.attribution_.masker_, LinearMasker)

    def run(*command: str) -> str:
        with pytest.raises(SystemExit) as stop:
            main(list(command))
        captured = capsys.readouterr()
        assert stop.value.code == 0, captured.err
        return captured.out

    data, fitted, report = tmp_path / "texts.txt", tmp_path / "fitted", tmp_path / "report"
    data.write_text("\n".join(texts))
    given = ("--model", model, "--device", "cpu", "--data", str(data))
    run("fit", *given, "--masker", "linear", "--epochs", "1", "--out", str(fitted))
    assert Checkpoint.load(fitted).masker["type"] == "linear"
    chosen = ("--model", model, "--device", "cpu", "--masker", str(fitted))
    (line,) = run("explain", *chosen, texts[0]).splitlines()
    assert json.loads(line)["settings"]["n_steps"] == 0
    for name in ("cost_figure", "removal_figure"):
        monkeypatch.setattr(f"captum_aml.benchmark.report.page.{name}", lambda *_, **__: "")
    few = ("--methods", "aml", "--metrics", "aopc-sufficiency", "--seeds", "0", "--limit", "2")
    run("benchmark", *chosen, "--data", str(data), *few, "--out", str(report))
    found = results_from_json((report / "results.json").read_text("utf-8"))
    # One of the four is held out.
    assert "3 texts" in next(row.training for row in found.rows if row.method == "aml")


def test_what_is_rebuilt_has_what_it_needs() -> None:
    given: dict[str, Any] = {}

    @register_masker("needy", needs=("model", "files"))
    class Needy(LinearMasker):
        files = {"a": b"1"}  # noqa: RUF012  (a constant)

        def describe(self, model: nn.Module | None) -> dict[str, Any]:
            return {"model": type(model).__name__}

        @classmethod
        def from_config(cls, config: dict[str, Any], **needs: Any) -> Needy:
            given.update(needs, config=config)
            return cls(3)

    model = nn.Linear(2, 2)
    needy = Needy(3)
    assert describe_masker(needy, model) == {"type": "needy", "config": {"model": "Linear"}}
    assert masker_files(needy) == {"a": b"1"}
    assert isinstance(masker_from("needy", {"b": 2}, {"a": b"1"}, model), Needy)
    assert given == {"model": model, "files": {"a": b"1"}, "config": {"b": 2}}
    with pytest.raises(CheckpointError, match=r"pass masker=Needy\.from_model\(model\)"):
        masker_from("needy", {})


def test_the_package_s_own_maskers() -> None:
    assert masker_names() == ("shared", "transformer")
    model = tiny_encoder("bert", n_labels=3)
    assert isinstance(build_masker("transformer", model), TransformerMasker)
    shared = build_masker("shared", model, n_classes=5)
    assert isinstance(shared, SharedMasker)
    described = describe_masker(shared, model)
    assert described["type"] == "shared"
    assert described["config"]["n_classes"] == 5
    assert described["config"]["path"] == ""
    with pytest.raises(InvalidInputError, match=r"^masker: .* shared, transformer, got 'other'"):
        build_masker("other", model)


def test_a_class_that_is_not_registered_is_custom() -> None:
    assert describe_masker(LinearMasker(2)) == {"type": "custom", "config": {"n_channels": 2}}
    assert describe_masker(nn.Linear(2, 2)) == {"type": "custom", "config": None}
    assert masker_files(nn.Linear(2, 2)) == {}

    class Mine(EmbeddingMasker):
        pass

    mine = Mine(feature_shapes=[(5, 4)], n_classes=2)
    assert describe_masker(mine) == {"type": "embedding", "config": mine.config}


def test_a_name_belongs_to_one_class() -> None:
    with pytest.raises(ValueError, match="got 'shared'"):
        register_masker("shared")(LinearMasker)
    namesake = type("SharedMasker", (LinearMasker,), {"__module__": "elsewhere"})
    assert namesake.__qualname__ == SharedMasker.__qualname__
    with pytest.raises(ValueError, match="got 'shared'"):
        register_masker("shared")(namesake)
    register_masker("shared")(SharedMasker)  # as when its module is loaded again
