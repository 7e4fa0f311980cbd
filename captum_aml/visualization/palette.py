"""Colours of scores and of text, for light and for dark pages."""

from __future__ import annotations

Rgb = tuple[int, int, int]

#: The colour of the highest score, of the lowest, and the ground, for light and for dark pages.
#: Blue and orange are told apart by people with any of the common colour blindnesses.
PALETTE: dict[str, dict[str, Rgb]] = {
    "light": {"positive": (96, 165, 250), "negative": (251, 146, 60), "ground": (255, 255, 255)},
    "dark": {"positive": (29, 93, 190), "negative": (170, 82, 10), "ground": (24, 27, 34)},
}
#: The colour of text on any of them.
INK: dict[str, Rgb] = {"light": (17, 24, 39), "dark": (243, 244, 246)}


def blend(start: Rgb, end: Rgb, share: float) -> Rgb:
    """The colour at a share of the way between two."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(start, end, strict=True))
    return red, green, blue


def hex_color(color: Rgb) -> str:
    """The colour as HTML and matplotlib take it."""
    return "#{:02x}{:02x}{:02x}".format(*color)
