"""What of an attribution goes into a saved masker, and how it comes back."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from torch import nn

from captum_aml.exceptions import CheckpointError
from captum_aml.maskers import EmbeddingMasker, TransformerMasker
from captum_aml.objectives import AMLObjective, LAObjective, Objective
from captum_aml.training import Checkpoint

_OBJECTIVES: dict[str, type[AMLObjective] | type[LAObjective]] = {
    "aml": AMLObjective,
    "la": LAObjective,
}


def masker_description(masker: nn.Module) -> dict[str, Any]:
    """A masker's type and configuration, as JSON values."""
    if isinstance(masker, TransformerMasker):
        return {"type": "transformer", "config": masker.config}
    if isinstance(masker, EmbeddingMasker):
        return {"type": "embedding", "config": masker.config}
    return {"type": "custom", "config": getattr(masker, "config", None)}


def rebuild_masker(checkpoint: Checkpoint, given: nn.Module | None) -> nn.Module:
    """The saved masker with its weights.

    Args:
        checkpoint: What was saved.
        given: For a class of the user's own, a module to load the weights into.

    Raises:
        CheckpointError: The type is unknown, or the weights do not fit.
    """
    kind, config = checkpoint.masker.get("type"), checkpoint.masker.get("config")
    try:
        if given is not None:
            module = given
        elif kind == "transformer":
            module = TransformerMasker.from_config(config or {})
        elif kind == "embedding":
            module = EmbeddingMasker(**(config or {}))
        else:
            raise CheckpointError(
                f"masker: the saved masker is of type {kind!r}, which this package cannot build; "
                "pass masker= a module of its class to load the weights into"
            )
        module.load_state_dict(checkpoint.tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"masker: the saved masker cannot be rebuilt ({error})") from error
    return module


def objective_description(objective: Objective) -> dict[str, Any]:
    """An objective of this package by name and fields; one of the user's own as ``custom``."""
    for name, cls in _OBJECTIVES.items():
        if type(objective) is cls:
            return {"name": name, **asdict(objective)}
    return {"name": "custom"}


def rebuild_objective(description: Any) -> Objective:  # whatever the file holds
    """The described objective.

    Raises:
        CheckpointError: The description is malformed, or of an objective of the user's own.
    """
    try:
        fields = dict(description)
        name = fields.pop("name")
        if name == "custom":
            raise CheckpointError(
                "objective: the masker was fitted with an objective that is not this package's; "
                "pass it as objective="
            )
        return _OBJECTIVES[name](**fields)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"objective: the saved one cannot be rebuilt ({error})") from error


__all__ = [
    "masker_description",
    "objective_description",
    "rebuild_masker",
    "rebuild_objective",
]
