"""A benchmark from start to report, in a folder that it can go on from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tqdm.auto import tqdm

from captum_aml._utils.optional import require
from captum_aml.benchmark.explain import (
    FittedMasker,
    MethodRun,
    explain_run,
    load_masker,
    plan_runs,
)
from captum_aml.benchmark.plan import Plan, data_fingerprint, label_indices
from captum_aml.benchmark.provenance import environment, text_notes
from captum_aml.benchmark.report import write_report
from captum_aml.benchmark.report.serialization import write_scores_parquet
from captum_aml.benchmark.results import BenchmarkResults, MethodRow, Role
from captum_aml.benchmark.score import RunKey, Scored, Scorer
from captum_aml.benchmark.settings import BenchmarkSettings
from captum_aml.benchmark.store import JSON, BenchmarkFolder, MethodFile
from captum_aml.benchmark.summary import Collected, findings
from captum_aml.exceptions import InvalidInputError
from captum_aml.methods import TokenMethod, score_meaning
from captum_aml.metrics import Removal
from captum_aml.text import TextModel
from captum_aml.text.data import LabelledText
from captum_aml.text.saved import check_masker, model_fingerprint

_ROLES: Mapping[str, Role] = {"learned": "learned", "random": "random"}


def run_benchmark(
    text_model: TextModel,
    texts: Sequence[LabelledText],
    out: str | os.PathLike[str],
    settings: BenchmarkSettings | None = None,
    *,
    model_name: str = "model",
    data_name: str = "data",
    overwrite: bool = False,
    show_progress: bool = False,
) -> BenchmarkResults:
    """Explains texts with every method, scores the explanations, and writes a report.

    Everything goes to the folder as it comes. A run that was interrupted goes on where it stopped
    when it is called again, and a finished one can be scored with other metrics, or joined by other
    methods and seeds, without explaining again. Memory does not grow with the number of texts but
    for a number per text, method and metric.

    Args:
        text_model: The model to explain.
        texts: The texts.
        out: The folder. It gets ``report.html``, ``report.md``, ``results.json``,
            ``scores.parquet``, and what is needed to go on.
        settings: What is compared and how. Default: None, everything as usual.
        model_name: What the report calls the model. Default: "model".
        data_name: What the report calls the data. Default: "data".
        overwrite: Whether to start anew in a folder that holds another run. Default: False.
        show_progress: Whether to show progress bars with the time left. Default: False.

    Raises:
        InvalidInputError: A setting is wrong, or the folder holds another run.
        CheckpointError: A masker is damaged, or of another model.
        ImportError: A method or metric needs a package that is not installed.
        OSError: The disk is full; what was reported done is kept.
    """
    settings = settings or BenchmarkSettings()
    if not texts:
        raise InvalidInputError("texts: expected one or more, got none")
    scorer = Scorer.of(text_model, texts, settings)
    plausibility = any(entry.metric.group == "plausibility" for entry in scorer.metrics)
    if plausibility and not any(item.rationale for item in texts):
        raise InvalidInputError(
            "metrics: expected human rationales in the data for those of plausibility, got none"
        )
    _require_packages(plausibility=plausibility)
    maskers = _maskers(settings.maskers, text_model)
    runs, notes = plan_runs(
        settings.methods, seeds=settings.seeds, maskers=maskers, n_steps=settings.n_steps
    )
    plan = scorer.plan
    fingerprints = {"model": model_fingerprint(text_model), "data": data_fingerprint(texts)}
    identity: dict[str, JSON] = {
        **fingerprints,
        "n_texts": len(texts),
        "baseline_token": text_model.baseline.token,
        "environment": environment(text_model),
    }
    with BenchmarkFolder.open(out, identity, overwrite=overwrite) as folder:
        # All are made before the first one runs: a missing package should not cost an hour.
        ready, missing = _created(runs, text_model, settings)
        notes += missing
        files = {
            RunKey(run.name, run.seed): folder.method_file(
                run.name, run.seed, run.settings(method), plan.digest, plan.batch_sizes
            )
            for run, method in ready
        }
        for number, (run, method) in enumerate(ready, start=1):
            file = files[RunKey(run.name, run.seed)]
            with tqdm(
                total=len(texts),
                initial=file.done,
                desc=f"{run.name} ({number}/{len(ready)})",
                unit="text",
                disable=not show_progress,
            ) as bar:
                explain_run(run, method, text_model, plan, file, on_batch=bar.update)
        facts: dict[str, MethodRow] = {}
        for run, method in ready:
            role, training = _ROLES.get(run.spec.family, "baseline"), _training(run.masker)
            known = MethodRow(run.name, role, settings=run.settings(method), training=training)
            facts.setdefault(run.name, known)  # that of the first seed
        collected = Collected(range(min(settings.n_examples, len(texts))))
        scored = _score(folder, scorer, files, collected, show_progress=show_progress)
        results = findings(
            scorer,
            scored,
            collected,
            facts,
            {run.name: score_meaning(method, run.spec) for run, method in ready},
            settings,
            model=model_name,
            data=data_name,
        )
        results = replace(
            results,
            settings={**results.settings, **environment(text_model)},
            fingerprints={
                **fingerprints,
                **{f"masker {m.method}": m.digest for m in maskers.values()},
            },
            notes=[*notes, *text_notes(scorer)],
        )
        write_report(folder.path, results)
        write_scores_parquet(folder.path / "scores.parquet", _table(plan, texts, text_model, files))
    return results


def _require_packages(*, plausibility: bool) -> None:
    """Checks for the packages needed at the end, so that a missing one is reported at once.

    Raises:
        ImportError: A package is missing.
    """
    needed = {"scipy": "scipy", "matplotlib": "matplotlib", "pyarrow": "pyarrow"}
    if plausibility:
        needed["sklearn"] = "scikit-learn"
    for module, package in needed.items():
        require(module, package=package, feature="the benchmark", extra="benchmark")


def _created(
    runs: Sequence[MethodRun], text_model: TextModel, settings: BenchmarkSettings
) -> tuple[list[tuple[MethodRun, TokenMethod]], list[str]]:
    """The methods, and sentences about those left out for want of a package.

    Raises:
        ImportError: A method that was asked for by its name needs a package that is not there.
    """
    ready: list[tuple[MethodRun, TokenMethod]] = []
    notes: dict[str, str] = {}
    for run in runs:
        try:
            ready.append((run, run.create(text_model, batch_size=settings.batch_size)))
        except ImportError as error:
            if settings.methods is not None:
                raise
            notes[run.name] = f"Left out: {run.name}. {' '.join(str(error).split())}"
    return ready, list(notes.values())


def _score(
    folder: BenchmarkFolder,
    scorer: Scorer,
    files: Mapping[RunKey, MethodFile],
    collected: Collected,
    *,
    show_progress: bool,
) -> Scored:
    settings = {
        "convention": repr(scorer.convention),
        "metrics": [entry.metric.name for entry in scorer.metrics],
        "search": repr(scorer.search),
    }
    digest = hashlib.sha256(repr(settings).encode()).hexdigest()[:12]

    def values_file(key: RunKey) -> MethodFile:
        explained = files[key].digest()
        # Explanations that were made anew have values of their own.
        return folder.values_file(
            f"{key.method}-{key.seed}-{digest}-{explained[:12]}",
            {**settings, "explanations": explained},
            scorer.plan.digest,
            [1] * len(scorer.window_sizes),
        )

    def limits_file(removal: Removal) -> MethodFile:
        search = f"{scorer.search.beam_size}-{scorer.search.max_tokens}"
        return folder.values_file(
            f"limits-{removal.name}-{search}",
            {"removal": removal.name, "search": repr(scorer.search)},
            scorer.plan.digest,
            [1] * len(scorer.window_sizes),
        )

    with scorer.bar(len(files), show=show_progress) as bar:
        return scorer.score(
            files,
            values_file=values_file,
            limits_file=limits_file,
            on_record=collected.add,
            on_window=bar.update,
        )


def _maskers(
    folders: Iterable[str | os.PathLike[str]], text_model: TextModel
) -> dict[str, FittedMasker]:
    maskers: dict[str, FittedMasker] = {}
    for folder in folders:
        masker = load_masker(folder)
        check_masker(text_model, folder)
        if masker.method in maskers:
            raise InvalidInputError(
                f"masker: expected one for each method, got two for {masker.method!r}: "
                f"{maskers[masker.method].folder} and {masker.folder}"
            )
        maskers[masker.method] = masker
    return maskers


def _training(masker: FittedMasker | None) -> str:
    if masker is None:
        return ""
    if masker.training is None:
        return "not recorded"
    cost = masker.training
    return f"{cost.n_examples:,} texts, {cost.epochs} epochs, {cost.seconds:,.0f} s"


def _table(
    plan: Plan,
    texts: Sequence[LabelledText],
    text_model: TextModel,
    files: Mapping[RunKey, MethodFile],
) -> Iterator[dict[str, Any]]:
    """A row for each method, seed and text, for ``scores.parquet``."""
    labels = label_indices(texts, text_model.label_names)
    for key, file in files.items():
        for place, record in enumerate(file):
            index = record["index"]
            text = plan.texts[place]
            maskable = [i for i, own in enumerate(text.maskable) if own]
            yield {
                "method": key.method,
                "seed": key.seed,
                "id": texts[index].id,
                "text": text.text,
                "label": labels[index],
                "tokens": [text.tokens[i] for i in maskable],
                "offsets": [list(text.offsets[i]) for i in maskable],
                "target": record.get("predicted"),
                "target_probability": record.get("probability"),
                **record,
            }
