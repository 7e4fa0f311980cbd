"""The explained model's answers to unmasked examples, computed once and kept.

They do not change while a masker is fitted. Where every example of a batch is known, and what the
mask is applied to can be had without a pass, the pass is left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

from captum_aml.masking.call import Call
from captum_aml.masking.forward import modules_of
from captum_aml.masking.sites import Capture, Site
from captum_aml.readout import output_tensor

#: The most examples and numbers that are kept: about 15 MB of examples with two classes.
MAX_EXAMPLES = 50_000
MAX_NUMBERS = 2**24


class PredictionCache:
    """Outputs by the content of the example that led to them.

    An example is what the forward function is given for it: its row of every tensor, padding
    included, and the other arguments. The first ``max_examples`` are kept, so that memory does not
    grow with a stream. Nothing is kept of a model in training mode, whose answers are random.

    Args:
        max_examples: The most examples.
        max_numbers: The most numbers in all outputs together.

    Attributes:
        hits: Batches that needed no pass.
    """

    def __init__(self, *, max_examples: int = MAX_EXAMPLES, max_numbers: int = MAX_NUMBERS) -> None:
        self._max_examples = max_examples
        self._max_numbers = max_numbers
        self._outputs: dict[bytes, Tensor] = {}
        self._numbers = 0
        self._earlier: tuple[Call, Capture] | None = None
        self.hits = 0

    def __len__(self) -> int:
        return len(self._outputs)

    def capture(self, call: Call, site: Site) -> Capture:
        """What a pass over the unmasked inputs shows, without the pass where that is possible."""
        keys = None if in_training(site) else example_keys(call)
        if keys is None:
            return site.capture(call)
        if self._earlier is not None and all(key in self._outputs for key in keys):
            output = torch.stack([self._outputs[key] for key in keys])
            recalled = site.recall(call, self._earlier, output)
            if recalled is not None:
                self.hits += 1
                return recalled
        capture = site.capture(call)
        output = output_tensor(capture.output)
        if output.dim() > 0 and len(output) == call.n_examples:
            self._keep(keys, output)
            self._earlier = (call, capture)
        return capture

    def _keep(self, keys: list[bytes], output: Tensor) -> None:
        # One copy for the batch; its rows are views of it.
        for key, row in zip(keys, output.detach().clone(), strict=True):
            if key in self._outputs:
                continue
            if (
                len(self._outputs) >= self._max_examples
                or self._numbers + row.numel() > self._max_numbers
            ):
                return
            self._outputs[key] = row
            self._numbers += row.numel()


def in_training(site: Site) -> bool:
    """Whether a part of the explained model is in training mode, so that its answers are random."""
    modules = list(modules_of(site.forward_func))
    layer = site.embedding_layer()
    return any(m.training for m in [*modules, *([layer] if layer is not None else [])])


def example_keys(call: Call, *more: Tensor) -> list[bytes] | None:
    """A digest for each example, or None where the arguments cannot be compared.

    Args:
        call: What the forward function is given.
        *more: Whatever else tells examples apart, (N, ...).
    """
    n = call.n_examples
    hashes = [hashlib.blake2b(digest_size=16) for _ in range(n)]

    def add(content: Callable[[int], bytes]) -> None:
        for row, digest in enumerate(hashes):
            digest.update(content(row))

    args = [(a, i in call.batched) for i, a in enumerate(call.additional_forward_args)]
    for argument, batched in [*((t, True) for t in (*call.inputs, *more)), *args]:
        if isinstance(argument, Tensor):
            shape = argument.shape[1:] if batched else argument.shape
            header = f"{argument.dtype} {tuple(shape)} {batched};".encode()
            plain = argument.detach().cpu().reshape(n if batched else 1, -1).contiguous()
            rows = plain.view(torch.uint8).numpy()
            parts = [row.tobytes() for row in rows] if batched else [rows.tobytes()] * n
            add(lambda row, header=header, parts=parts: header + parts[row])  # type: ignore[misc]
        elif argument is None or isinstance(argument, bool | int | float | str):
            text = f"{argument!r};".encode()
            add(lambda _, text=text: text)  # type: ignore[misc]
        else:
            return None
    return [digest.digest() for digest in hashes]


__all__ = ["MAX_EXAMPLES", "PredictionCache", "example_keys", "in_training"]
