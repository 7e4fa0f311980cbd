"""Conventions: numbers of tokens worked out by hand and with fractions, presets, bad values."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captum_aml.exceptions import InvalidInputError
from captum_aml.metrics import PRESETS, Convention, Removal
from captum_aml.metrics.conventions import resolve_convention


@pytest.mark.parametrize(
    ("n_tokens", "share", "floor", "ceil", "nearest"),
    [
        (5, 0.2, 1, 1, 1),  # exactly 1, whatever 0.2 * 5 comes to
        (10, 0.3, 3, 3, 3),
        (100, 0.29, 29, 29, 29),  # 28.999999999999996 in floating point
        (10, 0.7, 7, 7, 7),  # 7.000000000000001 with some orders of multiplication
        (5, 0.5, 2, 3, 3),  # halves go up
        (3, 0.5, 1, 2, 2),
        (12, 0.1, 1, 2, 1),
        (12, 0.05, 0, 1, 1),
        (12, 0.01, 0, 1, 0),
        (1, 1.0, 1, 1, 1),
    ],
)
def test_rounding_by_hand(n_tokens: int, share: float, floor: int, ceil: int, nearest: int) -> None:
    for rounding, expected in (("floor", floor), ("ceil", ceil), ("round", nearest)):
        convention = Convention(rounding=rounding, at_least=0)  # type: ignore[arg-type]
        assert convention.count(n_tokens, share) == expected
        at_least_one = Convention(rounding=rounding, share=share)  # type: ignore[arg-type]
        assert at_least_one.count(n_tokens) == max(1, expected)


@given(st.integers(1, 600), st.integers(1, 1000))
def test_rounding_against_exact_fractions(n_tokens: int, thousandths: int) -> None:
    exact = n_tokens * Fraction(thousandths, 1000)
    share = thousandths / 1000
    by_hand = {
        "floor": math.floor(exact),
        "ceil": math.ceil(exact),
        "round": math.floor(exact + Fraction(1, 2)),
    }
    for rounding, expected in by_hand.items():
        convention = Convention(rounding=rounding, at_least=0)  # type: ignore[arg-type]
        assert convention.count(n_tokens, share) == expected


@pytest.mark.parametrize(
    ("preset", "counts"),
    [
        # 12 tokens: 1, 5, 10, 20, 50 % are 0.12, 0.6, 1.2, 2.4 and 6.
        ("default", [1, 1, 2, 3, 6]),
        ("aml", [0, 0, 1, 2, 6]),
        ("eraser", [1, 1, 1, 2, 6]),
        # Tenths are 1.2, 2.4, ... 10.8, 12.
        ("ferret", [1, 2, 3, 4, 6, 7, 8, 9, 10, 12]),
        ("naopc", list(range(1, 13))),
    ],
)
def test_presets_for_twelve_tokens(preset: str, counts: list[int]) -> None:
    assert PRESETS[preset].counts(12) == counts


@pytest.mark.parametrize(
    ("preset", "counts"),
    [
        ("default", [1, 1, 1, 1, 2]),
        ("aml", [0, 0, 0, 0, 1]),
        ("eraser", [1, 1, 1, 1, 2]),  # half of 3 is 1.5
        ("ferret", [1, 2, 3]),  # 0.3, 0.6, 0.9 take none; equal numbers count once
        ("naopc", [1, 2, 3]),
    ],
)
def test_presets_for_three_tokens(preset: str, counts: list[int]) -> None:
    assert PRESETS[preset].counts(3) == counts


def test_divisors() -> None:
    assert PRESETS["aml"].divide_by(5) == 6
    for name in ("default", "eraser", "ferret", "naopc"):
        assert PRESETS[name].divide_by(5) == 5


def test_what_presets_remove_with_and_give_away() -> None:
    removals = {name: (c.removal, c.log_odds_removal) for name, c in PRESETS.items()}
    assert removals.pop("naopc") == ("mask", "mask")
    assert set(removals.values()) == {("delete", "mask")}
    assert [name for name, c in PRESETS.items() if c.free_at_zero] == ["aml"]
    assert all(c.share == 0.2 for c in PRESETS.values())


def test_only_some_presets_can_take_no_token() -> None:
    assert {name: c.count(2) for name, c in PRESETS.items()} == {
        "default": 1,
        "aml": 0,
        "eraser": 1,
        "ferret": 0,
        "naopc": 1,
    }


def test_descriptions_name_every_choice() -> None:
    assert PRESETS["default"].description == (
        "1%, 5%, 10%, 20%, 50% of the tokens, rounded up, at least one token; their mean; "
        "removal by delete (log-odds by mask)"
    )
    assert PRESETS["aml"].description == (
        "1%, 5%, 10%, 20%, 50% of the tokens, rounded down, possibly none; their sum divided by "
        "one too many; sufficiency of no token is scored 0; removal by delete (log-odds by mask)"
    )
    assert "rounded to the nearest" in PRESETS["eraser"].description
    assert "equal numbers once" in PRESETS["ferret"].description
    assert PRESETS["naopc"].description.startswith("every number of tokens from one to all")
    assert "removal by mine" in Convention(removal=Removal("mine")).description
    assert "0.5%, 12.5% of" in Convention(shares=(0.005, 0.125)).description


def test_presets_by_name() -> None:
    assert all(resolve_convention(name) is c and c.name == name for name, c in PRESETS.items())
    mine = Convention(name="mine")
    assert resolve_convention(mine) is mine
    with pytest.raises(InvalidInputError, match=r"convention: .*default, aml, eraser.*'lime'"):
        resolve_convention("lime")
    with pytest.raises(TypeError):
        PRESETS["mine"] = mine  # type: ignore[index]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"shares": (0.1, 0.0)}, "shares: .*got 0.0"),
        ({"shares": (1.1,)}, "shares: .*got 1.1"),
        ({"shares": (math.nan,)}, "shares: .*got nan"),
        ({"shares": ()}, "shares: .*at least one"),
        ({"share": -0.2}, "share: .*got -0.2"),
        ({"rounding": "up"}, "rounding: .*'up'"),
        ({"divisor": "n"}, "divisor: .*'n'"),
        ({"at_least": 2}, "at_least: .*2"),
        ({"removal": "erase"}, "removal: .*'erase'"),
        ({"log_odds_removal": "erase"}, "log_odds_removal: .*'erase'"),
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Convention(**values)
