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

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from captum_aml._utils.isolation import evaluating
from captum_aml.exceptions import InvalidInputError
from captum_aml.maskers import MaskerInputs, MaskerWindows
from captum_aml.masking.call import has_rows
from captum_aml.masking.problem import MaskingProblem
from captum_aml.tuning._rows import is_matrix
from captum_aml.tuning._updates import MatrixUpdate, applied, inputs_given

#: The number of directions in which each matrix of a masker can change.
RANK = 16


class MaskerWeights:
    """A masker with weights of each example's own.

    The masker itself is not changed; it runs in evaluation mode, without dropout. Memory, beyond a
    pass's own, is about ``16 * rank`` bytes for each output of each tuned matrix, per example: a
    coefficient, its gradient, and Adam's two moments. Learning rates are for weights that are all
    free; coefficients of fewer directions change faster in proportion.

    Args:
        problem: What is masked and explained.
        masker: The fitted masker. Its linear and convolutional modules must be given one or more
            rows of the leading dimension for each example, in the examples' order; others stay as
            they are. So do modules whose weights need no gradient, unless none does.
        n_steps: The number of steps; with 0 nothing is looked for that could be tuned.
        rank: The number of directions in which a matrix can change. Default: 16
        dtype: The masks' dtype. Default: float32

    Raises:
        InvalidInputError: Nothing of the masker can be tuned for each example by itself.
    """

    def __init__(
        self,
        problem: MaskingProblem,
        masker: nn.Module,
        *,
        n_steps: int,
        rank: int = RANK,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._problem, self._masker, self._dtype = problem, masker, dtype
        n = problem.call.n_examples
        # Whoever freezes the whole masker wants it kept as it is, and it is: only the changes of
        # each example are tuned. Freezing a part of it says which part to tune.
        frozen = not any(parameter.requires_grad for parameter in masker.parameters())
        with evaluating(masker):
            tunable, parts = _tunable(problem, masker, frozen=frozen) if n_steps else ({}, None)
        self._updates = [
            MatrixUpdate(module, factors, n, rank=rank, seed=index, frozen=frozen, parts=parts)
            for index, (module, factors) in enumerate(tunable.items())
            if any(factors)
        ]
        if n_steps and not self._updates:
            raise _nothing_to_tune(masker)
        groups = [{"params": [update.coefficients]} for update in self._updates]
        self._optimizer = torch.optim.Adam(groups or [torch.zeros(1)])

    def propose(self) -> Tensor:
        """The masks now, (N, U)."""
        with evaluating(self._masker), applied(self._updates):
            logits = self._problem.propose(self._masker)
        if torch.is_grad_enabled() and not logits.requires_grad:
            raise _nothing_to_tune(self._masker)
        return torch.sigmoid(logits.to(self._dtype))

    def differentiate(self, loss: Tensor) -> None:
        """See ``Tunable``."""
        edges = [edge for update in self._updates for edge in update.edges]
        gradients = iter(torch.autograd.grad(loss, edges, allow_unused=True))
        for update in self._updates:
            update.note([next(gradients) for _ in update.edges])

    def step(self, learning_rate: float) -> None:
        """See ``Tunable``."""
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
def _tunable(
    problem: MaskingProblem, masker: nn.Module, *, frozen: bool
) -> tuple[dict[nn.Module, list[int | None]], Tensor | None]:
    """The modules to tune, and for each of their calls how many leading rows are one example's.

    Of a masker that reads texts in windows these are a window's, and each window's example comes
    with them, (R,); otherwise that is None.

    Leading dimensions that happen to be a multiple of N prove nothing: a table of positions that
    goes through a linear module is none of the examples', and a masker may put the first tokens of
    all examples before their second ones. So the masker proposes for one example alone, and for it
    and another one: what is given for the example has to come first, and unchanged.
    """
    modules = [module for module in masker.modules() if is_matrix(module, frozen=frozen)]
    given: list[MaskerInputs] = []
    parts: Tensor | None = None

    def note(_: nn.Module, args: tuple[Any, ...]) -> None:  # whatever a masker is called with
        given.append(args[0])

    handle = masker.register_forward_pre_hook(note)
    try:
        problem.propose(masker)
    finally:
        handle.remove()
    shown, n_parts, network = given[0], problem.call.n_examples, masker
    read: Any = getattr(masker, "windows", None)  # an optional member
    if read is not None:
        windows: MaskerWindows = read(shown)
        shown, parts, network = windows.inputs, windows.examples, windows.network
        n_parts = len(parts)
    seen = []
    for with_another in (False, True):
        with inputs_given(modules) as calls:
            network(_first(shown, n_parts, with_another=with_another))
        seen.append(calls)
    alone, beside = seen
    factors = {
        module: [
            len(one) if one is not None and _comes_first(one, both) else None
            for one, both in zip(alone[module], beside[module], strict=False)
        ]
        for module in modules
    }
    return factors, parts


def _comes_first(one: Tensor, both: Tensor | None) -> bool:
    """Whether what is given for an example is the first half of what is given for it and another.

    In a batch, numbers may be rounded otherwise.
    """
    if both is None or not len(one) or both.shape != (2 * len(one), *one.shape[1:]):
        return False
    tolerance = max(0.01, torch.finfo(one.dtype).eps ** 0.5)
    exact, first = one.double(), both[: len(one)].double()
    return bool((exact - first).norm() <= tolerance * exact.norm())


def _first(inputs: MaskerInputs, n_examples: int, *, with_another: bool) -> MaskerInputs:
    """A masker's inputs for the first example, perhaps with one that is like no other.

    That has the first one's length and padding, and the second one's ids, which can be embedded.
    """

    def cut(value: Any, second: int, *, turned: bool = False) -> Any:  # a field's value
        if isinstance(value, tuple):
            return tuple(cut(part, second, turned=turned) for part in value)
        if not has_rows(value, n_examples):
            return value
        other = value[second : second + 1]
        if turned and value.is_floating_point():
            other = -value[:1].flip(1) if value.dim() > 1 else -value[:1]
        return torch.cat([value[:1], other]) if with_another else value[:1]

    second = min(1, n_examples - 1)
    return replace(
        inputs,
        features=cut(inputs.features, second, turned=True),
        inputs=cut(inputs.inputs, second, turned=True),
        probabilities=cut(inputs.probabilities, second),
        maskable=cut(inputs.maskable, 0),
        attention_mask=cut(inputs.attention_mask, 0),
        token_type_ids=cut(inputs.token_type_ids, 0),
        hidden_states=cut(inputs.hidden_states, second, turned=True),
    )
