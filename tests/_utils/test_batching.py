"""Batches of similar length: everything once, and results back in the order of the items."""

from __future__ import annotations

from itertools import chain, count, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captum_aml._utils.batching import chunks, length_batches, length_order, put_back

ITEMS = st.lists(st.text(alphabet="ab", max_size=6), max_size=40)


@given(items=ITEMS, size=st.integers(1, 9), longest_first=st.booleans())
def test_batches_hold_everything_once(items: list[str], size: int, longest_first: bool) -> None:
    batches = length_batches(items, size, longest_first=longest_first)
    assert sorted(chain.from_iterable(batches)) == list(range(len(items)))
    assert [len(batch) for batch in batches[:-1]] == [size] * max(0, len(batches) - 1)
    assert all(0 < len(batch) <= size for batch in batches)


@given(items=ITEMS, size=st.integers(1, 9), longest_first=st.booleans())
def test_put_back_gives_the_order_of_the_items(
    items: list[str], size: int, longest_first: bool
) -> None:
    order = list(chain.from_iterable(length_batches(items, size, longest_first=longest_first)))
    assert put_back(order, [items[i] for i in order]) == items


@given(items=ITEMS)
def test_equal_lengths_keep_their_order(items: list[str]) -> None:
    assert length_order(items) == sorted(range(len(items)), key=lambda i: (len(items[i]), i))
    assert length_order(items, longest_first=True) == sorted(
        range(len(items)), key=lambda i: (-len(items[i]), i)
    )


@given(items=st.lists(st.integers()), size=st.integers(1, 9))
def test_chunks_are_the_items_in_order(items: list[int], size: int) -> None:
    parts = list(chunks(items, size))
    assert list(chain.from_iterable(parts)) == items
    assert [len(part) for part in parts] == [
        min(size, len(items) - start) for start in range(0, len(items), size)
    ]


def test_streams_are_read_as_chunks_are_taken() -> None:
    numbers = count()
    assert list(islice(chunks(numbers, 3), 2)) == [[0, 1, 2], [3, 4, 5]]
    assert next(numbers) == 6


def test_a_value_for_each_index() -> None:
    with pytest.raises(ValueError, match="zip"):
        put_back([1, 0], ["a"])
