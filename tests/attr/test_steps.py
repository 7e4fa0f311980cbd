"""Tuning steps, what can be read after a call, and how outputs are read."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from captum_aml import EmbeddingMasker
from captum_aml.exceptions import InvalidInputError, NotFittedError
from captum_aml.objectives import MaskedOutcome, Terms
from captum_aml.perturbation import ForwardState
from tests._helpers.cases import CASES, Case
from tests._helpers.checks import (
    BATCH_TOLERANCE,
    METHODS,
    STEPS,
    Family,
    KnownMasker,
    Method,
    assert_same,
    differs,
    flat,
)


@pytest.fixture(params=METHODS.values(), ids=METHODS.keys())
def method(request: pytest.FixtureRequest) -> Method:
    return request.param


@pytest.fixture
def text() -> Case:
    return CASES["text"].build()


def _counting(case: Case) -> tuple[Case, list[int]]:
    rows: list[int] = []

    def forward(*args: Any) -> Any:
        rows.append(len(args[0]))
        return case.forward(*args)

    return replace(case, forward=forward), rows


# --- The number of steps --------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["mask", "default"])
def test_without_a_masker_the_default_is_16_steps(
    method: Method, text: Case, family: Family
) -> None:
    method = replace(method, family=family)
    counted, rows = _counting(text)
    default = method(counted).attribute(text.inputs, **text.call)
    n_calls = len(rows)
    assert_same(method(counted).attribute(text.inputs, n_steps=16, **text.call), default)
    assert len(rows) == 2 * n_calls
    assert differs(flat(method(text).attribute(text.inputs, n_steps=14, **text.call)), [default])


def test_a_step_of_tuning_is_one_forward_call(method: Method, text: Case) -> None:
    counted, rows = _counting(text)
    counts = []
    for n_steps in (0, 1, 3, 8):
        rows.clear()
        masker = KnownMasker() if n_steps == 0 else None
        method(counted, masker=masker).attribute(text.inputs, n_steps=n_steps, **text.call)
        # What is tuned is proposed by the averaged mask gradient, whose passes are joined: those of
        # the masks, and those of as many subsets, of everything and of nothing.
        proposal = [16 * text.n_examples, 18 * text.n_examples]
        assert [n for n in rows if n in proposal] == (proposal if n_steps else [])
        # What the model takes is tried out with one example.
        rows[:] = [n for n in rows if n > 1]
        counts.append(len(rows))
        # So are the kept and the left out pass.
        steps = [n for n in rows if n not in proposal]
        assert max(steps) == (method.n_passes if n_steps else 1) * text.n_examples
    # One more than steps: the last mask is scored too.
    assert [n - counts[0] - 3 for n in counts[1:]] == [1, 3, 8]


def test_an_odd_number_of_tuning_steps_is_fine(method: Method, text: Case) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for n_steps in (1, 5):
            attribution = method(text)
            attribution.attribute(text.inputs, n_steps=n_steps, **text.call)
            assert int(attribution.best_step_.max()) <= n_steps


def test_with_a_fitted_masker_the_default_is_its_proposal(method: Method, text: Case) -> None:
    attribution = method(text).fit([{"inputs": text.inputs, **text.call}], epochs=1)
    default = attribution.attribute(text.inputs, **text.call)
    assert attribution.last_terms_ is None
    assert attribution.best_step_ is None
    assert_same(attribution.attribute(text.inputs, n_steps=0, **text.call), default)
    tuned = attribution.attribute(text.inputs, n_steps=20, **text.call)
    assert differs([tuned], [default])
    # Tuning starts from the proposal, and keeps the best mask.
    proposed = attribution.evaluate(text.inputs, **text.call)
    assert bool((attribution.last_terms_.total <= proposed.total + 1e-6).all())
    assert bool((attribution.last_terms_.total < proposed.total).any())


def test_an_explanation_by_a_fitted_masker_is_a_single_pass(method: Method, text: Case) -> None:
    counted, rows = _counting(text)
    attribution = method(counted, masker=KnownMasker())
    attribution.attribute(text.inputs, **text.call)
    # The baselines of a layer that only looks ids up need no pass of their own.
    assert rows == [text.n_examples]


def test_no_steps_need_a_fitted_masker(method: Method, text: Case) -> None:
    attribution = method(text)
    assert not attribution.is_fitted
    with pytest.raises(NotFittedError, match="n_steps=0 needs a fitted masker"):
        attribution.attribute(text.inputs, n_steps=0, **text.call)


def test_a_masker_that_is_not_fitted_proposes_nothing(method: Method, text: Case) -> None:
    masker = EmbeddingMasker(feature_shapes=[(7, 5)], n_classes=3)
    before = {k: v.clone() for k, v in masker.state_dict().items()}
    attribution = method(text, masker=masker)
    assert not attribution.is_fitted
    assert_same(attribution.attribute(text.inputs, n_steps=STEPS, **text.call), method.scores(text))
    # It is where fitting starts, and stays as it is.
    attribution.fit([{"inputs": text.inputs, **text.call}], epochs=1, learning_rate=0.1)
    assert attribution.is_fitted
    assert attribution.masker_ is not masker
    assert not masker.fitted
    for name, value in masker.state_dict().items():
        assert torch.equal(value, before[name])
        assert not torch.equal(attribution.masker_.state_dict()[name], value)


@pytest.mark.parametrize("n_steps", [-1, True, False, 2.0, "3"])
def test_a_wrong_number_of_steps_is_refused(method: Method, text: Case, n_steps: Any) -> None:
    attribution = method(text, masker=KnownMasker())
    with pytest.raises(InvalidInputError, match=r"^n_steps: expected an integer .* got"):
        attribution.attribute(text.inputs, n_steps=n_steps, **text.call)


def test_numpy_integers_count_as_integers(method: Method, text: Case) -> None:
    attribution = method(text)
    expected = attribution.attribute(text.inputs, n_steps=4, internal_batch_size=4, **text.call)
    got = attribution.attribute(
        text.inputs, n_steps=np.int64(4), internal_batch_size=np.int64(4), **text.call
    )
    assert_same(got, expected)


# --- What can be read afterwards ------------------------------------------------------------------


def _terms_by_hand(case: Case, masks: Tensor, i: int, chosen: int) -> dict[str, float]:
    """The objective's terms for one example of the ``text`` case, in plain arithmetic."""
    model: Any = case.forward
    alone = case.rows([i])
    embeddings = model.embedding(alone.inputs)
    removed = model.embedding(alone.baselines)
    keep = masks[i].reshape(1, -1, 1)
    same = (alone.inputs == alone.baselines).unsqueeze(-1)

    def probabilities(share: Tensor) -> list[float]:
        share = torch.where(same, 1.0, share)
        point = share * embeddings + (1 - share) * removed
        with torch.no_grad():
            return model.head(point, *alone.args).double().softmax(-1)[0].tolist()

    full = probabilities(torch.ones_like(keep))
    aim = [0.0] * len(full)
    aim[chosen] = 1.0
    if full.index(max(full)) == chosen:
        aim = full
    kept, complement = probabilities(keep), probabilities(1 - keep)
    own = [float(m) for m, s in zip(masks[i], same.flatten().tolist(), strict=True) if not s]
    return {
        "prediction": -sum(a * math.log(p) for a, p in zip(aim, kept, strict=True)),
        "inverse": -math.log(1 - complement[chosen] + 1e-6),
        "size": -sum(math.log(1 - m) for m in own) / len(own),
    }


@pytest.mark.parametrize("name", ["AMLAttribution", "LAAttribution"])
def test_last_terms_are_those_of_the_returned_masks(name: str, text: Case) -> None:
    method = METHODS[name]
    attribution = method(text)
    chosen = [0, 1, 2, 0]
    masks = attribution.attribute(text.inputs, n_steps=8, **{**text.call, "target": chosen})
    terms = attribution.last_terms_
    weights = {"prediction": 1.0, "inverse": 1.0, "size": method.objective.size_weight}
    for i in range(text.n_examples):
        expected = _terms_by_hand(text, masks, i, chosen[i])
        total = 0.0
        for part, values in terms.parts.items():
            # Single precision against double.
            assert float(values[i]) == pytest.approx(expected[part], rel=1e-4, abs=1e-5)
            total += weights[part] * expected[part]
        assert float(terms.total[i]) == pytest.approx(total, rel=1e-4, abs=1e-5)
    assert set(terms.parts) == {"prediction", "inverse", "size"} - (
        {"prediction"} if name == "LAAttribution" else set()
    )


def test_the_best_step_says_where_a_mask_was_found(method: Method, text: Case) -> None:
    # Where only the size counts, every step is better than the one before.
    nothing_else = {"inverse_weight": 0.0, "size_weight": 1.0}
    if method.n_passes == 2:
        nothing_else["prediction_weight"] = 0.0
    downhill = method(text, objective=replace(method.objective, **nothing_else))
    downhill.attribute(text.inputs, n_steps=5, **text.call)
    assert downhill.best_step_.dtype == torch.long
    assert downhill.best_step_.tolist() == [5] * text.n_examples


class _Near:
    """An objective of the user's own: to stay near the masks that the masker proposes."""

    uses_kept = False
    uses_complement = True

    def __init__(self, masks: Tensor) -> None:
        self.masks = masks

    def __call__(self, outcome: MaskedOutcome) -> Terms:
        # Just beside them, so that there is a way down; the model's answer counts for nothing.
        distance = (outcome.mask - self.masks - 1e-3).square()
        near = distance.masked_fill(~outcome.maskable, 0.0).sum(1)
        return Terms(near + 0.0 * outcome.complement.sum(1), {"near": near})


def test_a_mask_that_only_gets_worse_is_that_of_step_0(method: Method, text: Case) -> None:
    masker = KnownMasker()
    proposed = method(text, masker=masker).attribute(text.inputs, **text.call)
    masks = proposed.sum(-1) if method.at_layer else proposed
    # Adam's first step is as long as the learning rate: far past the minimum.
    attribution = method(text, masker=masker, objective=_Near(masks), learning_rate=3.0)
    got = attribution.attribute(text.inputs, n_steps=4, **text.call)
    assert attribution.best_step_.tolist() == [0] * text.n_examples
    assert_same(got, proposed)
    assert set(attribution.last_terms_.parts) == {"near"}


class _Recording:
    """A perturbation of the user's own: blending, written out, that remembers its masks."""

    name = "recording"

    def __init__(self) -> None:
        self.keeps: list[Tensor] = []

    def __call__(self, state: ForwardState, keep: tuple[Tensor, ...]) -> ForwardState:
        self.keeps.append(keep[0].detach())
        blended = tuple(
            k * f + (1 - k) * b
            for f, b, k in zip(state.features, state.baselines, keep, strict=True)
        )
        return replace(state, features=blended)


def test_tokens_that_are_not_maskable_are_kept_in_every_pass(method: Method, text: Case) -> None:
    perturbation = _Recording()
    attribution = method(text, perturbation=perturbation)
    got = attribution.attribute(text.inputs, n_steps=STEPS, **text.call)
    # The same strategy as the default one, in another order of operations.
    assert_same(got, method.scores(text), tolerance=BATCH_TOLERANCE)
    maskable = (text.inputs != text.baselines).repeat(method.n_passes, 1)
    # The proposal's masks are a call of their own, and its subsets another.
    masks, subsets, *steps = perturbation.keeps
    for proposal, n in ((masks, 16), (subsets, 18)):
        unmaskable = (text.inputs == text.baselines).repeat(n, 1)
        assert bool((proposal.squeeze(-1)[unmaskable] == 1).all())
    assert len(steps) == STEPS + 1
    for keep in steps:
        by_token = keep.squeeze(-1)
        assert bool((by_token[~maskable] == 1).all())
        assert bool((by_token[maskable] < 1).all())
        # What the first half keeps, the second leaves out.
        if method.n_passes == 2:
            kept, complement = by_token.chunk(2)
            assert_same(complement[maskable[:4]], 1 - kept[maskable[:4]])


def test_a_later_call_replaces_what_can_be_read(method: Method, text: Case) -> None:
    attribution = method(text)
    attribution.attribute(text.inputs, n_steps=2, **text.call)
    assert attribution.last_terms_.total.shape == (4,)
    one = text.rows([2])
    attribution.attribute(one.inputs, n_steps=2, **one.call)
    assert attribution.last_terms_.total.shape == attribution.best_step_.shape == (1,)


# --- How outputs are read -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "kind"),
    [
        ("text", "logits"),
        ("bert", "logits"),
        ("tagger", "logits"),
        ("conv_net", "probabilities"),
        ("log_probabilities", "log_probabilities"),
        ("scalar", "value"),
        ("relu_linear", "value"),
        ("embedding_model", "value"),
    ],
)
def test_what_auto_decided_can_be_read(method: Method, case: str, kind: str) -> None:
    built = CASES[case].build()
    attribution = method(built)
    assert attribution.output_ is None
    auto = attribution.attribute(built.inputs, n_steps=2, **built.call)
    assert attribution.output_ == kind
    named = method(built, output=kind)
    assert_same(named.attribute(built.inputs, n_steps=2, **built.call), auto)
    assert named.output_ == kind


def test_the_same_distribution_is_explained_alike(method: Method, text: Case) -> None:
    named = text
    expected = method(named).attribute(text.inputs, n_steps=STEPS, **text.call)
    for kind, link in (
        ("probabilities", lambda t: t.softmax(-1)),
        ("log_probabilities", lambda t: t.log_softmax(-1)),
        # Logits are the same up to a constant for each example.
        ("logits", lambda t: t + 7.0),
    ):
        forward = _linked(text.forward, link)
        attribution = method(replace(named, forward=forward))
        got = attribution.attribute(text.inputs, n_steps=STEPS, **text.call)
        assert attribution.output_ == kind
        assert_same(got, expected, tolerance=BATCH_TOLERANCE)


def test_a_probability_is_that_of_two_classes(method: Method, text: Case) -> None:
    # One probability p stands for the distribution (1 - p, p), whichever way it is written.
    def two(*args: Any) -> Tensor:
        p = text.forward(*args).softmax(-1)[:, 1]
        return torch.stack([1 - p, p], dim=1)

    expected = method(replace(text, forward=two)).attribute(
        text.inputs, n_steps=STEPS, **{**text.call, "target": 1}
    )
    call = {**text.call, "target": None}
    for kind, link in (
        ("probability", lambda t: t.softmax(-1)[:, 1]),
        ("log_probability", lambda t: t.log_softmax(-1)[:, 1]),
    ):
        forward = _linked(text.forward, link)
        attribution = method(replace(text, forward=forward), output=kind)
        got = attribution.attribute(text.inputs, n_steps=STEPS, **call)
        # A single probability is always the explained class: aim at it where it is predicted.
        predicted = text.outputs([text.inputs]).softmax(-1)[:, 1] > 0.5
        assert_same(got[predicted], expected[predicted], tolerance=BATCH_TOLERANCE)


def _linked(forward: Any, link: Any) -> Any:
    return lambda *args: link(forward(*args))


def test_a_value_may_be_scaled_and_shifted(method: Method) -> None:
    # What counts is the retained fraction.
    case = CASES["scalar"].build()
    expected = method.scores(case)
    for link in (lambda t: 100 * t + 3, lambda t: -t):
        got = method.scores(replace(case, forward=_linked(case.forward, link)))
        assert_same(got, expected, tolerance=BATCH_TOLERANCE)


# --- Randomness -----------------------------------------------------------------------------------


def _dropping() -> Case:
    case = CASES["sequence"].build()
    model: Any = case.forward
    dropout = nn.Dropout(0.5).train()

    def forward(embeddings: Tensor, attention: Tensor) -> Tensor:
        return model.head(dropout(model.project(embeddings)), attention)

    return replace(case, forward=forward)


def test_a_model_with_dropout_is_explained_repeatably(method: Method) -> None:
    case = _dropping()
    attribution = method(case)
    before = torch.get_rng_state()
    first = attribution.attribute(case.inputs, n_steps=STEPS, **case.call)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    again = attribution.attribute(case.inputs, n_steps=STEPS, **case.call)
    assert_same(again, first)
    other = method(case, seed=1).attribute(case.inputs, n_steps=STEPS, **case.call)
    assert differs(flat(other), flat(first))


def test_fitting_is_repeatable(method: Method) -> None:
    case = _dropping()
    batch = {"inputs": case.inputs, **case.call}
    proposals = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(proposals))
        attribution = method(case, seed=seed).fit([batch], epochs=2, learning_rate=0.01)
        proposals.append(flat(attribution.attribute(case.inputs, **case.call)))
    assert_same(proposals[1], proposals[0])
    assert differs(proposals[2], proposals[0])
    given = method(case, seed=0).fit([batch], epochs=2, learning_rate=0.01, seed=1)
    assert given.masker_ is not None
    for a, b in zip(given.masker_.parameters(), attribution.masker_.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.skipif(
    torch.cuda.is_initialized(), reason="a seed is used at once, not kept for later"
)
def test_the_seed_that_waits_for_cuda_is_left_alone(method: Method, text: Case) -> None:
    # Before CUDA is used, torch.manual_seed only notes the seed for it. Whoever calls it and later
    # moves to a GPU must find the seed that they gave, not ours.
    torch.manual_seed(123)
    pending = torch.cuda._lazy_seed_tracker
    before = [call[0] for call in pending.get_calls() if call]
    attribution = method(text).fit([{"inputs": text.inputs, **text.call}], epochs=1)
    attribution.attribute(text.inputs, n_steps=1, **text.call)
    assert [call[0] for call in pending.get_calls() if call] == before
    assert torch.initial_seed() == 123
