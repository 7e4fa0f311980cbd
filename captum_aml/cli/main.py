"""The command line: ``captum-aml``.

Results go to standard output, everything else to standard error. What a user can mend is reported
in one line and ends with exit code 2. Commands import what they need when they run, so that help
and mistakes in the arguments come at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from captum_aml._version import __version__
from captum_aml.cli.benchmark import benchmark, evaluate
from captum_aml.cli.demo import demo
from captum_aml.cli.explain import explain
from captum_aml.cli.fit import fit
from captum_aml.cli.search import search
from captum_aml.exceptions import CaptumAMLError

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


for command in (explain, demo, benchmark, evaluate, fit, search):
    app.command()(command)


def _fail(message: str, *, code: int = _USER_ERROR) -> None:
    line = " ".join(message.split())
    typer.echo(f"captum-aml: {line}", err=True)
    sys.exit(code)
