"""Captum's gradient and perturbation methods on token ids.

Gradient methods work on the embeddings of the tokens. Where a method multiplies gradients with
embeddings, a token's score is the sum over its channels; where it gives bare gradients, their norm
over the channels, which measures how much the token matters and not which class it supports. A
group of tokens has the sum over the channels of all of them, or the norm over these, the root of
the sum of the tokens' squared norms.

Perturbation methods replace tokens, or groups of them, by the baseline token.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from captum.attr import (
    FeatureAblation,
    GradientShap,
    KernelShap,
    LayerGradientXActivation,
    LayerIntegratedGradients,
    Lime,
    NoiseTunnel,
    Saliency,
    ShapleyValueSampling,
)
from torch import Tensor, nn

from captum_aml._captum import SkLearnRidge
from captum_aml._utils.hooks import run_with_output
from captum_aml._utils.optional import require
from captum_aml.exceptions import InvalidInputError
from captum_aml.masking.call import Call
from captum_aml.methods.adapter import (
    CONTRIBUTION,
    Subject,
    classes_of,
    count_groups,
    group_norms,
    group_sums,
    groups_of,
    maskable_of,
    sampled,
    scoring_method,
)

_gradient_method = partial(scoring_method, family="gradient", gradients=True)
_sampling_method = partial(scoring_method, settings=sampled, stochastic=True, one_by_one=True)

# SmoothGrad's noise, as a share of the spread of the text's embeddings.
_NOISE_LEVEL = 0.15
# How many noisy copies pass the model together. Another number would draw other noise, which is
# why it is not `MethodOptions.batch_size`.
_NOISY_COPIES = 25
# The settings of the LIME authors' own text explainer: a ridge regression, weighted by
# sqrt(exp(-(100 d)^2 / 25^2)) where d is the cosine distance between the kept tokens and all.
_LIME_KERNEL_WIDTH = 0.25
_LIME_RIDGE = 1.0


@_gradient_method(
    "integrated-gradients",
    "gradients along the straight path from the baseline to the text",
    aliases=("ig",),
    steps=("integration steps", 50),
    settings=lambda subject: {"n_steps": subject.n_steps},
    score=CONTRIBUTION,
)
def _integrated_gradients(subject: Subject, call: Call) -> Tensor:
    attributions = _attributed(
        LayerIntegratedGradients(subject.probabilities, subject.embedding_layer),
        call,
        baselines=call.baselines[0],
        n_steps=subject.n_steps,
        internal_batch_size=max(subject.batch_size, call.n_examples),
    )
    return group_sums(attributions.sum(dim=-1), call)


@_sampling_method(
    "gradient-shap",
    "expected gradients at random points between the baseline and the text",
    family="gradient",
    steps=("samples", 50),
    gradients=True,
    score=CONTRIBUTION,
)
def _gradient_shap(subject: Subject, call: Call) -> Tensor:
    # Captum's LayerGradientShap adds noise to the ids and interpolates between them, which means
    # nothing, and draws every example's baseline from the whole batch. GradientShap on the
    # embeddings, one example at a time, interpolates between a text and its own baseline.
    layer = subject.embedding_layer
    attributions = _attributed(
        GradientShap(from_embeddings(subject.probabilities, layer)),
        call,
        layer(call.inputs[0]).detach(),
        baselines=layer(call.baselines[0]).detach(),
        n_samples=subject.n_steps,
        stdevs=0.0,
    )
    return group_sums(attributions.sum(dim=-1), call)


@_gradient_method(
    "input-x-gradient",
    "gradient times embedding",
    score="gradient of the probability of the explained class, times the embedding",
)
def _input_x_gradient(subject: Subject, call: Call) -> Tensor:
    method = LayerGradientXActivation(subject.probabilities, subject.embedding_layer)
    return group_sums(_attributed(method, call).sum(dim=-1), call)


@_gradient_method(
    "saliency",
    "norm of the gradient; shows how much a token matters, not for which side",
    signed=False,
    relative=True,
    score="norm of the gradient of the probability of the explained class",
)
def _saliency(subject: Subject, call: Call) -> Tensor:
    layer = subject.embedding_layer
    method = Saliency(from_embeddings(subject.probabilities, layer))
    embeddings = layer(call.inputs[0]).detach().requires_grad_()
    gradients = _attributed(method, call, embeddings, abs=False)
    return group_norms(torch.linalg.vector_norm(gradients, dim=-1), call)


@_sampling_method(
    "smooth-grad",
    "norm of the mean gradient at noisy embeddings",
    family="gradient",
    steps=("samples", 25),
    settings=lambda subject: {**sampled(subject), "noise_level": _NOISE_LEVEL},
    gradients=True,
    signed=False,
    relative=True,
    score="norm of the mean gradient of the probability of the explained class",
)
def _smooth_grad(subject: Subject, call: Call) -> Tensor:
    """SmoothGrad: the norm of the mean gradient at noisy copies of the text.

    The noise is Gaussian, of 0.15 times the standard deviation of the text's embeddings. The paper
    takes that share of their range, which suits pixels; embeddings have outlying channels, and
    with noise of that size (three standard deviations for a MiniLM) no token would be itself.
    Only the tokens to explain get noise, so that the rest of a batch, which decides how much
    padding there is, has no say in what is drawn.

    Source: Smilkov et al. (2017), SmoothGrad: removing noise by adding noise, section 3.
    """
    maskable = maskable_of(call)[0]
    whole = subject.embedding_layer(call.inputs[0]).detach()
    chosen = whole[:, maskable]
    of_embeddings = from_embeddings(subject.probabilities, subject.embedding_layer)

    def of_chosen(values: Tensor, ids: Tensor, *args: object) -> Tensor:
        embeddings = whole.repeat(values.shape[0], 1, 1)
        embeddings[:, maskable] = values
        return of_embeddings(embeddings, ids, *args)

    gradients = _attributed(
        NoiseTunnel(Saliency(of_chosen)),
        call,
        chosen,
        nt_type="smoothgrad",
        nt_samples=subject.n_steps,
        nt_samples_batch_size=min(subject.n_steps, _NOISY_COPIES),
        stdevs=_NOISE_LEVEL * float(chosen.std(correction=0)),
        abs=False,
    )
    result = torch.zeros(maskable[None].shape, device=maskable.device)
    result[:, maskable] = torch.linalg.vector_norm(gradients, dim=-1).to(result)
    return group_norms(result, call)


def from_embeddings(
    function: Callable[..., Tensor], embedding_layer: nn.Module
) -> Callable[..., Tensor]:
    """A function of ids with the embedding layer's output given instead of computed.

    Args:
        function: ``(ids, *args)`` to a tensor.
        embedding_layer: The layer inside it that embeds the ids.

    Returns:
        ``(embeddings, ids, *args)`` to the same tensor.
    """

    def forward(embeddings: Tensor, ids: Tensor, *args: object) -> Tensor:
        def given(output: Tensor) -> Tensor | None:
            return embeddings.to(output.dtype) if output.shape == embeddings.shape else None

        result: Tensor = run_with_output(
            embedding_layer, given, lambda: function(ids, *args), tuple(embeddings.shape)
        )
        return result

    return forward


@scoring_method(
    "occlusion",
    "drop in probability when a token alone is replaced",
    aliases=("leave-one-out",),
    family="perturbation",
    one_by_one=True,
    score="drop in the probability of the explained class when replaced alone",
)
def _occlusion(subject: Subject, call: Call) -> Tensor:
    return _perturbed(FeatureAblation(subject.probabilities), subject, call)


@_sampling_method(
    "lime",
    "a local linear model over randomly replaced tokens",
    family="perturbation",
    steps=("samples", 500),
    settings=lambda subject: {
        **sampled(subject),
        "kernel_width": _LIME_KERNEL_WIDTH,
        "ridge": _LIME_RIDGE,
    },
    check=lambda _: _require_sklearn("lime"),
    score="weight in a linear model of the probability of the explained class",
)
def _lime(subject: Subject, call: Call) -> Tensor:
    def similarity(_: Tensor, __: Tensor, kept: Tensor, **___: object) -> Tensor:
        # The cosine between a 0/1 vector and the vector of ones is the root of the kept share.
        distance = 1.0 - math.sqrt(float(kept.float().mean()))
        return torch.tensor([math.exp(-(distance**2) / (2 * _LIME_KERNEL_WIDTH**2))])

    regression = SkLearnRidge(alpha=_LIME_RIDGE)
    method = Lime(subject.probabilities, regression, similarity_func=similarity)
    return _perturbed(method, subject, call, n_samples=subject.n_steps)


def _check_kernel_shap(subject: Subject) -> None:
    _require_sklearn("kernel-shap")
    if subject.n_steps < 2:
        raise InvalidInputError(
            f"n_steps: kernel-shap needs 2 samples or more, the full and the empty text, got "
            f"{subject.n_steps}"
        )


@_sampling_method(
    "kernel-shap",
    "Shapley values by weighted linear regression",
    family="perturbation",
    steps=("samples", 500),
    check=_check_kernel_shap,
    score=CONTRIBUTION,
)
def _kernel_shap(subject: Subject, call: Call) -> Tensor:
    if count_groups(groups_of(call)) == 1:
        # With one feature its Shapley value is the whole difference, and Captum's sampling
        # distribution over coalition sizes is empty.
        return _occlusion(subject, call)
    return _perturbed(KernelShap(subject.probabilities), subject, call, n_samples=subject.n_steps)


@_sampling_method(
    "shapley-sampling",
    "Shapley values over random orders of the tokens",
    family="perturbation",
    steps=("orders", 25),
    score=CONTRIBUTION,
)
def _shapley_sampling(subject: Subject, call: Call) -> Tensor:
    method = ShapleyValueSampling(subject.probabilities)
    return _perturbed(method, subject, call, n_samples=subject.n_steps)


def _perturbed(
    method: Any,  # a perturbation method of Captum's, which have no types
    subject: Subject,
    call: Call,
    **settings: Any,
) -> Tensor:
    """The scores of a perturbation method for one text (1, L)."""
    return _attributed(
        method,
        call,
        baselines=call.baselines[0],
        # Where there is nothing to explain, feature 0 changes nothing: the baseline is the same.
        feature_mask=groups_of(call).clamp(min=0),
        perturbations_per_eval=subject.batch_size,
        **settings,
    )


def _attributed(
    method: Any, call: Call, embeddings: Tensor | None = None, **settings: object
) -> Tensor:
    """Attributions for a call, or for embeddings, which the ids then follow as an argument."""
    args = call.additional_forward_args
    attributions: Tensor = method.attribute(
        call.inputs[0] if embeddings is None else embeddings,
        target=classes_of(call),
        additional_forward_args=args if embeddings is None else (*call.inputs, *args),
        **settings,
    )
    return attributions


def _require_sklearn(method: str) -> None:
    require("sklearn", package="scikit-learn", feature=f"method {method!r}")
