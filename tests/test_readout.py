"""Reading what a forward function returns, against softmax, Captum's own selection and by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from captum._utils.common import _expand_target, _select_targets
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from captum_aml.exceptions import InvalidInputError, NonFiniteError
from captum_aml.masking.call import parse_call
from captum_aml.objectives._base import inverse_term, prediction_term
from captum_aml.readout import (
    FRACTION_MARGIN,
    Readout,
    as_float,
    check_finite,
    check_output_kind,
    clip_fraction,
    output_tensor,
    select,
)

DOUBLE = torch.float64


def index(target: Any, n: int) -> Tensor | None:
    return parse_call(torch.zeros(n, 1), target=target).target


def logits(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=DOUBLE) * 2


# The value that a target selects


@pytest.mark.parametrize("repeats", [1, 2, 3])
@pytest.mark.parametrize(
    ("shape", "target"),
    [
        ((4, 3), 2),
        ((4, 3), torch.tensor(1)),
        ((4, 3), torch.tensor([1])),
        ((4, 3), torch.tensor([2, 0, 1, 1])),
        ((4, 3), [2, 0, 1, 1]),
        ((4, 3), (2,)),
        ((4, 3), [(2,), (0,), (1,), (1,)]),
        ((4, 5, 3), (3, 1)),
        ((4, 5, 3), [(3, 1), (0, 2), (4, 0), (2, 2)]),
        ((4, 2, 5, 3), (1, 3, 1)),
        ((4, 2, 5, 3), [(1, 3, 1), (0, 0, 2), (1, 4, 0), (0, 2, 2)]),
        ((4, 3), -1),
        ((4, 5, 3), (-2, -3)),
        ((4,), None),
    ],
)
def test_a_target_selects_what_captum_selects(
    shape: tuple[int, ...], target: Any, repeats: int
) -> None:
    output = torch.rand(repeats * shape[0], *shape[1:])
    expected = _select_targets(output, _expand_target(target, repeats))
    assert torch.equal(select(output, index(target, shape[0])), expected)


@pytest.mark.parametrize("kind", ["value", "probability", "log_probability", "auto"])
def test_negative_indices_count_from_the_end(kind: str) -> None:
    output = torch.rand(2, 3) / 3 if kind != "log_probability" else -torch.rand(2, 3)
    readout = Readout.resolve(output, index(-1, 2), kind, 2)
    assert readout.target is not None
    assert readout.target.tolist() == [[2], [2]]


def test_one_value_per_example_may_stand_in_further_dimensions() -> None:
    output = torch.rand(2, 1, 1)
    for target in (None, 0, (0, 0), [(0, 0), (0, 0)]):
        readout = Readout.resolve(output, index(target, 2), "auto", 2)
        assert readout.kind == "value"
        assert torch.equal(select(output, readout.target), output.flatten())


# Kinds


def test_auto_tells_the_kinds_apart() -> None:
    z = logits(5, 3)
    decided = {
        "logits": z,
        "probabilities": z.softmax(1),
        "log_probabilities": z.log_softmax(1),
        "value": z[:, 0],
    }
    for kind, output in decided.items():
        assert Readout.resolve(output, None, "auto", 5).kind == kind
    assert Readout.resolve(z[:, :1], None, "auto", 5).kind == "value"
    # Rows that sum to 1 but are no probabilities, and positive ones that are none either.
    assert Readout.resolve(torch.tensor([[2.0, -1.0]]), None, "auto", 1).kind == "logits"
    assert Readout.resolve(torch.tensor([[0.5, 1.6]]), None, "auto", 1).kind == "logits"
    # All examples count: one row of probabilities says nothing beside logits, and labels that do
    # not exclude each other may sum to 1 now and then.
    rows = torch.tensor([[0.5, 0.5], [0.5, 0.6], [0.5, 1.6]])
    assert Readout.resolve(rows[:1], None, "auto", 1).kind == "probabilities"
    assert Readout.resolve(rows[:2], None, "auto", 2).kind == "independent_probabilities"
    assert Readout.resolve(rows, None, "auto", 3).kind == "logits"
    ruled_out = torch.tensor([[-0.5, -math.inf, -2.0]])
    assert Readout.resolve(ruled_out, None, "auto", 1).kind == "logits"
    log_softmax = ruled_out.log_softmax(1)
    assert Readout.resolve(log_softmax, None, "auto", 1).kind == "log_probabilities"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, DOUBLE])
def test_auto_sees_through_rounding(dtype: torch.dtype) -> None:
    z = logits(20, 6)
    forms = {
        "probabilities": z.softmax(1),
        "log_probabilities": z.log_softmax(1),
        "independent_probabilities": z.sigmoid(),
        "logits": z,
    }
    for kind, output in forms.items():
        assert Readout.resolve(output.to(dtype), None, "auto", 20).kind == kind


@pytest.mark.parametrize("sure", [[0.0, -7.7], [-0.001, -8.0]])
def test_logits_that_look_like_log_probabilities_are_read_as_in_any_batch(
    sure: list[float],
) -> None:
    """Alone, (0, -7.7) is within 5e-4 of a log-probability; its masked passes are not."""
    rows = torch.tensor([sure, [0.5, 1.3]], dtype=DOUBLE)
    masked = torch.tensor([[0.0, 3.0]], dtype=DOUBLE)
    together = Readout.resolve(rows, None, "auto", 2)
    alone = Readout.resolve(rows[:1], None, "auto", 1)
    expected = together.log_probs(torch.cat([masked, masked]), where="here")[:1]
    torch.testing.assert_close(expected, masked.log_softmax(1), rtol=0, atol=1e-12)
    torch.testing.assert_close(alone.log_probs(masked, where="here"), expected, rtol=0, atol=1e-12)


def test_a_distribution_reads_the_same_in_all_three_forms() -> None:
    z = logits(4, 3)
    expected = F.log_softmax(z, dim=1)
    forms = {"logits": z, "probabilities": z.softmax(1), "log_probabilities": z.log_softmax(1)}
    for kind, output in forms.items():
        readout = Readout.resolve(output, index(1, 4), kind, 4)
        # Rounding of exp and log of numbers near 1, in float64.
        torch.testing.assert_close(readout.probabilities, z.softmax(1), rtol=0, atol=1e-14)
        again = readout.log_probs(output, where="here")
        torch.testing.assert_close(again, expected, rtol=0, atol=1e-13)


def test_a_tuple_target_reads_the_distribution_it_points_into() -> None:
    z = logits(3, 4, 5)
    target = [(1, 2), (0, 4), (3, 0)]
    readout = Readout.resolve(z, index(target, 3), "auto", 3)
    twice = readout.log_probs(torch.cat([z, z * 2]), where="here")
    for i, (row, chosen) in enumerate(target):
        expected = F.log_softmax(z[i, row], dim=0)
        torch.testing.assert_close(readout.probabilities[i], expected.exp(), rtol=0, atol=1e-14)
        torch.testing.assert_close(twice[i], expected, rtol=0, atol=1e-14)
        torch.testing.assert_close(
            twice[3 + i], F.log_softmax(2 * z[i, row], dim=0), rtol=0, atol=1e-14
        )
        assert readout.target_class[i] == chosen


def test_no_target_explains_the_predicted_class() -> None:
    z = torch.tensor([[0.0, 2.0, 1.0], [3.0, 2.0, 1.0], [0.0, 0.0, 4.0]])
    readout = Readout.resolve(z, None, "logits", 3)
    assert readout.target_class.tolist() == [1, 0, 2]
    assert readout.target is not None
    assert readout.target.tolist() == [[1], [0], [2]]


@pytest.mark.parametrize("kind", ["probability", "log_probability"])
def test_one_probability_reads_like_both_of_them(kind: str) -> None:
    """f(x) = softmax(g)[:, 1] with no target is the two-class output with target 1."""
    z = logits(6, 2)
    p = z.softmax(1)
    single = p[:, 1] if kind == "probability" else p[:, 1].log()
    one = Readout.resolve(single, None, kind, 6)
    for name, output in (("logits", z), ("probabilities", p)):
        both = Readout.resolve(output, index(1, 6), name, 6)
        assert torch.equal(one.target_class, both.target_class)
        # float64 rounding of 1 - p.
        torch.testing.assert_close(one.aim, both.aim, rtol=0, atol=1e-14)
        torch.testing.assert_close(
            one.log_probs(single, where="here"),
            both.log_probs(output, where="here"),
            rtol=0,
            atol=1e-12,
        )


def test_one_probability_among_several_values_is_the_one_selected() -> None:
    p = torch.tensor([[0.2, 0.9], [0.4, 0.3]], dtype=DOUBLE)
    readout = Readout.resolve(p, index([1, 0], 2), "probability", 2)
    expected = torch.tensor([[0.1, 0.9], [0.6, 0.4]], dtype=DOUBLE)
    torch.testing.assert_close(readout.probabilities, expected, rtol=0, atol=1e-15)


def test_independent_probabilities_are_each_read_for_itself() -> None:
    """The sigmoid of several logits is, for each of them, that of one."""
    z = logits(4, 3)
    p = z.sigmoid()
    chosen = [2, 0, 1, 1]
    readout = Readout.resolve(p, index(chosen, 4), "auto", 4)
    assert readout.kind == "independent_probabilities"
    own = p[range(4), chosen]
    alone = Readout.resolve(own, None, "probability", 4)
    assert torch.equal(readout.probabilities, torch.stack([1 - own, own], dim=1))
    assert torch.equal(readout.target_class, torch.ones(4, dtype=torch.long))
    assert torch.equal(readout.aim, alone.aim)
    assert torch.equal(
        readout.log_probs(torch.cat([p, p.square()]), where="here"),
        alone.log_probs(torch.cat([own, own.square()]), where="here"),
    )
    log_p, log_rest = readout.log_odds_terms(p, where="here")
    # The log-odds of a sigmoid are its logit; float64 rounding of 1 - p.
    torch.testing.assert_close(log_p - log_rest, z[range(4), chosen], rtol=0, atol=1e-12)
    # The other labels change nothing.
    other = p.clone()
    other[0, :2] = torch.tensor([1.0, 0.0])
    assert torch.equal(readout.log_probs(other, where="here"), readout.log_probs(p, where="here"))


def test_independent_probabilities_without_a_target_explain_the_most_probable_class() -> None:
    p = torch.tensor([[0.2, 0.9, 0.8], [0.4, 0.3, 0.1]], dtype=DOUBLE)
    for kind in ("auto", "independent_probabilities"):
        readout = Readout.resolve(p, None, kind, 2)
        assert readout.target is not None
        assert readout.target.tolist() == [[1], [0]]
        expected = torch.tensor([[0.1, 0.9], [0.6, 0.4]], dtype=DOUBLE)
        torch.testing.assert_close(readout.probabilities, expected, rtol=0, atol=1e-15)
    sequence = torch.stack([p, 1 - p], dim=1)
    readout = Readout.resolve(sequence, index((1, 2), 2), "auto", 2)
    assert readout.kind == "independent_probabilities"
    torch.testing.assert_close(readout.probabilities[:, 1], 1 - p[:, 2], rtol=0, atol=1e-15)


@pytest.mark.parametrize("kind", ["independent_logits", "independent_probabilities"])
def test_a_masker_is_told_which_independent_label_is_explained(kind: str) -> None:
    z = logits(3, 4)
    output = z if kind == "independent_logits" else z.sigmoid()
    readout = Readout.resolve(output, index([2, 0, 2], 3), kind, 3)
    assert readout.condition.tolist() == [[0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 1, 0]]
    one = Readout.resolve(logits(3, 1), None, "independent_logits", 3)
    assert torch.equal(one.condition, one.aim)  # there is nothing to choose between
    exclusive = Readout.resolve(z, index(1, 3), "logits", 3)
    assert torch.equal(exclusive.condition, exclusive.aim)


def test_independent_logits_are_the_log_odds_of_their_own_column() -> None:
    z = logits(4, 3)
    chosen = [2, 0, 1, 1]
    own = z[range(4), chosen]
    readout = Readout.resolve(z, index(chosen, 4), "independent_logits", 4)
    by_probability = Readout.resolve(z.sigmoid(), index(chosen, 4), "independent_probabilities", 4)
    # float64 rounding of the sigmoid and of 1 - p.
    torch.testing.assert_close(readout.aim, by_probability.aim, rtol=0, atol=1e-14)
    twice = torch.cat([z, 3 * z])
    torch.testing.assert_close(
        readout.log_probs(twice, where="here"),
        by_probability.log_probs(twice.sigmoid(), where="here"),
        rtol=0,
        atol=1e-10,
    )
    assert torch.equal(readout.values(twice, where="here"), torch.cat([own, 3 * own]))
    log_p, log_rest = readout.log_odds_terms(twice, where="here")
    torch.testing.assert_close(log_p - log_rest, torch.cat([own, 3 * own]), rtol=0, atol=1e-12)
    highest = Readout.resolve(z, None, "independent_logits", 4)
    assert highest.target is not None
    assert highest.target[:, 0].tolist() == z.argmax(dim=1).tolist()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, DOUBLE])
def test_independent_logits_stay_exact_where_probabilities_round(dtype: torch.dtype) -> None:
    """log p of a logit of 80 is -exp(-80), and of -80 it is -80."""
    for output in (torch.tensor([80.0, -80.0, 0.0]), torch.tensor([[80.0], [-80.0], [0.0]])):
        given = output.to(dtype).requires_grad_()
        readout = Readout.resolve(given.detach(), None, "independent_logits", 3)
        log_p, log_rest = readout.log_odds_terms(given, where="here")
        assert (log_p - log_rest).tolist() == [80.0, -80.0, 0.0]
        assert log_p.tolist() == pytest.approx([-math.exp(-80), -80.0, -math.log(2)])
        (log_p - log_rest).sum().backward()
        assert given.grad is not None
        assert given.grad.flatten().tolist() == [1.0, 1.0, 1.0]


def test_logits_that_were_taken_for_probabilities_are_named_in_a_later_pass() -> None:
    readout = Readout.resolve(torch.tensor([[0.4, 0.9]]), None, "auto", 1)
    message = r"^output: 'independent_probabilities' expects .* from -0.6 to -0.6; .*'logits'"
    with pytest.raises(InvalidInputError, match=message):
        readout.log_probs(torch.tensor([[0.3, -0.6]]), where="here")


def test_certainty_stays_finite() -> None:
    readout = Readout.resolve(torch.tensor([0.5]), None, "probability", 1)
    log_probs = readout.log_probs(torch.tensor([0.0, 1.0]), where="here")
    assert log_probs.isfinite().all()
    assert log_probs[0].tolist() == pytest.approx([0.0, -50.0])
    assert log_probs[1].tolist() == pytest.approx([-50.0, 0.0])
    none = Readout.resolve(torch.tensor([[1.0, 0.0]]), None, "probabilities", 1)
    assert none.log_probs(torch.tensor([[0.0, 1.0]]), where="here").tolist() == [
        pytest.approx([-50.0, 0.0])
    ]
    # log 0 is a log-probability; only NaN and plus infinity are not.
    log = Readout.resolve(torch.tensor([-math.inf]), None, "log_probability", 1)
    assert log.probabilities.tolist() == [[1.0, 0.0]]


# The aim


def test_the_aim_is_the_prediction_where_it_is_explained_and_the_target_where_not() -> None:
    z = torch.tensor([[0.0, 2.0, 1.0], [0.0, 2.0, 1.0]], dtype=DOUBLE)
    readout = Readout.resolve(z, index([1, 2], 2), "logits", 2)
    torch.testing.assert_close(readout.aim[0], z[0].softmax(0), rtol=0, atol=1e-15)
    assert readout.aim[1].tolist() == [0.0, 0.0, 1.0]
    assert readout.target_class.tolist() == [1, 2]


# Values: the retained fraction


def with_endpoints(low: list[float], high: list[float]) -> Readout:
    full = torch.tensor(high, dtype=DOUBLE)
    readout = Readout.resolve(full, None, "value", len(high))
    return Readout(
        readout.kind,
        readout.target,
        readout.target_class,
        readout.probabilities,
        (torch.tensor(low, dtype=DOUBLE), full),
    )


def test_the_retained_fraction_by_hand() -> None:
    readout = with_endpoints([1.0, 5.0], [3.0, 1.0])
    values = torch.tensor([1.5, 4.0, 3.0, 1.0], dtype=DOUBLE)  # two rounds of two examples
    assert readout.retained(values).tolist() == [0.25, 0.25, 1.0, 1.0]
    log_probs = readout.log_probs(values, where="here")
    quarter = [math.log(0.75), math.log(0.25)]
    assert log_probs[0].tolist() == pytest.approx(quarter)
    assert log_probs[1].tolist() == pytest.approx(quarter)
    assert log_probs[2].tolist() == pytest.approx([math.log(0.01), math.log(0.99)])


@given(
    st.floats(-100, 100).filter(lambda a: abs(a) > 1e-3),
    st.floats(-100, 100),
    st.integers(0, 100),
)
def test_the_retained_fraction_does_not_change_when_f_is_scaled_and_shifted(
    a: float, b: float, seed: int
) -> None:
    g = torch.Generator().manual_seed(seed)
    low, high, values = (torch.rand(3, generator=g, dtype=DOUBLE) for _ in range(3))
    high = high + 1.5  # endpoints that differ, so that rounding is not what is tested
    plain = with_endpoints(low.tolist(), high.tolist())
    moved = with_endpoints((a * low + b).tolist(), (a * high + b).tolist())
    # Cancellation: numbers up to 100 differ by at least 1e-3 * 0.5.
    torch.testing.assert_close(
        moved.retained(a * values + b), plain.retained(values), rtol=0, atol=1e-9
    )
    torch.testing.assert_close(
        moved.log_probs(a * values + b, where="here"),
        plain.log_probs(values, where="here"),
        rtol=0,
        atol=1e-7,
    )


def test_equal_endpoints_retain_nothing_and_give_no_nan() -> None:
    readout = with_endpoints([2.0, 0.0], [2.0, 1.0])
    values = torch.tensor([7.0, 0.5], dtype=DOUBLE, requires_grad=True)
    readout.log_probs(values, where="here").sum().backward()
    assert readout.retained(values).tolist() == [0.0, 0.5]
    assert values.grad is not None
    assert values.grad.isfinite().all()
    assert values.grad[0] == 0


def test_clipping_keeps_the_gradient_that_leads_back_inside() -> None:
    low, high = FRACTION_MARGIN, 1 - FRACTION_MARGIN
    values = torch.tensor([-3.0, -3.0, 0.5, 0.5, 3.0, 3.0], dtype=DOUBLE, requires_grad=True)
    gradient = torch.tensor([2.0, -2.0] * 3, dtype=DOUBLE)
    clipped = clip_fraction(values)
    assert clipped.tolist() == [low, low, 0.5, 0.5, high, high]
    clipped.backward(gradient)
    assert values.grad is not None
    # Descent subtracts the gradient: below, -2 raises the value; above, +2 lowers it.
    assert values.grad.tolist() == [0.0, -2.0, 2.0, -2.0, 2.0, 0.0]


# Dtypes and forms of the output


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("target", [None, 1])
def test_half_precision_is_read_in_single(dtype: torch.dtype, target: int | None) -> None:
    z = logits(3, 4).to(dtype)
    readout = Readout.resolve(z, index(target, 3), "logits", 3)
    assert readout.probabilities.dtype == torch.float32
    torch.testing.assert_close(
        readout.log_probs(z, where="here"), F.log_softmax(z.float(), dim=1), rtol=0, atol=1e-6
    )
    assert as_float(z).dtype == torch.float32
    assert as_float(z.double()).dtype == DOUBLE


def test_a_number_without_dimensions_is_that_of_one_example() -> None:
    """What `model(x).squeeze()` returns for a single row."""
    assert torch.equal(output_tensor(torch.tensor(0.3)), torch.tensor([0.3]))
    readout = Readout.resolve(torch.tensor(-2.5), None, "auto", 1)
    assert readout.kind == "value"
    assert readout.values(torch.tensor(-3.0), where="here").tolist() == [-3.0]
    assert readout.values(torch.tensor([-3.0, 1.0]), where="here").tolist() == [-3.0, 1.0]


def test_an_output_may_have_its_logits_as_an_attribute() -> None:
    z = logits(2, 3)
    assert output_tensor(SimpleNamespace(logits=z)) is z
    assert output_tensor(z) is z


@pytest.mark.parametrize(
    ("output", "fragments"),
    [
        ("text", ("tensor", "str")),
        ((torch.rand(2),), ("tensor", "tuple")),
        (SimpleNamespace(logits=None), ("`logits`", "SimpleNamespace")),
        (torch.tensor([1, 2]), ("floating point", "torch.int64")),
    ],
)
def test_what_is_no_tensor_of_floats_is_an_error(output: Any, fragments: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInputError, match=r"^forward_func: ") as caught:
        output_tensor(output)
    assert all(f in str(caught.value) for f in fragments)


# Bad input


BAD: list[tuple[Tensor, Any, str, tuple[str, ...]]] = [
    (torch.tensor(1.0), None, "auto", ("forward_func", "each of the 2 examples", "(1,)")),
    (torch.rand(3, 2), None, "auto", ("forward_func", "each of the 2 examples", "(3, 2)")),
    (torch.rand(2, 3, 4), None, "auto", ("target", "tuple of indices", "(2, 3, 4)", "None")),
    (torch.rand(2, 3), 3, "auto", ("target", "below (3,)", "[[3], [3]]")),
    (torch.rand(2, 3), -4, "auto", ("target", "below (3,)", "-4")),
    (torch.rand(2, 3), (0, 1), "auto", ("target", "at most 1", "(2, 3)", "got 2")),
    (torch.rand(2, 3, 4), 1, "auto", ("target", "2 indices", "(2, 3, 4)", "got 1")),
    (torch.rand(2), 0, "auto", ("target", "at most 0", "(2,)", "got 1")),
    (torch.rand(2), None, "logits", ("output", "'logits'", "several classes", "(2,)")),
    (torch.rand(2, 1), None, "probabilities", ("output", "several classes", "(2, 1)")),
    (torch.rand(2), None, "independent_probabilities", ("output", "several classes", "(2,)")),
    (torch.rand(2, 3), None, "value", ("target", "output='value'", "(2, 3)", "None")),
    (torch.rand(2, 3), None, "probability", ("target", "output='probability'", "None")),
    (torch.tensor([[0.5, 1.5]] * 2), None, "probabilities", ("output", "0 to 1", "0.5 to 1.5")),
    (torch.tensor([[0.5, 1.5]] * 2), 1, "independent_probabilities", ("output", "1.5 to 1.5")),
    (torch.tensor([-0.5, 0.5]), None, "probability", ("output", "0 to 1", "-0.5 to 0.5")),
    (torch.tensor([0.7, -0.5]), None, "log_probability", ("output", "0 to 1", "2.014")),
]


@pytest.mark.parametrize(("output", "target", "kind", "fragments"), BAD)
def test_what_does_not_fit_is_named(
    output: Tensor, target: Any, kind: str, fragments: tuple[str, ...]
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        Readout.resolve(output, index(target, 2), kind, 2)
    message = str(caught.value)
    assert message.startswith(f"{fragments[0]}: ")
    for fragment in fragments[1:]:
        assert fragment in message


def test_log_probabilities_must_be_some() -> None:
    positive = torch.tensor([[1.0, 2.0], [0.5, 0.1]])
    with pytest.raises(InvalidInputError, match=r"^output: 'log_probabilities' expects"):
        Readout.resolve(positive, None, "log_probabilities", 2)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "kind", ["logits", "value", "independent_probabilities", "independent_logits"]
)
def test_outputs_that_are_not_finite_are_named_with_their_rows(bad: float, kind: str) -> None:
    clean = torch.rand(4, 3)
    broken = clean.clone()
    broken[2, 1] = bad
    with pytest.raises(NonFiniteError, match=r"forward_func: .* the unmasked inputs \(rows \[2\]"):
        Readout.resolve(broken, index(1, 4), kind, 4)
    readout = Readout.resolve(clean, index(1, 4), kind, 4)
    if kind == "value":
        readout = with_endpoints([0.0] * 4, [1.0] * 4)
        broken = broken[:, 1]
    with pytest.raises(NonFiniteError, match=r"forward_func: .* for step 3 \(rows \[2\]"):
        readout.log_probs(broken, where="step 3")


@pytest.mark.parametrize("kind", ["log_probabilities", "log_probability"])
def test_log_probabilities_may_be_minus_infinite_but_not_nan(kind: str) -> None:
    output = torch.tensor([[0.0, -math.inf], [-0.5, math.log(1 - math.exp(-0.5))]])
    target = index(1, 2)
    readout = Readout.resolve(output, target, kind, 2)
    assert readout.probabilities[0].tolist() == pytest.approx([1.0, 0.0], abs=1e-12)
    assert readout.log_probs(output, where="here").isfinite().all()
    output[1, 1] = math.nan
    with pytest.raises(NonFiniteError, match=r"the unmasked inputs \(rows \[1\]"):
        Readout.resolve(output, target, kind, 2)
    with pytest.raises(NonFiniteError, match=r"step 1 \(rows \[1\]"):
        readout.log_probs(output, where="step 1")


def test_a_class_that_is_ruled_out_is_as_if_it_were_not_there() -> None:
    """A logit of minus infinity has a probability of 0, and takes part in no gradient."""
    z = logits(3, 3)
    ruled_out = torch.cat([z[:, :2], torch.full((3, 1), -math.inf, dtype=DOUBLE), z[:, 2:]], dim=1)
    for kind in ("logits", "auto"):
        for target in (None, [3, 0, 1]):
            readout = Readout.resolve(ruled_out, index(target, 3), kind, 3)
            assert readout.kind == "logits"
            assert readout.probabilities[:, 2].tolist() == pytest.approx([0.0] * 3, abs=1e-20)
            torch.testing.assert_close(
                readout.probabilities[:, [0, 1, 3]], z.softmax(1), rtol=0, atol=1e-14
            )
    given, plain = ruled_out.clone().requires_grad_(), z.clone().requires_grad_()
    with_class = Readout.resolve(ruled_out, index([3, 0, 1], 3), "logits", 3)
    without = Readout.resolve(z, index([2, 0, 1], 3), "logits", 3)
    for readout, output in ((with_class, given), (without, plain)):
        log_probs = readout.log_probs(output, where="here")
        term = prediction_term(log_probs, readout.aim)
        term = term + inverse_term(log_probs, readout.target_class, eps=1e-6)
        log_p, log_rest = readout.log_odds_terms(output, where="here")
        (term + log_p - log_rest).sum().backward()
    assert given.grad is not None
    assert plain.grad is not None
    assert given.grad[:, 2].tolist() == [0.0] * 3
    torch.testing.assert_close(given.grad[:, [0, 1, 3]], plain.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "row",
    [
        [0.5, -math.inf, 3.0],  # the target
        [-math.inf, 0.5, -math.inf],  # all but the target
        [math.inf, 0.5, 3.0],
        [math.nan, 0.5, 3.0],
    ],
)
def test_a_target_or_everything_else_may_not_be_ruled_out(row: list[float]) -> None:
    clean = torch.tensor([[0.1, 0.2, 1.3], [-math.inf, 0.2, 0.3]])
    bad = torch.stack([clean[0], torch.tensor(row)])
    for kind in ("logits", "auto"):
        with pytest.raises(NonFiniteError, match=r"the unmasked inputs \(rows \[1\]"):
            Readout.resolve(bad, index(1, 2), kind, 2)
        readout = Readout.resolve(clean, index(1, 2), kind, 2)
        for read in (readout.log_probs, readout.log_odds_terms):
            with pytest.raises(NonFiniteError, match=r"step 3 \(rows \[1, 3\]"):
                read(torch.cat([bad, bad]), where="step 3")


def test_only_the_first_rows_are_listed() -> None:
    with pytest.raises(NonFiniteError, match=r"rows \[0, 1, 2, 3, 4, 5, 6, 7, 8, 9\]\)"):
        check_finite(torch.full((20, 2), math.nan), "here")


def test_output_kinds_are_checked_by_name() -> None:
    assert check_output_kind("auto") == "auto"
    with pytest.raises(InvalidInputError, match=r"^output: expected one of .*'value'.*got 'logit'"):
        check_output_kind("logit")


# The log-odds of the target class, and its value


def exact_log_odds(z: Tensor, target: int) -> Tensor:
    others = [k for k in range(z.shape[1]) if k != target]
    return z[:, target] - z[:, others].logsumexp(1)


@pytest.mark.parametrize("repeats", [1, 2])
def test_the_log_odds_are_the_logit_over_the_others_in_every_form(repeats: int) -> None:
    z = logits(4, 3)
    p = z.softmax(1)
    expected = exact_log_odds(torch.cat([z] * repeats), 1)
    forms = {
        "logits": z,
        "probabilities": p,
        "log_probabilities": p.log(),
        "probability": p[:, 1],
        "log_probability": p[:, 1].log(),
    }
    for kind, output in forms.items():
        target = index(1, 4) if output.dim() == 2 else None
        readout = Readout.resolve(output, target, kind, 4)
        assert not readout.is_value
        log_p, log_rest = readout.log_odds_terms(torch.cat([output] * repeats), where="here")
        # float64 rounding of exp, log and 1 - p.
        torch.testing.assert_close(log_p, p[:, 1].log().repeat(repeats), rtol=0, atol=1e-12)
        torch.testing.assert_close(log_p - log_rest, expected, rtol=0, atol=1e-12)


def test_the_log_odds_of_logits_have_the_same_gradient_however_sure_the_model_is() -> None:
    """d(z_c - logsumexp of the others) = +1 for the class and -softmax for the others."""
    z = torch.tensor([[90.0, 0.0, 0.0], [-90.0, 0.0, 0.0]], requires_grad=True)
    readout = Readout.resolve(z.detach(), index(0, 2), "logits", 2)
    log_p, log_rest = readout.log_odds_terms(z, where="here")
    (log_p - log_rest).sum().backward()
    assert (log_p - log_rest).tolist() == pytest.approx([90 - math.log(2), -90 - math.log(2)])
    assert z.grad is not None
    expected = torch.tensor([[1.0, -0.5, -0.5]] * 2)
    # The rounding of log-probabilities near -90 in single precision, 4e-6.
    torch.testing.assert_close(z.grad, expected, rtol=0, atol=1e-5)


def test_a_sure_log_probability_keeps_its_log_odds() -> None:
    """p = 1 - 1e-12 rounds to 1 in single precision, its logarithm -1e-12 does not."""
    log_p = torch.tensor([-1e-12, -30.0, -0.7, -0.69, 0.0, -math.inf], requires_grad=True)
    readout = Readout.resolve(log_p.detach(), None, "log_probability", 6)
    first, second = readout.log_odds_terms(log_p, where="here")
    assert second.tolist() == pytest.approx(
        [math.log(1e-12), 0.0, math.log1p(-math.exp(-0.7)), math.log1p(-math.exp(-0.69)), -50, 0],
        abs=1e-5,
    )
    (first - second).sum().backward()
    assert log_p.grad is not None
    assert log_p.grad.isfinite().all()
    # d log(p / (1 - p)) / d log p = 1 / (1 - p).
    assert log_p.grad[:3].tolist() == pytest.approx([1e12, 1.0, 1 / (1 - math.exp(-0.7))])


def test_values_are_those_of_the_forward_function_at_the_target() -> None:
    z = logits(4, 3).to(torch.bfloat16)
    for kind in ("logits", "value"):
        readout = Readout.resolve(z, index([2, 0, 1, 1], 4), kind, 4)
        assert readout.is_value == (kind == "value")
        values = readout.values(torch.cat([z, 2 * z]), where="here")
        expected = torch.stack([z[0, 2], z[1, 0], z[2, 1], z[3, 1]]).float()
        assert torch.equal(values, torch.cat([expected, 2 * expected]))
        broken = z.clone()
        broken[3, 1] = math.nan
        with pytest.raises(NonFiniteError, match=r"for step 2 \(rows \[3\]"):
            readout.values(broken, where="step 2")
