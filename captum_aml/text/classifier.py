"""A Hugging Face sequence classifier with its tokenizer, as one callable on token ids."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from captum_aml.exceptions import InvalidInputError
from captum_aml.text.encoding import (
    BaselineToken,
    TextBatch,
    TokenizedText,
    baseline_token,
    collate,
    reference_ids,
    require_offsets,
    tokenize,
)
from captum_aml.text.loading import load_classifier, resolve_device

# Tokenizers without a limit of their own report a number of about 1e30.
_NO_LIMIT = 10**9


class TextClassifier:
    """A sequence-classification model and its tokenizer.

    Calling it gives logits for token ids, which makes it a forward function for Captum:
    ``classifier(ids, attention_mask, ...) -> logits (N, C)``. Nothing of the model is changed.

    Args:
        model: A sequence-classification model with two classes or more.
        tokenizer: Its fast tokenizer.
        baseline (str, optional): The vocabulary entry that stands for a removed token. Default:
            None, the first that the tokenizer has of: mask, unknown, padding, end of sequence.
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
        require_offsets(tokenizer)
        self.model = model
        self.tokenizer = tokenizer
        _check_belong_together(model, tokenizer)
        self._baseline = baseline_token(tokenizer, baseline)
        self._max_length = self._checked_length(max_length)
        accepted = inspect.signature(model.forward).parameters
        self._extra_inputs = tuple(
            name
            for name in tokenizer.model_input_names
            if name not in ("input_ids", "attention_mask") and name in accepted
        )
        # `forward` takes them by position: this tells those who look for an argument by its name.
        self.__signature__ = _signature(self._extra_inputs)

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        *,
        device: str | torch.device = "auto",
        baseline: str | None = None,
        max_length: int | None = None,
    ) -> TextClassifier:
        """Loads a model and its tokenizer, in float32, for evaluation and without gradients.

        Code that comes with a model is never run.

        Args:
            source: A local folder or a hub id.
            device: A torch device, or "auto": CUDA where there is one, else Apple's MPS, else
                the CPU. Default: "auto".
            baseline (str, optional): See the class.
            max_length (int, optional): See the class.

        Raises:
            InvalidInputError: There is no such model, it is damaged, it is no sequence
                classifier, or the device is not there.
        """
        torch_device = resolve_device(device)
        model, tokenizer = load_classifier(os.fspath(source))
        model.eval().requires_grad_(False).to(torch_device)
        return cls(model, tokenizer, baseline=baseline, max_length=max_length)

    @property
    def embedding_layer(self) -> nn.Module:
        """The layer that turns token ids into embeddings."""
        layer = self.model.get_input_embeddings()
        assert isinstance(layer, nn.Module)
        return layer

    @property
    def device(self) -> torch.device:
        """Where token ids have to be."""
        return next(self.embedding_layer.parameters()).device

    @property
    def baseline(self) -> BaselineToken:
        """The token that stands for a removed one."""
        return self._baseline

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names of the C classes, in order."""
        names = {int(index): name for index, name in (self.model.config.id2label or {}).items()}
        return tuple(names.get(i, f"LABEL_{i}") for i in range(self.n_classes))

    @property
    def n_classes(self) -> int:
        """The number of classes C."""
        return _n_outputs(self.model)

    @property
    def max_length(self) -> int | None:
        """The most tokens of a text, special ones included; None where there is no limit."""
        return self._max_length

    def _checked_length(self, wanted: int | None) -> int | None:
        limit = _most_tokens(self.model, self.tokenizer)
        if wanted is None:
            return limit
        least = int(self.tokenizer.num_special_tokens_to_add()) + 1
        if not least <= wanted <= (limit or wanted):
            raise InvalidInputError(
                f"max_length: expected {least} to {limit or 'any number of'} tokens, got {wanted}"
            )
        return wanted

    def __call__(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, *extra_inputs: Tensor
    ) -> Tensor:
        """See ``forward``."""
        return self.forward(input_ids, attention_mask, *extra_inputs)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, *extra_inputs: Tensor
    ) -> Tensor:
        """Logits for token ids.

        Args:
            input_ids: (N, L).
            attention_mask (Tensor, optional): (N, L), 1 where there is a token. Default: None,
                tokens everywhere.
            *extra_inputs: What else the model takes, (N, L) each, in the order of
                ``TextBatch.forward_args``.

        Returns:
            Logits (N, C).
        """
        named = dict(zip(self._extra_inputs, extra_inputs, strict=False))
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, **named)
        logits = output.logits
        assert isinstance(logits, Tensor)
        return logits

    def tokenize(self, texts: Sequence[str]) -> list[TokenizedText]:
        """Tokenizes texts, cut to what the model takes."""
        return tokenize(self.tokenizer, texts, max_length=self.max_length)

    def collate(self, texts: Sequence[TokenizedText]) -> TextBatch:
        """Pads tokenized texts into one batch on the model's device."""
        batch = collate(self.tokenizer, texts, extra_inputs=self._extra_inputs)
        return batch.to(self.device)

    def reference_ids(self, batch: TextBatch) -> Tensor:
        """The batch's ids (N, L) with every ordinary token replaced by the baseline token."""
        return reference_ids(batch, self._baseline)

    def class_index(self, target: int | str) -> int:
        """The index of a class given by its name or its index.

        A name goes first: with classes named "1" and "5", the string "1" is the first class.

        Raises:
            InvalidInputError: The model has no such class.
        """
        names = self.label_names
        if isinstance(target, str) and target in names:
            return names.index(target)
        try:
            index = int(target)
        except ValueError:
            raise InvalidInputError(
                f"target: expected one of the labels {', '.join(names)} or an index from 0 to "
                f"{self.n_classes - 1}, got {target!r}"
            ) from None
        if not 0 <= index < self.n_classes:
            raise InvalidInputError(
                f"target: expected an index from 0 to {self.n_classes - 1} "
                f"({', '.join(names)}), got {index}"
            )
        return index

    def predict(self, texts: Sequence[str], *, batch_size: int = 32) -> Tensor:
        """Class probabilities, in batches of similar length.

        Returns:
            Probabilities (N, C) on the CPU, in the order of ``texts``.
        """
        tokenized = self.tokenize(texts)
        order = sorted(range(len(tokenized)), key=lambda i: len(tokenized[i]))
        probabilities = torch.empty(len(tokenized), self.n_classes)
        with self.evaluating(), torch.no_grad():
            for start in range(0, len(order), batch_size):
                rows = order[start : start + batch_size]
                batch = self.collate([tokenized[row] for row in rows])
                logits = self(batch.input_ids, *batch.forward_args)
                probabilities[rows] = logits.float().softmax(dim=-1).cpu()
        return probabilities

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Holds the model in evaluation mode and gives every module its own mode back."""
        training = [module for module in self.model.modules() if module.training]
        self.model.eval()
        try:
            yield
        finally:
            for module in training:
                module.training = True


def _check_belong_together(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    entries = len(tokenizer)
    if entries <= len(set(tokenizer.all_special_ids)):
        raise InvalidInputError(
            "tokenizer: expected a vocabulary, got special tokens only; are its files beside the "
            "model's?"
        )
    table = model.get_input_embeddings()
    n_embeddings = getattr(table, "num_embeddings", None)
    if n_embeddings is not None and entries > n_embeddings:
        raise InvalidInputError(
            f"tokenizer: expected at most the {n_embeddings} entries the model has embeddings "
            f"for, got {entries}; does it belong to this model?"
        )
    if _n_outputs(model) < 2:
        raise InvalidInputError(
            "model: expected a classifier with two classes or more, got one with a single output"
        )
    if getattr(model.config, "problem_type", None) == "multi_label_classification":
        raise InvalidInputError(
            "model: expected a classifier whose classes exclude each other, got one with "
            "independent labels (problem_type 'multi_label_classification')"
        )


def _signature(extra_inputs: Sequence[str]) -> inspect.Signature:
    """That of ``forward``, with the names of the model's further inputs."""
    kind, rest = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.VAR_POSITIONAL
    return inspect.Signature(
        [
            inspect.Parameter("input_ids", kind),
            *(inspect.Parameter(n, kind, default=None) for n in ("attention_mask", *extra_inputs)),
            inspect.Parameter("others", rest),
        ]
    )


def _n_outputs(model: PreTrainedModel) -> int:
    return int(model.config.num_labels or 0)


def _most_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The most tokens that a model takes, special ones included; None where there is no limit."""
    limits = [int(tokenizer.model_max_length)]
    positions = getattr(model.config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        # RoBERTa and its kin number positions from the padding index plus one.
        padding = _position_padding(model)
        limits.append(positions if padding is None else positions - padding - 1)
    limit = min(limits)
    return limit if limit < _NO_LIMIT else None


def _position_padding(model: PreTrainedModel) -> int | None:
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return module.padding_idx
    return None
