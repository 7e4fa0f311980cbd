"""The one place that touches Captum's private helpers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from captum._utils.common import _is_mask_valid
from captum._utils.models.linear_model import SkLearnRidge
from captum.attr import (
    GradientAttribution,
    InterpretableInput,
    LayerAttribution,
    LLMAttributionResult,
    TextTemplateInput,
    TextTokenInput,
)
from captum.attr._core.llm_attr import (
    DEFAULT_GEN_ARGS,
    BaseLLMAttribution,
    LLMAttribution,
    LLMGradientAttribution,
    _convert_ids_to_pretty_tokens,
    _convert_ids_to_pretty_tokens_fallback,
)
from captum.log import log_usage
from torch import Tensor, nn

#: Where the hooks of Captum's DeepLift leave what passes through an activation.
HOOK_ATTRIBUTES = ("input", "output")


def broadcasts(mask: Tensor, inputs: Tensor) -> bool:
    """Whether a feature mask fits a tensor by Captum's rule: every trailing size equal or one."""
    return bool(_is_mask_valid(mask, inputs))


def pretty_tokens(ids: Tensor, tokenizer: Any) -> list[str]:
    """Token ids (T,) as Captum shows them, whatever the tokenizer.

    Captum's own two ways need offsets and fail on an answer that ends within a character.
    """
    shown: list[str]
    for convert in (_convert_ids_to_pretty_tokens, _convert_ids_to_pretty_tokens_fallback):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that it cannot, and that it tries another way
                shown = convert(ids, tokenizer)
        except (AssertionError, IndexError, KeyError, NotImplementedError, TypeError):
            continue
        if len(shown) == len(ids):
            return shown
    return [str(token) for token in tokenizer.convert_ids_to_tokens(ids.tolist())]


def accept(tool: type[BaseLLMAttribution], method: type[GradientAttribution]) -> None:
    """Lets a tool of Captum's for language models, which asks for certain classes, take another."""
    tool.SUPPORTED_METHODS = (*tool.SUPPORTED_METHODS, method)
    if issubclass(tool, LLMAttribution):  # it also asks which of them explain each token
        tool.SUPPORTED_PER_TOKEN_ATTR_METHODS = (*tool.SUPPORTED_PER_TOKEN_ATTR_METHODS, method)


@contextmanager
def without_hook_traces(model: nn.Module) -> Iterator[None]:
    """Clears what Captum's hooks leave at modules whose activation has no way back to the text."""
    before = [
        (module, name, name in vars(module))
        for module in model.modules()
        for name in HOOK_ATTRIBUTES
    ]
    try:
        yield
    finally:
        for module, name, was_there in before:
            if not was_there:
                vars(module).pop(name, None)


__all__ = [
    "DEFAULT_GEN_ARGS",
    "HOOK_ATTRIBUTES",
    "BaseLLMAttribution",
    "GradientAttribution",
    "InterpretableInput",
    "LLMAttribution",
    "LLMAttributionResult",
    "LLMGradientAttribution",
    "LayerAttribution",
    "SkLearnRidge",
    "TextTemplateInput",
    "TextTokenInput",
    "accept",
    "broadcasts",
    "log_usage",
    "pretty_tokens",
    "without_hook_traces",
]
