"""Fits a masker for a text classifier of yours and saves it for ``explain`` and ``benchmark``.

A handful of lines around ``fit``: batches of token ids with their baselines, a masker that starts
from the classifier's own encoder, and a folder at the end.
"""

from __future__ import annotations

import argparse
import time
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from captum_aml import AMLAttribution, LAAttribution, TransformerMasker
from captum_aml.text import TextBatches, TextClassifier, read_texts

METHODS = {"aml": AMLAttribution, "la": LAAttribution}


def main() -> None:
    """Fits and saves the masker."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", required=True, help="local folder or hub id")
    parser.add_argument("--data", required=True, type=Path, help="file of training texts")
    parser.add_argument("--validation", type=Path, help="file of validation texts")
    parser.add_argument("--out", required=True, type=Path, help="folder of the masker")
    parser.add_argument("--method", choices=METHODS, default="aml")
    parser.add_argument("--limit", type=int, default=1500, help="training texts")
    parser.add_argument("--validation-limit", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=20)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="threads of torch. Default: its own choice")
    args = parser.parse_args()

    if args.threads:
        torch.set_num_threads(args.threads)
    classifier = TextClassifier.from_pretrained(args.model)

    def batches(file: Path, limit: int) -> list[dict[str, Any]]:
        texts = list(islice(read_texts(file), limit))
        return list(TextBatches(classifier, texts, batch_size=args.batch_size, seed=args.seed))

    attribution = METHODS[args.method](
        classifier,
        embedding_layer=classifier.embedding_layer,
        masker=TransformerMasker.from_model(classifier.model, seed=args.seed),
        output="logits",
        seed=args.seed,
    )
    start = time.perf_counter()
    attribution.fit(
        batches(args.data, args.limit),
        batches(args.validation, args.validation_limit) if args.validation else None,
        epochs=args.epochs,
        learning_rate=args.lr,
        show_progress=True,
    )
    print(f"fitted in {time.perf_counter() - start:.0f} s")
    for record in attribution.history_ or []:
        print(f"epoch {record.epoch}: train {record.train['total']:.4f}", end="")
        print(f", validation {record.validation['total']:.4f}" if record.validation else "")
    attribution.save_pretrained(args.out)
    print(f"masker in {args.out}")


if __name__ == "__main__":
    main()
