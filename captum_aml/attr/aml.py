"""Attributive Masking Learning (AML), for inputs and for layers.

A mask is learned such that the tokens it keeps preserve the prediction, those it leaves out cannot
support it, and as few as possible are kept; its values are the scores. The equation is that of
:mod:`captum_aml.objectives.aml`.

Source: Barkan et al., "LLM Explainability via Attributive Masking Learning", Findings of EMNLP
2024.
"""

from __future__ import annotations

from typing_extensions import final

from captum_aml._utils.options import takes_options
from captum_aml.attr.input import InputMaskAttribution
from captum_aml.attr.layer import LayerMaskAttribution
from captum_aml.attr.settings import AttributionSettings


@final
@takes_options(AttributionSettings)
class AMLAttribution(InputMaskAttribution):
    """Attributive Masking Learning for a forward function's inputs.

    Args:
        forward_func: What is explained: any callable that Captum accepts.
        multiply_by_inputs: As for Captum's methods: False asks for the mask, as ``scores="mask"``
            does. Default: True
        embedding_layer: For integer ids, the layer that embeds them (one for each input of ids, or
            one for all). Default: None, ``forward_func.get_input_embeddings()``
        **options: The fields of :class:`captum_aml.attr.AttributionSettings`, such as ``masker``

    Examples:
        >>> aml = AMLAttribution(model)
        >>> scores = aml.attribute(embeddings, baselines=reference)

        Which columns of a table speak for one class rather than for another:

        >>> weights = torch.tensor([[2.0, 0.0, 1.0], [0.0, 3.0, 1.0], [-1.0, 0.0, 2.0]])
        >>> aml = AMLAttribution(lambda rows: rows @ weights.T, output="logits")
        >>> aml.attribute(torch.ones(1, 3), target=0, foil=1)
        tensor([[ 2., -3.,  0.]])
    """

    _method = "aml"


@final
@takes_options(AttributionSettings)
class LayerAMLAttribution(LayerMaskAttribution):
    """Attributive Masking Learning for the input or output of a layer.

    Args:
        forward_func: What is explained: any callable that Captum accepts.
        layer: The layer, or a list of layers that do not depend on each other. None where the
            attribute ``layer`` is set before a call.
        device_ids: Devices, where the forward function applies a ``DataParallel`` model without
            being one. Default: None
        multiply_by_inputs: As for Captum's methods: False asks for the mask, as ``scores="mask"``
            does. Default: True
        **options: The fields of :class:`captum_aml.attr.AttributionSettings`, such as ``masker``

    Examples:
        >>> aml = LayerAMLAttribution(forward, model.bert.embeddings)
        >>> scores = aml.attribute(ids, baselines=ref_ids, target=1).sum(dim=-1)
    """

    _method = "aml"
