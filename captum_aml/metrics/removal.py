"""Removal operators of an evaluation. Every result names its operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from captum_aml.exceptions import InvalidInputError

#: What happens to the place of a removed token: it stays and is attended to, it stays and is
#: hidden by the attention mask, or it is closed up.
Place = Literal["stays", "hidden", "gone"]

#: ``(inputs (V, L, ...), baselines (V, L, ...), keep (V, L, ...) of bool) -> inputs``.
Replace: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]


def replace_by_baseline(inputs: Tensor, baselines: Tensor, keep: Tensor) -> Tensor:
    """The inputs where they are kept, the baselines elsewhere."""
    return torch.where(keep, inputs, baselines)


@dataclass(frozen=True)
class Removal:
    """A removal operator.

    Attributes:
        name: What a result calls it.
        replace: Gives the inputs of V variants: what stands at a removed token's place, if that
            stays. ``keep`` has the inputs' number of dimensions and may be broadcast.
        place: What happens to the place. ``hidden`` and ``gone`` need token ids (N, L) or
            embeddings (N, L, D); ``hidden`` needs an attention mask besides.
    """

    name: str
    replace: Replace = replace_by_baseline
    place: Place = "stays"

    def __post_init__(self) -> None:
        if self.place not in get_args(Place):
            raise InvalidInputError(f"place: expected one of {get_args(Place)}, got {self.place!r}")


#: The operators with a name: ``delete`` closes the gap, ``mask`` puts the baseline there (the
#: mask token's id, usually), and ``pad`` hides the place from attention and leaves it empty.
REMOVALS: MappingProxyType[str, Removal] = MappingProxyType(
    {
        "delete": Removal("delete", place="gone"),
        "mask": Removal("mask"),
        "pad": Removal("pad", place="hidden"),
    }
)


def resolve_removal(removal: str | Removal, *, argument: str = "removal") -> Removal:
    """A removal operator given by itself or by name.

    Args:
        removal: The operator.
        argument: What an error calls it. Default: "removal".

    Raises:
        InvalidInputError: There is none of that name.
    """
    if isinstance(removal, Removal):
        return removal
    if removal not in REMOVALS:
        raise InvalidInputError(
            f"{argument}: expected a Removal or one of {', '.join(REMOVALS)}, got {removal!r}"
        )
    return REMOVALS[removal]
