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
            put the label in the place of these last three words.
        detail: One line more about how it was made.
    """

    method: str
    offsets: Sequence[Span]
    scores: Sequence[float]
    signed: bool = False
    target: str = ""
    detail: str = ""
    relative: bool = False
    score: str = ""


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
        return number_of(self.probability, self.value, "{:.1%}").replace("%", " %")


def number_of(probability: float | None, value: float | None, form: str = "{:.2f}") -> str:
    """A probability in the given form, or the value where there is none."""
    if probability is not None:
        return form.format(probability)
    return "" if value is None else f"{value:.3g}"


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
