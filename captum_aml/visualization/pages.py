"""Pages and fragments of HTML from this package's templates.

Whatever is put into HTML is escaped, and control characters are made visible, so that no text can
run as a script.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import chain, islice
from typing import TYPE_CHECKING

from captum_aml.visualization.cards import Table, TextCard
from captum_aml.visualization.palette import INK, PALETTE
from captum_aml.visualization.segments import card_segments, printable

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

    It loads nothing and runs no script. Scores in [0, 1] are coloured in one hue by their value;
    signed ones in two, by their share of the text's largest absolute score.

    Args:
        cards: The texts. The legend shows the scales of the first 50 ones' rows.
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
        unsigned_legend=any(not row.signed for row in rows),
        signed_legend=any(row.signed for row in rows),
    )


def fragment(card: TextCard) -> str:
    """A card as a piece of HTML that brings its own style, for notebooks and other people's pages.

    It loads nothing, runs no script and leaves the rest of the page as it is. It follows the colour
    scheme of the system, or of JupyterLab, VS Code, Colab and Sphinx themes that say which they
    use.
    """
    return template("fragment.html.j2").render(
        card=card,
        unsigned_legend=any(not row.signed for row in card.rows),
        signed_legend=any(row.signed for row in card.rows),
    )


@cache
def template(name: str) -> Template:
    """A template of this package, which escapes what it shows.

    Templates find the palette, the ink, ``card_segments`` and ``printable`` under these names.
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
        palette=PALETTE, ink=INK, card_segments=card_segments, printable=printable
    )
    return environment.get_template(name)
