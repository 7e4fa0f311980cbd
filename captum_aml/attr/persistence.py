"""What of an attribution goes into a saved masker, and how it comes back."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from torch import nn

from captum_aml.exceptions import CheckpointError
from captum_aml.maskers import AlignedMasker, EmbeddingMasker, SharedMasker, TransformerMasker
from captum_aml.masking.forward import underlying_model
from captum_aml.objectives import AMLObjective, LAObjective, Objective
from captum_aml.training import Checkpoint
from captum_aml.typing import ForwardFunc

_OBJECTIVES: dict[str, type[AMLObjective] | type[LAObjective]] = {
    "aml": AMLObjective,
    "la": LAObjective,
}


def masker_description(
    masker: nn.Module, forward_func: ForwardFunc | None = None
) -> dict[str, Any]:
    """A masker's type and configuration, as JSON values.

    Args:
        masker: The masker.
        forward_func: What is explained, to say which part of its model the masker reads.
    """
    if isinstance(masker, TransformerMasker):
        return {"type": "transformer", "config": masker.config}
    if isinstance(masker, SharedMasker):
        model = underlying_model(forward_func)
        place = {} if model is None else masker.place_in(model)
        return {"type": "shared", "config": {**masker.config, **place}}
    if isinstance(masker, EmbeddingMasker):
        return {"type": "embedding", "config": masker.config}
    if isinstance(masker, AlignedMasker):
        return {"type": "aligned", "config": masker.summary}
    return {"type": "custom", "config": getattr(masker, "config", None)}


def masker_files(masker: nn.Module) -> dict[str, bytes]:
    """What a masker's description leaves to files of their own, by SHA-256."""
    return masker.files if isinstance(masker, AlignedMasker) else {}


def rebuild_masker(
    checkpoint: Checkpoint, given: nn.Module | None, forward_func: ForwardFunc | None = None
) -> nn.Module:
    """The saved masker with its weights.

    Args:
        checkpoint: What was saved.
        given: For a class of the user's own, a module to load the weights into.
        forward_func: What is explained: a masker that reads the explained model reads its model.

    Raises:
        CheckpointError: The type is unknown, it was made for another model, or the weights do not
            fit.
    """
    kind, config = checkpoint.masker.get("type"), checkpoint.masker.get("config")
    try:
        if given is not None:
            if isinstance(given, SharedMasker) and kind == "shared":
                given.check_config(config or {})
            if isinstance(given, AlignedMasker) and kind == "aligned":
                given.check_config(config or {})
            module = given
        elif kind == "transformer":
            module = TransformerMasker.from_config(config or {})
        elif kind == "shared":
            module = _shared_masker(config or {}, forward_func)
        elif kind == "embedding":
            module = EmbeddingMasker(**(config or {}))
        elif kind == "aligned":
            module = AlignedMasker.from_config(config or {}, checkpoint.files)
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


def _shared_masker(config: dict[str, Any], forward_func: ForwardFunc | None) -> SharedMasker:
    model = underlying_model(forward_func)
    if model is None:
        raise CheckpointError(
            "masker: it reads the hidden states of the explained model, which cannot be found "
            "behind this forward function; pass masker=SharedMasker.from_model(model)"
        )
    return SharedMasker.from_config(config, model)


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
    "masker_files",
    "objective_description",
    "rebuild_masker",
    "rebuild_objective",
]
