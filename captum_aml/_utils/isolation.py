"""Isolation of the caller's: modes, weights and hooks of a module, and random numbers.

Modes and hooks belong to a module, and the state of random numbers to the process: threads share
them. So a block that holds them is one thread's at a time, and others wait for its end.
"""

from __future__ import annotations

import copy
import random
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

#: Held by the thread whose block it is; its own blocks may lie in each other.
ONE_THREAD = threading.RLock()

_Module = TypeVar("_Module", bound=nn.Module)

#: Where a module keeps its hooks, by number.
_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Puts a module into evaluation mode, and every part of it back into its own mode after.

    Other threads wait until the block is over.
    """
    with ONE_THREAD:
        training = [m for m in module.modules() if m.training]
        module.eval()
        try:
            yield
        finally:
            for part in training:
                part.training = True


@contextmanager
def frozen_weights(modules: Iterable[nn.Module]) -> Iterator[None]:
    """No weight of the modules requires a gradient inside the block.

    Of a model that is only passed through, every layer would keep what its own weights' gradient
    needs.
    """
    trainable = [
        parameter
        for module in modules
        for parameter in module.parameters()
        # What was made in inference mode could not be made to require one again.
        if parameter.requires_grad and not parameter.is_inference()
    ]
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


def copy_without_hooks(module: _Module) -> _Module:
    """A deep copy without forward and backward hooks, which are the caller's, on any part.

    Hooks of torch's own stay: weight normalization in its older form computes weights in one.
    """
    with without_hooks(module):
        return copy.deepcopy(module)


@contextmanager
def without_hooks(module: nn.Module) -> Iterator[None]:
    """Takes hooks off every part for a block; a hook of torch's own stays."""
    kept = []
    for part in module.modules():
        taken = {name: hooks for name in _HOOKS if (hooks := vars(part).get(name))}
        own = {
            number
            for hooks in taken.values()
            for number, hook in hooks.items()
            if type(hook).__module__.startswith("torch.nn.utils")
        }
        for name, hooks in taken.items():
            kept.append((part, name, hooks))
            setattr(part, name, OrderedDict((k, v) for k, v in hooks.items() if k in own))
    try:
        yield
    finally:
        for part, name, hooks in kept:
            setattr(part, name, hooks)


def without_inference_tensors(module: _Module) -> _Module:
    """Replaces, in place, what was made in inference mode, which cannot be differentiated.

    To be called outside inference mode.
    """
    made: dict[int, Tensor] = {}
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                if tensor is None or not tensor.is_inference():
                    continue
                if id(tensor) not in made:  # shared tensors stay shared
                    fresh = tensor.detach().clone()
                    if isinstance(tensor, nn.Parameter):
                        fresh = nn.Parameter(fresh, requires_grad=tensor.requires_grad)
                    made[id(tensor)] = fresh
                # The two dictionaries have different types of values.
                replaced: dict[str, Any] = tensors
                replaced[name] = made[id(tensor)]
    return module


def rng_state() -> tuple[bytes, ...]:
    """The states of torch's generators: another one after a block in which numbers were drawn."""
    states = [torch.get_rng_state()]
    if torch.cuda.is_initialized():
        states += torch.cuda.get_rng_state_all()
    return tuple(state.numpy().tobytes() for state in states)


@contextmanager
def isolated_rng(seed: int) -> Iterator[None]:
    """Seeds torch's generators for a block and gives them back their state afterwards.

    Other threads wait until the block is over.
    """
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with ONE_THREAD, torch.random.fork_rng(devices=devices):
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
    with isolated_rng(seed):
        python_state, numpy_state = random.getstate(), np.random.get_state()
        try:
            np.random.seed(seed % 2**32)
            random.seed(seed)
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
