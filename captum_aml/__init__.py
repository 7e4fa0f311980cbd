"""AML and LA for Captum: explanations of language models by learned masks."""

from typing import TYPE_CHECKING

from captum_aml._utils.lazy import lazy_names
from captum_aml._version import __version__

if TYPE_CHECKING:
    from captum_aml.attr import (
        AMLAttribution,
        LAAttribution,
        LayerAMLAttribution,
        LayerLAAttribution,
        LLMAMLAttribution,
    )
    from captum_aml.maskers import (
        AlignedMasker,
        EmbeddingMasker,
        Masker,
        MaskerInputs,
        SharedMasker,
        TransformerMasker,
    )
    from captum_aml.objectives import AMLObjective, LAObjective
    from captum_aml.text import TextExplainer

__getattr__, __dir__ = lazy_names(__name__)

__all__ = [
    "AMLAttribution",
    "AMLObjective",
    "AlignedMasker",
    "EmbeddingMasker",
    "LAAttribution",
    "LAObjective",
    "LLMAMLAttribution",
    "LayerAMLAttribution",
    "LayerLAAttribution",
    "Masker",
    "MaskerInputs",
    "SharedMasker",
    "TextExplainer",
    "TransformerMasker",
    "__version__",
]
