r"""A small network over any float input, for models that have no encoder to start from.

Each token's features are projected, joined with an embedding of the prediction
:math:`e(q) = \sum_c q_c v_c + v_0`, mixed with their neighbours by two residual convolutions, and
read out by a linear layer. Protected tokens are zero in every layer, so that neither padding nor
prompts change a proposal. Tensors whose tokens are single elements, such as (N, F) tables, go
through a network over the whole example instead, since there an element's place is its meaning.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from captum_aml.exceptions import InvalidInputError
from captum_aml.maskers._base import MaskerInputs
from captum_aml.maskers.prediction import PredictionEmbedding


class _SequenceHead(nn.Module):
    """Logits for the positions of (N, L, D) features."""

    def __init__(self, n_channels: int, n_classes: int, hidden_size: int) -> None:
        super().__init__()
        self.project = nn.Linear(n_channels, hidden_size)
        self.normalize = nn.LayerNorm(hidden_size)
        self.prediction = PredictionEmbedding(n_classes, hidden_size)
        self.mixers = nn.ModuleList(
            nn.Conv1d(hidden_size, hidden_size, kernel_size=5, padding=2) for _ in range(2)
        )
        self.readout = nn.Linear(hidden_size, 1)

    def forward(self, features: Tensor, protected: Tensor, probabilities: Tensor) -> Tensor:
        visible = (~protected).unsqueeze(-1)
        told = self.prediction(probabilities).unsqueeze(1)
        hidden = torch.tanh(self.normalize(self.project(features)) + told) * visible
        for mixer in self.mixers:
            mixed = mixer(hidden.transpose(1, 2)).transpose(1, 2)
            hidden = (hidden + torch.nn.functional.gelu(mixed)) * visible
        logits: Tensor = self.readout(hidden).squeeze(-1)
        return logits


class _ElementHead(nn.Module):
    """Logits for the elements of an example of a fixed shape."""

    def __init__(self, n_elements: int, n_classes: int, hidden_size: int) -> None:
        super().__init__()
        self.project = nn.Linear(n_elements, hidden_size)
        self.prediction = PredictionEmbedding(n_classes, hidden_size)
        self.mix = nn.Linear(hidden_size, hidden_size)
        self.readout = nn.Linear(hidden_size, n_elements)

    def forward(self, features: Tensor, protected: Tensor, probabilities: Tensor) -> Tensor:
        hidden = torch.tanh(self.project(features.flatten(1)) + self.prediction(probabilities))
        hidden = hidden + torch.nn.functional.gelu(self.mix(hidden))
        logits: Tensor = self.readout(hidden).reshape(features.shape)
        return logits


class EmbeddingMasker(nn.Module):
    """Proposes a mask from the masked features alone.

    Args:
        feature_shapes: The shape of each masked tensor without its examples: (L, D) tensors are
            sequences of any length, others are taken element by element.
        n_classes: The number of outcomes C of the explained distribution.
        hidden_size: Width of the network. Default: 64
    """

    def __init__(
        self,
        *,
        feature_shapes: Sequence[Sequence[int]],
        n_classes: int,
        hidden_size: int = 64,
    ) -> None:
        super().__init__()
        self.fitted = False
        self.config = {
            "feature_shapes": [list(shape) for shape in feature_shapes],
            "n_classes": n_classes,
            "hidden_size": hidden_size,
        }
        self.heads = nn.ModuleList(
            _SequenceHead(shape[-1], n_classes, hidden_size)
            if len(shape) == 2
            else _ElementHead(torch.Size(shape).numel(), n_classes, hidden_size)
            for shape in feature_shapes
        )

    def forward(self, inputs: MaskerInputs) -> tuple[Tensor, ...]:
        """One logit for each token of each masked tensor.

        Raises:
            InvalidInputError: The masked tensors are not those that the masker was made for.
        """
        shapes = self.config["feature_shapes"]
        assert isinstance(shapes, list)
        got = [list(f.shape[1:]) for f in inputs.features]
        fits = len(got) == len(shapes) and all(
            g[-1:] == s[-1:] and len(g) == 2 if len(s) == 2 else g == s
            for g, s in zip(got, shapes, strict=True)
        )
        if not fits:
            raise InvalidInputError(
                f"masker: it was made for masked tensors of shapes {shapes} (without examples; "
                f"sequences of any length), got {got}"
            )
        dtype = next(self.parameters()).dtype
        return tuple(
            head(feature.to(dtype), protected, inputs.probabilities.to(dtype))
            for head, feature, protected in zip(
                self.heads, inputs.features, inputs.protected, strict=True
            )
        )


__all__ = ["EmbeddingMasker"]
