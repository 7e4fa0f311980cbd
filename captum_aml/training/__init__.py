"""Learning a masker over a data set, and keeping what was learned."""

from captum_aml.training.checkpoint import Checkpoint, ModelFingerprint, TrainingCost
from captum_aml.training.fit import EpochRecord, evaluate_masker, fit_masker

__all__ = [
    "Checkpoint",
    "EpochRecord",
    "ModelFingerprint",
    "TrainingCost",
    "evaluate_masker",
    "fit_masker",
]
