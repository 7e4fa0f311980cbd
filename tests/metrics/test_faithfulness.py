"""Comprehensiveness, sufficiency and log-odds: by hand, by a plain loop, and what must hold."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import captum.metrics
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from captum_aml import metrics
from captum_aml.exceptions import InvalidInputError, NonFiniteError
from captum_aml.metrics import Convention, comprehensiveness, log_odds, sufficiency
from tests._helpers.models import LinearLogits, PlantedClassifier
from tests._helpers.removals import (
    FIRST,
    LAST,
    MASK,
    TEXT,
    Batch,
    Counting,
    Text,
    additive,
    bert,
    gpt2,
    naive,
    padded,
    words,
)

METRICS = {
    "comprehensiveness": comprehensiveness,
    "sufficiency": sufficiency,
    "log-odds": log_odds,
}
DOUBLE = torch.float64


def additive_value(metric: str, scores: list[float], **options: Any) -> float:
    """A metric of the additive model for the text 4 5 6 7 8, explained for class 1.

    p(X) = 21/32; what the tokens add is 8, 4, 2, -2 and 1 of 32. What stands at a masked place adds
    half of 1/32.
    """
    ids = torch.tensor([TEXT])
    (value,) = METRICS[metric](
        additive(), ids, torch.tensor([scores]), MASK, torch.ones_like(ids), **options
    ).tolist()
    return float(value)


#: Ranks the text's tokens as they stand.
IN_ORDER = [5.0, 4.0, 3.0, 2.0, 1.0]


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        # 20 % of 5 tokens is the first: p falls from 21/32 to 13/32 without it.
        ("comprehensiveness", 8 / 32),
        # With it alone p is 8/32 + 8/32.
        ("sufficiency", 5 / 32),
        # Masked, p is 13.5/32.
        ("log-odds", math.log(13.5 / 21)),
    ],
)
def test_one_share_by_hand(metric: str, expected: float) -> None:
    assert additive_value(metric, IN_ORDER) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("preset", "metric", "expected"),
    [
        # 1, 5, 10, 20, 50 % of 5 are 0.05, 0.25, 0.5, 1 and 2.5. Rounded up: 1, 1, 1, 1, 3.
        # The top 1 and the top 3 add 8/32 and 14/32.
        ("default", "comprehensiveness", (4 * 8 + 14) / 32 / 5),
        # p(X) - p(R_k) = (21 - 8 - 8)/32 and (21 - 8 - 14)/32: three tokens do more than five.
        ("default", "sufficiency", (4 * 5 - 1) / 32 / 5),
        # Masked: 21 - 8 + 0.5 and 21 - 14 + 1.5.
        ("default", "log-odds", (4 * math.log(13.5 / 21) + math.log(8.5 / 21)) / 5),
        # Rounded down: 0, 0, 0, 1, 2. The top 2 add 12/32; the sum is divided by 6.
        ("aml", "comprehensiveness", (8 + 12) / 32 / 6),
        # Nothing kept costs 13/32, but is scored 0.
        ("aml", "sufficiency", (0 + 0 + 0 + 5 + 1) / 32 / 6),
        ("aml", "log-odds", (math.log(13.5 / 21) + math.log(10 / 21)) / 6),
        # To the nearest, halves up, at least one: 1, 1, 1, 1, 3.
        ("eraser", "comprehensiveness", (4 * 8 + 14) / 32 / 5),
        ("eraser", "sufficiency", (4 * 5 - 1) / 32 / 5),
        # Tenths, rounded down, each number once: 1, 2, 3, 4, 5. They add 8, 12, 14, 12, 13.
        ("ferret", "comprehensiveness", (8 + 12 + 14 + 12 + 13) / 32 / 5),
        ("ferret", "sufficiency", (5 + 1 - 1 + 1 + 0) / 32 / 5),
        # One token after the other, masked: each mask token gives 1/64 back.
        ("naopc", "comprehensiveness", (7.5 + 11 + 12.5 + 10 + 10.5) / 32 / 5),
        # With the top k, 5 - k mask tokens: 21 - (8 + 8 + 2), 21 - (8 + 12 + 1.5) and so on.
        ("naopc", "sufficiency", (3 - 0.5 - 2 + 0.5 + 0) / 32 / 5),
    ],
)
def test_several_shares_by_hand(preset: str, metric: str, expected: float) -> None:
    got = additive_value(metric, IN_ORDER, aopc=True, convention=preset)
    assert got == pytest.approx(expected, abs=1e-12)


def test_no_token_measured_or_scored_0() -> None:
    # 10 % of 5 tokens, rounded down, is none: p(X) - p(nothing) = 13/32.
    options: dict[str, Any] = {"share": 0.1, "rounding": "floor", "at_least": 0}
    for free, expected in ((False, 13 / 32), (True, 0.0)):
        convention = Convention(free_at_zero=free, **options)
        got = additive_value("sufficiency", IN_ORDER, convention=convention)
        assert got == pytest.approx(expected, abs=1e-12)
        # Nothing is taken away: that costs nothing, whatever the convention.
        assert additive_value("comprehensiveness", IN_ORDER, convention=convention) == 0


def test_what_is_scored_0_is_not_measured() -> None:
    counting = Counting(additive())

    def forward(ids: Tensor, attention_mask: Tensor) -> Any:
        return counting(ids, attention_mask)

    ids = torch.tensor([TEXT])
    scores = torch.tensor([IN_ORDER])
    sufficiency(forward, ids, scores, MASK, torch.ones_like(ids), aopc=True, convention="aml")
    assert [len(seen[0]) for seen in counting.seen] == [5, 1, 2]


def test_numbers_of_tokens_that_come_again_count_or_not() -> None:
    # 1 and 3 tokens: four times and once, or once each.
    for repeats, expected in ((True, (4 * 8 + 14) / 5), (False, (8 + 14) / 2)):
        convention = Convention(repeats=repeats)
        got = additive_value("comprehensiveness", IN_ORDER, aopc=True, convention=convention)
        assert got == pytest.approx(expected / 32, abs=1e-12)


def test_the_removal_can_be_chosen_apart_from_the_convention() -> None:
    for removal, expected in (("delete", 8), ("mask", 7.5), ("pad", 8)):
        got = additive_value("comprehensiveness", IN_ORDER, removal=removal)
        assert got == pytest.approx(expected / 32, abs=1e-12)
    got = additive_value("log-odds", IN_ORDER, removal="delete")
    assert got == pytest.approx(math.log(13 / 21), abs=1e-12)
    convention = Convention(log_odds_removal="delete")
    assert additive_value("log-odds", IN_ORDER, convention=convention) == pytest.approx(got)


def test_ties_go_by_position_and_signs_by_value() -> None:
    first = additive_value("comprehensiveness", IN_ORDER)
    assert additive_value("comprehensiveness", [1.0] * 5) == first
    # -0.1 comes before -0.2, and both after 0.
    last = additive_value("comprehensiveness", [-0.4, -0.3, -0.2, -0.1, 0.0])
    assert last == pytest.approx(1 / 32, abs=1e-12)


def test_scores_by_channel_are_added_up() -> None:
    def forward(x: Tensor) -> Tensor:
        return x.sum(dim=(1, 2))

    x = torch.tensor([[[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]])
    # Tokens 0 to 2 have 3, 4 and 2; the first channel alone would rank them 2, 0, 1.
    by_channel = torch.tensor([[[1.0, 2.0], [0.0, 4.0], [2.0, 0.0]]])
    convention = Convention(share=0.3, removal="mask")
    for scores in (by_channel, by_channel.sum(dim=2), (by_channel,), by_channel.int()):
        got = comprehensiveness(forward, x, scores, convention=convention)
        assert got.tolist() == [4]


@pytest.mark.parametrize("metric", METRICS)
def test_attributions_of_an_embedding_layer_are_taken_for_ids(metric: str) -> None:
    ids = torch.tensor([TEXT])
    by_channel = torch.randn(1, 5, 3, generator=torch.Generator().manual_seed(4))
    call = (MASK, torch.ones_like(ids))
    got = METRICS[metric](additive(), ids, by_channel, *call, aopc=True)
    assert (
        got.tolist()
        == METRICS[metric](additive(), ids, by_channel.sum(dim=2), *call, aopc=True).tolist()
    )
    with pytest.raises(InvalidInputError, match=r"attributions: .*\(1, 4, 3\)"):
        METRICS[metric](additive(), ids, by_channel[:, :4], *call)


def test_large_integer_scores_are_told_apart() -> None:
    ids = torch.tensor([TEXT])
    scores = torch.tensor([[2**24, 2**24 + 1, 0, 0, 0]])
    got = comprehensiveness(additive(), ids, scores, MASK, torch.ones_like(ids))
    assert got.item() == pytest.approx(4 / 32, abs=1e-12)


def three(metric: str, model: Callable[..., Any], batch: Batch, **options: Any) -> Tensor:
    return METRICS[metric](
        model,
        batch.ids,
        batch.scores,
        batch.references,
        (batch.attention_mask, batch.types),
        **options,
    )


def with_types(model: nn.Module) -> Callable[..., Any]:
    def forward(ids: Tensor, attention_mask: Tensor, types: Tensor) -> Tensor:
        logits: Tensor = model(ids, attention_mask=attention_mask, token_type_ids=types).logits
        return logits

    return forward


def without_types(model: nn.Module) -> Callable[..., Any]:
    def forward(ids: Tensor, attention_mask: Tensor, types: Tensor) -> Tensor:
        logits: Tensor = model(ids, attention_mask=attention_mask).logits
        return logits

    return forward


def default_counts(n_tokens: int) -> list[int]:
    return [max(1, math.ceil(n_tokens * p / 100)) for p in (1, 5, 10, 20, 50)]


@functools.cache
def loop_case(kind: str) -> tuple[Callable[..., Any], list[Text]]:
    forward = with_types(bert()) if kind == "bert" else without_types(gpt2())
    return forward, words([1, 7, 10, 3, 7, 4, 2, 9, 5], seed=3)


@functools.cache
def by_loop(metric: str, kind: str, removal: str) -> Tensor:
    forward, texts = loop_case(kind)
    return torch.tensor(
        [naive(metric, forward, t, default_counts(len(t.tokens)), removal) for t in texts],
        dtype=DOUBLE,
    )


@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
@pytest.mark.parametrize("kind", ["bert", "gpt2"])
@pytest.mark.parametrize("metric", METRICS)
def test_equal_to_a_plain_loop(metric: str, kind: str, left: bool) -> None:
    forward, texts = loop_case(kind)
    batch = padded(texts, left=left, extra=2 if kind == "gpt2" else 0)
    own, other = ("mask", "delete") if metric == "log-odds" else ("delete", "mask")
    for removal in (None, other, "pad"):
        # By windows of 8 examples, and together.
        for batch_size in (1, 32):
            got = three(metric, forward, batch, aopc=True, removal=removal, batch_size=batch_size)
            expected = by_loop(metric, kind, removal or own)
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("metric", METRICS)
def test_every_convention_is_equal_to_a_plain_loop(metric: str) -> None:
    forward = with_types(bert())
    texts = words([6, 9, 10], seed=4)
    batch = padded(texts)
    shares = (1, 5, 10, 20, 50)
    for preset in ("aml", "eraser", "ferret", "naopc"):
        expected = []
        for text in texts:
            n = len(text.tokens)
            if preset == "aml":
                counts = [n * p // 100 for p in shares]
            elif preset == "eraser":
                counts = [max(1, (2 * n * p + 100) // 200) for p in shares]
            elif preset == "ferret":
                counts = sorted({n * p // 10 for p in range(1, 11)} - {0})
            else:
                counts = list(range(1, n + 1))
            own = "mask" if metric == "log-odds" or preset == "naopc" else "delete"
            if preset == "aml":
                measured = [k for k in counts if k or metric != "sufficiency"]
                mean = naive(metric, forward, text, measured, own)
                expected.append(mean * len(measured) / 6)
            else:
                expected.append(naive(metric, forward, text, counts, own))
        got = three(metric, forward, batch, aopc=True, convention=preset)
        wanted = torch.tensor(expected, dtype=DOUBLE)
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-10)


def test_a_target_that_was_not_predicted() -> None:
    forward = with_types(bert())
    texts = words([4, 8])
    for target in (0, 1, 2):
        expected = [naive("sufficiency", forward, t, [1], "pad", target=target) for t in texts]
        convention = Convention(share=0.1, removal="pad")
        got = three("sufficiency", forward, padded(texts), target=target, convention=convention)
        assert got.tolist() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("removal", ["delete", "mask", "pad"])
def test_taking_all_tokens_away_and_keeping_them_all(removal: str) -> None:
    forward = with_types(bert())
    texts = words([1, 4, 8])
    batch = padded(texts)
    everything = Convention(share=1.0, removal=removal, log_odds_removal=removal)
    lost = three("comprehensiveness", forward, batch, convention=everything)
    kept = three("sufficiency", forward, batch, convention=everything)
    logs = three("log-odds", forward, batch, convention=everything)
    assert kept.tolist() == [0, 0, 0]
    for row, text in enumerate(texts):
        places = [0, len(text.ids) - 1]
        ids = batch.ids[row : row + 1, : len(text.ids)]
        types, ones = batch.types[row : row + 1, : len(text.ids)], torch.ones_like(ids)
        if removal == "delete":
            nothing = (ids[:, places], ones[:, places], types[:, places])
        else:
            hidden = torch.zeros_like(ids) if removal == "pad" else ones
            hidden[:, places] = 1
            nothing = (batch.references[row : row + 1, : len(text.ids)], hidden, types)
        with torch.no_grad():
            p = forward(ids, ones, types).softmax(1)[0]
            q = forward(*nothing).softmax(1)[0]
        target = int(p.argmax())
        drop = float(p[target] - q[target])
        assert lost[row].item() == pytest.approx(drop, abs=1e-10)
        # The same as a ratio of probabilities.
        assert p[target].item() * math.expm1(logs[row]) == pytest.approx(-drop, abs=1e-10)


def test_log_odds_and_comprehensiveness_say_the_same_of_one_share() -> None:
    forward = with_types(bert())
    batch = padded(words([1, 4, 8, 9, 3]))
    lost = three("comprehensiveness", forward, batch, removal="mask")
    logs = three("log-odds", forward, batch, removal="mask")
    unmasked = torch.stack(
        [
            forward(ids[m][None], m[m][None].long(), types[m][None])[0].softmax(0).max()
            for ids, m, types in zip(
                batch.ids, batch.attention_mask.bool(), batch.types, strict=True
            )
        ]
    )
    torch.testing.assert_close(lost, unmasked * (1 - logs.exp()), rtol=0, atol=1e-10)


def test_log_odds_of_a_certain_prediction_do_not_overflow() -> None:
    # Logits (0, 800 x1 + x2): with x1 p is far below the smallest float.
    model = LinearLogits([800.0, 1.0], 0.0)
    x = torch.tensor([[1.0, -0.5]]).double()
    got = log_odds(model, -x, torch.tensor([[1.0, 0.0]]), target=1, output="logits")
    # log p = 0 - softplus(-z): -799.5 before, log sigmoid(0.5) after.
    assert got.item() == pytest.approx(799.5 - math.log1p(math.exp(-0.5)), abs=1e-9)


def test_plain_values_are_differences() -> None:
    def forward(x: Tensor) -> Tensor:
        return 10 * x.sum(dim=1)

    x = torch.tensor([[1.0, 2.0, 3.0], [0.0, 5.0, 0.0]])
    scores = torch.tensor([[1.0, 2.0, 3.0], [9.0, 1.0, 9.0]])
    convention = Convention(removal="mask")
    assert comprehensiveness(forward, x, scores, convention=convention).tolist() == [30, 50]
    # In the second example only one element differs from its baseline, 0.
    assert sufficiency(forward, x, scores, convention=convention).tolist() == [30, 0]


@pytest.mark.parametrize("metric", METRICS)
def test_an_example_without_a_token_has_no_value(metric: str) -> None:
    ids = torch.tensor([[FIRST, LAST, 0, 0], [FIRST, 4, 5, LAST]])
    references = torch.where(ids > 3, MASK, ids)
    got = METRICS[metric](
        additive(),
        ids,
        torch.rand(2, 4),
        references,
        (ids != 0).long(),
        aopc=True,
    )
    assert got.isnan().tolist() == [True, False]
    alone = METRICS[metric](
        additive(), ids[:1], torch.rand(1, 4), references[:1], (ids[:1] != 0).long()
    )
    assert alone.isnan().tolist() == [True]


@functools.cache
def model_and_texts() -> tuple[Callable[..., Any], list[Text]]:
    return with_types(bert()), words([1, 7, 3, 5, 9, 5], seed=5)


@functools.cache
def expected_alone(metric: str) -> list[float]:
    forward, texts = model_and_texts()
    return [three(metric, forward, padded([text]), aopc=True).item() for text in texts]


@given(
    st.permutations(range(6)),
    st.integers(1, 6),
    st.integers(1, 40),
    st.integers(0, 1),
    st.booleans(),
    st.sampled_from(sorted(METRICS)),
)
def test_order_company_batches_and_padding_change_nothing(
    order: list[int], n: int, batch_size: int, extra: int, left: bool, metric: str
) -> None:
    forward, texts = model_and_texts()
    some = [texts[i] for i in order[:n]]
    got = three(
        metric, forward, padded(some, left=left, extra=extra), aopc=True, batch_size=batch_size
    )
    assert got.tolist() == pytest.approx([expected_alone(metric)[i] for i in order[:n]], abs=1e-10)


@given(
    st.floats(0.01, 100),
    st.floats(-100, 100),
    st.sampled_from(sorted(METRICS)),
    st.sampled_from(["times and plus", "exponential", "rank"]),
)
def test_only_the_order_of_scores_counts(
    factor: float, shift: float, metric: str, rescaling: str
) -> None:
    forward, texts = model_and_texts()
    batch = padded(texts)
    batch.scores.masked_fill_(batch.attention_mask == 0, 0.0)
    if rescaling == "times and plus":
        batch.scores = batch.scores * factor + shift
    elif rescaling == "exponential":  # unsigned scores are ranked as signed ones
        batch.scores = batch.scores.exp()
    else:
        batch.scores = batch.scores.argsort(dim=1).argsort(dim=1).double()
    got = three(metric, forward, batch, aopc=True)
    assert got.tolist() == pytest.approx(expected_alone(metric), abs=1e-10)


def test_what_decides_is_found() -> None:
    # Token 1 decides for class 1. Without it class 0 leads by 2: p = 1/(2 + e^2); with it
    # class 1 has 5 against 2 and 0.
    model = PlantedClassifier().double()
    ids = torch.tensor([[7, 1, 9, 8]])
    p = math.exp(5) / (math.exp(5) + math.exp(2) + 1)
    nothing = 1 / (2 + math.exp(2))
    found, missed = torch.tensor([[0.0, 1.0, 0.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    for removal in ("delete", "mask"):
        best = comprehensiveness(model, ids, found, removal=removal)
        assert best.item() == pytest.approx(p - nothing, abs=1e-7)
        assert comprehensiveness(model, ids, missed, removal=removal).item() == pytest.approx(0)
        assert sufficiency(model, ids, found, removal=removal).item() == pytest.approx(0)
        assert sufficiency(model, ids, missed, removal=removal).item() == best.item()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"attributions": torch.full((1, 5), torch.nan)}, NonFiniteError, r"attributions: .*\[0\]"),
        (
            {"attributions": -torch.tensor([[torch.inf, 1, 1, 1, 1]])},
            NonFiniteError,
            "attributions",
        ),
        ({"attributions": torch.rand(1, 4)}, InvalidInputError, r"attributions: .*\(1, 4\)"),
        ({"attributions": torch.rand(2, 5)}, InvalidInputError, r"attributions: .*\(2, 5\)"),
        ({"attributions": torch.rand(5)}, InvalidInputError, r"attributions: .*\(5,\)"),
        ({"attributions": [1.0] * 5}, InvalidInputError, "attributions: .*list"),
        ({"attributions": (torch.rand(1, 5),) * 2}, InvalidInputError, "attributions: .*got 2"),
        ({"attributions": torch.ones(1, 5).bool()}, InvalidInputError, "attributions: .*bool"),
        ({"attributions": torch.rand(1, 5) + 0j}, InvalidInputError, "attributions: .*complex"),
        ({"convention": "lime"}, InvalidInputError, "convention: .*'lime'"),
        ({"removal": "erase"}, InvalidInputError, "removal: .*'erase'"),
        ({"batch_size": -1}, InvalidInputError, "batch_size: .*-1"),
        ({"batch_size": 0}, InvalidInputError, "batch_size: .*0"),
        ({"target": 5}, InvalidInputError, "target: .*5"),
        ({"output": "other"}, InvalidInputError, "output: .*'other'"),
        ({"additional_forward_args": None, "removal": "pad"}, InvalidInputError, "attention_mask"),
    ],
)
def test_bad_arguments_are_named(
    metric: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    model = additive()

    def forward(ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return model(ids, torch.ones_like(ids) if attention_mask is None else attention_mask)

    ids = torch.tensor([TEXT])
    arguments: dict[str, Any] = {
        "attributions": torch.rand(1, 5),
        "baselines": MASK,
        "additional_forward_args": torch.ones_like(ids),
        **options,
    }
    with pytest.raises(error, match=message):
        METRICS[metric](forward, ids, **arguments)


def test_a_tuple_of_several_inputs_is_refused() -> None:
    x = torch.ones(1, 3)
    with pytest.raises(InvalidInputError, match=r"attributions: .*got 2 for 2"):
        comprehensiveness(lambda a, b: a + b, (x, x), (x, x), target=0)
    model = LinearLogits([1.0, 2.0, 3.0], 0.0)
    convention = Convention(removal="mask")
    in_tuples = comprehensiveness(model, (x,), (x,), target=1, convention=convention)
    assert torch.equal(in_tuples, comprehensiveness(model, x, x, target=1, convention=convention))


def test_deleting_elements_of_floats_is_refused() -> None:
    model = LinearLogits([1.0, 2.0], 0.0)
    with pytest.raises(InvalidInputError, match=r"removal: 'delete' needs.*use 'mask'"):
        comprehensiveness(model, torch.ones(1, 2), torch.ones(1, 2), target=1)


def test_log_odds_need_probabilities() -> None:
    with pytest.raises(InvalidInputError, match=r"output: .*logarithm"):
        log_odds(lambda x: x.sum(dim=1), torch.ones(1, 2), torch.ones(1, 2))


def test_captums_own_metrics_are_there() -> None:
    assert metrics.infidelity is captum.metrics.infidelity
    assert metrics.sensitivity_max is captum.metrics.sensitivity_max
    assert set(metrics.__all__) <= set(dir(metrics))
