"""A model and its tokenizer: a forward function on token ids, and the way there from texts."""

from __future__ import annotations

import inspect
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from typing_extensions import Self

from captum_aml._utils.batching import length_batches
from captum_aml._utils.isolation import evaluating
from captum_aml.exceptions import InvalidInputError
from captum_aml.text.encoding import (
    BaselineToken,
    TextBatch,
    TokenizedText,
    baseline_ids,
    baseline_token,
    collate,
    require_offsets,
    tokenize,
)
from captum_aml.text.inputs import TextLike
from captum_aml.text.models.labels import class_index
from captum_aml.text.models.loading import load_classifier, resolve_device
from captum_aml.text.models.template import PromptConfig

_Kind = TypeVar("_Kind", bound="TextModel")


class TextModel(ABC):
    """A model and its tokenizer as a forward function of token ids that tells classes apart.

    Calling it gives logits for token ids, which makes it a forward function for Captum:
    ``text_model(ids, attention_mask, ...) -> logits (N, C)``. Nothing of the model is changed.

    Args:
        model: The model.
        tokenizer: Its fast tokenizer.
        baseline (str, optional): The vocabulary entry that stands for a removed token. Default:
            None, the first that the tokenizer has of: mask, unknown, end of sequence, padding.
        max_length (int, optional): Texts are cut to this many tokens, everything that is added to
            them included. Default: None, to what the model takes.

    Attributes:
        model: The model.
        tokenizer: Its tokenizer.
        baseline: The token that stands for a removed one.
        max_length: The most tokens, everything included; None where there is no limit.

    Raises:
        InvalidInputError: The tokenizer gives no offsets or has more entries than the model has
            embeddings, or ``max_length`` leaves no room for a token of the text or is more than
            the model takes.
    """

    #: The end of the names of the model classes it is for, such as "ForQuestionAnswering", where
    #: it is registered; "" for models that no other registered class is for.
    architecture: ClassVar[str] = ""
    #: Whether it is for models with a prompt, or for those without.
    takes_prompt: ClassVar[bool] = False
    #: Template and label words of a model that is prompted.
    prompt_config: PromptConfig | None = None

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
        self.baseline: BaselineToken = baseline_token(tokenizer, baseline)
        least = int(tokenizer.num_special_tokens_to_add()) + 1
        self.max_length = checked_length(model, tokenizer, max_length, least=least)
        self._accepted = frozenset(inspect.signature(model.forward).parameters)
        #: What the model takes beside ids and attention mask, of what the tokenizer gives.
        self._extra_inputs = tuple(
            name
            for name in tokenizer.model_input_names
            if name not in ("input_ids", "attention_mask") and name in self._accepted
        )
        # `forward` takes them by position: this tells those who look for an argument by its name.
        self.__signature__ = _signature(self._extra_inputs)

    @staticmethod
    def load(source: str, *, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Loads a model of this kind and its tokenizer from a folder or the hub."""
        return load_classifier(source, dtype=dtype)

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        *args: Any,  # the constructor's, whose types differ from class to class
        device: str | torch.device = "auto",
        dtype: torch.dtype = torch.float32,
        **options: Any,
    ) -> Self:
        """Loads a model and its tokenizer, for evaluation and without gradients.

        Code that comes with a model is never run.

        Args:
            source: A local folder or a hub id.
            *args: What the class takes after model and tokenizer.
            device: A torch device, or "auto": CUDA where there is one, else Apple's MPS, else
                the CPU. Default: "auto".
            dtype: The precision of the weights. Default: float32.
            **options: The keyword arguments of the class.

        Raises:
            InvalidInputError: There is no such model, it is damaged, it is of another kind, the
                device is not there, or see the class.
        """
        inspect.signature(cls).bind(None, None, *args, **options)
        place = resolve_device(device)
        model, tokenizer = cls.load(os.fspath(source), dtype=dtype)
        model.eval().requires_grad_(False).to(place)
        return cls(model, tokenizer, *args, **options)

    @property
    @abstractmethod
    def label_names(self) -> tuple[str, ...]:
        """The names of the C classes, in order."""

    @abstractmethod
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

    def __call__(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, *extra_inputs: Tensor
    ) -> Tensor:
        """See ``forward``."""
        return self.forward(input_ids, attention_mask, *extra_inputs)

    @property
    def is_decoder(self) -> bool:
        """Whether tokens attend only to those before them, or text is generated."""
        return False

    @property
    def settings(self) -> dict[str, str]:
        """Settings beside the weights that decide the logits, as plain values; {} for none."""
        return {}

    @property
    def embedding_layer(self) -> nn.Module:
        """The layer that turns token ids into embeddings."""
        layer = self.model.get_input_embeddings()
        assert isinstance(layer, nn.Module)
        return layer

    @property
    def device(self) -> torch.device:
        """The device for token ids."""
        layer = self.embedding_layer
        # Of a model with a device map: where the layer runs, which need not be where weights wait.
        runs_on = getattr(getattr(layer, "_hf_hook", None), "execution_device", None)
        return next(layer.parameters()).device if runs_on is None else torch.device(runs_on)

    @property
    def n_classes(self) -> int:
        """The number of classes C."""
        return len(self.label_names)

    def tokenize(self, texts: Iterable[TextLike]) -> list[TokenizedText]:
        """Tokenizes texts, cut to what the model takes.

        Raises:
            InvalidInputError: A text has none of the forms, or ``max_length`` leaves no room for a
                token of a pair.
        """
        return tokenize(self.tokenizer, texts, max_length=self.max_length)

    def collate(self, texts: Sequence[TokenizedText]) -> TextBatch:
        """Pads tokenized texts into one batch on the model's device."""
        return collate(
            self.tokenizer,
            texts,
            extra_inputs=self._extra_inputs,
            # Positions count from the left: padding there would move the tokens of many models.
            padding_side="right",
            device=self.device,
        )

    def baselines(self, batch: TextBatch) -> Tensor:
        """The batch's ids (N, L) with every maskable token replaced by the baseline token."""
        return baseline_ids(batch, self.baseline)

    # Keyword arguments of ``attribute``, of several types.
    def arguments(self, batch: TextBatch) -> dict[str, Any]:
        """The keyword arguments of ``attribute`` and ``fit`` for a batch."""
        return {
            "inputs": batch.input_ids,
            "baselines": self.baselines(batch),
            "additional_forward_args": batch.forward_args,
        }

    def class_index(self, target: int | str) -> int:
        """The index of a class given by its name or its index.

        A name goes first: with classes named "1" and "5", the string "1" is the first class.

        Raises:
            InvalidInputError: The model has no such class, or several of that name.
        """
        return class_index(target, self.label_names)

    def predict(self, texts: Iterable[TextLike], *, batch_size: int = 32) -> Tensor:
        """Class probabilities, in batches of similar length.

        Returns:
            Probabilities (N, C) on the CPU, in the order of ``texts``.
        """
        tokenized = self.tokenize(texts)
        probabilities = torch.empty(len(tokenized), self.n_classes)
        with self.evaluating(), torch.no_grad():
            for rows in length_batches(tokenized, batch_size):
                batch = self.collate([tokenized[row] for row in rows])
                logits = self(batch.input_ids, *batch.forward_args)
                probabilities[rows] = logits.float().softmax(dim=-1).cpu()
        return probabilities

    def evaluating(self) -> AbstractContextManager[None]:
        """Holds the model in evaluation mode and gives every module its own mode back."""
        return evaluating(self.model)


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
    own, its = getattr(model.config, "pad_token_id", None), tokenizer.pad_token_id
    padding_idx = getattr(table, "padding_idx", None)
    if padding_idx is not None and own is not None and its is not None and own != its:
        # Not an error: such models exist, and the attention mask hides what padding looks like.
        warnings.warn(
            f"tokenizer: its padding token has the id {its}, the model's {own}; does it belong to "
            "this model?",
            stacklevel=4,
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


def checked_length(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    wanted: int | None,
    *,
    least: int,
    n_reserved: int = 0,
) -> int | None:
    """The most tokens that texts are cut to, special ones included; None where there is no limit.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        wanted: The number that the user gives; None for what the model takes.
        least: The fewest tokens with one of the text.
        n_reserved: The positions of the model that its inputs have to leave free. Default: 0.

    Raises:
        InvalidInputError: The number is below the least, or above what the model takes.
    """
    limits = [int(tokenizer.model_max_length)]
    positions = getattr(model.config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        # RoBERTa and its kin number positions from the padding index plus one.
        tables = (
            module.padding_idx
            for name, module in model.named_modules()
            if name.endswith("position_embeddings") and isinstance(module, nn.Embedding)
        )
        padding = next(tables, None)
        limits.append(positions if padding is None else positions - padding - 1)
    # Tokenizers without a limit of their own report a number of about 1e30.
    limit = None if min(limits) >= 10**9 else min(limits) - n_reserved
    if wanted is not None and not least <= wanted <= (limit or wanted):
        raise InvalidInputError(
            f"max_length: expected {least} to {limit or 'any number of'} tokens, got {wanted}"
        )
    return limit if wanted is None else wanted


_KINDS: list[type[TextModel]] = []


def register_text_model(kind: type[_Kind]) -> type[_Kind]:
    """Makes a class of text models known to ``TextExplainer`` and the command line; a decorator.

    Its constructor takes what that of ``TextModel`` does, and with ``takes_prompt`` the fields of a
    ``PromptConfig``.

    Raises:
        InvalidInputError: There is a class for the same models.
    """
    same = [known for known in _KINDS if known.takes_prompt == kind.takes_prompt]
    if any(known.architecture == kind.architecture for known in same):
        raise InvalidInputError(
            f"kind: expected another architecture than {kind.architecture!r}, which has one"
        )
    _KINDS.append(kind)
    return kind


def text_model_kind(
    architectures: Callable[[], Sequence[str]], *, takes_prompt: bool
) -> type[TextModel]:
    """The class for a model, the one with the longest end of its class's name.

    Args:
        architectures: Gives the names of the model's class; called only where they matter.
        takes_prompt: Whether there is a prompt.
    """
    kinds = [kind for kind in _KINDS if kind.takes_prompt == takes_prompt]
    if any(kind.architecture for kind in kinds):
        names = tuple(architectures())
        kinds = [k for k in kinds if any(name.endswith(k.architecture) for name in names or ("",))]
    return max(kinds, key=lambda kind: len(kind.architecture))
