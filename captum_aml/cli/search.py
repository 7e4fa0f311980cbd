"""The command ``search``."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from captum_aml._utils.files import write_file
from captum_aml._utils.optional import require
from captum_aml._utils.run_folder import RunFolder
from captum_aml.cli.apart import check_apart
from captum_aml.cli.config import ConfigFile, FitConfig, config_flags, config_text
from captum_aml.cli.console import say, show_table, warnings_in_lines
from captum_aml.exceptions import InvalidInputError

if TYPE_CHECKING:
    from captum_aml.cli.fit_setup import FitSetup
    from captum_aml.training import SearchResult, Trial

BEST, JSON, TABLE = "best.yaml", "search.json", "search.csv"
_SHOWN = 10
#: What a trial has of its own, and a fit on all texts does not take over.
_OF_TRIALS = ("limit", "epochs", "validations_per_epoch")
#: What a search has other defaults for: as published, but for where validation ends an epoch.
DEFAULTS: Mapping[str, str | int] = {
    "limit": 450,
    "validation_limit": 200,
    "epochs": 2,
    "batch_size": 20,
    "loss": "objective",
    "select_by": "aopc-comprehensiveness",
}
#: What is searched, what ``--metric`` stands for, and what only a file can set.
_WITHOUT = (
    *("prediction_weight", "inverse_weight", "size_weight", "learning_rate", "select_by"),
    *("recipe", "loss", "n_subsets", "weight_decay", "scheduler", "warmup_ratio"),
    *("gradient_accumulation_steps", "max_gradient_norm", "patience", "mixed_precision"),
    *("max_skipped_steps", "save_every", "tracker"),
)


@config_flags(without=_WITHOUT, defaults=DEFAULTS)
@warnings_in_lines()
def search(
    options: dict[str, object],
    *,
    out: Annotated[
        Path,
        typer.Option(help="The folder for best.yaml, search.json, search.csv and the storage."),
    ] = Path("search"),
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="A metric of the benchmark; several times for a sum, in which those of which "
            "lower is better are subtracted.",
            show_default="aopc-comprehensiveness",
        ),
    ] = None,
    trials: Annotated[
        int, typer.Option(help="Trials in all, those of an earlier search included.", min=1)
    ] = 30,
    storage: Annotated[
        Path | None,
        typer.Option(
            help="A file that keeps the trials (.db: SQLite, else a journal of Optuna): the same "
            "command goes on with it, and several processes share it.",
            show_default="trials.log in the folder",
        ),
    ] = None,
    config: ConfigFile = None,
    lowest_rate: Annotated[float, typer.Option(help="The lowest learning rate.")] = 1e-5,
    highest_rate: Annotated[float, typer.Option(help="The highest learning rate.")] = 3e-4,
    prune: Annotated[
        bool, typer.Option(help="Stop trials that are worse than the median of the others.")
    ] = True,
) -> None:
    """Search the weights and the learning rate that a metric likes best ("optimized for a metric").

    Every trial fits a masker for a few epochs; each weight is drawn from 0 to 1. The metric is
    computed on the validation texts alone: what is found is good on them by choice, so report
    figures on other texts. captum-aml fit --config FOLDER/best.yaml --out MASKER then fits on all
    texts.
    """
    require("optuna", package="optuna", feature="captum-aml search", extra="train")
    flags = {**options, "select_by": ",".join(metric) if metric else None}
    chosen = FitConfig.of(flags, config, defaults=DEFAULTS)
    if chosen.recipe is not None:
        raise InvalidInputError("recipe: a search has none, as it chooses what a recipe fixes")
    if chosen.chosen_loss != "objective":
        raise InvalidInputError(
            "loss: expected 'objective', whose weights are searched, got 'regression', which has "
            "none"
        )
    from captum_aml.cli.fit_setup import prepare
    from captum_aml.training import SearchSettings, search_weights
    from captum_aml.training.search import refuse_several_processes

    settings = SearchSettings(
        trials=trials, learning_rates=(lowest_rate, highest_rate), prune=prune, seed=chosen.seed
    )
    RunFolder.check_path(out)
    read = [chosen.data, chosen.validation, config]
    check_apart("out", [out / BEST, out / JSON, out / TABLE], read)
    check_apart("storage", [] if storage is None else [storage], read)
    refuse_several_processes()
    setup = prepare(chosen)
    score = setup.score
    assert score is not None, "a search is by a metric"
    out.mkdir(parents=True, exist_ok=True)
    direction = "highest" if score.metric.higher_is_better else "lowest"
    say(
        f"Searching for the {direction} {score.metric.name} on {setup.n_validation} validation "
        "texts; report figures on other texts."
    )
    result = search_weights(
        setup.attribution,
        chosen.objective(),
        setup.training,
        setup.validation,
        metric=score.metric,
        fit=setup.config.settings(),
        settings=settings,
        storage=storage or out / "trials.log",
        identity=_identity(setup),
        score=score,
        on_trial=lambda trial: say(_line(trial, settings.trials)),
    )
    if result.n_running:
        say(
            f"{result.n_running} of {settings.trials} trials count as running in other processes; "
            "those of one that was killed are made again by a search on its machine."
        )
    elif result.n_added == 0:
        say("No trial is missing: the storage has them all.")
    _write(out, result, setup)
    _show(result)
    typer.echo(f"\nThe best trial, {result.best.number}: {out / BEST}")
    typer.echo(f"Fit on all texts: captum-aml fit --config {out / BEST} --out MASKER")


def _identity(setup: FitSetup) -> dict[str, Any]:
    weights = [name for name in setup.identity if name.endswith("_weight")]
    searched = (*weights, "learning_rate")
    return {k: v for k, v in setup.identity.items() if k not in searched}


def best_config(setup: FitSetup, best: Trial) -> dict[str, Any]:
    """The configuration of a fit on all texts with what was found."""
    found = {**best.weights, "learning_rate": best.learning_rate}
    own = {k: v for k, v in setup.config.to_dict().items() if k not in _OF_TRIALS}
    return {name: found.get(name, value) for name, value in own.items()}


def _write(out: Path, result: SearchResult, setup: FitSetup) -> None:
    best = result.best
    comment = (
        f"Trial {best.number} of {len(result.trials)}: {result.metric} {best.value:.4f} on "
        "validation texts"
    )
    trials = [asdict(trial) for trial in result.trials]
    content = {
        "metric": result.metric,
        "higher_is_better": result.higher_is_better,
        "best": best.number,
        "settings": setup.identity,
        "trials": trials,
    }
    table = io.StringIO()
    head = ["number", "state", "value", *best.weights, "learning_rate", *best.values]
    writer = csv.DictWriter(table, [*head, "seconds", "error"], extrasaction="ignore")
    writer.writeheader()
    writer.writerows({**trial, **trial["weights"], **trial["values"]} for trial in trials)
    files = {
        BEST: config_text(best_config(setup, best), comment=comment),
        JSON: json.dumps(content, indent=2, allow_nan=False) + "\n",
        TABLE: table.getvalue(),
    }
    for name, text in files.items():
        write_file(out / name, text.encode())


def _line(trial: Trial, n_trials: int) -> str:
    value = "none" if trial.value is None else f"{trial.value:.4f}"
    state = {"complete": "", "pruned": " (pruned)", "failed": f" (failed: {trial.error})"}
    weights = ", ".join(f"{_short(name)} {w:.2f}" for name, w in trial.weights.items())
    return (
        f"Trial {trial.number + 1}/{n_trials}: {value}{state[trial.state]}; {weights}, learning "
        f"rate {trial.learning_rate:.1e}; {trial.seconds:.0f} s"
    )


def _short(name: str) -> str:
    return name.removesuffix("_weight")


def _show(result: SearchResult) -> None:
    from captum_aml.visualization import Table

    best = result.best
    states = [trial.state for trial in result.trials]
    counts = ", ".join(f"{states.count(s)} {s}" for s in ("complete", "pruned", "failed"))
    arrow = "↑" if result.higher_is_better else "↓"
    # Of a single metric these are the trials' values.
    metrics = list(best.values) if len(best.values) > 1 else []
    rows = [
        (
            str(trial.number),
            f"{trial.value:.4f}",
            *(f"{weight:.2f}" for weight in trial.weights.values()),
            f"{trial.learning_rate:.1e}",
            *(f"{trial.values[name]:.4f}" for name in metrics),
        )
        for trial in result.ranked[:_SHOWN]
    ]
    columns = ("trial", "value", *map(_short, best.weights), "rate", *metrics)
    show_table(Table(f"{result.metric} {arrow}; {counts}", columns, rows))
