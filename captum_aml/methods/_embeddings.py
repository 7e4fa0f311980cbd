"""Forward functions of embeddings, made from those of token ids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from captum_aml.exceptions import LayerNotReachedError


def from_embeddings(
    function: Callable[..., Tensor], embedding_layer: nn.Module
) -> Callable[..., Tensor]:
    """The same function with the layer's output given instead of computed.

    Args:
        function: ``(ids, *args)`` to a tensor.
        embedding_layer: The layer inside it that embeds the ids.

    Returns:
        ``(embeddings, ids, *args)`` to the same tensor.
    """

    def forward(embeddings: Tensor, ids: Tensor, *args: object) -> Tensor:
        replaced = 0

        def replace(_: nn.Module, __: Any, output: Any) -> Tensor:  # whatever the layer returns
            nonlocal replaced
            replaced += 1
            if not isinstance(output, Tensor) or output.shape != embeddings.shape:
                raise LayerNotReachedError(
                    f"embedding_layer: expected an output of shape {tuple(embeddings.shape)}"
                )
            return embeddings.to(output.dtype)

        handle = embedding_layer.register_forward_hook(replace)
        try:
            result = function(ids, *args)
        finally:
            handle.remove()
        if replaced != 1:
            raise LayerNotReachedError(
                f"embedding_layer: expected it to run once in the forward function, it ran "
                f"{replaced} times"
            )
        return result

    return forward
