"""Cards: a text, what the model predicts for it, and scores of its tokens, as plain values.

Nothing here depends on a method, so that the result of any can be shown. Texts are shown as they
were written, through the tokens' character offsets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from captum_aml._utils.graphemes import Span


@dataclass(frozen=True)
class ScoredText:
    """One method's scores for a text.

    Attributes:
        method: Its name.
        offsets: Character span of each token.
        scores: One score per token.
        signed: Whether scores support or oppose the class.
        relative: Whether unsigned scores are coloured by their share of the text's largest; else
            they are in [0, 1], and coloured as they are. Signed ones always are by their share.
        target: The label of the explained class.
        score: What a score is, such as "contribution to the logit of the explained class". Displays
            put the label in the place of these last three words, and the foil's in that of "the
            foil".
        detail: One line more about how it was made.
        foil: The label of what it is held against, in a contrast.
    """

    method: str
    offsets: Sequence[Span]
    scores: Sequence[float]
    signed: bool = False
    target: str = ""
    detail: str = ""
    relative: bool = False
    score: str = ""
    foil: str = ""


@dataclass(frozen=True)
class TextCard:
    """A text, what the model predicts for it, and one explanation or several.

    Attributes:
        text: The text as written.
        predicted: The predicted label.
        probability: Its probability; None where the model gives a value.
        rows: The explanations, shown below one another.
        seen: Up to which character the model saw the text; None for all of it.
        parts: The spans of both texts of a pair; () for a single text. Where ``seen`` is given,
            each was seen from its first token to its last.
        n_tokens_cut: The number of tokens that the model did not see.
        value: The model's value, where it gives one.
        about: What of the text the prediction is about, such as an entity; "" for all of it.
    """

    text: str
    predicted: str
    probability: float | None
    rows: Sequence[ScoredText]
    seen: int | None = None
    parts: Sequence[Span] = ()
    n_tokens_cut: int = 0
    value: float | None = None
    about: str = ""

    @property
    def prediction(self) -> str:
        """The predicted label, after what it is about."""
        return f"{self.about}: {self.predicted}" if self.about else self.predicted

    @property
    def certainty(self) -> str:
        """The probability as a percentage, or the value."""
        if self.probability is None:
            return number_of(None, self.value)
        return f"{_digits(100 * self.probability, 1, small=100 * _SMALL)} %"


#: Numbers below have two significant digits.
_SMALL = 0.005


def number_of(probability: float | None, value: float | None, n_decimals: int = 2) -> str:
    """A probability, or the value where there is none.

    Args:
        probability: The probability; below 0.005 it has two significant digits.
        value: The value.
        n_decimals: Decimals of other probabilities. Default: 2.
    """
    if probability is not None:
        return _digits(probability, n_decimals)
    return "" if value is None else f"{value:.3g}"


def score_text(score: float, largest: float, *, signed: bool = True) -> str:
    """A score with three decimals, or two significant digits where all of its text are small.

    Args:
        score: The score.
        largest: The largest absolute score of the text.
        signed: Whether a plus is written. Default: True.
    """
    return f"{score:{'+' if signed else ''}{'.2g' if 0 < largest < _SMALL else '.3f'}}"


def rather_than(target: str, foil: str) -> str:
    """What is explained, with what it is held against where there is a foil."""
    return f"{target} rather than {foil}" if foil else target


def _digits(number: float, n_decimals: int, *, small: float = _SMALL) -> str:
    return f"{number:.2g}" if 0 < number < small else f"{number:.{n_decimals}f}"


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
