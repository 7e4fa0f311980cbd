r"""Low-rank changes of a masker's matrices, different for each example of a batch.

A module with the weight :math:`W` (out, in) computes for example :math:`n`

.. math:: (W + \Delta_n)\, x, \qquad \Delta_n = B_n^\top A^\top

with fixed orthonormal directions :math:`A` (in, r), the same for all examples, and coefficients
:math:`B_n` (r, out) of the example's own, 0 at first. Where r would reach the number of inputs,
:math:`A` is the identity and every weight is free. A module's own weight is never touched: a hook
adds :math:`\Delta_n x` to its output, two thin products for the whole batch, and the gradient of
:math:`B_n` needs no more than the gradient of that output.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from captum_aml.tuning._rows import (
    as_output,
    has_bias,
    input_rows,
    is_batched,
    matrix_shape,
    output_rows,
)


class MatrixUpdate:
    """The changes of one module's matrix for N examples.

    Attributes:
        module: The module.
        coefficients: (N, r, outputs), to be changed by an optimizer; ``note`` sets their gradient.
        scale: How much faster they are to be changed than weights that are all free. Of a row of
            n inputs random directions hold a share of r / n, and of a gradient likewise: with n / r
            the module's output changes by as much.

    Args:
        module: A module that is a matrix, see ``is_matrix``.
        factors: For each of its calls in a pass, how many rows of the leading dimension are one
            part's; None for a call that is not about the examples.
        n_examples: The number of examples N.
        parts: The example that each part of what the masker reads belongs to, (R,): several windows
            of a text share its coefficients. Default: None, each example is one part
        rank: The number of directions r.
        seed: The seed of the directions.
        frozen: Whether a bias that needs no gradient is changed, too. Default: False
    """

    def __init__(
        self,
        module: nn.Module,
        factors: Sequence[int | None],
        n_examples: int,
        *,
        rank: int,
        seed: int,
        frozen: bool = False,
        parts: Tensor | None = None,
    ) -> None:
        self.module = module
        self._factors = tuple(factors)
        self._parts = parts
        self._n_parts = n_examples if parts is None else len(parts)
        n_inputs, n_outputs = matrix_shape(module)
        weight = module.weight
        assert isinstance(weight, Tensor)
        dtype = torch.promote_types(weight.dtype, torch.float32)
        # A bias is a weight of an input that is always 1.
        self._has_bias = has_bias(module, frozen=frozen)
        n_inputs += self._has_bias
        drawn = directions(n_inputs, rank, seed=seed).to(weight.device, dtype)
        rank = drawn.shape[1]
        self._directions, self._for_bias = drawn[: matrix_shape(module)[0]], drawn[-1]
        self.scale = n_inputs / rank
        self.coefficients = self._directions.new_zeros(n_examples, rank, n_outputs)
        # They put the outputs of a masker whose weights need no gradient into a graph.
        self.coefficients.requires_grad_()
        self._call = 0
        self._seen: list[tuple[Tensor, GradientEdge]] = []

    def restart(self) -> None:
        """Forgets the calls of the pass before."""
        self._call, self._seen = 0, []

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor
    ) -> Tensor | None:
        """The forward hook (whose arguments are whatever the module is called with)."""
        call, self._call = self._call, self._call + 1
        factor = self._factors[call] if call < len(self._factors) else None
        given = args[0] if args else kwargs["input"]
        if factor is None or given.shape[0] != self._n_parts * factor:
            return None
        seen = input_rows(module, given, self._n_parts) @ self._directions
        if self._has_bias:
            seen = seen + self._for_bias
        own = self.coefficients if self._parts is None else self.coefficients[self._parts]
        changed = output + as_output(module, torch.bmm(seen, own), output)
        if changed.requires_grad:
            # Not the tensor itself, which a module such as ReLU may change in place.
            self._seen.append((seen.detach(), get_gradient_edge(changed)))
        return changed

    @property
    def edges(self) -> list[GradientEdge]:
        """The outputs of the last pass in its graph."""
        return [edge for _, edge in self._seen]

    def note(self, gradients: Iterable[Tensor | None]) -> None:
        """Takes the gradients of the last pass's outputs, None where nothing depends on one."""
        total = torch.zeros_like(self.coefficients)
        for (seen, _), gradient in zip(self._seen, gradients, strict=True):
            if gradient is not None:
                rows = output_rows(self.module, gradient, self._n_parts).to(seen.dtype)
                product = torch.bmm(seen.transpose(1, 2), rows)
                if self._parts is None:
                    total += product
                else:
                    total.index_add_(0, self._parts, product)
        self.coefficients.grad = total
        self._seen = []


def directions(n_inputs: int, rank: int, *, seed: int) -> Tensor:
    """Orthonormal directions (n_inputs, r): random ones, or the axes if there are that many."""
    if rank >= n_inputs:
        return torch.eye(n_inputs)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(n_inputs, rank, generator=generator, dtype=torch.float64)
    orthonormal: Tensor = torch.linalg.qr(drawn)[0]
    return orthonormal


@contextmanager
def applied(updates: Sequence[MatrixUpdate]) -> Iterator[None]:
    """Lets the updates act on a pass of their modules."""
    with ExitStack() as stack:
        for update in updates:
            update.restart()
            handle = update.module.register_forward_hook(update, with_kwargs=True)
            stack.callback(handle.remove)
        yield


@contextmanager
def inputs_given(modules: Sequence[nn.Module]) -> Iterator[dict[nn.Module, list[Tensor | None]]]:
    """Records what modules are given, call by call; None where it cannot be of the examples."""
    seen: dict[nn.Module, list[Tensor | None]] = {module: [] for module in modules}

    def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = args[0] if args else kwargs["input"]
        # A copy: another module may change it in place.
        seen[module].append(given.detach().clone() if is_batched(module, given) else None)

    with ExitStack() as stack:
        for module in modules:
            handle = module.register_forward_pre_hook(record, with_kwargs=True)
            stack.callback(handle.remove)
        yield seen
