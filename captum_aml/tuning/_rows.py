"""Linear and convolutional modules as matrices: their inputs and outputs as rows of each example.

Both compute ``rows @ weight.T + bias``, a convolution over the patches of its input.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)


def is_matrix(module: nn.Module, *, frozen: bool = False) -> bool:
    """Whether a module can be read as a matrix, and its weight is trained unless ``frozen``."""
    if isinstance(module, _CONVOLUTIONS):
        supported = module.groups == 1
    else:
        supported = isinstance(module, nn.Linear)
    weight = getattr(module, "weight", None)
    return supported and isinstance(weight, Tensor) and (frozen or weight.requires_grad)


def is_batched(module: nn.Module, given: Tensor) -> bool:
    """Whether a tensor given to such a module has a leading dimension that could be examples."""
    if isinstance(module, _CONVOLUTIONS):
        return given.dim() == 2 + len(module.kernel_size)
    return given.dim() >= 2


def matrix_shape(module: nn.Module) -> tuple[int, int]:
    """The number of inputs and of outputs."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight[0].numel(), weight.shape[0]


def input_rows(module: nn.Module, given: Tensor, n_examples: int) -> Tensor:
    """The rows that a module's weight is applied to, (N, S, inputs), in float32 at least."""
    rows = given.to(torch.promote_types(given.dtype, torch.float32))
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        rows = _patches(module, rows)
    return rows.reshape(n_examples, -1, rows.shape[-1])


def output_rows(module: nn.Module, output: Tensor, n_examples: int) -> Tensor:
    """A tensor of the output's shape as rows, (N, S, outputs)."""
    if isinstance(module, _CONVOLUTIONS):
        output = output.flatten(2).transpose(1, 2)
    return output.reshape(n_examples, -1, output.shape[-1])


def as_output(module: nn.Module, rows: Tensor, output: Tensor) -> Tensor:
    """Rows (N, S, outputs) in the shape and dtype of a module's output."""
    if isinstance(module, _CONVOLUTIONS):
        by_place = rows.reshape(output.shape[0], -1, output.shape[1])
        return by_place.transpose(1, 2).reshape(output.shape).to(output.dtype)
    return rows.reshape(output.shape).to(output.dtype)


def has_bias(module: nn.Module, *, frozen: bool = False) -> bool:
    """Whether there is a bias, which is trained unless ``frozen``."""
    bias = getattr(module, "bias", None)
    return isinstance(bias, Tensor) and (frozen or bias.requires_grad)


def _patches(module: nn.Conv1d | nn.Conv2d, given: Tensor) -> Tensor:
    """The inputs of a convolution's weight at each place, (N, places, inputs)."""
    sizes = (module.kernel_size, module.dilation, module.stride)
    kernel, dilation, stride = (_pair(size, 1) for size in sizes)
    margins: list[int] = []  # of the last dimension first, before and after
    for axis in reversed(range(len(module.kernel_size))):
        if isinstance(module.padding, str):
            total = module.dilation[axis] * (module.kernel_size[axis] - 1)
            total = total if module.padding == "same" else 0
            margins += [total // 2, total - total // 2]
        else:
            margins += [module.padding[axis]] * 2
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    padded = nn.functional.pad(given, margins, mode=mode)
    if padded.dim() == 3:
        padded = padded.unsqueeze(2)
    unfolded = nn.functional.unfold(padded, kernel, dilation=dilation, stride=stride)
    return unfolded.transpose(1, 2)


def _pair(sizes: Sequence[int], first: int) -> tuple[int, int]:
    return (first, sizes[0]) if len(sizes) == 1 else (sizes[0], sizes[1])
