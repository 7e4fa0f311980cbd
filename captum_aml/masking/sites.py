"""Sites where a mask enters the forward function: its inputs, their embeddings, or a layer."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from captum_aml._utils.checks import is_integral
from captum_aml._utils.hooks import LayerPoint, Tap
from captum_aml.exceptions import InvalidInputError, LayerNotReachedError
from captum_aml.masking.call import Call
from captum_aml.masking.forward import (
    find_device_ids,
    find_embedding_layer,
    largest_embedding,
    run_forward,
)
from captum_aml.typing import ForwardFunc


@dataclass(frozen=True)
class Capture:
    """The tensors at a site in one forward pass, and its output.

    Attributes:
        features: The tensors that can be masked, each with N examples along dimension 0.
        output: What the forward function returned.
        tap: Where the features stand in the forward pass, if at layers.
        sizes: The number of tensors at each layer.
    """

    features: tuple[Tensor, ...]
    output: Any
    tap: Tap | None
    sizes: tuple[int, ...] = ()


class Site(Protocol):
    """A place whose tensors can be read, and replaced by masked ones."""

    forward_func: ForwardFunc
    device_ids: list[int] | None

    def capture(self, call: Call) -> Capture:
        """Runs the forward function on the inputs and reads the site's tensors."""

    def baselines(self, call: Call, capture: Capture) -> tuple[Tensor, ...]:
        """The site's tensors for the baselines, in the shapes of ``capture.features``."""

    def maskable(
        self, call: Call, features: Sequence[Tensor], baselines: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """One bool for each element or position: whether it differs from its baseline."""

    def token_dims(self, call: Call, features: Sequence[Tensor]) -> tuple[int, ...]:
        """For each of the site's tensors, the number of leading dimensions that number tokens."""

    def spreads(self, call: Call, features: Sequence[Tensor]) -> tuple[bool, ...]:
        """For each of the site's tensors, whether attributions have its channels."""

    def run(
        self,
        inputs: tuple[Tensor, ...],
        args: tuple[Any, ...],
        features: tuple[Tensor, ...],
        capture: Capture,
    ) -> Any:
        """Runs the forward function with the site's tensors replaced by ``features``."""

    def embedding_layer(self) -> nn.Module | None:
        """The layer that embeds ids at this site, where one can be found."""

    def recall(self, call: Call, earlier: tuple[Call, Capture], output: Tensor) -> Capture | None:
        """The capture of a pass, put together without one; None where that cannot be.

        Args:
            call: The call.
            earlier: Another call of the same forward function, and what its pass showed.
            output: What the forward function returns for the call.
        """


def _baselines_at(
    forward_func: ForwardFunc,
    call: Call,
    tap: Tap,
    carried: Sequence[tuple[Tensor, Tensor]],
) -> tuple[tuple[Tensor, ...], ...]:
    """The tapped layers' tensors for the baselines: by a pass, unless they only look ids up.

    Args:
        forward_func: The forward function.
        call: The call.
        tap: The layers.
        carried: For each layer the input, and its baseline, that it may have been given as it is.
    """
    if _only_looks_up(tap, [x for x, _ in carried]):
        return tuple(
            (point.layer(baseline).detach(),)
            for point, (_, baseline) in zip(tap.points, carried, strict=True)
        )
    return tap.read_again(
        lambda: run_forward(forward_func, call.baselines, call.additional_forward_args)
    )


def _only_looks_up(tap: Tap, inputs: Sequence[Tensor]) -> bool:
    """Whether the tapped layers are tables, each given one of the inputs as it is."""
    for point, given, x in zip(tap.points, tap.arguments, inputs, strict=True):
        if point.at_input or type(point.layer) is not nn.Embedding or len(given) != 1:
            return False
        if x.shape != given[0].shape or not torch.equal(x, given[0].to(x.device)):
            return False
    return True


def _looked_up(
    earlier: Tap, earlier_inputs: Sequence[Tensor], inputs: Sequence[Tensor]
) -> tuple[Tap, tuple[Tensor, ...]] | None:
    """A tap for other inputs, and what its layers hold for them, if they only look ids up.

    Args:
        earlier: The layers, as a pass showed them.
        earlier_inputs: For each layer the input that it may have been given as it is.
        inputs: The same of the other call.
    """
    in_order = earlier.calls in ((0,) * len(inputs), tuple(range(len(inputs))))
    if earlier.device_ids or not in_order or not _only_looks_up(earlier, earlier_inputs):
        return None
    tap = replace(earlier, arguments=tuple((x,) for x in inputs))
    return tap, tuple(point.layer(x).detach() for point, x in zip(tap.points, inputs, strict=True))


def token_dims(feature: Tensor) -> int:
    """The number of leading dimensions that number tokens: two of (N, L, D), otherwise all."""
    return 2 if feature.dim() == 3 else feature.dim()


class InputSite:
    """The forward function's own inputs: floats directly, integer ids at their embeddings.

    Args:
        forward_func: What is explained.
        embedding_layers: One embedding layer for each input of ids, in order, or a single one.
    """

    def __init__(self, forward_func: ForwardFunc, embedding_layers: tuple[nn.Module, ...]) -> None:
        self.forward_func = forward_func
        self.embedding_layers = embedding_layers
        self.device_ids = find_device_ids(forward_func)

    def capture(self, call: Call) -> Capture:
        """Runs the forward function; the features of ids are what their embedding layer gave."""
        ids = [x for x in call.inputs if is_integral(x)]
        if not ids:
            output = run_forward(self.forward_func, call.inputs, call.additional_forward_args)
            return Capture(call.inputs, output, None)
        layers = self._layers(len(ids))
        self._check_ids(call, layers)
        tap, tensors, output = Tap.read(
            [LayerPoint(layer) for layer in layers],
            lambda: run_forward(self.forward_func, call.inputs, call.additional_forward_args),
            carriers=ids,
            device_ids=self.device_ids,
        )
        embedded = iter(tensors)
        features = []
        for x in call.inputs:
            if not is_integral(x):
                features.append(x)
                continue
            (feature,) = next(embedded)
            if feature.shape[: x.dim()] != x.shape:
                raise LayerNotReachedError(
                    f"embedding_layer: expected embeddings of shape {(*x.shape, 'D')} for ids of "
                    f"shape {tuple(x.shape)}, got {tuple(feature.shape)}; the forward function "
                    "must embed the ids as they are given"
                )
            features.append(feature)
        return Capture(tuple(features), output, tap, (1,) * len(ids))

    def recall(self, call: Call, earlier: tuple[Call, Capture], output: Tensor) -> Capture | None:
        """Floats are their own features, and those of ids are looked up where they only are."""
        ids = [x for x in call.inputs if is_integral(x)]
        if not ids:
            return Capture(call.inputs, output, None)
        self._check_ids(call, self._layers(len(ids)))
        earlier_ids = [x for x in earlier[0].inputs if is_integral(x)]
        tap = earlier[1].tap
        found = None if tap is None else _looked_up(tap, earlier_ids, ids)
        if found is None:
            return None
        embedded = iter(found[1])
        features = tuple(next(embedded) if is_integral(x) else x for x in call.inputs)
        return Capture(features, output, found[0], (1,) * len(ids))

    def baselines(self, call: Call, capture: Capture) -> tuple[Tensor, ...]:
        """Baselines of floats as given, those of ids through the embedding layer."""
        if capture.tap is None:
            return call.baselines
        ids = [(x, b) for x, b in zip(call.inputs, call.baselines, strict=True) if is_integral(x)]
        embedded = iter(_baselines_at(self.forward_func, call, capture.tap, ids))
        return tuple(next(embedded)[0] if is_integral(b) else b for b in call.baselines)

    def maskable(
        self, call: Call, features: Sequence[Tensor], baselines: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """True where an id, or a float element, differs from its baseline."""
        return tuple(x != b for x, b in zip(call.inputs, call.baselines, strict=True))

    def token_dims(self, call: Call, features: Sequence[Tensor]) -> tuple[int, ...]:
        """An id is a token; floats follow the general rule."""
        return tuple(
            x.dim() if is_integral(x) else token_dims(f)
            for x, f in zip(call.inputs, features, strict=True)
        )

    def spreads(self, call: Call, features: Sequence[Tensor]) -> tuple[bool, ...]:
        """Ids get one score each, whatever the size of their embeddings."""
        return tuple(not is_integral(x) for x in call.inputs)

    def embedding_layer(self) -> nn.Module | None:
        """The given embedding layer, or the model's own."""
        if self.embedding_layers:
            return largest_embedding(self.embedding_layers[0])
        return find_embedding_layer(self.forward_func)

    def run(
        self,
        inputs: tuple[Tensor, ...],
        args: tuple[Any, ...],
        features: tuple[Tensor, ...],
        capture: Capture,
    ) -> Any:
        """Runs with floats replaced and the embeddings of ids replaced at their layers."""
        replaced = tuple(x if is_integral(x) else f for x, f in zip(inputs, features, strict=True))
        if capture.tap is None:
            return run_forward(self.forward_func, replaced, args)
        at_layers = [(f,) for x, f in zip(inputs, features, strict=True) if is_integral(x)]
        with capture.tap.replacing(at_layers):
            return run_forward(self.forward_func, replaced, args)

    def _layers(self, count: int) -> tuple[nn.Module, ...]:
        layers = self.embedding_layers
        if not layers:
            found = find_embedding_layer(self.forward_func)
            if found is None:
                raise InvalidInputError(
                    "embedding_layer: integer inputs need the layer that embeds them, and the "
                    "forward function is no model with get_input_embeddings(); pass "
                    "embedding_layer=, or use the Layer variant"
                )
            layers = (found,)
        if len(layers) == 1:
            layers = layers * count
        if len(layers) != count:
            raise InvalidInputError(
                f"embedding_layer: expected one layer, or one for each of the {count} inputs of "
                f"ids, got {len(layers)}"
            )
        return layers

    def _check_ids(self, call: Call, layers: Sequence[nn.Module]) -> None:
        rest = iter(layers)
        for x, b in zip(call.inputs, call.baselines, strict=True):
            size = getattr(next(rest), "num_embeddings", None) if is_integral(x) else None
            if not isinstance(size, int):
                continue
            for name, ids in (("inputs", x), ("baselines", b)):
                low, high = int(ids.min()), int(ids.max())
                if low < 0 or high >= size:
                    raise InvalidInputError(
                        f"{name}: expected ids from 0 to {size - 1}, got {low} to {high}"
                    )


class LayerSite:
    """The input or output of any layer, or of several that do not depend on each other.

    Args:
        forward_func: What is explained.
        layers: The layers.
        at_input: Whether their inputs are masked, rather than their outputs.
        device_ids: Devices of a ``DataParallel`` model, as Captum's layer methods take them.
    """

    def __init__(
        self,
        forward_func: ForwardFunc,
        layers: tuple[nn.Module, ...],
        *,
        at_input: bool = False,
        device_ids: Sequence[int] | None = None,
    ) -> None:
        self.forward_func = forward_func
        self.points = tuple(LayerPoint(layer, at_input) for layer in layers)
        self.device_ids = find_device_ids(forward_func, device_ids)

    def capture(self, call: Call) -> Capture:
        """Runs the forward function and reads every layer."""
        with _ids_in_range("inputs", call.inputs):
            tap, tensors, output = Tap.read(
                self.points,
                lambda: run_forward(self.forward_func, call.inputs, call.additional_forward_args),
                carriers=[call.inputs[0]] * len(self.points),
                device_ids=self.device_ids,
            )
        features = tuple(t for point in tensors for t in point)
        for feature in features:
            if feature.dim() == 0 or feature.shape[0] != call.n_examples:
                raise LayerNotReachedError(
                    "layer: expected a tensor with the examples along dimension 0, "
                    f"{call.n_examples} of them, got shape {tuple(feature.shape)}"
                )
        return Capture(features, output, tap, tuple(len(point) for point in tensors))

    def recall(self, call: Call, earlier: tuple[Call, Capture], output: Tensor) -> Capture | None:
        """Only what tables hold is known without a pass."""
        tap, n = earlier[1].tap, len(self.points)
        with _ids_in_range("inputs", call.inputs):
            found = (
                None
                if tap is None
                else _looked_up(tap, [earlier[0].inputs[0]] * n, [call.inputs[0]] * n)
            )
        return None if found is None else Capture(found[1], output, found[0], (1,) * n)

    def baselines(self, call: Call, capture: Capture) -> tuple[Tensor, ...]:
        """The layers' tensors when the forward function is given the baselines."""
        assert capture.tap is not None
        with _ids_in_range("baselines", call.baselines):
            first = (call.inputs[0], call.baselines[0])
            tensors = _baselines_at(
                self.forward_func, call, capture.tap, [first] * len(self.points)
            )
        return tuple(t for point in tensors for t in point)

    def maskable(
        self, call: Call, features: Sequence[Tensor], baselines: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """True where the layer's tensors differ between the inputs and the baselines."""
        return tuple(f != b for f, b in zip(features, baselines, strict=True))

    def token_dims(self, call: Call, features: Sequence[Tensor]) -> tuple[int, ...]:
        """A position of (N, L, D) is a token, and an element of any other shape."""
        return tuple(token_dims(f) for f in features)

    def spreads(self, call: Call, features: Sequence[Tensor]) -> tuple[bool, ...]:
        """Attributions have the shape of the layers' tensors."""
        return (True,) * len(features)

    def embedding_layer(self) -> nn.Module | None:
        """The model's own embedding layer, or the largest one inside the first layer."""
        found = find_embedding_layer(self.forward_func)
        return found if found is not None else largest_embedding(self.points[0].layer)

    def run(
        self,
        inputs: tuple[Tensor, ...],
        args: tuple[Any, ...],
        features: tuple[Tensor, ...],
        capture: Capture,
    ) -> Any:
        """Runs with the layers' tensors replaced."""
        assert capture.tap is not None
        rest = iter(features)
        grouped = [tuple(itertools.islice(rest, size)) for size in capture.sizes]
        with capture.tap.replacing(grouped):
            return run_forward(self.forward_func, inputs, args)


@contextmanager
def _ids_in_range(name: str, tensors: Sequence[Tensor]) -> Iterator[None]:
    """Names the argument when an embedding deep inside the model refuses an id."""
    try:
        yield
    except IndexError as error:
        ids = [t for t in tensors if is_integral(t)]
        if not ids:
            raise
        ranges = ", ".join(f"{int(t.min())} to {int(t.max())}" for t in ids)
        raise InvalidInputError(
            f"{name}: expected ids that the model can embed, got ids from {ranges} ({error})"
        ) from error


__all__ = [
    "Capture",
    "InputSite",
    "LayerSite",
    "Site",
]
