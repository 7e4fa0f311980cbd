"""The commands ``fit`` and ``search``; ``captum_aml.cli.main`` runs them."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from captum_aml.cli.benchmark import Baseline, Labels, Template

if TYPE_CHECKING:
    from captum_aml.cli.config import FitConfig
    from captum_aml.training import FitSummary

# Options are None where they are not given, so that the file's values count.
Model = Annotated[
    str | None,
    typer.Option(
        help="A sequence-classification model, or a language model with --template: a local folder "
        "or a hub id. Required."
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        help="Training texts: a .jsonl, .csv, .tsv, .parquet or .txt file, or a data set of the "
        "hub. Required."
    ),
]
Split = Annotated[
    str | None,
    typer.Option(help="The split of a data set of the hub.", show_default="train"),
]
Validation = Annotated[
    str | None,
    typer.Option(
        help="Validation texts, in a file or data set of their own.",
        show_default="a tenth of the data is held out",
    ),
]
TextColumn = Annotated[
    str | None, typer.Option(help="The column with the texts.", show_default="text")
]
MaxLength = Annotated[
    int | None,
    typer.Option(help="Cut texts to this many tokens.", show_default="what the model takes", min=1),
]
Config = Annotated[
    Path | None,
    typer.Option(help="A YAML file with options by name, as in 'epochs: 5'; flags win."),
]
MethodName = Annotated[str | None, typer.Option(help="aml or la.", show_default="aml")]
Masker = Annotated[
    str | None,
    typer.Option(
        help="What the masker starts from: transformer (a copy of the model's encoder), shared (a "
        "head on its hidden states), a folder with a fitted masker, or another encoder, "
        "also one with a tokenizer of its own.",
        show_default="transformer for an encoder, shared for a decoder",
    ),
]
PerturbationName = Annotated[
    str | None,
    typer.Option(
        help="How tokens are removed in training: blend, attention or causal-attention.",
        show_default="through attention where the model takes an additive mask, else blend",
    ),
]
SizePenalty = Annotated[
    str | None, typer.Option(help="What the mask's size costs: bce or l1.", show_default="bce")
]
BatchSize = Annotated[
    int | None, typer.Option(help="Texts in a batch.", show_default="8; search: 20", min=1)
]
Preset = Annotated[
    str | None,
    typer.Option(
        help="Convention of the metrics: default, aml, eraser, ferret or naopc.",
        show_default="default",
    ),
]
Seed = Annotated[
    int | None, typer.Option(help="Seed of everything random.", show_default="0", min=0)
]
Device = Annotated[
    str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps, ...", show_default="auto")
]
#: What a search has other defaults for: as published, but for where validation ends an epoch.
SEARCH_DEFAULTS: dict[str, str | int] = {
    "limit": 450,
    "validation_limit": 200,
    "epochs": 2,
    "batch_size": 20,
    "loss": "objective",
}


#: What the commands themselves are told, and what is fitted does not depend on.
_OF_FIT = ("out", "config", "resume", "overwrite")
_OF_SEARCH = (
    "out",
    "metric",
    "trials",
    "storage",
    "config",
    "lowest_rate",
    "highest_rate",
    "prune",
)


def fit(
    model: Model = None,
    data: Data = None,
    out: Annotated[
        Path, typer.Option(help="The masker's folder, which explain and benchmark take.")
    ] = ...,  # type: ignore[assignment]  # typer's sign for a required option
    config: Config = None,
    validation: Validation = None,
    limit: Annotated[
        int | None, typer.Option(help="Take the first N texts.", show_default="all", min=1)
    ] = None,
    validation_limit: Annotated[
        int | None,
        typer.Option(help="Take the first N validation texts.", show_default="200", min=1),
    ] = None,
    split: Split = None,
    text_column: TextColumn = None,
    max_length: MaxLength = None,
    template: Template = None,
    labels: Labels = None,
    baseline: Baseline = None,
    method: MethodName = None,
    masker: Masker = None,
    perturbation: PerturbationName = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="published: the papers' settings, which then cannot be given otherwise: blend, "
            "learning rate 4e-5, batches of 20, 10 epochs with 3 validations each, no clipping.",
            show_default="none",
        ),
    ] = None,
    prediction_weight: Annotated[
        float | None, typer.Option(help="Weight of AML's prediction term.", show_default="1")
    ] = None,
    inverse_weight: Annotated[
        float | None, typer.Option(help="Weight of the inverse term.", show_default="1")
    ] = None,
    size_weight: Annotated[
        float | None, typer.Option(help="Weight of the mask-size term.", show_default="1")
    ] = None,
    size_penalty: SizePenalty = None,
    loss: Annotated[
        str | None,
        typer.Option(
            help="What the masker learns from: objective (as published), or regression (what the "
            "removal of random subsets does).",
            show_default="regression; la: objective",
        ),
    ] = None,
    n_subsets: Annotated[
        int | None,
        typer.Option(help="Subsets of a text for regression.", show_default="16", min=2),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the texts.", show_default="6", min=1)
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            "--learning-rate", "--lr", help="Highest rate.", show_default="1e-4, or 1e-3 for shared"
        ),
    ] = None,
    batch_size: BatchSize = None,
    weight_decay: Annotated[
        float | None, typer.Option(help="AdamW's weight decay.", show_default="0.01")
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="How the rate changes: linear, cosine, cosine_with_restarts, polynomial, "
            "constant, constant_with_warmup or inverse_sqrt.",
            show_default="linear",
        ),
    ] = None,
    warmup_ratio: Annotated[
        float | None,
        typer.Option(help="Share of the steps in which it rises.", show_default="0"),
    ] = None,
    gradient_accumulation_steps: Annotated[
        int | None, typer.Option(help="Batches in a step.", show_default="1", min=1)
    ] = None,
    max_gradient_norm: Annotated[
        float | None, typer.Option(help="Clip gradients to this norm.", show_default="1")
    ] = None,
    validations_per_epoch: Annotated[
        int | None, typer.Option(help="Validations in an epoch.", show_default="1", min=1)
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            help="Stop after this many validations without improvement.",
            show_default="never",
            min=1,
        ),
    ] = None,
    select_by: Annotated[
        str | None,
        typer.Option(
            help="What the best weights are chosen by on the validation texts: loss, a metric of "
            "the benchmark, or several with commas between (their sum, those of which lower is "
            "better subtracted).",
            show_default="loss",
        ),
    ] = None,
    preset: Preset = None,
    mixed_precision: Annotated[
        str | None, typer.Option(help="no, bf16 or fp16.", show_default="no")
    ] = None,
    max_skipped_steps: Annotated[
        int | None,
        typer.Option(
            help="Steps in a row that may be skipped for a loss that is not finite.",
            show_default="10",
            min=0,
        ),
    ] = None,
    save_every: Annotated[
        int | None,
        typer.Option(
            help="Write the run every N steps, too.", show_default="at every validation", min=1
        ),
    ] = None,
    seed: Seed = None,
    device: Device = None,
    tracker: Annotated[
        str | None,
        typer.Option(help="tensorboard, or others of Accelerate, with commas between."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in the folder, if there is one.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Remove the run or masker in the folder.")
    ] = False,
) -> None:
    """Fit a masker to a model on texts of yours, so that an explanation is a single pass.

    Labels are not needed: what is explained is what the model predicts. The folder gets the masker,
    fit.yaml with all settings (to be repeated with --config) and history.json. A run that was
    interrupted goes on with --resume and ends with the same masker. Several processes or GPUs:
    accelerate launch -m captum_aml.cli fit ...
    """
    flags = {k: v for k, v in locals().items() if k not in _OF_FIT}
    from captum_aml.cli.config import FitConfig, config_text, read_config
    from captum_aml.cli.fit_folder import CONFIG, FitFolder, check_free, is_complete
    from captum_aml.exceptions import InvalidInputError

    if resume and overwrite:
        raise InvalidInputError("resume: expected --resume or --overwrite, got both")
    chosen = FitConfig.of({} if config is None else read_config(config), flags, defaults={})
    _require_packages(chosen)
    if _is_main():
        # Before the model is loaded, and once more when nobody else can write.
        check_free(out, resume=resume, overwrite=overwrite)
    elif resume and is_complete(out):
        return
    from captum_aml.cli.fit_setup import prepare

    setup = prepare(chosen, _say)
    text = config_text(
        setup.config.to_dict(), comment="Repeat with: captum-aml fit --config fit.yaml --out FOLDER"
    )
    attribution = setup.attribution(setup.config.objective())
    arguments: dict[str, Any] = {
        **setup.config.settings().arguments(),
        "select_by": "loss" if setup.score is None else setup.score.metric,
        "checkpoint_dir": out / "checkpoint",
        # A folder of another run was refused, or emptied, before.
        "resume": True,
        "save_every": setup.config.save_every,
        "trackers": setup.config.trackers,
    }
    if not _is_main():
        attribution.fit(setup.training, setup.validation, **arguments)
        return
    with FitFolder.open(out, setup.identity, text, resume=resume, overwrite=overwrite) as folder:
        if folder.summary is not None:
            _say("The run is complete already.")
            typer.echo(folder.summary)
            return
        _say(f"Settings: {out / CONFIG}. After an interruption go on with --resume.")
        from captum_aml.cli.fit_progress import FitLines
        from captum_aml.text.saved import write_saved

        lines = FitLines(bar=sys.stderr.isatty())
        try:
            with _told():
                attribution.fit(setup.training, setup.validation, callbacks=(lines,), **arguments)
        except KeyboardInterrupt:
            lines.close()
            _say("Interrupted: the same command goes on with --resume.")
            raise
        attribution.save_pretrained(out)
        write_saved(out, setup.classifier, method=setup.config.method)
        assert attribution.fit_summary_ is not None
        summary = _summary(attribution.fit_summary_, out)
        folder.finish([asdict(record) for record in attribution.history_ or ()], summary)
    typer.echo(summary)


def search(
    model: Model = None,
    data: Data = None,
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
    config: Config = None,
    validation: Validation = None,
    limit: Annotated[
        int | None, typer.Option(help="Training texts of a trial.", show_default="450", min=1)
    ] = None,
    validation_limit: Annotated[
        int | None, typer.Option(help="Validation texts.", show_default="200", min=1)
    ] = None,
    split: Split = None,
    text_column: TextColumn = None,
    max_length: MaxLength = None,
    template: Template = None,
    labels: Labels = None,
    baseline: Baseline = None,
    method: MethodName = None,
    masker: Masker = None,
    perturbation: PerturbationName = None,
    size_penalty: SizePenalty = None,
    epochs: Annotated[
        int | None, typer.Option(help="Epochs of a trial.", show_default="2", min=1)
    ] = None,
    validations_per_epoch: Annotated[
        int | None, typer.Option(help="Validations in an epoch.", show_default="1", min=1)
    ] = None,
    batch_size: BatchSize = None,
    lowest_rate: Annotated[float, typer.Option(help="The lowest learning rate.")] = 1e-5,
    highest_rate: Annotated[float, typer.Option(help="The highest learning rate.")] = 3e-4,
    prune: Annotated[
        bool, typer.Option(help="Stop trials that are worse than the median of the others.")
    ] = True,
    preset: Preset = None,
    seed: Seed = None,
    device: Device = None,
) -> None:
    """Search the weights and the learning rate that a metric likes best ("optimized for a metric").

    Every trial fits a masker for a few epochs; each weight is drawn from 0 to 1. The metric is
    computed on the validation texts alone: what is found is good on them by choice, so report
    figures on other texts. captum-aml fit --config FOLDER/best.yaml --out MASKER then fits on all
    texts.
    """
    flags = {k: v for k, v in locals().items() if k not in _OF_SEARCH}
    from captum_aml._optional import require
    from captum_aml.cli.config import FitConfig, read_config
    from captum_aml.exceptions import InvalidInputError
    from captum_aml.training import SearchSettings

    require("optuna", package="optuna", feature="captum-aml search", extra="train")
    flags["select_by"] = ",".join(metric) if metric else None
    defaults = {**SEARCH_DEFAULTS, "select_by": "aopc-comprehensiveness"}
    chosen = FitConfig.of(_for_search(config, read_config), flags, defaults=defaults)
    if chosen.chosen_loss != "objective":
        raise InvalidInputError(
            "loss: expected 'objective', whose weights are searched, got 'regression', which has "
            "none"
        )
    _require_packages(chosen)
    settings = SearchSettings(
        trials=trials, learning_rates=(lowest_rate, highest_rate), prune=prune, seed=chosen.seed
    )
    from captum_aml.cli.search import run_search

    with _told():
        run_search(chosen, settings, out, storage, _say)


def _for_search(config: Path | None, read: Any) -> Mapping[str, Any]:
    from captum_aml.exceptions import InvalidInputError

    values: dict[str, Any] = {} if config is None else read(config)
    if values.get("recipe") is not None:
        raise InvalidInputError("recipe: a search has none, as it chooses what a recipe fixes")
    return values


def _summary(summary: FitSummary, out: Path) -> str:
    minutes, seconds = divmod(round(summary.seconds), 60)
    best = summary.best
    words = [f"Fitted in {minutes} min {seconds} s"]
    if best is not None:
        from captum_aml.cli.fit_progress import means_text

        words.append(
            f"validation loss {means_text(best.means)} at step {best.step} of {summary.n_steps}"
        )
    if summary.n_skipped_steps:
        words.append(f"{summary.n_skipped_steps} of {summary.n_steps} steps skipped")
    if summary.stopped == "patience":
        words.append("stopped early")
    return f"{'; '.join(words)}. The masker: {out}"


def _require_packages(config: FitConfig) -> None:
    from captum_aml._optional import require

    require("yaml", package="PyYAML", feature="captum-aml fit", extra="train")
    if "tensorboard" in config.trackers:
        require("tensorboard", package="tensorboard", feature="--tracker", extra="train")


@contextmanager
def _told() -> Iterator[None]:
    """Tells warnings in a line, as everything else."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: _say(f"Note: {message}")
        yield


def _is_main() -> bool:
    """Whether this is the only process, or the first of those that a launcher started."""
    return int(os.environ.get("RANK", "0")) == 0


def _say(message: str) -> None:
    if _is_main():
        typer.echo(message, err=True)


__all__ = ["fit", "search"]
