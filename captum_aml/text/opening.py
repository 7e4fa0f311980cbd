"""Scores of the words inside the highest sentences of texts; see :mod:`captum_aml.text.nesting`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from captum_aml.methods import TokenMethod
from captum_aml.text.encoding import TokenizedText
from captum_aml.text.models.base import TextModel
from captum_aml.text.nesting import highest
from captum_aml.text.scoring import ScoredUnits, TextCall, require_finite
from captum_aml.text.units import TextUnits, by_position, scores_of_groups


@dataclass(frozen=True)
class SentenceOpener:
    """Scores words inside sentences that have scores.

    Attributes:
        text_model: The model to explain.
        method: The method.
        units: What is masked and scored as one, sentences and words in them.
        name: What the method is called in errors.
        signed: Whether its scores add up.
    """

    text_model: TextModel
    method: TokenMethod
    units: TextUnits
    name: str
    signed: bool

    def __call__(
        self, texts: Sequence[TokenizedText], scored: Sequence[ScoredUnits], batch_size: int
    ) -> list[ScoredUnits]:
        """Sentences' scores with those of words in place of the highest sentences.

        Args:
            texts: N texts.
            scored: Scores of the sentences of some of them, by their rows.
            batch_size: The most sequences in a pass.
        """
        results = list(scored)
        every = [texts[each.row] for each in scored]
        for numbers in self.text_model.batches(every, batch_size):
            found = self._opened([every[n] for n in numbers], [scored[n] for n in numbers])
            for number, each in zip(numbers, found, strict=True):
                results[number] = each
        return results

    def _opened(
        self, texts: Sequence[TokenizedText], scored: Sequence[ScoredUnits]
    ) -> list[ScoredUnits]:
        """The same for a batch, of one text each."""
        batch = self.text_model.collate(texts)
        nested = [self.units.nested_groups(text) for text in batch.texts]
        sentences = [
            scores_of_groups(groups.sentences, each.values.tolist())
            for groups, each in zip(nested, scored, strict=True)
        ]
        chosen = [highest(scores, self.units.n_opened) for scores in sentences]
        inside = [
            [groups.parents[word] in open_ for word in groups.words.members]
            for groups, open_ in zip(nested, chosen, strict=True)
        ]
        # What is equal to its baseline takes no part.
        baselines = torch.where(
            by_position(batch, inside) > 0, self.text_model.baselines(batch), batch.input_ids
        )
        call = TextCall(
            batch, baselines, by_position(batch, [groups.words.members for groups in nested])
        )
        table = call.table(self.method, [[each.target] for each in scored])
        values = torch.stack([table[row, 0] for row in range(len(scored))])
        require_finite(values, batch.texts, f"a score of {self.name}")
        by_token, maskable = values.float().cpu().numpy(), batch.maskable.cpu().numpy()
        results = []
        for row, (groups, open_) in enumerate(zip(nested, chosen, strict=True)):
            words = scores_of_groups(groups.words, by_token[row, maskable[row]].tolist())
            units = groups.opened(open_)
            scores = groups.completed(sentences[row], words, open_, signed=self.signed)
            shared = np.asarray([scores[unit] for unit in units.members], dtype=np.float32)
            results.append(replace(scored[row], groups=units, values=shared))
        return results
