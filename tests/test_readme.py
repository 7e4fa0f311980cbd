"""The README's code does what it says, in its order, as a reader would type it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from captum_aml.reviews import load_reviews_classifier
from tests._helpers.decoders import bpe_tokenizer, language_model

README = Path(__file__).parents[1] / "README.md"


def test_the_code_runs_in_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    model, tokenizer = load_reviews_classifier()
    model.save_pretrained("path/to/model")
    tokenizer.save_pretrained("path/to/model")
    words = bpe_tokenizer(eos_token="</s>")
    language_model("llama", len(words)).save_pretrained("path/to/decoder")
    words.save_pretrained("path/to/decoder")
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 3
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    printed = capsys.readouterr().out
    assert "gripping" in printed
    assert "tensor" in printed
    scores = names["scores"]
    assert isinstance(scores, torch.Tensor)
    by_token = scores.sum(dim=-1)
    # Of the first text the word that decides it is the highest, and special tokens are 0.
    tokenizer, ids = names["tokenizer"], names["ids"]
    assert tokenizer.convert_ids_to_tokens(ids[0].tolist())[by_token[0].argmax()] == "superb"
    assert by_token[0, 0] == 0
    assert (tmp_path / "masker" / "config.json").is_file()


def test_the_files_that_it_links_to_are_there() -> None:
    links = re.findall(r"\]\(([^):#]+)\)", README.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (README.parent / link).exists()] == []
