"""What the commands write to a terminal besides their results."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer


def is_terminal() -> bool:
    """Whether standard output is shown to people."""
    from rich.console import Console

    return Console().is_terminal


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


@contextmanager
def status(first: str) -> Iterator[Callable[[str], None]]:
    """A line on standard error that says what is being done, in a terminal only.

    Args:
        first: The first line; the function that is given replaces it.
    """
    from rich.console import Console

    with Console(stderr=True).status(first) as shown:
        yield shown.update


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


__all__ = [
    "duration",
    "is_main_process",
    "is_terminal",
    "quiet_libraries",
    "say",
    "shows_progress",
    "status",
    "warnings_in_lines",
]
