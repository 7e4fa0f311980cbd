"""The arguments of one ``attribute`` call: checked, and brought into one canonical form."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from captum_aml._utils.checks import is_integral
from captum_aml.exceptions import InvalidInputError
from captum_aml.masking.tokens import fits_tokens
from captum_aml.typing import Baselines, Target, TensorOrTuple


@dataclass(frozen=True)
class Call:
    """One canonical call.

    Attributes:
        inputs: Tensors with N examples along dimension 0, detached from the caller's graph.
        baselines: Tensors of the same shapes and dtypes.
        target: Indices (N, k) into the output's dimensions after the first, or None.
        foil: Those of what the target is held against, or None.
        additional_forward_args: Further positional arguments of the forward function.
        feature_mask: Group ids as the caller gave them, one tensor per masked tensor, or None.
        is_tuple: Whether the caller gave ``inputs`` as a tuple.
        batched: Which further arguments go with the examples, by their numbers: those with N rows
            in the caller's call. Calls of a part of its examples have the same.
    """

    inputs: tuple[Tensor, ...]
    baselines: tuple[Tensor, ...]
    target: Tensor | None
    additional_forward_args: tuple[Any, ...]
    feature_mask: tuple[Tensor, ...] | None
    is_tuple: bool
    foil: Tensor | None = None
    batched: tuple[int, ...] = ()
    #: A layer's masks are as the layer's tensors, which are not known yet: they stay whole, with
    #: the first of these examples and the number of all.
    layer_rows: tuple[int, int] | None = None

    @property
    def n_examples(self) -> int:
        """The number of examples N."""
        return self.inputs[0].shape[0]

    def with_args(self, args: tuple[Any, ...]) -> Call:
        """The same call with other further arguments, of which those with N rows are batched."""
        batched = tuple(i for i, arg in enumerate(args) if has_rows(arg, self.n_examples))
        return replace(self, additional_forward_args=args, batched=batched)

    def with_target(self, target: Target, foil: Target = None) -> Call:
        """The same call with another target and foil, in any form that ``attribute`` takes."""
        n, device = self.n_examples, self.inputs[0].device
        return replace(
            self,
            target=_parse_target(target, n, device),
            foil=_parse_target(foil, n, device, name="foil"),
        )

    def repeated_args(self, times: int) -> tuple[Any, ...]:
        """The further arguments of joined passes: those with N rows are repeated as a whole."""
        return tuple(
            repeat_rows(arg, times) if i in self.batched else arg
            for i, arg in enumerate(self.additional_forward_args)
        )

    def rows(self, start: int, stop: int) -> Call:
        """The same call for examples ``start`` to ``stop``."""
        args, n = self.additional_forward_args, self.n_examples
        return replace(
            self,
            inputs=tuple(t[start:stop] for t in self.inputs),
            baselines=tuple(t[start:stop] for t in self.baselines),
            target=None if self.target is None else self.target[start:stop],
            foil=None if self.foil is None else self.foil[start:stop],
            additional_forward_args=tuple(
                a[start:stop] if i in self.batched else a for i, a in enumerate(args)
            ),
            feature_mask=self.feature_mask
            if self.feature_mask is None or self.layer_rows is not None
            else tuple(m[start:stop] if has_rows(m, n) else m for m in self.feature_mask),
            layer_rows=None if self.layer_rows is None else (start, self.layer_rows[1]),
        )


def repeat_rows(tensor: Tensor, times: int) -> Tensor:
    """A tensor's rows repeated as a whole, as often as ``times``."""
    return tensor if times == 1 else torch.cat([tensor] * times)


def has_rows(value: object, n_examples: int) -> bool:
    """Whether something goes with the examples: a tensor with one row for each of them.

    Of N examples whose tensors are all the caller's; a part of them may have as many rows by
    chance.
    """
    return isinstance(value, Tensor) and value.shape[:1] == (n_examples,)


def parse_call(
    inputs: TensorOrTuple,
    baselines: Baselines = None,
    target: Target = None,
    additional_forward_args: object | None = None,
    feature_mask: TensorOrTuple | None = None,
    foil: Target = None,
    *,
    at_layer: bool = False,
    integers_are_ids: bool = True,
) -> Call:
    """Checks the arguments that Captum's ``attribute`` takes and gives them one form.

    Args:
        inputs: As ``attribute`` takes them, like the arguments after it.
        baselines: What a removed element is replaced with.
        target: Index of the output.
        additional_forward_args: Further arguments of the forward function.
        feature_mask: Group ids.
        foil: Index of the output that the target is held against.
        at_layer: Whether feature masks are as a layer's tensors.
        integers_are_ids: Whether integer inputs stay what they are. Otherwise they are numbers, and
            become floating point values. Default: True

    Raises:
        InvalidInputError: An argument has a wrong type, shape, dtype or range; the message names
            it, what was expected and what came.
    """
    tensors = _parse_inputs(inputs)
    if not integers_are_ids:
        tensors = tuple(t.to(torch.get_default_dtype()) if is_integral(t) else t for t in tensors)
    args: tuple[Any, ...]
    if additional_forward_args is None:
        args = ()
    elif isinstance(additional_forward_args, tuple):
        args = additional_forward_args
    else:
        args = (additional_forward_args,)
    return Call(
        inputs=tensors,
        baselines=_parse_baselines(baselines, tensors),
        target=_parse_target(target, tensors[0].shape[0], tensors[0].device),
        additional_forward_args=tuple(
            _without_inference(a) if isinstance(a, Tensor) else a for a in args
        ),
        feature_mask=_parse_feature_mask(feature_mask, None if at_layer else tensors),
        is_tuple=isinstance(inputs, tuple),
        foil=_parse_target(foil, tensors[0].shape[0], tensors[0].device, name="foil"),
        batched=tuple(i for i, a in enumerate(args) if has_rows(a, tensors[0].shape[0])),
        layer_rows=(0, tensors[0].shape[0]) if at_layer else None,
    )


def _without_inference(tensor: Tensor) -> Tensor:
    # Tensors made under inference_mode cannot take part in autograd; a copy can.
    return tensor.clone() if tensor.is_inference() else tensor


def _parse_inputs(inputs: TensorOrTuple) -> tuple[Tensor, ...]:
    given = inputs if isinstance(inputs, tuple) else (inputs,)
    if not given:
        raise InvalidInputError("inputs: expected at least one tensor, got an empty tuple")
    for tensor in given:
        if not isinstance(tensor, Tensor):
            raise InvalidInputError(
                f"inputs: expected a tensor or a tuple of tensors, got {type(tensor).__name__}"
            )
        if tensor.dim() == 0:
            raise InvalidInputError(
                "inputs: expected examples along dimension 0, got a tensor without dimensions"
            )
        if tensor.dtype == torch.bool or tensor.dtype.is_complex:
            raise InvalidInputError(
                f"inputs: expected floating point values or integer ids, got {tensor.dtype}; "
                "values of this dtype cannot be blended with a baseline"
            )
        if tensor.shape[0] != given[0].shape[0]:
            raise InvalidInputError(
                "inputs: expected the same number of examples in every tensor, got "
                f"{[t.shape[0] for t in given]}"
            )
        if tensor.shape[0] == 0:
            raise InvalidInputError(
                f"inputs: expected at least one example, got shape {tuple(tensor.shape)}"
            )
        if tensor.numel() == 0:
            raise InvalidInputError(
                f"inputs: expected at least one element per example, got {tuple(tensor.shape)}"
            )
    return tuple(_without_inference(t.detach()) for t in given)


def _parse_baselines(baselines: Baselines, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    given: Sequence[Tensor | int | float]
    if baselines is None:
        given = [0] * len(inputs)
    elif isinstance(baselines, tuple):
        given = baselines
    else:
        given = [baselines]
    if len(given) != len(inputs):
        raise InvalidInputError(
            f"baselines: expected one baseline for each of the {len(inputs)} input tensors, "
            f"got {len(given)}"
        )
    return tuple(_parse_baseline(b, x) for b, x in zip(given, inputs, strict=True))


def _parse_baseline(baseline: Tensor | int | float, inputs: Tensor) -> Tensor:
    if isinstance(baseline, bool) or not isinstance(baseline, Tensor | int | float):
        raise InvalidInputError(
            f"baselines: expected a tensor or a number, got {type(baseline).__name__}"
        )
    if isinstance(baseline, Tensor):
        shape_fits = baseline.shape == inputs.shape or (
            baseline.dim() == inputs.dim()
            and baseline.shape[0] == 1
            and baseline.shape[1:] == inputs.shape[1:]
        )
        if not shape_fits:
            raise InvalidInputError(
                f"baselines: expected shape {tuple(inputs.shape)} or "
                f"{(1, *inputs.shape[1:])}, got {tuple(baseline.shape)}"
            )
        if baseline.dtype == torch.bool or baseline.dtype.is_complex:
            raise InvalidInputError(f"baselines: expected numbers, got {baseline.dtype}")
        if is_integral(inputs) and not is_integral(baseline):
            raise InvalidInputError(
                f"baselines: expected integer ids like the inputs, got {baseline.dtype}"
            )
        moved = _without_inference(baseline.detach()).to(inputs)
        return moved.expand_as(inputs)
    if is_integral(inputs) and not float(baseline).is_integer():
        raise InvalidInputError(f"baselines: expected an integer id, got {baseline}")
    if is_integral(inputs):
        limits = torch.iinfo(inputs.dtype)
        if not limits.min <= baseline <= limits.max:
            raise InvalidInputError(
                f"baselines: expected an id that {inputs.dtype} can hold, got {baseline}"
            )
    return torch.full_like(inputs, baseline)


def _parse_target(
    target: Target, n_examples: int, device: torch.device, name: str = "target"
) -> Tensor | None:
    """Gives every form of target the shape (N, k): k indices into the output's later dimensions."""
    if target is None:
        return None
    rows: list[tuple[int, ...]]
    if isinstance(target, Tensor):
        if not is_integral(target):
            raise InvalidInputError(f"{name}: expected integer indices, got {target.dtype}")
        if target.numel() == 1:
            rows = [(int(target.item()),)] * n_examples
        elif target.dim() == 1:
            rows = [(int(i),) for i in target.tolist()]
        else:
            raise InvalidInputError(
                f"{name}: expected a tensor with one index, or one for each of the {n_examples} "
                f"examples, got shape {tuple(target.shape)}"
            )
    elif isinstance(target, list):
        rows = [_parse_indices(t, name) for t in target]
    else:
        rows = [_parse_indices(target, name)] * n_examples
    if len(rows) != n_examples:
        raise InvalidInputError(
            f"{name}: expected one {name} for each of the {n_examples} examples, got {len(rows)}"
        )
    lengths = {len(row) for row in rows}
    if len(lengths) != 1 or 0 in lengths:
        raise InvalidInputError(
            f"{name}: expected tuples of one length, at least one index long, got lengths "
            f"{sorted(lengths)}"
        )
    return torch.tensor(rows, dtype=torch.long, device=device)


def parse_targets(
    targets: list[Target] | Tensor, foils: list[Target] | Tensor | None
) -> list[tuple[Target, Target]]:
    """Several targets of a call, one after the other, each with its foil.

    Args:
        targets: A list of targets in any form that ``attribute`` takes, or classes (N, T).
        foils: One for each target, likewise, None in the list for those that stand by themselves;
            or None for no foils.

    Raises:
        InvalidInputError: They are neither, there is no target, or there are more or fewer foils
            than targets.
    """
    each = _one_by_one(targets, "targets")
    against: list[Target] = [None] * len(each) if foils is None else _one_by_one(foils, "foils")
    if len(against) != len(each):
        raise InvalidInputError(
            f"foils: expected one for each of the {len(each)} targets, got {len(against)}"
        )
    return list(zip(each, against, strict=True))


def _one_by_one(targets: list[Target] | Tensor, name: str) -> list[Target]:
    given: list[Target] = []
    if isinstance(targets, Tensor) and targets.dim() == 2:
        given += targets.unbind(dim=1)
    elif isinstance(targets, list):
        given += targets
    if not given:
        came = tuple(targets.shape) if isinstance(targets, Tensor) else repr(targets)
        raise InvalidInputError(
            f"{name}: expected a list of one target or more, or a tensor (N, T) of classes, got "
            f"{came}"
        )
    return given


def _parse_indices(target: object, name: str) -> tuple[int, ...]:
    parts = target if isinstance(target, tuple) else (target,)
    try:
        # operator.index takes whatever stands for an exact integer, NumPy's and torch's too.
        return tuple(operator.index(part) for part in parts)
    except TypeError:
        raise InvalidInputError(
            f"{name}: expected an integer or a tuple of integers, got {target!r}"
        ) from None


def _parse_feature_mask(
    feature_mask: TensorOrTuple | None, inputs: tuple[Tensor, ...] | None
) -> tuple[Tensor, ...] | None:
    if feature_mask is None:
        return None
    masks = feature_mask if isinstance(feature_mask, tuple) else (feature_mask,)
    for mask in masks:
        if not isinstance(mask, Tensor):
            raise InvalidInputError(
                f"feature_mask: expected a tensor or a tuple of tensors, got {type(mask).__name__}"
            )
        if not is_integral(mask):
            raise InvalidInputError(f"feature_mask: expected integer group ids, got {mask.dtype}")
    if inputs is None or len(masks) != len(inputs):
        return masks
    return tuple(_with_examples(m, x) for m, x in zip(masks, inputs, strict=True))


def _with_examples(mask: Tensor, inputs: Tensor) -> Tensor:
    """Makes visible in its shape that a mask of fewer dimensions is shared by all examples."""
    if mask.dim() >= inputs.dim():
        return mask
    if inputs.dim() == 3 and fits_tokens(mask, inputs.shape[:2]):
        return mask
    return mask.reshape((1,) * (inputs.dim() - mask.dim()) + tuple(mask.shape))
