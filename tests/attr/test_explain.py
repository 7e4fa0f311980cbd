"""From masks to attributions: chunks, contributions, deltas, and starting points."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from captum_aml import AMLAttribution
from captum_aml.attr.explain import (
    DEFAULT_MASKS,
    INITIAL_LOGIT,
    AttributionResult,
    baselines_output,
    explain,
    output_difference,
    propose_mask,
    row_sums,
)
from captum_aml.exceptions import InvalidInputError
from captum_aml.maskers import EmbeddingMasker, MaskerInputs
from captum_aml.masking.problem import MaskingProblem
from captum_aml.objectives import AMLObjective, MaskedOutcome, Terms
from tests._helpers.models import LinearLogits, PlantedClassifier, problem_for

DOUBLE = torch.float64
X = torch.tensor([[1.0, 2.0, 3.0], [-1.0, 0.5, 2.0]], dtype=DOUBLE)
B = torch.tensor([[0.5, 0.0, 3.0], [0.0, 0.0, 0.0]], dtype=DOUBLE)  # (0, 2) equals its baseline
WEIGHTS = torch.tensor([2.0, -1.0, 0.5], dtype=DOUBLE)


class Fixed(nn.Module):
    """Proposes the same logits always, different ones while training."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits
        self.part = nn.Dropout(0.5)

    def forward(self, inputs: MaskerInputs) -> Tensor:
        return self.logits + (100.0 if self.training or self.part.training else 0.0)


def result_of(
    problem: MaskingProblem, logits: Tensor | None = None, **settings: Any
) -> AttributionResult:
    options: dict[str, Any] = {
        "n_steps": 0,
        "learning_rate": 0.1,
        "scores": "mask",
        "with_delta": False,
        "show_progress": False,
        "tune": "mask",
        **settings,
    }
    objective = options.pop("objective", AMLObjective())
    masker = None if logits is None else Fixed(logits).eval()
    (result,) = explain([problem], objective, masker, **options)
    return result


LOGITS = torch.tensor([[0.0, 1.0, 2.0], [-1.0, 0.5, 3.0]], dtype=DOUBLE)


def linear(x: Tensor) -> Tensor:
    return x @ WEIGHTS


def test_the_scores_of_a_proposal_are_its_sigmoid_and_zero_where_nothing_is_masked() -> None:
    result = result_of(problem_for(linear, X, baselines=B), LOGITS)
    expected = torch.sigmoid(LOGITS)
    expected[0, 2] = 0.0
    assert torch.equal(result.attributions[0], expected)
    assert result.delta is None
    assert result.terms is None
    assert result.best_step is None
    assert result.output == "value"


def test_contributions_sum_to_the_difference_in_the_output_and_keep_their_ratios() -> None:
    problem = problem_for(lambda x: -linear(x), X, baselines=B)
    masks = result_of(problem, LOGITS).attributions[0]
    result = result_of(problem, LOGITS, scores="contribution", with_delta=True)
    difference = -(X - B) @ WEIGHTS
    assert bool((difference > 0).all())
    for i in range(2):
        share = difference[i].item() / masks[i].sum().item()
        expected = [m * share for m in masks[i].tolist()]
        assert result.attributions[0][i].tolist() == pytest.approx(expected, rel=1e-13)
    assert result.delta is not None
    assert result.delta.tolist() == pytest.approx([0.0, 0.0], abs=1e-14)


def test_contributions_to_a_loss_keep_the_order_of_the_mask() -> None:
    problem = problem_for(linear, X, baselines=B)
    masks = result_of(problem, LOGITS).attributions[0]
    result = result_of(problem, LOGITS, scores="contribution", with_delta=True)
    difference = (X - B) @ WEIGHTS
    assert bool((difference < 0).all())
    assert result.attributions[0].sum(dim=1).tolist() == pytest.approx(difference.tolist())
    # The last element of the first example is not maskable.
    for i, n in enumerate((2, 3)):
        order = masks[i, :n].argsort()
        assert bool((result.attributions[0][i, order].diff() > 0).all())
    assert result.attributions[0][0, 2].item() == 0.0


def test_the_masks_of_the_mask_gradient_are_those_of_its_effects() -> None:
    """The default call: exact contributions of a linear function, and a mask in their order."""
    problem = problem_for(linear, X, baselines=B)
    options = {"n_steps": 4, "tune": None}
    (contributions,) = result_of(problem, scores="contribution", **options).attributions
    torch.testing.assert_close(contributions, WEIGHTS * (X - B), rtol=1e-12, atol=1e-14)
    (masks,) = result_of(problem, **options).attributions
    for i in range(2):
        # A mask value by the size relative to the example's largest effect.
        effects = [w * (x - b) for w, x, b in zip(WEIGHTS, X[i], B[i], strict=True)]
        largest = max(abs(e) for e in effects)
        expected = [1 / (1 + math.exp(2.0 - 4.0 * e / largest)) for e in effects]
        if i == 0:
            expected[2] = 0.0  # not maskable
        assert masks[i].tolist() == pytest.approx(expected, rel=1e-10)


def test_the_delta_of_masks_is_their_sum_minus_the_difference_in_the_output() -> None:
    result = result_of(problem_for(linear, X, baselines=B), LOGITS, with_delta=True)
    expected = result.attributions[0].sum(dim=1) - (X - B) @ WEIGHTS
    assert result.delta is not None
    torch.testing.assert_close(result.delta, expected, rtol=0, atol=1e-14)


def test_an_example_without_anything_to_mask_contributes_nothing() -> None:
    baselines = torch.stack([X[0], B[1]])
    problem = problem_for(linear, X, baselines=baselines)
    result = result_of(problem, LOGITS, scores="contribution", with_delta=True)
    assert result.attributions[0][0].tolist() == [0.0, 0.0, 0.0]
    assert result.delta is not None
    assert result.delta[0].item() == 0.0


@pytest.mark.parametrize("target", [None, [0, 2], 1])
def test_the_difference_is_taken_at_the_explained_output(target: Any) -> None:
    model = PlantedClassifier()
    ids = torch.tensor([[1, 5, 7], [4, 2, 8]])
    problem = problem_for(model, ids, target=target)
    at_baselines = baselines_output(model, problem.call)
    difference = output_difference(problem.readout, problem.capture.output, at_baselines)
    chosen = {None: [1, 2], 1: [1, 1]}.get(target) if not isinstance(target, list) else target
    full, empty = model(ids), model(ids * 0)
    expected = [(full[i, c] - empty[i, c]).item() for i, c in enumerate(chosen)]
    assert difference.tolist() == pytest.approx(expected, rel=1e-6)


class NoLogOdds:
    """AML's loss, of which no mask can be proposed: it has no log-odds."""

    uses_kept = True
    uses_complement = True

    def __call__(self, outcome: MaskedOutcome) -> Terms:
        return AMLObjective()(outcome)


def test_without_a_proposal_tuning_starts_from_almost_everything() -> None:
    problem = problem_for(linear, X, baselines=0.0)
    start = result_of(problem)
    expected = 1 / (1 + math.exp(-INITIAL_LOGIT))
    assert start.attributions[0].flatten().tolist() == pytest.approx([expected] * 6, rel=1e-14)
    assert start.attributions[0].dtype == DOUBLE
    tuned = result_of(problem, n_steps=5, objective=NoLogOdds())
    assert tuned.terms is not None
    assert tuned.best_step is not None
    again = problem.evaluate(tuned.attributions[0], AMLObjective(), where="here")
    torch.testing.assert_close(tuned.terms.total, again.total, rtol=1e-12, atol=0)
    first = problem.evaluate(start.attributions[0], AMLObjective(), where="here")
    assert (tuned.terms.total <= first.total).all()
    # One step with a rate of nearly nothing stays there.
    near = result_of(problem, n_steps=1, objective=NoLogOdds(), learning_rate=1e-12)
    torch.testing.assert_close(near.attributions[0], start.attributions[0], rtol=0, atol=1e-11)


def test_without_a_masker_tuning_starts_from_the_averaged_mask_gradient() -> None:
    problem = problem_for(LinearLogits(WEIGHTS.tolist(), 0.1), X, baselines=B, target=1)
    (proposed,) = result_of(problem, n_steps=DEFAULT_MASKS, tune=None).attributions
    for n_steps in (1, 3):  # the masks of the proposal are not the steps
        near = result_of(problem, n_steps=n_steps, learning_rate=1e-12)
        torch.testing.assert_close(near.attributions[0], proposed, rtol=0, atol=1e-11)
    tuned = result_of(problem, n_steps=5)
    first = problem.evaluate(proposed, AMLObjective(), where="here")
    assert tuned.terms is not None
    assert (tuned.terms.total < first.total).all()


def test_a_value_that_falls_is_tuned_from_what_takes_it_down() -> None:
    """The objective retains the way from the baselines' value to the inputs', up or down."""
    up, down = (problem_for(f, X, baselines=B) for f in (linear, lambda x: -linear(x)))
    for n_steps in (1, 4):
        (a,), (b,) = (result_of(p, n_steps=n_steps).attributions for p in (up, down))
        torch.testing.assert_close(a, b, rtol=1e-10, atol=0)


def test_tuning_starts_from_the_proposal() -> None:
    """One step with a rate of nearly nothing leaves the proposal where it was."""
    problem = problem_for(linear, X, baselines=0.0)
    tuned = result_of(problem, LOGITS, n_steps=1, learning_rate=1e-12)
    torch.testing.assert_close(tuned.attributions[0], torch.sigmoid(LOGITS), rtol=0, atol=1e-11)


def test_a_masker_is_asked_in_evaluation_mode_and_put_back_part_by_part() -> None:
    problem = problem_for(linear, X, baselines=0.0)
    masker = Fixed(LOGITS)
    masker.train()
    masker.part.eval()
    assert torch.equal(propose_mask(problem, masker), torch.sigmoid(LOGITS))
    assert masker.training
    assert not masker.part.training


def test_a_masker_is_put_back_after_an_exception() -> None:
    masker = Fixed(torch.zeros(7, 7)).train()
    with pytest.raises(InvalidInputError, match="masker: "):
        propose_mask(problem_for(linear, X), masker)
    assert masker.training
    assert masker.part.training


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_masker_follows_the_inputs_to_their_device() -> None:
    """A masker that was just loaded is on the CPU, whatever the explained model is on."""
    masker = EmbeddingMasker(feature_shapes=[(5, 8)], n_classes=3)
    ids = torch.tensor([[1, 5, 7, 4, 9]])
    expected = propose_mask(problem_for(PlantedClassifier(), ids), masker)
    got = propose_mask(problem_for(PlantedClassifier().cuda(), ids.cuda()), masker)
    assert got.is_cuda
    torch.testing.assert_close(got.cpu(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (DOUBLE, DOUBLE),
    ],
)
def test_scores_have_the_dtype_of_what_is_masked_but_at_least_single_precision(
    dtype: torch.dtype, expected: torch.dtype
) -> None:
    result = result_of(problem_for(lambda t: t @ WEIGHTS.to(dtype), X.to(dtype)), n_steps=2)
    assert result.attributions[0].dtype == expected


# Chunks


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (None, {112: 1}),
        # One mask for all seven examples at a time.
        (7, {7: 16}),
        (13, {7: 16}),
        (14, {14: 8}),
        (40, {35: 3, 7: 1}),
        # Chunks of three, three and one example, of which three masks fit into a call.
        (3, {3: 16 + 16 + 5, 1: 1}),
        (1, {1: 112}),
    ],
)
def test_a_forward_call_has_as_many_rows_as_allowed(
    size: int | None, expected: dict[int, int]
) -> None:
    rows: Counter[int] = Counter()

    def forward(x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            rows[len(x)] += 1
        return x @ WEIGHTS

    x = torch.rand(7, 3, dtype=DOUBLE)
    scores = AMLAttribution(forward).attribute(x, internal_batch_size=size)
    assert rows == expected
    torch.testing.assert_close(scores, WEIGHTS * x, rtol=1e-12, atol=0)


@pytest.mark.parametrize("size", [0, -1, 1.5, True, "2"])
def test_the_size_of_a_forward_call_is_checked(size: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"internal_batch_size: .* at least 1, got"):
        AMLAttribution(linear).attribute(X, internal_batch_size=size)


@given(st.lists(st.integers(1, 3), min_size=1, max_size=4))
def test_chunks_put_together_are_the_batch(sizes: list[int]) -> None:
    n = sum(sizes)
    scores, delta, steps = torch.rand(n, 3), torch.rand(n), torch.arange(n)
    terms = Terms(torch.rand(n), {"size": torch.rand(n)})
    parts, start = [], 0
    for size in sizes:
        rows = slice(start, start + size)
        parts.append(
            AttributionResult(
                (scores[rows],),
                delta[rows],
                Terms(terms.total[rows], {"size": terms.parts["size"][rows]}),
                steps[rows],
                "logits",
                "blend",
                (1,),
            )
        )
        start += size
    whole = AttributionResult.concatenate(parts)
    assert torch.equal(whole.attributions[0], scores)
    assert whole.delta is not None
    assert torch.equal(whole.delta, delta)
    assert whole.terms is not None
    assert torch.equal(whole.terms.parts["size"], terms.parts["size"])
    assert whole.best_step is not None
    assert whole.best_step.tolist() == list(range(n))
    assert whole.output == "logits"
    assert whole.perturbation == "blend"
    assert whole.sizes == (1,)


def test_a_chunk_that_was_not_tuned_does_not_shift_the_others() -> None:
    """Where nothing is maskable in a chunk there is nothing to tune; its rows must not vanish."""
    x = torch.cat([B[1:], X])  # the first example equals its baseline in every element
    b = torch.cat([B[1:], B])
    parts = []
    for i in range(3):
        problem = problem_for(linear, x[i : i + 1], baselines=b[i : i + 1])
        parts.append(result_of(problem, n_steps=3))
    whole = AttributionResult.concatenate(parts)
    together = result_of(problem_for(linear, x, baselines=b), n_steps=3)
    assert whole.terms is not None
    assert together.terms is not None
    assert together.best_step is not None
    assert whole.best_step is not None
    assert len(whole.best_step) == len(together.best_step) == 3
    torch.testing.assert_close(whole.terms.total[1:], together.terms.total[1:])
    assert torch.equal(whole.best_step[1:], together.best_step[1:])


@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 100))
def test_row_sums_are_over_everything_of_an_example(n: int, d: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    tensors = [torch.rand(n, d, 2, generator=g, dtype=DOUBLE), torch.rand(n, generator=g).double()]
    sums = row_sums(tensors)
    for i in range(n):
        expected = math.fsum(tensors[0][i].flatten().tolist()) + tensors[1][i].item()
        assert sums[i].item() == pytest.approx(expected, rel=1e-14)


def test_logits_are_explained_in_double_when_anything_masked_is_double() -> None:
    model = LinearLogits(WEIGHTS.tolist(), 0.1)
    mixed = problem_for(lambda a, b: model(a) + model(b.double()), (X, X.float()))
    result = result_of(mixed, n_steps=1)
    assert [a.dtype for a in result.attributions] == [DOUBLE, torch.float32]
    assert result.terms is not None
    assert result.terms.total.dtype == DOUBLE
