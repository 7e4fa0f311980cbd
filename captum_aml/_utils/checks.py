"""Checks of single arguments. Importing this loads no torch."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from captum_aml.exceptions import InvalidInputError

if TYPE_CHECKING:
    from torch import Tensor


def as_count(name: str, value: Any, *, least: int = 0) -> int:
    """An argument as an integer, NumPy's too.

    Raises:
        InvalidInputError: It is no integer, or below ``least``.
    """
    try:
        count = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        count = None
    if count is None or count < least:
        raise InvalidInputError(f"{name}: expected an integer of at least {least}, got {value!r}")
    return count


def check_number(name: str, value: Any, expected: str, fits: Callable[[float], bool]) -> None:
    """Checks that an argument is a finite number that fits.

    Args:
        name: The argument's name.
        value: Its value.
        expected: What it has to be, for the message.
        fits: Whether a number is that.

    Raises:
        InvalidInputError: It is no number, or does not fit.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not fits(value) or not abs(value) < float("inf"):
        raise InvalidInputError(f"{name}: expected {expected}, got {value!r}")


def check_learning_rate(learning_rate: float) -> None:
    """Checks a learning rate.

    Raises:
        InvalidInputError: It is not a number above 0.
    """
    check_number("learning_rate", learning_rate, "a number above 0", lambda value: value > 0)


def is_integral(tensor: Tensor) -> bool:
    """Whether a tensor holds ids: an integer dtype that is not bool."""
    import torch

    dtype = tensor.dtype
    return not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)
