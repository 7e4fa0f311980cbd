from __future__ import annotations

import importlib.util
import itertools
import json
import math
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from captum_aml.reviews import generate_reviews, reviews_classifier_path
from tests._helpers.decoders import bpe_tokenizer, language_model

SCRIPT = Path(__file__).parents[2] / "examples" / "benchmark_first_call.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    pytest.importorskip("scipy")
    pytest.importorskip("sklearn")
    spec = importlib.util.spec_from_file_location("benchmark_first_call", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["benchmark_first_call"] = module  # where dataclasses look for their annotations
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    """The options for folders of models, data and a decoder, as small as there are."""
    for name in ("minilm-sst2", "minilm-emotion"):
        folder = tmp_path / "models" / name
        folder.parent.mkdir(exist_ok=True)
        folder.symlink_to(reviews_classifier_path(), target_is_directory=True)
    lines = [json.dumps({"text": r.text, "label": r.label}) for r in generate_reviews(4, seed=5)]
    for name in ("sst2", "emotion", "imdb_cad"):
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        (folder / "validation.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    tokenizer = bpe_tokenizer(metaspace=True, pad_token="<pad>")
    tokenizer.save_pretrained(tmp_path / "decoder")
    language_model("llama", len(tokenizer)).save_pretrained(tmp_path / "decoder")
    names = ("models", "data", "decoder")
    return [part for name in names for part in (f"--{name}", str(tmp_path / name))]


def cells(output: str, row: str) -> list[list[str]]:
    """The cells after the first of every row of a table that begins so."""
    lines = [line for line in output.splitlines() if line.startswith(f"| {row}")]
    return [[cell.strip() for cell in line.strip("|").split("|")[1:]] for line in lines]


def test_every_section_runs(
    script: ModuleType, folders: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    state = torch.get_rng_state()
    script.main(["--smoke", "--split", "validation", "--threads", "1", *folders])
    torch.set_rng_state(state)
    out = capsys.readouterr().out

    assert re.findall(r"^Section (\w+):", out, re.MULTILINE) == list(script.SECTIONS)
    assert re.findall(r"^Task (\w+): 3 texts \(validation\)", out, re.MULTILINE) == list(
        script.TASKS
    )
    # Four measures against two rivals on four tasks, each with one verdict.
    found = re.search(r"in 32 comparisons: better in (\d+), worse in (\d+), level in (\d+)", out)
    assert found is not None
    assert sum(map(int, found.groups())) == 32
    linear = cells(out, "inputs") + cells(out, "embeddings")
    assert len(linear) == 6
    assert all(float(row[0]) < 1e-5 and float(row[2]) < 1e-5 for row in linear)
    # Integrated Gradients agrees with itself.
    by_table = cells(out, "integrated gradients, 4 steps")
    assert by_table[0][1] == "1.000 (1.000)"
    # Nothing of the machine it ran on.
    assert str(Path(folders[1]).parent) not in out


def test_without_folders_texts_are_the_bundled_reviews(script: ModuleType) -> None:
    assert script.parsed([]).tasks == ["reviews"]
    assert script.parsed(["--models", "m", "--data", "d"]).tasks == ["sst2", "emotion", "imdb_cad"]


@pytest.mark.parametrize("given", [["--sections", "tim"], ["--tasks", "sst2"]])
def test_unknown_sections_and_tasks_without_folders_are_refused(
    script: ModuleType, given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        script.parsed(given)
    assert f"{given[0]}: expected " in capsys.readouterr().err


def test_shapley_values_are_means_over_all_orders(script: ModuleType) -> None:
    U = 4
    values = np.random.default_rng(0).normal(size=(3, 1 << U))
    expected = np.zeros((3, U))
    for order in itertools.permutations(range(U)):
        subset = 0
        for feature in order:
            expected[:, feature] += values[:, subset | 1 << feature] - values[:, subset]
            subset |= 1 << feature
    np.testing.assert_allclose(
        script.exact_shapley(values), expected / math.factorial(U), atol=1e-12
    )


def test_shapley_values_of_a_network_without_interactions_are_its_terms(
    script: ModuleType,
) -> None:
    class Squares(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x**2).sum(dim=1) + 5

    rows = torch.tensor([[1.0, -2.0, 3.0], [0.5, 0.0, -1.0]])
    found = script.exact_shapley(script.all_subsets(Squares(), rows))
    np.testing.assert_allclose(found, rows.double().numpy() ** 2, atol=1e-6)


def test_training_ends_with_the_state_of_the_lowest_loss_or_the_last(script: ModuleType) -> None:
    net = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(net.weight)
    # Rows to learn from ask for a weight of 1, those to stop by for 0.2: it is passed on the way.
    x = torch.ones(12, 1)
    y = torch.tensor([1.0] * 8 + [0.2] * 4).unsqueeze(1)
    script.trained(
        net, nn.functional.mse_loss, (x, y), n_validation=4, epochs=100, rate=0.03, patience=5
    )
    # Adam's steps are of about the rate.
    assert net.weight.item() == pytest.approx(0.2, abs=0.03)
    script.trained(
        net.requires_grad_(True),
        nn.functional.mse_loss,
        (x, y),
        n_validation=4,
        epochs=200,
        rate=0.03,
        patience=None,
    )
    assert net.weight.item() == pytest.approx(1, abs=0.03)


def test_verdicts(script: ModuleType) -> None:
    assert script.verdict(0.1, 0.01, higher_is_better=True) == "better"
    assert script.verdict(0.1, 0.01, higher_is_better=False) == "worse"
    assert script.verdict(-0.1, 0.01, higher_is_better=False) == "better"
    assert script.verdict(0.1, 0.05, higher_is_better=True) == "level"
    assert script.verdict(0.1, math.nan, higher_is_better=True) == "level"


def test_parts_for_choosing_and_for_reporting_share_nothing(script: ModuleType) -> None:
    rows = list(range(20))
    chosen, reported = (rows[script.held_out(part, 20, 5)] for part in ("test", "validation"))
    assert (chosen, reported) == ([10, 11, 12, 13, 14], [15, 16, 17, 18, 19])
