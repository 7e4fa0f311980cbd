"""Captum attributions by learned masks."""

from typing import TYPE_CHECKING

from captum_aml._utils.lazy import lazy_names

if TYPE_CHECKING:
    from captum_aml.attr.aml import AMLAttribution, LayerAMLAttribution
    from captum_aml.attr.la import LAAttribution, LayerLAAttribution
    from captum_aml.attr.llm import LLMAMLAttribution
    from captum_aml.attr.settings import AttributionOptions, AttributionSettings

__getattr__, __dir__ = lazy_names(__name__)

__all__ = [
    "AMLAttribution",
    "AttributionOptions",
    "AttributionSettings",
    "LAAttribution",
    "LLMAMLAttribution",
    "LayerAMLAttribution",
    "LayerLAAttribution",
]
