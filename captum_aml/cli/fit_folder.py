"""The folder of the command ``fit``: the masker, how it was made, and the run while it goes on.

It holds ``fit.yaml``, the configuration; ``fit.json``, which says which model, texts and settings
the run is of; ``checkpoint``, the run itself until it is complete; then the masker (``config.json``
and its weights) and ``history.json``.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from captum_aml._utils.files import write_file, write_json
from captum_aml._utils.run_folder import RunFolder, check_same
from captum_aml.exceptions import InvalidInputError

CONFIG = "fit.yaml"
HISTORY = "history.json"
CHECKPOINT = "checkpoint"
_RUN = "fit.json"
_MASKER = "config.json"
_FIELD = "captum_aml_fit"
_LOGS = "logs"
#: What does not belong to what a folder is of.
_PROGRESS = ("complete", "summary")


class FitFolder(RunFolder):
    """A folder that one run at a time writes its masker to: it is made, or opened to go on.

    Args:
        path: The folder.
        identity: What a run that goes on has to agree in, as JSON values.
        config: The configuration as YAML.
        resume: Whether to go on with the run that is there; without one it starts.
        overwrite: Whether to remove the run or the masker that is there.

    Attributes:
        path: The folder.
        summary: Of a run that is complete, what it said at its end; else None.

    Raises:
        InvalidInputError: The folder holds a run or a masker and neither flag is set, another run
            than the one to go on with, or files of somebody else's.
    """

    def __init__(
        self,
        path: Path,
        identity: Mapping[str, Any],
        config: str,
        *,
        resume: bool,
        overwrite: bool,
    ) -> None:
        check_free(path, resume=resume, overwrite=overwrite)
        super().__init__(path)
        self._identity = {_FIELD: 1, **identity}
        self.summary: str | None = None
        try:
            if overwrite:
                _remove(path)
            there = run_of(path)
            if there is None:
                # First of all: a folder with this file can be gone on with, whatever else is
                # missing.
                write_json(path / _RUN, self._identity)
            else:
                if there.get("complete"):
                    self.summary = str(there.get("summary", ""))
                same = {k: v for k, v in there.items() if k not in _PROGRESS}
                check_same(same, self._identity, f"out: {os.fspath(path)!r} holds another run")
            if not (path / CONFIG).exists():
                write_file(path / CONFIG, config.encode())
        except BaseException:
            self.close()
            raise

    def finish(self, history: Sequence[Mapping[str, Any]], summary: str) -> None:
        """Notes that the run is complete, and removes what was needed to go on with it."""
        write_json(self.path / HISTORY, list(history))
        write_json(self.path / _RUN, {**self._identity, "complete": True, "summary": summary})
        checkpoint = self.path / CHECKPOINT
        for file in checkpoint.iterdir() if checkpoint.is_dir() else ():
            if file.name != _LOGS and not file.is_dir():
                file.unlink()
        if checkpoint.is_dir() and not any(checkpoint.iterdir()):
            checkpoint.rmdir()


def check_free(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuses a folder that may not be written to; nothing is changed.

    Raises:
        InvalidInputError: As ``FitFolder`` describes.
    """
    FitFolder.check_path(folder)
    if not folder.is_dir():
        return
    name = os.fspath(folder)
    run, masker = run_of(folder), _masker_of(folder)
    if (folder / _MASKER).exists() and masker is None:
        raise InvalidInputError(
            f"out: {name!r} holds a {_MASKER} that is not of a masker; choose another folder"
        )
    if overwrite or (resume and run is not None):
        return
    if run is not None:
        what = "a fitted masker" if run.get("complete") else "a run that is not complete"
        raise InvalidInputError(
            f"out: {name!r} holds {what}; go on with it with --resume, remove it with "
            "--overwrite, or choose another folder"
        )
    if masker is not None:
        raise InvalidInputError(
            f"out: {name!r} holds a masker that was not fitted by this command; replace it with "
            "--overwrite, or choose another folder"
        )
    if any(not file.name.startswith(".") for file in folder.iterdir()):
        raise InvalidInputError(
            f"out: expected a new folder, an empty one or one of a run, got {name!r}, which holds "
            "other files; choose another folder, or write among them with --overwrite"
        )


def run_of(folder: Path) -> dict[str, Any] | None:
    """What the run in a folder is of; None where there is no run.

    Raises:
        InvalidInputError: The file that should say so is not of this command.
    """
    fields = _json(folder / _RUN)
    if fields is not None and _FIELD not in fields:
        raise InvalidInputError(
            f"out: {os.fspath(folder)!r} holds a {_RUN} that is not of this command; choose "
            "another folder"
        )
    return fields


def _masker_of(folder: Path) -> dict[str, Any] | None:
    from captum_aml.maskers.checkpoint import FORMAT

    fields = _json(folder / _MASKER)
    return fields if fields is not None and fields.get("format") == FORMAT else None


def _json(file: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _remove(folder: Path) -> None:
    """Removes what this command writes, and nothing else."""
    from captum_aml.training.resume import FORMAT, RUN

    if _masker_of(folder) is not None:
        beside = (*folder.glob("masker-*"), *folder.glob("explainer.json"))
        for file in (folder / _MASKER, *beside):
            file.unlink()
    ours = (folder / _RUN).exists()
    if ours or (_json(folder / CHECKPOINT / RUN) or {}).get("format") == FORMAT:
        with suppress(FileNotFoundError):
            shutil.rmtree(folder / CHECKPOINT)
    if ours:
        for name in (HISTORY, CONFIG, _RUN):
            (folder / name).unlink(missing_ok=True)
