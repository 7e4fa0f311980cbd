from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_aml import AMLAttribution
from captum_aml.exceptions import InvalidInputError
from captum_aml.maskers import EmbeddingMasker, MaskerInputs
from captum_aml.maskers.checkpoint import Checkpoint
from captum_aml.masking.problem import MaskingProblem
from captum_aml.training import ValidationMetric
from captum_aml.training.regression import (
    LOGITS_PER_UNIT,
    NEUTRAL_LOGIT,
    RegressionLoss,
    _draw,
)
from tests._helpers.models import PlantedClassifier, planted_texts, problem_for

N_FEATURES = 5


class Additive(nn.Module):
    """Probabilities (1 - p, p) with p = 0.2 + w . x: removal of a feature costs just its share."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor([0.3, -0.1, 0.0, 0.2, 0.1], dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        p = 0.2 + x.double() @ self.weights
        return torch.stack([1 - p, p], dim=1)


class Interacting(Additive):
    """The same with an interaction of the first two features, which no additive scores express."""

    def forward(self, x: Tensor) -> Tensor:
        p = 0.3 + 0.2 * x[:, 0].double() * x[:, 1].double() + 0.1 * x[:, 3].double()
        return torch.stack([1 - p, p], dim=1)


def rows(n: int) -> Tensor:
    return torch.rand(n, N_FEATURES, generator=torch.Generator().manual_seed(2)) * 0.5 + 0.5


def additive_problem(model: nn.Module, x: Tensor) -> MaskingProblem:
    target = torch.ones(len(x), dtype=torch.long)
    return problem_for(model, x, target=target, output="probabilities")


def logits_of(contributions: Tensor) -> Tensor:
    return NEUTRAL_LOGIT + LOGITS_PER_UNIT * contributions


def test_true_contributions_of_an_additive_model_have_no_loss() -> None:
    model, x = Additive().eval(), rows(4)
    loss = RegressionLoss(n_subsets=10)
    true = x.double() * model.weights.detach()
    terms = loss(additive_problem(model, x), logits_of(true), where="here")
    torch.testing.assert_close(terms.total, torch.zeros(4, dtype=torch.float64), atol=1e-12, rtol=0)
    wrong = loss(additive_problem(model, x), logits_of(true.flip(1)), where="here")
    assert bool((wrong.total > 1e-4).all())


def test_a_constant_added_to_all_logits_costs_its_share_of_the_sum() -> None:
    """Differences make the ranking; the height is what the contributions have to sum to."""
    model, x = Interacting().eval(), rows(3)
    logits = torch.randn(3, N_FEATURES, dtype=torch.float64)
    problem, loss = additive_problem(model, x), RegressionLoss(n_subsets=6)
    full, empty = model(x)[:, 1].detach(), model(torch.zeros(1, N_FEATURES))[:, 1].detach()
    missing = full - empty - ((logits - NEUTRAL_LOGIT) / LOGITS_PER_UNIT).sum(dim=1)
    right = logits + (missing / N_FEATURES * LOGITS_PER_UNIT).unsqueeze(1)
    least = loss(problem, right, where="here").total
    for constant in (-3.0, 0.5):
        raised = loss(problem, right + constant, where="here").total
        torch.testing.assert_close(raised, least + (constant / LOGITS_PER_UNIT) ** 2)


def test_the_loss_is_that_of_a_plain_loop() -> None:
    model, x = Interacting().eval(), rows(3)
    problem, loss = additive_problem(model, x), RegressionLoss(n_subsets=6)
    logits = torch.randn(3, N_FEATURES, dtype=torch.float64)
    terms = loss(problem, logits, where="here")
    subsets, _ = loss._values(problem, "here")
    for row in range(3):
        full, empty = model(x[row : row + 1])[0, 1], model(torch.zeros(1, N_FEATURES))[0, 1]
        phi = (logits[row] - NEUTRAL_LOGIT) / LOGITS_PER_UNIT
        share = (full - empty - phi.sum()) / N_FEATURES
        phi = phi + share
        errors = []
        for kept in subsets[row]:
            value = model((x[row] * kept)[None])[0, 1]
            errors.append((empty + phi[kept].sum() - value) ** 2)
        expected = torch.stack(errors).mean() + share**2
        torch.testing.assert_close(terms.total[row], expected.detach())


def test_subsets_come_with_their_complements_and_never_hold_all_or_nothing() -> None:
    maskable = torch.tensor([[True] * 6, [True, False, True, True, False, False]])
    drawn = _draw(maskable, 40, [b"first-key", b"second-key"])
    assert drawn.shape == (2, 80, 6)
    for row in range(2):
        subsets, complements = drawn[row, 0::2], drawn[row, 1::2]
        assert torch.equal(complements, maskable[row] & ~subsets)
        assert not bool((subsets & ~maskable[row]).any())
        sizes = set(subsets.sum(dim=1).tolist())
        assert sizes == set(range(1, int(maskable[row].sum())))


def test_the_subsets_of_an_example_do_not_depend_on_its_batch_or_on_chance() -> None:
    maskable = torch.ones(3, 7, dtype=torch.bool)
    keys = [b"a" * 16, b"b" * 16, b"c" * 16]
    together = _draw(maskable, 4, keys)
    torch.manual_seed(99)
    alone = torch.cat([_draw(maskable[i : i + 1], 4, keys[i : i + 1]) for i in range(3)])
    assert torch.equal(together, alone)
    assert not torch.equal(together[0], together[1])


def test_one_unit_and_none() -> None:
    maskable = torch.tensor([[True, False], [False, False]])
    drawn = _draw(maskable, 2, [b"x" * 8, b"y" * 8])
    assert drawn[0].tolist() == [[True, False], [False, False]] * 2
    assert not bool(drawn[1].any())


def test_an_example_without_maskable_units_has_no_loss() -> None:
    x = rows(2)
    x[1] = 0.0
    loss = RegressionLoss(n_subsets=4)
    logits = torch.randn(2, N_FEATURES, dtype=torch.float64, requires_grad=True)
    terms = loss(additive_problem(Additive().eval(), x), logits, where="here")
    assert float(terms.total[0].detach()) > 0
    assert float(terms.total[1].detach()) == 0
    (gradient,) = torch.autograd.grad(terms.total.sum(), logits)
    assert bool(torch.isfinite(gradient).all())
    assert not bool(gradient[1].any())


def test_values_are_computed_once() -> None:
    calls = itertools.count()
    model = Additive().eval()

    def counted(x: Tensor) -> Tensor:
        next(calls)
        return model(x)

    x, loss = rows(3), RegressionLoss(n_subsets=8)
    logits = torch.zeros(3, N_FEATURES, dtype=torch.float64)
    problem = additive_problem(counted, x)
    first = loss(problem, logits, where="here").total
    after = next(calls)
    again = loss(problem, logits, where="here").total
    assert next(calls) == after + 1
    assert torch.equal(first, again)
    full = RegressionLoss(n_subsets=8, max_examples=2)
    torch.testing.assert_close(full(problem, logits, where="here").total, first)
    torch.testing.assert_close(full(problem, logits, where="here").total, first)
    assert not full._known


def test_what_is_kept_is_of_the_same_target_baselines_and_units() -> None:
    x = rows(4)
    logits = torch.randn(4, N_FEATURES, dtype=torch.float64)
    warm = RegressionLoss(n_subsets=6)
    for settings in (
        {"target": torch.ones(4, dtype=torch.long)},
        {"target": torch.zeros(4, dtype=torch.long)},
        {"target": torch.ones(4, dtype=torch.long), "baselines": torch.full_like(x, 0.1)},
        {
            "target": torch.ones(4, dtype=torch.long),
            "feature_mask": torch.tensor([[0, 0, 1, 1, 2]]),
        },
    ):
        problem = problem_for(Interacting().eval(), x, output="probabilities", **settings)
        own = logits[:, : problem.layout.n_units]
        found = warm(problem, own, where="here").total
        torch.testing.assert_close(
            found, RegressionLoss(n_subsets=6)(problem, own, where="here").total
        )


LENGTH = 7


def masker() -> EmbeddingMasker:
    torch.manual_seed(0)
    return EmbeddingMasker(feature_shapes=[(LENGTH, 8)], n_classes=3, hidden_size=16)


def fitted(forward: Any, **settings: Any) -> AMLAttribution:
    ids, _ = planted_texts(200, LENGTH, seed=1)
    attribution = AMLAttribution(
        forward, embedding_layer=PLANTED.get_input_embeddings(), masker=masker(), output="logits"
    )
    settings = {"epochs": 4, "learning_rate": 1e-2, "loss": "regression", **settings}
    return attribution.fit(list(ids.split(20)), **settings)


PLANTED = PlantedClassifier().eval()


def test_the_deciding_token_comes_first() -> None:
    ids, places = planted_texts(200, LENGTH, seed=7)
    scores = fitted(PLANTED).attribute(ids, n_steps=0)
    assert float((scores.argmax(dim=1) == places).float().mean()) >= 0.99


class Knowing(nn.Module):
    """Proposes what every feature of the additive model contributes."""

    fitted = True
    learned_from = "regression"

    def forward(self, inputs: MaskerInputs) -> Tensor:
        return logits_of(inputs.features[0] * Additive().weights)


def test_scores_of_an_additive_model_are_its_own() -> None:
    x, model = rows(4), Additive().eval()
    aml = AMLAttribution(model, masker=Knowing(), output="probabilities")
    expected = (x * model.weights).float()
    torch.testing.assert_close(aml.attribute(x, target=1), expected, atol=1e-6, rtol=0)
    # What is for one class is against the other, and the masker was not asked for that.
    assert bool((aml.attribute(x, target=0).sum(dim=1) < 0).all())


def test_scores_are_the_contributions_that_were_learned(tmp_path: Any) -> None:
    ids, _ = planted_texts(50, LENGTH, seed=7)
    ours = fitted(PLANTED)
    scores, delta = ours.attribute(ids, return_convergence_delta=True)
    ours.scores = "mask"
    mask = ours.attribute(ids)
    assert bool(((mask > 0) & (mask < 1)).all())
    assert bool((scores < 0).any())
    torch.testing.assert_close(delta, torch.zeros(50), atol=1e-4, rtol=0)
    for row, logits in zip(scores, mask.logit(), strict=True):
        assert row.argsort().tolist() == logits.argsort().tolist()
        # Of one sign they differ by a factor.
        contributions = logits - NEUTRAL_LOGIT
        for part in (contributions > 0.1, contributions < -0.1):
            factors = row[part] / contributions[part]
            torch.testing.assert_close(
                factors, factors.mean().expand_as(factors), atol=0, rtol=1e-3
            )
    # The masker knows it, wherever it is taken to.
    taken = AMLAttribution(PLANTED, masker=ours.masker_, output="logits")
    torch.testing.assert_close(taken.attribute(ids), scores, atol=1e-6, rtol=0)
    ours.save_pretrained(tmp_path)
    loaded = AMLAttribution.from_pretrained(tmp_path, PLANTED)
    assert loaded.loss_ == "regression"
    torch.testing.assert_close(loaded.attribute(ids), scores, atol=0, rtol=0)


def test_folders_that_do_not_name_a_loss_hold_masks(tmp_path: Any) -> None:
    ids, _ = planted_texts(50, LENGTH, seed=7)
    ours = fitted(PLANTED)
    ours.save_pretrained(tmp_path)
    checkpoint = Checkpoint.load(tmp_path)
    assert checkpoint.settings["loss"] == "regression"
    kept = {name: value for name, value in checkpoint.settings.items() if name != "loss"}
    replace(checkpoint, settings=kept).save(tmp_path)
    older = AMLAttribution.from_pretrained(tmp_path, PLANTED)
    assert older.loss_ == "objective"
    scores, delta = older.attribute(ids, return_convergence_delta=True)
    torch.testing.assert_close(delta, torch.zeros(50), atol=1e-4, rtol=0)
    older.scores = "mask"
    mask = older.attribute(ids)
    # Shares of the sum, by the mask.
    torch.testing.assert_close(
        scores, mask / mask.sum(dim=1, keepdim=True) * scores.sum(dim=1, keepdim=True)
    )


def test_a_metric_of_ones_own_sees_the_scores_that_the_fit_ends_with() -> None:
    ids, _ = planted_texts(20, LENGTH, seed=9)
    seen: list[Tensor] = []

    def keep(attribution: Any, batch: Any) -> Tensor:
        seen.append(attribution.attribute(**batch, n_steps=0))
        return torch.zeros(len(ids))

    metric = ValidationMetric("kept", keep, higher_is_better=True)
    ours = AMLAttribution(PLANTED, masker=masker(), output="logits").fit(
        [ids], [ids], epochs=1, loss="regression", select_by=metric
    )
    torch.testing.assert_close(ours.attribute(ids), seen[-1], atol=0, rtol=0)


def test_the_explained_model_needs_no_gradient() -> None:
    def answers(ids: Tensor) -> Tensor:
        with torch.no_grad():
            return PLANTED(ids)

    ids, places = planted_texts(100, LENGTH, seed=8)
    scores = fitted(answers).attribute(ids, n_steps=0)
    assert float((scores.argmax(dim=1) == places).float().mean()) >= 0.99


def test_validation_reports_the_regression_and_keeps_the_best() -> None:
    ids, _ = planted_texts(40, LENGTH, seed=9)
    ours = AMLAttribution(PLANTED, masker=masker(), output="logits").fit(
        list(ids.split(20)), [ids], epochs=3, learning_rate=1e-2, loss="regression"
    )
    values = [record.validation["total"] for record in ours.history_ or []]  # type: ignore[index]
    assert set(ours.history_[0].train) == {"total", "regression"}  # type: ignore[index]
    assert values[-1] < values[0]
    assert ours.fit_summary_ is not None
    assert ours.fit_summary_.best.value == min(values)


class _StopError(Exception):
    pass


def test_a_run_that_was_stopped_resumes_bit_for_bit(tmp_path: Any) -> None:
    from captum_aml.training import FitCallback, FitState

    class StopAt(FitCallback):
        def on_step_end(self, state: FitState) -> None:
            if state.step == 13:
                raise _StopError

    whole = fitted(PLANTED, save_every=1, checkpoint_dir=tmp_path / "whole")
    folder = {"save_every": 1, "checkpoint_dir": tmp_path / "stopped"}
    with pytest.raises(_StopError):
        fitted(PLANTED, callbacks=[StopAt()], **folder)
    resumed = fitted(PLANTED, resume=True, **folder)
    assert whole.masker_ is not None
    assert resumed.masker_ is not None
    for a, b in zip(
        whole.masker_.state_dict().values(), resumed.masker_.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b)


@pytest.mark.parametrize("n_subsets", [0, 1, 1.5])
def test_bad_numbers_of_subsets(n_subsets: Any) -> None:
    with pytest.raises(InvalidInputError, match="n_subsets"):
        RegressionLoss(n_subsets=n_subsets)


def test_an_unknown_loss_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="loss: expected one of objective, regression"):
        fitted(PLANTED, loss="hinge")


def test_a_loaded_masker_is_where_fit_goes_on(tmp_path: Any) -> None:
    first = fitted(PLANTED)
    first.save_pretrained(tmp_path / "masker")
    again = AMLAttribution.from_pretrained(tmp_path / "masker", PLANTED)
    ids, _ = planted_texts(20, LENGTH, seed=3)
    again.fit([ids], epochs=1, learning_rate=1e-9, weight_decay=0.0)
    assert first.masker_ is not None
    assert again.masker_ is not None
    for a, b in zip(first.masker_.parameters(), again.masker_.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


def test_nothing_is_kept_of_a_model_whose_answers_are_random() -> None:
    x, loss = rows(3), RegressionLoss(n_subsets=4)
    loss(additive_problem(Additive().train(), x), torch.zeros(3, N_FEATURES), where="here")
    assert not loss._known
