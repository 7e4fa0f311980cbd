"""Token scores as people see them: pages, terminals, plain text, Captum's records."""

from captum_aml.visualization.cards import ScoredText, Table, TextCard
from captum_aml.visualization.legend import legend_text
from captum_aml.visualization.pages import fragment, page
from captum_aml.visualization.record import captum_record
from captum_aml.visualization.terminal import plain_text, shows_colors, terminal_text

__all__ = [
    "ScoredText",
    "Table",
    "TextCard",
    "captum_record",
    "fragment",
    "legend_text",
    "page",
    "plain_text",
    "shows_colors",
    "terminal_text",
]
