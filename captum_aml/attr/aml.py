"""Attributive Masking Learning (AML), for inputs and for layers.

A mask is learned such that the tokens it keeps preserve the prediction, those it leaves out cannot
support it, and as few as possible are kept; its values are the scores. The equation is that of
:mod:`captum_aml.objectives.aml`.

Source: Barkan et al., "LLM Explainability via Attributive Masking Learning", Findings of EMNLP
2024.
"""

from __future__ import annotations

from captum_aml.attr.input import InputMaskAttribution
from captum_aml.attr.layer import LayerMaskAttribution
from captum_aml.objectives import AMLObjective


class AMLAttribution(InputMaskAttribution):
    """Attributive Masking Learning for a forward function's inputs.

    Args:
        forward_func: What is explained: any callable that Captum accepts.
        embedding_layer: For integer ids, the layer that embeds them (one for each input of ids, or
            one for all). Default: None, ``forward_func.get_input_embeddings()``
        masker: A network that proposes masks; see :class:`captum_aml.maskers.Masker`.
            Default: None: masks are tuned from scratch, or ``fit`` makes a small one
        objective: The loss. Default: ``AMLObjective()``
        perturbation: How a mask is applied: ``blend``, ``attention``, ``causal-attention`` or an
            object. Default: ``blend``
        output: How the forward function's result is read; see :mod:`captum_aml.readout`.
            Default: ``auto``
        scores: ``mask``, values in [0, 1], or ``contribution``: the mask rescaled so that an
            example's scores sum to ``F(inputs) - F(baselines)``. Default: ``mask``
        tune: What ``n_steps`` changes for the given inputs: ``mask``, the mask's own logits, or
            ``masker``, the fitted masker's weights, for each example by itself, as published.
            Default: ``mask``
        learning_rate: The learning rate for tuning. Default: for masks 0.1 from a masker's
            proposal and 0.3 from scratch, for maskers 1e-5
        seed: The seed of whatever is random. Default: 0

    Examples:
        >>> aml = AMLAttribution(model)
        >>> scores = aml.attribute(embeddings, baselines=reference)
    """

    _method = "aml"
    _default_objective = AMLObjective

    @classmethod
    def get_name(cls) -> str:
        """The method's name in figures and tables."""
        return "AML"


class LayerAMLAttribution(LayerMaskAttribution):
    """Attributive Masking Learning for the input or output of a layer.

    Args:
        forward_func: What is explained: any callable that Captum accepts.
        layer: The layer, or a list of layers that do not depend on each other.
        device_ids: Devices, where the forward function applies a ``DataParallel`` model without
            being one. Default: None
        masker: A network that proposes masks; see :class:`captum_aml.maskers.Masker`.
            Default: None: masks are tuned from scratch, or ``fit`` makes a small one
        objective: The loss. Default: ``AMLObjective()``
        perturbation: How a mask is applied: ``blend``, ``attention``, ``causal-attention`` or an
            object. Default: ``blend``
        output: How the forward function's result is read; see :mod:`captum_aml.readout`.
            Default: ``auto``
        scores: ``mask``, values in [0, 1], or ``contribution``: the mask rescaled so that an
            example's scores sum to ``F(inputs) - F(baselines)``. Default: ``mask``
        tune: What ``n_steps`` changes for the given inputs: ``mask``, the mask's own logits, or
            ``masker``, the fitted masker's weights, for each example by itself, as published.
            Default: ``mask``
        learning_rate: The learning rate for tuning. Default: for masks 0.1 from a masker's
            proposal and 0.3 from scratch, for maskers 1e-5
        seed: The seed of whatever is random. Default: 0

    Examples:
        >>> aml = LayerAMLAttribution(forward, model.bert.embeddings)
        >>> scores = aml.attribute(ids, baselines=ref_ids, target=1).sum(dim=-1)
    """

    _method = "aml"
    _default_objective = AMLObjective

    @classmethod
    def get_name(cls) -> str:
        """The method's name in figures and tables."""
        return "Layer AML"


__all__ = ["AMLAttribution", "LayerAMLAttribution"]
