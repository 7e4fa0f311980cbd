"""Synthetic reviews with known evidence, and the classifier and maskers that ship for them."""

from captum_aml.reviews.classifier import (
    hit_rate,
    load_reviews_classifier,
    load_reviews_splits,
    reviews_classifier_path,
    reviews_masker_path,
)
from captum_aml.reviews.generator import (
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
    "hit_rate",
    "load_reviews_classifier",
    "load_reviews_splits",
    "review_splits",
    "reviews_classifier_path",
    "reviews_masker_path",
]
