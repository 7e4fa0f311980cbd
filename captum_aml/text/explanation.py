"""One explained text, as plain values."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from captum_aml._utils.checks import as_count
from captum_aml.exceptions import InvalidInputError
from captum_aml.methods import Setting
from captum_aml.text._fields import checked_fields
from captum_aml.text.grouping import TokenGroups, group_text
from captum_aml.text.inputs import Span, Text
from captum_aml.text.segmentation import Segmenter, Unit
from captum_aml.text.units import ScoredUnit, ScorePooling, pool
from captum_aml.visualization import (
    ScoredText,
    TextCard,
    captum_record,
    fragment,
    legend_text,
    plain_text,
    shows_colors,
    terminal_text,
)
from captum_aml.visualization.cards import number_of, rather_than
from captum_aml.visualization.segments import shortened

if TYPE_CHECKING:
    from captum.attr._utils.visualization import VisualizationDataRecord
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import Console

#: Fields that records of earlier versions do not have.
_LATER = ("relative", "score", "row", "task", "value", "foil", "foil_label", "place")


@dataclass(frozen=True)
class Explanation:
    """Scores of a text's T tokens by one method; special tokens are left out.

    It holds strings and numbers only, so that thousands of them are small, can be compared, and
    can be written as JSON.

    Attributes:
        text: The text.
        tokens: The T tokens, as the tokenizer's vocabulary spells them.
        offsets: Character span of each token in ``text``.
        scores: Score of each token, higher where it speaks more for the explained class.
        predicted: Index of the predicted class.
        predicted_label: Its name.
        probability: Its probability; None where the model gives a value.
        target: Index of the explained class.
        target_label: Its name.
        target_probability: Its probability; None where the model gives a value.
        method: The method's name.
        signed: Whether a score can be for the explained class, above 0, or against it, below 0.
        settings: Everything else that decided the scores.
        n_tokens_cut: Tokens beyond the model's maximum length, which it did not see.
        unit: Unit of ``tokens``, ``offsets`` and ``scores``: "token", "word", "sentence", or
            "sentence+word", words in the highest sentences and the others whole. Words and
            sentences are ``tokens`` as they are written in the text.
        parts: The spans of both texts of a pair in ``text``; () for a single text.
        given_words: The spans of the words where the text was given as a list of them.
        relative: Whether unsigned scores are to be read relative to the text's largest; else they
            are in [0, 1].
        score: What a score is and in which unit, such as "contribution to the logit of the
            explained class", in a contrast "less that of the foil" or of its probability "rather
            than the foil"; "" where the method does not say.
        row: The number of the text among those of the call, from 0.
        task: The name of the task.
        value: The model's value, where it gives one rather than probabilities.
        foil: In a contrast, the index of the class that the explained one is held against.
        foil_label: Its name, "" without a contrast.
        place: The characters that the explained outcome is about, such as an entity or an answer;
            None for the text.
    """

    text: str
    tokens: tuple[str, ...]
    offsets: tuple[Span, ...]
    scores: tuple[float, ...]
    predicted: int
    predicted_label: str
    probability: float | None
    target: int
    target_label: str
    target_probability: float | None
    method: str
    signed: bool
    settings: Mapping[str, Setting] = field(default_factory=dict, hash=False)
    n_tokens_cut: int = 0
    unit: Unit = "token"
    parts: tuple[Span, ...] = ()
    given_words: tuple[Span, ...] | None = None
    relative: bool = False
    score: str = ""
    row: int = 0
    task: str = "text-classification"
    value: float | None = None
    foil: int | None = None
    foil_label: str = ""
    place: Span | None = None

    def __repr__(self) -> str:
        shown = {
            "label": repr(shortened(self.target_label)),
            "foil": repr(shortened(self.foil_label)) if self.foil_label else "",
            "value" if self.value is not None else "probability": number_of(
                self.target_probability, self.value
            ),
            "method": repr(self.method),
            "top": ", ".join(repr(token) for token, _ in self.top(1)),
        }
        named = (f"{name}={said}" for name, said in shown.items() if said)
        return f"{type(self).__name__}({', '.join([repr(shortened(self.text)), *named])})"

    @property
    def about(self) -> str:
        """What of the text the prediction is about, as it is written; "" for all of it."""
        return "" if self.place is None else self.text[slice(*self.place)]

    @property
    def explained_label(self) -> str:
        """The explained class's name, with the one that it is held against."""
        return rather_than(self.target_label, self.foil_label)

    @property
    def truncated(self) -> bool:
        """Whether the model saw less than the text."""
        return self.n_tokens_cut > 0

    def top(self, k: int) -> list[tuple[str, float]]:
        """The k tokens with the highest scores as they are written in the text, best first.

        The white space that some tokenizers make part of a token is left out. Ties go by the order
        of the text. Fewer than k where the text has fewer tokens.

        Raises:
            InvalidInputError: ``k`` is no number of tokens.
        """
        k = as_count("k", k)
        order = sorted(range(len(self.scores)), key=lambda i: -self.scores[i])[:k]
        written = ((self.text[slice(*self.offsets[i])], self.scores[i]) for i in order)
        return [(token.strip() or token, score) for token, score in written]

    def words(
        self, pooling: ScorePooling = "max", *, segmenter: Segmenter | str | None = None
    ) -> list[ScoredUnit]:
        """The words of the text with their scores, in the order of the text.

        Every token counts in exactly one word. Punctuation marks are words of their own; what else
        a word is, and in which languages it takes a ``segmenter``, says
        :func:`captum_aml.text.segmentation.word_spans`. Words that the caller gave are the words.
        Where one token reaches over several words, they are one entry; words of which the model
        saw no token have none; a token of white space counts in the word of the token after it.

        Args:
            pooling: "max", "sum" or "mean" of the scores of a word's tokens. The largest score is
                the largest by value, as in every ranking of scores; for methods with signed scores
                "sum" lets tokens for and against the class make up for each other. Default: "max".
            segmenter (optional): A function that gives the spans (start, end) of the words of a
                text, in order, or the name of one, see :mod:`captum_aml.text.segmenters`. Default:
                None.

        Raises:
            InvalidInputError: The pooling is unknown, the segmenter gives no such spans, or the
                scores are those of sentences.
        """
        return self._units("word", pooling, segmenter)

    def sentences(
        self, pooling: ScorePooling = "max", *, segmenter: Segmenter | str | None = None
    ) -> list[ScoredUnit]:
        """The sentences of the text with their scores, in the order of the text.

        As ``words``. What a sentence is says
        :func:`captum_aml.text.segmentation.sentence_spans`; none reaches over both texts of a pair
        or cuts a given word. Of a sentence that the model saw in part, that part is given.

        Args:
            pooling: "max", "sum" or "mean" of the scores of a sentence's tokens, or words where
                they have the scores. Default: "max".
            segmenter (optional): A function that gives the spans (start, end) of the sentences of
                a text, in order. Default: None.

        Raises:
            InvalidInputError: The pooling is unknown, or the segmenter gives no such spans.
        """
        return self._units("sentence", pooling, segmenter)

    def _units(
        self, unit: Unit, pooling: ScorePooling, segmenter: Segmenter | str | None
    ) -> list[ScoredUnit]:
        if self.unit in ("sentence", "sentence+word") and unit == "word":
            raise InvalidInputError(
                "words: expected scores of tokens or words, got those of sentences; explain with "
                "unit='token' or unit='word'"
            )
        if self.unit == unit and segmenter is None:
            groups = TokenGroups(self.offsets, tuple(range(len(self.offsets))))
        else:
            groups = group_text(
                Text(self.text, self.parts, self.given_words),
                self.offsets,
                unit,
                segmenter=segmenter,
                truncated=self.truncated,
            )
        return pool(self.text, groups, self.scores, pooling)

    def to_html(self) -> str:
        """The text in colours, as a piece of HTML that brings its own style.

        It can be written to a file, shown in a notebook, or put into another page. It loads
        nothing, runs no script, escapes what it shows, and follows light and dark colour schemes.
        For many explanations on one page see :func:`captum_aml.text.write_explanations`.
        """
        return fragment(text_card([self]))

    def _repr_html_(self) -> str:
        return self.to_html()

    def show(self) -> None:
        """Shows the text: as HTML in a notebook, in colours in a terminal, with marks elsewhere.

        A legend says what they stand for: which class, and what the scores are.
        """
        if _in_notebook():
            from IPython.display import display

            display(self)  # type: ignore[no-untyped-call]  # IPython has no annotation here
            return
        from rich.console import Console

        print_explanation(self, Console(highlight=False, soft_wrap=True))

    def plot(self, path: str | os.PathLike[str] | None = None, *, ax: Axes | None = None) -> Figure:
        """Draws the scores as bars, in the order of the text from top to bottom.

        Long texts go on in further columns; 5 to 200 tokens are readable. Pyplot and its state are
        left alone, so a notebook shows the figure only when it is given back.

        Args:
            path (optional): A file to write, in a format that Matplotlib knows by its ending
                (.png, .pdf, .svg). Default: None.
            ax (optional): Axes to draw into, in one column. Default: None, a new figure.

        Returns:
            The figure.

        Raises:
            ImportError: Matplotlib is not installed.
            InvalidInputError: The format is unknown.
        """
        from captum_aml.text.figure import draw

        note = f"\n{cut_note(self)}" if self.truncated else ""
        return draw(
            text_card([self]),
            self.tokens,
            title=headline(self) + note,
            unit=self.unit,
            path=path,
            ax=ax,
        )

    def to_dict(self) -> dict[str, object]:
        """All fields, ready for JSON; ``from_dict`` is the way back."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Explanation:
        """The explanation that ``to_dict`` made these values of.

        Args:
            values: As ``to_dict`` gives them, or as JSON gives them back. Fields with a
                default that older records lack may be missing.

        Raises:
            InvalidInputError: A field is missing, unknown or of a wrong form.
        """
        return cls(**checked_fields(values, [f.name for f in fields(cls)], later=_LATER))

    def to_captum(self, *, true_class: str = "") -> VisualizationDataRecord:
        """A record for ``captum.attr.visualization.visualize_text``.

        Its ``attr_class`` is the explained class, its ``attr_score`` the sum of the scores. Captum
        shows in green what is for the class and in red what is against it, and has no place for
        what the scores are.

        Captum does not escape what it shows; tokens and labels in the record are escaped.

        Args:
            true_class: The right label, if it is known. Default: "".
        """
        card = text_card([self])
        return captum_record(card, card.rows[0], self.tokens, true_class=true_class)


def headline(explanation: Explanation) -> str:
    """Predicted class, method, and the explained class if it is another one, in short."""
    other = explanation.target != explanation.predicted or explanation.foil is not None
    target, foil = shortened(explanation.target_label), shortened(explanation.foil_label)
    explained = f", explains {rather_than(target, foil)}" if other else ""
    number = number_of(explanation.probability, explanation.value)
    prediction = f"{shortened(explanation.predicted_label)} {number}"
    named = shortened(_place_to_name(explanation))
    about = f"{named}: " if named else ""
    return f"{about}{prediction}{explained} [{shortened(explanation.method)}]"


def _place_to_name(explanation: Explanation) -> str:
    """What the prediction is about; "" where a label is, or ends with, its very words."""
    about = " ".join(explanation.about.split())
    labels = (explanation.target_label, explanation.predicted_label)
    said = any(label == about or label.endswith(f" {about}") for label in labels)
    return "" if said else explanation.about


def print_explanation(
    explanation: Explanation, console: Console, *, with_legend: bool = True
) -> None:
    """Prints an explanation: in colours, with marks where a console shows none.

    Args:
        explanation: The explanation.
        console: rich's console.
        with_legend: Whether a legend follows. Default: True.
    """
    from rich.text import Text as RichText

    card = text_card([explanation])
    (row,) = card.rows
    colored = shows_colors(console)
    body = terminal_text(card, row) if colored else plain_text(card, row)
    parts = [(headline(explanation) + ("\n" if explanation.parts else " "), "bold"), body]
    if explanation.truncated:
        parts.append((f"\n{cut_note(explanation)}", "dim"))
    if with_legend:
        parts.append((f"\n{legend_text(card.rows, colored=colored)}", "dim"))
    text = RichText.assemble(*parts)
    console.print(text if colored else RichText(text.plain))


def cut_note(explanation: Explanation) -> str:
    """The number of tokens that the model did not see."""
    n = explanation.n_tokens_cut
    return f"{n:,} token{'' if n == 1 else 's'} cut off"


def text_card(explanations: Sequence[Explanation]) -> TextCard:
    """Card for ``captum_aml.visualization`` of explanations of one text by several methods.

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
                target=explanation.target_label,
                detail="" if explanation.unit == "token" else f"by {explanation.unit}",
                relative=explanation.relative,
                score=explanation.score,
                foil=explanation.foil_label,
            )
            for explanation in explanations
        ],
        seen=last if first.truncated else None,
        parts=first.parts,
        n_tokens_cut=first.n_tokens_cut,
        value=first.value,
        about=_place_to_name(first),
    )


def _plain(value: object) -> object:
    """A field's value as JSON has it."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return dict(value) if isinstance(value, Mapping) else value


def _in_notebook() -> bool:
    """Whether there is a front end that shows HTML; IPython in a terminal is none."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")
