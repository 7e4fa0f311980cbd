"""The recipe of a fit on texts, which is one for Python and for the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from captum_aml import AMLAttribution, SharedMasker, TransformerMasker
from captum_aml.cli.config import FitConfig
from captum_aml.cli.fit_setup import prepare
from captum_aml.text import TextClassifier, TextExplainer
from tests._helpers.text_models import save_classifier

TEXTS = ["a gripping film", "a dull plot", "good", "bad film"]

pytestmark = pytest.mark.filterwarnings("ignore:train_batches.*several classes")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_classifier(tmp_path_factory.mktemp("model"))


def of_explainer(source: Any, masker: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    found: dict[str, Any] = {}
    fit = AMLAttribution.fit

    def spy(self: AMLAttribution, *batches: Any, **options: Any) -> AMLAttribution:
        assert self.masker is not None
        found.update({name: options[name] for name in ("epochs", "loss", "learning_rate")})
        found.update(masker=type(self.masker), perturbation=self.perturbation.name)
        return fit(self, *batches, **{**options, "epochs": 1, "n_subsets": 2})

    with monkeypatch.context() as patch:
        patch.setattr(AMLAttribution, "fit", spy)
        TextExplainer(source).fit(TEXTS, masker=masker)
    return found


def of_command(folder: Path, masker: str | None, texts: Path) -> dict[str, Any]:
    config = FitConfig.of({"model": str(folder), "data": str(texts), "masker": masker})
    setup = prepare(config)
    written, settings = setup.config.to_dict(), setup.config.settings()
    found = {name: written[name] for name in ("epochs", "loss", "learning_rate", "perturbation")}
    assert found["learning_rate"] == settings.learning_rate
    return {**found, "masker": type(setup.masker)}


@pytest.mark.parametrize("given", ["folder", "shared", "transformer", "module", None])
def test_python_and_the_command_line_choose_the_same(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    texts, saved = tmp_path / "texts.txt", tmp_path / "saved"
    texts.write_text("\n".join(TEXTS))
    by_python: str | Path | nn.Module | None = given
    by_command = given
    model = TextClassifier.from_pretrained(folder)
    if given in ("folder", "module"):
        explainer = TextExplainer(model).fit(TEXTS, masker="shared", epochs=1, n_subsets=2)
        explainer.save_pretrained(saved)
        assert explainer.attribution_ is not None
        module = explainer.attribution_.masker_
        by_python, by_command = saved if given == "folder" else module, str(saved)
    chosen = of_explainer(model, by_python, monkeypatch)
    assert chosen == of_command(folder, by_command, texts)
    head = given not in ("transformer", None)
    assert chosen == {
        "epochs": 6,
        "loss": "regression",
        "learning_rate": 1e-3 if head else 1e-4,
        "perturbation": "attention",
        "masker": SharedMasker if head else TransformerMasker,
    }
