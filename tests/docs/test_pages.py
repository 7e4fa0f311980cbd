"""The documentation's Python runs, page by page in its order, and prints what is shown below it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from captum_aml.methods import registry as methods
from captum_aml.metrics import registry as metrics

DOCS = Path(__file__).parents[2] / "docs"

#: A block of Python, and what is shown as its output if a block of text follows at once.
BLOCK = re.compile(r"^```python\n(.*?)^```$(?:\n\n^```text\n(.*?)^```$)?", re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"-?\d+\.\d+")

PAGES = [
    path
    for path in (
        DOCS / "getting_started.md",
        DOCS / "fitting.md",
        DOCS / "benchmarking.md",
        *sorted((DOCS / "howto").glob("*.md")),
    )
    if "```python" in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_its_code_runs_and_prints_what_is_shown(
    page: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("matplotlib.pyplot").switch_backend("Agg")
    # What a page registers is gone with it.
    for registry in (methods, metrics):
        monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(DOCS.parent / "examples"))  # for its tiny models
    text = page.read_text(encoding="utf-8")
    names: dict[str, object] = {"__name__": "__main__"}
    for block in BLOCK.finditer(text):
        code, shown = block.groups()
        line = text.count("\n", 0, block.start()) + 1
        # Blank lines before it, so that an error names the line of the page.
        exec(compile("\n" * line + code, str(page), "exec", dont_inherit=True), names)
        printed = capsys.readouterr().out
        if shown is not None:
            assert _rounded(printed) == _rounded(shown), f"{page.name}:{line}"
            # Other versions of the libraries compute slightly other values.
            assert _numbers(printed) == pytest.approx(_numbers(shown), abs=0.02, rel=0.05), line


def test_every_page_is_in_a_table_of_contents() -> None:
    contents = "".join(path.read_text(encoding="utf-8") for path in DOCS.rglob("index.md"))
    listed = set(re.findall(r"^[\w/]+$", contents, re.MULTILINE))
    for page in DOCS.glob("howto/*.md"):
        assert page.stem in listed or f"howto/{page.stem}" in listed or page.stem == "index"


def test_the_reference_names_every_public_package() -> None:
    reference = (DOCS / "api.md").read_text(encoding="utf-8")
    named = set(re.findall(r"automodule:: (captum_aml[\w.]*)", reference))
    package = DOCS.parent / "captum_aml"
    public = {
        f"captum_aml.{path.stem}"
        for path in package.iterdir()
        if not path.name.startswith((".", "_"))
        and (path.suffix == ".py" or (path / "__init__.py").is_file())
    }
    # The command line documents itself, aliases of types are shown where they are used, and masking
    # is what the attribution classes share.
    unlisted = {"captum_aml.cli", "captum_aml.masking", "captum_aml.typing"}
    assert public - unlisted <= named


def test_files_that_the_page_on_architecture_names_are_there() -> None:
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    package = DOCS.parent / "captum_aml"
    named = set(re.findall(r"(?:\w+/)*\w+\.py\b", page))
    named = {path for path in named if "NAME" not in path and path != "_x.py"}
    assert len(named) > 40
    for path in named:
        root = DOCS.parent if path.startswith("tests/") else package
        assert (root / path).is_file(), path
    # A line of a drawing: a file, then names in it before a colon.
    shown = re.findall(r"^[ │├└]*((?:\w+/)*\w+\.py) +([\w, .]+?)(?:$|:)", page, re.MULTILINE)
    for path, names in shown:
        code = (package / path).read_text(encoding="utf-8")
        for name in re.findall(r"\b(?:\w*_\w+|[A-Z]\w+[a-z][A-Z]\w+)\b", names):
            assert re.search(rf"(?:def|class) {name}\b", code), (path, name)
    for package_name in re.findall(r"^\| `(\w+)/`", page, re.MULTILINE):
        assert (package / package_name / "__init__.py").is_file(), package_name


def test_the_glossary_is_in_order() -> None:
    page = (DOCS / "glossary.md").read_text(encoding="utf-8")
    terms = re.findall(r"^(\w[\w ]*)\n  \S", page, re.MULTILINE)
    assert len(terms) > 30
    assert terms == sorted(terms, key=str.lower)


def _rounded(text: str) -> str:
    """A text with its numbers taken out, and its white space made the same."""
    return " ".join(NUMBER.sub("0.0", text).split())


def _numbers(text: str) -> list[float]:
    return [float(number) for number in NUMBER.findall(text)]
