"""Processes of a test: forked where the system can, so that none imports the libraries anew."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from typing import Any

_CONTEXT = multiprocessing.get_context("fork" if hasattr(os, "fork") else "spawn")


def start(function: Callable[..., None], *arguments: Any) -> multiprocessing.process.BaseProcess:
    """Starts a process that calls a function of a module."""
    process = _CONTEXT.Process(target=function, args=arguments)  # type: ignore[attr-defined]
    process.start()
    return process


def exit_code(process: multiprocessing.process.BaseProcess, *, timeout: float = 300) -> int | None:
    """How the process ended, minus the number of a signal; None if it does not end in time."""
    process.join(timeout)
    code = process.exitcode
    if code is None:
        process.kill()
    return code
