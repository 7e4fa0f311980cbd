"""Readings of a meter against counts by hand."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from captum_aml import methods
from captum_aml.benchmark.explain import (
    MethodRun,
    explain_run,
    load_masker,
    metered,
)
from captum_aml.benchmark.plan import Plan
from captum_aml.benchmark.results import Cost
from captum_aml.reviews import reviews_masker_path
from tests._helpers.benchmark_runs import Passes, opened, reviews, reviews_classifier

CPU = torch.device("cpu")


class Classifier(nn.Module):
    """Logits as a transformer gives them: in an object."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.inner(x))


class TestCounts:
    def test_examples_forward_and_back(self) -> None:
        model = nn.Linear(3, 2)
        with metered([model], CPU) as meter:
            model(torch.ones(5, 3)).sum().backward()
            with torch.no_grad():
                model(torch.ones(7, 3))
            model(torch.ones(2, 3))  # nothing comes back through it
        assert (meter.forward_passes, meter.backward_passes) == (14, 5)

    def test_a_pass_that_is_taken_back_twice_counts_twice(self) -> None:
        model = nn.Linear(3, 2)
        with metered([model], CPU) as meter:
            out = model(torch.ones(5, 3))
            out[:, 0].sum().backward(retain_graph=True)
            out[:, 1].sum().backward()
        assert (meter.forward_passes, meter.backward_passes) == (5, 10)

    def test_a_network_within_a_network_counts_once(self) -> None:
        model = Classifier()
        with metered([model], CPU) as meter:
            model(torch.ones(5, 3)).logits.sum().backward()
        assert (meter.forward_passes, meter.backward_passes) == (5, 5)

    def test_a_tuple_counts_as_its_first(self) -> None:
        class Masker(nn.Linear):
            def forward(self, x: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
                logits = super().forward(x)
                return logits, logits[:2]

        masker = Masker(3, 3)
        with metered([masker], CPU) as meter:
            masker(torch.ones(5, 3))[0].sum().backward()
        assert (meter.forward_passes, meter.backward_passes) == (5, 5)

    def test_two_networks_count_both(self) -> None:
        model, masker = Classifier(), nn.Linear(3, 3)
        with metered([model, masker], CPU) as meter:
            model(masker(torch.ones(5, 3)))
        assert meter.forward_passes == 10

    def test_nothing_is_left_behind_after_an_error(self) -> None:
        model = Classifier()

        def broken() -> None:
            with metered([model], CPU) as meter:
                meters.append(meter)
                model(torch.ones(5, 3))
                raise ZeroDivisionError

        meters: list[Cost] = []
        with pytest.raises(ZeroDivisionError):
            broken()
        assert meters[0].forward_passes == 5
        assert not model._forward_hooks
        model(torch.ones(5, 3))
        assert meters[0].forward_passes == 5


def test_wall_time() -> None:
    with metered([], CPU) as meter:
        time.sleep(0.02)
    assert 0.02 <= meter.seconds < 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process's peak")
def test_peak_memory_is_what_a_block_took() -> None:
    earlier = torch.ones(2**25)  # 128 MiB, taken before and given back before
    del earlier
    kept = torch.ones(2**23)  # 32 MiB that are there before
    with metered([], CPU) as meter:
        torch.ones(2**24).sum()  # 64 MiB of float32, given back within the block
    if meter.peak_memory_mib is None:
        pytest.skip("the system does not let a process reset its peak")
    assert 60 < meter.peak_memory_mib < 80
    with metered([], CPU) as meter:
        kept.sum()
    assert meter.peak_memory_mib is not None
    assert meter.peak_memory_mib < 8, "a peak is forgotten"


def test_shared_equally() -> None:
    meter = Cost(forward_passes=12, backward_passes=6, seconds=3.0, peak_memory_mib=5.0)
    assert asdict(meter.shared(4)) == {
        "forward_passes": 3.0,
        "backward_passes": 1.5,
        "seconds": 0.75,
        "peak_memory_mib": 5.0,
    }


class TestMethods:
    """Passes per text of real methods; T is the number of a text's tokens."""

    @pytest.mark.parametrize(
        ("name", "n_steps", "forward", "backward"),
        [
            ("random", None, lambda _: 0, 0),
            ("saliency", None, lambda _: 1, 1),
            # Two more for the embeddings of the text and of its baseline.
            ("integrated-gradients", 7, lambda _: 7 + 2, 7),
            ("occlusion", None, lambda T: T + 1, 0),
            ("attention", None, lambda _: 1, 0),
        ],
    )
    def test_by_hand(
        self,
        tmp_path: Path,
        name: str,
        n_steps: int | None,
        forward: object,
        backward: int,
    ) -> None:
        assert callable(forward)
        text_model = reviews_classifier()
        plan = Plan.of(text_model, [item.text for item in reviews(5)], batch_size=2)
        run = MethodRun(methods.spec(name), seed=0, n_steps=n_steps)
        with opened(tmp_path, run, text_model, plan) as (method, file):
            explain_run(run, method, text_model, plan, file)
            records = list(file)
        sizes = [sum(text.maskable) for text in plan.texts]
        assert sum(r["forward_passes"] for r in records) == sum(forward(T) for T in sizes)
        assert sum(r["backward_passes"] for r in records) == 5 * backward
        # Those of one batch share alike.
        assert records[0]["forward_passes"] == records[1]["forward_passes"]

    @pytest.mark.parametrize(("name", "n_steps"), [("aml", None), ("la-tuned", 3)])
    def test_a_masker_s_passes_count(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, n_steps: int | None
    ) -> None:
        text_model = reviews_classifier()
        plan = Plan.of(text_model, [item.text for item in reviews(3)], batch_size=3)
        masker = load_masker(reviews_masker_path(name[: -len("-tuned")] if n_steps else name))
        run = MethodRun(methods.spec(name), 0, n_steps, masker)
        with opened(tmp_path, run, text_model, plan) as (method, file):
            passes = [
                Passes(monkeypatch, network)
                for network in (text_model.model, method.attribution.masker_)
            ]
            explain_run(run, method, text_model, plan, file)
            records = list(file)
        through_model, through_masker = (p.count for p in passes)
        assert through_masker == 3
        # The pass that finds the explained class is not the method's.
        expected = through_model - 3 + through_masker
        assert sum(r["forward_passes"] for r in records) == pytest.approx(expected)
        steps = n_steps or 0
        assert sum(r["backward_passes"] for r in records) == pytest.approx(3 * steps)
