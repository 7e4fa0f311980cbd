"""A forward function under a mask: passes, terms, proposals, endpoints."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_aml.exceptions import InvalidInputError, NoGradientError, NonFiniteError
from captum_aml.maskers import MaskerInputs
from captum_aml.masking.problem import GradientWatch
from captum_aml.objectives import AMLObjective, LAObjective
from tests._helpers import references
from tests._helpers.models import LinearLogits, PlantedClassifier, problem_for

DOUBLE = torch.float64
WEIGHTS, BIAS = [2.0, -1.0, 0.5], 0.25
X = torch.tensor([[1.0, 2.0, 3.0], [-1.0, 0.5, 2.0]], dtype=DOUBLE)
B = torch.tensor([[0.5, 0.0, 3.0], [0.0, 0.0, 0.0]], dtype=DOUBLE)  # (0, 2) equals its baseline
MASK = torch.tensor([[0.3, 0.8, 0.6], [0.5, 0.1, 0.9]], dtype=DOUBLE)


def by_hand(i: int, target: int, weights: tuple[float, float, float]) -> tuple[float, ...]:
    maskable = [x != b for x, b in zip(X[i].tolist(), B[i].tolist(), strict=True)]
    logits = [math.log(m / (1 - m)) for m in MASK[i].tolist()]
    terms, _ = references.aml_loss(
        logits,
        X[i].tolist(),
        B[i].tolist(),
        WEIGHTS,
        BIAS,
        target_class=target,
        maskable=maskable,
        term_weights=weights,
        eps=1e-6,
    )
    return terms


@pytest.mark.parametrize("target", [None, [1, 1], [0, 1]])
def test_the_terms_of_a_mask_by_hand(target: Any) -> None:
    problem = problem_for(LinearLogits(WEIGHTS, BIAS), X, baselines=B, target=target)
    objective = AMLObjective(prediction_weight=0.5, inverse_weight=2.0, size_weight=0.7)
    terms = problem.evaluate(MASK, objective, where="here")
    targets = target or LinearLogits(WEIGHTS, BIAS)(X).argmax(1).tolist()
    for i in range(2):
        total, prediction, inverse, size = by_hand(i, targets[i], (0.5, 2.0, 0.7))
        assert terms.parts["prediction"][i].item() == pytest.approx(prediction, rel=1e-12)
        assert terms.parts["inverse"][i].item() == pytest.approx(inverse, rel=1e-12)
        assert terms.parts["size"][i].item() == pytest.approx(size, rel=1e-12)
        assert terms.total[i].item() == pytest.approx(total, rel=1e-12)


def test_the_passes_are_one_call_and_la_needs_one_pass_only() -> None:
    rows: list[int] = []
    model = LinearLogits(WEIGHTS, BIAS)

    def forward(x: Tensor) -> Tensor:
        rows.append(x.shape[0])
        return model(x)

    problem = problem_for(forward, X, baselines=B)
    assert rows == [2]
    problem.evaluate(MASK, AMLObjective(), where="here")
    assert rows == [2, 4]
    la = problem.evaluate(MASK, LAObjective(), where="here")
    assert rows == [2, 4, 2]
    aml = problem.evaluate(MASK, AMLObjective(), where="here")
    # The same rows in a batch of another size: equal up to rounding in the product.
    torch.testing.assert_close(la.parts["inverse"], aml.parts["inverse"], rtol=1e-14, atol=0)


def test_several_masks_run_mask_by_mask_with_arguments_repeated() -> None:
    factor = torch.tensor([1.0, 10.0], dtype=DOUBLE)
    problem = problem_for(
        lambda x, f: x.sum(dim=1) * f, X, baselines=B, additional_forward_args=factor
    )
    ones, zeros = torch.ones(2, 3, dtype=DOUBLE), torch.zeros(2, 3, dtype=DOUBLE)
    output = problem.forward(torch.stack([ones, zeros, ones]))
    x, b = (X.sum(1) * factor).tolist(), (B.sum(1) * factor).tolist()
    assert isinstance(output, Tensor)
    assert output.tolist() == pytest.approx(x + b + x, rel=1e-14)


def test_ids_are_masked_between_their_embeddings_and_the_baselines() -> None:
    model = PlantedClassifier()
    ids = torch.tensor([[1, 5, 2]])
    problem = problem_for(model, ids, baselines=torch.tensor([[0, 5, 0]]))
    output = problem.forward(torch.tensor([[[0.5, 0.0, 0.25]]]))
    # Evidence 5 for each deciding token, times what is kept of it, plus the bias (2, 0, 0).
    assert isinstance(output, Tensor)
    assert output.tolist() == [[2.0, 2.5, 1.25]]
    assert problem.layout.maskable_units.tolist() == [[True, False, True]]


def test_a_function_that_sums_its_rows_up_is_refused() -> None:
    """For one example it looks like a value of it; several masks show that it is not."""
    problem = problem_for(LinearLogits(WEIGHTS, BIAS), X[:1], baselines=B[:1])
    assert problem.forward(torch.ones(1, 1, 3, dtype=DOUBLE)) is not None
    for forward in (lambda x: x.sum(), lambda x: x.sum().reshape(1)):
        problem = problem_for(forward, X[:1], baselines=B[:1])
        message = r"forward_func: expected one result for each of the 2 rows .* got shape \(1,\)"
        with pytest.raises(InvalidInputError, match=message):
            problem.evaluate(MASK[:1], AMLObjective(), where="here")


def test_a_function_that_drops_the_dimension_of_a_single_row_is_read() -> None:
    w = torch.tensor(WEIGHTS, dtype=DOUBLE)
    squeezed = problem_for(lambda x: (x @ w).squeeze(), X[:1], baselines=B[:1])
    plain = problem_for(lambda x: x @ w, X[:1], baselines=B[:1])
    for objective in (AMLObjective(), LAObjective()):  # two rows, and one
        one = squeezed.evaluate(MASK[:1], objective, where="here")
        assert torch.equal(one.total, plain.evaluate(MASK[:1], objective, where="here").total)


# Values and their endpoints


def test_the_endpoints_are_the_values_of_the_inputs_and_the_baselines() -> None:
    problem = problem_for(lambda x: x @ torch.tensor(WEIGHTS, dtype=DOUBLE), X, baselines=B)
    assert problem.readout.kind == "value"
    assert problem.readout.endpoints is not None
    low, high = problem.readout.endpoints
    w = torch.tensor(WEIGHTS, dtype=DOUBLE)
    torch.testing.assert_close(high, X @ w, rtol=1e-14, atol=0)
    torch.testing.assert_close(low, B @ w, rtol=1e-14, atol=0)


@pytest.mark.parametrize(("a", "b"), [(3.0, 0.0), (-0.5, 10.0), (1e-3, -1.0)])
def test_a_scaled_and_shifted_value_has_the_same_terms(a: float, b: float) -> None:
    w = torch.tensor(WEIGHTS, dtype=DOUBLE)
    plain = problem_for(lambda x: torch.tanh(x @ w), X, baselines=B)
    moved = problem_for(lambda x: a * torch.tanh(x @ w) + b, X, baselines=B)
    one = plain.evaluate(MASK, AMLObjective(), where="here")
    two = moved.evaluate(MASK, AMLObjective(), where="here")
    # 1e-3 * F - 1 loses three digits of F.
    torch.testing.assert_close(two.total, one.total, rtol=1e-10, atol=0)


def test_values_that_do_not_change_are_warned_about_and_stay_finite() -> None:
    with pytest.warns(UserWarning, match=r"forward_func: its value is the same .* \[1\]"):
        problem = problem_for(
            lambda x: x[:, 0] * torch.tensor([1.0, 0.0], dtype=DOUBLE).repeat(len(x) // 2),
            X,
            baselines=B,
        )
    assert problem.evaluate(MASK, AMLObjective(), where="here").total.isfinite().all()


def test_examples_without_anything_to_mask_are_not_warned_about() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        problem_for(lambda x: x.sum(dim=1), X, baselines=X)


def test_baselines_without_a_finite_value_are_named() -> None:
    with pytest.raises(NonFiniteError, match=r"forward_func: .* for the baselines \(rows \[1\]"):
        problem_for(lambda x: x[:, 0] / x.abs().sum(dim=1), X, baselines=B)


# Proposals


class Recording(nn.Module):
    """Proposes numbers that are known, and keeps what it was given."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits
        self.seen: MaskerInputs | None = None

    def forward(self, inputs: MaskerInputs) -> Tensor:
        self.seen = inputs
        return self.logits


def test_a_masker_is_shown_what_is_explained() -> None:
    model = PlantedClassifier()

    def forward(ids: Tensor, attention_mask: Tensor) -> Tensor:
        return model(ids * attention_mask)

    ids, attention = torch.tensor([[1, 5, 2], [7, 5, 9]]), torch.tensor([[1, 1, 0], [1, 1, 1]])
    masker = Recording(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
    problem = problem_for(
        forward,
        ids,
        layer=model.embedding,
        baselines=torch.tensor([[0, 5, 0]]),
        target=[1, 2],
        additional_forward_args=attention,
    )
    logits = problem.propose(masker)
    # Not maskable: the second token equals its baseline, the third of the first text is 0 in both.
    assert logits.tolist() == [[1.0, 0.0, 0.0], [4.0, 0.0, 6.0]]
    seen = masker.seen
    assert seen is not None
    assert torch.equal(seen.inputs[0], ids)
    assert torch.equal(seen.features[0], model.embedding(ids * attention).detach())
    assert seen.attention_mask is not None
    assert torch.equal(seen.attention_mask, attention)
    assert seen.maskable[0].tolist() == [[True, False, False], [True, False, True]]
    # The first text is predicted as class 1, so its distribution; the second as 0, so class 2.
    expected = torch.tensor([2.0, 5.0, 0.0]).softmax(0)
    torch.testing.assert_close(seen.probabilities[0], expected, rtol=0, atol=1e-6)
    assert seen.probabilities[1].tolist() == [0.0, 0.0, 1.0]


def test_a_proposal_is_pooled_over_groups() -> None:
    problem = problem_for(
        LinearLogits(WEIGHTS, BIAS), X, baselines=0.0, feature_mask=torch.tensor([[0, 0, 1]])
    )
    masker = Recording(torch.tensor([[1.0, 3.0, 5.0], [2.0, 2.0, 0.0]], dtype=DOUBLE))
    assert problem.propose(masker).tolist() == [[2.0, 5.0], [2.0, 0.0]]


def test_a_proposal_of_another_size_is_named() -> None:
    problem = problem_for(LinearLogits(WEIGHTS, BIAS), X)
    with pytest.raises(InvalidInputError, match=r"masker: .*\[\(2, 3\)\].*got \[\(2, 4\)\]"):
        problem.propose(Recording(torch.zeros(2, 4)))


def test_a_proposal_that_is_no_number_is_blamed_on_the_masker() -> None:
    problem = problem_for(LinearLogits(WEIGHTS, BIAS), X)
    logits = torch.zeros(2, 3)
    logits[1, 2] = math.nan
    with pytest.raises(NonFiniteError, match="masker: "):
        problem.propose(Recording(logits))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_masker_in_half_precision_does_not_make_the_loss_half_precise(dtype: torch.dtype) -> None:
    """-log(1 - sigmoid(8)) is 8.0003; in float16 it would be 7.6, in bfloat16 the bound of 100."""
    problem = problem_for(LinearLogits(WEIGHTS, BIAS), X)
    mask = torch.sigmoid(problem.propose(Recording(torch.full((2, 3), 8.0, dtype=dtype))))
    terms = problem.evaluate(mask, AMLObjective(), where="here")
    # float32 leaves three digits of 1 - sigmoid(8) = 3.4e-4.
    assert terms.parts["size"].tolist() == pytest.approx(
        [8 + math.log1p(math.exp(-8))] * 2, abs=1e-3
    )


# Gradients


def watched(forward: Any) -> GradientWatch:
    problem = problem_for(forward, X, baselines=B)
    mask = MASK.clone().requires_grad_(True)
    watch = GradientWatch()
    with torch.enable_grad():
        terms = problem.evaluate(mask, AMLObjective(), where="here", watch=watch)
    torch.autograd.grad(terms.total.sum(), mask)
    return watch


def test_a_forward_function_with_a_gradient_passes_the_watch() -> None:
    watched(LinearLogits(WEIGHTS, BIAS)).check()


@pytest.mark.parametrize("break_", ["detach", "argmax", "numpy", "constant"])
def test_a_forward_function_without_a_gradient_is_named(break_: str) -> None:
    model = LinearLogits(WEIGHTS, BIAS)

    def forward(x: Tensor) -> Tensor:
        if break_ == "detach":
            return model(x).detach()
        if break_ == "argmax":
            return torch.nn.functional.one_hot(model(x).argmax(1), 2).double()
        if break_ == "numpy":
            return torch.from_numpy(model(x.detach()).detach().numpy() * 1.0)
        return model.bias * torch.ones(len(x), 2, dtype=DOUBLE)  # a parameter, not the inputs

    message = r"forward_func: .* no gradient .* expected .*FeatureAblation.* n_steps=0"
    with pytest.raises(NoGradientError, match=message):
        watched(forward).check()


class Residual(nn.Module):
    """y = W_out norm(x + W x): a gradient finds its way around W, but not around W_out."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm = nn.Linear(3, 3), nn.LayerNorm(3)
        self.outer = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.outer(self.norm(x + torch.relu(self.inner(x))))
        return logits


@pytest.mark.filterwarnings("ignore")  # torch announces the end of this kind of int8 layers
@pytest.mark.parametrize("which", [{nn.Linear}, {"outer"}, {"inner"}])
def test_int8_layers_have_no_gradient_or_a_part_of_it(which: set[Any]) -> None:
    from torch.ao.quantization import quantize_dynamic

    torch.manual_seed(0)
    int8 = quantize_dynamic(Residual(), which, dtype=torch.qint8)
    with pytest.raises(NoGradientError, match=r"no gradient .* has no derivative.*int8"):
        watched(lambda x: int8(x.float())).check()
    model = Residual()
    watched(lambda x: model(x.float())).check()


# How masks are joined


@pytest.mark.parametrize(
    ("max_rows", "expected"),
    [(None, [10]), (1, [2] * 5), (2, [2] * 5), (5, [4, 4, 2]), (9, [8, 2]), (10, [10]), (99, [10])],
)
def test_masks_are_joined_as_far_as_rows_allow(max_rows: int | None, expected: list[int]) -> None:
    """All examples of the problem are in each call: fewer rows are had from fewer examples."""
    rows: list[int] = []

    def forward(x: Tensor) -> Tensor:
        rows.append(len(x))
        return LinearLogits(WEIGHTS, BIAS)(x)

    problem = problem_for(forward, X, baselines=B)
    masks = torch.rand(5, 2, 3, dtype=DOUBLE)
    whole = problem.forward(masks)
    rows.clear()
    parts = replace(problem, max_rows=max_rows).forward(masks)
    assert rows == expected
    torch.testing.assert_close(parts, whole, rtol=1e-14, atol=0)
    for r in range(5):
        alone = problem.forward(masks[r : r + 1])
        torch.testing.assert_close(parts[2 * r : 2 * r + 2], alone, rtol=1e-14, atol=0)


def test_a_forward_function_that_draws_is_noticed() -> None:
    model = LinearLogits(WEIGHTS, BIAS)
    assert not problem_for(model, X).draws
    assert problem_for(lambda x: model(x) + torch.rand(()), X).draws
    dropout = nn.Dropout(0.5).train()
    assert problem_for(lambda x: model(dropout(x)), X).draws
    dropout.eval()
    assert not problem_for(lambda x: model(dropout(x)), X).draws


def test_the_attention_mask_is_found_by_its_name_and_shape() -> None:
    model = PlantedClassifier()
    ids = torch.tensor([[1, 5, 7], [4, 2, 8]])

    def forward(ids: Tensor, other: Tensor, attention_mask: Tensor) -> Tensor:
        return model(ids * attention_mask)

    mask, others = torch.ones_like(ids), torch.ones(2, 1)
    layer = {"layer": model.embedding}
    found = problem_for(forward, ids, additional_forward_args=(others, mask), **layer)
    assert found.attention_mask == 1
    # One of another shape is none of (N, L).
    wide = problem_for(forward, ids, additional_forward_args=(others, mask[:, :1]), **layer)
    assert wide.attention_mask is None
    nameless = problem_for(
        lambda *a: forward(*a), ids, additional_forward_args=(others, mask), **layer
    )
    assert nameless.attention_mask is None
