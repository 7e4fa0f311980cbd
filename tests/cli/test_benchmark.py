"""The commands ``benchmark`` and ``evaluate`` as a user meets them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from captum_aml import methods
from captum_aml.benchmark import results_from_json
from captum_aml.metrics import available_metrics
from captum_aml.reviews import reviews_masker_path
from tests._helpers.benchmark_runs import contents
from tests._helpers.command_line import Result, Run

ROWS = [
    {"text": "a good film", "label": 1},
    {"text": "bad", "label": "negative"},
    {"text": "<script>alert(1)</script> \x1b[31mgood\x07", "label": 1},
]
FEW = ("--methods", "saliency", "--metrics", "aopc-sufficiency,entropy", "--seeds", "0")


@pytest.fixture
def data(tmp_path: Path) -> str:
    return write(tmp_path / "data.jsonl", *ROWS)


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take most of a small run's time, and have their own tests."""
    for name in ("cost_figure", "removal_figure"):
        monkeypatch.setattr(f"captum_aml.benchmark.report.page.{name}", lambda *_, **__: "")


def write(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


class TestBenchmark:
    def test_from_start_to_report(self, run: Run, model: str, data: str, tmp_path: Path) -> None:
        out = tmp_path / "out"
        result = run("benchmark", "--model", model, "--data", data, "--out", str(out), *FEW)
        assert result.code == 0, result.err
        assert result.err == ""
        assert f"The report: {out / 'report.html'}" in result.out
        for word in ("3 texts", "saliency", "random", "occlusion", "Entropy", "rank", "passes"):
            assert word in result.out
        found = results_from_json((out / "results.json").read_text("utf-8"))
        assert (found.model, found.data, found.n_texts) == (model, data, 3)
        for row in found.rows:
            assert f"{row.cells['entropy'].mean:.3f}" in result.out
        html = (out / "report.html").read_text("utf-8")
        assert "<script>alert" not in html
        assert "\x1b" not in html + result.out
        # The same once more: nothing is explained again.
        before = contents(list((out / "explanations").iterdir()))
        again = run("benchmark", "--model", model, "--data", data, "--out", str(out), *FEW)
        took = re.compile(r"^Done in \d+ min \d+ s\.$", re.MULTILINE)
        assert len(took.findall(result.out)) == 1
        assert took.sub("", again.out) == took.sub("", result.out)
        assert contents(list((out / "explanations").iterdir())) == before

    def test_options_arrive(self, run: Run, model: str, tmp_path: Path) -> None:
        data = tmp_path / "data.csv"
        data.write_text("body,sentiment\ngood film,positive\nbad,0\nslow,1\n")
        options = {
            "--methods": "ig, lime",
            "--metrics": "sufficiency@pad,log-odds",
            "--preset": "aml",
            "--limit": "2",
            "--seeds": "4,2",
            "--steps": "lime=6",
            "--text-column": "body",
            "--label-column": "sentiment",
            "--batch-size": "1",
            "--beam-size": "2",
            "--search-tokens": "7",
            "--examples": "1",
            "--device": "cpu",
        }
        out = tmp_path / "out"
        arguments = [part for pair in options.items() for part in pair]
        result = run(
            *("benchmark", "--model", model, "--data", str(data), "--out", str(out), *arguments),
            *("--steps", "ig=3"),
        )
        assert result.code == 0, result.err
        found = results_from_json((out / "results.json").read_text("utf-8"))
        assert found.n_texts == 2
        assert [m.name for m in found.metrics] == ["sufficiency@pad", "log-odds"]
        rows = {row.method: row for row in found.rows}
        assert list(rows) == ["integrated-gradients", "lime", "random", "occlusion"]
        assert rows["lime"].seeds == [4, 2]
        assert rows["lime"].settings["n_samples"] == 6
        assert rows["integrated-gradients"].settings["n_steps"] == 3
        assert found.settings["convention"] == "aml"
        assert found.settings["batch_size"] == 1
        assert found.settings["beam_size"] == 2
        assert found.settings["max_search_tokens"] == 7
        assert found.notes[0].startswith("2 of 2 texts have a label")
        assert (out / "report.html").read_text("utf-8").count("<article") == 1

    @pytest.mark.parametrize("columns", [60, 80, 140])
    def test_the_tables_fit_the_terminal(
        self,
        run: Run,
        model: str,
        data: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        columns: int,
    ) -> None:
        monkeypatch.setenv("COLUMNS", str(columns))
        arguments = ("--methods", "saliency", "--search-tokens", "3", "--seeds", "0")
        out = tmp_path / "out"
        result = run("benchmark", "--model", model, "--data", data, "--out", str(out), *arguments)
        assert result.code == 0, result.err
        table = [line for line in result.out.splitlines() if line[:1] in "┏┃┡│└"]
        assert max(map(len, table)) <= columns
        assert "…" not in result.out
        for word in ("comp.", "(delete)", "(mask)", "NAOPC", "log-odds", "Effective", "passes"):
            assert word in result.out

    def test_failures_are_said(
        self, run: Run, model: str, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from tests._helpers.benchmark_runs import register

        register(monkeypatch, "mine", lambda _: None)
        arguments = ("--methods", "mine", "--metrics", "entropy", "--seeds", "0")
        out = tmp_path / "out"
        result = run("benchmark", "--model", model, "--data", data, "--out", str(out), *arguments)
        assert result.code == 0, result.err
        assert "3 explanations failed; the report says which and why." in result.out


class TestBenchmarkMistakes:
    """Each is told in one line on standard error, with exit code 2 and nothing on output."""

    def told(self, result: Result, message: str) -> None:
        assert result.code == 2
        assert result.out == ""
        assert result.err.startswith("captum-aml: ")
        assert result.err.count("\n") == 1
        assert message in result.err

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--methods", "magic"], "method: expected one of mask-gradient, aml"),
            (["--methods", "ig,ig"], "methods: expected each once"),
            (["--methods", "aml"], "masker: aml needs a fitted masker"),
            (["--metrics", "truth"], "metrics: expected some of aopc-comprehensiveness"),
            (["--metrics", ","], "metrics: expected at least one"),
            (["--metrics", "auprc@mask"], "metrics: expected no operator"),
            (["--preset", "fancy"], "convention: expected a Convention or one of default, aml"),
            (["--seeds", "0,one"], "expected whole numbers separated by commas, got '0,one'"),
            (["--seeds", "1,1"], "seeds: expected different numbers"),
            (["--steps", "lime"], "as in lime=200, got 'lime'"),
            (["--steps", "magic=3"], "method: expected one of"),
            (["--methods", "saliency", "--steps", "lime=3"], "steps: lime take no part"),
            (["--methods", "ig", "--steps", "ig=0"], "n_steps: expected a positive number"),
            (["--limit", "0"], "Invalid value for '--limit'"),
            (["--batch-size", "0"], "Invalid value for '--batch-size'"),
            (["--text-column", "body"], "expected a column 'body'"),
            (["--masker", "/nowhere/masker"], "masker"),
            (["--masker", str(reviews_masker_path())], "masker: it was fitted for a model with"),
            (["--split", "test"], "split: expected none"),
            (["--device", "cuda:99"], "device: expected 'auto', 'cpu'"),
        ],
    )
    def test_arguments(
        self,
        run: Run,
        model: str,
        data: str,
        tmp_path: Path,
        arguments: list[str],
        message: str,
    ) -> None:
        common = ("--model", model, "--data", data, "--out", str(tmp_path / "out"))
        methods_too = () if "--methods" in arguments else ("--methods", "saliency")
        if "--masker" in arguments:
            methods_too = ("--methods", "aml")
        self.told(run("benchmark", *common, *methods_too, *arguments), message)

    def test_what_is_required(self, run: Run, model: str, data: str) -> None:
        self.told(run("benchmark", "--model", model), "Missing option '--data'")
        self.told(run("benchmark", "--data", data), "Missing option '--model'")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ('{"text": "good"}\n{"text": bad}\n', "data.jsonl, line 2: expected a JSON object"),
            ('{"text": "good"}\n{"label": 1}\n', "data.jsonl, line 2: "),
            ('{"text": "good"}\n{"text": " "}\n', "data.jsonl, line 2: text: expected words"),
            ('{"text": "a", "rationale": [[0, 9]]}\n', "line 1: rationale: expected spans"),
            ('{"text": "a", "label": "happy"}\n', "label: expected one of the model's classes"),
            ('{"text": "a", "label": 2}\n', "label: expected one of the model's classes"),
            ("", "data: expected one text or more"),
        ],
    )
    def test_data(self, run: Run, model: str, tmp_path: Path, content: str, message: str) -> None:
        path = tmp_path / "data.jsonl"
        path.write_text(content)
        common = ("--model", model, "--data", str(path), "--out", str(tmp_path / "out"))
        self.told(run("benchmark", *common, *FEW), message)
        assert not (tmp_path / "out").exists()

    def test_no_such_file(self, run: Run, model: str, tmp_path: Path) -> None:
        path = tmp_path / "data.jsonl"
        self.told(
            run("benchmark", "--model", model, "--data", str(path), *FEW),
            "data.jsonl: No such file",
        )

    def test_a_folder_with_another_run(
        self, run: Run, model: str, data: str, tmp_path: Path
    ) -> None:
        common = ("benchmark", "--model", model, "--out", str(tmp_path / "out"), *FEW)
        assert run(*common, "--data", data).code == 0
        other = ("--data", write(tmp_path / "other.jsonl", {"text": "good"}))
        self.told(run(*common, *other), "holds another run")
        assert run(*common, *other, "--overwrite").code == 0

    def test_a_folder_with_other_files(
        self, run: Run, model: str, data: str, tmp_path: Path
    ) -> None:
        self.told(
            run("benchmark", "--model", model, "--data", data, "--out", str(tmp_path), *FEW),
            "out: expected a new folder, an empty one or one of a run",
        )


class TestEvaluate:
    def test_explanations_of_ours(self, run: Run, model: str, tmp_path: Path) -> None:
        path, out = tmp_path / "x.jsonl", tmp_path / "out"
        texts = [str(row["text"]) for row in ROWS]
        arguments = ("--model", model, "--method", "saliency", "--output", str(path))
        assert run("explain", *arguments, "--", *texts).code == 0
        metrics = ("--metrics", "aopc-sufficiency,entropy")
        result = run("evaluate", str(path), "--model", model, "--out", str(out), *metrics)
        assert result.code == 0, result.err
        assert f"The report: {out / 'report.html'}" in result.out
        assert "passes" not in result.out, "nothing is known of their cost"
        assert "\x1b" not in result.out
        data = write(tmp_path / "data.jsonl", *ROWS)
        bench = tmp_path / "bench"
        run("benchmark", "--model", model, "--data", data, "--out", str(bench), *FEW)
        ours, expected = (
            next(
                row
                for row in results_from_json((folder / "results.json").read_text("utf-8")).rows
                if row.method == "saliency"
            )
            for folder in (out, bench)
        )
        for name, cell in ours.cells.items():
            assert cell.mean == pytest.approx(expected.cells[name].mean, abs=1e-5)

    def test_without_a_folder_nothing_is_written(
        self, run: Run, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        row = {"text": "bad film", "tokens": ["bad", "film"], "scores": [1, 0], "method": "[red]"}
        result = run("evaluate", write(tmp_path / "x.jsonl", row), "--model", model)
        assert result.code == 0, result.err
        assert "[red]" in result.out, "a name is no markup"
        assert [path.name for path in tmp_path.iterdir()] == ["x.jsonl"]

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ({"text": "bad"}, "x.jsonl, line 1: "),
            ({"text": "bad", "tokens": ["bad"], "scores": [1, 2]}, "scores: expected one for each"),
            ({"text": "bad", "tokens": ["bad"], "scores": [float("nan")]}, "scores: expected fini"),
            ({"text": "bad", "tokens": ["good"], "scores": [1]}, "tokens: expected strings that"),
            (
                {"text": "bad", "tokens": ["bad"], "scores": [1], "target": "happy"},
                "expected one of the labels negative, positive",
            ),
            (
                {"text": "bad", "tokens": ["bad"], "scores": [1], "label": 7},
                "label: expected one of the model's classes",
            ),
        ],
    )
    def test_mistakes(
        self, run: Run, model: str, tmp_path: Path, row: object, message: str
    ) -> None:
        result = run("evaluate", write(tmp_path / "x.jsonl", row), "--model", model)
        assert (result.code, result.out) == (2, "")
        assert result.err.count("\n") == 1
        assert message in result.err

    def test_no_such_file(self, run: Run, model: str) -> None:
        result = run("evaluate", "missing.jsonl", "--model", model)
        assert (result.code, result.out) == (2, "")
        assert "missing.jsonl: No such file" in result.err


class TestLists:
    def test_methods(self, run: Run) -> None:
        result = run("benchmark", "--methods", "list")
        assert result.code == 0, result.err
        assert [line.split()[0] for line in result.out.splitlines()] == list(methods.available())

    @pytest.mark.parametrize("command", ["benchmark", "evaluate"])
    def test_metrics(self, run: Run, command: str) -> None:
        result = run(command, "--metrics", "list")
        assert result.code == 0, result.err
        assert [line.split()[0] for line in result.out.splitlines()] == list(available_metrics())


class TestHelp:
    @pytest.mark.parametrize(
        ("command", "options"),
        [
            (
                "benchmark",
                "--model --data --methods --metrics --preset --limit --seeds --masker "
                "--batch-size --out --overwrite --steps --split",
            ),
            ("evaluate", "--model --out --metrics --preset --batch-size"),
        ],
    )
    def test_names_every_option(self, run: Run, command: str, options: str) -> None:
        result = run(command, "--help")
        assert result.code == 0
        for option in options.split():
            assert option in result.out

    def test_the_program_s_help_names_them(self, run: Run) -> None:
        out = run("--help").out
        assert "benchmark" in out
        assert "evaluate" in out
