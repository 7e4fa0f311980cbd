"""What legends say, and that every display has the same."""

from __future__ import annotations

from dataclasses import replace

import pytest

from captum_aml import methods
from captum_aml.visualization import ScoredText, TextCard, fragment, legend_text, page
from captum_aml.visualization.legend import EXPLAINED_CLASS, WHICH_CLASS, WHICH_FOIL, legends

LOGIT = "contribution to the logit of the explained class"
SIGNED = ScoredText("ig", [(0, 1)], [0.5], signed=True, target="positive", score=LOGIT)
MASK = ScoredText("aml", [(0, 1)], [0.5], target="positive", score="value of the mask")
NORM = ScoredText("saliency", [(0, 1)], [0.5], relative=True, target="positive", score="norm")


def card(*rows: ScoredText) -> TextCard:
    return TextCard("a", "positive", 0.9, rows)


class TestLine:
    def test_signed(self) -> None:
        assert legend_text([SIGNED], colored=True) == (
            "blue: for 'positive', orange, underlined: against it; "
            "score: contribution to the logit of 'positive'"
        )
        assert legend_text([SIGNED], colored=False) == (
            "*for 'positive'*, ~against it~, from half of the text's largest score on; "
            "score: contribution to the logit of 'positive'"
        )

    def test_masks_and_norms_take_no_side(self) -> None:
        assert legend_text([MASK], colored=True) == (
            "blue: important, from 0 to 1; score: value of the mask"
        )
        assert legend_text([NORM], colored=True) == (
            "blue: important, whether for or against; score: norm"
        )

    def test_nothing_is_said_of_scores_that_are_not_known(self) -> None:
        assert legend_text([replace(MASK, score="")], colored=True) == (
            "blue: important, from 0 to 1"
        )

    def test_several_classes_are_not_named(self) -> None:
        other = replace(SIGNED, target="negative")
        line, note = legend_text([SIGNED, other], colored=True).splitlines()
        assert line == (
            "blue: for the explained class, orange, underlined: against it; "
            "score: contribution to the logit of the explained class"
        )
        assert note == WHICH_CLASS
        # Scores that have nothing to do with a class need no note.
        of_none = [MASK, replace(MASK, target="negative")]
        assert legend_text(of_none, colored=True).count("\n") == 0

    def test_of_several_contrasts_says_what_a_foil_is(self) -> None:
        score = f"{LOGIT} less that of the foil"
        rows = [replace(SIGNED, foil=foil, score=score) for foil in ("negative", "neutral")]
        assert legend_text(rows, colored=True).splitlines()[1] == f"{WHICH_CLASS} {WHICH_FOIL}"

    def test_kinds_of_scores_are_told_by_their_methods(self) -> None:
        rows = [SIGNED, replace(SIGNED, method="lime", score="weight"), MASK]
        rows += [replace(SIGNED, method="deep-lift"), SIGNED]
        assert [legend.score for legend in legends(rows)] == [
            "score: value of the mask",
            "score: contribution to the logit of 'positive' (ig, deep-lift); weight (lime)",
        ]

    def test_no_label_can_steer_a_terminal(self) -> None:
        assert "\x1b" not in legend_text([replace(SIGNED, target="\x1b[2J")], colored=True)


class TestHtml:
    def test_has_the_same_words(self) -> None:
        (legend,) = legends([SIGNED])
        html = fragment(card(SIGNED)).replace("&#39;", "'")
        for said in (legend.low, legend.high, legend.score):
            assert said in html
        assert "against 'positive' (underlined)" in html
        assert WHICH_CLASS not in html

    def test_of_a_page_names_the_class_only_where_all_cards_are_known(self) -> None:
        # The legend is written before the cards that come after the first 50.
        few, many = ("".join(page([card(SIGNED)] * n, title="t")) for n in (49, 50))
        assert "for &#39;positive&#39;" in few
        assert "for &#39;positive&#39;" not in many
        assert f"for {EXPLAINED_CLASS}" in many
        assert WHICH_CLASS in many

    def test_what_is_against_the_class_is_underlined(self) -> None:
        row = replace(SIGNED, offsets=[(0, 1), (1, 2), (2, 3)], scores=[-0.1, -0.099, 1.0])
        html = fragment(TextCard("abc", "positive", 0.9, [row]))
        assert html.count('class="caml-n caml-strong"') == 1
        assert html.count('class="caml-n"') == 1


@pytest.mark.parametrize("name", methods.available())
def test_every_method_says_what_its_scores_are(name: str) -> None:
    entry = methods.spec(name)
    # Of learned methods the attribution says it, see the tests of instances.
    assert entry.score or entry.family == "learned"
    assert not (entry.signed and entry.relative), "signed scores are relative anyhow"
    assert entry.family in ("attention", "random", "learned") or EXPLAINED_CLASS in entry.score
