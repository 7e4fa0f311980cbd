r"""A small network over any float input, for models that have no encoder to start from.

Each token's features are projected, joined with an embedding of the prediction
:math:`e(q) = \sum_c q_c v_c + v_0`, mixed with their neighbours by two residual convolutions, and
read out by a linear layer. Tokens that are not maskable are zero in every layer, so that neither
padding nor prompts change a proposal. Tensors whose tokens are single elements, such as (N, F)
tables, go through a network over the whole example instead, since there an element's place is its
meaning.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from captum_aml.exceptions import InvalidInputError
from captum_aml.maskers.base import MaskerInputs, PredictionEmbedding
from captum_aml.maskers.registry import register_masker


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

    def forward(self, features: Tensor, maskable: Tensor, probabilities: Tensor) -> Tensor:
        visible = maskable.unsqueeze(-1)
        prediction = self.prediction(probabilities).unsqueeze(1)
        hidden = torch.tanh(self.normalize(self.project(features)) + prediction) * visible
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

    def forward(self, features: Tensor, maskable: Tensor, probabilities: Tensor) -> Tensor:
        hidden = torch.tanh(
            self.project(features.reshape(len(features), -1)) + self.prediction(probabilities)
        )
        hidden = hidden + torch.nn.functional.gelu(self.mix(hidden))
        logits: Tensor = self.readout(hidden).reshape(features.shape)
        return logits


@register_masker("embedding")
class EmbeddingMasker(nn.Module):
    """Proposes a mask from the masked features alone.

    Args:
        feature_shapes: The shape of each masked tensor without its examples.
        n_classes: The number of outcomes C of the explained distribution.
        hidden_size: Width of the network. Default: 64
        token_dims: For each of them, how many leading dimensions number its tokens; the rest are
            channels. Tokens with channels may be of any number, in a row; a tensor without channels
            is taken as a whole. Default: 1 of (L, D), otherwise all
    """

    def __init__(
        self,
        *,
        feature_shapes: Sequence[Sequence[int]],
        n_classes: int,
        hidden_size: int = 64,
        token_dims: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.fitted = False
        shapes = [[int(size) for size in shape] for shape in feature_shapes]
        dims = [1 if len(s) == 2 else len(s) for s in shapes] if token_dims is None else token_dims
        self._shapes, self._dims = shapes, [int(d) for d in dims]
        self.config = {
            "feature_shapes": shapes,
            "n_classes": n_classes,
            "hidden_size": hidden_size,
            "token_dims": self._dims,
        }
        self.heads = nn.ModuleList(
            _SequenceHead(torch.Size(shape[d:]).numel(), n_classes, hidden_size)
            if len(shape) > d
            else _ElementHead(torch.Size(shape).numel(), n_classes, hidden_size)
            for shape, d in zip(shapes, self._dims, strict=True)
        )

    def forward(self, inputs: MaskerInputs) -> tuple[Tensor, ...]:
        """One logit for each token of each masked tensor.

        Raises:
            InvalidInputError: The masked tensors are not those that the masker was made for.
        """
        got = [list(f.shape[1:]) for f in inputs.features]
        fits = len(got) == len(self._shapes) and all(
            len(g) == len(s) and (g[d:] == s[d:] if len(s) > d else g == s)
            for g, s, d in zip(got, self._shapes, self._dims, strict=True)
        )
        if not fits:
            raise InvalidInputError(
                f"masker: it was made for masked tensors of shapes {self._shapes} (without "
                f"examples; tokens with channels may be of any number), got {got}"
            )
        dtype = next(self.parameters()).dtype
        logits = []
        for head, feature, maskable, dims in zip(
            self.heads, inputs.features, inputs.maskable, self._dims, strict=True
        ):
            shape = feature.shape[: dims + 1]
            if feature.dim() > len(shape):
                rows = feature.reshape(shape[0], shape[1:].numel(), -1)
                maskable = maskable.reshape(rows.shape[:2])
            else:
                rows = feature
            q = inputs.probabilities.to(dtype)
            logits.append(head(rows.to(dtype), maskable, q).reshape(shape))
        return tuple(logits)
