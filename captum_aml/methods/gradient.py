"""Captum's gradient methods on the embeddings of the tokens, summed over the channels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from captum.attr import GradientShap, LayerGradientXActivation, LayerIntegratedGradients
from torch import Tensor, nn

from captum_aml.exceptions import LayerNotReachedError
from captum_aml.methods._inputs import TokenInputs, parse_inputs, seeded
from captum_aml.methods.registry import MethodOptions, MethodSpec, Setting
from captum_aml.typing import ForwardFunc


@dataclass(frozen=True)
class GradientMethod:
    """A gradient method: one function from a checked call to scores, and its settings.

    Attributes:
        forward_func: Token ids to logits (N, C).
        scores: Gives (N, L) from the class probabilities' function and a call.
        settings: What is recorded.
    """

    forward_func: ForwardFunc
    scores: Callable[[Callable[..., Tensor], TokenInputs], Tensor]
    settings: Mapping[str, Setting]

    def __call__(
        self,
        ids: Tensor,
        reference_ids: Tensor,
        *,
        target: Tensor | int | None = None,
        additional_forward_args: tuple[object, ...] = (),
    ) -> Tensor:
        """See ``TokenMethod``."""
        # Callers may be in no_grad or inference mode, where there would be no gradients to read.
        with torch.inference_mode(False), torch.enable_grad():
            args = tuple(_normal(arg) for arg in additional_forward_args)
            call, probabilities = parse_inputs(
                self.forward_func, _normal(ids), _normal(reference_ids), target, args
            )
            scores = self.scores(probabilities, call)
        return scores.detach().float() * call.explained


def _integrated_gradients(
    forward_func: ForwardFunc, embedding_layer: nn.Module, options: MethodOptions
) -> GradientMethod:
    n_steps = options.n_steps or 50

    def scores(probabilities: Callable[..., Tensor], call: TokenInputs) -> Tensor:
        attributions = LayerIntegratedGradients(probabilities, embedding_layer).attribute(
            call.ids,
            baselines=call.reference_ids,
            target=call.target,
            additional_forward_args=call.args,
            n_steps=n_steps,
            internal_batch_size=max(options.batch_size, call.ids.shape[0]),
        )
        assert isinstance(attributions, Tensor)
        return attributions.sum(dim=-1)

    return GradientMethod(forward_func, scores, {"n_steps": n_steps})


def _gradient_shap(
    forward_func: ForwardFunc, embedding_layer: nn.Module, options: MethodOptions
) -> GradientMethod:
    n_samples = options.n_steps or 50

    # Captum's LayerGradientShap adds noise to the ids and interpolates between them, which means
    # nothing, and draws every example's baseline from the whole batch. GradientShap on the
    # embeddings, one example at a time, interpolates between a text and its own reference.
    def scores(probabilities: Callable[..., Tensor], call: TokenInputs) -> Tensor:
        from_embeddings = _from_embeddings(probabilities, embedding_layer)
        method = GradientShap(from_embeddings)
        rows = []
        for example in call.examples():
            with seeded(options.seed):
                attributions = method.attribute(
                    embedding_layer(example.ids).detach(),
                    baselines=embedding_layer(example.reference_ids).detach(),
                    n_samples=n_samples,
                    stdevs=0.0,
                    target=example.target,
                    additional_forward_args=(example.ids, *example.args),
                )
            rows.append(attributions.sum(dim=-1))
        return torch.cat(rows) if rows else torch.zeros(call.ids.shape, device=call.ids.device)

    return GradientMethod(forward_func, scores, {"n_samples": n_samples, "seed": options.seed})


def _input_x_gradient(
    forward_func: ForwardFunc, embedding_layer: nn.Module, options: MethodOptions
) -> GradientMethod:
    def scores(probabilities: Callable[..., Tensor], call: TokenInputs) -> Tensor:
        attributions = LayerGradientXActivation(probabilities, embedding_layer).attribute(
            call.ids, target=call.target, additional_forward_args=call.args
        )
        assert isinstance(attributions, Tensor)
        return attributions.sum(dim=-1)

    return GradientMethod(forward_func, scores, {})


def _from_embeddings(
    probabilities: Callable[..., Tensor], embedding_layer: nn.Module
) -> Callable[..., Tensor]:
    """The same function with the layer's output given instead of computed."""

    def forward(embeddings: Tensor, ids: Tensor, *args: object) -> Tensor:
        replaced = 0

        def replace(_: nn.Module, __: Any, output: Any) -> Tensor:  # whatever the layer returns
            nonlocal replaced
            replaced += 1
            if not isinstance(output, Tensor) or output.shape != embeddings.shape:
                raise LayerNotReachedError(
                    f"embedding_layer: expected an output of shape {tuple(embeddings.shape)}"
                )
            return embeddings.to(output.dtype)

        handle = embedding_layer.register_forward_hook(replace)
        try:
            result = probabilities(ids, *args)
        finally:
            handle.remove()
        if replaced != 1:
            raise LayerNotReachedError(
                f"embedding_layer: expected it to run once in the forward function, it ran "
                f"{replaced} times"
            )
        return result

    return forward


def _normal(value: Any) -> Any:  # an argument of the user's forward function
    """A tensor that autograd may save; those made in inference mode may not be."""
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value


METHODS = (
    MethodSpec(
        name="ig",
        summary="Integrated Gradients from the reference to the text",
        factory=_integrated_gradients,
        steps="integration steps (50)",
    ),
    MethodSpec(
        name="gradient-shap",
        summary="expected gradients at random points between the reference and the text",
        factory=_gradient_shap,
        steps="samples (50)",
    ),
    MethodSpec(
        name="input-x-gradient",
        summary="gradient times embedding",
        factory=_input_x_gradient,
    ),
)
