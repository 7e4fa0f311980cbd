"""Parameter randomization: explanations whose dependence on the weights is known."""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, rankdata
from torch import Tensor, nn

from captum_aml.exceptions import InvalidInputError, NonFiniteError
from captum_aml.metrics.randomization import parameter_randomization

N, L = 4, 200


class Model(nn.Module):
    """A linear map with a batch norm before it and a tied copy behind."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(L)
        self.first = nn.Linear(L, L, bias=False)
        self.second = nn.Linear(L, L)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.second(self.first(self.norm(x)))
        return scores


@pytest.fixture
def model() -> Model:
    return Model().eval()


@pytest.fixture
def inputs() -> Tensor:
    return torch.randn(N, L)


def bits(model: nn.Module) -> dict[str, bytes]:
    """Every parameter and buffer, as bytes; tied ones under both names."""
    return {
        name: tensor.detach().contiguous().numpy().tobytes()
        for named in (model.named_parameters, model.named_buffers)
        for name, tensor in named(remove_duplicate=False)
    }


def rows(model: Model, count: int = N) -> Callable[[], Tensor]:
    """Explains example i by row i of the first weight."""
    return lambda: model.first.weight[:count]


# --- what the value is


def test_scores_that_are_the_weights_have_a_correlation_near_zero(model: Model) -> None:
    values = parameter_randomization(rows(model), model)
    assert values.shape == (N,)
    assert values.dtype == torch.float32
    # The rank correlation of 200 independent values has a standard deviation of 1 / sqrt(199),
    # that is 0.071; 0.3 is more than four of them.
    assert values.abs().max() < 0.3
    assert values.abs().min() > 0


def test_scores_of_the_inputs_alone_have_one(model: Model, inputs: Tensor) -> None:
    values = parameter_randomization(lambda: inputs * 2, model)
    torch.testing.assert_close(values, torch.ones(N))


def test_a_gradient_follows_the_weights_and_an_input_in_it_does_not(
    model: Model, inputs: Tensor
) -> None:
    def gradient() -> Tensor:
        x = inputs.clone().requires_grad_()
        return torch.autograd.grad(model(x)[:, 0].sum(), x)[0]

    # 0.3 as above.
    assert parameter_randomization(gradient, model).abs().max() < 0.3
    # Sorted by the input: a monotone function of it and a little of the gradient.
    masked = parameter_randomization(lambda: inputs * 1e3 + gradient(), model)
    assert masked.min() > 0.9


def test_the_value_is_the_correlation_of_mean_ranks(model: Model) -> None:
    seen: list[Tensor] = []

    def coarse() -> Tensor:
        seen.append((model.first.weight[:N, :12] * 30).round().detach())  # many ties
        return seen[-1]

    values = parameter_randomization(coarse, model, seed=3)
    before, after = (s.double().numpy() for s in seen)
    assert len(np.unique(before[0])) < 12
    expected = [
        pearsonr(rankdata(a), rankdata(b)).statistic for a, b in zip(before, after, strict=True)
    ]
    # Single precision.
    torch.testing.assert_close(values.double(), torch.tensor(expected).double(), atol=1e-6, rtol=0)


def test_by_hand_without_and_with_the_positions_that_do_not_count(model: Model) -> None:
    # Ranks 1 2 3 4 5 before, 2 1 4 3 5 after: 1 - 6 (1 + 1 + 1 + 1 + 0) / (5 * 24) = 0.8.
    # Of the last three, 1 2 3 and 2 1 3: 1 - 6 (1 + 1) / (3 * 8) = 0.5.
    scores = iter(torch.tensor([[[1.0, 2, 3, 4, 5]] * 2, [[2.0, 1, 4, 3, 5]] * 2]))
    tokens = torch.tensor([[True] * 5, [False, False, True, True, True]])
    values = parameter_randomization(lambda: next(scores), model, tokens=tokens)
    torch.testing.assert_close(values, torch.tensor([0.8, 0.5]))


def test_signs_are_kept(model: Model) -> None:
    ranks = torch.arange(5.0).expand(1, 5) - 2
    scores = iter([ranks, -ranks])
    assert parameter_randomization(lambda: next(scores), model).item() == pytest.approx(-1)


def test_constant_scores_and_single_tokens_have_no_value(model: Model) -> None:
    ranks = torch.arange(3.0)
    before = torch.stack([ranks, ranks, torch.zeros(3), ranks])
    after = torch.stack([ranks, torch.full((3,), 0.1), ranks, ranks])
    scores = iter([before, after])
    tokens = torch.ones(4, 3, dtype=torch.bool)
    tokens[3] = torch.tensor([False, True, False])
    values = parameter_randomization(lambda: next(scores), model, tokens=tokens)
    torch.testing.assert_close(
        values, torch.tensor([1.0, torch.nan, torch.nan, torch.nan]), equal_nan=True
    )


def test_positions_that_do_not_count_may_be_nan(model: Model) -> None:
    def padded() -> Tensor:
        return torch.cat([rows(model)().detach(), torch.full((N, 2), torch.nan)], dim=1)

    tokens = torch.arange(L + 2).expand(N, -1) < L
    torch.testing.assert_close(
        parameter_randomization(padded, model, tokens=tokens),
        parameter_randomization(rows(model), model),
    )


def test_a_result_that_is_filled_again_is_no_second_view_of_the_first(model: Model) -> None:
    result = torch.empty(N, L)

    def reuse() -> Tensor:
        return result.copy_(model.first.weight[:N].detach())

    torch.testing.assert_close(
        parameter_randomization(reuse, model), parameter_randomization(rows(model), model)
    )


# --- what the random weights are


def drawn(model: Model, **options: Any) -> dict[str, Tensor]:
    """Parameters and buffers as the second call finds them."""
    calls: list[dict[str, Tensor]] = []

    def explain() -> Tensor:
        named = (*model.named_parameters(), *model.named_buffers())
        calls.append({name: tensor.detach().clone() for name, tensor in named})
        return torch.rand(1, 5)

    parameter_randomization(explain, model, **options)
    return calls[1]


def test_weights_are_normal_with_the_same_mean_and_spread(model: Model) -> None:
    with torch.no_grad():
        model.first.weight.uniform_(1.0, 3.0)
    new = drawn(model)["first.weight"]
    n = L * L
    # Uniform on [1, 3]: mean 2, standard deviation 2 / sqrt(12). Five standard errors each.
    std = 2 / 12**0.5
    assert new.mean().item() == pytest.approx(2, abs=5 * std / n**0.5)
    assert new.std().item() == pytest.approx(std, rel=5 / (2 * n) ** 0.5)
    # A normal one has 68.27 % within one standard deviation, a uniform one 57.7 %.
    within = ((new - 2).abs() < std).double().mean().item()
    assert within == pytest.approx(0.6827, abs=5 * (0.6827 * 0.3173 / n) ** 0.5)
    correlation = np.corrcoef(new.flatten(), model.first.weight.detach().flatten())[0, 1]
    assert abs(correlation) < 5 / n**0.5


def test_tied_weights_stay_tied_and_constant_ones_and_buffers_as_they_are(model: Model) -> None:
    with torch.no_grad():
        model.norm.weight.fill_(0.1)
        model.norm.bias.copy_(torch.arange(float(L)))
    old = {n: t.detach().clone() for n, t in (*model.named_parameters(), *model.named_buffers())}
    tied: list[bool] = []

    def explain() -> Tensor:
        tied.append(torch.equal(model.first.weight, model.second.weight))
        return torch.rand(1, 5)

    parameter_randomization(explain, model)
    assert tied == [True, True]
    new = drawn(model)
    same = {name for name in old if torch.equal(old[name], new[name])}
    assert same == {
        "norm.weight",
        "norm.running_mean",
        "norm.running_var",
        "norm.num_batches_tracked",
    }


def test_parameters_that_share_memory_stay_one(model: Model) -> None:
    model.second.weight = nn.Parameter(model.first.weight.data)  # tied by storage alone
    assert model.second.weight is not model.first.weight
    tied: list[bool] = []

    def explain() -> Tensor:
        tied.append(torch.equal(model.first.weight, model.second.weight))
        return model.first.weight[:1]

    before = bits(model)
    assert parameter_randomization(explain, model).abs().item() < 0.3
    assert tied == [True, True]
    assert bits(model) == before


def test_only_the_given_modules_are_randomized(model: Model) -> None:
    model.second.weight = nn.Parameter(torch.randn(L, L))
    old = {n: t.detach().clone() for n, t in model.named_parameters()}
    new = drawn(model, modules=[model.second])
    assert {n for n in old if not torch.equal(old[n], new[n])} == {"second.weight", "second.bias"}
    # What explains the other part does not notice.
    torch.testing.assert_close(
        parameter_randomization(rows(model), model, modules=[model.second]), torch.ones(N)
    )


def test_half_precision_weights_are_drawn_too(model: Model) -> None:
    model.bfloat16()
    values = parameter_randomization(rows(model), model)
    assert values.dtype == torch.float32
    assert values.abs().max() < 0.3


def test_the_seed_decides(model: Model) -> None:
    first = parameter_randomization(rows(model), model, seed=1)
    torch.rand(1)
    assert torch.equal(first, parameter_randomization(rows(model), model, seed=1))
    assert not torch.equal(first, parameter_randomization(rows(model), model, seed=2))


# --- what is left behind


def test_the_model_comes_back_to_the_bit(model: Model) -> None:
    before = bits(model)
    objects = [*model.parameters(), *model.buffers()]
    parameter_randomization(rows(model), model)
    assert bits(model) == before
    assert all(
        a is b for a, b in zip(objects, [*model.parameters(), *model.buffers()], strict=True)
    )
    assert model.first.weight is model.second.weight


def test_buffers_come_back_and_both_calls_find_the_same(model: Model, inputs: Tensor) -> None:
    model.train()
    model.register_buffer("calls", torch.zeros(()))
    found: list[tuple[float, int]] = []

    def explain() -> Tensor:
        found.append((float(model.calls), int(model.norm.num_batches_tracked)))
        model(inputs)  # batch norm counts and averages in place
        model.calls = model.calls + 1  # replaces the buffer
        return inputs

    before, calls = bits(model), model.calls
    parameter_randomization(explain, model)
    assert found == [(0.0, 0), (0.0, 0)]
    assert bits(model) == before
    assert model.calls is calls


@pytest.mark.parametrize("failing", [1, 2])
def test_an_error_leaves_the_model_and_the_random_state_as_they_were(
    model: Model, failing: int
) -> None:
    before, state = bits(model), torch.get_rng_state()
    calls: list[bool] = []

    def explain() -> Tensor:
        calls.append(bits(model) == before)
        torch.rand(3)
        if len(calls) == failing:
            raise RuntimeError("inside")
        return model.first.weight[:N]

    with pytest.raises(RuntimeError, match="inside"):
        parameter_randomization(explain, model)
    assert calls == [True, False][:failing]
    assert bits(model) == before
    assert torch.equal(torch.get_rng_state(), state)


def test_both_calls_draw_the_same_and_the_global_state_stays(model: Model) -> None:
    def noise() -> Tensor:
        return (
            torch.rand(N, L)
            + torch.from_numpy(np.random.rand(N, L)).float()
            + torch.tensor([[random.random() for _ in range(L)]])
        )

    torch_state, python_state = torch.get_rng_state(), random.getstate()
    numpy_state = np.random.get_state()[1].tolist()
    torch.testing.assert_close(parameter_randomization(noise, model), torch.ones(N))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert random.getstate() == python_state
    assert np.random.get_state()[1].tolist() == numpy_state


def test_the_numbers_of_explain_are_not_those_of_the_weights() -> None:
    model = nn.Linear(L, N, bias=False)
    found: list[float] = []

    def explain() -> Tensor:
        with torch.no_grad():
            noise = torch.randn(N, L)
            found.append(float(np.corrcoef(noise.flatten(), model.weight.flatten())[0, 1]))
            return model.weight.clone()

    parameter_randomization(explain, model)
    # Standard error 1 / sqrt(800), five of them.
    assert abs(found[1]) < 5 / (N * L) ** 0.5


def test_a_graph_of_the_callers_can_still_be_used(model: Model, inputs: Tensor) -> None:
    loss = model(inputs).square().sum()
    expected = torch.autograd.grad(loss, model.first.weight, retain_graph=True)[0]
    parameter_randomization(rows(model), model)
    assert torch.equal(torch.autograd.grad(loss, model.first.weight)[0], expected)


# --- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed: expected an integer of at least 0, got -1"),
        ({"seed": 0.5}, "seed: expected an integer"),
        ({"modules": nn.Linear(2, 2)}, "modules: expected a sequence .* got Linear"),
        ({"modules": 3}, "modules: expected a sequence .* got int"),
        ({"modules": [nn.Linear(2, 2)]}, r"modules\[0\]: .* got Linear, which is not part of it"),
        ({"modules": ["first"]}, r"modules\[0\]: .* got str"),
        ({"modules": []}, "modules: .* got 0 parameters"),
        ({"model": "model"}, "model: expected a torch module, got str"),
        ({"explain": lambda: [1.0]}, "explain: expected a tensor .* got list"),
        ({"explain": lambda: torch.ones(3)}, r"explain: .* \(N, L\).* got .* shape \(3,\)"),
        ({"tokens": torch.ones(N, 2).bool()}, rf"tokens: .*\({N}, {L}\).* got .*\({N}, 2\)"),
    ],
)
def test_wrong_arguments_are_named_and_change_nothing(
    model: Model, options: dict[str, Any], message: str
) -> None:
    before = bits(model)
    arguments = {"explain": rows(model), "model": model, **options}
    with pytest.raises(InvalidInputError, match=message):
        parameter_randomization(**arguments)
    assert bits(model) == before


def test_a_model_whose_weights_are_all_constant_cannot_be_randomized() -> None:
    model = nn.Linear(3, 2)
    nn.init.constant_(model.weight, 0.1)
    nn.init.zeros_(model.bias)
    with pytest.raises(InvalidInputError, match=r"modules: .*elements that differ, got 2"):
        parameter_randomization(lambda: torch.rand(1, 3), model)


def test_scores_that_change_their_shape_are_an_error(model: Model) -> None:
    scores = iter([torch.rand(2, 5), torch.rand(2, 4)])
    with pytest.raises(InvalidInputError, match=r"explain: .*\(2, 5\).* got \(2, 4\)"):
        parameter_randomization(lambda: next(scores), model)


def test_nan_is_an_error_that_says_under_which_weights(model: Model) -> None:
    bad = torch.tensor([[1.0, 2.0], [3.0, torch.nan]])
    with pytest.raises(NonFiniteError, match=r"explain: .*rows \[1\]"):
        parameter_randomization(lambda: bad, model)
    scores = iter([torch.rand(2, 2), bad])
    with pytest.raises(NonFiniteError, match=r"explain with random weights: .*rows \[1\]"):
        parameter_randomization(lambda: next(scores), model)


def test_without_scipy_the_error_says_what_to_install(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"parameter_randomization needs SciPy.*captum-aml\[all"):
        parameter_randomization(rows(model), model)
