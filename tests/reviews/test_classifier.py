from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import captum_aml
from captum_aml.reviews import (
    LABELS,
    Review,
    load_reviews_classifier,
    load_reviews_splits,
    reviews_classifier_path,
)

Classifier = tuple[PreTrainedModel, PreTrainedTokenizerBase]
Spans = set[tuple[int, int]]

N_HELD_OUT = 400


@pytest.fixture(scope="module")
def held_out() -> list[Review]:
    return load_reviews_splits().test[:N_HELD_OUT]


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return load_reviews_classifier()


def label_probability(
    classifier: Classifier,
    reviews: list[Review],
    hide: Callable[[Review, Spans], Spans],
) -> Tensor:
    """P(label) of each text, with [MASK] for those of its spans that ``hide`` names. Shape (N,)."""
    model, tokenizer = classifier
    batch = tokenizer(
        [review.text for review in reviews],
        padding=True,
        return_tensors="pt",
        return_offsets_mapping=True,
    )
    for ids, offsets, review in zip(
        batch["input_ids"], batch.pop("offset_mapping").tolist(), reviews, strict=True
    ):
        # Special tokens and padding have the empty span (0, 0).
        spans = [tuple(span) for span in offsets]
        hidden = hide(review, {span for span in spans if span != (0, 0)})
        ids[[span in hidden for span in spans]] = tokenizer.mask_token_id
    labels = torch.tensor([review.label for review in reviews])
    with torch.no_grad():
        return model(**batch).logits.softmax(dim=1).gather(1, labels[:, None])[:, 0]


def test_held_out_texts_are_classified_well(classifier: Classifier, held_out: list[Review]) -> None:
    p = label_probability(classifier, held_out, lambda review, spans: set())
    assert (p > 0.5).float().mean() > 0.97


def test_deciding_words_alone_keep_the_label(
    classifier: Classifier, held_out: list[Review]
) -> None:
    p = label_probability(classifier, held_out, lambda review, spans: spans - set(review.deciding))
    assert (p > 0.5).float().mean() > 0.97


def test_without_deciding_words_the_classifier_is_in_doubt(
    classifier: Classifier, held_out: list[Review]
) -> None:
    p = label_probability(classifier, held_out, lambda review, spans: set(review.deciding))
    assert (p - 0.5).abs().mean() < 0.1


def test_masks_alone_are_no_evidence(classifier: Classifier, held_out: list[Review]) -> None:
    p = label_probability(classifier, held_out, lambda review, spans: spans)
    assert (p - 0.5).abs().max() < 0.05


def test_model_and_tokenizer_are_ready_for_use(classifier: Classifier) -> None:
    model, tokenizer = classifier
    assert not model.training
    assert tokenizer.is_fast
    assert tuple(model.config.id2label.values()) == LABELS
    assert model.config.vocab_size == len(tokenizer)
    assert tokenizer.model_max_length == model.config.max_position_embeddings == 128
    assert model.config.pad_token_id == tokenizer.pad_token_id == 0


def test_tokens_are_lower_case_words_with_offsets_into_the_text(classifier: Classifier) -> None:
    _, tokenizer = classifier
    text = "Not a gripping film, zounds!"
    encoded = tokenizer(text, return_offsets_mapping=True)
    tokens = tokenizer.convert_ids_to_tokens(encoded["input_ids"])
    assert tokens == ["[CLS]", "not", "a", "gripping", "film", ",", "[UNK]", "!", "[SEP]"]
    words = [text[start:end] for start, end in encoded["offset_mapping"][1:-1]]
    assert words == ["Not", "a", "gripping", "film", ",", "zounds", "!"]


def test_held_out_texts_have_no_unknown_word(
    classifier: Classifier, held_out: list[Review]
) -> None:
    _, tokenizer = classifier
    ids = tokenizer([review.text for review in held_out])["input_ids"]
    assert not any(tokenizer.unk_token_id in row for row in ids)


def test_files_are_small_and_name_no_place() -> None:
    files = sorted(reviews_classifier_path().iterdir())
    assert [path.name for path in files] == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert sum(path.stat().st_size for path in files) <= 1_200_000
    for path in files:
        if path.suffix == ".json":
            assert "_name_or_path" not in json.loads(path.read_text(encoding="utf-8"))


def test_missing_files_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captum_aml.reviews.classifier.resources.files", lambda name: tmp_path)
    with pytest.raises(FileNotFoundError, match=r"make_reviews_model\.py"):
        load_reviews_classifier()


def test_transformers_is_not_imported_on_import() -> None:
    for path in Path(captum_aml.__file__).parent.joinpath("reviews").glob("*.py"):
        statements = ast.parse(path.read_text(encoding="utf-8")).body
        imports = [s for s in statements if isinstance(s, ast.Import | ast.ImportFrom)]
        assert imports, path
        assert not [s for s in imports if "transformers" in ast.unparse(s)], path
