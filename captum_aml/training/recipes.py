"""Recipes of a fit: the defaults that did best in our measurements, and ways with a name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeAlias

from captum_aml.exceptions import InvalidInputError
from captum_aml.training.settings import LossName

#: Passes over the texts, and texts in a batch.
EPOCHS, BATCH_SIZE = 6, 8


def default_loss(method: str) -> LossName:
    """The loss for ``aml`` or ``la``: regression knows nothing of LA."""
    return "regression" if method == "aml" else "objective"


def default_rate(*, head: bool) -> float:
    """AdamW's highest rate, for an encoder that was pretrained or for a head on hidden states."""
    return 1e-3 if head else 1e-4


#: Everything that a recipe fixes, by the names of the command line's options.
Recipe: TypeAlias = Mapping[str, str | int | float | None]

#: As published for encoders (Barkan et al., Findings of EMNLP 2024): a masker that starts from the
#: explained model's own encoder, blending, AdamW, linear decay without warm-up, batches of 20, ten
#: epochs with three validations each. The papers mention no clipping of gradients.
PUBLISHED: Recipe = MappingProxyType(
    {
        "masker": "transformer",
        "perturbation": "blend",
        "batch_size": 20,
        "loss": "objective",
        "epochs": 10,
        "learning_rate": 4e-5,
        "weight_decay": 0.01,
        "scheduler": "linear",
        "warmup_ratio": 0.0,
        "gradient_accumulation_steps": 1,
        "max_gradient_norm": None,
        "validations_per_epoch": 3,
        "patience": None,
        "mixed_precision": "no",
    }
)

RECIPES: Mapping[str, Recipe] = MappingProxyType({"published": PUBLISHED})


def recipe_of(name: str) -> Recipe:
    """A recipe by its name.

    Raises:
        InvalidInputError: There is none; the message lists those there are.
    """
    if name not in RECIPES:
        raise InvalidInputError(f"recipe: expected one of {', '.join(RECIPES)}, got {name!r}")
    return RECIPES[name]
