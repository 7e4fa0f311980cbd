"""The commands ``benchmark`` and ``evaluate``."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from captum_aml._utils.options import comma_separated
from captum_aml.cli.apart import check_apart
from captum_aml.cli.console import duration, show_table, shows_progress
from captum_aml.cli.options import (
    Limit,
    ModelOptions,
    PassSize,
    Preset,
    TextColumn,
    list_methods,
    with_options,
)

if TYPE_CHECKING:
    from captum_aml.benchmark import BenchmarkResults, BenchmarkSettings


def _list_metrics(given: str | None) -> str | None:
    if given == "list":
        from captum_aml.metrics.registry import available_metrics, metric_of

        for name in available_metrics():
            typer.echo(f"{name:30}{metric_of(name).description}")
        raise typer.Exit
    return given


@dataclass(frozen=True, kw_only=True)
class ScoringOptions(ModelOptions):
    """The model, and how explanations of it are scored."""

    metrics: Annotated[
        str | None,
        typer.Option(
            help="Metrics, separated by commas; an operator may follow, as in "
            "aopc-sufficiency@pad. 'list' lists them.",
            show_default="the usual ones",
            # Before what else is required.
            callback=_list_metrics,
            is_eager=True,
        ),
    ] = None
    preset: Preset = "default"
    batch_size: PassSize = 32
    beam_size: Annotated[
        int, typer.Option(min=1, help="Beam of the search for the limits of normalized AOPC.")
    ] = 3
    search_tokens: Annotated[
        int, typer.Option(min=0, help="Texts with more tokens have no normalized AOPC.")
    ] = 64
    examples: Annotated[int, typer.Option(min=0, help="Texts that the page shows.")] = 5

    def settings(self, **others: Any) -> BenchmarkSettings:
        """The settings, with ``others`` of the command's own."""
        from captum_aml.benchmark.settings import BenchmarkSettings
        from captum_aml.metrics import LimitSearch

        return BenchmarkSettings(
            metrics=None if self.metrics is None else comma_separated(self.metrics),
            convention=self.preset,
            batch_size=self.batch_size,
            search=LimitSearch(beam_size=self.beam_size, max_tokens=self.search_tokens),
            n_examples=self.examples,
            **others,
        )


@with_options(ScoringOptions)
def benchmark(
    options: ScoringOptions,
    *,
    data: Annotated[
        str,
        typer.Option(help="A .jsonl, .csv, .tsv, .parquet or .txt file, or a data set of the hub."),
    ],
    out: Annotated[
        Path, typer.Option(help="The folder of the run; a run that was killed goes on there.")
    ] = Path("report"),
    methods: Annotated[
        str | None,
        typer.Option(
            help="Methods, separated by commas; random and occlusion (leave one out) always take "
            "part. 'list' lists them.",
            show_default="all that can run",
            callback=list_methods,
            is_eager=True,
        ),
    ] = None,
    limit: Limit = None,
    seeds: Annotated[
        str, typer.Option(help="Seeds for methods that draw at random, separated by commas.")
    ] = "0,1,2",
    masker: Annotated[
        list[str] | None,
        typer.Option(help="A folder with a fitted masker; once for AML, once for LA."),
    ] = None,
    steps: Annotated[
        list[str] | None,
        typer.Option(help="Steps or samples of a method, as in lime=200. May be repeated."),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="The split of a data set of the hub.", show_default=False)
    ] = None,
    text_column: TextColumn = "text",
    label_column: Annotated[str, typer.Option(help="The column with the labels.")] = "label",
    rationale_column: Annotated[
        str,
        typer.Option(
            help="The column with human rationales, as spans of characters, or as 0 or 1 for each "
            "word between white space."
        ),
    ] = "rationale",
    overwrite: Annotated[
        bool, typer.Option(help="Start anew in a folder that holds another run.")
    ] = False,
) -> None:
    """Compare attribution methods on a model and texts of yours, and write a report.

    The folder gets report.html, report.md, results.json and scores.parquet. What is explained is
    the class that the model predicts. A run that was interrupted goes on when the same command is
    given again; with other metrics or more methods, what is explained is not explained again.
    """
    start = time.perf_counter()
    from captum_aml import methods as registry
    from captum_aml.benchmark.run import run_benchmark
    from captum_aml.benchmark.store import REPORT_FILES
    from captum_aml.metrics.conventions import resolve_convention
    from captum_aml.metrics.registry import bind
    from captum_aml.text.data import TextSource

    check_apart("out", [out / name for name in REPORT_FILES], [data])
    settings = options.settings(
        methods=None if methods is None else comma_separated(methods),
        seeds=_numbers(seeds, "--seeds"),
        maskers=masker or (),
        n_steps=_steps(steps or ()),
    )
    # Mistakes are reported before a model is loaded or a text explained.
    for name in (*(settings.methods or ()), *settings.n_steps):
        registry.spec(name)
    convention = resolve_convention(options.preset)
    if settings.metrics is not None:
        bind(settings.metrics, convention)
    texts = TextSource(
        data,
        split=split,
        limit=limit,
        text_column=text_column,
        label_column=label_column,
        rationale_column=rationale_column,
    ).load()
    results = run_benchmark(
        options.load(),
        texts,
        out,
        settings,
        model_name=options.model,
        data_name=data,
        overwrite=overwrite,
        show_progress=shows_progress(),
    )
    _show(results)
    typer.echo(f"\nDone in {duration(time.perf_counter() - start)}.")
    typer.echo(f"The report: {(out / 'report.html').resolve()}")


@with_options(ScoringOptions)
def evaluate(
    options: ScoringOptions,
    *,
    explanations: Annotated[
        Path,
        typer.Argument(
            help="A .jsonl file. Each line: text, scores, and tokens or offsets; perhaps method, "
            "seed, target, id, label and rationale."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="A folder for report.html, report.md and results.json.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace other results in the folder.")] = False,
) -> None:
    """Score explanations that were made elsewhere, with the metrics of the benchmark.

    Any library's explanations will do: scores of tokens, words or spans are carried to the model's
    own tokens by their characters. The output of captum-aml explain can be read as it is.
    """
    from captum_aml.benchmark.evaluate import evaluate_explanations
    from captum_aml.benchmark.explanations import read_explanations
    from captum_aml.benchmark.report import write_report
    from captum_aml.benchmark.store import BenchmarkFolder
    from captum_aml.text.saved import model_fingerprint

    settings = options.settings()
    given = read_explanations(explanations)
    text_model = options.load()
    # A folder holds the results of one run, here as for benchmark.
    identity = {
        "model": model_fingerprint(text_model),
        "explanations": hashlib.sha256(explanations.read_bytes()).hexdigest(),
    }
    folder = None if out is None else BenchmarkFolder.open(out, identity, overwrite=overwrite)
    with folder or nullcontext():
        results = evaluate_explanations(
            text_model,
            given,
            settings,
            model_name=options.model,
            data_name=str(explanations),
            show_progress=shows_progress(),
        )
        _show(results)
        if folder is not None:
            files = write_report(folder.path, results)
            typer.echo(f"\nThe report: {files.html.resolve()}")


def _numbers(given: str, option: str) -> list[int]:
    try:
        return [int(number) for number in given.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"expected whole numbers separated by commas, got {given!r}", param_hint=option
        ) from None


def _steps(given: Sequence[str]) -> dict[str, int]:
    steps = {}
    for item in given:
        name, _, number = item.partition("=")
        try:
            steps[name.strip()] = int(number)
        except ValueError:
            raise typer.BadParameter(
                f"expected a method and a whole number, as in lime=200, got {item!r}",
                param_hint="--steps",
            ) from None
    return steps


def _show(results: BenchmarkResults) -> None:
    """The means in the terminal."""
    from rich.console import Console

    from captum_aml.visualization import Table
    from captum_aml.visualization.segments import printable

    rows = sorted(results.rows, key=lambda row: row.rank or float("inf"))
    columns = [
        ("method", [printable(row.method) for row in rows]),
        ("rank", ["-" if row.rank is None else f"{row.rank:.1f}" for row in rows]),
    ]
    for metric in results.metrics:
        arrow = {True: " ↑", False: " ↓", None: ""}[metric.higher_is_better]
        cells = [row.cells.get(metric.name) for row in rows]
        shown = ["-" if cell is None else f"{cell.mean:.3f}" for cell in cells]
        columns.append((f"{metric.title}{arrow}", shown))
    passes = [row.cost.forward_passes + row.cost.backward_passes for row in rows]
    if any(number == number for number in passes):
        shown = ["-" if number != number else f"{number:,.0f}" for number in passes]
        columns.append(("passes a text", shown))
    headings, texts = zip(*columns, strict=True)
    title = f"{results.n_texts} text{'' if results.n_texts == 1 else 's'}, means"
    show_table(Table(title, headings, list(zip(*texts, strict=True))))
    console = Console(highlight=False, markup=False)
    failed = sum(len(row.failures) for row in results.rows)
    if failed:
        were = "explanation" if failed == 1 else "explanations"
        console.print(f"{failed} {were} failed; the report says which and why.")
    for note in results.notes:
        console.print(printable(note))
