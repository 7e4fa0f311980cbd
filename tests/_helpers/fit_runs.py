"""Small fits with everything random in them, in this process or in processes of their own.

As a script, ``fit_runs.py OUT N_BATCHES`` fits as one process of ``accelerate launch``.
"""

from __future__ import annotations

import copy
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader

from captum_aml import AMLAttribution
from captum_aml.maskers import EmbeddingMasker, TransformerMasker
from captum_aml.training import FitCallback, FitState
from tests._helpers.models import PlantedClassifier, planted_texts, tiny_encoder

LENGTH = 7


def weights_of(attribution: Any) -> dict[str, Tensor]:
    assert attribution.masker_ is not None
    return copy.deepcopy(attribution.masker_.state_dict())


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def planted(**settings: Any) -> AMLAttribution:
    """An attribution of the planted classifier with the same small masker every time."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        masker = EmbeddingMasker(feature_shapes=[(LENGTH, 8)], n_classes=3, hidden_size=16)
    return AMLAttribution(PlantedClassifier().eval(), **{"masker": masker, **settings})


def batches_of(n_batches: int, size: int, *, seed: int = 1) -> list[Tensor]:
    ids, _ = planted_texts(n_batches * size, LENGTH, seed=seed)
    return list(ids.split(size))


def random_attribution() -> AMLAttribution:
    """A tiny BERT with a masker that has dropout."""
    model = tiny_encoder("bert")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        masker = TransformerMasker.from_model(model)
    return AMLAttribution(model, masker=masker)


class Augmenting:
    """A data set that draws from torch's generator for every example."""

    def __init__(self, ids: Tensor) -> None:
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Tensor:
        row = self.ids[index].clone()
        row[torch.randint(0, len(row), (1,))] = 3
        return row


def random_batches(generator: bool) -> Any:
    """Shuffled and augmented; five batches, the last one smaller."""
    ids = torch.randint(3, 30, (18, 6), generator=torch.Generator().manual_seed(2))
    own = torch.Generator().manual_seed(3) if generator else None
    return DataLoader(Augmenting(ids), batch_size=4, shuffle=True, generator=own)  # type: ignore[arg-type]


def run(
    folder: str | Path | None,
    *,
    callbacks: tuple[FitCallback, ...] = (),
    generator: bool = True,
    **settings: Any,
) -> AMLAttribution:
    """Two epochs of three steps with two validations each; everything that can be random is."""
    given: dict[str, Any] = {
        "epochs": 2,
        "learning_rate": 1e-3,
        "gradient_accumulation_steps": 2,
        "validations_per_epoch": 2,
        "scheduler": "cosine",
        "warmup_ratio": 0.2,
        "seed": 5,
        "checkpoint_dir": folder,
        **settings,
    }
    validation = [torch.randint(3, 30, (4, 6), generator=torch.Generator().manual_seed(9))]
    return random_attribution().fit(
        random_batches(generator), validation, callbacks=callbacks, **given
    )


class Stream:
    """Batches without a length."""

    def __init__(self, batches: list[Tensor]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Tensor]:
        yield from self.batches


class KillAt(FitCallback):
    """SIGKILL after a step: nothing can be cleaned up."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, state: FitState) -> None:
        if state.step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def run_until_killed(folder: Path, step: int) -> None:
    """A run in a folder whose process kills itself after a step."""
    run(folder, callbacks=(KillAt(step),), save_every=1)


def main(out: str, number: str) -> None:
    torch.set_num_threads(1)
    batches = batches_of(int(number), 4)
    rank = int(os.environ["RANK"])
    aml = planted()
    assert aml.masker is not None
    with torch.no_grad():
        for parameter in aml.masker.parameters():
            # As if every process had drawn its own: that of the first one counts.
            parameter.add_(0.1 * rank)
    aml.fit(Stream(batches), batches[:3], epochs=2, learning_rate=1e-2, validations_per_epoch=2)
    save_file(weights_of(aml), f"{out}.{rank}")
    assert aml.history_ is not None
    Path(f"{out}.{rank}.txt").write_text(repr(aml.history_))


if __name__ == "__main__":
    main(*sys.argv[1:])
