"""A run on disk: what it takes to go on with it, bit for bit, after it was killed at any moment.

``run.json`` says what the run is, where it stands and which files belong to it; weights and AdamW's
state lie in ``state-<digest>.safetensors``, the best weights in ``best-<digest>.safetensors``.
Those are written first, and ``run.json`` replaces the old one in a single step: whoever comes next
finds one position or the other, never a mixture. Files of an older position go last.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from captum_aml._utils.files import atomic_file
from captum_aml._version import __version__
from captum_aml.exceptions import CheckpointError
from captum_aml.maskers.checkpoint import content_digest, read_signed
from captum_aml.training.records import EpochRecord, Means, ValidationRecord

FORMAT = "captum_aml.run"
FORMAT_VERSION = 1
RUN = "run.json"
LOCK = "run.lock"


@dataclass
class Progress:
    """Where a run stands, after the validations and records that were due.

    Attributes:
        epoch: The epoch that goes on, from 1.
        step: Optimizer steps done, skipped ones included.
        step_in_epoch: Those of them in this epoch.
        batches: Training batches consumed in this epoch, over all processes.
        means: Sums over the training examples of this epoch.
        validations: The validations of this epoch.
        history: The epochs that are done.
        best: The best validation.
        since_best: Validations since then.
        skipped: Steps that were skipped.
        skipped_in_epoch: Those of them in this epoch.
        skipped_in_row: Those of them since the last step that was not.
        classes: The explained classes that were seen, two at most.
        seconds: Wall time so far.
        stopped: Why the run is over, or None.
    """

    epoch: int = 1
    step: int = 0
    step_in_epoch: int = 0
    batches: int = 0
    means: Means = field(default_factory=Means)
    validations: list[ValidationRecord] = field(default_factory=list)
    history: list[EpochRecord] = field(default_factory=list)
    best: ValidationRecord | None = None
    since_best: int = 0
    skipped: int = 0
    skipped_in_epoch: int = 0
    skipped_in_row: int = 0
    classes: list[int] = field(default_factory=list)
    seconds: float = 0.0
    stopped: str | None = None

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Progress:
        """What ``asdict`` made, after a round trip through JSON."""
        epochs = [
            EpochRecord(**{**record, "validations": tuple(_validations(record["validations"]))})
            for record in values["history"]
        ]
        best = values["best"]
        return cls(
            **{
                **values,
                "means": Means(**values["means"]),
                "validations": _validations(values["validations"]),
                "history": epochs,
                "best": None if best is None else ValidationRecord(**best),
            }
        )


def _validations(values: list[dict[str, Any]]) -> list[ValidationRecord]:
    return [ValidationRecord(**value) for value in values]


@dataclass(frozen=True)
class SavedRun:
    """A run as it was read.

    Attributes:
        progress: Where it stands.
        tensors: Weights, AdamW's state and generators' states, by name.
        best: The best weights, or None.
        scale: The state of the loss scale for fp16, or None.
    """

    progress: Progress
    tensors: dict[str, Tensor]
    best: dict[str, Tensor] | None
    scale: dict[str, Any] | None


class RunFolder:
    """The folder of one run, held by one process at a time.

    The lock is the operating system's: it goes with the process that holds it, however that ends.

    Args:
        path: The folder, which is made if needed.

    Raises:
        CheckpointError: The path is a file, or another process writes the folder.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise CheckpointError(f"checkpoint_dir: expected a folder, got the file {path}")
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(str(self.path / LOCK))
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise CheckpointError(
                f"checkpoint_dir: another process writes {path}; expected a folder for each run"
            ) from None
        self._best: dict[str, str] | None = None

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()

    def load(self, configuration: Mapping[str, Any], *, resume: bool) -> SavedRun | None:
        """Reads the run that the folder holds.

        Args:
            configuration: What the run has to be, as JSON values.
            resume: Whether there may be a run.

        Returns:
            The run, or None where there is none yet.

        Raises:
            CheckpointError: There is a run without ``resume``, it is another one, or it is damaged.
        """
        file = self.path / RUN
        if not file.exists():
            return None
        if not resume:
            raise CheckpointError(
                f"checkpoint_dir: {self.path} holds a run already; pass resume=True to go on with "
                "it, or another folder"
            )
        content = read_signed(file, format=FORMAT, version=FORMAT_VERSION, what="a run")
        saved = content["configuration"]
        difference = _first_difference(saved, json.loads(json.dumps(configuration)))
        if difference is not None:
            name, was, now = difference
            raise CheckpointError(
                f"checkpoint_dir: the run in {self.path} has another configuration: {name} is "
                f"{was} there and {now} here; use another folder, or the same settings"
            )
        try:
            progress = Progress.from_json(content["progress"])
            files, scale = content["files"], content["scale"]
            self._best = files["best"]
            state = self._tensors(files["state"])
            best = None if self._best is None else self._tensors(self._best)
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"{file}: incomplete or malformed ({error})") from error
        return SavedRun(progress, state, best, scale)

    def save(
        self,
        configuration: Mapping[str, Any],
        progress: Progress,
        tensors: Mapping[str, Tensor],
        scale: dict[str, Any] | None,
        *,
        best: Mapping[str, Tensor] | None,
    ) -> None:
        """Writes the run.

        Args:
            configuration: What the run is, as JSON values.
            progress: Where it stands.
            tensors: Weights, AdamW's state and generators' states, by name.
            scale: The state of the loss scale for fp16, or None.
            best: The best weights if they are new, or None.
        """
        if best is not None:
            self._best = self._write("best", best)
        content = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "captum_aml_version": __version__,
            "configuration": configuration,
            "progress": asdict(progress),
            "scale": scale,
            "files": {"state": self._write("state", tensors), "best": self._best},
        }
        # As it will be read again: JSON makes lists of tuples.
        content = json.loads(json.dumps(content))
        content["sha256"] = content_digest(content)
        text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        with atomic_file(self.path / RUN) as stream:
            stream.write(text.encode())
        needed = {entry["file"] for entry in content["files"].values() if entry is not None}
        for pattern in ("state-*.safetensors", "best-*.safetensors", ".*.part"):
            for old in self.path.glob(pattern):
                if old.name not in needed:
                    old.unlink(missing_ok=True)

    def _write(self, kind: str, tensors: Mapping[str, Tensor]) -> dict[str, str]:
        content = save_tensors(
            {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
        )
        digest = hashlib.sha256(content).hexdigest()
        name = f"{kind}-{digest[:16]}.safetensors"
        with atomic_file(self.path / name) as stream:
            stream.write(content)
        return {"file": name, "sha256": digest}

    def _tensors(self, entry: dict[str, str]) -> dict[str, Tensor]:
        name = entry["file"]
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise CheckpointError(f"{self.path / RUN}: expected a weights file name, got {name!r}")
        try:
            content = (self.path / name).read_bytes()
        except OSError as error:
            raise CheckpointError(f"{self.path}: {name} cannot be read ({error})") from error
        if hashlib.sha256(content).hexdigest() != entry["sha256"]:
            raise CheckpointError(
                f"{self.path / name}: damaged or truncated (its checksum is not the one in {RUN})"
            )
        try:
            return load_tensors(content)
        except SafetensorError as error:
            raise CheckpointError(f"{self.path / name}: not a safetensors file") from error


# JSON values of any type.
def _first_difference(saved: Any, wanted: Any, name: str = "") -> tuple[str, Any, Any] | None:
    """The name of the first field that differs, and both values."""
    if isinstance(saved, dict) and isinstance(wanted, dict):
        for key in [*wanted, *(k for k in saved if k not in wanted)]:
            path = f"{name}.{key}" if name else str(key)
            found = _first_difference(saved.get(key), wanted.get(key), path)
            if found is not None:
                return found
        return None
    return None if saved == wanted else (name, saved, wanted)


__all__ = ["LOCK", "RUN", "Progress", "RunFolder", "SavedRun"]
