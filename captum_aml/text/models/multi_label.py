"""Multi-label classification: each label by itself."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from captum_aml.exceptions import InvalidInputError
from captum_aml.text.encoding import TokenizedText
from captum_aml.text.models.base import Question, TextModel, TextOutput
from captum_aml.text.models.classifier import TextClassifier
from captum_aml.text.models.registry import register_text_model
from captum_aml.text.models.targets import Target, TargetsLike


@register_text_model
class MultiLabelClassifier(TextClassifier):
    """A sequence classifier whose labels do not exclude each other, and its tokenizer.

    The probability of a label is the sigmoid of its own output. By default every label with a
    probability of at least the threshold is explained, the likeliest one where there is none.

    Args:
        model: A sequence-classification model.
        tokenizer: Its fast tokenizer.
        threshold: The least probability of a label that is explained by default. Default: 0.5.
        baseline (str, optional): See :class:`TextModel`.
        max_length (int, optional): See :class:`TextModel`.

    Raises:
        InvalidInputError: The model has no classification head, the threshold is no probability,
            or see :class:`TextModel`.
    """

    task = "multi-label-classification"
    output: TextOutput = "independent_logits"
    least_outputs = 1

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        threshold: float = 0.5,
        baseline: str | None = None,
        max_length: int | None = None,
    ) -> None:
        self.threshold = checked_threshold(threshold)
        super().__init__(model, tokenizer, baseline=baseline, max_length=max_length)

    @classmethod
    def is_for(cls, config: PreTrainedConfig | None) -> bool:
        """Whether the model was trained on several labels of a text."""
        return getattr(config, "problem_type", None) == "multi_label_classification"

    def questions(
        self,
        texts: Sequence[TokenizedText],
        targets: Sequence[TargetsLike],
        *,
        batch_size: int = 32,
    ) -> list[list[Question]]:
        """The labels above the threshold where none are asked for, likeliest first."""
        asked = super().questions(texts, targets, batch_size=batch_size)
        return likely_labels(self, asked, targets, self.threshold, batch_size=batch_size)


def checked_threshold(threshold: float) -> float:
    """A probability that a label has at least.

    Raises:
        InvalidInputError: It is no probability.
    """
    if not 0 <= threshold <= 1:
        raise InvalidInputError(f"threshold: expected a number from 0 to 1, got {threshold!r}")
    return threshold


def likely_labels(
    text_model: TextModel,
    questions: Sequence[list[Question]],
    targets: Sequence[TargetsLike],
    threshold: float,
    *,
    batch_size: int,
) -> list[list[Question]]:
    """Questions about the likely labels of those texts for which none are asked for.

    Args:
        text_model: The model, whose labels do not exclude each other.
        questions: One question for each text.
        targets: What is asked of each.
        threshold: The least probability of a likely label; the likeliest one is always one.
        batch_size: The most texts in a pass.
    """
    numbers = [number for number, asked in enumerate(targets) if asked is None]
    completed = list(questions)
    texts = [questions[number][0].text for number in numbers]
    found = text_model.read(text_model.outputs(texts, batch_size=batch_size)) if numbers else ()
    for number, text, probabilities in zip(numbers, texts, found, strict=True):
        order = probabilities.argsort(descending=True, stable=True).tolist()
        likely = [label for label in order if probabilities[label] >= threshold] or order[:1]
        completed[number] = [Question(text, tuple(Target(label) for label in likely))]
    return completed
