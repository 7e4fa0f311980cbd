"""Captum's gradient methods on the embeddings of the tokens.

Where a method multiplies gradients with embeddings, a token's score is the sum over its channels;
where it gives bare gradients, their norm over the channels, which tells how much the token matters
but not for which side it speaks. So is it for a group of tokens: the sum over the channels of all
of them, or the norm over these, the root of the sum of the tokens' squared norms.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from captum.attr import (
    GradientShap,
    LayerGradientXActivation,
    LayerIntegratedGradients,
    NoiseTunnel,
    Saliency,
)
from torch import Tensor, nn

from captum_aml.methods._embeddings import from_embeddings
from captum_aml.methods._inputs import TokenInputs
from captum_aml.methods._method import ScoringMethod, one_by_one
from captum_aml.methods.registry import MethodOptions, MethodSpec
from captum_aml.typing import ForwardFunc

# SmoothGrad's noise, as a share of the spread of the text's embeddings.
_NOISE_LEVEL = 0.15
# How many noisy copies pass the model together. Another number would draw other noise, which is
# why it is not `MethodOptions.batch_size`.
_NOISY_COPIES = 25


def _integrated_gradients(
    forward_func: ForwardFunc, embedding_layer: nn.Module, options: MethodOptions
) -> ScoringMethod:
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
        return call.group_sums(attributions.sum(dim=-1))

    return ScoringMethod(forward_func, scores, {"n_steps": n_steps}, gradients=True)


def _gradient_shap(
    forward_func: ForwardFunc, embedding_layer: nn.Module, options: MethodOptions
) -> ScoringMethod:
    n_samples = options.n_steps or 50

    # Captum's LayerGradientShap adds noise to the ids and interpolates between them, which means
    # nothing, and draws every example's baseline from the whole batch. GradientShap on the
    # embeddings, one example at a time, interpolates between a text and its own reference.
    def scores(probabilities: Callable[..., Tensor], call: TokenInputs) -> Tensor:
        method = GradientShap(from_embeddings(probabilities, embedding_layer))
        attributions: Tensor = method.attribute(
            embedding_layer(call.ids).detach(),
            baselines=embedding_layer(call.reference_ids).detach(),
            n_samples=n_samples,
            stdevs=0.0,
            target=call.target,
            additional_forward_args=(call.ids, *call.args),
        )
        return call.group_sums(attributions.sum(dim=-1))

    return ScoringMethod(
        forward_func,
        one_by_one(scores, seed=options.seed),
        {"n_samples": n_samples, "seed": options.seed},
        gradients=True,
    )


def _input_x_gradient(
    forward_func: ForwardFunc, embedding_layer: nn.Module, options: MethodOptions
) -> ScoringMethod:
    def scores(probabilities: Callable[..., Tensor], call: TokenInputs) -> Tensor:
        attributions = LayerGradientXActivation(probabilities, embedding_layer).attribute(
            call.ids, target=call.target, additional_forward_args=call.args
        )
        assert isinstance(attributions, Tensor)
        return call.group_sums(attributions.sum(dim=-1))

    return ScoringMethod(forward_func, scores, {}, gradients=True)


def _saliency(
    forward_func: ForwardFunc, embedding_layer: nn.Module, options: MethodOptions
) -> ScoringMethod:
    def scores(probabilities: Callable[..., Tensor], call: TokenInputs) -> Tensor:
        gradients: Tensor = Saliency(from_embeddings(probabilities, embedding_layer)).attribute(
            embedding_layer(call.ids).detach().requires_grad_(),
            target=call.target,
            abs=False,
            additional_forward_args=(call.ids, *call.args),
        )
        return call.group_norms(torch.linalg.vector_norm(gradients, dim=-1))

    return ScoringMethod(forward_func, scores, {}, gradients=True)


def _smooth_grad(
    forward_func: ForwardFunc, embedding_layer: nn.Module, options: MethodOptions
) -> ScoringMethod:
    """SmoothGrad: the norm of the mean gradient at noisy copies of the text.

    The noise is Gaussian, of 0.15 times the standard deviation of the text's embeddings. The paper
    takes that share of their range, which suits pixels; embeddings have outlying channels, and
    with noise of that size (three standard deviations for a MiniLM) no token would be itself.
    Only the tokens to explain get noise, so that the rest of a batch, which decides how much
    padding there is, has no say in what is drawn.

    Source: Smilkov et al. (2017), SmoothGrad: removing noise by adding noise, section 3.
    """
    n_samples = options.n_steps or 25

    def scores(probabilities: Callable[..., Tensor], call: TokenInputs) -> Tensor:
        explained = call.explained[0]
        whole = embedding_layer(call.ids).detach()
        chosen = whole[:, explained]
        of_embeddings = from_embeddings(probabilities, embedding_layer)

        def of_chosen(values: Tensor, ids: Tensor, *args: object) -> Tensor:
            embeddings = whole.repeat(values.shape[0], 1, 1)
            embeddings[:, explained] = values
            return of_embeddings(embeddings, ids, *args)

        gradients: Tensor = NoiseTunnel(Saliency(of_chosen)).attribute(
            chosen,
            nt_type="smoothgrad",
            nt_samples=n_samples,
            nt_samples_batch_size=min(n_samples, _NOISY_COPIES),
            stdevs=_NOISE_LEVEL * float(chosen.std(correction=0)),
            target=call.target,
            abs=False,
            additional_forward_args=(call.ids, *call.args),
        )
        result = torch.zeros(call.ids.shape, device=call.ids.device)
        result[:, explained] = torch.linalg.vector_norm(gradients, dim=-1).to(result)
        return call.group_norms(result)

    return ScoringMethod(
        forward_func,
        one_by_one(scores, seed=options.seed),
        {"n_samples": n_samples, "noise_level": _NOISE_LEVEL, "seed": options.seed},
        gradients=True,
    )


METHODS = (
    MethodSpec(
        name="integrated-gradients",
        aliases=("ig",),
        summary="gradients along the straight path from the reference to the text",
        factory=_integrated_gradients,
        family="gradient",
        steps="integration steps (50)",
    ),
    MethodSpec(
        name="gradient-shap",
        summary="expected gradients at random points between the reference and the text",
        factory=_gradient_shap,
        family="gradient",
        stochastic=True,
        steps="samples (50)",
    ),
    MethodSpec(
        name="input-x-gradient",
        summary="gradient times embedding",
        factory=_input_x_gradient,
        family="gradient",
    ),
    MethodSpec(
        name="saliency",
        summary="norm of the gradient; tells how much a token matters, not for which side",
        factory=_saliency,
        family="gradient",
    ),
    MethodSpec(
        name="smooth-grad",
        summary="norm of the mean gradient at noisy embeddings",
        factory=_smooth_grad,
        family="gradient",
        stochastic=True,
        steps="samples (25)",
    ),
)
