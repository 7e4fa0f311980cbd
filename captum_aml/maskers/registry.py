"""Registry of maskers: each stands in it by one line beside its class.

``@register_masker("name")`` above a class is all that saving, loading, resuming and choosing by
name need. What the class can do more, it says by optional members:

- ``config``: a dictionary of JSON values, written with a saved masker.
- ``describe(model)``: that dictionary where it depends on the explained model, or None, too.
  Default: ``config``
- ``files``: parts of the description that are kept in files of their own, by SHA-256.
- ``from_config(config)``: builds the network with random weights. Default: the constructor
- ``check_config(config)``: checks that weights saved with a configuration are for this masker.
- ``from_model(model, n_classes=, seed=)``: builds a first masker for a model, chosen by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from torch import nn

from captum_aml.exceptions import CheckpointError, InvalidInputError
from captum_aml.maskers.checkpoint import Checkpoint

_Class = TypeVar("_Class", bound=type[nn.Module])

#: What ``from_config`` may need beside the configuration.
Need = Literal["model", "files"]


@dataclass(frozen=True)
class _Entry:
    cls: type[nn.Module]
    name: str
    needs: tuple[Need, ...]


_BY_NAME: dict[str, _Entry] = {}


def register_masker(name: str, *, needs: tuple[Need, ...] = ()) -> Callable[[_Class], _Class]:
    """Registers a masker's class.

    Args:
        name: The type that a saved masker has, and the name by which a first one is chosen.
        needs: Further arguments of ``from_config``: ``model``, the explained model, or ``files``,
            what ``files`` gave.

    Raises:
        InvalidInputError: Another class has the name.
    """

    def register(cls: _Class) -> _Class:
        if name in _BY_NAME and _origin(_BY_NAME[name].cls) != _origin(cls):
            raise InvalidInputError(f"name: expected one that is free, got {name!r}")
        _BY_NAME[name] = _Entry(cls, name, needs)
        return cls

    return register


def describe_masker(masker: nn.Module, model: nn.Module | None = None) -> dict[str, Any]:
    """A masker's type and configuration, as JSON values; ``custom`` where it is not registered.

    Args:
        masker: The masker.
        model: The explained model, where it is known.
    """
    entry = _entry_of(masker)
    if entry is None:
        return {"type": "custom", "config": getattr(masker, "config", None)}
    describe: Any = getattr(masker, "describe", None)  # an optional member
    config = getattr(masker, "config", {}) if describe is None else describe(model)
    return {"type": entry.name, "config": config}


def masker_files(masker: nn.Module) -> dict[str, bytes]:
    """The contents that a masker's description leaves to files of their own, by SHA-256."""
    files: dict[str, bytes] = {} if _entry_of(masker) is None else getattr(masker, "files", {})
    return files


def rebuild_masker(
    checkpoint: Checkpoint, given: nn.Module | None = None, model: nn.Module | None = None
) -> nn.Module:
    """The saved masker with its weights.

    Args:
        checkpoint: What was saved.
        given: For a class that is not registered, a module to load the weights into.
        model: The explained model, for maskers that read it.

    Raises:
        CheckpointError: The type is unknown, it was made for another model, or the weights do not
            fit.
    """
    kind, config = checkpoint.masker.get("type"), checkpoint.masker.get("config") or {}
    try:
        if given is None:
            module = masker_from(kind, config, checkpoint.files, model)
        else:
            module, entry = given, _entry_of(given)
            check: Any = getattr(given, "check_config", None)  # an optional member
            if entry is not None and entry.name == kind and check is not None:
                check(config)
        module.load_state_dict(checkpoint.tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"masker: the saved masker cannot be rebuilt ({error})") from error
    return module


def masker_from(
    kind: object,
    config: Mapping[str, Any],
    files: Mapping[str, bytes] | None = None,
    model: nn.Module | None = None,
) -> nn.Module:
    """A registered masker with random weights, from its description.

    Args:
        kind: Its type.
        config: Its configuration.
        files: What its files hold.
        model: The explained model.

    Raises:
        CheckpointError: The type is unknown, or the explained model is needed and not known.
    """
    entry = _BY_NAME.get(kind) if isinstance(kind, str) else None
    if entry is None:
        raise CheckpointError(
            f"masker: the saved masker is of type {kind!r}, which this package cannot build; "
            "pass masker= a module of its class to load the weights into"
        )
    if model is None and "model" in entry.needs:
        raise CheckpointError(
            "masker: it reads the hidden states of the explained model, which cannot be found "
            f"behind this forward function; pass masker={entry.cls.__name__}.from_model(model)"
        )
    further = {"model": model, "files": files}
    # Not in the type of modules: an optional member, or the class itself.
    build: Any = getattr(entry.cls, "from_config", None)
    if build is None:
        built: nn.Module = entry.cls(**config)
    else:
        built = build(config, **{name: further[name] for name in entry.needs})
    return built


def masker_names() -> tuple[str, ...]:
    """The names of the maskers that can be made for a model, in alphabetical order."""
    return tuple(sorted(n for n, entry in _BY_NAME.items() if hasattr(entry.cls, "from_model")))


def build_masker(
    name: str, model: nn.Module, *, n_classes: int | None = None, seed: int = 0
) -> nn.Module:
    """A first masker for a model, by its name.

    Args:
        name: One of :func:`masker_names`.
        model: The explained model.
        n_classes: The number of outcomes. Default: None, what the model's configuration says
        seed: The seed of first weights. Default: 0

    Raises:
        InvalidInputError: There is no such masker, or none for this model.
    """
    if name not in masker_names():
        raise InvalidInputError(
            f"masker: expected one of {', '.join(masker_names())}, got {name!r}"
        )
    make: Any = _BY_NAME[name].cls  # its from_model is an optional member
    built: nn.Module = make.from_model(model, n_classes=n_classes, seed=seed)
    return built


def _origin(cls: type[nn.Module]) -> tuple[str, str]:
    """The module and name of a class: the same when its module is loaded again."""
    return cls.__module__, cls.__qualname__


def _entry_of(masker: nn.Module) -> _Entry | None:
    """The entry of a masker's class, or of the next of its base classes."""
    by_class = {entry.cls: entry for entry in _BY_NAME.values()}
    return next((by_class[cls] for cls in type(masker).__mro__ if cls in by_class), None)
