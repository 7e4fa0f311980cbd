"""Rows, costs and examples of a report, from values per text and from the records."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from captum_aml.benchmark.plan import Plan
from captum_aml.benchmark.provenance import package_versions, protocol, recorded_settings
from captum_aml.benchmark.results import (
    BenchmarkResults,
    Cell,
    Comparison,
    Cost,
    Curve,
    Failure,
    MethodRow,
)
from captum_aml.benchmark.score import RunKey, Scored, Scorer
from captum_aml.benchmark.settings import BenchmarkSettings
from captum_aml.benchmark.statistics import (
    bootstrap_interval,
    example_means,
    holm,
    mean_ranks,
    paired_p_value,
)
from captum_aml.methods import ScoreMeaning
from captum_aml.metrics import Metric
from captum_aml.text import TextModel
from captum_aml.visualization import ScoredText, TextCard


@dataclass
class Tally:
    """Cost and failures of a method, from its records."""

    n: int = 0
    total: Cost = field(default_factory=Cost)
    failures: list[Failure] = field(default_factory=list)

    def add(self, seed: int, record: Mapping[str, Any]) -> None:
        """Counts a record."""
        if record.get("error") is not None:
            self.failures.append(Failure(record["index"], seed, record["error"]))
            return
        self.n += 1
        self.total.forward_passes += record.get("forward_passes") or 0.0
        self.total.backward_passes += record.get("backward_passes") or 0.0
        self.total.seconds += record.get("seconds") or 0.0
        peak = record.get("peak_memory_mib")
        if peak is not None:
            self.total.peak_memory_mib = max(peak, self.total.peak_memory_mib or 0.0)

    def cost(self) -> Cost:
        """Means per text; unknown where no text could be explained."""
        return self.total.shared(self.n) if self.n else Cost.unknown()


def findings(
    scorer: Scorer,
    scored: Scored,
    collected: Collected,
    facts: Mapping[str, MethodRow],
    meanings: Mapping[str, ScoreMeaning],
    settings: BenchmarkSettings,
    *,
    model: str,
    data: str,
    made_here: bool = True,
) -> BenchmarkResults:
    """Everything that was found, without fingerprints and notes.

    Args:
        scorer: What scored.
        scored: Values by run.
        collected: What was kept of the records.
        facts: By method what its row says besides: role, settings, training.
        meanings: By method what its scores say.
        settings: The settings.
        model: What the report calls the model.
        data: What the report calls the data.
        made_here: Whether the explanations were made by this package. Default: True.
    """
    metrics = [entry.metric for entry in scorer.metrics]
    return BenchmarkResults(
        model=model,
        data=data,
        n_texts=len(scorer.data),
        metrics=metrics,
        rows=method_rows(scored, metrics, facts, collected.tallies),
        curves=removal_curves(scored, list(facts)),
        examples=collected.cards(scorer.text_model, scorer.plan, meanings),
        protocol=protocol(scorer, scored, made_here=made_here),
        settings=recorded_settings(settings, scorer),
        versions=package_versions(),
    )


def method_rows(
    scored: Scored,
    metrics: Sequence[Metric],
    facts: Mapping[str, MethodRow],
    tallies: Mapping[str, Tally],
    *,
    seed: int = 0,
) -> list[MethodRow]:
    """A row for each method, in the order of ``facts``.

    Each learned method is compared, metric by metric, with the best of the other methods by its
    mean; the p-values are corrected for the number of all these comparisons. A method that failed
    on texts that others explained is never the best, and ranks behind those others.

    Args:
        scored: Values by run.
        metrics: The metrics.
        facts: By method what its row says besides: role, settings, training.
        tallies: By method.
        seed: Seed of the resampling. Default: 0.
    """
    tables = {name: {m.name: _table(scored, name, m.name) for m in metrics} for name in facts}
    rows = []
    for name, known in facts.items():
        cells = {}
        for metric in metrics:
            table = tables[name][metric.name]
            mean, low, high = bootstrap_interval(table, seed=seed)
            if not math.isnan(mean):
                n = int((~np.isnan(table)).any(axis=0).sum())
                cells[metric.name] = Cell(mean, low, high, n)
        tally = tallies.get(name, Tally())
        rows.append(
            replace(
                known,
                cells=cells,
                cost=tally.cost(),
                seeds=[key.seed for key in scored.values if key.method == name],
                failures=tally.failures,
            )
        )
    ranks = mean_ranks(_means(rows, metrics), metrics)
    rows = [replace(row, rank=ranks[row.method]) for row in rows]
    return _compared(rows, metrics, tables)


def removal_curves(scored: Scored, names: Sequence[str]) -> list[Curve]:
    """Mean removal curves by method; a method without any value has none."""
    curves = []
    for name in names:
        tables = [table for key, table in scored.curves.items() if key.method == name]
        points = np.concatenate([table[~np.isnan(table).any(axis=1)] for table in tables])
        if len(points):
            shares = np.linspace(0, 1, points.shape[1]).tolist()
            curves.append(Curve(name, shares, points.mean(axis=0).tolist()))
    return curves


def _table(scored: Scored, method: str, metric: str) -> np.ndarray:
    """Values (S, N) of a method."""
    return np.stack([v[metric] for key, v in scored.values.items() if key.method == method])


def _compared(
    rows: Sequence[MethodRow],
    metrics: Sequence[Metric],
    tables: Mapping[str, Mapping[str, np.ndarray]],
) -> list[MethodRow]:
    made: list[tuple[int, str, Comparison]] = []
    for metric in metrics:
        best = _best_baseline(rows, metric)
        if best is None:
            continue
        for place, row in enumerate(rows):
            if row.role != "learned" or metric.name not in row.cells:
                continue
            ours = example_means(tables[row.method][metric.name])
            theirs = example_means(tables[best][metric.name])
            differences = ours - theirs
            known = not np.isnan(differences).all()
            difference = float(np.nanmean(differences)) if known else math.nan
            better = difference > 0 if metric.higher_is_better else difference < 0
            comparison = Comparison(best, difference, paired_p_value(ours, theirs), better)
            made.append((place, metric.name, comparison))
    corrected = holm([comparison.p_value for _, _, comparison in made])
    cells = [dict(row.cells) for row in rows]
    for (place, name, comparison), p_value in zip(made, corrected, strict=True):
        if not math.isnan(p_value):
            compared = replace(comparison, p_value=p_value)
            cells[place][name] = replace(cells[place][name], comparison=compared)
    return [replace(row, cells=own) for row, own in zip(rows, cells, strict=True)]


def _full_means(rows: Sequence[MethodRow], metric: Metric) -> dict[str, float]:
    """Means by method; left out are those over fewer texts than another method has a value for."""
    cells = {row.method: row.cells[metric.name] for row in rows if metric.name in row.cells}
    most = max((cell.n for cell in cells.values()), default=0)
    return {method: cell.mean for method, cell in cells.items() if cell.n == most}


def _means(rows: Sequence[MethodRow], metrics: Sequence[Metric]) -> dict[str, dict[str, float]]:
    """By method and metric what is ranked: means of fewer texts than others have come last.

    A method that fails where texts are hard must not gain by it.
    """
    table: dict[str, dict[str, float]] = {row.method: {} for row in rows}
    for metric in metrics:
        full = _full_means(rows, metric)
        worst = -math.inf if metric.higher_is_better else math.inf
        for row in rows:
            if metric.name in row.cells:
                table[row.method][metric.name] = full.get(row.method, worst)
    return table


def _best_baseline(rows: Sequence[MethodRow], metric: Metric) -> str | None:
    if metric.higher_is_better is None:
        return None
    learned = {row.method for row in rows if row.role == "learned"}
    means = {m: mean for m, mean in _full_means(rows, metric).items() if m not in learned}
    best = max if metric.higher_is_better else min
    return best(means, key=means.__getitem__, default=None)


@dataclass
class Collected:
    """Parts of the records that are kept on their way to be scored."""

    shown: range
    tallies: dict[str, Tally] = field(default_factory=dict)
    scores: dict[tuple[str, int], Mapping[str, Any]] = field(default_factory=dict)

    def add(self, key: RunKey, record: Mapping[str, Any]) -> None:
        """Takes a record on its way."""
        self.tallies.setdefault(key.method, Tally()).add(key.seed, record)
        if record["index"] in self.shown and record.get("scores") is not None:
            # The first seed's.
            self.scores.setdefault((key.method, record["index"]), record)

    def cards(
        self, text_model: TextModel, plan: Plan, meanings: Mapping[str, ScoreMeaning]
    ) -> list[TextCard]:
        """Texts with every method's scores; ``meanings`` says of each what they say."""
        places = {index: place for place, index in enumerate(plan.indices)}
        labels = text_model.label_names
        cards = []
        for index in self.shown:
            text = plan.texts[places[index]]
            offsets = [
                o for o, maskable in zip(text.offsets, text.maskable, strict=True) if maskable
            ]
            records = {m: self.scores[m, index] for m in meanings if (m, index) in self.scores}
            if not records:
                continue
            first = next(iter(records.values()))
            last = max((end for _, end in offsets), default=0)
            cards.append(
                TextCard(
                    text=text.text,
                    predicted=labels[first["predicted"]],
                    probability=first["probability"],
                    rows=[
                        ScoredText(
                            method=method,
                            offsets=offsets,
                            scores=record["scores"],
                            signed=meanings[method].signed,
                            target=labels[record["predicted"]],
                            relative=meanings[method].relative,
                            score=meanings[method].score,
                        )
                        for method, record in records.items()
                    ],
                    seen=last if text.n_tokens_cut else None,
                )
            )
        return cards
