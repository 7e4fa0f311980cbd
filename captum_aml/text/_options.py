"""Options of tasks' classes that are given where only common ones are taken."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from captum_aml.text.models.registry import classes_with

_P = ParamSpec("_P")


def refers_to_classes(init: Callable[_P, None]) -> Callable[_P, None]:
    """A decorator of a constructor that takes a class of text models in place of a model.

    A keyword that is not its own but an option of such a class is refused with the class's name.

    Args:
        init: The constructor.

    Raises:
        TypeError: By the constructor that is made: it is given such a keyword.
    """
    own = inspect.signature(init).parameters

    @wraps(init)
    def checked(*args: _P.args, **kwargs: _P.kwargs) -> None:
        for option, value in kwargs.items():
            kinds = [] if option in own else classes_with(option)
            if kinds:
                raise TypeError(
                    f"{option}: an option of {' and '.join(kinds)}; in place of the model give "
                    f"{kinds[0]}.from_pretrained(folder, {option}={value!r}), or "
                    f"{kinds[0]}(model, tokenizer, {option}={value!r})"
                )
        init(*args, **kwargs)

    return checked
