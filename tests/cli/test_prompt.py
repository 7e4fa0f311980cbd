"""Decoders that answer a prompt, from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from captum_aml.cli import main as cli
from captum_aml.text import PromptClassifier
from tests._helpers.decoders import bpe_tokenizer, language_model

TEXTS = ["a gripping film", "a dull plot", "the film was good and the plot was not"]
PROMPT = ("--template", "Text: {text} Label:", "--labels", "negative,good=positive")

Run: TypeAlias = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("decoder")
    tokenizer = bpe_tokenizer(metaspace=True)
    language_model("llama", len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def data(tmp_path: Path) -> str:
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS * 2))
    return str(file)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    def execute(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            cli.main([*arguments, "--device", "cpu"])
        out, err = capfd.readouterr()
        return int(stop.value.code or 0), out, err

    return execute


def rows(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def test_explain(run: Run, model: str) -> None:
    code, out, err = run(
        "explain", "--model", model, *PROMPT, "--method", "occlusion", "--baseline", "a", *TEXTS
    )
    assert code == 0, err
    found = rows(out)
    classifier = PromptClassifier.from_pretrained(
        model, PROMPT[1], {"negative": "negative", "good": "positive"}, device="cpu"
    )
    probabilities = classifier.predict(TEXTS)
    for row, expected in zip(found, probabilities, strict=True):
        assert row["predicted_label"] == ("negative", "good")[int(expected.argmax())]
        assert row["probability"] == pytest.approx(float(expected.max()), abs=1e-5)
        assert row["settings"]["prompt"] == "Text: {text} Label:"
        assert row["settings"]["label_words"] == "negative, positive"
        assert row["settings"]["baseline_token"] == "a"


def test_whole_words(run: Run, model: str) -> None:
    code, out, err = run(
        "explain", "--model", model, *PROMPT, "--method", "ig", "--unit", "word", TEXTS[0]
    )
    assert code == 0, err
    assert rows(out)[0]["tokens"] == ["a", "gripping", "film"]


def test_fit_and_explain_with_the_masker(run: Run, model: str, data: str, tmp_path: Path) -> None:
    folder = str(tmp_path / "masker")
    given = ("--model", model, *PROMPT, "--data", data, "--out", folder)
    code, _, err = run("fit", *given, "--epochs", "1", "--n-subsets", "2")
    assert code == 0, err
    assert json.loads((tmp_path / "masker" / "config.json").read_text())["masker"]["type"] == (
        "shared"
    )
    assert "learning_rate: 0.001" in (tmp_path / "masker" / "fit.yaml").read_text()
    code, out, err = run("explain", "--model", model, *PROMPT, "--masker", folder, TEXTS[0])
    assert code == 0, err
    assert rows(out)[0]["settings"]["n_steps"] == 0
    other = ("--template", PROMPT[1], "--labels", "good=positive,negative")
    code, out, err = run("explain", "--model", model, *other, "--masker", folder, TEXTS[0])
    assert (code, out) == (2, "")
    assert "masker: it was fitted with prompt=" in err
    code, _, err = run(
        *("benchmark", "--model", model, *other, "--data", data, "--masker", folder),
        *("--out", str(tmp_path / "report"), "--methods", "aml"),
    )
    assert code == 2
    assert "masker: it was fitted with prompt=" in err


def test_benchmark(run: Run, model: str, data: str, tmp_path: Path) -> None:
    report = tmp_path / "report"
    code, _, err = run(
        *("benchmark", "--model", model, *PROMPT, "--data", data, "--out", str(report)),
        *("--methods", "ig", "--metrics", "comprehensiveness", "--seeds", "0"),
        *("--baseline", "a"),
    )
    assert code == 0, err
    results = json.loads((report / "results.json").read_text())
    assert results["settings"]["prompt"] == "Text: {text} Label:"
    assert json.loads((report / "run.json").read_text())["baseline_token"] == "a"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--template", "{text}"), "labels: expected it together with template"),
        (("--labels", "a,b"), "template: expected it together with labels"),
        (("--template", "Text", "--labels", "a,b"), "with the slot {text} once"),
        (("--template", "{text}", "--labels", "a"), "two different words or more"),
        ((*PROMPT, "--baseline", "nowhere"), "baseline: expected an entry of the tokenizer's"),
        ((*PROMPT, "--unit", "page"), "unit: expected one of"),
    ],
)
def test_mistakes(run: Run, model: str, given: tuple[str, ...], message: str) -> None:
    code, out, err = run("explain", "--model", model, *given, "good")
    assert (code, out) == (2, "")
    assert message in err
