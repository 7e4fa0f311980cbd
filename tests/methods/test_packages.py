"""The explainers of shap and lime on texts of which the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from captum_aml.methods.packages import TokenPieces, text_pieces
from captum_aml.text import TextClassifier, TextExplainer
from tests._helpers.methods import (
    IDS,
    LINEAR,
    LOGISTIC,
    REFERENCE,
    at_tokens,
    named,
    run,
    token_weights,
)
from tests._helpers.text_models import (
    BagOfTokens,
    bert_classifier,
    byte_level_tokenizer,
    shapley_values,
    word_piece_tokenizer,
)

NAMES = named("shap", "lime-text")
shap_only = pytest.mark.parametrize("name", named("shap"))
lime_only = pytest.mark.parametrize("name", named("lime-text"))


def classifier() -> TextClassifier:
    tokenizer = word_piece_tokenizer()
    return TextClassifier(bert_classifier(len(tokenizer)), tokenizer)


@shap_only
def test_two_tokens_share_as_shapley_says(name: str) -> None:
    # With two tokens the tree leaves no choice: Owen values are Shapley values.
    model = BagOfTokens([9.0, -5.0, 0.0, 2.0, -1.0, 1.5, 0.5], offset=4.8, link="logistic")
    ids, reference = torch.tensor([[1, 3, 4]]), torch.tensor([[1, 2, 2]])
    scores = run(name, model, ids=ids, reference=reference, mask=torch.ones(1, 3))
    exact = shapley_values(model, [-5.0, 2.0, -1.0], [-5.0, 0.0, 0.0])[1:]
    assert scores[0, 1:].tolist() == pytest.approx(exact, abs=1e-6)


@shap_only
def test_owen_values_of_three_tokens(name: str) -> None:
    # Words of one character without punctuation merge from the left: ((0, 1), 2). The pair and the
    # third share as two players would; inside it, the two share for the third absent and present.
    model = BagOfTokens([9.0, -5.0, 0.0, 2.0, -1.0, 1.5, 0.5], offset=4.8, link="logistic")
    ids, reference = torch.tensor([[3, 4, 5]]), torch.tensor([[2, 2, 2]])
    scores = run(name, model, ids=ids, reference=reference, mask=torch.ones(1, 3))

    def p(*kept: int) -> float:
        weights = (2.0, -1.0, 1.5)
        return model.probability([weights[i] if i in kept else 0.0 for i in range(3)])

    third = (p(2) - p() + p(0, 1, 2) - p(0, 1)) / 2
    first = (p(0) - p() + p(0, 1) - p(1) + p(0, 2) - p(2) + p(0, 1, 2) - p(1, 2)) / 4
    second = (p(1) - p() + p(0, 1) - p(0) + p(1, 2) - p(2) + p(0, 1, 2) - p(0, 2)) / 4
    assert scores[0].tolist() == pytest.approx([first, second, third], abs=1e-6)


@lime_only
def test_lime_is_the_weighted_ridge_regression_of_its_paper(name: str) -> None:
    # Of an additive probability the regression is exact but for its penalty, which shrinks.
    scores = run(name, LINEAR, n_steps=3000)
    for row in range(2):
        expected = [weight - 0.05 for weight in token_weights(row)]
        assert at_tokens(scores, row) == pytest.approx(expected, rel=0.02, abs=1e-4)


@lime_only
def test_lime_by_hand(name: str) -> None:
    # Its own sampling, then the regression as normal equations.
    n_samples, n_tokens = 50, 5
    scores = run(name, LOGISTIC, n_steps=n_samples, seed=4)[1]
    generator = np.random.RandomState(4)
    sizes = generator.randint(1, n_tokens + 1, n_samples - 1)
    kept = np.ones((n_samples, n_tokens))
    for row, size in enumerate(sizes, start=1):
        kept[row, generator.choice(range(n_tokens), size, replace=False)] = 0
    values = [-0.1, 0.3, 0.3, 0.0, 0.15]
    p = [
        LOGISTIC.probability([-5.0, *(v if k else 0.05 for v, k in zip(values, row, strict=True))])
        for row in kept
    ]
    distance = 100 * (1 - np.sqrt(kept.mean(axis=1)))
    weight = np.sqrt(np.exp(-(distance**2) / 25**2))
    design = np.hstack([kept, np.ones((n_samples, 1))])
    penalty = np.diag([1.0] * n_tokens + [0.0])
    moments = design.T @ (weight[:, None] * design) + penalty
    expected = np.linalg.solve(moments, design.T @ (weight * np.array(p)))[:n_tokens]
    assert scores[1:].tolist() == pytest.approx(expected.tolist(), abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_planted_token_comes_first_at_each_of_its_places(name: str) -> None:
    model = BagOfTokens([0.0, 0.0, 0.0, 8.0, 0.1, -0.1, 0.0], offset=-12.0, link="logistic")
    ids = torch.tensor([[1, 4, 3, 3, 6, 5, 4, 4, 5]])
    reference = torch.where(ids == 1, ids, 2)
    scores = run(name, model, ids=ids, reference=reference, mask=torch.ones_like(ids))[0]
    places = ids[0] == 3
    assert scores[places].min() > 10 * scores[~places].abs().max()


@pytest.mark.parametrize("name", NAMES)
def test_a_text_classifier_and_every_token_its_own_score(name: str) -> None:
    model = classifier()
    text = "the film was unbelievable , good good !"
    explainer = TextExplainer(model, method=name, n_steps=3000 if name == "shap" else 9)
    (explanation,) = explainer([text])
    assert len(explanation.scores) == 10
    if name == "shap":
        # With evaluations enough the values sum to the difference in probability.
        batch = model.collate(model.tokenize([text]))
        with torch.no_grad():
            reference = model(model.baselines(batch), *batch.forward_args).softmax(dim=-1)
        gap = explanation.probability - float(reference[0, explanation.predicted])
        assert sum(explanation.scores) == pytest.approx(gap, abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_variants_pass_in_batches(name: str) -> None:
    sizes = []

    def logits(ids: Tensor, mask: Tensor) -> Tensor:
        sizes.append(len(ids))
        return LOGISTIC(ids, mask)

    run(name, (logits, LOGISTIC.embedding), batch_size=3, n_steps=20)
    assert max(sizes) == 3


class TestPieces:
    def test_word_pieces_stand_together(self) -> None:
        model = classifier()
        tokens = ["un", "##believ", "##able", "film", ",", "not", "good", "[UNK]", "!"]
        ids = model.tokenizer.convert_tokens_to_ids(tokens)
        pieces = text_pieces(model, ids)
        assert "".join(pieces) == "unbelievable film, not good [UNK]!"
        assert pieces[:4] == ["un", "believ", "able ", "film"]

    def test_bytes_stand_together_even_where_they_are_no_characters(self) -> None:
        class Bytes:
            tokenizer = byte_level_tokenizer()

        ids = Bytes.tokenizer("a bé")["input_ids"]
        pieces = text_pieces(Bytes(), ids)
        assert len(pieces) == len(ids) == 5
        assert all(pieces)
        assert pieces[0] + pieces[1] + pieces[2] in ("a b", "a \N{REPLACEMENT CHARACTER}b")

    def test_without_a_tokenizer_the_ids_are_words(self) -> None:
        assert text_pieces(lambda ids: ids, [17, 4]) == ["17 ", "4 "]

    def test_shap_merges_the_pieces_of_a_word_first(self) -> None:
        shap = pytest.importorskip("shap")
        pieces = TokenPieces(["a ", "un", "believ", "able ", "film"])
        masker = shap.maskers.Text(pieces, mask_token=-1, output_type="token_ids")
        tree = masker.clustering(pieces.text)
        # Rows join two nodes into a new one, which has the next number after the 5 tokens.
        assert tree[:2, :2].astype(int).tolist() == [[1, 2], [5, 3]]
        kept = np.array([True, False, True, True, False])
        assert masker(kept, pieces.text)[0].tolist() == [[0, -1, 2, 3, -1]]


@pytest.mark.parametrize("name", NAMES)
def test_reference_tokens_stand_at_the_places_of_what_is_taken_away(name: str) -> None:
    seen = []

    def logits(ids: Tensor, mask: Tensor) -> Tensor:
        seen.append(ids.clone())
        return LOGISTIC(ids, mask)

    run(
        name,
        (logits, LOGISTIC.embedding),
        ids=IDS[:1],
        reference=REFERENCE[:1],
        mask=(IDS[:1] != 0).long(),
        n_steps=20,
    )
    variants = torch.cat(seen)
    assert torch.all((variants == IDS[0]) | (variants == REFERENCE[0]))
    assert torch.all(variants[0] == IDS[0]) or torch.all(variants[0] == REFERENCE[0])
    assert len(variants.unique(dim=0)) > 4
