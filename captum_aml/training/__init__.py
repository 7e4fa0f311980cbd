"""Learning a masker over a data set, and keeping what was learned."""

from typing import TYPE_CHECKING

from captum_aml._utils.lazy import lazy_names

if TYPE_CHECKING:
    from captum_aml.maskers.checkpoint import Checkpoint, TrainingCost
    from captum_aml.maskers.fingerprint import ModelFingerprint
    from captum_aml.training.callbacks import FitCallback, FitState, ProgressBar
    from captum_aml.training.fit import fit_masker
    from captum_aml.training.losses import FitGoal
    from captum_aml.training.recipes import PUBLISHED, RECIPES, Recipe, recipe_of
    from captum_aml.training.records import EpochRecord, FitSummary, Trial, ValidationRecord
    from captum_aml.training.search import SearchResult, SearchSettings, search_weights
    from captum_aml.training.selection import MaskerScore, validation_metrics
    from captum_aml.training.settings import FitSettings, ValidationMetric
    from captum_aml.training.validation import evaluate_masker

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "captum_aml.maskers.checkpoint": ("Checkpoint", "TrainingCost"),
        "captum_aml.maskers.fingerprint": ("ModelFingerprint",),
        "captum_aml.training.callbacks": ("FitCallback", "FitState", "ProgressBar"),
        "captum_aml.training.fit": ("fit_masker",),
        "captum_aml.training.validation": ("evaluate_masker",),
        "captum_aml.training.losses": ("FitGoal",),
        "captum_aml.training.recipes": ("PUBLISHED", "RECIPES", "Recipe", "recipe_of"),
        "captum_aml.training.records": ("EpochRecord", "FitSummary", "Trial", "ValidationRecord"),
        "captum_aml.training.search": ("SearchResult", "SearchSettings", "search_weights"),
        "captum_aml.training.selection": ("MaskerScore", "validation_metrics"),
        "captum_aml.training.settings": ("FitSettings", "ValidationMetric"),
    },
)

__all__ = [
    "PUBLISHED",
    "RECIPES",
    "Checkpoint",
    "EpochRecord",
    "FitCallback",
    "FitGoal",
    "FitSettings",
    "FitState",
    "FitSummary",
    "MaskerScore",
    "ModelFingerprint",
    "ProgressBar",
    "Recipe",
    "SearchResult",
    "SearchSettings",
    "TrainingCost",
    "Trial",
    "ValidationMetric",
    "ValidationRecord",
    "evaluate_masker",
    "fit_masker",
    "recipe_of",
    "search_weights",
    "validation_metrics",
]
