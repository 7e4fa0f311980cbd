"""Any ``nn.Module``: its wrapper, modes, weights and hooks."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import Tensor, nn

_Module = TypeVar("_Module", bound=nn.Module)

#: The wrappers that run the module they wrap, and hold it as their attribute ``module``.
PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)

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


def unwrapped(module: object) -> object:
    """The module in ``DataParallel`` or ``DistributedDataParallel``, any other as it is."""
    return module.module if isinstance(module, PARALLEL) else module


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Puts a module into evaluation mode, and every part of it back into its own mode after."""
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


__all__ = [
    "PARALLEL",
    "copy_without_hooks",
    "evaluating",
    "frozen_weights",
    "unwrapped",
    "without_hooks",
    "without_inference_tensors",
]
