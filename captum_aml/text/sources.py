"""From whatever a user has of a model to a text model: objects, pipelines, folders, hub ids."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence

import torch
from transformers import Pipeline, PreTrainedModel, PreTrainedTokenizerBase

from captum_aml.exceptions import InvalidInputError
from captum_aml.text.classifier import TextClassifier
from captum_aml.text.loading import load_classifier, load_language_model, resolve_device
from captum_aml.text.model import TextModel
from captum_aml.text.prompt import Prompt, PromptClassifier

#: What a model is given as.
ModelLike = PreTrainedModel | TextModel | Pipeline | str | os.PathLike[str]


def text_model(
    model: ModelLike,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    prompt: Prompt | None = None,
    baseline: str | None = None,
    max_length: int | None = None,
    device: str | torch.device = "auto",
    dtype: torch.dtype = torch.float32,
) -> TextModel:
    """A text model from whatever there is of it.

    Args:
        model: A model of transformers, a pipeline, a local folder, a hub id, or a text model,
            which is returned as it is.
        tokenizer: The model's fast tokenizer. Default: None, the pipeline's, or the one beside
            the model in its folder.
        prompt: How to ask a language model. Default: None, for models that classify by themselves.
        baseline (str, optional): The vocabulary entry that stands for a removed token.
        max_length (int, optional): Texts are cut to this many tokens.
        device: Where to load a model to; a model that is given stays where it is. Default: "auto".
        dtype: The precision to load a model in. Default: float32.

    Raises:
        InvalidInputError: There is no such model, it needs a tokenizer or a prompt, or has no use
            for them.
    """
    if isinstance(model, TextModel):
        given = {"tokenizer": tokenizer, "prompt": prompt, "baseline": baseline}
        unused = [k for k, v in {**given, "max_length": max_length}.items() if v is not None]
        if unused:
            raise InvalidInputError(
                f"{unused[0]}: a {type(model).__name__} has its own; give it there"
            )
        return model
    if isinstance(model, Pipeline):
        tokenizer = model.tokenizer if tokenizer is None else tokenizer
        model = model.model
    if isinstance(model, str | os.PathLike):
        load = load_classifier if prompt is None else load_language_model
        loaded, beside = load(os.fspath(model), dtype=dtype)
        loaded.eval().requires_grad_(False).to(resolve_device(device))
        model, tokenizer = loaded, beside if tokenizer is None else tokenizer
    if not isinstance(model, PreTrainedModel):
        raise InvalidInputError(
            "model: expected a model of transformers, a pipeline, a folder, a hub id, a "
            f"TextClassifier or a PromptClassifier, got {type(model).__name__}"
        )
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        came = "None" if tokenizer is None else type(tokenizer).__name__
        raise InvalidInputError(f"tokenizer: expected the model's tokenizer, got {came}")
    made: TextModel
    if prompt is not None:
        made = PromptClassifier(
            model,
            tokenizer,
            prompt.template,
            prompt.labels,
            examples=prompt.examples,
            description=prompt.description,
            separator=prompt.separator,
            add_special_tokens=prompt.add_special_tokens,
            baseline=baseline,
            max_length=max_length,
        )
    else:
        _check_head(model)
        made = TextClassifier(model, tokenizer, baseline=baseline, max_length=max_length)
    if made.baseline.kind in ("pad", "eos"):
        warnings.warn(
            f"tokenizer: it has no mask or unknown token, so its {made.baseline.token!r} "
            f"({made.baseline.kind}) stands for what is removed; name another with baseline=",
            stacklevel=3,
        )
    return made


def prompt_of(template: str | None, labels: str | None) -> Prompt | None:
    r"""A prompt from what a command line says; None where it says nothing.

    Args:
        template: The template; ``\n`` in it stands for a line break.
        labels: Label words with commas between, each with the name of its class before it and an
            equals sign where that is another one: ``negative,positive`` or ``no=bad,yes=good``.

    Raises:
        InvalidInputError: One is given without the other.
    """
    if template is None or labels is None:
        return asked(template, labels)
    pairs = [part.partition("=") for part in labels.split(",")]
    words = {name.strip(): word if sign else name.strip() for name, sign, word in pairs}
    return asked(template.replace("\\n", "\n"), words)


def asked(template: str | None, labels: Mapping[str, str] | Sequence[str] | None) -> Prompt | None:
    """A prompt from its two parts; None where there is neither.

    Raises:
        InvalidInputError: One is given without the other.
    """
    if template is None and labels is None:
        return None
    if template is None or labels is None:
        missing, there = ("template", "labels") if template is None else ("labels", "template")
        raise InvalidInputError(
            f"{missing}: expected it together with {there}, to classify by prompt, got None"
        )
    return Prompt(template=template, labels=labels)


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


__all__ = ["ModelLike", "Prompt", "asked", "prompt_of", "text_model"]
