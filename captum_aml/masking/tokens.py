"""Layout of tokens and mask units: from mask values to shares, and to attributions.

A *token* is a position of an (N, L, D) tensor, an id, or an element of a tensor of any other shape.
The tokens of all masked tensors stand in one row, (N, T). A *unit* is what has one mask value of
its own: a token, or the group of tokens that a feature mask makes, (N, U).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_aml._captum import broadcasts
from captum_aml.exceptions import InvalidInputError


@dataclass(frozen=True)
class TokenLayout:
    """The tokens and mask units of one call.

    Attributes:
        shapes: For each masked tensor the shape of its tokens, (N, ...).
        channels: For each masked tensor the shape of the channels below a token, () if it has none.
        maskable: Tokens that take part, bool (N, T); the others keep their value and score 0.
        groups: The unit of each token, (N, T), or None where every token is its own unit.
        n_units: The number of units U.
        maskable_units: Units that take part, bool (N, U): those with a maskable token.
    """

    shapes: tuple[tuple[int, ...], ...]
    channels: tuple[tuple[int, ...], ...]
    maskable: Tensor
    groups: Tensor | None
    n_units: int
    maskable_units: Tensor

    @classmethod
    def build(
        cls,
        features: Sequence[Tensor],
        maskable: Sequence[Tensor],
        feature_mask: tuple[Tensor, ...] | None,
        *,
        token_dims: Sequence[int],
    ) -> TokenLayout:
        """Lays out the tokens of the masked tensors.

        Args:
            features: The masked tensors, (N, ...).
            maskable: Bools of the tensor's own shape, or of its tokens' shape: what can be masked.
            feature_mask: Integer group ids for each masked tensor, by element (Captum's rule) or
                by token, shared by all examples where dimension 0 has size 1.
            token_dims: For each tensor the number of leading dimensions that number its tokens.

        Raises:
            InvalidInputError: The feature mask fits neither elements nor tokens.
        """
        dims = list(token_dims)
        masks: list[Tensor] | None = None
        if feature_mask is not None:
            if len(feature_mask) != len(features):
                raise InvalidInputError(
                    f"feature_mask: expected one for each of the {len(features)} masked tensors, "
                    f"got {len(feature_mask)}"
                )
            masks = []
            for i, (mask, feature) in enumerate(zip(feature_mask, features, strict=True)):
                by_element = maskable[i].dim() == feature.dim()
                expanded, dims[i] = _expand_mask(mask, feature, dims[i], by_element=by_element)
                masks.append(expanded)
        shapes = tuple(tuple(f.shape[:d]) for f, d in zip(features, dims, strict=True))
        channels = tuple(tuple(f.shape[d:]) for f, d in zip(features, dims, strict=True))
        n = features[0].shape[0]
        tokens = torch.cat(
            [
                (m if m.dim() <= len(s) else m.flatten(len(s)).any(-1)).reshape(n, -1)
                for m, s in zip(maskable, shapes, strict=True)
            ],
            dim=1,
        )
        if masks is None:
            return cls(shapes, channels, tokens, None, tokens.shape[1], tokens)
        ids = torch.cat([m.reshape(n, -1) for m in masks], dim=1).to(tokens.device)
        values, groups = torch.unique(ids, return_inverse=True)
        n_units = int(values.numel())
        counts = torch.zeros(n, n_units, dtype=torch.int32, device=ids.device)
        counts.scatter_add_(1, groups, tokens.to(torch.int32))
        return cls(shapes, channels, tokens, groups, n_units, counts > 0)

    @property
    def n_examples(self) -> int:
        """The number of examples N."""
        return self.maskable.shape[0]

    def keep(self, mask: Tensor) -> tuple[Tensor, ...]:
        """The share that each masked tensor keeps: mask values (N, U), 1 if not maskable.

        Returns:
            For each masked tensor the tokens' shape, with a 1 for each dimension of its channels.
        """
        tokens = self._tokens(mask).masked_fill(~self.maskable, 1.0)
        return tuple(
            part.reshape(shape + (1,) * len(channels))
            for part, shape, channels in zip(
                tokens.split(self._lengths, dim=1), self.shapes, self.channels, strict=True
            )
        )

    @property
    def tokens_per_unit(self) -> Tensor:
        """How many tokens have a unit's score, (N, U), at least 1: scores are shared among them."""
        if self.groups is None:
            return torch.ones_like(self.maskable_units, dtype=torch.int64)
        groups = self.groups.expand(self.n_examples, -1)
        counts = torch.zeros_like(self.maskable_units, dtype=torch.int64)
        return counts.scatter_add_(1, groups, torch.ones_like(groups)).clamp(min=1)

    def pool(self, logits: Sequence[Tensor]) -> Tensor:
        """One logit for each unit: the mean over its maskable tokens.

        Args:
            logits: For each masked tensor a logit for each token, (N, ...). Where a feature mask
                groups elements below a token, they share the token's logit.

        Returns:
            Tensor (N, U); 0 for units that are not maskable.
        """
        by_token = [
            t.reshape(t.shape + (1,) * (len(s) - t.dim())).expand(s)
            for t, s in zip(logits, self.shapes, strict=True)
        ]
        flat = torch.cat([t.reshape(self.n_examples, -1) for t in by_token], dim=1)
        flat = flat.masked_fill(~self.maskable, 0.0)
        if self.groups is None:
            return flat
        zeros = flat.new_zeros(self.n_examples, self.n_units)
        counts = zeros.scatter_add(1, self.groups, self.maskable.to(flat.dtype))
        return zeros.scatter_add(1, self.groups, flat) / counts.clamp(min=1)

    def scores(self, mask: Tensor, spreads: Sequence[bool]) -> tuple[Tensor, ...]:
        """Attributions in the shapes of the masked tensors: a unit's value for all its tokens.

        Args:
            mask: Mask values (N, U).
            spreads: For each masked tensor, whether a token's score is spread evenly over its
                channels, so that their sum gives the score; otherwise the shape is that of the
                tokens, without channels.
        """
        # A group with a maskable token has its score on all of its tokens, as Captum's methods do.
        tokens = self._tokens(mask.masked_fill(~self.maskable_units, 0.0))
        scores = []
        for part, shape, channels, spread in zip(
            tokens.split(self._lengths, dim=1), self.shapes, self.channels, spreads, strict=True
        ):
            score = part.reshape(shape)
            if channels and spread:
                each = score / torch.Size(channels).numel()
                score = each.reshape(shape + (1,) * len(channels)).expand(shape + channels)
            scores.append(score.contiguous())
        return tuple(scores)

    def _tokens(self, mask: Tensor) -> Tensor:
        return mask if self.groups is None else mask.gather(1, self.groups)

    @property
    def _lengths(self) -> list[int]:
        return [torch.Size(shape[1:]).numel() for shape in self.shapes]


def fits_tokens(mask: Tensor, by_token: Sequence[int]) -> bool:
    """Whether a feature mask has a size of tokens, or 1, in each dimension."""
    return mask.dim() == len(by_token) and all(
        m in (1, s) for m, s in zip(mask.shape, by_token, strict=True)
    )


def mask_of_rows(
    mask: Tensor, feature: Tensor, token_dims: int, *, start: int, n_total: int
) -> Tensor:
    """The part of a layer's feature mask that belongs to a chunk of the examples.

    Args:
        mask: The mask for all examples, or shared by them.
        feature: The layer's tensor for the chunk, (N, ...).
        token_dims: How many of its leading dimensions number its tokens.
        start: The chunk's first example.
        n_total: The number of all examples.
    """
    per_token = fits_tokens(mask, (n_total, *feature.shape[1:token_dims]))
    if mask.shape[:1] == (n_total,) and (per_token or mask.dim() == feature.dim()):
        return mask[start : start + feature.shape[0]]
    return mask


def _expand_mask(
    mask: Tensor, feature: Tensor, token_dims: int, *, by_element: bool
) -> tuple[Tensor, int]:
    """A feature mask in the shape of the tokens, or of the elements it groups.

    The channels of an id's embedding are not the caller's to group (``by_element``).
    """
    by_token = feature.shape[:token_dims]
    if mask.dim() == 1 and tuple(mask.shape) == tuple(by_token[1:]) != tuple(feature.shape[-1:]):
        mask = mask.unsqueeze(0)  # one dimension that numbers tokens, not channels
    if fits_tokens(mask, by_token):
        return mask.expand(by_token), token_dims
    if by_element and broadcasts(mask, feature):
        return mask.expand(feature.shape), feature.dim()
    expected = str(tuple(by_token))
    if by_element and token_dims < feature.dim():
        expected = f"{tuple(feature.shape)} or, by token, {expected}"
    raise InvalidInputError(
        f"feature_mask: expected shape {expected}, with 1 allowed in place of any size, "
        f"got {tuple(mask.shape)}"
    )
