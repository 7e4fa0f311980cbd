"""Tokens grouped into words and sentences."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_aml.exceptions import InvalidInputError
from captum_aml.text import Text, grouping
from captum_aml.text.grouping import TokenGroups, group_tokens
from captum_aml.text.segmentation import word_spans

Span = tuple[int, int]


def given_text(
    text: str, parts: Sequence[Span] = (), given_words: Sequence[Span] | None = None
) -> Text:
    return Text(text, tuple(parts), None if given_words is None else tuple(given_words))


def group_text(
    text: str,
    offsets: Sequence[Span],
    unit: Any,
    *,
    parts: Sequence[Span] = (),
    given_words: Sequence[Span] | None = None,
    truncated: bool = False,
) -> TokenGroups:
    return grouping.group_text(
        given_text(text, parts, given_words), offsets, unit, truncated=truncated
    )


def unit_spans(
    text: str,
    unit: Any,
    *,
    parts: Sequence[Span] = (),
    given_words: Sequence[Span] | None = None,
    segmenter: Any = None,
) -> list[Span]:
    return grouping.unit_spans(given_text(text, parts, given_words), unit, segmenter)


class TestGroupTokens:
    @pytest.mark.parametrize(
        ("offsets", "units", "spans", "members"),
        [
            # Pieces of words.
            ([(0, 2), (2, 5), (6, 9)], [(0, 5), (6, 9)], [(0, 5), (6, 9)], [0, 0, 1]),
            # Tokens that begin with the space.
            ([(0, 5), (5, 9)], [(0, 5), (6, 9)], [(0, 5), (6, 9)], [0, 1]),
            # The bytes of one character, and offsets that overlap.
            ([(0, 1), (0, 1), (1, 3), (2, 3)], [(0, 1), (1, 3)], [(0, 1), (1, 3)], [0, 0, 1, 1]),
            # One token over two units, and over three.
            ([(0, 9), (9, 10)], [(0, 5), (6, 9), (9, 10)], [(0, 9), (9, 10)], [0, 1]),
            ([(0, 1), (0, 6), (5, 6)], [(0, 1), (2, 3), (4, 6)], [(0, 6)], [0, 0, 0]),
            # Outside of all units: on their own, except where they share characters.
            ([(0, 2), (2, 3), (2, 3), (3, 4)], [(0, 2)], [(0, 2), (2, 3), (3, 4)], [0, 1, 1, 2]),
            # Units without tokens.
            ([(6, 7)], [(0, 5), (6, 7), (8, 9)], [(6, 7)], [0]),
            # No characters: inside of a unit, and elsewhere.
            ([(1, 1), (2, 2)], [(0, 2)], [(0, 2), (2, 2)], [0, 1]),
            # Not in the order of the text.
            ([(6, 9), (0, 5)], [(0, 5), (6, 9)], [(0, 5), (6, 9)], [1, 0]),
            ([], [(0, 5)], [], []),
            ([(0, 1), (3, 4)], [], [(0, 1), (3, 4)], [0, 1]),
        ],
    )
    def test_groups(
        self, offsets: list[Span], units: list[Span], spans: list[Span], members: list[int]
    ) -> None:
        groups = group_tokens(offsets, units)
        assert (list(groups.spans), list(groups.members)) == (spans, members)

    @settings(max_examples=300, deadline=None)
    @given(st.data())
    def test_tokens_are_together_when_a_chain_of_overlaps_joins_them(
        self, data: st.DataObject
    ) -> None:
        borders = data.draw(st.lists(st.integers(0, 12), unique=True, max_size=8).map(sorted))
        units = [u for u in itertools.pairwise(borders) if data.draw(st.booleans())]
        span = st.tuples(st.integers(0, 12), st.integers(1, 4)).map(lambda t: (t[0], sum(t)))
        offsets = data.draw(st.lists(span, max_size=8))
        groups = group_tokens(offsets, units)

        # A plain search: two tokens touch where they overlap the same unit, or, outside of all
        # units, each other.
        overlap = [{u for u in units if u[0] < o[1] and o[0] < u[1]} for o in offsets]
        group = list(range(len(offsets)))
        for _ in offsets:
            for i, j in itertools.combinations(range(len(offsets)), 2):
                outside = not overlap[i] and not overlap[j]
                share = offsets[i][0] < offsets[j][1] and offsets[j][0] < offsets[i][1]
                if overlap[i] & overlap[j] or (outside and share):
                    old, new = group[j], group[i]
                    group = [new if g == old else g for g in group]
        for i, j in itertools.combinations(range(len(offsets)), 2):
            assert (groups.members[i] == groups.members[j]) == (group[i] == group[j])
        assert list(groups.spans) == sorted(groups.spans)


class TestGroupText:
    def test_white_space_goes_with_the_next_token(self) -> None:
        groups = group_text("a  film !", [(0, 1), (1, 2), (2, 7), (7, 8), (8, 9)], "word")
        assert groups.spans == ((0, 1), (3, 7), (8, 9))
        assert groups.members == (0, 1, 1, 2, 2)

    def test_white_space_at_the_end_goes_with_the_token_before(self) -> None:
        assert group_text("a \n", [(0, 1), (1, 2), (2, 3)], "word").members == (0, 0, 0)

    def test_a_token_without_characters_goes_with_the_next(self) -> None:
        groups = group_text("电影", [(0, 0), (0, 1), (1, 2)], "word")
        assert (groups.spans, groups.members) == (((0, 1), (1, 2)), (0, 0, 1))

    def test_nothing_but_white_space(self) -> None:
        groups = group_text(" \n", [(0, 1), (1, 2)], "word")
        assert (groups.spans, groups.members) == (((0, 1), (1, 2)), (0, 1))
        assert group_text("", [], "sentence").spans == ()

    def test_the_texts_of_a_pair_stay_apart(self) -> None:
        # Together they were one sentence, and the last space were the second text's.
        text = "it goes \non and on"
        offsets = [(0, 2), (3, 7), (7, 8), (9, 11), (12, 15), (16, 18)]
        groups = group_text(text, offsets, "sentence", parts=[(0, 8), (9, 18)])
        assert groups.spans == ((0, 7), (9, 18))
        assert groups.members == (0, 0, 0, 1, 1, 1)

    def test_words_that_were_given(self) -> None:
        text = "New York is n't big."
        given_words = [(0, 8), (9, 11), (12, 15), (16, 20)]
        offsets = [(0, 3), (4, 8), (9, 11), (12, 13), (13, 15), (16, 19), (19, 20)]
        groups = group_text(text, offsets, "word", given_words=given_words)
        assert groups.spans == tuple(given_words)
        assert groups.members == (0, 0, 1, 2, 2, 3, 3)

    def test_no_sentence_cuts_a_given_word(self) -> None:
        text = "See Who? Me! now. Yes."
        spans = unit_spans(text, "sentence", given_words=[(0, 3), (4, 12), (13, 17), (18, 22)])
        assert [text[start:end] for start, end in spans] == ["See Who? Me!", "now.", "Yes."]

    def test_what_was_cut_off_ends_the_last_unit(self) -> None:
        text = "One. Two goes on cafe\u0301s."
        offsets = [(0, 3), (3, 4), (5, 8), (9, 13), (14, 16), (17, 21)]
        cut = group_text(text, offsets, "sentence", truncated=True)
        assert [text[start:end] for start, end in cut.spans] == ["One.", "Two goes on cafe\u0301"]
        whole = group_text(text, offsets, "sentence")
        assert whole.spans[-1] == (5, len(text))

    def test_what_was_cut_off_of_both_texts(self) -> None:
        text = "one two three\nfour five"
        offsets = [(0, 3), (4, 7), (14, 18)]
        cut = group_text(text, offsets, "sentence", parts=[(0, 13), (14, 23)], truncated=True)
        assert cut.spans == ((0, 7), (14, 18))

    def test_what_was_cut_off_at_the_beginning(self) -> None:
        cut = group_text("one two. Three", [(4, 7), (7, 8), (9, 14)], "sentence", truncated=True)
        assert cut.spans == ((4, 8), (9, 14))

    def test_many_tokens_over_many_units(self) -> None:
        # Each token reaches over a thousand words, all of which become one.
        text = "a " * 100_000
        offsets = [(i, min(len(text), i + 2000)) for i in range(0, len(text), 10)]
        assert len(group_text(text, offsets, "word").spans) == 1


class TestSegmenter:
    def test_is_used_for_each_text_of_a_pair(self) -> None:
        seen: list[str] = []

        def halves(text: str) -> list[Span]:
            seen.append(text)
            return [(0, 2), (2, 4)]

        assert unit_spans("abcd\nefgh", "word", parts=[(0, 4), (5, 9)], segmenter=halves) == [
            (0, 2), (2, 4), (5, 7), (7, 9),
        ]  # fmt: skip
        assert seen == ["abcd", "efgh"]

    def test_white_space_is_taken_off_and_what_is_left_out_is_split(self) -> None:
        spans = unit_spans("ab  cd, ef!", "word", segmenter=lambda _: [(0, 4), (4, 6), (7, 10)])
        assert spans == [(0, 2), (4, 6), (6, 7), (8, 10), (10, 11)]

    def test_comes_before_given_words(self) -> None:
        spans = unit_spans("ab cd", "word", given_words=[(0, 5)], segmenter=word_spans)
        assert spans == [(0, 2), (3, 5)]

    @pytest.mark.parametrize(
        ("result", "message"),
        [
            ([(0, 2), (1, 3)], r"none overlapping.*got \(1, 3\) after \(0, 2\)"),
            ([(2, 3), (0, 1)], r"in order.*got \(0, 1\)"),
            ([(0, 99)], r"within the text's 5 characters, got \(0, 99\)"),
            ([(-1, 2)], r"got \(-1, 2\)"),
            ([(2, 1)], r"got \(2, 1\)"),
            (["ab", "cd"], r"spans \(start, end\) of integers, got 'ab'"),
            ([(0, 1, 2)], r"got \(0, 1, 2\)"),
            ([(0.0, 1.0)], r"got \(0\.0, 1\.0\)"),
            ([3], "got 3"),
            (None, "got NoneType"),
        ],
    )
    def test_bad_spans(self, result: object, message: str) -> None:
        with pytest.raises(InvalidInputError, match=f"segmenter: .*{message}"):
            unit_spans("ab cd", "word", segmenter=lambda _: result)

    def test_no_function(self) -> None:
        with pytest.raises(InvalidInputError, match=r"segmenter: expected a function .* got int"):
            unit_spans("ab cd", "word", segmenter=3)

    @pytest.mark.parametrize("unit", ["token", "paragraph", None])
    def test_unknown_unit(self, unit: str) -> None:
        with pytest.raises(InvalidInputError, match="unit: expected 'word' or 'sentence', got"):
            unit_spans("ab cd", unit)
