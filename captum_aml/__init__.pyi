from ._version import __version__
from .attr import (
    AMLAttribution,
    LAAttribution,
    LayerAMLAttribution,
    LayerLAAttribution,
    LLMAMLAttribution,
)
from .maskers import (
    AlignedMasker,
    EmbeddingMasker,
    Masker,
    MaskerInputs,
    SharedMasker,
    TransformerMasker,
)
from .objectives import AMLObjective, LAObjective
from .text import TextExplainer

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
