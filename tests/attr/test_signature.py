"""Constructors and calls take what Captum's own methods take, by position and by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from captum.attr import IntegratedGradients, LayerIntegratedGradients
from torch import Tensor, nn

from captum_aml import AMLAttribution, LAAttribution, LayerAMLAttribution, LayerLAAttribution
from captum_aml.exceptions import InvalidInputError

PAIRS = [
    (AMLAttribution, IntegratedGradients),
    (LAAttribution, IntegratedGradients),
    (LayerAMLAttribution, LayerIntegratedGradients),
    (LayerLAAttribution, LayerIntegratedGradients),
]
LAYER_CLASSES = [LayerAMLAttribution, LayerLAAttribution]


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).eval()


def examples() -> Tensor:
    return torch.randn(3, 4, generator=torch.Generator().manual_seed(1))


def parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    # Of Captum's classes: without what the logging decorator puts around them.
    return [*inspect.signature(inspect.unwrap(function)).parameters.values()]


@pytest.mark.parametrize(("ours", "captums"), PAIRS)
@pytest.mark.parametrize("name", ["__init__", "attribute"])
def test_captums_parameters_come_first_and_ours_are_keyword_only(
    ours: type[Any], captums: type[Any], name: str
) -> None:
    expected = parameters(getattr(captums, name))
    found = parameters(getattr(ours, name))
    shared, own = found[: len(expected)], found[len(expected) :]
    assert [(p.name, p.kind) for p in shared] == [(p.name, p.kind) for p in expected]
    assert all(p.kind in (p.KEYWORD_ONLY, p.VAR_KEYWORD) for p in own)
    for parameter, captums_own in zip(shared, expected, strict=True):
        if parameter.name != "n_steps":  # theirs is a number, which depends on a masker here
            assert parameter.default == captums_own.default, parameter.name


@pytest.mark.parametrize(("ours", "captums"), PAIRS)
def test_a_call_by_position_is_the_call_by_name(ours: type[Any], captums: type[Any]) -> None:
    explained, x = model(), examples()
    at_layer = captums is LayerIntegratedGradients
    where = (explained[0], None) if at_layer else ()
    rest = (True, {"allow_unused": True}) if at_layer else ()
    by_position = (x, 0.5, 1, None, 4, "riemann_trapezoid", 6, True, *rest)
    captums(explained, *where, True).attribute(*by_position)  # they are Captum's
    scores, delta = ours(explained, *where, True).attribute(*by_position)

    layer = {"layer": explained[0], "device_ids": None} if at_layer else {}
    expected, expected_delta = ours(explained, **layer, multiply_by_inputs=True).attribute(
        x,
        baselines=0.5,
        target=1,
        additional_forward_args=None,
        n_steps=4,
        method="gausslegendre",
        internal_batch_size=6,
        return_convergence_delta=True,
        feature_mask=None,
        show_progress=False,
        **({"attribute_to_layer_input": True, "grad_kwargs": None} if at_layer else {}),
    )
    assert torch.equal(scores, expected)
    assert torch.equal(delta, expected_delta)


@pytest.mark.parametrize(("ours", "captums"), PAIRS)
def test_the_rule_of_integration_changes_nothing(ours: type[Any], captums: type[Any]) -> None:
    explained, x = model(), examples()
    where = (explained[0],) if captums is LayerIntegratedGradients else ()
    attribution = ours(explained, *where)
    expected = attribution.attribute(x, target=1, n_steps=4)
    for rule in ("riemann_left", "none of Captum's"):
        assert torch.equal(attribution.attribute(x, target=1, n_steps=4, method=rule), expected)


@pytest.mark.parametrize(("ours", "captums"), PAIRS)
def test_without_multiplication_the_scores_are_the_mask(
    ours: type[Any], captums: type[Any]
) -> None:
    explained, x = model(), examples()
    at_layer = captums is LayerIntegratedGradients
    where = (explained[0], None) if at_layer else ()
    mask = ours(explained, *where, scores="mask")
    unmultiplied = ours(explained, *where, False)
    assert not mask.multiplies_by_inputs
    assert not unmultiplied.multiplies_by_inputs
    assert unmultiplied.scores == "mask"
    call = {"target": 1, "n_steps": 4}
    scores = unmultiplied.attribute(x, **call)
    assert torch.equal(scores, mask.attribute(x, **call))
    assert bool(((scores >= 0) & (scores <= 1)).all())
    parts = ours(explained, *where, scores="contribution")
    assert parts.multiplies_by_inputs
    zeros = torch.zeros_like(x)
    difference = explained(x)[:, 1] - explained(zeros)[:, 1]
    torch.testing.assert_close(
        parts.attribute(x, zeros, **call).sum(dim=1), difference, rtol=1e-4, atol=1e-5
    )
    with pytest.raises(InvalidInputError, match=r"^scores: expected 'mask'.*got 'contribution'"):
        ours(explained, *where, False, scores="contribution")
    with pytest.raises(InvalidInputError, match=r"^multiply_by_inputs: expected a bool, got str"):
        ours(explained, *where, "yes")


@pytest.mark.parametrize("cls", LAYER_CLASSES)
def test_a_layer_can_be_set_later(cls: type[Any]) -> None:
    explained, x = model(), examples()
    attribution = cls(explained, None)
    message = r"^layer: expected .* got None; assign it"
    with pytest.raises(InvalidInputError, match=message):
        attribution.attribute(x, target=1)
    with pytest.raises(InvalidInputError, match=message):
        attribution.fit([x])
    for layer in (explained[0], explained[1], [explained[0]]):
        attribution.layer = layer
        found = attribution.attribute(x, target=1, n_steps=4)
        expected = cls(explained, layer).attribute(x, target=1, n_steps=4)
        assert type(found) is type(expected)
        one, other = (found[0], expected[0]) if isinstance(layer, list) else (found, expected)
        assert torch.equal(one, other)
    attribution.layer = "linear"
    with pytest.raises(InvalidInputError, match=r"^layer: expected .* got str"):
        attribution.attribute(x, target=1)
