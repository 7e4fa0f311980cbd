"""A Hugging Face sequence classifier with its tokenizer, as one callable on token ids."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from captum_aml.exceptions import InvalidInputError
from captum_aml.text._causal import last_tokens, positions, shown_tokens
from captum_aml.text._template import PromptConfig
from captum_aml.text.loading import load_classifier, resolve_device
from captum_aml.text.model import TextModel, TextModelKind, register_text_model


class TextClassifier(TextModel):
    """A sequence-classification model, encoder or decoder, and its tokenizer.

    Calling it gives logits for token ids, which makes it a forward function for Captum:
    ``classifier(ids, attention_mask, ...) -> logits (N, C)``. Nothing of the model is changed.

    A decoder's class is read at the last token that the attention mask shows, whichever side the
    padding is on, whatever its id, and also without a padding token.

    Args:
        model: A sequence-classification model with two classes or more.
        tokenizer: Its fast tokenizer.
        baseline (str, optional): The vocabulary entry that stands for a removed token. Default:
            None, the first that the tokenizer has of: mask, unknown, end of sequence, padding.
        max_length (int, optional): Texts are cut to this many tokens, special ones included.
            Default: None, to what the model takes.

    Raises:
        InvalidInputError: The tokenizer gives no offsets or has more entries than the model has
            embeddings, the model has a single output or independent labels, or ``max_length``
            leaves no room for a token of the text or is more than the model takes.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        baseline: str | None = None,
        max_length: int | None = None,
    ) -> None:
        _check_classifies(model)
        self._scores = _scores_of_tokens(model)
        self._takes_positions = "position_ids" in inspect.signature(model.forward).parameters
        super().__init__(model, tokenizer, baseline=baseline, max_length=max_length)

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        *,
        device: str | torch.device = "auto",
        dtype: torch.dtype = torch.float32,
        baseline: str | None = None,
        max_length: int | None = None,
    ) -> TextClassifier:
        """Loads a model and its tokenizer, for evaluation and without gradients.

        Code that comes with a model is never run.

        Args:
            source: A local folder or a hub id.
            device: A torch device, or "auto": CUDA where there is one, else Apple's MPS, else
                the CPU. Default: "auto".
            dtype: The precision of the weights. Default: float32.
            baseline (str, optional): See the class.
            max_length (int, optional): See the class.

        Raises:
            InvalidInputError: There is no such model, it is damaged, it is no sequence
                classifier, or the device is not there.
        """
        torch_device = resolve_device(device)
        model, tokenizer = load_classifier(os.fspath(source), dtype=dtype)
        model.eval().requires_grad_(False).to(torch_device)
        return cls(model, tokenizer, baseline=baseline, max_length=max_length)

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names of the C classes, in order."""
        names = {int(index): name for index, name in (self.model.config.id2label or {}).items()}
        return tuple(names.get(i, f"LABEL_{i}") for i in range(_n_outputs(self.model)))

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, *extra_inputs: Tensor
    ) -> Tensor:
        """Logits for token ids.

        Args:
            input_ids: (N, L).
            attention_mask (Tensor, optional): (N, L), 1 where there is a token; or what is added
                to attention logits, (N, 1, Q, L). Default: None, tokens everywhere.
            *extra_inputs: What else the model takes, (N, L) each, in the order of
                ``TextBatch.forward_args``.

        Returns:
            Logits (N, C).
        """
        named: dict[str, Any] = dict(zip(self._extra_inputs, extra_inputs, strict=False))
        if self._scores is None:
            output = self.model(input_ids=input_ids, attention_mask=attention_mask, **named)
            logits = output.logits
            assert isinstance(logits, Tensor)
            return logits.to(input_ids.device)
        shown = shown_tokens(attention_mask, input_ids)
        if self._takes_positions and not bool(shown[:, 0].all()):
            named.setdefault("position_ids", positions(shown))
        with _padding_known(self.model.config), _outputs_of(self._scores) as outputs:
            self.model(input_ids=input_ids, attention_mask=attention_mask, **named)
        scores = outputs[-1]
        rows = torch.arange(len(input_ids), device=scores.device)
        pooled: Tensor = scores[rows, last_tokens(shown).to(scores.device)]
        return pooled.to(input_ids.device)

    @property
    def is_decoder(self) -> bool:
        """Whether tokens attend only to those before them."""
        return self._scores is not None


def _check_classifies(model: PreTrainedModel) -> None:
    if _n_outputs(model) < 2:
        raise InvalidInputError(
            "model: expected a classifier with two classes or more, got one with a single output"
        )
    if getattr(model.config, "problem_type", None) == "multi_label_classification":
        raise InvalidInputError(
            "model: expected a classifier whose classes exclude each other, got one with "
            "independent labels (problem_type 'multi_label_classification')"
        )


def _n_outputs(model: PreTrainedModel) -> int:
    return int(model.config.num_labels or 0)


def _scores_of_tokens(model: PreTrainedModel) -> nn.Module | None:
    """What gives a decoder's logits for every token; None for other models."""
    head = getattr(model, "score", None)
    decoder = isinstance(head, nn.Module) and not model.config.is_encoder_decoder
    return head if decoder else None


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


def _check_head(model: PreTrainedModel) -> None:
    name = type(model).__name__
    if model.get_output_embeddings() is not None or model.can_generate():
        raise InvalidInputError(
            f"model: {name} writes text; give template= and labels= to classify by prompt, or "
            "explain what it writes with captum_aml.LLMAMLAttribution"
        )
    if model is model.base_model:
        raise InvalidInputError(
            f"model: expected one with a classification head, got the bare {name}; load it with "
            "AutoModelForSequenceClassification"
        )


def _classifier(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: PromptConfig | None,
    *,
    baseline: str | None,
    max_length: int | None,
) -> TextClassifier:
    assert prompt is None
    _check_head(model)
    return TextClassifier(model, tokenizer, baseline=baseline, max_length=max_length)


register_text_model(TextModelKind(load=load_classifier, make=_classifier))


__all__ = ["TextClassifier"]
