"""The second half of a benchmark: what the explanations are worth, by every metric.

Texts are scored a window at a time, all methods together: an input that several of them lead to is
passed through the model once. What is held does not grow with the number of texts but for the
values themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from captum_aml.benchmark.explain import Record
from captum_aml.benchmark.plan import Plan, label_indices, ranges
from captum_aml.benchmark.settings import BenchmarkSettings
from captum_aml.benchmark.store import JSON, MethodFile
from captum_aml.exceptions import InvalidInputError
from captum_aml.masking.call import parse_call
from captum_aml.metrics import AOPCLimits, Convention, Removal, RemovalEvaluator
from captum_aml.metrics.conventions import resolve_convention
from captum_aml.metrics.curves import CURVE_POINTS, curve_of
from captum_aml.metrics.limits import LimitSearch, limits_of
from captum_aml.metrics.registry import BoundMetric, MetricInputs, bind, default_metrics
from captum_aml.text import TextModel
from captum_aml.text.data import LabelledText
from captum_aml.text.validation import rationales_of

_CURVE = "removal-curve"


class RunKey(NamedTuple):
    """One method with one seed."""

    method: str
    seed: int


@dataclass
class Scored:
    """Values by run and metric, each (N,) in the order of the data; NaN where there is none.

    Attributes:
        values: By run, by metric.
        curves: By run the removal curve, (N, points).
        search_passes: Inputs passed through the model by the searches for limits.
        n_exact: Texts whose limits are exact.
        n_searched: Texts with limits.
    """

    values: dict[RunKey, dict[str, np.ndarray]] = field(default_factory=dict)
    curves: dict[RunKey, np.ndarray] = field(default_factory=dict)
    search_passes: int = 0
    n_exact: int = 0
    n_searched: int = 0


@dataclass(frozen=True)
class Scorer:
    """Scoring of explanations by metrics.

    Attributes:
        text_model: The explained model.
        plan: The texts.
        data: The same texts with what people say about them, in the order of the data.
        metrics: The metrics.
        convention: The convention, for the removal curves.
        search: How limits are searched.
        targets: The explained class of each text in the order of the data; None for the predicted
            one.
    """

    text_model: TextModel
    plan: Plan
    data: Sequence[LabelledText]
    metrics: Sequence[BoundMetric]
    convention: Convention
    search: LimitSearch = field(default_factory=LimitSearch)
    targets: Sequence[int] | None = None

    @classmethod
    def of(
        cls,
        text_model: TextModel,
        texts: Sequence[LabelledText],
        settings: BenchmarkSettings,
        targets: Sequence[int] | None = None,
    ) -> Scorer:
        """The scorer of texts by the metrics of a benchmark's settings, or the usual ones.

        Raises:
            InvalidInputError: The model's classes do not exclude each other, or are not known from
                the text; a metric is unknown, or a label is none of the model's.
        """
        if text_model.output != "logits" or text_model.no_fit:
            raise InvalidInputError(
                "model: expected one of classes that exclude each other, whose probabilities the "
                f"metrics compare, got one for the task {text_model.task!r}; captum_aml.metrics "
                "takes any forward function"
            )
        label_indices(texts, text_model.label_names)
        convention = resolve_convention(settings.convention)
        names = settings.metrics
        if names is None:
            names = default_metrics(convention, rationales=any(item.rationale for item in texts))
        return cls(
            text_model,
            Plan.of(text_model, [item.text for item in texts], batch_size=settings.batch_size),
            texts,
            bind(names, convention),
            convention,
            settings.search,
            targets,
        )

    def bar(self, n_runs: int, *, show: bool) -> tqdm[NoReturn]:
        """A progress bar of the scoring."""
        total = len(self.data) * n_runs
        return tqdm(total=total, desc="scoring", unit="explanation", disable=not show)

    @property
    def window_sizes(self) -> list[int]:
        """The number of texts in each window."""
        return self.plan.window_sizes

    def score(
        self,
        records: Mapping[RunKey, Iterable[Record]],
        *,
        values_file: Callable[[RunKey], MethodFile] | None = None,
        limits_file: Callable[[Removal], MethodFile] | None = None,
        on_record: Callable[[RunKey, Record], None] = lambda _, __: None,
        on_window: Callable[[int], None] = lambda _: None,
    ) -> Scored:
        """Scores every run's explanations.

        Args:
            records: By run what it said, in the order of the plan.
            values_file: Keeps a run's values, a record for each window, so that they need not be
                computed again. Default: None, nowhere.
            limits_file: The same for limits. Default: None.
            on_record: Called with every record on the way.
            on_window: Called with the number of texts after every run in every window.
        """
        streams = {key: iter(stream) for key, stream in records.items()}
        files = {key: values_file(key) for key in records} if values_file else {}
        known = {key: iter(file) for key, file in files.items()}
        done = {key: file.done for key, file in files.items()}
        limits = _Limits(self, limits_file)
        scored = self._empty(records)
        for number, places in enumerate(ranges(self.window_sizes)):
            window: _Window | None = None
            for key, stream in streams.items():
                chosen = list(islice(stream, len(places)))
                for record in chosen:
                    on_record(key, record)
                if number < done.get(key, 0):
                    found = next(known[key])["values"]
                else:
                    window = window or self._window(number, places, limits)
                    found = self._values(window, chosen)
                    if key in files:
                        files[key].append([{"values": found}])
                self._fill(scored, key, places, found)
                on_window(len(places))
        limits.report(scored)
        return scored

    def _empty(self, runs: Iterable[RunKey]) -> Scored:
        n = len(self.plan.texts)
        names = [entry.metric.name for entry in self.metrics]
        scored = Scored()
        for key in runs:
            scored.values[key] = {name: np.full(n, np.nan) for name in names}
            scored.curves[key] = np.full((n, CURVE_POINTS), np.nan)
        return scored

    def _fill(self, scored: Scored, key: RunKey, places: range, found: Mapping[str, JSON]) -> None:
        rows = [self.plan.indices[place] for place in places]
        for name, table in scored.values[key].items():
            table[rows] = _from_json(found[name])
        scored.curves[key][rows] = _from_json(found[_CURVE])

    def _window(self, number: int, places: range, limits: _Limits) -> _Window:
        """The texts at some places of the plan, ready to be scored."""
        rows = [self.plan.indices[place] for place in places]
        batch = self.text_model.collate([self.plan.texts[place] for place in places])
        with self.text_model.evaluating():
            evaluator = RemovalEvaluator(
                self.text_model,
                parse_call(
                    batch.input_ids,
                    self.text_model.baselines(batch),
                    None if self.targets is None else [self.targets[row] for row in rows],
                    batch.forward_args,
                ),
                output="logits",
                batch_size=self.plan.batch_size,
            )
        inputs = MetricInputs(
            evaluator,
            limits_of=partial(limits.at, number, evaluator),
            rationales=rationales_of(batch, [self.data[row] for row in rows]),
            embedding_layer=self.text_model.embedding_layer,
        )
        return _Window(inputs, batch.maskable.cpu())

    def _values(self, window: _Window, records: Sequence[Record]) -> dict[str, JSON]:
        """By metric, and for the removal curve, the values of a window's texts."""
        scores, failed = _scores(window, records)
        found: dict[str, JSON] = {}
        with self.text_model.evaluating():
            for entry in self.metrics:
                found[entry.metric.name] = _to_json(entry(window.inputs, scores), failed)
            curve = curve_of(
                window.inputs.evaluator,
                scores,
                self.convention.removal,
                n_points=CURVE_POINTS,
                insertion=False,
            )
        found[_CURVE] = _to_json(curve, failed)
        return found


class _Limits:
    """The limits of all windows by operator, searched once and kept in a file."""

    def __init__(self, scorer: Scorer, file: Callable[[Removal], MethodFile] | None) -> None:
        self._search = scorer.search
        wanted = {e.limits.name: e.limits for e in scorer.metrics if e.limits is not None}
        self._files = {name: file(removal) for name, removal in wanted.items()} if file else {}
        self._found = {
            name: [_limits_from_json(record) for record in self._files.get(name, ())]
            for name in wanted
        }

    def at(self, number: int, evaluator: RemovalEvaluator, removal: Removal) -> AOPCLimits:
        """The limits of the window of that number; windows come in order."""
        found = self._found[removal.name]
        if number == len(found):
            found.append(limits_of(evaluator, removal, self._search))
            if removal.name in self._files:
                self._files[removal.name].append([_limits_to_json(found[-1])])
        return found[number]

    def report(self, scored: Scored) -> None:
        """Says what the searches took."""
        parts = [part for found in self._found.values() for part in found]
        scored.search_passes = sum(part.n_passes for part in parts)
        scored.n_exact = sum(int((part.exact & ~part.high.isnan()).sum()) for part in parts)
        scored.n_searched = sum(int((~part.high.isnan()).sum()) for part in parts)


class _Window(NamedTuple):
    """Texts that are scored together, and where their own tokens are, (N, L) of bool."""

    inputs: MetricInputs
    maskable: Tensor


def _scores(window: _Window, records: Sequence[Record]) -> tuple[Tensor, Tensor]:
    """Scores by position (N, L), and which texts have none (N,)."""
    maskable = window.maskable
    scores = torch.zeros(maskable.shape, dtype=torch.float64)
    failed = torch.zeros(len(maskable), dtype=torch.bool)
    for row, record in zip(range(len(maskable)), records, strict=True):
        values: Any = record.get("scores")
        if values is None:
            failed[row] = True
        else:
            scores[row, maskable[row]] = torch.tensor(values, dtype=torch.float64)
    return scores.to(window.inputs.tokens.device), failed


def _to_json(values: Tensor, failed: Tensor | None = None) -> JSON:
    """Values with None for NaN, which JSON does not know, and for failures."""
    if not values.is_floating_point():
        found: JSON = values.tolist()
        return found
    values = values.double().cpu().clone()
    if failed is not None:
        values[failed] = torch.nan
    if values.dim() == 2:
        return [[None if math.isnan(v) else v for v in row] for row in values.tolist()]
    return [None if math.isnan(v) else v for v in values.tolist()]


def _from_json(values: JSON) -> np.ndarray:
    return np.array(values, dtype=np.float64)


def _limits_to_json(limits: AOPCLimits) -> Record:
    return {
        name: _to_json(value) if isinstance(value, Tensor) else value
        for name, value in vars(limits).items()
    }


def _limits_from_json(record: Mapping[str, Any]) -> AOPCLimits:
    numbers = ("low", "high", "full_drop")
    others = {name: torch.tensor(record[name]) for name in ("n_tokens", "exact")}
    found = {name: torch.from_numpy(_from_json(record[name])) for name in numbers}
    return AOPCLimits(**found, **others, n_passes=record["n_passes"])
