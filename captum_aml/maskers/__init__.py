"""Maskers: networks that propose which tokens to keep."""

from captum_aml.maskers.aligned import AlignedMasker
from captum_aml.maskers.base import Masker, MaskerInputs, MaskerWindows
from captum_aml.maskers.checkpoint import Checkpoint, TrainingCost
from captum_aml.maskers.embedding import EmbeddingMasker
from captum_aml.maskers.fingerprint import ModelFingerprint
from captum_aml.maskers.hidden import ExplainedLayers
from captum_aml.maskers.registry import register_masker
from captum_aml.maskers.shared import SharedMasker
from captum_aml.maskers.transformer import TransformerMasker

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
