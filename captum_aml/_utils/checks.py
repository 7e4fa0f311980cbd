"""Checks of single arguments."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor

from captum_aml.exceptions import InvalidInputError


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


def is_integral(tensor: Tensor) -> bool:
    """Whether a tensor holds ids: an integer dtype that is not bool."""
    dtype = tensor.dtype
    return not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)


__all__ = ["as_count", "is_integral"]
