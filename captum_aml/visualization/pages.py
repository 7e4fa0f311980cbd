"""Pages and fragments of HTML from this package's templates.

Whatever is put into HTML is escaped, and control characters are made visible, so that no text can
run as a script.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import chain, islice
from typing import TYPE_CHECKING

from captum_aml.visualization.cards import ScoredText, Table, TextCard, rather_than
from captum_aml.visualization.legend import legend_note, legends
from captum_aml.visualization.palette import INK, PALETTE
from captum_aml.visualization.segments import card_segments, printable, shortened

if TYPE_CHECKING:
    from jinja2 import Template

_READ_FOR_LEGEND = 50


def page(
    cards: Iterable[TextCard],
    *,
    title: str,
    subtitle: str = "",
    tables: Sequence[Table] = (),
) -> Iterator[str]:
    """A self-contained HTML page, piece by piece, so that it can be written as cards come.

    It loads nothing and runs no script. Scores in [0, 1] are coloured in one hue by their value,
    other unsigned ones by their share of the text's largest; signed ones in two hues, by their
    share of the text's largest absolute score. A legend says so, and what the scores are.

    Args:
        cards: The texts. The legend shows the scales of the first 49 ones' rows, and names the
            explained class where all have the same and there are no more.
        title: The page's heading.
        subtitle: A line below it. Default: "".
        tables: Shown above the cards. Default: ().
    """
    remaining = iter(cards)
    first = list(islice(remaining, _READ_FOR_LEGEND))
    rows = [row for card in first for row in card.rows]
    return template("page.html.j2").generate(
        cards=chain(first, remaining),
        title=printable(title),
        subtitle=printable(subtitle),
        tables=tables,
        **legend_values(rows, name_class=len(first) < _READ_FOR_LEGEND),
    )


def fragment(card: TextCard) -> str:
    """A card as a piece of HTML that brings its own style, for notebooks and other people's pages.

    It loads nothing, runs no script and leaves the rest of the page as it is. It follows the colour
    scheme of the system, or of JupyterLab, VS Code, Colab and Sphinx themes that say which they
    use.
    """
    return template("fragment.html.j2").render(card=card, **legend_values(card.rows))


def legend_values(rows: Iterable[ScoredText], *, name_class: bool = True) -> dict[str, object]:
    """What a page's template takes for the legend of rows; see :func:`legend.legends`."""
    found = legends(rows, name_class=name_class)
    return {"legends": found, "legend_note": legend_note(found)}


@cache
def template(name: str) -> Template:
    """A template of this package, which escapes what it shows.

    Templates find the palette, the ink, ``card_segments``, ``printable``, ``rather_than`` and
    ``shortened`` under these names.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("captum_aml.visualization", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        palette=PALETTE,
        ink=INK,
        card_segments=card_segments,
        printable=printable,
        rather_than=rather_than,
        shortened=shortened,
    )
    return environment.get_template(name)
