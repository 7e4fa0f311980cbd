r"""The optimizer of a fit: learning rates, the gradients of a step, and the step itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from captum_aml.exceptions import InvalidInputError, NonFiniteError
from captum_aml.masking.problem import GradientWatch
from captum_aml.training.losses import FitGoal, problem_of
from captum_aml.training.records import Means
from captum_aml.training.settings import FitSettings
from captum_aml.typing import Batch


def needs_length(settings: FitSettings) -> bool:
    """Whether the schedule depends on the number of all steps."""
    if settings.scheduler in ("constant_with_warmup", "inverse_sqrt"):
        return settings.warmup_ratio > 0
    return settings.scheduler != "constant"


def learning_rates(settings: FitSettings, n_steps: int | None) -> Callable[[int], float]:
    """The learning rate as a function of the number of steps done.

    Args:
        settings: The schedule and its highest rate.
        n_steps: All steps; None where the schedule does not need them.
    """
    # Imported here: importing transformers takes seconds.
    from transformers import get_scheduler

    assert n_steps is not None or not needs_length(settings)
    total = n_steps or 0
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=settings.learning_rate)
    schedule = get_scheduler(
        settings.scheduler,
        optimizer,
        num_warmup_steps=math.ceil(total * settings.warmup_ratio),
        num_training_steps=total,
    )
    # They are functions of the step; as such they need no state that a resumed run would restore.
    (factor,) = schedule.lr_lambdas
    return lambda step: settings.learning_rate * float(factor(step))


#: The loss is a sum over examples; from torch's own 65536 the first steps would all overflow.
_FIRST_SCALE = 2.0**10
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(settings: FitSettings, device: torch.device) -> AbstractContextManager[Any]:
    """Mixed precision on the device where the data lies."""
    dtype = _DTYPES.get(settings.mixed_precision)
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


class Updater:
    """AdamW on the masker, with clipping and, for fp16, a scaled loss.

    Args:
        masker: The masker; parameters that need no gradient stay as they are.
        settings: The settings.

    Attributes:
        parameters: What is learned.
        lowered_scale: Whether the last step was left out while fp16's scale of the loss, which is
            lower now, was above 1: then it is the scale that was too high, as far as is known.

    Raises:
        InvalidInputError: There is nothing to learn.
    """

    def __init__(self, masker: nn.Module, settings: FitSettings) -> None:
        self.parameters = [p for p in masker.parameters() if p.requires_grad]
        if not self.parameters:
            raise InvalidInputError("masker: expected parameters that need a gradient, got none")
        self._most = float("inf")
        if settings.max_gradient_norm is not None:
            self._most = settings.max_gradient_norm
        self._optimizer = torch.optim.AdamW(
            self.parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self._half = settings.mixed_precision == "fp16"
        self._scaler: torch.amp.GradScaler | None = None
        self._restored: dict[str, Any] | None = None
        self.lowered_scale = False

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss to differentiate: a multiple of it for fp16."""
        if not self._half:
            return loss
        if self._scaler is None:
            self._scaler = torch.amp.GradScaler(loss.device.type, init_scale=_FIRST_SCALE)
            if self._restored is not None:
                self._scaler.load_state_dict(self._restored)
        scaled: Tensor = self._scaler.scale(loss)
        return scaled

    def step(self, gradients: Sequence[Tensor | None], count: int, rate: float) -> bool:
        """Goes one step.

        Args:
            gradients: For each parameter the gradient of the (scaled) loss summed over examples.
            count: The number of examples.
            rate: The learning rate.

        Returns:
            Whether the gradient was finite; if not, nothing changed but the scale for fp16.
        """
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = None if gradient is None else (gradient / count).to(parameter)
        any_gradient = any(p.grad is not None for p in self.parameters)
        # A process that had no example has not met the scale yet.
        self.scaled(torch.zeros((), device=self.parameters[0].device))
        if self._scaler is not None and any_gradient:
            self._scaler.unscale_(self._optimizer)
        norm = nn.utils.clip_grad_norm_(self.parameters, self._most)
        finite = bool(torch.isfinite(norm))
        if finite:
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            self._follow()
            self._optimizer.step()
        self.lowered_scale = False
        if self._scaler is not None and any_gradient:
            self.lowered_scale = not finite and self._scaler.get_scale() > 1
            self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        return finite

    def tensors(self) -> dict[str, Tensor]:
        """AdamW's state by name."""
        return {
            f"{index}.{name}": value
            for index, parameter in enumerate(self.parameters)
            for name, value in self._optimizer.state.get(parameter, {}).items()
        }

    def scale(self) -> dict[str, Any] | None:
        """The state of the loss scale for fp16, as JSON values."""
        return self._restored if self._scaler is None else self._scaler.state_dict()

    def restore(self, tensors: Mapping[str, Tensor], scale: dict[str, Any] | None) -> None:
        """Takes up what :meth:`tensors` and :meth:`scale` gave."""
        for key, value in tensors.items():
            index, name = key.split(".", 1)
            self._optimizer.state[self.parameters[int(index)]][name] = value
        self._restored = scale

    def _follow(self) -> None:
        """A restored state comes from the CPU; it follows the weights to their device."""
        for parameter, state in self._optimizer.state.items():
            for name, value in state.items():
                if name != "step" and value.device != parameter.device:
                    state[name] = value.to(parameter.device)


@dataclass
class StepResult:
    """The result of one process in a step, before anything is added up.

    Attributes:
        n_batches: Its batches.
        means: Sums of the terms.
        classes: The explained classes.
        error: What was not finite, or None.
    """

    n_batches: int = 0
    means: Means = field(default_factory=Means)
    classes: list[int] = field(default_factory=list)
    error: str | None = None


def step_gradients(
    masker: nn.Module,
    goal: FitGoal,
    settings: FitSettings,
    updater: Updater,
    numbered: Iterable[tuple[int, Batch]],
    *,
    step: int,
    watch: GradientWatch | None,
) -> tuple[StepResult, list[Tensor | None]]:
    """The gradients and losses of one process in one step.

    Args:
        masker: The masker.
        goal: What it is fitted for.
        settings: The settings.
        updater: Has the parameters and the scale of the loss.
        numbered: This process's batches with their numbers in the epoch.
        step: The number of the step.
        watch: Checks that the explained model has a gradient at all, or None.

    Returns:
        Sums of the terms, and for each parameter the gradient of the loss summed over the
        examples. A value that is not finite ends it, and is in the result's ``error``.
    """
    sums: list[Tensor | None] = [None] * len(updater.parameters)
    result = StepResult()
    masker.train()
    for number, batch in numbered:
        result.n_batches += 1
        try:
            problem = problem_of(batch, goal.build, masker, "train_batches", number)
            with torch.enable_grad():
                with autocast(settings, problem.layout.maskable_units.device):
                    logits = problem.propose(masker)
                    terms = goal.terms(problem, logits, where=f"training step {step}", watch=watch)
                gradients = _gradients(terms.total.sum(), updater, step)
        except NonFiniteError as error:
            result.error = str(error)
            break
        if watch is not None:
            watch.check()
        for index, gradient in enumerate(gradients):
            before = sums[index]
            if gradient is not None:
                sums[index] = gradient if before is None else before + gradient
        result.means.add_terms(terms.detach())
        if problem.readout.label is not None:
            result.classes = sorted({*result.classes, *problem.readout.label.tolist()})
    return result, sums


def _gradients(loss: Tensor, updater: Updater, step: int) -> Sequence[Tensor | None]:
    """The masker's own gradients only: those of the explained model stay as they are.

    Raises:
        NonFiniteError: The loss is not finite.
    """
    if not bool(torch.isfinite(loss)):
        raise NonFiniteError(
            f"objective: expected a finite loss, got {loss.item()} at training step {step}"
        )
    if not loss.requires_grad:
        return [None] * len(updater.parameters)
    return torch.autograd.grad(updater.scaled(loss), updater.parameters, allow_unused=True)
