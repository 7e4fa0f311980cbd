"""Sites where a mask enters the forward function: its inputs, their embeddings, or a layer."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

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

Tensors: TypeAlias = tuple[Tensor, ...]


@dataclass(frozen=True)
class Capture:
    """The tensors at a site in one forward pass, and its output.

    Attributes:
        features: The tensors that can be masked, each with N examples along dimension 0.
        output: What the forward function returned.
        tap: Where the features stand in the forward pass, if at layers.
        sizes: The number of tensors at each layer.
    """

    features: Tensors
    output: Any
    tap: Tap | None
    sizes: tuple[int, ...] = ()


class Site(ABC):
    """A place whose tensors can be read, and replaced by masked ones.

    Args:
        forward_func: What is explained.
        device_ids: Devices of a ``DataParallel`` model, as Captum's layer methods take them.
    """

    def __init__(self, forward_func: ForwardFunc, device_ids: Sequence[int] | None = None) -> None:
        self.forward_func = forward_func
        self.device_ids = find_device_ids(forward_func, device_ids)

    @abstractmethod
    def capture(self, call: Call) -> Capture:
        """Runs the forward function on the inputs and reads the site's tensors."""

    @abstractmethod
    def recall(self, call: Call, earlier: tuple[Call, Capture], output: Tensor) -> Capture | None:
        """The capture of a pass, put together without one; None where that cannot be.

        Args:
            call: The call.
            earlier: Another call of the same forward function, and what its pass showed.
            output: What the forward function returns for the call.
        """

    @abstractmethod
    def baselines(self, call: Call, capture: Capture) -> Tensors:
        """The site's tensors for the baselines, in the shapes of ``capture.features``."""

    @abstractmethod
    def maskable(self, call: Call, features: Tensors, baselines: Tensors) -> Tensors:
        """One bool for each element or position: whether it differs from its baseline."""

    @abstractmethod
    def token_dims(self, call: Call, features: Tensors) -> tuple[int, ...]:
        """For each of the site's tensors, the number of leading dimensions that number tokens."""

    @abstractmethod
    def spreads(self, call: Call, features: Tensors) -> tuple[bool, ...]:
        """For each of the site's tensors, whether attributions have its channels."""

    @abstractmethod
    def run(
        self, inputs: Tensors, args: tuple[Any, ...], features: Tensors, capture: Capture
    ) -> Any:
        """Runs the forward function with the site's tensors replaced by ``features``."""

    @property
    @abstractmethod
    def embeds(self) -> bool:
        """Whether what is masked enters the model as its tokens do, before any attention."""

    @abstractmethod
    def embedding_layer(self) -> nn.Module | None:
        """The layer that embeds ids at this site, where one can be found."""

    @abstractmethod
    def _given(self, call: Call) -> Sequence[Tensor]:
        """For each of the site's layers the input that it may have been given as it is."""

    def _tapped(
        self, call: Call, points: Sequence[LayerPoint]
    ) -> tuple[Tap, tuple[Tensors, ...], Any]:
        """A pass for the inputs, read at layers; see ``Tap.read``."""
        return Tap.read(
            points,
            lambda: run_forward(self.forward_func, call.inputs, call.additional_forward_args),
            carriers=self._given(call),
            device_ids=self.device_ids,
        )

    def _baselines_at(self, call: Call, tap: Tap) -> tuple[Tensors, ...]:
        """The tapped layers' tensors for the baselines: by a pass, unless they only look ids up."""
        if _only_looks_up(tap, self._given(call)):
            given = self._given(replace(call, inputs=call.baselines))
            return tuple(
                (point.layer(baseline).detach(),)
                for point, baseline in zip(tap.points, given, strict=True)
            )
        return tap.read_again(
            lambda: run_forward(self.forward_func, call.baselines, call.additional_forward_args)
        )

    def _looked_up(self, call: Call, earlier: tuple[Call, Capture]) -> tuple[Tap, Tensors] | None:
        """A tap for a call, and what its layers hold for it, if they only look ids up."""
        tap, given = earlier[1].tap, self._given(call)
        if tap is None or tap.device_ids or not _only_looks_up(tap, self._given(earlier[0])):
            return None
        if tap.calls not in ((0,) * len(given), tuple(range(len(given)))):
            return None
        return (
            replace(tap, arguments=tuple((x,) for x in given)),
            tuple(point.layer(x).detach() for point, x in zip(tap.points, given, strict=True)),
        )


def _only_looks_up(tap: Tap, inputs: Sequence[Tensor]) -> bool:
    """Whether the tapped layers are tables, each given one of the inputs as it is."""
    for point, given, x in zip(tap.points, tap.arguments, inputs, strict=True):
        table = type(point.layer) is nn.Embedding or getattr(point.layer, "only_looks_up", False)
        if point.at_input or not table or len(given) != 1:
            return False
        if x.shape != given[0].shape or not torch.equal(x, given[0].to(x.device)):
            return False
    return True


def token_dims(feature: Tensor) -> int:
    """The number of leading dimensions that number tokens: two of (N, L, D), otherwise all."""
    return 2 if feature.dim() == 3 else feature.dim()


class InputSite(Site):
    """The forward function's own inputs: floats directly, integer ids at their embeddings.

    Args:
        forward_func: What is explained.
        embedding_layers: One embedding layer for each input of ids, in order, or a single one.
    """

    def __init__(self, forward_func: ForwardFunc, embedding_layers: tuple[nn.Module, ...]) -> None:
        super().__init__(forward_func)
        self.embedding_layers = embedding_layers

    def capture(self, call: Call) -> Capture:
        """Runs the forward function; the features of ids are what their embedding layer gave."""
        ids = self._given(call)
        if not ids:
            output = run_forward(self.forward_func, call.inputs, call.additional_forward_args)
            return Capture(call.inputs, output, None)
        layers = self._layers(len(ids))
        self._check_ids(call, layers)
        tap, tensors, output = self._tapped(call, [LayerPoint(layer) for layer in layers])
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
        ids = self._given(call)
        if not ids:
            return Capture(call.inputs, output, None)
        self._check_ids(call, self._layers(len(ids)))
        found = self._looked_up(call, earlier)
        if found is None:
            return None
        embedded = iter(found[1])
        features = tuple(next(embedded) if is_integral(x) else x for x in call.inputs)
        return Capture(features, output, found[0], (1,) * len(ids))

    def baselines(self, call: Call, capture: Capture) -> Tensors:
        """Baselines of floats as given, those of ids through the embedding layer."""
        if capture.tap is None:
            return call.baselines
        embedded = iter(self._baselines_at(call, capture.tap))
        return tuple(next(embedded)[0] if is_integral(b) else b for b in call.baselines)

    def maskable(self, call: Call, features: Tensors, baselines: Tensors) -> Tensors:
        """True where an id, or a float element, differs from its baseline."""
        return tuple(x != b for x, b in zip(call.inputs, call.baselines, strict=True))

    def token_dims(self, call: Call, features: Tensors) -> tuple[int, ...]:
        """An id is a token; floats follow the general rule."""
        return tuple(
            x.dim() if is_integral(x) else token_dims(f)
            for x, f in zip(call.inputs, features, strict=True)
        )

    def spreads(self, call: Call, features: Tensors) -> tuple[bool, ...]:
        """Ids get one score each, whatever the size of their embeddings."""
        return tuple(not is_integral(x) for x in call.inputs)

    @property
    def embeds(self) -> bool:
        """True: they are the model's inputs."""
        return True

    def embedding_layer(self) -> nn.Module | None:
        """The given embedding layer, or the model's own."""
        if self.embedding_layers:
            return largest_embedding(self.embedding_layers[0])
        return find_embedding_layer(self.forward_func)

    def run(
        self, inputs: Tensors, args: tuple[Any, ...], features: Tensors, capture: Capture
    ) -> Any:
        """Runs with floats replaced and the embeddings of ids replaced at their layers."""
        replaced = tuple(x if is_integral(x) else f for x, f in zip(inputs, features, strict=True))
        if capture.tap is None:
            return run_forward(self.forward_func, replaced, args)
        at_layers = [(f,) for x, f in zip(inputs, features, strict=True) if is_integral(x)]
        with capture.tap.replacing(at_layers):
            return run_forward(self.forward_func, replaced, args)

    def _given(self, call: Call) -> Sequence[Tensor]:
        return [x for x in call.inputs if is_integral(x)]

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


class LayerSite(Site):
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
        super().__init__(forward_func, device_ids)
        self.points = tuple(LayerPoint(layer, at_input) for layer in layers)

    def capture(self, call: Call) -> Capture:
        """Runs the forward function and reads every layer."""
        with _ids_in_range("inputs", call.inputs):
            tap, tensors, output = self._tapped(call, self.points)
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
        with _ids_in_range("inputs", call.inputs):
            found = self._looked_up(call, earlier)
        if found is None:
            return None
        return Capture(found[1], output, found[0], (1,) * len(self.points))

    def baselines(self, call: Call, capture: Capture) -> Tensors:
        """The layers' tensors when the forward function is given the baselines."""
        assert capture.tap is not None
        with _ids_in_range("baselines", call.baselines):
            tensors = self._baselines_at(call, capture.tap)
        return tuple(t for point in tensors for t in point)

    def maskable(self, call: Call, features: Tensors, baselines: Tensors) -> Tensors:
        """True where the layer's tensors differ between the inputs and the baselines."""
        return tuple(f != b for f, b in zip(features, baselines, strict=True))

    def token_dims(self, call: Call, features: Tensors) -> tuple[int, ...]:
        """A position of (N, L, D) is a token, and an element of any other shape."""
        return tuple(token_dims(f) for f in features)

    def spreads(self, call: Call, features: Tensors) -> tuple[bool, ...]:
        """Attributions have the shape of the layers' tensors."""
        return (True,) * len(features)

    @property
    def embeds(self) -> bool:
        """Whether it is the output of one layer with a table of embeddings inside."""
        first, *others = self.points
        return not others and not first.at_input and largest_embedding(first.layer) is not None

    def embedding_layer(self) -> nn.Module | None:
        """The model's own embedding layer, or the largest one inside the first layer."""
        found = find_embedding_layer(self.forward_func)
        return found if found is not None else largest_embedding(self.points[0].layer)

    def run(
        self, inputs: Tensors, args: tuple[Any, ...], features: Tensors, capture: Capture
    ) -> Any:
        """Runs with the layers' tensors replaced."""
        assert capture.tap is not None
        rest = iter(features)
        grouped = [tuple(itertools.islice(rest, size)) for size in capture.sizes]
        with capture.tap.replacing(grouped):
            return run_forward(self.forward_func, inputs, args)

    def _given(self, call: Call) -> Sequence[Tensor]:
        return [call.inputs[0]] * len(self.points)


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
