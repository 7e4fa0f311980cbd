"""The engine: one unpadded pass at a time gives the same, no input is passed twice."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from captum_aml.exceptions import InvalidInputError, NonFiniteError
from captum_aml.masking.call import parse_call
from captum_aml.metrics import RemovalEvaluator, comprehensiveness, sufficiency
from captum_aml.metrics.scoring import evaluators
from tests._helpers.models import LinearLogits, PlantedClassifier
from tests._helpers.removals import (
    FIRST,
    LAST,
    MASK,
    PAD,
    TEXT,
    Batch,
    Counting,
    Text,
    additive,
    bert,
    evaluator_of,
    gpt2,
    padded,
    predicted,
    probability,
    words,
)

DOUBLE = torch.float64
REMOVAL_NAMES = ("delete", "mask", "pad")


def positional(model: nn.Module) -> Callable[..., Any]:
    """Ids, attention mask and token types by position, for models that order them otherwise."""

    def forward(input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        logits: Tensor = model(
            input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).logits
        return logits

    return forward


def causal(model: nn.Module) -> Callable[..., Any]:
    """The same for a model without token types."""

    def forward(input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        logits: Tensor = model(input_ids, attention_mask=attention_mask).logits
        return logits

    return forward


def evaluator_for(forward: Callable[..., Any], batch: Batch, **options: Any) -> RemovalEvaluator:
    return evaluator_of(
        forward, batch.ids, batch.references, (batch.attention_mask, batch.types), **options
    )


def some_subsets(texts: list[Text], *, seed: int, each: int = 6) -> list[tuple[int, list[int]]]:
    """Random subsets of each text's tokens by their places, all and none among them."""
    chooser = random.Random(seed)
    subsets = []
    for row, text in enumerate(texts):
        subsets += [(row, text.tokens), (row, [])]
        for _ in range(each):
            subsets.append((row, [i for i in text.tokens if chooser.random() < 0.6]))
    chooser.shuffle(subsets)
    return subsets


def as_tensors(
    subsets: list[tuple[int, list[int]]], texts: list[Text], width: int, *, left: bool
) -> tuple[Tensor, Tensor]:
    keep = torch.zeros(len(subsets), width, dtype=torch.bool)
    for variant, (row, places) in enumerate(subsets):
        shift = width - len(texts[row].ids) if left else 0
        keep[variant, [i + shift for i in places]] = True
    return torch.tensor([row for row, _ in subsets]), keep


@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
@pytest.mark.parametrize("removal", REMOVAL_NAMES)
@pytest.mark.parametrize("kind", ["bert", "distilbert", "gpt2"])
def test_every_value_is_that_of_one_unpadded_pass(kind: str, removal: str, left: bool) -> None:
    forward = {
        "bert": lambda: positional(bert()),
        "distilbert": lambda: causal(bert("distilbert")),
        "gpt2": lambda: causal(gpt2()),
    }[kind]()
    texts = words([1, 7, 3, 7, 4, 10, 2])
    batch = padded(texts, left=left)
    targets = [predicted(forward, text) for text in texts]
    subsets = some_subsets(texts, seed=1)
    rows, keep = as_tensors(subsets, texts, batch.ids.shape[1], left=left)
    evaluator = evaluator_for(forward, batch, batch_size=5)
    assert evaluator.target.tolist() == targets
    expected = [
        probability(forward, texts[row], places, removal, targets[row]) for row, places in subsets
    ]
    got = evaluator.values(rows, keep, removal)
    # Rounding of float64 in differently shaped matrix products.
    torch.testing.assert_close(got, torch.tensor(expected, dtype=DOUBLE), rtol=0, atol=1e-10)
    assert len({round(p, 6) for p in expected}) > 20
    torch.testing.assert_close(evaluator.log_values(rows, keep, removal), got.log())


def test_without_an_attention_mask_texts_of_one_length_are_their_own_batch() -> None:
    model = bert()

    def forward(ids: Tensor, *unused: Tensor) -> Tensor:
        logits: Tensor = model(ids).logits
        return logits

    texts = words([6] * 5)
    batch = padded(texts)
    subsets = some_subsets(texts, seed=2)
    rows, keep = as_tensors(subsets, texts, 8, left=False)
    evaluator = evaluator_of(forward, batch.ids, batch.references, target=1)
    for removal in ("delete", "mask"):
        expected = [probability(forward, texts[r], places, removal, 1) for r, places in subsets]
        got = evaluator.values(rows, keep, removal)
        torch.testing.assert_close(got, torch.tensor(expected, dtype=DOUBLE), rtol=0, atol=1e-10)


def test_baselines_that_hide_padding_need_no_attention_mask() -> None:
    # Padding equals its baseline, so that it stays: p is that of the padded text.
    texts = words([2, 5], special=False, vocabulary=9)
    batch = padded(texts)
    batch.references[batch.ids == PAD] = PAD
    model = additive()

    def forward(ids: Tensor) -> Tensor:
        return model(ids, torch.ones_like(ids))

    evaluator = evaluator_of(forward, batch.ids, batch.references, target=1)
    assert evaluator.n_tokens == [2, 5]
    rows, keep = torch.tensor([0, 1]), torch.zeros(2, 5, dtype=torch.bool)
    assert evaluator.values(rows, keep, "delete").tolist() == pytest.approx([1 / 4] * 2)
    # Each removed token leaves the mask token's 1/64.
    assert evaluator.values(rows, keep, "mask").tolist() == pytest.approx([18 / 64, 21 / 64])


def test_positions_shared_by_all_examples_go_with_the_tokens() -> None:
    model = bert()

    def forward(ids: Tensor, attention_mask: Tensor, types: Tensor, positions: Tensor) -> Tensor:
        logits: Tensor = model(
            ids, attention_mask=attention_mask, token_type_ids=types, position_ids=positions
        ).logits
        return logits

    texts = words([2, 6, 9])
    batch = padded(texts)
    positions = torch.arange(11)[None]
    evaluator = evaluator_of(
        forward,
        batch.ids,
        batch.references,
        (batch.attention_mask, batch.types, positions),
        target=0,
    )
    keep = torch.ones(1, 11, dtype=torch.bool)
    keep[0, 2] = False
    got = evaluator.values(torch.tensor([1]), keep, "delete")
    # A token's position is its own: the gap stays.
    places = [0, 1, 3, 4, 5, 6, 7]
    with torch.no_grad():
        logits = forward(
            batch.ids[1:2, places],
            torch.ones(1, 7, dtype=torch.long),
            batch.types[1:2, places],
            torch.tensor([places]),
        )
    assert got.item() == pytest.approx(logits.softmax(1)[0, 0].item(), abs=1e-10)


def test_places_hidden_within_a_text_stay_where_they_are() -> None:
    forward = positional(bert())
    batch = padded(words([5, 8]))
    batch.attention_mask[0, 3] = 0
    evaluator = evaluator_for(forward, batch, target=2)
    assert not evaluator.tokens[0, 3]
    length = 7
    with torch.no_grad():
        logits = forward(
            batch.ids[:1, :length], batch.attention_mask[:1, :length], batch.types[:1, :length]
        )
    assert evaluator.originals[0].item() == pytest.approx(logits.softmax(1)[0, 2].item(), abs=1e-10)


def test_arguments_of_an_example_go_with_it() -> None:
    # p = (offset of the example + sum of the weights), with one shared scale.
    model = additive()

    def forward(ids: Tensor, attention_mask: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        p = model(ids, attention_mask).softmax(1)[:, 1] * scale + shift
        return torch.stack([1 - p, p], dim=1)

    ids = torch.tensor([[4, 5, 6]] * 3)
    shift = torch.tensor([0.0, 1 / 8, 1 / 16]).double()
    args = (torch.ones_like(ids), shift, torch.tensor([1 / 2]).double())
    got = sufficiency(
        forward, ids, torch.tensor([[3.0, 2, 1]] * 3), 9, args, target=1, batch_size=2
    )
    # p(X) - p({4}) = (11/16 - 1/2) / 2 for all of them.
    assert got.tolist() == pytest.approx([3 / 32] * 3, abs=1e-12)
    evaluator = evaluator_of(forward, ids, 9, args, target=1)
    assert evaluator.originals.tolist() == pytest.approx([11 / 32, 15 / 32, 13 / 32])


def test_a_shared_argument_is_not_cut_where_a_window_has_its_size() -> None:
    # 9 examples in windows of 8: the last one has one, as many as the table has rows; then 10.
    table = torch.tensor([[0.25]]).double()

    def forward(ids: Tensor, table: Tensor) -> Tensor:
        assert table.shape[1:] == (1,)
        assert len(table) in (1, 2)
        p = table.sum() + (ids == 5).double().sum(dim=1) / 8
        return torch.stack([1 - p, p], dim=1)

    for n_rows in (1, 2):
        ids = torch.full((8 + n_rows, 3), 5)
        call = parse_call(ids, 1, 1, (table.expand(n_rows, 1) / n_rows,))
        parts = list(evaluators(forward, call, output="auto", batch_size=1))
        assert [part.n_examples for part in parts] == [8, n_rows]
        for part in parts:
            # One token of three removed: 1/4 + 2/8.
            keep = torch.tensor([[True, False, True]])
            assert part.values(torch.tensor([0]), keep, "mask").item() == pytest.approx(1 / 2)


def test_windows_read_the_output_alike() -> None:
    # The ninth example's logits sum to 1 as probabilities do; the first eight say they are logits.
    def forward(x: Tensor) -> Tensor:
        return x[:, :2]

    x = torch.tensor([[2.0, 1.0, 0.0]] * 8 + [[0.75, 0.25, 0.0]])
    parts = evaluators(forward, parse_call(x), output="auto", batch_size=1)
    assert [part.output_kind for part in parts] == ["logits", "logits"]


@pytest.mark.parametrize("removal", REMOVAL_NAMES)
def test_every_different_input_is_passed_once(removal: str) -> None:
    texts = words([4, 6, 2, 6], vocabulary=7)
    texts += [texts[0], texts[1]]  # the same texts again
    batch = padded(texts)
    counting = Counting(positional(bert()))
    subsets = some_subsets(texts, seed=3, each=20)
    rows, keep = as_tensors(subsets, texts, 8, left=False)

    def forward(ids: Tensor, attention_mask: Tensor, types: Tensor) -> Any:
        return counting(ids, attention_mask, types)

    batch.types.zero_()
    evaluator = evaluator_for(forward, batch, target=0, batch_size=4)
    assert evaluator.n_passes == len(counting.seen) == 4
    evaluator.values(rows, keep, removal)
    evaluator.values(rows.flip(0), keep.flip(0), removal)
    different = {content(text, text.tokens, removal) for text in texts}
    different |= {content(texts[row], places, removal) for row, places in subsets}
    assert len(counting.seen) == len(set(counting.seen))
    assert set(counting.seen) == different
    assert evaluator.n_passes == len(different)
    assert counting.largest <= 4


def content(text: Text, keep: list[int], removal: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ids and attention mask of one unpadded input, worked out place by place."""
    ids, mask = [], []
    for i, (x, b) in enumerate(zip(text.ids, text.references, strict=True)):
        stays = i in keep or x == b
        if stays or removal != "delete":
            ids.append(x if stays else b)
            mask.append(int(stays or removal == "mask"))
    return tuple(ids), tuple(mask)


def test_the_same_text_explained_for_two_classes_has_two_values() -> None:
    texts = words([4]) * 2
    evaluator = evaluator_for(positional(bert()), padded(texts), target=[0, 1])
    keep = torch.ones(2, 6, dtype=torch.bool)
    keep[:, 2] = False
    got = evaluator.values(torch.tensor([0, 1]), keep, "mask")
    assert got[0] != got[1]
    assert float(got.sum()) <= 1


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_a_pass_holds_no_more_than_a_batch(batch_size: int) -> None:
    counting = Counting(lambda ids, attention_mask: (ids * attention_mask)[:, :3].double())
    batch = padded(words([1, 5, 3, 8, 2] * 8))

    def forward(ids: Tensor, attention_mask: Tensor) -> Any:
        return counting(ids, attention_mask)

    comprehensiveness(
        forward,
        batch.ids,
        batch.scores,
        batch.references,
        batch.attention_mask,
        aopc=True,
        batch_size=batch_size,
    )
    assert counting.largest <= batch_size
    assert counting.largest == batch_size or batch_size == 64


def test_floats_are_units_each() -> None:
    # Logits (0, x1 + 2 x2 - x3), by element.
    model = LinearLogits([1.0, 2.0, -1.0], 0.5)
    x = torch.tensor([[1.0, 1.0, 1.0], [0.0, 2.0, 1.0]]).double()
    evaluator = evaluator_of(model, x, target=1)
    # The second example's first element equals its baseline.
    assert evaluator.n_tokens == [3, 2]
    keep = torch.tensor([[True, False, True], [False, True, False]])
    got = evaluator.values(torch.tensor([0, 1]), keep, "mask")
    expected = torch.tensor([1 - 1 + 0.5, 4 + 0.5]).double().sigmoid()
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


def test_images_and_single_numbers_are_units_each() -> None:
    image = torch.arange(1.0, 9.0).reshape(1, 2, 2, 2).double()

    def total(x: Tensor) -> Tensor:
        return x.reshape(len(x), -1).sum(dim=1)

    evaluator = evaluator_of(total, image, baselines=-1.0)
    keep = torch.ones(1, 8, dtype=torch.bool)
    keep[0, :2] = False
    assert evaluator.originals.item() == 36
    # 1 and 2 become -1.
    assert evaluator.values(torch.tensor([0]), keep, "mask").item() == 31
    numbers = evaluator_of(lambda x: 2 * x, torch.tensor([3.0, 4.0]))
    got = numbers.values(torch.tensor([1]), torch.tensor([[False]]), "mask")
    assert (numbers.originals.tolist(), got.item()) == ([6, 8], 0)


@pytest.mark.parametrize("removal", REMOVAL_NAMES)
def test_embeddings_are_tokens_by_position(removal: str) -> None:
    model = bert()
    table = model.get_input_embeddings()

    def forward(embeddings: Tensor, attention_mask: Tensor, types: Tensor) -> Tensor:
        logits: Tensor = model(
            inputs_embeds=embeddings, attention_mask=attention_mask, token_type_ids=types
        ).logits
        return logits

    texts = words([2, 7, 4, 4])
    batch = padded(texts)
    with torch.no_grad():
        embedded, references = table(batch.ids), table(batch.references)
    by_ids = evaluator_for(positional(model), batch, target=1)
    evaluator = evaluator_of(
        forward, embedded, references, (batch.attention_mask, batch.types), target=1, batch_size=3
    )
    assert torch.equal(evaluator.tokens, by_ids.tokens)
    rows, keep = as_tensors(some_subsets(texts, seed=4), texts, 9, left=False)
    torch.testing.assert_close(
        evaluator.values(rows, keep, removal),
        by_ids.values(rows, keep, removal),
        rtol=0,
        atol=1e-10,
    )
    assert evaluator.n_passes <= by_ids.n_passes + len(texts)


@pytest.mark.parametrize("removal", REMOVAL_NAMES)
def test_an_input_of_nothing(removal: str) -> None:
    # Without special tokens nothing may be left: the additive model then says 1/4.
    texts = words([2, 5, 1, 4], special=False, vocabulary=9)
    batch = padded(texts)
    evaluator = evaluator_of(
        additive(), batch.ids, batch.references, batch.attention_mask, target=1
    )
    got = evaluator.values(torch.arange(4), torch.zeros(4, 5, dtype=torch.bool), removal)
    left_over = [n / 64 if removal == "mask" else 0 for n in (2, 5, 1, 4)]
    assert got.tolist() == pytest.approx([1 / 4 + extra for extra in left_over], abs=1e-12)


def test_an_input_of_nothing_that_the_model_cannot_take_is_explained() -> None:
    texts = words([3, 5], special=False)
    batch = padded(texts)
    evaluator = evaluator_for(causal(gpt2()), batch)
    nothing = torch.zeros(2, 5, dtype=torch.bool)
    with pytest.raises(InvalidInputError, match=r"removal: nothing is left of the examples \[0"):
        evaluator.values(torch.arange(2), nothing, "delete")
    evaluator.values(torch.arange(2), nothing, "mask")


@given(st.permutations(range(5)), st.integers(1, 9), st.integers(0, 1), st.booleans())
def test_order_batches_padding_and_company_change_nothing(
    order: list[int], batch_size: int, extra: int, left: bool
) -> None:
    texts = words([1, 7, 3, 5, 9])
    forward = positional(_shared_bert())
    chosen = order[: 1 + batch_size % 5]
    some = [texts[i] for i in chosen]
    evaluator = evaluator_for(
        forward, padded(some, left=left, extra=extra), batch_size=batch_size, target=0
    )
    rows, keep = as_tensors(
        [(i, text.ranking[:2]) for i, text in enumerate(some)],
        some,
        evaluator.tokens.shape[1],
        left=left,
    )
    expected = _values_alone()
    for removal in REMOVAL_NAMES:
        got = evaluator.values(rows, keep, removal)
        wanted = torch.tensor([expected[removal][i] for i in chosen], dtype=DOUBLE)
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-10)


@functools.cache
def _shared_bert() -> nn.Module:
    return bert()


@functools.cache
def _values_alone() -> dict[str, list[float]]:
    forward = positional(_shared_bert())
    return {
        removal: [
            probability(forward, text, text.ranking[:2], removal, 0)
            for text in words([1, 7, 3, 5, 9])
        ]
        for removal in REMOVAL_NAMES
    }


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_values_are_float64_for_models_of_any_dtype(dtype: torch.dtype) -> None:
    model = bert().to(dtype)
    texts = words([3, 6])
    batch = padded(texts)
    evaluator = evaluator_for(positional(model), batch, target=1)
    keep = torch.ones(2, 8, dtype=torch.bool)
    keep[:, 1] = False
    got = evaluator.values(torch.arange(2), keep, "delete")
    expected = [
        probability(positional(bert()), text, text.tokens[1:], "delete", 1) for text in texts
    ]
    assert got.dtype == evaluator.originals.dtype == torch.float64
    # bfloat16 has 8 significant bits, in every layer.
    tolerance = {torch.bfloat16: 0.1, torch.float32: 1e-5, torch.float64: 1e-10}[dtype]
    assert got.tolist() == pytest.approx(expected, abs=tolerance)


def test_embeddings_of_bfloat16_are_told_apart() -> None:
    x = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]] * 2 + [[[1.0, 2.0], [3.0, 5.0]]])

    def forward(x: Tensor) -> Tensor:
        assert x.dtype == torch.bfloat16
        return x.sum(dim=(1, 2))

    evaluator = evaluator_of(forward, x.bfloat16())
    assert evaluator.originals.tolist() == [10, 10, 11]
    assert evaluator.n_passes == 2


def test_nothing_of_the_callers_is_changed() -> None:
    model = PlantedClassifier().train()
    before = {name: p.clone() for name, p in model.state_dict().items()}
    ids, scores = torch.tensor([[1, 5, 6], [7, 2, 8]]), torch.tensor([[3.0, 2, 1]] * 2)
    kept = ids.clone(), scores.clone()

    def in_place(ids: Tensor) -> Tensor:
        logits = model(ids)
        ids.zero_()
        return logits.mul_(2)

    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    for removal in ("delete", "mask"):
        comprehensiveness(in_place, ids, scores, aopc=True, removal=removal)
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])
    assert states[2] == random.getstate()
    assert torch.equal(ids, kept[0])
    assert torch.equal(scores, kept[1])
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())
    assert torch.is_grad_enabled()


def test_gradient_modes_make_no_difference() -> None:
    model = PlantedClassifier()
    ids, scores = torch.tensor([[1, 5, 6], [7, 2, 8]]), torch.tensor([[3.0, 2, 1]] * 2)

    def measured(scores: Tensor) -> Tensor:
        return comprehensiveness(model, ids, scores, aopc=True)

    expected = measured(scores.clone().requires_grad_())
    assert not expected.requires_grad
    with torch.no_grad():
        assert torch.equal(measured(scores), expected)
    with torch.inference_mode():
        made_there = measured(scores.clone())
    assert torch.equal(made_there, expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_values_of_a_model_on_a_gpu() -> None:
    texts = words([3, 6])
    batch = padded(texts)
    on_cpu = evaluator_for(positional(bert()), batch, target=1)
    for name, value in vars(batch).items():
        setattr(batch, name, value.cuda())
    on_gpu = evaluator_for(positional(bert().cuda()), batch, target=1)
    keep = torch.ones(2, 8, dtype=torch.bool)
    keep[:, 1:3] = False
    for removal in REMOVAL_NAMES:
        got = on_gpu.values(torch.arange(2), keep, removal)
        expected = on_cpu.values(torch.arange(2), keep, removal)
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)


def one(**options: Any) -> RemovalEvaluator:
    ids = torch.tensor([TEXT])
    arguments: dict[str, Any] = {
        "inputs": ids,
        "baselines": MASK,
        "additional_forward_args": torch.ones_like(ids),
        **options,
    }
    return evaluator_of(additive(), **arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"inputs": (torch.tensor([TEXT]),) * 2, "baselines": None},
            "inputs: expected one tensor, got a tuple of 2",
        ),
        ({"inputs": [TEXT]}, "inputs: .*list"),
        ({"inputs": torch.zeros(0, 5)}, "inputs: .*at least one example"),
        ({"inputs": torch.zeros(2, 0)}, "inputs: .*at least one element"),
        ({"target": 2}, "target: .*below"),
        ({"target": [0, 1]}, "target: .*1 examples, got 2"),
        ({"batch_size": 0}, "batch_size: .*at least 1, got 0"),
        ({"batch_size": -3}, "batch_size: .*got -3"),
        ({"batch_size": 2.5}, "batch_size: .*got 2.5"),
        ({"output": "scores"}, "output: .*got 'scores'"),
        ({"baselines": 0.5}, "baselines: .*0.5"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        one(**options)


def test_bad_subsets_are_named() -> None:
    evaluator = one()
    keep = torch.ones(1, 5, dtype=torch.bool)
    for rows, subset, message in (
        (torch.tensor([0]), keep[:, :4], r"keep: .*\(1, 5\).*\(1, 4\)"),
        (torch.tensor([0]), keep.float(), "keep: .*torch.bool.*float32"),
        (torch.tensor([0, 0]), keep, r"keep: .*\(2, 5\).*one row for each of `rows`"),
        (torch.tensor([1]), keep, "rows: .*from 0 to 0"),
        (torch.tensor([0.0]), keep, "rows: "),
    ):
        with pytest.raises(InvalidInputError, match=message):
            evaluator.values(rows, subset, "mask")
    with pytest.raises(InvalidInputError, match=r"removal: .*'erase'"):
        evaluator.values(torch.tensor([0]), keep, "erase")
    assert evaluator.values(torch.tensor([], dtype=torch.long), keep[:0], "mask").shape == (0,)


def test_removals_that_the_inputs_do_not_allow_are_refused() -> None:
    floats = evaluator_of(LinearLogits([1.0, 2.0], 0.0), torch.ones(1, 2), target=1)
    keep = torch.ones(1, 2, dtype=torch.bool)
    for removal in ("delete", "pad"):
        with pytest.raises(InvalidInputError, match=r"removal: .*needs token ids.*\(1, 2\)"):
            floats.values(torch.tensor([0]), keep, removal)
    unmasked = evaluator_of(PlantedClassifier(), torch.tensor([[1, 5]]))
    with pytest.raises(InvalidInputError, match=r"removal: 'pad' needs .*`attention_mask`"):
        unmasked.values(torch.tensor([0]), keep, "pad")


def test_plain_values_have_no_logarithm() -> None:
    evaluator = evaluator_of(lambda x: x.sum(dim=1), -torch.ones(1, 2))
    assert evaluator.originals.item() == -2
    with pytest.raises(InvalidInputError, match=r"output: .*logarithm; got plain values"):
        _ = evaluator.log_originals
    with pytest.raises(InvalidInputError, match=r"output: .*logarithm"):
        evaluator.log_values(torch.tensor([0]), torch.ones(1, 2, dtype=torch.bool), "mask")


def test_outputs_that_are_no_value_per_example_are_refused() -> None:
    x = torch.ones(3, 4)
    with pytest.raises(InvalidInputError, match=r"forward_func: .*3 examples.*\(1,\)"):
        evaluator_of(lambda x: x.sum().reshape(1), x * torch.arange(1, 4)[:, None])
    with pytest.raises(InvalidInputError, match=r"forward_func: .*NoneType"):
        evaluator_of(lambda _: None, x)
    texts = words([2, 5])
    batch = padded(texts)

    def by_place(ids: Tensor, attention_mask: Tensor) -> Tensor:
        return ids[..., None].expand(*ids.shape, 2).float()

    with pytest.raises(InvalidInputError, match=r"forward_func: .*one shape"):
        evaluator_of(by_place, batch.ids, MASK, batch.attention_mask, target=(1, 1), batch_size=1)


def test_a_value_that_is_not_finite_says_where() -> None:
    def forward(x: Tensor) -> Tensor:
        return 1 / x.sum(dim=1)

    evaluator = evaluator_of(forward, torch.tensor([[1.0, -2.0]]))
    with pytest.raises(NonFiniteError, match="removal by mask"):
        evaluator.values(torch.tensor([0]), torch.zeros(1, 2, dtype=torch.bool), "mask")
    with pytest.raises(NonFiniteError, match="unmasked inputs"):
        evaluator_of(forward, torch.tensor([[1.0, -1.0]]))


def test_errors_of_the_model_are_its_own() -> None:
    def forward(x: Tensor) -> Tensor:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        evaluator_of(forward, torch.ones(1, 2))


def test_special_tokens_and_padding_are_no_tokens() -> None:
    batch = padded(words([2, 4]))
    evaluator = evaluator_for(positional(bert()), batch)
    assert evaluator.n_examples == 2
    assert evaluator.n_tokens == [2, 4]
    is_word = (batch.ids != PAD) & (batch.ids != FIRST) & (batch.ids != LAST)
    assert torch.equal(evaluator.tokens, is_word)
