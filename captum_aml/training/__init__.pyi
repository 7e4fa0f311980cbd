from .callbacks import FitCallback, FitState
from .records import EpochRecord, FitSummary, Trial, ValidationRecord
from .search import SearchResult, SearchSettings, search_weights
from .selection import MaskerScore, validation_metrics
from .settings import FitSettings, ValidationMetric

__all__ = [
    "EpochRecord",
    "FitCallback",
    "FitSettings",
    "FitState",
    "FitSummary",
    "MaskerScore",
    "SearchResult",
    "SearchSettings",
    "Trial",
    "ValidationMetric",
    "ValidationRecord",
    "search_weights",
    "validation_metrics",
]
