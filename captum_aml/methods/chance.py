"""Random scores, the floor that every method has to beat."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from captum_aml.masking.call import Call
from captum_aml.methods.adapter import Subject, count_groups, groups_of, scoring_method


@scoring_method(
    "random",
    "uniform random numbers, different ones for each text",
    family="random",
    settings=lambda subject: {"seed": subject.seed},
    signed=False,
    score="random number",
    stochastic=True,
    uses_target=False,
)
def _random(subject: Subject, call: Call) -> Tensor:
    """Uniform scores in [0, 1), drawn anew for each text from the seed and the text's own ids.

    A text has the same scores in every batch, and different texts have different rankings. A group
    of tokens has one number. The model is never run.
    """
    result = torch.zeros(call.inputs[0].shape)
    texts = zip(call.inputs[0].cpu(), groups_of(call).cpu(), strict=True)
    for row, (ids, groups) in enumerate(texts):
        maskable = groups >= 0
        seeds = (subject.seed, *ids[maskable].tolist())
        generator = np.random.default_rng([value % 2**64 for value in seeds])
        drawn = generator.random(count_groups(groups), dtype=np.float32)
        result[row, maskable] = torch.from_numpy(drawn)[groups[maskable]]
    return result.to(call.inputs[0].device)
