"""The call without options where one model is enough: by hand, precision, noise, seeds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from captum.attr import IntegratedGradients, LayerIntegratedGradients
from torch import Tensor, nn

from captum_aml import AMLAttribution, LAAttribution
from captum_aml.exceptions import NotFittedError
from tests._helpers.cases import CASES, Case
from tests._helpers.checks import (
    DEFAULT_CALLS,
    KnownMasker,
    Method,
    assert_ranked_alike,
    assert_same,
    differs,
    flat,
)

WEIGHTS = torch.tensor([2.0, -1.0, 0.5, 0.0])


@pytest.fixture(params=DEFAULT_CALLS.values(), ids=DEFAULT_CALLS.keys())
def method(request: pytest.FixtureRequest) -> Method:
    return request.param


def test_a_table_by_hand() -> None:
    x = torch.tensor([[1.0, 2.0, -4.0, 5.0], [0.5, 0.0, 2.0, 1.0]])
    scores = AMLAttribution(lambda t: t @ WEIGHTS + 7.0).attribute(x)
    expected = torch.tensor([[2.0, -2.0, -2.0, 0.0], [1.0, 0.0, 1.0, 0.0]])
    torch.testing.assert_close(scores, expected, rtol=1e-6, atol=1e-6)
    baselines = torch.ones(1, 4)
    scores = AMLAttribution(lambda t: t @ WEIGHTS + 7.0).attribute(x, baselines)
    torch.testing.assert_close(scores, WEIGHTS * (x - 1), rtol=1e-6, atol=1e-6)


def test_a_product_is_shared_by_its_factors() -> None:
    # F = 3 x y + z: the product's effect is x's and y's alike, whatever the masks.
    x = torch.tensor([[2.0, 1.5, -1.0]], dtype=torch.float64)
    for cls in (AMLAttribution, LAAttribution):
        (scores,) = cls(lambda t: 3 * t[:, 0] * t[:, 1] + t[:, 2]).attribute(x).tolist()
        # Masks are drawn in single precision.
        assert scores == pytest.approx([4.5, 4.5, -1.0], rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(method: Method, dtype: torch.dtype) -> None:
    linear = nn.Linear(4, 4, bias=False).to(dtype)
    x = torch.tensor([[1.0, 2.0, -4.0, 5.0], [0.5, 0.0, 2.0, 1.0]], dtype=dtype)

    def forward(t: Tensor) -> Tensor:
        return linear(t) @ WEIGHTS.to(dtype)

    case = Case(forward, x, (), layer=linear)
    with torch.no_grad():
        by_input = (WEIGHTS @ linear.weight.float()) * x
        by_layer = WEIGHTS * linear(x).float()
    expected = by_layer if method.at_layer else by_input
    (scores,) = method.scores(case)
    assert scores.dtype == torch.float32
    # A few roundings to 8 and 11 bits, of numbers as large as the largest.
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(scores, expected, rtol=0, atol=8 * eps * float(expected.abs().max()))
    # As Captum's own method does for it, which scores in single precision too.
    if method.at_layer:
        captum = LayerIntegratedGradients(forward, linear).attribute(x)
    else:
        captum = IntegratedGradients(forward).attribute(x)
    assert captum.dtype == scores.dtype


def test_a_seed_is_a_choice_of_masks(method: Method) -> None:
    case = CASES["sequence"].build()
    attribution = method(case)
    first = attribution.attribute(case.inputs, **case.call)
    assert_same(method(case, seed=0).attribute(case.inputs, **case.call), first)
    other = method(case, seed=1).attribute(case.inputs, **case.call)
    assert differs(flat(other), flat(first))

    # More passes leave less to the choice.
    def spread(n_steps: int) -> float:
        runs = [
            method(case, seed=s).attribute(case.inputs, n_steps=n_steps, **case.call)
            for s in range(6)
        ]
        return float(torch.stack(runs).std(dim=0).mean())

    assert spread(128) < 0.6 * spread(8)


class Noisy(nn.Module):
    """A dropout that never ends, remembering its factors; linear otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.identity = nn.Identity()
        self.factors: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        """Values (N,) of (N, 4)."""
        kept = (torch.rand(x.shape) > 0.3).float()
        if torch.is_grad_enabled():
            self.factors.append(kept)
        return (self.identity(x) * kept) @ WEIGHTS


@pytest.mark.parametrize("size", [None, 1])
def test_a_pair_of_masks_meets_the_same_random_numbers(method: Method, size: int | None) -> None:
    model = Noisy()
    x = torch.rand(3, 4) + 1
    case = Case(model, x, (), layer=model.identity)
    before = torch.get_rng_state()
    attribution = method(case)
    first = attribution.attribute(x, internal_batch_size=size)
    assert torch.equal(torch.get_rng_state(), before)
    calls = model.factors.copy()
    # Two calls of half the masks each, or for each example its masks, one by one.
    per_example = [calls] if size is None else [calls[i : i + 16] for i in range(0, 48, 16)]
    assert sum(len(c) for c in per_example) == (2 if size is None else 48)
    for each in per_example:
        half = len(each) // 2
        masks, complements = torch.cat(each[:half]), torch.cat(each[half:])
        assert torch.equal(masks, complements)
        assert len({tuple(row) for row in masks.tolist()}) > 1
    assert_same(attribution.attribute(x, internal_batch_size=size), first)


def test_classes_without_a_proposal_say_so(method: Method) -> None:
    case = CASES["text"].build()
    attribution = method(case)
    assert not attribution.is_fitted
    for call in (
        lambda: attribution.evaluate(case.inputs, **case.call),
        lambda: attribution.attribute(case.inputs, n_steps=0, **case.call),
        lambda: attribution.save_pretrained("nowhere"),
    ):
        with pytest.raises(NotFittedError):
            call()
    assert method(case, masker=KnownMasker()).default_n_steps == 0
    assert attribution.default_n_steps == 16


def test_a_fitted_maskers_contributions(method: Method) -> None:
    """Complete and ranked as its mask; see the shared checks for what no masker is needed for."""
    case = CASES["sequence"].build()
    batch = {"inputs": case.inputs, **case.call}
    for loss in ("regression", "objective"):
        attribution = method(case).fit([batch], epochs=2, loss=loss)
        scores, delta = attribution.attribute(
            case.inputs, return_convergence_delta=True, **case.call
        )
        assert bool((delta.abs() < 1e-5).all())
        attribution.scores = "mask"
        mask = attribution.attribute(case.inputs, **case.call)
        # The first example is not padded.
        contributions, values = scores.sum(-1)[:1], mask.sum(-1)[:1]
        assert_ranked_alike(contributions, values)
        assert bool(((values > 0) & (values < 1)).all())


def test_arguments_by_position(method: Method) -> None:
    case = CASES["text"].build()
    named = method(case).attribute(
        case.inputs,
        baselines=case.baselines,
        target=case.target,
        additional_forward_args=case.args,
        n_steps=8,
    )
    placed = method(case).attribute(case.inputs, case.baselines, case.target, case.args, 8)
    assert_same(placed, named)


def test_contributions_change_sign_with_the_function(method: Method) -> None:
    case = CASES["scalar"].build()
    expected = method.scores(case)
    for factor in (-1.0, 100.0):

        def forward(*args: Any, factor: float = factor) -> Tensor:
            return factor * case.forward(*args) + 3

        got = method.scores(replace(case, forward=forward))
        for g, e in zip(got, expected, strict=True):
            # A sum of values of this size was rounded to single precision.
            size = abs(factor) * float(e.abs().max())
            torch.testing.assert_close(g, factor * e, rtol=1e-4, atol=2e-5 * size)
