"""The command line: ``captum-aml``.

Results go to standard output, everything else to standard error. What a user can mend is told in
one line and ends with exit code 2. Commands import what they need when they run, so that help and
mistakes in the arguments come at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from captum_aml.cli.benchmark import Baseline, Labels, Template, benchmark, evaluate
from captum_aml.cli.fit import fit, search

if TYPE_CHECKING:
    from captum_aml.cli.demo import DemoResult
    from captum_aml.text import Explanation

#: What a shell reports for a program that was stopped because nobody reads its output any more.
_BROKEN_PIPE = 128 + 13
_INTERRUPTED = 128 + 2
_USER_ERROR = 2

app = typer.Typer(
    name="captum-aml",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits.

    Args:
        arguments: The arguments after the program's name. Default: None, those of the process.

    Raises:
        SystemExit: Always; with code 0, or 2 for an error that the user can mend.
    """
    from captum_aml.exceptions import CaptumAMLError

    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(args=given or ["--help"], prog_name="captum-aml", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted", code=_INTERRUPTED)
    except typer.Exit as done:
        sys.exit(done.exit_code)
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except (CaptumAMLError, ImportError) as error:
        _fail(str(error))
    except Exception as error:
        # Mistakes in the arguments come as click's own errors, which typer brings along.
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        _fail(f"{message()} (see captum-aml --help)")
    sys.exit(code if isinstance(code, int) else 0)


def _show_version(wanted: bool) -> None:
    if wanted:
        from captum_aml._version import __version__

        typer.echo(f"captum-aml {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Explain text classifiers by learning which tokens decide."""


@app.command()
def explain(
    texts: Annotated[
        list[str] | None,
        typer.Argument(help="Texts. Without any, and without --file: one a line from stdin."),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            help="A sequence-classification model, or a language model with --template: a local "
            "folder or a hub id."
        ),
    ] = ...,  # type: ignore[assignment]  # typer's sign for a required option
    template: Template = None,
    labels: Labels = None,
    file: Annotated[
        Path | None,
        typer.Option(help="Read texts from a .jsonl, .csv, .tsv, .parquet or .txt file."),
    ] = None,
    column: Annotated[str, typer.Option(help="The column of --file that holds the text.")] = "text",
    method: Annotated[
        str,
        typer.Option(
            help="aml, aml-tuned, aml-tuned-masker, aml-free, aml-free-attention, la, la-tuned, "
            "la-tuned-masker, la-free, la-free-attention, "
            "integrated-gradients (or ig), gradient-shap, input-x-gradient, saliency, "
            "smooth-grad, deep-lift, occlusion, lime, kernel-shap, shapley-sampling, shap, "
            "lime-text, attention, attention-rollout or random."
        ),
    ] = "aml",
    masker: Annotated[
        str | None, typer.Option(help="A folder with a fitted masker, for aml and la.")
    ] = None,
    unit: Annotated[
        str, typer.Option(help="What is masked and scored as one: token, word or sentence.")
    ] = "token",
    target: Annotated[
        str | None,
        typer.Option(help="Class to explain, by label or index.", show_default="the predicted one"),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Tuning steps (aml, la: 50, or 0 with a masker), integration steps (ig: 50), "
            "samples (gradient-shap: 50; lime, kernel-shap: 500) or orders (shapley-sampling: 25).",
            show_default="the method's own",
        ),
    ] = None,
    baseline: Baseline = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts in one pass of the model.")] = 32,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps, ...")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Seed of whatever is random.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Write to a file: .html (a page to look at), .jsonl (everything), .csv, .tsv, "
            ".md or .txt (a table). It appears once it is complete."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Explain the first N texts.")] = None,
) -> None:
    """Explain texts: which tokens decide what the model says.

    Without --output the texts are shown with coloured tokens in a terminal, and written as JSON
    lines into a pipe or a redirection: text, tokens, character offsets, scores, predicted class and
    its probability, explained class, method and settings.
    """
    from captum_aml.exceptions import InvalidInputError

    source = _texts(texts or [], file, column)
    if limit is not None:
        source = islice(source, limit)
    # The first text is read before the model is loaded: a wrong file should not cost a minute.
    first = list(islice(source, 1))
    if not first:
        raise InvalidInputError(f"{file or 'standard input'}: expected a text, got none")
    if output is not None:
        from captum_aml.text.writing import check_format

        check_format(output)

    from captum_aml import methods
    from captum_aml.text import explain_texts, write_explanations
    from captum_aml.text.sources import prompt_of, text_model

    methods.spec(method)
    prompt = prompt_of(template, labels)
    quiet_libraries()
    classifier = text_model(model, prompt=prompt, baseline=baseline, device=device)
    total = limit if file is not None else len(texts or []) or limit
    to_terminal = output is None and _is_terminal()
    results = explain_texts(
        classifier,
        _Sized(chain(first, source), total) if total else chain(first, source),
        method=method,
        masker=masker,
        unit=unit,  # type: ignore[arg-type]  # checked there
        target=target,
        n_steps=steps,
        batch_size=batch_size,
        seed=seed,
        progress=sys.stderr.isatty() and not to_terminal,
    )
    if output is None:
        try:
            _show(results, colored=to_terminal)
        except BrokenPipeError:
            # The interpreter flushes once more at exit, which must not complain either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(_BROKEN_PIPE) from None
        return
    subtitle = f"{method} on {model}"
    count = write_explanations(output, results, title="Which tokens decide", subtitle=subtitle)
    typer.echo(f"{count} explanation{'' if count == 1 else 's'} in {output}", err=True)


@app.command()
def demo(
    output: Annotated[
        Path, typer.Option(help="Where to write the page.", show_default=True)
    ] = Path("captum_aml_demo.html"),
    texts: Annotated[int, typer.Option(min=1, help="How many texts are shown.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Seed of whatever is random.")] = 0,
) -> None:
    """Show AML, LA, Integrated Gradients and occlusion side by side, offline.

    Explains reviews of which it is known which words decide, with a small classifier that comes
    with the package: shows a handful of them, how many deciding words each method finds in 200
    more and how long it takes, and writes a page with all of it.
    """
    from captum_aml._utils.files import atomic_file
    from captum_aml.text.writing import check_format

    if check_format(output) != ".html":
        raise typer.BadParameter("expected a name that ends in .html", param_hint="--output")
    import torch

    from captum_aml.cli.demo import run_demo
    from captum_aml.visualization import page

    # The bundled model is too small to share among threads: on a busy machine they only wait.
    torch.set_num_threads(1)

    quiet_libraries()
    with _status("Loading the classifier") as tell:
        result = run_demo(n_shown=texts, seed=seed, on_method=tell)
    _show_demo(result)
    table = result.table()
    with atomic_file(output) as stream:
        for piece in page(
            result.cards,
            title="captum_aml: which words decide?",
            subtitle="Reviews from a grammar that knows the answer; every method explains the "
            "same classifier.",
            tables=[table],
        ):
            stream.write(piece.encode("utf-8"))
    typer.echo(f"\nThe page: {output.resolve()}")


app.command()(benchmark)
app.command()(evaluate)
app.command()(fit)
app.command()(search)


@contextmanager
def _status(first: str) -> Iterator[Callable[[str], None]]:
    """A line on standard error that says what is being done, in a terminal only."""
    from rich.console import Console

    console = Console(stderr=True)
    with console.status(first) as status:
        yield status.update


def _show_demo(result: DemoResult) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from captum_aml.visualization import plain_text, printable, terminal_text

    console = Console(highlight=False)
    colored = console.color_system is not None and not console.no_color
    width = max(len(row.method) for card in result.cards for row in card.rows)
    for card in result.cards:
        label = f"{printable(card.predicted)} {card.probability:.2f}"
        console.print(Text(f"\n{label}", style="bold"))
        for row in card.rows:
            text = terminal_text(card, row) if colored else Text(plain_text(card, row))
            console.print(Text(f"  {row.method:{width}}  ", style="dim") + text, soft_wrap=True)
    shown = result.table()
    made = Table(title=shown.caption, title_justify="left", title_style="bold")
    for i, column in enumerate(shown.columns):
        made.add_column(column, justify="left" if i == 0 else "right")
    for cells in shown.rows:
        made.add_row(*cells)
    console.print()
    console.print(made)


class _Sized(Iterable[str]):
    """Texts with their expected number, for the progress bar."""

    def __init__(self, texts: Iterable[str], total: int) -> None:
        self.texts = texts
        self.total = total

    def __iter__(self) -> Iterator[str]:
        return iter(self.texts)

    def __len__(self) -> int:
        return self.total


def _texts(arguments: Sequence[str], file: Path | None, column: str) -> Iterator[str]:
    from captum_aml.exceptions import InvalidInputError
    from captum_aml.text.data import read_lines, read_texts

    if arguments and file is not None:
        raise InvalidInputError("texts: expected texts as arguments or --file, got both")
    if file is not None:
        return read_texts(file, column=column)
    if arguments:
        return iter(arguments)
    if sys.stdin.isatty():
        raise InvalidInputError(
            "texts: expected texts as arguments, with --file, or on standard input, got none"
        )
    return read_lines(sys.stdin.buffer, name="standard input")


def _show(explanations: Iterable[Explanation], *, colored: bool) -> None:
    """Writes to standard output: for people in a terminal, for programs elsewhere."""
    if not colored:
        from captum_aml.text import to_json_line

        stream = sys.stdout.buffer
        for explanation in explanations:
            stream.write(to_json_line(explanation).encode("utf-8") + b"\n")
            stream.flush()
        return
    from rich.console import Console
    from rich.text import Text

    from captum_aml.text import headline, readable, text_card
    from captum_aml.visualization import terminal_text

    console = Console(highlight=False, soft_wrap=True)
    for explanation in explanations:
        if console.color_system is None or console.no_color:
            typer.echo(readable(explanation))
            continue
        card = text_card([explanation])
        head = (f"{headline(explanation)} ", "bold")
        console.print(Text.assemble(head, terminal_text(card, card.rows[0])))


def _is_terminal() -> bool:
    from rich.console import Console

    return Console().is_terminal


def quiet_libraries() -> None:
    """Keeps the progress bars and notices of loading off the screen."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    hub_logging.set_verbosity_error()  # type: ignore[no-untyped-call]


def _fail(message: str, *, code: int = _USER_ERROR) -> None:
    line = " ".join(message.split())
    typer.echo(f"captum-aml: {line}", err=True)
    sys.exit(code)
