"""A method's scores of the texts of a batch, for one or several targets of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict

import torch
from torch import Tensor

from captum_aml._utils.rows import shown
from captum_aml.exceptions import NonFiniteError
from captum_aml.methods import TokenMethod, each_target
from captum_aml.text.encoding import TextBatch, TokenizedText
from captum_aml.text.grouping import TokenGroups
from captum_aml.text.models.targets import Target


@dataclass(frozen=True)
class ScoredUnits:
    """A method's scores for one target of a text.

    Attributes:
        row: The text's number in its batch.
        target: The target.
        groups: The units; None where every token is one.
        values: The score of each maskable token's unit, a NumPy array (T,).
    """

    row: int
    target: Target
    groups: TokenGroups | None
    values: Any


@dataclass(frozen=True)
class TextCall:
    """The arguments of a method's call for the texts of a batch, or for some of them.

    Attributes:
        batch: The texts.
        baselines: Their ids without what can be removed, (N, L).
        mask: Their units, (N, L); None where every token is one.
        chosen: The rows of the call; None for all.
    """

    batch: TextBatch
    baselines: Tensor
    mask: Tensor | None
    chosen: Tensor | None = None

    @property
    def _device(self) -> torch.device:
        return self.baselines.device

    def _rows(self, rows: Sequence[int]) -> TextCall:
        """The same for some rows, in order."""
        if len(rows) == len(self.baselines):
            return self
        return replace(self, chosen=torch.tensor(rows, device=self._device))

    def scores(self, method: TokenMethod, *, target: Tensor | None) -> Tensor:
        """A method's scores for one target of each text, (n, L)."""
        return method(*self._ids, target=target, **self._named)

    def _each_target(
        self, method: TokenMethod, targets: Tensor, foils: Tensor | None = None
    ) -> Tensor:
        """A method's scores for T targets of each text, which may have foils, (n, T, L)."""
        targets = targets.to(self._device)
        if foils is not None:
            foils = foils.to(self._device)
        elif targets.shape[1] == 1:
            return self.scores(method, target=targets[:, 0])[:, None]
        return each_target(method, *self._ids, targets=targets, foils=foils, **self._named)

    def table(
        self, method: TokenMethod, asked: Sequence[Sequence[Target]]
    ) -> dict[tuple[int, int], Tensor]:
        """A method's scores (L,) by row and place among the row's targets."""
        table: dict[tuple[int, int], Tensor] = {}
        for with_foil in (False, True):
            places = [
                [i for i, target in enumerate(some) if (target.foil is not None) is with_foil]
                for some in asked
            ]
            for count in sorted({len(some) for some in places} - {0}):
                rows = [row for row, some in enumerate(places) if len(some) == count]
                part = self._rows(rows)
                wanted = [[asked[row][place] for place in places[row]] for row in rows]
                targets = torch.tensor([[t.index for t in some] for some in wanted])
                foils = None
                if with_foil:
                    foils = torch.tensor([[t.foil for t in some] for some in wanted])
                scores = part._each_target(method, targets, foils)
                for row, found in zip(rows, scores, strict=True):
                    table.update({(row, p): s for p, s in zip(places[row], found, strict=True)})
        return table

    @property
    def _ids(self) -> tuple[Tensor, Tensor]:
        return self._of(self.batch.input_ids), self._of(self.baselines)

    @property
    def _named(self) -> _Named:
        return {
            "additional_forward_args": tuple(map(self._of, self.batch.forward_args)),
            "feature_mask": None if self.mask is None else self._of(self.mask),
        }

    def _of(self, tensor: Tensor) -> Tensor:
        return tensor if self.chosen is None else tensor[self.chosen]


class _Named(TypedDict):
    additional_forward_args: tuple[object, ...]
    feature_mask: Tensor | None


def require_finite(values: Tensor, texts: Sequence[TokenizedText], what: str) -> None:
    """Refuses numbers that are NaN or infinite.

    Args:
        values: (N, ...).
        texts: The N texts that they are of.
        what: What they are, for the error.

    Raises:
        NonFiniteError: There are such; it names the first text.
    """
    finite = values.isfinite().flatten(start_dim=1).all(dim=1)
    if not finite.all():
        text = texts[int((~finite).nonzero()[0])].text
        raise NonFiniteError(f"{what} is NaN or infinite for the text {shown(text)}")
