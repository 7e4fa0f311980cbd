r"""The forward function of a contrast: why one outcome and not another.

What is explained is the difference of two outputs of the model,

.. math:: z_a - z_b,

for classes that exclude each other the logarithm of the odds of the one against the other,
:math:`\log p_a / p_b`.

Source: the fact and the foil of contrastive explanations are those of Lipton, "Contrastive
Explanation" (1990); Jacovi et al., "Contrastive Explanations for Model Interpretability" (EMNLP
2021), and Yin and Neubig, "Interpreting Language Models with Contrastive Explanations" (EMNLP
2022), explain such differences for language models.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
from torch import Tensor

from captum_aml.exceptions import InvalidInputError
from captum_aml.masking.forward import signature_of, underlying_model
from captum_aml.readout import output_tensor
from captum_aml.typing import ForwardFunc


class ContrastForward:
    """A forward function of the difference of two outputs of another one, (N, C).

    Its last argument names them for each example, (N, 2), after the arguments of the other. It
    gives logits (N, 2) of the foil and the fact, 0 and z_a - z_b, or what the other's method
    ``difference`` makes of the two where it has one.

    Attributes:
        model: The model behind the other forward function.
        tokenizer: Its tokenizer, which some methods read ids with; None where it has none.
    """

    def __init__(self, forward_func: ForwardFunc) -> None:
        self._forward_func = forward_func
        self.model = underlying_model(forward_func)
        self.tokenizer = getattr(forward_func, "tokenizer", None)
        signature = signature_of(forward_func)
        rest = inspect.Parameter("pairs", inspect.Parameter.VAR_POSITIONAL)
        named = [] if signature is None else signature.parameters.values()
        # Tells those who look for an argument by its name.
        self.__signature__ = inspect.Signature(
            [*(p for p in named if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)), rest]
        )

    def __call__(self, ids: Tensor, *args: Tensor) -> Tensor:
        """Logits (N, 2) for token ids, the other's further arguments and the pairs.

        Raises:
            InvalidInputError: There are no such outputs.
        """
        *others, pairs = args
        outputs = output_tensor(self._forward_func(ids, *others))
        pairs = pairs.to(outputs.device)
        if int(pairs.max()) >= outputs.shape[-1]:
            raise InvalidInputError(
                f"target: expected classes from 0 to {outputs.shape[-1] - 1}, got "
                f"{int(pairs.max())}"
            )
        fact, foil = outputs.gather(1, pairs).unbind(dim=1)
        difference = own_difference(self._forward_func) or torch.sub
        d = difference(fact, foil)
        return torch.stack([torch.zeros_like(d), d], dim=1)


def own_difference(forward_func: ForwardFunc) -> Callable[[Tensor, Tensor], Tensor] | None:
    """What a forward function takes for the difference of two outputs (N,), if not z_a - z_b."""
    return getattr(forward_func, "difference", None)
