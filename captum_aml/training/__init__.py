"""Learning a masker over a data set, and keeping what was learned."""

from typing import TYPE_CHECKING

from captum_aml._utils.lazy import lazy_names

if TYPE_CHECKING:
    from captum_aml.maskers.checkpoint import Checkpoint, TrainingCost
    from captum_aml.maskers.fingerprint import ModelFingerprint
    from captum_aml.training.callbacks import FitCallback, FitState, ProgressBar
    from captum_aml.training.fit import fit_masker
    from captum_aml.training.records import EpochRecord, FitSummary, Trial, ValidationRecord
    from captum_aml.training.search import SearchResult, SearchSettings, search_weights
    from captum_aml.training.selection import MaskerScore, validation_metrics
    from captum_aml.training.settings import FitSettings, ValidationMetric
    from captum_aml.training.validation import evaluate_masker

__getattr__, __dir__ = lazy_names(__name__)

__all__ = [
    "Checkpoint",
    "EpochRecord",
    "FitCallback",
    "FitSettings",
    "FitState",
    "FitSummary",
    "MaskerScore",
    "ModelFingerprint",
    "ProgressBar",
    "SearchResult",
    "SearchSettings",
    "TrainingCost",
    "Trial",
    "ValidationMetric",
    "ValidationRecord",
    "evaluate_masker",
    "fit_masker",
    "search_weights",
    "validation_metrics",
]
