"""Groups of tokens: one score for each, worked out by hand or as by the method without groups."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from captum_aml import AMLAttribution, LAAttribution, methods
from captum_aml.exceptions import InvalidInputError
from captum_aml.masking.call import parse_call
from captum_aml.methods.adapter import number_groups
from captum_aml.methods.packages import MaskedText
from tests._helpers.methods import (
    IDS,
    LINEAR,
    LOGISTIC,
    MASK,
    REFERENCE,
    all_names,
    few,
    named,
    run,
    subject,
)
from tests._helpers.text_models import BagOfTokens, shapley_values

EXPLAINED = IDS != REFERENCE
# Groups apart and together, with numbers in no order. The special token and the padding have those
# of groups, which must not matter.
GROUPS = torch.tensor([[7, 7, -2, 7, 7, -2], [3, 9, 9, 3, 9, 1]])
SUMS = named(
    "integrated-gradients",
    "gradient-shap",
    "input-x-gradient",
    "deep-lift",
    "attention",
    "attention-rollout",
)


def tolerance(name: str) -> float:
    # The optimizer of a mask divides by the size of gradients, which lifts rounding errors.
    return 1e-4 if methods.spec(name).family == "learned" else 1e-6


def tokens_of_groups(row: int) -> list[list[int]]:
    """The positions of each group's tokens, in order of their first."""
    groups: dict[int, list[int]] = {}
    for place in EXPLAINED[row].nonzero().flatten().tolist():
        groups.setdefault(int(GROUPS[row, place]), []).append(place)
    return list(groups.values())


def probability_without(row: int, places: list[int], model: BagOfTokens = LOGISTIC) -> float:
    """The probability when tokens are replaced by the reference."""
    gone = IDS[row].clone()
    gone[places] = REFERENCE[row, places]
    with torch.no_grad():
        return float(model(gone[None], MASK[row : row + 1]).softmax(dim=-1)[0, 1])


@pytest.mark.parametrize("name", all_names())
class TestEveryMethod:
    def test_a_group_for_each_token_is_no_groups(self, name: str) -> None:
        expected = run(name, subject(name), n_steps=few(name), seed=5)
        for mask in (
            torch.arange(6).expand(2, 6),
            torch.tensor([[3, 5, 3, 1, 5, 1], [9, 8, 7, -6, 50, 4]], dtype=torch.int32),
        ):
            scores = run(name, subject(name), n_steps=few(name), seed=5, feature_mask=mask)
            assert torch.equal(scores, expected)

    def test_a_group_has_one_score_and_what_is_not_explained_none(self, name: str) -> None:
        scores = run(name, subject(name), n_steps=few(name), feature_mask=GROUPS)
        assert scores.shape == IDS.shape
        assert scores.dtype == torch.float32
        assert torch.all(scores[~EXPLAINED] == 0)
        for row in range(2):
            of_groups = [scores[row, places] for places in tokens_of_groups(row)]
            assert all(torch.all(values == values[0]) for values in of_groups)
            assert len({float(values[0]) for values in of_groups}) > 1
        entry = methods.spec(name)
        if not entry.signed:
            assert torch.all(scores >= 0)
            assert entry.relative or torch.all(scores <= 1)
        # Neither other numbers nor those of what is not explained change anything.
        renamed = torch.where(EXPLAINED, 100 - 3 * GROUPS, torch.arange(6) - 2)
        again = run(name, subject(name), n_steps=few(name), feature_mask=renamed)
        assert torch.equal(again, scores)

    def test_a_text_scores_the_same_alone_as_in_a_batch(self, name: str) -> None:
        together = run(name, subject(name), n_steps=few(name), feature_mask=GROUPS)
        alone = run(
            name,
            subject(name),
            n_steps=few(name),
            ids=IDS[:1, :4],
            reference=REFERENCE[:1, :4],
            mask=MASK[:1, :4],
            feature_mask=GROUPS[:1, :4],
        )
        assert torch.allclose(together[:1, :4], alone, atol=tolerance(name))

    def test_the_whole_text_as_one_group(self, name: str) -> None:
        scores = run(name, subject(name), n_steps=few(name), feature_mask=torch.zeros_like(IDS))
        assert torch.isfinite(scores).all()
        for row in range(2):
            assert len(scores[row, EXPLAINED[row]].unique()) == 1

    def test_nothing_to_explain_scores_zero(self, name: str) -> None:
        scores = run(name, subject(name), n_steps=few(name), reference=IDS, feature_mask=GROUPS)
        assert torch.all(scores == 0)

    def test_works_in_inference_mode(self, name: str) -> None:
        about = subject(name)
        expected = run(name, about, n_steps=few(name), feature_mask=GROUPS)
        with torch.inference_mode():
            given = [t.clone() for t in (IDS, REFERENCE, MASK, GROUPS)]
            ids, reference, mask, groups = given
            scores = run(
                name,
                about,
                n_steps=few(name),
                ids=ids,
                reference=reference,
                mask=mask,
                feature_mask=groups,
            )
        assert torch.allclose(scores, expected, atol=tolerance(name))
        assert torch.equal(groups, GROUPS)

    @pytest.mark.parametrize(
        "mask",
        [GROUPS[:1], GROUPS[0], GROUPS[:, :5], GROUPS.float(), GROUPS > 3, GROUPS.tolist()],
        ids=["one row", "no rows", "too short", "floats", "bools", "a list"],
    )
    def test_a_mask_of_another_form_is_refused(self, name: str, mask: Tensor) -> None:
        with pytest.raises(InvalidInputError, match=r"^feature_mask: expected .*, got "):
            run(name, subject(name), n_steps=few(name), feature_mask=mask)


@pytest.mark.parametrize("name", SUMS)
def test_groups_have_the_sums_of_their_tokens(name: str) -> None:
    by_token = run(name, subject(name), n_steps=few(name))
    scores = run(name, subject(name), n_steps=few(name), feature_mask=GROUPS)
    for row in range(2):
        for places in tokens_of_groups(row):
            expected = math.fsum(by_token[row, places].tolist())
            assert scores[row, places].tolist() == pytest.approx([expected] * len(places), abs=1e-6)


@pytest.mark.parametrize("name", ["saliency", "smooth-grad"])
def test_groups_have_the_norm_over_all_their_channels(name: str) -> None:
    by_token = run(name, subject(name), n_steps=few(name))
    scores = run(name, subject(name), n_steps=few(name), feature_mask=GROUPS)
    for row in range(2):
        for places in tokens_of_groups(row):
            expected = math.hypot(*by_token[row, places].tolist())
            assert scores[row, places].tolist() == pytest.approx([expected] * len(places), rel=1e-5)
    assert scores.max() > by_token.max()


def test_occlusion_replaces_a_group_together() -> None:
    scores = run("occlusion", LOGISTIC, feature_mask=GROUPS)
    for row in range(2):
        for places in tokens_of_groups(row):
            expected = probability_without(row, []) - probability_without(row, places)
            assert scores[row, places].tolist() == pytest.approx([expected] * len(places), abs=1e-6)


@pytest.mark.parametrize(("name", "n_steps"), [("shapley-sampling", 600), ("kernel-shap", 1500)])
def test_shapley_values_of_groups(name: str, n_steps: int) -> None:
    # To the model, the sum of a group's weights is what one token's weight is.
    weights = [9.0, -5.0, 0.0, 2.0, -1.0, 1.5, 0.5]
    model = BagOfTokens(weights, offset=4.8, link="logistic")
    scores = run(name, model, n_steps=n_steps, feature_mask=GROUPS)
    for row in range(2):
        groups = tokens_of_groups(row)
        sums = [sum(weights[i] for i in IDS[row, places].tolist()) for places in groups]
        exact = shapley_values(model, [-5.0, *sums], [-5.0, *[0.0] * len(sums)])[1:]
        found = [float(scores[row, places[0]]) for places in groups]
        # As without groups: the sampled means are within 0.02, their sum is exact.
        assert found == pytest.approx(exact, abs=0.02)
        assert sum(found) == pytest.approx(sum(exact), abs=1e-4)


@pytest.mark.parametrize(
    "name",
    named(
        "aml",
        "la",
        "integrated-gradients",
        "gradient-shap",
        "input-x-gradient",
        "deep-lift",
        "occlusion",
        "lime",
        "kernel-shap",
        "shapley-sampling",
        "lime-text",
    ),
)
@pytest.mark.parametrize("row", [0, 1])
def test_a_group_is_to_an_additive_model_what_one_token_is(name: str, row: int) -> None:
    # Another text has one token for each group, whose weight is the sum of the group's.
    weights = [9.0, -5.0, 0.0, 2.0, -1.0, 1.5, 0.5]
    model = BagOfTokens(weights, offset=4.8, link="logistic")
    scores = run(name, model, n_steps=few(name), seed=3, feature_mask=GROUPS)[row]
    groups = tokens_of_groups(row)
    sums = [sum(weights[i] for i in IDS[row, places].tolist()) for places in groups]
    short = torch.tensor([[1, *range(3, 3 + len(sums))]])
    expected = run(
        name,
        BagOfTokens([9.0, -5.0, 0.0, *sums], offset=4.8, link="logistic"),
        ids=short,
        reference=torch.where(short == 1, short, 2),
        mask=torch.ones_like(short),
        n_steps=few(name),
        seed=3,
    )[0, 1:]
    found = [float(scores[places[0]]) for places in groups]
    assert found == pytest.approx(expected.tolist(), abs=tolerance(name))
    assert len(set(found)) > 1


@pytest.mark.parametrize("name", named("shap"))
def test_two_groups_share_as_shapley_says(name: str) -> None:
    weights = [9.0, -5.0, 0.0, 2.0, -1.0, 1.5, 0.5]
    model = BagOfTokens(weights, offset=4.8, link="logistic")
    scores = run(name, model, feature_mask=GROUPS)
    # The first text is [1 3 4 5], where 3 and 5 are one group.
    exact = shapley_values(model, [-5.0, 3.5, -1.0], [-5.0, 0.0, 0.0])[1:]
    assert scores[0].tolist() == pytest.approx([0, exact[0], exact[1], exact[0], 0, 0], abs=1e-6)


@pytest.mark.parametrize(
    "name", named("occlusion", "kernel-shap", "shapley-sampling", "shap", "integrated-gradients")
)
def test_one_group_gets_the_whole_difference(name: str) -> None:
    scores = run(name, LOGISTIC, feature_mask=torch.zeros_like(IDS))
    for row in range(2):
        places = EXPLAINED[row].nonzero().flatten().tolist()
        expected = probability_without(row, []) - probability_without(row, places)
        assert scores[row, places].tolist() == pytest.approx([expected] * len(places), abs=1e-5)


@pytest.mark.parametrize(("name", "attribution"), [("aml", AMLAttribution), ("la", LAAttribution)])
def test_learned_masks_use_groups_of_their_own(name: str, attribution: type) -> None:
    scores = run(name, LOGISTIC, n_steps=4, feature_mask=GROUPS)
    # What is not explained has a group of its own. The order of groups decides their masks.
    apart = torch.where(EXPLAINED, number_groups(EXPLAINED, GROUPS), 1000)
    expected = attribution(LOGISTIC, embedding_layer=LOGISTIC.embedding, output="logits").attribute(
        IDS,
        baselines=REFERENCE,
        target=1,
        additional_forward_args=(MASK,),
        feature_mask=apart,
        n_steps=4,
    )
    # Each of a group's tokens has the group's contribution, there its share of it.
    whole = expected * (apart[:, :, None] == apart[:, None]).sum(dim=-1)
    assert torch.allclose(scores, whole, atol=1e-6)


@pytest.mark.parametrize("name", ["aml", "la"])
def test_the_deciding_group_comes_first(name: str) -> None:
    # Id 3 alone decides. Its groups in the second text: both occurrences, the second with id 6.
    model = BagOfTokens([0.0, 0.0, 0.0, 8.0, 0.1, -0.1, 0.0], offset=-4.0, link="logistic")
    groups = torch.tensor([[0, 1, 2, 2, 0, 0], [0, 1, 2, 2, 2, 3]])
    scores = run(name, model, feature_mask=groups)
    decides = torch.tensor([[0, 1, 0, 0, 0, 0], [0, 0, 1, 1, 1, 0]], dtype=torch.bool)
    assert scores[decides].min() > scores[EXPLAINED & ~decides].max() + 0.2


def test_random_draws_once_for_a_group() -> None:
    by_token = run("random", LINEAR)
    scores = run("random", LINEAR, feature_mask=GROUPS)
    for row in range(2):
        drawn = by_token[row, EXPLAINED[row]].tolist()
        for number, places in enumerate(tokens_of_groups(row)):
            assert scores[row, places].tolist() == [drawn[number]] * len(places)


@pytest.mark.parametrize("name", named("occlusion", "lime", "kernel-shap", "shap", "lime-text"))
def test_a_long_text_in_few_groups_takes_few_passes(name: str) -> None:
    # Six groups of a thousand tokens: what is asked of the model is what six tokens would ask.
    n_rows = 0

    def logits(ids: Tensor) -> Tensor:
        nonlocal n_rows
        n_rows += len(ids)
        return LOGISTIC(ids, torch.ones_like(ids))

    ids = torch.full((1, 6000), 3)
    groups = torch.arange(6).repeat_interleave(1000)[None]
    method = methods.create(name, logits, LOGISTIC.embedding, n_steps=few(name))
    scores = method(ids, torch.full_like(ids, 2), target=1, feature_mask=groups)
    assert len(scores.unique()) <= 6
    # At most two passes for each subset of the groups: shap asks for some twice.
    assert n_rows <= 2 * 2**6


def test_pieces_of_words_stand_together() -> None:
    groups = torch.tensor([[-1, 0, 1, 0, -1, 2]])
    call = parse_call(torch.tensor([[1, 5, 6, 7, 1, 8]]), 1, 0, feature_mask=groups)
    text = MaskedText(lambda ids: ids, call, 8)
    assert text.n_words == 3
    assert text.pieces(lambda ids: ids) == ["5 7 ", "6 ", "8 "]


class TestNumbers:
    def test_in_order_of_appearance(self) -> None:
        maskable = torch.tensor([[False, True, True, True, True, False, True]])
        mask = torch.tensor([[4, 9, 4, 9, -3, 9, 4]])
        assert number_groups(maskable, mask).tolist() == [[-1, 0, 1, 0, 2, -1, 1]]
        assert number_groups(maskable, None).tolist() == [[-1, 0, 1, 2, 3, -1, 4]]

    def test_against_a_loop_over_long_texts(self) -> None:
        generator = torch.Generator().manual_seed(0)
        maskable = torch.rand(2, 5000, generator=generator) < 0.8
        mask = torch.randint(-2000, 2000, (2, 5000), generator=generator)
        found = number_groups(maskable, mask)
        for row in range(2):
            count, seen = itertools.count(), {}
            for value, is_maskable, number in zip(
                mask[row].tolist(), maskable[row].tolist(), found[row].tolist(), strict=True
            ):
                if is_maskable and value not in seen:
                    seen[value] = next(count)
                assert number == (seen[value] if is_maskable else -1)

    def test_nothing_at_all(self) -> None:
        for shape in ((0, 4), (3, 0), (0, 0)):
            maskable = torch.zeros(shape, dtype=torch.bool)
            assert number_groups(maskable, maskable.long()).shape == shape
