r"""The default call, with nothing prepared, against Integrated Gradients and LIME.

Sections, each with a table of its own:

- ``time``: wall time and peak memory of the default call and of Layer Integrated Gradients with 50
  steps, both called on a batch as users call them. The two take turns, so that a busy machine
  disturbs both alike; the ratio is that of the medians.
- ``tasks``: AOPC comprehensiveness and sufficiency, by deletion and by the mask token, on texts of
  several models. The default call is tested against each rival on the same texts: a paired
  permutation test of the mean difference, two-sided, corrected for all comparisons of a task
  (Holm).
- ``table``: rank correlation, per row of the diabetes data, with exact Shapley values (all
  :math:`2^{10}` subsets of the features) and with Integrated Gradients, on small networks whose
  training stops early, and on ones that are trained far beyond, which bend more.
- ``linear``: the difference from Integrated Gradients on linear functions, and how far the scores
  of a text are from their sum :math:`F(x) - F(b)`.
- ``reviews``: the share of deciding words found in the bundled reviews, of which it is known which
  words decide.
- ``image``: areas under deletion and insertion curves of small convolutional networks on
  scikit-learn's handwritten digits.

``--split`` says which part of all data is read: choose settings on one and report the other.

Run it on models, texts and a decoder (of ``train_decoder.py``) of your own::

    python examples/benchmark_first_call.py --models FOLDER --data FOLDER --decoder FOLDER

The folder of models holds ``minilm-sst2`` and ``minilm-emotion``, that of data ``sst2``,
``emotion`` and ``imdb_cad``, each with ``test.jsonl`` and ``validation.jsonl``. Without them the
sections on texts take the small classifier and the generated reviews that come with the package.
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from captum.attr import FeatureAblation, IntegratedGradients, LayerIntegratedGradients
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from captum_aml import AMLAttribution, LayerAMLAttribution
from captum_aml import methods as registry
from captum_aml.benchmark import BenchmarkSettings
from captum_aml.benchmark.explain import Record, metered
from captum_aml.benchmark.provenance import package_versions
from captum_aml.benchmark.results import Cost
from captum_aml.benchmark.score import RunKey, Scorer
from captum_aml.benchmark.statistics import (
    bootstrap_interval,
    example_means,
    holm,
    paired_p_value,
)
from captum_aml.metrics import area_under_curve, deletion_curve, insertion_curve
from captum_aml.reviews import hit_rate, load_reviews_classifier, load_reviews_splits
from captum_aml.text import Explanation, PromptClassifier, TextClassifier, TextExplainer, TextModel
from captum_aml.text.data import LabelledText, TextSource

#: The default call's name in the registry.
OURS = "mask-gradient"
RIVALS = ("integrated-gradients", "lime")

#: By task: the folders of its model and of its data, and whether its texts are long.
TASKS = {
    "sst2": ("minilm-sst2", "sst2", False),
    "emotion": ("minilm-emotion", "emotion", False),
    "imdb_cad": ("minilm-sst2", "imdb_cad", True),
    "decoder": (None, "sst2", False),
}

METRICS = (
    "aopc-comprehensiveness@delete",
    "aopc-sufficiency@delete",
    "aopc-comprehensiveness@mask",
    "aopc-sufficiency@mask",
)

#: Corrected p-value from which on a difference does not count.
LEVEL = 0.05

Scores: TypeAlias = Callable[[nn.Module, Tensor, int], Tensor]


@dataclass(frozen=True)
class Task:
    """A model and texts for it."""

    name: str
    model: TextModel
    texts: Sequence[LabelledText]


class Run:
    """Options of a run, and where it prints.

    Args:
        options: The command line's options.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        # Wide enough for any table where the output is a file.
        self.console = Console(soft_wrap=True, width=200, highlight=False)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Prints how long a block took: its CPU time says what it costs on an idle machine."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        seconds = time.perf_counter() - wall, time.process_time() - cpu
        self.console.print(f"{what}: {seconds[0]:.0f} s, {seconds[1]:.0f} s of CPU\n")

    def table(self, title: str, *columns: str) -> Table:
        """An empty table, in the form of Markdown, with right-aligned columns after the first."""
        made = Table(title=title, title_justify="left", box=box.MARKDOWN)
        for i, column in enumerate(columns):
            made.add_column(column, justify="left" if i == 0 else "right", no_wrap=True)
        return made

    def task(self, name: str, limit: int | None = None) -> Task:
        """A task's model and its first texts, as many as the options say or ``limit``."""
        if name == "reviews":
            classifier = TextClassifier(*load_reviews_classifier())
            split = getattr(load_reviews_splits(), self.options.split)
            chosen = split[: limit or self.options.texts]
            texts = [LabelledText(r.text, label=r.label) for r in chosen]
            return Task(name, classifier, texts)
        model, data, long = TASKS[name]
        limit = limit or (self.options.long_texts if long else self.options.texts)
        file = self.options.data / data / f"{self.options.split}.jsonl"
        made: TextModel
        if model is None:
            made = PromptClassifier.from_pretrained(
                self.options.decoder,
                "Text: {text} Label:",
                {"negative": "negative", "positive": "positive"},
                baseline="<s>",  # which the decoder knows from training
            )
        else:
            made = TextClassifier.from_pretrained(self.options.models / model)
        made.model.requires_grad_(False)
        return Task(name, made, TextSource(file, limit=limit).load())

    def batch_task(self) -> Task:
        """The model and the texts of a call by itself."""
        name = "reviews" if None in (self.options.models, self.options.data) else "sst2"
        return self.task(name, self.options.batch_size)

    def runs(self, method: str) -> list[RunKey]:
        """A method with each seed, or with one where it draws nothing at random."""
        stochastic = registry.spec(method).stochastic
        seeds = self.options.seeds if stochastic else self.options.seeds[:1]
        return [RunKey(method, seed) for seed in seeds]

    def explain(
        self, model: TextModel, texts: Sequence[str], key: RunKey
    ) -> tuple[list[Explanation], Cost]:
        """The explanations of texts, and their cost per text."""
        n_steps = {"integrated-gradients": self.options.steps, "lime": self.options.samples}
        explainer = TextExplainer(
            model, method=key.method, n_steps=n_steps.get(key.method), seed=key.seed
        )
        explainer(min(texts, key=len))  # which imports and allocates
        with metered([model.model], model.device) as cost:
            explanations = explainer(texts)
        return explanations, cost.shared(len(texts))


# Time and memory ---------------------------------------------------------------------------------


def text_batch(task: Task) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ids (N, L), the ids with everything removed, the attention mask, the predicted classes."""
    batch = task.model.collate(task.model.tokenize([item.text for item in task.texts]))
    mask = batch.input_ids.new_ones(batch.input_ids.shape)
    if batch.forward_args:
        mask = batch.forward_args[0]
    with torch.no_grad():
        target = task.model(batch.input_ids, mask).argmax(dim=1)
    return batch.input_ids, task.model.baselines(batch), mask, target


def measure_time(run: Run) -> None:
    """Wall time and peak memory of the default call and of Integrated Gradients."""
    task = run.batch_task()
    model = task.model.model
    layer = model.base_model.get_submodule("embeddings")

    def forward(ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits: Tensor = model(ids, attention_mask=attention_mask).logits
        return logits

    ids, reference, mask, target = text_batch(task)
    calls = {
        "default call": LayerAMLAttribution(forward, layer),
        f"Integrated Gradients, {run.options.steps} steps": LayerIntegratedGradients(
            forward, layer
        ),
    }
    ours, theirs = calls

    def call(name: str) -> Cost:
        extra = {} if name == ours else {"n_steps": run.options.steps}
        with metered([model], task.model.device) as cost:
            calls[name].attribute(
                ids, baselines=reference, target=target, additional_forward_args=(mask,), **extra
            )
        return cost

    first = {name: call(name) for name in calls}
    costs: dict[str, list[Cost]] = {name: [] for name in calls}
    for _ in range(run.options.repeats):
        for name in calls:
            costs[name].append(call(name))
    seconds = {name: statistics.median(c.seconds for c in costs[name]) for name in calls}
    peaks = {
        name: max(c.peak_memory_mib or math.nan for c in [first[name], *costs[name]])
        for name in calls
    }
    made = run.table(
        f"Time: {len(ids)} texts of {task.name} ({run.options.split}), padded to {ids.shape[1]} "
        f"tokens, on {task.model.device.type}; medians of {run.options.repeats} alternating calls "
        "after one of each",
        "",
        "seconds",
        "range",
        "first call",
        "peak MiB",
        "forward passes a text",
        "backward",
    )
    for name in calls:
        each = [cost.seconds for cost in costs[name]]
        cost = costs[name][-1].shared(len(ids))
        made.add_row(
            name,
            f"{seconds[name]:.3f}",
            f"{min(each):.3f} to {max(each):.3f}",
            f"{first[name].seconds:.3f}",
            f"{peaks[name]:.0f}",
            f"{cost.forward_passes:.0f}",
            f"{cost.backward_passes:.0f}",
        )
    made.add_row(
        "ratio",
        f"{seconds[ours] / seconds[theirs]:.3f}",
        "",
        f"{first[ours].seconds / first[theirs].seconds:.3f}",
        f"{peaks[ours] / peaks[theirs]:.3f}",
        "",
        "",
    )
    run.console.print(made)
    decided = calls[ours]
    run.console.print(
        f"The default call applied its masks by {decided.perturbation_} and read the outputs as "
        f"{decided.output_}."
    )


# Texts -------------------------------------------------------------------------------------------


def verdict(difference: float, p_value: float, *, higher_is_better: bool | None) -> str:
    """Better, worse or level, from a difference and its corrected p-value."""
    if not p_value < LEVEL:
        return "level"
    return "better" if (difference > 0) == higher_is_better else "worse"


def shown(values: np.ndarray) -> str:
    """Mean with its 95 % interval."""
    mean, low, high = bootstrap_interval(values)
    return f"{mean:.3f} ({low:.3f} to {high:.3f})"


def measure_task(run: Run, task: Task) -> list[str]:
    """Faithfulness on a task's texts.

    Returns:
        The verdicts against each rival by each measure.
    """
    scorer = Scorer.of(task.model, task.texts, BenchmarkSettings(metrics=METRICS))
    texts = [item.text for item in task.texts]
    methods = (OURS, *RIVALS, "random")
    records: dict[RunKey, list[Record]] = {}
    costs = {}
    for key in (key for method in methods for key in run.runs(method)):
        explanations, costs[key.method] = run.explain(task.model, texts, key)
        records[key] = [
            {"index": index, "scores": explanations[index].scores} for index in scorer.plan.indices
        ]
    scored = scorer.score(records)
    measures = [entry.metric for entry in scorer.metrics]
    values = {
        (method, measure.name): np.stack(
            [found[measure.name] for key, found in scored.values.items() if key.method == method]
        )
        for method in methods
        for measure in measures
    }

    tokens = statistics.fmean(sum(text.maskable) for text in scorer.plan.texts)
    arrows = {True: " ↑", False: " ↓", None: ""}
    made = run.table(
        f"Task {task.name}: {len(texts)} texts ({run.options.split}), {tokens:.1f} tokens on "
        f"average, a removed one becomes {task.model.baseline.token}; means with 95 % intervals",
        "method",
        *(measure.title + arrows[measure.higher_is_better] for measure in measures),
        "forward passes a text",
        "backward",
        "ms",
    )
    for method in methods:
        cost = costs[method]
        made.add_row(
            method,
            *(shown(values[method, measure.name]) for measure in measures),
            f"{cost.forward_passes:.0f}",
            f"{cost.backward_passes:.0f}",
            f"{1000 * cost.seconds:.1f}",
        )
    run.console.print(made)

    pairs = [(rival, measure) for rival in RIVALS for measure in measures]
    differences, p_values = [], []
    for rival, measure in pairs:
        ours = example_means(values[OURS, measure.name])
        theirs = example_means(values[rival, measure.name])
        differences.append(float(np.nanmean(ours - theirs)))
        p_values.append(paired_p_value(ours, theirs))
    made = run.table(
        f"{OURS} on {task.name}: paired tests",
        "against",
        "measure",
        "difference",
        "p",
        "p, corrected",
        "",
    )
    verdicts = []
    for (rival, measure), difference, p, corrected in zip(
        pairs, differences, p_values, holm(p_values), strict=True
    ):
        verdicts.append(verdict(difference, corrected, higher_is_better=measure.higher_is_better))
        made.add_row(
            rival,
            measure.title,
            f"{difference:+.4f}",
            f"{p:.4f}",
            f"{corrected:.4f}",
            verdicts[-1],
        )
    run.console.print(made)
    return verdicts


def measure_tasks(run: Run) -> None:
    """Faithfulness on every task's texts, and how often the default call is ahead."""
    verdicts: list[str] = []
    for name in run.options.tasks:
        with run.timed(f"Task {name}"):
            verdicts += measure_task(run, run.task(name))
    counted = ", ".join(
        f"{word} in {verdicts.count(word)}" for word in ("better", "worse", "level")
    )
    run.console.print(f"{OURS} in {len(verdicts)} comparisons: {counted}")


def measure_reviews(run: Run) -> None:
    """The share of deciding words among as many of the highest tokens, of held-out reviews."""
    reviews = getattr(load_reviews_splits(), run.options.split)[: run.options.reviews]
    model = TextClassifier(*load_reviews_classifier())
    model.model.requires_grad_(False)
    made = run.table(
        f"Deciding words of {len(reviews)} reviews ({run.options.split})",
        "method",
        "hit rate",
        "all found",
        "ms per text",
    )
    for method in (OURS, *RIVALS, "random"):
        rates, seconds = [], []
        for key in run.runs(method):
            found, cost = run.explain(model, [review.text for review in reviews], key)
            rates.append([hit_rate(e, r) for e, r in zip(found, reviews, strict=True)])
            seconds.append(cost.seconds)
        made.add_row(
            method,
            shown(np.array(rates)),
            f"{(np.array(rates) == 1).mean():.1%}",
            f"{1000 * statistics.median(seconds):.1f}",
        )
    run.console.print(made)


# A table -----------------------------------------------------------------------------------------


def exact_shapley(values: np.ndarray) -> np.ndarray:
    r"""Shapley values from the values of all subsets.

    .. math:: \phi_i = \sum_{S \not\ni i} \frac{|S|!\,(U - |S| - 1)!}{U!}
              \bigl(v(S \cup \{i\}) - v(S)\bigr)

    Args:
        values: :math:`v(S)` (N, 2^U); feature i is in the subset with the number S where bit i of
            S is set.

    Returns:
        One value per feature (N, U).
    """
    U = values.shape[1].bit_length() - 1
    subsets = np.arange(1 << U)
    sizes = subset_bits(U).sum(axis=1)
    weights = np.array(
        [math.factorial(s) * math.factorial(U - s - 1) / math.factorial(U) for s in range(U)]
    )
    found = np.empty((len(values), U))
    for i in range(U):
        without = subsets[subsets >> i & 1 == 0]
        gains = values[:, without | 1 << i] - values[:, without]
        found[:, i] = gains @ weights[sizes[without]]
    return found


def subset_bits(U: int) -> np.ndarray:
    """Which of U features each of the 2^U subsets holds, (2^U, U) of 0 and 1."""
    return np.arange(1 << U)[:, None] >> np.arange(U) & 1


def all_subsets(function: nn.Module, rows: Tensor) -> np.ndarray:
    """The function's values (N, 2^U) for rows (N, U) with all subsets of features kept."""
    bits = torch.tensor(subset_bits(rows.shape[1]), dtype=rows.dtype)
    with torch.no_grad():
        kept = (bits * rows.unsqueeze(1)).reshape(-1, rows.shape[1])
        values: np.ndarray = function(kept).double().reshape(len(rows), len(bits)).numpy()
    return values


def trained(
    net: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    data: tuple[Tensor, Tensor],
    *,
    n_validation: int,
    epochs: int,
    rate: float,
    patience: int | None,
) -> nn.Module:
    """Trains a network until its loss on the last rows no longer falls, and takes its best state.

    Args:
        net: The network.
        loss: Of outputs and labels.
        data: Inputs and labels.
        n_validation: Rows that training only stops by.
        epochs: Passes over the others at most.
        rate: Adam's learning rate.
        patience: Passes without a lower loss after which it stops; None for all passes, and the
            last state.
    """
    x, y = data
    n = len(x) - n_validation
    optimizer = torch.optim.Adam(net.parameters(), rate)
    best, state, waited = math.inf, copy.deepcopy(net.state_dict()), 0
    for _ in range(epochs):
        for rows in torch.randperm(n).split(32):
            optimizer.zero_grad()
            loss(net(x[rows]), y[rows]).backward()
            optimizer.step()
        with torch.no_grad():
            reached = loss(net(x[n:]), y[n:]).item()
        if patience is None or reached < best:
            best, state, waited = reached, copy.deepcopy(net.state_dict()), 0
        else:
            waited += 1
            if waited == patience:
                break
    net.load_state_dict(state)
    return net.eval().requires_grad_(False)


def rank_correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of each pair of rows, (N,)."""
    from scipy.stats import spearmanr

    return np.array([spearmanr(a, b).statistic for a, b in zip(first, second, strict=True)])


def held_out(split: str, n: int, size: int) -> slice:
    """The last 2 · size of n rows, of which the first half is for choosing ("test")."""
    start = n - 2 * size if split == "test" else n - size
    return slice(start, start + size)


def measure_table(run: Run) -> None:
    """Agreement with exact Shapley values and with Integrated Gradients on the diabetes data."""
    from sklearn.datasets import load_diabetes

    size = 50
    features, progression = load_diabetes(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(features))
    x, y = (torch.tensor(values[order]).float() for values in (features, progression))
    n_train = len(x) - 2 * size
    x = (x - x[:n_train].mean(0)) / x[:n_train].std(0)
    y = (y - y[:n_train].mean()) / y[:n_train].std()
    part = held_out(run.options.split, len(x), size)
    rows = x[part]

    def network(seed: int, patience: int | None) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = nn.Sequential(
                nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1)
            )
            return trained(
                net.append(nn.Flatten(0)),
                nn.functional.mse_loss,
                (x[:n_train], y[:n_train]),
                n_validation=60,
                epochs=run.options.epochs or 200,
                rate=1e-3,
                patience=patience,
            )

    def integrated(net: nn.Module, rows: Tensor, _: int) -> Tensor:
        found: Tensor = IntegratedGradients(net).attribute(rows, n_steps=run.options.steps)
        return found

    def ours(net: nn.Module, rows: Tensor, seed: int) -> Tensor:
        found = AMLAttribution(net, seed=seed).attribute(rows)
        assert isinstance(found, Tensor)
        return found

    def ablation(net: nn.Module, rows: Tensor, _: int) -> Tensor:
        found: Tensor = FeatureAblation(net).attribute(rows)
        return found

    methods: dict[str, tuple[Scores, Sequence[int]]] = {
        OURS: (ours, run.options.seeds),
        f"integrated gradients, {run.options.steps} steps": (integrated, (0,)),
        "feature ablation": (ablation, (0,)),
    }
    for kind, patience in (("stopped early", 10), ("trained to the end", None)):
        nets = [network(seed, patience) for seed in range(run.options.nets)]
        shapley = [exact_shapley(all_subsets(net, rows)) for net in nets]
        gradients = [integrated(net, rows, 0).numpy() for net in nets]
        shares = ", ".join(
            f"{1 - float(((net(rows) - y[part]) ** 2).mean() / y[part].var(correction=0)):.2f}"
            for net in nets
        )
        made = run.table(
            f"Table: {size} rows of the diabetes data ({run.options.split}), baselines 0 (the "
            f"mean), {len(nets)} networks, {kind} (they explain {shares} of the variance of these "
            "rows); median over rows of the rank correlation, mean over networks (lowest)",
            "method",
            "with Shapley values",
            "with Integrated Gradients",
            "largest |sum - (F(x) - F(b))|",
        )
        for name, (method, seeds) in methods.items():
            medians: list[list[float]] = [[], []]
            deltas = []
            for net, *references in zip(nets, shapley, gradients, strict=True):
                difference = net(rows) - net(torch.zeros(1, 10))
                for seed in seeds:
                    scores = method(net, rows, seed)
                    deltas.append(float((scores.sum(1) - difference).abs().max()))
                    for kept, reference in zip(medians, references, strict=True):
                        found = rank_correlations(scores.numpy(), reference)
                        kept.append(float(np.median(found)))
            cells = (f"{statistics.fmean(kept):.3f} ({min(kept):.3f})" for kept in medians)
            made.add_row(name, *cells, f"{max(deltas):.1e}")
        run.console.print(made)


# Linear functions and sums -----------------------------------------------------------------------


def measure_linear(run: Run) -> None:
    """Equality with Integrated Gradients on linear functions, and the sums of scores."""
    generator = torch.Generator().manual_seed(0)
    made = run.table(
        "Linear functions of 16 rows: largest difference from Integrated Gradients (of positions' "
        "sums where inputs have them), and largest |sum - (F(x) - F(b))|",
        "",
        "difference",
        "largest score",
        "sum",
    )
    for dtype in (torch.float32, torch.float64):
        weights = torch.randn(6, 4, generator=generator, dtype=dtype)
        x, b = torch.randn(2, 16, 6, 4, generator=generator, dtype=dtype)
        kind = str(dtype).removeprefix("torch.")

        def linear(values: Tensor, weights: Tensor = weights) -> Tensor:
            return values.flatten(1) @ weights.flatten() + 1

        for inputs, baselines in ((x.flatten(1), b.flatten(1)), (x, b)):
            exact: Tensor = IntegratedGradients(linear).attribute(
                inputs, baselines, n_steps=run.options.steps
            )
            found, delta = AMLAttribution(linear).attribute(
                inputs, baselines, return_convergence_delta=True
            )
            # Of embeddings a position is kept or removed as a whole.
            found, exact = (t.sum(-1) if inputs.dim() == 3 else t for t in (found, exact))
            name = f"inputs {tuple(inputs.shape)}, {kind}"
            made.add_row(name, *linear_cells(found, exact, delta))

        embedding = nn.Embedding(20, 4, dtype=dtype)
        embedding.weight.data.normal_(generator=generator)
        ids = torch.randint(1, 20, (16, 6), generator=generator)

        def embedded(ids: Tensor, embedding: nn.Embedding = embedding) -> Tensor:
            return linear(embedding(ids))

        exact = LayerIntegratedGradients(embedded, embedding).attribute(
            ids, torch.zeros_like(ids), n_steps=run.options.steps
        )
        found, delta = LayerAMLAttribution(embedded, embedding).attribute(
            ids, torch.zeros_like(ids), return_convergence_delta=True
        )
        assert isinstance(found, Tensor)
        cells = linear_cells(found.sum(-1), exact.sum(-1), delta)
        made.add_row(f"embeddings of (16, 6), {kind}", *cells)
    run.console.print(made)

    task = run.batch_task()
    ids, reference, mask, target = text_batch(task)
    layer = task.model.model.base_model.get_submodule("embeddings")

    def forward(ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits: Tensor = task.model.model(ids, attention_mask=attention_mask).logits
        return logits

    scores, delta = LayerAMLAttribution(forward, layer).attribute(
        ids,
        baselines=reference,
        target=target,
        additional_forward_args=(mask,),
        return_convergence_delta=True,
    )
    assert isinstance(scores, Tensor)
    difference = scores.sum(dim=(1, 2)) - delta
    run.console.print(
        f"Default call on {len(ids)} texts of {task.name} ({run.options.split}): largest |sum - "
        f"(F(x) - F(b))| {delta.abs().max():.1e}, largest |F(x) - F(b)| "
        f"{difference.abs().max():.2f}"
    )


def linear_cells(found: Tensor, exact: Tensor, delta: Tensor) -> tuple[str, str, str]:
    """Largest difference, score and delta."""
    largest = ((found - exact).abs().max(), exact.abs().max(), delta.abs().max())
    return (f"{largest[0]:.1e}", f"{largest[1]:.2f}", f"{largest[2]:.1e}")


# Images ------------------------------------------------------------------------------------------


def measure_image(run: Run) -> None:
    """Deletion and insertion curves of networks that read handwritten digits."""
    from sklearn.datasets import load_digits

    size = 100
    digits, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(digits))
    images = torch.tensor(digits[order] / 16).float().reshape(-1, 1, 8, 8)
    labels = torch.tensor(labels[order])
    n_train = len(images) - 2 * size
    part = held_out(run.options.split, len(images), size)
    x = images[part][: run.options.images]
    nets = []
    for seed in range(run.options.nets):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net: nn.Module = nn.Sequential(
                nn.Conv2d(1, 16, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(16, 32, 3, padding=1),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Flatten(),
                nn.Linear(512, 64),
                nn.ReLU(),
                nn.Linear(64, 10),
            )
            nets.append(
                trained(
                    net,
                    nn.functional.cross_entropy,
                    (images[:n_train], labels[:n_train]),
                    n_validation=200,
                    epochs=run.options.epochs or 15,
                    rate=2e-3,
                    patience=3,
                )
            )

    def integrated(net: nn.Module, x: Tensor, _: int) -> Tensor:
        found: Tensor = IntegratedGradients(net).attribute(
            x, target=net(x).argmax(1), n_steps=run.options.steps, internal_batch_size=1000
        )
        return found

    def ours(net: nn.Module, x: Tensor, seed: int) -> Tensor:
        found = AMLAttribution(net, seed=seed).attribute(x, target=net(x).argmax(1))
        assert isinstance(found, Tensor)
        return found

    def chance(_: nn.Module, x: Tensor, seed: int) -> Tensor:
        return torch.rand(x.shape, generator=torch.Generator().manual_seed(seed))

    rival = f"integrated gradients, {run.options.steps} steps"
    methods: dict[str, tuple[Scores, Sequence[int]]] = {
        OURS: (ours, run.options.seeds),
        rival: (integrated, (0,)),
        "random": (chance, run.options.seeds),
    }
    curves = {"deletion": deletion_curve, "insertion": insertion_curve}
    areas: dict[tuple[str, str], np.ndarray] = {}
    for name, (method, seeds) in methods.items():
        found: dict[str, list[Tensor]] = {curve: [] for curve in curves}
        for net in nets:
            for seed in seeds:
                scores = method(net, x, seed)
                for which, curve in curves.items():
                    values = curve(
                        net,
                        x,
                        scores,
                        baselines=0,
                        target=net(x).argmax(1),
                        removal="mask",
                        n_points=21,
                    )
                    found[which].append(area_under_curve(values))
        for which, each in found.items():
            areas[name, which] = torch.stack(each).numpy()
    accuracy = ", ".join(
        f"{(net(x).argmax(1) == labels[part][: len(x)]).float().mean():.2f}" for net in nets
    )
    made = run.table(
        f"Image: {len(x)} digits ({run.options.split}), baselines 0 (no ink), {len(nets)} "
        f"networks of accuracy {accuracy}; areas with 95 % intervals",
        "method",
        "deletion ↓",
        "insertion ↑",
    )
    for name in methods:
        made.add_row(name, *(shown(areas[name, which]) for which in curves))
    run.console.print(made)
    pairs = [
        (example_means(areas[OURS, which]), example_means(areas[rival, which])) for which in curves
    ]
    corrected = holm([paired_p_value(ours, theirs) for ours, theirs in pairs])
    for which, (first, second), p in zip(curves, pairs, corrected, strict=True):
        difference = float(np.nanmean(first - second))
        word = verdict(difference, p, higher_is_better=which == "insertion")
        run.console.print(
            f"{which} against {rival}: {difference:+.4f}, corrected p = {p:.4f}: {word}"
        )


SECTIONS: dict[str, Callable[[Run], None]] = {
    "time": measure_time,
    "tasks": measure_tasks,
    "table": measure_table,
    "linear": measure_linear,
    "reviews": measure_reviews,
    "image": measure_image,
}


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line's options."""

    def names(given: str) -> list[str]:
        return given.split(",")

    def numbers(given: str) -> list[int]:
        return [int(each) for each in given.split(",")]

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--models", type=Path, help="folder with the classifiers' folders")
    add("--data", type=Path, help="folder with the data sets' folders")
    add("--decoder", type=Path, help="folder of a decoder by train_decoder.py")
    add("--split", choices=("test", "validation"), default="test")
    add("--sections", type=names, default=list(SECTIONS), help=f"of {','.join(SECTIONS)}")
    add("--tasks", type=names, help=f"of {','.join(TASKS)},reviews. Default: all there is")
    add("--texts", type=int, default=200, help="texts of a task")
    add("--long-texts", type=int, default=60, help="texts of a task whose texts are long")
    add("--reviews", type=int, default=200, help="reviews of which deciding words are known")
    add("--images", type=int, default=100)
    add("--nets", type=int, default=5, help="networks of the table and of the images")
    add("--epochs", type=int, help="of their training at most. Default: table 200, images 15")
    add("--steps", type=int, default=50, help="steps of Integrated Gradients")
    add("--samples", type=int, default=200, help="samples of LIME")
    add("--batch-size", type=int, default=16, help="texts of a call whose time is measured")
    add("--repeats", type=int, default=3, help="of that call")
    add("--seeds", type=numbers, default=[0], help="of methods that draw at random")
    add("--threads", type=int, default=1)
    add("--smoke", action="store_true", help="as little as runs: figures without a meaning")
    options = parser.parse_args(arguments)
    if options.smoke:
        options.texts = options.long_texts = options.reviews = options.images = 3
        options.nets = options.repeats = 1
        options.batch_size = options.epochs = 2
        options.steps, options.samples = 4, 20
    has_folders = options.models is not None and options.data is not None
    possible = ["reviews"]
    if has_folders:
        possible = [t for t in TASKS if t != "decoder" or options.decoder is not None] + possible
    if options.tasks is None:
        options.tasks = [t for t in possible if t != "reviews"] or possible
    for option, allowed in (("sections", SECTIONS), ("tasks", possible)):
        unknown = [each for each in getattr(options, option) if each not in allowed]
        if unknown:
            parser.error(f"--{option}: expected {', '.join(allowed)}, got {', '.join(unknown)}")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints.

    Args:
        arguments: The command line's arguments; None for those of the process.
    """
    options = parsed(arguments)
    torch.set_num_threads(options.threads)
    # Of Captum, about the types of ids and masks.
    warnings.filterwarnings("ignore", module="captum")
    run = Run(options)
    versions = ", ".join(f"{name} {number}" for name, number in package_versions().items())
    run.console.print(f"Versions: {versions}")
    settings = {k: v for k, v in vars(options).items() if k not in ("models", "data", "decoder")}
    run.console.print("Settings: " + ", ".join(f"{k} {v}" for k, v in settings.items()))
    for name in options.sections:
        with run.timed(f"Section {name}"):
            SECTIONS[name](run)


if __name__ == "__main__":
    main()
