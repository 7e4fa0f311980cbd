"""Validation, the best weights, early stopping, and metrics to choose by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from captum_aml import AMLAttribution, LayerAMLAttribution
from captum_aml.exceptions import InvalidInputError
from captum_aml.metrics import comprehensiveness, log_odds, sufficiency
from captum_aml.training import FitCallback, FitState, ValidationMetric, validation_metrics
from captum_aml.training.validation import share
from tests._helpers.fit_runs import LENGTH, Stream, batches_of, equal, planted, weights_of
from tests._helpers.models import PlantedClassifier


class Planned:
    """A metric that gives planned values, and keeps the masker's weights each time."""

    def __init__(self, values: list[float]) -> None:
        self.values = values
        self.weights: list[dict[str, Tensor]] = []

    def __call__(self, attribution: Any, batch: Mapping[str, Any]) -> Tensor:
        assert isinstance(batch["inputs"], Tensor)
        assert not attribution.masker_.training
        value = self.values[len(self.weights)]
        self.weights.append(weights_of(attribution))
        return torch.tensor([value - 1, value + 1, torch.nan])


def fit(plan: Planned, *, higher: bool, **settings: Any) -> AMLAttribution:
    metric = ValidationMetric("planned", plan, higher)
    given = {"epochs": 3, "learning_rate": 1e-2, "select_by": metric, **settings}
    return planted().fit(batches_of(4, 4), batches_of(1, 4, seed=2), **given)


@pytest.mark.parametrize(
    ("higher", "best"), [(True, 1), (False, 3)], ids=["the-highest", "the-lowest"]
)
def test_the_weights_of_the_best_value_are_kept(higher: bool, best: int) -> None:
    values = [2.0, 5.0, 3.0, 1.0, 4.0, 5.0]
    plan = Planned(values)
    aml = fit(plan, higher=higher, validations_per_epoch=2)
    assert equal(weights_of(aml), plan.weights[best])
    assert not equal(plan.weights[best], plan.weights[-1])
    assert aml.history_ is not None
    records = [v for r in aml.history_ for v in r.validations]
    # NaN stands for an example without a value.
    assert [r.value for r in records] == values
    assert [r.means["planned"] for r in records] == values
    assert [r.step for r in records] == [2, 4, 6, 8, 10, 12]
    assert [r.validation["planned"] for r in aml.history_ if r.validation] == [5.0, 1.0, 5.0]
    assert aml.fit_summary_ is not None
    assert aml.fit_summary_.best == records[best]
    assert aml.fit_summary_.stopped == "completed"


@pytest.mark.parametrize("higher", [True, False])
@pytest.mark.parametrize("first", [math.nan, math.inf, -math.inf])
def test_any_finite_value_is_better_than_one_that_is_not(higher: bool, first: float) -> None:
    plan = Planned([first, 2.0, first])
    aml = fit(plan, higher=higher)
    assert equal(weights_of(aml), plan.weights[1])
    assert aml.fit_summary_ is not None
    assert aml.fit_summary_.best is not None
    assert aml.fit_summary_.best.value == 2.0
    validations = [v for r in aml.history_ or [] for v in r.validations]
    assert [v.improved for v in validations] == [False, True, False]


def test_without_a_finite_value_the_last_weights_are_kept() -> None:
    plan = Planned([math.nan] * 3)
    aml = fit(plan, higher=True)
    assert equal(weights_of(aml), plan.weights[-1])
    assert aml.fit_summary_ is not None
    assert aml.fit_summary_.best is None


def test_a_validation_that_is_not_finite_does_not_count() -> None:
    class NaNLater(PlantedClassifier):
        """NaN for the validation examples after the first epoch."""

        def forward(self, ids: Tensor) -> Tensor:
            bad = later and len(ids) % 5 == 0  # the masked passes are made together
            return super().forward(ids) * (math.nan if bad else 1.0)

    class Later(FitCallback):
        def on_epoch_end(self, state: FitState) -> None:
            later.append(1)

    later: list[int] = []
    aml = planted()
    aml.forward_func = NaNLater().eval()
    val = batches_of(1, 5, seed=2)
    with pytest.warns(UserWarning, match=r"^val_batches: expected finite values.*forward_func"):
        aml.fit(batches_of(2, 4), val, epochs=2, learning_rate=1e-2, callbacks=(Later(),))
    first, second = [r.validations[0] for r in aml.history_ or []]
    assert (first.improved, second.improved) == (True, False)
    assert math.isnan(second.value)
    assert aml.fit_summary_ is not None
    assert aml.fit_summary_.best == first
    assert [r.n_steps for r in aml.history_ or []] == [2, 2]


@pytest.mark.parametrize("count", [2, 3])
def test_processes_share_out_every_shuffled_batch_once(count: int) -> None:
    loader: Any = DataLoader(range(11), shuffle=True)  # type: ignore[arg-type]
    seen: list[int] = []
    for index in range(count):
        torch.manual_seed(index)
        processes: Any = SimpleNamespace(index=index, count=count)
        for batch in share(loader, processes, seed=4):
            torch.rand(index)
            seen += batch.tolist()
    assert sorted(seen) == list(range(11))


def test_patience_counts_validations_since_the_best() -> None:
    plan = Planned([3.0, 4.0, 2.0, 4.0, 1.0, 9.0])
    aml = fit(plan, higher=True, validations_per_epoch=2, patience=3)
    assert len(plan.weights) == 5  # an equal value is no improvement; 9 is never seen
    assert equal(weights_of(aml), plan.weights[1])
    assert aml.fit_summary_ is not None
    assert aml.fit_summary_.stopped == "patience"
    assert aml.fit_summary_.n_steps == 10
    assert [r.n_steps for r in aml.history_ or []] == [4, 4, 2]


def test_a_stopped_run_is_over(tmp_path: Any) -> None:
    settings = {"higher": True, "patience": 1, "checkpoint_dir": tmp_path}
    plan = Planned([3.0, 2.0])
    first = fit(plan, **settings)
    again = fit(Planned([]), resume=True, **settings)
    assert equal(weights_of(first), weights_of(again))
    assert equal(weights_of(first), plan.weights[0])
    assert again.fit_summary_ is not None
    assert again.fit_summary_.stopped == "patience"


def test_validations_are_spread_over_an_epoch_where_its_length_is_known() -> None:
    def steps(batches: Any, **settings: Any) -> list[int]:
        aml = planted().fit(batches, batches_of(1, 4, seed=2), epochs=1, **settings)
        return [v.step for r in aml.history_ or [] for v in r.validations]

    assert steps(batches_of(9, 4), validations_per_epoch=3) == [3, 6, 9]
    assert steps(batches_of(2, 4), validations_per_epoch=5) == [1, 2]
    # A stream is counted where that is needed.
    assert steps(Stream(batches_of(4, 4)), validations_per_epoch=2) == [2, 4]
    assert steps(Stream(batches_of(4, 4)), scheduler="constant") == [4]


@pytest.mark.parametrize(
    ("name", "function", "aopc"),
    [
        ("aopc-comprehensiveness", comprehensiveness, True),
        ("sufficiency", sufficiency, False),
        ("log-odds", log_odds, False),
    ],
)
def test_named_metrics_are_those_of_the_package(name: str, function: Any, aopc: bool) -> None:
    val = batches_of(2, 6, seed=2)
    aml = planted().fit(batches_of(3, 8), val, epochs=1, learning_rate=1e-2, select_by=name)
    ids = torch.cat(val)
    values = function(aml.forward_func, ids, aml.attribute(ids), aopc=aopc)
    assert aml.fit_summary_ is not None
    assert aml.fit_summary_.best is not None
    assert aml.fit_summary_.best.value == pytest.approx(values.mean().item(), abs=1e-6)
    assert name in validation_metrics()


def test_a_layers_scores_are_summed_over_its_channels() -> None:
    base = planted()
    aml = LayerAMLAttribution(base.forward_func, base.forward_func.embedding, masker=base.masker)
    val = batches_of(2, 6, seed=2)
    aml.fit(batches_of(3, 8), val, epochs=1, select_by="aopc-comprehensiveness")
    ids = torch.cat(val)
    scores = aml.attribute(ids).sum(dim=-1)  # type: ignore[union-attr]
    expected = comprehensiveness(aml.forward_func, ids, scores, aopc=True).mean().item()
    assert aml.fit_summary_ is not None
    assert aml.fit_summary_.best is not None
    assert aml.fit_summary_.best.value == pytest.approx(expected, abs=1e-6)


def test_a_group_has_the_sum_of_its_tokens_scores() -> None:
    groups = (torch.arange(LENGTH) - 2).clamp(min=0).unsqueeze(0)  # of three tokens, and of one
    val = [{"inputs": ids, "feature_mask": groups} for ids in batches_of(2, 6, seed=2)]
    values = {}
    for scores in ("contribution", "mask"):
        aml = planted(scores=scores)
        aml.fit(batches_of(3, 8), val, epochs=1, select_by="aopc-comprehensiveness")
        values[scores] = aml.fit_summary_.best.value  # type: ignore[union-attr]
    # Both have the same order, and all tokens of a group the same score.
    assert values["contribution"] == pytest.approx(values["mask"], abs=1e-6)


def test_what_does_not_exist_is_answered_with_what_does() -> None:
    with pytest.raises(InvalidInputError) as caught:
        planted().fit(batches_of(1, 4), batches_of(1, 4), select_by="accuracy")
    assert str(caught.value).startswith("select_by: expected one of loss, ")
    assert all(name in str(caught.value) for name in validation_metrics())


@pytest.mark.parametrize("settings", [{"patience": 2}, {"select_by": "sufficiency"}])
def test_what_needs_validation_data_says_so(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=rf"^{next(iter(settings))}: .*val_batches"):
        planted().fit(batches_of(1, 4), epochs=1, **settings)
