"""Short synthetic reviews in which the words that decide the label are known.

A grammar of our own writes reviews of films, books, restaurants, hotels, phones, concerts, museums
and games. Each text holds one opinion (sometimes two that agree) among neutral facts:

- A denied opinion is turned round: in "not good" both words decide, and the label is negative.
- After a contrast only the main clause decides: in "slow at first, but gripping in the end" the
  word "slow" supports the other label and does not decide.
- Intensifiers, facts, nouns and sentence shapes are drawn in the same way for both labels; "not",
  "never", "but" and "although" also stand in neutral facts. Opinion words aside, no word is
  evidence.

An attribution method is right on such a text if it ranks the deciding words first.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import NamedTuple

from captum_aml.reviews.grammar import GRAMMAR, write_review

LABELS = ("negative", "positive")
"""Names of the labels 0 and 1."""

NEGATORS = frozenset(GRAMMAR["negators"].split())
"""Deciding words that turn the next deciding word round."""

MAX_REVIEWS = 100_000
"""The most reviews that one call makes: the grammar has many more, but not without end."""

_MIN_WORDS, _MAX_WORDS = 6, 30


@dataclass(frozen=True)
class Review:
    """A review, its label and the evidence for it.

    Args:
        text (str): the review.
        label (int): 0 negative, 1 positive; an index into :data:`LABELS`.
        deciding (tuple of (int, int)): character spans ``[start, end)`` of the words that decide
            the label, in the order of the text.
    """

    text: str
    label: int
    deciding: tuple[tuple[int, int], ...]

    @property
    def deciding_words(self) -> tuple[str, ...]:
        """The deciding words as they are written in the text."""
        return tuple(self.text[start:end] for start, end in self.deciding)


class ReviewSplits(NamedTuple):
    """Three lists of reviews that share no text."""

    train: list[Review]
    validation: list[Review]
    test: list[Review]


def generate_reviews(n: int, *, seed: int = 0) -> list[Review]:
    """Writes different reviews, as many of each label as can be.

    The first reviews of a seed are the same whatever ``n`` is. Labels come in pairs, one of each
    in random order, so that any even number of reviews from the start is balanced.

    Args:
        n (int): number of reviews, from 0 to :data:`MAX_REVIEWS`.
        seed (int, optional): seed of the texts. Default: 0.

    Returns:
        list of Review: ``n`` reviews of 6 to 30 words, no text twice.

    Raises:
        ValueError: if ``n`` is negative or above :data:`MAX_REVIEWS`.
    """
    if not 0 <= n <= MAX_REVIEWS:
        raise ValueError(f"n must be from 0 to {MAX_REVIEWS:,}, but it is {n:,}.")
    rng = random.Random(seed)
    reviews: list[Review] = []
    seen: set[str] = set()
    labels: list[int] = []
    while len(reviews) < n:
        if not labels:
            labels = [0, 1] if rng.random() < 0.5 else [1, 0]
        review = _parse(write_review(rng, labels[-1]), labels[-1])
        if review.text in seen or not _MIN_WORDS <= len(review.text.split()) <= _MAX_WORDS:
            continue
        seen.add(review.text)
        labels.pop()
        reviews.append(review)
    return reviews


def review_splits(*, n_train: int, n_validation: int, n_test: int, seed: int = 0) -> ReviewSplits:
    """Writes one pool of different reviews and cuts it into three parts.

    The parts share the grammar and its words, but no text.

    Args:
        n_train (int): number of reviews for training.
        n_validation (int): number of reviews for choosing between models.
        n_test (int): number of held-out reviews.
        seed (int, optional): seed of the pool. Default: 0.

    Returns:
        ReviewSplits: the lists ``train``, ``validation`` and ``test``, each balanced to within
        one pair of labels.

    Raises:
        ValueError: if a number is negative, or if their sum is above :data:`MAX_REVIEWS`.
    """
    sizes = {"n_train": n_train, "n_validation": n_validation, "n_test": n_test}
    for name, size in sizes.items():
        if size < 0:
            raise ValueError(f"{name} must be 0 or more, but it is {size}.")
    total = sum(sizes.values())
    if total > MAX_REVIEWS:
        raise ValueError(
            f"n_train + n_validation + n_test must be at most {MAX_REVIEWS:,}, "
            f"but the sum is {total:,}."
        )
    pool = generate_reviews(total, seed=seed)
    first_test = n_train + n_validation
    return ReviewSplits(pool[:n_train], pool[n_train:first_test], pool[first_test:])


def _parse(marked: str, label: int) -> Review:
    """Turns the square brackets of a marked text into spans of the bare text."""
    text, spans = "", []
    for piece in re.split(r"(\[\w+\])", marked):
        bare = piece.strip("[]")
        if bare != piece:
            spans.append((len(text), len(text) + len(bare)))
        text += bare
    return Review(text, label, tuple(spans))
