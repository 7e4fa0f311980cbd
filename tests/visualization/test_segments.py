"""Coloured and plain stretches of a text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_aml.visualization import ScoredText
from captum_aml.visualization.segments import printable, segments
from tests._helpers.cards import scored


class TestSegments:
    def test_joined_they_are_the_text(self) -> None:
        text = "  a  gripping\nfilm ! "
        parts = segments(text, scored(text, [0.1, 0.9, 0.2, 0.0]))
        assert "".join(part.text for part in parts) == text
        tokens = [(part.text, part.score) for part in parts if part.kind == "token"]
        assert tokens == [("a", 0.1), ("gripping", 0.9), ("film", 0.2), ("!", 0.0)]

    def test_pieces_of_a_word_touch(self) -> None:
        row = ScoredText("m", [(0, 4), (4, 5), (5, 8)], [0.1, 0.2, 0.3])
        assert [part.text for part in segments("gripping", row)] == ["grip", "p", "ing"]

    def test_bytes_of_one_character_become_one_with_the_strongest_score(self) -> None:
        row = ScoredText("m", [(0, 1), (1, 2), (1, 2), (1, 2)], [0.1, 0.2, -0.5, 0.4], signed=True)
        parts = segments("a🎬", row)
        assert [(part.text, part.score) for part in parts] == [("a", 0.1), ("🎬", -0.5)]

    @pytest.mark.parametrize(
        "character",
        [
            "e\u0301",
            "👍🏽",
            "👩\u200d👧",
            "❤\ufe0f",
            "🇩🇪",
            "क\u093f",
            "क्षि",
            "น้ำ",
            "\u1112\u1161\u11ab",
        ],
    )
    def test_what_reads_as_one_character_is_not_torn(self, character: str) -> None:
        offsets = [(i, i + 1) for i in range(len(character))]
        row = ScoredText("m", offsets, [0.1] * (len(character) - 1) + [0.7])
        assert [(p.text, p.score) for p in segments(character, row)] == [(character, 0.7)]

    def test_neighbours_of_what_reads_as_one_character_stay_apart(self) -> None:
        row = ScoredText("m", [(i, i + 1) for i in range(6)], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
        parts = segments("🇩🇪🇫🇷e\u0301", row)
        assert [(p.text, p.score) for p in parts] == [("🇩🇪", 0.2), ("🇫🇷", 0.4), ("e\u0301", 0.6)]

    def test_an_accent_without_a_token_stays_with_its_letter(self) -> None:
        row = ScoredText("m", [(0, 1), (2, 3)], [0.1, 0.2])
        parts = segments("e\u0301a", row)
        assert [(p.text, p.score) for p in parts] == [("e\u0301", 0.1), ("a", 0.2)]

    def test_empty_spans_are_passed_over(self) -> None:
        row = ScoredText("m", [(0, 0), (0, 1)], [0.9, 0.2])
        assert [(part.text, part.score) for part in segments("a", row)] == [("a", 0.2)]

    def test_mask_values_are_shown_as_they_are(self) -> None:
        parts = segments("a b", scored("a b", [0.1, 0.2]))
        assert [part.strength for part in parts if part.kind == "token"] == [0.1, 0.2]

    def test_signed_scores_are_relative_to_the_largest(self) -> None:
        parts = segments("a b", scored("a b", [0.01, -0.02], signed=True))
        assert [part.strength for part in parts if part.kind == "token"] == [0.5, -1.0]

    def test_scores_of_zero_only(self) -> None:
        parts = segments("a b", scored("a b", [0.0, 0.0], signed=True))
        assert [part.strength for part in parts if part.kind == "token"] == [0.0, 0.0]

    def test_what_the_model_did_not_see_is_set_apart(self) -> None:
        row = ScoredText("m", [(0, 1), (2, 3)], [0.5, 0.5])
        parts = segments("a b c d", row, seen=3)
        assert [(p.text, p.kind) for p in parts][-1] == (" c d", "unseen")

    @settings(max_examples=200, deadline=None)
    @given(st.data())
    def test_any_spans_give_back_the_text(self, data: st.DataObject) -> None:
        text = data.draw(st.text(max_size=30))
        borders = st.integers(0, len(text))
        spans = data.draw(st.lists(st.tuples(borders, borders).map(sorted).map(tuple), max_size=8))
        scores = data.draw(st.lists(st.floats(-1, 1), min_size=len(spans), max_size=len(spans)))
        row = ScoredText("m", spans, scores, signed=True)
        parts = segments(text, row, seen=data.draw(st.none() | borders))
        assert "".join(part.text for part in parts) == printable(text)
        assert all(part.text and -1 <= part.strength <= 1 for part in parts)
