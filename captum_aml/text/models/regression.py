"""Regression: a single value for a text, or for a pair of texts as of rerankers."""

from __future__ import annotations

from transformers import PreTrainedConfig

from captum_aml.text.models.base import TextOutput
from captum_aml.text.models.classifier import TextClassifier
from captum_aml.text.models.registry import register_text_model

_DEFAULT_NAME = "LABEL_0"


@register_text_model
class TextRegressor(TextClassifier):
    """A sequence model with a single output, and its tokenizer: the output itself is explained.

    Regression models, rerankers (cross-encoders) that score a query and a passage, reward models.
    The value is the model's own output, before any sigmoid: what its order depends on.

    Args:
        model: A sequence-classification model with one output.
        tokenizer: Its fast tokenizer.
        baseline (str, optional): See :class:`TextModel`.
        max_length (int, optional): See :class:`TextModel`.

    Raises:
        InvalidInputError: The model has no head or several outputs, or see :class:`TextModel`.
    """

    task = "text-regression"
    output: TextOutput = "value"
    least_outputs = 1
    single_output = True

    @classmethod
    def is_for(cls, config: PreTrainedConfig | None) -> bool:
        """Whether the model has a single output."""
        labels = getattr(config, "num_labels", None)
        return labels == 1 and getattr(config, "problem_type", None) != "multi_label_classification"

    @property
    def label_names(self) -> tuple[str, ...]:
        """The output's name, "score" where the model has none."""
        name = super().label_names[0]
        return ("score" if name == _DEFAULT_NAME else name,)
