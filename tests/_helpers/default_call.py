"""Checks of the call without options, entered in the list of the shared checks.

What is promised: contributions that are signed, sum to the change in the output, are those of
Integrated Gradients for a linear function, and 0 for what has no influence; sixteen passes with a
gradient in one forward call, and those without in another; and masks of the same order where they
are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from captum.attr import IntegratedGradients, LayerIntegratedGradients
from torch import Tensor

from captum_aml.exceptions import InvalidInputError, NotFittedError
from captum_aml.objectives import MaskedOutcome, Terms
from tests._helpers import checks
from tests._helpers.cases import Case
from tests._helpers.checks import (
    Counted,
    Method,
    assert_ranked_alike,
    assert_same,
    check,
    differences,
    features_of,
    flat,
    has_channels,
    joined,
    named_embeddings,
    unmasked,
)

#: The passes for each example that have a gradient.
PASSES = 16
#: How many more have none: as many subsets, all that is there, and nothing.
BESIDES = 2


def by_token(method: Method, case: Case, scores: Sequence[Tensor]) -> list[Tensor]:
    """One score for each token: without the channels that it is spread over."""
    return [
        s.sum(-1) if has_channels(method, case, f) and s.dim() == f.dim() else s
        for s, f in zip(scores, features_of(method, case, case.tensors), strict=True)
    ]


def _linear(method: Method, case: Case) -> tuple[Case, list[Tensor]]:
    """A forward function that is linear in what is masked, and its weights: ``sum of w * x``."""
    generator = torch.Generator().manual_seed(8)
    weights = [
        torch.randn(f.shape[1:], generator=generator, dtype=torch.float64).to(f)
        for f in features_of(method, case, case.tensors)
    ]
    if not method.at_layer and not case.is_float:
        layers = case.embedding_layer or case.forward.get_input_embeddings()
    else:
        layers = case.layer if method.at_layer else None

    def forward(*args: Any) -> Tensor:
        seen: list[Tensor] = []
        if layers is None:
            seen.extend(args[: len(weights)])
        else:
            each = layers if isinstance(layers, tuple) else (layers,)
            # Registered after the explanation's own hooks, so that it reads what they put in.
            handles = [
                layer.register_forward_hook(
                    lambda _, __, output: seen.extend(t.clone() for t in flat(output))
                )
                for layer in each
            ]
            try:
                case.forward(*args)
            finally:
                for handle in handles:
                    handle.remove()
        return sum((w * x).flatten(1).sum(1) for w, x in zip(weights, seen, strict=True))

    return replace(named_embeddings(case), forward=forward, target=None), weights


@check(family="default")
def a_linear_functions_scores_are_those_of_integrated_gradients(method: Method, case: Case) -> None:
    linear, weights = _linear(method, case)
    got = by_token(method, linear, method.scores(linear))
    removed = replace(case, inputs=_as_inputs(case, case.baseline_tensors))
    by_hand = by_token(
        method,
        linear,
        [
            w * (x - b)
            for w, x, b in zip(
                weights,
                features_of(method, case, case.tensors),
                features_of(method, case, removed.tensors),
                strict=True,
            )
        ],
    )
    # Ids have the score that their embeddings have together.
    by_hand = [e.sum(-1) if e.dim() > g.dim() else e for e, g in zip(by_hand, got, strict=True)]
    for g, e in zip(got, by_hand, strict=True):
        # Sums of a few hundred products in single precision.
        torch.testing.assert_close(g, e, rtol=1e-5, atol=1e-6 * max(1.0, float(e.abs().max())))
    if method.at_layer:
        captum = LayerIntegratedGradients(linear.forward, case.layer)
    elif case.is_float:
        captum = IntegratedGradients(linear.forward)
    else:
        layers = linear.embedding_layer
        several = list(layers) if isinstance(layers, tuple) else layers
        captum = LayerIntegratedGradients(linear.forward, several)
    theirs = captum.attribute(linear.inputs, n_steps=5, **linear.call)
    for g, e in zip(got, flat(theirs), strict=True):
        e = e.sum(-1) if e.dim() > g.dim() else e
        torch.testing.assert_close(g, e, rtol=1e-5, atol=1e-5 * max(1.0, float(e.abs().max())))


def _as_inputs(case: Case, tensors: Sequence[Tensor]) -> Any:
    return tuple(tensors) if isinstance(case.inputs, tuple) else tensors[0]


@check(family="default")
def contributions_sum_to_the_change_in_the_output(method: Method, case: Case) -> None:
    targets = [case.target] if len(case.output_shape) > 1 else [case.target, None]
    for target in targets:
        change = differences(case, target)
        for size in (None, 3):
            got, delta = method(case).attribute(
                case.inputs,
                return_convergence_delta=True,
                internal_batch_size=size,
                **{**case.call, "target": target},
            )
            sums = joined(flat(got)).sum(1)
            assert bool(((sums - change).abs() <= 1e-4 * change.abs()).all())
            assert bool((delta.abs() <= 1e-4 * change.abs()).all())


def _found_something(scores: Sequence[Tensor]) -> Tensor:
    """Examples with a gradient in some pass, bool (N,): else all tokens share the change alike."""
    values = joined(scores)
    alike = (values == values.amax(1, keepdim=True)) | (values == 0)
    found = ~alike.all(dim=1)
    assert bool(found.any())
    return found


@check("core", family="default")
def what_has_no_influence_scores_0(method: Method, case: Case) -> None:
    if method.at_layer:
        features = features_of(method, case, case.tensors)
        removed = features_of(method, case, case.baseline_tensors)
        if all(f.shape[1] == 1 for f in features):
            return  # there is nothing beside it

        # The second position of the layer's output is wiped out behind it.
        def wiped(_: Any, __: Any, output: Any) -> Any:
            parts = []
            for part in flat(output):
                shown = torch.ones(part.shape[1], dtype=part.dtype)
                shown[1] = 0
                parts.append(part * shown.reshape(-1, *(1,) * (part.dim() - 2)))
            return parts[0] if isinstance(output, Tensor) else tuple(parts)

        def forward(*args: Any) -> Any:
            handle = case.layer.register_forward_hook(wiped)
            try:
                return case.forward(*args)
            finally:
                handle.remove()

        got = method.scores(replace(case, forward=forward))
        assert any(bool((x != b)[:, 1].any()) for x, b in zip(features, removed, strict=True))
        found = _found_something(got)
        for scores in got:
            assert bool((scores[found, 1] == 0).all())
        return
    # One input more, which is passed and not looked at.
    n = len(case.tensors)
    unused = torch.randn(case.n_examples, 4)

    def without(*args: Any) -> Any:
        return case.forward(*args[:n], *args[n + 1 :])

    longer = replace(
        named_embeddings(case),
        forward=without,
        inputs=(*case.tensors, unused),
        baselines=(*case.baseline_tensors, torch.zeros_like(unused)),
    )
    *scores, of_unused = method.scores(longer)
    assert bool((of_unused[_found_something([*scores, of_unused])] == 0).all())


@check(only="input", family="default")
def the_one_token_that_is_there_gets_everything(method: Method, case: Case) -> None:
    x, removed = case.tensors[0], case.baseline_tensors[0]
    # One id, one position of (N, L, D), or one element.
    sizes = x.shape[1:2] if not case.is_float or x.dim() == 3 else x.shape[1:]
    place = (slice(None), *(min(1, size - 1) for size in sizes))
    baselines = list(case.tensors)
    baselines[0] = x.clone()
    baselines[0][place] = removed[place]
    alone = replace(case, baselines=_as_inputs(case, baselines))
    change = differences(alone, alone.target)
    first, *others = by_token(method, case, method.scores(alone))
    torch.testing.assert_close(first[place].double(), change, rtol=1e-4, atol=1e-7)
    rest = first.clone()
    rest[place] = 0
    assert all(bool((part == 0).all()) for part in (rest, *others))


@check(family="default")
def the_mask_ranks_tokens_as_contributions_do(method: Method, case: Case) -> None:
    attribution = method(case, multiply_by_inputs=False)
    masks = by_token(method, case, flat(attribution.attribute(case.inputs, **case.call)))
    contributions = by_token(method, case, method.scores(case))
    here = joined([~same for same in unmasked(method, case)]).bool()
    mask, contribution = joined(masks), joined(contributions)
    for scores in (mask, contribution):
        assert bool((scores[~here] == 0).all())
    assert bool(((mask > 0) & (mask < 1))[here].all())
    # What has no influence keeps its 0, also where the change in the output turns the others.
    counts = here & (contribution != 0)
    for i in range(case.n_examples):
        assert_ranked_alike(mask[i : i + 1, counts[i]], contribution[i : i + 1, counts[i]])
    # Without tuning there is nothing of it to read.
    assert attribution.last_terms_ is None
    assert attribution.best_step_ is None


@check(family="default")
def all_masks_are_one_forward_call_and_all_subsets_another(method: Method, case: Case) -> None:
    n = case.n_examples
    counted = Counted(case.forward)
    attribution = method(replace(named_embeddings(case), forward=counted))
    # The first call tries out which removal the model takes, with an example alone.
    attribution.attribute(case.inputs, **case.call)
    for call, passes in (({}, PASSES), ({"n_steps": 6}, 6)):
        counted.reset()
        attribution.attribute(case.inputs, **case.call, **call)
        # Besides one pass each, without gradient: the inputs, the baselines, the layer's tensors
        # for the baselines, and the empty mask of a value.
        times = len(counted.rows_with_gradient)
        # Once, and again for the value itself where the objective's odds do not change.
        assert times == 1 or (times == 2 and method.n_passes == 1 and len(case.output_shape) > 0)
        assert counted.rows_with_gradient == [passes * n] * times
        subsets = (passes + BESIDES) * n
        assert counted.rows.count(subsets) == times
        others = [rows for rows in counted.rows if rows not in (passes * n, subsets)]
        assert others in ([n] * 2, [n] * 3, [n] * 4)
    # One row for each forward call, and as many passes; what the outputs are is looked up in all of
    # them before.
    counted.reset()
    attribution.attribute(case.inputs, internal_batch_size=1, **case.call, **call)
    assert set(counted.rows) == {1}
    assert passes * n <= len(counted.rows_with_gradient) <= times * passes * n
    assert len(counted.rows) <= n * (times * (2 * passes + BESIDES) + len(others) + 1)


@check("core", family="default")
def an_odd_number_of_steps_is_rounded_up(method: Method, case: Case) -> None:
    with pytest.warns(UserWarning, match=r"^n_steps: .* 6 rather than 5$") as caught:
        got = method.scores(case, n_steps=5)
    # It points to the call, in Method.scores.
    assert [w.filename for w in caught] == [checks.__file__]
    assert_same(got, method.scores(case, n_steps=6))


@check("core", family="default")
def no_steps_and_fewer_are_refused(method: Method, case: Case) -> None:
    with pytest.raises(NotFittedError, match="n_steps=0 needs a fitted masker"):
        method.scores(case, n_steps=0)
    with pytest.raises(InvalidInputError, match=r"^n_steps: expected an integer .* got -2"):
        method.scores(case, n_steps=-2)


class _NoLogOdds:
    """An objective of the user's own, which can be descended and has no log-odds."""

    uses_kept = True
    uses_complement = False

    def __call__(self, outcome: MaskedOutcome) -> Terms:
        assert outcome.kept is not None
        return Terms(-outcome.kept[:, 0] + outcome.mask.mean(dim=1), {})


@check("core", family="default")
def an_objective_without_log_odds_can_only_be_tuned(method: Method, case: Case) -> None:
    attribution = method(case, objective=_NoLogOdds())
    with pytest.raises(InvalidInputError, match=r"^objective: .*log_odds.* got _NoLogOdds.*tune="):
        attribution.attribute(case.inputs, **case.call)
    tuned = method(case, objective=_NoLogOdds(), tune="mask")
    tuned.attribute(case.inputs, n_steps=2, **case.call)
    assert tuned.last_terms_.total.shape == (case.n_examples,)


@check("core", family="default")
def what_was_decided_can_be_read(method: Method, case: Case) -> None:
    attribution = method(case)
    assert attribution.output_ is attribution.perturbation_ is None
    attribution.attribute(case.inputs, **case.call)
    # No model here takes a mask of its attention.
    assert attribution.perturbation_ == "blend"
    assert attribution.output_ in ("logits", "probabilities", "value")
    named = method(case, output=attribution.output_, perturbation="blend")
    assert_same(method.scores(case), flat(named.attribute(case.inputs, **case.call)))
