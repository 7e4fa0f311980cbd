"""What a masker has to know about a network that it takes over, and how it takes it."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from captum_aml._utils.modules import evaluating

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


def copy_without_hooks(module: _Module) -> _Module:
    """A deep copy without forward and backward hooks, which are the caller's, on any part.

    Hooks of torch's own stay: weight normalization in its older form computes weights in one.
    """
    with _without_hooks(module):
        return copy.deepcopy(module)


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


@torch.no_grad()
def is_causal(encoder: nn.Module, table: Tensor) -> bool:
    """Whether no position hears those after it, found out by changing one embedding at a time.

    Args:
        encoder: A network that takes ``inputs_embeds`` and returns ``last_hidden_state``.
        table: Its word embeddings (V, D), for their size and scale.

    Returns:
        False also where that cannot be told, as of a network that cannot be run like this, or
        without any exchange between positions.
    """
    if table.is_meta:
        return False
    generator = torch.Generator().manual_seed(0)
    scale = table[:64].float().std().nan_to_num() if table.numel() > 1 else torch.ones(())
    embeddings = torch.randn(3, 4, table.shape[1], generator=generator).to(table.device)
    embeddings = (embeddings * torch.where(scale > 0, scale, 1.0)).to(table.dtype)
    plain, first, last = embeddings[:1], embeddings[:1].clone(), embeddings[:1].clone()
    first[:, 0], last[:, -1] = embeddings[1, 0], embeddings[1, -1]
    ones = torch.ones(1, 4, dtype=torch.long, device=table.device)
    try:
        with evaluating(encoder), _without_hooks(encoder):
            # One by one: rows of a batch may differ in their last bits.
            states, after_first, after_last = (
                encoder(inputs_embeds=x, attention_mask=ones).last_hidden_state.float()
                for x in (plain, first, last)
            )
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        return False  # what does not run says so itself when it is used
    onwards = (after_first - states)[:, 1:].abs().max()
    backwards = (after_last - states)[:, :-1].abs().max()
    return bool((onwards > 0) & (backwards <= 1e-3 * onwards))


@contextmanager
def _without_hooks(module: nn.Module) -> Iterator[None]:
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


__all__ = ["copy_without_hooks", "is_causal", "without_inference_tensors"]
