"""Cost of AML, as ratios to the bare passes of the explained model in the same run.

Prints four tables: tuning against bare forward and backward passes over the same joined batch, the
peak memory of both, a single pass of a masker against one forward pass, and how the cost of tuning
grows with the batch and with the length of the texts. Every ratio is the median over repeats that
alternate between the two things compared, so that a busy machine disturbs both alike.

Run it with a model and texts of your own::

    python examples/benchmark_core.py --model FOLDER --data FILE.jsonl

Without them it takes the small classifier and the generated reviews that come with the package.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from captum_aml import AMLAttribution, TransformerMasker
from captum_aml.reviews import generate_reviews, load_reviews_classifier


@dataclass
class Batch:
    """Token ids, their reference and the attention mask, each (N, L)."""

    ids: Tensor
    reference: Tensor
    attention_mask: Tensor


class Workload:
    """A classifier and texts for it."""

    def __init__(self, model: str | None, data: str | None) -> None:
        if model is None:
            self.model, self.tokenizer = load_reviews_classifier()
        else:
            from transformers import AutoModelForSequenceClassification, AutoTokenizer

            self.model = AutoModelForSequenceClassification.from_pretrained(
                model, dtype=torch.float32
            )
            self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.model.eval().requires_grad_(False)
        if data is None:
            self.texts = [review.text for review in generate_reviews(512)]
        else:
            with open(data, encoding="utf-8") as file:
                self.texts = [json.loads(line)["text"] for line in itertools.islice(file, 512)]

    def forward(self, ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The forward function that is explained."""
        logits: Tensor = self.model(ids, attention_mask=attention_mask).logits
        return logits

    def texts_batch(self, size: int) -> Batch:
        """The first texts."""
        encoded = self.tokenizer(
            self.texts[:size],
            padding=True,
            truncation=True,
            return_special_tokens_mask=True,
            return_tensors="pt",
        )
        ids = encoded["input_ids"]
        reference = torch.where(
            encoded["special_tokens_mask"].bool(), ids, self.tokenizer.mask_token_id
        )
        return Batch(ids, reference, encoded["attention_mask"])

    def length_batch(self, size: int, length: int) -> Batch:
        """Texts of one length, cut from all texts joined."""
        joined = self.tokenizer(" ".join(self.texts), add_special_tokens=False)["input_ids"]
        body = length - 2
        rows = [joined[(i * body) % (len(joined) - body) :][:body] for i in range(size)]
        first, last = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        ids = torch.tensor([[first, *row, last] for row in rows])
        reference = torch.full_like(ids, self.tokenizer.mask_token_id)
        reference[:, 0], reference[:, -1] = first, last
        return Batch(ids, reference, torch.ones_like(ids))

    def attribution(self, *, masker: bool = False) -> AMLAttribution:
        """AML on the word embeddings, from scratch or with a masker.

        The masker is untrained: what it proposes does not matter for what it costs.
        """
        network = TransformerMasker.from_model(self.model) if masker else None
        if network is not None:
            network.fitted = True
        return AMLAttribution(
            self.forward,
            embedding_layer=self.model.get_input_embeddings(),
            masker=network,
            tune="mask",
        )

    def tune(self, batch: Batch, n_steps: int) -> None:
        """Tunes masks from scratch."""
        self.attribution().attribute(
            batch.ids,
            baselines=batch.reference,
            additional_forward_args=(batch.attention_mask,),
            n_steps=n_steps,
        )

    def bare_steps(self, batch: Batch, n_steps: int) -> None:
        """Forward and backward passes over the joined batch, and nothing else."""
        embeddings = self.model.get_input_embeddings()(batch.ids).repeat(2, 1, 1)
        attention_mask = batch.attention_mask.repeat(2, 1)
        for _ in range(n_steps):
            inputs = embeddings.detach().requires_grad_(True)
            logits = self.model(inputs_embeds=inputs, attention_mask=attention_mask).logits
            torch.autograd.grad(logits.log_softmax(-1)[:, 0].sum(), inputs)

    @torch.no_grad()
    def bare_pass(self, batch: Batch) -> None:
        """One forward pass."""
        self.forward(batch.ids, batch.attention_mask)


def seconds(action: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def compare(ours: Callable[[], object], bare: Callable[[], object], repeats: int) -> list[float]:
    """Median seconds of both, and the median of their ratios, over alternating repeats."""
    ours(), bare()
    pairs = [(seconds(ours), seconds(bare)) for _ in range(repeats)]
    return [
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
        statistics.median(a / b for a, b in pairs),
    ]


def _peak_memory(model: str | None, data: str | None, what: str, size: int) -> float:
    workload = Workload(model, data)
    batch = workload.texts_batch(size)
    workload.bare_pass(batch)
    # Loading the model has a peak of its own, which has to be forgotten first (Linux only).
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    {"tune": workload.tune, "bare": workload.bare_steps}[what](batch, 5)
    return (_status("VmHWM") - before) / 1024


def _status(field: str) -> int:
    """A figure in KiB from the process's own status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    raise KeyError(field)


def peak_memory(model: str | None, data: str | None, what: str, size: int) -> float:
    """MiB that tuning, or the bare passes, add to the peak of a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_memory, (model, data, what, size))


def table(title: str, *columns: str) -> Table:
    """An empty table with right-aligned columns after the first."""
    made = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        made.add_column(column, justify="left" if i == 0 else "right")
    return made


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--model", help="folder of a sequence classification model")
    parser.add_argument("--data", help="jsonl file with a text in each line")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    console = Console()
    workload = Workload(options.model, options.data)
    batch = workload.texts_batch(options.batch_size)
    console.print(
        f"{len(batch.ids)} texts, padded to {batch.ids.shape[1]} tokens; "
        f"{sum(p.numel() for p in workload.model.parameters()) / 1e6:.1f} M parameters; "
        f"torch {torch.__version__}, {torch.get_num_threads()} threads; "
        f"medians of {options.repeats} runs"
    )

    ours, bare, ratio = compare(
        partial(workload.tune, batch, options.steps),
        partial(workload.bare_steps, batch, options.steps),
        options.repeats,
    )
    made = table(
        "Tuning, against bare passes over the same joined batch", "", "seconds", "peak MiB"
    )
    memory = [
        peak_memory(options.model, options.data, what, options.batch_size)
        for what in ("tune", "bare")
    ]
    made.add_row(f"AML, {options.steps} steps", f"{ours:.2f}", f"{memory[0]:.0f}")
    made.add_row(f"{options.steps} forward and backward", f"{bare:.2f}", f"{memory[1]:.0f}")
    made.add_row("ratio", f"{ratio:.2f}", f"{memory[0] / memory[1]:.2f}")
    console.print(made)

    fitted = workload.attribution(masker=True)
    single = partial(
        fitted.attribute,
        batch.ids,
        baselines=batch.reference,
        additional_forward_args=(batch.attention_mask,),
    )
    ours, bare, ratio = compare(single, partial(workload.bare_pass, batch), max(9, options.repeats))
    made = table("One pass of a masker, against one forward pass", "", "seconds")
    made.add_row("AML with a TransformerMasker", f"{ours:.3f}")
    made.add_row("forward pass", f"{bare:.3f}")
    made.add_row("ratio", f"{ratio:.2f}")
    console.print(made)

    made = table("How tuning grows (5 steps)", "texts", "tokens", "seconds", "ms per text", "ratio")
    for size, length in [(1, 32), (8, 32), (32, 32), (64, 32), (8, 16), (8, 64), (8, 128)]:
        if length > workload.model.config.max_position_embeddings:
            continue
        grown = workload.length_batch(size, length)
        ours, _, ratio = compare(
            partial(workload.tune, grown, 5),
            partial(workload.bare_steps, grown, 5),
            options.repeats,
        )
        made.add_row(
            str(size), str(length), f"{ours:.3f}", f"{1000 * ours / size:.1f}", f"{ratio:.2f}"
        )
    console.print(made)


if __name__ == "__main__":
    main()
