"""A model and its tokenizer: a forward function on token ids, and the way there from texts."""

from __future__ import annotations

import inspect
import os
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from typing_extensions import Self

from captum_aml._utils.batching import length_batches
from captum_aml._utils.isolation import evaluating
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
from captum_aml.text.models._sparse import kept_sparse, sparse_parts
from captum_aml.text.models.checks import check_belong_together, checked_length
from captum_aml.text.models.entry import TokenEntry, input_embeddings
from captum_aml.text.models.loading import load_classifier, resolve_device
from captum_aml.text.models.targets import Target, TargetsLike, targets_of_text
from captum_aml.text.models.template import PromptConfig
from captum_aml.text.models.trial import PaddingSide, tried_entry, tried_padding
from captum_aml.text.models.wrapped import transformers_model

if TYPE_CHECKING:
    from captum_aml.methods.registry import MethodOutput

#: How the outputs of a text model are read; see :mod:`captum_aml.readout`.
TextOutput: TypeAlias = Literal["logits", "independent_logits", "value"]


@dataclass(frozen=True)
class Question:
    """What is explained of a tokenized text in one go.

    Attributes:
        text: The text, with the task's own inputs.
        targets: The outcomes, an explanation for each; () for the predicted one.
        predicted: The number of what the model says; None for the outcome with the largest output.
    """

    text: TokenizedText
    targets: tuple[Target, ...] = ()
    predicted: int | None = None


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

    #: The task's name.
    task: ClassVar[str] = "text-classification"
    #: The ends of the names of the model classes it is for, such as "ForQuestionAnswering", where
    #: it is registered; "" for models that no other registered class is for.
    architectures: ClassVar[tuple[str, ...]] = ("",)
    #: Whether it takes labels of the user's own, as a prompt does.
    takes_labels: ClassVar[bool] = False
    #: Why no masker can be fitted, as where what is explained is not known from the tokenized text;
    #: "" where one can.
    no_fit: ClassVar[str] = ""
    #: The task's own inputs of a text, after the model's; see ``TokenizedText.own_inputs``.
    own_inputs: ClassVar[tuple[str, ...]] = ()
    #: How the C outputs of ``forward`` are read: classes that exclude each other, each the log-odds
    #: of something by itself, or one value.
    output: TextOutput = "logits"
    #: What outcomes are compared by in a contrast, where it is not the outputs themselves.
    compared: ClassVar[str] = ""
    #: Whether it gives the model embeddings of its own making, instead of ids.
    embeds_ids: ClassVar[bool] = False
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
        model = transformers_model(model)
        self.model = model
        self.tokenizer = tokenizer
        check_belong_together(model, tokenizer)
        self.baseline: BaselineToken = baseline_token(tokenizer, baseline)
        least = int(tokenizer.num_special_tokens_to_add()) + 1
        self.max_length = checked_length(model, tokenizer, max_length, least=least)
        self._sparse = sparse_parts(model)
        self._accepted = frozenset(inspect.signature(model.forward).parameters)
        #: What the model takes beside ids and attention mask, of what the tokenizer gives.
        self._extra_inputs = tuple(
            name
            for name in tokenizer.model_input_names
            if name not in ("input_ids", "attention_mask") and name in self._accepted
        )
        # `forward` takes them by position: this tells those who look for an argument by its name.
        self.__signature__ = _signature(self._extra_inputs)

    @classmethod
    def is_for(cls, config: PreTrainedConfig | None) -> bool:
        """Whether it is for a model with this configuration, of all with such a name."""
        return True

    @staticmethod
    def load(source: str, *, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Loads a model of this kind and its tokenizer from a folder or the hub."""
        return load_classifier(source, dtype=dtype)

    @classmethod
    def options_of(cls, source: str) -> dict[str, Any]:
        """The keyword arguments of the class that a folder or hub id says itself; {} for none."""
        return {}

    @classmethod
    def pipeline_option(cls, name: str, value: Any) -> dict[str, Any] | None:
        """The keyword arguments of the class that a setting of a transformers pipeline stands for.

        Args:
            name: The setting's name.
            value: Its value.

        Returns:
            {} for a setting that changes nothing here; None for one that is not known.
        """
        return None

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
        options = {**cls.options_of(os.fspath(source)), **options}
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
        """See ``forward``.

        Raises:
            ValueError: The attention mask has four dimensions and attention is block-sparse.
        """
        if self._sparse and attention_mask is not None and attention_mask.dim() == 4:
            # Such a model takes it for short inputs only: what removal a text gets would depend on
            # the texts before it.
            raise ValueError("attention_mask: block-sparse attention takes one of (N, L)")
        # It is found out when something is to replace its output.
        entry: TokenEntry | None = self.__dict__.get("entry")
        serving = nullcontext() if entry is None else entry.serving(input_ids, extra_inputs)
        with kept_sparse(self._sparse), serving:
            return self.forward(input_ids, attention_mask, *extra_inputs)

    def tried(self, batch: TextBatch) -> Tensor:
        """What trials compare for texts of one sequence each, (N, ...)."""
        return self(batch.input_ids, *batch.forward_args)

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
        """The layer that turns token ids into embeddings, each once."""
        layer = self.entry or input_embeddings(self.model)
        assert layer is not None  # or there would be an entry
        return layer

    @cached_property
    def entry(self) -> TokenEntry | None:
        """What embeds tokens for a model that does not give its ids to one layer as they are."""
        return None if self.embeds_ids else tried_entry(self)

    @cached_property
    def padding_side(self) -> PaddingSide | None:
        """The side on which padding leaves outputs as they are; None where neither does."""
        return tried_padding(self)

    @property
    def device(self) -> torch.device:
        """The device for token ids."""
        layer = input_embeddings(self.model) or self.model
        # Of a model with a device map: where the layer runs, which need not be where weights wait.
        runs_on = getattr(getattr(layer, "_hf_hook", None), "execution_device", None)
        return next(layer.parameters()).device if runs_on is None else torch.device(runs_on)

    @property
    def method_output(self) -> MethodOutput:
        """What methods take the outputs for."""
        return self.output

    @property
    def n_classes(self) -> int:
        """The number of classes C."""
        return len(self.label_names)

    @property
    def n_outcomes(self) -> int:
        """The number of outcomes that a masker is told one of: two of a single output."""
        return max(2, self.n_classes)

    def tokenize(self, texts: Iterable[TextLike]) -> list[TokenizedText]:
        """Tokenizes texts, cut to what the model takes.

        Raises:
            InvalidInputError: A text has none of the forms, or ``max_length`` leaves no room for a
                token of a pair.
        """
        return tokenize(self.tokenizer, texts, max_length=self.max_length)

    def collate(
        self, texts: Sequence[TokenizedText], *, padding_side: PaddingSide | None = None
    ) -> TextBatch:
        """Pads tokenized texts into one batch on the model's device.

        Args:
            texts: The tokenized texts.
            padding_side (optional): "right" or "left". Default: None, the model's, or "right" if it
                has none.
        """
        if padding_side is None and len({len(text) for text in texts}) > 1:
            padding_side = self.padding_side
        return collate(
            self.tokenizer,
            texts,
            extra_inputs=self._extra_inputs,
            own_inputs=self.own_inputs,
            padding_side=padding_side or "right",
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

    def names(self, text: TokenizedText) -> tuple[str, ...]:
        """The names of a text's outcomes: its own, or the model's."""
        return self.label_names if text.labels is None else text.labels

    def check_targets(self, asked: TargetsLike) -> None:
        """Refuses what is no target of any text, before texts are read.

        Raises:
            InvalidInputError: There is no such outcome.
        """
        targets_of_text(asked, self.label_names)

    def questions(
        self,
        texts: Sequence[TokenizedText],
        targets: Sequence[TargetsLike],
        *,
        batch_size: int = 32,
    ) -> list[list[Question]]:
        """What is explained of each text; none where it has nothing to explain.

        Args:
            texts: The tokenized texts.
            targets: What is asked of each.
            batch_size: The most texts in a pass, where it takes one to know. Default: 32.

        Raises:
            InvalidInputError: There is no such target.
        """
        return [
            [Question(text, targets_of_text(asked, self.names(text)))]
            for text, asked in zip(texts, targets, strict=True)
        ]

    def batch_key(self, text: TokenizedText) -> Hashable:
        """What texts have in common that may share a batch."""
        return None

    @property
    def batches_any(self) -> bool:
        """Whether any texts may share a batch, whatever their keys."""
        return self.padding_side is not None

    def shared_key(self, text: TokenizedText) -> Hashable:
        """The key, and the length where padding would change outputs."""
        return self.batch_key(text), None if self.padding_side is not None else len(text)

    def batches(self, texts: Sequence[TokenizedText], batch_size: int) -> list[list[int]]:
        """Batches of texts of similar length that may share one, as their numbers.

        A batch holds at most ``batch_size`` sequences, or one text. Where padding would change
        outputs, only texts of the same length share one.
        """
        together: dict[Hashable, list[int]] = {}
        alike = len({len(text) for text in texts}) < 2
        for number, text in enumerate(texts):
            key = self.batch_key(text) if alike else self.shared_key(text)
            together.setdefault(key, []).append(number)
        return [
            [numbers[place] for place in rows]
            for numbers in together.values()
            for rows in length_batches(
                [texts[number] for number in numbers],
                rows_in_batch(texts[numbers[0]], batch_size),
            )
        ]

    def outputs(self, texts: Sequence[TokenizedText], *, batch_size: int = 32) -> Tensor:
        """What ``forward`` gives for tokenized texts, in batches of similar length.

        Returns:
            (N, C) in float32 on the CPU.
        """
        rows: list[Tensor] = [torch.empty(0)] * len(texts)
        with self.evaluating(), torch.no_grad():
            for numbers in self.batches(texts, batch_size):
                batch = self.collate([texts[number] for number in numbers])
                found = self(batch.input_ids, *batch.forward_args).float().cpu()
                for number, row in zip(numbers, found, strict=True):
                    rows[number] = row
        return torch.stack(rows) if rows else torch.empty(0, self.n_classes)

    def read(self, outputs: Tensor) -> Tensor:
        """Outputs (N, C) as probabilities, or as they are where they are values."""
        if self.output == "value":
            return outputs
        return outputs.sigmoid() if self.output == "independent_logits" else outputs.softmax(dim=-1)

    def predict(self, texts: Iterable[TextLike], *, batch_size: int = 32) -> Tensor:
        """Probabilities of the outcomes, or values, in batches of similar length.

        Returns:
            (N, C) on the CPU, in the order of ``texts``.
        """
        return self.read(self.outputs(self.tokenize(texts), batch_size=batch_size))

    def evaluating(self) -> AbstractContextManager[None]:
        """Holds the model in evaluation mode and gives every module its own mode back."""
        return evaluating(self.model)


def rows_in_batch(text: TokenizedText, batch_size: int) -> int:
    """The number of texts like this one with ``batch_size`` sequences together, at least 1."""
    return max(1, batch_size // max(1, len(text.sequences)))


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
