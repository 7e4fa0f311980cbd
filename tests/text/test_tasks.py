"""Every task finds the words that decide: tiny models of each, trained on planted evidence."""

from __future__ import annotations

import pytest

from tests._helpers.planted_tasks import TASKS, hit_rate


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if task.slow else ())
        for name, task in TASKS.items()
    ],
)
def test_the_default_method_finds_what_decides(name: str) -> None:
    task = TASKS[name]
    drawn = task.texts(60)
    explanations = task.explanations(drawn)
    assert {(e.row, e.target_label) for e in explanations} == {
        (row, outcome) for row, each in enumerate(drawn) for outcome in each.deciding
    }
    assert hit_rate(drawn, explanations) > 0.95
