"""Text models of what users have: models, pipelines, folders, hub ids."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers import Pipeline, PreTrainedModel, PreTrainedTokenizerBase

from captum_aml.exceptions import InvalidInputError
from captum_aml.text.models.base import TextModel
from captum_aml.text.models.loading import describe, describe_model, resolve_device
from captum_aml.text.models.pipelines import options_of_settings, settings_of, task_of
from captum_aml.text.models.registry import text_model_kind
from captum_aml.text.models.sentence_encoder import (
    is_a,
    is_sentence_encoder,
    options_of_object,
    transformer_of,
)
from captum_aml.text.models.similarity import SimilarityModel
from captum_aml.text.models.template import PromptConfig
from captum_aml.text.models.windowed import windowed_kind
from captum_aml.text.models.wrapped import check_reads_text, model_behind

#: What a model is given as.
ModelLike = nn.Module | TextModel | Pipeline | str | os.PathLike[str]


def text_model(
    model: ModelLike,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    task: str | None = None,
    prompt: PromptConfig | None = None,
    baseline: str | None = None,
    max_length: int | None = None,
    stride: int | None = None,
    device: str | torch.device = "auto",
    dtype: torch.dtype = torch.float32,
) -> TextModel:
    """A text model from whatever there is of it; the arguments are those of ``TextExplainer``.

    Raises:
        InvalidInputError: There is no such model, it needs a tokenizer or a prompt, or has no use
            for them.
    """
    if isinstance(model, TextModel):
        given = {"tokenizer": tokenizer, "task": task, "prompt": prompt, "baseline": baseline}
        lengths = {"max_length": max_length, "stride": stride}
        unused = [k for k, v in {**given, **lengths}.items() if v is not None]
        if unused:
            raise InvalidInputError(
                f"{unused[0]}: a {type(model).__name__} has its own; give it there"
            )
        return model
    settings: dict[str, Any] = {}
    if isinstance(model, Pipeline):
        settings = settings_of(model)
        tokenizer = model.tokenizer if tokenizer is None else tokenizer
        task = task_of(model, settings) if task is None else task
        model = model.model
    with_labels = prompt is not None or "candidate_labels" in settings
    options: dict[str, Any] = {}
    if is_a(model, "SentenceTransformer"):
        task, options = task or SimilarityModel.task, options_of_object(model)
    if is_a(model, "SentenceTransformer") or is_a(model, "CrossEncoder"):
        model, tokenizer = transformer_of(model, tokenizer)
    if isinstance(model, str | os.PathLike):
        source = os.fspath(model)
        description = describe(source)
        if task is None and prompt is None and is_sentence_encoder(source, description):
            task = SimilarityModel.task
        kind = text_model_kind(description, task=task, with_labels=with_labels)
        options = kind.options_of(source)
        loaded, beside = kind.load(source, dtype=dtype)
        loaded.eval().requires_grad_(False).to(resolve_device(device))
        model, tokenizer = loaded, beside if tokenizer is None else tokenizer
    else:
        if isinstance(model, nn.Module):
            model = model_behind(model)
        if isinstance(model, PreTrainedModel):
            check_reads_text(model)
        kind = text_model_kind(describe_model(model), task=task, with_labels=with_labels)
    if not isinstance(model, PreTrainedModel):
        raise InvalidInputError(
            "model: expected a model of transformers, a pipeline, a folder, a hub id or a text "
            f"model such as TextClassifier, got {type(model).__name__}"
        )
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        came = "None" if tokenizer is None else type(tokenizer).__name__
        raise InvalidInputError(f"tokenizer: expected the model's tokenizer, got {came}")
    fields = {**options, **options_of_settings(kind, settings)}
    if prompt is not None:
        of_prompt = prompt.arguments.items()
        fields |= {k: v for k, v in of_prompt if v is not None or k not in fields}
    own_length = fields.pop("max_length", None)
    max_length = own_length if max_length is None else max_length
    if stride is not None:
        kind, fields = windowed_kind(kind), {**fields, "stride": stride}
    made = kind(model, tokenizer, **fields, baseline=baseline, max_length=max_length)
    if made.baseline.kind in ("pad", "eos"):
        warnings.warn(
            f"tokenizer: it has no mask or unknown token, so its {made.baseline.token!r} "
            f"({made.baseline.kind}) stands for what is removed; name another with baseline=",
            stacklevel=4,  # above the explainer's constructor and what wraps it
        )
    return made


def prompt_of(template: str | None, labels: str | None) -> PromptConfig | None:
    r"""A prompt from what a command line says; None where it says nothing.

    Args:
        template: The template; ``\n`` in it stands for a line break.
        labels: Label words with commas between, each with the name of its class before it and an
            equals sign where that is another one: ``negative,positive`` or ``no=bad,yes=good``.

    Raises:
        InvalidInputError: There is a template without labels.
    """
    if labels is None:
        return prompt_config(template, labels)
    pairs = [part.partition("=") for part in labels.split(",")]
    words = {name.strip(): word if sign else name.strip() for name, sign, word in pairs}
    return prompt_config(None if template is None else template.replace("\\n", "\n"), words)


def prompt_config(
    template: str | None, labels: Mapping[str, str] | Sequence[str] | None
) -> PromptConfig | None:
    """A prompt from its two parts; None where there is neither.

    Raises:
        InvalidInputError: There is a template without labels.
    """
    if labels is None:
        if template is None:
            return None
        raise InvalidInputError(
            "labels: expected it together with template, to classify by prompt, got None"
        )
    return PromptConfig(template=template, labels=labels)
