"""Token scores as people see them: pages, terminals, plain text, Captum's records."""

from captum_aml.visualization.cards import ScoredText, Table, TextCard
from captum_aml.visualization.pages import fragment, page
from captum_aml.visualization.record import captum_record
from captum_aml.visualization.terminal import plain_text, terminal_text

__all__ = [
    "ScoredText",
    "Table",
    "TextCard",
    "captum_record",
    "fragment",
    "page",
    "plain_text",
    "terminal_text",
]
