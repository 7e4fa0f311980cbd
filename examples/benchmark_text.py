"""Cost of explaining texts from end to end, as a ratio to the bare model's classification.

The same texts, strings in and plain values out: tokenizing, batches of similar length, the passes,
and everything an :class:`~captum_aml.text.Explanation` holds. The bare model classifies them with
its own tokenizer in length-sorted batches. A loop of Captum's ``LayerIntegratedGradients`` with 50
steps explains some of them one by one, as in Captum's own tutorials. What is compared takes turns,
and ratios are medians over repeats, so that a busy machine disturbs all alike. Peak memory is that
of processes of their own, as Linux counts it. The maskers have weights as they start with: what
they learned does not change what they cost.

Run it with a model and texts of your own::

    python examples/benchmark_text.py --model FOLDER --data FILE.jsonl

Without them it takes the small classifier and the generated reviews that come with the package.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from itertools import islice
from pathlib import Path

import torch
from captum.attr import LayerIntegratedGradients
from rich.console import Console
from rich.table import Table

from captum_aml import SharedMasker, TransformerMasker
from captum_aml.reviews import generate_reviews, load_reviews_classifier
from captum_aml.text import TextClassifier, TextExplainer, read_texts

BARE = "bare classification"
CAPTUM = "Captum's IG, one by one"


def main() -> None:
    """Runs the benchmark and prints its table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", help="local folder or hub id of a classifier")
    parser.add_argument("--data", type=Path, help="file of texts")
    parser.add_argument("--limit", type=int, default=1000, help="texts")
    parser.add_argument("--captum-limit", type=int, default=30, help="texts for Captum's loop")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    parser.add_argument("--only", help=argparse.SUPPRESS)  # a process that measures memory
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    texts = _texts(args)
    if args.only is not None:
        _runs(args)[args.only](texts[: args.captum_limit] if args.only == CAPTUM else texts)
        # Not getrusage: its peak is inherited from the process that started this one.
        status = Path("/proc/self/status").read_text()
        sys.stdout.write(status.split("VmHWM:")[1].split()[0] + "\n")
        return

    runs = _runs(args)
    shorter = texts[: args.captum_limit]
    given = {name: shorter if name == CAPTUM else texts for name in runs}
    for name, run in runs.items():  # the first pass of each allocates and imports
        run(given[name][:8])
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(args.repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run(given[name])
            seconds[name].append((time.perf_counter() - start) / len(given[name]))
    peaks = {name: _peak(name) for name in runs}

    figures = {
        name: {
            "ms_per_text": 1000 * statistics.median(values),
            "ratio": statistics.median(v / b for v, b in zip(values, seconds[BARE], strict=True)),
            "peak_mib": peaks[name],
            "memory_ratio": peaks[name] / peaks[BARE],
        }
        for name, values in seconds.items()
    }
    title = (
        f"{len(texts)} texts, batches of {args.batch_size}, {args.threads} threads, medians of "
        f"{args.repeats}"
    )
    table = Table("", "ms per text", "ratio", "peak MiB", "ratio", title=title)
    for name, figure in figures.items():
        table.add_row(
            name,
            f"{figure['ms_per_text']:.2f}",
            f"{figure['ratio']:.2f}",
            f"{figure['peak_mib']:.0f}",
            f"{figure['memory_ratio']:.2f}",
        )
    Console().print(table)
    if args.json is not None:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")


def _texts(args: argparse.Namespace) -> list[str]:
    if args.data is None:
        return [review.text for review in generate_reviews(args.limit, seed=1)]
    return list(islice(read_texts(args.data), args.limit))


def _runs(args: argparse.Namespace) -> dict[str, Callable[[Sequence[str]], object]]:
    if args.model is None:
        model, tokenizer = load_reviews_classifier()
        classifier = TextClassifier(model.eval().requires_grad_(False), tokenizer)
    else:
        classifier = TextClassifier.from_pretrained(args.model, device=args.device)
    model, tokenizer = classifier.model, classifier.tokenizer

    def bare(texts: Sequence[str]) -> list[list[float]]:
        encoded = [
            tokenizer(text, truncation=True, max_length=classifier.max_length) for text in texts
        ]
        order = sorted(range(len(texts)), key=lambda i: len(encoded[i]["input_ids"]))
        results: list[list[float]] = [[] for _ in texts]
        for start in range(0, len(order), args.batch_size):
            rows = order[start : start + args.batch_size]
            batch = tokenizer.pad([encoded[i] for i in rows], return_tensors="pt")
            with torch.no_grad():
                logits = model(**batch.to(classifier.device)).logits
            for row, values in zip(rows, logits.softmax(dim=-1).tolist(), strict=True):
                results[row] = values
        return results

    def captum(texts: Sequence[str]) -> list[list[float]]:
        method = LayerIntegratedGradients(
            lambda ids, *rest: classifier(ids, *rest).softmax(dim=-1), classifier.embedding_layer
        )
        results = []
        for text in texts:
            batch = classifier.collate(classifier.tokenize([text]))
            target = int(classifier(batch.input_ids, *batch.forward_args).argmax())
            attributions = method.attribute(
                batch.input_ids,
                classifier.baselines(batch),
                target=target,
                additional_forward_args=batch.forward_args,
                n_steps=50,
            )
            results.append(attributions.sum(dim=-1)[0].tolist())
        return results

    runs: dict[str, Callable[[Sequence[str]], object]] = {BARE: bare}

    @cache  # made when it first runs: a process that measures memory runs one of them only
    def explainer(kind: type[SharedMasker] | type[TransformerMasker]) -> TextExplainer:
        masker = kind.from_model(model).eval().to(args.device)
        masker.fitted = True
        return TextExplainer(classifier, masker=masker, batch_size=args.batch_size)

    for kind in (SharedMasker, TransformerMasker):
        runs[f"TextExplainer, {kind.__name__}"] = lambda texts, kind=kind: explainer(kind)(texts)
    return {**runs, CAPTUM: captum}


def _peak(name: str) -> float:
    """The peak memory of a process that does one of them, in MiB."""
    command = [sys.executable, *sys.argv, "--only", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1]) / 1024


if __name__ == "__main__":
    main()
