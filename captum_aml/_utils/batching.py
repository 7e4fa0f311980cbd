"""Batches of similar length: sort by length, cut, and put the results back in order.

Equal lengths keep their order, so that the same items always make the same batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import islice
from typing import TypeVar

_T = TypeVar("_T")


def chunks(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Consecutive parts of a stream, ``size`` items each but the last, read as they are taken."""
    remaining = iter(items)
    while chunk := list(islice(remaining, size)):
        yield chunk


def length_order(items: Sequence[Sized], *, longest_first: bool = False) -> list[int]:
    """The indices of the items, shortest first."""
    return sorted(range(len(items)), key=lambda i: len(items[i]), reverse=longest_first)


def length_batches(
    items: Sequence[Sized], batch_size: int, *, longest_first: bool = False
) -> list[list[int]]:
    """Batches of items of similar length, as the indices of their items.

    Args:
        items: The items.
        batch_size: Items in a batch; the last one may have fewer.
        longest_first: Whether the first batch has the longest items instead of the shortest.
            Default: False.
    """
    return list(chunks(length_order(items, longest_first=longest_first), batch_size))


def put_back(order: Iterable[int], values: Iterable[_T]) -> list[_T]:
    """Values in the order of their items.

    Args:
        order: The index of the item of each value; each of 0 to N - 1 once.
        values: N values.
    """
    placed = dict(zip(order, values, strict=True))
    return [placed[index] for index in range(len(placed))]
