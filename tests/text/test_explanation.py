"""The explanation as a value, and what it gives to Captum and to pages."""

from __future__ import annotations

import json
import pickle
import sys
from dataclasses import FrozenInstanceError, replace

import pytest
from captum.attr import visualization as captum_visualization

from captum_aml.exceptions import InvalidInputError
from captum_aml.text import Explanation, text_card
from tests._helpers.text_models import EXPLANATION as MASKED


def test_top_shows_the_text_as_written() -> None:
    assert MASKED.top(2) == [("good", 0.95), ("believ", 0.9)]


def test_top_breaks_ties_by_position_and_stops_at_the_last_token() -> None:
    assert [token for token, _ in MASKED.top(9)] == ["good", "believ", "Un", "ably", "!"]
    assert MASKED.top(0) == []


def test_top_puts_signed_scores_in_order_of_value() -> None:
    signed = replace(MASKED, scores=(-0.9, 0.1, -0.2, 0.3, 0.0), signed=True)
    assert [token for token, _ in signed.top(2)] == ["good", "believ"]


def test_top_of_a_negative_number() -> None:
    with pytest.raises(InvalidInputError, match="k: expected 0 or more, got -1"):
        MASKED.top(-1)


def test_dictionary_survives_json() -> None:
    again = json.loads(json.dumps(MASKED.to_dict(), allow_nan=False))
    assert again["offsets"][1] == [2, 8]
    assert again["settings"] == {"n_steps": 50, "masker": None}
    assert (again["predicted"], again["explained_label"]) == (1, "negative")
    fields = {**again, "tokens": tuple(again["tokens"]), "scores": tuple(again["scores"])}
    fields["offsets"] = tuple(map(tuple, again["offsets"]))
    assert Explanation(**fields) == MASKED


def test_is_a_value() -> None:
    assert pickle.loads(pickle.dumps(MASKED)) == MASKED
    assert len({MASKED, replace(MASKED)}) == 1
    with pytest.raises(FrozenInstanceError):
        MASKED.method = "ig"


def test_is_small() -> None:
    # Strings and numbers alone: a token costs a few hundred bytes, an embedding costs thousands.
    size = sum(
        sys.getsizeof(part)
        for field in (MASKED.tokens, MASKED.offsets, MASKED.scores)
        for part in (field, *field)
    )
    assert size / len(MASKED.tokens) < 400
    for value in vars(MASKED).values():
        assert isinstance(value, str | int | float | tuple | dict | None)


class TestCaptumRecord:
    def test_mask_values_stay_as_they_are(self) -> None:
        record = MASKED.to_captum(true_class="positive")
        assert record.word_attributions.tolist() == pytest.approx(MASKED.scores)
        assert (record.pred_prob, record.pred_class) == (0.97, "positive")
        assert (record.attr_class, record.true_class) == ("negative", "positive")
        assert record.attr_score == pytest.approx(2.05)

    def test_signed_scores_use_captums_whole_scale(self) -> None:
        signed = replace(MASKED, scores=(-0.02, 0.01, 0.0, 0.0, 0.0), signed=True)
        record = signed.to_captum()
        assert record.word_attributions.tolist() == pytest.approx([-1.0, 0.5, 0, 0, 0])
        assert record.attr_score == pytest.approx(-0.01)

    def test_what_captum_would_run_is_escaped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        evil = "<img src=x onerror=alert(1)>"
        explanation = replace(
            MASKED, tokens=("<script>", evil, "&", "good", "\x00"), predicted_label=evil
        )
        shown: list[str] = []
        monkeypatch.setattr(captum_visualization, "HAS_IPYTHON", True)
        monkeypatch.setattr(captum_visualization, "HTML", shown.append, raising=False)
        monkeypatch.setattr(captum_visualization, "display", lambda *_: None, raising=False)
        captum_visualization.visualize_text([explanation.to_captum(true_class=evil)])
        assert "<script" not in shown[0]
        assert "<img" not in shown[0]
        assert "&lt;img src=x onerror=alert(1)&gt;" in shown[0]

    def test_no_tokens(self) -> None:
        empty = replace(MASKED, text="", tokens=(), offsets=(), scores=(), signed=True)
        assert empty.to_captum().word_attributions.tolist() == []


class TestCard:
    def test_one_row_for_each_method(self) -> None:
        card = text_card([MASKED, replace(MASKED, method="ig", signed=True)])
        assert [row.method for row in card.rows] == ["aml", "ig"]
        assert (card.predicted, card.probability, card.seen) == ("positive", 0.97, None)

    def test_says_where_the_model_stopped_reading(self) -> None:
        cut = replace(MASKED, tokens=MASKED.tokens[:3], offsets=MASKED.offsets[:3], n_tokens_cut=2)
        cut = replace(cut, scores=MASKED.scores[:3])
        assert cut.truncated
        assert text_card([cut]).seen == 12

    @pytest.mark.parametrize("texts", [[], ["a", "b"]])
    def test_needs_explanations_of_one_text(self, texts: list[str]) -> None:
        with pytest.raises(InvalidInputError, match="all of the same text"):
            text_card([replace(MASKED, text=text) for text in texts])
