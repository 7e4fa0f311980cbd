"""The explanations of a stream of texts: batches of similar length, results in its order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice, repeat
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from captum_aml.exceptions import InvalidInputError, NoGradientError, NonFiniteError
from captum_aml.methods import ScoreMeaning, Setting, TokenMethod
from captum_aml.text.encoding import TextBatch, TokenizedText
from captum_aml.text.explanation import Explanation
from captum_aml.text.failing import FailingTexts, OnError, windows
from captum_aml.text.inputs import Text
from captum_aml.text.models.base import Question, TextModel, rows_in_batch
from captum_aml.text.models.targets import Target, TargetsLike
from captum_aml.text.opening import SentenceOpener
from captum_aml.text.scoring import ScoredUnits, TextCall, require_finite
from captum_aml.text.units import TextUnits, scores_of_groups

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
        batch_size: The most sequences in a pass: texts, or what is read of one.
        narrower: What explains in its place with fewer texts in a pass.
        without_gradient: What explains in its place where the model has no gradient; None where
            the method is to be this one.
    """

    text_model: TextModel
    method: TokenMethod
    name: str
    meaning: ScoreMeaning
    units: TextUnits
    batch_size: int
    narrower: Callable[[int], StreamExplainer]
    without_gradient: Callable[[], StreamExplainer] | None = None
    _instead: StreamExplainer | None = field(default=None, init=False)
    _narrower: dict[int, StreamExplainer] = field(default_factory=dict, init=False)

    @cached_property
    def settings(self) -> Mapping[str, Setting]:
        """Everything that decides scores, as explanations record it."""
        baseline = {"baseline_token": self.text_model.baseline.token}
        ours = {**self.text_model.settings, **self.units.settings}
        return {**self.method.settings, **ours, **baseline}

    def __call__(
        self,
        texts: Iterable[object],
        targets: Iterator[TargetsLike],
        *,
        errors: OnError = "raise",
        progress: bool = False,
    ) -> Iterator[Explanation]:
        """The explanations of a stream of texts, in its order.

        Args:
            texts: The texts.
            targets: What is explained of each.
            errors: What to do with a text that fails. Default: "raise".
            progress: Whether to show a progress bar. Default: False.

        Raises:
            InvalidInputError: A text or the target is of a wrong kind.
            NonFiniteError: The model's output, or a score, is NaN or infinite.
        """
        total = len(texts) if isinstance(texts, Sized) else None
        failing, start = FailingTexts(errors), 0
        with tqdm(total=total, unit="text", disable=not progress) as bar:
            for window, error in windows(texts, _BATCHES_PER_WINDOW * self.batch_size):
                asked = list(islice(targets, len(window)))
                if len(asked) < len(window):
                    raise InvalidInputError("target: expected one for each text, got fewer")
                found = self._window(window, asked, start, failing, bar)
                for row, some in enumerate(found, start=start):
                    if not failing.passes_over(row):
                        yield from some
                start += len(window)
                if error is not None:
                    failing.warn(start)
                    raise error
        failing.warn(start)
        if not isinstance(targets, repeat) and next(targets, None) is not None:
            raise InvalidInputError("target: expected one for each text, got more")

    def _window(
        self,
        given: Sequence[object],
        asked: Sequence[TargetsLike],
        start: int,
        failing: FailingTexts,
        bar: tqdm[Any],
    ) -> list[list[Explanation]]:
        """The explanations of each of the texts that are sorted together.

        Args:
            given: The texts as they came.
            asked: What is explained of each.
            start: The row of the first.
            failing: It is told of those that fail, which have none.
            bar: Progress in texts.
        """
        model, rows = self.text_model, range(start, start + len(given))
        texts = failing.attempt(
            range(len(given)), rows, lambda some: [Text.of(given[i], rows[i]) for i in some]
        )
        tokenized = failing.attempt(
            list(texts), rows, lambda some: model.tokenize([texts[i] for i in some])
        )
        questions = failing.attempt(
            list(tokenized),
            rows,
            lambda some: model.questions(
                [tokenized[i] for i in some],
                [asked[i] for i in some],
                batch_size=self.batch_size,
            ),
        )
        flat = [(rows[i], each) for i, some in questions.items() for each in some]
        row_of = [row for row, _ in flat]
        explanations: list[list[Explanation]] = [[] for _ in flat]
        done = 0
        for numbers in model.batches([each.text for _, each in flat], self.batch_size):
            made = failing.attempt(
                numbers,
                row_of,
                lambda some: self._explained(*zip(*(flat[n] for n in some), strict=True)),
            )
            for number, some in made.items():
                explanations[number] = some
            done += len(numbers)
            bar.update(start + len(given) * done // len(flat) - bar.n)
        bar.update(start + len(given) - bar.n)
        of_text: list[list[Explanation]] = [[] for _ in given]
        for row, some in zip(row_of, explanations, strict=True):
            of_text[row - start] += some
        return of_text

    def _explained(
        self, rows: Sequence[int], questions: Sequence[Question]
    ) -> list[list[Explanation]]:
        """The explanations of N questions, each of its targets, or of its prediction."""
        if self._instead is None:
            try:
                return self._holding(questions[0].text)._answered(rows, questions)
            except NoGradientError:
                if self.without_gradient is None:
                    raise
                self._instead = self.without_gradient()
        return self._instead._explained(rows, questions)

    def _holding(self, text: TokenizedText) -> StreamExplainer:
        """What holds no more texts like this one in a pass than make its number of sequences."""
        n_texts = rows_in_batch(text, self.batch_size)
        if n_texts == self.batch_size:
            return self
        if n_texts not in self._narrower:
            self._narrower[n_texts] = self.narrower(n_texts)
        return self._narrower[n_texts]

    def _answered(
        self, rows: Sequence[int], questions: Sequence[Question]
    ) -> list[list[Explanation]]:
        """The same by this method."""
        texts = [question.text for question in questions]
        batch = self.text_model.collate(texts)
        groups, mask = self.units.of_batch(batch)
        maskable = batch.maskable.cpu().numpy()
        with self.text_model.evaluating():
            outputs, found = self._scored(batch, questions, mask)
            scored = [
                ScoredUnits(row, target, groups[row] if groups else None, scores[maskable[row]])
                for row, some in enumerate(found)
                for target, scores in some
            ]
            if self.units.nested:
                opener = SentenceOpener(
                    self.text_model, self.method, self.units, self.name, self.meaning.signed
                )
                scored = opener(texts, scored, self.batch_size)
        # One transfer from the device for the whole batch.
        outputs = self.text_model.read(outputs.float().cpu())
        made: list[list[Explanation]] = [[] for _ in questions]
        for each in scored:
            asked, row = questions[each.row], outputs[each.row]
            predicted = self._predicted(asked, each.target, row)
            made[each.row].append(
                self._explanation(asked.text, each, row, predicted, rows[each.row])
            )
        return made

    def _predicted(self, question: Question, target: Target, outputs: Tensor) -> int:
        """The number of what the model says, where a target is explained."""
        if question.predicted is not None:
            return question.predicted
        if self.text_model.output != "independent_logits":
            return int(outputs.argmax())
        # Each says something by itself; of a contrast it is the likelier one.
        ends = [target.index] if target.foil is None else [target.index, target.foil]
        return max(ends, key=lambda end: float(outputs[end]))

    def _scored(
        self, batch: TextBatch, questions: Sequence[Question], mask: Tensor | None
    ) -> tuple[Tensor, list[list[tuple[Target, Any]]]]:
        """Outputs (N, C), and for each question its targets with scores, NumPy arrays (L,)."""
        asked = [question.targets for question in questions]
        # Some methods keep the outputs of the pass that they begin with.
        alike = len({len(some) for some in asked}) == 1
        contrasts = any(target.foil is not None for some in asked for target in some)
        keeps = hasattr(self.method, "last_outputs") and alike and not contrasts
        outputs = None if keeps else self._outputs(batch)
        call = TextCall(batch, self.text_model.baselines(batch), mask)
        try:
            if keeps and not any(asked):
                scores = call.scores(self.method, target=None)
                outputs = self._kept(batch)
                targets = [Target(index) for index in outputs.argmax(dim=-1).tolist()]
                asked = [(target,) for target in targets]
                table = {(row, 0): each for row, each in enumerate(scores)}
            else:
                if outputs is not None and not all(asked):
                    likeliest = outputs.argmax(dim=-1).tolist()
                    asked = [
                        some or (Target(index),)
                        for some, index in zip(asked, likeliest, strict=True)
                    ]
                table = call.table(self.method, asked)
                outputs = self._kept(batch) if outputs is None else outputs
        except NonFiniteError:
            self._outputs(batch)  # which names the text, where it is the model's own output
            raise
        flat = torch.stack(list(table.values()))
        require_finite(flat, [batch.texts[row] for row, _ in table], f"a score of {self.name}")
        values = dict(zip(table, flat.float().cpu().numpy(), strict=True))
        return outputs, [
            [(target, values[row, place]) for place, target in enumerate(some)]
            for row, some in enumerate(asked)
        ]

    def _kept(self, batch: TextBatch) -> Tensor:
        """The outputs that the method has kept, or those of a pass."""
        kept: Tensor | None = getattr(self.method, "last_outputs", None)
        return self._outputs(batch) if kept is None else kept

    def _outputs(self, batch: TextBatch) -> Tensor:
        with torch.no_grad():
            outputs = self.text_model(batch.input_ids, *batch.forward_args)
        require_finite(outputs, batch.texts, "the model's output")
        return outputs

    def _explanation(
        self,
        text: TokenizedText,
        scored: ScoredUnits,
        outputs: Tensor,
        predicted: int,
        row: int,
    ) -> Explanation:
        names = self.text_model.names(text)
        target, groups, values = scored.target, scored.groups, scored.values
        if groups is None:
            keep = [i for i, maskable in enumerate(text.maskable) if maskable]
            tokens = tuple(text.tokens[i] for i in keep)
            offsets = tuple(text.offsets[i] for i in keep)
        else:
            values = np.asarray(scores_of_groups(groups, values.tolist()), dtype=values.dtype)
            offsets = groups.spans
            if self.units.unit == "token":
                kept = (
                    t for t, maskable in zip(text.tokens, text.maskable, strict=True) if maskable
                )
                named = dict(zip(groups.members, kept, strict=True))
                tokens = tuple(named[number] for number in range(len(offsets)))
            else:
                tokens = tuple(text.text[start:end] for start, end in offsets)
        is_value = self.text_model.output == "value"
        meaning = self.meaning
        if target.foil is not None:
            meaning = meaning.of_contrast(self.text_model.compared)
        return Explanation(
            text=text.text,
            tokens=tokens,
            offsets=offsets,
            # The shortest decimal of a float32; as a double it would drag noise along.
            scores=tuple(float(str(value)) for value in values),
            predicted=predicted,
            predicted_label=names[predicted],
            probability=None if is_value else float(outputs[predicted]),
            target=target.index,
            target_label=names[target.index],
            target_probability=None if is_value else float(outputs[target.index]),
            method=self.name,
            signed=self.meaning.signed,
            settings=self.settings,
            n_tokens_cut=text.n_tokens_cut,
            unit=self.units.unit,
            parts=text.parts,
            given_words=text.words,
            relative=self.meaning.relative,
            score=meaning.score,
            row=row,
            task=self.text_model.task,
            value=float(outputs[predicted]) if is_value else None,
            foil=target.foil,
            foil_label="" if target.foil is None else names[target.foil],
            place=text.place,
        )
