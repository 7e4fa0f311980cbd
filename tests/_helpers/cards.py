"""Cards of texts with scores for their words."""

from __future__ import annotations

import re

from captum_aml.visualization import ScoredText, TextCard


def scored(
    text: str, scores: list[float], *, signed: bool = False, pattern: str = r"\w+|[^\w\s]"
) -> ScoredText:
    offsets = [match.span() for match in re.finditer(pattern, text)]
    return ScoredText("method", offsets, scores, signed=signed)


def card(text: str, *rows: ScoredText, seen: int | None = None) -> TextCard:
    return TextCard(text=text, predicted="positive", probability=0.9, rows=rows, seen=seen)
