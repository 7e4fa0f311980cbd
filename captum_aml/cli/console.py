"""Console output of the commands besides their results."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from captum_aml.visualization import Table

#: Of a column of a table: a blank on either side, and a line.
_PADDING = 3


def shows_progress() -> bool:
    """Whether there is a place for a progress bar, which goes to standard error."""
    return sys.stderr.isatty()


def is_main_process() -> bool:
    """Whether this is the only process, or the first of those that a launcher started."""
    return int(os.environ.get("RANK", "0")) == 0


def say(message: str) -> None:
    """Writes a line to standard error, from one process of several."""
    if is_main_process():
        typer.echo(message, err=True)


def duration(seconds: float) -> str:
    """A time in minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def show_table(table: Table) -> None:
    """Writes a table to standard output, in parts below each other where it is too wide.

    Every part begins with the first column.
    """
    from rich.console import Console
    from rich.table import Table as Rich

    console = Console(highlight=False, markup=False)
    (first, names), *columns = zip(table.columns, zip(*table.rows, strict=True), strict=True)
    room = console.width - _outer_width([first, *names]) - 1
    title: str | None = table.caption
    for part in _parts(columns, room):
        made = Rich(title=title, title_justify="left")
        made.add_column(first, no_wrap=True)
        for heading, _, width in part:
            made.add_column(heading, justify="right", width=width - _PADDING)
        for name, *row in zip(names, *(cells for _, cells, _ in part), strict=True):
            made.add_row(name, *row)
        console.print(made)
        title = None


def _parts(
    columns: Sequence[tuple[str, Sequence[str]]], room: int
) -> Iterator[list[tuple[str, Sequence[str], int]]]:
    """Columns, by heading, cells and width, in groups that go into a line; one at least."""
    part: list[tuple[str, Sequence[str], int]] = []
    # Headings are in lines of their words where not all have room.
    whole = sum(_outer_width([heading, *cells]) for heading, cells in columns) <= room
    used = 0
    for heading, cells in columns:
        width = _outer_width([*([heading] if whole else heading.split()), *cells])
        if part and used + width > room:
            yield part
            part, used = [], 0
        part.append((heading, cells, width))
        used += width
    yield part


def _outer_width(texts: Sequence[str]) -> int:
    return max(map(len, texts)) + _PADDING


@contextmanager
def warnings_in_lines() -> Iterator[None]:
    """Writes warnings as lines on standard error, like everything else."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: say(f"Note: {message}")
        yield


def quiet_libraries() -> None:
    """Keeps the progress bars and notices of loading off the screen."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    hub_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
