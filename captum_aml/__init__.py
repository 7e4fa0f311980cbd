"""AML and LA for Captum: explanations of language models by learned masks."""

from captum_aml._version import __version__
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
    "TransformerMasker",
    "__version__",
]
