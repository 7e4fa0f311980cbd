"""Captum attributions by learned masks."""

from captum_aml.attr.aml import AMLAttribution, LayerAMLAttribution
from captum_aml.attr.la import LAAttribution, LayerLAAttribution
from captum_aml.attr.llm import LLMAMLAttribution
from captum_aml.attr.settings import AttributionOptions, AttributionSettings

__all__ = [
    "AMLAttribution",
    "AttributionOptions",
    "AttributionSettings",
    "LAAttribution",
    "LLMAMLAttribution",
    "LayerAMLAttribution",
    "LayerLAAttribution",
]
