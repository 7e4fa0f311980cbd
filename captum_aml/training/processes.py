r"""The processes that fit together: who takes which batch, and sums over all of them.

Accelerate says how many there are and carries the sums; the masker is not wrapped. With B examples
over all processes and micro-batches of a step, its gradient is

.. math:: g = \frac{1}{B} \sum_{p} \sum_{i} \nabla \ell_i,

so that P processes with batches of N examples do what one does with batches of P * N, and what
accumulation over P batches does.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")


class Processes:
    r"""The processes of a run; a single one unless a launcher started several.

    Attributes:
        count: How many there are.
        index: The number of this one, from 0.
    """

    def __init__(self) -> None:
        # Imported here: it takes a second, and only fitting needs it.
        from accelerate import PartialState
        from accelerate.utils import parse_flag_from_env

        # Shared with any Accelerator of the caller's; it joins the group of processes if there is
        # one. An Accelerator is not made: its settings are global, and the caller's may differ.
        use_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or _launched_without_accelerator()
        self._state = PartialState(cpu=use_cpu)
        self.count = int(self._state.num_processes)
        self.index = int(self._state.process_index)

    @property
    def is_main(self) -> bool:
        """Whether this one prints, logs and writes."""
        return self.index == 0

    def gather(self, value: T) -> list[T]:
        """Every process's value, in order."""
        if self.count == 1:
            return [value]
        from accelerate.utils import gather_object

        gathered: list[T] = gather_object([value])
        return gathered

    def from_main(self, value: T) -> T:
        """The main process's value."""
        if self.count == 1:
            return value
        from accelerate.utils import broadcast_object_list

        (shared,) = broadcast_object_list([value])
        result: T = shared
        return result

    def share(self, module: nn.Module) -> None:
        """Gives a module in every process the main one's parameters and buffers.

        Networks that each process drew for itself differ, unless they were seeded.
        """
        if self.count == 1:
            return
        from accelerate.utils import broadcast

        with torch.no_grad():
            for tensor in module.state_dict().values():
                tensor.copy_(broadcast(tensor.detach().to(self._state.device).contiguous()))

    def any(self, flag: bool) -> bool:
        """Whether any process says yes."""
        return any(self.gather(flag))

    def sum_gradients(
        self, gradients: Sequence[Tensor | None], parameters: Sequence[nn.Parameter]
    ) -> list[Tensor | None]:
        """The sum of every gradient over the processes; None where no process has one."""
        if self.count == 1:
            return list(gradients)
        from accelerate.utils import reduce

        filled = [
            torch.zeros_like(p) if g is None else g
            for g, p in zip(gradients, parameters, strict=True)
        ]
        flat = torch.cat([g.flatten().to(self._state.device) for g in filled])
        had = [float(g is not None) for g in gradients]
        total = reduce(torch.cat([flat, flat.new_tensor(had)]), reduction="sum")
        sums = total[: flat.numel()].split([g.numel() for g in filled])
        return [
            part.reshape(g.shape).to(g) if n > 0 else None
            for part, g, n in zip(sums, filled, total[flat.numel() :].tolist(), strict=True)
        ]


def n_launched() -> int:
    """The number of processes that a launcher started together, without joining them."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size()
    return int(os.environ.get("WORLD_SIZE", "1"))


def _launched_without_accelerator() -> bool:
    """Whether a launcher started several processes where there is only the CPU.

    Accelerate joins such processes only where the CPU is chosen; each would otherwise take
    itself for the only one.
    """
    if n_launched() < 2:
        return False
    if hasattr(torch, "accelerator"):
        return not torch.accelerator.is_available()
    return not torch.cuda.is_available()
