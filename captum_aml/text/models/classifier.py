"""A Hugging Face sequence classifier with its tokenizer, as one callable on token ids."""

from __future__ import annotations

import inspect
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from captum_aml.exceptions import InvalidInputError
from captum_aml.text.encoding import TokenizedText
from captum_aml.text.inputs import TextLike
from captum_aml.text.models._causal import last_tokens, positions, shown_tokens
from captum_aml.text.models._ends import count_ends, end_token, with_end
from captum_aml.text.models._groups import in_groups
from captum_aml.text.models.base import TextModel
from captum_aml.text.models.labels import class_names, n_outputs
from captum_aml.text.models.registry import register_text_model
from captum_aml.text.models.wrapped import transformers_model

#: By a configuration's ``problem_type``: what outputs are then, and the class for it.
_OTHERS = {
    "multi_label_classification": ("independent labels", "MultiLabelClassifier"),
    "regression": ("values", "TextRegressor"),
}


@register_text_model
class TextClassifier(TextModel):
    """A sequence-classification model, encoder or decoder, and its tokenizer.

    A decoder's class is read at the last token that the attention mask shows, whichever side the
    padding is on, whatever its id, and also without a padding token.

    Args:
        model: A sequence-classification model with two classes or more.
        tokenizer: Its fast tokenizer.
        baseline (str, optional): See :class:`TextModel`.
        max_length (int, optional): See :class:`TextModel`.

    Raises:
        InvalidInputError: The model has no classification head, or too few outputs, or see
            :class:`TextModel`.
    """

    architectures = ("ForSequenceClassification", "")
    #: The fewest outputs of such a model.
    least_outputs: ClassVar[int] = 2

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        baseline: str | None = None,
        max_length: int | None = None,
    ) -> None:
        model = transformers_model(model)
        self._n_outputs = n_outputs(model)
        _check_classifies(model, self._n_outputs, self.least_outputs)
        problem = getattr(model.config, "problem_type", None)
        if problem in _OTHERS and self.output == "logits":
            what, kind = _OTHERS[problem]
            raise InvalidInputError(
                f"model: expected a classifier whose classes exclude each other, got one with "
                f"{what} (problem_type {problem!r}), which is for {kind}"
            )
        self._scores = _scores_of_tokens(model)
        self._end = end_token(model)
        super().__init__(model, tokenizer, baseline=baseline, max_length=max_length)

    @classmethod
    def pipeline_option(cls, name: str, value: Any) -> dict[str, Any] | None:
        """The length of texts, and whether outputs become probabilities as they do here."""
        if name == "max_length":
            return {"max_length": value}
        known = {"logits": "softmax", "independent_logits": "sigmoid", "value": "none"}
        return {} if name == "function_to_apply" and value == known[cls.output] else None

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names of the C classes, in order."""
        return class_names(self.model.config.id2label or {}, self._n_outputs)

    def tokenize(self, texts: Iterable[TextLike]) -> list[TokenizedText]:
        """Tokenizes texts, see :meth:`TextModel.tokenize`.

        Raises:
            InvalidInputError: See there; or a text lacks the token at which the model reads it.
        """
        tokenized = super().tokenize(texts)
        return tokenized if self._end is None else [with_end(t, self._end) for t in tokenized]

    @property
    def batches_any(self) -> bool:
        """Whether any texts may share a batch."""
        return self._end is None and super().batches_any

    def batch_key(self, text: TokenizedText) -> Hashable:
        """The number of tokens at which the model could read the text.

        And its length, where padding consists of these tokens, too.
        """
        if self._end is None:
            return None
        padded = self.tokenizer.pad_token_id in (None, self._end)
        return count_ends(text, self._end), len(text) if padded else None

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, *extra_inputs: Tensor
    ) -> Tensor:
        """Logits for token ids, see :meth:`TextModel.forward`."""
        if self._end is not None:
            ends = (input_ids == self._end).sum(dim=1)
            return in_groups(self._logits, ends, input_ids, attention_mask, *extra_inputs)
        if self._scores is None:
            return self._logits(input_ids, attention_mask, *extra_inputs)
        named: dict[str, Any] = dict(zip(self._extra_inputs, extra_inputs, strict=False))
        shown = shown_tokens(attention_mask, input_ids)
        if "position_ids" in self._accepted and not bool(shown[:, 0].all()):
            named.setdefault("position_ids", positions(shown))
        with _padding_known(self.model.config), _outputs_of(self._scores) as outputs:
            self.model(input_ids=input_ids, attention_mask=attention_mask, **named)
        scores = outputs[-1]
        rows = torch.arange(len(input_ids), device=scores.device)
        pooled: Tensor = scores[rows, last_tokens(shown).to(scores.device)]
        return pooled.to(input_ids.device)

    def _logits(
        self, ids: Tensor, attention_mask: Tensor | None, *extra_inputs: Tensor | None
    ) -> Tensor:
        """What the model gives as a whole."""
        named = dict(zip(self._extra_inputs, extra_inputs, strict=False))
        logits = self.model(input_ids=ids, attention_mask=attention_mask, **named).logits
        assert isinstance(logits, Tensor)
        return logits.to(ids.device)

    @property
    def is_decoder(self) -> bool:
        """Whether tokens attend only to those before them."""
        return self._scores is not None


def _check_classifies(model: PreTrainedModel, n_outputs: int, least: int) -> None:
    name = type(model).__name__
    if model.get_output_embeddings() is not None or model.can_generate():
        raise InvalidInputError(
            f"model: {name} is a language model; give template= and labels= to classify by "
            "prompt, or leave out the task to explain what it writes"
        )
    if model is model.base_model:
        raise InvalidInputError(
            f"model: expected one with a classification head, got the bare {name}; load it with "
            "AutoModelForSequenceClassification, or explain how similar it finds two texts with "
            "task='sentence-similarity'"
        )
    if n_outputs < least:
        raise InvalidInputError(
            f"model: expected one with {least} outputs or more, got {n_outputs}"
        )


def _scores_of_tokens(model: PreTrainedModel) -> nn.Module | None:
    """The module that gives a decoder's logits for every token; None for other models."""
    head = getattr(model, "score", getattr(model, "classifier", None))
    if not isinstance(head, nn.Module) or model.config.is_encoder_decoder:
        return None
    # Those of CTRL and ModernBERT's decoder are called as encoders' are, but look for padding.
    names = inspect.unwrap(type(model).forward).__code__.co_names
    return head if hasattr(model, "score") or "pad_token_id" in names else None


@contextmanager
def _outputs_of(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Collects what a layer gives while open."""
    outputs: list[Tensor] = []
    handle = layer.register_forward_hook(lambda _, __, output: outputs.append(output))
    try:
        yield outputs
    finally:
        handle.remove()


@contextmanager
def _padding_known(config: PreTrainedConfig) -> Iterator[None]:
    """Names a padding token while open: without one, decoders refuse batches.

    Which one does not matter, as what they read with its help is not used.
    """
    text_config = config.get_text_config()
    if text_config.pad_token_id is not None:
        yield
        return
    text_config.pad_token_id = 0
    try:
        yield
    finally:
        text_config.pad_token_id = None
