"""Files that are complete or not there."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from captum_aml.exceptions import InvalidInputError
from captum_aml.text import Explanation, write_explanations
from tests._helpers.text_models import EXPLANATION as MASKED

EVIL = replace(
    MASKED, text="a | b\n<script>x</script>*", tokens=("a",), offsets=((0, 1),), scores=(1.0,)
)
BOTH = [MASKED, EVIL]
FORMATS = [".jsonl", ".html", ".csv", ".tsv", ".md", ".txt"]


def test_jsonl_holds_everything(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    assert write_explanations(path, BOTH) == 2
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [e.to_dict() for e in BOTH]


@pytest.mark.parametrize(("name", "delimiter"), [("out.csv", ","), ("out.tsv", "\t")])
def test_tables_can_be_read_back(tmp_path: Path, name: str, delimiter: str) -> None:
    write_explanations(tmp_path / name, BOTH)
    with (tmp_path / name).open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter=delimiter))
    assert [row["text"] for row in rows] == [e.text for e in BOTH]
    assert rows[0]["top tokens"] == "good 0.950, believ 0.900, Un 0.100, ably 0.100, ! 0.000"
    assert (rows[0]["predicted"], rows[0]["target"]) == ("positive", "negative")


def test_markdown_cells_stay_cells(tmp_path: Path) -> None:
    path = tmp_path / "out.md"
    write_explanations(path, BOTH)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 4
    for line in lines:
        assert line.replace("\\|", "").count("|") == 8
    assert "<script>" not in lines[3]


def test_plain_text_marks_what_matters(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    write_explanations(path, [MASKED])
    assert path.read_text(encoding="utf-8") == (
        "*important*, from 0 to 1, from half of the text's largest score on\n\n"
        "positive 0.97, explains negative [aml] Un*believ*ably *good*!\n"
    )


def test_contributions_have_their_sign_and_say_what_they_are(tmp_path: Path) -> None:
    what = "contribution to the logit of the explained class"
    signed = replace(MASKED, scores=(0.0, 0.25, 1.0, -2.0, 0.25), signed=True, score=what)
    write_explanations(tmp_path / "out.csv", [signed])
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as stream:
        (row,) = csv.DictReader(stream)
    # By value, highest first; "good", the largest in absolute value, is last.
    assert row["top tokens"] == "ably +1.000, believ +0.250, ! +0.250, Un +0.000, good -2.000"
    assert (row["score"], row["target"]) == (what, "negative")
    write_explanations(tmp_path / "out.txt", [signed] * 2)
    assert (tmp_path / "out.txt").read_text(encoding="utf-8").splitlines() == [
        "*for the explained class*, ~against it~, from half of the text's largest score on; "
        f"score: {what}",
        "The explained class is the predicted one unless another is named.",
        "",
        *["positive 0.97, explains negative [aml] Unbeliev*ably* ~good~!"] * 2,
    ]


def test_html_is_a_page(tmp_path: Path) -> None:
    path = tmp_path / "out.html"
    write_explanations(path, BOTH, title="A <title>")
    page = path.read_text(encoding="utf-8")
    assert page.count("<article") == 2
    assert "<title>A &lt;title&gt;</title>" in page


@pytest.mark.parametrize("extension", FORMATS)
class TestAtomic:
    def test_an_error_leaves_the_old_file(self, tmp_path: Path, extension: str) -> None:
        path = tmp_path / f"out{extension}"
        path.write_text("before")

        def broken() -> Iterator[Explanation]:
            yield MASKED
            raise RuntimeError("power cut")

        with pytest.raises(RuntimeError, match="power cut"):
            write_explanations(path, broken())
        assert path.read_text() == "before"
        assert os.listdir(tmp_path) == [path.name]

    def test_the_file_appears_when_it_is_complete(self, tmp_path: Path, extension: str) -> None:
        path = tmp_path / f"out{extension}"

        def watched() -> Iterator[Explanation]:
            yield MASKED
            assert not path.exists()
            yield EVIL

        assert write_explanations(path, watched()) == 2
        assert os.listdir(tmp_path) == [path.name]

    def test_permissions_are_those_of_any_new_file(self, tmp_path: Path, extension: str) -> None:
        path, plain = tmp_path / f"out{extension}", tmp_path / "plain"
        plain.touch()
        write_explanations(path, BOTH)
        assert path.stat().st_mode == plain.stat().st_mode

    def test_no_explanations_make_a_valid_file(self, tmp_path: Path, extension: str) -> None:
        assert write_explanations(tmp_path / f"out{extension}", []) == 0

    def test_a_link_stays_a_link(self, tmp_path: Path, extension: str) -> None:
        target, link = tmp_path / f"target{extension}", tmp_path / f"link{extension}"
        target.write_text("before")
        link.symlink_to(target)
        write_explanations(link, BOTH)
        assert link.is_symlink()
        assert target.read_text() != "before"


def test_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"formats \.html, \.jsonl, .*got .*out\.pdf"):
        write_explanations(tmp_path / "out.pdf", BOTH)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"there is no folder .*nowhere"):
        write_explanations(tmp_path / "nowhere" / "out.html", BOTH)
