r"""Targets of texts: which outcomes are explained, and against which other ones.

With :math:`z` the outputs of a text model, a contrast between the outcomes :math:`a` and :math:`b`,
why the first and not the second, explains

.. math:: z_a - z_b,

of classes that exclude each other :math:`\log p_a / p_b`. Of methods that add up, contributions
sum to the difference in it between the text and its baseline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from copy import copy
from dataclasses import dataclass
from itertools import repeat
from typing import Any, TypeAlias

from captum_aml.exceptions import InvalidInputError
from captum_aml.text.inputs import Span
from captum_aml.text.models.labels import class_index

#: One outcome by label or index, or a contrast: a pair of them, why the first and not the second.
#: (Where outcomes are characters (start, end), such as answers in a context, these are one; of the
#: tokens of what is written a slice is one, too.)
TargetLike: TypeAlias = "int | str | slice | tuple[int | str | slice | Span, int | str | Span]"

#: What is explained at places of a text: words, or characters (start, end), and what of each.
PlacesLike: TypeAlias = "Mapping[str | Span, TargetLike | list[TargetLike] | None]"

#: What is explained of one text: one target, a list of several, "all" of them, or None for what
#: the task explains by default; of tasks with places also what is explained at which.
TargetsLike: TypeAlias = "TargetLike | PlacesLike | Sequence[TargetLike | PlacesLike] | None"

#: The most texts whose targets an error writes out.
_MOST_SHOWN = 2


@dataclass(frozen=True)
class Target:
    """An outcome to explain.

    Attributes:
        index: Its number among the outcomes.
        foil: The number of the one that it is held against; None where it stands by itself.
    """

    index: int
    foil: int | None = None


def targets_of_texts(
    given: object, texts: object, check: Callable[[TargetsLike], object], *, one_text: bool
) -> Iterator[TargetsLike]:
    """What is explained of each text.

    Args:
        given: One target for all texts, or a list with one, or a list of several, for each text;
            of one text a list of several. ``itertools.repeat`` gives several for all texts.
        texts: The texts.
        check: Refuses what cannot be a target of a text.
        one_text: Whether it is one text that was given.

    Raises:
        InvalidInputError: There are more or fewer than texts.
    """
    if hasattr(given, "tolist"):  # an array or a tensor
        given = given.tolist()
    if isinstance(given, repeat):
        check(next(copy(given)))
        return given
    if isinstance(given, str | tuple | Mapping) or not isinstance(given, Iterable):
        check(given)  # type: ignore[arg-type]  # what it is is found out there
        return repeat(given)  # type: ignore[arg-type]
    each = list(given)
    for item in each:
        if isinstance(item, list) and not item:
            raise _no_target()
        check(item)
    if one_text and not each:
        raise _no_target()
    if one_text and not any(isinstance(item, list) for item in each):
        return repeat(each)
    if isinstance(texts, Sized) and len(texts) != len(each):
        nested = [each] * len(texts)
        hint = f"; several of every text are {nested!r}" if len(nested) <= _MOST_SHOWN else ""
        raise InvalidInputError(
            f"target: expected one class, or one for each of the {len(texts)} texts, got "
            f"{len(each)}{hint}"
        )
    return iter(each)


def _no_target() -> InvalidInputError:
    return InvalidInputError(
        "target: expected one or several, or None for what the task explains, got an empty list"
    )


# What is given may be of any type, which is checked by what it is compared with.
def targets_of_text(given: Any, names: Sequence[str]) -> tuple[Target, ...]:
    """The targets of one text, () for None.

    A label goes before what it could mean otherwise: with classes named "1" and "5", the string
    "1" is the first class, and "all" one that is called so.

    Args:
        given: What is explained.
        names: The names of the outcomes.

    Raises:
        InvalidInputError: There is no such outcome, or a contrast is not one of two outcomes.
    """
    if given is None:
        return ()
    if isinstance(given, str) and given == "all" and given not in names:
        return tuple(Target(index) for index in range(len(names)))
    if isinstance(given, list):
        return tuple(target for item in given for target in targets_of_text(item, names))
    if not isinstance(given, tuple):
        return (Target(class_index(given, names)),)
    if len(given) != 2:
        raise InvalidInputError(
            "target: expected a contrast as a pair, such as ('joy', 'fear'), and several targets "
            f"as a list, got a tuple of {len(given)}"
        )
    fact, foil = (class_index(item, names) for item in given)
    if fact == foil:
        raise InvalidInputError(
            f"target: expected a contrast between two labels, got {names[fact]!r} twice"
        )
    return (Target(fact, foil),)
