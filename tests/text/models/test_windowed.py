"""Long texts in windows that overlap."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, BartConfig, GPT2Config, XLNetConfig

from captum_aml import methods
from captum_aml.exceptions import InvalidInputError
from captum_aml.text import (
    MultiLabelClassifier,
    TextClassifier,
    TextExplainer,
    WindowedClassifier,
    WindowedMultiLabelClassifier,
    WindowedRegressor,
)
from captum_aml.text.models.base import TextModel
from captum_aml.text.models.windowed import window_starts, windowed_kind
from tests._helpers.additive import additive_classifier
from tests._helpers.methods import all_names, few
from tests._helpers.text_models import bert_classifier, word_piece_tokenizer

WORDS = "the plot is not very good , but the actor is great ! a slow film at first"
LONG = f"{WORDS} . {WORDS} ."  # 40 tokens or so, of which a window takes 14
TOKENIZER = word_piece_tokenizer()


def windowed(stride: int = 4, max_length: int = 16, **options: Any) -> WindowedClassifier:
    return WindowedClassifier(
        bert_classifier(60), TOKENIZER, stride=stride, max_length=max_length, **options
    )


@pytest.mark.parametrize(
    ("length", "width", "stride", "starts"),
    [
        (10, 6, 2, [0, 4]),
        (11, 6, 2, [0, 2, 5]),  # at equal distances, rather than 0, 4 and a short one
        (12, 6, 0, [0, 6]),
        (13, 6, 5, [0, 2, 4, 7]),  # half a window is the most
        (3, 1, 9, [0, 1, 2]),
    ],
)
def test_windows_by_hand(length: int, width: int, stride: int, starts: list[int]) -> None:
    assert window_starts(length, width, stride) == starts


def test_windows_cover_a_text_and_share_what_they_should() -> None:
    for length in range(11, 60):
        for width in range(2, 11):
            for stride in range(width // 2 + 1):
                starts = window_starts(length, width, stride)
                assert (starts[0], starts[-1] + width) == (0, length)
                assert all(b - a <= width - stride for a, b in itertools.pairwise(starts))


def test_the_outputs_are_the_mean_of_what_the_model_says_of_each_window() -> None:
    plain, model = TextClassifier(bert_classifier(60), TOKENIZER), windowed()
    (text,) = model.tokenize([LONG])
    words = TOKENIZER.tokenize(LONG)
    starts = window_starts(len(words), 14, 4)
    assert text.sequences == (16,) * len(starts)
    assert text.n_tokens_cut == 0
    alone = []
    for start in starts:
        ids = TOKENIZER.convert_tokens_to_ids(["[CLS]", *words[start : start + 14], "[SEP]"])
        alone.append(plain(torch.tensor([ids])))
    mean = torch.stack(alone).mean(dim=0)
    together = model.outputs([text, *model.tokenize(["a film", LONG])])
    assert together[0] == pytest.approx(mean[0].detach(), abs=1e-6)
    assert torch.allclose(together[2], together[0], atol=1e-6)
    assert model.predict([LONG])[0] == pytest.approx(mean[0].detach().softmax(dim=0), abs=1e-6)


@pytest.mark.parametrize("name", all_names())
def test_a_text_of_one_window_is_explained_as_ever_and_nothing_of_longer_ones_is_cut(
    name: str,
) -> None:
    model = windowed()
    plain = TextClassifier(bert_classifier(60), TOKENIZER, max_length=16)
    short, steps = "not a good film", few(name)
    for unit in ("token", "word"):
        ours = TextExplainer(model, method=name, n_steps=steps, unit=unit)
        (expected,) = TextExplainer(plain, method=name, n_steps=steps, unit=unit)(short)
        (found,) = ours(short)
        assert (found.tokens, found.scores) == (expected.tokens, expected.scores)
        assert found.probability == expected.probability
        assert found.settings["stride"] == "4"
        if methods.spec(name).family == "attention":
            with pytest.raises(InvalidInputError, match=f"{name} expects"):
                ours(LONG)
            continue
        (long,) = ours(LONG)
        assert long.n_tokens_cut == 0
        assert [LONG[start:end] for start, end in long.offsets] == LONG.split()


def test_contributions_are_those_in_the_mean_of_the_windows() -> None:
    weights = {"good": 3.0, "bad": -2.0, "great": 4.0, "fine": 0.5}
    model, tokenizer = additive_classifier({word: [weight] for word, weight in weights.items()})
    # Windows of three words that share one: "good bad great", "great fine bad" and so on.
    for name in ("aml", "ig", "occlusion"):
        explainer = TextExplainer(model, tokenizer, method=name, max_length=5, stride=1)
        assert isinstance(explainer.text_model, WindowedRegressor)
        (found,) = explainer("good bad great fine bad")
        assert found.tokens == ("good", "bad", "great", "fine", "bad")
        # "great" is in both windows.
        assert found.scores == pytest.approx([1.5, -1, 4, 0.25, -1], abs=1e-4)
        assert found.value == pytest.approx(3.75)


def test_words_in_sentences_of_a_long_document_add_up() -> None:
    model = windowed()
    document = "a slow film. the plot is not very good! great actor, gripping at first. bad film."
    for name in ("aml", "ig", "occlusion"):
        options: dict[str, Any] = {"method": name, "n_steps": few(name)}
        (whole,) = TextExplainer(model, unit="sentence", **options)(document)
        inside = TextExplainer(model, unit="sentence+word", n_sentences=2, **options)
        (found,) = inside(document)
        assert len(found.tokens) > len(whole.tokens) == 4
        sums = [each.score for each in found.sentences("sum")]
        assert sums == pytest.approx(whole.scores, abs=1e-5)


class TestPairs:
    def test_the_longer_text_is_in_windows_beside_the_other(self) -> None:
        model = windowed()
        for pair in (("good film", WORDS), (WORDS, "good film")):
            (text,) = model.tokenize([pair])
            assert (text.n_tokens_cut, len(set(text.sequences))) == (0, 1)
            n_windows = len(text.sequences)
            tokens = [t for t, keep in zip(text.tokens, text.maskable, strict=True) if keep]
            assert len(tokens) == n_windows * 13
            by_number = dict(zip(text.copies or (), tokens, strict=True))
            written = [by_number[number] for number in range(len(by_number))]
            assert written == TOKENIZER.tokenize(" ".join(pair))
            assert tokens.count("good") >= n_windows
            assert 1 in text.model_inputs["token_type_ids"]

    def test_what_leaves_no_room_for_windows_is_cut_and_counted(self) -> None:
        (text,) = windowed().tokenize([(WORDS, f"{WORDS} great great")])
        n = len(TOKENIZER.tokenize(WORDS))
        assert text.n_tokens_cut == n - 6  # half of the 13 tokens beside the special ones
        assert len(set(text.copies or ())) == 6 + n + 2


def test_every_task_of_classification() -> None:
    model, tokenizer = additive_classifier(
        {"good": [2.0, -4.0, 3.0], "bad": [-3.0, 1.0, 2.0]},
        problem_type="multi_label_classification",
    )
    explainer = TextExplainer(model, tokenizer, method="occlusion", max_length=4, stride=0)
    assert isinstance(explainer.text_model, WindowedMultiLabelClassifier)
    # Windows "good bad" and "good good": the mean is 1.5, -5.5 and 5.5.
    found = explainer("good bad good good")
    assert [each.target for each in found] == [2, 0]
    assert found[0].probability == pytest.approx(torch.tensor(5.5).sigmoid().item())
    assert found[1].target_probability == pytest.approx(torch.tensor(1.5).sigmoid().item())
    strict = WindowedMultiLabelClassifier(model, tokenizer, max_length=4, stride=0, threshold=0.9)
    assert [e.target for e in TextExplainer(strict, method="ig")("good bad good good")] == [2]
    classes, tokenizer = additive_classifier({"good": [2.0, 0.0, 1.0], "bad": [0.0, 1.0, 4.0]})
    explainer = TextExplainer(classes, tokenizer, max_length=4, stride=0)
    (contrast,) = explainer("good bad good good", target=(2, 0))
    assert contrast.scores == pytest.approx([-0.5, 2, -0.5, -0.5], abs=1e-4)


@pytest.mark.parametrize("name", ["aml", "integrated-gradients", "occlusion", "kernel-shap"])
def test_a_pass_holds_no_more_windows_than_the_batch_size(name: str) -> None:
    rows: list[int] = []
    model = windowed()

    def count(_: nn.Module, given: Any) -> None:
        rows.append(len(given[0]))

    model.model.bert.encoder.register_forward_pre_hook(count)
    texts = [LONG, "good", f"{WORDS} , not bad", LONG, "a film", f"{WORDS} , but good"]
    explainer = TextExplainer(model, method=name, n_steps=few(name), batch_size=8)
    list(explainer(texts, target=1))
    # The averaged mask gradient has twice as many masked variants as texts in a pass.
    assert max(rows) <= 16 if name == "aml" else max(rows) <= 8
    rows.clear()
    model.predict(texts, batch_size=8)
    assert max(rows) <= 8
    assert sum(rows) == sum(len(text.sequences) for text in model.tokenize(texts))


def test_bad_arguments() -> None:
    with pytest.raises(InvalidInputError, match="stride: expected fewer than the 14 tokens"):
        windowed(stride=14)
    with pytest.raises(InvalidInputError, match="stride: a MultiLabelClassifier has its own"):
        TextExplainer(MultiLabelClassifier(bert_classifier(60), TOKENIZER), stride=4)
    explainer = TextExplainer(windowed())
    with pytest.raises(InvalidInputError, match="where long texts are read in windows"):
        explainer.fit([LONG])


def test_other_tasks_have_no_windows() -> None:
    class Other(TextModel):
        task = "other-task"

    with pytest.raises(InvalidInputError, match="stride: expected none for the task 'other-task'"):
        windowed_kind(Other)


def test_special_tokens_that_fill_a_text() -> None:
    model = windowed()
    for text in ("[SEP] " * 40, "good " + "[SEP] " * 40, "[SEP] " * 40 + "good"):
        (found,) = model.tokenize([text])
        assert len(found.sequences) >= 1
        assert max(found.sequences) <= 16
        TextExplainer(model, method="occlusion")(text)


SMALL: dict[str, Any] = {"vocab_size": 60, "d_model": 16, "initializer_range": 0.3}
ODD = {
    "gpt2": GPT2Config(n_embd=16, n_layer=1, n_head=2, n_positions=64, vocab_size=60),
    "bart": BartConfig(
        **SMALL, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, init_std=0.3,
        max_position_embeddings=64, pad_token_id=0, eos_token_id=3, forced_eos_token_id=3,
    ),
    "xlnet": XLNetConfig(**SMALL, n_layer=1, n_head=2, d_inner=16),
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD)
def test_windows_of_models_that_embed_tokens_elsewhere(kind: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(ODD[kind]).eval()
    explainer = TextExplainer(
        model, TOKENIZER, method="ig", n_steps=100, stride=4, max_length=16, batch_size=500
    )
    text_model = explainer.text_model
    batch = text_model.collate(text_model.tokenize([LONG]))
    with torch.no_grad():
        outputs = [
            text_model(ids, *batch.forward_args)
            for ids in (batch.input_ids, text_model.baselines(batch))
        ]
    with_it, without = (output.softmax(dim=-1)[0, 1] for output in outputs)
    (found,) = explainer(LONG, target=1)
    # Integrated gradients of every place where a token is embedded add up to this.
    assert abs(with_it - without) > 1e-3
    assert sum(found.scores) == pytest.approx(float(with_it - without), rel=0.05, abs=1e-3)
