"""The explained model's weights need no gradient while a masker is fitted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from captum_aml.training.predictions import modules_of


@contextmanager
def frozen_weights(forward_func: Any) -> Iterator[None]:  # any callable of the user's
    """No weight that can be found from a forward function asks for a gradient inside the block.

    Gradients are taken towards the masker alone in any case; without this, every layer would keep
    what its own weights' gradient needs.
    """
    asked = [
        parameter
        for module in modules_of(forward_func)
        for parameter in module.parameters()
        # What was made in inference mode could not be asked again.
        if parameter.requires_grad and not parameter.is_inference()
    ]
    try:
        for parameter in asked:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in asked:
            parameter.requires_grad_(True)


__all__ = ["frozen_weights"]
