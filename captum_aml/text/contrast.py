r"""Contrast: why one outcome and not another.

What is explained is the difference of two outputs of the model,

.. math:: z_a - z_b,

for classes that exclude each other the logarithm of the odds of the one against the other,
:math:`\log p_a / p_b`.

Source: the fact and the foil of contrastive explanations are those of Lipton, "Contrastive
Explanation" (1990); Jacovi et al., "Contrastive Explanations for Model Interpretability" (EMNLP
2021), and Yin and Neubig, "Interpreting Language Models with Contrastive Explanations" (EMNLP
2022), explain such differences for language models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from captum_aml.methods import TokenMethod
from captum_aml.text.models.base import TextModel


class ContrastForward:
    """A text model's forward function of the difference of two outputs.

    Its last argument names them for each example, (N, 2), after the arguments of the text model. It
    gives logits (N, 2) of the foil and the fact, 0 and z_a - z_b.
    """

    def __init__(self, text_model: TextModel) -> None:
        self._text_model = text_model
        self.__signature__ = text_model.__signature__

    @property
    def model(self) -> PreTrainedModel:
        """The model."""
        return self._text_model.model

    def __call__(self, input_ids: Tensor, *args: Tensor) -> Tensor:
        """Logits (N, 2) for token ids, the text model's further arguments and the pairs."""
        *others, pairs = args
        outputs = self._text_model(input_ids, *others)
        fact, foil = outputs.gather(1, pairs.to(outputs.device)).unbind(dim=1)
        difference = self._text_model.difference(fact, foil)
        return torch.stack([torch.zeros_like(difference), difference], dim=1)


class ContrastMethod(Protocol):
    """A method's scores for contrasts."""

    def __call__(
        self,
        ids: Tensor,
        baselines: Tensor,
        *,
        pairs: Tensor,
        additional_forward_args: tuple[object, ...] = (),
        feature_mask: Tensor | None = None,
    ) -> Tensor:
        """Scores (N, L) of the difference of two outputs, those of the pairs (N, 2)."""
        ...


@dataclass(frozen=True)
class AskedContrast:
    """A method of ``ContrastForward``, called with the pairs (N, 2)."""

    method: TokenMethod

    def __call__(
        self,
        ids: Tensor,
        baselines: Tensor,
        *,
        pairs: Tensor,
        additional_forward_args: tuple[object, ...] = (),
        feature_mask: Tensor | None = None,
    ) -> Tensor:
        """Scores (N, L) of the difference."""
        return self.method(
            ids,
            baselines,
            target=1,
            additional_forward_args=(*additional_forward_args, pairs),
            feature_mask=feature_mask,
        )


@dataclass(frozen=True)
class ContrastOfScores:
    """The difference of a method's scores for two outcomes: contributions are linear.

    For methods that cannot be asked for the difference itself: a fitted masker, which is told one
    outcome and then the other, and an attribution of the user's own.
    """

    method: TokenMethod

    def __call__(
        self,
        ids: Tensor,
        baselines: Tensor,
        *,
        pairs: Tensor,
        additional_forward_args: tuple[object, ...] = (),
        feature_mask: Tensor | None = None,
    ) -> Tensor:
        """Scores (N, L) of the difference."""
        fact, foil = (
            self.method(
                ids,
                baselines,
                target=targets,
                additional_forward_args=additional_forward_args,
                feature_mask=feature_mask,
            )
            for targets in pairs.unbind(dim=1)
        )
        return fact - foil
