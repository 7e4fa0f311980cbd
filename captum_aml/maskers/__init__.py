"""Maskers: networks that propose which tokens to keep."""

from captum_aml.maskers.aligned import AlignedMasker
from captum_aml.maskers.base import Masker, MaskerInputs, MaskerWindows, as_logits, as_masker
from captum_aml.maskers.embedding import EmbeddingMasker
from captum_aml.maskers.hidden import ExplainedLayers, explained_layers_of
from captum_aml.maskers.prediction import PredictionEmbedding
from captum_aml.maskers.registry import build_masker, masker_names, register_masker
from captum_aml.maskers.shared import SharedMasker
from captum_aml.maskers.transformer import TransformerMasker

__all__ = [
    "AlignedMasker",
    "EmbeddingMasker",
    "ExplainedLayers",
    "Masker",
    "MaskerInputs",
    "MaskerWindows",
    "PredictionEmbedding",
    "SharedMasker",
    "TransformerMasker",
    "as_logits",
    "as_masker",
    "build_masker",
    "explained_layers_of",
    "masker_names",
    "register_masker",
]
