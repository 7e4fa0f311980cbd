"""Learning Attributions (LA), for inputs and for layers.

The mask marks what to remove: as little of the input as is needed for the model's output to change
substantially; its values are the scores. The equation is that of :mod:`captum_aml.objectives.la`.

Source: Barkan et al., "A Learning-based Approach for Explaining Language Models", CIKM 2024; this
follows the paper's abstract.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn
from typing_extensions import Unpack

from captum_aml._captum import LayerAttribution
from captum_aml.attr.aml import AMLAttribution
from captum_aml.attr.base import MaskAttribution
from captum_aml.attr.input import attribute as attribute_to_inputs
from captum_aml.attr.input import checked_embedding_layers, input_site
from captum_aml.attr.layer import attribute as attribute_to_layer
from captum_aml.attr.layer import checked_layer, layer_site
from captum_aml.attr.settings import AttributionOptions
from captum_aml.typing import ForwardFunc


class LAAttribution(MaskAttribution):
    """Learning Attributions for a forward function's inputs.

    Arguments are those of :class:`captum_aml.attr.AMLAttribution`.

    Examples:
        >>> la = LAAttribution(model)
        >>> scores = la.attribute(embeddings, baselines=reference)
    """

    _method = "la"
    _site = input_site
    attribute = attribute_to_inputs

    def __init__(
        self,
        forward_func: ForwardFunc,
        *,
        embedding_layer: nn.Module | tuple[nn.Module, ...] | None = None,
        **options: Unpack[AttributionOptions],
    ) -> None:
        super().__init__(forward_func, **options)
        self.embedding_layers = checked_embedding_layers(embedding_layer)


class LayerLAAttribution(LayerAttribution, MaskAttribution):
    """Learning Attributions for the input or output of a layer.

    Arguments are those of :class:`captum_aml.attr.LayerAMLAttribution`.

    Examples:
        >>> la = LayerLAAttribution(forward, model.bert.embeddings)
        >>> scores = la.attribute(ids, baselines=ref_ids, target=1).sum(dim=-1)
    """

    _method = "la"
    _site = layer_site
    attribute = attribute_to_layer

    def __init__(
        self,
        forward_func: ForwardFunc,
        layer: nn.Module | list[nn.Module],
        device_ids: list[int] | None = None,
        **options: Unpack[AttributionOptions],
    ) -> None:
        LayerAttribution.__init__(self, forward_func, checked_layer(layer), device_ids)
        MaskAttribution.__init__(self, forward_func, **options)


#: The methods for inputs by name.
LEARNED: Mapping[str, type[AMLAttribution] | type[LAAttribution]] = {
    "aml": AMLAttribution,
    "la": LAAttribution,
}
