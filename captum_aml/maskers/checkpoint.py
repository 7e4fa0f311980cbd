"""A fitted masker on disk: JSON for what it is, safetensors for its weights.

A folder holds ``config.json`` and the files that it names: ``masker-<digest>.safetensors`` with the
weights and, for a masker with tokenizers, ``masker-<digest>.json`` with each of them
(:mod:`captum_aml._utils.parts`).
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from captum_aml._utils.files import locked, read_signed, signed_json, write_file
from captum_aml._utils.parts import part_of, read_part, read_tensors, remove_others, saved_tensors
from captum_aml.exceptions import CheckpointError
from captum_aml.maskers.fingerprint import ModelFingerprint

FORMAT = "captum_aml.masker"
FORMAT_VERSION = 1
_CONFIG = "config.json"
#: While a masker is written; not a run's, which may be going on in the same folder.
_LOCK = ".masker.lock"
#: The other files of a masker's folder.
_PARTS = ("masker-*.safetensors", "masker-*.json")


@dataclass(frozen=True)
class TrainingCost:
    """The cost of fitting a masker.

    Attributes:
        n_examples: Training examples in an epoch.
        epochs: Passes over them.
        seconds: Wall time, validation included.
    """

    n_examples: int
    epochs: int
    seconds: float


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a saved masker consists of.

    Attributes:
        method: The attribution method it was fitted for, ``aml`` or ``la``.
        masker: The masker's type and configuration.
        settings: The attribution's settings at the time of fitting, as JSON values.
        fingerprint: The explained model's.
        tensors: The masker's weights by name.
        training: What fitting took, or None where it is not known.
        files: Parts of the description that are kept in files of their own, by SHA-256.
        version: The version of this package that wrote it; "" before it is written.
        digest: SHA-256 of the weights file; "" before it is written.
    """

    method: str
    masker: dict[str, Any]
    settings: dict[str, Any]
    fingerprint: ModelFingerprint
    tensors: dict[str, Tensor]
    training: TrainingCost | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    version: str = field(default="", compare=False)
    digest: str = field(default="", compare=False)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes the masker to a folder, which is made if needed; replaces one that is there.

        Raises:
            CheckpointError: The path is a file.
        """
        path = Path(folder)
        if path.exists() and not path.is_dir():
            raise CheckpointError(f"folder: expected a folder, got the file {path}")
        path.mkdir(parents=True, exist_ok=True)
        content = saved_tensors(self.tensors)
        weights = part_of("masker", content, ".safetensors")
        parts = {weights["file"]: content}
        config: dict[str, Any] = {
            "method": self.method,
            "masker": self.masker,
            "settings": self.settings,
            "fingerprint": asdict(self.fingerprint),
            "training": None if self.training is None else asdict(self.training),
            "weights": weights,
        }
        if self.files:
            files = {c: part_of("masker", c, ".json") for c in self.files.values()}
            config["files"] = list(files.values())
            parts |= {part["file"]: c for c, part in files.items()}
        signed = signed_json(config, format=FORMAT, version=FORMAT_VERSION)
        # One writer at a time: to another, weights that are not named yet would be leftovers.
        with locked(path / _LOCK):
            for file, content in {**parts, _CONFIG: signed}.items():
                write_file(path / file, content)
            remove_others(path, _PARTS, parts)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Checkpoint:
        """Reads a masker from a folder, or from the hub where there is no such folder.

        Raises:
            CheckpointError: The folder is missing, incomplete, damaged, or holds something else.
        """
        path = folder_of(folder)
        try:
            return cls._read(path)
        except CheckpointError:
            # Once more: it may have been replaced between the reading of its two files.
            return cls._read(path)

    @classmethod
    def _read(cls, path: Path) -> Checkpoint:
        file = path / _CONFIG
        if not file.exists():
            raise CheckpointError(f"{path}: expected a masker folder, but there is no {_CONFIG}")
        config = read_signed(file, format=FORMAT, version=FORMAT_VERSION, what="a masker")
        try:
            if not (isinstance(config["masker"], dict) and isinstance(config["settings"], dict)):
                raise TypeError("expected objects for masker and settings")
            cost = config["training"]
            return cls(
                str(config["method"]),
                config["masker"],
                config["settings"],
                ModelFingerprint(**config["fingerprint"]),
                read_tensors(file, config["weights"]),
                training=None if cost is None else TrainingCost(**cost),
                # Most maskers have none.
                files={
                    part["sha256"]: read_part(file, part, what="tokenizers", suffix=".json")
                    for part in config.get("files", ())
                },
                version=str(config["captum_aml_version"]),
                digest=config["weights"]["sha256"],
            )
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"{file}: incomplete or malformed ({error})") from error


def folder_of(folder: str | os.PathLike[str], *others: str) -> Path:
    """A folder, or the local copy of a repository of the hub where there is no such folder.

    Args:
        folder: A local folder, or a hub id.
        *others: Files that are wanted beside those of a masker.

    Raises:
        CheckpointError: There is neither.
    """
    path = Path(folder)
    if path.is_dir():
        return path
    # Imported here: most users load from a folder, and importing the hub client takes a while.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(str(folder), allow_patterns=[_CONFIG, *_PARTS, *others]))
    except (HFValidationError, OSError) as error:
        raise CheckpointError(
            f"masker: {str(folder)!r} is neither a folder here nor a repository that could be "
            f"loaded from the hub ({type(error).__name__}: {error})"
        ) from error
