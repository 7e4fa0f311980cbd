"""Masker protocol: the inputs and the result of a masker, and how a prediction enters one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from captum_aml._utils.hooks import unwrapped
from captum_aml.exceptions import InvalidInputError
from captum_aml.maskers.hidden import ExplainedLayers

#: The mask logit of a unit that contributes nothing, where logits stand for contributions.
NEUTRAL_LOGIT = -2.0


@dataclass(frozen=True)
class MaskerInputs:
    """The inputs of a masker, from which it proposes a mask for N examples.

    Attributes:
        features: The tensors that are masked: float inputs, embeddings of ids, or a layer's
            tensors, each (N, ...), for example (N, L, D).
        inputs: The forward function's inputs as the caller gave them, for example ids (N, L).
        probabilities: The distribution that the kept tokens should preserve, (N, C): the
            prediction, or the target class where that is another one. Of several independent
            labels the one-hot vector of the explained one; of a target that is held against a foil
            1 at the target and -1 at the foil.
        maskable: For each masked tensor the tokens that take part, bool of the tokens' shape, for
            example (N, L).
        attention_mask: The forward function's argument of that name, (N, L), if it has one.
        token_type_ids: Likewise, (N, L).
        hidden_states: What the masker's ``explained_layers`` held in the pass over the unmasked
            inputs, (N, L, D) each, without gradient; None for a masker without them.
    """

    features: tuple[Tensor, ...]
    inputs: tuple[Tensor, ...]
    probabilities: Tensor
    maskable: tuple[Tensor, ...]
    attention_mask: Tensor | None = None
    token_type_ids: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


@dataclass(frozen=True)
class MaskerWindows:
    """Windows of texts for the network inside a masker.

    Attributes:
        network: That network, a masker.
        inputs: Its inputs for R windows of S tokens.
        examples: The example that each window is a part of, (R,), in ascending order.
    """

    network: nn.Module
    inputs: MaskerInputs
    examples: Tensor


@runtime_checkable
class Masker(Protocol):
    """A network that proposes mask logits; any ``torch.nn.Module`` with this call is one.

    Six optional members are honoured: ``fitted`` (bool; a module without it counts as fitted),
    ``learned_from`` (``objective``, for a module without it, or ``regression``: then its logits are
    contributions), ``contrasts`` (bool, False for a module without it: whether it knows what to say
    when it is told a target and a foil; ``fit`` sets the three),
    ``config`` (a dictionary of JSON values, kept with a saved masker), ``explained_layers`` (an
    :class:`~captum_aml.maskers.ExplainedLayers`: the layers of the explained model whose hidden
    states the masker is given) and ``windows`` (a method that takes the masker's inputs and gives
    :class:`MaskerWindows`, for a masker that runs another one on parts of texts: tuning the masker
    then changes the weights of each window by themselves). A class that is registered
    (:mod:`captum_aml.maskers.registry`) is also saved and rebuilt by its name.
    """

    def __call__(self, inputs: MaskerInputs) -> Tensor | tuple[Tensor, ...]:
        """Proposes a mask.

        Args:
            inputs: What is to be explained.

        Returns:
            One logit for each token, (N, L) for features (N, L, D); a tuple of such tensors where
            several tensors are masked. The mask is their sigmoid.
        """


def as_logits(
    proposal: Tensor | tuple[Tensor, ...], expected: Sequence[Sequence[int]]
) -> tuple[Tensor, ...]:
    """Checks what a masker returned.

    Args:
        proposal: The masker's result.
        expected: The shape of each masked tensor's tokens.

    Raises:
        InvalidInputError: It is not one tensor of logits for each masked tensor, of its tokens'
            shape.
    """
    logits = proposal if isinstance(proposal, tuple) else (proposal,)
    if not all(isinstance(t, Tensor) for t in logits):
        raise InvalidInputError(
            f"masker: expected tensors of logits, got {[type(t).__name__ for t in logits]}"
        )
    shapes = [tuple(t.shape) for t in logits]
    if shapes != [tuple(s) for s in expected]:
        raise InvalidInputError(
            f"masker: expected logits of shapes {[tuple(s) for s in expected]}, one for each "
            f"token, got {shapes}"
        )
    return logits


def explained_layers_of(masker: object) -> ExplainedLayers | None:
    """The layers of the explained model that a masker reads; None where it reads none.

    Raises:
        InvalidInputError: Its ``explained_layers`` is something else.
    """
    layers = getattr(unwrapped(masker), "explained_layers", None)
    if layers is not None and not isinstance(layers, ExplainedLayers):
        raise InvalidInputError(
            "masker: expected captum_aml.maskers.ExplainedLayers as its attribute "
            f"explained_layers, got {type(layers).__name__}"
        )
    return layers


class PredictionEmbedding(nn.Module):
    r"""Embeds a predicted distribution: :math:`e(q) = \sum_c q_c v_c + v_0`.

    One learned vector for each class, weighted by its probability, plus one shared by all. No class
    is a padding class: every one of them learns.

    Args:
        n_classes: The number of classes C.
        embedding_dim: The size D of a vector.

    Source: Barkan et al., Findings of EMNLP 2024.
    """

    def __init__(self, n_classes: int, embedding_dim: int) -> None:
        super().__init__()
        self.classes = nn.Parameter(torch.empty(n_classes, embedding_dim).normal_(std=0.02))
        self.shared = nn.Parameter(torch.empty(embedding_dim).normal_(std=0.02))

    def forward(self, probabilities: Tensor) -> Tensor:
        """Embeds probabilities (N, C) as vectors (N, D).

        Raises:
            InvalidInputError: There is another number of classes.
        """
        if probabilities.shape[1] != self.classes.shape[0]:
            raise InvalidInputError(
                f"masker: it was made for {self.classes.shape[0]} classes, but the explained "
                f"distribution has {probabilities.shape[1]}"
            )
        return probabilities.to(self.classes.dtype) @ self.classes + self.shared
