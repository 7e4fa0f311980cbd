"""Data of a fit: the batches of an epoch, and the explained model's predictions for them.

Training batches are read so that a resumed run sees those that it would have seen: whatever is
drawn from torch's generator while batches are made (an order, a random crop) comes from a state of
its own, seeded by the run's seed and the epoch. What the masker draws in between has no part in it,
and skipping the batches that were consumed already leads to the same state.

Predictions for unmasked examples do not change while a masker is fitted: they are computed once.
Where every example of a batch is known, and what the mask is applied to can be had without a pass,
the pass is left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sized
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from captum_aml.exceptions import InvalidInputError
from captum_aml.masking.call import Call
from captum_aml.masking.forward import modules_of
from captum_aml.masking.sites import Capture, Site
from captum_aml.readout import output_tensor
from captum_aml.typing import Batch, Batches


def derived_seed(seed: int, *purpose: str | int) -> int:
    """A seed for one purpose, unrelated to those for others."""
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def seed_torch(seed: int) -> None:
    """Seeds torch's generators; to be called where their state is given back afterwards."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


class Feed:
    """The training batches, epoch by epoch.

    Args:
        batches: Batches that can be read once for each epoch.
        seed: The run's seed.

    Attributes:
        restored: States of the batches' own generators with which the next epoch begins, of a run
            that is resumed.
        began: Their states at the beginning of this epoch.
    """

    def __init__(self, batches: Batches, *, seed: int) -> None:
        self._batches = batches
        self._seed = seed
        self._state = torch.get_rng_state()
        self.restored: list[Tensor] = []
        self.began: list[Tensor] = []

    @property
    def generators(self) -> list[torch.Generator]:
        """Generators of the batches' own, as a ``DataLoader`` may have."""
        found = []
        for part in self.parts:
            generator = getattr(part, "generator", None)
            if isinstance(generator, torch.Generator) and generator not in found:
                found.append(generator)
        return found

    def states(self) -> list[Tensor]:
        """The present states of these."""
        return [generator.get_state() for generator in self.generators]

    def count(self) -> int:
        """The number of batches; they are read once where they have no length.

        Raises:
            InvalidInputError: There is none.
        """
        states = self.states()
        n_batches = length_of(self._batches)
        if n_batches is None:
            n_batches = sum(1 for _ in self.drawing(derived_seed(self._seed, "count")))
        for generator, state in zip(self.generators, states, strict=True):
            generator.set_state(state)
        if n_batches == 0:
            raise InvalidInputError("train_batches: expected at least one batch, got none")
        return n_batches

    def epoch(self, number: int, *, skip: int = 0) -> Iterator[Batch]:
        """The batches of an epoch.

        Args:
            number: The epoch, from 1. ``set_epoch``, where there is one, gets it from 0.
            skip: Batches that were consumed already.
        """
        for generator, state in zip(self.generators, self.restored, strict=False):
            generator.set_state(state)
        self.restored, self.began = [], self.states()
        for part in self.parts:
            if callable(getattr(part, "set_epoch", None)):
                part.set_epoch(number - 1)
        batches = self.drawing(derived_seed(self._seed, "epoch", number))
        for _ in range(skip):
            next(batches, None)
        return batches

    def drawing(self, seed: int) -> Iterator[Batch]:
        """The batches, made under a random state of their own, which the seed begins."""
        with self._own_state(seed):
            iterator = iter(self._batches)
        while True:
            with self._own_state():
                try:
                    batch = next(iterator)
                except StopIteration:
                    return
            yield batch

    @contextmanager
    def _own_state(self, seed: int | None = None) -> Iterator[None]:
        outer = torch.get_rng_state()
        if seed is None:
            torch.set_rng_state(self._state)
        else:
            torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            self._state = torch.get_rng_state()
            torch.set_rng_state(outer)

    # What users give as batches, and what that is made of, has no type of its own.
    @property
    def parts(self) -> list[Any]:
        """The batches, and what they are made of, as far as a ``DataLoader`` shows."""
        given: Any = self._batches
        parts = [given]
        for name in ("dataset", "sampler", "batch_sampler"):
            part = getattr(given, name, None)
            parts += [part, getattr(part, "sampler", None)]
        unique: list[Any] = []
        for part in parts:
            if part is not None and all(part is not other for other in unique):
                unique.append(part)
        return unique


def reusable(name: str, batches: Any, *, once: bool) -> Batches:
    """Checks that batches can be read as often as they have to be.

    Args:
        name: The argument's name.
        batches: Whatever the caller gave.
        once: Whether there is a single epoch, for which an iterator will do.

    Returns:
        The batches, those of an iterator as a list.

    Raises:
        InvalidInputError: They are no iterable of batches, or an iterator for several epochs, or
            there is none.
    """
    if isinstance(batches, Tensor | Mapping) or not hasattr(batches, "__iter__"):
        raise InvalidInputError(
            f"{name}: expected an iterable of batches such as a DataLoader or a list, "
            f"got {type(batches).__name__}"
        )
    if isinstance(batches, Iterator):
        if not once:
            raise InvalidInputError(
                f"{name}: expected an iterable that can be read once for each epoch, got an "
                f"iterator ({type(batches).__name__}); pass a list or a DataLoader"
            )
        batches = list(batches)
    if length_of(batches) == 0:
        raise InvalidInputError(f"{name}: expected at least one batch, got none")
    checked: Batches = batches
    return checked


def check_unshared(name: str, batches: Batches, n_processes: int) -> None:
    """Refuses a loader that gives each process a part: fitting takes a share of what it reads.

    Args:
        name: The argument's name.
        batches: The batches.
        n_processes: The processes that fit.

    Raises:
        InvalidInputError: There are several processes, and the loader is one for each.
    """
    if n_processes == 1:
        return
    from accelerate.data_loader import DataLoaderDispatcher, DataLoaderShard

    for part in Feed(batches, seed=0).parts:
        # DistributedSampler and its like have the one, Accelerate's shards the other.
        counts = (getattr(part, "num_replicas", 1), getattr(part, "num_processes", 1))
        shared = any(isinstance(count, int) and count > 1 for count in counts)
        if shared or isinstance(part, DataLoaderDispatcher | DataLoaderShard):
            raise InvalidInputError(
                f"{name}: expected batches that are the same in every process, got a "
                f"{type(part).__name__}, which gives each its own part; pass the loader itself: "
                "fit shares it out"
            )


def length_of(batches: Batches) -> int | None:
    """The number of batches where they have a length."""
    if isinstance(batches, Sized):
        try:
            return len(batches)
        except TypeError:  # a DataLoader over a stream has the method, but no answer
            pass
    return None


def validation_steps(n_steps: int | None, n_validations: int) -> frozenset[int]:
    """The steps of an epoch after which to validate, its end not counted.

    Args:
        n_steps: Steps in an epoch; None where it is not known, which leaves its end alone.
        n_validations: Validations in an epoch.
    """
    if n_steps is None:
        return frozenset()
    places = (round(i * n_steps / n_validations) for i in range(1, n_validations))
    return frozenset(place for place in places if 0 < place < n_steps)


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
        """The capture of the unmasked inputs, without a pass where that is possible."""
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
    """Whether a part of the explained model is in training mode, so that its outputs are random."""
    modules = list(modules_of(site.forward_func))
    layer = site.embedding_layer()
    return any(m.training for m in [*modules, *([layer] if layer is not None else [])])


def example_keys(call: Call, *more: Tensor) -> list[bytes] | None:
    """A digest for each example, or None where the arguments cannot be compared.

    Args:
        call: What the forward function is given.
        *more: Whatever else distinguishes examples, (N, ...).
    """
    n = call.n_examples
    hashes = [hashlib.blake2b(digest_size=16) for _ in range(n)]

    def add(content: Callable[[int], bytes]) -> None:
        for row, digest in enumerate(hashes):
            digest.update(content(row))

    args = [(a, i in call.batched) for i, a in enumerate(call.additional_forward_args)]
    # The order decides the digests, and with them the subsets that are drawn for an example.
    inputs = [(tensor, True) for tensor in call.inputs]
    for argument, batched in [*inputs, *args, *((tensor, True) for tensor in more)]:
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
