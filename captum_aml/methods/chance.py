"""Random scores, the floor that every method has to beat."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from captum_aml.methods._inputs import TokenInputs
from captum_aml.methods._method import ScoringMethod
from captum_aml.methods.registry import MethodOptions, MethodSpec
from captum_aml.typing import ForwardFunc


def _random(
    forward_func: ForwardFunc, embedding_layer: nn.Module, options: MethodOptions
) -> ScoringMethod:
    """Uniform scores in [0, 1), drawn anew for each text from the seed and the text's own ids.

    A text has the same scores in every batch, and different texts have different rankings. A group
    of tokens has one number. The model is never run.
    """

    def scores(_: Callable[..., Tensor], call: TokenInputs) -> Tensor:
        result = torch.zeros(call.ids.shape)
        for row, example in enumerate(call.examples()):
            explained = example.explained[0].cpu()
            ids = example.ids[0].cpu()[explained].tolist()
            generator = np.random.default_rng([value % 2**64 for value in (options.seed, *ids)])
            drawn = generator.random(example.n_groups, dtype=np.float32)
            groups = example.groups[0].cpu()[explained]
            result[row, explained] = torch.from_numpy(drawn)[groups]
        return result.to(call.ids.device)

    return ScoringMethod(forward_func, scores, {"seed": options.seed}, uses_target=False)


METHODS = (
    MethodSpec(
        name="random",
        summary="uniform random numbers, different ones for each text",
        factory=_random,
        family="random",
        signed=False,
        stochastic=True,
    ),
)
