"""DeepLIFT with the Rescale rule on the embeddings of the tokens, by Captum's ``LayerDeepLift``.

    m = log p_c - log(1 - p_c)        p_c = sigmoid(m)

What is explained is the probability p_c of the class c, as by every method here. It is written as
the sigmoid of the margin m, which the Rescale rule takes apart exactly and one example at a time;
Captum's rule for a softmax would mix the examples of a batch. Of independent labels m is the logit
of the label, and of a value, or of log-odds that are explained themselves, there is no sigmoid.

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

import torch
from captum.attr import LayerDeepLift
from torch import Tensor, nn

from captum_aml._captum import HOOK_ATTRIBUTES, without_hook_traces
from captum_aml.exceptions import InvalidInputError
from captum_aml.masking.call import Call
from captum_aml.masking.forward import underlying_model
from captum_aml.methods.adapter import (
    CONTRIBUTION,
    Subject,
    classes_of,
    examples_of,
    group_sums,
    scoring_method,
)

# Activations that work on each number by itself, as the Rescale rule requires.
_ELEMENTWISE = (nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.ReLU6, nn.SELU, nn.CELU, nn.LogSigmoid)
_ELEMENTWISE_MODULE = "transformers.activations"
# Differences in an activation's input below this are rounding errors, whose slope means nothing.
_LEAST_DIFFERENCE = 1e-6


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
        (text, baseline), (text_out, baseline_out) = (
            value.chunk(2) for value in (vars(module).pop(name) for name in HOOK_ATTRIBUTES)
        )
        difference = (text - baseline).repeat(2, *[1] * (text.dim() - 1))
        slope = (text_out - baseline_out).repeat(2, *[1] * (text.dim() - 1)) / difference
        return torch.where(difference.abs() < _LEAST_DIFFERENCE, grad_input, grad_output * slope)


class ExplainedOutput(nn.Module):
    """The explained class's probability, or the value, as a module that Captum can look into.

    Args:
        subject: What is explained. Its modules are those of the model behind the forward function,
            where that is known.
    """

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        # Registered here once, since Captum hooks a module as often as it finds it.
        self.model = underlying_model(subject.forward_func)
        self.logits, self.output = subject.logits, subject.output
        self.sigmoid = nn.Sigmoid()

    def forward(self, ids: Tensor, target: Tensor, *args: object) -> Tensor:
        """What is explained, (N, 1), of the classes ``target`` (N,) for ids (N, L)."""
        logits = self.logits(ids, *args)
        chosen = target[:, None]
        margin = logits.gather(1, chosen)
        if self.output in ("log_odds", "value"):
            return margin
        if self.output == "logits":
            others = logits.scatter(1, chosen, -torch.inf)
            margin = margin - others.logsumexp(dim=1, keepdim=True)
        probability: Tensor = self.sigmoid(margin)
        return probability


@scoring_method(
    "deep-lift",
    "differences to the baseline passed back, by gradients where there is no rule",
    family="gradient",
    gradients=True,
    score=CONTRIBUTION,
)
def _deep_lift(subject: Subject, call: Call) -> Tensor:
    model = ExplainedOutput(subject)
    # Captum's rule for nn.Softmax averages over all that passes it, other examples included.
    mixes = any(type(module) is nn.Softmax for module in model.modules())
    with without_hook_traces(model):
        try:
            parts = [
                RescaleDeepLift(model, subject.embedding_layer).attribute(
                    part.inputs[0],
                    baselines=part.baselines[0],
                    target=0,
                    additional_forward_args=(classes_of(part), *part.additional_forward_args),
                )
                for part in (examples_of(call) if mixes else [call])
            ]
        except RuntimeError as error:
            if "used more than once" not in str(error):
                raise
            raise InvalidInputError(
                "forward_func: deep-lift expects every activation module to run once in a "
                f"pass, got one that runs again ({error})"
            ) from error
    return group_sums(torch.cat(parts).sum(dim=-1), call)
