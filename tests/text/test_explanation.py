"""The explanation as a value, and what it gives to Captum and to pages."""

from __future__ import annotations

import io
import json
import pickle
import re
import sys
import types
from dataclasses import FrozenInstanceError, fields, replace

import pytest
from captum.attr import visualization as captum_visualization
from rich.console import Console

from captum_aml.exceptions import InvalidInputError
from captum_aml.text import Explanation
from captum_aml.text.explanation import print_explanation, text_card
from captum_aml.text.writing import readable
from tests._helpers.text_models import EXPLANATION as MASKED

#: Scores whose sum is -0.5, of a class that is not the predicted one.
CONTRIBUTIONS = replace(
    MASKED,
    scores=(0.0, 0.25, 1.0, -2.0, 0.25),
    signed=True,
    score="contribution to the logit of the explained class",
)


def test_top_shows_the_text_as_written() -> None:
    assert MASKED.top(2) == [("good", 0.95), ("believ", 0.9)]


def test_top_breaks_ties_by_position_and_stops_at_the_last_token() -> None:
    assert [token for token, _ in MASKED.top(9)] == ["good", "believ", "Un", "ably", "!"]
    assert MASKED.top(0) == []


def test_top_puts_signed_scores_in_order_of_value() -> None:
    signed = replace(MASKED, scores=(-0.9, 0.1, -0.2, 0.3, 0.0), signed=True)
    assert [token for token, _ in signed.top(2)] == ["good", "believ"]


def test_top_of_a_negative_number() -> None:
    with pytest.raises(InvalidInputError, match="k: expected an integer of at least 0, got -1"):
        MASKED.top(-1)


def test_dictionary_survives_json() -> None:
    again = json.loads(json.dumps(MASKED.to_dict(), allow_nan=False))
    assert again["offsets"][1] == [2, 8]
    assert again["settings"] == {"n_steps": 50, "masker": None}
    assert (again["predicted"], again["target_label"]) == (1, "negative")
    assert Explanation.from_dict(again) == MASKED


def test_all_fields_come_back() -> None:
    full = replace(
        MASKED,
        text="a b\nc",
        tokens=("a b", "c"),
        offsets=((0, 3), (4, 5)),
        scores=(-0.5, 1.0),
        signed=True,
        n_tokens_cut=3,
        unit="word",
        parts=((0, 3), (4, 5)),
        given_words=((0, 3), (4, 5)),
    )
    again = Explanation.from_dict(json.loads(json.dumps(full.to_dict())))
    assert again == full
    assert hash(again) == hash(full)
    assert set(full.to_dict()) == {field.name for field in fields(Explanation)}


def test_json_of_numbers_and_lists() -> None:
    line = (
        '{"text": "a b", "tokens": ["a", "b"], "offsets": [[0, 1], [2, 3]], "scores": [0, 0.5], '
        '"predicted": 1, "predicted_label": "positive", "probability": 0.75, "target": 1, '
        '"target_label": "positive", "target_probability": 0.75, "method": "aml", '
        '"signed": false, "settings": {"n_steps": 50}, "n_tokens_cut": 0, "unit": "token", '
        '"parts": [], "given_words": null}'
    )
    read = Explanation.from_dict(json.loads(line))
    assert (read.unit, read.parts, read.given_words) == ("token", (), None)
    assert read.scores == (0.0, 0.5)
    assert [word.text for word in read.words()] == ["a", "b"]


def test_records_of_earlier_versions_are_read() -> None:
    values = CONTRIBUTIONS.to_dict()
    assert (values["relative"], values["score"]) == (False, CONTRIBUTIONS.score)
    del values["relative"], values["score"]
    assert Explanation.from_dict(values) == replace(CONTRIBUTIONS, score="")


class TestBadValues:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"scores": [0.5]}, "got 5 tokens, 5 offsets and 1 scores"),
            ({"scores": [0.5, 0, 0, 0, "1"]}, r"scores: expected what to_dict gives, got \[0\.5"),
            ({"scores": [0.5, 0, 0, 0, float("nan")]}, "scores: "),
            ({"scores": None}, "scores: .* got None"),
            ({"offsets": [[0, 1, 2]] * 5}, "offsets: "),
            ({"offsets": [[0, 99]] * 5}, r"within the text's 18 characters, got \(0, 99\)"),
            ({"offsets": [[3, 1]] * 5}, r"offsets: .* got \(3, 1\)"),
            ({"parts": [[0, 99]]}, "parts: "),
            ({"unit": "paragraph"}, "unit: .* got 'paragraph'"),
            ({"signed": 1}, "signed: "),
            ({"relative": None}, "relative: "),
            ({"score": 1}, "score: "),
            ({"text": 7}, "text: .* got 7"),
            ({"predicted": 1.5}, "predicted: "),
            ({"extra": 1, "more": 2}, "the unknown ones extra, more"),
        ],
    )
    def test_are_named(self, changes: dict[str, object], message: str) -> None:
        with pytest.raises(InvalidInputError, match=message):
            Explanation.from_dict({**MASKED.to_dict(), **changes})

    def test_missing_ones(self) -> None:
        values = MASKED.to_dict()
        del values["text"], values["scores"], values["unit"]
        with pytest.raises(InvalidInputError, match="none named text, scores, unit"):
            Explanation.from_dict(values)

    def test_no_mapping(self) -> None:
        with pytest.raises(InvalidInputError, match=r"values: .* got list"):
            Explanation.from_dict([MASKED])


def test_is_a_value() -> None:
    assert pickle.loads(pickle.dumps(MASKED)) == MASKED
    assert len({MASKED, replace(MASKED)}) == 1
    with pytest.raises(FrozenInstanceError):
        MASKED.method = "ig"


def test_is_small() -> None:
    # Strings and numbers alone: a token costs a few hundred bytes, an embedding costs thousands.
    size = sum(
        sys.getsizeof(part)
        for field in (MASKED.tokens, MASKED.offsets, MASKED.scores)
        for part in (field, *field)
    )
    assert size / len(MASKED.tokens) < 400
    for value in vars(MASKED).values():
        assert isinstance(value, str | int | float | tuple | dict | None)


class TestCaptumRecord:
    def test_mask_values_stay_as_they_are(self) -> None:
        record = MASKED.to_captum(true_class="positive")
        assert record.word_attributions.tolist() == pytest.approx(MASKED.scores)
        assert (record.pred_prob, record.pred_class) == (0.97, "positive")
        assert (record.attr_class, record.true_class) == ("negative", "positive")
        assert record.attr_score == pytest.approx(2.05)

    def test_signed_scores_use_captums_whole_scale(self) -> None:
        signed = replace(MASKED, scores=(-0.02, 0.01, 0.0, 0.0, 0.0), signed=True)
        record = signed.to_captum()
        assert record.word_attributions.tolist() == pytest.approx([-1.0, 0.5, 0, 0, 0])
        assert record.attr_score == pytest.approx(-0.01)

    def test_relative_scores_use_it_too(self) -> None:
        norms = replace(MASKED, scores=(0.001, 0.004, 0.0, 0.0, 0.0), relative=True)
        record = norms.to_captum()
        assert record.word_attributions.tolist() == pytest.approx([0.25, 1.0, 0, 0, 0])
        assert record.attr_score == pytest.approx(0.005)

    def test_captum_shows_the_explained_class_and_both_sides(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shown: list[str] = []
        monkeypatch.setattr(captum_visualization, "HAS_IPYTHON", True)
        monkeypatch.setattr(captum_visualization, "HTML", shown.append, raising=False)
        monkeypatch.setattr(captum_visualization, "display", lambda *_: None, raising=False)
        captum_visualization.visualize_text([CONTRIBUTIONS.to_captum(true_class="positive")])
        cells = re.findall(r"<td><text[^>]*><b>(.*?)</b>", shown[0])
        # The true class, the predicted one, the explained one, and the sum of the scores.
        assert cells == ["positive", "positive (0.97)", "negative", "-0.50"]
        hues = re.findall(r"<mark[^>]*hsl\((\d+), 75%, (\d+)%\)[^>]*><font[^>]*> (\S+) ", shown[0])
        # Green is 120, red 0; white, of lightness 100, is 0. The largest has full colour.
        assert [(hue, word) for hue, light, word in hues if light != "100"] == [
            ("120", "##believ"), ("120", "##ably"), ("0", "good"), ("120", "!"),
        ]  # fmt: skip

    def test_what_captum_would_run_is_escaped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        evil = "<img src=x onerror=alert(1)>"
        explanation = replace(
            MASKED, tokens=("<script>", evil, "&", "good", "\x00"), predicted_label=evil
        )
        shown: list[str] = []
        monkeypatch.setattr(captum_visualization, "HAS_IPYTHON", True)
        monkeypatch.setattr(captum_visualization, "HTML", shown.append, raising=False)
        monkeypatch.setattr(captum_visualization, "display", lambda *_: None, raising=False)
        captum_visualization.visualize_text([explanation.to_captum(true_class=evil)])
        assert "<script" not in shown[0]
        assert "<img" not in shown[0]
        assert "&lt;img src=x onerror=alert(1)&gt;" in shown[0]

    def test_no_tokens(self) -> None:
        empty = replace(MASKED, text="", tokens=(), offsets=(), scores=(), signed=True)
        assert empty.to_captum().word_attributions.tolist() == []


class TestCard:
    def test_one_row_for_each_method(self) -> None:
        card = text_card([MASKED, replace(MASKED, method="ig", signed=True)])
        assert [row.method for row in card.rows] == ["aml", "ig"]
        assert (card.predicted, card.probability, card.seen) == ("positive", 0.97, None)

    def test_says_where_the_model_stopped_reading(self) -> None:
        cut = replace(MASKED, tokens=MASKED.tokens[:3], offsets=MASKED.offsets[:3], n_tokens_cut=2)
        cut = replace(cut, scores=MASKED.scores[:3])
        assert cut.truncated
        assert text_card([cut]).seen == 12

    @pytest.mark.parametrize("texts", [[], ["a", "b"]])
    def test_needs_explanations_of_one_text(self, texts: list[str]) -> None:
        with pytest.raises(InvalidInputError, match="all of the same text"):
            text_card([replace(MASKED, text=text) for text in texts])

    def test_units_and_pairs_are_said(self) -> None:
        text = "a b\nc"
        pair = replace(MASKED, text=text, parts=((0, 3), (4, 5)), unit="word", n_tokens_cut=2)
        pair = replace(pair, offsets=((0, 1), (2, 3), (4, 5)), scores=(0.0, 0.5, 1.0))
        card = text_card([pair])
        assert card.parts == ((0, 3), (4, 5))
        assert card.n_tokens_cut == 2
        assert card.rows[0].detail == "by word"
        assert text_card([MASKED]).rows[0].detail == ""


class TestHtml:
    def test_is_a_fragment_that_stands_alone(self) -> None:
        html = MASKED.to_html()
        assert html == MASKED._repr_html_()
        assert html.startswith('<meta charset="utf-8">')
        assert not re.search(r"(?i)<html|<body|https?:|url\(|@import|<script|<link|<img", html)
        # Every rule of its style is about itself alone.
        style = html[html.index("<style>") + 7 : html.index("</style>")]
        flat = re.sub(r"@media[^{]*\{", "", style)
        for selectors in re.findall(r"([^{}]+)\{", flat):
            for selector in re.sub(r":is\(.*?\)", "", selectors).split(", "):
                assert re.match(r"\s*\.(captum-aml|caml-)", selector), selector

    def test_classes_are_its_own(self) -> None:
        body = MASKED.to_html().split("</style>")[1]
        names = {name for value in re.findall(r'class="([^"]*)"', body) for name in value.split()}
        assert all(name.startswith(("caml-", "captum-aml")) for name in names)

    def test_what_a_page_would_run_is_escaped(self) -> None:
        evil = "<script>alert(1)</script>&amp;\"' onload=x \x00\u202e"
        explanation = replace(
            MASKED, text=evil, tokens=(evil,), offsets=((0, len(evil)),), scores=(1.0,),
            predicted_label=evil, target_label=evil + evil, method=evil,
        )  # fmt: skip
        html = explanation.to_html()
        assert "<script" not in html
        assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;&amp;amp;&#34;&#39; onload") == 4
        assert "\x00" not in html
        assert "\u202e" not in html

    def test_says_how_much_was_cut(self) -> None:
        assert "cut off" not in MASKED.to_html()
        assert "1 token cut off" in replace(MASKED, n_tokens_cut=1).to_html()
        assert "12,345 tokens cut off" in replace(MASKED, n_tokens_cut=12345).to_html()

    def test_a_text_of_many_tokens(self) -> None:
        text = "a\u0301🎬b " * 5_000
        offsets = tuple((i, i + 1) for i in range(len(text)))
        long = replace(MASKED, text=text, tokens=("x",) * len(text), offsets=offsets)
        long = replace(long, scores=(0.5,) * len(text))
        # A letter and its accent are one stretch.
        assert long.to_html().count('title="+0.500"') == 20_000
        assert readable(long).count("*") == 2


class TestLongLabels:
    #: As of an answer that a model has written, for a text of which it knows the end.
    LONG = replace(
        CONTRIBUTIONS, predicted_label="the answer is " * 9 + "42", predicted=0,
        target_label="the answer is " * 9 + "42", probability=5.4e-5,
    )  # fmt: skip

    def test_are_shown_in_short_and_once_in_a_terminal(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.LONG.show()
        short = "the answer is the answer is the answer…"
        assert capsys.readouterr().out == (
            f"{short} 5.4e-05 [aml] Unbeliev*ably* ~good~!\n*for '{short}'*, ~against it~, from "
            "half of the text's largest score on; score: contribution to the logit of it\n"
        )
        html = self.LONG.to_html()
        assert html.count(self.LONG.target_label) == 1
        assert "0.0054 %" in html

    def test_of_a_contrast_stand_in_quotes_each(self, capsys: pytest.CaptureFixture[str]) -> None:
        score = "contribution to the logit of the explained class less that of the foil"
        replace(CONTRIBUTIONS, foil=1, foil_label="positive", score=score).show()
        head, legend = capsys.readouterr().out.splitlines()
        assert head.startswith("positive 0.97, explains negative rather than positive [aml] ")
        assert legend.startswith("*for 'negative' rather than 'positive'*, ~against it~, ")
        said = "; score: contribution to the logit of 'negative' less that of 'positive'"
        assert legend.endswith(said)


class TestRepr:
    def test_is_one_short_line(self) -> None:
        assert repr(replace(MASKED, foil=1, foil_label="positive")) == (
            "Explanation('Unbelievably good!', label='negative', foil='positive', "
            "probability=0.03, method='aml', top='good')"
        )
        long = replace(MASKED, text="a\nb " * 999, probability=None, value=1.5, offsets=())
        long = replace(long, target_probability=None, target_label="x" * 99, scores=(), tokens=())
        assert len(repr(long)) < 160
        assert "\n" not in repr(long)
        assert "value=1.5" in repr(long)


class TestShow:
    def test_in_a_terminal(self, capsys: pytest.CaptureFixture[str]) -> None:
        MASKED.show()
        shown = capsys.readouterr().out
        # No terminal: marks instead of colours.
        assert shown == (
            "positive 0.97, explains negative [aml] Un*believ*ably *good*!\n"
            "*important*, from 0 to 1, from half of the text's largest score on\n"
        )

    def test_says_which_class_and_what_the_scores_are(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        replace(CONTRIBUTIONS, text="Unbelievably good!").show()
        assert capsys.readouterr().out == (
            "positive 0.97, explains negative [aml] Unbeliev*ably* ~good~!\n"
            "*for 'negative'*, ~against it~, from half of the text's largest score on; "
            "score: contribution to the logit of 'negative'\n"
        )

    def test_colors_of_a_terminal(self) -> None:
        console = Console(
            file=io.StringIO(), force_terminal=True, color_system="truecolor", width=200
        )
        print_explanation(CONTRIBUTIONS, console)
        shown = console.file.getvalue()
        # Half of the way from (219, 234, 254) to (96, 165, 250); and the whole one to orange.
        blue, orange = "48;2;158;200;252m", "48;2;251;146;60m"
        assert re.search(rf"\x1b\[38[\d;]*{re.escape(blue)}ably", shown)
        # What is against the class is underlined (4), too.
        assert re.search(rf"\x1b\[4;38[\d;]*{re.escape(orange)}good", shown)
        legend = "blue: for 'negative', orange, underlined: against it; score: contribution to the"
        assert f"{legend} logit of 'negative'" in re.sub(r"\x1b\[[\d;]*m", "", shown)

    def test_pairs_and_cuts_in_a_terminal(self, capsys: pytest.CaptureFixture[str]) -> None:
        pair = replace(MASKED, text="a b\nc d", parts=((0, 3), (4, 7)), n_tokens_cut=1234)
        pair = replace(pair, offsets=((0, 1), (4, 5)), scores=(1.0, 0.5), tokens=("a", "c"))
        pair.show()
        assert capsys.readouterr().out.splitlines() == [
            "positive 0.97, explains negative [aml]",
            "*a* b | *c* d",
            "1,234 tokens cut off",
            "*important*, from 0 to 1, from half of the text's largest score on",
        ]

    def test_in_a_notebook(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        shown: list[object] = []
        front_end = types.ModuleType("IPython")
        front_end.get_ipython = lambda: types.SimpleNamespace(kernel=object())
        display = types.ModuleType("IPython.display")
        display.display = shown.append
        monkeypatch.setitem(sys.modules, "IPython", front_end)
        monkeypatch.setitem(sys.modules, "IPython.display", display)
        MASKED.show()
        assert shown == [MASKED]
        assert capsys.readouterr().out == ""

    def test_ipython_in_a_terminal_shows_no_html(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        front_end = types.ModuleType("IPython")
        front_end.get_ipython = lambda: types.SimpleNamespace()
        monkeypatch.setitem(sys.modules, "IPython", front_end)
        MASKED.show()
        assert "Un*believ*ably" in capsys.readouterr().out


def test_top_leaves_out_the_space_of_a_token() -> None:
    explanation = replace(
        MASKED,
        text="a film\n",
        tokens=("a", "Ġfilm", "Ċ"),
        offsets=((0, 1), (1, 6), (6, 7)),
        scores=(0.1, 0.9, 0.5),
    )
    assert explanation.top(3) == [("film", 0.9), ("\n", 0.5), ("a", 0.1)]
