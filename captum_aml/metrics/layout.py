"""Variants of texts as the model takes them: without padding, in batches of similar length.

A variant is an example of which some tokens are removed. What removal leaves is laid out side by
side, identified by its content, and put into batches whose inputs the model may be given together.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captum_aml.masking.call import Call
from captum_aml.metrics.removal import Removal

#: Variants that are laid out at once, in batches: enough to find duplicates and equal lengths.
_BATCHES_PER_SLAB = 16

# Variants are laid out at once as long as they have no more elements than this.
_SLAB_ELEMENTS = 1 << 24


@dataclass(frozen=True)
class Variants:
    """Variants as the model takes them.

    Attributes:
        rows: The example of each, (V,).
        members: Its number among the requested variants, (V,).
        places: Its number in its slab, (V,).
        lengths: Its places, without padding, (V,).
        is_blank: Whether it has no place to attend to, (V,).
        inputs: (V, width, ...).
        args: The further arguments.
    """

    rows: Tensor
    members: Tensor
    places: Tensor
    lengths: Tensor
    is_blank: Tensor
    inputs: Tensor
    args: tuple[Any, ...]


class VariantLayout:
    """Lays out variants of N examples.

    Args:
        call: The arguments, with one tensor of inputs (N, ...).
        attended: Which units the attention mask shows, (N, L), or of the inputs' shape without
            positions.
        by_position: Which of the further arguments go with the positions (N, L) of tokens in a row;
            None where the inputs have none.
        mask_index: Which of them is the attention mask (N, L), or None.
        batch_size: The most variants in a batch.
    """

    def __init__(
        self,
        call: Call,
        attended: Tensor,
        *,
        by_position: Sequence[int] | None,
        mask_index: int | None,
        batch_size: int,
    ) -> None:
        self._inputs, self._baselines = call.inputs[0], call.baselines[0]
        self._args, self._batched = call.additional_forward_args, call.batched
        self._by_position = by_position or ()
        self._mask_index = mask_index
        self._attended = attended
        self._has_positions = by_position is not None
        self._batch_size = batch_size
        self._text = _text_places(attended) if self._has_positions else attended
        self._pad = self._padding_value()

    def slabs(self, rows: Tensor, keep: Tensor, removal: Removal) -> Iterator[Variants]:
        """The variants laid out as the model takes them, shortest first, many batches at once."""
        # The places that the model is given, (V, U).
        laid = self._text[rows].reshape(len(rows), -1)
        if removal.place == "gone" and self._has_positions:
            laid = laid & keep
        lengths = laid.sum(dim=1)
        order = torch.argsort(lengths, stable=True)
        most = max(1, _SLAB_ELEMENTS // max(1, self._inputs[0].numel()))
        size = min(_BATCHES_PER_SLAB * self._batch_size, max(self._batch_size, most))
        for members in order.split(size):
            chosen = rows[members]
            kept = keep[members].reshape(len(members), *self._attended.shape[1:])
            expanded = kept if kept.dim() == self._inputs.dim() else kept.unsqueeze(-1)
            inputs = self._inputs[chosen]
            if removal.place != "gone":
                inputs = removal.replace(inputs, self._baselines[chosen], expanded)
            args = self._chosen(self._args, chosen)
            attended = self._attended[chosen] & laid[members].reshape(kept.shape)
            if removal.place == "hidden" and self._mask_index is not None:
                mask = args[self._mask_index]
                args[self._mask_index] = torch.where(kept, mask, torch.zeros_like(mask))
                attended = attended & kept
            layout = Variants(
                rows=chosen,
                members=members,
                places=torch.arange(len(members), device=members.device),
                lengths=lengths[members],
                is_blank=~attended.reshape(len(members), -1).any(dim=1),
                inputs=inputs,
                args=tuple(args),
            )
            yield self._compact(layout, laid[members]) if self._has_positions else layout

    def batches(self, slab: Variants, indices: Sequence[int]) -> Iterator[Variants]:
        """Chosen variants of a slab in batches for the model, cut to their longest."""
        lengths, blank = slab.lengths.tolist(), slab.is_blank.tolist()
        start = 0
        while start < len(indices):
            stop = start
            may_grow = self._pad is not None
            while (
                stop < len(indices)
                and stop - start < self._batch_size
                and (may_grow or lengths[indices[stop]] == lengths[indices[start]])
            ):
                # Where a model may attend to nothing, it attends to padding.
                may_grow = may_grow and not blank[indices[stop]]
                stop += 1
            yield self._part(slab, indices[start:stop])
            start = stop

    def digests(self, slab: Variants) -> list[bytes]:
        """Digests that are equal where the model's input is the same, padding apart."""
        cut = [slab.args[i] for i in self._by_position]
        whole = [slab.args[i] for i in self._batched if i not in self._by_position]
        (cut if self._has_positions else whole).append(slab.inputs)
        n = len(slab.rows)
        by_row = np.concatenate([_bytes(t, n) for t in whole], axis=1) if whole else None
        by_place = np.concatenate([_bytes(t, n, t.shape[1]) for t in cut], axis=2) if cut else None
        digests = []
        for variant, length in enumerate(slab.lengths.tolist()):
            digest = hashlib.blake2b(digest_size=16)
            if by_row is not None:
                digest.update(by_row[variant].tobytes())
            if by_place is not None:
                digest.update(by_place[variant, :length].tobytes())
            digests.append(digest.digest())
        return digests

    def _padding_value(self) -> Tensor | None:
        """The value at padded places, so that more may be padded; None if nothing may.

        A causal classifier finds a text's end by the id of its padding, which only the caller's
        own padding shows. Padding on the left moves the tokens, which a model with absolute
        positions sees. Without a value only inputs of equal length go together.
        """
        padding = ~self._text
        if not self._has_positions or not bool(padding.any()) or bool(padding[:, 0].any()):
            return None
        example, position = (int(i) for i in padding.nonzero()[0])
        return self._inputs[example, position]

    def _chosen(self, args: Sequence[Any], rows: Tensor) -> list[Any]:  # the user's own arguments
        """Further arguments with those rows of what goes with the examples."""
        return [a[rows.to(a.device)] if i in self._batched else a for i, a in enumerate(args)]

    def _compact(self, layout: Variants, laid: Tensor) -> Variants:
        """The same with the laid out places side by side, and padding to the longest behind."""
        width = int(layout.lengths.max())
        # A stable sort keeps the order of the places.
        order = torch.argsort((~laid).to(torch.uint8), dim=1, stable=True)[:, :width]
        real = laid.gather(1, order)

        def gathered(values: Tensor, fill: Tensor | int) -> Tensor:
            index = order.reshape(*order.shape, *(1,) * (values.dim() - 2)).to(values.device)
            moved = values.gather(1, index.expand(*order.shape, *values.shape[2:]))
            place = real.reshape(*real.shape, *(1,) * (values.dim() - 2)).to(values.device)
            filler = torch.as_tensor(fill, dtype=values.dtype, device=values.device)
            return torch.where(place, moved, filler)

        args = list(layout.args)
        for index in self._by_position:
            args[index] = gathered(args[index], 0)
        inputs = gathered(layout.inputs, 0 if self._pad is None else self._pad)
        return replace(layout, inputs=inputs, args=tuple(args))

    def _part(self, slab: Variants, indices: Sequence[int]) -> Variants:
        chosen = torch.tensor(list(indices), device=slab.rows.device)
        lengths = slab.lengths[chosen]
        width = int(lengths.max()) if self._has_positions else None
        args = self._chosen(slab.args, chosen)
        for index in self._by_position:
            args[index] = args[index][:, :width]
        inputs = slab.inputs[chosen]
        return Variants(
            rows=slab.rows[chosen],
            members=slab.members[chosen],
            places=chosen,
            lengths=lengths,
            is_blank=slab.is_blank[chosen],
            inputs=inputs if width is None else inputs[:, :width],
            args=tuple(args),
        )


def _text_places(attended: Tensor) -> Tensor:
    """The places of each text (N, L), from the first that is attended to the last.

    Where nothing is attended text and padding cannot be distinguished: all of it is text.
    """
    count = attended.long().cumsum(dim=1)
    text = (count > 0) & (count - attended.long() < count[:, -1:])
    return text | ~attended.any(dim=1, keepdim=True)


def _bytes(tensor: Tensor, *sizes: int) -> np.ndarray:
    """A tensor's memory as bytes (*sizes, B)."""
    # NumPy has no bfloat16.
    plain = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
    array = np.ascontiguousarray(plain.cpu().numpy())
    rest = math.prod(array.shape[len(sizes) :])
    table: np.ndarray = array.reshape(*sizes, rest).view(np.uint8)
    return table
