"""Fits the maskers that ship with the package, AML's and LA's, for its classifier of reviews.

The whole of what a user does to get explanations in a single pass: batches of token ids with their
baselines, a masker that starts from the classifier's own encoder, ``fit``, ``save_pretrained``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from captum_aml import AMLAttribution, LAAttribution, TransformerMasker
from captum_aml.reviews import (
    Review,
    hit_rate,
    load_reviews_classifier,
    load_reviews_splits,
    reviews_classifier_path,
)
from captum_aml.text import TextBatches, TextClassifier, TextExplainer

METHODS = {"aml": AMLAttribution, "la": LAAttribution}


def main() -> None:
    """Fits, checks and saves the masker."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--method", choices=METHODS, default="aml")
    parser.add_argument("--out", type=Path, help="folder. Default: where the package looks for it")
    parser.add_argument("--texts", type=int, default=6000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.set_num_threads(1)  # the result depends on their number
    model, tokenizer = load_reviews_classifier()
    classifier = TextClassifier(model.requires_grad_(False), tokenizer)
    splits = load_reviews_splits()
    attribution = METHODS[args.method](
        classifier,
        embedding_layer=classifier.embedding_layer,
        masker=TransformerMasker.from_model(model, seed=args.seed),
        seed=args.seed,
    )

    def batches(reviews: list[Review]) -> list[dict[str, Any]]:
        texts = [review.text for review in reviews]
        return list(TextBatches(classifier, texts, batch_size=args.batch_size, seed=args.seed))

    start = time.perf_counter()
    attribution.fit(
        batches(splits.train[: args.texts]),
        batches(splits.validation),
        epochs=args.epochs,
        learning_rate=args.lr,
        show_progress=True,
    )
    print(f"fitted in {time.perf_counter() - start:.0f} s")
    for record in attribution.history_ or []:
        print(f"epoch {record.epoch}: train {record.train['total']:.4f}", end="")
        print(f", validation {record.validation['total']:.4f}" if record.validation else "")

    for name in ("validation", "test"):
        reviews = getattr(splits, name)
        explainer = TextExplainer(classifier, method=args.method, masker=attribution.masker_)
        explanations = explainer([review.text for review in reviews])
        rates = [hit_rate(e, r) for e, r in zip(explanations, reviews, strict=True)]
        print(
            f"{name}: hit rate {statistics.fmean(rates):.3f}, all deciding words first in "
            f"{statistics.fmean(rate == 1 for rate in rates):.1%} of {len(reviews)} texts"
        )
    out = args.out or reviews_classifier_path().parent / f"masker-{args.method}"
    attribution.save_pretrained(out)
    for path in sorted(out.iterdir()):
        print(f"{path.stat().st_size:>9,} bytes  {path.name}")


if __name__ == "__main__":
    main()
