"""Tuning the masker, against a copy of it tuned for each example alone."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from captum_aml import AMLObjective, EmbeddingMasker, MaskerInputs, TransformerMasker
from captum_aml.exceptions import InvalidInputError, NoGradientError, NonFiniteError
from captum_aml.masking.problem import MaskingProblem
from captum_aml.tuning import MaskerWeights, TuningResult, descend
from captum_aml.tuning._updates import directions
from tests._helpers.models import PlantedClassifier, planted_texts, problem_for, tiny_encoder

OBJECTIVE = AMLObjective(size_weight=0.3)
FULL = 10_000  # more directions than any matrix has: every weight is free
N, LENGTH = 4, 7

# Gradients of a batch are summed in another order than those of one example, and Adam divides
# small ones by their own size.
TOLERANCE = 2e-5


def tune_masker(
    problem: MaskingProblem,
    objective: AMLObjective,
    masker: nn.Module,
    *,
    n_steps: int,
    learning_rate: float,
    **options: Any,
) -> TuningResult:
    weights = MaskerWeights(problem, masker, n_steps=n_steps, **options)
    return descend(problem, objective, weights, n_steps=n_steps, learning_rate=learning_rate)


class Rows(nn.Module):
    """A user's masker: its linear modules see the tokens of all examples as one list of rows."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(8, 12), nn.ReLU(inplace=True), nn.Linear(12, 12), nn.Dropout(0.5)
        )
        self.read = nn.Linear(12, 1, bias=False)

    def forward(self, inputs: MaskerInputs) -> Tensor:
        n, length, channels = inputs.features[0].shape
        hidden = self.net(inputs.features[0].reshape(n * length, channels))
        return self.read(input=hidden).reshape(n, length)


class Twice(nn.Module):
    """A masker that calls one module twice, and puts a table of its own through it too."""

    def __init__(self, n_rows: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(n_rows, 8), requires_grad=False)
        self.mix = nn.Linear(8, 8)
        self.read = nn.Linear(8, 1)

    def forward(self, inputs: MaskerInputs) -> Tensor:
        shared = torch.tanh(self.mix(self.table)).mean(dim=0)
        hidden = torch.tanh(self.mix(inputs.features[0]))
        return self.read(torch.tanh(self.mix(hidden + shared))).squeeze(-1)


class Flattened(nn.Module):
    """One linear module sees the tokens of all examples as rows, position by position."""

    def __init__(self, *, alone: bool = False) -> None:
        super().__init__()
        self.alone = alone
        self.net = nn.Linear(8, 8)
        self.read = nn.Linear(8, 1)

    def forward(self, inputs: MaskerInputs) -> Tensor:
        n, length, channels = inputs.features[0].shape
        rows = inputs.features[0].transpose(0, 1).reshape(length * n, channels)
        hidden = torch.tanh(self.net(rows)).reshape(length, n, channels).transpose(0, 1)
        return hidden.sum(dim=-1) if self.alone else self.read(hidden).squeeze(-1)


def embedding_masker(**_: Any) -> nn.Module:
    return EmbeddingMasker(feature_shapes=[(LENGTH, 8)], n_classes=3, hidden_size=6)


MASKERS: dict[str, Callable[[], nn.Module]] = {
    "embedding": embedding_masker,
    "rows": Rows,
    "twice": lambda: Twice(5),
    "flattened by position": Flattened,
}


def made(build: Callable[[], nn.Module], seed: int = 3) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def planted(rows: slice = slice(None), padding: int = 0) -> MaskingProblem:
    ids = nn.functional.pad(planted_texts(N, LENGTH, seed=4)[0], (0, padding))
    return problem_for(PlantedClassifier(), ids[rows])


def encoded(kind: str, rows: slice = slice(None), padding: int = 0) -> MaskingProblem:
    """Texts of different lengths for a tiny encoder, at id 5 wherever a token is removed."""
    ids = torch.randint(6, 30, (N, LENGTH), generator=torch.Generator().manual_seed(2))
    attention = (torch.arange(LENGTH) < torch.tensor([[7], [5], [3], [6]])).long()
    ids, attention = (nn.functional.pad(t, (0, padding)) for t in (ids, attention))
    ids = torch.where(attention == 1, ids, 1 if kind == "roberta" else 0)
    baselines = torch.where(attention == 1, 5, ids)
    model = tiny_encoder(kind)
    return problem_for(
        lambda ids, attention_mask: model(ids, attention_mask=attention_mask),
        ids[rows],
        baselines=baselines[rows],
        additional_forward_args=(attention[rows],),
        layer=model.get_input_embeddings(),
    )


def alone(
    problem: MaskingProblem,
    masker: nn.Module,
    *,
    n_steps: int,
    learning_rate: float,
    weights: Callable[[nn.Module], list[nn.Parameter]],
) -> tuple[Tensor, float, int]:
    """A copy of the masker tuned for a problem of one example, as published: mask, loss, step."""
    own = copy.deepcopy(masker).eval()
    parameters = weights(own)
    optimizer = torch.optim.Adam(parameters, lr=learning_rate)
    best: tuple[Tensor, float, int] = (torch.empty(0), math.inf, -1)
    for step in range(n_steps + 1):
        mask = torch.sigmoid(problem.propose(own))
        loss = problem.evaluate(mask, OBJECTIVE, where="alone").total.sum()
        if loss.item() < best[1]:
            best = (mask.detach(), loss.item(), step)
        gradients = torch.autograd.grad(loss, parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimizer.param_groups[0]["lr"] = learning_rate * (1 - min(step, n_steps - 1) / n_steps)
        optimizer.step()
    return best


def matrices(masker: nn.Module) -> list[nn.Parameter]:
    """The weights and biases of linear and convolutional modules."""
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d)
    return [
        p
        for module in masker.modules()
        if isinstance(module, kinds)
        for p in module.parameters()
        if p.requires_grad
    ]


# --- What it computes ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["embedding", "rows"])
def test_with_every_direction_it_is_adam_on_a_copy_for_each_example(name: str) -> None:
    masker = made(MASKERS[name])
    found = tune_masker(planted(), OBJECTIVE, masker, n_steps=6, learning_rate=0.02, rank=FULL)
    start = tune_masker(planted(), OBJECTIVE, masker, n_steps=0, learning_rate=0.02)
    for i in range(N):
        problem = planted(slice(i, i + 1))
        mask, loss, step = alone(problem, masker, n_steps=6, learning_rate=0.02, weights=matrices)
        torch.testing.assert_close(found.mask[i], mask[0], rtol=0, atol=TOLERANCE)
        assert found.terms.total[i].item() == pytest.approx(loss, rel=1e-4)
        assert found.best_step[i].item() == step
    # The steps matter: otherwise the fitted proposal would have passed, too.
    assert bool((found.terms.total < start.terms.total - 0.01).all())
    assert (found.mask - start.mask).abs().amax(dim=1).min() > 0.02


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_it_is_adam_on_a_copy_of_a_transformer(kind: str) -> None:
    masker = made(lambda: TransformerMasker.from_model(tiny_encoder(kind)))
    found = tune_masker(encoded(kind), OBJECTIVE, masker, n_steps=4, learning_rate=0.003, rank=FULL)
    for i in range(N):
        mask, loss, _ = alone(
            encoded(kind, slice(i, i + 1)),
            masker,
            n_steps=4,
            learning_rate=0.003,
            weights=matrices,
        )
        # A bias of keys has no gradient but rounding, which Adam takes for one. It has no effect.
        torch.testing.assert_close(found.mask[i], mask[0], rtol=0, atol=2e-4)
        assert found.terms.total[i].item() == pytest.approx(loss, rel=1e-3)


def test_a_rank_below_is_descent_in_the_directions_alone() -> None:
    """A linear masker whose weight is ``W + (A B)^T``, with B tuned by Adam for each example."""

    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.read = nn.Linear(8, 1, bias=False)

        def forward(self, inputs: MaskerInputs) -> Tensor:
            return self.read(inputs.features[0]).squeeze(-1)

    masker, rank, rate = made(Linear), 3, 0.05
    found = tune_masker(planted(), OBJECTIVE, masker, n_steps=5, learning_rate=rate, rank=rank)
    along = directions(8, rank, seed=0).float()
    torch.testing.assert_close(along.T @ along, torch.eye(rank), rtol=0, atol=1e-6)
    for i in range(N):
        problem = planted(slice(i, i + 1))
        coefficients = torch.zeros(rank, 1, requires_grad=True)
        optimizer = torch.optim.Adam([coefficients])
        losses, masks = [], []
        for step in range(6):
            weight = {"read.weight": masker.read.weight + (along @ coefficients).T}
            logits = problem.propose(lambda given, w=weight: functional_call(masker, w, given))
            masks.append(torch.sigmoid(logits))
            terms = problem.evaluate(masks[-1], OBJECTIVE, where="reference")
            losses.append(terms.total.item())
            optimizer.zero_grad()
            terms.total.sum().backward()
            optimizer.param_groups[0]["lr"] = rate * 8 / rank * (1 - min(step, 4) / 5)
            optimizer.step()
        best = min(range(6), key=losses.__getitem__)
        torch.testing.assert_close(found.mask[i], masks[best][0], rtol=0, atol=TOLERANCE)
        assert found.best_step[i] == best


def test_a_low_rank_changes_outputs_as_much_as_free_weights_would() -> None:
    """Over many draws of the directions, the first step moves an output as far, about."""
    generator = torch.Generator().manual_seed(0)
    x, n, rank = torch.randn(400, generator=generator), 400, 16
    free = (x.sign() * x).sum()  # Adam's first step is the gradient's sign; the gradient is x
    moved = []
    for seed in range(20):
        along = directions(n, rank, seed=seed).float()
        seen = x @ along
        moved.append((seen.sign() * seen).sum() * n / rank)
    assert torch.stack(moved).mean().item() == pytest.approx(free.item(), rel=0.1)


def test_no_step_is_the_fitted_proposal() -> None:
    masker = made(embedding_masker).eval()
    problem = planted()
    with torch.no_grad():
        proposed = torch.sigmoid(problem.propose(masker))
    found = tune_masker(problem, OBJECTIVE, masker, n_steps=0, learning_rate=1.0)
    assert torch.equal(found.mask, proposed)
    # A step that is far too long leads nowhere better, and the proposal is kept to the bit.
    kept = tune_masker(problem, OBJECTIVE, masker, n_steps=1, learning_rate=1e6)
    assert kept.best_step.tolist() == [0] * N
    assert torch.equal(kept.mask, proposed)


def test_what_is_returned_scores_what_it_says() -> None:
    problem = planted()
    found = tune_masker(problem, OBJECTIVE, made(embedding_masker), n_steps=5, learning_rate=0.01)
    again = problem.evaluate(found.mask, OBJECTIVE, where="again")
    torch.testing.assert_close(again.total, found.terms.total, rtol=1e-5, atol=0)
    assert not found.mask.requires_grad


# --- Examples do not depend on each other --------------------------------------------------------


@pytest.mark.parametrize("name", [*MASKERS, "as many table rows as examples"])
def test_a_batch_is_its_examples_one_by_one(name: str) -> None:
    # A table with a row for each example, or one row, looks like something of the examples.
    masker = made(MASKERS.get(name, lambda: Twice(N)))

    def run(rows: slice) -> TuningResult:
        return tune_masker(planted(rows), OBJECTIVE, masker, n_steps=5, learning_rate=0.01)

    together = run(slice(None))
    for i in range(N):
        single = run(slice(i, i + 1))
        torch.testing.assert_close(single.mask[0], together.mask[i], rtol=0, atol=TOLERANCE)
        assert single.best_step[0] == together.best_step[i]


def test_a_table_of_one_row_is_no_example() -> None:
    masker = made(lambda: Twice(1))
    one = tune_masker(planted(slice(0, 1)), OBJECTIVE, masker, n_steps=5, learning_rate=0.01)
    all_ = tune_masker(planted(), OBJECTIVE, masker, n_steps=5, learning_rate=0.01)
    torch.testing.assert_close(one.mask[0], all_.mask[0], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("kind", ["bert", "distilbert", "electra"])
def test_padding_does_not_matter(kind: str) -> None:
    masker = made(lambda: TransformerMasker.from_model(tiny_encoder(kind)))
    short, long = (
        tune_masker(encoded(kind, padding=p), OBJECTIVE, masker, n_steps=4, learning_rate=0.001)
        for p in (0, 3)
    )
    torch.testing.assert_close(long.mask[:, :LENGTH], short.mask, rtol=0, atol=2e-4)
    start = tune_masker(encoded(kind), OBJECTIVE, masker, n_steps=0, learning_rate=0.001)
    assert (short.mask - start.mask).abs().max() > 0.02


# --- What stays as it is -------------------------------------------------------------------------


def test_the_masker_stays_as_it_is_and_runs_without_dropout() -> None:
    masker = made(Rows).train()
    masker.read.eval()
    before = copy.deepcopy(masker.state_dict())
    first, second = (
        tune_masker(planted(), OBJECTIVE, masker, n_steps=3, learning_rate=0.02) for _ in range(2)
    )
    assert torch.equal(first.mask, second.mask)
    for name, value in masker.state_dict().items():
        assert torch.equal(value, before[name])
    assert masker.training
    assert not masker.read.training
    for module in masker.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert all(p.grad is None and p.requires_grad for p in masker.parameters())


@pytest.mark.parametrize("name", MASKERS)
def test_a_masker_that_its_owner_froze_is_tuned_all_the_same(name: str) -> None:
    found = []
    for frozen in (False, True):
        masker = made(MASKERS[name]).requires_grad_(not frozen)
        found.append(tune_masker(planted(), OBJECTIVE, masker, n_steps=3, learning_rate=0.02))
        assert all(p.requires_grad is not frozen for p in masker.parameters())
    torch.testing.assert_close(found[1].mask, found[0].mask, rtol=0, atol=TOLERANCE)
    assert found[1].best_step.max() > 0


def test_what_is_frozen_among_trained_modules_stays() -> None:
    """Otherwise freezing the rest would change nothing."""
    whole, part = made(Rows), made(Rows)
    part.net.requires_grad_(False)
    masks = [
        tune_masker(planted(), OBJECTIVE, m, n_steps=3, learning_rate=0.02).mask
        for m in (whole, part)
    ]
    assert (masks[0] - masks[1]).abs().max() > 0.005


def test_hooks_are_removed_after_an_error() -> None:
    masker = made(embedding_masker)
    with pytest.raises(NoGradientError):
        tune_masker(
            problem_for(lambda x: x.detach()[..., :3].sum(dim=1), torch.randn(2, LENGTH, 8)),
            OBJECTIVE,
            masker,
            n_steps=2,
            learning_rate=0.1,
        )
    assert not any(module._forward_hooks for module in masker.modules())


def test_a_half_precision_masker_is_tuned_in_float32() -> None:
    """Steps far below what bfloat16 can add to a weight of one add up nevertheless."""
    exact = made(embedding_masker)
    half = copy.deepcopy(exact).bfloat16()
    results = [
        tune_masker(planted(), OBJECTIVE, m, n_steps=8, learning_rate=0.02) for m in (exact, half)
    ]
    assert results[1].mask.dtype == torch.float32
    torch.testing.assert_close(results[1].mask, results[0].mask, rtol=0, atol=0.05)
    assert (results[1].mask - results[0].mask).abs().max() > 0


# --- Bad input -----------------------------------------------------------------------------------


class Constant(nn.Module):
    """A masker without any linear module."""

    def __init__(self) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.zeros(()))

    def forward(self, inputs: MaskerInputs) -> Tensor:
        return self.logit.expand(inputs.features[0].shape[:2])


class PositionsFirst(nn.Module):
    """A masker whose linear module sees (L, N, D)."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Linear(8, 1)

    def forward(self, inputs: MaskerInputs) -> Tensor:
        return self.read(inputs.features[0].transpose(0, 1)).squeeze(-1).T


class Detached(Rows):
    """A masker whose logits do not depend on its linear modules."""

    def forward(self, inputs: MaskerInputs) -> Tensor:
        return super().forward(inputs).detach()


@pytest.mark.parametrize(
    "build", [Constant, PositionsFirst, Detached, lambda: Flattened(alone=True)]
)
def test_a_masker_with_nothing_to_tune_is_named(build: Callable[[], nn.Module]) -> None:
    masker = made(build)
    with pytest.raises(
        InvalidInputError,
        match=rf"^masker: tune='masker' expected .* {type(masker).__name__}\. Use",
    ):
        tune_masker(planted(), OBJECTIVE, masker, n_steps=1, learning_rate=0.1)


def test_logits_that_stop_being_finite_are_named() -> None:
    class Steep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.read = nn.Linear(8, 1)

        def forward(self, inputs: MaskerInputs) -> Tensor:
            return (self.read(inputs.features[0]) * 1e3).exp().squeeze(-1)

    masker = made(Steep)
    nn.init.zeros_(masker.read.weight)
    nn.init.zeros_(masker.read.bias)
    with pytest.raises(NonFiniteError, match=r"^masker: expected finite logits"):
        tune_masker(planted(), OBJECTIVE, masker, n_steps=3, learning_rate=10.0)
