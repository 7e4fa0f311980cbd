r"""Labels of a fit: which of several independent labels each example is explained for.

A masker that was fitted for each example's highest label alone would not know the others. So where
a batch names no target, half of the examples are explained for a label in proportion to its
probability, and half for any:

.. math:: P(c) = \frac{1}{2} \frac{p_c}{\sum_k p_k} + \frac{1}{2C} .

An example has one label in all epochs, so that what was computed for it holds for all of them, and
one validation can be compared with the next.
"""

from __future__ import annotations

import torch

from captum_aml.masking.problem import MaskingProblem
from captum_aml.readout import as_float, output_tensor
from captum_aml.training.data import derived_seed, example_keys


def with_drawn_labels(problem: MaskingProblem, *, seed: int) -> MaskingProblem:
    """A problem whose batch names no target, with a label drawn for each example.

    Args:
        problem: The problem; one without several independent labels stays as it is.
        seed: The seed. An example's label depends on it and on the example's content alone; where
            the content cannot be compared, it is drawn anew in every epoch.
    """
    readout = problem.readout
    if problem.call.target is not None or readout.n_labels == 1:
        return problem
    p = as_float(output_tensor(problem.capture.output))
    if readout.kind == "independent_logits":
        p = p.sigmoid()
    weights = (p / p.sum(dim=1, keepdim=True).clamp(min=1e-12) + 1 / p.shape[1]).cpu()
    keys = example_keys(problem.call)
    rows = []
    for row, each in enumerate(weights):
        generator = None
        if keys is not None:
            generator = torch.Generator().manual_seed(derived_seed(seed, "label", keys[row].hex()))
        rows.append(torch.multinomial(each, 1, generator=generator))
    return problem.aimed_at(torch.stack(rows).to(p.device))
