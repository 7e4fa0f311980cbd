"""The commands ``fit`` and ``search`` as a user meets them."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from captum_aml.benchmark import results_from_json
from captum_aml.cli.config import FitConfig
from captum_aml.cli.fit_setup import FitLines, load_data
from captum_aml.exceptions import InvalidInputError
from captum_aml.maskers import Checkpoint
from tests._helpers.command_line import Result, Run
from tests._helpers.text_models import WORDS, save_classifier

PLAIN = [word for word in WORDS if word.isalpha() and word.isascii()]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Files of 40 training and 12 validation texts, without labels."""
    draw = random.Random(0)
    rows = [" ".join(draw.choices(PLAIN, k=draw.randint(2, 9))) for _ in range(52)]
    folder = tmp_path_factory.mktemp("texts")
    return (
        write(folder / "train.jsonl", *({"text": row} for row in rows[:40])),
        write(folder / "validation.jsonl", *({"text": row} for row in rows[40:])),
    )


@pytest.fixture
def fit(run: Run, model: str, texts: tuple[str, str]) -> Run:
    """Runs ``fit`` with model and texts, which later arguments may replace."""

    def execute(*arguments: str) -> Result:
        given = ("--model", model, "--data", texts[0], "--validation", texts[1])
        return run("fit", *given, *arguments)

    return execute


def write(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


def config_of(folder: Path, name: str = "fit.yaml") -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((folder / name).read_text("utf-8"))
    return content


def succeeded(result: Result) -> Result:
    assert result.code == 0, result.err
    return result


@pytest.mark.parametrize("held_out", [True, False])
def test_columns_that_are_not_needed_are_not_read(tmp_path: Path, held_out: bool) -> None:
    row = {"text": "a b c", "label": 0.5, "rationale": [0, 1, 1], "id": 1.5}
    data = write(tmp_path / "data.jsonl", row, {**row, "rationale": "0 or 1"})
    options = {"model": "", "data": data, "validation": None if held_out else data}
    training, validation, _ = load_data(FitConfig(**options))
    assert [*training, *(item.text for item in validation)] == ["a b c"] * (2 if held_out else 4)
    assert {item.rationale for item in validation} == {None}
    # Agreement with people needs the rationales of the validation texts, and nothing else.
    write(tmp_path / "data.jsonl", row, row)
    _, validation, _ = load_data(FitConfig(**options, select_by="token-f1"))
    assert {item.rationale for item in validation} == {((2, 5),)}
    write(tmp_path / "data.jsonl", {**row, "rationale": [0, 1]}, row)
    with pytest.raises(InvalidInputError, match=r"line 1: .*3 words, got 2 numbers"):
        load_data(FitConfig(**options, select_by="log-odds,auprc"))


class TestFit:
    def test_fit_explain_benchmark(
        self,
        fit: Run,
        run: Run,
        model: str,
        texts: tuple[str, str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        out = tmp_path / "masker"
        result = succeeded(fit("--out", str(out), "--epochs", "2", "--lr", "1e-3"))
        assert result.out.count("\n") == 1
        assert result.out.startswith("Fitted in 0 min")
        assert result.out.rstrip().endswith(f"The masker: {out}")
        assert "40 training texts, 12 validation texts." in result.err
        assert "Perturbation: attention" in result.err
        assert result.err.count("\nEpoch ") == 2
        history = json.loads((out / "history.json").read_text())
        assert f"{history[1]['validation']['total']:.4f}" in result.err
        assert [record["n_examples"] for record in history] == [40, 40]
        assert sorted(p.name for p in out.iterdir() if not p.name.startswith(".")) == [
            "config.json",
            "explainer.json",
            "fit.json",
            "fit.yaml",
            "history.json",
            f"masker-{Checkpoint.load(out).digest[:16]}.safetensors",
        ]
        assert Checkpoint.load(out).settings["perturbation"] == "attention"

        explained = succeeded(
            run("explain", "--model", model, "--masker", str(out), "a good film", "bad")
        )
        rows = [json.loads(line) for line in explained.out.splitlines()]
        assert [row["settings"]["n_steps"] for row in rows] == [0, 0]
        assert [len(row["scores"]) for row in rows] == [3, 1]

        for name in ("cost_figure", "removal_figure"):
            monkeypatch.setattr(f"captum_aml.benchmark.report.page.{name}", lambda *_, **__: "")
        report = tmp_path / "report"
        few = ("--methods", "aml", "--metrics", "aopc-sufficiency", "--seeds", "0", "--limit", "4")
        succeeded(
            run(
                *("benchmark", "--model", model, "--data", texts[1], "--out", str(report)),
                *("--masker", str(out), *few),
            )
        )
        found = results_from_json((report / "results.json").read_text("utf-8"))
        assert "40" in next(row.training for row in found.rows if row.method == "aml")

    def test_the_written_configuration_repeats_it(self, fit: Run, run: Run, tmp_path: Path) -> None:
        first, second = tmp_path / "first", tmp_path / "second"
        arguments = (
            "--epochs",
            "1",
            "--batch-size",
            "8",
            "--loss",
            "objective",
            "--size-weight",
            "0.5",
            "--seed",
            "3",
        )
        succeeded(fit("--out", str(first), *arguments))
        written = config_of(first)
        assert (written["epochs"], written["batch_size"], written["seed"]) == (1, 8, 3)
        assert (written["prediction_weight"], written["size_weight"]) == (1.0, 0.5)
        assert written["perturbation"] == "attention"
        succeeded(run("fit", "--config", str(first / "fit.yaml"), "--out", str(second)))
        assert config_of(second) == written
        assert Checkpoint.load(first).digest == Checkpoint.load(second).digest
        assert Checkpoint.load(first).settings["objective"]["size_weight"] == 0.5

    def test_flags_win_over_the_file(self, fit: Run, tmp_path: Path) -> None:
        file = tmp_path / "mine.yaml"
        # 1e-3 is a word to YAML 1.1; hyphens and the short name are taken as well.
        file.write_text("lr: 1e-3\nbatch-size: 10\nepochs: 7\nmixed_precision: no\n")
        out = tmp_path / "out"
        succeeded(fit("--out", str(out), "--config", str(file), "--epochs", "1"))
        written = config_of(out)
        assert written["learning_rate"] == 1e-3
        assert (written["batch_size"], written["epochs"]) == (10, 1)
        assert written["mixed_precision"] == "no"

    def test_la_with_a_shared_masker_by_blending(self, fit: Run, tmp_path: Path) -> None:
        out = tmp_path / "out"
        arguments = ("--method", "la", "--masker", "shared", "--perturbation", "blend")
        succeeded(fit("--out", str(out), "--epochs", "1", *arguments))
        checkpoint = Checkpoint.load(out)
        assert (checkpoint.method, checkpoint.masker["type"]) == ("la", "shared")
        assert checkpoint.settings["perturbation"] == "blend"
        assert "prediction_weight" not in config_of(out)

    def test_a_fitted_masker_to_start_from(self, fit: Run, tmp_path: Path) -> None:
        first, second = tmp_path / "first", tmp_path / "second"
        succeeded(fit("--out", str(first), "--epochs", "1"))
        # At a rate of almost nothing it stays what it was.
        rate = ("--lr", "1e-12", "--weight-decay", "0")
        succeeded(fit("--out", str(second), "--epochs", "1", "--masker", str(first), *rate))
        before, after = Checkpoint.load(first).tensors, Checkpoint.load(second).tensors
        assert all((before[k] - after[k]).abs().max() < 1e-6 for k in before)

    def test_selected_by_metrics(self, fit: Run, tmp_path: Path) -> None:
        out = tmp_path / "out"
        metrics = "aopc-sufficiency,aopc-comprehensiveness@mask"
        result = succeeded(fit("--out", str(out), "--epochs", "2", "--select-by", metrics))
        name = "aopc-comprehensiveness@mask - aopc-sufficiency"
        validations = [
            v for e in json.loads((out / "history.json").read_text()) for v in e["validations"]
        ]
        assert [v["means"][name] for v in validations] == [v["value"] for v in validations]
        assert name in result.out

    def test_without_validation_texts_some_are_held_out(
        self, run: Run, model: str, texts: tuple[str, str], tmp_path: Path
    ) -> None:
        arguments = ("fit", "--model", model, "--data", texts[0], "--epochs", "1")
        result = succeeded(run(*arguments, "--out", str(tmp_path / "out")))
        assert "36 training texts, 4 validation texts, held out of the data." in result.err
        (record,) = json.loads((tmp_path / "out" / "history.json").read_text())
        assert record["n_examples"] == 36

    def test_cut_texts_are_counted(self, fit: Run, tmp_path: Path) -> None:
        long = {"text": "good " * 90}
        data = write(tmp_path / "long.jsonl", long, {"text": "bad"}, {"text": "a film"})
        result = succeeded(fit("--data", data, "--epochs", "1", "--out", str(tmp_path / "out")))
        assert "1 of the 3 training text is longer than the 64 tokens that are taken" in result.err

    def test_the_published_recipe(self) -> None:
        given = {"model": "m", "data": "d", "recipe": "published"}
        config = FitConfig.of(given)
        settings = config.settings()
        assert (config.perturbation, config.masker, config.batch_size) == (
            "blend",
            "transformer",
            20,
        )
        assert (settings.epochs, settings.learning_rate, settings.scheduler) == (10, 4e-5, "linear")
        assert (settings.warmup_ratio, settings.validations_per_epoch) == (0.0, 3)
        assert (settings.max_gradient_norm, settings.weight_decay) == (None, 0.01)
        assert config.objective() == type(config.objective())()
        # What was written down can be read again, and other weights are still the published recipe.
        again = FitConfig.of(config.to_dict() | {"size_weight": 0.2})
        assert again.recipe == "published"

    def test_there_is_a_flag_for_every_option_and_a_default_for_most(self, run: Run) -> None:
        words = " ".join(run("fit", "--help").out.split())
        for field in fields(FitConfig):
            assert f"--{field.name.replace('_', '-')}" in words
        assert "Passes over the texts. [default: (6); x>=1]" in words
        assert "AdamW's weight decay, at least 0. [default: (0.01)]" in words

    def test_a_list_in_a_file_stands_for_several_names(self, tmp_path: Path) -> None:
        file = tmp_path / "mine.yaml"
        file.write_text("{model: m, data: d, tracker: [one, two], warmup_ratio: 5e-1}")
        config = FitConfig.of({"epochs": None}, file)
        assert (config.trackers, config.warmup_ratio, config.epochs) == (["one", "two"], 0.5, 6)


class TestGoingOn:
    def interrupt(self, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
        def stop(lines: FitLines, state: Any) -> None:
            if state.step == step:
                raise KeyboardInterrupt

        monkeypatch.setattr(FitLines, "on_step_end", stop)

    def test_interrupted_and_resumed(
        self, fit: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole, parts = tmp_path / "whole", tmp_path / "parts"
        arguments = ("--epochs", "2", "--batch-size", "8", "--validations-per-epoch", "2")
        succeeded(fit("--out", str(whole), *arguments))
        with monkeypatch.context() as patch:
            self.interrupt(patch, 6)
            stopped = fit("--out", str(parts), *arguments)
        assert stopped.code == 130
        assert "go on with --resume" in stopped.err
        assert not (parts / "config.json").exists()
        refused = fit("--out", str(parts), *arguments)
        assert refused.code == 2
        assert "holds a run that is not complete; go on with it with --resume" in refused.err
        other = fit("--out", str(parts), *arguments, "--resume", "--n-subsets", "4")
        assert other.code == 2
        assert "holds another run: n_subsets is 16 there and 4 here" in other.err
        resumed = succeeded(fit("--out", str(parts), *arguments, "--resume"))
        assert "Goes on after step" in resumed.err
        assert Checkpoint.load(parts).digest == Checkpoint.load(whole).digest
        assert not (parts / "checkpoint").exists()
        again = succeeded(fit("--out", str(parts), *arguments, "--resume"))
        assert again.out == resumed.out
        assert "complete already" in again.err

    @pytest.mark.slow
    def test_killed_and_resumed(
        self, fit: Run, model: str, texts: tuple[str, str], tmp_path: Path
    ) -> None:
        whole, parts = tmp_path / "whole", tmp_path / "parts"
        arguments = ("--epochs", "30", "--batch-size", "4", "--save-every", "1", "--device", "cpu")
        command = ["fit", "--model", model, "--data", texts[0], "--validation", texts[1]]
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "captum_aml.cli",
                *command,
                "--out",
                str(parts),
                *arguments,
            ],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        while not (parts / "checkpoint" / "run.json").exists() and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not (parts / "config.json").exists()
        succeeded(fit("--out", str(parts), *arguments, "--resume"))
        succeeded(fit("--out", str(whole), *arguments))
        assert Checkpoint.load(parts).digest == Checkpoint.load(whole).digest

    def test_overwrite(self, fit: Run, tmp_path: Path) -> None:
        out = tmp_path / "out"
        succeeded(fit("--out", str(out), "--epochs", "1"))
        (out / "notes.txt").write_text("mine")
        refused = fit("--out", str(out), "--epochs", "1", "--seed", "1")
        assert refused.code == 2
        assert "holds a fitted masker" in refused.err
        before = Checkpoint.load(out).digest
        succeeded(fit("--out", str(out), "--epochs", "1", "--seed", "1", "--overwrite"))
        assert Checkpoint.load(out).digest != before
        assert len(list(out.glob("masker-*.safetensors"))) == 1
        assert (out / "notes.txt").read_text() == "mine"


class TestMistakes:
    """Each is told in one line on standard error, with exit code 2 and nothing on output."""

    def told(self, result: Result, message: str) -> None:
        assert result.code == 2
        assert result.out == ""
        line = result.err.splitlines()[-1]
        assert line.startswith("captum-aml: ")
        assert message in line
        assert "Traceback" not in result.err

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--data", "/nowhere/texts.jsonl"], "/nowhere/texts.jsonl: No such file"),
            (["--data", __file__], "data: expected one of the formats .jsonl, .csv"),
            (["--model", "./nowhere"], "model: expected a model of transformers"),
            (["--text-column", "body"], "line 1: expected a column 'body', got 'text'"),
            (["--limit", "1"], "limit: expected 2 or more, got 1"),
            (["--limit", "0"], "Invalid value for '--limit'"),
            (["--select-by", "truth"], "metrics: expected some of aopc-comprehensiveness"),
            (["--select-by", "entropy"], "whether higher or lower is better, got 'entropy'"),
            (["--preset", "fancy", "--select-by", "log-odds"], "convention: expected"),
            (["--size-weight", "-1"], "size_weight: expected a number of at least 0, got -1"),
            (
                ["--prediction-weight", "0", "--inverse-weight", "0", "--size-weight", "0"],
                "expected one above 0, got all 0",
            ),
            (["--method", "magic"], "method: expected one of"),
            (["--loss", "magic"], "loss: expected one of objective, regression"),
            (["--loss", "regression", "--size-weight", "0.5"], "give loss=objective with it"),
            (["--loss", "regression", "--method", "la"], "knows nothing of LA"),
            (["--method", "la", "--prediction-weight", "1"], "la has no prediction term"),
            (["--perturbation", "magic"], "perturbation: expected one of"),
            (["--perturbation", "causal-attention"], "perturbation: expected 'blend' or 'attent"),
            (["--recipe", "mine"], "recipe: expected one of published, got 'mine'"),
            (["--recipe", "published", "--lr", "1"], "'published' has learning_rate=4e-05, got 1"),
            (["--scheduler", "zigzag"], "scheduler: expected one of linear"),
            (["--lr", "0"], "learning_rate"),
            (["--masker", "./nowhere"], "masker: expected shared, transformer, a folder"),
            (["--tracker", "notebook"], "trackers: expected names among"),
            (["--resume", "--overwrite"], "expected --resume or --overwrite, got both"),
            (["--device", "cuda:99"], "device: expected 'auto', 'cpu'"),
        ],
    )
    def test_arguments(self, fit: Run, tmp_path: Path, arguments: list[str], message: str) -> None:
        self.told(fit("--out", str(tmp_path / "out"), *arguments), message)
        assert not list(tmp_path.glob("out/config.json"))

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ('{"text": "good"}\n{"text": bad}\n', "line 2: expected a JSON object"),
            ('{"text": "good"}\n{"text": 7}\n', "line 2"),
            ("", "data: expected texts to fit on, got none"),
            ('{"text": "good"}\n', "data: expected two texts or more, got one"),
        ],
    )
    def test_data(self, fit: Run, tmp_path: Path, content: str, message: str) -> None:
        (tmp_path / "data.jsonl").write_text(content)
        out = str(tmp_path / "out")
        self.told(fit("--data", str(tmp_path / "data.jsonl"), "--out", out), message)
        self.told(run_validation(fit, tmp_path, out), "data: expected one text or more, got none")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("epoch: 3\n", "config: expected some of model, data, split"),
            ("epochs: [\n", "expected YAML"),
            ("- epochs\n", "expected names with values such as 'epochs: 5', got ['epochs']"),
            ("epochs: many\n", "epochs: expected an integer, got 'many'"),
            ("epochs: 1.5\n", "epochs: expected an integer, got 1.5"),
            ("epochs: true\n", "epochs: expected an integer, got True"),
            ("lr: fast\n", "learning_rate: expected a number, got 'fast'"),
            ("lr: 1e-3\nlearning_rate: 1e-3\n", "config: expected 'learning_rate' once"),
            ("inverse_weight: -2\n", "inverse_weight: expected a number of at least 0"),
            ("masker: 3\n", "masker: expected a string, got 3"),
            ("method: 3\n", "method: expected one of aml, la, got 3"),
            ("scheduler: zigzag\n", "scheduler: expected one of linear, cosine"),
            ("epochs: [1, 2]\n", "epochs: expected an integer, got [1, 2]"),
        ],
    )
    def test_configurations(self, fit: Run, tmp_path: Path, content: str, message: str) -> None:
        file = tmp_path / "mine.yaml"
        file.write_text(content)
        result = fit("--config", str(file), "--out", str(tmp_path / "out"))
        self.told(result, message)
        if content != "inverse_weight: -2\n":  # which may contradict a flag
            assert f"{file}: " in result.err

    def test_what_is_missing(self, run: Run, tmp_path: Path) -> None:
        out = str(tmp_path / "out")
        self.told(run("fit", "--out", out), "model: expected --model, or 'model' in the file")
        self.told(run("fit", "--model", "m", "--out", out), "data: expected --data")
        self.told(run("fit", "--model", "m", "--data", "d"), "Missing option '--out'")
        self.told(run("fit", "--config", str(tmp_path / "no.yaml"), "--out", out), "no.yaml: No su")

    def test_folders_that_are_somebody_elses(self, fit: Run, model: str, tmp_path: Path) -> None:
        before = sorted(p.name for p in Path(model).iterdir())
        self.told(fit("--out", model, "--overwrite"), "config.json that is not of a masker")
        assert sorted(p.name for p in Path(model).iterdir()) == before
        (tmp_path / "notes.txt").write_text("mine")
        self.told(fit("--out", str(tmp_path)), "which holds other files")
        self.told(fit("--out", str(tmp_path / "notes.txt")), "out: expected a folder, got the file")

    def test_a_masker_of_another_model(self, fit: Run, tmp_path: Path) -> None:
        other = str(save_classifier(tmp_path / "model", labels=("bad", "fair", "good")))
        succeeded(fit("--model", other, "--out", str(tmp_path / "first"), "--epochs", "1"))
        result = fit("--masker", str(tmp_path / "first"), "--out", str(tmp_path / "second"))
        self.told(result, "fitted for a model with n_classes=3, but this one has n_classes=2")
        result = fit("--masker", str(tmp_path / "first"), "--out", str(tmp_path), "--method", "la")
        self.told(result, "which holds other files")


def run_validation(fit: Run, folder: Path, out: str) -> Result:
    """With an empty file of validation texts."""
    return fit("--validation", write(folder / "empty.jsonl"), "--out", out)


class TestSearch:
    def test_from_search_to_fit(
        self, run: Run, model: str, texts: tuple[str, str], tmp_path: Path
    ) -> None:
        out, masker = tmp_path / "found", tmp_path / "masker"
        arguments = ("search", "--model", model, "--data", texts[0], "--validation", texts[1])
        metrics = ("--metric", "aopc-comprehensiveness", "--metric", "aopc-sufficiency@mask")
        few = ("--limit", "16", "--epochs", "1", "--trials")
        first = succeeded(run(*arguments, *metrics, "--out", str(out), *few, "2"))
        name = "aopc-comprehensiveness - aopc-sufficiency@mask"
        assert f"Searching for the highest {name} on 12 validation texts" in first.err
        assert "Trial 2/2: " in first.err
        result = succeeded(run(*arguments, *metrics, "--out", str(out), *few, "3"))
        told = [line for line in result.err.splitlines() if line.startswith("Trial")]
        assert [line.split(":")[0] for line in told] == ["Trial 3/3"]
        found = json.loads((out / "search.json").read_text())
        values = [t["values"] for t in found["trials"]]
        for trial, each in zip(found["trials"], values, strict=True):
            assert trial["value"] == pytest.approx(
                each["aopc-comprehensiveness"] - each["aopc-sufficiency@mask"], abs=1e-6
            )
        best = max(found["trials"], key=lambda t: t["value"])
        assert found["best"] == best["number"]
        assert f"{best['value']:.4f}" in result.out
        table = (out / "search.csv").read_text().splitlines()
        assert table[0].startswith("number,state,value,prediction_weight,inverse_weight")
        assert len(table) == 4
        written = config_of(out, "best.yaml")
        assert {k: written[k] for k in best["weights"]} == best["weights"]
        assert written["learning_rate"] == best["learning_rate"]
        assert not {"limit", "epochs"} & set(written)
        assert written["select_by"] == "aopc-comprehensiveness,aopc-sufficiency@mask"
        succeeded(
            run("fit", "--config", str(out / "best.yaml"), "--out", str(masker), "--epochs", "1")
        )
        assert (
            Checkpoint.load(masker).settings["objective"]["size_weight"]
            == (best["weights"]["size_weight"])
        )
        other = run(*arguments, "--metric", "log-odds", "--out", str(out), *few, "3")
        assert other.code == 2
        assert "holds another search: metric is" in other.err

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--metric", "truth"], "metrics: expected some of aopc-comprehensiveness"),
            (["--metric", "entropy"], "whether higher or lower is better"),
            (["--metric", "log-odds", "--metric", "log-odds"], "metrics: expected each once"),
            (["--trials", "0"], "Invalid value for '--trials'"),
            (["--lowest-rate", "1", "--highest-rate", "0.1"], "the lowest and the highest"),
            (["--metric", "auprc"], "'auprc' has none for any of them"),
        ],
    )
    def test_mistakes(
        self,
        run: Run,
        model: str,
        texts: tuple[str, str],
        tmp_path: Path,
        arguments: list[str],
        message: str,
    ) -> None:
        given = ("search", "--model", model, "--data", texts[0], "--validation", texts[1])
        result = run(*given, "--out", str(tmp_path / "out"), "--limit", "8", *arguments)
        assert (result.code, result.out) == (2, "")
        assert message in result.err.splitlines()[-1]

    def test_help_says_what_the_figures_are(self, run: Run) -> None:
        words = " ".join(run("search", "--help").out.split())
        assert "on the validation texts alone" in words
        assert "report figures on other texts" in words
