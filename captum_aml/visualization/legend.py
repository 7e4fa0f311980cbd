"""Legends: what colours, marks and numbers of scored texts say, in the words of all displays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from captum_aml.visualization.cards import ScoredText, rather_than
from captum_aml.visualization.segments import LONGEST_LABEL, n_columns, printable, shortened

#: How the class stands in what a method says of its scores, and where it is not one alone.
EXPLAINED_CLASS = "the explained class"
#: How what it is held against stands there.
FOIL = "the foil"
#: What has to be said where no class is named.
WHICH_CLASS = "The explained class is the predicted one unless another is named."
WHICH_FOIL = "The foil is the class that it is held against."

#: Of a row's scores: in [0, 1]; of no side, relative to the largest; for and against, relative to
#: the largest.
Scale: TypeAlias = Literal["share", "relative", "signed"]


@dataclass(frozen=True)
class Legend:
    """What is said of the rows with one scale.

    Attributes:
        scale: Their scale.
        target: The explained class, quoted, and its foil, or ``EXPLAINED_CLASS`` where there are
            several.
        again: What it is called once it is named: the same, or "it" if it is long.
        scores: What the scores are, for each kind the methods that have it.
    """

    scale: Scale
    target: str
    again: str
    scores: dict[str, list[str]] = field(default_factory=dict, hash=False)

    @property
    def low(self) -> str:
        """The words at the low end of the colours."""
        return f"against {self.again} (underlined)" if self.scale == "signed" else "unimportant"

    @property
    def high(self) -> str:
        """The words at their high end."""
        if self.scale == "signed":
            return f"for {self.target} (relative to the text's largest score)"
        if self.scale == "relative":
            return "important, whether for or against (relative to the text's largest score)"
        return "important (from 0 to 1)"

    @property
    def score(self) -> str:
        """What the number is, such as "score: contribution to the logit of 'positive'"."""
        if not self.scores:
            return ""
        if len(self.scores) == 1:
            return f"score: {next(iter(self.scores))}"
        each = (f"{what} ({', '.join(methods)})" for what, methods in self.scores.items())
        return f"score: {'; '.join(each)}"

    def line(self, *, colored: bool) -> str:
        """All of it on a line of text, for colours or for the marks of ``plain_text``."""
        if self.scale == "signed" and colored:
            said = [f"blue: for {self.target}, orange, underlined: against it"]
        elif self.scale == "signed":
            said = [f"*for {self.target}*, ~against it~"]
        else:
            said = ["blue: important" if colored else "*important*"]
            said += ["from 0 to 1" if self.scale == "share" else "whether for or against"]
        how = ", ".join(said) + ("" if colored else ", from half of the text's largest score on")
        return "; ".join(filter(None, [how, self.score]))


def scale_of(row: ScoredText) -> Scale:
    """The scale of a row's scores."""
    return "signed" if row.signed else "relative" if row.relative else "share"


def legends(rows: Iterable[ScoredText], *, name_class: bool = True) -> list[Legend]:
    """The legends of rows, one for each scale.

    Args:
        rows: The rows that are shown together.
        name_class: Whether the explained class is named where it is one alone. Default: True.
    """
    rows = list(rows)
    outcomes = {(row.target, row.foil) for row in rows}
    label, foil_label = outcomes.pop() if name_class and len(outcomes) == 1 else ("", "")
    target, foil = quoted(label), quoted(foil_label) if foil_label else ""
    is_long = any(n_columns(each) > LONGEST_LABEL for each in (label, foil_label))
    named = rather_than(target, foil)
    found = {scale: Legend(scale, named, "it" if is_long else named) for scale in get_args(Scale)}
    for row in rows:
        scores = found[scale_of(row)].scores
        if row.score:
            said = printable(row.score).replace(EXPLAINED_CLASS, "it" if is_long else target)
            if foil and not is_long:
                said = said.replace(FOIL, foil)
            methods = scores.setdefault(said, [])
            if (name := printable(row.method)) not in methods:
                methods.append(name)
    used = {scale_of(row) for row in rows}
    return [legend for scale, legend in found.items() if scale in used]


def legend_note(found: Sequence[Legend]) -> str:
    """What is said of which class is explained, "" where it is named or plays no part."""
    said = " ".join(f"{legend.high} {legend.score}" for legend in found)
    if EXPLAINED_CLASS not in said:
        return ""
    return f"{WHICH_CLASS} {WHICH_FOIL}" if FOIL in said else WHICH_CLASS


def legend_text(rows: Iterable[ScoredText], *, colored: bool, name_class: bool = True) -> str:
    """The legends of rows as lines of text.

    Args:
        rows: The rows that are shown together.
        colored: Whether they are in colours, as by ``terminal_text``; else with marks, as by
            ``plain_text``.
        name_class: Whether the explained class is named where it is one alone. Default: True.
    """
    found = legends(rows, name_class=name_class)
    lines = [legend.line(colored=colored) for legend in found]
    return "\n".join([*lines, *filter(None, [legend_note(found)])])


def quoted(label: str) -> str:
    """A class's label in quotes, or ``EXPLAINED_CLASS`` where there is none."""
    return f"'{shortened(label)}'" if label else EXPLAINED_CLASS
