"""Runs of the gallery's scripts, those in ``examples/``."""

from __future__ import annotations

from pathlib import Path

#: The tutorials, in the order in which they are shown. Other scripts measure or make something,
#: take long, and stay out of the documentation.
TUTORIALS = (
    "sentiment",
    "captum_pipeline",
    "words",
    "pairs",
    "prompt_decoder",
    "generation",
    "tabular",
    "image",
    "vision_transformer",
)


def position(path: str) -> int:
    """The position of an example in the gallery."""
    return TUTORIALS.index(Path(path).stem)


def arguments(gallery_conf: dict[str, object], script_vars: dict[str, object]) -> list[str]:
    """The command line of an example: quick, and with nothing from the network."""
    return ["--smoke"]
