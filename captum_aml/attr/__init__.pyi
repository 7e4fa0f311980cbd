from .aml import AMLAttribution, LayerAMLAttribution
from .la import LAAttribution, LayerLAAttribution
from .llm import LLMAMLAttribution
from .settings import AttributionOptions, AttributionSettings

__all__ = [
    "AMLAttribution",
    "AttributionOptions",
    "AttributionSettings",
    "LAAttribution",
    "LLMAMLAttribution",
    "LayerAMLAttribution",
    "LayerLAAttribution",
]
