"""Maskers: networks that propose which tokens to keep."""

from importlib import import_module
from pkgutil import iter_modules

from captum_aml.maskers.aligned import AlignedMasker
from captum_aml.maskers.base import Masker, MaskerInputs, MaskerWindows
from captum_aml.maskers.checkpoint import Checkpoint, TrainingCost
from captum_aml.maskers.embedding import EmbeddingMasker
from captum_aml.maskers.fingerprint import ModelFingerprint
from captum_aml.maskers.hidden import ExplainedLayers
from captum_aml.maskers.registry import register_masker
from captum_aml.maskers.shared import SharedMasker
from captum_aml.maskers.transformer import TransformerMasker

# A module of this package registers its maskers where it is imported.
for _module in iter_modules(__path__, prefix=f"{__name__}."):
    import_module(_module.name)

__all__ = [
    "AlignedMasker",
    "Checkpoint",
    "EmbeddingMasker",
    "ExplainedLayers",
    "Masker",
    "MaskerInputs",
    "MaskerWindows",
    "ModelFingerprint",
    "SharedMasker",
    "TrainingCost",
    "TransformerMasker",
    "register_masker",
]
