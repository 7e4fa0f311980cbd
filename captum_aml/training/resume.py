"""A run on disk: what it takes to go on with it, bit for bit, after it was killed at any moment.

``run.json`` says what the run is, where it stands and which files belong to it; weights and AdamW's
state lie in ``state-<digest>.safetensors``, the best weights in ``best-<digest>.safetensors``
(:mod:`captum_aml._utils.parts`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from captum_aml._utils.files import read_signed, signed_json, write_file
from captum_aml._utils.parts import part_of, read_tensors, remove_others, saved_tensors
from captum_aml._utils.run_folder import RunFolder, check_same
from captum_aml.exceptions import CaptumAMLError, CheckpointError
from captum_aml.training.data import Feed
from captum_aml.training.optimizer import Updater
from captum_aml.training.processes import Processes
from captum_aml.training.records import Progress
from captum_aml.training.settings import NOT_OF_THE_RUN, FitSettings

FORMAT = "captum_aml.run"
FORMAT_VERSION = 1
RUN = "run.json"


#: What a folder holds: the progress, the best weights, weights and states by name, fp16's scale.
_Saved = tuple[Progress, dict[str, Tensor] | None, dict[str, Tensor], dict[str, Any] | None]


class CheckpointFolder(RunFolder):
    """The folder of one fit, held by one process at a time."""

    argument = "checkpoint_dir"
    error = CheckpointError


@dataclass
class Keeper:
    """Keeps a run in its folder, and takes it up again.

    Attributes:
        masker: The masker.
        updater: Its optimizer.
        feed: The training batches.
        settings: The settings.
        processes: The processes; only the main one reads and writes.
        folder: The folder.
    """

    masker: nn.Module
    updater: Updater
    feed: Feed
    settings: FitSettings
    processes: Processes
    folder: Path
    _configuration: dict[str, Any] = field(default_factory=dict, init=False)
    _best: dict[str, str] | None = field(default=None, init=False)
    _saved_at: tuple[int, int, str | None] | None = field(default=None, init=False)

    def open(
        self, stack: ExitStack, identity: Mapping[str, Any], n_batches: int | None
    ) -> tuple[Progress, dict[str, Tensor] | None] | None:
        """Opens the folder, and takes up the run that it holds.

        Args:
            stack: Closes the folder again.
            identity: What the run is beside its settings, as JSON values.
            n_batches: Training batches in an epoch, if they are known.

        Returns:
            The run's progress and its best weights, or None where a new one begins.

        Raises:
            CheckpointError: The folder holds a run without ``resume``, another run, or a damaged
                one; it is a file, or in use.
        """
        settings = {k: v for k, v in self.settings.to_dict().items() if k not in NOT_OF_THE_RUN}
        self._configuration = {
            **identity,
            "settings": settings,
            "processes": self.processes.count,
            "frozen": _digest_of_frozen(self.masker),
            "batches": n_batches,
            "weights": {
                name: [str(tensor.dtype), list(tensor.shape)]
                for name, tensor in learned(self.masker).items()
            },
        }
        saved: _Saved | None = None
        error: CaptumAMLError | None = None
        if self.processes.is_main:
            try:
                stack.enter_context(CheckpointFolder(self.folder))
                saved = self._read()
            except CaptumAMLError as caught:
                error = caught
        # Every process gets the error: one that waited for the others would wait for ever.
        saved, error = self.processes.from_main((saved, error))
        if error is not None:
            raise error
        if saved is None:
            return None
        progress, best, tensors, scale = saved
        parts: dict[str, dict[str, Tensor]] = {"weights": {}, "optimizer": {}, "generator": {}}
        for name, tensor in tensors.items():
            kind, key = name.split(".", 1)
            parts[kind][key] = tensor
        self.masker.load_state_dict(parts["weights"], strict=False)
        self.updater.restore(parts["optimizer"], scale)
        self.feed.restored = [parts["generator"][key] for key in sorted(parts["generator"])]
        return progress, best

    def save(self, progress: Progress, best: Mapping[str, Tensor] | None) -> bool:
        """Writes the run, unless it stands in the folder already.

        Args:
            progress: Where it stands.
            best: The best weights if they are new, or None.

        Returns:
            Whether it was written.
        """
        position = (progress.step, len(progress.history), progress.stopped)
        if self._saved_at == position:
            return False
        self._saved_at = position
        if not self.processes.is_main:
            return True
        states = self.feed.began if progress.step_in_epoch else self.feed.states()
        if best is not None:
            self._best = self._write_tensors("best", best)
        tensors = {
            **{f"weights.{k}": t for k, t in learned(self.masker).items()},
            **{f"optimizer.{k}": t for k, t in self.updater.tensors().items()},
            **{f"generator.{i:03d}": state for i, state in enumerate(states)},
        }
        files = {"state": self._write_tensors("state", tensors), "best": self._best}
        content = {
            "configuration": self._configuration,
            "progress": asdict(progress),
            "scale": self.updater.scale(),
            "files": files,
        }
        signed = signed_json(content, format=FORMAT, version=FORMAT_VERSION)
        write_file(self.folder / RUN, signed)
        needed = {entry["file"] for entry in files.values() if entry is not None}
        remove_others(self.folder, ("state-*.safetensors", "best-*.safetensors", ".*.part"), needed)
        return True

    def _read(self) -> _Saved | None:
        """The run that the folder holds; None where there is none yet."""
        file = self.folder / RUN
        if not file.exists():
            return None
        if not self.settings.resume:
            raise CheckpointError(
                f"checkpoint_dir: {self.folder} holds a run already; pass resume=True to go on "
                "with it, or another folder"
            )
        content = read_signed(file, format=FORMAT, version=FORMAT_VERSION, what="a run")
        check_same(
            content["configuration"],
            json.loads(json.dumps(self._configuration)),
            f"checkpoint_dir: the run in {self.folder} has another configuration",
            remedy="Use another folder, or the same settings",
            error=CheckpointError,
        )
        try:
            progress = Progress.from_json(content["progress"])
            files, scale = content["files"], content["scale"]
            self._best = files["best"]
            state = read_tensors(file, files["state"])
            best = None if self._best is None else read_tensors(file, self._best)
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"{file}: incomplete or malformed ({error})") from error
        return progress, best, state, scale

    def _write_tensors(self, kind: str, tensors: Mapping[str, Tensor]) -> dict[str, str]:
        content = saved_tensors(tensors)
        part = part_of(kind, content, ".safetensors")
        write_file(self.folder / part["file"], content)
        return part


def learned(masker: nn.Module) -> dict[str, Tensor]:
    """The state of a masker that a fit may change: weights that learn, and buffers."""
    frozen = {name for name, p in masker.named_parameters() if not p.requires_grad}
    return {k: t for k, t in masker.state_dict().items() if k not in frozen}


def _digest_of_frozen(masker: nn.Module) -> str:
    """A checksum of the weights that do not learn, which a run does not keep."""
    digest = hashlib.sha256()
    for name, parameter in masker.named_parameters():
        if not parameter.requires_grad:
            content = parameter.detach().cpu().contiguous().flatten().view(torch.uint8)
            digest.update(name.encode())
            digest.update(content.numpy().tobytes())
    return digest.hexdigest()
