"""Sentences first, then words inside the highest of them."""

from __future__ import annotations

import math

import pytest
from torch import Tensor
from transformers.modeling_outputs import SequenceClassifierOutput

from captum_aml import methods
from captum_aml.exceptions import InvalidInputError
from captum_aml.text import Explanation, TextClassifier, TextExplainer
from captum_aml.text.inputs import Text
from captum_aml.text.nesting import completed, highest, nest
from tests._helpers.additive import AdditiveForSequenceClassification, additive_classifier
from tests._helpers.methods import all_names, few
from tests._helpers.text_models import bert_classifier, word_piece_tokenizer

WEIGHTS = {"good": 3.0, "bad": -2.0, "great": 4.0, "awful": -1.5, "fine": 0.5, "film": 0.25}
DOCUMENT = "A good film. It was fine. The plot: great, but bad! An awful end."
# Of the words as they come: sentences are 3.25, 0.5, 2 and -1.5.
BY_HAND = {
    1: [("A", 0), ("good", 3), ("film", 0.25), (".", 0), ("It was fine.", 0.5),
        ("The plot: great, but bad!", 2), ("An awful end.", -1.5)],
    2: [("A", 0), ("good", 3), ("film", 0.25), (".", 0), ("It was fine.", 0.5),
        ("The", 0), ("plot", 0), (":", 0), ("great", 4), (",", 0), ("but", 0), ("bad", -2),
        ("!", 0), ("An awful end.", -1.5)],
}  # fmt: skip


class Squared(AdditiveForSequenceClassification):
    """The square of the sum: what words contribute depends on the others."""

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None
    ) -> SequenceClassifierOutput:
        return SequenceClassifierOutput(
            logits=super().forward(input_ids, attention_mask).logits ** 2
        )


def explained(method: str, text: object = DOCUMENT, **options: object) -> Explanation:
    model, tokenizer = additive_classifier({word: [w] for word, w in WEIGHTS.items()})
    unit = options.pop("unit", "sentence+word")
    explainer = TextExplainer(model, tokenizer, method=method, unit=unit, **options)  # type: ignore[arg-type]
    return explainer(text)[0]  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["aml", "ig", "occlusion"])
@pytest.mark.parametrize("n_sentences", [1, 2])
def test_words_of_the_highest_sentences_by_hand(method: str, n_sentences: int) -> None:
    found = explained(method, n_sentences=n_sentences)
    tokens, scores = zip(*BY_HAND[n_sentences], strict=True)
    assert found.tokens == tokens
    assert found.scores == pytest.approx(scores, abs=1e-4)
    assert found.unit == "sentence+word"
    assert found.settings["n_sentences"] == n_sentences
    assert found.value == pytest.approx(math.fsum(scores))
    by_sentence = [each.score for each in found.sentences("sum")]
    assert by_sentence == pytest.approx([3.25, 0.5, 2, -1.5], abs=1e-4)
    assert Explanation.from_dict(found.to_dict()) == found
    with pytest.raises(InvalidInputError, match="words: expected scores of tokens or words"):
        found.words()


def test_the_rest_of_the_text_is_kept_as_it_is() -> None:
    # The value is the square of the sum: without what is kept, each word would count for less.
    words = {"good": [3.0], "great": [4.0], "fine": [1.0]}
    model, tokenizer = additive_classifier(words)
    model = Squared(model.config, model.words.weight)
    explainer = TextExplainer(
        model, tokenizer, method="occlusion", unit="sentence+word", n_sentences=1
    )
    found = explainer("good great. fine.")[0]
    # Sentences: 64 - 1 = 63 and 64 - 49 = 15. Words: 64 - 25 = 39 and 64 - 16 = 48, full stop 0,
    # 87 together, so that -24 are shared out by their sizes.
    assert found.tokens == ("good", "great", ".", "fine.")
    assert found.scores == pytest.approx([39 - 24 * 39 / 87, 48 - 24 * 48 / 87, 0, 15], abs=1e-4)


@pytest.mark.parametrize("name", all_names())
def test_every_method_adds_up_to_its_sentences(name: str) -> None:
    classifier = TextClassifier(bert_classifier(60), word_piece_tokenizer())
    texts = ["the plot was slow. a gripping film, great! not bad.", "", "good", ("a film.", "bad!")]
    whole = TextExplainer(classifier, method=name, n_steps=few(name), unit="sentence")
    inside = TextExplainer(
        classifier, method=name, n_steps=few(name), unit="sentence+word", n_sentences=2
    )
    for one, two in zip(whole(texts), inside(texts), strict=True):
        pooling = (
            "sum" if methods.score_meaning(inside._method, methods.spec(name)).signed else "max"
        )
        got = [each.score for each in two.sentences(pooling)]
        size = sum(map(abs, two.scores))
        assert got == pytest.approx(list(one.scores), abs=1e-5 * max(1.0, size)), name
        opened = set(highest(one.scores, 2))
        for number, span in enumerate(one.offsets):
            units = [o for o in two.offsets if span[0] <= o[0] and o[1] <= span[1]]
            assert (units == [span]) is (number not in opened or len(units) == 1)


def test_targets_and_contrasts_have_their_own_sentences() -> None:
    model, tokenizer = additive_classifier({word: [0.0, w] for word, w in WEIGHTS.items()})
    explainer = TextExplainer(
        model, tokenizer, method="ig", unit="sentence+word", n_sentences=1, n_steps=4
    )
    found = explainer(DOCUMENT, target=["LABEL_0", "LABEL_1", ("LABEL_1", "LABEL_0")])
    assert [each.target for each in found] == [0, 1, 1]
    one, two, contrast = found
    assert two.scores == pytest.approx([-score for score in one.scores], abs=1e-6)
    assert contrast.tokens == tuple(token for token, _ in BY_HAND[1])


def test_options_of_units() -> None:
    given = explained("occlusion", [["a good", "film.", "bad", "film!"]], n_sentences=1)
    assert given.tokens == ("a good", "film.", "bad film!")
    halves = explained(
        "occlusion", "a good film. bad!", n_sentences=1, segmenter=lambda text: [(0, 6), (7, 12)]
    )
    assert halves.tokens == ("a good", "film.", "bad!")
    with pytest.raises(InvalidInputError, match="n_sentences: expected"):
        explained("occlusion", n_sentences=0)


def test_a_masker_is_fitted_on_words() -> None:
    model = bert_classifier(60)
    explainer = TextExplainer(model, word_piece_tokenizer(), unit="sentence+word", n_sentences=1)
    explainer.fit(["good film. bad plot."] * 2, epochs=1, n_subsets=2)
    found = explainer("good film. bad plot.")[0]
    assert len(found.tokens) == 4
    assert found.settings["n_steps"] == 0


class TestGroups:
    def test_no_sentence_cuts_a_word(self) -> None:
        text = Text("ab. Cd ef", (), None)
        groups = nest(text, [(0, 2), (2, 3), (4, 6), (7, 9)], segmenter=lambda _: [(2, 6), (7, 9)])
        assert groups.words.spans == ((0, 2), (2, 6), (7, 9))
        assert groups.parents == (0, 0, 0)
        assert groups.sentences.spans == ((0, 9),)

    def test_opened(self) -> None:
        text = Text("Ab cd. Ef.", (), None)
        groups = nest(text, [(0, 2), (3, 5), (5, 6), (7, 9), (9, 10)])
        assert groups.opened([]) == groups.sentences
        assert groups.opened([0, 1]) == groups.words
        assert groups.opened([1]).spans == ((0, 6), (7, 9), (9, 10))
        assert groups.opened([1]).members == (0, 0, 0, 1, 2)

    @pytest.mark.parametrize(
        ("words", "sentence", "signed", "scores"),
        [
            ([1.0, -1.0], 3.0, True, [2.5, 0.5]),  # the sum 0 is no divisor
            ([0.0, 0.0], 3.0, True, [1.5, 1.5]),
            ([0.2, 0.4], 0.8, False, [0.4, 0.8]),
            ([0.0, 0.0], 0.8, False, [0.8, 0.8]),
        ],
    )
    def test_completed(
        self, words: list[float], sentence: float, signed: bool, scores: list[float]
    ) -> None:
        assert completed(words, sentence, signed=signed) == pytest.approx(scores)

    def test_highest_goes_by_size_and_then_by_order(self) -> None:
        assert highest([1.0, -3.0, 3.0, 2.0], 2) == (1, 2)
        assert highest([1.0], 3) == (0,)
