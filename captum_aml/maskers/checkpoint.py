"""A fitted masker on disk: JSON for what it is, safetensors for its weights.

A folder holds ``config.json`` and the files that it names: ``masker-<digest>.safetensors`` with the
weights and, for a masker with tokenizers, ``masker-<digest>.json`` with each of them. These files
are written first, under names made from their content, and the configuration replaces the old one
in a single step: a reader, or a crash, sees the old masker or the new one, never a mixture.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from captum_aml._utils.files import locked, read_signed, signed_json, write_file
from captum_aml._version import __version__
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
        version: The version of this package that wrote it.
        digest: SHA-256 of the weights file; "" before it is written.
    """

    method: str
    masker: dict[str, Any]
    settings: dict[str, Any]
    fingerprint: ModelFingerprint
    tensors: dict[str, Tensor]
    training: TrainingCost | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    version: str = __version__
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
        weights = save_tensors(
            {k: v.detach().cpu().contiguous().clone() for k, v in self.tensors.items()},
            metadata={"format": "pt"},
        )
        digest = hashlib.sha256(weights).hexdigest()
        name = f"masker-{digest[:16]}.safetensors"
        config = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "captum_aml_version": self.version,
            "method": self.method,
            "masker": self.masker,
            "settings": self.settings,
            "fingerprint": asdict(self.fingerprint),
            "training": None if self.training is None else asdict(self.training),
            "weights": {"file": name, "sha256": digest},
        }
        parts = {f"masker-{key[:16]}.json": content for key, content in self.files.items()}
        if parts:
            config["files"] = [
                {"file": file, "sha256": key} for file, key in zip(parts, self.files, strict=True)
            ]
        files = {name: weights, **parts, _CONFIG: signed_json(config)}
        # One writer at a time: to another, weights that are not named yet would be leftovers.
        with locked(path / _LOCK):
            for file, content in files.items():
                write_file(path / file, content)
            for pattern in _PARTS:
                for old in path.glob(pattern):
                    if old.name != name and old.name not in parts:
                        old.unlink(missing_ok=True)

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
        config = _read_config(path)
        try:
            file, digest = str(config["weights"]["file"]), config["weights"]["sha256"]
            # Most maskers have none.
            parts = {str(p["sha256"]): str(p["file"]) for p in config.get("files", ())}
            fingerprint = ModelFingerprint(**config["fingerprint"])
            method, version = str(config["method"]), str(config["captum_aml_version"])
            masker, settings = config["masker"], config["settings"]
            # Maskers saved by 0.1 do not say what they cost.
            cost = config.get("training")
            training = None if cost is None else TrainingCost(**cost)
            if not (isinstance(masker, dict) and isinstance(settings, dict)):
                raise TypeError("expected objects for masker and settings")
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"{path / _CONFIG}: incomplete or malformed ({error})") from error
        weights = _read_part(path, file, digest, what="weights", suffix=".safetensors")
        files = {
            key: _read_part(path, name, key, what="tokenizers", suffix=".json")
            for key, name in parts.items()
        }
        try:
            tensors = load_tensors(weights)
        except SafetensorError as error:
            raise CheckpointError(f"{path / file}: not a safetensors file ({error})") from error
        return cls(
            method,
            masker,
            settings,
            fingerprint,
            tensors,
            training=training,
            files=files,
            version=version,
            digest=digest,
        )


def folder_of(folder: str | os.PathLike[str], *others: str) -> Path:
    """A folder, or the local copy of a repository of the hub where there is no such folder.

    Args:
        folder: A local folder, or a hub id.
        *others: Files that are wanted beside those of a masker.

    Raises:
        CheckpointError: There is neither.
    """
    path = Path(folder)
    return path if path.is_dir() else _download(os.fspath(folder), others)


def _read_part(path: Path, file: str, digest: str, *, what: str, suffix: str) -> bytes:
    """The content of a file that a masker's configuration names.

    Raises:
        CheckpointError: It is no name of a file in the folder, or the file is missing or damaged.
    """
    if Path(file).name != file or not file.endswith(suffix):
        raise CheckpointError(f"{path / _CONFIG}: expected a {what} file name, got {file!r}")
    try:
        content = (path / file).read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: its {what} cannot be read ({error})") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise CheckpointError(
            f"{path / file}: damaged or truncated (its checksum is not the one in {_CONFIG})"
        )
    return content


def _read_config(path: Path) -> dict[str, Any]:
    file = path / _CONFIG
    if not file.exists():
        raise CheckpointError(f"{path}: expected a masker folder, but there is no {_CONFIG}")
    return read_signed(file, format=FORMAT, version=FORMAT_VERSION, what="a masker")


def _download(name: str, others: Sequence[str] = ()) -> Path:
    # Imported here: most users load from a folder, and importing the hub client takes a while.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        wanted = [_CONFIG, *_PARTS, *others]
        return Path(snapshot_download(name, allow_patterns=wanted))
    except (HFValidationError, OSError) as error:
        raise CheckpointError(
            f"masker: {name!r} is neither a folder here nor a repository that could be loaded "
            f"from the hub ({type(error).__name__}: {error})"
        ) from error


__all__ = [
    "Checkpoint",
    "TrainingCost",
    "folder_of",
]
