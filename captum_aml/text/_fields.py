"""An explanation's fields as JSON gives them back, checked."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

from captum_aml.exceptions import InvalidInputError
from captum_aml.text.segmentation import Unit


def checked_fields(
    values: object, names: Sequence[str], *, later: Sequence[str] = ()
) -> dict[str, Any]:
    """The arguments of an explanation, with tuples where JSON has lists.

    Args:
        values: Field names and values.
        names: The names of all fields.
        later: Those of them that may be missing. Default: ().

    Raises:
        InvalidInputError: A field is missing, unknown or of a wrong form, or the fields do not go
            together.
    """
    if not isinstance(values, Mapping):
        raise InvalidInputError(
            f"values: expected the fields of an explanation, got {type(values).__name__}"
        )
    missing = [name for name in names if name not in (*values, *later)]
    unknown = [str(name) for name in values if name not in names]
    if missing:
        raise InvalidInputError(
            f"values: expected the fields of an explanation, got none named {', '.join(missing)}"
        )
    if unknown:
        raise InvalidInputError(
            "values: expected the fields of an explanation, got the unknown ones "
            f"{', '.join(unknown)}"
        )
    checked: dict[str, Any] = {}
    for name, value in values.items():
        try:
            checked[name] = _CHECKS[name](value)
        except (TypeError, ValueError):
            shown = repr(value)
            raise InvalidInputError(
                f"{name}: expected what to_dict gives, got "
                f"{shown if len(shown) <= 80 else shown[:80] + '...'}"
            ) from None
    sizes = [len(checked[name]) for name in ("tokens", "offsets", "scores")]
    if len(set(sizes)) > 1:
        raise InvalidInputError(
            "values: expected as many tokens as offsets and scores, got "
            "{} tokens, {} offsets and {} scores".format(*sizes)
        )
    length = len(checked["text"])
    place = checked.get("place")
    spans = {name: checked.get(name) or () for name in ("offsets", "parts", "given_words")}
    for name, found in {**spans, "place": () if place is None else (place,)}.items():
        for start, end in found:
            if not 0 <= start <= end <= length:
                raise InvalidInputError(
                    f"{name}: expected spans within the text's {length} characters, got "
                    f"{(start, end)}"
                )
    return checked


def _of(kind: type) -> Callable[[object], object]:
    def check(value: object) -> object:
        if not isinstance(value, kind):
            raise TypeError
        return value

    return check


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError
    return float(value)


def _unit(value: object) -> object:
    if value not in get_args(Unit):
        raise ValueError
    return value


# Anything may stand in a file; what is of a wrong type fails in here.
def _spans(value: Any) -> tuple[tuple[int, int], ...]:
    return tuple((operator.index(start), operator.index(end)) for start, end in value)


def _maybe(check: Callable[[Any], object]) -> Callable[[Any], object]:
    return lambda value: None if value is None else check(value)


def _tuple(check: Callable[[Any], object]) -> Callable[[Any], object]:
    return lambda value: tuple(map(check, value))


_CHECKS: dict[str, Callable[[Any], object]] = {
    "text": _of(str),
    "tokens": _tuple(_of(str)),
    "offsets": _spans,
    "scores": _tuple(_number),
    "predicted": operator.index,
    "predicted_label": _of(str),
    "probability": _maybe(_number),
    "target": operator.index,
    "target_label": _of(str),
    "target_probability": _maybe(_number),
    "method": _of(str),
    "signed": _of(bool),
    "settings": dict,
    "n_tokens_cut": operator.index,
    "unit": _unit,
    "parts": _spans,
    "relative": _of(bool),
    "score": _of(str),
    "given_words": _maybe(_spans),
    "row": operator.index,
    "task": _of(str),
    "value": _maybe(_number),
    "foil": _maybe(operator.index),
    "foil_label": _of(str),
    "place": _maybe(lambda value: _spans([value])[0]),
}
