"""The tutorials run as they are shown, offline and in seconds, and what they say of their output
holds.

They run in this process: importing the libraries anew for each takes longer than the examples.
"""

from __future__ import annotations

import ast
import importlib.util
import math
import re
import runpy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from captum_aml.visualization.palette import PALETTE

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"

Names = dict[str, Any]  # whatever a script defines


def _tutorials() -> tuple[str, ...]:
    spec = importlib.util.spec_from_file_location("_gallery", ROOT / "docs" / "_gallery.py")
    assert spec is not None
    assert spec.loader is not None
    gallery = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(gallery)
    names: tuple[str, ...] = gallery.TUTORIALS
    return names


@pytest.fixture(autouse=True)
def _no_window(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    pytest.importorskip("sklearn")
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("Agg")
    monkeypatch.setattr(pyplot, "show", lambda: None)
    yield
    pyplot.close("all")


def _run(name: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Names:
    path = str(EXAMPLES / f"{name}.py")
    monkeypatch.syspath_prepend(str(EXAMPLES))  # as for a script
    monkeypatch.setattr("sys.argv", [path, *(arguments or ("--smoke",))])
    return runpy.run_path(path, run_name="__main__")


@pytest.mark.parametrize("name", _tutorials())
def test_it_is_a_page_of_the_gallery(name: str) -> None:
    source = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(source))
    assert docstring is not None
    title, line = docstring.splitlines()[:2]
    assert title
    assert re.fullmatch("=+", line)
    assert len(line) >= len(title)
    assert "# %%" in source


def test_sentiment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    names = _run("sentiment", monkeypatch, "--smoke", "--output", str(page))
    assert names["explanation"].predicted_label == "negative"
    assert [word for word, _ in names["explanation"].top(2)] == ["not", "clean"]
    out = capsys.readouterr().out
    assert "negative (0.95): [('dirty'" in out
    assert "positive (0.05): [('friendly'" in out
    assert [each.method for each in names["compared"]] == list(names["names"])
    assert "not" in page.read_text(encoding="utf-8")


def test_first_call_picture(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "page.html"
    names = _run("first_call_picture", monkeypatch, "--smoke", "--output", str(path))
    assert [explanations[1].method for explanations in names["explained"]] == [
        "integrated-gradients",
        "lime",
        "aml",
    ]
    assert all(explanations[2].top(1)[0][0] == "wonderful" for explanations in names["explained"])
    page = path.read_text(encoding="utf-8")
    assert [page.count(f">{heading}<") for heading in names["COLUMNS"]] == [3, 3, 3]
    out = capsys.readouterr().out.splitlines()
    assert re.match(r"positive 0\.99\d  wonderful \+\d", out[2])


def test_first_call_picture_in_the_browser(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("playwright.sync_api")
    image = pytest.importorskip("PIL.Image")
    if shutil.which("chromium") is None:
        pytest.skip("no Chromium is installed")
    path = tmp_path / "picture.png"
    names = _run("first_call_picture", monkeypatch, "--smoke", "--output", str(path))
    with image.open(path) as picture:
        assert picture.width == 1.5 * names["WIDTH"]
        found = [color for _, color in picture.convert("RGB").getcolors(1 << 16)]
    # The strongest colour for the class, as near as a palette has it, and the ground of the rows.
    for wanted in (PALETTE["light"]["positive"], PALETTE["light"]["ground"]):
        assert min(math.dist(wanted, color) for color in found) < 10


def test_words(monkeypatch: pytest.MonkeyPatch) -> None:
    names = _run("words", monkeypatch)
    tokens, words, sentences = (names[f"by_{unit}"] for unit in ("token", "word", "sentence"))
    assert len(tokens.tokens) > len(words.tokens) > len(sentences.tokens) == 3
    for explanation in (words, sentences):
        assert "dreadful" in explanation.top(1)[0][0]
    assert max(tokens.words(), key=lambda word: word.score).text == "dreadful"
    assert names["listed"].tokens == ("The breakfast", "was dreadful", ".")
    assert names["listed"].top(1)[0][0] == "was dreadful"


def test_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    names = _run("pairs", monkeypatch)
    explanations = names["explanations"]
    assert [e.predicted_label for e in explanations] == ["entailment", "contradiction", "neutral"]
    for explanation, opinion in zip(explanations[:2], ("lovely", "stale"), strict=True):
        assert {token.strip() for token, _ in explanation.top(2)} == {opinion, "enjoyed"}
    assert max(explanations[2].scores) < 0.5
    # With the claim held fixed, only the review has scores.
    assert names["scores"][names["second"][0]].abs().max() == 0
    assert names["tokens"][names["scores"].argmax()] in ("Ġstale", "Ġst", "ale")


def test_prompt_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    names = _run("prompt_decoder", monkeypatch)
    assert names["explanation"].text == names["text"]
    assert names["explanation"].predicted_label == "negative"
    assert names["explanation"].top(1)[0][0].strip() == "stale"
    assert type(names["fitted"].attribution_.masker_).__name__ == "AlignedMasker"
    assert names["found"]["fitted masker"] > 80 > 40 > names["found"]["random"]


def test_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    names = _run("generation", monkeypatch)
    assert names["answer"] == " We are glad about your visit in May."
    for result in (names["result"], names["ablated"]):
        best = result.token_attr.argmax(dim=1)
        assert result.input_tokens[best[result.output_tokens.index("glad")]] == "Ġlovely"
        assert result.input_tokens[best[result.output_tokens.index("May")]] == "ĠMay"
    by_value = names["by_value"]
    assert by_value.token_attr.argmax(dim=1)[by_value.output_tokens.index("glad")] == 2
    assert by_value.token_attr.argmax(dim=1)[by_value.output_tokens.index("May")] == 0
    assert names["other"].token_attr[names["other"].output_tokens.index("sorry")].max() < 0.5


def test_captum_pipeline(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = _run("captum_pipeline", monkeypatch)
    tokens = [names["tokenizer"].convert_ids_to_tokens(row) for row in names["ids"].tolist()]
    for scores in names["scores"].values():
        highest = scores.argmax(dim=-1).tolist()
        assert [row[index] for row, index in zip(tokens, highest, strict=True)] == [
            "lovely",
            "not",
        ]
    shown = capsys.readouterr().out
    assert shown.count("infidelity") == 2
    assert len(names["records"]) == 4


def test_tabular(monkeypatch: pytest.MonkeyPatch) -> None:
    names = _run("tabular", monkeypatch)
    left = names["probability_without"]
    whole = names["probabilities"].max(dim=-1).values.mean().item()
    by_chance = left(torch.rand(len(names["test"]), 10))
    assert left(names["measured"]) < by_chance < whole
    outputs = names["model"](torch.stack([names["test"], torch.zeros_like(names["test"])]))
    both = outputs.gather(2, names["predicted"].expand(2, -1)[..., None])[..., 0]
    assert torch.allclose(names["measured"].sum(dim=1), both[0] - both[1], atol=1e-3)
    assert left(names["proposed"][:, :10]) < by_chance
    difference = names["predicted_progression"](names["shown"]) - names["average"]
    assert torch.allclose(names["by_value"].sum(dim=1), difference, atol=0.1)


def test_image(monkeypatch: pytest.MonkeyPatch) -> None:
    names = _run("image", monkeypatch)
    chosen, regions = names["chosen"], names["regions"]
    explanations = names["explanations"]
    for name, scores in explanations.items():
        if "single" not in name:
            # Pixels of one region share a score.
            for row in range(len(chosen)):
                for region in regions[row].unique():
                    assert scores[row][regions[row] == region].unique().numel() == 1
    # Without ink, a region equals its baseline and cannot be masked.
    for row in range(len(chosen)):
        for region in regions[row].unique():
            inside = regions[row] == region
            if not chosen[row][inside].any():
                assert not explanations["AML, baseline: no ink"][row][inside].any()
    model, mask = names["model"], explanations["AML, baseline: mean image"]
    kept = model(mask * chosen + (1 - mask) * names["mean_image"])
    assert kept.argmax(dim=-1).tolist() == names["predicted"].tolist()
    complement = model((1 - mask) * chosen + mask * names["mean_image"]).argmax(dim=-1)
    assert not torch.equal(complement, names["predicted"])


def test_vision_transformer(monkeypatch: pytest.MonkeyPatch) -> None:
    names = _run("vision_transformer", monkeypatch)
    z, empty = (names["logits"](names[each]) for each in ("images", "baseline"))
    against = (z - empty).gather(1, names["foils"][:, None])[:, 0]
    for scores, expected in (
        (names["contributions"], names["difference"]),
        (names["positions"], names["difference"]),
        (names["contrast"], names["difference"] - against),
    ):
        assert torch.allclose(scores.sum(dim=(1, 2)), expected, atol=1e-3)
    # Without ink a patch equals its baseline.
    without_ink = names["by_patch"](names["images"]) == 0
    assert without_ink.any()
    assert not names["contributions"][without_ink].any()
    # The foil is less likely than the class, and some patch speaks for it.
    assert (names["contrast"].amin(dim=(1, 2)) < 0).any()
    left = names["probability_without"]
    assert left(names["contributions"]) < 0.5 * left(torch.rand_like(names["contributions"]))
