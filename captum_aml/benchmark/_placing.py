"""Where labels go so that they cover little: plain geometry in points, y upwards."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

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
    """Where a label stands.

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
        reach_x, reach_y = _DISTANCES[-1] + width, _DISTANCES[-1] + height
        reach = Box(x - reach_x, y - reach_y, x + reach_x, y + reach_y)
        near = [box for box in taken if box.overlap(reach)]
        candidates = []
        for number, (place, distance) in enumerate(_candidates(width, height)):
            box = Box(
                x + place.x - width / 2,
                y + place.y - height / 2,
                x + place.x + width / 2,
                y + place.y + height / 2,
            )
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


__all__ = ["Box", "Place", "place_labels"]
