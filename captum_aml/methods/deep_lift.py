"""DeepLIFT with the Rescale rule on the embeddings of the tokens, by Captum's ``LayerDeepLift``.

    m = log p_c - log(1 - p_c)        p_c = sigmoid(m)

What is explained is the probability p_c of the class c, as by every method here. It is written as
the sigmoid of the margin m, which the Rescale rule takes apart exactly and one example at a time;
Captum's rule for a softmax would mix the examples of a batch.

Captum knows the activations ``nn.ReLU``, ``nn.Tanh``, ``nn.Sigmoid`` and a few more. Those of
transformers, GELU and its kin, are added here; the rule for them is the same. Whatever else is not
linear (attention, layer norms, a product of two activations, an activation that is called as a
function, a forward function that does not show its modules) passes its gradient at the text: for
it the method is gradient times difference. For a transformer the scores therefore do *not* sum to
the difference in probability, and can be far from it. A group's score is the sum of its tokens'.

Source: Shrikumar et al. (2017), Learning Important Features Through Propagating Activation
Differences, section 3.5.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from captum.attr import LayerDeepLift
from torch import Tensor, nn

from captum_aml.exceptions import InvalidInputError
from captum_aml.masking.forward import underlying_model
from captum_aml.methods._inputs import TokenInputs, logits_of
from captum_aml.methods._method import ScoringMethod
from captum_aml.methods.registry import MethodOptions, MethodSpec
from captum_aml.typing import ForwardFunc

# Activations that work on each number by itself, as the Rescale rule asks.
_ELEMENTWISE = (nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.ReLU6, nn.SELU, nn.CELU, nn.LogSigmoid)
_ELEMENTWISE_MODULE = "transformers.activations"
# Differences in an activation's input below this are rounding errors, whose slope means nothing.
_LEAST_DIFFERENCE = 1e-6
# Where Captum's hooks leave what passes through an activation.
_HOOK_ATTRIBUTES = ("input", "output")


class RescaleDeepLift(LayerDeepLift):  # type: ignore[misc]  # Captum has no types
    """``LayerDeepLift`` that knows the activations of transformers too."""

    def _is_non_linear(self, module: nn.Module) -> bool:
        kind = type(module)
        ours = kind in _ELEMENTWISE or kind.__module__ == _ELEMENTWISE_MODULE
        return ours or super()._is_non_linear(module)

    def _backward_hook(
        self, module: nn.Module, grad_input: Tensor, grad_output: Tensor
    ) -> Tensor | None:
        if super()._is_non_linear(module):
            known: Tensor = super()._backward_hook(module, grad_input, grad_output)
            return known
        if not self.satisfies_attribute_criteria(module):
            return None  # an earlier pass of a module that runs again: its gradient stays
        (text, reference), (text_out, reference_out) = (
            value.chunk(2) for value in (vars(module).pop(name) for name in _HOOK_ATTRIBUTES)
        )
        difference = (text - reference).repeat(2, *[1] * (text.dim() - 1))
        slope = (text_out - reference_out).repeat(2, *[1] * (text.dim() - 1)) / difference
        return torch.where(difference.abs() < _LEAST_DIFFERENCE, grad_input, grad_output * slope)


class ClassProbability(nn.Module):
    """The explained class's probability, as a module whose activations Captum can find.

    Args:
        forward_func: Token ids to logits (N, C). Its modules are those of the model behind it,
            where that can be told.
        n_classes: The smallest C that holds the explained classes.
    """

    def __init__(self, forward_func: ForwardFunc, n_classes: int) -> None:
        super().__init__()
        # Registered here once, since Captum hooks a module as often as it finds it.
        self.model = underlying_model(forward_func)
        self.logits = logits_of(forward_func, n_classes=n_classes)
        self.sigmoid = nn.Sigmoid()

    def forward(self, ids: Tensor, target: Tensor, *args: object) -> Tensor:
        """Probabilities (N, 1) of the classes ``target`` (N,) for ids (N, L)."""
        logits = self.logits(ids, *args)
        chosen = target[:, None]
        others = logits.scatter(1, chosen, -torch.inf).logsumexp(dim=1, keepdim=True)
        probability: Tensor = self.sigmoid(logits.gather(1, chosen) - others)
        return probability


def _deep_lift(
    forward_func: ForwardFunc, embedding_layer: nn.Module, options: MethodOptions
) -> ScoringMethod:
    def scores(_: Callable[..., Tensor], call: TokenInputs) -> Tensor:
        model = ClassProbability(forward_func, call.n_classes)
        # Captum's rule for nn.Softmax averages over all that passes it, other examples included.
        mixes = any(type(module) is nn.Softmax for module in model.modules())
        calls = call.examples() if mixes else [call]
        with restored(model):
            try:
                parts = [
                    RescaleDeepLift(model, embedding_layer).attribute(
                        part.ids,
                        baselines=part.reference_ids,
                        target=0,
                        additional_forward_args=(part.target, *part.args),
                    )
                    for part in calls
                ]
            except RuntimeError as error:
                if "used more than once" not in str(error):
                    raise
                raise InvalidInputError(
                    "forward_func: deep-lift expects every activation module to run once in a "
                    f"pass, got one that runs again ({error})"
                ) from error
        return call.group_sums(torch.cat(parts).sum(dim=-1))

    return ScoringMethod(forward_func, scores, {}, gradients=True)


@contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """Clears what Captum's hooks leave at modules whose activation has no way back to the text."""
    before = [
        (module, name, name in vars(module))
        for module in model.modules()
        for name in _HOOK_ATTRIBUTES
    ]
    try:
        yield
    finally:
        for module, name, was_there in before:
            if not was_there:
                vars(module).pop(name, None)


METHODS = (
    MethodSpec(
        name="deep-lift",
        summary="differences to the reference passed back, by gradients where there is no rule",
        factory=_deep_lift,
        family="gradient",
    ),
)
