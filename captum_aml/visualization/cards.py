"""Token scores as people see them: an HTML page, a coloured terminal, plain text, Captum's record.

Everything here works on plain values (a text, character spans, numbers), so that it can show the
result of any method. Texts are shown as they were written, through the tokens' character offsets.
Whatever is put into HTML is escaped, and control characters are made visible, so that no text can
run as a script or steer a terminal.
"""

from __future__ import annotations

import html
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain, islice
from typing import TYPE_CHECKING, Literal

from captum_aml._utils.graphemes import Span, grapheme_spans

if TYPE_CHECKING:
    from captum.attr._utils.visualization import VisualizationDataRecord
    from jinja2 import Template
    from rich.text import Text

Rgb = tuple[int, int, int]

#: The colour of the highest score, of the lowest, and the ground, for light and for dark pages.
#: Blue and orange are told apart by people with any of the common colour blindnesses.
PALETTE: dict[str, dict[str, Rgb]] = {
    "light": {"positive": (96, 165, 250), "negative": (251, 146, 60), "ground": (255, 255, 255)},
    "dark": {"positive": (29, 93, 190), "negative": (170, 82, 10), "ground": (24, 27, 34)},
}
#: The colour of text on any of them.
INK: dict[str, Rgb] = {"light": (17, 24, 39), "dark": (243, 244, 246)}

# Weaker scores stay uncoloured in a terminal, whose ground we do not know.
_FAINT = 0.1
_READ_FOR_LEGEND = 50
_PALE: Rgb = (219, 234, 254)
_PALE_NEGATIVE: Rgb = (254, 226, 200)


@dataclass(frozen=True)
class ScoredText:
    """One method's scores for a text.

    Attributes:
        method: Its name.
        offsets: Character span of each token.
        scores: One score per token.
        signed: Whether scores speak for and against; else they are in [0, 1].
        explained: The label of the class that is explained.
        detail: One line more about how it was made.
    """

    method: str
    offsets: Sequence[Span]
    scores: Sequence[float]
    signed: bool = False
    explained: str = ""
    detail: str = ""


@dataclass(frozen=True)
class TextCard:
    """A text, what the model predicts for it, and one explanation or several.

    Attributes:
        text: The text as written.
        predicted: The predicted label.
        probability: Its probability.
        rows: The explanations, shown below one another.
        seen: Up to which character the model saw the text; None for all of it.
        parts: The spans of both texts of a pair; () for a single text. Where ``seen`` is given,
            each was seen from its first token to its last.
        n_tokens_cut: The number of tokens that the model did not see.
    """

    text: str
    predicted: str
    probability: float
    rows: Sequence[ScoredText]
    seen: int | None = None
    parts: Sequence[Span] = ()
    n_tokens_cut: int = 0


@dataclass(frozen=True)
class Table:
    """A table for the head of a page.

    Attributes:
        caption: What it shows.
        columns: Headers.
        rows: Cells, as they are to be shown.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Segment:
    """A stretch of text with one colour.

    Attributes:
        text: The characters, printable.
        score: The score, None between tokens.
        strength: How strong the colour is, from -1 to 1.
        kind: "token", "gap" between tokens, or "unseen" beyond what the model takes.
    """

    text: str
    score: float | None = None
    strength: float = 0.0
    kind: Literal["token", "gap", "unseen"] = "gap"

    @property
    def title(self) -> str:
        """What is shown on hover."""
        if self.kind == "unseen":
            return "beyond the model's maximum length"
        return "" if self.score is None else f"{self.score:+.3f}"


def segments(text: str, row: ScoredText, *, seen: int | None = None) -> list[Segment]:
    """Cuts a text into coloured and plain stretches; joined they are the printable text.

    Tokens that share a character (the bytes of an emoji, say), or whose border falls inside what
    is read as one character (a letter and its accent), become one stretch with the score that is
    largest in absolute value.
    """
    return _segments(text, row, seen=seen, scale=_scale(row))


def card_segments(card: TextCard, row: ScoredText) -> list[list[Segment]]:
    """The stretches of a card's text: one list, or one for each text of a pair."""
    scale = _scale(row)
    if not card.parts:
        return [_segments(card.text, row, seen=card.seen, scale=scale)]
    starts = [start for start, _ in card.parts]
    tokens: list[list[tuple[Span, float]]] = [[] for _ in card.parts]
    for span, score in zip(row.offsets, row.scores, strict=True):
        part = max(0, bisect_right(starts, span[0]) - 1)
        tokens[part].append(((span[0] - starts[part], span[1] - starts[part]), score))
    result = []
    for (start, end), inside in zip(card.parts, tokens, strict=True):
        part_row = replace(row, offsets=[o for o, _ in inside], scores=[s for _, s in inside])
        seen = None if card.seen is None else max((last for (_, last), _ in inside), default=0)
        result.append(_segments(card.text[start:end], part_row, seen=seen, scale=scale))
    return result


def _scale(row: ScoredText) -> float:
    largest = max((abs(s) for s in row.scores), default=0.0)
    return largest if row.signed and largest > 0 else 1.0


def _segments(text: str, row: ScoredText, *, seen: int | None, scale: float) -> list[Segment]:
    whole = _Clusters(text)
    stretches: list[tuple[int, int, float]] = []
    spans = sorted(
        (*whole.around(start, end), float(score))
        for (start, end), score in zip(row.offsets, row.scores, strict=True)
        if end > start
    )
    for start, end, score in spans:
        previous = stretches[-1] if stretches else None
        if previous and start < previous[1]:
            strongest = max(previous[2], score, key=abs)
            stretches[-1] = (previous[0], max(end, previous[1]), strongest)
        else:
            stretches.append((start, end, score))

    clean = printable(text)
    result: list[Segment] = []
    position = 0
    for start, end, score in stretches:
        if start > position:
            # A text that is cut on the left begins with what was not seen.
            cut = seen is not None and not position and not text[:start].isspace()
            result.append(Segment(clean[position:start], kind="unseen" if cut else "gap"))
        strength = max(-1.0, min(1.0, score / scale))
        result.append(Segment(clean[start:end], score, strength, "token"))
        position = end
    rest = len(text) if seen is None else max(whole.around(0, seen)[1], position)
    if rest > position:
        result.append(Segment(clean[position:rest]))
    if rest < len(text):
        result.append(Segment(clean[rest:], kind="unseen"))
    return result


class _Clusters:
    """Knows which characters of a text are read as one."""

    def __init__(self, text: str) -> None:
        several = [] if text.isascii() else [s for s in grapheme_spans(text) if s[1] - s[0] > 1]
        self._starts = [start for start, _ in several]
        self._ends = [end for _, end in several]

    def around(self, start: int, end: int) -> Span:
        """The smallest span of whole clusters that holds a span."""
        first = bisect_right(self._starts, start) - 1
        if first >= 0 and start < self._ends[first]:
            start = self._starts[first]
        last = bisect_left(self._starts, end) - 1
        if last >= 0 and end < self._ends[last]:
            end = self._ends[last]
        return start, end


def printable(text: str) -> str:
    """The text with control characters made visible, character for character."""
    return text.translate(_control_pictures())


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


def terminal_text(card: TextCard, row: ScoredText) -> Text:
    """A text for rich's console, its tokens on coloured ground: blue for, orange against.

    The texts of a pair stand on a line each, after a dim number.
    """
    from rich.text import Text

    text = Text()
    parts = card_segments(card, row)
    for number, part in enumerate(parts):
        if len(parts) > 1:
            text.append(f"{chr(10) if number else ''}{number + 1} ", style="dim")
        for segment in part:
            style = "dim" if segment.kind == "unseen" else ""
            if abs(segment.strength) >= _FAINT:
                end = "positive" if segment.strength > 0 else "negative"
                pale = _PALE if segment.strength > 0 else _PALE_NEGATIVE
                ground = _blend(pale, PALETTE["light"][end], abs(segment.strength))
                style = f"{_hex(INK['light'])} on {_hex(ground)}"
            text.append(segment.text, style=style)
    return text


def plain_text(card: TextCard, row: ScoredText) -> str:
    """A text with its important stretches marked: ``*for*`` the class and ``~against~`` it.

    A stretch is important from half of the text's largest absolute score on. The texts of a pair
    are separated by " | ".
    """
    largest = max((abs(score) for score in row.scores), default=0.0)
    return " | ".join(_marked(part, largest / 2) for part in card_segments(card, row))


def _marked(part: Sequence[Segment], important: float) -> str:
    # What belongs under one mark is joined at the end, for long texts.
    stretches: list[tuple[str, list[str]]] = []
    for segment in part:
        marked = segment.score is not None and 0 < important <= abs(segment.score)
        mark = ("*" if (segment.score or 0) > 0 else "~") if marked else ""
        last = stretches[-1] if stretches else None
        if mark and last and len(stretches) > 1 and stretches[-2][0] == mark and _is_blank(last):
            stretches.pop()
            stretches[-1][1].extend([*last[1], segment.text])
        elif last and last[0] == mark:
            last[1].append(segment.text)
        else:
            stretches.append((mark, [segment.text]))
    return "".join(f"{mark}{''.join(texts)}{mark}" for mark, texts in stretches)


def _is_blank(stretch: tuple[str, list[str]]) -> bool:
    return stretch[0] == "" and all(text.isspace() for text in stretch[1])


def captum_record(
    card: TextCard,
    row: ScoredText,
    tokens: Sequence[str],
    *,
    true_class: str = "",
) -> VisualizationDataRecord:
    """A record for ``captum.attr.visualization.visualize_text``, safe to show.

    Captum puts tokens and labels into HTML as they are, so they are escaped here. Signed scores
    are divided by their largest absolute value, as Captum's colours end at -1 and 1; the record's
    ``attr_score`` is the sum before that.

    Args:
        card: The text and its prediction.
        row: The scores to show.
        tokens: One string per score.
        true_class: The right label, if it is known. Default: "".
    """
    import torch
    from captum.attr import visualization as captum_visualization

    scores = torch.tensor(list(row.scores), dtype=torch.float32)
    largest = float(scores.abs().max()) if row.scores else 0.0
    return captum_visualization.VisualizationDataRecord(
        word_attributions=scores / largest if row.signed and largest > 0 else scores,
        pred_prob=card.probability,
        # Captum's annotation says int; it shows whatever it is given.
        pred_class=_escaped(card.predicted),
        true_class=_escaped(true_class),
        attr_class=_escaped(row.explained),
        attr_score=float(scores.sum()),
        raw_input_ids=[_escaped(token) for token in tokens],
        convergence_score=0.0,
    )


def _escaped(text: str) -> str:
    return html.escape(printable(text), quote=True)


@cache
def _control_pictures() -> dict[int, str]:
    pictures = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\t\n"}
    pictures[0x0D] = " "  # before a line feed it is no more than that
    pictures[0x7F] = "\N{SYMBOL FOR DELETE}"
    replaced = chain(range(0x80, 0xA0), range(0xD800, 0xE000), range(0x202A, 0x202F))
    return pictures | dict.fromkeys(
        chain(replaced, range(0x2066, 0x206A)), "\N{REPLACEMENT CHARACTER}"
    )


def _blend(start: Rgb, end: Rgb, share: float) -> Rgb:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(start, end, strict=True))
    return red, green, blue


def _hex(color: Rgb) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)
