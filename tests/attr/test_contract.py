"""The shared checks, over every attribution class and every case."""

from __future__ import annotations

import pytest

import tests._helpers.default_call  # noqa: F401  (its checks join the list)
from tests._helpers.cases import CASES
from tests._helpers.checks import CHECKS, DEFAULT_CALLS, METHODS

WAYS = {**METHODS, **{f"{name} default": method for name, method in DEFAULT_CALLS.items()}}


@pytest.mark.parametrize(
    ("check", "way", "case"),
    [
        (check, way, case)
        for check, rule in CHECKS.items()
        for way in WAYS
        for case, spec in CASES.items()
        if rule.applies(WAYS[way], spec.tags)
    ],
)
def test_contract(check: str, way: str, case: str) -> None:
    CHECKS[check].run(WAYS[way], CASES[case].build())
