"""Saving and loading of fitted attributions: what goes into a checkpoint, and how it comes back."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn
from typing_extensions import Unpack

from captum_aml._utils.random import isolated_rng
from captum_aml.attr.fingerprints import with_weights
from captum_aml.attr.settings import PretrainedOptions
from captum_aml.exceptions import CheckpointError, NotFittedError
from captum_aml.maskers import AlignedMasker, EmbeddingMasker, SharedMasker, TransformerMasker
from captum_aml.maskers.checkpoint import Checkpoint
from captum_aml.masking.forward import underlying_model
from captum_aml.objectives import AMLObjective, LAObjective, Objective
from captum_aml.typing import ForwardFunc

if TYPE_CHECKING:
    from captum_aml.attr.base import MaskAttribution

_Attribution = TypeVar("_Attribution", bound="MaskAttribution")

_OBJECTIVES: dict[str, type[AMLObjective] | type[LAObjective]] = {
    "aml": AMLObjective,
    "la": LAObjective,
}


def saved(attribution: MaskAttribution) -> Checkpoint:
    """A fitted attribution as what a folder holds.

    Raises:
        NotFittedError: There is no fitted masker.
    """
    if attribution.masker_ is None or attribution.fingerprint_ is None:
        raise NotFittedError(f"{attribution.get_name()}: nothing to save yet; call fit first")
    return Checkpoint(
        method=attribution._method,
        masker=masker_description(attribution.masker_, attribution.forward_func),
        settings={
            "objective": objective_description(attribution.objective),
            "perturbation": attribution.perturbation.name,
            "output": attribution.output,
        },
        fingerprint=attribution.fingerprint_,
        tensors=attribution.masker_.state_dict(),
        training=attribution.training_cost_,
        files=masker_files(attribution.masker_),
    )


def restored(
    cls: type[_Attribution],
    checkpoint: Checkpoint,
    forward_func: ForwardFunc,
    *args: Any,
    **options: Unpack[PretrainedOptions],
) -> _Attribution:
    """The attribution that was saved; arguments as for ``from_pretrained``.

    Raises:
        CheckpointError: It is of another model or method, or cannot be rebuilt.
    """
    if checkpoint.method != cls._method:
        raise CheckpointError(
            f"masker: it was fitted for the method {checkpoint.method!r}, "
            f"but this is {cls._method!r}"
        )
    given = options.pop("masker", None)
    if options.get("objective") is None:
        options["objective"] = rebuild_objective(checkpoint.settings.get("objective"))
    kept = {k: v for k, v in checkpoint.settings.items() if k in ("perturbation", "output")}
    # Loaded inside inference mode, a masker can still be tuned and fitted.
    with torch.inference_mode(False), isolated_rng(0):
        make: Any = cls  # the constructors differ in where the mask enters
        attribution: _Attribution = make(forward_func, *args, **{**kept, **options})
        checkpoint.fingerprint.check(with_weights(attribution._known_fingerprint(), forward_func))
        module = rebuild_masker(checkpoint, given, forward_func).eval()
    mark_fitted(module)
    # A later fit goes on from it.
    attribution.masker = module
    attribution.masker_, attribution.fingerprint_ = module, checkpoint.fingerprint
    attribution.training_cost_ = checkpoint.training
    return attribution


def mark_fitted(masker: nn.Module) -> None:
    """Notes that a masker is fitted, where it keeps that."""
    if hasattr(masker, "fitted"):
        setattr(masker, "fitted", True)  # noqa: B010  (a module's own attributes have no type)


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
    "mark_fitted",
    "masker_description",
    "masker_files",
    "objective_description",
    "rebuild_masker",
    "rebuild_objective",
    "restored",
    "saved",
]
