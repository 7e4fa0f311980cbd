"""Agreement with rationales: by hand, by naive loops, by scikit-learn, and what must not matter."""

from __future__ import annotations

import builtins
import importlib.util
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import auc, average_precision_score, f1_score, precision_recall_curve
from torch import Tensor

from captum_aml.exceptions import InvalidInputError, NonFiniteError
from captum_aml.metrics.plausibility import (
    auprc,
    average_precision,
    iou_f1,
    rationale_labels,
    rationale_spans,
    recall_at_k,
    token_f1,
)

DOUBLE = torch.float64
METRICS = [auprc, average_precision, token_f1, iou_f1, recall_at_k]
#: scikit-learn takes about a millisecond for a curve, and each property is checked for each metric.
FEW = settings(max_examples=8)
AREAS = [auprc, average_precision]
AT_R = [token_f1, iou_f1, recall_at_k]


def one(scores: list[float], labels: list[int]) -> tuple[Tensor, Tensor]:
    return torch.tensor([scores], dtype=DOUBLE), torch.tensor([labels])


def batch(seed: int, n: int = 4, length: int = 9) -> tuple[Tensor, Tensor, Tensor]:
    """Scores with many ties, rationales of any size, and positions that count or do not."""
    g = torch.Generator().manual_seed(seed)
    scores = torch.randint(-3, 4, (n, length), generator=g).to(DOUBLE)
    labels = torch.rand(n, length, generator=g) < torch.rand(n, 1, generator=g)
    tokens = torch.rand(n, length, generator=g) < 0.8
    return scores, labels, tokens


def close(actual: Tensor, expected: Tensor | list[float]) -> None:
    torch.testing.assert_close(
        actual, torch.as_tensor(expected, dtype=actual.dtype), equal_nan=True
    )


# --- naive references: one example, its tokens already selected, exact fractions


def curve(scores: list[float], labels: list[bool]) -> list[tuple[Fraction, Fraction]]:
    """Recall and precision of all tokens at or above each distinct score, from (0, 1)."""
    points = [(Fraction(0), Fraction(1))]
    for threshold in sorted(set(scores), reverse=True):
        chosen = [y for s, y in zip(scores, labels, strict=True) if s >= threshold]
        points.append((Fraction(sum(chosen), sum(labels)), Fraction(sum(chosen), len(chosen))))
    return points


def naive_auprc(scores: list[float], labels: list[bool]) -> float:
    points = curve(scores, labels)
    steps = pairwise(points)
    return float(sum((r1 - r0) * (p1 + p0) / 2 for (r0, p0), (r1, p1) in steps))


def naive_average_precision(scores: list[float], labels: list[bool]) -> float:
    points = curve(scores, labels)
    return float(sum((r1 - r0) * p1 for (r0, _), (r1, p1) in pairwise(points)))


def top(scores: list[float], k: int) -> set[int]:
    return set(sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:k])


def spans(places: set[int]) -> list[set[int]]:
    """Runs of neighbours, found by growing sets."""
    found: list[set[int]] = []
    for i in sorted(places):
        if found and i - 1 in found[-1]:
            found[-1].add(i)
        else:
            found.append({i})
    return found


def naive_iou_f1(predicted: set[int], gold: set[int]) -> float:
    """ERASER's definition for one document: hits over predictions, hits over truths, their F1."""
    best = [max(Fraction(len(p & g), len(p | g)) for g in spans(gold)) for p in spans(predicted)]
    hits = sum(iou >= Fraction(1, 2) for iou in best)
    precision, recall = Fraction(hits, len(spans(predicted))), Fraction(hits, len(spans(gold)))
    return float(2 * precision * recall / (precision + recall)) if hits else 0.0


# --- by hand


def test_areas_of_a_ranking_with_one_error_by_hand() -> None:
    # Ranked: in, out, in. Points (recall, precision): (0, 1), (1/2, 1), (1/2, 1/2), (1, 2/3).
    # Trapezoids: 1/2 * 1 + 0 + 1/2 * (1/2 + 2/3) / 2 = 19/24. Steps: 1/2 * 1 + 1/2 * 2/3 = 5/6.
    example = one([0.9, 0.8, 0.7], [1, 0, 1])
    close(auprc(*example), [19 / 24])
    close(average_precision(*example), [5 / 6])


def test_areas_of_tied_scores_by_hand() -> None:
    # The two tokens at 0.5 enter together: points (0, 1), (1/2, 1), (1, 2/3), then (1, 1/2).
    # Trapezoids: 1/2 + 1/2 * (1 + 2/3) / 2 = 11/12. Steps: 1/2 + 1/2 * 2/3 = 5/6.
    example = one([0.9, 0.5, 0.5, 0.1], [1, 0, 1, 0])
    close(auprc(*example), [11 / 12])
    close(average_precision(*example), [5 / 6])


def test_token_metrics_by_hand() -> None:
    # R = 3; ranked 3, 0, 5, 1, 2, 4, so {0, 3, 5} is predicted of {0, 1, 3}: two of three.
    example = one([0.8, 0.3, 0.2, 0.9, 0.1, 0.7], [1, 1, 0, 1, 0, 0])
    close(token_f1(*example), [2 / 3])
    close(recall_at_k(*example), [2 / 3])
    close(recall_at_k(*example, k=1), [1 / 3])
    close(recall_at_k(*example, k=4), [1.0])
    close(recall_at_k(*example, k=100), [1.0])


def test_iou_f1_by_hand() -> None:
    # Gold [0, 3) and [6, 7); the four best are 0, 1, 4, 8: predicted [0, 2), [4, 5), [8, 9).
    # [0, 2) against [0, 3): 2/3, a hit. The others touch nothing. Precision 1/3, recall 1/2,
    # F1 = 2 * 1/6 / (5/6) = 2/5.
    scores = [0.9, 0.8, 0.0, 0.0, 0.7, 0.0, 0.0, 0.0, 0.6]
    example = one(scores, [1, 1, 1, 0, 0, 0, 1, 0, 0])
    close(iou_f1(*example), [2 / 5])
    # At 0.7 the span of 2/3 is none.
    close(iou_f1(*example, threshold=0.7), [0.0])


def test_an_overlap_of_exactly_one_half_is_a_hit() -> None:
    # Gold [0, 2) and [5, 6); the three best are 0, 5 and 3: IOU 1/2, 1 and 0. Precision 2/3,
    # recall 2/2, F1 = 4/5; above 1/2 one hit is left: 1/3, 1/2, 2/5.
    example = one([0.9, 0.0, 0.0, 0.7, 0.0, 0.8], [1, 1, 0, 0, 0, 1])
    close(iou_f1(*example), [4 / 5])
    close(iou_f1(*example, threshold=0.51), [2 / 5])


def test_one_predicted_span_over_two_gold_spans_is_one_hit_at_most() -> None:
    # Gold [0, 3), [4, 5); the four best are [0, 4): IOU 3/4 with the first. One of one predicted,
    # one of two gold: F1 = 2 * 1/2 / (3/2) = 2/3.
    close(iou_f1(*one([4.0, 4.0, 4.0, 4.0, 0.0], [1, 1, 1, 0, 1])), [2 / 3])


def test_a_position_that_does_not_count_ends_a_span() -> None:
    # Without position 2 the rationale is [0, 2) and [3, 4); the three best are 0, 1, 4.
    # [0, 2) hits, [4, 5) does not: F1 = 2 * 1 / (2 + 2). Joined across the gap, the gold span would
    # be one of three tokens: 2 * 1 / (2 + 1).
    scores, labels = one([0.9, 0.8, 5.0, 0.1, 0.7], [1, 1, 1, 1, 0])
    tokens = torch.tensor([[True, True, False, True, True]])
    close(iou_f1(scores, labels, tokens), [1 / 2])


def test_equal_scores_rank_by_position() -> None:
    # The two first of four equal ones are chosen, although the rationale is elsewhere. A sort that
    # is not stable shows in long rows.
    labels = torch.zeros(1, 200, dtype=torch.long)
    labels[0, [0, 199]] = 1
    close(token_f1(torch.zeros(1, 200), labels), [1 / 2])
    labels[0, 0], labels[0, 1] = 0, 1
    close(recall_at_k(torch.zeros(1, 200), labels, k=2), [1 / 2])
    close(recall_at_k(torch.zeros(1, 200), labels, k=1), [0.0])


def test_negative_scores_rank_below_zero() -> None:
    example = one([-5.0, 0.1, 0.0], [0, 1, 0])
    for metric in METRICS:
        close(metric(*example), [1.0])


# --- identities


@FEW
@given(st.integers(0, 10_000))
def test_a_perfect_ranking_has_one_everywhere(seed: int) -> None:
    _, labels, _ = batch(seed)
    labels[:, 0], labels[:, 1] = True, False  # of both kinds
    noise = torch.rand(labels.shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)
    for metric in METRICS:
        close(metric(labels + 0.5 * noise, labels), torch.ones(len(labels)))


def test_the_worst_ranking_has_nothing_at_the_size_of_the_rationale() -> None:
    # R of 2 R + 1 tokens come last. AP = 1/2 (1/4 + 2/5) for R = 2.
    example = one([5.0, 4.0, 3.0, 2.0, 1.0], [0, 0, 0, 1, 1])
    for metric in AT_R:
        close(metric(*example), [0.0])
    close(average_precision(*example), [13 / 40])


@FEW
@given(st.integers(0, 10_000))
def test_constant_scores_have_the_areas_of_chance(seed: int) -> None:
    # One step to recall 1 at precision R / L: AP is that share, the trapezoid half way up to 1.
    _, labels, _ = batch(seed)
    labels[:, 0], labels[:, 1] = True, False
    share = labels.to(DOUBLE).mean(dim=1)
    scores = torch.full(labels.shape, 0.3, dtype=DOUBLE)
    close(average_precision(scores, labels), share)
    close(auprc(scores, labels), (1 + share) / 2)


# --- references


@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 5))
def test_naive_loops_give_the_same(seed: int, length: int, k: int) -> None:
    scores, labels, tokens = batch(seed, length=length)
    expected: dict[str, list[float]] = {name: [] for name in ("auprc", "ap", "f1", "iou", "recall")}
    for row, marked, here in zip(scores.tolist(), labels, tokens, strict=True):
        places = [i for i in range(length) if here[i]]
        s, y = [row[i] for i in places], [bool(marked[i]) for i in places]
        gold = {i for i in places if marked[i]}
        mixed = any(y) and not all(y)
        expected["auprc"].append(naive_auprc(s, y) if mixed else torch.nan)
        expected["ap"].append(naive_average_precision(s, y) if mixed else torch.nan)
        if not gold:
            for name in ("f1", "iou", "recall"):
                expected[name].append(torch.nan)
            continue
        predicted = {places[i] for i in top(s, len(gold))}
        expected["f1"].append(len(predicted & gold) / len(gold))
        expected["iou"].append(naive_iou_f1(predicted, gold))
        expected["recall"].append(len({places[i] for i in top(s, k)} & gold) / len(gold))
    close(auprc(scores, labels, tokens), expected["auprc"])
    close(average_precision(scores, labels, tokens), expected["ap"])
    close(token_f1(scores, labels, tokens), expected["f1"])
    close(iou_f1(scores, labels, tokens), expected["iou"])
    close(recall_at_k(scores, labels, tokens, k=k), expected["recall"])


def test_scikit_learn_gives_the_same() -> None:
    g = torch.Generator().manual_seed(5)
    scores = torch.randn(6, 30, generator=g, dtype=DOUBLE)
    labels = torch.rand(6, 30, generator=g) < 0.3
    rows = list(zip(scores.numpy(), labels.numpy(), strict=True))
    curves = [precision_recall_curve(y, s)[:2] for s, y in rows]
    close(auprc(scores, labels), [auc(r, p) for p, r in curves])
    close(average_precision(scores, labels), [average_precision_score(y, s) for s, y in rows])
    # Without ties, the top R are those at or above the R-th largest score.
    close(token_f1(scores, labels), [f1_score(y, s >= np.sort(s)[-y.sum()]) for s, y in rows])


# --- what must not matter


@pytest.mark.parametrize("metric", METRICS)
@FEW
@given(seed=st.integers(0, 10_000))
def test_examples_do_not_depend_on_each_other(metric: Any, seed: int) -> None:
    arguments = batch(seed)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(seed))
    together = metric(*arguments)
    close(metric(*(a[order] for a in arguments)), together[order])
    close(metric(*(a[:1] for a in arguments)), together[:1])


@pytest.mark.parametrize("metric", METRICS)
@FEW
@given(seed=st.integers(0, 10_000), left=st.integers(0, 3), right=st.integers(0, 3))
def test_padding_changes_nothing_whatever_it_holds(
    metric: Any, seed: int, left: int, right: int
) -> None:
    scores, labels, tokens = batch(seed)

    def padded(tensor: Tensor, value: float) -> Tensor:
        return torch.nn.functional.pad(tensor, (left, right), value=value)

    expected = metric(scores, labels, tokens)
    # Scores of padding may be NaN or lead the ranking, its labels may be those of padding.
    for score, label in ((torch.nan, -100), (99.0, 1)):
        actual = metric(padded(scores, score), padded(labels.long(), label), padded(tokens, False))
        close(actual, expected)


@pytest.mark.parametrize("metric", METRICS)
@FEW
@given(seed=st.integers(0, 10_000))
def test_rescaling_that_keeps_the_order_changes_nothing(metric: Any, seed: int) -> None:
    scores, labels, tokens = batch(seed)
    # Exact for these whole numbers: no tie is made or broken.
    assert torch.equal(
        metric(scores**3 - 7, labels, tokens).nan_to_num(-1),
        metric(scores, labels, tokens).nan_to_num(-1),
    )


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_labels_may_be_bools_or_integers(metric: Any, dtype: torch.dtype) -> None:
    scores, labels, tokens = batch(1)
    expected = metric(scores, labels, tokens)
    assert expected.isfinite().any()
    close(metric(scores, labels.to(dtype), tokens), expected)


@pytest.mark.parametrize("metric", METRICS)
def test_half_precision_gives_single_and_no_gradient(metric: Any) -> None:
    scores, labels, _ = batch(4)
    value = metric(scores.half().requires_grad_(), labels)
    assert value.dtype == torch.float32
    assert not value.requires_grad
    close(value, metric(scores, labels).float())


def test_the_arguments_stay_as_they_are() -> None:
    arguments = batch(2)
    copies = [a.clone() for a in arguments]
    for metric in METRICS:
        metric(*arguments)
    assert all(torch.equal(a, c) for a, c in zip(arguments, copies, strict=True))


# --- where there is no value


@pytest.mark.parametrize("metric", METRICS)
def test_an_example_without_rationale_has_no_value_and_disturbs_no_other(metric: Any) -> None:
    labels = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 0, 1]])
    # The third example's rationale does not count.
    tokens = torch.tensor([[True, True, True], [True, True, True], [True, True, False]])
    close(metric(torch.tensor([[3.0, 2.0, 1.0]] * 3), labels, tokens), [torch.nan, 1.0, torch.nan])


def test_with_every_token_in_the_rationale_only_the_areas_have_no_value() -> None:
    example = one([0.1, 0.4, 0.3, 0.2], [1, 1, 1, 1])
    for metric in AREAS:
        close(metric(*example), [torch.nan])
    for metric in AT_R:
        close(metric(*example), [1.0])
    close(recall_at_k(*example, k=1), [1 / 4])


# --- bad input


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"attributions": torch.ones(3)}, r"attributions: .*\(N, L\).* got .* shape \(3,\)"),
        ({"attributions": torch.ones(2, 3).int()}, "attributions: .* got torch.int32"),
        ({"rationales": [[1, 0, 0]] * 2}, "rationales: expected .* tensor, got list"),
        ({"rationales": torch.ones(2, 4).bool()}, r"rationales: .*\(2, 3\).* got \(2, 4\)"),
        ({"rationales": torch.ones(2, 3)}, "rationales: .* got torch.float32"),
        ({"rationales": torch.tensor([[0, 1, 2], [0, 1, -1]])}, r"0 or 1 .* got \[-1, 2\]"),
        ({"tokens": torch.ones(2, 3)}, "tokens: expected bool .* got torch.float32"),
        ({"tokens": torch.ones(1, 3).bool()}, r"tokens: .*\(2, 3\).* got .* shape \(1, 3\)"),
    ],
)
def test_wrong_arguments_are_named(metric: Any, changed: dict[str, Any], message: str) -> None:
    arguments = {
        "attributions": torch.rand(2, 3),
        "rationales": torch.tensor([[0, 1, 0], [1, 1, 0]]),
        "tokens": torch.ones(2, 3, dtype=torch.bool),
    }
    assert metric(**arguments).isfinite().all()
    with pytest.raises(InvalidInputError, match=message):
        metric(**{**arguments, **changed})


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("bad", [torch.nan, -torch.inf])
def test_a_score_that_is_not_finite_is_an_error(metric: Any, bad: float) -> None:
    with pytest.raises(NonFiniteError, match=r"attributions: .*rows \[0\]"):
        metric(*one([0.1, bad], [1, 0]))


@pytest.mark.parametrize("k", [0, -1, 1.5, True, "2"])
def test_k_is_a_positive_integer(k: Any) -> None:
    with pytest.raises(InvalidInputError, match="k: expected an integer of at least 1"):
        recall_at_k(*one([0.1, 0.2], [1, 0]), k=k)


@pytest.mark.parametrize("threshold", [0.49, 1.01, torch.nan, True, "0.5"])
def test_a_threshold_is_from_a_half_to_one(threshold: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"threshold: expected a number from 0.5 to 1"):
        iou_f1(*one([0.1, 0.2], [1, 0]), threshold=threshold)


@pytest.mark.parametrize("metric", AREAS)
def test_without_scikit_learn_the_error_says_what_to_install(
    metric: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ImportError, match=rf"{metric.__name__} needs scikit-learn.*captum-aml\[all"
    ):
        metric(*one([0.1, 0.2], [1, 0]))


def test_the_others_need_no_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    known = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        assert not name.startswith(("sklearn", "scipy"))
        return known(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    values = [metric(*one([0.1, 0.2], [1, 0])) for metric in AT_R]
    assert [v.item() for v in values] == [0.0, 0.0, 0.0]


# --- characters to tokens


def test_labels_of_a_text_by_hand() -> None:
    #   0123456789012345678
    #   A truly bad film!      marked: "truly bad", and the last two characters "m!"
    offsets = [(0, 0), (0, 1), (2, 7), (8, 9), (9, 11), (12, 16), (16, 17), (0, 0)]
    labels = rationale_labels(offsets, [(2, 11), (15, 17)], text_length=17)
    assert labels.dtype == torch.bool
    assert labels.tolist() == [False, False, True, True, True, True, True, False]


def test_ends_are_exclusive() -> None:
    offsets = [(0, 3), (3, 5), (5, 8)]
    assert rationale_labels(offsets, [(3, 5)]).tolist() == [False, True, False]
    assert rationale_labels(offsets, [(2, 6)]).tolist() == [True, True, True]
    assert rationale_labels(offsets, [(4, 5)]).tolist() == [False, True, False]


def test_tokens_without_characters_are_in_no_rationale() -> None:
    assert rationale_labels([(2, 2), (0, 4), (0, 0)], [(0, 4)]).tolist() == [False, True, False]


def test_without_spans_or_without_tokens_nothing_is_marked() -> None:
    assert rationale_labels([(0, 2), (2, 4)], []).tolist() == [False, False]
    assert rationale_labels([], [(0, 1)]).shape == (0,)


pairs = st.tuples(st.integers(0, 12), st.integers(0, 12)).map(lambda p: (min(p), max(p)))


@given(st.lists(pairs, max_size=6), st.lists(pairs.filter(lambda p: p[0] < p[1]), max_size=3))
def test_sets_of_characters_give_the_same(
    offsets: list[tuple[int, int]], marked: list[tuple[int, int]]
) -> None:
    characters = {c for span in marked for c in range(*span)}
    expected = [bool(characters & set(range(*token))) for token in offsets]
    assert rationale_labels(offsets, marked, text_length=12).tolist() == expected


def test_lists_arrays_and_tensors_are_pairs_too() -> None:
    expected = [True, False]
    assert rationale_labels([[0, 3], [3, 5]], [[1, 2]]).tolist() == expected
    offsets: Any = torch.tensor([[0, 3], [3, 5]])
    marked: Any = np.array([[1, 2]])
    assert rationale_labels(offsets, marked).tolist() == expected


@pytest.mark.parametrize(
    ("span", "message"),
    [
        ((-1, 2), r"spans\[1\] start: expected an integer of at least 0, got -1"),
        ((3, 3), r"spans\[1\]: expected a start below the end, got \(3, 3\)"),
        ((4, 3), r"spans\[1\]: expected a start below the end, got \(4, 3\)"),
        ((3, 6), r"spans\[1\]: .* text's length 5, got \(3, 6\)"),
        ((0.0, 2), r"spans\[1\] start: expected an integer .* got 0.0"),
        ((0, 2.5), r"spans\[1\] end: expected an integer .* got 2.5"),
        ((0, True), r"spans\[1\] end: expected an integer .* got True"),
        ((0, 1, 2), r"spans\[1\]: expected a start and an end, got \(0, 1, 2\)"),
        (7, r"spans\[1\]: expected a start and an end, got 7"),
    ],
)
def test_a_wrong_span_is_named(span: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        rationale_labels([(0, 5)], [(0, 5), span], text_length=5)


def test_wrong_offsets_and_lengths_are_named() -> None:
    with pytest.raises(InvalidInputError, match=r"offsets\[0\]: expected a start at or below"):
        rationale_labels([(3, 2)], [(0, 1)])
    with pytest.raises(InvalidInputError, match=r"offsets\[1\]: .* length 3, got \(2, 4\)"):
        rationale_labels([(0, 2), (2, 4)], [(0, 1)], text_length=3)
    with pytest.raises(InvalidInputError, match="text_length: expected an integer"):
        rationale_labels([(0, 2)], [(0, 1)], text_length=-1)


def test_without_a_length_the_end_of_a_span_is_free() -> None:
    assert rationale_labels([(0, 2)], [(1, 100)]).tolist() == [True]


def test_marks_of_words_are_spans_of_characters() -> None:
    text = "so  good,\tso\u00a0bad"  # a no-break space is white space
    assert rationale_spans(text, [0, 1, 1, 0]) == [(4, 12)]
    assert rationale_spans(text, (True, False, 0.0, 1)) == [(0, 2), (13, 16)]
    assert rationale_spans("", []) == []
    with pytest.raises(InvalidInputError, match="text's 4 words, got 3 numbers"):
        rationale_spans(text, [0, 1, 1])
    with pytest.raises(InvalidInputError, match=r"0 or 1 for each word, got 0\.5"):
        rationale_spans(text, [0, 1, 0.5, 1])
