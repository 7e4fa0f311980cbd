"""Results as one HTML page that loads nothing: tables to sort, figures, coloured texts."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.resources import files

from captum_aml.benchmark.report._canvas import Mode, shown
from captum_aml.benchmark.report.figures import cost_figure, removal_figure
from captum_aml.benchmark.report.markdown import legend
from captum_aml.benchmark.report.tables import result_tables, summary
from captum_aml.benchmark.results import BenchmarkResults
from captum_aml.metrics import Metric
from captum_aml.visualization.pages import legend_values, template

# Examples that are open from the start; the others unfold.
_OPEN = 2
_LONGEST_SUMMARY = 101
_MODES: tuple[Mode, ...] = ("light", "dark")


def to_html(results: BenchmarkResults) -> Iterator[str]:
    """The page, piece by piece.

    Everything from outside is escaped; the only script is ours, named by its hash in the page's
    content security policy, and without it the page lacks nothing but sorting.

    Raises:
        ImportError: Matplotlib is not installed.
    """
    from markupsafe import Markup

    script = _script()
    main = _main_metric(results)
    return template("benchmark.html.j2").generate(
        results=results,
        summary=summary(results),
        legend=legend(results),
        tables=result_tables(results),
        # Ours, and matplotlib's with all text in it escaped.
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        main_metric=main,
        cost_figures=[
            Markup(cost_figure(results.rows, main, mode=mode)) if main else "" for mode in _MODES
        ],
        removal_figures=[
            Markup(removal_figure(results.curves, results.rows, mode=mode)) for mode in _MODES
        ],
        open_examples=_OPEN,
        beginning=lambda card: shown(card.text, longest=_LONGEST_SUMMARY) or "(empty text)",
        **legend_values(row for card in results.examples for row in card.rows),
    )


def _main_metric(results: BenchmarkResults) -> Metric | None:
    """The metric that stands for faithfulness in the figure of cost: the first that can."""
    return next(
        (
            metric
            for metric in results.metrics
            if metric.group == "faithfulness" and metric.higher_is_better is not None
        ),
        None,
    )


@cache
def _script() -> str:
    return files("captum_aml.benchmark.report").joinpath("sort_tables.js").read_text("utf-8")
