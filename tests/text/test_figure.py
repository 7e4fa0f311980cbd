"""Figures of explanations, read back from Matplotlib's own objects."""

from __future__ import annotations

import importlib.util
import itertools
import logging
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.dom import minidom

import pytest

from captum_aml.exceptions import InvalidInputError
from captum_aml.text import Explanation
from captum_aml.text.segmentation import word_spans
from captum_aml.visualization.palette import PALETTE
from tests._helpers.scripts import TEXTS
from tests._helpers.text_models import EXPLANATION as MASKED

matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed")
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.colors import to_rgb  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402


def explanation(text: str, **changes: object) -> Explanation:
    """Scores for every word of a text, from 0 up to 1."""
    spans = word_spans(text)
    explained = replace(
        MASKED,
        text=text,
        tokens=tuple(text[a:b] for a, b in spans),
        offsets=tuple(spans),
        scores=tuple((i + 1) / len(spans) for i in range(len(spans))),
    )
    return replace(explained, **changes)


def labels(ax: Axes) -> list[str]:
    return [label.get_text() for label in ax.get_yticklabels()]


@pytest.fixture(autouse=True)
def nothing_else_changes() -> Iterator[None]:
    """Drawing warns of nothing and leaves Matplotlib's settings and pyplot's figures alone."""
    import matplotlib.pyplot as plt

    before, figures = dict(matplotlib.rcParams), plt.get_fignums()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    assert dict(matplotlib.rcParams) == before
    assert plt.get_fignums() == figures


def test_a_bar_for_each_token_in_the_order_of_the_text() -> None:
    (ax,) = MASKED.plot().axes
    assert labels(ax) == ["Un", "believ", "ably", "good", "!"]
    assert [bar.get_width() for bar in ax.patches] == [0.1, 0.9, 0.1, 0.95, 0.0]
    middles = [bar.get_y() + bar.get_height() / 2 for bar in ax.patches]
    assert middles == pytest.approx([0, 1, 2, 3, 4])
    assert ax.yaxis_inverted(), "the first token is on top"
    assert ax.get_xlim() == (0.0, 1.0)


def test_signed_scores_have_two_colors_and_zero_in_the_middle() -> None:
    signed = replace(MASKED, scores=(-0.02, 0.01, 0.0, 0.0, 0.0), signed=True)
    (ax,) = signed.plot().axes
    against, for_ = (bar.get_facecolor()[:3] for bar in ax.patches[:2])
    shades = {name: [c / 255 for c in PALETTE["light"][name]] for name in ("positive", "negative")}
    assert against == pytest.approx(shades["negative"], abs=1e-6)
    assert for_ == pytest.approx(shades["positive"], abs=1e-6)
    low, high = ax.get_xlim()
    assert low == -high
    assert high >= 0.02
    assert ax.get_xlabel() == "against 'negative' ← score → for it"


def test_says_what_the_scores_are() -> None:
    norms = replace(
        MASKED,
        scores=(0.001, 0.002, 0.0, 0.0, 0.0),
        relative=True,
        score="norm of the gradient of the explained class",
    )
    figure = norms.plot()
    assert figure.get_suptitle().splitlines()[1] == "score: norm of the gradient of 'negative'"
    (ax,) = figure.axes
    assert ax.get_xlabel() == "score"
    assert 0.002 <= ax.get_xlim()[1] < 0.0025, "the largest fills the axis"


def test_the_title_says_what_is_explained_and_what_was_cut() -> None:
    figure = replace(MASKED, n_tokens_cut=1234).plot()
    assert figure.get_suptitle() == ("positive 0.97, explains negative [aml]\n1,234 tokens cut off")


@pytest.mark.parametrize(("n", "columns"), [(1, 1), (5, 1), (50, 1), (51, 2), (200, 4)])
def test_long_texts_go_on_in_further_columns(n: int, columns: int) -> None:
    figure = explanation("good " * n).plot()
    assert len(figure.axes) == columns
    assert sum(len(labels(ax)) for ax in figure.axes) == n
    heights = [len(labels(ax)) for ax in figure.axes]
    assert max(heights) - min(heights) <= columns
    assert len({ax.get_xlim() for ax in figure.axes}) == 1
    # A line of text has more room than it is high.
    assert figure.get_figheight() / max(heights) > 9 / 72


@pytest.mark.parametrize("n", [5, 40, 200])
def test_nothing_runs_into_anything(n: int) -> None:
    figure = explanation("good, cafe\u0301 " * (n // 3) + "!" * 2).plot()
    figure.draw_without_rendering()
    width, height = figure.bbox.width, figure.bbox.height
    for ax in figure.axes:
        boxes = [label.get_window_extent() for label in ax.get_yticklabels()]
        for upper, lower in itertools.pairwise(boxes):
            assert upper.y0 >= lower.y1 - 2  # the boxes have a margin
        for box in boxes:
            assert -1 <= box.x0 < box.x1 <= width
            assert -1 <= box.y0 < box.y1 <= height + 1


def test_no_tokens() -> None:
    empty = replace(MASKED, text="", tokens=(), offsets=(), scores=())
    (ax,) = empty.plot().axes
    assert labels(ax) == []


def test_blanks_controls_and_missing_characters_are_seen(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tokens = [" film", " ", "\n\t", "", "a\nb", "\x1b", "\U0010fffd"]
    text = "".join(tokens)
    ends = [sum(map(len, tokens[: i + 1])) for i in range(len(tokens))]
    spans = tuple((end - len(token), end) for token, end in zip(tokens, ends, strict=True))
    odd = replace(
        MASKED, text=text, offsets=spans, scores=(0.5,) * 7,
        tokens=("Ġfilm", "Ġ", "ĊĉĠ", "<0x00>", "x", "x", "x"),
    )  # fmt: skip
    with caplog.at_level(logging.WARNING):
        (ax,) = odd.plot().axes
    shown = labels(ax)
    assert shown[:5] == ["film", "␣", "⏎⇥", "<0x00>", "a b"]
    assert shown[5] in "␛□"  # as the fonts have it
    assert shown[6] == "□"
    assert "no installed font has" in caplog.text


def test_dollars_are_no_formulas(tmp_path: Path) -> None:
    text = r"costs $5 and $\frac$ or $x_1^2$ {"
    # As one token, which would not even be a formula that can be read.
    whole = replace(MASKED, text=text, tokens=(text,), offsets=((0, len(text)),), scores=(1.0,))
    figure = replace(whole, predicted_label="$a$ $").plot(tmp_path / "a.png")
    (label,) = figure.axes[0].get_yticklabels()
    assert label.get_text().startswith(r"costs $5 and $\frac")
    assert not label.get_parse_math()


@pytest.mark.parametrize("script", TEXTS)
def test_any_script_is_drawn(tmp_path: Path, script: str) -> None:
    path = tmp_path / "figure.png"
    explanation(TEXTS[script]).plot(path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_long_units_are_shortened_between_characters() -> None:
    text = "cafe\u0301" * 30
    unit = replace(MASKED, text=text, tokens=(text,), offsets=((0, len(text)),), scores=(1.0,))
    ((label,),) = [labels(ax) for ax in unit.plot().axes]
    assert label == "cafe\u0301" * 4 + "caf…"
    for kind in ("sentence", "sentence+word"):
        ((label,),) = [labels(ax) for ax in replace(unit, unit=kind).plot().axes]
        assert 50 < len(label) <= 60


def test_a_line_between_the_texts_of_a_pair() -> None:
    pair = explanation("a b\nc d", parts=((0, 3), (4, 7)))
    (ax,) = pair.plot().axes
    dashed = [line.get_ydata()[0] for line in ax.lines if line.get_linestyle() == "--"]
    assert dashed == [1.5]


class TestFiles:
    @pytest.mark.parametrize("extension", [".png", ".pdf", ".svg", ".PNG"])
    def test_formats(self, tmp_path: Path, extension: str) -> None:
        path = tmp_path / f"figure{extension}"
        figure = MASKED.plot(path)
        assert isinstance(figure, Figure)
        start = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}[extension.lower()]
        assert path.read_bytes().startswith(start)

    def test_a_drawing_holds_no_script(self, tmp_path: Path) -> None:
        evil = "</text><script>alert(1)</script>"
        path = tmp_path / "figure.svg"
        whole = replace(MASKED, text=evil, tokens=("x",), offsets=((0, len(evil)),), scores=(1.0,))
        whole.plot(path)
        assert not minidom.parse(str(path)).getElementsByTagName("script")

    @pytest.mark.parametrize("name", ["figure", "figure.docx", "figure."])
    def test_unknown_format(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(InvalidInputError, match=r"path: expected one of the formats .*\.png"):
            MASKED.plot(tmp_path / name)

    def test_an_error_leaves_the_old_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "figure.png"
        path.write_text("before")

        def broken(*_: object, **__: object) -> None:
            raise RuntimeError("disk")

        monkeypatch.setattr(Figure, "savefig", broken)
        with pytest.raises(RuntimeError, match="disk"):
            MASKED.plot(path)
        assert path.read_text() == "before"
        assert [entry.name for entry in tmp_path.iterdir()] == ["figure.png"]


@pytest.mark.parametrize(
    "label", ["the committee has not decided yet, and " * 2, "委员会还没有" * 9]
)
def test_long_labels_stay_inside_the_figure(label: str) -> None:
    score = "contribution to the logit of the explained class less that of the foil"
    figure = replace(
        MASKED, predicted_label=label, target_label=label, foil=2, foil_label=label.upper(),
        signed=True, score=score,
    ).plot()  # fmt: skip
    figure.draw_without_rendering()
    (axes,) = figure.axes
    for text in (figure._suptitle, axes.xaxis.label):
        box = text.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.x1


class TestAxes:
    def test_are_drawn_into(self) -> None:
        figure = Figure(figsize=(8, 3))
        first, second = figure.subplots(1, 2)
        assert MASKED.plot(ax=second) is figure
        assert labels(second) == ["Un", "believ", "ably", "good", "!"]
        assert second.get_title() == "positive 0.97, explains negative [aml]"
        assert not first.patches
        assert tuple(figure.get_size_inches()) == (8, 3)

    def test_many_tokens_have_small_labels(self) -> None:
        figure = Figure(figsize=(8, 3))
        ax = figure.subplots()
        explanation("good " * 40).plot(ax=ax)
        assert len(labels(ax)) == 40
        assert ax.get_yticklabels()[0].get_size() < 9


def test_more_than_a_figure_can_hold() -> None:
    with pytest.raises(InvalidInputError, match=r"at most 2,000 tokens, got 2,001; to_html"):
        explanation("a " * 2001).plot()


def test_the_users_style_is_kept() -> None:
    with matplotlib.rc_context({"figure.facecolor": "black", "text.color": "red"}):
        figure = MASKED.plot()
    assert to_rgb(figure.get_facecolor()) == (0, 0, 0)


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec

    def find(name: str, *rest: object) -> object:
        return None if name == "matplotlib" else found(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", find)
    with pytest.raises(ImportError, match=r'needs matplotlib.*pip install "captum-aml\[plot\]"'):
        MASKED.plot()
