"""The settings of the attribution classes: the same names, types and defaults everywhere."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Any, get_type_hints

import pytest
from captum.attr import GradientAttribution, LayerAttribution
from torch import nn

from captum_aml import AMLAttribution, LAAttribution, LayerAMLAttribution, LayerLAAttribution
from captum_aml.attr import AttributionOptions, AttributionSettings
from captum_aml.attr.base import MaskAttribution
from captum_aml.attr.settings import PretrainedOptions
from captum_aml.exceptions import InvalidInputError

CLASSES = [AMLAttribution, LAAttribution, LayerAMLAttribution, LayerLAAttribution]


def made(cls: type[Any], **options: Any) -> Any:
    model = nn.Linear(3, 2)
    return cls(model, *([model] if issubclass(cls, LayerAttribution) else []), **options)


def test_the_options_are_the_settings() -> None:
    options, settings = get_type_hints(AttributionOptions), get_type_hints(AttributionSettings)
    assert options == {field.name: settings[field.name] for field in fields(AttributionSettings)}
    assert not AttributionOptions.__required_keys__


@pytest.mark.parametrize("cls", CLASSES)
def test_every_class_takes_them_and_has_them(cls: type[Any]) -> None:
    known = AttributionSettings()
    attribution = made(cls)
    for field in fields(AttributionSettings):
        if field.name not in ("objective", "perturbation", "scores"):
            assert getattr(attribution, field.name) == getattr(known, field.name), field.name
    assert made(cls, scores="contribution", seed=4).seed == 4
    with pytest.raises(InvalidInputError, match=r"^tune: expected one of .*, got 'both'"):
        made(cls, tune="both")
    with pytest.raises(TypeError, match="unexpected keyword argument 'score'"):
        made(cls, score="mask")


@pytest.mark.parametrize("cls", CLASSES)
def test_the_final_classes_are_one_step_from_the_abstract_base(cls: type[Any]) -> None:
    (kind,) = cls.__bases__
    assert MaskAttribution in kind.__bases__
    assert cls.__final__
    assert issubclass(cls, GradientAttribution)
    assert issubclass(cls, LayerAttribution) == cls.__name__.startswith("Layer")
    with pytest.raises(TypeError, match="abstract"):
        MaskAttribution(nn.Linear(3, 2))  # type: ignore[abstract]


@pytest.mark.parametrize("cls", CLASSES)
def test_from_pretrained_takes_what_the_constructors_take(cls: type[Any]) -> None:
    own = set(inspect.signature(cls).parameters) - {"forward_func", "options"}
    assert own <= set(get_type_hints(PretrainedOptions))
