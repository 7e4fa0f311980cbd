"""Data that the package makes itself, with known evidence."""

from captum_aml.datasets.reviews import (
    LABELS,
    MAX_REVIEWS,
    NEGATORS,
    Review,
    ReviewSplits,
    generate_reviews,
    review_splits,
)

__all__ = [
    "LABELS",
    "MAX_REVIEWS",
    "NEGATORS",
    "Review",
    "ReviewSplits",
    "generate_reviews",
    "review_splits",
]
