"""Passes in groups of rows that a model takes together."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def in_groups(run: Callable[..., Tensor], keys: Tensor, *values: Tensor | None) -> Tensor:
    """A function's results for N rows, in a call for each key.

    Args:
        run: Takes rows of each of the values and gives as many, (N, ...).
        keys: The keys of the rows (N,).
        *values: The arguments, N rows each, or None.
    """
    different = keys.unique()
    if len(different) < 2:
        return run(*values)
    groups = [(keys == key).nonzero().flatten() for key in different]
    found = torch.cat([run(*(v if v is None else v[rows] for v in values)) for rows in groups])
    return found[torch.cat(groups).argsort().to(found.device)]
