"""Recipes of a fit: the defaults that did best in our measurements, and ways with a name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from captum_aml.exceptions import InvalidInputError
from captum_aml.training.settings import FitSettings, LossName


def default_loss(method: str) -> LossName:
    """The loss for ``aml`` or ``la``: regression knows nothing of LA."""
    return "regression" if method == "aml" else "objective"


def default_rate(*, head: bool) -> float:
    """AdamW's highest rate, for an encoder that was pretrained or for a head on hidden states."""
    return 1e-3 if head else 1e-4


@dataclass(frozen=True)
class Recipe:
    """A named choice of how to fit.

    Attributes:
        name: Its name.
        masker: What the masker starts as.
        perturbation: How the mask is applied.
        batch_size: Examples in a batch.
        settings: The settings of ``fit``; those that say where a run is kept and how it is seeded
            are not the recipe's.
    """

    name: str
    masker: str
    perturbation: str
    batch_size: int
    settings: FitSettings

    @property
    def fixed(self) -> Mapping[str, str | int | float | None]:
        """Everything it fixes, by name."""
        names = (
            "loss",
            "epochs",
            "learning_rate",
            "weight_decay",
            "scheduler",
            "warmup_ratio",
            "gradient_accumulation_steps",
            "max_gradient_norm",
            "validations_per_epoch",
            "patience",
            "mixed_precision",
        )
        return {
            "masker": self.masker,
            "perturbation": self.perturbation,
            "batch_size": self.batch_size,
            **{name: getattr(self.settings, name) for name in names},
        }


#: As published for encoders (Barkan et al., Findings of EMNLP 2024): a masker that starts from the
#: explained model's own encoder, blending, AdamW, linear decay without warm-up, batches of 20, ten
#: epochs with three validations each. The papers mention no clipping of gradients.
PUBLISHED = Recipe(
    name="published",
    masker="transformer",
    perturbation="blend",
    batch_size=20,
    settings=FitSettings(
        loss="objective",
        epochs=10,
        learning_rate=4e-5,
        weight_decay=0.01,
        scheduler="linear",
        warmup_ratio=0.0,
        gradient_accumulation_steps=1,
        max_gradient_norm=None,
        validations_per_epoch=3,
        patience=None,
        mixed_precision="no",
    ),
)

RECIPES: Mapping[str, Recipe] = MappingProxyType({PUBLISHED.name: PUBLISHED})


def recipe_of(name: str) -> Recipe:
    """A recipe by its name.

    Raises:
        InvalidInputError: There is none; the message lists those there are.
    """
    if name not in RECIPES:
        raise InvalidInputError(f"recipe: expected one of {', '.join(RECIPES)}, got {name!r}")
    return RECIPES[name]


__all__ = ["PUBLISHED", "RECIPES", "Recipe", "default_loss", "default_rate", "recipe_of"]
