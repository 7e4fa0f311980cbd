"""Maskers: networks that propose which tokens to keep."""

from captum_aml.maskers._base import Masker, MaskerInputs, as_logits, as_masker
from captum_aml.maskers.embedding import EmbeddingMasker
from captum_aml.maskers.prediction import PredictionEmbedding
from captum_aml.maskers.transformer import TransformerMasker

__all__ = [
    "EmbeddingMasker",
    "Masker",
    "MaskerInputs",
    "PredictionEmbedding",
    "TransformerMasker",
    "as_logits",
    "as_masker",
]
