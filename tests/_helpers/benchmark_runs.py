"""Classifiers, texts and methods for benchmark runs that take a second."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from captum_aml.benchmark.explain import MethodRun
from captum_aml.benchmark.plan import Plan
from captum_aml.benchmark.store import BenchmarkFolder, MethodFile
from captum_aml.methods import Family, MethodSpec, registry
from captum_aml.reviews import generate_reviews, reviews_classifier_path
from captum_aml.text import LabelledText, TextClassifier
from tests._helpers.text_models import bert_classifier, word_piece_tokenizer

COSTS = ("seconds", "peak_memory_mib")


@cache
def reviews_classifier() -> TextClassifier:
    """The bundled classifier of reviews."""
    return TextClassifier.from_pretrained(reviews_classifier_path(), device="cpu")


def reviews(n: int) -> list[LabelledText]:
    """Short reviews, whose deciding words are their rationales."""
    written = (r for r in generate_reviews(60, seed=5) if len(r.text.split()) < 13)
    return [LabelledText(r.text, r.label, r.deciding) for r in islice(written, n)]


def tiny_classifier(seed: int = 0) -> TextClassifier:
    """A random BERT of a few thousand weights over a few dozen words."""
    tokenizer = word_piece_tokenizer()
    model = bert_classifier(len(tokenizer), seed=seed).requires_grad_(False)
    return TextClassifier(model, tokenizer)


class Handmade:
    """A method from a function of the ids (N, L)."""

    def __init__(self, scores: Callable[[Tensor], Any]) -> None:
        self.scores = scores
        self.settings: Mapping[str, Any] = {"kind": "handmade"}

    def __call__(self, ids: Tensor, baselines: Tensor, **_: Any) -> Any:
        return self.scores(ids)


def by_id(ids: Tensor) -> Tensor:
    """Scores that follow from the ids alone."""
    return (ids * 37 % 101).float() / 101


def register(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    scores: Callable[[Tensor], Any],
    *,
    family: Family = "other",
    stochastic: bool = False,
) -> MethodSpec:
    """Adds a method for a test."""
    spec = MethodSpec(
        name,
        "made by hand",
        lambda *_: Handmade(scores),
        family=family,
        stochastic=stochastic,
    )
    monkeypatch.setitem(registry._REGISTRY, name, spec)
    return spec


@contextmanager
def opened(
    folder: Path, run: MethodRun, text_model: TextClassifier, plan: Plan
) -> Iterator[tuple[Any, MethodFile]]:
    """A run's method, and its file in a folder of its own."""
    method = run.create(text_model, batch_size=plan.batch_size)
    with BenchmarkFolder.open(folder, {}) as opened_folder:
        yield (
            method,
            opened_folder.method_file(
                run.name, run.seed, run.settings(method), plan.digest, plan.batch_sizes
            ),
        )


class Passes:
    """Counts, without hooks, the examples that pass through a network."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, network: nn.Module) -> None:
        self.count = 0
        forward = network.forward

        def counted(*args: Any, **keywords: Any) -> Any:
            output = forward(*args, **keywords)
            first = output[0] if isinstance(output, tuple) else output
            self.count += len(first if isinstance(first, Tensor) else first.logits)
            return output

        monkeypatch.setattr(network, "forward", counted)


def without_costs(value: Any) -> Any:
    """A JSON value without what differs between two runs of the same thing."""
    if isinstance(value, dict):
        return {name: without_costs(v) for name, v in value.items() if name not in COSTS}
    return [without_costs(v) for v in value] if isinstance(value, list) else value


def found(folder: Path) -> Any:
    """``results.json`` without measured cost."""
    return without_costs(json.loads((folder / "results.json").read_text("utf-8")))


def explanations(folder: Path) -> dict[str, list[Any]]:
    """Every file of explanations line by line, without measured cost."""
    return {
        path.name: [without_costs(json.loads(line)) for line in path.read_text().splitlines()]
        for path in sorted((folder / "explanations").iterdir())
    }


def contents(paths: Sequence[Path]) -> dict[str, tuple[bytes, int]]:
    """What files hold, and when they were written."""
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}
