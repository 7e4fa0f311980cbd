"""The one class behind the methods that are a function of a checked call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from captum_aml.methods._inputs import TokenInputs, parse_inputs, seeded
from captum_aml.methods.registry import Setting
from captum_aml.typing import ForwardFunc

#: Scores (N, L) from the function that gives class probabilities, and a call of N examples.
Scorer: TypeAlias = Callable[[Callable[..., Tensor], TokenInputs], Tensor]


@dataclass(frozen=True)
class ScoringMethod:
    """A method: a function that scores, and what is recorded of it.

    Attributes:
        forward_func: Token ids to logits (N, C).
        scores: What scores. Tokens of one group get one score.
        settings: What is recorded.
        gradients: Whether ``scores`` takes gradients. Default: False.
        uses_target: Whether scores depend on the explained class; a pass of the model to find the
            predicted ones is saved where they do not. Default: True.
    """

    forward_func: ForwardFunc
    scores: Scorer
    settings: Mapping[str, Setting]
    gradients: bool = False
    uses_target: bool = True

    def __call__(
        self,
        ids: Tensor,
        reference_ids: Tensor,
        *,
        target: Tensor | int | None = None,
        additional_forward_args: tuple[object, ...] = (),
        feature_mask: Tensor | None = None,
    ) -> Tensor:
        """See ``TokenMethod``."""
        if target is None and not self.uses_target:
            target = 0
        # Callers may be in no_grad or inference mode, where there would be no gradients to read.
        with torch.inference_mode(False), torch.set_grad_enabled(self.gradients):
            args = tuple(normal(arg) for arg in additional_forward_args)
            call, probabilities = parse_inputs(
                self.forward_func,
                normal(ids),
                normal(reference_ids),
                target,
                args,
                normal(feature_mask),
            )
            scores = self.scores(probabilities, call)
        return scores.detach().float() * call.explained


def one_by_one(scores: Scorer, *, seed: int) -> Scorer:
    """Scores every example on its own, from the same seed, so that none depends on the others.

    Args:
        scores: Gives (1, L) for a call with one example, in which there is something to explain.
        seed: The seed.
    """

    def scores_of_all(probabilities: Callable[..., Tensor], call: TokenInputs) -> Tensor:
        result = torch.zeros(call.ids.shape, device=call.ids.device)
        for row, example in enumerate(call.examples()):
            if example.explained.any():
                with seeded(seed):
                    result[row] = scores(probabilities, example)[0].detach().to(result)
        return result

    return scores_of_all


def normal(value: Any) -> Any:  # an argument of the user's forward function
    """A tensor that autograd may save; those made in inference mode may not be."""
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value
