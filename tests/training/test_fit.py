"""Fitting a masker over a data set: on planted evidence, and without touching anything else."""

from __future__ import annotations

import copy
import itertools
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from captum_aml import AMLAttribution, AMLObjective, LAAttribution, LAObjective
from captum_aml.exceptions import InvalidInputError, NoGradientError, NonFiniteError
from captum_aml.maskers import EmbeddingMasker, MaskerInputs, TransformerMasker
from captum_aml.masking.problem import MaskingProblem
from captum_aml.objectives import MaskedOutcome, Terms, size_term
from captum_aml.training import EpochRecord, FitSettings
from captum_aml.training.fit import fit_masker
from captum_aml.training.losses import FitGoal
from captum_aml.training.validation import sums_of_terms
from captum_aml.typing import Batch, Batches
from tests._helpers.models import (
    LinearLogits,
    PlantedClassifier,
    planted_texts,
    problem_for,
    tiny_encoder,
)

LENGTH = 7
FAST = {"epochs": 3, "learning_rate": 1e-2}


def batches_of(n_batches: int, size: int, *, seed: int) -> list[Tensor]:
    ids, _ = planted_texts(n_batches * size, LENGTH, seed=seed)
    return list(ids.split(size))


def planted(**settings: Any) -> AMLAttribution:
    return AMLAttribution(PlantedClassifier(), **settings)


def small_masker() -> EmbeddingMasker:
    """A masker to start from: what a DataLoader draws from the generator cannot change it."""
    torch.manual_seed(0)
    return EmbeddingMasker(feature_shapes=[(LENGTH, 8)], n_classes=3, hidden_size=16)


def weights_of(attribution: Any) -> dict[str, Tensor]:
    assert attribution.masker_ is not None
    return copy.deepcopy(attribution.masker_.state_dict())


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# Planted evidence


@pytest.mark.parametrize("method", [AMLAttribution, LAAttribution])
def test_the_deciding_token_comes_first_in_texts_never_seen(method: Any) -> None:
    attribution = method(PlantedClassifier()).fit(batches_of(20, 32, seed=1), **FAST)
    ids, places = planted_texts(100, LENGTH, seed=2)
    scores = attribution.attribute(ids)
    hits = (scores.argmax(dim=1) == places).float().mean().item()
    assert hits == 1.0
    # A random ranking finds one in LENGTH: the test can fail.
    random_hits = (torch.rand_like(scores).argmax(dim=1) == places).float().mean().item()
    assert random_hits < 0.4


def test_the_loss_falls_and_is_what_the_history_says() -> None:
    aml = planted().fit(batches_of(20, 32, seed=1), **FAST)
    assert aml.history_ is not None
    losses = [record.train["total"] for record in aml.history_]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.8 * losses[0]
    for record in aml.history_:
        parts = [record.train[name] for name in ("prediction", "inverse", "size")]
        # Means of float32 terms, added up in float64.
        assert sum(parts) == pytest.approx(record.train["total"], rel=1e-6)


# One step by hand


class OneLogit(nn.Module):
    """Proposes the same logit for every token."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.tensor(start, dtype=torch.float64))

    def forward(self, inputs: MaskerInputs) -> Tensor:
        return self.logit.expand(inputs.features[0].shape[:2])


def size_only(weight: float) -> AMLObjective:
    """-log(1 - sigmoid(t)) has the derivative sigmoid(t): its descent can be written down."""
    return AMLObjective(prediction_weight=0.0, inverse_weight=0.0, size_weight=weight)


def linear_problem(batch: Batch) -> MaskingProblem:
    return problem_for(LinearLogits([2.0, -1.0], 0.3), batch, output="logits")


@pytest.mark.parametrize("weight", [1.0, 5.0])
def test_the_steps_are_adamw_with_linear_decay_and_a_bounded_gradient(weight: float) -> None:
    """With a weight of 5 the gradient is above the norm that it is clipped to."""
    masker = OneLogit(0.7)
    batches = [torch.rand(3, 2, dtype=torch.float64) + 1 for _ in range(2)]
    learning_rate, decay, epochs = 0.2, 0.05, 2
    history = fit_masker(
        masker,
        FitGoal(linear_problem, size_only(weight)),
        batches,
        settings=FitSettings(
            epochs=epochs, learning_rate=learning_rate, weight_decay=decay, max_gradient_norm=1.0
        ),
    ).history
    t, first, second, losses = 0.7, 0.0, 0.0, []
    for step in range(4):
        losses.append(-weight * math.log(1 - 1 / (1 + math.exp(-t))))
        gradient = weight / (1 + math.exp(-t))
        gradient *= min(1.0, 1.0 / (gradient + 1e-6))
        rate = learning_rate * (1 - step / 4)
        t -= rate * decay * t
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        mean, spread = first / (1 - 0.9 ** (step + 1)), second / (1 - 0.999 ** (step + 1))
        t -= rate * mean / (math.sqrt(spread) + 1e-8)
    assert masker.logit.item() == pytest.approx(t, rel=1e-12)
    assert [r.train["total"] for r in history] == pytest.approx(
        [(losses[0] + losses[1]) / 2, (losses[2] + losses[3]) / 2], rel=1e-12
    )
    assert [r.learning_rate for r in history] == pytest.approx([learning_rate / 2, 0.0])
    assert [r.epoch for r in history] == [1, 2]
    assert [r.validation for r in history] == [None, None]
    assert not masker.training


def test_means_are_over_examples_and_not_over_batches() -> None:
    """Batches of 3 and 1 examples: every example counts the same."""
    masker = OneLogit(0.0)
    x = torch.tensor([[3.0, 0.1], [1.0, 1.0], [0.5, 2.0], [-2.0, 4.0]], dtype=torch.float64)
    objective = AMLObjective()
    goal = FitGoal(linear_problem, objective)
    result = sums_of_terms(masker, goal, [x[:3], x[3:]], FitSettings()).result()
    half = torch.full((4, 2), 0.5, dtype=torch.float64)
    terms = linear_problem(x).evaluate(half, objective, where="here")
    assert result["total"] == pytest.approx(terms.total.mean().item(), rel=1e-12)
    for name, value in terms.parts.items():
        assert result[name] == pytest.approx(value.mean().item(), rel=1e-12)


# Validation


class BestAtOne:
    """Trains towards an empty mask; in validation it is least where the logit is 1."""

    uses_kept = True
    uses_complement = False

    def __init__(self, masker: nn.Module) -> None:
        self.masker = masker
        self.validated: list[float] = []

    def __call__(self, outcome: MaskedOutcome) -> Terms:
        assert outcome.kept is not None
        if self.masker.training:
            # What is kept takes part with no weight, so that the model has a gradient.
            size = size_term(outcome.mask, outcome.maskable, "bce")
            return Terms(size + 0 * outcome.kept[:, 0], {})
        logits = torch.logit(outcome.mask)
        self.validated.append(logits[0, 0].item())
        return Terms((logits - 1.0).abs().mean(dim=1), {})


def test_the_epoch_with_the_least_validation_loss_is_kept() -> None:
    masker = OneLogit(2.0)
    objective = BestAtOne(masker)
    history = fit_masker(
        masker,
        FitGoal(linear_problem, objective),
        [torch.ones(2, 2, dtype=torch.float64)] * 3,
        [torch.ones(1, 2, dtype=torch.float64)],
        settings=FitSettings(epochs=6, learning_rate=0.25, weight_decay=0.0),
    ).history
    weights = objective.validated
    assert len(weights) == 6
    assert weights == sorted(weights, reverse=True)
    losses = [abs(w - 1) for w in weights]
    assert [r.validation["total"] for r in history if r.validation] == pytest.approx(losses)
    best = min(range(6), key=losses.__getitem__)
    assert 0 < best < 5  # neither the first nor the last, or the test would show nothing
    assert masker.logit.item() == pytest.approx(weights[best], rel=1e-12)


def test_validation_runs_without_dropout_and_without_learning() -> None:
    modes: list[bool] = []

    class Noting(OneLogit):
        def forward(self, inputs: MaskerInputs) -> Tensor:
            modes.append(self.training)
            assert torch.is_grad_enabled() is self.training
            return super().forward(inputs)

    fit_masker(
        Noting(0.0),
        FitGoal(linear_problem, AMLObjective()),
        [torch.ones(2, 2, dtype=torch.float64)] * 2,
        [torch.ones(2, 2, dtype=torch.float64)],
        settings=FitSettings(epochs=2, learning_rate=0.1, weight_decay=0.0),
    )
    assert modes == [True, True, False] * 2


# Repeating


def test_the_same_seed_gives_the_same_weights_bit_for_bit() -> None:
    batches = batches_of(4, 16, seed=1)
    first = weights_of(planted().fit(batches, seed=3, **FAST))
    torch.rand(17)  # whatever happened in between
    assert equal(first, weights_of(planted().fit(batches, seed=3, **FAST)))
    assert not equal(first, weights_of(planted().fit(batches, seed=4, **FAST)))
    assert equal(first, weights_of(planted(seed=3).fit(batches, **FAST)))


def test_dropout_and_shuffling_follow_the_seed() -> None:
    model = tiny_encoder("bert", n_labels=2)
    loader = DataLoader(torch.randint(3, 30, (12, 6)), batch_size=4, shuffle=True)

    def fit() -> dict[str, Tensor]:
        masker = TransformerMasker.from_model(model)
        with torch.no_grad():  # its head is drawn outside of fit
            for parameter in masker.head.parameters():
                parameter.fill_(0.1)
            for parameter in masker.prediction.parameters():
                parameter.fill_(0.1)
        aml = AMLAttribution(lambda ids: model(ids), masker=masker, embedding_layer=word_layer)
        return weights_of(aml.fit(loader, epochs=2, learning_rate=1e-3, seed=5))

    word_layer = model.get_input_embeddings()
    first = fit()
    torch.rand(3)
    assert equal(first, fit())


def test_a_refit_forgets() -> None:
    some, others = batches_of(4, 16, seed=1), batches_of(4, 16, seed=9)
    fresh = weights_of(planted().fit(others, **FAST))
    aml = planted().fit(some, **FAST)
    assert not equal(weights_of(aml), fresh)
    aml.fit(others, **FAST)
    assert equal(weights_of(aml), fresh)
    assert aml.history_ is not None
    assert len(aml.history_) == FAST["epochs"]


def test_a_given_masker_is_the_start_and_stays_as_it_is() -> None:
    masker = small_masker()
    before = copy.deepcopy(masker.state_dict())
    aml = planted(masker=masker).fit(batches_of(4, 16, seed=1), **FAST)
    assert aml.masker_ is not masker
    assert equal(masker.state_dict(), before)
    assert not masker.fitted
    assert aml.is_fitted
    again = planted(masker=masker).fit(batches_of(4, 16, seed=1), **FAST)
    assert equal(weights_of(aml), weights_of(again))


def test_fit_returns_the_object_itself() -> None:
    aml = planted()
    assert aml.fit(batches_of(1, 8, seed=1), epochs=1) is aml


# What is the caller's


def test_nothing_of_the_explained_model_changes() -> None:
    model = PlantedClassifier()
    model.train()
    model.bias.grad = torch.full((3,), 4.0)
    state, required = (
        copy.deepcopy(model.state_dict()),
        [p.requires_grad for p in model.parameters()],
    )
    ids = batches_of(3, 8, seed=1)
    copies = [t.clone() for t in ids]
    AMLAttribution(model).fit(ids, ids[:1], epochs=2, learning_rate=1e-2)
    assert equal(model.state_dict(), state)
    assert [p.requires_grad for p in model.parameters()] == required
    assert model.embedding.weight.grad is None
    assert model.bias.grad.tolist() == [4.0] * 3
    assert model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(torch.equal(a, b) for a, b in zip(ids, copies, strict=True))


def test_nothing_changes_when_a_batch_is_bad() -> None:
    model = PlantedClassifier()
    aml = AMLAttribution(model)
    aml.fit(batches_of(2, 8, seed=1), epochs=1)
    before, history = weights_of(aml), aml.history_
    state = torch.get_rng_state()
    bad = [*batches_of(1, 8, seed=1), torch.tensor([[99, 1]])]
    with pytest.raises(InvalidInputError, match=r"inputs: .* ids from 0 to 29"):
        aml.fit(bad, epochs=1)
    assert equal(weights_of(aml), before)
    assert aml.history_ is history
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_the_global_random_states_stay() -> None:
    torch_state, python_state = torch.get_rng_state(), random.getstate()
    numpy_state = np.random.get_state()[1].copy()
    loader = DataLoader(TensorDataset(planted_texts(16, LENGTH, seed=1)[0]), 4, shuffle=True)
    planted().fit([b for (b,) in loader], epochs=1)
    torch_state = torch.get_rng_state()  # the loader above is the caller's own
    planted().fit(DataLoader(planted_texts(16, LENGTH, seed=1)[0], 4, shuffle=True), epochs=2)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert random.getstate() == python_state
    assert np.array_equal(np.random.get_state()[1], numpy_state)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_fitting_works_where_gradients_are_off(context: Callable[[], Any]) -> None:
    batches = batches_of(3, 8, seed=1)
    expected = weights_of(planted().fit(batches, **FAST))
    with context():
        assert equal(weights_of(planted().fit(batches, **FAST)), expected)
        if context is torch.inference_mode:
            assert torch.is_inference_mode_enabled()
        assert not torch.is_grad_enabled()


def test_only_weights_that_ask_for_a_gradient_learn() -> None:
    masker = small_masker()
    masker.heads[0].project.requires_grad_(False)
    aml = planted(masker=masker).fit(batches_of(3, 8, seed=1), **FAST)
    fitted, start = weights_of(aml), masker.state_dict()
    for name, tensor in start.items():
        assert torch.equal(fitted[name], tensor) is name.startswith("heads.0.project"), name


# Forms of data


def test_every_form_of_batches_is_the_same_data() -> None:
    ids = planted_texts(24, LENGTH, seed=1)[0]
    expected = weights_of(planted(masker=small_masker()).fit(list(ids.split(8)), **FAST))

    class Reusable:
        """Neither a list nor sized."""

        def __iter__(self) -> Iterator[Tensor]:
            yield from ids.split(8)

    forms: list[Batches] = [
        tuple(ids.split(8)),
        [{"inputs": part} for part in ids.split(8)],
        [(part,) for part in ids.split(8)],
        DataLoader(ids, batch_size=8),
        Reusable(),
    ]
    for form in forms:
        assert equal(weights_of(planted(masker=small_masker()).fit(form, **FAST)), expected)


def test_a_data_loader_over_a_stream_is_read() -> None:
    ids = planted_texts(24, LENGTH, seed=1)[0]

    class Stream(IterableDataset):
        def __iter__(self) -> Iterator[Tensor]:
            yield from ids

    expected = weights_of(planted(masker=small_masker()).fit(list(ids.split(8)), **FAST))
    stream = DataLoader(Stream(), batch_size=8)
    assert equal(weights_of(planted(masker=small_masker()).fit(stream, **FAST)), expected)


def test_a_mappings_arguments_are_those_of_attribute() -> None:
    """With the deciding token as its own baseline there is nothing left to find there."""
    ids, places = planted_texts(4, LENGTH, seed=1)
    reference = torch.zeros_like(ids)
    reference[torch.arange(4), places] = ids[torch.arange(4), places]
    seen: list[MaskerInputs] = []

    class Looking(EmbeddingMasker):
        def forward(self, inputs: MaskerInputs) -> tuple[Tensor, ...]:
            seen.append(inputs)
            return super().forward(inputs)

    masker = Looking(feature_shapes=[(LENGTH, 8)], n_classes=3)
    batch = {"inputs": ids, "baselines": reference, "target": [0, 1, 2, 0]}
    # The copy that is fitted is of the same class.
    planted(masker=masker).fit([batch], epochs=1)
    assert torch.equal(seen[0].maskable[0], reference != ids)
    # No target is the predicted class here for the first and the last: the aim is the target.
    assert seen[0].probabilities[0].tolist() == [1.0, 0.0, 0.0]


def test_an_iterator_is_enough_for_one_epoch() -> None:
    batches = batches_of(3, 8, seed=1)
    expected = weights_of(planted().fit(batches, batches[:1], epochs=1))
    got = planted().fit(iter(batches), iter(batches[:1]), epochs=1)
    assert equal(weights_of(got), expected)


@pytest.mark.parametrize("name", ["train_batches", "val_batches"])
def test_an_iterator_for_several_epochs_is_an_error_that_says_what_to_do(name: str) -> None:
    batches = batches_of(2, 8, seed=1)
    arguments: dict[str, Any] = {"train_batches": batches, "val_batches": batches}
    arguments[name] = (b for b in batches)
    with pytest.raises(InvalidInputError, match=rf"^{name}: .*\(generator\).* DataLoader"):
        planted().fit(**arguments, epochs=2)


@pytest.mark.parametrize(
    "shape", [(8,), (8, 3), (8, 3, 2), (2, 3, 2, 2)], ids=["N", "N,L", "N,S,L", "N,S,T,L"]
)
def test_ids_of_any_dimension_can_be_fitted_without_a_masker_of_ones_own(
    shape: tuple[int, ...],
) -> None:
    class Model(PlantedClassifier):
        def forward(self, ids: Tensor) -> Tensor:
            return self.embedding(ids)[..., :3].reshape(len(ids), -1, 3).sum(dim=1) + self.bias

    aml = AMLAttribution(Model()).fit([torch.randint(1, 30, shape)], epochs=1)
    ids = torch.randint(1, 30, shape)
    scores, delta = aml.attribute(ids, return_convergence_delta=True)
    assert isinstance(scores, Tensor)
    assert scores.shape == shape
    torch.testing.assert_close(delta, torch.zeros(shape[0]), atol=1e-4, rtol=0)
    aml.scores = "mask"
    mask = aml.attribute(ids)
    assert isinstance(mask, Tensor)
    assert ((mask > 0) & (mask < 1)).all()


@pytest.mark.parametrize("shape", [(8,), (8, 3), (8, 5, 3), (4, 2, 5, 3)])
def test_floats_of_any_dimension_can_be_fitted_without_a_masker_of_ones_own(
    shape: tuple[int, ...],
) -> None:
    def forward(x: Tensor) -> Tensor:
        total = x.reshape(len(x), -1).sum(dim=1)
        return torch.stack([total, -total], dim=1)

    aml = AMLAttribution(forward).fit([torch.rand(shape) + 0.1], epochs=1)
    scores = aml.attribute(torch.rand(shape) + 0.1)
    assert isinstance(scores, Tensor)
    assert scores.shape == shape
    assert (scores > 0).all()


# Bad input


@pytest.mark.parametrize("name", ["train_batches", "val_batches"])
@pytest.mark.parametrize(
    ("given", "fragment"),
    [(torch.ones(2, 3), "Tensor"), ({"inputs": torch.ones(2, 3)}, "dict"), (7, "int")],
)
def test_what_is_no_iterable_of_batches_is_named(name: str, given: Any, fragment: str) -> None:
    arguments = {"train_batches": batches_of(1, 4, seed=1), "val_batches": None, name: given}
    with pytest.raises(InvalidInputError, match=rf"^{name}: .* iterable .* got {fragment}"):
        planted().fit(**arguments)


@pytest.mark.parametrize("own_masker", [False, True])
def test_no_batches_at_all_are_named(own_masker: bool) -> None:
    masker = EmbeddingMasker(feature_shapes=[(LENGTH, 8)], n_classes=3) if own_masker else None
    with pytest.raises(InvalidInputError, match=r"^train_batches: .* at least one batch, got none"):
        planted(masker=masker).fit([], epochs=1)
    with pytest.raises(InvalidInputError, match=r"^val_batches: .* at least one batch, got none"):
        planted(masker=masker).fit(batches_of(1, 4, seed=1), [], epochs=1)


@pytest.mark.parametrize(
    ("batch", "fragments"),
    [
        ({"input_ids": torch.ones(2, 3)}, ("batch", "'inputs'", "['input_ids']")),
        (
            {"inputs": torch.ones(2, 3), "labels": torch.ones(2)},
            ("batch", "target", "['inputs', 'labels']"),
        ),
        ([1, 2], ("inputs", "tensor", "list")),
        ("text", ("inputs", "tensor", "str")),
    ],
)
def test_a_bad_batch_is_named(batch: Any, fragments: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInputError) as caught:
        planted().fit([batch], epochs=1)
    assert str(caught.value).startswith(f"{fragments[0]}: ")
    assert all(f in str(caught.value) for f in fragments[1:])


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"epochs": 0}, "epochs"),
        ({"epochs": 1.5}, "epochs"),
        ({"epochs": True}, "epochs"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": math.nan}, "learning_rate"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"weight_decay": math.nan}, "weight_decay"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], name: str) -> None:
    with pytest.raises(InvalidInputError, match=f"^{name}: expected .* got"):
        planted().fit(batches_of(1, 4, seed=1), **settings)


def test_a_masker_without_anything_to_learn_is_named() -> None:
    masker = EmbeddingMasker(feature_shapes=[(LENGTH, 8)], n_classes=3).requires_grad_(False)
    with pytest.raises(InvalidInputError, match=r"^masker: .* parameters .* got none"):
        planted(masker=masker).fit(batches_of(1, 4, seed=1), epochs=1)


def test_a_masker_of_another_size_is_named() -> None:
    masker = EmbeddingMasker(feature_shapes=[(LENGTH, 9)], n_classes=3)
    with pytest.raises(InvalidInputError, match=r"^masker: .*9.*got .*8"):
        planted(masker=masker).fit(batches_of(1, 4, seed=1), epochs=1)
    masker = EmbeddingMasker(feature_shapes=[(LENGTH, 8)], n_classes=4)
    with pytest.raises(InvalidInputError, match=r"^masker: .* 4 classes, .* 3"):
        planted(masker=masker).fit(batches_of(1, 4, seed=1), epochs=1)


def test_a_forward_function_without_a_gradient_is_named_and_fits_nothing() -> None:
    model = PlantedClassifier()
    aml = AMLAttribution(lambda ids: model(ids).detach(), embedding_layer=model.embedding)
    with pytest.raises(NoGradientError, match=r"^forward_func: .* no gradient"):
        aml.fit(batches_of(2, 4, seed=1), epochs=1)
    assert not aml.is_fitted


def test_an_output_that_is_not_finite_is_named_with_its_step() -> None:
    model, calls = PlantedClassifier(), itertools.count()

    def forward(ids: Tensor) -> Tensor:
        # Two calls a batch, unmasked and masked: the sixth is the masked one of the third step.
        return model(ids) * (math.nan if next(calls) == 5 else 1.0)

    masker = EmbeddingMasker(feature_shapes=[(LENGTH, 8)], n_classes=3)
    aml = AMLAttribution(forward, embedding_layer=model.embedding, masker=masker)
    with pytest.raises(NonFiniteError, match=r"^forward_func: .* training step 2"):
        aml.fit(batches_of(4, 4, seed=1), epochs=1, max_skipped_steps=0)
    assert not aml.is_fitted


def test_a_masker_that_diverges_is_what_the_error_names() -> None:
    """The explained model is well; its user must not be sent looking there."""
    masker = EmbeddingMasker(feature_shapes=[(LENGTH, 8)], n_classes=3)
    with torch.no_grad():
        masker.heads[0].readout.bias.fill_(math.nan)
    with pytest.raises(NonFiniteError, match="masker"):
        planted(masker=masker).fit(batches_of(1, 4, seed=1), epochs=1)


def test_a_loss_that_is_not_finite_is_named_with_its_step() -> None:
    class Broken(LAObjective):
        def __call__(self, outcome: Any) -> Any:
            terms = super().__call__(outcome)
            return type(terms)(terms.total * math.nan, terms.parts)

    aml = planted(objective=Broken())
    with pytest.raises(NonFiniteError, match=r"^objective: .* training step 0.*learning_rate"):
        aml.fit(batches_of(1, 4, seed=1), epochs=1)


def test_records_are_plain_numbers() -> None:
    aml = planted().fit(batches_of(2, 4, seed=1), batches_of(1, 4, seed=2), epochs=1)
    assert aml.history_ is not None
    (record,) = aml.history_
    assert isinstance(record, EpochRecord)
    assert record.validation is not None
    for means in (record.train, record.validation):
        assert list(means) == ["total", "prediction", "inverse", "size"]
        assert all(type(value) is float for value in means.values())
