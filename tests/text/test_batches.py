"""Texts as batches for ``fit``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import pytest
import torch

from captum_aml import AMLAttribution
from captum_aml.benchmark.plan import Plan, ranges
from captum_aml.exceptions import InvalidInputError
from captum_aml.reviews import load_reviews_classifier
from captum_aml.text import TextBatches, TextClassifier
from captum_aml.text.fitting import attention_removal
from tests._helpers.architectures import tiny_classifier, tokenizer_for

TEXTS = ["good", "the plot was slow", "bad", "it was not a good film at all", "fine , really"]


@pytest.fixture(scope="module")
def classifier() -> TextClassifier:
    return TextClassifier(*load_reviews_classifier())


def test_every_text_is_in_one_batch_beside_those_of_its_length(classifier: TextClassifier) -> None:
    batches = list(TextBatches(classifier, TEXTS, batch_size=2))
    rows = [
        tuple(ids[mask.bool()].tolist())
        for batch in batches
        for ids, mask in zip(batch["inputs"], batch["additional_forward_args"][0], strict=True)
    ]
    own = [tuple(text.model_inputs["input_ids"]) for text in classifier.tokenize(TEXTS)]
    assert sorted(rows) == sorted(own)
    sizes = sorted(batch["inputs"].shape[1] for batch in batches)
    lengths = sorted(len(ids) for ids in own)
    # In pairs by length; of the last pair there is one.
    assert sizes == [lengths[1], lengths[3], lengths[4]]


def test_baselines_are_the_reference(classifier: TextClassifier) -> None:
    for batch in TextBatches(classifier, TEXTS, batch_size=2):
        changed = batch["inputs"] != batch["baselines"]
        assert bool((batch["baselines"][changed] == classifier.baseline.id).all())
        assert not bool(changed[:, 0].any())
        assert bool(changed.any(dim=1).all())


def test_the_seed_decides_the_order_of_batches_alone(classifier: TextClassifier) -> None:
    texts = TEXTS * 8
    first, again, other = (
        [batch["inputs"].tolist() for batch in TextBatches(classifier, texts, seed=s, batch_size=2)]
        for s in (0, 0, 1)
    )
    assert first == again
    assert first != other
    assert sorted(first) == sorted(other)


def test_it_can_be_fitted_with(classifier: TextClassifier) -> None:
    layer = classifier.embedding_layer
    aml = AMLAttribution(classifier, embedding_layer=layer, output="logits")
    aml.fit(list(TextBatches(classifier, TEXTS, batch_size=2)), epochs=1)
    assert aml.history_ is not None
    assert aml.history_[0].n_examples == len(TEXTS)


@pytest.mark.parametrize(("texts", "size"), [([], 2), ("one string", 2), (TEXTS, 0)])
def test_bad_input_is_named(classifier: TextClassifier, texts: list[str], size: int) -> None:
    with pytest.raises(InvalidInputError, match=r"texts|batch_size"):
        list(TextBatches(classifier, texts, batch_size=size))


class Stream:
    """Texts that are made when they are read, and counted."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.ahead = 0

    def __iter__(self) -> Iterator[str]:
        for i in range(self.n):
            self.ahead += 1
            yield "good " * (1 + i % 7)


def rows_of(batches: TextBatches) -> list[list[tuple[int, ...]]]:
    return [
        [
            tuple(ids[mask.bool()].tolist())
            for ids, mask in zip(batch["inputs"], batch["additional_forward_args"][0], strict=True)
        ]
        for batch in batches
    ]


class TestTextBatches:
    @pytest.mark.parametrize("stream", [False, True])
    def test_every_epoch_has_the_same_batches_in_another_order(
        self, classifier: TextClassifier, stream: bool
    ) -> None:
        texts = Stream(230) if stream else list(Stream(230))
        batches = TextBatches(classifier, texts, batch_size=2, seed=3)
        assert (batches.n_texts, len(batches)) == (230, 115)
        epochs = []
        for epoch in (0, 1, 0):
            batches.set_epoch(epoch)
            epochs.append(rows_of(batches))
        assert epochs[0] == epochs[2]
        assert epochs[0] != epochs[1]
        assert sorted(epochs[0]) == sorted(epochs[1])
        assert sum(map(len, epochs[0])) == 230
        own = [tuple(t.model_inputs["input_ids"]) for t in classifier.tokenize(list(Stream(230)))]
        assert sorted(row for batch in epochs[0] for row in batch) == sorted(own)
        other = TextBatches(classifier, texts, batch_size=2, seed=4)
        assert rows_of(other) != epochs[0]

    def test_batches_hold_texts_of_similar_length(self, classifier: TextClassifier) -> None:
        batches = rows_of(TextBatches(classifier, Stream(400), batch_size=4))
        spread = [len({len(row) for row in batch}) for batch in batches]
        # 400 texts of 7 lengths come in two parts of 200: no more than 6 batches of each are mixed.
        assert sum(n > 1 for n in spread) <= 12

    def test_a_sorted_list_is_mixed_in_every_part(self, classifier: TextClassifier) -> None:
        texts = ["good"] * 100 + ["a very bad film"] * 100
        batches = TextBatches(classifier, texts, batch_size=2, shuffle=False)
        lengths = [batch["inputs"].shape[1] for batch in batches]
        # Two parts of a hundred texts, each with half of either kind.
        assert lengths == ([3] * 25 + [6] * 25) * 2

    def test_a_stream_is_read_as_batches_are_taken(self, classifier: TextClassifier) -> None:
        texts = Stream(1000)
        batches = TextBatches(classifier, texts, batch_size=2)
        texts.ahead = 0
        next(iter(batches))
        assert texts.ahead == 100

    def test_what_is_not_seen_is_counted(self, classifier: TextClassifier) -> None:
        assert classifier.max_length is not None
        texts = ["good " * (classifier.max_length + 5), "bad", "", "good " * classifier.max_length]
        survey = TextBatches(classifier, texts).survey()
        assert (survey.n_texts, survey.n_truncated, survey.n_without_tokens) == (4, 2, 1)

    def test_what_can_be_read_only_once(self, classifier: TextClassifier) -> None:
        with pytest.raises(InvalidInputError, match=r"texts: .* got an iterator"):
            TextBatches(classifier, iter(TEXTS))

    def test_a_source_that_shrinks(self, classifier: TextClassifier) -> None:
        texts = Stream(10)
        batches = TextBatches(classifier, texts)
        texts.n = 9
        with pytest.raises(InvalidInputError, match="expected 10 each time they are read"):
            list(batches)

    @pytest.mark.parametrize("made", [list, lambda texts: dict(enumerate(texts)).values()])
    def test_a_bad_text_is_named_by_its_place_in_what_was_given(
        self, classifier: TextClassifier, made: Callable[[list[object]], Iterable[str]]
    ) -> None:
        texts: list[object] = ["good"] * 120
        texts[77] = None
        with pytest.raises(InvalidInputError, match="got NoneType at position 77"):
            list(TextBatches(classifier, made(texts), batch_size=1))


class TestAttentionRemoval:
    def test_an_encoder_takes_it(self, classifier: TextClassifier) -> None:
        assert attention_removal(classifier, TEXTS) == "attention"

    def test_a_decoder_takes_the_causal_one(self) -> None:
        from transformers import LlamaConfig, LlamaForSequenceClassification

        from tests._helpers.text_models import word_piece_tokenizer

        tokenizer = word_piece_tokenizer()
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            num_labels=2,
            pad_token_id=0,
            initializer_range=0.5,
        )
        decoder = TextClassifier(LlamaForSequenceClassification(config).eval(), tokenizer)
        assert attention_removal(decoder, TEXTS) == "causal-attention"

    def test_a_model_that_does_not_look_at_it(self, classifier: TextClassifier) -> None:
        class Deaf(TextClassifier):
            def forward(
                self, ids: torch.Tensor, mask: torch.Tensor | None = None, *extra: torch.Tensor
            ) -> torch.Tensor:
                return super().forward(ids, None, *extra)

        class Refusing(TextClassifier):
            def forward(
                self, ids: torch.Tensor, mask: torch.Tensor | None = None, *extra: torch.Tensor
            ) -> torch.Tensor:
                assert mask is not None
                n, length = mask.shape
                return super().forward(ids, mask.reshape(n, length), *extra)

        for kind in (Deaf, Refusing):
            other = kind(classifier.model, classifier.tokenizer)
            assert attention_removal(other, TEXTS) is None


def test_where_padding_changes_answers_only_equal_lengths_share_a_batch() -> None:
    leaking = TextClassifier(tiny_classifier("fnet"), tokenizer_for("fnet"))
    texts = ["a film", "a dull film", "dull", "film a", "a", "a dull film", "film a film a"]
    batches = TextBatches(leaking, texts, batch_size=2)
    given = list(batches)
    assert len(given) == len(batches) == 4
    assert all(bool(each["additional_forward_args"][0].all()) for each in given)
    plan = Plan.of(leaking, texts, batch_size=2)
    for sizes in (plan.batch_sizes, plan.window_sizes):
        for places in ranges(sizes):
            assert len({len(plan.texts[place]) for place in places}) == 1
