"""Objectives: losses over masked outputs, as pure functions of tensors."""

from captum_aml.objectives._base import (
    LogOddsObjective,
    MaskedOutcome,
    Objective,
    Terms,
    inverse_term,
    prediction_term,
    size_term,
)
from captum_aml.objectives.aml import AMLObjective
from captum_aml.objectives.la import LAObjective

__all__ = [
    "AMLObjective",
    "LAObjective",
    "LogOddsObjective",
    "MaskedOutcome",
    "Objective",
    "Terms",
    "inverse_term",
    "prediction_term",
    "size_term",
]
