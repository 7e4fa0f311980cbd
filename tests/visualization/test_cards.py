"""What people see: the page, the terminal, plain text."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from captum_aml.visualization import (
    INK,
    PALETTE,
    ScoredText,
    Table,
    TextCard,
    page,
    plain_text,
    printable,
    segments,
    terminal_text,
)


def scored(
    text: str, scores: list[float], *, signed: bool = False, pattern: str = r"\w+|[^\w\s]"
) -> ScoredText:
    offsets = [match.span() for match in re.finditer(pattern, text)]
    return ScoredText("method", offsets, scores, signed=signed)


def card(text: str, *rows: ScoredText, seen: int | None = None) -> TextCard:
    return TextCard(text=text, predicted="positive", probability=0.9, rows=rows, seen=seen)


class Parsed(HTMLParser):
    """The elements and the texts of a page."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.colored: list[tuple[str, float, str]] = []
        self._div = 0
        self._span: tuple[str, float] | None = None
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if self._div or (tag == "div" and attributes.get("class") == "text"):
            if tag == "div":
                self._div += 1
                self.texts.append("")
            style = re.fullmatch(r"--s:([\d.]+)", attributes.get("style") or "")
            self._span = (attributes.get("class") or "", float(style[1])) if style else None

    def handle_endtag(self, tag: str) -> None:
        if tag == "div" and self._div:
            self._div -= 1
        self._span = None

    def handle_data(self, data: str) -> None:
        if self._div:
            self.texts[-1] += data
            if self._span:
                self.colored.append((data, self._span[1], self._span[0]))


def parse(*cards: TextCard, **arguments: object) -> Parsed:
    html = "".join(page(cards, title="Title", **arguments))
    return Parsed(html)


class TestSegments:
    def test_joined_they_are_the_text(self) -> None:
        text = "  a  gripping\nfilm ! "
        parts = segments(text, scored(text, [0.1, 0.9, 0.2, 0.0]))
        assert "".join(part.text for part in parts) == text
        tokens = [(part.text, part.score) for part in parts if part.kind == "token"]
        assert tokens == [("a", 0.1), ("gripping", 0.9), ("film", 0.2), ("!", 0.0)]

    def test_pieces_of_a_word_touch(self) -> None:
        row = ScoredText("m", [(0, 4), (4, 5), (5, 8)], [0.1, 0.2, 0.3])
        assert [part.text for part in segments("gripping", row)] == ["grip", "p", "ing"]

    def test_bytes_of_one_character_become_one_with_the_strongest_score(self) -> None:
        row = ScoredText("m", [(0, 1), (1, 2), (1, 2), (1, 2)], [0.1, 0.2, -0.5, 0.4], signed=True)
        parts = segments("a🎬", row)
        assert [(part.text, part.score) for part in parts] == [("a", 0.1), ("🎬", -0.5)]

    @pytest.mark.parametrize(
        "character",
        [
            "e\u0301",
            "👍🏽",
            "👩\u200d👧",
            "❤\ufe0f",
            "🇩🇪",
            "क\u093f",
            "क्षि",
            "น้ำ",
            "\u1112\u1161\u11ab",
        ],
    )
    def test_what_reads_as_one_character_is_not_torn(self, character: str) -> None:
        offsets = [(i, i + 1) for i in range(len(character))]
        row = ScoredText("m", offsets, [0.1] * (len(character) - 1) + [0.7])
        assert [(p.text, p.score) for p in segments(character, row)] == [(character, 0.7)]

    def test_neighbours_of_what_reads_as_one_character_stay_apart(self) -> None:
        row = ScoredText("m", [(i, i + 1) for i in range(6)], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
        parts = segments("🇩🇪🇫🇷e\u0301", row)
        assert [(p.text, p.score) for p in parts] == [("🇩🇪", 0.2), ("🇫🇷", 0.4), ("e\u0301", 0.6)]

    def test_an_accent_without_a_token_stays_with_its_letter(self) -> None:
        row = ScoredText("m", [(0, 1), (2, 3)], [0.1, 0.2])
        parts = segments("e\u0301a", row)
        assert [(p.text, p.score) for p in parts] == [("e\u0301", 0.1), ("a", 0.2)]

    def test_empty_spans_are_passed_over(self) -> None:
        row = ScoredText("m", [(0, 0), (0, 1)], [0.9, 0.2])
        assert [(part.text, part.score) for part in segments("a", row)] == [("a", 0.2)]

    def test_mask_values_are_shown_as_they_are(self) -> None:
        parts = segments("a b", scored("a b", [0.1, 0.2]))
        assert [part.strength for part in parts if part.kind == "token"] == [0.1, 0.2]

    def test_signed_scores_are_relative_to_the_largest(self) -> None:
        parts = segments("a b", scored("a b", [0.01, -0.02], signed=True))
        assert [part.strength for part in parts if part.kind == "token"] == [0.5, -1.0]

    def test_scores_of_zero_only(self) -> None:
        parts = segments("a b", scored("a b", [0.0, 0.0], signed=True))
        assert [part.strength for part in parts if part.kind == "token"] == [0.0, 0.0]

    def test_what_the_model_did_not_see_is_set_apart(self) -> None:
        row = ScoredText("m", [(0, 1), (2, 3)], [0.5, 0.5])
        parts = segments("a b c d", row, seen=3)
        assert [(p.text, p.kind) for p in parts][-1] == (" c d", "unseen")

    @settings(max_examples=200, deadline=None)
    @given(st.data())
    def test_any_spans_give_back_the_text(self, data: st.DataObject) -> None:
        text = data.draw(st.text(max_size=30))
        borders = st.integers(0, len(text))
        spans = data.draw(st.lists(st.tuples(borders, borders).map(sorted).map(tuple), max_size=8))
        scores = data.draw(st.lists(st.floats(-1, 1), min_size=len(spans), max_size=len(spans)))
        row = ScoredText("m", spans, scores, signed=True)
        parts = segments(text, row, seen=data.draw(st.none() | borders))
        assert "".join(part.text for part in parts) == printable(text)
        assert all(part.text and -1 <= part.strength <= 1 for part in parts)


class TestPage:
    def test_a_script_in_a_text_stays_text(self) -> None:
        evil = "</div></article><script>alert('1')</script><img src=x onerror=alert(1)> &lt;b&gt;"
        row = ScoredText(evil, [(0, 3), (3, len(evil))], [0.2, 0.9], explained=evil, detail=evil)
        parsed = Parsed(
            "".join(
                page(
                    [TextCard(evil, evil, 0.5, [row]), TextCard(evil, evil, 0.5, [row, row])],
                    title=evil,
                    subtitle=evil,
                    tables=[Table(evil, [evil], [[evil]])],
                )
            )
        )
        tags = {tag for tag, _ in parsed.tags}
        assert tags.isdisjoint({"script", "img", "b", "iframe", "object", "link"})
        assert parsed.texts == [evil] * 3
        assert all(
            not name.startswith("on") and name not in ("src", "href")
            for _, attributes in parsed.tags
            for name in attributes
        )

    def test_a_quote_cannot_leave_the_hover_text(self) -> None:
        parsed = parse(card('" onmouseover="x', scored('" onmouseover="x', [0.1] * 5)))
        assert all("onmouseover" not in attributes for _, attributes in parsed.tags)

    def test_loads_nothing(self) -> None:
        html = "".join(page([card("a", scored("a", [1.0]))], title="t"))
        assert not re.search(r"(?i)https?:|url\(|@import|<script|<link", html)

    def test_texts_are_shown_as_written(self) -> None:
        text = "Un  believable,\n\tfilm 🎬 日本語 مرحبا"
        parsed = parse(card(text, scored(text, [0.5] * 7)))
        assert parsed.texts == [text]

    def test_colors_follow_the_scores(self) -> None:
        text = "good bad"
        parsed = parse(
            card(text, scored(text, [0.75, 0.0]), scored(text, [0.01, -0.04], signed=True))
        )
        assert parsed.colored == [
            ("good", 0.75, "p"),
            ("bad", 0.0, "p"),
            ("good", 0.25, "p"),
            ("bad", 1.0, "n strong"),
        ]
        titles = [a["title"] for tag, a in parsed.tags if tag == "span" and "title" in a]
        assert titles == ["+0.750", "+0.000", "+0.010", "-0.040"]

    def test_legend_shows_the_scales_in_use(self) -> None:
        def legend(*rows: ScoredText) -> list[str]:
            classes = [a.get("class") or "" for _, a in parse(card("a", *rows)).tags]
            return [name for name in classes if name.startswith("bar")]

        mask, signed = scored("a", [0.5]), scored("a", [0.5], signed=True)
        assert legend(mask) == ["bar unsigned"]
        assert legend(signed) == ["bar signed"]
        assert legend(mask, signed) == ["bar unsigned", "bar signed"]
        several = parse(card("a", mask), card("a", signed))
        classes = [a.get("class") or "" for _, a in several.tags]
        assert [c for c in classes if c.startswith("bar")] == ["bar unsigned", "bar signed"]

    def test_prediction_method_and_other_class_are_named(self) -> None:
        row = ScoredText("occlusion", [(0, 1)], [0.5], explained="negative", detail="3 ms")
        html = "".join(page([card("a", row)], title="Title", subtitle="Sub"))
        for shown in ("positive", "90.0 %", "occlusion", "explains negative", "3 ms", "Sub"):
            assert shown in html

    def test_the_texts_of_a_pair_are_shown_apart(self) -> None:
        row = ScoredText("m", [(0, 1), (4, 5), (6, 7)], [0.25, 0.5, -1.0], signed=True)
        pair = TextCard("a b\nc d e", "entailment", 0.9, [row], parts=[(0, 3), (4, 9)])
        parsed = parse(pair)
        assert parsed.texts == ["a b", "c d e"]
        assert parsed.colored == [("a", 0.25, "p"), ("c", 0.5, "p"), ("d", 1.0, "n strong")]
        html = "".join(page([pair], title="t"))
        assert 'title="text 1 of the pair">1<' in html
        assert 'title="text 2 of the pair">2<' in html
        assert plain_text(pair, row) == "a b | *c* ~d~ e"
        assert terminal_text(pair, row).plain == "1 a b\n2 c d e"

    def test_of_a_pair_that_was_cut_both_ends_are_set_apart(self) -> None:
        row = ScoredText("m", [(0, 1), (4, 5)], [0.5, 0.5])
        pair = TextCard(
            "a b\nc d", "entailment", 0.9, [row], seen=5, parts=[(0, 3), (4, 7)], n_tokens_cut=2
        )
        html = "".join(page([pair], title="t"))
        assert re.findall(r'class="unseen"[^>]*>([^<]*)<', html) == [" b", " d"]
        assert "2 tokens cut off" in html

    def test_empty_texts_of_a_pair(self) -> None:
        pair = TextCard("\nb", "neutral", 0.9, [ScoredText("m", [], [])], parts=[(0, 0), (1, 2)])
        assert parse(pair).texts == ["(empty text)", "b"]

    def test_empty_text_and_no_texts(self) -> None:
        assert parse(card("", ScoredText("m", [], []))).texts == ["(empty text)"]
        assert parse().texts == []

    def test_control_characters_become_visible(self) -> None:
        text = "a\x00b\x1b[31mc\x7f\u202e"
        (shown,) = parse(card(text, ScoredText("m", [], []))).texts
        assert shown == "a␀b␛[31mc␡\ufffd"

    def test_tables(self) -> None:
        html = "".join(page([], title="t", tables=[Table("Times", ["a", "b"], [["1", "<2"]])]))
        assert "<caption>Times</caption>" in html
        assert "<td>&lt;2</td>" in html

    def test_is_written_as_cards_come(self) -> None:
        taken: list[int] = []

        def cards() -> object:
            for number in range(500):
                taken.append(number)
                yield card("a b", scored("a b", [0.1, 0.2]))

        pieces = page(cards(), title="t")
        for piece in pieces:
            if "<article" in piece:
                break
        assert len(taken) < 500

    @pytest.mark.parametrize("mode", ["light", "dark"])
    def test_text_is_readable_on_every_shade(self, mode: str) -> None:
        # WCAG 2 asks for a contrast of 4.5 for text of ordinary size.
        for end in ("positive", "negative"):
            for share in range(11):
                shade = tuple(
                    g + (c - g) * share / 10
                    for g, c in zip(PALETTE[mode]["ground"], PALETTE[mode][end], strict=True)
                )
                assert contrast(shade, INK[mode]) >= 4.5

    @pytest.mark.parametrize("mode", ["light", "dark"])
    def test_for_and_against_differ_without_red_and_green(self, mode: str) -> None:
        # All common forms of colour blindness keep the difference between blue and yellow.
        (_, _, blue), (_, _, other) = PALETTE[mode]["positive"], PALETTE[mode]["negative"]
        assert blue - other > 150


def contrast(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    """The contrast ratio of two sRGB colours as WCAG 2 defines it."""

    def luminance(color: tuple[float, ...]) -> float:
        linear = [
            c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4
            for c in color
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


class TestTerminal:
    def test_important_tokens_have_a_ground_color(self) -> None:
        text = terminal_text(card("a good b"), scored("a good b", [0.0, 1.0, 0.05]))
        assert text.plain == "a good b"
        styles = {text.plain[s.start : s.end]: str(s.style) for s in text.spans if s.style}
        assert styles == {"good": "#111827 on #60a5fa"}

    def test_against_is_orange(self) -> None:
        text = terminal_text(card("a"), scored("a", [-0.3], signed=True))
        assert str(text.spans[0].style).endswith("on #fb923c")

    def test_no_text_can_steer_the_terminal(self) -> None:
        evil = "a\x1b]0;title\x07\x1b[2J\x9b31m"
        console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=200)
        console.print(terminal_text(card(evil), ScoredText("m", [(0, len(evil))], [0.0])))
        written = console.file.getvalue()
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", written)

    def test_square_brackets_are_no_markup(self) -> None:
        console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=200)
        console.print(terminal_text(card("[bold]a[/x]"), ScoredText("m", [], [])))
        assert console.file.getvalue() == "[bold]a[/x]\n"


class TestPlainText:
    def test_marks_from_half_of_the_largest_score_on(self) -> None:
        text = "a good , great film"
        row = scored(text, [0.1, 0.4, 0.0, 0.8, 0.39])
        assert plain_text(card(text), row) == "a *good* , *great* film"

    def test_neighbours_share_a_mark(self) -> None:
        text = "very good film"
        assert plain_text(card(text), scored(text, [0.8, 0.9, 0.1])) == "*very good* film"
        pieces = ScoredText("m", [(0, 4), (4, 8)], [0.8, 0.9])
        assert plain_text(card("gripping"), pieces) == "*gripping*"

    def test_against_has_another_mark(self) -> None:
        text = "not good"
        assert plain_text(card(text), scored(text, [-0.5, 0.4], signed=True)) == "~not~ *good*"

    def test_a_text_of_a_hundred_thousand_marked_tokens(self) -> None:
        # Where time is not linear this takes minutes.
        text = "good " * 100_000
        row = ScoredText("m", [(i, i + 4) for i in range(0, len(text), 5)], [1.0] * 100_000)
        assert plain_text(card(text), row) == f"*{text[:-1]}* "

    def test_nothing_to_mark(self) -> None:
        assert plain_text(card("a b"), scored("a b", [0.0, 0.0])) == "a b"
