"""The page of tasks: every section's code runs as it stands, with a model of the kind it names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    LlamaForCausalLM,
    PreTrainedModel,
)

from captum_aml.text import tasks
from tests._helpers.planted_models import tiny_bert, tiny_llama, word_tokenizer

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "tasks.md").read_text(encoding="utf-8")
SECTIONS = {
    title: re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for title, text in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
}
TOKENIZER = word_tokenizer(sorted(set(re.findall(r"[a-z0-9]+", PAGE.lower())) - {"mask"}))

_INFERENCE = {0: "contradiction", 1: "neutral", 2: "entailment"}
MODELS: Mapping[str, tuple[Callable[[BertConfig], PreTrainedModel], Mapping[str, object]]] = {
    "classifier": (BertForSequenceClassification, {"id2label": {0: "negative", 1: "positive"}}),
    "multi-label": (
        BertForSequenceClassification,
        {"num_labels": 3, "problem_type": "multi_label_classification"},
    ),
    "reranker": (BertForSequenceClassification, {"num_labels": 1}),
    "pairs": (BertForSequenceClassification, {"id2label": _INFERENCE}),
    "ner": (BertForTokenClassification, {"id2label": {0: "B-LOC", 1: "B-PER", 2: "O"}}),
    "qa": (BertForQuestionAnswering, {}),
    "nli": (BertForSequenceClassification, {"id2label": _INFERENCE}),
    "masked-model": (BertForMaskedLM, {}),
    "multiple-choice": (BertForMultipleChoice, {}),
    "encoder": (BertModel, {}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all models where the page has them."""
    place = tmp_path_factory.mktemp("tasks")
    torch.manual_seed(0)
    made = {name: kind(tiny_bert(TOKENIZER, **options)) for name, (kind, options) in MODELS.items()}
    made["decoder"] = LlamaForCausalLM(tiny_llama(TOKENIZER))
    for name, model in made.items():
        model.save_pretrained(place / "path" / "to" / name)
        TOKENIZER.save_pretrained(place / "path" / "to" / name)
    return place


@pytest.mark.parametrize("section", [title for title, blocks in SECTIONS.items() if blocks])
def test_the_code_of_a_section_runs(
    section: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    for block in SECTIONS[section]:
        exec(compile(block, f"tasks.md: {section}", "exec"), names)


def test_the_table_has_every_task() -> None:
    named = set(re.findall(r"^\|[^|]*\| `([\w-]+)` \|", PAGE, re.MULTILINE))
    assert named == set(tasks())
