"""Several sequences of one text, for models that padding changes: each as if it were alone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity
from transformers import (
    AutoModel,
    AutoModelForMultipleChoice,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from captum_aml.text import (
    MultipleChoiceModel,
    SimilarityModel,
    TextExplainer,
    WindowedClassifier,
    ZeroShotClassifier,
)
from captum_aml.text.models.base import TextModel
from tests._helpers.architectures import tiny_classifier, tiny_model, tokenizer_for

#: Padding on one side or on either changes what these say of a text, or makes it longer.
NAMES = ("xlnet", "fnet", "convbert", "big_bird")

# Of each text at least one sequence is long enough for block-sparse attention.
FILM, BRIGHT = "the film was not very dull and slow", "a very good and bright film"
LONG = "the long and slow film was not a good film and very dull"
LABELS = ("dull", f"good and not {LONG}", "slow film")


@dataclass(frozen=True)
class Case:
    """A text model, texts, and its outputs for one, masked or not, from sequences run alone."""

    text_model: TextModel
    texts: Sequence[Any]
    expected: Callable[[Any, bool], Tensor]


def masked(text: str) -> str:
    return " ".join("<mask>" for _ in text.split())


def zero_shot(name: str) -> Case:
    names = ("contradiction", "neutral", "entailment")
    numbered = {"id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}}
    model = tiny_model(AutoModelForSequenceClassification, name, **numbered)
    tokenizer = tokenizer_for(name)

    def expected(text: str, removed: bool) -> Tensor:
        pairs = [(masked(text) if removed else text, f"the film was {label}") for label in LABELS]
        return torch.stack([run(model, tokenizer(*pair)).logits[0, 2] for pair in pairs])

    return Case(
        ZeroShotClassifier(model, tokenizer, "the film was {}", LABELS), [FILM, BRIGHT], expected
    )


def multiple_choice(name: str) -> Case:
    model = tiny_model(AutoModelForMultipleChoice, name, id2label=None, label2id=None)
    tokenizer = tokenizer_for(name)

    def expected(text: tuple[str, list[str]], removed: bool) -> Tensor:
        written = masked if removed else str
        encoded = [tokenizer(written(text[0]), written(option)) for option in text[1]]
        found = [run(model, {k: [v] for k, v in each.items()}).logits[0, 0] for each in encoded]
        return torch.stack(found)

    texts = [(FILM, ["a film", LONG, "bright"]), (BRIGHT, [LONG, "dull", "a slow film"])]
    return Case(MultipleChoiceModel(model, tokenizer), texts, expected)


def similarity(name: str) -> Case:
    model, tokenizer = (
        tiny_model(AutoModel, name, id2label=None, label2id=None),
        tokenizer_for(name),
    )

    def embedded(text: str) -> Tensor:
        states: Tensor = run(model, tokenizer(text)).last_hidden_state
        return states[0].mean(dim=0)

    def expected(text: tuple[str, str], removed: bool) -> Tensor:
        (a, b), (c, d) = map(embedded, text), map(embedded, map(masked, text))
        cosines = [(a, b)] if not removed else [(c, b), (a, d), (a, b)]
        found = [cosine_similarity(*pair, dim=0) for pair in cosines]
        return found[0][None] if not removed else (found[0] + found[1] - found[2])[None]

    return Case(SimilarityModel(model, tokenizer), [(FILM, LONG), (LONG, BRIGHT)], expected)


def run(model: PreTrainedModel, encoded: Any) -> Any:
    """What a model gives for one text: a copy, as BigBird's attention changes with short ones."""
    given = {name: torch.tensor([values]) for name, values in encoded.items()}
    with torch.no_grad():
        return copy.deepcopy(model)(**given)


@pytest.mark.parametrize("case", [zero_shot, multiple_choice, similarity])
@pytest.mark.parametrize("name", [*NAMES, "canine"])
def test_outputs_are_those_of_each_sequence_alone(case: Callable[[str], Case], name: str) -> None:
    made = case(name)
    expected = torch.stack([made.expected(text, False) for text in made.texts])
    tokenized = made.text_model.tokenize(made.texts)
    torch.testing.assert_close(made.text_model.outputs(tokenized), expected, rtol=1e-4, atol=1e-5)
    # So it is in a batch with texts of other lengths.
    batch = made.text_model.collate(tokenized)
    with torch.no_grad():
        together = made.text_model(batch.input_ids, *batch.forward_args)
    torch.testing.assert_close(together, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("case", "name"),
    [
        (zero_shot, "xlnet"),
        (zero_shot, "big_bird"),
        (multiple_choice, "fnet"),
        (similarity, "convbert"),
    ],
)
def test_scores_sum_to_what_removal_does(case: Callable[[str], Case], name: str) -> None:
    made = case(name)
    explainer = TextExplainer(made.text_model)
    for text, found in zip(made.texts, explainer(made.texts), strict=True):
        drop = made.expected(text, False) - made.expected(text, True)
        assert sum(found.scores) == pytest.approx(float(drop[found.target]), abs=2e-3)
        assert found.scores == pytest.approx(explainer(text)[0].scores, abs=2e-3)


def test_gradients_go_through_sequences_of_every_length() -> None:
    made = similarity("convbert")
    explainer = TextExplainer(
        made.text_model, method="integrated-gradients", n_steps=100, batch_size=256
    )
    (found,) = explainer(made.texts[0])
    drop = made.expected(made.texts[0], False) - made.expected(made.texts[0], True)
    assert sum(found.scores) == pytest.approx(float(drop), abs=0.01)


def test_sequences_with_other_numbers_of_end_tokens_share_a_batch() -> None:
    made = zero_shot("bart")
    explainer = TextExplainer(made.text_model)
    texts = [f"{BRIGHT} </s> dull", FILM]  # of as many tokens
    for text, found in zip(texts, explainer(texts), strict=True):
        assert found.method == "aml"
        assert found.scores == pytest.approx(explainer(text)[0].scores, abs=2e-3)


@pytest.mark.parametrize("name", NAMES)
def test_windows_are_run_as_texts_of_their_own(name: str) -> None:
    model, tokenizer = tiny_classifier(name), tokenizer_for(name)
    text_model = WindowedClassifier(model, tokenizer, stride=2, max_length=9)
    tokenized = text_model.tokenize([LONG, FILM, "good"])
    assert [len(text.sequences) > 1 for text in tokenized] == [True, True, False]
    for text, found in zip(tokenized, text_model.outputs(tokenized), strict=True):
        ids = torch.tensor(text.model_inputs["input_ids"]).split(text.sequences)
        alone = [run(model, {"input_ids": window.tolist()}).logits[0] for window in ids]
        torch.testing.assert_close(found, torch.stack(alone).mean(dim=0), rtol=1e-4, atol=1e-5)
