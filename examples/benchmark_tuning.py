"""Compares the forms of tuning, in cost and in quality, on a model, a fitted masker and texts.

Four explanations of the same texts: the fitted masker's own, its mask tuned, the masker tuned for
each text in one batch, and, as reference, the published form written out plainly: a copy of the
masker for each text, trained alone by AdamW, with the best step kept by the loss. Times are the
medians of interleaved rounds; quality is AOPC comprehensiveness and sufficiency in the ``aml``
convention, with tokens deleted.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from captum_aml import AMLAttribution
from captum_aml.masking.call import parse_call
from captum_aml.masking.problem import MaskingProblem
from captum_aml.metrics import comprehensiveness, sufficiency
from captum_aml.objectives import MaskedOutcome
from captum_aml.text import TextClassifier, read_texts

#: Learning rate and weight decay of the published form.
PUBLISHED_RATE, WEIGHT_DECAY = 4e-5, 0.01


@dataclass(frozen=True)
class Texts:
    """A batch of texts: ids, ids with everything replaced, and the forward function's arguments."""

    inputs: Tensor
    baselines: Tensor
    args: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.inputs)

    def one(self, row: int) -> Texts:
        """One text without the padding that others brought."""
        length = int(self.args[0][row].sum())
        cut = [t[row : row + 1, :length] for t in (self.inputs, self.baselines, *self.args)]
        return Texts(cut[0], cut[1], tuple(cut[2:]))


def batches(classifier: TextClassifier, texts: Sequence[str], size: int) -> list[Texts]:
    """Texts of similar length together."""
    ordered = sorted(classifier.tokenize(texts), key=len)
    made = []
    for start in range(0, len(ordered), size):
        batch = classifier.collate(ordered[start : start + size])
        made.append(Texts(batch.input_ids, classifier.baselines(batch), batch.forward_args))
    return made


class Forms:
    """The explanations that are compared; each gives one score per token, (N, L)."""

    def __init__(
        self, classifier: TextClassifier, masker: Path, *, n_steps: int, separate: bool
    ) -> None:
        self.n_steps, self.separate = n_steps, separate
        self.attribution = AMLAttribution.from_pretrained(
            masker, classifier, embedding_layer=classifier.embedding_layer, output="logits"
        )

    def ours(self, tune: str, n_steps: int, rate: float | None) -> Callable[[Texts], Tensor]:
        """An explanation by this package."""

        def scores(texts: Texts) -> Tensor:
            self.attribution.tune, self.attribution.learning_rate = tune, rate
            found = self.attribution.attribute(
                texts.inputs, texts.baselines, None, texts.args, n_steps=n_steps
            )
            assert isinstance(found, Tensor)
            return found

        return scores

    def published(self, texts: Texts) -> Tensor:
        """Every text by itself, with a copy of the masker."""
        scores = torch.zeros(texts.inputs.shape)
        for row in range(len(texts)):
            own = self._published_alone(texts.one(row))
            scores[row, : own.shape[1]] = own[0]
        return scores

    def _published_alone(self, texts: Texts) -> Tensor:
        attribution = self.attribution
        call = parse_call(texts.inputs, texts.baselines, None, texts.args)
        site = attribution._site()
        problem = MaskingProblem.build(call, site, attribution.perturbation, "logits")
        masker = copy.deepcopy(attribution.masker_)
        assert masker is not None
        masker.eval()
        parameters = [p for p in masker.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=PUBLISHED_RATE, weight_decay=WEIGHT_DECAY)
        best, best_loss = torch.empty(0), float("inf")
        for step in range(self.n_steps + 1):
            mask = torch.sigmoid(problem.propose(masker))
            loss = self._loss(problem, mask)
            if loss.item() < best_loss:
                best, best_loss = mask.detach(), loss.item()
            if step == self.n_steps:
                break
            gradients = torch.autograd.grad(loss, parameters)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.param_groups[0]["lr"] = PUBLISHED_RATE * (1 - step / self.n_steps)
            optimizer.step()
        spreads = site.spreads(call, problem.capture.features)
        return problem.layout.scores(best, spreads)[0]

    def _loss(self, problem: MaskingProblem, mask: Tensor) -> Tensor:
        objective = self.attribution.objective
        if not self.separate:
            return problem.evaluate(mask, objective, where="published").total.sum()
        readout = problem.readout
        kept, complement = (
            readout.log_probs(problem.forward(m.unsqueeze(0)), where="published")
            for m in (mask, 1 - mask)
        )
        outcome = MaskedOutcome(
            kept=kept,
            complement=complement,
            aim=readout.aim,
            target_class=readout.target_class,
            mask=mask,
            maskable=problem.layout.maskable_units,
        )
        return objective(outcome).total.sum()


def quality(
    classifier: TextClassifier, data: Sequence[Texts], scores: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """AOPC comprehensiveness and sufficiency of each text."""
    found = [
        torch.cat(
            [
                metric(
                    classifier,
                    texts.inputs,
                    each,
                    texts.baselines,
                    texts.args,
                    aopc=True,
                    convention="aml",
                    removal="delete",
                    output="logits",
                )
                for texts, each in zip(data, scores, strict=True)
            ]
        )
        for metric in (comprehensiveness, sufficiency)
    ]
    return found[0], found[1]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", required=True, help="local folder or hub id")
    parser.add_argument("--masker", required=True, type=Path, help="folder of a fitted AML masker")
    parser.add_argument("--data", required=True, type=Path, help="file of texts")
    parser.add_argument("--limit", type=int, default=64, help="texts for quality; 0 for cost only")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the cost measurement")
    parser.add_argument(
        "--alone", type=int, default=8, help="texts of the batch that are timed one at a time"
    )
    parser.add_argument(
        "--rates", type=float, nargs="*", default=[], help="learning rates for the masker to add"
    )
    parser.add_argument("--no-published", action="store_true", help="leave its quality out")
    parser.add_argument(
        "--separate",
        action="store_true",
        help="run the published form's mask and its complement in separate passes, as it did",
    )
    parser.add_argument(
        "--cpu-time", action="store_true", help="measure CPU time, for a machine that is shared"
    )
    parser.add_argument("--threads", type=int, help="threads of torch. Default: its own choice")
    args = parser.parse_args()

    if args.threads:
        torch.set_num_threads(args.threads)
    classifier = TextClassifier.from_pretrained(args.model)
    forms = Forms(classifier, args.masker, n_steps=args.steps, separate=args.separate)
    texts = list(islice(read_texts(args.data), max(args.limit, 16 * args.batch_size)))
    tuned = forms.ours("masker", args.steps, None)

    if args.rounds:
        # As many texts as ``TextExplainer`` sorts by length, and the batch in the middle of them.
        sorted_batches = batches(classifier, texts[: 16 * args.batch_size], args.batch_size)
        batch = sorted_batches[len(sorted_batches) // 2]
        spaced = range(0, len(batch), max(1, len(batch) // args.alone))
        singles = [batch.one(row) for row in spaced]
        tuned(singles[0])
        forms.published(singles[0])
        clock = time.process_time if args.cpu_time else time.perf_counter
        seconds: dict[str, list[float]] = {"together": [], "alone": []}
        for _ in range(args.rounds):
            start = clock()
            tuned(batch)
            middle = clock()
            for single in singles:
                forms.published(single)
            seconds["together"].append((middle - start) / len(batch))
            seconds["alone"].append((clock() - middle) / len(singles))
        ratios = [a / t for a, t in zip(seconds["alone"], seconds["together"], strict=True)]
        print(
            f"cost: {len(batch)} texts of {batch.inputs.shape[1]} tokens, {args.steps} steps, "
            f"{torch.get_num_threads()} threads; "
            f"{'CPU ' if args.cpu_time else ''}seconds per text"
        )
        for name, values in seconds.items():
            shown = ", ".join(f"{v:.2f}" for v in values)
            print(f"  {name}: {statistics.median(values):.2f} ({shown})")
        print(f"  ratio: {statistics.median(ratios):.1f} ({min(ratios):.1f} - {max(ratios):.1f})")

    if not args.limit:
        return
    data = batches(classifier, texts[: args.limit], args.batch_size)
    rows = {
        "fitted": forms.ours("mask", 0, None),
        "mask tuned": forms.ours("mask", args.steps, None),
        "masker tuned": tuned,
        **{f"masker tuned at {r:g}": forms.ours("masker", args.steps, r) for r in args.rates},
    }
    if not args.no_published:
        rows["published, one at a time"] = forms.published
    print(f"quality: {args.limit} texts; mean (standard error of the difference to fitted)")
    first: tuple[Tensor, Tensor] | None = None
    for name, form in rows.items():
        values = quality(classifier, data, [form(texts) for texts in data])
        first = values if first is None else first
        shown = []
        for title, value, fitted in zip(("comp", "suff"), values, first, strict=True):
            error = (value - fitted).std() / len(value) ** 0.5
            shown.append(f"{title} {value.mean():.4f} ({error:.4f})")
        print(f"  {name}: {', '.join(shown)}", flush=True)


if __name__ == "__main__":
    main()
