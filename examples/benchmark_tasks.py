"""Cost of explaining any task, in passes of the model and as a ratio to its own answers.

The bare model answers for the same texts, tokenized before, in the same batches, which is the time
that everything is held against; both take turns, and the ratio is the median over repeats. Passes
are counted at the encoder or decoder itself: rows that go forward through it, and rows whose
gradient comes back.

For instance, every label of texts at once, pairs, and documents in windows::

    python examples/benchmark_tasks.py --model FOLDER --data FILE --target all
    python examples/benchmark_tasks.py --model FOLDER --data FILE --column premise,hypothesis
    python examples/benchmark_tasks.py --model FOLDER --data FILE --stride 64

Without ``--model`` and ``--data`` it takes the small classifier and the generated reviews that come
with the package.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from captum_aml.reviews import generate_reviews, reviews_classifier_path
from captum_aml.text import TextExplainer


def main() -> None:
    """Runs the benchmark and prints its figures as a line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default=str(reviews_classifier_path()), help="folder or hub id")
    parser.add_argument("--task", help="its task, where it cannot be told from the model")
    parser.add_argument("--data", type=Path, help="a .jsonl file")
    parser.add_argument("--column", default="text", help="its column, or two with a comma between")
    parser.add_argument("--labels", help="labels, with commas between")
    parser.add_argument("--template", help="the prompt or hypothesis template")
    parser.add_argument("--stride", type=int, help="tokens that windows of long documents share")
    parser.add_argument("--unit", default="token")
    parser.add_argument("--target", help="label, or 'all'")
    parser.add_argument("--method", default="aml")
    parser.add_argument("--masker", help="'shared' or 'transformer', as it starts, or a folder")
    parser.add_argument("--limit", type=int, default=1000, help="texts")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    texts = _texts(args)
    explainer = _explainer(args, texts)
    text_model = explainer.text_model

    tokenized = text_model.tokenize(texts)

    def bare() -> None:
        text_model.outputs(tokenized, batch_size=args.batch_size)

    def explained() -> int:
        return sum(1 for _ in explainer.stream(texts, target=args.target))

    text_model.outputs(tokenized[:4])
    list(explainer.stream(texts[:4], target=args.target))
    with _counted(text_model.model) as own:
        bare()
    with _counted(text_model.model) as rows:
        count = explained()
    seconds: dict[str, list[float]] = {"bare": [], "explained": []}
    for _ in range(args.repeats):
        for name, run in (("bare", bare), ("explained", explained)):
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    figures = {
        "task": text_model.task,
        "texts": len(texts),
        "explanations": count,
        "forward": round(rows["forward"] / len(texts), 1),
        "backward": round(rows["backward"] / len(texts), 1),
        "bare_forward": round(own["forward"] / len(texts), 1),
        "bare_ms_per_text": 1000 * statistics.median(seconds["bare"]) / len(texts),
        "ratio": statistics.median(
            e / b for e, b in zip(seconds["explained"], seconds["bare"], strict=True)
        ),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    sys.stdout.write(json.dumps(figures) + "\n")


def _texts(args: argparse.Namespace) -> list[Any]:
    if args.data is None:
        return [review.text for review in generate_reviews(args.limit, seed=1)]
    columns = args.column.split(",")
    with args.data.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in islice(lines, args.limit)]
    chosen = [tuple(row[column] for column in columns) for row in rows]
    return [pair if len(columns) > 1 else pair[0] for pair in chosen]


def _explainer(args: argparse.Namespace, texts: list[Any]) -> TextExplainer:
    options: dict[str, Any] = {
        "task": args.task,
        "unit": args.unit,
        "method": args.method,
        "batch_size": args.batch_size,
        "template": args.template,
        "labels": None if args.labels is None else args.labels.split(","),
        "stride": args.stride,
        "device": "cpu",
    }
    if args.masker not in ("shared", "transformer"):
        return TextExplainer(args.model, masker=args.masker, **options)
    # What a masker learned does not change what it costs.
    return TextExplainer(args.model, **options).fit(texts[:8], masker=args.masker, epochs=1)


@contextmanager
def _counted(model: nn.Module) -> Iterator[Counter[str]]:
    """Counts the rows that go through a model while open."""
    rows: Counter[str] = Counter()
    body = getattr(model, "base_model", model)

    def count(_: nn.Module, __: object, output: Any) -> None:
        found = output if isinstance(output, Tensor) else next(iter(output.values()))
        rows["forward"] += len(found)
        if found.requires_grad:
            found.register_hook(lambda gradient: rows.update(backward=len(gradient)))

    handle = body.register_forward_hook(count)
    try:
        yield rows
    finally:
        handle.remove()


if __name__ == "__main__":
    main()
