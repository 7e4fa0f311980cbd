"""The registry of text models: which class a model of Hugging Face is explained by."""

from __future__ import annotations

import inspect
from typing import TypeVar

from captum_aml.exceptions import InvalidInputError
from captum_aml.text.models.base import TextModel
from captum_aml.text.models.loading import ModelDescription

_Kind = TypeVar("_Kind", bound=type[TextModel])

_KINDS: list[type[TextModel]] = []

#: Names of transformers' pipelines for tasks that have another name here.
_PIPELINES = {
    "sentiment-analysis": "text-classification",
    "ner": "token-classification",
    "feature-extraction": "sentence-similarity",
    "summarization": "text-generation",
    "text2text-generation": "text-generation",
    "translation": "text-generation",
}

#: Tasks of language models, which classify by a prompt where labels are given.
_WRITING = ("fill-mask", "text-generation")


def _named(kind: type[TextModel], description: ModelDescription) -> bool:
    """Whether a class is for a model by the name of the model's class."""
    ends = [end for end in kind.architectures if end]
    return any(name.endswith(end) for name in description.architectures for end in ends)


def _is_for_others(description: ModelDescription) -> bool:
    """Whether a model is known by name, but not as one that writes."""
    theirs = {kind.task for kind in _KINDS if _named(kind, description)}
    return bool(theirs) and not theirs & set(_WRITING)


def _fitting(description: ModelDescription) -> str:
    """The tasks that a model is made for, by its class and its configuration."""
    names: dict[bool, list[str]] = {False: [], True: []}
    for kind in _KINDS:
        named = _named(kind, description) and kind.is_for(description.config)
        if named and not _more_fitting(kind, description):
            names[kind.takes_labels].append(kind.task)
    alone, labelled = (", ".join(sorted(set(names[with_labels]))) for with_labels in (False, True))
    parts = [alone, f"{labelled} with labels=" if labelled else ""]
    return ", ".join(filter(None, parts)) or "none of the tasks known here"


def _more_fitting(kind: type[TextModel], description: ModelDescription) -> bool:
    """Whether there is a class derived from this one for the same models."""
    return any(
        other is not kind
        and issubclass(other, kind)
        and other.takes_labels == kind.takes_labels
        and other.is_for(description.config)
        for other in _KINDS
    )


def classes_with(option: str) -> list[str]:
    """The names of the classes whose constructors take an option of their own."""
    return [kind.__name__ for kind in _KINDS if option in inspect.signature(kind).parameters]


def register_text_model(kind: _Kind) -> _Kind:
    """Makes a class of text models known to ``TextExplainer`` and the command line; a decorator.

    Its constructor takes what that of ``TextModel`` does, and with ``takes_labels`` the fields of a
    ``PromptConfig``.

    Raises:
        InvalidInputError: There is a class for the same models.
    """
    for known in _KINDS:
        same = ("task", "takes_labels", "architectures")
        if all(getattr(known, name) == getattr(kind, name) for name in same):
            raise InvalidInputError(
                f"kind: expected another task or other architectures than those of "
                f"{known.__name__}, {kind.task!r} by {', '.join(kind.architectures)}"
            )
    _KINDS.append(kind)
    return kind


def tasks() -> tuple[str, ...]:
    """The names of all tasks."""
    return tuple(sorted({kind.task for kind in _KINDS}))


def pipeline_task(name: str) -> str:
    """The name here of a task by the name that transformers' pipelines have for it."""
    return _PIPELINES.get(name, _PIPELINES.get(name.partition("_")[0], name))


def text_model_kind(
    description: ModelDescription, *, task: str | None = None, with_labels: bool = False
) -> type[TextModel]:
    """The class for a model: of those for its task the one for the longest end of its name.

    A class derived from another goes before it.

    Args:
        description: The model.
        task: The name of a task. Default: None, found from the model.
        with_labels: Whether labels of the user's own come with it. Default: False.

    Raises:
        InvalidInputError: There is no such task, or none for the model.
    """
    if task is not None and pipeline_task(task) not in tasks():
        raise InvalidInputError(f"task: expected one of {', '.join(tasks())}, got {task!r}")
    if with_labels and task is not None and pipeline_task(task) in _WRITING:
        task = "prompt-classification"
    names = tuple(description.architectures) or ("",)
    found: dict[type[TextModel], int] = {}
    for kind in _KINDS:
        ends = [end for end in kind.architectures if any(name.endswith(end) for name in names)]
        if task is None:
            fitting = kind.is_for(description.config)
        else:
            fitting = kind.task == pipeline_task(task)
        if fitting and ends and kind.takes_labels == with_labels:
            found[kind] = max(map(len, ends))
    if with_labels and not any(found.values()) and _is_for_others(description):
        found = {}  # which would load a language model from it
    if not found:
        shown = ", ".join(filter(None, names)) or "the model"
        asked = "" if task is None else f" for the task {task!r}"
        theirs = {k.takes_labels for k in _KINDS if task and k.task == pipeline_task(task)}
        if theirs == {True} and not with_labels:
            raise InvalidInputError(f"labels: expected the labels to choose from{asked}, got None")
        labels = " with labels" if with_labels else ""
        raise InvalidInputError(
            f"model: {shown} cannot be explained{asked}{labels}; it is for {_fitting(description)}"
        )
    return max(found, key=lambda kind: (found[kind], len(kind.__mro__)))
