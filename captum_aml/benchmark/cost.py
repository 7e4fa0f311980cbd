"""What explaining costs: passes through the networks, time and memory."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_RESET_PEAK = "5"
_MIB = 2**20


@dataclass
class Meter:
    """What a block took.

    Attributes:
        forward_passes: Examples that went through the networks.
        backward_passes: Examples whose gradients came back through them.
        seconds: Wall time.
        peak_memory_mib: The most memory in use beyond what was in use at the start; None where the
            system does not say.
    """

    forward_passes: int = 0
    backward_passes: int = 0
    seconds: float = 0.0
    peak_memory_mib: float | None = None


@contextmanager
def metered(networks: Iterable[nn.Module], device: torch.device) -> Iterator[Meter]:
    """Measures a block; the meter is complete once the block has ended.

    An example that goes through two of the networks counts twice.

    Args:
        networks: The explained model, and a masker where there is one.
        device: Where they are: memory is CUDA's there, else the process's.
    """
    meter = Meter()

    def count(_: nn.Module, __: Any, output: Any) -> None:  # whatever a network returns
        # Maskers may give a tuple, a tensor for each input that is masked.
        first = output[0] if isinstance(output, tuple) and output else output
        tensor = first if isinstance(first, Tensor) else getattr(first, "logits", None)
        if not isinstance(tensor, Tensor) or tensor.dim() == 0:
            return
        size = tensor.shape[0]
        meter.forward_passes += size
        if tensor.requires_grad:

            def count_back(_: Tensor) -> None:
                meter.backward_passes += size

            tensor.register_hook(count_back)

    handles = [network.register_forward_hook(count) for network in networks]
    before = _reset_peak(device)
    start = time.perf_counter()
    try:
        yield meter
    finally:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        meter.seconds = time.perf_counter() - start
        peak = _peak(device)
        if before is not None and peak is not None:
            meter.peak_memory_mib = max(0.0, (peak - before) / _MIB)
        for handle in handles:
            handle.remove()


def shared_equally(meter: Meter, n_examples: int) -> dict[str, float | None]:
    """The cost of one of several examples that were explained together, ready for JSON."""
    return {
        "forward_passes": meter.forward_passes / n_examples,
        "backward_passes": meter.backward_passes / n_examples,
        "seconds": meter.seconds / n_examples,
        "peak_memory_mib": meter.peak_memory_mib,
    }


def _reset_peak(device: torch.device) -> int | None:
    """Forgets the peak so far; returns the bytes in use, or None where nobody counts them."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        return int(torch.cuda.memory_allocated(device))
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK)
    except OSError:
        return None
    return _status_bytes("VmRSS")


def _peak(device: torch.device) -> int | None:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return _status_bytes("VmHWM")


def _status_bytes(field: str) -> int | None:
    """A figure of the process, as Linux reports it."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return None


__all__ = ["Meter", "metered", "shared_equally"]
