"""Files named after their content, beside a JSON file that says which of them belong to it.

They are written first, and the JSON file replaces the old one in a single step: a reader, or a
crash, sees the old files or the new ones, never a mixture. Those of before are removed last.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from captum_aml.exceptions import CheckpointError


def part_of(kind: str, content: bytes, suffix: str) -> dict[str, str]:
    """The entry of a file in the JSON file: its name, and the SHA-256 of its content."""
    digest = hashlib.sha256(content).hexdigest()
    return {"file": f"{kind}-{digest[:16]}{suffix}", "sha256": digest}


def saved_tensors(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors by name as the content of a safetensors file."""
    plain = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    return save(plain, metadata={"format": "pt"})


def read_part(
    json_file: Path, part: Mapping[str, str], *, what: str = "weights", suffix: str = ".safetensors"
) -> bytes:
    """The content of a file that a JSON file names.

    Args:
        json_file: The JSON file.
        part: The entry.
        what: What the file holds, for errors.
        suffix: How its name has to end.

    Raises:
        CheckpointError: It is no name of a file in the folder, or the file is missing or damaged.
    """
    name, folder = str(part["file"]), json_file.parent
    if Path(name).name != name or not name.endswith(suffix):
        raise CheckpointError(f"{json_file}: expected a {what} file name, got {name!r}")
    try:
        content = (folder / name).read_bytes()
    except OSError as error:
        raise CheckpointError(f"{folder}: its {what} cannot be read ({error})") from error
    if hashlib.sha256(content).hexdigest() != part["sha256"]:
        raise CheckpointError(
            f"{folder / name}: damaged or truncated (its checksum is not the one in "
            f"{json_file.name})"
        )
    return content


def read_tensors(json_file: Path, part: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors in a file that a JSON file names.

    Raises:
        CheckpointError: As for :func:`read_part`, or it is no safetensors file.
    """
    try:
        return load(read_part(json_file, part))
    except SafetensorError as error:
        name = json_file.with_name(part["file"])
        raise CheckpointError(f"{name}: not a safetensors file ({error})") from error


def remove_others(folder: Path, patterns: Collection[str], needed: Collection[str]) -> None:
    """Removes the files that fit a pattern and are not needed any more."""
    for pattern in patterns:
        for old in folder.glob(pattern):
            if old.name not in needed:
                old.unlink(missing_ok=True)
