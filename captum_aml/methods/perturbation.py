"""Captum's perturbation methods: tokens, or groups of them, replaced by the reference token."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from captum.attr import FeatureAblation, KernelShap, Lime, ShapleyValueSampling
from torch import Tensor, nn

from captum_aml._captum import SkLearnRidge
from captum_aml._optional import require
from captum_aml.exceptions import InvalidInputError
from captum_aml.methods._inputs import TokenInputs
from captum_aml.methods._method import Scorer, ScoringMethod, one_by_one
from captum_aml.methods.registry import MethodOptions, MethodSpec, Setting
from captum_aml.typing import ForwardFunc

# The settings of the LIME authors' own text explainer: a ridge regression, weighted by
# sqrt(exp(-(100 d)^2 / 25^2)) where d is the cosine distance between the kept tokens and all.
_LIME_KERNEL_WIDTH = 0.25
_LIME_RIDGE = 1.0


def _occlusion(
    forward_func: ForwardFunc, embedding_layer: nn.Module, options: MethodOptions
) -> ScoringMethod:
    def scores(probabilities: Callable[..., Tensor], call: TokenInputs) -> Tensor:
        attributions: Tensor = FeatureAblation(probabilities).attribute(
            **_arguments(call, options),
        )
        return attributions

    return _method(forward_func, scores, {}, options)


def _lime(
    forward_func: ForwardFunc, embedding_layer: nn.Module, options: MethodOptions
) -> ScoringMethod:
    _require_sklearn("lime")
    n_samples = options.n_steps or 500

    def similarity(_: Tensor, __: Tensor, kept: Tensor, **___: object) -> Tensor:
        # The cosine between a 0/1 vector and the vector of ones is the root of the kept share.
        distance = 1.0 - math.sqrt(float(kept.float().mean()))
        return torch.tensor([math.exp(-(distance**2) / (2 * _LIME_KERNEL_WIDTH**2))])

    def scores(probabilities: Callable[..., Tensor], call: TokenInputs) -> Tensor:
        regression = SkLearnRidge(alpha=_LIME_RIDGE)
        method = Lime(probabilities, regression, similarity_func=similarity)
        attributions: Tensor = method.attribute(
            **_arguments(call, options),
            n_samples=n_samples,
        )
        return attributions

    settings: dict[str, Setting] = {
        "n_samples": n_samples,
        "kernel_width": _LIME_KERNEL_WIDTH,
        "ridge": _LIME_RIDGE,
        "seed": options.seed,
    }
    return _method(forward_func, scores, settings, options)


def _kernel_shap(
    forward_func: ForwardFunc, embedding_layer: nn.Module, options: MethodOptions
) -> ScoringMethod:
    _require_sklearn("kernel-shap")
    n_samples = options.n_steps or 500
    if n_samples < 2:
        raise InvalidInputError(
            f"n_steps: kernel-shap needs 2 samples or more, the full and the empty text, got "
            f"{n_samples}"
        )

    def scores(probabilities: Callable[..., Tensor], call: TokenInputs) -> Tensor:
        if call.n_groups == 1:
            # With one feature its Shapley value is the whole difference, and Captum's sampling
            # distribution over coalition sizes is empty.
            full = probabilities(call.ids, *call.args)
            empty = probabilities(call.reference_ids, *call.args)
            difference = (full - empty).gather(1, call.target[:, None])
            return difference.expand(call.ids.shape)
        attributions: Tensor = KernelShap(probabilities).attribute(
            **_arguments(call, options),
            n_samples=n_samples,
        )
        return attributions

    settings: dict[str, Setting] = {"n_samples": n_samples, "seed": options.seed}
    return _method(forward_func, scores, settings, options)


def _shapley_sampling(
    forward_func: ForwardFunc, embedding_layer: nn.Module, options: MethodOptions
) -> ScoringMethod:
    n_samples = options.n_steps or 25

    def scores(probabilities: Callable[..., Tensor], call: TokenInputs) -> Tensor:
        attributions: Tensor = ShapleyValueSampling(probabilities).attribute(
            **_arguments(call, options),
            n_samples=n_samples,
        )
        return attributions

    settings: dict[str, Setting] = {"n_samples": n_samples, "seed": options.seed}
    return _method(forward_func, scores, settings, options)


def _method(
    forward_func: ForwardFunc,
    scores: Scorer,
    settings: dict[str, Setting],
    options: MethodOptions,
) -> ScoringMethod:
    return ScoringMethod(forward_func, one_by_one(scores, seed=options.seed), settings)


def _arguments(
    call: TokenInputs, options: MethodOptions
) -> dict[str, Any]:  # keyword arguments of Captum's, which have no types
    """What every perturbation method of Captum's is given for one text."""
    return {
        "inputs": call.ids,
        "baselines": call.reference_ids,
        "target": call.target,
        "additional_forward_args": call.args,
        # Where there is nothing to explain, feature 0 changes nothing: the reference is the same.
        "feature_mask": call.groups.clamp(min=0),
        "perturbations_per_eval": options.batch_size,
    }


def _require_sklearn(method: str) -> None:
    require("sklearn", package="scikit-learn", feature=f"method {method!r}")


METHODS = (
    MethodSpec(
        name="occlusion",
        aliases=("leave-one-out",),
        summary="drop in probability when a token alone is replaced",
        factory=_occlusion,
        family="perturbation",
    ),
    MethodSpec(
        name="lime",
        summary="a local linear model over randomly replaced tokens",
        factory=_lime,
        family="perturbation",
        stochastic=True,
        steps="samples (500)",
    ),
    MethodSpec(
        name="kernel-shap",
        summary="Shapley values by weighted linear regression",
        factory=_kernel_shap,
        family="perturbation",
        stochastic=True,
        steps="samples (500)",
    ),
    MethodSpec(
        name="shapley-sampling",
        summary="Shapley values over random orders of the tokens",
        factory=_shapley_sampling,
        family="perturbation",
        stochastic=True,
        steps="orders (25)",
    ),
)
