"""Learning Attributions (LA), for inputs and for layers.

The mask marks what to remove: as little of the input as is needed for the model's output to change
substantially; its values are the scores. The equation is that of :mod:`captum_aml.objectives.la`.

Source: Barkan et al., "A Learning-based Approach for Explaining Language Models", CIKM 2024; this
follows the paper's abstract.
"""

from __future__ import annotations

from captum_aml.attr.input import InputMaskAttribution
from captum_aml.attr.layer import LayerMaskAttribution
from captum_aml.objectives import LAObjective


class LAAttribution(InputMaskAttribution):
    """Learning Attributions for a forward function's inputs.

    Args:
        forward_func: What is explained: any callable that Captum accepts.
        embedding_layer: For integer ids, the layer that embeds them (one for each input of ids, or
            one for all). Default: None, ``forward_func.get_input_embeddings()``
        masker: A network that proposes masks; see :class:`captum_aml.maskers.Masker`.
            Default: None: masks are tuned from scratch, or ``fit`` makes a small one
        objective: The loss. Default: ``LAObjective()``
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
        >>> la = LAAttribution(model)
        >>> scores = la.attribute(embeddings, baselines=reference)
    """

    _method = "la"
    _default_objective = LAObjective

    @classmethod
    def get_name(cls) -> str:
        """The method's name in figures and tables."""
        return "LA"


class LayerLAAttribution(LayerMaskAttribution):
    """Learning Attributions for the input or output of a layer.

    Args:
        forward_func: What is explained: any callable that Captum accepts.
        layer: The layer, or a list of layers that do not depend on each other.
        device_ids: Devices, where the forward function applies a ``DataParallel`` model without
            being one. Default: None
        masker: A network that proposes masks; see :class:`captum_aml.maskers.Masker`.
            Default: None: masks are tuned from scratch, or ``fit`` makes a small one
        objective: The loss. Default: ``LAObjective()``
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
        >>> la = LayerLAAttribution(forward, model.bert.embeddings)
        >>> scores = la.attribute(ids, baselines=ref_ids, target=1).sum(dim=-1)
    """

    _method = "la"
    _default_objective = LAObjective

    @classmethod
    def get_name(cls) -> str:
        """The method's name in figures and tables."""
        return "Layer LA"


__all__ = ["LAAttribution", "LayerLAAttribution"]
