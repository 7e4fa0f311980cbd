"""One explained text, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from captum_aml.exceptions import InvalidInputError
from captum_aml.methods import Setting
from captum_aml.text.inputs import Span
from captum_aml.text.segmentation import Unit
from captum_aml.visualization import ScoredText, TextCard, captum_record

if TYPE_CHECKING:
    from captum.attr._utils.visualization import VisualizationDataRecord


@dataclass(frozen=True)
class Explanation:
    """What a method says about one text; T tokens, special ones left out.

    It holds strings and numbers only, so that thousands of them are small, can be compared, and
    can be written as JSON.

    Attributes:
        text: The text.
        tokens: The T tokens, as the tokenizer's vocabulary spells them.
        offsets: Character span of each token in ``text``.
        scores: Score of each token, higher where it speaks more for the explained class.
        predicted: Index of the predicted class.
        predicted_label: Its name.
        probability: Its probability.
        explained: Index of the explained class.
        explained_label: Its name.
        explained_probability: Its probability.
        method: The method's name.
        signed: Whether its scores speak for and against the class; else they are in [0, 1].
        settings: Everything else that decided the scores.
        n_tokens_cut: Tokens beyond the model's maximum length, which it did not see.
        unit: What ``tokens``, ``offsets`` and ``scores`` stand for: "token", "word" or "sentence".
            Words and sentences are ``tokens`` as they are written in the text.
        parts: The spans of both texts of a pair in ``text``; () for a single text.
        given_words: The spans of the words where the text was given as a list of them.
    """

    text: str
    tokens: tuple[str, ...]
    offsets: tuple[Span, ...]
    scores: tuple[float, ...]
    predicted: int
    predicted_label: str
    probability: float
    explained: int
    explained_label: str
    explained_probability: float
    method: str
    signed: bool
    settings: Mapping[str, Setting] = field(default_factory=dict, hash=False)
    n_tokens_cut: int = 0
    unit: Unit = "token"
    parts: tuple[Span, ...] = ()
    given_words: tuple[Span, ...] | None = None

    @property
    def truncated(self) -> bool:
        """Whether the model saw less than the text."""
        return self.n_tokens_cut > 0

    def top(self, k: int) -> list[tuple[str, float]]:
        """The k tokens with the highest scores as they are written in the text, best first.

        Ties go by the order of the text. Fewer than k where the text has fewer tokens.

        Raises:
            InvalidInputError: ``k`` is negative.
        """
        if k < 0:
            raise InvalidInputError(f"k: expected 0 or more, got {k}")
        order = sorted(range(len(self.scores)), key=lambda i: -self.scores[i])[:k]
        return [(self.text[slice(*self.offsets[i])], self.scores[i]) for i in order]

    def to_dict(self) -> dict[str, object]:
        """All fields, ready for JSON."""
        return {
            "text": self.text,
            "tokens": list(self.tokens),
            "offsets": [list(span) for span in self.offsets],
            "scores": list(self.scores),
            "predicted": self.predicted,
            "predicted_label": self.predicted_label,
            "probability": self.probability,
            "explained": self.explained,
            "explained_label": self.explained_label,
            "explained_probability": self.explained_probability,
            "method": self.method,
            "signed": self.signed,
            "settings": dict(self.settings),
            "n_tokens_cut": self.n_tokens_cut,
        }

    def to_captum(self, *, true_class: str = "") -> VisualizationDataRecord:
        """A record for ``captum.attr.visualization.visualize_text``.

        Captum does not escape what it shows; tokens and labels in the record are escaped.

        Args:
            true_class: The right label, if it is known. Default: "".
        """
        card = text_card([self])
        return captum_record(card, card.rows[0], self.tokens, true_class=true_class)


def text_card(explanations: Sequence[Explanation]) -> TextCard:
    """What ``captum_aml.visualization`` shows for explanations of one text by several methods.

    Raises:
        InvalidInputError: There is none, or they are of different texts.
    """
    if not explanations or any(e.text != explanations[0].text for e in explanations):
        raise InvalidInputError("explanations: expected one or more, all of the same text")
    first = explanations[0]
    last = max((end for _, end in first.offsets), default=0)
    return TextCard(
        text=first.text,
        predicted=first.predicted_label,
        probability=first.probability,
        rows=[
            ScoredText(
                method=explanation.method,
                offsets=explanation.offsets,
                scores=explanation.scores,
                signed=explanation.signed,
                explained=explanation.explained_label,
            )
            for explanation in explanations
        ],
        seen=last if first.truncated else None,
    )
