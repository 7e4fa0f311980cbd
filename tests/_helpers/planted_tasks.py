"""Every task with a model of its own and texts whose deciding words are known."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from captum_aml.text import (
    Explanation,
    MaskedPromptClassifier,
    PromptClassifier,
    TextExplainer,
    TextGenerator,
    TextModel,
    ZeroShotClassifier,
)
from tests._helpers import planted_models as models
from tests._helpers import planted_texts as texts
from tests._helpers.planted_texts import COLOURS, INKS, PRONOUNS, Draw, Planted


@dataclass(frozen=True)
class PlantedTask:
    """A model, and texts for it.

    Attributes:
        explained: What ``TextExplainer`` takes: a model and its tokenizer, or a text model.
        draw: Draws a text.
        contrast: Whether it is asked why the outcome and not the text's foil.
        target: What else is asked.
        task: The name of the task, where the model does not tell.
        slow: Whether others stand for it where time is short.
    """

    explained: Callable[[], models.Trained | tuple[TextModel]]
    draw: Draw
    contrast: bool = False
    target: str | None = None
    task: str | None = None
    slow: bool = False

    def texts(self, n: int = 60) -> list[Planted]:
        """Texts that no model was trained on by intent."""
        draw = random.Random(1)
        return [self.draw(draw) for _ in range(n)]

    def explanations(
        self, drawn: Sequence[Planted], *, method: str | None = None
    ) -> list[Explanation]:
        """Explanations of texts."""
        explainer = TextExplainer(*self.explained(), task=self.task, method=method)
        asked = [(each.said, each.foil) for each in drawn] if self.contrast else self.target
        return explainer([each.text for each in drawn], target=asked)


def hit_rate(drawn: Sequence[Planted], explanations: Sequence[Explanation]) -> float:
    """How often the deciding words have the highest scores, of all outcomes that should be said.

    Of a value these are the scores furthest from 0.
    """
    hits = expected = 0
    for row, each in enumerate(drawn):
        expected += len(each.deciding)
        for explanation in explanations:
            if explanation.row == row and explanation.target_label in each.deciding:
                words = each.deciding[explanation.target_label]
                hits += highest(explanation, len(words)) == sorted(words)
    return hits / expected


def highest(explanation: Explanation, n: int) -> list[str]:
    """The words with the n highest scores, by the alphabet."""
    size = abs if explanation.value is not None else float
    ranked = sorted(
        zip(explanation.tokens, explanation.scores, strict=True),
        key=lambda scored: -size(scored[1]),
    )
    return sorted(word for word, _ in ranked[:n])


def _labels() -> tuple[TextModel]:
    return (ZeroShotClassifier(*models.inference(), template="{}", labels=INKS),)


def _masked_prompt() -> tuple[TextModel]:
    words = list(PRONOUNS.values())
    return (MaskedPromptClassifier(*models.filler(), template="{text} [MASK]", labels=words),)


def _prompt(trained: models.Trained) -> tuple[TextModel]:
    labels = {colour.upper(): colour.upper() for colour in COLOURS}
    return (PromptClassifier(*trained, template="{text}", labels=labels),)


def _writing(trained: models.Trained) -> tuple[TextModel]:
    return (TextGenerator(*trained, max_new_tokens=5),)


TASKS = {
    "classes": PlantedTask(models.classifier, texts.opinion),
    "classes, decoder with a head": PlantedTask(models.decoder_classifier, texts.opinion),
    "classes, contrast": PlantedTask(models.classifier, texts.opinion, contrast=True),
    "several labels": PlantedTask(models.multi_label, texts.topics),
    "value": PlantedTask(models.regressor, texts.values),
    "value of pairs": PlantedTask(models.reranker, texts.relevance),
    "pairs": PlantedTask(models.inference, texts.pair),
    "pairs, contrast": PlantedTask(models.inference, texts.pair, contrast=True, slow=True),
    "entities": PlantedTask(models.tagger, texts.tagged),
    "entities, contrast": PlantedTask(models.tagger, texts.tagged, contrast=True),
    "answers": PlantedTask(models.answerer, texts.asked),
    "answers, contrast": PlantedTask(models.answerer, texts.asked, contrast=True),
    "labels of one's own": PlantedTask(_labels, texts.colour),
    "labels of one's own, contrast": PlantedTask(_labels, texts.colour, contrast=True, slow=True),
    "word at a mask": PlantedTask(models.filler, texts.blank),
    "word at a mask, contrast": PlantedTask(models.filler, texts.blank, contrast=True),
    "prompt with a mask": PlantedTask(_masked_prompt, texts.title),
    "options": PlantedTask(models.chooser, texts.choice),
    "options, contrast": PlantedTask(models.chooser, texts.choice, contrast=True, slow=True),
    "similarity": PlantedTask(models.bi_encoder, texts.alike, task="sentence-similarity"),
    "prompt": PlantedTask(lambda: _prompt(models.writer()), texts.coloured_prompt),
    "prompt, encoder-decoder": PlantedTask(
        lambda: _prompt(models.translator()), texts.coloured_prompt
    ),
    "writing": PlantedTask(lambda: _writing(models.writer()), texts.prompt, target="all"),
    "writing, contrast": PlantedTask(
        lambda: _writing(models.writer()), texts.coloured_prompt, contrast=True
    ),
    "writing, encoder-decoder": PlantedTask(
        lambda: _writing(models.translator()), texts.prompt, target="all"
    ),
}
