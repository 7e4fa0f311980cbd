"""The outputs of a masked language model at one place of each text."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from captum_aml.exceptions import InvalidInputError
from captum_aml.text.encoding import TokenizedText

#: The ends of the names of such models' classes.
MASKED = (
    "ForMaskedLM",
    "ForPreTraining",
    "FlaubertWithLMHeadModel",
    "XLMWithLMHeadModel",
)


def check_fills_masks(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuses a model that gives no logits of words, and a tokenizer without a mask token.

    Raises:
        InvalidInputError: It does, or has none.
    """
    if model.get_output_embeddings() is None:
        raise InvalidInputError(
            "model: expected a masked language model, which gives logits of the word at a mask, "
            f"got {type(model).__name__}"
        )
    if tokenizer.mask_token_id is None:
        raise InvalidInputError("tokenizer: expected one with a mask token, got one without")


def mask_places(text: TokenizedText, mask_id: int | None) -> list[int]:
    """The positions of mask tokens."""
    ids = text.model_inputs["input_ids"]
    return [place for place, token in enumerate(ids) if token == mask_id]


def logits_at(model: PreTrainedModel, inputs: dict[str, Any], places: Tensor) -> Tensor:
    """Logits (N, V) at one place (N,) of each text.

    The layer that gives logits of words is run at these places only, where it is a layer of its
    own: at all L places its outputs would take more memory than everything else.
    """
    head = model.get_output_embeddings()
    assert isinstance(head, nn.Module)
    with _at_places(head, places):
        output = model(**inputs)
    logits: Tensor = output["prediction_logits" if "prediction_logits" in output else "logits"]
    if logits.shape[1] == 1:
        return logits[:, 0]
    rows = places[:, None, None].to(logits.device).expand(-1, 1, logits.shape[-1])
    return logits.gather(1, rows)[:, 0]


@contextmanager
def _at_places(head: nn.Module, places: Tensor) -> Iterator[None]:
    """While open, the layer is given the states (N, 1, H) at these places instead of (N, L, H)."""
    thread = threading.get_ident()

    def chosen(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if threading.get_ident() != thread or args[0].dim() != 3:
            return None
        states = args[0]
        rows = places[:, None, None].to(states.device).expand(-1, 1, states.shape[-1])
        return (states.gather(1, rows), *args[1:])

    handle = head.register_forward_pre_hook(chosen)
    try:
        yield
    finally:
        handle.remove()
