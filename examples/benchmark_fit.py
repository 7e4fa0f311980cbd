"""Speed and memory of ``fit``.

``speed`` compares texts per second with a plain loop that does what the published recipe does one
thing at a time: batches in the order of the file, three passes of the explained model a batch, and
``backward`` through all weights. Both start from the same masker and take turns.

``memory`` fits streams of several lengths with a tiny random model, each in a process of its own,
and shows the highest resident memory.
"""

from __future__ import annotations

import argparse
import copy
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from captum_aml import AMLAttribution, TransformerMasker
from captum_aml.maskers import MaskerInputs
from captum_aml.text import TextBatches, TextClassifier, read_texts


def plain_loop(
    classifier: TextClassifier, masker: TransformerMasker, texts: list[str], args: Any
) -> None:
    """The published recipe, one thing at a time; ``args`` are those of the command line."""
    model = copy.deepcopy(classifier.model).requires_grad_(True)
    masker = copy.deepcopy(masker).train()
    optimizer = torch.optim.AdamW([p for p in masker.parameters() if p.requires_grad], lr=args.lr)
    starts = range(0, len(texts), args.batch_size)
    n_steps = args.epochs * len(starts)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / n_steps)
    embed = model.get_input_embeddings()
    for _ in range(args.epochs):
        for start in starts:
            tokenized = classifier.tokenize(texts[start : start + args.batch_size])
            batch = classifier.collate(tokenized)
            reference = classifier.baselines(batch)
            given = {"attention_mask": batch.attention_mask, **batch.extra_inputs}
            with torch.no_grad():
                target = model(input_ids=batch.input_ids, **given).logits.softmax(dim=-1)
            maskable = batch.input_ids != reference
            embeddings, baselines = embed(batch.input_ids), embed(reference)
            logits = masker(
                MaskerInputs(
                    (embeddings,), (batch.input_ids,), target, (maskable,), batch.attention_mask
                )
            )
            mask = torch.sigmoid(logits).masked_fill(~maskable, 1.0).unsqueeze(-1)
            left = (1 - mask).masked_fill(~maskable.unsqueeze(-1), 1.0)
            kept = model(inputs_embeds=mask * embeddings + (1 - mask) * baselines, **given)
            rest = model(inputs_embeds=left * embeddings + (1 - left) * baselines, **given)
            prediction = -(target * kept.logits.log_softmax(dim=-1)).sum(dim=1)
            chosen = target.argmax(dim=1, keepdim=True)
            p = rest.logits.softmax(dim=-1).gather(1, chosen).squeeze(1)
            inverse = -torch.log(1 - p + 1e-6)
            counted = maskable.float()
            m = mask.squeeze(-1)
            each = F.binary_cross_entropy(m, torch.zeros_like(m), reduction="none") * counted
            size = each.nan_to_num().sum(dim=1) / counted.sum(dim=1).clamp(min=1)
            optimizer.zero_grad()
            model.zero_grad()
            (prediction + inverse + size).mean().backward()
            torch.nn.utils.clip_grad_norm_(masker.parameters(), 1.0)
            optimizer.step()
            schedule.step()


def speed(args: argparse.Namespace) -> None:
    """Prints texts per second of both, round by round."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    classifier = TextClassifier.from_pretrained(args.model, device="cpu")
    masker = TransformerMasker.from_model(classifier.model)
    texts = list(islice(read_texts(args.data), args.limit))

    def fitted() -> None:
        AMLAttribution(
            classifier, embedding_layer=classifier.embedding_layer, masker=masker, output="logits"
        ).fit(
            list(TextBatches(classifier, texts, batch_size=args.batch_size)),
            epochs=args.epochs,
            learning_rate=args.lr,
        )

    ways = {"plain loop": lambda: plain_loop(classifier, masker, texts, args), "fit": fitted}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(args.rounds):
        for name, run in ways.items():
            start, used = time.perf_counter(), time.process_time()
            run()
            seconds, cpu = time.perf_counter() - start, time.process_time() - used
            n = len(texts) * args.epochs
            rates[name].append(n / cpu)
            print(
                f"round {number + 1}: {name}: {n / seconds:.1f} texts/s, {n / cpu:.1f} per CPU s",
                flush=True,
            )
    plain, ours = (statistics.median(rates[name]) for name in ways)
    print(f"per CPU second, median: plain {plain:.1f}, fit {ours:.1f}: {ours / plain:.2f} times")


class SyntheticStream:
    """Batches of random ids, made one after the other, that are never all in memory."""

    def __init__(self, n_examples: int, batch_size: int) -> None:
        self.n_batches = n_examples // batch_size
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(1)
        for _ in range(self.n_batches):
            yield torch.randint(3, 100, (self.batch_size, 8), generator=generator)


def stream(args: argparse.Namespace) -> None:
    """Fits one stream and prints the highest resident memory of this process."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.set_num_threads(1)
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=100,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=16,
        )
    ).eval()
    start = time.perf_counter()
    AMLAttribution(model, masker=TransformerMasker.from_model(model)).fit(
        SyntheticStream(args.limit, 250), epochs=args.epochs, scheduler="constant"
    )
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{args.limit} texts, {args.epochs} epochs: {peak:.0f} MiB, {seconds:.0f} s", flush=True)


def memory(args: argparse.Namespace) -> None:
    """Fits streams of several lengths."""
    for n_examples in args.lengths:
        command = [sys.executable, __file__, "stream", "--limit", str(n_examples)]
        subprocess.run([*command, "--epochs", str(args.epochs)], check=True)


def main() -> None:
    """Runs one of the two."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("speed")
    command.set_defaults(run=speed)
    command.add_argument("--model", required=True, help="local folder or hub id")
    command.add_argument("--data", required=True, type=Path, help="file of training texts")
    command.add_argument("--limit", type=int, default=300, help="training texts")
    command.add_argument("--batch-size", type=int, default=20)
    command.add_argument("--epochs", type=int, default=3)
    command.add_argument("--rounds", type=int, default=3)
    command.add_argument("--lr", type=float, default=1e-4)
    command.add_argument("--threads", type=int, default=1)
    command = commands.add_parser("memory")
    command.set_defaults(run=memory)
    command.add_argument("--lengths", type=int, nargs="+", default=[10_000, 100_000])
    command.add_argument("--epochs", type=int, default=2)
    command = commands.add_parser("stream")
    command.set_defaults(run=stream)
    command.add_argument("--limit", type=int, required=True)
    command.add_argument("--epochs", type=int, default=2)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
