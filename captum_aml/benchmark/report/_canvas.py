"""Drawing that all figures share: colours, an empty figure, places of labels, SVG for a page."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias
from xml.dom import minidom

from captum_aml._utils.optional import require
from captum_aml.visualization.palette import INK, hex_color
from captum_aml.visualization.segments import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The kind of page that a figure stands on.
Mode: TypeAlias = Literal["light", "dark"]

FONT_SIZE = 9.0
_FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif"
#: The colours of what stands back (axes, guides, the floor), and of what is hardly seen.
QUIET: dict[Mode, str] = {"light": "#4b5563", "dark": "#a8b0bd"}
GRID: dict[Mode, str] = {"light": "#d9dce3", "dark": "#343a46"}

#: Colours of lines and points. Variants of Okabe and Ito's (2008), which people with any of the
#: common colour blindnesses tell apart, with a contrast of at least 3 to the page's ground.
COLORS: dict[Mode, Sequence[str]] = {
    "light": ("#0072b2", "#d55e00", "#00805b", "#b0408a", "#8a6d00", "#3f8fc4", "#5b3fa8"),
    "dark": ("#56b4e9", "#f08a3c", "#2fc49a", "#e08cc4", "#e8d84a", "#a8d5f5", "#b8a4f0"),
}


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
            "axes.edgecolor": QUIET[mode],
            "axes.facecolor": "none",
            "figure.facecolor": "none",
            "savefig.facecolor": "none",
            "xtick.color": QUIET[mode],
            "ytick.color": QUIET[mode],
            "axes.grid": True,
            "grid.color": GRID[mode],
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


# Where a label may stand about its point: direction and distance.
_NEAR = 8.0
_DISTANCES = (_NEAR, 16.0, 26.0, 38.0)
_ANGLES = (0, 180, 45, -45, 135, -135, 90, -90)
# What a label costs beside the area that it covers: leaving the frame, and standing far away.
_OUTSIDE = 3.0
_FAR = 0.02


class Box(NamedTuple):
    """A rectangle by its edges."""

    left: float
    bottom: float
    right: float
    top: float

    @classmethod
    def around(cls, x: float, y: float, across: float, up: float) -> Box:
        """The one that reaches so far from its centre."""
        return cls(x - across, y - up, x + across, y + up)

    @property
    def area(self) -> float:
        """Width times height."""
        return (self.right - self.left) * (self.top - self.bottom)

    def overlap(self, other: Box) -> float:
        """The area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(0.0, width) * max(0.0, height)


class Place(NamedTuple):
    """The place of a label.

    Attributes:
        x: Its centre relative to the point.
        y: Likewise.
        far: Whether it stands so far off that a line should lead to the point.
    """

    x: float
    y: float
    far: bool


def place_labels(
    points: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    obstacles: Sequence[Box],
    frame: Box,
) -> list[Place]:
    """Puts each label, one after the other, where it covers least of what is there already.

    Args:
        points: What is labelled.
        sizes: Width and height of each label.
        obstacles: What should stay visible.
        frame: What labels should not leave.

    Returns:
        One place per label.
    """
    taken = list(obstacles)
    places = []
    for (x, y), (width, height) in zip(points, sizes, strict=True):
        reach = Box.around(x, y, _DISTANCES[-1] + width, _DISTANCES[-1] + height)
        near = [box for box in taken if box.overlap(reach)]
        candidates = []
        for number, (place, distance) in enumerate(_candidates(width, height)):
            box = Box.around(x + place.x, y + place.y, width / 2, height / 2)
            covered = sum(box.overlap(other) for other in near)
            outside = box.area - box.overlap(frame)
            cost = covered + _OUTSIDE * outside + _FAR * box.area * distance
            candidates.append((cost, number, place, box))
        _, _, place, box = min(candidates)
        places.append(place)
        taken.append(box)
    return places


def _candidates(width: float, height: float) -> Iterator[tuple[Place, float]]:
    for distance in _DISTANCES:
        for angle in _ANGLES:
            across, up = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            x = across * distance + round(across) * width / 2
            y = up * distance + round(up) * height / 4
            yield Place(x, y, distance > _NEAR), distance
