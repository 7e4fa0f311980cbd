"""Multiple choice: which of several options follows a context, or answers a question."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from captum_aml._utils.rows import shown
from captum_aml.exceptions import InvalidInputError
from captum_aml.text.encoding import TokenizedText
from captum_aml.text.inputs import Text, TextLike
from captum_aml.text.models.labels import class_names
from captum_aml.text.models.loading import load_multiple_choice
from captum_aml.text.models.registry import register_text_model
from captum_aml.text.models.stacked import Sequenced, StackedTextModel
from captum_aml.text.models.targets import TargetsLike


@register_text_model
class MultipleChoiceModel(StackedTextModel):
    r"""A multiple-choice model and its tokenizer: the option that it chooses is explained.

    A text is a context with its options, ``(context, [option, ...])``, or ``(context, question,
    [option, ...])``, or a row of a data set that has them; see
    :func:`captum_aml.text.choices.choice_of`. The model gives each of the :math:`R` options a
    number :math:`z_r` from the pair of the context and the option, which the question precedes, and

    .. math:: p_r = \frac{\exp z_r}{\sum_s \exp z_s}

    is explained: context and question by what they do to it through all pairs at once, and each
    option by its own tokens. The labels of a text are its options as they are written; a contrast
    of two of them explains :math:`z_a - z_b`. A pass over a text is one over its R pairs.

    Args:
        model: A multiple-choice model.
        tokenizer: Its fast tokenizer.
        baseline (str, optional): See :class:`TextModel`.
        max_length (int, optional): Each pair is cut to this many tokens. Default: None, to what
            the model takes.

    Raises:
        InvalidInputError: The model is no multiple-choice model, or see :class:`TextModel`.

    Examples:
        >>> explainer = TextExplainer("path/to/multiple-choice-model")
        >>> explainer(("The man put on his coat.", ["He went out.", "He swam."]))[0].target_label
        'He went out.'
    """

    task = "multiple-choice"
    architectures = ("ForMultipleChoice",)

    @staticmethod
    def load(source: str, *, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Loads a multiple-choice model and its tokenizer from a folder or the hub."""
        return load_multiple_choice(source, dtype=dtype)

    @property
    def label_names(self) -> tuple[str, ...]:
        """(): each text has its own options."""
        return ()

    def check_targets(self, asked: TargetsLike) -> None:
        """Passes everything: each text has its own options."""

    def sequences(self, text: Text) -> list[Sequenced]:
        """The pairs of the context and each option.

        Raises:
            InvalidInputError: The text has no options.
        """
        if not text.n_options:
            raise InvalidInputError(
                "texts: expected a context with its options, such as ('a context', ['an option', "
                "'another']) (on the command line: --file with columns such as 'context' and "
                f"'choices', or 'ending0' and 'ending1'), got {shown(text.text)}"
            )
        parts = [
            (string, start) for string, (start, _) in zip(text.pieces, text.parts, strict=True)
        ]
        context, *question = parts[: -text.n_options]
        before = [(question[0]), (" ", None)] if question else []
        return [Sequenced.of([context], [*before, option]) for option in parts[-text.n_options :]]

    def tokenize(self, texts: Iterable[TextLike]) -> list[TokenizedText]:
        """Tokenizes contexts with their options, which are their labels; see the base class."""
        return [replace(text, labels=_options(text)) for text in super().tokenize(texts)]

    def run(self, input_ids: Tensor, attention_mask: Tensor, *extra_inputs: Tensor) -> Tensor:
        """A number for each pair, (N R,)."""
        mask = attention_mask
        # The model flattens masks to two dimensions, so an additive one goes to its encoder itself.
        if mask.dim() == 4:
            mask = torch.ones_like(input_ids)
        given = zip(self._extra_inputs, extra_inputs, strict=False)
        named: dict[str, Any] = {name: values[:, None] for name, values in given}
        with _masked_by(self.model.base_model, attention_mask):
            output = self.model(input_ids=input_ids[:, None], attention_mask=mask[:, None], **named)
        logits = output.logits
        assert isinstance(logits, Tensor)
        return logits[:, 0]

    def joined(self, found: Tensor) -> Tensor:
        """The numbers of the options, (N, R)."""
        return found


def _options(text: TokenizedText) -> tuple[str, ...]:
    n = len(text.sequences)
    return class_names([text.text[slice(*span)] for span in text.parts[-n:]], n)


@contextmanager
def _masked_by(encoder: nn.Module, attention_mask: Tensor) -> Iterator[None]:
    """While open, an encoder gets this attention mask."""

    # The model's own arguments, of any type.
    def replaced(_: nn.Module, args: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, {**named, "attention_mask": attention_mask}

    handle = encoder.register_forward_pre_hook(replaced, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
