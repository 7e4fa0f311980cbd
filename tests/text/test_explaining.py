"""Streams of texts in, explanations out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count, islice
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from captum_aml import AMLAttribution, LAAttribution, methods
from captum_aml.exceptions import InvalidInputError, NonFiniteError
from captum_aml.text import Explanation, TextClassifier, TextExplainer
from tests._helpers.methods import all_names
from tests._helpers.text_models import bert_classifier, byte_level_tokenizer, word_piece_tokenizer

TEXTS = [
    "a good film",
    "the plot is not very good , but the actor is great !",
    "",
    "unbelievable 🎬 映画",
    "<script>alert(1)</script>",
    "   ",
    "bad",
]


@pytest.fixture(scope="module")
def classifier() -> TextClassifier:
    return TextClassifier(bert_classifier(60), word_piece_tokenizer())


def explain(
    classifier: TextClassifier,
    texts: Iterable[str],
    *,
    target: int | str | None = None,
    show_progress: bool = False,
    **options: Any,
) -> Iterator[Explanation]:
    """The explanations of a stream of texts."""
    explainer = TextExplainer(classifier, **options)
    return explainer.stream(texts, target=target, show_progress=show_progress)


def steps(name: str) -> int | None:
    return None if methods.spec(name).steps is None else 6


@pytest.mark.parametrize("name", all_names())
def test_order_and_scores_do_not_depend_on_batches(classifier: TextClassifier, name: str) -> None:
    def run(texts: list[str], batch_size: int) -> list[tuple[str, tuple[float, ...]]]:
        explanations = explain(
            classifier, texts, method=name, n_steps=steps(name), batch_size=batch_size
        )
        return [(e.text, e.scores) for e in explanations]

    together = run(TEXTS, 4)
    assert [text for text, _ in together] == TEXTS
    for text, scores in together:
        ((_, alone),) = run([text], 1)
        assert scores == pytest.approx(alone, abs=1e-4)
    assert max(abs(s) for _, scores in together for s in scores) > 1e-3


def test_explains_what_the_model_predicts(classifier: TextClassifier) -> None:
    probabilities = classifier.predict(TEXTS)
    for row, explanation in enumerate(explain(classifier, TEXTS, method="occlusion")):
        predicted = int(probabilities[row].argmax())
        assert (explanation.predicted, explanation.target) == (predicted, predicted)
        assert explanation.predicted_label == classifier.label_names[predicted]
        assert explanation.probability == pytest.approx(float(probabilities[row].max()), abs=1e-6)
        assert explanation.target_probability == explanation.probability


def test_occlusion_scores_are_differences_of_predictions(classifier: TextClassifier) -> None:
    (explanation,) = explain(classifier, ["a good film"], method="occlusion", target=1)
    full = classifier.predict(["a good film"])[0, 1]
    for position, words in enumerate(
        ("[MASK] good film", "a [MASK] film", "a good [MASK]"),
    ):
        without = classifier.predict([words])[0, 1]
        assert explanation.scores[position] == pytest.approx(float(full - without), abs=1e-6)


@pytest.mark.parametrize("target", ["negative", 0, "0"])
def test_explains_the_class_that_is_asked_for(
    classifier: TextClassifier, target: int | str
) -> None:
    other = list(explain(classifier, TEXTS, method="ig", n_steps=5, target=target))
    assert {(e.target, e.target_label) for e in other} == {(0, "negative")}
    positive = list(explain(classifier, TEXTS, method="ig", n_steps=5, target=1))
    for one, two in zip(other, positive, strict=True):
        assert one.target_probability + two.target_probability == pytest.approx(1, abs=1e-6)
        assert one.scores == pytest.approx([-s for s in two.scores], abs=1e-6)


@pytest.mark.parametrize("name", ["aml", "ig", "occlusion", "kernel-shap"])
def test_texts_without_tokens_get_explanations_without_tokens(
    classifier: TextClassifier, name: str
) -> None:
    for explanation in explain(classifier, ["", " \n"], method=name, n_steps=steps(name)):
        assert (explanation.tokens, explanation.offsets, explanation.scores) == ((), (), ())
        assert explanation.probability == pytest.approx(float(classifier.predict([""]).max()))


def test_tokens_are_those_of_the_text(classifier: TextClassifier) -> None:
    (explanation,) = explain(classifier, ["Unbelievable 🎬!"], method="occlusion")
    assert explanation.tokens == ("un", "##believ", "##able", "🎬", "!")
    assert explanation.offsets == ((0, 2), (2, 8), (8, 12), (13, 14), (14, 15))


def test_mask_methods_score_between_zero_and_one(classifier: TextClassifier) -> None:
    for method in (AMLAttribution, LAAttribution):
        for settings in ({"scores": "mask"}, {"multiply_by_inputs": False, "tune": "mask"}):
            attribution = method(classifier, embedding_layer=classifier.embedding_layer, **settings)
            for explanation in explain(classifier, TEXTS, method=attribution, n_steps=6):
                assert all(0 < score < 1 for score in explanation.scores)
                assert not explanation.signed


def test_settings_are_recorded(classifier: TextClassifier) -> None:
    (explanation,) = explain(classifier, ["good"], method="gradient-shap", n_steps=7, seed=3)
    assert explanation.method == "gradient-shap"
    assert explanation.signed
    assert explanation.settings == {"n_samples": 7, "seed": 3, "baseline_token": "[MASK]"}


def test_long_texts_are_explained_as_far_as_the_model_sees(classifier: TextClassifier) -> None:
    (explanation,) = explain(classifier, ["good " * 1000], method="input-x-gradient")
    assert explanation.truncated
    assert (len(explanation.tokens), explanation.n_tokens_cut) == (62, 938)


def test_endless_input_is_read_a_window_at_a_time(classifier: TextClassifier) -> None:
    taken: list[int] = []

    def endless() -> Iterator[str]:
        for number in count():
            taken.append(number)
            yield "good film" if number % 2 else "a very bad film !"

    explanations = explain(classifier, endless(), method="input-x-gradient", batch_size=2)
    assert taken == []
    first = list(islice(explanations, 3))
    assert [e.text for e in first] == ["a very bad film !", "good film", "a very bad film !"]
    assert len(taken) == 32


def test_nothing_in_nothing_out(classifier: TextClassifier) -> None:
    assert list(explain(classifier, [], method="ig")) == []


def test_progress_goes_to_standard_error(
    classifier: TextClassifier, capsys: pytest.CaptureFixture[str]
) -> None:
    list(explain(classifier, TEXTS, method="input-x-gradient", show_progress=True))
    output = capsys.readouterr()
    assert output.out == ""
    assert "7/7" in output.err


def test_a_text_without_any_token_for_the_model() -> None:
    tokenizer = byte_level_tokenizer()
    classifier = TextClassifier(bert_classifier(len(tokenizer)), tokenizer)
    empty, short = explain(classifier, ["", "ab"], method="occlusion")
    assert empty.tokens == ()
    assert short.tokens == ("a", "b")
    assert short.settings["baseline_token"] == "<eos>"


class TestNothingOfTheModelChanges:
    @pytest.mark.parametrize("name", ["aml", "ig", "lime"])
    def test_training_mode_gradients_and_hooks(self, name: str) -> None:
        model = bert_classifier(60).train()
        classifier = TextClassifier(model, word_piece_tokenizer())
        evaluated = TextClassifier(bert_classifier(60), word_piece_tokenizer())
        arguments = {"method": name, "n_steps": 3}
        given = [e.scores for e in explain(classifier, TEXTS[:2], **arguments)]
        expected = [e.scores for e in explain(evaluated, TEXTS[:2], **arguments)]
        for one, two in zip(given, expected, strict=True):
            assert one == pytest.approx(two, abs=1e-5), "dropout should be off"
        assert all(module.training for module in model.modules())
        assert all(p.grad is None and p.requires_grad for p in model.parameters())
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())

    def test_after_an_error(self) -> None:
        model = bert_classifier(60).train()
        with torch.no_grad():
            model.classifier.bias.fill_(float("nan"))
        classifier = TextClassifier(model, word_piece_tokenizer())
        with pytest.raises(NonFiniteError, match=r"model's output is NaN.*'a good film'"):
            list(explain(classifier, ["a good film"], method="ig"))
        assert all(module.training for module in model.modules())


class TestBadInput:
    def test_one_string_is_one_text(self, classifier: TextClassifier) -> None:
        assert list(explain(classifier, "good")) == list(explain(classifier, ["good"]))

    def test_arguments_are_checked_before_texts_are_read(self, classifier: TextClassifier) -> None:
        with pytest.raises(InvalidInputError, match="method: expected one of"):
            explain(classifier, [], method="magic")
        with pytest.raises(InvalidInputError, match="target"):
            explain(classifier, [], target="happy")
        with pytest.raises(InvalidInputError, match="batch_size"):
            explain(classifier, [], batch_size=0)

    def test_a_list_holding_none(self, classifier: TextClassifier) -> None:
        with pytest.raises(InvalidInputError, match="got NoneType at position 1"):
            list(explain(classifier, ["good", None], method="ig"))

    def test_scores_that_are_not_finite(
        self, classifier: TextClassifier, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Broken:
            settings: ClassVar[dict[str, object]] = {}

            def __call__(self, ids: Tensor, *_: object, **__: object) -> Tensor:
                return torch.full(ids.shape, float("inf"))

        monkeypatch.setattr(methods, "create", lambda *_, **__: Broken())
        with pytest.raises(
            NonFiniteError, match=r"a score of integrated-gradients is NaN or infinite.*'good'"
        ):
            list(explain(classifier, ["good"], method="ig"))
