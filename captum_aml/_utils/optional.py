"""Packages that only some features need: a guard that names the extra to install."""

from __future__ import annotations

import importlib.util


def require(module: str, *, package: str, feature: str, extra: str = "all") -> None:
    """Checks that an optional package is installed.

    Args:
        module: The module that is imported.
        package: The name it is installed under.
        feature: What needs it.
        extra: The extra of this package that brings it. Default: "all"

    Raises:
        ImportError: It is not; the message says how to install it.
    """
    if importlib.util.find_spec(module) is None:
        raise ImportError(
            f'{feature} needs {package}, which is not installed: pip install "captum-aml[{extra}]"'
        )
