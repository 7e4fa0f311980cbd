"""Deletion and insertion curves: points and areas by hand, by a plain loop, and their ends."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_aml.exceptions import InvalidInputError, NonFiniteError
from captum_aml.metrics import area_under_curve, deletion_curve, insertion_curve
from tests._helpers.models import LinearLogits
from tests._helpers.removals import (
    FIRST,
    LAST,
    MASK,
    TEXT,
    Counting,
    additive,
    bert,
    padded,
    predicted,
    probability,
    words,
)

DOUBLE = torch.float64
CURVES = {"deletion": deletion_curve, "insertion": insertion_curve}
IN_ORDER = torch.tensor([[5.0, 4.0, 3.0, 2.0, 1.0]])


def additive_curve(name: str, **options: Any) -> list[float]:
    ids = torch.tensor([TEXT])
    curve = CURVES[name](additive(), ids, IN_ORDER, MASK, torch.ones_like(ids), **options)
    assert curve.dtype == DOUBLE
    values: list[float] = curve[0].tolist()
    return values


def test_points_by_hand() -> None:
    # Six points for five tokens: one after the other goes. p(X) is 21/32; they add 8, 4, 2, -2, 1.
    falling = [21, 13, 9, 7, 9, 8]
    assert additive_curve("deletion", n_points=6) == pytest.approx([p / 32 for p in falling])
    rising = [8, 16, 20, 22, 20, 21]
    assert additive_curve("insertion", n_points=6) == pytest.approx([p / 32 for p in rising])
    # Shares of 0, 1/2 and 1 are 0, 2.5 and 5 tokens: halves go up.
    assert additive_curve("deletion", n_points=3) == pytest.approx([21 / 32, 7 / 32, 8 / 32])
    # Masked, every token gives half of 1/32 back.
    masked = additive_curve("deletion", n_points=3, removal="mask")
    assert masked == pytest.approx([21 / 32, 8.5 / 32, 10.5 / 32])


def test_tenths_of_five_tokens() -> None:
    # 0, 0.5, 1, 1.5, ... 5 tokens: 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, whatever 0.3 * 5 comes to.
    falling = [21, 13, 13, 9, 9, 7, 7, 9, 9, 8, 8]
    assert additive_curve("deletion") == pytest.approx([p / 32 for p in falling])


def test_areas_by_hand() -> None:
    # Trapezoids of width 1/2: (1 + 3)/4 + (3 + 2)/4.
    curves = torch.tensor([[1.0, 3.0, 2.0], [1.0, 1.0, 1.0]], dtype=DOUBLE)
    assert area_under_curve(curves).tolist() == [2.25, 1.0]
    # A line from 1 to 0 has half the area, whatever the number of points.
    for n_points in (2, 7, 101):
        line = torch.linspace(1, 0, n_points, dtype=DOUBLE)[None]
        assert area_under_curve(line).item() == pytest.approx(0.5)


def test_a_good_ranking_falls_faster_and_rises_faster() -> None:
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0]]).double()

    def forward(x: Tensor) -> Tensor:
        return x.sum(dim=1)

    options: dict[str, Any] = {"n_points": 5, "removal": "mask"}
    best, worst = (deletion_curve(forward, x, s, **options) for s in (x, -x))
    assert best.tolist() == [[10, 6, 3, 1, 0]]
    assert worst.tolist() == [[10, 9, 7, 4, 0]]
    # Areas: (10/2 + 6 + 3 + 1 + 0) / 4, and (10/2 + 9 + 7 + 4) / 4.
    assert area_under_curve(best).item() == pytest.approx(3.75)
    assert area_under_curve(worst).item() == pytest.approx(6.25)
    # To insert the best first is to delete the worst first, backwards.
    assert torch.equal(insertion_curve(forward, x, x, **options), worst.flip(1))
    assert torch.equal(insertion_curve(forward, x, -x, **options), best.flip(1))


def forward_of(model: nn.Module) -> Callable[..., Any]:
    def forward(ids: Tensor, attention_mask: Tensor, types: Tensor) -> Tensor:
        logits: Tensor = model(ids, attention_mask=attention_mask, token_type_ids=types).logits
        return logits

    return forward


@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
@pytest.mark.parametrize("removal", ["delete", "mask", "pad"])
def test_equal_to_a_plain_loop(removal: str, left: bool) -> None:
    forward = forward_of(bert())
    texts = words([1, 7, 10, 3, 7, 4, 2, 9, 5, 6], seed=6)
    batch = padded(texts, left=left)
    for name, curve in CURVES.items():
        expected = []
        for text in texts:
            target = predicted(forward, text)
            points = []
            for step in range(6):
                k = int(len(text.tokens) * Fraction(step, 5) + Fraction(1, 2))
                top = text.ranking[:k]
                kept = top if name == "insertion" else [i for i in text.tokens if i not in top]
                points.append(probability(forward, text, kept, removal, target))
            expected.append(points)
        for batch_size in (1, 32):
            got = curve(
                forward,
                batch.ids,
                batch.scores,
                batch.references,
                (batch.attention_mask, batch.types),
                n_points=6,
                removal=removal,
                batch_size=batch_size,
            )
            torch.testing.assert_close(
                got, torch.tensor(expected, dtype=DOUBLE), rtol=0, atol=1e-10
            )


def test_the_ends_are_everything_and_nothing() -> None:
    batch = padded(words([3, 9, 5], seed=7))
    call = (batch.references, (batch.attention_mask, batch.types))
    forward = forward_of(bert())
    falling = deletion_curve(forward, batch.ids, batch.scores, *call, n_points=4)
    rising = insertion_curve(forward, batch.ids, batch.scores, *call, n_points=4)
    assert torch.equal(falling[:, 0], rising[:, -1])
    assert torch.equal(falling[:, -1], rising[:, 0])


def test_points_at_the_same_number_of_tokens_are_passed_once() -> None:
    counting = Counting(additive())

    def forward(ids: Tensor, attention_mask: Tensor) -> Any:
        return counting(ids, attention_mask)

    ids = torch.tensor([TEXT])
    deletion_curve(forward, ids, IN_ORDER, MASK, torch.ones_like(ids), n_points=101)
    assert sorted(len(seen[0]) for seen in counting.seen) == [0, 1, 2, 3, 4, 5]


def test_an_example_without_a_token_has_no_curve() -> None:
    ids = torch.tensor([[FIRST, LAST, 0], [FIRST, 4, LAST]])
    references = torch.where(ids > 3, MASK, ids)
    for curve in CURVES.values():
        got = curve(additive(), ids, torch.rand(2, 3), references, (ids != 0).long(), n_points=2)
        assert got.isnan().tolist() == [[True, True], [False, False]]


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_points": 1}, InvalidInputError, "n_points: .*at least 2, got 1"),
        ({"n_points": 2.0}, InvalidInputError, "n_points: .*2.0"),
        ({"batch_size": -1}, InvalidInputError, "batch_size: .*-1"),
        ({"removal": "erase"}, InvalidInputError, "removal: .*'erase'"),
        ({"target": 2}, InvalidInputError, "target: "),
        ({"attributions": torch.rand(1, 3)}, InvalidInputError, "attributions: "),
        ({"attributions": torch.full((1, 5), torch.nan)}, NonFiniteError, "attributions: "),
    ],
)
def test_bad_arguments_are_named(
    name: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    ids = torch.tensor([TEXT])
    call: dict[str, Any] = {
        "attributions": IN_ORDER,
        "baselines": MASK,
        "additional_forward_args": torch.ones_like(ids),
        **options,
    }
    with pytest.raises(error, match=message):
        CURVES[name](additive(), ids, **call)


def test_elements_of_floats_cannot_be_deleted() -> None:
    model = LinearLogits([1.0, 2.0], 0.0)
    with pytest.raises(InvalidInputError, match="removal: 'delete' needs"):
        deletion_curve(model, torch.ones(1, 2), torch.ones(1, 2), target=1)
