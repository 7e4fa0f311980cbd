"""The folder of ``captum-aml fit`` after a kill at any moment."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from captum_aml._utils import files
from captum_aml.cli.fit_folder import FitFolder

IDENTITY = {"model": "some"}


def opened(path: Path, **flags: bool) -> FitFolder:
    given = {"resume": False, "overwrite": False, **flags}
    return FitFolder(path, IDENTITY, "model: some\n", **given)


@pytest.mark.parametrize("n_files", [0, 1])
def test_a_kill_while_it_is_made_leaves_one_to_go_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_files: int
) -> None:
    write: Callable[[Any], Any] = files.atomic_file
    written: list[Any] = []

    def killed(path: Any) -> Any:
        if len(written) == n_files:
            raise KeyboardInterrupt
        written.append(path)
        return write(path)

    monkeypatch.setattr(files, "atomic_file", killed)
    with pytest.raises(KeyboardInterrupt):
        opened(tmp_path)
    monkeypatch.undo()
    with opened(tmp_path, resume=True):
        assert (tmp_path / "fit.yaml").read_text() == "model: some\n"
        assert json.loads((tmp_path / "fit.json").read_text())["model"] == "some"


@pytest.mark.parametrize("format_", ["captum_aml.run", "another"])
def test_overwriting_removes_a_run_without_its_description(tmp_path: Path, format_: str) -> None:
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "run.json").write_text(json.dumps({"format": format_}))
    with opened(tmp_path, overwrite=True):
        assert checkpoint.exists() == (format_ == "another")
