"""A few weights of a model that tell it from others of the same sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

#: How many values are taken from all parameters, and how many more from the last matrix: of two
#: classifiers that were made from one encoder, the head differs most.
_FROM_ALL, _FROM_LAST = 48, 16

#: What two values may differ by: a share of the larger, above the rounding of bfloat16 (1/256), and
#: a share of the values' standard deviation.
_RELATIVE, _OF_SPREAD = 0.01, 1e-3

_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class WeightSample:
    """Some weights of a model.

    Attributes:
        n_weights: The number of all its weights.
        values: The chosen ones.
    """

    n_weights: int
    values: tuple[float, ...]


def sampled_weights(model: nn.Module) -> WeightSample | None:
    """Values at places that depend on the parameters' shapes only.

    Each parameter tensor counts the same, whatever its size: the table of word embeddings would
    otherwise hide all else.

    Returns:
        None where there are no floating point weights of 16 bits or more, where they are not in
        memory, or where one is not finite.
    """
    parameters = [p for p in model.parameters() if p.numel() and _is_plain(p)]
    if not parameters or any(p.is_meta for p in parameters):
        return None
    last = next((p for p in reversed(parameters) if p.dim() > 1), parameters[-1])
    chosen = [
        parameters[round(i * (len(parameters) - 1) / (_FROM_ALL - 1))] for i in range(_FROM_ALL)
    ]
    values = tuple(
        _value_at(parameter, (0.5 + i * _GOLDEN) % 1)
        for i, parameter in enumerate([*chosen, *[last] * _FROM_LAST])
    )
    if not all(map(math.isfinite, values)):
        return None
    return WeightSample(sum(p.numel() for p in parameters), values)


def same_weights(saved: Sequence[float], found: Sequence[float]) -> bool:
    """Whether two samples are of one model, whatever the precision and the device of each."""
    if len(saved) != len(found):
        return False
    mean = math.fsum(saved) / len(saved)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in saved) / len(saved))
    return all(
        abs(a - b) <= _RELATIVE * max(abs(a), abs(b)) + _OF_SPREAD * spread
        for a, b in zip(saved, found, strict=True)
    )


def _is_plain(parameter: Tensor) -> bool:
    return parameter.is_floating_point() and parameter.element_size() > 1


@torch.no_grad()
def _value_at(parameter: Tensor, place: float) -> float:
    """The element at a share of the way through a tensor."""
    number = int(place * parameter.numel())
    index = []
    for size in reversed(parameter.shape):
        number, rest = divmod(number, size)
        index.append(rest)
    return float(parameter[tuple(reversed(index))])


__all__ = ["WeightSample", "same_weights", "sampled_weights"]
