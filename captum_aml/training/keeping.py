"""Keeps a run in its folder, and takes it up again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from captum_aml.exceptions import CaptumAMLError
from captum_aml.training.feeding import Feed
from captum_aml.training.processes import Processes
from captum_aml.training.run_folder import Progress, RunFolder, SavedRun
from captum_aml.training.settings import NOT_OF_THE_RUN, FitSettings
from captum_aml.training.updating import Updater


class Keeper:
    """Knows what has to be written to go on with a run; without a folder it does nothing.

    Args:
        masker: The masker.
        updater: Its optimizer.
        feed: The training batches.
        settings: The settings, which name the folder.
        processes: The processes; only the main one reads and writes.
    """

    def __init__(
        self,
        masker: nn.Module,
        updater: Updater,
        feed: Feed,
        settings: FitSettings,
        processes: Processes,
    ) -> None:
        self._masker = masker
        self._updater = updater
        self._feed = feed
        self._settings = settings
        self._processes = processes
        self._folder: RunFolder | None = None
        self._configuration: dict[str, Any] = {}
        self._generator_states: list[Tensor] = []
        self._restored = False
        self._saved_at: tuple[int, int, str | None] | None = None

    def open(
        self, stack: ExitStack, identity: Mapping[str, Any], n_batches: int | None
    ) -> SavedRun | None:
        """Opens the folder if there is to be one, and takes up the run that it holds.

        Args:
            stack: Closes the folder again.
            identity: What the run is beside its settings, as JSON values.
            n_batches: Training batches in an epoch, if they are known.

        Returns:
            The run, or None where a new one begins.

        Raises:
            CheckpointError: The folder holds another run, or is in use.
        """
        if self._settings.checkpoint_dir is None:
            return None
        settings = {k: v for k, v in self._settings.to_dict().items() if k not in NOT_OF_THE_RUN}
        self._configuration = {
            **identity,
            "settings": settings,
            "processes": self._processes.count,
            "frozen": _digest_of_frozen(self._masker),
            "batches": n_batches,
            "weights": {
                name: [str(tensor.dtype), list(tensor.shape)]
                for name, tensor in learned(self._masker).items()
            },
        }
        saved: SavedRun | None = None
        error: CaptumAMLError | None = None
        if self._processes.is_main:
            try:
                self._folder = stack.enter_context(RunFolder(str(self._settings.checkpoint_dir)))
                saved = self._folder.load(self._configuration, resume=self._settings.resume)
            except CaptumAMLError as caught:
                error = caught
        # Every process hears of an error: one that waited for the others would wait for ever.
        saved, error = self._processes.from_main((saved, error))
        if error is not None:
            raise error
        if saved is not None:
            self._restore(saved)
        return saved

    def _restore(self, saved: SavedRun) -> None:
        parts: dict[str, dict[str, Tensor]] = {"weights": {}, "optimizer": {}, "generator": {}}
        for name, tensor in saved.tensors.items():
            kind, key = name.split(".", 1)
            parts[kind][key] = tensor
        self._masker.load_state_dict(parts["weights"], strict=False)
        self._updater.restore(parts["optimizer"], saved.scale)
        self._generator_states = [parts["generator"][key] for key in sorted(parts["generator"])]
        self._restored = True

    def begin_epoch(self) -> None:
        """Notes, or restores, the generators with which an epoch's batches are drawn."""
        generators = self._feed.generators
        if self._restored:
            for generator, state in zip(generators, self._generator_states, strict=False):
                generator.set_state(state)
            self._restored = False
        self._generator_states = [generator.get_state() for generator in generators]

    def save(self, progress: Progress, best: Mapping[str, Tensor] | None) -> bool:
        """Writes the run, unless it stands in the folder already.

        Args:
            progress: Where it stands.
            best: The best weights if they are new, or None.

        Returns:
            Whether it was written.
        """
        position = (progress.step, len(progress.history), progress.stopped)
        if self._settings.checkpoint_dir is None or self._saved_at == position:
            return False
        self._saved_at = position
        states = self._generator_states
        if progress.step_in_epoch == 0:
            states = [generator.get_state() for generator in self._feed.generators]
        if self._folder is not None:
            self._folder.save(
                self._configuration,
                progress,
                {
                    **{f"weights.{k}": t for k, t in learned(self._masker).items()},
                    **{f"optimizer.{k}": t for k, t in self._updater.tensors().items()},
                    **{f"generator.{i:03d}": state for i, state in enumerate(states)},
                },
                self._updater.scale(),
                best=best,
            )
        return True


def learned(masker: nn.Module) -> dict[str, Tensor]:
    """What of a masker fitting may change: weights that learn, and buffers."""
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


__all__ = ["Keeper", "learned"]
