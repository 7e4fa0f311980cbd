"""Cost of a fitted pass, as a ratio to one bare forward pass of the explained model.

A fitted pass is ``AMLAttribution.attribute(..., n_steps=0)``: prediction and explanation together.
It is measured with a ``TransformerMasker``, which runs an encoder of its own, and with a
``SharedMasker``, which reads the hidden states of the explained model. What is compared takes turns
batch by batch, and ratios are medians over repeats, so that a busy machine disturbs all alike. The
maskers have weights as they start with: what they learned does not change what they cost.

Run it with a model and texts of your own::

    python examples/benchmark_maskers.py --model FOLDER --data FILE.jsonl

Without them it takes the small classifier and the generated reviews that come with the package.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from captum_aml import AMLAttribution, SharedMasker, TransformerMasker
from captum_aml.reviews import generate_reviews, load_reviews_classifier
from captum_aml.text import TextBatches, TextClassifier, read_texts


def main() -> None:
    """Runs the benchmark and prints its table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", help="local folder or hub id of a classifier")
    parser.add_argument("--data", type=Path, help="file of texts")
    parser.add_argument("--limit", type=int, default=320, help="texts")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    if args.model is None:
        classifier = TextClassifier(*load_reviews_classifier())
        classifier.model.eval().requires_grad_(False).to(args.device)
    else:
        classifier = TextClassifier.from_pretrained(args.model, device=args.device)
    if args.data is None:
        texts = [review.text for review in generate_reviews(args.limit, seed=1)]
    else:
        texts = list(islice(read_texts(args.data), args.limit))
    batches = list(TextBatches(classifier, texts, batch_size=args.batch_size))

    def bare(batch: dict[str, Any]) -> None:
        with torch.no_grad():
            classifier(batch["inputs"], *batch["additional_forward_args"])

    runs: dict[str, Callable[[dict[str, Any]], object]] = {"one forward pass": bare}
    maskers: dict[str, nn.Module] = {
        "SharedMasker": SharedMasker.from_model(classifier.model),
        "TransformerMasker": TransformerMasker.from_model(classifier.model),
    }
    for name, masker in maskers.items():
        masker.eval().to(args.device)
        setattr(masker, "fitted", True)  # noqa: B010  (a module's own attributes have no type)
        attribution = AMLAttribution(
            classifier,
            embedding_layer=classifier.embedding_layer,
            masker=masker,
            output="logits",
        )
        runs[name] = lambda batch, explain=attribution.attribute: explain(**batch, n_steps=0)

    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for name in runs:  # the first pass of each allocates and imports
        runs[name](batches[0])
    for _ in range(args.repeats):
        spent = dict.fromkeys(runs, 0.0)
        for batch in batches:
            for name, run in runs.items():
                spent[name] += _timed(run, batch, args.device)
        for name, value in spent.items():
            seconds[name].append(value)

    figures = {
        name: {
            "ms_per_text": 1000 * statistics.median(values) / len(texts),
            "ratio": statistics.median(
                v / b for v, b in zip(values, seconds["one forward pass"], strict=True)
            ),
        }
        for name, values in seconds.items()
    }
    n_tokens = sum(int(batch["additional_forward_args"][0].sum()) for batch in batches)
    title = (
        f"{len(texts)} texts of {n_tokens / len(texts):.0f} tokens, batches of {args.batch_size}, "
        f"{args.threads} threads, medians of {args.repeats}"
    )
    table = Table("", "ms per text", "forward passes", title=title)
    for name, figure in figures.items():
        table.add_row(name, f"{figure['ms_per_text']:.2f}", f"{figure['ratio']:.3f}")
    Console().print(table)
    if args.json is not None:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")


def _timed(run: Callable[[dict[str, Any]], object], batch: dict[str, Any], device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    start = time.perf_counter()
    run(batch)
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
