"""Settings kept beside a fitted masker: task, prompt, baseline and length of its texts."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from captum_aml._utils.files import read_signed, signed_json, write_file
from captum_aml.exceptions import CheckpointError
from captum_aml.maskers.checkpoint import folder_of
from captum_aml.text.models.base import TextModel
from captum_aml.text.units import TextUnits

FILE = "explainer.json"
_FORMAT = "captum_aml.explainer"
_VERSION = 1


def write_saved(
    folder: str | Path,
    model: TextModel,
    *,
    method: str,
    units: TextUnits | None = None,
    n_steps: int | None = None,
) -> None:
    """Writes the file into a folder with a masker that explains a model by a method.

    ``units`` are what is masked as one, None for tokens, ``n_steps`` the steps, None for the
    method's number.
    """
    units = TextUnits() if units is None else units
    content = {
        "method": method,
        "unit": units.unit,
        "n_sentences": units.n_sentences,
        "max_length": model.max_length,
        "n_steps": n_steps,
        **_identity(model),
    }
    write_file(Path(folder) / FILE, signed_json(content, format=_FORMAT, version=_VERSION))


def read_saved(folder: str | Path) -> dict[str, Any]:
    """Values of the file in a masker's folder; {} where there is none.

    Raises:
        CheckpointError: It is damaged.
    """
    file = Path(folder) / FILE
    if not file.exists():
        return {}
    return read_signed(file, format=_FORMAT, version=_VERSION, what="an explainer")


def check_masker(model: TextModel, folder: str | os.PathLike[str]) -> None:
    """Checks that a masker's folder, or its repository on the hub, is of this very text model.

    Raises:
        CheckpointError: It is of another, damaged, or not there.
    """
    check_same(model, read_saved(folder_of(folder, FILE)))


def check_same(model: TextModel, saved: Mapping[str, Any]) -> None:
    """Checks that a text model has the task, prompt and baseline that a masker was fitted for.

    Raises:
        CheckpointError: It does not.
    """
    for name, value in _identity(model).items():
        # As text, in which the order of the labels counts, too, and tuples are lists.
        if name in saved and json.dumps(saved[name]) != json.dumps(value):
            raise CheckpointError(
                f"masker: it was fitted with {name}={saved[name]!r}, but the "
                f"{type(model).__name__} has {value!r}"
            )


def _identity(model: TextModel) -> dict[str, Any]:
    """Identity of a masker's model beside its weights, ready for JSON."""
    prompt = model.prompt_config
    return {
        "task": model.task,
        "baseline": model.baseline.token,
        "prompt": None if prompt is None else prompt.to_dict(),
        "settings": model.settings,
    }


def model_fingerprint(text_model: TextModel) -> str:
    """SHA-256 of a model's weights, by name, of its classes' names, and of a prompt."""
    digest = hashlib.sha256(repr(text_model.label_names).encode())
    if text_model.settings:
        digest.update(repr(sorted(text_model.settings.items())).encode())
    weights = text_model.model.state_dict()
    if any(tensor.is_meta for tensor in weights.values()):  # they wait elsewhere
        from accelerate.utils.modeling import get_state_dict_offloaded_model

        weights = get_state_dict_offloaded_model(text_model.model)
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        plain = tensor.detach().cpu().contiguous()
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
