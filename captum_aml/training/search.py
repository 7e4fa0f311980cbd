r"""Searches the weights of an objective and the learning rate that a metric likes best.

The papers' "optimized for the metric of interest": each weight is uniform in [0, 1], the learning
rate is log-uniform, every trial fits a masker for a few epochs, and its value is that of the best
checkpoint by the metric on validation data. Optuna's tree-structured Parzen estimator proposes,
and trials whose metric is worse than the median of the others' at the same validation are pruned.

What is found is good on the validation data, by choice: figures to report come from other data.

Source: Barkan et al., Findings of EMNLP 2024 (30 trials, 450 training and 200 validation examples,
2 epochs a trial); pruning and the search of the learning rate are not the papers'.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from captum_aml._utils.checks import as_count, check_learning_rate
from captum_aml._utils.optional import require
from captum_aml.exceptions import InvalidInputError, NonFiniteError
from captum_aml.training.callbacks import FitCallback, FitState
from captum_aml.training.processes import n_launched
from captum_aml.training.records import Trial
from captum_aml.training.settings import FitSettings, ValidationMetric
from captum_aml.typing import Batches

if TYPE_CHECKING:
    import os

    import optuna

O = TypeVar("O")  # noqa: E741  (an objective: a dataclass with weights)

_WEIGHT = "_weight"
_RATE = "learning_rate"


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """The settings of a search.

    Attributes:
        trials: All trials of the study, those that an earlier search made included.
        learning_rates: The lowest and the highest learning rate.
        n_startup_trials: Trials that are drawn at random, before the estimator proposes any.
        prune: Whether unpromising trials are stopped early.
        seed: Seed of the proposals. A trial's proposal depends on the seed, on its number and on
            the trials that are finished then.

    Raises:
        InvalidInputError: A value is out of range.
    """

    trials: int = 30
    learning_rates: tuple[float, float] = (1e-5, 3e-4)
    n_startup_trials: int = 10
    prune: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        as_count("trials", self.trials, least=1)
        as_count("n_startup_trials", self.n_startup_trials, least=1)
        as_count("seed", self.seed)
        if len(self.learning_rates) != 2:
            raise InvalidInputError(
                f"learning_rates: expected the lowest and the highest, got {self.learning_rates!r}"
            )
        for rate in self.learning_rates:
            check_learning_rate(rate)
        if self.learning_rates[0] > self.learning_rates[1]:
            raise InvalidInputError(
                "learning_rates: expected the lowest and the highest, got "
                f"{self.learning_rates[0]} and {self.learning_rates[1]}"
            )


@dataclass(frozen=True)
class SearchResult:
    """The result of a search.

    Attributes:
        metric: The metric's name.
        higher_is_better: Its direction.
        trials: Every finished trial, by number.
        n_added: How many of them this call added.
        n_running: How many more count as under way, in other processes.
    """

    metric: str
    higher_is_better: bool
    trials: tuple[Trial, ...]
    n_added: int
    n_running: int = 0

    @property
    def ranked(self) -> list[Trial]:
        """The complete trials, best first."""
        complete = [t for t in self.trials if t.state == "complete" and t.value is not None]
        sign = -1.0 if self.higher_is_better else 1.0
        return sorted(complete, key=lambda t: (sign * (t.value or 0.0), t.number))

    @property
    def best(self) -> Trial:
        """The best trial.

        Raises:
            NonFiniteError: None is complete.
        """
        if not self.ranked:
            errors = [t.error for t in self.trials if t.error]
            raise NonFiniteError(
                f"trials: expected one that is complete, but all {len(self.trials)} failed or "
                f"were pruned ({errors[0] if errors else 'no error'}); try lower learning rates"
            )
        return self.ranked[0]


def weight_names(objective: object) -> list[str]:
    """The names of an objective's weights.

    Raises:
        InvalidInputError: It is no dataclass with fields that end in ``_weight``.
    """
    if not dataclasses.is_dataclass(objective) or isinstance(objective, type):
        raise InvalidInputError(
            f"objective: expected one like AMLObjective(), got {type(objective).__name__}"
        )
    names = [f.name for f in dataclasses.fields(objective) if f.name.endswith(_WEIGHT)]
    if not names:
        raise InvalidInputError(
            f"objective: expected one with weights to search, got {type(objective).__name__}"
        )
    return names


def search_weights(
    make: Callable[[O], Any],
    objective: O,
    train_batches: Batches,
    val_batches: Batches,
    *,
    metric: ValidationMetric,
    fit: FitSettings | None = None,
    settings: SearchSettings | None = None,
    storage: str | os.PathLike[str] | None = None,
    identity: Mapping[str, Any] | None = None,
    score: Callable[[Any], Mapping[str, float]] | None = None,
    on_trial: Callable[[Trial], None] = lambda _: None,
) -> SearchResult:
    """Searches weights and learning rate.

    Several processes may search one storage together: each adds trials until there are enough.
    A search that was interrupted goes on with its storage; a trial that it was busy with is made
    again, under another number.

    Args:
        make: Gives an attribution, ``AMLAttribution`` say, with an objective; it is fitted once.
        objective: The objective whose weights are replaced; the rest of it stays.
        train_batches: Training batches for ``fit``.
        val_batches: Validation batches, for nothing that is reported later.
        metric: What is searched for, as for ``select_by``.
        fit: The settings of each trial's fit; learning rate and what it is selected by are
            replaced. Default: None, ``FitSettings(epochs=2, seed=settings.seed)``.
        settings: How the search goes. Default: None, ``SearchSettings()``.
        storage: A file that keeps the trials: SQLite where its name ends in ``.db``, ``.sqlite``
            or ``.sqlite3``, else Optuna's journal. Default: None, in memory.
        identity: What trials have to agree in to stand in one storage, as JSON values: model, data
            and the like. Default: None, the fit's settings and the ranges alone.
        score: Further figures of a complete trial's attribution, by name. Default: None.
        on_trial: Called with every trial that this call finished. Default: nothing.

    Raises:
        InvalidInputError: An argument is not as described, the storage is of another search, or
            a launcher started several processes together.
        ImportError: Optuna is not installed.
    """
    require("optuna", package="optuna", feature="searching weights", extra="train")
    refuse_several_processes()
    from captum_aml.training import studies

    settings = settings or SearchSettings()
    fit = fit or FitSettings(epochs=2, seed=settings.seed)
    names = weight_names(objective)
    described = {
        "metric": metric.name,
        "higher_is_better": metric.higher_is_better,
        "weights": names,
        "learning_rates": list(settings.learning_rates),
        "seed": settings.seed,
        "fit": {k: v for k, v in fit.to_dict().items() if k not in (_RATE, "select_by")},
        **(identity or {}),
    }
    with studies.quiet(), ExitStack() as stack:
        study = studies.open_study(
            storage,
            described,
            higher_is_better=metric.higher_is_better,
            prune=settings.prune,
        )
        owner = stack.enter_context(studies.presence(storage))
        n_added = 0
        for trial in studies.missing_trials(study, settings.trials, owner):
            study.sampler = studies.sampler_of(
                trial, seed=settings.seed, n_startup_trials=settings.n_startup_trials
            )
            weights = {name: trial.suggest_float(name, 0.0, 1.0) for name in names}
            low, high = settings.learning_rates
            rate = trial.suggest_float(_RATE, low, high, log=True)
            attribution = make(dataclasses.replace(objective, **weights))  # type: ignore[type-var]
            arguments = {**fit.arguments(), _RATE: rate, "select_by": metric}
            with _recorded(study, trial, fit.epochs * fit.validations_per_epoch) as report:
                attribution.fit(train_batches, val_batches, callbacks=(report,), **arguments)
                if score is not None and not report.pruned:
                    report.values = score(attribution)
                if not report.pruned and report.best is None:
                    raise NonFiniteError(f"{metric.name}: expected a finite value")
            n_added += 1
            on_trial(studies.record(study.trials[trial.number], names))
        return SearchResult(
            metric=metric.name,
            higher_is_better=metric.higher_is_better,
            trials=tuple(studies.record(t, names) for t in studies.finished(study)),
            n_added=n_added,
            n_running=studies.n_running(study),
        )


def refuse_several_processes() -> None:
    """Refuses a launcher's processes, each of which would take a trial of its own.

    Raises:
        InvalidInputError: There are several.
    """
    if n_launched() > 1:
        raise InvalidInputError(
            f"search: expected one process, got {n_launched()} that a launcher started; start "
            "independent processes with one storage instead"
        )


@contextmanager
def _recorded(study: optuna.Study, trial: optuna.Trial, n_validations: int) -> Iterator[_Report]:
    """A block that fits for a trial, of which the study gets to know what came of it."""
    from optuna.trial import TrialState as State

    from captum_aml.training import studies

    start = time.perf_counter()
    report = _Report(trial, n_validations)
    try:
        yield report
    except NonFiniteError as error:
        studies.note(trial, seconds=time.perf_counter() - start, error=str(error))
        study.tell(trial, state=State.FAIL)
        return
    except BaseException:
        # Interrupted, or a mistake: without a note the trial is not counted and is made again.
        study.tell(trial, state=State.FAIL)
        raise
    studies.note(trial, seconds=time.perf_counter() - start, values=report.values)
    if report.pruned:
        study.tell(trial, state=State.PRUNED)
    else:
        study.tell(trial, report.best)


class _Report(FitCallback):
    """Reports every validation to a trial, and stops where the trial is hopeless."""

    def __init__(self, trial: optuna.Trial, n_validations: int) -> None:
        self.pruned = False
        self.best: float | None = None
        self.values: Mapping[str, float] = {}
        self._trial = trial
        self._n_validations = n_validations
        self._count = 0

    def on_validation_end(self, state: FitState) -> None:
        """Reports the value."""
        assert state.validation is not None
        self._count += 1
        if state.best is not None and math.isfinite(state.best.value):
            self.best = state.best.value
        if not math.isfinite(state.validation.value):
            return  # says nothing yet: the pruner would take it for the worst
        self._trial.report(state.validation.value, step=self._count)
        # What has no validation ahead is as good as complete.
        if self._count < self._n_validations and self._trial.should_prune():
            self.pruned = True
            state.request_stop()
