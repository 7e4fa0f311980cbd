"""What is explained: classes, several of them, contrasts, labels by themselves, values."""

from __future__ import annotations

import math
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from captum.attr import LayerIntegratedGradients

from captum_aml.exceptions import InvalidInputError
from captum_aml.maskers import EmbeddingMasker
from captum_aml.text import TextClassifier, TextExplainer
from tests._helpers.additive import additive_classifier

WORDS = {
    "glad": (2.0, 0.0, 0.5),
    "late": (0.0, 1.5, 0.0),
    "storm": (-1.0, 1.0, 0.25),
    "news": (0.5, 0.5, 0.5),
}
TEXT = "glad storm news late"


@pytest.fixture
def explainer() -> TextExplainer:
    return TextExplainer(*additive_classifier(WORDS))


def differences(fact: int, foil: int) -> list[float]:
    return [WORDS[word][fact] - WORDS[word][foil] for word in TEXT.split()]


class TestContrast:
    def test_contributions_to_the_difference_of_two_logits_are_exact(
        self, explainer: TextExplainer
    ) -> None:
        (found,) = explainer(TEXT, target=("LABEL_0", "LABEL_1"))
        assert found.scores == pytest.approx(differences(0, 1), abs=1e-5)
        assert (found.target, found.foil) == (0, 1)
        assert found.explained_label == "LABEL_0 rather than LABEL_1"
        said = "contribution to the logit of the explained class less that of the foil"
        assert found.score == said

    def test_it_is_of_either_order(self, explainer: TextExplainer) -> None:
        there, back = explainer([TEXT, TEXT], target=[(0, 2), (2, 0)])
        assert there.scores == pytest.approx([-score for score in back.scores], abs=1e-5)

    def test_by_tuning(self) -> None:
        found = TextExplainer(*additive_classifier(WORDS), method="aml-tuned")(TEXT, target=(0, 1))
        wanted = differences(0, 1)
        assert sum(found[0].scores) == pytest.approx(sum(wanted), abs=1e-3)
        assert np.argmax(found[0].scores) == np.argmax(wanted)

    @pytest.mark.parametrize("method", ["occlusion", "integrated-gradients", "kernel-shap"])
    def test_other_methods_explain_the_difference_itself(self, method: str) -> None:
        # However large: a probability made of it would be 1 with any word or without.
        large = {word: [100 * said for said in each] for word, each in WORDS.items()}
        found = TextExplainer(*additive_classifier(large), method=method)(TEXT, target=(0, 1))[0]
        assert found.scores == pytest.approx([100 * d for d in differences(0, 1)], abs=1e-3)

    def test_by_an_attribution_of_ones_own(self) -> None:
        model, tokenizer = additive_classifier(WORDS)
        classifier = TextClassifier(model, tokenizer)
        method = LayerIntegratedGradients(classifier, model.words)
        found = TextExplainer(classifier, method=method)(TEXT, target=(0, 1))[0]
        assert found.scores == pytest.approx(differences(0, 1), abs=1e-4)

    def test_by_a_fitted_masker(self) -> None:
        model, tokenizer = additive_classifier(WORDS)
        masker = EmbeddingMasker(feature_shapes=[(6, 3)], n_classes=3)
        texts = [" ".join(words) for words in permutations(WORDS)]
        explainer = TextExplainer(model, tokenizer).fit(texts, masker=masker, epochs=1)
        fact, foil, contrast = explainer(TEXT, target=[0, 1, (0, 1)])
        assert contrast.scores == pytest.approx(np.subtract(fact.scores, foil.scores), abs=1e-5)
        assert sum(contrast.scores) == pytest.approx(sum(differences(0, 1)), abs=1e-4)

    def test_by_a_masker_that_was_told_both(self, tmp_path: Path) -> None:
        model, tokenizer = additive_classifier(WORDS)
        masker = EmbeddingMasker(feature_shapes=[(6, 3)], n_classes=3)
        drawn = np.random.default_rng(0).choice(list(WORDS), size=(240, 4))
        told = TextExplainer(model, tokenizer).fit(
            [" ".join(words) for words in drawn],
            masker=masker,
            batch_size=16,
            epochs=10,
            learning_rate=0.02,
            contrasts=True,
        )
        told.save_pretrained(tmp_path)
        again = TextExplainer.from_pretrained(tmp_path, model, tokenizer)
        pairs = list(permutations(range(3), 2))
        for (fact, foil), found in zip(pairs, again(TEXT, target=pairs), strict=True):
            wanted = differences(fact, foil)
            assert np.corrcoef(found.scores, wanted)[0, 1] > 0.8
            assert sum(found.scores) == pytest.approx(sum(wanted), abs=1e-4)

    @pytest.mark.parametrize("target", [[], [[]], (0, 0), (0, 1, 2), (0, "happy"), (0, (1, 2))])
    def test_what_is_none(self, explainer: TextExplainer, target: object) -> None:
        with pytest.raises(InvalidInputError, match="target: expected"):
            explainer(TEXT, target=target)  # type: ignore[arg-type]


class TestSeveral:
    def test_all_of_them_as_one_by_one(self, explainer: TextExplainer) -> None:
        together = explainer([TEXT, "late"], target="all")
        alone = [explainer(TEXT, target=label)[0] for label in range(3)]
        assert [found.row for found in together] == [0, 0, 0, 1, 1, 1]
        for found, wanted in zip(together, alone, strict=False):
            assert found.target == wanted.target
            assert found.scores == pytest.approx(wanted.scores, abs=1e-6)

    def test_lists_of_any_length_with_contrasts_in_their_order(
        self, explainer: TextExplainer
    ) -> None:
        found = explainer([TEXT, "late", "news"], target=[[1, (0, 1), 0], [2], None])
        shown = [(each.row, each.target, each.foil) for each in found]
        assert shown[:4] == [(0, 1, None), (0, 0, 1), (0, 0, None), (1, 2, None)]
        assert found[1].scores == pytest.approx(differences(0, 1), abs=1e-5)
        assert found[4].target == found[4].predicted

    def test_a_list_for_one_text_is_of_several(self, explainer: TextExplainer) -> None:
        assert [found.target for found in explainer(TEXT, target=[2, 0])] == [2, 0]

    def test_too_few(self, explainer: TextExplainer) -> None:
        with pytest.raises(InvalidInputError, match="one for each of the 2 texts, got 3"):
            explainer([TEXT, "late"], target=[0, 1, 2])


class TestIndependentLabels:
    def test_each_label_by_itself(self) -> None:
        model, tokenizer = additive_classifier(WORDS, problem_type="multi_label_classification")
        found = TextExplainer(model, tokenizer)(TEXT)
        logits = [sum(column) for column in zip(*(WORDS[w] for w in TEXT.split()), strict=True)]
        likely = sorted((i for i, z in enumerate(logits) if z >= 0), key=lambda i: -logits[i])
        assert [each.target for each in found] == likely
        for each in found:
            wanted = [WORDS[word][each.target] for word in TEXT.split()]
            assert each.scores == pytest.approx(wanted, abs=1e-5)
            assert each.target_probability == pytest.approx(_sigmoid(logits[each.target]))
            assert (each.predicted, each.probability) == (each.target, each.target_probability)
            assert "logit" in each.score

    def test_the_likeliest_where_none_is_likely(self) -> None:
        model, tokenizer = additive_classifier(
            {"never": (-2.0, -1.0)}, problem_type="multi_label_classification"
        )
        (found,) = TextExplainer(model, tokenizer)("never")
        assert found.target == 1


class TestValues:
    def test_a_single_output_is_a_signed_value(self) -> None:
        words = {word: (said[0],) for word, said in WORDS.items()}
        model, tokenizer = additive_classifier(words)
        explainer = TextExplainer(model, tokenizer)
        (found,) = explainer(TEXT)
        assert found.scores == pytest.approx([words[word][0] for word in TEXT.split()], abs=1e-5)
        assert found.value == pytest.approx(sum(words[word][0] for word in TEXT.split()))
        assert found.probability is found.target_probability is None
        assert found.predicted_label == "score"
        assert "value" in found.score
        assert found == type(found).from_dict(found.to_dict())
        for shown in (found.to_html(), str(found.to_captum()), found.plot()):
            assert shown

    def test_of_a_pair(self) -> None:
        words = {word: (said[0],) for word, said in WORDS.items()}
        (found,) = TextExplainer(*additive_classifier(words))(("glad", "storm news"))
        assert found.scores == pytest.approx([2.0, -1.0, 0.5], abs=1e-5)

    def test_it_has_no_contrast(self) -> None:
        words = {word: (said[0],) for word, said in WORDS.items()}
        with pytest.raises(InvalidInputError, match="target: expected"):
            TextExplainer(*additive_classifier(words))(TEXT, target=("score", "score"))


def _sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))
