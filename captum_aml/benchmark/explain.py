"""Explanations of a benchmark: every method explains every text, and its cost is measured."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from captum_aml import methods
from captum_aml.benchmark.plan import Plan, ranges
from captum_aml.benchmark.results import Cost
from captum_aml.benchmark.store import JSON, MethodFile
from captum_aml.exceptions import InvalidInputError
from captum_aml.maskers.base import explained_layers_of
from captum_aml.maskers.checkpoint import Checkpoint, TrainingCost
from captum_aml.methods import MethodSpec, Setting, TokenMethod
from captum_aml.text import TextModel, TokenizedText

_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_RESET_PEAK = "5"
_MIB = 2**20


@contextmanager
def metered(networks: Iterable[nn.Module], device: torch.device) -> Iterator[Cost]:
    """Measures a block; the cost is complete once the block has ended.

    An example that goes through two of the networks counts twice.

    Args:
        networks: The explained model, and a masker where there is one.
        device: Where they are: memory is CUDA's there, else the process's.
    """
    meter = Cost()

    def count(_: nn.Module, __: Any, output: Any) -> None:  # whatever a network returns
        # Maskers may give a tuple, a tensor for each input that is masked.
        first = output[0] if isinstance(output, tuple) and output else output
        tensor = first if isinstance(first, Tensor) else getattr(first, "logits", None)
        if not isinstance(tensor, Tensor) or tensor.dim() == 0:
            return
        size = tensor.shape[0]
        meter.forward_passes += size
        if tensor.requires_grad:

            def count_back(_: Tensor) -> None:
                meter.backward_passes += size

            tensor.register_hook(count_back)

    handles = [network.register_forward_hook(count) for network in networks]
    before = _reset_peak(device)
    start = time.perf_counter()
    try:
        yield meter
    finally:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        meter.seconds = time.perf_counter() - start
        peak = _peak(device)
        if before is not None and peak is not None:
            meter.peak_memory_mib = max(0.0, (peak - before) / _MIB)
        for handle in handles:
            handle.remove()


def _reset_peak(device: torch.device) -> int | None:
    """Forgets the peak so far; returns the bytes in use, or None where nobody counts them."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        return int(torch.cuda.memory_allocated(device))
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK)
    except OSError:
        return None
    return _status_bytes("VmRSS")


def _peak(device: torch.device) -> int | None:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return _status_bytes("VmHWM")


def _status_bytes(field: str) -> int | None:
    """A figure of the process, as Linux reports it."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return None


#: What one method said about one text, with one seed, as it lies on disk.
Record: TypeAlias = Mapping[str, JSON]

_LONGEST_MESSAGE = 500


@dataclass(frozen=True)
class MethodRun:
    """One method with one seed.

    Attributes:
        spec: The method's entry in the registry.
        seed: The seed.
        n_steps: Steps or samples; None for the method's own number.
        masker: A fitted masker, for methods that use one.
    """

    spec: MethodSpec
    seed: int
    n_steps: int | None = None
    masker: FittedMasker | None = None

    @property
    def name(self) -> str:
        """The method's name."""
        return self.spec.name

    def create(self, text_model: TextModel, *, batch_size: int) -> TokenMethod:
        """The method, ready to explain."""
        return methods.create(
            self.name,
            text_model,
            text_model.embedding_layer,
            n_steps=self.n_steps,
            seed=self.seed,
            batch_size=batch_size,
            masker=None if self.masker is None else self.masker.folder,
        )

    def settings(self, method: TokenMethod) -> dict[str, Setting]:
        """Settings that decide the scores: the masker by its weights, not by its path."""
        settings = dict(method.settings)
        if self.masker is not None:
            settings["masker"] = self.masker.digest
        return settings


@dataclass(frozen=True)
class FittedMasker:
    """A fitted masker on disk.

    Attributes:
        folder: Where it lies.
        method: What it was fitted for, ``aml`` or ``la``.
        digest: Of its weights.
        training: What fitting took, where it is known.
    """

    folder: str
    method: str
    digest: str
    training: TrainingCost | None


def load_masker(folder: str | os.PathLike[str]) -> FittedMasker:
    """Label, kind and digest of a masker, from its folder.

    Raises:
        CheckpointError: It is no masker, or damaged.
    """
    checkpoint = Checkpoint.load(folder)
    return FittedMasker(
        os.fspath(folder), checkpoint.method, checkpoint.digest, checkpoint.training
    )


def plan_runs(
    names: Sequence[str] | None,
    *,
    seeds: Sequence[int],
    maskers: Mapping[str, FittedMasker],
    n_steps: Mapping[str, int],
) -> tuple[list[MethodRun], list[str]]:
    """The runs that a benchmark consists of.

    ``random`` and ``occlusion`` (leave one out) always take part. A method that draws nothing at
    random runs once.

    Args:
        names: Methods; None for all that can run.
        seeds: Seeds for methods that draw at random.
        maskers: Fitted maskers by the method that they are for, ``aml`` or ``la``.
        n_steps: Steps or samples by method.

    Returns:
        The runs, and sentences about methods that were left out.

    Raises:
        InvalidInputError: A name is unknown, given twice, needs a masker that is not there, or
            ``n_steps`` names a method that does not take part.
    """
    chosen = [methods.spec(name) for name in (methods.available() if names is None else names)]
    if len({entry.name for entry in chosen}) != len(chosen):
        raise InvalidInputError(f"methods: expected each once, got {', '.join(names or ())}")
    for always in ("random", "occlusion"):
        if always not in {entry.name for entry in chosen}:
            chosen.append(methods.spec(always))
    steps = {methods.spec(name).name: number for name, number in n_steps.items()}
    unused = sorted(set(steps) - {entry.name for entry in chosen})
    if unused:
        raise InvalidInputError(f"steps: {', '.join(unused)} take no part in this benchmark")
    runs: list[MethodRun] = []
    notes: list[str] = []
    for entry in chosen:
        masker = maskers.get(entry.name.split("-")[0]) if entry.takes_masker else None
        if entry.takes_masker and masker is None:
            missing = f"{entry.name} needs a fitted masker, and none was given"
            if names is not None:
                raise InvalidInputError(f"masker: {missing}; name its folder")
            notes.append(f"Left out: {missing}.")
            continue
        runs.extend(
            MethodRun(entry, seed, steps.get(entry.name), masker)
            for seed in (seeds if entry.stochastic else seeds[:1])
        )
    return runs, notes


def explain_run(
    run: MethodRun,
    method: TokenMethod,
    text_model: TextModel,
    plan: Plan,
    file: MethodFile,
    *,
    on_batch: Callable[[int], None] = lambda _: None,
) -> None:
    """Explains what a run has not explained yet, a batch at a time, and writes it down.

    Where a batch fails, its texts are tried one by one; those that fail alone are recorded with
    their error.

    Args:
        run: The run.
        method: Its method.
        text_model: The explained model.
        plan: The texts.
        file: Where the records go.
        on_batch: Called with the number of texts after every batch.
    """
    for places in ranges(plan.batch_sizes):
        if places.stop <= file.done:
            continue
        texts = [plan.texts[i] for i in places]
        indices = [plan.indices[i] for i in places]
        try:
            records = _explain_batch(method, text_model, texts, indices)
        except Exception:  # whatever a method, or a user's own one, may raise
            records = list(_one_by_one(method, text_model, texts, indices))
        file.append(records)
        on_batch(len(texts))


def _one_by_one(
    method: TokenMethod,
    text_model: TextModel,
    texts: Sequence[TokenizedText],
    indices: Sequence[int],
) -> Iterator[Record]:
    for text, index in zip(texts, indices, strict=True):
        try:
            yield from _explain_batch(method, text_model, [text], [index])
        except Exception as error:  # as above: the failure is the result
            message = f"{type(error).__name__}: {' '.join(str(error).split())}"
            yield {"index": index, "error": message[:_LONGEST_MESSAGE]}


def _explain_batch(
    method: TokenMethod,
    text_model: TextModel,
    texts: Sequence[TokenizedText],
    indices: Sequence[int],
) -> list[Record]:
    batch = text_model.collate(texts)
    baselines = text_model.baselines(batch)
    with text_model.evaluating():
        with torch.no_grad():
            logits = text_model(batch.input_ids, *batch.forward_args)
        probabilities = logits.float().softmax(dim=-1)
        explained = probabilities.argmax(dim=-1)
        with metered(_networks(method, text_model), text_model.device) as meter:
            scores = method(
                batch.input_ids,
                baselines,
                target=explained,
                additional_forward_args=batch.forward_args,
            )
    _check_scores(scores, batch.input_ids)
    cost = asdict(meter.shared(len(texts)))
    scores = scores.to(batch.maskable.device)
    records: list[Record] = []
    for row, (text, index) in enumerate(zip(texts, indices, strict=True)):
        values = scores[row][batch.maskable[row]].double().cpu().tolist()
        predicted = int(explained[row])
        records.append(
            {
                "index": index,
                "scores": values,
                "predicted": predicted,
                "probability": float(probabilities[row, predicted]),
                "n_tokens_cut": text.n_tokens_cut,
                **cost,
            }
        )
    return records


def _check_scores(scores: Any, ids: Tensor) -> None:  # whatever a user's method returns
    if not isinstance(scores, Tensor) or scores.shape != ids.shape:
        came = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise InvalidInputError(f"scores: expected shape {tuple(ids.shape)}, got {came}")
    if not bool(torch.isfinite(scores).all()):
        raise InvalidInputError("scores: expected finite numbers, got NaN or an infinite one")


def _networks(method: TokenMethod, text_model: TextModel) -> list[nn.Module]:
    """The explained model, and a fitted masker, whose passes cost as well.

    A masker that reads the explained model's hidden states is a small head, not a network of its
    own: it counts in seconds only.
    """
    attribution = getattr(method, "attribution", None)
    masker = getattr(attribution, "masker_", None)
    # One that is fitted may also have been given as a module.
    if masker is None and getattr(attribution, "is_fitted", False):
        masker = getattr(attribution, "masker", None)
    if not isinstance(masker, nn.Module) or explained_layers_of(masker) is not None:
        return [text_model.model]
    return [text_model.model, masker]
