"""What a pipeline of transformers was made with: its task, and its settings by name.

Pipelines keep their settings in attributes of their own, which are read nowhere else. A version
without them has pipelines without settings here.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from enum import Enum
from typing import Any

from transformers import GenerationConfig, Pipeline

from captum_aml.text.models.base import TextModel
from captum_aml.text.models.classifier import TextClassifier
from captum_aml.text.models.multi_label import MultiLabelClassifier
from captum_aml.text.models.registry import pipeline_task

_KEPT = ("_preprocess_params", "_generate_kwargs", "_forward_params", "_postprocess_params")

#: They say how a pipeline runs, or what it shows of its result.
_NEUTRAL = frozenset(
    {
        "batch_size",
        "clean_up_tokenization_spaces",
        "bos_token_id",
        "max_new_tokens",
        "pad_token_id",
        "padding",
        "prefix_length",
        "return_tensors",
        "return_type",
        "tokenizer",
        "top_k",
        "transformers_version",
        "truncation",
        "use_cache",
    }
)


# Settings are of any type.
def settings_of(pipeline: Pipeline) -> dict[str, Any]:
    """The settings of a pipeline by name, and how much its model is configured to write."""
    configured = getattr(pipeline.model, "generation_config", None)
    given: dict[str, Any] = {"max_new_tokens": getattr(configured, "max_new_tokens", None)}
    for name in _KEPT:
        given |= getattr(pipeline, name, None) or {}
    config = given.pop("generation_config", None)
    if isinstance(config, GenerationConfig):
        given = {**given, **config.to_diff_dict()}
    return {
        name: value.value if isinstance(value, Enum) else value
        for name, value in given.items()
        # What is None or False is left out.
        if not name.startswith("_") and value is not None and value is not False
    }


def task_of(pipeline: Pipeline, settings: Mapping[str, Any]) -> str | None:
    """The name here of a pipeline's task; None where the model says how it classifies."""
    if pipeline.task != TextClassifier.task:
        return pipeline_task(pipeline.task)
    is_sigmoid = settings.get("function_to_apply") == "sigmoid"
    return MultiLabelClassifier.task if is_sigmoid else None


def options_of_settings(kind: type[TextModel], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of a class that settings of a pipeline stand for.

    A warning names settings that it has no use for.
    """
    options: dict[str, Any] = {}
    unused = []
    for name, value in settings.items():
        found = kind.pipeline_option(name, value)
        if found is not None:
            options |= found
        elif name not in _NEUTRAL:
            unused.append(f"{name}={value!r}" if isinstance(value, str | int | float) else name)
    if unused:
        warnings.warn(
            f"model: these settings of the pipeline are not used, {kind.__name__} has none like "
            f"them: {', '.join(unused)}",
            stacklevel=4,
        )
    return options
