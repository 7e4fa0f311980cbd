"""Text models of what users have, and kinds of models registered in one place."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    BertForTokenClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from captum_aml.exceptions import InvalidInputError
from captum_aml.text import (
    TextClassifier,
    TextExplainer,
    TextModel,
    register_text_model,
)
from captum_aml.text.models import registry as kinds
from captum_aml.text.models.sources import text_model
from tests._helpers.text_models import bert_classifier, word_piece_tokenizer


class MeanOfTokens(TextModel):
    """Classes of a text as the mean of its tokens' logits."""

    task = "mean-of-tokens"
    architectures = ("BertForTokenClassification",)

    @staticmethod
    def load(source: str, *, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        model = AutoModelForTokenClassification.from_pretrained(source, dtype=dtype)
        return model, AutoTokenizer.from_pretrained(source)

    @property
    def label_names(self) -> tuple[str, ...]:
        return tuple(self.model.config.id2label.values())

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, *extra_inputs: Tensor
    ) -> Tensor:
        logits = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        shown = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        mean: Tensor = (logits * shown[..., None]).sum(dim=1) / shown.sum(dim=1, keepdim=True)
        return mean


@pytest.fixture
def kind(monkeypatch: pytest.MonkeyPatch) -> type[TextModel]:
    """A registered kind for token classifiers."""
    monkeypatch.setattr(kinds, "_KINDS", list(kinds._KINDS))
    return register_text_model(MeanOfTokens)


def tagger() -> BertForTokenClassification:
    torch.manual_seed(0)
    config = bert_classifier(60).config
    return BertForTokenClassification(config).eval()


@pytest.mark.usefixtures("kind")
def test_a_registered_kind_is_found_for_objects_and_folders(tmp_path: Path) -> None:
    model, tokenizer = tagger(), word_piece_tokenizer()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    by_object = TextExplainer(model, tokenizer, method="occlusion")
    by_folder = TextExplainer(tmp_path, method="occlusion", device="cpu")
    for explainer in (by_object, by_folder):
        assert type(explainer.text_model) is MeanOfTokens
    assert by_object("a good film") == by_folder("a good film")


@pytest.mark.usefixtures("kind")
def test_other_models_are_still_of_their_own_kind() -> None:
    made = text_model(bert_classifier(60), word_piece_tokenizer())
    assert type(made) is TextClassifier


def test_a_kind_is_registered_once(kind: type[TextModel]) -> None:
    with pytest.raises(InvalidInputError, match="MeanOfTokens, 'mean-of-tokens' by Bert"):
        register_text_model(kind)
