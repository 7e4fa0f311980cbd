"""The explained model's values for subsets of tokens: the engine below all faithfulness metrics.

All variants of all examples are evaluated together. What turns out to be the same input is passed
through the model once, batches hold inputs of similar length, and the caller's padding is taken out
first, so that every value is that of the input alone.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from captum_aml._utils.checks import as_count, is_integral
from captum_aml.exceptions import InvalidInputError
from captum_aml.masking.call import Call
from captum_aml.masking.forward import argument_named, run_forward
from captum_aml.metrics.layout import VariantLayout, Variants
from captum_aml.metrics.removal import Removal, resolve_removal
from captum_aml.readout import Readout, check_finite, check_output_kind, output_tensor, select
from captum_aml.typing import ForwardFunc


class RemovalEvaluator:
    """Values of the target for any subsets of the tokens of N examples.

    A *token* is a position (N, L) of ids or of embeddings (N, L, D), or an element of any other
    input. What equals its baseline, and what the attention mask hides, is always left as it is.
    Padding is what the attention mask hides at the ends of a text. The model is given a text
    without it; inputs of different lengths are padded to go together only as the caller pads, and
    only on the right, where padding moves no token.
    Every different input is evaluated once in the evaluator's lifetime; what it remembers grows
    with the number of different subsets.

    Args:
        forward_func: What is explained.
        call: The arguments, from :func:`~captum_aml.masking.call.parse_call`: one tensor of ids
            (N, L), embeddings (N, L, D) or other floats (N, ...). Further arguments with N rows go
            with their examples; those of shape (N, L, ...) or (1, L, ...) with the tokens.
        output: What the forward function returns, see :mod:`captum_aml.readout`. Default: "auto".
        batch_size: The most variants in a pass of the model. Default: 32.
        mask_index: Which further argument is the attention mask. Default: None, found by name.

    Attributes:
        forward_func: What is explained.
        inputs: The examples, (N, ...).
        n_passes: Inputs that were passed through the model so far.

    Raises:
        InvalidInputError: An argument has a wrong type, shape or range.
        NonFiniteError: The model's output is NaN or infinite.
    """

    def __init__(
        self,
        forward_func: ForwardFunc,
        call: Call,
        *,
        output: str = "auto",
        batch_size: int = 32,
        mask_index: int | None = None,
    ) -> None:
        if len(call.inputs) != 1:
            raise InvalidInputError(
                f"inputs: expected one tensor, got a tuple of {len(call.inputs)}"
            )
        self.batch_size = as_count("batch_size", batch_size, least=1)
        self.n_passes = 0
        self.forward_func = forward_func
        self.inputs = call.inputs[0]
        dim = self.inputs.dim()
        self._has_positions = dim == 3 or (dim == 2 and is_integral(self.inputs))
        self._args = tuple(self._for_each_example(arg) for arg in call.additional_forward_args)
        # Which arguments go with the examples, and which of these with the positions.
        sizes = [tuple(a.shape) if isinstance(a, Tensor) else () for a in self._args]
        places = tuple(self.inputs.shape[:2])
        self._by_position = [
            i for i, size in enumerate(sizes) if self._has_positions and size[:2] == places
        ]
        batched = tuple(sorted({*call.batched, *self._by_position}))
        self._call = replace(call, additional_forward_args=self._args, batched=batched)
        self._mask_index = self._find_attention_mask() if mask_index is None else mask_index
        changeable = self.inputs != call.baselines[0]
        if dim == 3:
            changeable = changeable.any(dim=2)
        attended = (
            torch.ones_like(changeable)
            if self._mask_index is None
            else self._args[self._mask_index].to(changeable.device) != 0
        )
        #: Which units can be removed, (N, U).
        self.tokens = (changeable & attended).reshape(call.n_examples, -1)
        self._layout = VariantLayout(
            self._call,
            attended,
            by_position=self._by_position if self._has_positions else None,
            mask_index=self._mask_index,
            batch_size=self.batch_size,
        )
        self._removals: list[Removal] = []
        self._cache: dict[tuple[int, int, bytes], float] = {}
        self._known: dict[tuple[tuple[int, ...], bytes], float] = {}
        self._read_originals(call.target, check_output_kind(output))

    def extended(
        self, wrap: Callable[[ForwardFunc], ForwardFunc], argument: Tensor
    ) -> RemovalEvaluator:
        """An evaluator of the same examples and outcomes for another forward function.

        Args:
            wrap: Gives that function from this one.
            argument: One further argument for it, (N, L); it is 0 at padding.
        """
        call = replace(
            self._call,
            additional_forward_args=(*self._args, argument),
            target=self._readout.target,
            batched=(*self._call.batched, len(self._args)),
        )
        return RemovalEvaluator(
            wrap(self.forward_func),
            call,
            output=self._readout.kind,
            batch_size=self.batch_size,
            mask_index=self._mask_index,
        )

    @property
    def n_examples(self) -> int:
        """The number of examples N."""
        return self.inputs.shape[0]

    @property
    def n_tokens(self) -> list[int]:
        """The number of tokens T of each example."""
        counts: list[int] = self.tokens.sum(dim=1).tolist()
        return counts

    @property
    def target(self) -> Tensor:
        """The target class of each example among its distribution's, (N,)."""
        return self._readout.target_class

    @property
    def output_kind(self) -> str:
        """The kind of the forward function's results, see :mod:`captum_aml.readout`."""
        return self._readout.kind

    @property
    def originals(self) -> Tensor:
        """The value of each unmasked example, (N,) in float64."""
        return self._exponential(self._originals)

    @property
    def log_originals(self) -> Tensor:
        """Its logarithm, (N,).

        Raises:
            InvalidInputError: The forward function returns plain values.
        """
        self._require_probabilities()
        return self._originals

    def values(self, rows: Tensor, keep: Tensor, removal: str | Removal) -> Tensor:
        """The target's probability, or the plain value, for V subsets.

        Args:
            rows: The example of each subset, (V,).
            keep: What is kept, (V, U); units that are no tokens are kept whatever it says.
            removal: How the rest is removed.

        Returns:
            Tensor (V,) in float64.

        Raises:
            InvalidInputError: The removal needs token positions or an attention mask that are not
                there.
            NonFiniteError: The model's output is NaN or infinite.
        """
        return self._exponential(self._evaluate(rows, keep, resolve_removal(removal)))

    def log_values(self, rows: Tensor, keep: Tensor, removal: str | Removal) -> Tensor:
        """The logarithm of :meth:`values`, exact where probabilities are tiny.

        Raises:
            InvalidInputError: The forward function returns plain values; or as in ``values``.
        """
        self._require_probabilities()
        return self._evaluate(rows, keep, resolve_removal(removal))

    def _require_probabilities(self) -> None:
        if self._readout.kind == "value":
            raise InvalidInputError(
                "output: expected a forward function that returns probabilities or logits, since "
                "the metric takes a logarithm; got plain values"
            )

    def _exponential(self, stored: Tensor) -> Tensor:
        return stored if self._readout.kind == "value" else stored.exp()

    def _for_each_example(self, arg: Any) -> Any:  # the user's own argument
        """An argument by position that all examples share, such as position ids, for each."""
        n_examples, *rest = self.inputs.shape
        if self._has_positions and isinstance(arg, Tensor) and arg.shape[:2] == (1, rest[0]):
            return arg.expand(n_examples, *arg.shape[1:])
        return arg

    def _find_attention_mask(self) -> int | None:
        if not self._has_positions:
            return None
        # By its number, since the same tensor may be given for two arguments.
        for index in self._by_position:
            marked = [object() if i == index else arg for i, arg in enumerate(self._args)]
            named = argument_named(self.forward_func, (self.inputs,), marked, "attention_mask")
            if named is marked[index] and self._args[index].dim() == 2:
                return index
        return None

    @torch.no_grad()
    def _read_originals(self, target: Tensor | None, kind: str) -> None:
        rows = torch.arange(self.n_examples, device=self.tokens.device)
        contents: dict[int, bytes] = {}
        outputs: dict[bytes, Tensor] = {}
        for slab in self._layout.slabs(rows, torch.ones_like(self.tokens), resolve_removal("mask")):
            digests = self._layout.digests(slab)
            contents.update(zip(slab.members.tolist(), digests, strict=True))
            for part in self._layout.batches(slab, _first(digests, outputs)):
                output = output_tensor(self._forward(part, "the unmasked inputs"))
                if output.shape[0] != len(part.rows):
                    raise InvalidInputError(
                        f"forward_func: expected one result for each of {len(part.rows)} examples "
                        f"along dimension 0, got shape {tuple(output.shape)}"
                    )
                found = zip(part.places.tolist(), output, strict=True)
                outputs.update((digests[place], values) for place, values in found)
        shapes = {tuple(output.shape) for output in outputs.values()}
        if len(shapes) > 1:
            raise InvalidInputError(
                "forward_func: expected results of one shape for all examples, got "
                f"{sorted(shapes)}; they may not depend on the length of the input"
            )
        stacked = torch.stack([outputs[contents[row]] for row in range(self.n_examples)])
        self._readout = Readout.resolve(stacked, target, kind, self.n_examples)
        self._originals = self._read(stacked, rows, "the unmasked inputs")
        indices = self._readout.target
        self._outcomes: list[tuple[int, ...]] = (
            [()] * self.n_examples if indices is None else [tuple(t) for t in indices.tolist()]
        )
        for row, value in enumerate(self._originals.tolist()):
            self._known[self._outcomes[row], contents[row]] = value

    def _read(self, output: Any, rows: Tensor, where: str) -> Tensor:
        """Log-probabilities of the target, or plain values, (V,) in float64."""
        readout = self._readout.at(rows.to(self._readout.target_class.device))
        if readout.kind == "value":
            values = select(output_tensor(output), readout.target).double()
            check_finite(values, where)
            return values.cpu()
        log_probs = readout.log_probs(output, where=where)
        return log_probs.gather(1, readout.target_class[:, None])[:, 0].double().cpu()

    @torch.no_grad()
    def _evaluate(self, rows: Tensor, keep: Tensor, removal: Removal) -> Tensor:
        self._check_removal(removal)
        self._check_subsets(rows, keep)
        rows = rows.to(self.tokens.device)
        keep = keep.to(self.tokens.device) | ~self.tokens[rows]
        if removal not in self._removals:
            self._removals.append(removal)
        operator = self._removals.index(removal)
        packed = np.packbits(keep.cpu().numpy(), axis=1)
        keys = [
            (operator, row, bits.tobytes()) for row, bits in zip(rows.tolist(), packed, strict=True)
        ]
        new = _first(keys, self._cache)
        if new:
            chosen = torch.tensor(new, device=rows.device)
            found = self._run(rows[chosen], keep[chosen], removal).tolist()
            self._cache.update((keys[i], value) for i, value in zip(new, found, strict=True))
        return torch.tensor([self._cache[key] for key in keys], dtype=torch.float64)

    def _check_subsets(self, rows: Tensor, keep: Tensor) -> None:
        expected = (len(rows), self.tokens.shape[1])
        if tuple(keep.shape) != expected or keep.dtype != torch.bool:
            raise InvalidInputError(
                f"keep: expected torch.bool of shape {expected}, one row for each of `rows`, got "
                f"{keep.dtype} of shape {tuple(keep.shape)}"
            )
        if not is_integral(rows) or bool(((rows < 0) | (rows >= self.n_examples)).any()):
            raise InvalidInputError(
                f"rows: expected examples' numbers from 0 to {self.n_examples - 1}, got {rows}"
            )

    def _check_removal(self, removal: Removal) -> None:
        if removal.place != "stays" and not self._has_positions:
            raise InvalidInputError(
                f"removal: {removal.name!r} needs token ids (N, L) or embeddings (N, L, D), got "
                f"inputs {self.inputs.dtype} of shape {tuple(self.inputs.shape)}; use 'mask'"
            )
        if removal.place == "hidden" and self._mask_index is None:
            raise InvalidInputError(
                f"removal: {removal.name!r} needs an argument `attention_mask` of the forward "
                "function, given as a tensor (N, L) among additional_forward_args; got none"
            )

    def _run(self, rows: Tensor, keep: Tensor, removal: Removal) -> Tensor:
        """Values (V,) of different subsets, by one pass for each different content."""
        result = torch.empty(len(rows), dtype=torch.float64)
        where = f"removal by {removal.name}"
        for slab in self._layout.slabs(rows, keep, removal):
            digests = self._layout.digests(slab)
            outcomes = [self._outcomes[row] for row in slab.rows.tolist()]
            keys = list(zip(outcomes, digests, strict=True))
            for part in self._layout.batches(slab, _first(keys, self._known)):
                values = self._read(self._forward(part, where), part.rows, where).tolist()
                found = zip(part.places.tolist(), values, strict=True)
                self._known.update((keys[place], value) for place, value in found)
            values = [self._known[key] for key in keys]
            result[slab.members.cpu()] = torch.tensor(values, dtype=torch.float64)
        return result

    def _forward(self, part: Variants, where: str) -> Any:  # whatever the forward function returns
        self.n_passes += len(part.rows)
        try:
            return run_forward(self.forward_func, (part.inputs,), part.args)
        except Exception as error:
            if part.inputs.numel():
                raise
            raise InvalidInputError(
                f"removal: nothing is left of the examples {part.rows.tolist()[:10]} by {where}, "
                f"and the forward function takes no empty input ({error}); give special tokens "
                "their own ids as baselines, which keeps them, or use removal='mask'"
            ) from error


_Key = TypeVar("_Key", bound=Hashable)


def _first(keys: Sequence[_Key], known: Container[_Key]) -> list[int]:
    """The first place of each key that is not known."""
    new: dict[_Key, int] = {}
    for index, key in enumerate(keys):
        if key not in known:
            new.setdefault(key, index)
    return list(new.values())
