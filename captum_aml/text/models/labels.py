"""Names of a model's classes: strings of one line, one for each output, each different."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from captum_aml._utils.isolation import evaluating
from captum_aml.exceptions import InvalidInputError
from captum_aml.text.models.entry import input_embeddings


# Keys are integers, or their digits.
def class_names(names: Mapping[Any, object] | Sequence[object], n_outputs: int) -> tuple[str, ...]:
    """The names of C outputs, from what a configuration calls them.

    A name is written as a string in one line. An output without one, or with an empty one, is
    called ``LABEL_i``, as transformers calls it; names beyond the outputs are left out. Where
    several outputs have the same name, their index follows it: ``bad (0)``, ``bad (2)``.

    Args:
        names: Names by index.
        n_outputs: The number of outputs C.

    Raises:
        InvalidInputError: A key is no integer.
    """
    if not isinstance(names, Mapping):
        names = dict(enumerate(names))
    try:
        given = {int(key): name for key, name in names.items()}
    except (TypeError, ValueError):
        raise InvalidInputError(
            "model: expected a config.id2label that gives a name for each index, got "
            f"{dict(names)!r}"
        ) from None
    written = [_written(given.get(i)) or f"LABEL_{i}" for i in range(n_outputs)]
    # A name with its index may be that of another output. An index is added to each once at most.
    while len(set(written)) < n_outputs:
        counts = Counter(written)
        written = [f"{n} ({i})" if counts[n] > 1 else n for i, n in enumerate(written)]
    return tuple(written)


def class_index(target: int | str, names: Sequence[str]) -> int:
    """The index of a class given by its name or its index.

    A name goes first: with classes named "1" and "5", the string "1" is the first class.

    Args:
        target: The name or the index.
        names: The C names, as :func:`class_names` gives them.

    Raises:
        InvalidInputError: There is no such class, or there are several of that name.
    """
    name = _written(target) if isinstance(target, str) else ""
    if name in names:
        return names.index(name)
    same = [i for i, known in enumerate(names) if known == f"{name} ({i})"]
    if len(same) > 1:
        raise InvalidInputError(
            f"target: expected one of the classes {_joined(map(str, same))}, which are all named "
            f"{name!r}, got {target!r}; give the index, or the name with it ({names[same[0]]!r})"
        )
    try:
        if isinstance(target, bool):
            raise TypeError
        index = int(target) if isinstance(target, str) else operator.index(target)
    except (TypeError, ValueError):
        alike = [known for known in names if name and known.casefold() == name.casefold()]
        hint = f"; did you mean {alike[0]!r}?" if alike else ""
        raise InvalidInputError(
            f"target: expected one of the labels {listed(names)} or an index from 0 to "
            f"{len(names) - 1}, got {target!r}{hint}"
        ) from None
    if not 0 <= index < len(names):
        hint = f"; the class of that name is target={str(index)!r}" if str(index) in names else ""
        raise InvalidInputError(
            f"target: expected an index from 0 to {len(names) - 1} ({listed(names)}), got "
            f"{index}{hint}"
        )
    return index


def listed(names: Sequence[str], most: int = 30) -> str:
    """Names with commas between, for a message: of many the first ones and how many there are."""
    more = f", ... ({len(names):,} in all)" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def n_outputs(model: PreTrainedModel) -> int:
    """The number of outputs C of a model with a head, whatever its configuration says.

    Whoever renames the classes (``config.id2label``) changes the configuration's number with it.
    Where no layer has as many outputs, the model is run on one token.
    """
    said = int(model.config.num_labels or 0)
    if any(getattr(layer, "out_features", None) == said for layer in model.modules()):
        return said
    table = input_embeddings(model)
    # BART and T5 read their output at this token.
    token = getattr(model.config.get_text_config(), "eos_token_id", None)
    ids = torch.tensor([[token if isinstance(token, int) else 0]])
    device = next((weight.device for weight in (table or model).parameters()), None)
    try:
        with evaluating(model), torch.no_grad():
            return int(model(input_ids=ids.to(device)).logits.shape[-1])
    except Exception:  # a model that takes no such text has errors of any type
        return said


def _written(name: object) -> str:
    """A name in one line; "" for None."""
    return "" if name is None else " ".join(str(name).split())


def _joined(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
