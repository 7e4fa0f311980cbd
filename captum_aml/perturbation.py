r"""Perturbations: operators that apply a mask to the model's input.

A perturbation takes the share :math:`m` in [0, 1] that each token keeps and gives the perturbed
state of the forward pass. The published one blends with the baseline,

.. math:: x[m] = m \odot e + (1 - m) \odot b,

and is a function of the mask alone, so that the complement :math:`x[1 - m]` is the same strategy
applied to :math:`1 - m`. Tokens that are not maskable arrive here with :math:`m = 1` in both.

The other one leaves the embeddings as they are and removes a token from what the others see: with
:math:`a_{ij}` a layer's attention logit of query :math:`i` for key :math:`j`,

.. math:: a_{ij}[m] = a_{ij} + \log m_j,

so that a token with :math:`m_j = 0` is hidden as padding is. It needs a model that takes an
additive attention mask, as those of Hugging Face do. Both can be applied at once.

Source: Barkan et al., Findings of EMNLP 2024, for blending of embeddings. Removal through attention
is not the papers'.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from captum_aml.exceptions import InvalidInputError


@dataclass(frozen=True)
class ForwardState:
    """The state of a forward pass over N rows that a perturbation may change.

    Attributes:
        features: The tensors that are masked, each (N, ...).
        baselines: Their baselines, of the same shapes.
        args: The forward function's further arguments.
        attention_mask: Which of them is the attention mask (N, L); None where there is none.
    """

    features: tuple[Tensor, ...]
    baselines: tuple[Tensor, ...]
    args: tuple[Any, ...]
    attention_mask: int | None = None


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
        return replace(state, features=blended)


@dataclass(frozen=True)
class AttentionRemoval:
    """Hides tokens from attention: adds ``log m`` to every query's attention logit for their key.

    The forward function gets an additive mask (N, 1, Q, L) in place of its attention mask (N, L),
    where Q is 1, or L with ``causal``. What is not maskable gets 0, padding the lowest number.

    Attributes:
        causal: Whether no query sees what comes after it, as in decoders: their own causal mask is
            replaced by ours.
        floor: Masks are not taken below it, so that a logarithm stays finite: a token at 1e-6 has
            a millionth of its attention left.
        argument: Which of the forward function's further arguments is the attention mask. None for
            the one that is called so.
    """

    causal: bool = False
    floor: float = 1e-6
    argument: int | None = None

    @property
    def name(self) -> str:
        """``attention``, or ``causal-attention``."""
        return "causal-attention" if self.causal else "attention"

    def __call__(self, state: ForwardState, keep: tuple[Tensor, ...]) -> ForwardState:
        """Applies the equation above; features stay as they are.

        Raises:
            InvalidInputError: The forward function got no attention mask, or the masked tensor is
                not one value per position of it.
        """
        index = state.attention_mask if self.argument is None else self.argument
        if index is None:
            raise InvalidInputError(
                f"perturbation: {self.name!r} needs a forward function with an argument "
                "`attention_mask` that is given as a tensor (N, L) among additional_forward_args; "
                "got none. Use 'blend' for other models"
            )
        mask = state.args[index]
        if len(keep) != 1 or keep[0].shape[:2] != mask.shape or keep[0].numel() != mask.numel():
            shapes = [tuple(part.shape) for part in keep]
            raise InvalidInputError(
                f"perturbation: {self.name!r} needs one mask value per position of the attention "
                f"mask {tuple(mask.shape)}, got {shapes}"
            )
        dtype = state.features[0].dtype
        lowest = torch.finfo(dtype).min
        share = keep[0].reshape(mask.shape).clamp(min=self.floor)
        added = share.log().to(dtype).masked_fill(mask == 0, lowest)[:, None, None, :]
        if self.causal:
            length = mask.shape[1]
            later = torch.ones(length, length, dtype=torch.bool, device=mask.device).triu(1)
            added = added.expand(-1, -1, length, -1).masked_fill(later, lowest)
        args = (*state.args[:index], added, *state.args[index + 1 :])
        return replace(state, args=args)


@dataclass(frozen=True)
class JointRemoval:
    """Blends every token with its baseline and hides it from attention, by the same share.

    Attributes:
        attention: The removal through attention.
        hides: Examples whose tokens are hidden, bool (N,), those of one mask after those of
            another in a pass with several; the others' are blended only. None for all.
    """

    attention: AttentionRemoval
    hides: Tensor | None = field(default=None, compare=False, repr=False)

    @property
    def name(self) -> str:
        """``blend+attention``, or ``blend+causal-attention``."""
        return f"blend+{self.attention.name}"

    def __call__(self, state: ForwardState, keep: tuple[Tensor, ...]) -> ForwardState:
        """Applies both; see :class:`Blend` and :class:`AttentionRemoval`."""
        blended = Blend()(state, keep)
        if self.hides is None:
            return self.attention(blended, keep)
        shown = ~self.hides.to(keep[0].device).repeat(len(keep[0]) // len(self.hides))
        seen = keep[0].masked_fill(shown.view(-1, *[1] * (keep[0].dim() - 1)), 1.0)
        return self.attention(blended, (seen, *keep[1:]))


@dataclass(frozen=True)
class AutomaticRemoval:
    """Decided by the first call: blending, and through attention as well where the model takes it.

    Of an example whose tokens have baselines of several ids nothing is hidden: those are content
    that stands in their place, such as a template's other values, and not a token for nothing.
    The averaged mask gradient tries that out (:mod:`captum_aml.masking.attention`); a masker is
    fitted and tuned through blending, as published.
    """

    name: str = "auto"

    def __call__(self, state: ForwardState, keep: tuple[Tensor, ...]) -> ForwardState:
        """As :class:`Blend`."""
        return Blend()(state, keep)


_ATTENTION = (AttentionRemoval(), AttentionRemoval(causal=True))
_ALL: tuple[Perturbation, ...] = (
    AutomaticRemoval(),
    Blend(),
    *_ATTENTION,
    *(JointRemoval(attention) for attention in _ATTENTION),
)
_BY_NAME = {perturbation.name: perturbation for perturbation in _ALL}


def fitting_removal(perturbation: Perturbation) -> Perturbation:
    """The perturbation that a masker is fitted and tuned through: blending for ``auto``."""
    return Blend() if isinstance(perturbation, AutomaticRemoval) else perturbation


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
