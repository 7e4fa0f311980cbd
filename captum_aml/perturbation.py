r"""How a mask is applied to what the model sees.

A perturbation takes the share :math:`m` in [0, 1] that each token keeps and gives the perturbed
state of the forward pass. The published one blends with the baseline,

.. math:: x[m] = m \odot e + (1 - m) \odot b,

and is a function of the mask alone, so that the complement :math:`x[1 - m]` is the same strategy
applied to :math:`1 - m`. Protected tokens arrive here with :math:`m = 1` in both.

Source: Barkan et al., Findings of EMNLP 2024 (blending of embeddings).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from captum_aml._captum import expand_args
from captum_aml.exceptions import InvalidInputError


@dataclass(frozen=True)
class ForwardState:
    """What a perturbation may change about a forward pass over N rows.

    Attributes:
        features: The tensors that are masked, each (N, ...).
        baselines: Their baselines, of the same shapes.
        args: The forward function's further arguments.
    """

    features: tuple[Tensor, ...]
    baselines: tuple[Tensor, ...]
    args: tuple[Any, ...]

    def repeat(self, times: int) -> ForwardState:
        """The same state with its rows repeated as a whole, for passes that are joined."""
        if times == 1:
            return self
        return ForwardState(
            tuple(torch.cat([f] * times) for f in self.features),
            tuple(torch.cat([b] * times) for b in self.baselines),
            expand_args(self.args, times),
        )


@runtime_checkable
class Perturbation(Protocol):
    """A strategy for removing tokens softly, differentiable in the mask."""

    @property
    def name(self) -> str:
        """The name by which it is recorded."""

    def __call__(self, state: ForwardState, keep: tuple[Tensor, ...]) -> ForwardState:
        """Applies a mask.

        Args:
            state: The unperturbed forward pass.
            keep: For each masked tensor the share it keeps, broadcastable to its shape: 1 is the
                input itself, 0 is the token removed.

        Returns:
            The perturbed forward pass.
        """


@dataclass(frozen=True)
class Blend:
    """Blends every token with its baseline: ``m * e + (1 - m) * b``. For any forward function."""

    name: str = "blend"

    def __call__(self, state: ForwardState, keep: tuple[Tensor, ...]) -> ForwardState:
        """Applies the equation above; features keep their dtype."""
        blended = tuple(
            torch.lerp(b, f, k.to(f.dtype).expand_as(f))
            for f, b, k in zip(state.features, state.baselines, keep, strict=True)
        )
        return ForwardState(blended, state.baselines, state.args)


_BY_NAME: dict[str, Perturbation] = {"blend": Blend()}


def resolve_perturbation(perturbation: str | Perturbation) -> Perturbation:
    """Finds a perturbation by name; an instance is returned as it is.

    Raises:
        InvalidInputError: The name is unknown.
    """
    if isinstance(perturbation, str):
        if perturbation not in _BY_NAME:
            raise InvalidInputError(
                f"perturbation: expected one of {sorted(_BY_NAME)} or an instance, "
                f"got {perturbation!r}"
            )
        return _BY_NAME[perturbation]
    # A class has the members too, but it is an instance that is called.
    if isinstance(perturbation, type) or not isinstance(perturbation, Perturbation):
        raise InvalidInputError(
            "perturbation: expected a name or an object with `name` and `__call__(state, keep)`, "
            f"got {getattr(perturbation, '__name__', type(perturbation).__name__)}"
        )
    return perturbation


__all__ = ["Blend", "ForwardState", "Perturbation", "resolve_perturbation"]
