"""Cards as coloured text of a terminal and as plain text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from captum_aml.visualization.cards import ScoredText, TextCard
from captum_aml.visualization.palette import INK, PALETTE, Rgb, blend, hex_color
from captum_aml.visualization.segments import FAINT, Segment, card_segments

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

# Weak scores stay uncoloured in a terminal, whose ground we do not know.
_PALE: Rgb = (219, 234, 254)
_PALE_NEGATIVE: Rgb = (254, 226, 200)


def terminal_text(card: TextCard, row: ScoredText) -> Text:
    """A text for rich's console, its tokens on coloured ground: blue for, orange against.

    What speaks against the class is underlined, too.

    The texts of a pair stand on a line each, after a dim number.
    """
    from rich.text import Text

    text = Text()
    parts = card_segments(card, row)
    for number, part in enumerate(parts):
        if len(parts) > 1:
            text.append(f"{chr(10) if number else ''}{number + 1} ", style="dim")
        for segment in part:
            style = "dim" if segment.kind == "unseen" else ""
            if abs(segment.strength) >= FAINT:
                end = "positive" if segment.strength > 0 else "negative"
                pale = _PALE if segment.strength > 0 else _PALE_NEGATIVE
                ground = blend(pale, PALETTE["light"][end], abs(segment.strength))
                line = "underline " if segment.against else ""
                style = f"{line}{hex_color(INK['light'])} on {hex_color(ground)}"
            text.append(segment.text, style=style)
    return text


def shows_colors(console: Console) -> bool:
    """Whether a console shows colours: no pipe, no file, and nobody has switched them off."""
    return console.color_system is not None and not console.no_color


def plain_text(card: TextCard, row: ScoredText) -> str:
    """A text with its important stretches marked: ``*for*`` the class and ``~against~`` it.

    A stretch is important from half of the text's largest absolute score on. The texts of a pair
    are separated by " | ".
    """
    largest = max((abs(score) for score in row.scores), default=0.0)
    return " | ".join(_marked(part, largest / 2) for part in card_segments(card, row))


def _marked(part: Sequence[Segment], important: float) -> str:
    # What belongs under one mark is joined at the end, for long texts.
    stretches: list[tuple[str, list[str]]] = []
    for segment in part:
        marked = segment.score is not None and 0 < important <= abs(segment.score)
        mark = ("*" if (segment.score or 0) > 0 else "~") if marked else ""
        last = stretches[-1] if stretches else None
        if mark and last and len(stretches) > 1 and stretches[-2][0] == mark and _is_blank(last):
            stretches.pop()
            stretches[-1][1].extend([*last[1], segment.text])
        elif last and last[0] == mark:
            last[1].append(segment.text)
        else:
            stretches.append((mark, [segment.text]))
    return "".join(f"{mark}{''.join(texts)}{mark}" for mark, texts in stretches)


def _is_blank(stretch: tuple[str, list[str]]) -> bool:
    return stretch[0] == "" and all(text.isspace() for text in stretch[1])
