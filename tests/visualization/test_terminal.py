"""The terminal and plain text."""

from __future__ import annotations

import io
import re

from rich.console import Console

from captum_aml.visualization import (
    ScoredText,
    plain_text,
    terminal_text,
)
from tests._helpers.cards import card, scored


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
