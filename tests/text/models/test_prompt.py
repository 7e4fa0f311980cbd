"""Classification by prompt, against plain loops over the model's own logits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from captum_aml import AMLAttribution
from captum_aml.exceptions import InvalidInputError
from captum_aml.text import PromptClassifier, TextExplainer
from captum_aml.text.fitting import attention_removal
from tests._helpers.decoders import DECODERS, bpe_tokenizer, language_model

TEMPLATE = "Text: {text} Label:"
TEXTS = ["a gripping film", "the plot was not good and the film was dull , awful", ""]
SINGLE = {"no": "negative", "yes": "positive"}
SEVERAL = {"no": "negative", "yes": "positively good", "maybe": "positively awful film"}


def make(kind: str, labels: dict[str, str], *, metaspace: bool = False) -> PromptClassifier:
    tokenizer = bpe_tokenizer(metaspace=metaspace, eos_token="</s>")
    model = language_model(kind, len(tokenizer))
    return PromptClassifier(model, tokenizer, TEMPLATE, labels)


def naive(classifier: PromptClassifier, text: str, word: str) -> float:
    """The log-probability of a word after a prompt, token by token, with whole strings."""
    tokenizer, model = classifier.tokenizer, classifier.model
    if model.config.is_encoder_decoder:
        prompt = tokenizer(classifier.prompt(text), return_tensors="pt")["input_ids"]
        # BART's and mBART's answers begin with another token, which is given.
        forced = model.generation_config.forced_bos_token_id
        begun = [model.config.decoder_start_token_id, *([] if forced is None else [forced])]
        ids = [*begun, *tokenizer(word, add_special_tokens=False)["input_ids"]]
        logits = model(input_ids=prompt, decoder_input_ids=torch.tensor([ids])).logits[0]
        steps = [logits[i - 1].log_softmax(-1)[ids[i]] for i in range(len(begun), len(ids))]
        return float(torch.stack(steps).sum())
    before = tokenizer(classifier.prompt(text))["input_ids"]
    whole = tokenizer(f"{classifier.prompt(text)} {word}")["input_ids"]
    assert whole[: len(before)] == before
    total = 0.0
    for end in range(len(before), len(whole)):
        logits = model(torch.tensor([whole[:end]])).logits[0, -1]
        total += float(logits.log_softmax(-1)[whole[end]])
    return total


@pytest.mark.parametrize("labels", [SINGLE, SEVERAL], ids=["single", "several"])
@pytest.mark.parametrize(
    ("kind", "metaspace"),
    [*((kind, False) for kind in DECODERS), ("llama", True), ("t5", True), ("bart", True)],
)
@torch.no_grad()
def test_logits_are_the_words_log_probabilities(
    kind: str, metaspace: bool, labels: dict[str, str]
) -> None:
    classifier = make(kind, labels, metaspace=metaspace)
    batch = classifier.collate(classifier.tokenize(TEXTS))
    found = classifier(batch.input_ids, *batch.forward_args)
    expected = torch.tensor(
        [[naive(classifier, text, word) for word in labels.values()] for text in TEXTS]
    )
    assert found.shape == (3, len(labels))
    assert torch.allclose(found, expected, atol=2e-4)
    assert expected.std(dim=1).min() > 1e-2, "the words should differ"


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_encoder_decoders_are_found_from_folder_and_pipeline(kind: str, tmp_path: Path) -> None:
    classifier = make(kind, SINGLE, metaspace=True)
    classifier.model.save_pretrained(tmp_path)
    classifier.tokenizer.save_pretrained(tmp_path)
    explainer = TextExplainer(tmp_path, template=TEMPLATE, labels=SINGLE, device="cpu")
    assert type(explainer.text_model) is PromptClassifier
    found, expected = explainer.text_model.predict(TEXTS), classifier.predict(TEXTS)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    (explanation,) = explainer("a gripping film", target=("yes", "no"))
    assert explanation.explained_label == "yes rather than no"


def test_words_of_several_tokens_are_tested() -> None:
    assert {len(ids) for ids in make("llama", SINGLE).label_ids} == {1}
    assert max(len(ids) for ids in make("llama", SEVERAL).label_ids) >= 3


@pytest.mark.parametrize("kind", [*DECODERS, "t5"])
@torch.no_grad()
def test_padding_on_either_side_changes_nothing(kind: str) -> None:
    classifier = make(kind, SEVERAL)
    (text,) = classifier.tokenize(["a gripping film"])
    batch = classifier.collate([text])
    alone = classifier(batch.input_ids, *batch.forward_args)
    n = batch.input_ids.shape[1]
    pad = torch.zeros(1, 5, dtype=torch.long)
    for order in (lambda a, b: [a, b], lambda a, b: [b, a]):
        ids = torch.cat(order(batch.input_ids, pad + 7), dim=1)
        mask = torch.cat(order(torch.ones(1, n, dtype=torch.long), pad), dim=1)
        # T5 has relative positions, so that padding before moves nothing either.
        assert torch.allclose(classifier(ids, mask), alone, atol=1e-4)


@pytest.mark.parametrize("labels", [SINGLE, SEVERAL], ids=["single", "several"])
@pytest.mark.parametrize("kind", DECODERS)
@torch.no_grad()
def test_removal_through_attention_hides_tokens_also_from_the_words(
    kind: str, labels: dict[str, str]
) -> None:
    classifier = make(kind, labels)
    assert attention_removal(classifier, TEXTS) == "causal-attention"


@torch.no_grad()
def test_only_the_text_is_explained_and_prompt_tokens_stay() -> None:
    classifier = make("llama", SINGLE, metaspace=True)
    (tokenized,) = classifier.tokenize(["a gripping film"])
    shown = [
        tokenized.text[start:end]
        for (start, end), own in zip(tokenized.offsets, tokenized.maskable, strict=True)
        if own
    ]
    assert "".join(shown).replace(" ", "") == "agrippingfilm"
    assert tokenized.text == "a gripping film"
    batch = classifier.collate([tokenized])
    reference = classifier.baselines(batch)
    kept = batch.input_ids == reference
    assert torch.equal(kept, ~batch.maskable)
    attribution = AMLAttribution(classifier, embedding_layer=classifier.embedding_layer)
    for kind in ("contribution", "mask"):
        attribution.scores = kind
        scores = attribution.attribute(
            batch.input_ids,
            baselines=reference,
            additional_forward_args=batch.forward_args,
            n_steps=2,
        )
        assert isinstance(scores, Tensor)
        assert bool((scores[~batch.maskable] == 0).all())
        assert bool((scores[batch.maskable] != 0).all())
    assert bool((scores[batch.maskable] > 0).all())


@pytest.mark.parametrize("labels", [SINGLE, SEVERAL], ids=["single", "several"])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "t5"])
def test_explanations_do_not_depend_on_the_batch(kind: str, labels: dict[str, str]) -> None:
    classifier = make(kind, labels)
    texts = ["a gripping film", "the plot was not good and the film was dull"]
    aml = AMLAttribution(classifier, embedding_layer=classifier.embedding_layer, output="logits")

    def explain(chosen: list[str]) -> Tensor:
        batch = classifier.collate(classifier.tokenize(chosen))
        scores = aml.attribute(
            batch.input_ids,
            baselines=classifier.baselines(batch),
            additional_forward_args=batch.forward_args,
            n_steps=4,
        )
        assert isinstance(scores, Tensor)
        return scores[0][batch.maskable[0]]

    # Contributions to logits of about ten, from gradients in single precision.
    torch.testing.assert_close(explain(texts), explain(texts[:1]), atol=1e-4, rtol=1e-4)


class TestPrompt:
    def test_description_examples_and_template_in_this_order(self) -> None:
        tokenizer = bpe_tokenizer()
        classifier = PromptClassifier(
            language_model("gpt2", len(tokenizer)),
            tokenizer,
            TEMPLATE,
            SINGLE,
            description="Judge the film.",
            examples=[("a dull plot", "no"), ("good", "positive")],
            baseline="!",
        )
        assert classifier.prompt("the film") == (
            "Judge the film.\n\nText: a dull plot Label: negative\n\n"
            "Text: good Label: positive\n\nText: the film Label:"
        )
        assert classifier.label_names == ("no", "yes")

    def test_braces_that_are_meant_as_such(self) -> None:
        tokenizer = bpe_tokenizer(eos_token="</s>")
        model = language_model("gpt2", len(tokenizer))
        classifier = PromptClassifier(model, tokenizer, '{{"{text}"}}:', ["good", "bad"])
        assert classifier.prompt("a {film}") == '{"a {film}"}:'

    def test_pairs(self) -> None:
        tokenizer = bpe_tokenizer(eos_token="</s>")
        model = language_model("gpt2", len(tokenizer))
        template = "Premise: {text} Hypothesis: {text_pair} Label:"
        classifier = PromptClassifier(model, tokenizer, template, ["good", "bad"])
        (tokenized,) = classifier.tokenize([("he sleeps", "he is awake")])
        assert tokenized.text == "he sleeps\nhe is awake"
        assert tokenized.parts == ((0, 9), (10, 21))
        own = [tokenized.text[slice(*s)] for s in tokenized.offsets if s != (0, 0)]
        assert "".join(own).replace(" ", "") == "hesleepsheisawake"
        with pytest.raises(InvalidInputError, match="slots text, text_pair of the template, got a"):
            classifier.tokenize(["he sleeps"])

    def test_long_texts_are_cut_and_the_prompt_is_not(self) -> None:
        tokenizer = bpe_tokenizer(eos_token="</s>")
        model = language_model("gpt2", len(tokenizer))
        classifier = PromptClassifier(model, tokenizer, TEMPLATE, SINGLE, max_length=24)
        (tokenized,) = classifier.tokenize(["the film was good " * 30])
        assert len(tokenized) == 24
        ending = tokenizer(" Label:")["input_ids"]
        assert tokenized.model_inputs["input_ids"][-len(ending) :] == ending
        whole = PromptClassifier(model, tokenizer, TEMPLATE, SINGLE)
        (long,) = whole.tokenize(["the film was good " * 4])
        assert long.n_tokens_cut == 0
        (cut,) = classifier.tokenize(["the film was good " * 4])
        assert cut.n_tokens_cut == sum(long.maskable) - sum(cut.maskable)

    @pytest.mark.parametrize(
        ("template", "message"),
        [
            ("Text: Label:", r"with the slot \{text\} once"),
            ("{text} {text}", r"once, and"),
            ("{text} {label}", "got the slot 'label'"),
            ("{text", "double braces"),
            ("{text!r}", "got the slot"),
            (3, "got int"),
        ],
    )
    def test_bad_templates(self, template: str, message: str) -> None:
        tokenizer = bpe_tokenizer(eos_token="</s>")
        with pytest.raises(InvalidInputError, match=f"template: expected a string.*{message}"):
            PromptClassifier(language_model("gpt2", len(tokenizer)), tokenizer, template, SINGLE)

    def test_labels_without_a_template(self) -> None:
        tokenizer = bpe_tokenizer(eos_token="</s>")
        model = language_model("gpt2", len(tokenizer))
        with pytest.raises(InvalidInputError, match="template: expected it together with labels"):
            TextExplainer(model, tokenizer, labels=SINGLE)

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            (["good"], "two different words or more"),
            (["good", "good"], "two different words or more"),
            ({"a": "good", "b": " good"}, "same tokens for 'a' and 'b'"),
            ("good", "a mapping from names to words, or words"),
            (["good", ""], "expected words, got ''"),
            ([1, 2], "expected words, got 1"),
        ],
    )
    def test_bad_labels(self, labels: object, message: str) -> None:
        tokenizer = bpe_tokenizer(eos_token="</s>")
        with pytest.raises(InvalidInputError, match=f"labels: .*{message}"):
            PromptClassifier(language_model("gpt2", len(tokenizer)), tokenizer, TEMPLATE, labels)

    def test_a_prompt_without_room_for_the_text(self) -> None:
        tokenizer = bpe_tokenizer(eos_token="</s>")
        with pytest.raises(InvalidInputError, match="leaves room for a text within 128 tokens"):
            PromptClassifier(
                language_model("gpt2", len(tokenizer)),
                tokenizer,
                TEMPLATE,
                SINGLE,
                examples=[("a gripping film " * 60, "no")],
            )

    def test_an_encoder_writes_no_text(self) -> None:
        from tests._helpers.text_models import bert_classifier, word_piece_tokenizer

        tokenizer: PreTrainedTokenizerFast = word_piece_tokenizer()
        with pytest.raises(InvalidInputError, match="expected a language model"):
            PromptClassifier(bert_classifier(len(tokenizer)), tokenizer, TEMPLATE, SINGLE)


@pytest.mark.parametrize("labels", [SINGLE, SEVERAL], ids=["single", "several"])
@pytest.mark.parametrize("text", ["🎬" * 60, "日本語の映画" * 12, "סרט טוב " * 20, "a film " * 60])
@torch.no_grad()
def test_texts_of_every_script_are_cut_to_every_length(text: str, labels: dict[str, str]) -> None:
    """Several tokens may be parts of one character, in which no cut falls."""
    tokenizer = bpe_tokenizer(eos_token="</s>")
    model = language_model("gpt2", len(tokenizer))
    longest = max(
        len(ids) for ids in PromptClassifier(model, tokenizer, TEMPLATE, labels).label_ids
    )
    for limit in (20, 21, 22, 23, 40, None):
        classifier = PromptClassifier(model, tokenizer, TEMPLATE, labels, max_length=limit)
        most = 128 - (longest - 1) if limit is None else limit
        assert classifier.max_length == most
        (tokenized,) = classifier.tokenize([text])
        assert most - 4 < len(tokenized) <= most
        batch = classifier.collate([tokenized])
        # The model takes prompt and words together.
        assert bool(classifier(batch.input_ids, *batch.forward_args).isfinite().all())
        pair = PromptClassifier(
            model, tokenizer, "{text} / {text_pair} Label:", labels, max_length=limit
        )
        for given in ((text, "a film"), ("a film", text), (text, text)):
            assert len(pair.tokenize([given])[0]) <= most


def test_cut_tokens_are_those_of_the_whole_text() -> None:
    tokenizer = bpe_tokenizer(eos_token="</s>")
    model = language_model("gpt2", len(tokenizer))
    classifier = PromptClassifier(model, tokenizer, TEMPLATE, SINGLE, max_length=30)
    (tokenized,) = classifier.tokenize(["🎬" * 60])
    assert tokenized.n_tokens_cut == 4 * 60 - sum(tokenized.maskable)
    assert sum(tokenized.maskable) % 4 == 0


@pytest.mark.parametrize("template", ["<s>Text: {text} Label:", "Text: {text} Label:"])
def test_a_template_with_a_beginning_token_gets_no_second_one(template: str) -> None:
    tokenizer = bpe_tokenizer(metaspace=True)
    model = language_model("llama", len(tokenizer))
    (tokenized,) = PromptClassifier(model, tokenizer, template, SINGLE).tokenize(["<s> a film"])
    # The text's own is not the prompt's.
    assert [i == tokenizer.bos_token_id for i in tokenized.model_inputs["input_ids"]].count(
        True
    ) == 2
    assert tokenized.tokens[0] == "<s>"
