"""Tokens, mask units and scores, against loops over single elements."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from captum_aml.exceptions import InvalidInputError
from captum_aml.masking.tokens import TokenLayout


@dataclass
class Case:
    """A layout with everything it was made of: an (N, L, D) tensor and an (N, F) tensor."""

    layout: TokenLayout
    features: tuple[Tensor, Tensor]
    maskable: tuple[Tensor, Tensor]
    groups: tuple[Tensor, Tensor] | None


@st.composite
def cases(draw: st.DrawFn, *, grouped: bool) -> Case:
    seed = draw(st.integers(0, 10_000))
    n, length, channels, fields = (draw(st.integers(1, 3)) for _ in range(4))
    g = torch.Generator().manual_seed(seed)
    features = (torch.rand(n, length, channels, generator=g), torch.rand(n, fields, generator=g))
    maskable = (
        torch.rand(n, length, channels, generator=g) >= 0.5,
        torch.rand(n, fields, generator=g) >= 0.4,
    )
    groups = None
    if grouped:
        rows = draw(st.sampled_from([1, n]))
        # Any integers may be ids, and both tensors may hold the same.
        groups = (
            torch.randint(-2, 3, (rows, length), generator=g) * 7,
            torch.randint(-2, 3, (rows, fields), generator=g) * 7,
        )
    layout = TokenLayout.build(features, maskable, groups, token_dims=(2, 2))
    return Case(layout, features, maskable, groups)


def token_is_maskable(case: Case, which: int, i: int, j: int) -> bool:
    """A token is maskable where one of its elements is."""
    return bool(case.maskable[which][i, j].any())


def members(case: Case, i: int) -> dict[int, list[tuple[int, int]]]:
    """The maskable tokens (tensor, place) of each group id of example i."""
    assert case.groups is not None
    found: dict[int, list[tuple[int, int]]] = {}
    for which, groups in enumerate(case.groups):
        row = groups[min(i, groups.shape[0] - 1)]
        for j, group in enumerate(row.tolist()):
            if token_is_maskable(case, which, i, j):
                found.setdefault(group, []).append((which, j))
    return found


@given(cases(grouped=False))
def test_every_token_is_its_own_unit(case: Case) -> None:
    n, length, channels = case.features[0].shape
    fields = case.features[1].shape[1]
    mask = torch.rand(n, length + fields)
    words, values = case.layout.keep(mask)
    word_scores, value_scores = case.layout.scores(mask, (True, True))
    (word_totals, _) = case.layout.scores(mask, (False, False))
    for i in range(n):
        for j in range(length):
            maskable = token_is_maskable(case, 0, i, j)
            m = mask[i, j].item()
            assert bool(case.layout.maskable_units[i, j]) is maskable
            assert words[i, j, 0].item() == (m if maskable else 1.0)
            assert word_totals[i, j].item() == (m if maskable else 0.0)
            each = m / channels if maskable else 0.0
            assert word_scores[i, j].tolist() == pytest.approx([each] * channels, rel=1e-6)
        for j in range(fields):
            maskable = token_is_maskable(case, 1, i, j)
            m = mask[i, length + j].item()
            assert values[i, j].item() == (m if maskable else 1.0)
            assert value_scores[i, j].item() == (m if maskable else 0.0)


@given(cases(grouped=True))
def test_a_group_has_one_value_and_its_members_share_it(case: Case) -> None:
    assert case.groups is not None
    n = case.features[0].shape[0]
    logits = [torch.rand(f.shape[:2], dtype=torch.float64) for f in case.features]
    units = case.layout.pool(logits)
    keeps = case.layout.keep(units)
    scores = case.layout.scores(units, (False, False))
    for i in range(n):
        groups = members(case, i)
        assert int(case.layout.maskable_units[i].sum()) == len(groups)
        for which, ids in enumerate(case.groups):
            for j, group in enumerate(ids[min(i, ids.shape[0] - 1)].tolist()):
                own = [logits[w][i, k].item() for w, k in groups.get(group, [])]
                # A unit's logit is the mean over its maskable tokens.
                mean = sum(own) / len(own) if own else 0.0
                keep = keeps[which][i, j].item()
                maskable = token_is_maskable(case, which, i, j)
                assert keep == pytest.approx(mean if maskable else 1.0, abs=1e-12)
                if maskable or not own:
                    assert scores[which][i, j].item() == pytest.approx(mean, abs=1e-12)


def test_pooling_without_groups_takes_each_tokens_own_logit() -> None:
    maskable = torch.tensor([[True, False, True]])
    layout = TokenLayout.build([torch.rand(1, 3, 2)], [maskable], None, token_dims=[2])
    assert layout.pool([torch.tensor([[1.0, 2.0, 3.0]])]).tolist() == [[1.0, 0.0, 3.0]]


def test_a_group_across_two_tensors_pools_by_hand() -> None:
    features = [torch.rand(1, 2, 3), torch.rand(1, 2)]
    maskable = [torch.ones(1, 2, dtype=torch.bool), torch.tensor([[True, False]])]
    groups = (torch.tensor([[5, 9]]), torch.tensor([[9, 5]]))
    layout = TokenLayout.build(features, maskable, groups, token_dims=[2, 2])
    units = layout.pool([torch.tensor([[1.0, 2.0]]), torch.tensor([[4.0, 100.0]])])
    assert units.tolist() == [[1.0, 3.0]]  # group 5: 1, its other is not maskable; 9: (2 + 4)/2
    assert [k.flatten().tolist() for k in layout.keep(units)] == [[1.0, 3.0], [3.0, 1.0]]


def test_examples_with_other_groups_do_not_disturb_each_other() -> None:
    feature = torch.rand(2, 3, 2)
    maskable = torch.ones(2, 3, dtype=torch.bool)
    groups = torch.tensor([[0, 0, 1], [5, 6, 6]])
    logits = torch.tensor([[1.0, 3.0, 7.0], [2.0, 4.0, 8.0]])
    together = TokenLayout.build([feature], [maskable], (groups,), token_dims=[2])
    assert together.maskable_units.sum(dim=1).tolist() == [2, 2]
    for i in range(2):
        alone = TokenLayout.build(
            [feature[i : i + 1]], [maskable[i : i + 1]], (groups[i : i + 1],), token_dims=[2]
        )
        (one,) = alone.scores(alone.pool([logits[i : i + 1]]), [True])
        (all_,) = together.scores(together.pool([logits]), [True])
        assert torch.equal(one[0], all_[i])
    (scores,) = together.scores(together.pool([logits]), [False])
    assert scores.tolist() == [[2.0, 2.0, 7.0], [2.0, 6.0, 6.0]]


def test_a_mask_by_element_groups_below_tokens() -> None:
    feature = torch.rand(1, 2, 3)
    maskable = torch.tensor([[[False, True, True], [True, True, True]]])
    groups = torch.tensor([[[0, 0, 1], [1, 2, 2]]])
    layout = TokenLayout.build([feature], [maskable], (groups,), token_dims=[2])
    # Elements of a token share its logit: 1 for the first, 3 for the second.
    units = layout.pool([torch.tensor([[1.0, 3.0]])])
    assert units.tolist() == [[1.0, 2.0, 3.0]]
    (keep,) = layout.keep(units)
    assert keep.tolist() == [[[1.0, 1.0, 2.0], [2.0, 3.0, 3.0]]]
    (scores,) = layout.scores(units, [True])
    assert scores[0, 1].tolist() == [2.0, 3.0, 3.0]


@pytest.mark.parametrize("shape", [(2, 3), (1, 3), (1, 1), (2, 1)])
def test_a_mask_by_token_may_have_ones_for_any_size(shape: tuple[int, ...]) -> None:
    ids = torch.arange(shape[0] * shape[1]).reshape(shape)
    layout = TokenLayout.build(
        [torch.rand(2, 3, 4)], [torch.ones(2, 3, dtype=torch.bool)], (ids,), token_dims=[2]
    )
    (scores,) = layout.scores(torch.arange(layout.n_units * 2.0).reshape(2, -1), [False])
    expanded = ids.expand(2, 3)
    for i in range(2):
        expected = [float(i * layout.n_units + g) for g in expanded[i].tolist()]
        assert scores[i].tolist() == expected


@pytest.mark.parametrize(
    ("mask", "fragments"),
    [
        (torch.zeros(2, 4, dtype=torch.long), ("(2, 3, 4)", "by token, (2, 3)", "got (2, 4)")),
        (torch.zeros(3, 3, dtype=torch.long), ("(2, 3, 4)", "by token, (2, 3)", "got (3, 3)")),
        (torch.zeros(1, 2, 3, 4, dtype=torch.long), ("(2, 3, 4)", "got (1, 2, 3, 4)")),
    ],
)
def test_a_mask_that_fits_neither_is_an_error(mask: Tensor, fragments: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInputError, match=r"^feature_mask: ") as caught:
        TokenLayout.build(
            [torch.rand(2, 3, 4)],
            [torch.ones(2, 3, 4, dtype=torch.bool)],
            (mask,),
            token_dims=[2],
        )
    assert all(f in str(caught.value) for f in fragments)


def test_ids_cannot_be_grouped_below_the_id() -> None:
    # The attribution of ids has one score per id; their embeddings' channels are not the caller's.
    with pytest.raises(InvalidInputError, match=r"^feature_mask: .*\(2, 3\).*got \(2, 3, 4\)"):
        TokenLayout.build(
            [torch.rand(2, 3, 4)],
            [torch.ones(2, 3, dtype=torch.bool)],
            (torch.arange(24).reshape(2, 3, 4),),
            token_dims=[2],
        )


def test_the_number_of_masks_is_checked() -> None:
    with pytest.raises(InvalidInputError, match=r"^feature_mask: .*each of the 1 .*got 2"):
        TokenLayout.build(
            [torch.rand(2, 3)],
            [torch.ones(2, 3, dtype=torch.bool)],
            (torch.zeros(2, 3, dtype=torch.long),) * 2,
            token_dims=[2],
        )


def test_examples_without_maskable_units_score_zero_and_keep_everything() -> None:
    feature = torch.rand(1, 2, 3)
    maskable = torch.zeros(1, 2, dtype=torch.bool)
    for groups in (None, (torch.tensor([[0, 1]]),)):
        layout = TokenLayout.build([feature], [maskable], groups, token_dims=[2])
        assert not layout.maskable_units.any()
        mask = torch.full((1, 2), 0.7)
        assert layout.keep(mask)[0].flatten().tolist() == [1.0, 1.0]
        assert layout.scores(mask, [True])[0].unique().tolist() == [0.0]
