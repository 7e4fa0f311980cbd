"""Token scores as people see them: pages, terminals, plain text, Captum's records."""

from captum_aml.visualization.cards import (
    INK,
    PALETTE,
    Rgb,
    ScoredText,
    Segment,
    Table,
    TextCard,
    captum_record,
    card_segments,
    fragment,
    page,
    plain_text,
    printable,
    segments,
    template,
    terminal_text,
)

__all__ = [
    "INK",
    "PALETTE",
    "Rgb",
    "ScoredText",
    "Segment",
    "Table",
    "TextCard",
    "captum_record",
    "card_segments",
    "fragment",
    "page",
    "plain_text",
    "printable",
    "segments",
    "template",
    "terminal_text",
]
