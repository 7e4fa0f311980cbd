"""The report of a benchmark: a page, Markdown and JSON, each made from the results alone."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from captum_aml._utils.files import atomic_file
from captum_aml.benchmark.report.markdown import to_markdown
from captum_aml.benchmark.report.page import to_html
from captum_aml.benchmark.report.serialization import results_from_json, results_to_json
from captum_aml.benchmark.results import BenchmarkResults


class ReportFiles(NamedTuple):
    """Paths of a report's files."""

    html: Path
    markdown: Path
    json: Path


def write_report(
    folder: str | os.PathLike[str], results: BenchmarkResults, *, texts: bool = False
) -> ReportFiles:
    """Writes ``report.html``, ``report.md`` and ``results.json``.

    Each file is either complete or as it was before. The page shows the examples' texts; the other
    two hold none, so that they can be published where the data may not.

    Args:
        folder: Where to; made if it is not there.
        results: What was found.
        texts: Whether ``report.md`` shows the examples' texts, and what failed methods said, too.
            Default: False.

    Returns:
        The three paths.

    Raises:
        OSError: A file cannot be written.
        ImportError: Matplotlib or SciPy is not installed.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    paths = ReportFiles(target / "report.html", target / "report.md", target / "results.json")
    _write(paths.json, [results_to_json(results)])
    _write(paths.markdown, [to_markdown(results, texts=texts)])
    _write(paths.html, to_html(results))
    return paths


def _write(path: Path, pieces: Iterable[str]) -> None:
    with atomic_file(path) as stream:
        for piece in pieces:
            stream.write(piece.encode())


__all__ = ["ReportFiles", "results_from_json", "results_to_json", "write_report"]
