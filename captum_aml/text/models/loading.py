"""Loads a classifier and its tokenizer from disk or hub, and says what is wrong where it cannot."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForMultipleChoice,
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from captum_aml._utils.hub import check_source
from captum_aml.exceptions import InvalidInputError
from captum_aml.text.models.adapters import Adapter
from captum_aml.text.models.labels import n_outputs

#: What is expected where the task is not known yet.
_ANY = "a model of transformers (a local folder or a hub id)"


def resolve_device(device: str | torch.device) -> torch.device:
    """The device a name stands for; "auto" takes the best there is.

    Raises:
        InvalidInputError: The name is unknown, or there is no such device here.
    """
    if device == "auto":
        if torch.cuda.is_available():
            # A launcher of several processes numbers them; each takes the device of its number.
            rank = os.environ.get("LOCAL_RANK")
            return torch.device("cuda" if rank is None else f"cuda:{rank}")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.empty(1, device=resolved)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidInputError(
            f"device: expected 'auto', 'cpu' or a device that is there, got {str(device)!r} "
            f"({reason})"
        ) from error
    return resolved


@dataclass(frozen=True)
class Loader:
    """Loads models of a kind and their tokenizers; never runs code of theirs.

    Attributes:
        noun: What such a model is called in errors.
        auto_class: The class of transformers that loads a model with a configuration.
        unused: A part whose weights may be missing; None for none.
    """

    noun: str
    auto_class: Callable[[PreTrainedConfig], Any]  # the Auto classes share no type
    unused: str | None = None

    def __call__(
        self, source: str, *, dtype: torch.dtype = torch.float32
    ) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Loads a model and its tokenizer.

        Args:
            source: A local folder or a hub id.
            dtype: The precision of the weights. Default: float32.

        Raises:
            InvalidInputError: There is none, it is damaged, or it has no such head.
        """
        expected = f"{self.noun} (a local folder or a hub id)"
        adapter = _checked(source, expected)
        try:
            if adapter is None:
                config = AutoConfig.from_pretrained(source, trust_remote_code=False)
                model, info = self.auto_class(config).from_pretrained(
                    source, dtype=dtype, trust_remote_code=False, output_loading_info=True
                )
                missing = sorted(info["missing_keys"])
            else:
                config = adapter.config()
                model, missing = adapter.load(self.auto_class(config), config, dtype=dtype)
            tokenizer = _tokenizer(source, adapter)
        except (ImportError, InvalidInputError):
            raise
        except Exception as error:  # transformers and safetensors raise errors of many types here
            raise _not_loaded(source, expected, error) from error
        missing = [name for name in missing if self.unused not in name.split(".")]
        if missing:
            # transformers would classify with these weights drawn at random.
            bare = all(str(name).endswith("Model") for name in config.architectures or [""])
            hint = (
                "; how similar an encoder finds two texts explains task='sentence-similarity'"
                if bare
                else ""
            )
            raise InvalidInputError(
                f"model: expected {expected}, but {source!r} lacks the weights "
                f"{', '.join(missing[:3])}{hint}"
            )
        return model, tokenizer


load_classifier = Loader(
    "a sequence-classification model", lambda _: AutoModelForSequenceClassification
)
load_token_classifier = Loader(
    "a token-classification model", lambda _: AutoModelForTokenClassification
)
load_question_answerer = Loader(
    "a question-answering model", lambda _: AutoModelForQuestionAnswering
)
load_multiple_choice = Loader("a multiple-choice model", lambda _: AutoModelForMultipleChoice)
load_masked_language_model = Loader("a masked language model", lambda _: AutoModelForMaskedLM)
load_language_model = Loader(
    "a language model",
    lambda c: AutoModelForSeq2SeqLM if c.is_encoder_decoder else AutoModelForCausalLM,
)
load_encoder = Loader("an encoder", lambda _: AutoModel, unused="pooler")


@dataclass(frozen=True)
class ModelDescription:
    """What is known of a model before it is loaded.

    Attributes:
        architectures: The names of its classes.
        config: Its configuration; None where it has none.
    """

    architectures: Sequence[str]
    config: PreTrainedConfig | None = None


def describe(source: str) -> ModelDescription:
    """What a folder or hub id says of its model.

    Raises:
        InvalidInputError: There is none, or its configuration is damaged.
    """
    adapter = _checked(source, _ANY)
    try:
        if adapter is not None:
            return ModelDescription(adapter.architectures, adapter.config())
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    except (ImportError, InvalidInputError):
        raise
    except Exception as error:  # transformers raises errors of many types here
        raise _not_loaded(source, _ANY, error) from error
    return ModelDescription(config.architectures or (), config)


def describe_model(model: object) -> ModelDescription:
    """The same of a model: as many labels as it has outputs, whatever names there are for them."""
    name, config = type(model).__name__, getattr(model, "config", None)
    if isinstance(model, PreTrainedModel) and name.endswith("ForSequenceClassification"):
        n_labels = n_outputs(model)
        if n_labels != model.config.num_labels:
            config = copy.copy(model.config)
            config.num_labels = n_labels
    return ModelDescription([name], config)


def _checked(source: str, expected: str) -> Adapter | None:
    """The adapter of a folder or hub id, None for a whole model; refuses what is neither.

    Raises:
        InvalidInputError: It is neither, or an adapter without its base model.
    """
    check_source(source, expected)
    adapter = Adapter.find(source)
    plain = os.path.isdir(source) and adapter is None
    if plain and not os.path.isfile(os.path.join(source, "config.json")):
        raise InvalidInputError(
            f"model: expected {expected}, got the folder {source!r} without a config.json"
        )
    if adapter is not None:
        base = f"{expected}, whose base model the adapter_config.json in {source!r} names"
        check_source(adapter.base, base)
    return adapter


def _not_loaded(source: str, expected: str, error: Exception) -> InvalidInputError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return InvalidInputError(
        f"model: expected {expected}, but {source!r} cannot be loaded: {reason}"
    )


def _tokenizer(source: str, adapter: Adapter | None) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or hub id; of an adapter without one, that of its base model."""
    if adapter is None:
        return _tokenizer_in(source)
    try:
        own = _tokenizer_in(source)
    except Exception:  # transformers raises errors of many types here
        return _tokenizer_in(adapter.base)
    # Beside a configuration, but without files, transformers makes one without a vocabulary.
    return own if len(own) > len(set(own.all_special_ids)) else _tokenizer_in(adapter.base)


def _tokenizer_in(source: str) -> PreTrainedTokenizerBase:
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        source, trust_remote_code=False
    )
    return tokenizer
