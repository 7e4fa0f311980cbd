"""The one lock, and files with their own checksum."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from captum_aml._utils.files import locked, read_signed, signed_json
from captum_aml._utils.run_folder import LOCK, RunFolder
from captum_aml.exceptions import CheckpointError, InvalidInputError


def test_a_block_that_is_locked_leaves_no_file(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    for _ in range(2):
        with locked(lock):
            assert lock.exists()
        assert not lock.exists()
    with pytest.raises(KeyError), locked(lock):
        raise KeyError
    assert not lock.exists()


def test_a_held_folder_may_be_locked_for_a_part_of_it(tmp_path: Path) -> None:
    refused = pytest.raises(InvalidInputError, match="out: another process writes")
    with RunFolder(tmp_path), locked(tmp_path / ".masker.lock"), refused:
        RunFolder(tmp_path)
    RunFolder(tmp_path).close()


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights")
@pytest.mark.parametrize("hold", [lambda folder: locked(folder / LOCK), RunFolder])
def test_a_link_in_the_locks_place_is_not_followed(
    tmp_path: Path, hold: Callable[[Path], Any]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / LOCK).symlink_to(elsewhere)
    with pytest.raises(OSError, match="symbolic links"), hold(tmp_path):
        pass
    assert not elsewhere.exists()
    elsewhere.write_text("mine")
    with pytest.raises(OSError, match="symbolic links"), hold(tmp_path):
        pass
    assert elsewhere.read_text() == "mine"


def test_signed_json_is_read_back_unless_it_was_changed(tmp_path: Path) -> None:
    file, expected = tmp_path / "a.json", {"format": "f", "version": 1, "what": "an a"}
    file.write_bytes(signed_json({"size": (1, 2)}, format="f", version=1))
    content = read_signed(file, **expected)
    assert content["size"] == [1, 2]
    file.write_text(json.dumps({**content, "size": [1, 3]}))
    with pytest.raises(CheckpointError, match="changed by hand"):
        read_signed(file, **expected)
