"""Block-sparse attention that a model gives up for good at its first short text (BigBird)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn

_SPARSE = "block_sparse"


def sparse_parts(model: nn.Module) -> list[nn.Module]:
    """The parts of a model that have block-sparse attention now; none for most models."""
    return [part for part in model.modules() if getattr(part, "attention_type", None) == _SPARSE]


@contextmanager
def kept_sparse(parts: Sequence[nn.Module]) -> Iterator[None]:
    """Gives parts of a model their block-sparse attention back after the block.

    A text that is too short for it makes the model take full attention for this and all later
    texts, so that what it says of a long text would depend on what came before.
    """
    before = [(part, dict(part._modules)) for part in parts]
    try:
        yield
    finally:
        for part, children in before:
            part.attention_type = _SPARSE  # type: ignore[assignment]  # no weight, as torch has it
            part._modules.update(children)
