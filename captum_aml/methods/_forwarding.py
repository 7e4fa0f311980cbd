"""Arguments meant for one forward function, as another takes them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from captum_aml.exceptions import InvalidInputError

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def forwarded_args(
    args: tuple[object, ...],
    given_for: Callable[..., Any] | None,
    function: Callable[..., Any],
) -> tuple[object, ...]:
    """The arguments after the ids that a forward function takes, out of those at hand.

    Arguments go by name where both functions name them alike, else by position; what the function
    does not take is left out. So a function of ids and attention mask can stand beside a text
    model that gives token types too, and one that takes token types first gets no mask for them.

    Args:
        args: What would follow the ids in a call of ``given_for``.
        given_for: The function that they are for; None where it is not known.
        function: The function to call instead.

    Returns:
        What follows the ids in a call of ``function``.

    Raises:
        InvalidInputError: The function needs more than that.
    """
    parameters = _parameters(function)
    if function is given_for or parameters is None:
        return args
    takes = parameters[1:]
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in takes):
        return args
    takes = [parameter for parameter in takes if parameter.kind in _POSITIONAL]
    names = _names(given_for, len(args))
    found = {name: arg for name, arg in zip(names, args, strict=True) if name is not None}
    wanted = [parameter.name for parameter in takes]
    by_name = [name for name in wanted if name in found]
    rest = [
        arg for name, arg in zip(names, args, strict=True) if name is None or name not in by_name
    ]
    given: list[object] = []
    for parameter in takes:
        needed = parameter.default is parameter.empty
        if parameter.name in by_name:
            given.append(found[parameter.name])
        elif rest and (needed or not by_name):
            given.append(rest.pop(0))
        elif needed:
            raise InvalidInputError(
                f"additional_forward_args: the attribution's forward function needs "
                f"{wanted} after the ids, got {len(args)} arguments"
            )
        else:
            given.append(parameter.default)
    return tuple(given)


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter] | None:
    """A function's parameters, or None where they cannot be told."""
    if isinstance(function, _PARALLEL):
        function = function.module
    if isinstance(function, nn.Module):
        function = function.forward
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # as for traced functions
        return None


def _names(function: Callable[..., Any] | None, count: int) -> list[str | None]:
    """What a function calls the first arguments after the ids."""
    parameters = None if function is None else _parameters(function)
    named = [p.name for p in (parameters or [])[1:] if p.kind in _POSITIONAL]
    return [*named, *[None] * count][:count]
