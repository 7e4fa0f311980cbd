"""Random numbers from a seed, with the global state left as it was."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def isolated_rng(seed: int) -> Iterator[None]:
    """Seeds torch's generators for a block and gives them back their state afterwards."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        # Not torch.manual_seed: it would leave a seed behind for devices that start later.
        torch.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.manual_seed_all(seed)
        yield


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds the generators of torch, NumPy and Python for a block, and gives back their states.

    Captum draws from torch's and NumPy's global generators and takes no others.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with isolated_rng(seed):
        try:
            np.random.seed(seed % 2**32)
            random.seed(seed)
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


__all__ = ["isolated_rng", "seeded"]
