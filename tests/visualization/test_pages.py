"""Pages as HTML."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from captum_aml.visualization import ScoredText, Table, TextCard, page, plain_text, terminal_text
from captum_aml.visualization.palette import INK, PALETTE
from tests._helpers.cards import card, scored


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


class TestPage:
    def test_a_script_in_a_text_stays_text(self) -> None:
        evil = "</div></article><script>alert('1')</script><img src=x onerror=alert(1)> &lt;b&gt;"
        row = ScoredText(evil, [(0, 3), (3, len(evil))], [0.2, 0.9], target=evil, detail=evil)
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
        row = ScoredText("occlusion", [(0, 1)], [0.5], target="negative", detail="3 ms")
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
