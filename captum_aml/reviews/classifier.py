"""A small classifier of synthetic reviews and its data, which ship inside the package.

``examples/make_reviews_model.py`` makes the files.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from captum_aml.reviews.generator import Review, ReviewSplits, review_splits

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from captum_aml.text import Explanation


def reviews_classifier_path() -> Path:
    """The folder of the classifier of reviews.

    Returns:
        Path: a folder in the form of ``save_pretrained``, with the model and its tokenizer.

    Raises:
        FileNotFoundError: if the installed package does not hold it as files.
    """
    path = Path(str(resources.files("captum_aml.reviews"))) / "data" / "classifier"
    if not (path / "model.safetensors").is_file():
        raise FileNotFoundError(
            f"The classifier of reviews was expected in {str(path)!r}, but it is not there. "
            "Install captum_aml as a folder of files (not as a zip archive), or make the "
            "classifier with examples/make_reviews_model.py."
        )
    return path


def reviews_masker_path(method: str = "aml") -> Path:
    """The folder of a masker that was fitted for the classifier of reviews.

    Args:
        method: What it was fitted for, "aml" or "la". Default: "aml".

    Returns:
        Path: a folder for ``AMLAttribution.from_pretrained``, or that of ``LAAttribution``.

    Raises:
        FileNotFoundError: if the installed package does not hold it as files.
    """
    path = Path(str(resources.files("captum_aml.reviews"))) / "data" / f"masker-{method}"
    if not (path / "config.json").is_file():
        raise FileNotFoundError(
            f"The masker of reviews was expected in {str(path)!r}, but it is not there. Make it "
            "with examples/make_reviews_masker.py."
        )
    return path


def load_reviews_classifier() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Loads the classifier of reviews that ships with the package, without a network.

    A BERT of two layers with the classes "negative" and "positive", trained on
    ``load_reviews_splits().train``. In training, tokens were also replaced by [MASK] or [PAD], or
    left out through the attention mask; where no complete opinion was left, the target was 0.5 for
    either class.

    Returns:
        (PreTrainedModel, PreTrainedTokenizerBase): the model in evaluation mode, and a fast
        tokenizer whose tokens are words.

    Raises:
        FileNotFoundError: if the installed package does not hold the files.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    path = reviews_classifier_path()
    model = AutoModelForSequenceClassification.from_pretrained(path, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    return model.eval(), tokenizer


def load_reviews_splits() -> ReviewSplits:
    """Writes the reviews of the bundled classifier: what it saw and what it did not.

    Returns:
        ReviewSplits: 16,000 reviews for training, 1,000 for validation and 1,000 held out.
    """
    return review_splits(n_train=16000, n_validation=1000, n_test=1000, seed=0)


def hit_rate(explanation: Explanation, review: Review) -> float:
    """The share of a review's deciding words among as many of the highest tokens."""
    import torch

    from captum_aml.metrics import rationale_labels, token_f1

    scores = torch.tensor([explanation.scores], dtype=torch.float64)
    return float(token_f1(scores, rationale_labels(explanation.offsets, review.deciding)[None]))
