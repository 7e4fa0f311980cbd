"""Captum's records of a visualization, escaped."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

from captum_aml.visualization.cards import ScoredText, TextCard, rather_than
from captum_aml.visualization.segments import printable

if TYPE_CHECKING:
    from captum.attr._utils.visualization import VisualizationDataRecord


def captum_record(
    card: TextCard,
    row: ScoredText,
    tokens: Sequence[str],
    *,
    true_class: str = "",
) -> VisualizationDataRecord:
    """A record for ``captum.attr.visualization.visualize_text``, safe to show.

    Captum puts tokens and labels into HTML as they are, so they are escaped here. Signed and
    relative scores are divided by their largest absolute value, as Captum's colours end at -1 and
    1; the record's ``attr_score`` is the sum before that, which of contributions is the difference
    that they share out.

    Args:
        card: The text and its prediction.
        row: The scores to show.
        tokens: One string per score.
        true_class: The right label, if it is known. Default: "".
    """
    import torch
    from captum.attr import visualization as captum_visualization

    scores = torch.tensor(list(row.scores), dtype=torch.float32)
    relative = row.signed or row.relative
    largest = float(scores.abs().max()) if row.scores else 0.0
    return captum_visualization.VisualizationDataRecord(
        word_attributions=scores / largest if relative and largest > 0 else scores,
        pred_prob=card.value if card.probability is None else card.probability,
        # Captum's annotation says int; it shows whatever it is given.
        pred_class=_escaped(card.prediction),
        true_class=_escaped(true_class),
        attr_class=_escaped(rather_than(row.target, row.foil)),
        attr_score=float(scores.sum()),
        raw_input_ids=[_escaped(token) for token in tokens],
        convergence_score=0.0,
    )


def _escaped(text: str) -> str:
    return html.escape(printable(text), quote=True)
