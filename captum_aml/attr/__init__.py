"""Captum attributions by learned masks."""

from captum_aml.attr.aml import AMLAttribution, LayerAMLAttribution
from captum_aml.attr.la import LAAttribution, LayerLAAttribution
from captum_aml.attr.llm import LLMAMLAttribution

__all__ = [
    "AMLAttribution",
    "LAAttribution",
    "LLMAMLAttribution",
    "LayerAMLAttribution",
    "LayerLAAttribution",
]
