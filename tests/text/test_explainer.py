"""Text in, explanation out."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import FeatureAblation, LayerIntegratedGradients
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, pipeline

from captum_aml import AlignedMasker, AMLAttribution, SharedMasker, TransformerMasker
from captum_aml.exceptions import CheckpointError, InvalidInputError, NotFittedError
from captum_aml.text import PromptClassifier, TextClassifier, TextExplainer
from tests._helpers.decoders import (
    DECODERS,
    bpe_tokenizer,
    decoder_classifier,
    language_model,
)
from tests._helpers.text_models import (
    bert_classifier,
    byte_level_tokenizer,
    save_classifier,
    word_piece_tokenizer,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:train_batches.*several classes"),
    pytest.mark.filterwarnings("ignore:tokenizer. it has no mask"),
]

TEXTS = ["a good film", "", "the plot is not very good , but the actor is great !", "bad"]
TOKENIZER = word_piece_tokenizer()


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return bert_classifier(len(TOKENIZER))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_classifier(tmp_path_factory.mktemp("classifier"))


@pytest.fixture(scope="module")
def fitted(model: Any) -> TextExplainer:
    return TextExplainer(model, TOKENIZER).fit(TEXTS * 2, epochs=1, n_subsets=2)


def change_of(explainer: TextExplainer, text: str) -> float:
    """What removing all of a text takes from the logit of its class."""
    model = explainer.text_model
    batch = model.collate(model.tokenize([text]))
    with torch.no_grad():
        logits = model(batch.input_ids, *batch.forward_args)[0]
        removed = model(model.baselines(batch), *batch.forward_args)[0]
    return float((logits - removed)[logits.argmax()])


class TestSources:
    def test_a_model_a_pipeline_and_a_folder_give_the_same(self, folder: Path) -> None:
        by_folder = TextExplainer(folder, method="ig", device="cpu")
        own = by_folder.text_model
        sources: list[tuple[Any, ...]] = [
            (own.model, own.tokenizer),
            (pipeline("text-classification", str(folder), device="cpu"),),
            (str(folder),),
            (TextClassifier(own.model, own.tokenizer),),
        ]
        expected = by_folder(TEXTS)
        for source in sources:
            found = TextExplainer(*source, method="ig", device="cpu")(TEXTS)
            assert [e.scores for e in found] == [e.scores for e in expected]

    def test_a_language_model_by_prompt(self, tmp_path: Path) -> None:
        tokenizer = bpe_tokenizer(eos_token="</s>")
        model = language_model("llama", len(tokenizer))
        model.save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        asked = {"template": "Text: {text} Label:", "labels": ["negative", "positive"]}
        by_folder = TextExplainer(tmp_path, method="occlusion", device="cpu", **asked)
        (found,) = by_folder("a gripping film")
        (given,) = TextExplainer(PromptClassifier(model, tokenizer, **asked), method="occlusion")(
            "a gripping film"
        )
        assert found == given
        assert found.target_label in ("negative", "positive")
        assert found.settings["prompt"] == "Text: {text} Label:"
        assert "".join(token for token, _ in found.top(9)).replace(" ", "")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((bert_classifier(60),), "tokenizer: expected the model's tokenizer, got None"),
            ((3, TOKENIZER), "model: expected a model of transformers.*got int"),
            (("no/such/model/here",), "there is no folder"),
            ((bert_classifier(60), TOKENIZER, "ner"), "'ner'.*; it is for text-classification"),
            ((bert_classifier(60).bert, TOKENIZER), "got the bare BertModel"),
        ],
    )
    def test_what_is_no_model(self, arguments: tuple[Any, ...], message: str) -> None:
        with pytest.raises(InvalidInputError, match=message):
            TextExplainer(*arguments[:2], task="ner" if "ner" in arguments[2:] else None)

    def test_an_option_of_a_class_names_the_class(self) -> None:
        with pytest.raises(TypeError, match=r"give TextGenerator.from_pretrained\(folder, max_new"):
            TextExplainer("folder", max_new_tokens=5)  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
            TextExplainer("folder", colour="red")  # type: ignore[call-arg]

    @pytest.mark.parametrize(
        ("texts", "target", "message"),
        [
            (TEXTS[0], "POSITIVE", "did you mean 'positive'"),
            (TEXTS[:1], ["negative", "positive"], r"are \[\['negative', 'positive'\]\]"),
            ({"role": "user", "content": "hi"}, None, r"a list, \[message\]"),
        ],
    )
    def test_what_was_meant_is_said(self, texts: Any, target: Any, message: str) -> None:
        explainer = TextExplainer(bert_classifier(len(TOKENIZER)), TOKENIZER, method="occlusion")
        with pytest.raises(InvalidInputError, match=message):
            explainer(texts, target=target)

    def test_a_language_model_as_a_classifier_without_a_prompt(self) -> None:
        tokenizer = bpe_tokenizer(eos_token="</s>")
        model = language_model("gpt2", len(tokenizer))
        with pytest.raises(InvalidInputError, match="language model; give template= and labels="):
            TextExplainer(TextClassifier(model, tokenizer))

    def test_says_what_stands_for_removed_tokens_where_nothing_is_meant_to(self) -> None:
        tokenizer = byte_level_tokenizer()
        model = bert_classifier(len(tokenizer))
        with pytest.warns(UserWarning, match=r"so its '<eos>' \(eos\) stands for what is removed"):
            explainer = TextExplainer(model, tokenizer, method="random")
        assert explainer("good")[0].settings["baseline_token"] == "<eos>"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            chosen = TextExplainer(model, tokenizer, method="random", baseline="a")
        assert chosen.text_model.baseline.token == "a"

    def test_half_of_a_prompt(self, folder: Path) -> None:
        with pytest.raises(InvalidInputError, match="labels: expected it together with template"):
            TextExplainer(folder, template="{text}")

    def test_a_text_model_has_its_own_options(self, model: Any) -> None:
        with pytest.raises(InvalidInputError, match="baseline: a TextClassifier has its own"):
            TextExplainer(TextClassifier(model, TOKENIZER), baseline="the")

    def test_a_tokenizer_of_another_model(self) -> None:
        with pytest.raises(InvalidInputError, match="does it belong to this model"):
            TextExplainer(bert_classifier(20), TOKENIZER)


class TestCall:
    def test_one_text_gives_a_list_of_one(self, model: Any) -> None:
        explainer = TextExplainer(model, TOKENIZER, method="ig")
        (one,) = explainer("a good film")
        assert [one] == explainer(["a good film"])
        assert one.tokens == ("a", "good", "film")

    @pytest.mark.parametrize("kind", ["tuple", "iterator", "numpy", "column", "series"])
    def test_whatever_holds_texts(self, model: Any, kind: str) -> None:
        explainer = TextExplainer(model, TOKENIZER, method="ig")
        texts: Any = ("a good film", "bad", "the plot")
        if kind == "iterator":
            texts = iter(texts)
        elif kind == "numpy":
            texts = pytest.importorskip("numpy").array(texts)
        elif kind == "column":
            datasets = pytest.importorskip("datasets")
            texts = datasets.Dataset.from_dict({"text": list(texts)})["text"]
        elif kind == "series":
            texts = pytest.importorskip("pandas").Series(texts)
        assert [e.text for e in explainer(texts)] == ["a good film", "bad", "the plot"]

    def test_pairs_and_words(self, model: Any) -> None:
        explainer = TextExplainer(model, TOKENIZER, method="ig")
        (pair,) = explainer(("a good film", "bad plot"))
        (same,) = explainer({"text": "a good film", "text_pair": "bad plot"})
        assert pair == same
        assert pair.text == "a good film\nbad plot"
        assert pair.parts == ((0, 11), (12, 20))
        (words,) = explainer([["a", "good", "film"]])
        assert words.given_words == ((0, 1), (2, 6), (7, 11))
        assert words.scores == explainer("a good film")[0].scores

    def test_a_class_for_all_or_for_each(self, model: Any) -> None:
        explainer = TextExplainer(model, TOKENIZER, method="ig")
        first = explainer(TEXTS, target="negative")
        second = explainer(TEXTS, target=1)
        mixed = explainer(TEXTS, target=["negative", 1, 0, "positive"])
        assert mixed == [first[0], second[1], first[2], second[3]]
        assert explainer(TEXTS, target=np.array([0, 1, 0, 1])) == mixed
        assert explainer(TEXTS, target=torch.tensor(1)) == second
        assert explainer(TEXTS, target=np.int64(1)) == second

    @pytest.mark.parametrize(
        ("target", "message"),
        [
            ([0, 1], "one for each of the 4 texts, got 2"),
            (1.7, "expected one of the labels negative, positive or an index.*got 1.7"),
            ([0, 1, 0, 1.7], "got 1.7"),
            (True, "got True"),
        ],
    )
    def test_what_is_no_class(self, model: Any, target: Any, message: str) -> None:
        with pytest.raises(InvalidInputError, match=message):
            TextExplainer(model, TOKENIZER, method="random")(TEXTS, target=target)

    @pytest.mark.parametrize(("n", "message"), [(3, "got fewer"), (5, "got more")])
    def test_a_class_for_each_text_of_a_stream(self, model: Any, n: int, message: str) -> None:
        explainer = TextExplainer(model, TOKENIZER, method="random")
        with pytest.raises(InvalidInputError, match=f"one for each text, {message}"):
            list(explainer.stream(iter(TEXTS), target=[0] * n))

    def test_a_tokenizer_that_pads_on_the_left(self, model: Any) -> None:
        tokenizer = word_piece_tokenizer()
        tokenizer.padding_side = "left"
        assert TextExplainer(model, tokenizer)(TEXTS) == TextExplainer(model, TOKENIZER)(TEXTS)

    def test_a_text_cut_on_the_left_shows_what_was_not_seen(self, model: Any) -> None:
        tokenizer = word_piece_tokenizer()
        tokenizer.truncation_side = "left"
        explainer = TextExplainer(model, tokenizer, method="random", max_length=5)
        (found,) = explainer("the plot is not very good")
        assert found.tokens == ("not", "very", "good")
        assert 'unseen" title="beyond the model' in found.to_html()

    def test_no_room_for_a_pair(self, model: Any) -> None:
        explainer = TextExplainer(model, TOKENIZER, method="random", max_length=3)
        with pytest.raises(InvalidInputError, match="more than the 3 tokens that are added"):
            explainer(("good", "bad"))

    def test_the_explained_class_is_the_predicted_one(self, model: Any) -> None:
        for method in ("aml", "ig"):
            explainer = TextExplainer(model, TOKENIZER, method=method, n_steps=2)
            probabilities = explainer.text_model.predict(TEXTS)
            for row, explanation in enumerate(explainer(TEXTS)):
                assert explanation.predicted == int(probabilities[row].argmax())
                assert explanation.target == explanation.predicted
                assert explanation.probability == pytest.approx(
                    float(probabilities[row].max()), abs=1e-6
                )

    def test_prediction_and_explanation_share_their_pass(
        self, model: Any, fitted: TextExplainer
    ) -> None:
        passes: list[int] = []
        handle = model.register_forward_hook(
            lambda _, __, output: passes.append(len(output.logits))
        )
        try:
            fitted("a good film")
        finally:
            handle.remove()
        # The second one is for what the text changes, to which the scores sum.
        assert passes == [1, 1]

    @pytest.mark.parametrize("method", ["aml", "ig", "occlusion", "random"])
    def test_an_explanation_does_not_depend_on_the_others(self, model: Any, method: str) -> None:
        explainer = TextExplainer(model, TOKENIZER, method=method, n_steps=None)
        together = explainer(TEXTS)
        for text, explanation in zip(TEXTS, together, strict=True):
            alone = explainer(text)[0]
            assert explanation.scores == pytest.approx(alone.scores, abs=2e-5)

    def test_nothing_of_the_model_changes(self, model: Any) -> None:
        model.train()
        model.bert.pooler.eval()
        before = [m.training for m in model.modules()]
        explainer = TextExplainer(model, TOKENIZER, n_steps=1)
        state = torch.random.get_rng_state()
        with torch.inference_mode():
            explainer(TEXTS)
        assert [m.training for m in model.modules()] == before
        assert torch.equal(torch.random.get_rng_state(), state)
        assert all(p.grad is None and p.requires_grad for p in model.parameters())
        model.eval()

    def test_streams_without_reading_ahead_of_its_windows(self, model: Any) -> None:
        taken: list[int] = []

        def texts() -> Any:
            for number in range(200):
                taken.append(number)
                yield "a good film"

        explainer = TextExplainer(model, TOKENIZER, method="random", batch_size=2)
        stream = explainer.stream(texts())
        assert taken == []
        next(stream)
        assert len(taken) == 32

    def test_explanations_hold_no_tensors(self, fitted: TextExplainer) -> None:
        explanations = fitted(TEXTS)
        assert len(pickle.dumps(explanations[2])) < 4000
        # What all have in common is held once.
        assert explanations[0].settings is explanations[2].settings

    def test_repr_names_the_baseline(self, model: Any) -> None:
        assert "baseline='[MASK]' (mask)" in repr(TextExplainer(model, TOKENIZER))


class TestUnits:
    def test_words_are_masked_as_one(self, model: Any) -> None:
        text = "unbelievable film , gripping"
        words = TextExplainer(model, TOKENIZER, method="occlusion", unit="word")(text)[0]
        assert words.tokens == ("unbelievable", "film", ",", "gripping")
        assert words.unit == "word"
        classifier = TextClassifier(model, TOKENIZER)
        p = classifier.predict([text])[0]
        removed = classifier.predict([" ".join(["[MASK]"] * 3) + " film , gripping"])
        # The three pieces of the word were replaced together.
        assert words.scores[0] == pytest.approx(
            float(p.max() - removed[0, int(p.argmax())]), abs=1e-5
        )

    @pytest.mark.parametrize("method", ["aml", "ig", "lime", "random", "attention"])
    def test_sentences_have_one_score(self, model: Any, method: str) -> None:
        pytest.importorskip("sklearn")
        text = "The film is good. The plot was bad! Very slow?"
        explainer = TextExplainer(model, TOKENIZER, method=method, unit="sentence", n_steps=None)
        found = explainer(text)[0]
        assert found.tokens == ("The film is good.", "The plot was bad!", "Very slow?")
        assert len(found.scores) == 3

    @pytest.mark.parametrize("unit", ["token", "word", "sentence"])
    @pytest.mark.parametrize("method", ["mask-gradient", "aml", "la", "aml-tuned"])
    def test_scores_sum_to_what_the_text_does(self, model: Any, method: str, unit: Any) -> None:
        explainer = TextExplainer(model, TOKENIZER, method=method, unit=unit)
        texts = ["unbelievable film , gripping", "The film is good. The plot was bad!"]
        for text, found in zip(texts, explainer(texts), strict=True):
            assert found.signed
            change = pytest.approx(change_of(explainer, text), abs=1e-4)
            assert sum(found.scores) == change
            assert sum(sentence.score for sentence in found.sentences("sum")) == change
            if unit != "sentence":
                assert sum(word.score for word in found.words("sum")) == change
            if unit == "word":
                assert [word.score for word in found.words()] == list(found.scores)

    def test_a_fitted_maskers_scores_sum_to_what_the_text_does(self, model: Any) -> None:
        text = "unbelievable film , gripping"
        for loss in ("objective", "regression"):
            explainer = TextExplainer(model, TOKENIZER, unit="word")
            explainer.fit([text, "bad plot"] * 2, epochs=1, n_subsets=2, loss=loss)
            (found,) = explainer(text)
            assert found.signed
            assert found.tokens == ("unbelievable", "film", ",", "gripping")
            assert sum(found.scores) == pytest.approx(change_of(explainer, text), abs=1e-4)
            attribution = explainer.attribution_
            assert attribution is not None
            # The mask has the same order.
            masks = TextExplainer(model, TOKENIZER, unit="word", masker=None)
            masks.attribution_, attribution.scores = attribution, "mask"
            masks._method = masks._made(None)
            (mask,) = masks(text)
            assert np.argsort(mask.scores).tolist() == np.argsort(found.scores).tolist()

    def test_words_that_were_given(self, model: Any) -> None:
        explainer = TextExplainer(model, TOKENIZER, method="occlusion", unit="word")
        (found,) = explainer([["good film", "bad"]])
        assert found.tokens == ("good film", "bad")

    def test_a_segmenter_of_ones_own(self, model: Any) -> None:
        explainer = TextExplainer(
            model,
            TOKENIZER,
            method="ig",
            unit="word",
            segmenter=lambda text: [(0, 6), (7, len(text))],
        )
        assert explainer("a good film")[0].tokens == ("a good", "film")

    def test_fitting_masks_units(self, model: Any) -> None:
        explainer = TextExplainer(model, TOKENIZER, unit="word")
        explainer.fit(["unbelievable film", "gripping plot"] * 2, epochs=1, n_subsets=2)
        found = explainer("unbelievable film")[0]
        assert found.tokens == ("unbelievable", "film")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"unit": "paragraph"}, "unit: expected one of"),
            ({"segmenter": str.split}, "segmenter: expected none with unit='token'"),
            ({"n_sentences": 2, "unit": "word"}, "n_sentences: expected none with unit='word'"),
        ],
    )
    def test_wrong_units(self, model: Any, options: dict[str, Any], message: str) -> None:
        with pytest.raises(InvalidInputError, match=message):
            TextExplainer(model, TOKENIZER, **options)


class TestFit:
    def test_a_fitted_explainer_takes_one_pass(self, fitted: TextExplainer) -> None:
        assert isinstance(fitted.attribution_, AMLAttribution)
        assert isinstance(fitted.attribution_.masker_, TransformerMasker)
        found = fitted(TEXTS[0])[0]
        assert found.settings["n_steps"] == 0
        assert found.settings["perturbation"] == "attention"
        tuned = fitted(TEXTS[0], n_steps=3)[0]
        assert tuned.settings["n_steps"] == 3
        assert tuned.scores != found.scores

    @pytest.mark.parametrize("method", ["aml", "la"])
    @pytest.mark.parametrize("kind", [*DECODERS, "prompt"])
    def test_decoders_get_a_head_on_their_states(self, kind: str, method: str) -> None:
        tokenizer = bpe_tokenizer(eos_token="</s>")
        source: Any
        if kind == "prompt":
            source = PromptClassifier(
                language_model("llama", len(tokenizer)),
                tokenizer,
                "Text: {text} Label:",
                ["negative", "positive", "awful"],
            )
        else:
            source = TextClassifier(decoder_classifier(kind, len(tokenizer)), tokenizer)
        explainer = TextExplainer(source, method=method)
        explainer.fit(["a gripping film", "dull plot"] * 2, epochs=1, n_subsets=2)
        assert explainer.attribution_ is not None
        assert isinstance(explainer.attribution_.masker_, SharedMasker)
        assert len(explainer("a gripping film")[0].scores) > 0

    def test_an_encoder_explains_words_of_several_tokens(self, folder: Path) -> None:
        tokenizer = bpe_tokenizer(eos_token="</s>")
        classifier = PromptClassifier(
            language_model("llama", len(tokenizer)),
            tokenizer,
            "Text: {text} Label:",
            ["negative", "positively good"],
        )
        texts = ["a gripping film", "dull plot"] * 2
        with pytest.raises(InvalidInputError, match=r"one token each.*got positively good"):
            TextExplainer(classifier).fit(texts)
        explainer = TextExplainer(classifier).fit(texts, masker=folder, epochs=1, n_subsets=2)
        assert explainer.attribution_ is not None
        assert isinstance(explainer.attribution_.masker_, AlignedMasker)
        assert len(explainer("a gripping film")[0].scores) > 0

    def test_saved_and_loaded(self, fitted: TextExplainer, model: Any, tmp_path: Path) -> None:
        expected = fitted(TEXTS)
        fitted.save_pretrained(tmp_path)
        loaded = TextExplainer.from_pretrained(tmp_path, model, TOKENIZER)
        assert loaded(TEXTS) == [*loaded(TEXTS)]
        assert [e.scores for e in loaded(TEXTS)] == [e.scores for e in expected]
        tuned = TextExplainer.from_pretrained(tmp_path, model, TOKENIZER, method="aml-tuned")
        assert tuned(TEXTS[0])[0].settings["n_steps"] == 10

    def test_the_task_is_saved_with_its_masker(self, model: Any, tmp_path: Path) -> None:
        task = "multi-label-classification"
        explainer = TextExplainer(
            model, TOKENIZER, task=task, unit="sentence+word", n_sentences=2
        ).fit(TEXTS, epochs=1, n_subsets=2)
        explainer.save_pretrained(tmp_path)
        loaded = TextExplainer.from_pretrained(tmp_path, model, TOKENIZER)
        assert loaded(TEXTS[2]) == explainer(TEXTS[2])
        assert (loaded.text_model.task, loaded.units.n_sentences) == (task, 2)
        assert TextExplainer.from_pretrained(tmp_path, model, TOKENIZER, unit="word") is not None
        with pytest.raises(CheckpointError, match=f"fitted with task='{task}', but the Text"):
            TextExplainer(model, TOKENIZER, masker=tmp_path)
        with pytest.raises(CheckpointError, match="but the TextClassifier has 'text-class"):
            TextExplainer.from_pretrained(tmp_path, model, TOKENIZER, task="text-classification")

    def test_a_prompt_is_saved_with_its_masker(self, tmp_path: Path) -> None:
        tokenizer = bpe_tokenizer(eos_token="</s>")
        model = language_model("llama", len(tokenizer))
        classifier = PromptClassifier(
            model,
            tokenizer,
            "Text: {text} Label:",
            {"bad": "negative", "good": "positive"},
            examples=[("dull", "bad")],
        )
        explainer = TextExplainer(classifier, unit="word")
        explainer.fit(["a gripping film", "dull plot"], epochs=1, n_subsets=2)
        explainer.save_pretrained(tmp_path)
        loaded = TextExplainer.from_pretrained(tmp_path, model, tokenizer)
        assert loaded("a gripping film") == explainer("a gripping film")
        assert loaded.units.unit == "word"

    def test_a_refit_forgets_the_first_and_goes_on_from_what_was_loaded(
        self, model: Any, tmp_path: Path
    ) -> None:
        def fit(explainer: TextExplainer) -> list[tuple[float, ...]]:
            explainer.fit(TEXTS * 2, epochs=1, n_subsets=2)
            return [e.scores for e in explainer(TEXTS)]

        explainer = TextExplainer(model, TOKENIZER)
        first = fit(explainer)
        assert fit(explainer) == first
        explainer.save_pretrained(tmp_path)
        assert fit(TextExplainer.from_pretrained(tmp_path, model, TOKENIZER)) != first

    def test_a_text_model_that_removes_otherwise(self, model: Any, tmp_path: Path) -> None:
        explainer = TextExplainer(model, TOKENIZER, baseline="[UNK]").fit(TEXTS, epochs=1)
        explainer.save_pretrained(tmp_path)
        with pytest.raises(CheckpointError, match=r"baseline='\[UNK\]', but the TextClassifier"):
            TextExplainer.from_pretrained(tmp_path, TextClassifier(model, TOKENIZER))
        same = TextClassifier(model, TOKENIZER, baseline="[UNK]")
        assert TextExplainer.from_pretrained(tmp_path, same)(TEXTS) == explainer(TEXTS)

    def test_labels_in_another_order_are_another_prompt(self, tmp_path: Path) -> None:
        tokenizer = bpe_tokenizer(eos_token="</s>")
        model = language_model("llama", len(tokenizer))

        def ask(*labels: str) -> PromptClassifier:
            return PromptClassifier(model, tokenizer, "Text: {text} Label:", labels)

        explainer = TextExplainer(ask("negative", "positive"))
        explainer.fit(["a gripping film", "dull plot"], epochs=1, n_subsets=2)
        explainer.save_pretrained(tmp_path)
        with pytest.raises(CheckpointError, match="fitted with prompt="):
            TextExplainer.from_pretrained(tmp_path, ask("positive", "negative"))
        with pytest.raises(CheckpointError, match="fitted with prompt="):
            TextExplainer(ask("positive", "negative"), masker=tmp_path)
        same = TextExplainer.from_pretrained(tmp_path, ask("negative", "positive"))
        assert same("dull plot") == explainer("dull plot")

    def test_a_masker_of_another_model(self, fitted: TextExplainer, tmp_path: Path) -> None:
        fitted.save_pretrained(tmp_path)
        other = bert_classifier(len(TOKENIZER), seed=1)
        with pytest.raises(CheckpointError):
            TextExplainer.from_pretrained(tmp_path, other, TOKENIZER)

    def test_nothing_to_save(self, model: Any, tmp_path: Path) -> None:
        with pytest.raises(NotFittedError, match="call fit first"):
            TextExplainer(model, TOKENIZER).save_pretrained(tmp_path)

    @pytest.mark.parametrize("method", ["ig", "lime"])
    def test_methods_that_learn_nothing(self, model: Any, method: str) -> None:
        pytest.importorskip("sklearn")
        with pytest.raises(InvalidInputError, match="learns nothing from texts"):
            TextExplainer(model, TOKENIZER, method=method).fit(TEXTS)

    def test_texts_that_can_be_read_once(self, model: Any) -> None:
        with pytest.raises(InvalidInputError, match="got an iterator"):
            TextExplainer(model, TOKENIZER).fit(iter(TEXTS))


class TestInstances:
    def test_captums_own(self, model: Any) -> None:
        def forward(ids: Tensor, attention_mask: Tensor) -> Tensor:
            logits: Tensor = model(ids, attention_mask=attention_mask).logits
            return logits.softmax(dim=-1)

        classifier = TextClassifier(model, TOKENIZER)
        (text,) = classifier.tokenize(["a good film"])
        batch = classifier.collate([text])
        call = {
            "baselines": classifier.baselines(batch),
            "target": int(classifier.predict(["a good film"]).argmax()),
            "additional_forward_args": (batch.attention_mask,),
        }
        for instance in (
            LayerIntegratedGradients(forward, model.bert.embeddings),
            FeatureAblation(forward),
        ):
            expected = instance.attribute(batch.input_ids, **call)
            if expected.dim() == 3:
                expected = expected.sum(dim=-1)
            found = TextExplainer(model, TOKENIZER, method=instance)("a good film")[0]
            assert found.scores == pytest.approx(expected[0, 1:-1].tolist(), abs=1e-5)
            assert found.method == type(instance).__name__

    def test_aml_made_on_the_model_itself(self, model: Any) -> None:
        found = TextExplainer(model, TOKENIZER, method=AMLAttribution(model))(TEXTS)
        expected = TextExplainer(model, TOKENIZER)(TEXTS)
        for one, other in zip(found, expected, strict=True):
            assert one.predicted == other.predicted
        with pytest.raises(InvalidInputError, match="a function that returns its"):
            TextExplainer(model, TOKENIZER, method=FeatureAblation(model))(TEXTS)

    def test_what_is_no_method(self, model: Any) -> None:
        with pytest.raises(InvalidInputError):
            TextExplainer(model, TOKENIZER, method=3)
        with pytest.raises(InvalidInputError, match="method: expected one of"):
            TextExplainer(model, TOKENIZER, method="no-such-method")


class TestTexts:
    """Texts that nobody would write, and some that people do."""

    @pytest.mark.parametrize("tokenizer", [TOKENIZER, byte_level_tokenizer()], ids=["wp", "bytes"])
    @pytest.mark.parametrize(
        "text",
        [
            "",
            "   ",
            "\n\t\u00a0\u3000",
            "!!! ... ???",
            "[CLS] [SEP] [PAD] [MASK]",
            "good \ud83d\x00\x07 film",
            "<script>alert('1')</script> &amp; &lt;",
            "هذا الفيلم جيد جدا",
            "זה סרט טוב",
            "🎬" * 300,
            "👩‍👩‍👧‍👦🇺🇸é",
            "good " * 3000,
        ],
        ids=lambda text: repr(text)[:20],
    )
    @pytest.mark.parametrize("unit", ["token", "word", "sentence"])
    def test_are_explained(self, tokenizer: Any, text: str, unit: Any) -> None:
        model = bert_classifier(len(tokenizer))
        explainer = TextExplainer(model, tokenizer, n_steps=2, unit=unit, max_length=64)
        (found,) = explainer(text)
        assert len(found.scores) == len(found.tokens) == len(found.offsets)
        assert all(0 <= a <= b <= len(found.text) for a, b in found.offsets)
        assert sum(found.scores) == pytest.approx(change_of(explainer, text), abs=1e-4)
        assert found.truncated == (found.n_tokens_cut > 0)
        found.to_dict()
        if unit != "sentence":
            assert sum(word.score for word in found.words("sum")) == pytest.approx(
                sum(found.scores), abs=1e-4
            )
        assert len(found.sentences()) <= max(1, len(found.tokens))

    @pytest.mark.parametrize(
        ("texts", "message"),
        [
            (["a good film", None], "expected strings, got NoneType at position 1"),
            ([3], "expected strings, got int at position 0"),
            ([("a", 1)], r"got a tuple \(str, int\) at position 0; rows with a label are mapp"),
            ([["a", 3]], "got int inside the text at position 0"),
            (
                [{"one": "a", "two": "b"}],
                "column: expected the name .* 'one', 'two', at position 0",
            ),
            (3, "expected texts, got int"),
        ],
    )
    def test_that_are_none(self, model: Any, texts: Any, message: str) -> None:
        with pytest.raises(InvalidInputError, match=message):
            TextExplainer(model, TOKENIZER, method="random")(texts)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_half_precision_models(kind: str, dtype: torch.dtype) -> None:
    tokenizer = TOKENIZER if kind == "bert" else bpe_tokenizer(eos_token="</s>")
    n = len(tokenizer)
    whole = bert_classifier(n) if kind == "bert" else decoder_classifier(kind, n)
    half = bert_classifier(n) if kind == "bert" else decoder_classifier(kind, n)
    half.to(dtype)
    for method in ("aml", "ig", "occlusion"):
        (a,) = TextExplainer(whole, tokenizer, method=method, n_steps=None)("a good film")
        (b,) = TextExplainer(half, tokenizer, method=method, n_steps=None)("a good film")
        assert b.probability == pytest.approx(a.probability, abs=0.05)
        assert len(b.scores) == len(a.scores)


@pytest.mark.parametrize("method", ["aml", "ig", "occlusion"])
def test_models_with_a_device_map(folder: Path, tmp_path: Path, method: str) -> None:
    places = {"bert.embeddings": "disk", "bert.encoder": "cpu", "classifier": "cpu"}
    mapped = AutoModelForSequenceClassification.from_pretrained(
        folder, device_map={**places, "bert.pooler": "cpu"}, offload_folder=tmp_path
    )
    waiting = next(mapped.get_input_embeddings().parameters())
    assert waiting.is_meta, "the weights should not be where they are used"
    whole = AutoModelForSequenceClassification.from_pretrained(folder)
    (expected,) = TextExplainer(whole, TOKENIZER, method=method)("a good film")
    assert TextExplainer(mapped, TOKENIZER, method=method)("a good film") == [expected]
