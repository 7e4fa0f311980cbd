"""Answers, against transformers' decoding and sums by hand, and planted words that decide them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import (
    BertForQuestionAnswering,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    XLNetConfig,
    XLNetForQuestionAnswering,
    XLNetForQuestionAnsweringSimple,
)
from transformers.pipelines.document_question_answering import select_starts_ends

from captum_aml.exceptions import InvalidInputError
from captum_aml.text import QuestionAnswerer, TextExplainer
from captum_aml.text.explanation import headline
from captum_aml.text.models.targets import TargetsLike
from tests._helpers.text_models import bert_classifier, word_piece_tokenizer

PAIRS = [
    ("is it good", "the film is gripping , the plot is slow"),
    ("good film", "a great unbelievable film at first but not very good"),
    ("the actor", "awful actor !"),
    ("( 1 )", "日本語 映画 = cafe"),
]


def drawn_answerer(seed: int = 3) -> BertForQuestionAnswering:
    config = bert_classifier(60).config
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return BertForQuestionAnswering(config).eval()


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return word_piece_tokenizer()


@pytest.fixture(scope="module")
def explainer(tokenizer: PreTrainedTokenizerFast) -> TextExplainer:
    return TextExplainer(drawn_answerer(), tokenizer, method="occlusion")


def log_probabilities(
    model: BertForQuestionAnswering, tokenizer: PreTrainedTokenizerFast, pair: tuple[str, str]
) -> tuple[Tensor, Tensor]:
    """Those of starts and ends, of the first token and those of the context."""
    encoded = tokenizer(*pair, return_tensors="pt")
    allowed = torch.tensor([part == 1 for part in encoded.sequence_ids(0)])
    allowed[0] = True
    with torch.no_grad():
        output = model(**encoded)
    start, end = (
        logits[0].masked_fill(~allowed, -torch.inf).log_softmax(dim=0)
        for logits in (output.start_logits, output.end_logits)
    )
    return start, end


@pytest.mark.parametrize("max_answer_length", [15, 2])
@pytest.mark.parametrize("no_answer", [False, True])
def test_answers_are_those_of_transformers(
    tokenizer: PreTrainedTokenizerFast, max_answer_length: int, no_answer: bool
) -> None:
    n_without = 0
    for seed in range(3):
        model = drawn_answerer(seed)
        made = QuestionAnswerer(
            model, tokenizer, max_answer_length=max_answer_length, no_answer=no_answer
        )
        for pair, answer in zip(PAIRS, made.answers(PAIRS), strict=True):
            encoded = tokenizer(*pair, return_tensors="pt")
            outside = [[0 if i == 0 or p == 1 else 1 for i, p in enumerate(encoded.sequence_ids())]]
            with torch.no_grad():
                output = model(**encoded)
            starts, ends, scores, without = select_starts_ends(
                output.start_logits.numpy(),
                output.end_logits.numpy(),
                outside,
                encoded["attention_mask"].numpy(),
                handle_impossible_answer=True,
                max_answer_len=max_answer_length,
            )
            assert answer is not None
            probability = float(torch.tensor(answer.log_probability).exp())
            if no_answer and without > scores[0]:
                n_without += 1
                assert (answer.text, answer.span) == ("no answer", None)
                assert probability == pytest.approx(without, rel=1e-4)
                continue
            chars = [encoded.token_to_chars(int(token)) for token in (starts[0], ends[0])]
            assert answer.text == pair[1][chars[0].start : chars[1].end]
            assert probability == pytest.approx(scores[0], rel=1e-4)
    assert (n_without > 0) is no_answer


def test_the_answer_is_explained_with_its_place_and_probability(
    tokenizer: PreTrainedTokenizerFast, explainer: TextExplainer
) -> None:
    model = explainer.text_model
    assert isinstance(model, QuestionAnswerer)
    rows = [{"question": question, "context": context} for question, context in PAIRS]
    explanations = explainer(rows)
    for explanation, answer in zip(explanations, model.answers(PAIRS), strict=True):
        assert answer is not None
        assert explanation.predicted_label == explanation.target_label == answer.text
        assert explanation.place == answer.span
        assert explanation.about == ("" if answer.span is None else answer.text)
        expected = float(torch.tensor(answer.log_probability).exp())
        assert explanation.probability == pytest.approx(expected, rel=1e-4)
    assert {e.task for e in explanations} == {"question-answering"}


def outputs(explainer: TextExplainer, target: TargetsLike) -> tuple[Tensor, tuple[str, ...]]:
    """What the model gives for a target of the first pair, and the names."""
    model = explainer.text_model
    ((question,),) = model.questions(model.tokenize(PAIRS[:1]), [target])
    assert question.text.labels is not None
    return model.outputs([question.text])[0], question.text.labels


def test_spans_and_contrasts_are_log_odds_and_log_ratios(
    tokenizer: PreTrainedTokenizerFast, explainer: TextExplainer
) -> None:
    model = explainer.text_model.model
    assert isinstance(model, BertForQuestionAnswering)
    start, end = log_probabilities(model, tokenizer, PAIRS[0])
    tokens = tokenizer(*PAIRS[0]).tokens()
    film, plot = tokens.index("film"), tokens.index("plot")
    p = float((start[film] + end[film]).exp())
    logits, names = outputs(explainer, "film")
    assert names[0] == "film"
    assert names[-1] == "another answer"
    assert float(logits[0].exp()) == pytest.approx(p / (1 - p), rel=1e-3)
    ratio = float(start[film] + end[film] - start[plot] - end[plot])
    for target in (("film", "plot"), ((15, 19), "plot")):
        logits, names = outputs(explainer, target)
        assert names[:2] == ("film", "plot")
        assert float(logits[0] - logits[1]) == pytest.approx(ratio, abs=1e-3)
    (explanation,) = explainer(PAIRS[0], target=("film", "plot"))
    assert explanation.explained_label == "film rather than plot"
    assert explanation.about == "film"
    assert headline(explanation).startswith(f"{explanation.predicted_label} 0.")


def test_start_and_end_are_explained_by_themselves(
    tokenizer: PreTrainedTokenizerFast, explainer: TextExplainer
) -> None:
    model = explainer.text_model
    assert isinstance(model, QuestionAnswerer)
    assert isinstance(model.model, BertForQuestionAnswering)
    start, end = log_probabilities(model.model, tokenizer, PAIRS[0])
    (answer,) = model.answers(PAIRS[:1])
    assert answer is not None
    whole, first, last = explainer(PAIRS[0], target="all")
    assert whole.target_label == answer.text
    assert first.target_label == f"start of {answer.text}"
    assert last.target_label == f"end of {answer.text}"
    p_first, p_last = float(start[answer.tokens[0]].exp()), float(end[answer.tokens[1]].exp())
    assert first.target_probability == pytest.approx(p_first, rel=1e-4)
    assert last.target_probability == pytest.approx(p_last, rel=1e-4)
    assert whole.target_probability == pytest.approx(p_first * p_last, rel=1e-4)


def test_of_words_that_stand_there_several_times_the_likeliest_are_meant(
    tokenizer: PreTrainedTokenizerFast, explainer: TextExplainer
) -> None:
    model = explainer.text_model.model
    assert isinstance(model, BertForQuestionAnswering)
    start, end = log_probabilities(model, tokenizer, PAIRS[0])
    (explanation,) = explainer(PAIRS[0], target="is")
    # Not the "is" of the question at 0: those of the context, tokens 7 and 12.
    likeliest = max((7, 12), key=lambda token: float(start[token] + end[token]))
    assert explanation.place == {7: (20, 22), 12: (43, 45)}[likeliest]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("it", "target: expected words of the text 'the film is .*', got 'it'"),
        ((0, 2), r"got \(0, 2\)"),
        ((0, 200), r"characters \(start, end\) of its"),
        (("film", "film"), "contrast between two answers, got 'film' twice"),
        (("start", "end"), "expected 'answer', 'start', 'end', 'no answer', words"),
        (1, "expected 'answer', 'start', 'end', 'no answer', words"),
    ],
)
def test_what_is_not_there_is_refused(
    explainer: TextExplainer, target: TargetsLike, message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        explainer(PAIRS[0], target=target)


def test_a_single_text_and_other_models_are_refused(
    tokenizer: PreTrainedTokenizerFast, explainer: TextExplainer
) -> None:
    with pytest.raises(InvalidInputError, match="pairs of question and context"):
        explainer("is it good")
    config = bert_classifier(60).config
    other = QuestionAnswerer(BertForSequenceClassification(config), tokenizer)
    with pytest.raises(InvalidInputError, match="got BertForSequenceClassification"):
        other.answers(PAIRS)
    with pytest.raises(InvalidInputError, match="use answers"):
        other.predict(PAIRS)
    beams = XLNetForQuestionAnswering(
        XLNetConfig(vocab_size=60, d_model=16, n_layer=1, n_head=2, d_inner=16)
    )
    with pytest.raises(InvalidInputError, match="got XLNetForQuestionAnswering"):
        TextExplainer(beams, tokenizer)(PAIRS[0])


def test_no_answer_is_explained_where_it_is_asked_and_without_a_context(
    explainer: TextExplainer,
) -> None:
    (asked,) = explainer(PAIRS[0], target=("no answer", "film"))
    assert asked.explained_label == "no answer rather than film"
    assert asked.place is None
    (without,) = explainer(("is it good", ""))
    assert (without.predicted_label, without.probability) == ("no answer", pytest.approx(1))


def test_a_context_that_was_cut_is_answered_as_far_as_it_is_seen(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    explainer = TextExplainer(drawn_answerer(), tokenizer, method="occlusion", max_length=12)
    (explanation,) = explainer(PAIRS[0], target="film")
    assert explanation.n_tokens_cut == 3
    with pytest.raises(InvalidInputError, match=r"got 'slow' at .*3 tokens were cut off"):
        explainer(PAIRS[0], target="slow")


def test_batches_are_as_texts_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    explainer = TextExplainer(drawn_answerer(), tokenizer, n_steps=4)
    asked: list[TargetsLike] = [None, ("no answer", "very good"), "end", ["cafe", "start"]]
    together = explainer(PAIRS, target=asked)
    alone = [e for pair, t in zip(PAIRS, asked, strict=True) for e in explainer(pair, target=t)]
    assert [e.row for e in together] == [0, 1, 2, 3, 3]
    for one, other in zip(alone, together, strict=True):
        assert one.explained_label == other.explained_label
        assert one.scores == pytest.approx(other.scores, abs=1e-3)


def test_a_folder_is_explained_as_the_model_is(
    tokenizer: PreTrainedTokenizerFast, explainer: TextExplainer, tmp_path: Path
) -> None:
    explainer.text_model.model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert TextExplainer(tmp_path, method="occlusion", device="cpu")(PAIRS) == explainer(PAIRS)


def test_with_padding_on_the_left_the_context_comes_first() -> None:
    tokenizer = word_piece_tokenizer()
    tokenizer.padding_side = "left"
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = XLNetForQuestionAnsweringSimple(
            XLNetConfig(vocab_size=60, d_model=16, n_layer=1, n_head=2, d_inner=16)
        ).eval()
    explainer = TextExplainer(
        QuestionAnswerer(model, tokenizer, no_answer=False), method="occlusion"
    )
    question, context = PAIRS[1]
    (explanation,) = explainer((question, context))
    assert explanation.text == f"{context}\n{question}"
    assert explanation.about == explanation.predicted_label
    assert explanation.about in context


@pytest.mark.parametrize("method", ["integrated-gradients", "kernel-shap", "attention", "la-tuned"])
def test_every_family_of_methods_runs(tokenizer: PreTrainedTokenizerFast, method: str) -> None:
    explainer = TextExplainer(drawn_answerer(), tokenizer, method=method)
    (explanation,) = explainer(PAIRS[2])
    assert any(explanation.scores)
