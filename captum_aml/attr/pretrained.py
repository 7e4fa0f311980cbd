"""Keeping a fitted masker in a folder, for all attribution classes."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import nn
from typing_extensions import Self

from captum_aml._utils.random import isolated_rng
from captum_aml.attr.fingerprints import with_weights
from captum_aml.attr.fitting import LearningAttribution, mark_fitted
from captum_aml.attr.persistence import (
    masker_description,
    masker_files,
    objective_description,
    rebuild_masker,
    rebuild_objective,
)
from captum_aml.exceptions import CheckpointError, NotFittedError
from captum_aml.training import Checkpoint
from captum_aml.typing import ForwardFunc


class PretrainedAttribution(LearningAttribution):
    """An attribution whose masker can be saved and loaded."""

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Writes the fitted masker to a folder, as safetensors and JSON, atomically.

        Raises:
            NotFittedError: There is no fitted masker.
            CheckpointError: The path is a file.
        """
        if self.masker_ is None or self.fingerprint_ is None:
            raise NotFittedError(f"{self.get_name()}: nothing to save yet; call fit first")
        Checkpoint(
            method=self._method,
            masker=masker_description(self.masker_, self.forward_func),
            settings={
                "objective": objective_description(self.objective),
                "perturbation": self.perturbation.name,
                "output": self.output,
            },
            fingerprint=self.fingerprint_,
            tensors=self.masker_.state_dict(),
            training=self.training_cost_,
            files=masker_files(self.masker_),
        ).save(folder)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | os.PathLike[str],
        forward_func: ForwardFunc,
        *args: Any,
        masker: nn.Module | None = None,
        **settings: Any,
    ) -> Self:
        """Loads a masker that ``save_pretrained`` wrote, from a folder or a hub repository.

        Args:
            folder: A local folder, or a hub id.
            forward_func: The model that the masker was fitted for.
            *args: The constructor's further positional arguments, such as the layer.
            masker: For a masker class of the user's own: a module to load the weights into.
            **settings: Constructor arguments that replace the saved ones.

        Raises:
            CheckpointError: The folder is missing, damaged, or of another model or method, or the
                model's weights are others than at the fit.
        """
        checkpoint = Checkpoint.load(folder)
        if checkpoint.method != cls._method:
            raise CheckpointError(
                f"masker: it was fitted for the method {checkpoint.method!r}, "
                f"but this is {cls._method!r}"
            )
        # Loaded inside inference mode, a masker can still be tuned and fitted.
        with torch.inference_mode(False), isolated_rng(0):
            return cls._restored(checkpoint, forward_func, *args, masker=masker, **settings)

    @classmethod
    def _restored(
        cls,
        checkpoint: Checkpoint,
        forward_func: ForwardFunc,
        *args: Any,
        masker: nn.Module | None,
        **settings: Any,
    ) -> Self:
        saved = {k: v for k, v in checkpoint.settings.items() if k in ("perturbation", "output")}
        if settings.get("objective") is None:
            settings["objective"] = rebuild_objective(checkpoint.settings.get("objective"))
        attribution = cls(forward_func, *args, **{**saved, **settings})
        checkpoint.fingerprint.check(with_weights(attribution._known_fingerprint(), forward_func))
        module = rebuild_masker(checkpoint, masker, forward_func).eval()
        mark_fitted(module)
        # A later fit goes on from it.
        attribution.masker = module
        attribution.masker_, attribution.fingerprint_ = module, checkpoint.fingerprint
        attribution.training_cost_ = checkpoint.training
        return attribution


__all__ = ["PretrainedAttribution"]
