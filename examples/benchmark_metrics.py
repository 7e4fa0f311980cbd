"""Cost of evaluation, against a plain loop in the same run, and how it grows.

The AOPC suite is comprehensiveness, sufficiency and log-odds over the default convention's five
shares, for random scores. The plain loop takes one text, one share and one pass at a time, without
padding, and passes the unmasked text once per text. Both rank alike, so their results are equal.

Run it with a model and texts of your own::

    python examples/benchmark_metrics.py --model FOLDER --data FILE.jsonl
    python examples/benchmark_metrics.py --model FOLDER --data FILE.jsonl --growth 100 200 400

Without them it takes the small classifier and the generated reviews that come with the package.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from captum_aml.masking.call import parse_call
from captum_aml.metrics import (
    PRESETS,
    RemovalEvaluator,
    comprehensiveness,
    log_odds,
    sufficiency,
)
from captum_aml.metrics.faithfulness import comprehensiveness_of, log_odds_of, sufficiency_of
from captum_aml.reviews import generate_reviews, load_reviews_classifier

CONVENTION = PRESETS["default"]
SHARES = CONVENTION.shares or ()


class Workload:
    """A classifier, N texts of at most L tokens for it, and random scores.

    Attributes:
        ids: Token ids, (N, L).
        reference: The mask token's id, and the own ids of special tokens, (N, L).
        attention_mask: (N, L).
        scores: (N, L).
    """

    def __init__(self, model: str | None, data: str | None, limit: int) -> None:
        if model is None:
            self.model, tokenizer = load_reviews_classifier()
        else:
            from transformers import AutoModelForSequenceClassification, AutoTokenizer

            self.model = AutoModelForSequenceClassification.from_pretrained(
                model, dtype=torch.float32
            )
            tokenizer = AutoTokenizer.from_pretrained(model)
        self.model.eval().requires_grad_(False)
        if data is None:
            texts = [review.text for review in generate_reviews(limit)]
        else:
            with open(data, encoding="utf-8") as file:
                texts = [json.loads(line)["text"] for line in itertools.islice(file, limit)]
        if len(texts) < limit:
            raise SystemExit(f"{data}: expected at least {limit} texts, got {len(texts)}")
        encoded = tokenizer(
            texts,
            padding=True,
            truncation=True,
            return_special_tokens_mask=True,
            return_tensors="pt",
        )
        self.ids = encoded["input_ids"]
        self.attention_mask = encoded["attention_mask"]
        special = encoded["special_tokens_mask"].bool()
        self.reference = torch.where(special, self.ids, tokenizer.mask_token_id)
        generator = torch.Generator().manual_seed(0)
        self.scores = torch.rand(self.ids.shape, generator=generator)
        self.n_passes = 0

    def forward(self, ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The forward function that is explained."""
        self.n_passes += len(ids)
        logits: Tensor = self.model(ids, attention_mask=attention_mask).logits
        return logits

    def functions(self, batch_size: int) -> Tensor:
        """The suite by the package's functions, one metric after the other, (3, N)."""
        return torch.stack(
            [
                metric(
                    self.forward,
                    self.ids,
                    self.scores,
                    self.reference,
                    (self.attention_mask,),
                    aopc=True,
                    batch_size=batch_size,
                )
                for metric in (comprehensiveness, sufficiency, log_odds)
            ]
        )

    def shared(self, batch_size: int) -> Tensor:
        """The suite as ``captum-aml benchmark`` does it, (3, N): one evaluator for all metrics."""
        parts = []
        for rows in torch.arange(len(self.ids)).split(8 * batch_size):
            evaluator = RemovalEvaluator(
                self.forward,
                parse_call(
                    self.ids[rows],
                    self.reference[rows],
                    additional_forward_args=self.attention_mask[rows],
                ),
                batch_size=batch_size,
            )
            metrics = (comprehensiveness_of, sufficiency_of, log_odds_of)
            values = [of(evaluator, self.scores[rows], CONVENTION, aopc=True) for of in metrics]
            parts.append(torch.stack(values))
        return torch.cat(parts, dim=1)

    @torch.no_grad()
    def looped(self) -> Tensor:
        """The suite by a plain loop, (3, N)."""
        rows = []
        for row, attended in enumerate(self.attention_mask.bool()):
            ids, reference = self.ids[row][attended], self.reference[row][attended]
            scores = self.scores[row][attended]
            unmasked = self._log_probs(ids)
            target = int(unmasked.argmax())
            original = unmasked[target]
            tokens = (ids != reference).nonzero()[:, 0]
            ranked = tokens[scores[tokens].argsort(descending=True, stable=True)]
            sums = [0.0, 0.0, 0.0]
            for share in SHARES:
                top = torch.zeros(len(ids), dtype=torch.bool)
                top[ranked[: max(1, math.ceil(len(tokens) * share - 1e-9))]] = True
                without = self._log_probs(ids[~top])[target]
                alone = self._log_probs(ids[top | (ids == reference)])[target]
                masked = self._log_probs(torch.where(top, reference, ids))[target]
                sums[0] += float(original.exp() - without.exp())
                sums[1] += float(original.exp() - alone.exp())
                sums[2] += float(masked - original)
            rows.append([value / len(SHARES) if len(tokens) else math.nan for value in sums])
        return torch.tensor(rows, dtype=torch.float64).T

    def _log_probs(self, ids: Tensor) -> Tensor:
        logits = self.forward(ids[None], torch.ones_like(ids)[None])
        return logits[0].double().log_softmax(0)


def timed(action: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Wall time of one call, and its result."""
    start = time.perf_counter()
    result = action()
    return time.perf_counter() - start, result


def grown(
    model: str | None, data: str | None, n_texts: int, batch_size: int, n_threads: int
) -> tuple[float, float, int]:
    """Seconds, peak MiB and passes of the suite; runs in a process of its own."""
    torch.set_num_threads(n_threads)
    workload = Workload(model, data, n_texts)
    with torch.no_grad():
        workload.forward(workload.ids[:1], workload.attention_mask[:1])
    workload.n_passes = 0
    # Loading the model has a peak of its own, which has to be forgotten first (Linux only).
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    elapsed, _ = timed(lambda: workload.shared(batch_size))
    return elapsed, (_status("VmHWM") - before) / 1024, workload.n_passes


def _status(field: str) -> int:
    """A figure in KiB from the process's own status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    raise KeyError(field)


def compare(console: Console, options: argparse.Namespace) -> None:
    """Prints the suite's cost beside the plain loop's: seconds, and inputs passed."""
    workload = Workload(options.model, options.data, options.limit)
    with torch.no_grad():
        workload.forward(workload.ids[:8], workload.attention_mask[:8])
    workload.n_passes = 0
    made = Table(title="The AOPC suite, against a plain loop", title_justify="left")
    for name in ("", "seconds", "inputs", "faster", "largest difference"):
        made.add_column(name, justify="right" if name else "left")
    loop, references = timed(workload.looped)
    made.add_row("plain loop", f"{loop:.2f}", str(workload.n_passes))
    for name, action in (
        ("one metric after the other", workload.functions),
        ("sharing an evaluator", workload.shared),
    ):
        workload.n_passes = 0
        elapsed, values = timed(partial(action, options.batch_size))
        made.add_row(
            name,
            f"{elapsed:.2f}",
            str(workload.n_passes),
            f"{loop / elapsed:.2f} x",
            f"{float((values - references).abs().max()):.1e}",
        )
    console.print(made)


def grow(console: Console, options: argparse.Namespace) -> None:
    """Prints the suite's cost by the number of texts."""
    made = Table(title="How the suite grows", title_justify="left")
    for name in ("texts", "seconds", "ms per text", "inputs", "peak MiB"):
        made.add_column(name, justify="right")
    for n_texts in options.growth:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            elapsed, memory, n_passes = pool.submit(
                grown, options.model, options.data, n_texts, options.batch_size, options.threads
            ).result()
        made.add_row(
            str(n_texts),
            f"{elapsed:.2f}",
            f"{1000 * elapsed / n_texts:.1f}",
            str(n_passes),
            f"{memory:.0f}",
        )
    console.print(made)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--model", help="folder of a sequence classification model")
    parser.add_argument("--data", help="jsonl file with a text in each line")
    parser.add_argument("--limit", type=int, default=200, help="number of texts")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--growth", type=int, nargs="+", help="numbers of texts, instead of the comparison"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    console = Console()
    console.print(
        f"batches of {options.batch_size}; torch {torch.__version__}, {options.threads} threads"
    )
    (grow if options.growth else compare)(console, options)


if __name__ == "__main__":
    main()
