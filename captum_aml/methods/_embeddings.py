"""Forward functions of embeddings, made from those of token ids."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from captum_aml._utils.hooks import run_with_output


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
        def given(output: Tensor) -> Tensor | None:
            return embeddings.to(output.dtype) if output.shape == embeddings.shape else None

        result: Tensor = run_with_output(
            embedding_layer, given, lambda: function(ids, *args), tuple(embeddings.shape)
        )
        return result

    return forward
