"""Aliases and protocols shared by all modules.

Shapes are written with N examples, T tokens, U mask units, L positions, D channels, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from torch import Tensor

#: What is explained: any callable that Captum accepts. Its arguments and result are the user's.
ForwardFunc: TypeAlias = Callable[..., Any]

#: A tensor, or a tuple of tensors aligned on their first dimension.
TensorOrTuple: TypeAlias = Tensor | tuple[Tensor, ...]

#: Baselines in every form that Captum documents.
Baselines: TypeAlias = Tensor | int | float | tuple[Tensor | int | float, ...] | None

#: Targets in every form that Captum documents.
Target: TypeAlias = int | tuple[int, ...] | Tensor | list[int] | list[tuple[int, ...]] | None

#: One batch for ``fit``: what ``attribute`` takes as inputs, or a mapping with its argument names.
#: The mapping's values are the arguments themselves, hence of any type.
Batch: TypeAlias = TensorOrTuple | Mapping[str, Any]
Batches: TypeAlias = Iterable[Batch]
