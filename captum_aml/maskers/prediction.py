r"""How a masker is told the prediction that it explains."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from captum_aml.exceptions import InvalidInputError


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


__all__ = ["PredictionEmbedding"]
