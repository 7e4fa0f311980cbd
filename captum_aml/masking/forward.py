"""The forward function: running it, its model, embedding layer, modules and arguments.

A forward function is any callable of the user's. One rule says what stands behind it
(:func:`underlying_model`), and of wrappers only ``DataParallel`` and ``DistributedDataParallel``
are seen through: an attribute that is called ``module`` may be anything.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from captum_aml._utils.hooks import PARALLEL, unwrapped
from captum_aml.exceptions import InvalidInputError
from captum_aml.typing import ForwardFunc

#: What torch says of embeddings, indexing, gathering and one-hot vectors of floating point values.
_INDEX_ERROR = re.compile("Long, Int|used as indices|for index|index tensor")

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
# How far modules are searched for inside functions that hold functions.
_DEPTH = 3


def run_forward(forward_func: ForwardFunc, inputs: Sequence[Tensor], args: Sequence[Any]) -> Any:
    """Calls the forward function with inputs and further arguments, in this order.

    It gets copies of all tensors, so that a model that works in place changes nothing of ours.

    Raises:
        InvalidInputError: It looks floating point inputs up as if they were ids.
    """
    given = (*inputs, *args)
    try:
        return forward_func(*(a.clone() if isinstance(a, Tensor) else a for a in given))
    except (RuntimeError, IndexError) as error:
        if not _INDEX_ERROR.search(str(error)) or not any(x.is_floating_point() for x in inputs):
            raise
        raise InvalidInputError(
            "embedding_layer: integer inputs need the layer that embeds them where they are ids; "
            "the forward function names none by get_input_embeddings(), and failed on floating "
            f"point values ({error}); pass embedding_layer=, or use the Layer variant"
        ) from error


def underlying_model(forward_func: object) -> nn.Module | None:
    """The model that a forward function runs, where that is known without calling it.

    The forward function itself, its method's or ``functools.partial``'s, or its attribute
    ``model``, as of :class:`~captum_aml.text.TextClassifier`; without ``DataParallel``. What a
    function closes over is not taken for its model, since it may be one of several.
    """
    if isinstance(forward_func, functools.partial):
        return underlying_model(forward_func.func)
    for candidate in (
        forward_func,
        getattr(forward_func, "__self__", None),
        getattr(forward_func, "model", None),
    ):
        inner = unwrapped(candidate)
        if isinstance(inner, nn.Module):
            return inner
    return None


def modules_of(forward_func: object) -> Iterator[nn.Module]:
    """All modules that a forward function is, is bound to, closes over or has as attributes.

    More than the model behind it: what may have to be frozen, or be in training mode.
    """
    seen: set[int] = set()
    waiting: list[tuple[Any, int]] = [(forward_func, 0)]
    while waiting:
        item, depth = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, nn.Module):
            yield item
            continue
        if depth == _DEPTH:
            continue
        inside: list[Any] = [getattr(item, "__self__", None), getattr(item, "__wrapped__", None)]
        inside += [getattr(item, "func", None), *getattr(item, "args", ())]
        for cell in getattr(item, "__closure__", None) or ():
            try:
                inside.append(cell.cell_contents)
            except ValueError:  # a name that has no value yet
                continue
        if callable(item) and not isinstance(item, type):
            inside += list(getattr(item, "__dict__", {}).values())
        waiting += [(each, depth + 1) for each in inside if callable(each)]


def find_embedding_layer(forward_func: object) -> nn.Module | None:
    """The word embeddings of the model behind a forward function, if it can name them.

    Models of Hugging Face can, and whatever else has their method ``get_input_embeddings``.
    """
    for candidate in (forward_func, underlying_model(forward_func)):
        getter = getattr(candidate, "get_input_embeddings", None)
        try:
            layer = getter() if callable(getter) else None
        except NotImplementedError:  # a model of transformers that embeds no ids
            continue
        if isinstance(layer, nn.Module):
            return layer
    return None


def largest_embedding(layer: nn.Module) -> nn.Module | None:
    """The embedding with most entries inside a layer: that of the words."""
    found = [m for m in layer.modules() if isinstance(m, nn.Embedding)]
    return max(found, key=lambda m: m.num_embeddings, default=None)


def find_device_ids(forward_func: object, given: Sequence[int] | None = None) -> list[int] | None:
    """The devices of a ``DataParallel`` model, if several: those given, or its own."""
    own = forward_func.device_ids if isinstance(forward_func, PARALLEL) else None
    ids = own if given is None else given
    return list(ids) if ids and len(ids) > 1 else None


def argument_named(
    forward_func: ForwardFunc, inputs: Sequence[Tensor], args: Sequence[Any], name: str
) -> Any:
    """The argument that the forward function takes under a name, or None."""
    if isinstance(forward_func, functools.partial):
        if name in forward_func.keywords:
            return forward_func.keywords[name]
        return argument_named(forward_func.func, (*forward_func.args, *inputs), args, name)
    signature = signature_of(forward_func)
    try:
        return None if signature is None else signature.bind(*inputs, *args).arguments.get(name)
    except TypeError:  # a signature that differs
        return None


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
    signature = signature_of(function)
    if function is given_for or signature is None:
        return args
    takes = list(signature.parameters.values())[1:]
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


def _names(function: Callable[..., Any] | None, count: int) -> list[str | None]:
    """The names of a function's first arguments after the ids."""
    signature = None if function is None else signature_of(function)
    parameters = [] if signature is None else list(signature.parameters.values())[1:]
    named = [p.name for p in parameters if p.kind in _POSITIONAL]
    return [*named, *[None] * count][:count]


def signature_of(forward_func: Callable[..., Any]) -> inspect.Signature | None:
    """A forward function's signature, a module's that of its ``forward``; None where it has none.

    Traced functions have none.
    """
    partial = forward_func if isinstance(forward_func, functools.partial) else None
    function: Any = unwrapped(forward_func if partial is None else partial.func)
    if isinstance(function, nn.Module):
        function = function.forward
    if partial is not None:
        function = functools.partial(function, *partial.args, **partial.keywords)
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None
