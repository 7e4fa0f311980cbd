"""The command ``explain``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from captum_aml.cli.apart import check_apart
from captum_aml.cli.console import shows_progress, warnings_in_lines
from captum_aml.cli.options import ModelOptions, PassSize, Seed, list_methods, with_options

if TYPE_CHECKING:
    from captum_aml.text import Explanation
    from captum_aml.text.failing import OnError

#: What a shell reports for a program that was stopped because nobody reads its output any more.
_BROKEN_PIPE = 128 + 13


@with_options(ModelOptions, without=["max_length"])
def explain(
    options: ModelOptions,
    *,
    texts: Annotated[
        list[str] | None,
        typer.Argument(help="Texts. Without any, and without --file: one a line from stdin."),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(help="Read texts from a .jsonl, .csv, .tsv, .parquet or .txt file."),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            help="The column of --file that holds the text; given twice, those of pairs.",
            show_default="by their names, as text, or question and context; or the only one with "
            "strings",
        ),
    ] = None,
    pair: Annotated[
        list[str] | None,
        typer.Option(
            help="The second text of a pair, such as a question's context; once for each text.",
            show_default=False,
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="aml, la, integrated-gradients (or ig), lime, random, ... 'list' lists them.",
            callback=list_methods,
            is_eager=True,
            show_default="aml, or lime where no gradient comes through the model",
        ),
    ] = None,
    masker: Annotated[
        str | None, typer.Option(help="A folder with a fitted masker, for aml and la.")
    ] = None,
    unit: Annotated[
        str,
        typer.Option(
            help="What is masked and scored as one: token, word, sentence, or sentence+word."
        ),
    ] = "token",
    segmenter: Annotated[
        str | None,
        typer.Option(
            help="The package that finds words: jieba for Chinese, fugashi or janome for Japanese, "
            "pythainlp for Thai.",
            show_default="Unicode's rules",
        ),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(
            help="Read long texts in windows that share at least this many tokens.",
            show_default="none: long texts are cut",
            min=0,
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="What to explain of each text: a label or its index, a word at a mask, words of "
            "an answer, 'start' or 'end' of it; 'all' for each of them. May be repeated.",
            show_default="what the model says",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="What --target is held against: why the one and not the other.",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Masks (mask-gradient, aml, la: 16), tuning steps (aml, la with a masker: 0), "
            "integration steps (ig: 50), samples (gradient-shap: 50; lime, kernel-shap: 500) or "
            "orders (shapley-sampling: 25).",
            show_default="the method's own",
        ),
    ] = None,
    batch_size: PassSize = 32,
    seed: Seed = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Write to a file: .html (a page to look at), .jsonl (everything), .csv, .tsv, "
            ".md or .txt (a table). It appears once it is complete."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Explain the first N texts.")] = None,
    errors: Annotated[
        Literal["raise", "skip"],
        typer.Option(
            help="What to do with a text that cannot be explained: raise ends there, skip goes on "
            "without it and says at the end which there were."
        ),
    ] = "raise",
) -> None:
    """Explain texts: which tokens decide what the model says.

    Without --output the texts are shown with coloured tokens in a terminal, and written as JSON
    lines into a pipe or a redirection: text, tokens, character offsets, scores and what they are
    ("score"; "signed": for and against the class; "relative": unsigned, but not in [0, 1]),
    predicted class and its probability, explained class, method and settings.
    """
    from captum_aml.exceptions import InvalidInputError

    if against is not None and not target:
        raise InvalidInputError("against: expected --target, which it is held against, got none")
    if output is not None:
        check_apart("output", [output], [file, None if texts else sys.stdin])
    source = _texts(texts or [], pair or [], file, column or [], errors)
    if limit is not None:
        source = islice(source, limit)
    # The first text is read before the model is loaded: a wrong file should not cost a minute.
    first = list(islice(source, 1))
    if not first:
        raise InvalidInputError(f"{file or 'standard input'}: expected a text, got none")
    if output is not None:
        from captum_aml.text.writing import check_format

        check_format(output)

    from rich.console import Console

    from captum_aml import methods
    from captum_aml.text import TextExplainer, write_explanations

    if method is not None:
        methods.spec(method)
    total = limit if file is not None else len(texts or []) or limit
    to_terminal = output is None and Console().is_terminal
    explainer = TextExplainer(
        options.load(stride=stride),
        method=method,
        masker=masker,
        unit=unit,  # type: ignore[arg-type]  # checked there
        segmenter=segmenter,
        n_steps=steps,
        batch_size=batch_size,
        seed=seed,
    )
    asked = [one if against is None else (one, against) for one in target or ()]
    results = explainer.stream(
        _Sized(chain(first, source), total) if total else chain(first, source),
        # A list would be of a target for each text.
        target=repeat(asked) if len(asked) > 1 else next(iter(asked), None),
        errors=errors,
        show_progress=shows_progress() and not to_terminal,
    )
    if output is None:
        try:
            with warnings_in_lines():
                _show(results, to_people=to_terminal)
        except BrokenPipeError:
            # The interpreter flushes once more at exit, which must not complain either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(_BROKEN_PIPE) from None
        return
    subtitle = f"{explainer.method_name} on {options.model}"
    with warnings_in_lines():
        count = write_explanations(output, results, title="Which tokens decide", subtitle=subtitle)
    typer.echo(f"{count} explanation{'' if count == 1 else 's'} in {output}", err=True)


# Rows of a file that are no texts may stand among them.
class _Sized(Iterable[Any]):
    """Texts with their expected number, for the progress bar."""

    def __init__(self, texts: Iterable[Any], total: int) -> None:
        self.texts = texts
        self.total = total

    def __iter__(self) -> Iterator[Any]:
        return iter(self.texts)

    def __len__(self) -> int:
        return self.total


def _texts(
    arguments: Sequence[str],
    pair: Sequence[str],
    file: Path | None,
    columns: Sequence[str],
    errors: OnError,
) -> Iterator[Any]:
    from captum_aml._utils.rows import Lines, text_rows
    from captum_aml.exceptions import InvalidInputError
    from captum_aml.text.data import read_rows

    if len(columns) > 2:
        raise InvalidInputError(f"column: expected one, or two for pairs, got {len(columns)}")
    if arguments and file is not None:
        raise InvalidInputError("texts: expected texts as arguments or --file, got both")
    if pair and len(pair) != len(arguments):
        raise InvalidInputError(
            f"pair: expected one for each text, which are arguments beside it, got {len(pair)} and "
            f"{len(arguments)}"
        )
    if file is not None:
        column = (columns[0], columns[1]) if len(columns) == 2 else next(iter(columns), None)
        return read_rows(file, column=column, errors=errors)
    if arguments:
        return zip(arguments, pair, strict=True) if pair else iter(arguments)
    if sys.stdin.isatty():
        raise InvalidInputError(
            "texts: expected texts as arguments, with --file, or on standard input, got none"
        )
    return text_rows(Lines(sys.stdin.buffer, "standard input"))


def _show(explanations: Iterable[Explanation], *, to_people: bool) -> None:
    """Writes to standard output: for people in a terminal, for programs elsewhere."""
    from rich.console import Console

    from captum_aml.text.explanation import print_explanation
    from captum_aml.text.writing import legend_of, to_json_line
    from captum_aml.visualization import shows_colors

    console = Console(highlight=False, soft_wrap=True)
    for number, explanation in enumerate(explanations):
        if not to_people:
            sys.stdout.buffer.write(to_json_line(explanation).encode("utf-8") + b"\n")
            sys.stdout.buffer.flush()
            continue
        if not number:
            colored = shows_colors(console)
            legend = legend_of(explanation, colored=colored)
            console.print(legend, style="dim" if colored else "", markup=False)
        print_explanation(explanation, console, with_legend=False)
