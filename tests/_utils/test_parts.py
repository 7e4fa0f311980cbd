"""Files named after their content: names, reading, and damage that is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from captum_aml._utils.parts import (
    part_of,
    read_part,
    read_tensors,
    remove_others,
    saved_tensors,
)
from captum_aml.exceptions import CheckpointError

CONTENT = b"some content"


def written(folder: Path, content: bytes, suffix: str = ".safetensors") -> dict[str, str]:
    part = part_of("weights", content, suffix)
    (folder / part["file"]).write_bytes(content)
    return part


def test_a_name_follows_from_the_content() -> None:
    digest = hashlib.sha256(CONTENT).hexdigest()
    part = part_of("masker", CONTENT, ".bin")
    assert part == {"file": f"masker-{digest[:16]}.bin", "sha256": digest}
    assert part_of("masker", CONTENT, ".bin") == part
    assert part_of("masker", CONTENT + b".", ".bin")["file"] != part["file"]


def test_what_was_written_is_read(tmp_path: Path) -> None:
    part = written(tmp_path, CONTENT)
    assert read_part(tmp_path / "config.json", part) == CONTENT


def test_tensors_are_read_as_they_were(tmp_path: Path) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    tensors = {"ids": torch.tensor([3, 1]), "part": whole.T[1:], "shared": whole}
    part = written(tmp_path, saved_tensors(tensors))
    read = read_tensors(tmp_path / "config.json", part)
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)


@pytest.mark.parametrize("damaged", [CONTENT[:-1], b"Some content", b""])
def test_damaged_content_is_refused(tmp_path: Path, damaged: bytes) -> None:
    part = written(tmp_path, CONTENT)
    (tmp_path / part["file"]).write_bytes(damaged)
    with pytest.raises(CheckpointError, match=r"damaged or truncated .* in config\.json"):
        read_part(tmp_path / "config.json", part)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    part = part_of("state", CONTENT, ".safetensors")
    with pytest.raises(CheckpointError, match="its state cannot be read"):
        read_part(tmp_path / "config.json", part, what="state")


@pytest.mark.parametrize(
    "name", ["../other.safetensors", "folder/other.safetensors", "other.bin", "other", ""]
)
def test_only_names_of_files_in_the_folder_are_read(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "saved"
    (folder / "folder").mkdir(parents=True)
    part = {**part_of("weights", CONTENT, ".safetensors"), "file": name}
    for file in (tmp_path / "other.safetensors", folder / "folder" / "other.safetensors"):
        file.write_bytes(CONTENT)
    with pytest.raises(CheckpointError, match="expected a weights file name, got"):
        read_part(folder / "config.json", part)


def test_content_that_is_no_tensors_is_refused(tmp_path: Path) -> None:
    part = written(tmp_path, CONTENT)
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        read_tensors(tmp_path / "config.json", part)


def test_files_of_before_are_removed_and_others_are_left(tmp_path: Path) -> None:
    old, new = written(tmp_path, CONTENT), written(tmp_path, CONTENT + b".")
    (tmp_path / "notes.txt").write_text("mine")
    remove_others(tmp_path, ["weights-*.safetensors"], [new["file"]])
    assert {file.name for file in tmp_path.iterdir()} == {new["file"], "notes.txt"}
    assert old["file"] != new["file"]
