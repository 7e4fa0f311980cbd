"""What a language model writes, against its own logits token by token."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BertLMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    pipeline,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from captum_aml.exceptions import InvalidInputError
from captum_aml.text import TextClassifier, TextExplainer, TextGenerator
from tests._helpers.decoders import bpe_tokenizer, language_model
from tests._helpers.text_models import bert_classifier, word_piece_tokenizer

TEXTS = ["a gripping film", "the plot was not good and the film was dull", "a"]
KINDS = ("gpt2", "llama", "t5", "bart")

CHAT = [
    {"role": "system", "content": "the film"},
    {"role": "user", "content": "  a gripping plot "},
    {"role": "assistant", "content": "good"},
    {"role": "user", "content": "was the film good"},
]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<{{ m['role'] }}> {{ m['content'] | trim }} {% endfor %}"
    "{% if add_generation_prompt %}Label:{% endif %}"
)


def make(kind: str) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    tokenizer = bpe_tokenizer(metaspace=True) if kind != "gpt2" else bpe_tokenizer(eos_token="</s>")
    return language_model(kind, len(tokenizer)), tokenizer


def log_probs(model: PreTrainedModel, prompt: list[int], answer: list[int]) -> list[float]:
    """The log-probability of each token of an answer, by plain calls of the model."""
    found = []
    for number, token in enumerate(answer):
        if model.config.is_encoder_decoder:
            begun = [model.config.decoder_start_token_id, *answer[:number]]
            named = {"decoder_input_ids": torch.tensor([begun])}
            logits = model(input_ids=torch.tensor([prompt]), **named).logits[0, -1]
        else:
            logits = model(torch.tensor([[*prompt, *answer[:number]]])).logits[0, -1]
        found.append(float(logits.log_softmax(-1)[token]))
    return found


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_outputs_are_those_of_the_answers_tokens(kind: str) -> None:
    model, tokenizer = make(kind)
    generator = TextGenerator(model, tokenizer, max_new_tokens=5)
    explainer = TextExplainer(generator, method="occlusion")
    tokens = explainer(TEXTS, target="all")
    whole = explainer(TEXTS)
    for row, text in enumerate(generator.tokenize(TEXTS)):
        prompt = text.model_inputs["input_ids"]
        ids = torch.tensor([prompt])
        written = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=5,
            pad_token_id=0,
        )[0].tolist()
        answer = written[1 if model.config.is_encoder_decoder else len(prompt) :]
        expected = log_probs(model, prompt, answer)
        if kind == "bart":
            assert answer[0] == 0, "BART begins its answers so, whatever it reads"
            expected = expected[1:]
        own = [math.log(e.target_probability) for e in tokens if e.row == row]
        assert own == pytest.approx(expected, abs=1e-4)
        assert math.log(whole[row].target_probability) == pytest.approx(sum(expected), abs=1e-4)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("gpt_neo", {"num_layers": 2, "attention_types": [[["local"], 2]], "window_size": 4}),
        ("roberta", {"num_hidden_layers": 2, "is_decoder": True}),
        ("mamba", {"num_hidden_layers": 2, "state_size": 4}),
    ],
)
@torch.no_grad()
def test_windows_positions_and_states_do_not_count_padding(
    kind: str, settings: dict[str, Any]
) -> None:
    tokenizer = bpe_tokenizer(metaspace=True)
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 16, "pad_token_id": 1}
    attention = {} if kind == "mamba" else {"num_attention_heads": 2, "intermediate_size": 32}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        config = CONFIG_MAPPING[kind](**sizes, **attention, **settings, initializer_range=0.5)
        model = AutoModelForCausalLM.from_config(config).eval()
    generator = TextGenerator(model, tokenizer)
    pairs = [(text, "good film") for text in TEXTS]
    found = TextExplainer(generator, method="occlusion")(pairs, target=2)
    for text, explanation in zip(generator.tokenize(pairs), found, strict=True):
        own = log_probs(model, text.model_inputs["input_ids"], list(text.own_inputs["answer"]))
        assert math.log(explanation.target_probability) == pytest.approx(own[1], abs=1e-4)


def test_a_model_whose_tokens_see_later_ones_is_refused() -> None:
    tokenizer = word_piece_tokenizer()
    model = BertLMHeadModel(bert_classifier(len(tokenizer)).config).eval()
    with pytest.raises(InvalidInputError, match="a BertLMHeadModel, whose tokens see later ones"):
        TextExplainer(model, tokenizer)


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_alone_is_that_of_a_batch(kind: str) -> None:
    explainer = TextExplainer(TextGenerator(*make(kind), max_new_tokens=3), n_steps=4)
    alone = [explainer(text, target=1)[0] for text in TEXTS]
    together = explainer(TEXTS, target=1)
    for one, other in zip(alone, together, strict=True):
        assert other.target_label == one.target_label
        assert other.scores == pytest.approx(one.scores, abs=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_contrasts_are_of_log_probabilities(kind: str) -> None:
    model, tokenizer = make(kind)
    generator = TextGenerator(model, tokenizer)
    lead = [0] if kind == "bart" else []
    prompt = generator.tokenize(TEXTS[:1])[0].model_inputs["input_ids"]

    def ids(words: str) -> list[int]:
        if model.config.is_encoder_decoder:
            return [*lead, *tokenizer(words, add_special_tokens=False)["input_ids"]]
        return tokenizer(f"{TEXTS[0]} {words}")["input_ids"][len(prompt) :]

    def difference(given: Any, target: tuple[str, str]) -> float:
        ((question,),) = generator.questions(generator.tokenize([given]), [target])
        batch = generator.collate([question.text])
        outputs = generator(batch.input_ids, *batch.forward_args)[0]
        (asked,) = question.targets
        return float(generator.difference(outputs[asked.index], outputs[asked.foil]))

    def expected(first: str, second: str) -> float:
        sums = [sum(log_probs(model, prompt, ids(words))) for words in (first, second)]
        return sums[0] - sums[1]

    # Right after the prompt, words of several tokens; and inside an answer that is given.
    assert difference(TEXTS[0], ("negative film", "awful")) == pytest.approx(
        expected("negative film", "awful"), abs=1e-3
    )
    assert difference((TEXTS[0], "the plot was dull"), ("plot", "film")) == pytest.approx(
        expected("the plot", "the film"), abs=1e-3
    )


def test_parts_of_an_answer_are_explained_as_one() -> None:
    model, tokenizer = make("llama")
    explainer = TextExplainer(model, tokenizer)
    pair = ("a gripping film", "good plot was dull")
    found = explainer(pair, target=[0, "plot was", slice(2, 4), 4, ("good", "bad"), "dull"])
    assert [e.explained_label for e in found] == [
        "good plot was dull", "plot was", "plot was", "dull", "good rather than bad", "dull",
    ]  # fmt: skip
    assert found[1].scores == found[2].scores
    assert (found[0].about, found[0].tokens) == (pair[1], ("▁a", "▁gripping", "▁film"))
    each = [e.target_probability for e in explainer(pair, target="all")]
    assert found[1].target_probability == pytest.approx(each[1] * each[2], rel=1e-4)
    assert found[0].probability == found[0].target_probability
    # Contributions sum to the change of the log-odds when the prompt is removed.
    generator = explainer.text_model
    ((question,),) = generator.questions(generator.tokenize([pair]), ["plot was"])
    batch = generator.collate([question.text])
    with torch.no_grad():
        before, after = (
            float(generator(ids, *batch.forward_args)[0, question.targets[0].index])
            for ids in (batch.input_ids, generator.baselines(batch))
        )
    assert sum(found[1].scores) == pytest.approx(before - after, abs=1e-3)


@torch.no_grad()
def test_long_answers_are_explained_by_their_log_odds() -> None:
    model, tokenizer = make("llama")
    generator = TextGenerator(model, tokenizer, max_new_tokens=60)
    pair = (TEXTS[0], "good plot was not dull awful negative " * 3)
    (text,) = generator.tokenize([pair])
    prompt, answer = text.model_inputs["input_ids"], list(text.own_inputs["answer"])
    whole = sum(log_probs(model, prompt, answer))
    assert whole < -120
    expected = []
    for place in (i for i, maskable in enumerate(text.maskable) if maskable):
        changed = [*prompt[:place], generator.baseline.id, *prompt[place + 1 :]]
        expected.append(whole - sum(log_probs(model, changed, answer)))
    (found,) = TextExplainer(generator, method="occlusion")(pair)
    assert found.scores == pytest.approx(expected, abs=1e-3)
    assert found.score == "drop in the log-odds of the explained class when replaced alone"
    assert found.target_probability == pytest.approx(math.exp(whole), rel=1e-3)
    for method in ("lime", "integrated-gradients", "deep-lift"):
        (other,) = TextExplainer(generator, method=method, n_steps=None)(pair)
        assert max(map(abs, other.scores)) > 0.01
    # Where the one is all but certain against the other, too.
    (contrast,) = TextExplainer(generator, method="occlusion")(pair, target=("good", "dull"))
    assert contrast.score.startswith(
        "drop in the log-probability of the explained class less that of the foil when"
    )


def test_prompts_after_which_nothing_is_written_are_named() -> None:
    model, tokenizer = make("llama")
    model.generation_config.eos_token_id = list(range(len(tokenizer)))
    explainer = TextExplainer(model, tokenizer, method="occlusion")
    with pytest.warns(UserWarning, match="writes nothing after the prompt 'a film'") as caught:
        (found,) = explainer(["a film", ("a film", "good")])
    assert (found.row, len(caught)) == (1, 1)


def test_chats_are_rendered_by_the_template_and_users_are_masked() -> None:
    model, tokenizer = make("llama")
    tokenizer.chat_template = TEMPLATE
    explainer = TextExplainer(model, tokenizer, method="occlusion")
    generator = explainer.text_model
    (text,) = generator.tokenize([CHAT])
    rendered = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True)["input_ids"]
    assert text.model_inputs["input_ids"] == rendered
    (explanation,) = explainer(CHAT)
    shown = [explanation.text[slice(*span)].strip() for span in explanation.offsets]
    assert shown == ["a", "gripping", "plot", "was", "the", "film", "good"]
    # A last message of the assistant is the answer.
    first, second = explainer([CHAT[:3], TEXTS[0]])
    assert (first.target_label, first.about, first.row, second.row) == ("good", "good", 0, 1)
    everyone = TextGenerator(model, tokenizer, roles=("user", "system"))
    assert sum(everyone.tokenize([CHAT])[0].maskable) == sum(text.maskable) + 2
    tokens = word_piece_tokenizer()
    classifier = TextClassifier(bert_classifier(len(tokens)), tokens)
    with pytest.raises(InvalidInputError, match="messages of a chat at position 0"):
        classifier.tokenize([CHAT])


def test_what_cannot_be_explained_is_said() -> None:
    model, tokenizer = make("llama")
    explainer = TextExplainer(model, tokenizer, method="occlusion")
    pair = ("a film", "good plot")
    for target, message in [
        ("dull", "a part of the answer 'good plot', got 'dull'; give the prompt with another"),
        (3, "a number from 1 to 2 or a slice of these"),
        (slice(0, 2), "a number from 1 to 2 or a slice of these"),
        (("good", "good"), "of which one begins with the other"),
        (("good", 1), "a contrast as a pair of what is written and a string"),
    ]:
        with pytest.raises(InvalidInputError, match=message):
            explainer(pair, target=target)
    with pytest.raises(InvalidInputError, match="an answer with the prompt, got an empty one"):
        explainer(("a film", " "))
    with pytest.raises(InvalidInputError, match="at most 108 tokens, got"):
        explainer("film " * 120)
    with pytest.raises(InvalidInputError, match="no chat template"):
        explainer(CHAT)
    with pytest.raises(InvalidInputError, match="a masker cannot be fitted"):
        TextExplainer(model, tokenizer).fit(["a film"])


def test_it_is_found_for_what_writes_and_nothing_else(tmp_path: Path) -> None:
    for kind in ("gpt2", "t5"):
        model, tokenizer = make(kind)
        assert type(TextExplainer(model, tokenizer).text_model) is TextGenerator
        model.save_pretrained(tmp_path / kind)
        tokenizer.save_pretrained(tmp_path / kind)
        by_folder = TextExplainer(tmp_path / kind, device="cpu").text_model
        assert type(by_folder) is TextGenerator
    pipe = pipeline("text-generation", make("gpt2")[0], tokenizer=make("gpt2")[1])
    assert type(TextExplainer(pipe).text_model) is TextGenerator
