"""Token scores as people see them: pages, terminals, plain text, Captum's records."""

from captum_aml.visualization.cards import ScoredText, Table, TextCard
from captum_aml.visualization.pages import fragment, page, template
from captum_aml.visualization.palette import INK, PALETTE, Rgb, hex_color
from captum_aml.visualization.record import captum_record
from captum_aml.visualization.segments import printable
from captum_aml.visualization.terminal import plain_text, terminal_text

__all__ = [
    "INK",
    "PALETTE",
    "Rgb",
    "ScoredText",
    "Table",
    "TextCard",
    "captum_record",
    "fragment",
    "hex_color",
    "page",
    "plain_text",
    "printable",
    "template",
    "terminal_text",
]
