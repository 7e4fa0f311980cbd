"""Fits a masker over a data set: AdamW on the mean objective, with linear decay."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from captum_aml.exceptions import InvalidInputError, NonFiniteError
from captum_aml.maskers import as_masker
from captum_aml.masking import GradientWatch, MaskingProblem
from captum_aml.objectives import Objective, Terms
from captum_aml.tuning import check_learning_rate
from captum_aml.typing import Batch, Batches

#: Gradients are clipped to this norm: one batch with a saturated mask would undo an epoch's work.
MAX_GRADIENT_NORM = 1.0

BuildProblem = Callable[[Batch], MaskingProblem]


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of fitting.

    Attributes:
        epoch: Its number, from 1.
        train: Means over the training examples of the total and of each term, before the updates
            that each batch led to.
        validation: The same over the validation examples after the epoch, or None.
        learning_rate: The learning rate at the end of the epoch.
        n_examples: The number of training examples.
    """

    epoch: int
    train: Mapping[str, float]
    validation: Mapping[str, float] | None
    learning_rate: float
    n_examples: int


class _Means:
    """Means of terms over examples."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self.count = 0

    def add(self, terms: Terms) -> None:
        for name, value in (("total", terms.total), *terms.parts.items()):
            self._sums[name] = self._sums.get(name, 0.0) + float(value.sum())
        self.count += len(terms.total)

    def result(self) -> dict[str, float]:
        return {name: value / max(1, self.count) for name, value in self._sums.items()}


def fit_masker(
    masker: nn.Module,
    build: BuildProblem,
    objective: Objective,
    train_batches: Batches,
    val_batches: Batches | None,
    *,
    epochs: int,
    learning_rate: float,
    weight_decay: float,
    show_progress: bool,
) -> list[EpochRecord]:
    """Trains a masker in place so that its proposals minimize an objective.

    With validation batches, the weights of the epoch with the lowest validation loss are kept.

    Args:
        masker: The network to train; parameters that need no gradient stay as they are.
        build: Turns a batch into a masking problem.
        objective: The loss, averaged over the examples of a batch.
        train_batches: Training batches, iterated once for each epoch.
        val_batches: Validation batches, or None.
        epochs: The number of epochs.
        learning_rate: AdamW's learning rate at the first step; it falls linearly to zero.
        weight_decay: AdamW's weight decay.
        show_progress: Whether to show a progress bar.

    Returns:
        A record of each epoch.

    Raises:
        InvalidInputError: There is no training batch, or the batches can be read only once.
        NonFiniteError: The loss is NaN or infinite; the message names the step.
    """
    check_learning_rate(learning_rate)
    train_batches = reusable("train_batches", train_batches, epochs)
    if val_batches is not None:
        val_batches = reusable("val_batches", val_batches, epochs)
    n_batches = _count(train_batches)
    if n_batches == 0:
        raise InvalidInputError("train_batches: expected at least one batch, got none")
    parameters = [p for p in masker.parameters() if p.requires_grad]
    if not parameters:
        raise InvalidInputError("masker: expected parameters that need a gradient, got none")
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay)
    n_steps = epochs * n_batches
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: max(0.0, 1 - step / n_steps)
    )
    history: list[EpochRecord] = []
    best: tuple[float, dict[str, Tensor]] = (math.inf, {})
    watch: GradientWatch | None = GradientWatch()
    step = 0
    with tqdm(total=n_steps, desc="Fitting", unit="batch", disable=not show_progress) as bar:
        for epoch in range(1, epochs + 1):
            masker.train()
            means = _Means()
            for problem in _problems(train_batches, build, masker):
                terms = _train_step(masker, problem, objective, optimizer, parameters, watch, step)
                step += 1
                watch = None
                schedule.step()
                means.add(terms)
                bar.update()
                bar.set_postfix(epoch=epoch, loss=f"{means.result()['total']:.4f}", refresh=False)
            validation = None
            if val_batches is not None:
                validation = evaluate_masker(masker, build, objective, val_batches)
                if validation["total"] < best[0]:
                    best = (validation["total"], copy.deepcopy(masker.state_dict()))
            rate = float(schedule.get_last_lr()[0])
            history.append(EpochRecord(epoch, means.result(), validation, rate, means.count))
    if best[1]:
        masker.load_state_dict(best[1])
    masker.eval()
    return history


@torch.no_grad()
def evaluate_masker(
    masker: nn.Module, build: BuildProblem, objective: Objective, batches: Batches
) -> dict[str, float]:
    """Means over examples of the objective and its terms for a masker's own proposals.

    Raises:
        InvalidInputError: There is no batch.
    """
    masker.eval()
    means = _Means()
    for problem in _problems(batches, build, masker):
        mask = torch.sigmoid(problem.propose(as_masker(masker)))
        means.add(problem.evaluate(mask, objective, where="validation"))
    if not means.result():
        raise InvalidInputError("val_batches: expected at least one batch, got none")
    return means.result()


def _train_step(
    masker: nn.Module,
    problem: MaskingProblem,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    parameters: list[nn.Parameter],
    watch: GradientWatch | None,
    step: int,
) -> Terms:
    with torch.enable_grad():
        mask = torch.sigmoid(problem.propose(as_masker(masker)))
        terms = problem.evaluate(mask, objective, where=f"training step {step}", watch=watch)
        loss = terms.total.mean()
        if not bool(torch.isfinite(loss)):
            raise NonFiniteError(
                f"objective: expected a finite loss, got {loss.item()} at training step {step}; "
                "try a lower learning_rate"
            )
        # Only the masker's own gradients are computed: those of the explained model stay as they
        # are, whatever its parameters ask for.
        gradients: tuple[Tensor | None, ...] = (None,) * len(parameters)
        if loss.requires_grad:
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    if watch is not None:
        watch.check()
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    torch.nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT_NORM)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return terms.detach()


def _problems(batches: Batches, build: BuildProblem, masker: nn.Module) -> Iterator[MaskingProblem]:
    for batch in batches:
        problem = build(batch)
        # The masker follows the data to its device.
        masker.to(problem.capture.features[0].device)
        yield problem


def reusable(name: str, batches: Any, epochs: int) -> Batches:
    """Checks that batches can be read once for each epoch.

    Args:
        name: The argument's name.
        batches: Whatever the caller gave.
        epochs: How often it is to be read.

    Returns:
        The batches, those of an iterator as a list.

    Raises:
        InvalidInputError: They are no iterable of batches, or an iterator for several epochs.
    """
    if isinstance(batches, Tensor | Mapping) or not hasattr(batches, "__iter__"):
        raise InvalidInputError(
            f"{name}: expected an iterable of batches such as a DataLoader or a list, "
            f"got {type(batches).__name__}"
        )
    if isinstance(batches, Iterator):
        if epochs > 1:
            raise InvalidInputError(
                f"{name}: expected an iterable that can be read once for each epoch, got an "
                f"iterator ({type(batches).__name__}); pass a list or a DataLoader"
            )
        return list(batches)
    checked: Batches = batches
    return checked


def _count(batches: Batches) -> int:
    if isinstance(batches, Sized):
        try:
            return len(batches)
        except TypeError:  # a DataLoader over a stream has the method, but no answer
            pass
    return sum(1 for _ in batches)


__all__ = ["EpochRecord", "evaluate_masker", "fit_masker", "reusable"]
