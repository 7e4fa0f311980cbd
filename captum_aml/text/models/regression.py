"""Regression: a single value for a text, or for a pair of texts as of rerankers."""

from __future__ import annotations

from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from captum_aml.exceptions import InvalidInputError
from captum_aml.text.models.base import TextOutput
from captum_aml.text.models.classifier import TextClassifier
from captum_aml.text.models.labels import listed
from captum_aml.text.models.registry import register_text_model

_DEFAULT_NAME = "LABEL_0"


@register_text_model
class TextRegressor(TextClassifier):
    """A sequence model whose output is a value, and its tokenizer: the output itself is explained.

    Regression models, rerankers (cross-encoders) that score a query and a passage, reward models.
    The value is the model's own output, before any sigmoid: what its order depends on. Of several
    outputs, as of valence, arousal and dominance, one is explained, whichever ``label`` names.

    Args:
        model: A sequence-classification model.
        tokenizer: Its fast tokenizer.
        label (str or int, optional): The output's name or index. Default: None, the only one.
        baseline (str, optional): See :class:`TextModel`.
        max_length (int, optional): See :class:`TextModel`.

    Raises:
        InvalidInputError: The model has no head, or several outputs and ``label`` names none of
            them, or see :class:`TextModel`.

    Examples:
        >>> arousal = TextRegressor.from_pretrained("path/to/emotions", label="arousal")
        >>> TextExplainer(arousal)("What a day!")[0].value
    """

    task = "text-regression"
    output: TextOutput = "value"
    least_outputs = 1

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        label: str | int | None = None,
        baseline: str | None = None,
        max_length: int | None = None,
    ) -> None:
        super().__init__(model, tokenizer, baseline=baseline, max_length=max_length)
        names = super().label_names
        places: dict[str | int | None, int] = {name: place for place, name in enumerate(names)}
        places.update((place, place) for place in range(len(names)))
        if len(names) == 1:
            places[None] = 0
        if label not in places:
            raise InvalidInputError(
                f"model: expected one with a single output, got {len(names)}, of which one is "
                "explained; in place of the model give TextRegressor(model, tokenizer, label=...) "
                f"with one of {listed(names)}, got {label!r}"
            )
        self._index = places[label]

    @classmethod
    def is_for(cls, config: PreTrainedConfig | None) -> bool:
        """Whether the model's outputs are values: those of a regression, or a single one."""
        problem = getattr(config, "problem_type", None)
        single = getattr(config, "num_labels", None) == 1
        return problem == "regression" or (single and problem != "multi_label_classification")

    @property
    def settings(self) -> dict[str, str]:
        """Settings beside the weights that decide the output: which of several it is."""
        several = {"label": super().label_names[self._index]} if self._n_outputs > 1 else {}
        return {**super().settings, **several}

    @property
    def label_names(self) -> tuple[str, ...]:
        """The output's name, "score" where the model has a single one without a name."""
        name = super().label_names[self._index]
        return ("score" if name == _DEFAULT_NAME and self._n_outputs == 1 else name,)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, *extra_inputs: Tensor
    ) -> Tensor:
        """The output for token ids, (N, 1), see :meth:`TextModel.forward`."""
        outputs = super().forward(input_ids, attention_mask, *extra_inputs)
        return outputs[:, self._index : self._index + 1]
