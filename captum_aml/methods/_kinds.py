"""Captum attributions that can explain token ids, and what to use instead of the others."""

from __future__ import annotations

import inspect

from captum.attr import (
    Attribution,
    FeaturePermutation,
    InternalInfluence,
    LayerConductance,
    LayerDeepLiftShap,
    LayerFeaturePermutation,
    LayerGradientShap,
    NoiseTunnel,
)

from captum_aml._captum import GradientAttribution, LayerAttribution
from captum_aml.exceptions import InvalidInputError

# Why a class cannot explain ids, the first that fits, and what can.
_REFUSED: tuple[tuple[type | tuple[type, ...], str, str], ...] = (
    (NoiseTunnel, "adds noise to its inputs, and ids are no quantities", "method 'smooth-grad'"),
    (
        (LayerGradientShap, LayerConductance, InternalInfluence),
        "goes through values between the inputs and the baselines, and between ids there are none",
        "LayerIntegratedGradients, or method 'gradient-shap'",
    ),
    (LayerDeepLiftShap, "takes many baselines for each text", "LayerDeepLift"),
    (
        (FeaturePermutation, LayerFeaturePermutation),
        "takes what it replaces from other texts of the batch",
        "FeatureAblation",
    ),
)
# What to use at the embedding layer instead of a class that takes gradients of its inputs.
_AT_EMBEDDINGS = {
    "IntegratedGradients": "LayerIntegratedGradients at the embedding layer",
    "InputXGradient": "LayerGradientXActivation at the embedding layer",
    "DeepLift": "LayerDeepLift at the embedding layer",
    "DeepLiftShap": "LayerDeepLift at the embedding layer",
    "LRP": "LayerLRP",
    "Saliency": "method 'saliency'",
    "GradientShap": "method 'gradient-shap'",
}
# The arguments that `attribute` may have: a token method knows them all.
_KNOWN = ("inputs", "baselines", "target", "additional_forward_args", "sliding_window_shapes")


def check_explains_ids(attribution: object) -> None:
    """Checks that an attribution can explain token ids.

    Raises:
        InvalidInputError: It is no instance of a Captum attribution, or of one that cannot; the
            message says what can instead.
    """
    if isinstance(attribution, type) and issubclass(attribution, Attribution):
        raise InvalidInputError(
            f"attribution: expected an instance, got the class {attribution.__name__}; make one "
            "with the forward function, and the layer where it takes one"
        )
    if not isinstance(attribution, Attribution):
        raise InvalidInputError(
            "attribution: expected an instance of a Captum attribution, got "
            f"{type(attribution).__name__}"
        )
    name = type(attribution).__name__
    parameters = inspect.signature(attribution.attribute).parameters
    named = [p for p in parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    needs = [p.name for p in named if p.default is p.empty and p.name not in _KNOWN]
    if "inputs" not in parameters or needs:
        raise InvalidInputError(
            f"attribution: expected one that explains inputs and needs nothing else, got {name}, "
            f"which needs {', '.join(needs)}"
        )
    for kind, reason, instead in _REFUSED:
        if isinstance(attribution, kind):
            raise InvalidInputError(
                f"attribution: expected one that explains token ids, got {name}, which {reason}; "
                f"use {instead}"
            )
    at_inputs = isinstance(attribution, GradientAttribution) and not isinstance(
        attribution, LayerAttribution
    )
    # A user's own class may well find the embeddings by itself, as ours do.
    if at_inputs and type(attribution).__module__.startswith("captum."):
        instead = _AT_EMBEDDINGS.get(name, "LayerIntegratedGradients at the embedding layer")
        raise InvalidInputError(
            f"attribution: expected one that explains token ids, got {name}, which takes gradients "
            f"of its inputs, and ids have none; use {instead}"
        )
