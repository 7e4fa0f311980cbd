"""The command line as a user meets it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from captum_aml import methods
from captum_aml._version import __version__
from captum_aml.cli import main as cli
from captum_aml.cli.options import TASKS
from captum_aml.text import tasks
from tests._helpers.methods import all_names

SHARED = Path(__file__).parents[3] / "shared"
COMMANDS = ("explain", "demo", "benchmark", "evaluate", "fit", "search")
#: What takes long to load.
HEAVY = (
    *("torch", "captum", "transformers", "matplotlib", "numpy", "sklearn", "scipy", "jinja2"),
    *("pyarrow", "datasets"),
)
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="there is no ../shared folder")


class Result:
    """What a run left behind."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    @property
    def rows(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.out.splitlines()]


Run: TypeAlias = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    def execute(*arguments: str, stdin: bytes | None = None) -> Result:
        stream = io.TextIOWrapper(io.BytesIO(stdin or b""), encoding="utf-8")
        if stdin is None:
            monkeypatch.setattr(stream, "isatty", lambda: True)
        monkeypatch.setattr(sys, "stdin", stream)
        with pytest.raises(SystemExit) as stop:
            cli.main(list(arguments))
        out, err = capfdbinary.readouterr()
        return Result(int(stop.value.code or 0), out.decode("utf-8"), err.decode("utf-8"))

    return execute


def explain(run: Run, model: str, *arguments: str, **keywords: object) -> Result:
    result = run("explain", "--model", model, *arguments, **keywords)
    assert result.code == 0, result.err
    return result


class TestResults:
    def test_a_line_of_json_for_every_text(self, run: Run, model: str) -> None:
        result = explain(run, model, "a good film", "bad 🎬", "--method", "occlusion")
        first, second = result.rows
        assert first["text"] == "a good film"
        assert first["tokens"] == ["a", "good", "film"]
        assert first["offsets"] == [[0, 1], [2, 6], [7, 11]]
        assert len(first["scores"]) == 3
        assert first["predicted_label"] in ("negative", "positive")
        assert 0.5 <= first["probability"] <= 1
        assert first["target"] == first["predicted"]
        assert first["method"] == "occlusion"
        assert first["settings"] == {"baseline_token": "[MASK]"}
        assert second["text"] == "bad 🎬"
        assert "🎬" in result.out, "text is written as it is, not as escapes"

    @pytest.mark.parametrize("method", all_names())
    def test_every_method(self, run: Run, model: str, method: str) -> None:
        steps = [] if methods.spec(method).steps is None else ["--steps", "4"]
        (row,) = explain(run, model, "a good film", "--method", method, *steps).rows
        assert row["method"] == method
        assert len(row["scores"]) == 3

    def test_long_texts_in_windows(self, run: Run, model: str) -> None:
        text = "a good film. the plot was slow! " * 12
        arguments = ("--method", "occlusion", "--unit", "sentence+word")
        (cut,) = explain(run, model, text, *arguments).rows
        (row,) = explain(run, model, text, *arguments, "--stride", "8").rows
        assert (cut["n_tokens_cut"], row["n_tokens_cut"]) == (108 - 62, 0)
        assert row["settings"]["stride"] == "8"
        assert len(row["tokens"]) > len(cut["tokens"]) > 12

    def test_aml_is_the_default(self, run: Run, model: str) -> None:
        (row,) = explain(run, model, "a good film").rows
        assert row["method"] == "aml"
        assert row["settings"]["n_steps"] == 16

    def test_the_same_seed_gives_the_same_output(self, run: Run, model: str) -> None:
        arguments = ("a good film", "--method", "lime", "--steps", "20", "--seed")
        one = explain(run, model, *arguments, "1").out
        assert explain(run, model, *arguments, "1").out == one
        assert explain(run, model, *arguments, "2").out != one

    def test_target_by_label(self, run: Run, model: str) -> None:
        arguments = ("a good film", "--method", "ig", "--steps", "5", "--target")
        negative = explain(run, model, *arguments, "negative").rows[0]
        zero = explain(run, model, *arguments, "0").rows[0]
        assert negative == zero
        assert negative["target_label"] == "negative"

    def test_standard_input_a_text_a_line(self, run: Run, model: str) -> None:
        result = explain(run, model, "--method", "occlusion", stdin="a\n\ncafé film\n".encode())
        assert [row["text"] for row in result.rows] == ["a", "café film"]

    def test_file_column_and_limit(self, run: Run, model: str, tmp_path: Path) -> None:
        path = tmp_path / "in.csv"
        path.write_text("id,body\n1,good\n2,bad\n3,film\n")
        arguments = (
            "--file",
            str(path),
            "--column",
            "body",
            "--limit",
            "2",
            "--method",
            "occlusion",
        )
        assert [row["text"] for row in explain(run, model, *arguments).rows] == ["good", "bad"]

    def test_pairs_of_a_file(self, run: Run, model: str, tmp_path: Path) -> None:
        path = tmp_path / "in.csv"
        path.write_text("label,premise,hypothesis\n0,good,bad\n1,film,plot\n")
        columns = ("--column", "premise", "--column", "hypothesis")
        arguments = ("--file", str(path), *columns, "--method", "random")
        assert [row["parts"] for row in explain(run, model, *arguments).rows] == [
            [[0, 4], [5, 8]],
            [[0, 4], [5, 9]],
        ]
        more = run("explain", "--model", model, *arguments, "--column", "label")
        assert "column: expected one, or two for pairs, got 3" in more.err

    def test_rows_that_are_skipped(self, run: Run, model: str, tmp_path: Path) -> None:
        source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
        lines = ['{"text": null, "id": 7}', '{"text": "good"}', '{"text": bad}', '{"text": "film"}']
        source.write_text("\n".join(lines))
        arguments = ("--file", str(source), "--method", "random", "--errors", "skip")
        result = explain(run, model, *arguments, "--output", str(target))
        rows = [json.loads(line) for line in target.read_text().splitlines()]
        assert [(row["row"], row["text"]) for row in rows] == [(1, "good"), (3, "film")]
        note, count = result.err.splitlines()
        assert note == (
            "Note: 2 of 4 texts could not be explained and were skipped, at positions 0, 2; the "
            f"first because of: {source}, line 1: expected a string in 'text', got null"
        )
        assert count == f"2 explanations in {target}"
        assert explain(run, model, *arguments).rows == rows
        # What was written before an error stays.
        source.write_text("\n".join(lines[1:]))
        result = run("explain", "--model", model, *arguments[:-2])
        assert (result.code, [row["text"] for row in result.rows]) == (2, ["good"])
        assert f"{source}, line 2: expected a JSON object" in result.err

    @pytest.mark.parametrize("name", ["out.html", "out.jsonl", "out.csv", "out.md", "out.txt"])
    def test_output_file(self, run: Run, model: str, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        result = explain(run, model, "good", "bad", "--method", "occlusion", "--output", str(path))
        assert result.out == ""
        assert result.err.strip() == f"2 explanations in {path}"
        assert "bad" in path.read_text(encoding="utf-8")

    def test_people_in_a_terminal_see_colors(
        self, run: Run, model: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLORTERM", "truecolor")
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.delenv("NO_COLOR", raising=False)
        out = explain(run, model, "a good film", "--method", "occlusion").out
        assert "\x1b[" in out
        assert not out.startswith("{")

    def test_people_without_colors_see_marks(
        self, run: Run, model: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("NO_COLOR", "1")
        out = explain(run, model, "a good film", "--method", "occlusion").out
        assert "[occlusion]" in out
        legend, note, shown = out.splitlines()
        assert legend.startswith("*for the explained class*, ~against it~, ")
        assert legend.endswith(
            "score: drop in the probability of the explained class when replaced alone"
        )
        assert note == "The explained class is the predicted one unless another is named."
        assert "*" in shown or "~" in shown
        assert "\x1b[" not in out

    def test_several_targets_of_each_text(self, run: Run, model: str) -> None:
        several = ["--target", "negative", "--target", "positive"]
        rows = explain(run, model, "good", "a bad film", "--method", "occlusion", *several).rows
        assert [(row["row"], row["target"]) for row in rows] == [(0, 0), (0, 1), (1, 0), (1, 1)]

    def test_columns_known_by_their_names_and_pairs_of_arguments(
        self, run: Run, model: str, tmp_path: Path
    ) -> None:
        table = tmp_path / "pairs.csv"
        table.write_text("id,question,context\n1,good,a film\n2,bad,1984\n")
        given = (
            ["--file", str(table)],
            ["good", "bad", "--pair", "a film", "--pair", "1984"],
        )
        first, second = (explain(run, model, *some, "--method", "occlusion").rows for some in given)
        assert first == second
        assert [row["text"] for row in first] == ["good\na film", "bad\n1984"]

    def test_the_only_column_with_words(self, run: Run, model: str, tmp_path: Path) -> None:
        table = tmp_path / "reviews.csv"
        table.write_text("review,stars\n7,7\na good film,9\n")
        rows = explain(run, model, "--file", str(table), "--method", "occlusion").rows
        assert [row["text"] for row in rows] == ["7", "a good film"]


class TestMistakes:
    """Each is told in one line on standard error, with exit code 2 and nothing on output."""

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["x", "--method", "magic"], "method: expected one of mask-gradient, aml"),
            (["x", "--target", "happy"], "target: expected one of the labels negative, positive"),
            (["x", "--target", "7"], "target: expected an index from 0 to 1"),
            (["x", "--device", "cuda:99"], "device: expected 'auto', 'cpu'"),
            (["x", "--method", "ig", "--masker", "m"], "masker: method 'ig' uses none"),
            (["x", "--method", "occlusion", "--steps", "3"], "n_steps: method 'occlusion'"),
            (["x", "--method", "ig", "--steps", "-1"], "Invalid value for '--steps'"),
            (["x", "--steps", "many"], "Invalid value for '--steps'"),
            (["x", "--batch-size", "0"], "Invalid value for '--batch-size'"),
            (["x", "--limit", "0"], "Invalid value for '--limit'"),
            (["x", "--masker", "/nowhere/masker"], "masker"),
            (["x", "--output", "out.pdf"], "output: expected one of the formats"),
            (["x", "--output", "/nowhere/out.html"], "output: there is no folder"),
            (["--file", "missing.jsonl"], "missing.jsonl: No such file"),
            (["--file", "data.xlsx"], "file: expected one of the formats"),
            (["x", "--file", "data.txt"], "got both"),
            (["x", "--pair", "y", "--pair", "z"], "pair: expected one for each text"),
            (["x", "--target", "POSITIVE"], "did you mean 'positive'?"),
            (["x", "--task", "ner"], "for the task 'ner'; it is for text-classification"),
            (["x", "--target", "0", "--target", "7"], "target: expected an index from 0 to 1"),
            ([], "texts: expected texts as arguments"),
            (["x", "--stride", "64"], "stride: expected fewer than the 62 tokens"),
            (["x", "--unit", "word", "--segmenter", "spacy"], "segmenter: expected one of jieba"),
            (["x", "--colour"], "No such option"),
        ],
    )
    def test_one_line(self, run: Run, model: str, arguments: list[str], message: str) -> None:
        result = run("explain", "--model", model, *arguments)
        assert result.code == 2
        assert result.out == ""
        assert result.err.count("\n") == 1
        assert result.err.startswith("captum-aml: ")
        assert message in result.err

    def test_model_missing(self, run: Run) -> None:
        assert "Missing option '--model'" in run("explain", "x").err
        assert "there is no folder" in run("explain", "--model", "./nowhere", "x").err

    def test_broken_line_in_the_middle_of_a_file(
        self, run: Run, model: str, tmp_path: Path
    ) -> None:
        source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
        source.write_text('{"text": "good"}\n{"text": bad}\n')
        result = run("explain", "--model", model, "--file", str(source), "--output", str(target))
        assert result.code == 2
        assert f"{source}, line 2: expected a JSON object" in result.err
        assert sorted(os.listdir(tmp_path)) == ["in.jsonl"], "no half result"

    def test_its_own_input(self, run: Run, model: str, tmp_path: Path) -> None:
        source, link = tmp_path / "in.jsonl", tmp_path / "link.jsonl"
        source.write_text('{"text": "good"}\n')
        link.symlink_to(source)
        for output in (source, link):
            result = run(
                "explain", "--model", model, "--file", str(source), "--output", str(output)
            )
            assert result.code == 2
            assert "output: expected another file than the one that is read" in result.err
            assert source.read_text() == '{"text": "good"}\n'

    def test_columns_that_could_both_be_the_text(
        self, run: Run, model: str, tmp_path: Path
    ) -> None:
        source = tmp_path / "in.csv"
        source.write_text("review,label\ngood,yes\n")
        result = run("explain", "--model", model, "--file", str(source))
        assert result.code == 2
        assert "there are 'review', 'label' (--column" in result.err

    def test_input_that_is_not_utf8(self, run: Run, model: str) -> None:
        result = run("explain", "--model", model, stdin=b"caf\xe9\n")
        assert (result.code, result.out) == (2, "")
        assert "standard input, line 1: expected UTF-8" in result.err

    def test_no_texts(self, run: Run, model: str) -> None:
        result = run("explain", "--model", model, stdin=b"\n\n")
        assert result.code == 2
        assert "standard input: expected a text, got none" in result.err

    def test_what_we_did_not_foresee_is_not_hidden(
        self, run: Run, model: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_: object, **__: object) -> None:
            raise ZeroDivisionError("a bug of ours")

        monkeypatch.setattr("captum_aml.text.TextExplainer", broken)
        with pytest.raises(ZeroDivisionError, match="a bug of ours"):
            cli.main(["explain", "--model", model, "x"])

    def test_interruption(self, run: Run, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("captum_aml.text.TextExplainer", interrupted)
        result = run("explain", "--model", model, "x")
        assert result.code == 130
        assert "Traceback" not in result.err


class TestProgram:
    def test_help_names_options_and_the_list_every_method(self, run: Run) -> None:
        result = run("explain", "--help")
        assert result.code == 0
        words = " ".join(result.out.split()).replace("- ", "-")
        assert "'list' lists them" in words
        listed = run("explain", "--method", "list")
        assert listed.code == 0
        names = [line.split()[0] for line in listed.out.splitlines()]
        assert names == list(methods.available())
        for option in ("--file", "--masker", "--target", "--output", "--device", "--limit"):
            assert option in words

    def test_no_arguments_show_help(self, run: Run) -> None:
        assert "Usage: captum-aml" in run().out

    def test_version(self, run: Run) -> None:
        assert run("--version").out.strip() == f"captum-aml {__version__}"

    def test_a_reader_that_leaves_is_no_error(self, model: str) -> None:
        # The pipe's reading end is closed before the first result is written.
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "captum_aml.cli",
                "explain",
                "--model",
                model,
                "--",
                "good",
            ],
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            text=True,
            check=False,
        )
        os.close(writing)
        assert done.returncode == 141
        assert done.stderr == ""

    @pytest.mark.parametrize(
        "arguments",
        [
            [],
            ["--version"],
            *([command, "--help"] for command in COMMANDS),
            ["fit", "--epochs", "many"],
            ["explain"],
            ["nothing"],
        ],
        ids=" ".join,
    )
    def test_help_and_mistakes_come_without_loading_models(self, arguments: list[str]) -> None:
        code = (
            "import sys; from captum_aml.cli.main import main\n"
            f"try: main({arguments})\n"
            "except SystemExit: pass\n"
            f"print([m for m in {HEAVY} if m in sys.modules])"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            cwd=Path(__file__).parents[2],
            text=True,
            check=True,
        )
        assert done.stdout.splitlines()[-1] == "[]"


def test_tasks_that_the_help_lists() -> None:
    assert tasks() == TASKS


@pytest.mark.shared
@needs_shared
def test_a_real_classifier_on_real_data(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    result = explain(
        run,
        str(SHARED / "models" / "minilm-sst2"),
        "--file",
        str(SHARED / "data" / "sst2" / "validation.jsonl"),
        "--method",
        "input-x-gradient",
        "--limit",
        "60",
        "--output",
        str(path),
    )
    assert "60 explanations" in result.err
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    with (SHARED / "data" / "sst2" / "validation.jsonl").open(encoding="utf-8") as stream:
        data = [json.loads(next(stream)) for _ in range(60)]
    assert [row["text"] for row in rows] == [row["text"] for row in data]
    for row in rows:
        for token, (start, end) in zip(row["tokens"], row["offsets"], strict=True):
            assert row["text"][start:end].lower() == token.removeprefix("##")
    right = sum(row["predicted"] == item["label"] for row, item in zip(rows, data, strict=True))
    assert right / 60 > 0.8  # 88 % on all of them
