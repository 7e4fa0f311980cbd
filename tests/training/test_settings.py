"""The settings of ``fit``: checked once, and the same values everywhere."""

from __future__ import annotations

import inspect
import json
import math
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
import torch
from typing_extensions import Unpack

from captum_aml import AMLAttribution
from captum_aml.exceptions import InvalidInputError
from captum_aml.training import FitSettings, ValidationMetric
from captum_aml.training.settings import FitOptions


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("epochs", 1.5),
        ("learning_rate", -1e-4),
        ("learning_rate", "1e-4"),
        ("weight_decay", -0.1),
        ("weight_decay", math.inf),
        ("warmup_ratio", 1.0),
        ("warmup_ratio", -0.1),
        ("warmup_ratio", True),
        ("scheduler", "linaer"),
        ("gradient_accumulation_steps", 0),
        ("max_gradient_norm", 0.0),
        ("max_gradient_norm", math.nan),
        ("validations_per_epoch", 0),
        ("patience", 0),
        ("patience", 1.5),
        ("select_by", None),
        ("mixed_precision", "fp8"),
        ("max_skipped_steps", -1),
        ("checkpoint_dir", 3),
        ("resume", "yes"),
        ("save_every", 0),
        ("cache_predictions", 1),
        ("seed", -1),
        ("seed", "a"),
    ],
)
def test_a_bad_value_is_named_with_what_was_expected(name: str, value: Any) -> None:
    with pytest.raises(InvalidInputError, match=rf"^{name}: expected .*, got"):
        FitSettings(**{"checkpoint_dir": "here", name: value})


def test_a_warm_up_of_a_constant_rate_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"^warmup_ratio: .*constant_with_warmup"):
        FitSettings(scheduler="constant", warmup_ratio=0.1)


def test_the_options_of_fit_are_the_settings() -> None:
    options, settings = get_type_hints(FitOptions), get_type_hints(FitSettings)
    assert options == {field.name: settings[field.name] for field in fields(FitSettings)}
    assert not FitOptions.__required_keys__
    parameters = inspect.signature(AMLAttribution.fit, eval_str=True).parameters
    assert parameters["options"].kind is inspect.Parameter.VAR_KEYWORD
    assert parameters["options"].annotation == Unpack[FitOptions]
    others = {"self", "train_batches", "val_batches", "callbacks", "trackers", "show_progress"}
    assert set(parameters) == {"options"} | others


@pytest.mark.parametrize("field", fields(FitSettings), ids=lambda field: str(field.name))
def test_fit_has_these_settings_with_these_defaults(
    field: Field[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[FitSettings] = []

    def learn(*_: object, settings: FitSettings, **__: object) -> None:
        given.append(settings)
        raise InterruptedError

    monkeypatch.setattr("captum_aml.attr.base.learn", learn)
    attribution = AMLAttribution(torch.nn.Linear(2, 2), seed=3)
    with pytest.raises(InterruptedError):
        attribution.fit([])
    default = 3 if field.name == "seed" else field.default
    assert getattr(given[0], field.name) == default
    with pytest.raises(TypeError, match="unexpected keyword argument 'epoch'"):
        attribution.fit([], epoch=3)  # type: ignore[call-arg]


def test_settings_go_through_json_and_back() -> None:
    settings = FitSettings(
        epochs=np.int64(3), checkpoint_dir=Path("here"), select_by="sufficiency", seed=4
    )
    values = json.loads(json.dumps(settings.to_dict()))
    assert values["epochs"] == 3
    assert values["checkpoint_dir"] == "here"
    assert FitSettings.from_dict(values) == settings
    metric = ValidationMetric("mine", lambda a, b: torch.zeros(1), True)
    assert FitSettings(select_by=metric).to_dict()["select_by"] == "mine"
    assert FitSettings(select_by=metric).arguments()["select_by"] is metric


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(InvalidInputError, match=r"expected names among .*learning_rate.*, got lr"):
        FitSettings.from_dict({"lr": 1})
