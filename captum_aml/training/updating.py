"""One optimizer step on the masker's weights, from gradients that were summed elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from captum_aml.exceptions import InvalidInputError
from captum_aml.training.settings import FitSettings

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


__all__ = ["Updater", "autocast"]
