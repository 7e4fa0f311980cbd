"""Legends: what colours, marks and numbers of scored texts say, in the words of all displays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from captum_aml.visualization.cards import ScoredText
from captum_aml.visualization.segments import printable

#: How the class stands in what a method says of its scores, and where it is not one alone.
EXPLAINED_CLASS = "the explained class"
#: What has to be said where no class is named.
WHICH_CLASS = "The explained class is the predicted one unless another is named."

#: Of a row's scores: in [0, 1]; of no side, relative to the largest; for and against, relative to
#: the largest.
Scale: TypeAlias = Literal["share", "relative", "signed"]


@dataclass(frozen=True)
class Legend:
    """What is said of the rows with one scale.

    Attributes:
        scale: Their scale.
        target: The explained class, quoted, or ``EXPLAINED_CLASS`` where there are several.
        scores: What the scores are, for each kind the methods that have it.
    """

    scale: Scale
    target: str
    scores: dict[str, list[str]] = field(default_factory=dict, hash=False)

    @property
    def low(self) -> str:
        """The words at the low end of the colours."""
        return f"against {self.target} (underlined)" if self.scale == "signed" else "unimportant"

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
    targets = {row.target for row in rows}
    target = quoted(targets.pop()) if name_class and len(targets) == 1 else EXPLAINED_CLASS
    found = {scale: Legend(scale, target) for scale in get_args(Scale)}
    for row in rows:
        scores = found[scale_of(row)].scores
        if row.score:
            methods = scores.setdefault(printable(row.score.replace(EXPLAINED_CLASS, target)), [])
            if (name := printable(row.method)) not in methods:
                methods.append(name)
    used = {scale_of(row) for row in rows}
    return [legend for scale, legend in found.items() if scale in used]


def legend_note(found: Sequence[Legend]) -> str:
    """A sentence on which class is explained, "" where it is named or plays no part."""
    said = " ".join(f"{legend.high} {legend.score}" for legend in found)
    return WHICH_CLASS if EXPLAINED_CLASS in said else ""


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
    return f"'{printable(label)}'" if label else EXPLAINED_CLASS
