"""The shared checks, over every attribution class and every case."""

from __future__ import annotations

import pytest

from tests._helpers.cases import CASES
from tests._helpers.checks import CHECKS, METHODS


@pytest.mark.parametrize(
    ("check", "method", "case"),
    [
        (check, method, case)
        for check, rule in CHECKS.items()
        for method in METHODS
        for case, spec in CASES.items()
        if rule.applies(METHODS[method], spec.tags)
    ],
)
def test_contract(check: str, method: str, case: str) -> None:
    CHECKS[check].run(METHODS[method], CASES[case].build())
