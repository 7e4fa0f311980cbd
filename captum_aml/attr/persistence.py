"""Saving and loading of fitted attributions: what goes into a checkpoint, and how it comes back."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from typing_extensions import Unpack

from captum_aml._utils.isolation import isolated_rng
from captum_aml.attr.settings import OBJECTIVES, PretrainedOptions
from captum_aml.exceptions import CheckpointError, NotFittedError
from captum_aml.maskers.checkpoint import Checkpoint
from captum_aml.maskers.registry import describe_masker, masker_files, rebuild_masker
from captum_aml.masking.forward import underlying_model
from captum_aml.objectives import Objective
from captum_aml.perturbation import fitting_removal
from captum_aml.typing import ForwardFunc

if TYPE_CHECKING:
    from captum_aml.attr.base import MaskAttribution

_Attribution = TypeVar("_Attribution", bound="MaskAttribution")


def saved(attribution: MaskAttribution) -> Checkpoint:
    """A fitted attribution as what a folder holds.

    Raises:
        NotFittedError: There is no fitted masker.
    """
    if attribution.masker_ is None or attribution.fingerprint_ is None:
        raise NotFittedError(f"{attribution.get_name()}: nothing to save yet; call fit first")
    return Checkpoint(
        method=attribution._method,
        masker=describe_masker(attribution.masker_, underlying_model(attribution.forward_func)),
        settings={
            "objective": objective_description(attribution.objective),
            "perturbation": fitting_removal(attribution.perturbation).name,
            "output": attribution.output,
            "loss": attribution.loss_,
            "contrasts": attribution.contrasts_,
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
        model = underlying_model(forward_func)
        checkpoint.fingerprint.check(attribution._fingerprint().with_weights_of(model))
        module = rebuild_masker(checkpoint, given, model).eval()
    # A later fit goes on from it.
    attribution.masker = module
    loss = checkpoint.settings.get("loss", "objective")  # which older folders do not name
    contrasts = bool(checkpoint.settings.get("contrasts", False))  # nor this
    attribution._take(
        module, checkpoint.fingerprint, checkpoint.training, loss, contrasts=contrasts
    )
    return attribution


def objective_description(objective: Objective) -> dict[str, Any]:
    """An objective of this package by name and fields; one of the user's own as ``custom``."""
    for name, cls in OBJECTIVES.items():
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
        return OBJECTIVES[name](**fields)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"objective: the saved one cannot be rebuilt ({error})") from error
