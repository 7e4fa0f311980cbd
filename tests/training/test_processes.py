"""Several processes do what one does with larger batches."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard, DataLoaderShard
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler

from captum_aml.exceptions import InvalidInputError
from captum_aml.training import EpochRecord, ValidationRecord
from captum_aml.training.data import check_unshared
from captum_aml.training.processes import Processes
from tests._helpers.fit_runs import Stream, batches_of, equal, planted, weights_of

ROOT = Path(__file__).parents[2]


def fit(batches: Any, validation: Any = None, **settings: Any) -> Any:
    return planted().fit(batches, validation, epochs=2, learning_rate=1e-2, **settings)


def close(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    # Sums of float32 gradients in another order; AdamW divides small ones by their size.
    return a.keys() == b.keys() and all(torch.allclose(a[k], b[k], atol=1e-5) for k in a)


def test_accumulating_is_as_larger_batches() -> None:
    small, large = batches_of(5, 4), list(torch.cat(batches_of(5, 4)).split(8))
    assert [len(b) for b in large] == [8, 8, 4]
    a = fit(small, small[:1], gradient_accumulation_steps=2)
    b = fit(large, small[:1])
    assert close(weights_of(a), weights_of(b))
    assert not close(weights_of(a), weights_of(fit(small)))
    for mine, theirs in zip(a.history_, b.history_, strict=True):
        assert mine.n_steps == theirs.n_steps == 3
        assert mine.train == pytest.approx(theirs.train, rel=1e-5)


def test_examples_count_the_same_whatever_batch_they_are_in() -> None:
    """Batches of 6 and 2 in one step: not the mean of two means."""
    ids = torch.cat(batches_of(2, 4))
    a = fit([ids[:6], ids[6:]], gradient_accumulation_steps=2)
    assert close(weights_of(a), weights_of(fit([ids])))


def test_loaders_that_are_shared_out_already_are_refused() -> None:
    rows: Any = range(12)
    plain = DataLoader(rows, batch_size=2)
    sampler: Any = DistributedSampler(rows, num_replicas=2, rank=0)
    shard: Any = BatchSamplerShard(plain.batch_sampler, num_processes=2, process_index=0)
    loaders: list[Any] = [
        DataLoader(rows, batch_size=2, sampler=sampler),
        DataLoader(rows, batch_sampler=shard),
        DataLoaderShard(rows, batch_size=2),
    ]
    for loader in loaders:
        with pytest.raises(InvalidInputError, match=r"^val_batches: .* pass the loader itself"):
            check_unshared("val_batches", loader, 2)
        check_unshared("val_batches", loader, 1)
    check_unshared("val_batches", plain, 2)
    check_unshared("val_batches", batches_of(2, 4), 2)


def test_fit_refuses_them(monkeypatch: pytest.MonkeyPatch) -> None:
    class Two(Processes):
        def __init__(self) -> None:
            super().__init__()
            self.count = 2

    monkeypatch.setattr("captum_aml.training.fit.Processes", Two)
    ids = torch.cat(batches_of(2, 4))
    sampler: Any = DistributedSampler(ids, num_replicas=2, rank=0)  # type: ignore[arg-type]
    loader: Any = DataLoader(ids, batch_size=4, sampler=sampler)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match=r"^train_batches: .* a DistributedSampler"):
        fit(loader)
    with pytest.raises(InvalidInputError, match=r"^val_batches: .* a DistributedSampler"):
        fit(batches_of(2, 4), loader)


def _launch(out: Path, n_batches: int) -> None:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    options = ["--num_processes", "2", "--num_machines", "1", "--main_process_port", "0"]
    script = ["tests/_helpers/fit_runs.py", str(out), str(n_batches)]
    done = subprocess.run(
        [*command, *options, *script],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]


@pytest.mark.slow
def test_two_processes_are_as_one_with_batches_twice_as_large(tmp_path: Path) -> None:
    """Over a stream of five batches, so that in the last step one process has none."""
    _launch(tmp_path / "weights", 5)
    first, second = (load_file(tmp_path / f"weights.{rank}") for rank in range(2))
    assert equal(first, second)
    texts = [(tmp_path / f"weights.{rank}.txt").read_text() for rank in range(2)]
    assert texts[0] == texts[1]
    small = batches_of(5, 4)
    large = Stream(list(torch.cat(small).split(8)))
    alone = fit(large, small[:3], validations_per_epoch=2)
    assert close(first, weights_of(alone))
    names = {"EpochRecord": EpochRecord, "ValidationRecord": ValidationRecord}
    together: list[EpochRecord] = eval(texts[0], names)
    for mine, theirs in zip(together, alone.history_, strict=True):
        assert (mine.n_examples, mine.n_steps) == (theirs.n_examples, theirs.n_steps) == (20, 3)
        assert len(mine.validations) == 2
        assert mine.train == pytest.approx(theirs.train, rel=1e-5)
        assert mine.validation == pytest.approx(theirs.validation, rel=1e-5)
