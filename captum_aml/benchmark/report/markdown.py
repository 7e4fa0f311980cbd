"""Results as GitHub's Markdown, fit to be published: without texts unless they are asked for."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from captum_aml.benchmark.report.tables import (
    SIGNIFICANCE,
    Entry,
    Line,
    result_tables,
    summary,
)
from captum_aml.benchmark.results import BenchmarkResults
from captum_aml.visualization import TextCard, legend_text, plain_text
from captum_aml.visualization.segments import printable

_SPECIAL = re.compile(r"([\\`*_\[\]{}#|~!$])")


def to_markdown(results: BenchmarkResults, *, texts: bool = False) -> str:
    """The report without figures.

    Args:
        results: What was found.
        texts: Whether to show the examples' texts and what failed methods said, which can quote
            texts. Default: False.
    """
    return "\n".join(_lines(results, texts)) + "\n"


def escaped(text: str) -> str:
    """Text that stays text in a cell, a heading or a paragraph: one line, nothing that formats."""
    line = " ".join(printable(text).split())
    return _SPECIAL.sub(r"\\\1", html.escape(line, quote=False))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, numeric: int = 0) -> str:
    """A table of escaped cells; the last ``numeric`` columns stand to the right."""
    rule = ["---"] * (len(columns) - numeric) + ["---:"] * numeric
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [columns, rule, *rows])


def _lines(results: BenchmarkResults, texts: bool) -> Iterator[str]:
    yield f"# Attribution methods on {escaped(results.model)}"
    yield ""
    yield f"{results.n_texts:,} texts of {escaped(results.data)}, {len(results.rows):,} methods."
    if results.protocol:
        yield "\n## What was measured, and how\n"
        yield " ".join(map(escaped, results.protocol))
    yield from _list("Notes", results.notes)
    yield from _list("In short", summary(results))
    yield "\n## Results\n"
    yield legend(results)
    for part in result_tables(results):
        yield f"\n### {escaped(part.title)}\n"
        head = [f"{escaped(column.title)} {column.arrow}".rstrip() for column in part.columns]
        yield table(["Method", *head], map(_row, part.lines), numeric=len(head))
    if results.metrics:
        yield "\n## Metrics\n"
        directions = {True: "higher", False: "lower", None: "neither"}
        yield table(
            ["Metric", "Better", "What it is"],
            [
                (
                    f"{escaped(m.title)} ({escaped(m.name)})",
                    directions[m.higher_is_better],
                    escaped(m.description),
                )
                for m in results.metrics
            ],
        )
    yield from _failures(results, texts)
    yield "\n## How to make it again\n"
    yield table(
        ["Method", "Seeds", "Settings"],
        [
            (
                escaped(row.method),
                ", ".join(map(str, row.seeds)),
                escaped("; ".join(f"{name} = {value}" for name, value in _sorted(row.settings))),
            )
            for row in results.rows
        ],
    )
    for title, values in (
        ("Setting", results.settings),
        ("Version of", results.versions),
        ("Fingerprint of", results.fingerprints),
    ):
        yield from _values(title, values)
    if texts and results.examples:
        yield "\n## Texts\n"
        rows = [row for card in results.examples for row in card.rows]
        yield _fenced(legend_text(rows, colored=False))
        for card in results.examples:
            yield from _example(card)


def legend(results: BenchmarkResults) -> str:
    """Legend of the tables; of the marks only those that this report shows."""
    parts = [
        "Each entry is the mean with its 95 % interval. An arrow says which direction is better; "
        "the best mean of a column is bold."
    ]
    if any(cell.comparison for row in results.rows for cell in row.cells.values()):
        parts.append(
            '"better" and "worse" mark a mean that differs from that of the best baseline (the '
            f"one with the best mean) with a corrected p-value below {SIGNIFICANCE:g}; "
            '"n.s." marks a difference that is not significant at that level.'
        )
    if any(cell.n != results.n_texts for row in results.rows for cell in row.cells.values()):
        parts.append(
            '"n" is the number of texts that have a value, where it is not all of them: such a '
            "mean is over other texts than those beside it."
        )
    return " ".join(parts)


def _row(line: Line) -> list[str]:
    name = escaped(line.method)
    if line.role_beside_name:
        name += f" ({line.role_beside_name})"
    return [name, *map(_entry, line.entries)]


def _entry(entry: Entry) -> str:
    text = escaped(entry.text)
    parts = [
        f"**{text}**" if entry.best else text,
        f"({escaped(entry.interval)})" if entry.interval else "",
        escaped(entry.remark),
        f"*{entry.verdict}*" if entry.verdict else "",
    ]
    return " ".join(part for part in parts if part)


def _list(title: str, sentences: Sequence[str]) -> Iterator[str]:
    if sentences:
        yield f"\n## {title}\n"
        yield from (f"- {escaped(sentence)}" for sentence in sentences)


def _failures(results: BenchmarkResults, texts: bool) -> Iterator[str]:
    failures = [(row.method, failure) for row in results.rows for failure in row.failures]
    if failures:
        yield "\n## Texts that a method could not explain\n"
        yield table(
            ["Method", "Text", "Seed", *(["What happened"] * texts)],
            [
                (
                    escaped(method),
                    str(failure.index),
                    str(failure.seed),
                    *([escaped(failure.message)] * texts),
                )
                for method, failure in failures
            ],
        )


def _values(title: str, values: Mapping[str, object]) -> Iterator[str]:
    if values:
        yield ""
        yield table(
            [title, ""], [(escaped(name), escaped(str(value))) for name, value in _sorted(values)]
        )


def _sorted(values: Mapping[str, object]) -> list[tuple[str, object]]:
    named = [(str(name), value) for name, value in values.items()]
    return sorted(named, key=lambda item: item[0])


def _example(card: TextCard) -> Iterator[str]:
    lines = [f"{row.method}: {plain_text(card, row)}" for row in card.rows]
    yield f"\n{escaped(card.prediction)}, {card.certainty}\n"
    yield _fenced(printable("\n".join(lines)))


def _fenced(body: str) -> str:
    # A fence longer than any in the text, which then cannot end it.
    longest = max((len(run) for run in re.findall(r"`+", body)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{body}\n{fence}"
