"""Documentation beside a dataclass's fields."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated

from typing_extensions import Doc

from captum_aml import AMLAttribution, LayerAMLAttribution
from captum_aml._utils.options import documented, option_docs
from captum_aml.attr import AttributionSettings
from captum_aml.training import FitSettings


@documented
@dataclass
class Options:
    """Some options.

    Raises:
        ValueError: Never.
    """

    size: Annotated[int, Doc("How large.")] = 1
    plain: int = 2


def test_fields_are_documented_before_what_is_raised() -> None:
    assert option_docs(Options) == {"size": "How large."}
    text = Options.__doc__ or ""
    assert text.index("Some options.") < text.index("Attributes:\n        size: How large.")
    assert text.index("size: How large.") < text.index("Raises:\n        ValueError")


def test_every_setting_of_fit_is_documented() -> None:
    assert set(option_docs(FitSettings)) == {field.name for field in fields(FitSettings)}


def test_a_class_shows_what_its_options_are() -> None:
    for cls in (AMLAttribution, LayerAMLAttribution):
        shown = cls.__doc__ or ""
        assert "**options" not in shown
        for name, doc in option_docs(AttributionSettings).items():
            assert f"\n        {name}: {doc.split()[0]}" in shown
        assert shown.index("forward_func:") < shown.index("seed:") < shown.index("Examples:")
