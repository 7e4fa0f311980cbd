"""Results as tables and sentences, the same for the page and for Markdown.

Everything is text to be shown, not yet escaped for where it goes, beside the number to sort by.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from captum_aml.benchmark.results import (
    BenchmarkResults,
    Cell,
    Comparison,
    MethodRow,
    Role,
)
from captum_aml.metrics import Metric

#: A corrected p-value below this one is called a difference.
SIGNIFICANCE = 0.05
#: Up to so many metrics stand in one table with rank and cost; more are shown by group.
MOST_IN_ONE = 5

#: What a test against the best baseline says.
Verdict: TypeAlias = Literal["better", "worse", "n.s."]

_MISSING = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"
_ARROWS = {True: "\N{UPWARDS ARROW}", False: "\N{DOWNWARDS ARROW}", None: ""}
_GROUPS: Mapping[str, str] = {
    "faithfulness": "Faithfulness: do the scores say what the model uses?",
    "plausibility": "Plausibility: do they agree with what people marked?",
    "complexity": "Complexity: how many tokens carry the explanation?",
}


@dataclass(frozen=True)
class Column:
    """A column's head.

    Attributes:
        title: The heading.
        arrow: Up where higher is better, down where lower is, "" where neither.
        description: What it shows, in a sentence.
        best_first: The order in which the best comes first.
        numeric: Whether its entries are numbers.
    """

    title: str
    arrow: str = ""
    description: str = ""
    best_first: Literal["ascending", "descending"] = "ascending"
    numeric: bool = True


@dataclass(frozen=True)
class Entry:
    """One entry of a table.

    Attributes:
        text: What is shown.
        value: The number to sort by; None where it is missing.
        interval: The interval, "" without one.
        best: Whether no row shows a better one.
        verdict: The test's result, None where none was made.
        note: More about it, in words.
        remark: What has to be seen with it, such as the number of texts where some are missing.
    """

    text: str
    value: float | None = None
    interval: str = ""
    best: bool = False
    verdict: Verdict | None = None
    note: str = ""
    remark: str = ""


@dataclass(frozen=True)
class Line:
    """A method's entries, one per column."""

    method: str
    role: Role
    entries: Sequence[Entry]

    @property
    def role_beside_name(self) -> str:
        """The role where it has to be said: "" for baselines, and where the name says it."""
        return "" if self.role in ("baseline", self.method) else self.role


@dataclass(frozen=True)
class ResultTable:
    """A table with one line per method; ``columns`` leaves out the one of the methods."""

    title: str
    columns: Sequence[Column]
    lines: Sequence[Line]


def result_tables(results: BenchmarkResults) -> list[ResultTable]:
    """The main table; with many metrics one table per group and one of cost.

    Lines stand in the order of their mean rank, those without one last.
    """
    rows = sorted(results.rows, key=lambda row: math.inf if row.rank is None else row.rank)
    if len(results.metrics) <= MOST_IN_ONE:
        columns = [_rank(rows), *_metrics(results, rows, results.metrics), *_cost(results, rows)]
        return [_table("Results", rows, columns)] if rows else []
    tables = []
    for group, title in _GROUPS.items():
        metrics = [metric for metric in results.metrics if metric.group == group]
        if metrics:
            columns = [_rank(rows), *_metrics(results, rows, metrics)]
            tables.append(_table(title, rows, columns))
    tables.append(_table("Cost", rows, [_rank(rows), *_cost(results, rows)]))
    return tables if rows else []


def summary(results: BenchmarkResults) -> list[str]:
    """A sentence per tested row: where it is better than the best baseline, and where worse.

    The best baseline is, for each metric, the one with the best mean.
    """
    sentences = []
    for row in results.rows:
        found: dict[Verdict, list[str]] = {"better": [], "worse": [], "n.s.": []}
        for metric in results.metrics:
            cell = row.cells.get(metric.name)
            result = verdict(cell.comparison) if cell else None
            if result is not None:
                found[result].append(metric.title)
        tested = sum(map(len, found.values()))
        if tested:
            sentences.append(
                f"{row.method} against the best baseline: better on "
                f"{_counted(found['better'], of=tested)}, worse on {_counted(found['worse'])}, "
                f"no significant difference on {_counted(found['n.s.'])}."
            )
    return sentences


def verdict(comparison: Comparison | None) -> Verdict | None:
    """Verdict of a comparison at the level of significance."""
    if comparison is None or math.isnan(comparison.p_value):
        return None
    if comparison.p_value >= SIGNIFICANCE:
        return "n.s."
    return "better" if comparison.better else "worse"


def number(value: float, decimals: int) -> str:
    """A number with a true minus and grouped thousands; a dash for NaN."""
    if math.isnan(value):
        return _MISSING
    if math.isinf(value):
        return (_MINUS if value < 0 else "") + "\N{INFINITY}"
    shown = f"{value:,.{decimals}f}"
    if float(shown.replace(",", "")) == 0:
        shown = shown.lstrip("-")
    return shown.replace("-", _MINUS)


def decimals_for(values: Sequence[float]) -> int:
    """Decimals that give the largest of some numbers three digits, and those in [0.1, 1] three."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    if largest == 0 or 0.1 <= largest <= 1:
        return 3
    return min(9, max(0, 2 - math.floor(math.log10(largest))))


def p_text(p_value: float) -> str:
    """A p-value as it is written."""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def _counted(titles: Sequence[str], *, of: int | None = None) -> str:
    total = "" if of is None else f" of {of} metrics"
    # Titles can hold commas.
    return f"{len(titles)}{total}" + (f" ({'; '.join(titles)})" if titles else "")


_Filled: TypeAlias = tuple[Column, list[Entry]]


def _table(title: str, rows: Sequence[MethodRow], columns: Sequence[_Filled]) -> ResultTable:
    lines = [
        Line(row.method, row.role, [entries[i] for _, entries in columns])
        for i, row in enumerate(rows)
    ]
    return ResultTable(title, [column for column, _ in columns], lines)


def _rank(rows: Sequence[MethodRow]) -> _Filled:
    column = Column(
        "Rank", description="Mean rank over the metrics that have a direction; 1 is the best."
    )
    return column, _numbers([row.rank for row in rows], decimals=1)


def _metrics(
    results: BenchmarkResults, rows: Sequence[MethodRow], metrics: Sequence[Metric]
) -> Iterator[_Filled]:
    for metric in metrics:
        cells = [row.cells.get(metric.name) for row in rows]
        there = [cell for cell in cells if cell is not None and not math.isnan(cell.mean)]
        known = [cell.mean for cell in there]
        # A mean over fewer texts than others have is not compared with theirs.
        full = max((cell.n for cell in there), default=0)
        decimals = decimals_for(known)
        best = ""
        if known and metric.higher_is_better is not None:
            most = max if metric.higher_is_better else min
            best = number(most(cell.mean for cell in there if cell.n == full), decimals)
        column = Column(
            metric.title,
            arrow=_ARROWS[metric.higher_is_better],
            description=metric.description,
            best_first="descending" if metric.higher_is_better else "ascending",
        )
        yield (
            column,
            [
                _entry(cell, decimals, best if cell and cell.n == full else "", results.n_texts)
                for cell in cells
            ],
        )


def _entry(cell: Cell | None, decimals: int, best: str, n_texts: int) -> Entry:
    if cell is None or math.isnan(cell.mean):
        return Entry(_MISSING, note="no value")
    text = number(cell.mean, decimals)
    interval = ""
    if not (math.isnan(cell.low) or math.isnan(cell.high)):
        low, high = number(cell.low, decimals), number(cell.high, decimals)
        interval = f"{low} to {high}"
    notes = [f"mean over {cell.n:,} texts"]
    comparison = cell.comparison
    if comparison is not None:
        sign = "+" if comparison.difference > 0 else ""
        difference = sign + number(comparison.difference, decimals)
        p = "" if math.isnan(comparison.p_value) else f", {p_text(comparison.p_value)} (corrected)"
        notes.append(
            f"against {comparison.baseline}, the best baseline by mean: difference {difference}{p}"
        )
    return Entry(
        text,
        value=cell.mean,
        interval=interval,
        best=text == best,
        verdict=verdict(comparison),
        note="; ".join(notes),
        remark=f"n = {cell.n:,}" if cell.n != n_texts else "",
    )


def _cost(results: BenchmarkResults, rows: Sequence[MethodRow]) -> Iterator[_Filled]:
    costs = [row.cost for row in rows]
    forward, backward = [c.forward_passes for c in costs], [c.backward_passes for c in costs]
    memory = [c.peak_memory_mib for c in costs]
    for title, description, values, decimals in (
        ("Forward passes", "Texts sent through the model or a masker, per text.", forward, 1),
        ("Backward passes", "Gradients taken through either, per text.", backward, 1),
        ("ms per text", "Wall time, without training.", [1000 * c.seconds for c in costs], None),
        ("Peak MiB", "The highest use of memory beyond what was in use before.", memory, 1),
    ):
        yield Column(title, description=description), _numbers(values, decimals=decimals)
    yield (
        Column("Failed", description="Explanations that could not be made, of all tried."),
        [
            Entry(
                f"{len(row.failures):,}",
                value=len(row.failures),
                remark=f"of {results.n_texts * max(1, len(row.seeds)):,}" if row.failures else "",
            )
            for row in rows
        ],
    )
    if any(row.training for row in rows):
        yield (
            Column("Training", description="What fitting the masker took.", numeric=False),
            [Entry(row.training or _MISSING) for row in rows],
        )


def _numbers(values: Sequence[float | None], *, decimals: int | None = None) -> list[Entry]:
    """Entries of a column of costs: each with digits of its own where no decimals are given."""
    entries = []
    for value in values:
        if value is None or math.isnan(value):
            entries.append(Entry(_MISSING, note="no value"))
        else:
            places = min(decimals_for([value]), 3) if decimals is None else decimals
            entries.append(Entry(number(value, places), value=value))
    return entries
