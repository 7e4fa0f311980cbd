"""What all figures share: colours, an empty figure, and its way into a page as SVG."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, TypeAlias
from xml.dom import minidom

from captum_aml._optional import require
from captum_aml.visualization import INK, Rgb, hex_color, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The kind of page that a figure stands on.
Mode: TypeAlias = Literal["light", "dark"]

FONT_SIZE = 9.0
_FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif"
_QUIET: dict[Mode, Rgb] = {"light": (75, 85, 99), "dark": (168, 176, 189)}
_GRID: dict[Mode, Rgb] = {"light": (217, 220, 227), "dark": (52, 58, 70)}

#: Colours of lines and points. Variants of Okabe and Ito's (2008), which people with any of the
#: common colour blindnesses tell apart, with a contrast of at least 3 to the page's ground.
COLORS: dict[Mode, Sequence[str]] = {
    "light": ("#0072b2", "#d55e00", "#00805b", "#b0408a", "#8a6d00", "#3f8fc4", "#5b3fa8"),
    "dark": ("#56b4e9", "#f08a3c", "#2fc49a", "#e08cc4", "#e8d84a", "#a8d5f5", "#b8a4f0"),
}


def quiet(mode: Mode) -> str:
    """The colour of what stands back: axes, guides, the floor."""
    return hex_color(_QUIET[mode])


def grid(mode: Mode) -> str:
    """The colour of what should hardly be seen."""
    return hex_color(_GRID[mode])


def empty_figure() -> Figure:
    """A figure that knows nothing of pyplot, measured in points."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.6, 4.8), dpi=72, layout="constrained")
    FigureCanvasSVG(figure)
    return figure


@contextmanager
def drawing(mode: Mode) -> Iterator[None]:
    """Matplotlib's own defaults with the page's colours, whatever the caller has set.

    Raises:
        ImportError: Matplotlib is not installed.
    """
    require(
        "matplotlib", package="matplotlib", feature="the benchmark's figures", extra="benchmark"
    )
    from matplotlib import rc_context, style

    ink = hex_color(INK[mode])
    ours = rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": mode,
            "text.parse_math": False,  # a "$" in a name is no formula
            "font.size": FONT_SIZE,
            "text.color": ink,
            "axes.labelcolor": ink,
            "axes.edgecolor": quiet(mode),
            "axes.facecolor": "none",
            "figure.facecolor": "none",
            "savefig.facecolor": "none",
            "xtick.color": quiet(mode),
            "ytick.color": quiet(mode),
            "axes.grid": True,
            "grid.color": grid(mode),
            "grid.linewidth": 0.6,
            "axes.axisbelow": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    )
    with style.context("default"), ours, warnings.catch_warnings():
        # The page's font has the characters that matplotlib's own lacks.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        yield


def to_svg(figure: Figure, *, prefix: str, label: str) -> str:
    """The figure as an element to stand inside a page.

    Its ids begin with the prefix, so that several figures get on with one another; its size is left
    to the page; its text is set in the page's font.

    Args:
        figure: The figure.
        prefix: Of its ids, unique in the page.
        label: What screen readers call it.
    """
    stream = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(stream, format="svg", metadata=nothing)
    root = minidom.parseString(stream.getvalue()).documentElement
    assert root is not None
    elements = [root, *root.getElementsByTagName("*")]
    used = {name for e in elements for name in re.findall(r"#([\w-]+)", _references(e))}
    for element in elements:
        name = element.getAttribute("id")
        if name in used:
            element.setAttribute("id", f"{prefix}-{name}")
        elif element.hasAttribute("id"):
            element.removeAttribute("id")
        for attribute in ("clip-path", "xlink:href"):
            if element.hasAttribute(attribute):
                reference = element.getAttribute(attribute)
                element.setAttribute(attribute, reference.replace("#", f"#{prefix}-", 1))
        if element.hasAttribute("style"):
            look = re.sub(r"'DejaVu.*?sans-serif", _FONTS, element.getAttribute("style"))
            element.setAttribute("style", look)
    for attribute in ("width", "height", "version"):
        root.removeAttribute(attribute)
    root.setAttribute("role", "img")
    root.setAttribute("aria-label", shown(label, longest=200))
    return root.toxml()


def shown(text: str, *, longest: int = 30) -> str:
    """A string on one line and of bounded length."""
    line = " ".join(printable(text).split())
    return line if len(line) <= longest else line[: longest - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _references(element: minidom.Element) -> str:
    return element.getAttribute("clip-path") + element.getAttribute("xlink:href")


__all__ = [
    "COLORS",
    "FONT_SIZE",
    "Mode",
    "drawing",
    "empty_figure",
    "grid",
    "quiet",
    "shown",
    "to_svg",
]
