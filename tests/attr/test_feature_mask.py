"""Groups of features, worked out by hand: superpixels, words of several ids, groups by example."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from captum.attr import NoiseTunnel
from torch import Tensor

from captum_aml.exceptions import InvalidInputError
from tests._helpers.cases import CASES, Case
from tests._helpers.checks import (
    BATCH_TOLERANCE,
    DEFAULT_CALLS,
    METHODS,
    Method,
    assert_same,
    differs,
    joined,
)

WAYS = {**METHODS, **{f"{name} default": m for name, m in DEFAULT_CALLS.items()}}
INPUT_METHODS = {name: m for name, m in WAYS.items() if not m.at_layer}
LAYER_METHODS = {name: m for name, m in WAYS.items() if m.at_layer}


@pytest.fixture(params=INPUT_METHODS.values(), ids=INPUT_METHODS.keys())
def method(request: pytest.FixtureRequest) -> Method:
    return request.param


@pytest.fixture(params=LAYER_METHODS.values(), ids=LAYER_METHODS.keys())
def layer_method(request: pytest.FixtureRequest) -> Method:
    return request.param


def _images(n: int) -> Case:
    case = CASES["images"].build()
    generator = torch.Generator().manual_seed(4)
    return replace(case, inputs=torch.rand(n, 3, 8, 8, generator=generator))


#: Sixteen superpixels of 2 by 2 pixels, (8, 8).
SUPERPIXELS = (torch.arange(8) // 2).unsqueeze(1) * 4 + torch.arange(8) // 2


def test_superpixels_have_one_score(method: Method) -> None:
    case = _images(3)
    (scores,) = method.scores(case, feature_mask=SUPERPIXELS)
    assert scores.shape == (3, 3, 8, 8)
    by_pixel = scores.reshape(3, 3, 4, 2, 4, 2)
    one_of_each = by_pixel[:, :1, :, :1, :, :1]
    assert_same(scores, one_of_each.expand_as(by_pixel).reshape(3, 3, 8, 8))
    assert len(set(one_of_each[0].flatten().tolist())) == 16
    # The same mask in every shape that fits, by Captum's rule.
    for shape in ((1, 8, 8), (1, 1, 8, 8), (1, 3, 8, 8), (3, 3, 8, 8)):
        mask = SUPERPIXELS.expand(shape)
        assert_same(method.scores(case, feature_mask=mask), scores)
        assert_same(method.scores(case, feature_mask=(mask,)), scores)
        assert_same(method.scores(case, feature_mask=mask.int() - 5), scores)


@pytest.mark.parametrize("n", [1, 3, 8])
def test_a_mask_without_examples_is_shared_by_all(method: Method, n: int) -> None:
    # With eight examples of 8 by 8 pixels, rows of the mask must not be taken for examples.
    case = _images(n)
    expected = method.scores(case, feature_mask=SUPERPIXELS.expand(n, 3, 8, 8))
    for size in (None, 2, 6):
        got = method.scores(case, feature_mask=SUPERPIXELS, internal_batch_size=size)
        assert_same(got, expected, tolerance=BATCH_TOLERANCE)


def test_channels_as_features(method: Method) -> None:
    case = _images(3)
    mask = torch.arange(3).reshape(3, 1, 1)
    (scores,) = method.scores(case, feature_mask=mask)
    assert_same(scores, scores[:, :, :1, :1].expand_as(scores))
    assert len(set(scores[0, :, 0, 0].tolist())) == 3


def test_each_example_may_have_groups_of_its_own(method: Method) -> None:
    case = CASES["text"].build()
    masks = torch.tensor(
        [
            [0, 1, 1, 2, 2, 2, 3],
            [9, 9, 9, 9, 9, 9, 9],
            [4, 3, 2, 1, 0, -1, -2],
            [0, 1, 0, 1, 0, 1, 0],
        ]
    )
    (together,) = method.scores(case, feature_mask=masks)
    for i in range(4):
        (alone,) = method.scores(case.rows([i]), feature_mask=masks[i : i + 1])
        assert_same(together[i : i + 1], alone, tolerance=BATCH_TOLERANCE)
    # A number that two examples use does not tie them together.
    (renamed,) = method.scores(case, feature_mask=masks + 100 * torch.arange(4).unsqueeze(1))
    assert_same(renamed, together, tolerance=BATCH_TOLERANCE)
    (parts,) = method.scores(case, feature_mask=masks, internal_batch_size=2)
    assert_same(parts, together, tolerance=BATCH_TOLERANCE)


def test_a_group_of_nothing_that_is_maskable_scores_0(method: Method) -> None:
    case = CASES["text"].build()
    # The first id and the padding equal their baselines.
    maskable = case.inputs != case.baselines
    assert bool((~maskable).any(1).all())
    mask = torch.where(maskable, torch.arange(7) % 2, 7)
    (scores,) = method.scores(case, feature_mask=mask)
    assert bool((scores[~maskable] == 0).all())
    assert bool((scores[maskable] != 0).all())


def test_words_of_several_ids(method: Method) -> None:
    # Two ids of one word have one mask value: the same as masking them in one longer embedding.
    case = CASES["text"].build()
    model = case.forward
    pairs = torch.tensor([[0, 1, 1, 2, 2, 3, 3]])
    (scores,) = method.scores(case, feature_mask=pairs)
    assert_same(scores[:, 1::2], scores[:, 2::2])

    def forward(words: Tensor, attention: Tensor) -> Tensor:
        # (N, 3, 10), a word in each row, behind the first id, which is not maskable.
        first = model.embedding(case.inputs[:, :1])
        first = torch.cat([first] * (len(words) // len(first)))
        embeddings = torch.cat([first, words.reshape(len(words), 6, 5)], dim=1)
        return model.head(embeddings, attention)

    with torch.no_grad():
        words, removed = (
            model.embedding(ids[:, 1:]).reshape(4, 3, 10) for ids in (case.inputs, case.baselines)
        )
    # Padding inside a word is equal on both sides, and is blended with itself.
    as_words = replace(case, forward=forward, inputs=words, baselines=removed)
    (by_word,) = method.scores(as_words)
    # A mask value is that of both ids, a contribution is shared by them.
    shared = 1 if method.family == "mask" else 2
    assert_same(shared * scores[:, 1::2], by_word.sum(-1), tolerance=BATCH_TOLERANCE)


def test_noise_tunnel_with_a_feature_mask(method: Method) -> None:
    case = _images(2)
    (expected,) = method.scores(case, feature_mask=SUPERPIXELS.reshape(1, 1, 8, 8))
    for mask in (SUPERPIXELS.reshape(1, 1, 8, 8), SUPERPIXELS.expand(2, 3, 8, 8)):
        got = NoiseTunnel(method(case)).attribute(
            case.inputs, nt_samples=2, stdevs=0.0, feature_mask=mask, **method.steps, **case.call
        )
        assert_same(got, expected, tolerance=BATCH_TOLERANCE)


def test_positions_of_a_layer(layer_method: Method) -> None:
    case = CASES["sequence"].build()
    positions = (torch.arange(6) // 2).unsqueeze(0)
    (scores,) = layer_method.scores(case, feature_mask=positions)
    by_token = scores.sum(-1)
    assert_same(by_token[:, ::2], by_token[:, 1::2])
    (alone,) = layer_method.scores(case, feature_mask=torch.arange(6).unsqueeze(0))
    assert_same(alone, layer_method.scores(case), tolerance=BATCH_TOLERANCE)
    assert differs([alone], [scores])


def test_groups_across_the_tensors_of_a_layer(layer_method: Method) -> None:
    case = CASES["tuple_layer"].build()
    mask = (torch.tensor([[0, 0, 1, 2]]), torch.tensor([[2, 1, 1, 0]]))
    first, second = layer_method.scores(case, feature_mask=mask)
    assert_same(first[:, 0], first[:, 1])
    assert_same(first[:, 0], second[:, 3])
    assert_same(first[:, 2], second[:, 1])
    assert_same(first[:, 2], second[:, 2])
    assert_same(first[:, 3], second[:, 0])


@pytest.mark.parametrize(
    "shape", [(6,), (2, 7), (4, 6), (4, 7, 5), (1, 1, 5), (4, 7, 1, 1)], ids=str
)
def test_a_mask_that_does_not_fit_the_ids_is_refused(
    method: Method, shape: tuple[int, ...]
) -> None:
    # One score per id: there is nothing below an id that could be grouped.
    case = CASES["text"].build()
    mask = torch.arange(torch.Size(shape).numel()).reshape(shape)
    with pytest.raises(InvalidInputError, match=r"^feature_mask: expected .*\(4, 7\).* got"):
        method.scores(case, feature_mask=mask)


def test_the_mask_of_a_layer_is_of_the_layers_shape(layer_method: Method) -> None:
    # Images (N, 1, 10, 10) as inputs, and a layer (N, 8).
    case = CASES["conv_net"].build()
    model = case.forward
    at_layer = replace(case, layer=model.fc1)
    groups = torch.arange(8) // 3
    expected = layer_method.scores(at_layer, feature_mask=groups.expand(4, 8))
    (scores,) = expected
    assert_same(scores[:, :1].expand(4, 3), scores[:, :3])
    assert_same(scores[:, 3:4].expand(4, 3), scores[:, 3:6])
    for mask in (groups, groups.unsqueeze(0), groups.expand(4, 8)):
        for size in (None, 2):
            got = layer_method.scores(at_layer, feature_mask=mask, internal_batch_size=size)
            assert_same(got, expected, tolerance=BATCH_TOLERANCE)


def test_elements_of_a_layer_are_shared_by_as_many_examples(layer_method: Method) -> None:
    # Four ids of five channels in four examples: rows of the mask must not be taken for examples.
    case = CASES["text"].build()
    case = replace(
        case,
        inputs=case.inputs[:, :4],
        baselines=case.baselines[:, :4],
        args=(case.args[0][:, :4],),
    )
    groups = (torch.arange(20) // 7).reshape(4, 5)
    expected = layer_method.scores(case, feature_mask=groups.expand(4, 4, 5))
    for mask in (groups, groups.unsqueeze(0)):
        for size in (None, 2):
            got = layer_method.scores(case, feature_mask=mask, internal_batch_size=size)
            assert_same(got, expected, tolerance=BATCH_TOLERANCE)


@pytest.mark.parametrize("name", DEFAULT_CALLS)
def test_contributions_of_groups_sum_to_the_change_in_the_output(name: str) -> None:
    method = DEFAULT_CALLS[name]
    weights = torch.tensor([3.0, -1.0, 0.5, 2.0, 0.0])
    identity = torch.nn.Identity()
    x = torch.tensor([[1.0, 2.0, -1.0, 0.5, 1.0], [0.0, 1.0, 1.0, -1.0, 2.0]])
    case = Case(lambda t: identity(t) @ weights, x, (), layer=identity, baselines=0.0)
    groups = torch.tensor([[7, 7, 4, 4, 9]])
    (scores,) = method.scores(case, feature_mask=groups)
    # What a group adds is shared by all of its elements, the one that equals its baseline too.
    added = x * weights
    expected = torch.stack(
        [
            added[:, :2].mean(1),
            added[:, :2].mean(1),
            added[:, 2:4].mean(1),
            added[:, 2:4].mean(1),
            added[:, 4],
        ],
        dim=1,
    )
    torch.testing.assert_close(scores, expected, rtol=1e-6, atol=1e-6)
    change = x @ weights
    torch.testing.assert_close(joined([scores]).sum(1).float(), change, rtol=1e-5, atol=1e-6)
    # A single group has everything.
    (scores,) = method.scores(case, feature_mask=torch.zeros(1, 5, dtype=torch.long))
    torch.testing.assert_close(scores, (change / 5)[:, None].expand(2, 5), rtol=1e-5, atol=1e-6)
