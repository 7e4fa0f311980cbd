"""The explanations of a stream of texts: batches of similar length, results in its order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice, repeat
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from captum_aml._utils.batching import chunks, length_batches, put_back
from captum_aml.exceptions import InvalidInputError, NonFiniteError
from captum_aml.methods import ScoreMeaning, Setting, TokenMethod
from captum_aml.text.encoding import TextBatch, TokenizedText
from captum_aml.text.explanation import Explanation
from captum_aml.text.grouping import TokenGroups
from captum_aml.text.inputs import TextLike, each_text
from captum_aml.text.models.base import TextModel
from captum_aml.text.units import TextUnits

# Texts are read this many batches ahead, to be sorted by length.
_BATCHES_PER_WINDOW = 16


@dataclass
class StreamExplainer:
    """Explains streams of texts with one method; see ``TextExplainer.stream``.

    Attributes:
        text_model: The model to explain.
        method: The method.
        name: What results are recorded under.
        meaning: What its scores say.
        units: What is masked and scored as one.
        batch_size: The most texts in a pass.
    """

    text_model: TextModel
    method: TokenMethod
    name: str
    meaning: ScoreMeaning
    units: TextUnits
    batch_size: int

    @cached_property
    def settings(self) -> Mapping[str, Setting]:
        """Everything that decides scores, as explanations record it."""
        baseline = {"baseline_token": self.text_model.baseline.token}
        return {**self.method.settings, **self.text_model.settings, **baseline}

    def __call__(
        self,
        texts: Iterable[TextLike],
        *,
        target: int | str | Sequence[int | str] | None = None,
        progress: bool = False,
    ) -> Iterator[Explanation]:
        """The explanations of a stream of texts, in its order.

        Raises:
            InvalidInputError: A text or the target is of a wrong kind.
            NonFiniteError: The model's output, or a score, is NaN or infinite.
        """
        to_index = self.text_model.class_index
        if target is None:
            return self._stream(texts, repeat(None), progress)
        if (
            isinstance(target, str)
            or not isinstance(target, Iterable)
            or getattr(target, "ndim", None) == 0
        ):
            return self._stream(texts, repeat(to_index(target)), progress)  # type: ignore[arg-type]
        given = target.tolist() if hasattr(target, "tolist") else target
        each = [to_index(name) for name in given]
        if isinstance(texts, Sized) and len(texts) != len(each):
            raise InvalidInputError(
                f"target: expected one class, or one for each of the {len(texts)} texts, got "
                f"{len(each)}"
            )
        return self._stream(texts, iter(each), progress)

    def _stream(
        self, texts: Iterable[TextLike], classes: Iterator[int | None], progress: bool
    ) -> Iterator[Explanation]:
        total = len(texts) if isinstance(texts, Sized) else None
        with tqdm(total=total, unit="text", disable=not progress) as bar:
            for window in chunks(each_text(texts), _BATCHES_PER_WINDOW * self.batch_size):
                targets = list(islice(classes, len(window)))
                if len(targets) < len(window):
                    raise InvalidInputError("target: expected one for each text, got fewer")
                tokenized = self.text_model.tokenize(window)
                batches = length_batches(tokenized, self.batch_size)
                explanations: list[Explanation] = []
                for rows in batches:
                    explanations += self._explained(
                        [tokenized[row] for row in rows], [targets[row] for row in rows]
                    )
                    bar.update(len(rows))
                yield from put_back(chain.from_iterable(batches), explanations)
        if not isinstance(classes, repeat) and next(classes, None) is not None:
            raise InvalidInputError("target: expected one for each text, got more")

    def _explained(
        self, texts: Sequence[TokenizedText], targets: Sequence[int | None]
    ) -> list[Explanation]:
        """The explanations of N texts, each of its target, or of its prediction."""
        batch = self.text_model.collate(texts)
        groups, mask = self.units.of_batch(batch)
        with self.text_model.evaluating():
            logits, scores, target = self._scored(batch, targets, mask)
        _require_finite(scores, texts, f"a score of {self.name}")
        # One transfer from the device for the whole batch.
        maskable = batch.maskable.cpu().numpy()
        table, values = logits.float().softmax(dim=-1).cpu(), scores.float().cpu().numpy()
        predicted, chosen = table.argmax(dim=-1).tolist(), target.tolist()
        return [
            self._explanation(
                text,
                groups[row] if groups else None,
                values[row][maskable[row]],
                table[row].tolist(),
                predicted[row],
                chosen[row],
            )
            for row, text in enumerate(texts)
        ]

    def _scored(
        self, batch: TextBatch, targets: Sequence[int | None], mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (N, C), scores (N, L) and targets (N,)."""
        # Some methods keep the logits of the pass that they begin with.
        logits = None if hasattr(self.method, "last_outputs") else self._logits(batch)
        target = None if logits is None else logits.argmax(dim=-1)
        if None not in targets:
            target = torch.tensor(targets, device=batch.input_ids.device)
        try:
            scores = self.method(
                batch.input_ids,
                self.text_model.baselines(batch),
                target=target,
                additional_forward_args=batch.forward_args,
                feature_mask=mask,
            )
        except NonFiniteError:
            self._logits(batch)  # which names the text, where it is the model's own output
            raise
        if logits is None:
            kept = getattr(self.method, "last_outputs", None)
            logits = self._logits(batch) if kept is None else kept
        return logits, scores, logits.argmax(dim=-1) if target is None else target

    def _logits(self, batch: TextBatch) -> Tensor:
        with torch.no_grad():
            logits = self.text_model(batch.input_ids, *batch.forward_args)
        _require_finite(logits, batch.texts, "the model's output")
        return logits

    def _explanation(
        self,
        text: TokenizedText,
        groups: TokenGroups | None,
        values: Any,  # a NumPy array (T,), of the maskable tokens
        probabilities: Sequence[float],
        predicted: int,
        target: int,
    ) -> Explanation:
        labels = self.text_model.label_names
        if groups is None:
            keep = [i for i, maskable in enumerate(text.maskable) if maskable]
            tokens = tuple(text.tokens[i] for i in keep)
            offsets = tuple(text.offsets[i] for i in keep)
        else:
            # All tokens of a group have its score, but for those that are the baseline already.
            best: dict[int, float] = {}
            for member, value in zip(groups.members, values.tolist(), strict=True):
                if abs(value) >= abs(best.get(member, 0.0)):
                    best[member] = value
            values = np.asarray([best[g] for g in range(len(groups.spans))], dtype=values.dtype)
            offsets = groups.spans
            tokens = tuple(text.text[start:end] for start, end in offsets)
        return Explanation(
            text=text.text,
            tokens=tokens,
            offsets=offsets,
            # The shortest decimal of a float32; as a double it would drag noise along.
            scores=tuple(float(str(value)) for value in values),
            predicted=predicted,
            predicted_label=labels[predicted],
            probability=probabilities[predicted],
            target=target,
            target_label=labels[target],
            target_probability=probabilities[target],
            method=self.name,
            signed=self.meaning.signed,
            settings=self.settings,
            n_tokens_cut=text.n_tokens_cut,
            unit=self.units.unit,
            parts=text.parts,
            given_words=text.words,
            relative=self.meaning.relative,
            score=self.meaning.score,
        )


def _require_finite(values: Tensor, texts: Sequence[TokenizedText], what: str) -> None:
    finite = values.isfinite().flatten(start_dim=1).all(dim=1)
    if not finite.all():
        text = texts[int((~finite).nonzero()[0])].text
        shown = text if len(text) <= 60 else f"{text[:60]}..."
        raise NonFiniteError(f"{what} is NaN or infinite for the text {shown!r}")
