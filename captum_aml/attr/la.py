"""Learning Attributions (LA), for inputs and for layers.

The mask marks what to remove: as little of the input as is needed for the model's output to change
substantially; its values are the scores. The equation is that of :mod:`captum_aml.objectives.la`.

Source: Barkan et al., "A Learning-based Approach for Explaining Language Models", CIKM 2024; this
follows the paper's abstract.
"""

from __future__ import annotations

from collections.abc import Mapping

from typing_extensions import final

from captum_aml.attr.aml import AMLAttribution
from captum_aml.attr.input import InputMaskAttribution
from captum_aml.attr.layer import LayerMaskAttribution


@final
class LAAttribution(InputMaskAttribution):
    """Learning Attributions for a forward function's inputs.

    Arguments are those of :class:`captum_aml.attr.AMLAttribution`.

    Examples:
        >>> la = LAAttribution(model)
        >>> scores = la.attribute(embeddings, baselines=reference)
    """

    _method = "la"


@final
class LayerLAAttribution(LayerMaskAttribution):
    """Learning Attributions for the input or output of a layer.

    Arguments are those of :class:`captum_aml.attr.LayerAMLAttribution`.

    Examples:
        >>> la = LayerLAAttribution(forward, model.bert.embeddings)
        >>> scores = la.attribute(ids, baselines=ref_ids, target=1).sum(dim=-1)
    """

    _method = "la"


#: The methods for inputs by name.
LEARNED: Mapping[str, type[AMLAttribution] | type[LAAttribution]] = {
    "aml": AMLAttribution,
    "la": LAAttribution,
}
