"""Loading a classifier, its logits, labels and limits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from captum_aml.exceptions import InvalidInputError
from captum_aml.text import TextClassifier
from captum_aml.text.fitting import attention_removal
from captum_aml.text.models.labels import class_index
from captum_aml.text.models.loading import resolve_device
from tests._helpers.decoders import DECODERS, bpe_tokenizer, decoder_classifier
from tests._helpers.text_models import bert_classifier, save_classifier, word_piece_tokenizer

TEXTS = ["a good film", "", "the plot is not very good , but the actor is great !", "bad"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_classifier(tmp_path_factory.mktemp("classifier"))


@pytest.fixture(scope="module")
def classifier(folder: Path) -> TextClassifier:
    return TextClassifier.from_pretrained(folder, device="cpu")


def test_loads_for_evaluation_without_gradients(classifier: TextClassifier) -> None:
    assert not classifier.model.training
    assert not any(p.requires_grad for p in classifier.model.parameters())
    assert {p.dtype for p in classifier.model.parameters()} == {torch.float32}
    assert classifier.label_names == ("negative", "positive")
    assert classifier.embedding_layer is classifier.model.get_input_embeddings()


def test_half_precision_files_are_loaded_as_float32(tmp_path: Path) -> None:
    tokenizer = word_piece_tokenizer()
    bert_classifier(len(tokenizer)).half().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert TextClassifier.from_pretrained(tmp_path).model.dtype == torch.float32


def test_forward_gives_the_models_logits(classifier: TextClassifier) -> None:
    batch = classifier.collate(classifier.tokenize(TEXTS))
    given = classifier.tokenizer(TEXTS, padding=True, return_tensors="pt")
    expected = classifier.model(**given).logits
    assert torch.allclose(classifier(batch.input_ids, *batch.forward_args), expected, atol=1e-6)


def test_token_types_reach_the_model(classifier: TextClassifier) -> None:
    batch = classifier.collate(classifier.tokenize(TEXTS[:1]))
    mask, types = batch.forward_args
    assert not torch.allclose(
        classifier(batch.input_ids, mask, types),
        classifier(batch.input_ids, mask, torch.ones_like(types)),
        atol=1e-3,
    )


def test_predictions_do_not_depend_on_batches(classifier: TextClassifier) -> None:
    alone = torch.cat([classifier.predict([text]) for text in TEXTS])
    assert torch.allclose(classifier.predict(TEXTS, batch_size=2), alone, atol=1e-6)
    assert torch.allclose(alone.sum(dim=1), torch.ones(4))
    assert alone[0].sub(alone[2]).abs().max() > 1e-3, "the texts should differ"


def test_a_training_model_is_evaluated_and_left_training() -> None:
    model = bert_classifier(len(word_piece_tokenizer()))
    expected = TextClassifier(model, word_piece_tokenizer()).predict(TEXTS)
    model.train()
    model.bert.pooler.eval()
    modes = [module.training for module in model.modules()]
    given = TextClassifier(model, word_piece_tokenizer()).predict(TEXTS)
    assert torch.allclose(given, expected, atol=1e-6)
    assert [module.training for module in model.modules()] == modes
    assert all(p.requires_grad for p in model.parameters())


def test_inputs_that_the_model_does_not_take_are_left_out() -> None:
    class WithoutTypes(BertForSequenceClassification):
        def forward(self, input_ids, attention_mask=None):
            return super().forward(input_ids=input_ids, attention_mask=attention_mask)

    config = bert_classifier(60).config
    classifier = TextClassifier(WithoutTypes(config).eval(), word_piece_tokenizer())
    assert len(classifier.collate(classifier.tokenize(TEXTS)).forward_args) == 1
    assert classifier.predict(TEXTS).shape == (4, 2)


class TestTarget:
    @pytest.mark.parametrize(("given", "index"), [("positive", 1), ("0", 0), (1, 1)])
    def test_label_or_index(self, classifier: TextClassifier, given: int | str, index: int) -> None:
        assert class_index(given, classifier.label_names) == index

    def test_labels_go_before_indices(self) -> None:
        model = bert_classifier(60, labels=("1", "0"))
        assert class_index("1", TextClassifier(model, word_piece_tokenizer()).label_names) == 0
        assert class_index(1, TextClassifier(model, word_piece_tokenizer()).label_names) == 1

    @pytest.mark.parametrize("given", ["happy", "--1", "1.5", ""])
    def test_unknown_label(self, classifier: TextClassifier, given: str) -> None:
        with pytest.raises(InvalidInputError, match="labels negative, positive or an index"):
            class_index(given, classifier.label_names)

    @pytest.mark.parametrize("given", [2, "-1", -1])
    def test_index_out_of_range(self, classifier: TextClassifier, given: int | str) -> None:
        with pytest.raises(InvalidInputError, match="target: expected an index from 0 to 1"):
            class_index(given, classifier.label_names)


class TestMaxLength:
    def test_the_smaller_of_tokenizer_and_model(self, classifier: TextClassifier) -> None:
        assert classifier.max_length == 64
        tokenizer = word_piece_tokenizer()
        tokenizer.model_max_length = 10
        assert TextClassifier(classifier.model, tokenizer).max_length == 10
        tokenizer.model_max_length = int(1e30)
        assert TextClassifier(classifier.model, tokenizer).max_length == 64

    def test_roberta_starts_counting_after_its_padding(self) -> None:
        tokenizer = word_piece_tokenizer()
        tokenizer.model_max_length = int(1e30)
        model = RobertaForSequenceClassification(
            RobertaConfig(
                vocab_size=60,
                hidden_size=8,
                num_hidden_layers=1,
                num_attention_heads=1,
                intermediate_size=8,
                max_position_embeddings=20,
                pad_token_id=1,
            )
        ).eval()
        classifier = TextClassifier(model, tokenizer)
        assert classifier.max_length == 18
        assert classifier.predict(["good " * 100]).isfinite().all()

    def test_a_long_text_is_cut_and_predicted(self, classifier: TextClassifier) -> None:
        (tokenized,) = classifier.tokenize(["good " * 1000])
        assert (len(tokenized), tokenized.n_tokens_cut) == (64, 938)
        assert classifier.predict(["good " * 1000]).isfinite().all()


class TestDevice:
    def test_auto_takes_what_there_is(self) -> None:
        expected = "cuda" if torch.cuda.is_available() else "cpu"
        if torch.backends.mps.is_available():
            expected = "mps"
        assert resolve_device("auto").type == expected

    @pytest.mark.parametrize("name", ["gpu", "cuda:99", "cpu:x"])
    def test_unknown_or_absent(self, name: str) -> None:
        with pytest.raises(InvalidInputError, match=f"device: .*got '{name}'"):
            resolve_device(name)


class TestBadModels:
    def test_no_such_folder(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInputError, match=r"model: .*there is no folder"):
            TextClassifier.from_pretrained(tmp_path / "missing")

    def test_folder_without_a_model(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInputError, match=r"without a config\.json"):
            TextClassifier.from_pretrained(tmp_path)

    def test_model_without_a_classification_head(self, tmp_path: Path) -> None:
        # transformers would draw the missing head at random and classify with it.
        tokenizer = word_piece_tokenizer()
        BertForMaskedLM(bert_classifier(len(tokenizer)).config).save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        with pytest.raises(InvalidInputError, match=r"lacks the weights .*classifier"):
            TextClassifier.from_pretrained(tmp_path)

    def test_truncated_weights(self, tmp_path: Path) -> None:
        save_classifier(tmp_path)
        weights = tmp_path / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:500])
        with pytest.raises(InvalidInputError, match="cannot be loaded"):
            TextClassifier.from_pretrained(tmp_path)

    def test_missing_weights(self, tmp_path: Path) -> None:
        save_classifier(tmp_path)
        (tmp_path / "model.safetensors").unlink()
        with pytest.raises(InvalidInputError, match="cannot be loaded"):
            TextClassifier.from_pretrained(tmp_path)

    def test_missing_tokenizer(self, tmp_path: Path) -> None:
        bert_classifier(60).save_pretrained(tmp_path)
        with pytest.raises(InvalidInputError, match=r"tokenizer|cannot be loaded"):
            TextClassifier.from_pretrained(tmp_path)

    def test_code_that_comes_with_a_model_is_not_run(self, tmp_path: Path) -> None:
        save_classifier(tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())
        config["model_type"] = "unheard-of"
        config["auto_map"] = {
            "AutoConfig": "code.Config",
            "AutoModelForSequenceClassification": "code.Model",
        }
        (tmp_path / "config.json").write_text(json.dumps(config))
        witness = tmp_path / "witness"
        (tmp_path / "code.py").write_text(f"open({str(witness)!r}, 'w').close()")
        with pytest.raises(InvalidInputError, match="cannot be loaded"):
            TextClassifier.from_pretrained(tmp_path)
        assert not witness.exists()

    def test_tokenizer_of_another_model(self) -> None:
        model = BertForSequenceClassification(
            BertConfig(vocab_size=10, hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
        )
        with pytest.raises(InvalidInputError, match="at most the 10 entries"):
            TextClassifier(model, word_piece_tokenizer())

    def test_regression(self) -> None:
        with pytest.raises(InvalidInputError, match="2 outputs or more, got 1"):
            TextClassifier(bert_classifier(60, labels=("score",)), word_piece_tokenizer())

    def test_independent_labels(self) -> None:
        model = bert_classifier(60)
        model.config.problem_type = "multi_label_classification"
        with pytest.raises(InvalidInputError, match="exclude each other"):
            TextClassifier(model, word_piece_tokenizer())


def test_texts_are_cut_to_a_given_length(classifier: TextClassifier) -> None:
    shorter = TextClassifier(classifier.model, classifier.tokenizer, max_length=5)
    (text,) = shorter.tokenize(["a b c d e f g"])
    (whole,) = classifier.tokenize(["a b c d e f g"])
    assert len(text) == 5
    assert text.n_tokens_cut == len(whole) - 5


@pytest.mark.parametrize("length", [0, 2, 10**6])
def test_a_length_that_the_model_cannot_take_is_refused(
    classifier: TextClassifier, length: int
) -> None:
    with pytest.raises(InvalidInputError, match="max_length"):
        TextClassifier(classifier.model, classifier.tokenizer, max_length=length)


class TestDecoders:
    """Classification heads on decoders: the class is read at the last token that is shown."""

    @pytest.mark.parametrize("pad_token_id", [None, 0])
    @pytest.mark.parametrize("kind", DECODERS)
    @torch.no_grad()
    def test_logits_are_those_of_the_text_alone(self, kind: str, pad_token_id: int | None) -> None:
        tokenizer = bpe_tokenizer(eos_token="</s>")
        model = decoder_classifier(kind, len(tokenizer), pad_token_id=pad_token_id)
        classifier = TextClassifier(model, tokenizer)
        texts = ["a gripping film", "the plot was not good , but the film was", "dull"]
        batch = classifier.collate(classifier.tokenize(texts))
        found = classifier(batch.input_ids, *batch.forward_args)
        for row, text in enumerate(texts):
            # Without a padding token and alone, transformers reads the last token.
            ids = torch.tensor([tokenizer(text)["input_ids"]])
            assert torch.allclose(found[row], model(ids).logits[0], atol=1e-5)
        assert model.config.pad_token_id == pad_token_id

    @pytest.mark.parametrize("kind", DECODERS)
    @torch.no_grad()
    def test_padding_on_the_left_moves_nothing(self, kind: str) -> None:
        tokenizer = bpe_tokenizer(eos_token="</s>")
        tokenizer.padding_side = "left"
        classifier = TextClassifier(decoder_classifier(kind, len(tokenizer)), tokenizer)
        (text,) = classifier.tokenize(["a gripping film"])
        batch = classifier.collate([text])
        alone = classifier(batch.input_ids, *batch.forward_args)
        pad = torch.full((1, 4), 3)
        ids = torch.cat([pad, batch.input_ids], dim=1)
        mask = torch.cat([torch.zeros_like(pad), batch.attention_mask], dim=1)
        assert torch.allclose(classifier(ids, mask), alone, atol=1e-5)

    @torch.no_grad()
    def test_a_baseline_of_padding_tokens_is_read_at_its_end(self) -> None:
        tokenizer = bpe_tokenizer(pad_token="<pad>")
        model = decoder_classifier("llama", len(tokenizer), pad_token_id=tokenizer.pad_token_id)
        classifier = TextClassifier(model, tokenizer)
        assert classifier.baseline.kind == "pad"
        batch = classifier.collate(classifier.tokenize(["a gripping film"]))
        reference = classifier.baselines(batch)
        hidden = model.model(reference, attention_mask=batch.attention_mask).last_hidden_state
        expected = model.score(hidden[:, -1])
        assert torch.allclose(classifier(reference, *batch.forward_args), expected, atol=1e-6)

    @pytest.mark.parametrize("kind", DECODERS)
    def test_tokens_can_be_hidden_from_their_attention(self, kind: str) -> None:
        tokenizer = bpe_tokenizer(eos_token="</s>")
        classifier = TextClassifier(decoder_classifier(kind, len(tokenizer)), tokenizer)
        assert attention_removal(classifier, ["a gripping film", "dull"]) == "causal-attention"


class TestPairs:
    def test_logits_are_those_of_the_pair(self, classifier: TextClassifier) -> None:
        pairs = [("a good film", "the plot"), ("bad", "the actor is very good")]
        given = classifier.tokenizer(
            [a for a, _ in pairs], [b for _, b in pairs], padding=True, return_tensors="pt"
        )
        with torch.no_grad():
            expected = classifier.model(**given).logits.softmax(dim=-1)
        assert torch.allclose(classifier.predict(pairs), expected, atol=1e-6)

    def test_offsets_point_into_both_texts(self, classifier: TextClassifier) -> None:
        (tokenized,) = classifier.tokenize([("a good film", "bad plot")])
        own = [
            tokenized.text[slice(*span)]
            for span, keep in zip(tokenized.offsets, tokenized.maskable, strict=True)
            if keep
        ]
        assert own == ["a", "good", "film", "bad", "plot"]
        assert [tokenized.text[slice(*part)] for part in tokenized.parts] == [
            "a good film",
            "bad plot",
        ]

    def test_mixed_forms_keep_their_order(self, classifier: TextClassifier) -> None:
        given = ["bad", ("good", "film"), ["a", "good", "film"], {"text": "bad"}]
        tokenized = classifier.tokenize(given)
        assert [t.text for t in tokenized] == ["bad", "good\nfilm", "a good film", "bad"]
        assert tokenized[2].words == ((0, 1), (2, 6), (7, 11))
        assert tokenized[0].model_inputs == tokenized[3].model_inputs

    def test_what_is_cut_of_a_pair_is_counted(self, classifier: TextClassifier) -> None:
        short = TextClassifier(classifier.model, classifier.tokenizer, max_length=12)
        pair = ("good " * 5, "bad " * 30)
        (whole,), (cut,) = classifier.tokenize([pair]), short.tokenize([pair])
        assert len(cut) == 12
        assert whole.n_tokens_cut == 0
        assert cut.n_tokens_cut == sum(whole.maskable) - sum(cut.maskable) == 35 - 9
