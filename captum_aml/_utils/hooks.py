"""Reads and replaces what a layer takes or gives, through hooks that are always removed again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel.scatter_gather import scatter

from captum_aml.exceptions import LayerNotReachedError

#: The wrappers that run the module they wrap, and hold it as their attribute ``module``.
PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def unwrapped(module: object) -> object:
    """The module in ``DataParallel`` or ``DistributedDataParallel``, any other as it is."""
    return module.module if isinstance(module, PARALLEL) else module


@dataclass(frozen=True)
class LayerPoint:
    """A place in the forward pass: a layer's input or its output.

    Attributes:
        layer: The module.
        at_input: Whether its input is meant, rather than its output.
    """

    layer: nn.Module
    at_input: bool = False

    def __str__(self) -> str:
        return f"{'input' if self.at_input else 'output'} of {type(self.layer).__name__}"


@dataclass
class _Record:
    """The passes at one point: for every call, per device, the tensors and the layer's inputs."""

    values: dict[torch.device, list[tuple[Tensor, ...]]] = field(default_factory=dict)
    arguments: dict[torch.device, list[list[Tensor]]] = field(default_factory=dict)


def _all_tensors(value: object) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [t for v in value.values() for t in _all_tensors(v)]
    if isinstance(value, tuple | list):
        return [t for v in value for t in _all_tensors(v)]
    return []


def tensors_in(value: object) -> list[Tensor]:
    """The floating point tensors in a nest of tuples, lists and mappings, in order."""
    return [t for t in _all_tensors(value) if t.dtype.is_floating_point]


def with_tensors(value: Any, tensors: Iterator[Tensor]) -> Any:
    """The same nest with its floating point tensors replaced, in order."""
    if isinstance(value, Tensor):
        return next(tensors) if value.dtype.is_floating_point else value
    if isinstance(value, Mapping):
        items = {k: with_tensors(v, tensors) for k, v in value.items()}
        # Outputs of transformers are mappings that take their fields by keyword.
        return items if type(value) is dict else type(value)(**items)
    if isinstance(value, tuple | list):
        parts = [with_tensors(v, tensors) for v in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


@contextmanager
def _hooked(
    points: Sequence[LayerPoint],
    visit: Callable[[int, Any, Sequence[Any]], Any],
) -> Iterator[None]:
    """Runs ``visit(index, value, layer_arguments)`` at every point; its result replaces the value.

    For a point at a layer's input the value is the tuple of its positional arguments, as for
    Captum.
    """
    with ExitStack() as stack:
        for index, point in enumerate(points):
            if point.at_input:

                def pre_hook(
                    _: nn.Module, args: Any, kwargs: Any, index: int = index
                ) -> tuple[Any, Any] | None:
                    replaced = visit(index, args, (args, kwargs))
                    return None if replaced is None else (replaced, kwargs)

                handle = point.layer.register_forward_pre_hook(pre_hook, with_kwargs=True)
            else:

                def hook(
                    _: nn.Module, args: Any, kwargs: Any, output: Any, index: int = index
                ) -> Any:  # whatever the layer returns
                    return visit(index, output, (args, kwargs))

                handle = point.layer.register_forward_hook(hook, with_kwargs=True)
            stack.callback(handle.remove)
        yield


def _recorded(points: Sequence[LayerPoint], run: Callable[[], Any]) -> tuple[list[_Record], Any]:
    """Runs a full forward pass and records every point; with it the forward function's result."""
    records = [_Record() for _ in points]

    def visit(index: int, value: Any, arguments: Sequence[Any]) -> None:
        tensors = tuple(t.detach().clone() for t in tensors_in(value))
        device = tensors[0].device if tensors else torch.device("cpu")
        records[index].values.setdefault(device, []).append(tensors)
        records[index].arguments.setdefault(device, []).append(_all_tensors(arguments))

    with _hooked(points, visit):
        output = run()
    return records, output


def joined(
    by_device: Mapping[torch.device, tuple[Tensor, ...]], device_ids: Sequence[int] | None
) -> tuple[Tensor, ...]:
    """The tensors of a ``DataParallel`` model's replicas joined, in the order of its devices."""
    ranks = {index: rank for rank, index in enumerate(device_ids or ())}
    devices = sorted(by_device, key=lambda d: ranks.get(d.index or 0, 0))
    return tuple(
        torch.cat([first, *(more.to(first.device) for more in rest)]) if rest else first
        for first, *rest in zip(*(by_device[device] for device in devices), strict=True)
    )


@dataclass(frozen=True)
class Tap:
    """Points of a forward pass, with the call that counts where a layer runs more than once.

    Attributes:
        points: The places to read and replace.
        calls: For each point, the number of the call (0 for the first) that carries the mask.
        arguments: For each point the tensors that the layer was given in that call.
        device_ids: Devices of a ``DataParallel`` model, in order, or None.
    """

    points: tuple[LayerPoint, ...]
    calls: tuple[int, ...]
    arguments: tuple[tuple[Tensor, ...], ...]
    device_ids: tuple[int, ...] | None = None

    @classmethod
    def read(
        cls,
        points: Sequence[LayerPoint],
        run: Callable[[], Any],
        *,
        carriers: Sequence[Tensor | None],
        device_ids: Sequence[int] | None = None,
    ) -> tuple[Tap, tuple[tuple[Tensor, ...], ...], Any]:
        """Runs a full forward pass and reads every point.

        A layer that runs several times is ambiguous unless exactly one of its calls was given the
        point's carrier, a tensor such as the token ids.

        Args:
            points: Where to read.
            run: Runs the forward function and returns its result.
            carriers: For each point the tensor by which its call is recognized, or None.
            device_ids: Devices of a ``DataParallel`` model.

        Returns:
            The tap, the tensors at each point, and the forward function's result.

        Raises:
            LayerNotReachedError: A layer did not run, ran several times without one call standing
                out, or holds no floating point tensor there.
        """
        records, output = _recorded(points, run)
        calls = tuple(
            _chosen_call(index, points, carriers, record) for index, record in enumerate(records)
        )
        arguments = tuple(
            tuple(next(iter(record.arguments.values()))[number])
            for record, number in zip(records, calls, strict=True)
        )
        tap = cls(tuple(points), calls, arguments, tuple(device_ids) if device_ids else None)
        return tap, tap._gathered(records), output

    def read_again(self, run: Callable[[], Any]) -> tuple[tuple[Tensor, ...], ...]:
        """Reads the same points in another forward pass."""
        records, _ = _recorded(self.points, run)
        for point, record, wanted in zip(self.points, records, self.calls, strict=True):
            if not any(len(calls) > wanted for calls in record.values.values()):
                raise LayerNotReachedError(
                    f"layer: the {point} was reached for the inputs but not for the baselines"
                )
        return self._gathered(records)

    @contextmanager
    def replacing(self, tensors: Sequence[tuple[Tensor, ...]]) -> Iterator[None]:
        """While open, every point carries the given tensors instead of its own."""
        parts: list[tuple[Tensor, ...]]
        flat = tuple(t for point in tensors for t in point)
        if self.device_ids is not None and len(self.device_ids) > 1:
            parts = list(scatter(flat, target_gpus=list(self.device_ids)))
        else:
            parts = [flat]
        by_device = {part[0].device: part for part in parts}
        bounds = [0]
        for point in tensors:
            bounds.append(bounds[-1] + len(point))
        counts: dict[tuple[int, torch.device], int] = {}

        def visit(index: int, value: Any, _: Sequence[Any]) -> Any:
            device = tensors_in(value)[0].device
            number = counts.get((index, device), 0)
            counts[index, device] = number + 1
            if number != self.calls[index]:
                return None
            part = by_device[device] if len(by_device) > 1 else parts[0]
            return with_tensors(value, iter(part[bounds[index] : bounds[index + 1]]))

        with _hooked(self.points, visit):
            yield

    def _gathered(self, records: Sequence[_Record]) -> tuple[tuple[Tensor, ...], ...]:
        """The tensors of the calls that count, those of several devices joined in their order."""
        return tuple(
            joined({d: calls[wanted] for d, calls in record.values.items()}, self.device_ids)
            for record, wanted in zip(records, self.calls, strict=True)
        )


def _chosen_call(
    index: int,
    points: Sequence[LayerPoint],
    carriers: Sequence[Tensor | None],
    record: _Record,
) -> int:
    """The number of the call that counts for a point, of those that were recorded there."""
    point, carrier = points[index], carriers[index]
    same = [i for i, other in enumerate(points) if other == point]
    if not record.values:
        raise LayerNotReachedError(
            f"layer: the forward function never ran {type(point.layer).__name__}; give a layer "
            "that it runs (submodules of traced or compiled models run without their hooks)"
        )
    device = next(iter(record.values))
    values, arguments = record.values[device], record.arguments[device]
    if not values[0]:
        where = " among its positional arguments" if point.at_input else ""
        raise LayerNotReachedError(f"layer: the {point} holds no floating point tensor{where}")
    if len(values) == len(same) == 1:
        return 0
    if carrier is not None:
        # On several devices each sees a part of the batch only: compare the part's length.
        matches = [
            i
            for i, given in enumerate(arguments)
            if any(
                t.shape == carrier[: t.shape[0]].shape
                and torch.equal(t.to(carrier.device), carrier[: t.shape[0]])
                for t in given
                if t.dim() > 0 and t.dtype == carrier.dtype
            )
        ]
        alike = [i for i in same if (c := carriers[i]) is not None and torch.equal(c, carrier)]
        if len(matches) == len(alike):
            return matches[alike.index(index)]
    raise LayerNotReachedError(
        f"layer: the forward function runs {type(point.layer).__name__} {len(values)} "
        f"time{'s' * (len(values) != 1)} for {len(same)} input{'s' * (len(same) != 1)}; "
        "expected a layer that runs once, or one of whose calls alone takes the inputs"
    )


def run_with_output(
    layer: nn.Module,
    change: Callable[[Tensor], Tensor | None],
    run: Callable[[], Any],
    shape: object,
) -> Any:  # whatever the forward function returns
    """Runs a forward function in which an embedding layer's output is another one.

    Args:
        layer: The layer.
        change: Gives the output to go on with from the layer's own, or None if that does not fit.
        run: The forward function, with its arguments.
        shape: The shape that the output should have, for the error.

    Raises:
        LayerNotReachedError: The output is no tensor or does not fit, or the layer did not run
            just once.
    """
    n_runs = 0

    def replace(_: nn.Module, __: Any, output: Any) -> Tensor:  # whatever the layer returns
        nonlocal n_runs
        n_runs += 1
        changed = change(output) if isinstance(output, Tensor) else None
        if changed is None:
            raise LayerNotReachedError(f"embedding_layer: expected an output of shape {shape}")
        return changed

    handle = layer.register_forward_hook(replace)
    try:
        result = run()
    finally:
        handle.remove()
    if n_runs != 1:
        raise LayerNotReachedError(
            f"embedding_layer: expected it to run once in the forward function, it ran "
            f"{n_runs} times"
        )
    return result
