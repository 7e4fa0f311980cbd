r"""Targets of a fit: which outcomes each example is explained for.

A masker that was fitted for each example's highest label alone would not know the others. So where
a batch names no target, half of the examples are explained for a label in proportion to its
probability, and half for any:

.. math:: P(c) = \frac{1}{2} \frac{p_c}{\sum_k p_k} + \frac{1}{2C} .

Classes that exclude each other are explained for the predicted one. With ``contrasts`` half of the
batches, of classes and of labels, are explained for one outcome against another: the target is
drawn by :math:`P`, and then the foil of those that are left, likewise.

An example has its targets in all epochs, so that what was computed for it holds for all of them,
and one validation can be compared with the next. Which batches are contrasts depends on what is in
them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from captum_aml.exceptions import InvalidInputError
from captum_aml.masking.problem import MaskingProblem
from captum_aml.readout import as_float, output_tensor
from captum_aml.training.data import derived_seed, example_keys


def with_drawn_targets(
    problem: MaskingProblem, *, seed: int, contrasts: bool = False
) -> MaskingProblem:
    """A problem whose batch names no target, with those that are drawn for its examples.

    Args:
        problem: The problem; one with a target stays as it is, and without ``contrasts`` one of
            anything but several independent labels.
        seed: The seed. An example's targets depend on it and on the example's content alone; where
            the content cannot be compared, they are drawn anew in every epoch.
        contrasts: Whether half of the batches are contrasts. Default: False

    Raises:
        InvalidInputError: There are to be contrasts of outputs without several outcomes.
    """
    readout = problem.readout
    if problem.call.target is not None:
        return problem
    if contrasts and readout.label is None:
        raise InvalidInputError(
            f"contrasts: expected False, since output={readout.kind!r} reads one value per "
            "example, which cannot be held against another"
        )
    keys = example_keys(problem.call)
    with_foil = contrasts and bool(torch.rand((), generator=_generator(seed, "batch", keys)) < 0.5)
    if readout.n_labels == 1 and not with_foil:
        return problem
    weights = _weights(problem).cpu()
    drawn = torch.stack(
        [
            torch.multinomial(
                each,
                2 if with_foil else 1,
                generator=_generator(seed, "label", None if keys is None else keys[row : row + 1]),
            )
            for row, each in enumerate(weights)
        ]
    ).to(problem.layout.maskable_units.device)
    return problem.aimed_at(drawn[:, :1], drawn[:, 1:] if with_foil else None)


def _generator(seed: int, purpose: str, keys: list[bytes] | None) -> torch.Generator:
    """The generator for some examples, which nothing but their content decides if it is known."""
    if keys is None:
        return torch.Generator().manual_seed(int(torch.randint(2**31, ())))
    return torch.Generator().manual_seed(derived_seed(seed, purpose, *(k.hex() for k in keys)))


def _weights(problem: MaskingProblem) -> Tensor:
    """Twice the P of the outcomes, (N, C)."""
    readout = problem.readout
    p = readout.probabilities
    if readout.n_labels > 1:
        p = as_float(output_tensor(problem.capture.output))
        p = p.sigmoid() if readout.kind == "independent_logits" else p
    return p / p.sum(dim=1, keepdim=True).clamp(min=1e-12) + 1 / p.shape[1]
