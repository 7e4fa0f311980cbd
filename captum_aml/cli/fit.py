"""The command ``fit``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from captum_aml.cli.config import ConfigFile, FitConfig, config_flags, config_text
from captum_aml.cli.console import (
    duration,
    is_main_process,
    say,
    shows_progress,
    warnings_in_lines,
)
from captum_aml.cli.fit_folder import CHECKPOINT, CONFIG, FitFolder, check_free, run_of
from captum_aml.exceptions import InvalidInputError

if TYPE_CHECKING:
    from captum_aml.training import FitSummary


@config_flags()
def fit(
    options: dict[str, object],
    *,
    out: Annotated[
        Path, typer.Option(help="The masker's folder, which explain and benchmark take.")
    ],
    config: ConfigFile = None,
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
    if resume and overwrite:
        raise InvalidInputError("resume: expected --resume or --overwrite, got both")
    chosen = FitConfig.of(options, config)
    if is_main_process():
        # Before the model is loaded, and once more when nobody else can write.
        check_free(out, resume=resume, overwrite=overwrite)
    elif resume and (run_of(out) or {}).get("complete"):
        return
    from captum_aml.cli.fit_setup import FitLines, prepare

    setup = prepare(chosen)
    text = config_text(
        setup.config.to_dict(), comment="Repeat with: captum-aml fit --config fit.yaml --out FOLDER"
    )
    attribution = setup.attribution(setup.config.objective())
    arguments: dict[str, Any] = {
        **setup.config.settings().arguments(),
        "select_by": "loss" if setup.score is None else setup.score.metric,
        "checkpoint_dir": out / CHECKPOINT,
        # A folder of another run was refused, or emptied, before.
        "resume": True,
        "save_every": setup.config.save_every,
        "trackers": setup.config.trackers,
    }
    if not is_main_process():
        attribution.fit(setup.training, setup.validation, **arguments)
        return
    with FitFolder(out, setup.identity, text, resume=resume, overwrite=overwrite) as folder:
        if folder.summary is not None:
            say("The run is complete already.")
            typer.echo(folder.summary)
            return
        say(f"Settings: {out / CONFIG}. After an interruption go on with --resume.")
        from captum_aml.text.saved import write_saved

        arguments |= {"callbacks": (FitLines(),), "show_progress": shows_progress()}
        try:
            with warnings_in_lines():
                attribution.fit(setup.training, setup.validation, **arguments)
        except KeyboardInterrupt:
            say("Interrupted: the same command goes on with --resume.")
            raise
        attribution.save_pretrained(out)
        write_saved(out, setup.text_model, method=setup.config.method)
        assert attribution.fit_summary_ is not None
        summary = _summary(attribution.fit_summary_, out)
        folder.finish([asdict(record) for record in attribution.history_ or ()], summary)
    typer.echo(summary)


def _summary(summary: FitSummary, out: Path) -> str:
    best = summary.best
    words = [f"Fitted in {duration(summary.seconds)}"]
    if best is not None:
        from captum_aml.cli.fit_setup import means_text

        words.append(
            f"validation loss {means_text(best.means)} at step {best.step} of {summary.n_steps}"
        )
    if summary.n_skipped_steps:
        words.append(f"{summary.n_skipped_steps} of {summary.n_steps} steps skipped")
    if summary.stopped == "patience":
        words.append("stopped early")
    return f"{'; '.join(words)}. The masker: {out}"
