"""An explanation as bars, drawn with Matplotlib."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from captum_aml._utils.files import atomic_file
from captum_aml._utils.optional import require
from captum_aml.exceptions import InvalidInputError
from captum_aml.visualization import TextCard
from captum_aml.visualization.legend import legends
from captum_aml.visualization.palette import PALETTE, hex_color
from captum_aml.visualization.segments import n_columns, printable, shortened

if TYPE_CHECKING:
    from matplotlib import font_manager
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_logger = logging.getLogger(__name__)

_PER_COLUMN = 50
_MOST = 2000
_FONT_SIZE = 9.0
_LINE = 0.2  # inches for each token
_CHARACTER = 0.075  # inches
_WIDE_CHARACTER = 0.09  # of titles
_LONGEST = {"token": 24, "word": 24, "sentence": 60, "sentence+word": 60}
_DPI = 150
_BLANKS = {" ": "\N{OPEN BOX}", "\n": "\N{RETURN SYMBOL}", "\t": "\N{RIGHTWARDS ARROW TO BAR}"}
_NO_GLYPH = "\N{WHITE SQUARE}"


def draw(
    card: TextCard,
    tokens: Sequence[str],
    *,
    title: str,
    unit: str = "token",
    path: str | os.PathLike[str] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draws one bar for each score of a card's first row; see ``Explanation.plot``.

    Args:
        card: The text and its scores.
        tokens: The tokens as the vocabulary spells them, for those without characters.
        title: The figure's title.
        unit: What the scores are of: "token", "word", "sentence" or "sentence+word". Default:
            "token".
        path (optional): A file to write. Default: None.
        ax (optional): Axes to draw into. Default: None, a new figure.

    Raises:
        ImportError: Matplotlib is not installed.
        InvalidInputError: The format is unknown, or there are more than 2,000 tokens.
    """
    require("matplotlib", package="matplotlib", feature="Explanation.plot", extra="plot")
    from matplotlib.figure import Figure

    extension = None if path is None else _extension(path)
    n = len(card.rows[0].scores)
    if n > _MOST:
        units = "units" if unit == "sentence+word" else f"{unit}s"
        raise InvalidInputError(
            f"plot: expected an explanation of at most {_MOST:,} {units}, got {n:,}; "
            "to_html() shows longer texts"
        )
    if ax is None:
        n_columns = max(1, math.ceil(n / _PER_COLUMN))
        per_column = max(1, math.ceil(n / n_columns))
        width = 2.8 + _CHARACTER * _LONGEST[unit]
        size = (max(6.0, width * n_columns), 1.2 + _LINE * max(3, per_column))
        figure = Figure(figsize=size, layout="constrained")
        columns = list(figure.subplots(1, n_columns, squeeze=False)[0])
        font_size = _FONT_SIZE
        room = size[0], size[0] / n_columns - _CHARACTER * _LONGEST[unit]
    else:
        root = ax.get_figure(root=True)
        assert root is not None, "axes stand in a figure"
        figure, columns, per_column = root, [ax], max(1, n)
        inches = ax.bbox.height / figure.dpi
        font_size = min(_FONT_SIZE, max(3.0, 0.75 * 72 * inches / per_column))
        room = 1.25 * ax.bbox.width / figure.dpi, ax.bbox.width / figure.dpi

    labels = [
        _label(card.text[slice(*span)], token, _LONGEST[unit])
        for span, token in zip(card.rows[0].offsets, tokens, strict=True)
    ]
    (legend,) = legends([card.rows[0]])
    title = _wrapped("\n".join(filter(None, [title, legend.score])), room[0])
    fonts, missing = _fonts(title, legend.target, *labels)
    if missing:
        _logger.warning(
            "plot: no installed font has %d of the characters, such as %s; squares stand for them",
            len(missing),
            " ".join(sorted(missing)[:10]),
        )
    safe = dict.fromkeys(map(ord, missing), _NO_GLYPH)
    for number, column in enumerate(columns):
        column.tick_params(axis="x", labelsize=font_size)
        part = range(number * per_column, min(n, (number + 1) * per_column))
        _draw_column(column, card, part, [labels[i].translate(safe) for i in part])
        if legend.scale == "signed":
            target = legend.target.translate(safe)
            sides = f"against {target} \N{LEFTWARDS ARROW} score \N{RIGHTWARDS ARROW} for it"
            column.set_xlabel(_wrapped(sides, room[1]))
        else:
            column.set_xlabel("score")
        column.xaxis.label.set(family=fonts, parse_math=False, usetex=False)
        for label in column.get_yticklabels():
            label.set(family=fonts, size=font_size, parse_math=False, usetex=False)
    heading = (figure.suptitle if ax is None else ax.set_title)(title.translate(safe))
    heading.set(family=fonts, size=_FONT_SIZE + 1, parse_math=False, usetex=False)
    if path is not None:
        with atomic_file(Path(path)) as stream:
            figure.savefig(stream, format=extension, dpi=_DPI)
    return figure


def _wrapped(text: str, inches: float) -> str:
    """A text whose lines are not longer than there is room for."""
    lines: list[str] = []
    for line in text.splitlines():
        lines.append("")
        for word in line.split():
            if lines[-1] and n_columns(f"{lines[-1]} {word}") > inches / _WIDE_CHARACTER:
                lines.append(word)
            else:
                lines[-1] = f"{lines[-1]} {word}".lstrip()
    return "\n".join(lines)


def _draw_column(ax: Axes, card: TextCard, part: Sequence[int], labels: Sequence[str]) -> None:
    """Bars for the tokens of a range, the first one on top."""
    row = card.rows[0]
    scores = [row.scores[i] for i in part]
    colors = [hex_color(PALETTE["light"]["positive" if s >= 0 else "negative"]) for s in scores]
    positions = range(len(scores))
    ax.barh(positions, scores, height=0.8, color=colors)
    ax.set_yticks(positions, labels)
    ax.set_ylim(max(len(scores), 1) - 0.4, -0.6)
    if row.signed:
        largest = max(map(abs, row.scores), default=0.0) or 1.0
        ax.set_xlim(-1.05 * largest, 1.05 * largest)
        ax.axvline(0, color="gray", linewidth=0.8)
    else:
        largest = max(row.scores, default=0.0) or 1.0
        ax.set_xlim(0, 1.05 * largest if row.relative else max(1.0, largest))
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", linewidth=0.5, alpha=0.5)
    ax.set_axisbelow(True)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    for start, _ in card.parts[1:]:
        # Between the texts of a pair.
        place = next((r for r, i in enumerate(part) if row.offsets[i][0] >= start), None)
        if place and row.offsets[part[place - 1]][0] < start:
            ax.axhline(place - 0.5, color="gray", linewidth=0.8, linestyle="dashed")


def _label(written: str, token: str, longest: int) -> str:
    """A token as it stands in the text, on one line and of bounded length."""
    if not written.strip():
        blanks = "".join(_BLANKS.get(c, _BLANKS[" "]) for c in written)
        return blanks or printable(token)
    return shortened(written, longest)


def _extension(path: str | os.PathLike[str]) -> str:
    from matplotlib.backend_bases import FigureCanvasBase

    known = FigureCanvasBase.get_supported_filetypes()
    extension = Path(path).suffix.lower().removeprefix(".")
    if extension not in known:
        raise InvalidInputError(
            f"path: expected one of the formats {', '.join(f'.{name}' for name in sorted(known))}, "
            f"got {os.fspath(path)!r}"
        )
    return extension


def _fonts(*texts: str) -> tuple[list[str], set[str]]:
    """Names of fonts that together have the characters of texts, and the characters none has."""
    from matplotlib import font_manager, rcParams

    families: list[str] = list(rcParams["font.family"])
    needed = {c for text in texts for c in text if not c.isspace()}
    first = font_manager.findfont(font_manager.FontProperties(family=families))
    missing = needed - _characters(first)
    if missing:
        for entry in sorted(font_manager.fontManager.ttflist, key=_plainness):
            if found := missing & _characters(entry.fname):
                families.append(entry.name)
                missing -= found
            if not missing:
                break
    return families, missing


def _plainness(entry: font_manager.FontEntry) -> tuple[bool, ...]:
    """Sorts upright sans-serif fonts of ordinary weight to the front."""
    return (
        "sans" not in entry.name.lower(),
        entry.style != "normal",
        entry.weight not in (400, "normal", "regular"),
        entry.stretch != "normal",
    )


@cache
def _characters(file: str) -> frozenset[str]:
    """The characters that a font can draw."""
    from matplotlib import font_manager

    # Pictures in colours, which Matplotlib does not draw, and boxes for what no font has.
    if any(name in Path(file).name.lower() for name in ("emoji", "lastresort")):
        return frozenset()
    try:
        return frozenset(map(chr, font_manager.get_font(file).get_charmap()))
    except (OSError, RuntimeError):
        return frozenset()  # damaged, or of a kind that FreeType does not read
