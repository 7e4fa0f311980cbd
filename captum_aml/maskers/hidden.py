"""Hidden states of the explained model, for maskers that read what it computes anyway.

A masker with the attribute ``explained_layers``, an :class:`ExplainedLayers`, is given what those
layers hold as :attr:`~captum_aml.maskers.MaskerInputs.hidden_states`. They are read in the very
pass over the unmasked inputs that every explanation starts with, so that they cost no pass of their
own, and carry no gradient into the explained model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from captum_aml._utils.hooks import LayerPoint, joined, tensors_in, unwrapped
from captum_aml.exceptions import InvalidInputError, LayerNotReachedError


class ExplainedLayers:
    """Layers of the explained model that a masker reads, remembered by their names.

    It refers to the model without owning it: as an attribute of a masker it adds nothing to its
    parameters and its ``state_dict``, a deep copy of the masker reads the same model, and pickling
    leaves the model out, to be bound again with :meth:`bind`.

    Args:
        model: The explained model, or the part of it that has the layers.
        names: Names of its submodules, as in ``named_modules``. Default: all layers of a Hugging
            Face model
        with_input: Whether what the first of them is given is read too, before its output: of an
            encoder's layers, the embeddings. Default: True without ``names``, otherwise False

    Attributes:
        names: The names.
        with_input: See above.

    Raises:
        InvalidInputError: The model has no such submodule, or its layers cannot be found.
    """

    def __init__(
        self,
        model: nn.Module,
        names: Sequence[str] | None = None,
        *,
        with_input: bool | None = None,
    ) -> None:
        inner = unwrapped(model)
        if not isinstance(inner, nn.Module):
            raise InvalidInputError(
                f"model: expected the explained torch.nn.Module, got {type(model).__name__}"
            )
        self.names = tuple(_layer_names(inner) if names is None else names)
        if not self.names:
            raise InvalidInputError("names: expected at least one layer, got none")
        self.with_input = names is None if with_input is None else with_input
        self._model: nn.Module | None = None
        self.bind(inner)

    def bind(self, model: nn.Module) -> None:
        """Reads the layers of this model from now on.

        Raises:
            InvalidInputError: It has no submodule of one of the names.
        """
        known = dict(model.named_modules())
        missing = [name for name in self.names if name not in known]
        if missing:
            raise InvalidInputError(
                f"names: expected submodules of the {type(model).__name__}, which has no {missing}"
            )
        self._model = model

    @property
    def model(self) -> nn.Module:
        """The explained model.

        Raises:
            InvalidInputError: None is bound, as after unpickling.
        """
        if self._model is None:
            raise InvalidInputError(
                "masker: it reads an explained model that is not there; call "
                "masker.explained_layers.bind(model)"
            )
        return self._model

    @property
    def points(self) -> tuple[LayerPoint, ...]:
        """The places of the hidden states, in their order."""
        layers = [self.model.get_submodule(name) for name in self.names]
        first = (LayerPoint(layers[0], at_input=True),) if self.with_input else ()
        return (*first, *(LayerPoint(layer) for layer in layers))

    def __len__(self) -> int:
        """The number of hidden states."""
        return len(self.names) + self.with_input

    def __deepcopy__(self, memo: dict[int, Any]) -> ExplainedLayers:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {"names": self.names, "with_input": self.with_input, "_model": None}


class HiddenStateReader:
    """Reads points of a forward pass that runs while it is open.

    Args:
        points: Where to read.
        device_ids: Devices of a ``DataParallel`` model, in order, or None.
    """

    def __init__(
        self, points: Sequence[LayerPoint], *, device_ids: Sequence[int] | None = None
    ) -> None:
        self._points = tuple(dict.fromkeys(points))
        self._device_ids = device_ids
        # By device, since the replicas of a DataParallel model run the same hooks.
        self._seen: dict[LayerPoint, dict[torch.device, Tensor]] = {p: {} for p in self._points}
        self._last: dict[tuple[nn.Module, torch.device], Tensor] = {}

    @contextmanager
    def reading(self) -> Iterator[None]:
        """While open, hidden states are noted; the hooks are gone afterwards."""
        with ExitStack() as stack:
            for layer in {point.layer: None for point in self._points}:
                handle = layer.register_forward_hook(self._hook(layer), with_kwargs=True)
                stack.callback(handle.remove)
            yield

    def states(self, n_examples: int) -> dict[LayerPoint, Tensor]:
        """The hidden states (N, L, D) by their points.

        Raises:
            LayerNotReachedError: A layer did not run, or holds something else.
        """
        found = {}
        for point, by_device in self._seen.items():
            name = type(point.layer).__name__
            if not by_device:
                raise LayerNotReachedError(
                    f"masker: it reads hidden states of a {name} that the forward function never "
                    "ran; make the masker from the very model that is explained (layers of traced "
                    "or compiled models run without their hooks)"
                )
            (state,) = joined({d: (part,) for d, part in by_device.items()}, self._device_ids)
            if state.dim() != 3 or state.shape[0] != n_examples:
                raise LayerNotReachedError(
                    f"masker: expected hidden states ({n_examples}, L, D) at the {point}, got "
                    f"shape {tuple(state.shape)}"
                )
            found[point] = state
        return found

    def _hook(self, layer: nn.Module) -> Any:  # torch types hooks no further
        def hook(_: nn.Module, args: Any, kwargs: Mapping[str, Any], output: Any) -> None:
            given = tensors_in(args) or tensors_in(kwargs)
            results = tensors_in(output)
            if not results:
                raise LayerNotReachedError(
                    f"masker: expected hidden states at the output of {type(layer).__name__}, got "
                    f"no floating point tensor"
                )
            device = results[0].device
            before = self._last.get((layer, device))
            if before is not None and not (given and given[0] is before):
                raise LayerNotReachedError(
                    f"masker: the forward function runs {type(layer).__name__} several times on "
                    "different inputs; expected a layer that runs once, or on its own output"
                )
            self._last[layer, device] = results[0]
            for point in self._points:
                if point.layer is not layer:
                    continue
                if not point.at_input:
                    # A copy, since a later layer may work in place.
                    self._seen[point][device] = results[0].detach().clone()
                elif before is None and given:
                    self._seen[point][device] = given[0].detach().clone()

        return hook


def _layer_names(model: nn.Module) -> list[str]:
    """The names of a Hugging Face model's layers: its outermost list of as many as it says."""
    count = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    if count is not None:
        lists = [(k, m) for k, m in model.named_modules() if isinstance(m, nn.ModuleList) and m]
        # Models that share weights between layers hold fewer than they say.
        for name, found in [(k, m) for k, m in lists if len(m) == count] or lists:
            return [f"{name}.{i}" for i in range(len(found))]
    raise InvalidInputError(
        f"layers: the layers of the {type(model).__name__} cannot be found (no configuration with "
        "num_hidden_layers and no list of modules); name them"
    )
