"""Measurements of the package's architecture: packages, imports, files that a call runs, start-up.

``python -m tests.architecture`` prints them; ``--static`` leaves out what runs a model. A *room* is
a package or a module of the top level. An *arrow* is an import from one room by another, an *upward
arrow* one against the layers in ``pyproject.toml``, a *circle* a set of files, or of rooms, that
import each other. Imports for types alone do not count. A file *runs* where one of its functions
does, or the body of one of its classes, once everything is imported; the command ``fit`` starts
cold, so that its class bodies count.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import grimp

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
NAME = "captum_aml"
PACKAGE = ROOT / NAME

#: A process that counts its own files at its end: those it ran, and those it imported.
_COUNT_FILES = """
import sys
from tests.architecture import files_run
from captum_aml.cli.main import main
try:
    with files_run() as seen:
        main(sys.argv[1:])
finally:
    names = {m for m in sys.modules if m == "captum_aml" or m.startswith("captum_aml.")}
    print("files:", len(seen), len(names))
"""


def room_of(module: str) -> str:
    """The room of a module: its package, or itself at the top level."""
    file = PACKAGE.joinpath(*module.split(".")[1:])
    return module if file.is_dir() or module.count(".") < 2 else module.rpartition(".")[0]


def top_of(room: str) -> str:
    """The package or module of the top level that a room belongs to; itself for the root."""
    return ".".join(room.split(".")[:2])


def layers() -> list[set[str]]:
    """The rooms' top-level names by layer, highest first, as the import contract lists them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    (rows,) = (c["layers"] for c in contracts["contracts"] if c["type"] == "layers")
    return [{part.strip() for part in row.split("|")} for row in rows]


def arrows(graph: grimp.ImportGraph) -> set[tuple[str, str]]:
    """Pairs of rooms of which the first imports from the second."""
    pairs = {
        (room_of(importer), room_of(imported))
        for importer in graph.modules
        for imported in graph.find_modules_directly_imported_by(importer)
    }
    return {(a, b) for a, b in pairs if a != b}


def upward(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The arrows against the layers, those between siblings of a layer included."""
    heights = {name: -row for row, names in enumerate(layers()) for name in names}

    height = {a: heights[top_of(a).rpartition(".")[2]] for pair in pairs for a in pair if a != NAME}
    return sorted(
        (a, b)
        for a, b in pairs
        if NAME not in (a, b) and top_of(a) != top_of(b) and height[a] <= height[b]
    )


def circles(edges: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """The strongly connected components of more than one node (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for after in edges.get(node, ()):
            if after not in index:
                visit(after)
                low[node] = min(low[node], low[after])
            elif after in stack:
                low[node] = min(low[node], index[after])
        if low[node] == index[node]:
            start = stack.index(node)
            component = stack[start:]
            del stack[start:]
            if len(component) > 1:
                found.append(sorted(component))

    for node in list(edges):
        if node not in index:
            visit(node)
    return found


def lines_by_room() -> Counter[str]:
    """Lines of Python code by room."""
    counts: Counter[str] = Counter()
    for file in PACKAGE.rglob("*.py"):
        parts = file.relative_to(ROOT).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        counts[room_of(module)] += len(file.read_text("utf-8").splitlines())
    return counts


@contextmanager
def files_run() -> Iterator[set[str]]:
    """The package's files of which a function runs inside the block."""
    seen: set[str] = set()
    prefix = str(PACKAGE)

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_name != "<module>" and code.co_filename.startswith(prefix):
            seen.add(os.path.relpath(code.co_filename, ROOT))

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield seen
    finally:
        sys.setprofile(before)


def run_twice(call: Callable[[], object]) -> set[str]:
    """The files that a call runs once everything is imported: those of its second run."""
    call()
    with files_run() as seen:
        call()
    return seen


def calls() -> dict[str, set[str]]:
    """The files that a call of a fitted attribution, of an explainer and of a fit run."""
    import torch
    from transformers.utils import logging

    from captum_aml import LayerAMLAttribution
    from captum_aml.reviews import load_reviews_classifier, reviews_masker_path
    from captum_aml.text import TextExplainer

    logging.disable_progress_bar()
    model, tokenizer = load_reviews_classifier()
    batch = tokenizer(
        ["The acting was not good.", "A fine film."], padding=True, return_tensors="pt"
    )
    ids, mask = batch["input_ids"], batch["attention_mask"]

    def forward(ids, mask):  # type: ignore[no-untyped-def]  # Captum's example
        return model(ids, attention_mask=mask).logits

    special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
    references = torch.where(special, ids, tokenizer.mask_token_id)
    attribution = LayerAMLAttribution(forward, model.bert.embeddings)
    call = {"baselines": references, "target": 1, "additional_forward_args": (mask,)}
    explainer = TextExplainer(model, tokenizer, masker=reviews_masker_path("aml"))
    training = [{"inputs": ids, **call}]
    return {
        "LayerAMLAttribution.attribute": run_twice(lambda: attribution.attribute(ids, **call)),
        "TextExplainer(text)": run_twice(lambda: explainer("A fine film .")),
        "fit of one batch": run_twice(
            lambda: LayerAMLAttribution(forward, model.bert.embeddings).fit(training, epochs=1)
        ),
    }


def fit_command() -> tuple[int, int]:
    """The numbers of files that a cold process of the command ``fit`` runs, and imports."""
    from captum_aml.reviews import reviews_classifier_path

    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "train.jsonl"
        data.write_text('{"text": "A fine film ."}\n' * 4, "utf-8")
        command = ["fit", "--model", str(reviews_classifier_path()), "--data", str(data)]
        command += ["--validation", str(data), "--epochs", "1", "--out", f"{folder}/masker"]
        done = subprocess.run(
            [sys.executable, "-c", _COUNT_FILES, *command],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
    if done.returncode not in (0, None):
        raise RuntimeError(done.stderr)
    ran, imported = done.stdout.rpartition("files:")[2].split()
    return int(ran), int(imported)


def cpu_seconds(*command: str, runs: int = 5) -> float:
    """User and system CPU seconds of a Python process: the least of several runs."""
    spent = []
    for _ in range(runs):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(spent)


def main() -> None:
    """Prints the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--static", action="store_true", help="Run no model.")
    options = parser.parse_args()
    graph = grimp.build_graph(NAME, exclude_type_checking_imports=True, cache_dir=None)
    pairs = arrows(graph)
    files = {
        importer: sorted(graph.find_modules_directly_imported_by(importer))
        for importer in sorted(graph.modules)
    }
    # A package and its own subpackage are one room here: its face shows what the other holds.
    by_room: dict[str, list[str]] = {}
    for a, b in sorted({(top_of(a), top_of(b)) for a, b in pairs}):
        by_room.setdefault(a, []).append(b)
    lines = lines_by_room()
    print(f"rooms {len(lines)}   arrows {len(pairs)}   upward {len(upward(pairs))}")
    for pair in upward(pairs):
        print("  upward:", " -> ".join(pair))
    for what, found in (("rooms", circles(by_room)), ("files", circles(files))):
        print(f"circles of {what}: {len(found)}")
        for circle in found:
            print("  circle:", ", ".join(circle))
    print(f"files {sum(1 for _ in PACKAGE.rglob('*.py'))}   lines {lines.total()}")
    for room, count in sorted(lines.items()):
        print(f"  {count:6,}  {room}")
    if options.static:
        return
    for name, seen in calls().items():
        print(f"files run by {name}: {len(seen)}")
    ran, imported = fit_command()
    print(f"files run by the command fit: {ran}; imported: {imported}")
    print(f"CPU seconds of import captum_aml: {cpu_seconds('-c', f'import {NAME}'):.2f}")
    print(f"CPU seconds of captum-aml --help: {cpu_seconds('-m', f'{NAME}.cli', '--help'):.2f}")


if __name__ == "__main__":
    main()
