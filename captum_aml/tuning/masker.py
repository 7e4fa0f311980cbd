r"""Tunes the masker: changes of its weights for each example, from the fitted ones.

The published form goes on training a copy of the masker for every instance. Here all examples of a
batch are tuned together, each by low-rank changes of its own to the masker's linear and
convolutional modules (:mod:`captum_aml.tuning._updates`), so that a batch costs about its forward
and backward passes, and a few numbers per example instead of a network. Embeddings, normalizations
and whatever is not trained in fitting stay as they are.

Source: Barkan et al., Findings of EMNLP 2024. Deviations: changes are of low rank, and there is no
weight decay.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from captum_aml._modes import evaluating
from captum_aml.exceptions import InvalidInputError
from captum_aml.maskers import MaskerInputs, as_masker
from captum_aml.masking import MaskingProblem
from captum_aml.objectives import Objective
from captum_aml.tuning._descent import TuningResult, descend
from captum_aml.tuning._rows import is_matrix
from captum_aml.tuning._updates import MatrixUpdate, applied, leading_sizes

#: The number of directions in which each matrix of a masker can change.
RANK = 16


def tune_masker(
    problem: MaskingProblem,
    objective: Objective,
    masker: nn.Module,
    *,
    n_steps: int,
    learning_rate: float,
    rank: int = RANK,
    dtype: torch.dtype = torch.float32,
    show_progress: bool = False,
) -> TuningResult:
    """Descends each example's objective by ``n_steps`` steps on the masker's weights.

    The masker itself is not changed; it runs in evaluation mode, without dropout. ``n_steps`` steps
    cost as many forward and backward passes of masker and explained model, and one forward pass of
    both more. Memory, beyond a pass's own, is about ``12 * rank`` bytes for each output of each
    tuned matrix, per example.

    Args:
        problem: What is masked and explained.
        objective: The loss.
        masker: The fitted masker. Its linear and convolutional modules must be given one or more
            rows of the leading dimension for each example, in the examples' order.
        n_steps: The number of steps; 0 only scores the masker's proposal.
        learning_rate: Adam's learning rate at the first step, for weights that are all free; it
            falls linearly to zero. Coefficients of fewer directions change faster in proportion.
        rank: The number of directions in which a matrix can change. Default: 16
        dtype: The masks' dtype. Default: float32
        show_progress: Whether to show a progress bar. Default: False

    Raises:
        InvalidInputError: Nothing of the masker can be tuned for each example by itself.
        NoGradientError: The forward function's result does not depend on the mask.
        NonFiniteError: The loss, the masker, or the forward function gave NaN or an infinite value.
    """
    with evaluating(masker):
        return descend(
            problem,
            objective,
            _MaskerPerExample(problem, masker, n_steps=n_steps, rank=rank, dtype=dtype),
            n_steps=n_steps,
            learning_rate=learning_rate,
            show_progress=show_progress,
        )


class _MaskerPerExample:
    """A masker with weights of each example's own."""

    def __init__(
        self,
        problem: MaskingProblem,
        masker: nn.Module,
        *,
        n_steps: int,
        rank: int,
        dtype: torch.dtype,
    ) -> None:
        self._problem, self._masker, self._dtype = problem, masker, dtype
        n = problem.call.n_examples
        self._updates = (
            [
                MatrixUpdate(module, factors, n, rank=rank, seed=index)
                for index, (module, factors) in enumerate(_tunable(problem, masker).items())
                if any(factors)
            ]
            if n_steps
            else []
        )
        if n_steps and not self._updates:
            raise _nothing_to_tune(masker)
        groups = [{"params": [update.coefficients]} for update in self._updates]
        self._optimizer = torch.optim.Adam(groups or [torch.zeros(1)])

    def propose(self) -> Tensor:
        with applied(self._updates):
            logits = self._problem.propose(as_masker(self._masker))
        if torch.is_grad_enabled() and not logits.requires_grad:
            raise _nothing_to_tune(self._masker)
        return torch.sigmoid(logits.to(self._dtype))

    def differentiate(self, loss: Tensor) -> None:
        edges = [edge for update in self._updates for edge in update.edges]
        gradients = iter(torch.autograd.grad(loss, edges, allow_unused=True))
        for update in self._updates:
            update.note([next(gradients) for _ in update.edges])

    def step(self, learning_rate: float) -> None:
        for group, update in zip(self._optimizer.param_groups, self._updates, strict=True):
            group["lr"] = learning_rate * update.scale
        self._optimizer.step()


def _nothing_to_tune(masker: nn.Module) -> InvalidInputError:
    return InvalidInputError(
        "masker: tune='masker' expected Linear, Conv1d or Conv2d modules whose weights need a "
        "gradient, that are given rows of each example by itself, and whose outputs the logits "
        f"depend on; found none in {type(masker).__name__}. Use tune='mask' with it"
    )


@torch.no_grad()
def _tunable(problem: MaskingProblem, masker: nn.Module) -> dict[nn.Module, list[int | None]]:
    """The modules to tune, and for each of their calls how many leading rows are one example's.

    Leading dimensions that happen to be a multiple of N do not tell: a table of positions that goes
    through a linear module is none of the examples'. So one example is proposed for alone and
    twice, and what is given for it doubles.
    """
    modules = [module for module in masker.modules() if is_matrix(module)]
    given: list[MaskerInputs] = []

    def note(_: nn.Module, args: tuple[Any, ...]) -> None:  # whatever a masker is called with
        given.append(args[0])

    handle = masker.register_forward_pre_hook(note)
    try:
        problem.propose(as_masker(masker))
    finally:
        handle.remove()
    sizes = []
    for times in (1, 2):
        rows = torch.zeros(times, dtype=torch.long)
        with leading_sizes(modules) as seen:
            masker(_rows_of(given[0], rows, problem.call.n_examples))
        sizes.append(seen)
    once, twice = sizes
    return {
        module: [
            one if one > 0 and two == 2 * one else None
            for one, two in zip(once[module], twice[module], strict=False)
        ]
        for module in modules
    }


def _rows_of(inputs: MaskerInputs, rows: Tensor, n_examples: int) -> MaskerInputs:
    """Some examples of what a masker is given."""

    def cut(value: Any) -> Any:  # a field's value: tensors, tuples of them, or None
        if isinstance(value, tuple):
            return tuple(cut(part) for part in value)
        if isinstance(value, Tensor) and value.dim() and len(value) == n_examples:
            return value[rows.to(value.device)]
        return value

    return replace(inputs, **{f.name: cut(getattr(inputs, f.name)) for f in fields(inputs)})


__all__ = ["RANK", "tune_masker"]
