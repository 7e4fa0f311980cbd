"""Captum attributions by learned masks."""

from captum_aml.attr.aml import AMLAttribution, LayerAMLAttribution
from captum_aml.attr.la import LAAttribution, LayerLAAttribution

__all__ = ["AMLAttribution", "LAAttribution", "LayerAMLAttribution", "LayerLAAttribution"]
