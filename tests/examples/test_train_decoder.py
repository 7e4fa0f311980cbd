from __future__ import annotations

import importlib.util
import json
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from captum_aml.reviews import generate_reviews

SCRIPT = Path(__file__).parents[2] / "examples" / "train_decoder.py"
N_TEXTS = 64


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_decoder", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["train_decoder"] = module  # where dataclasses look for their annotations
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    reviews = generate_reviews(2 * N_TEXTS)
    for name, part in {"train": reviews[:N_TEXTS], "validation": reviews[N_TEXTS:]}.items():
        lines = [json.dumps({"text": review.text, "label": review.label}) for review in part]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def trained(script: ModuleType, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("decoder")
    state = torch.get_rng_state()
    script.main(["--data", str(data), "--out", str(out), "--smoke", "--seed", "3"])
    torch.set_rng_state(state)
    return out


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_reported_accuracy_is_that_of_prompts_read_one_by_one(trained: Path, data: Path) -> None:
    # As a user would: the saved folder, whole prompts as strings, no padding, all logits.
    record = json.loads((trained / "training.json").read_text(encoding="utf-8"))
    model = AutoModelForCausalLM.from_pretrained(trained).eval()
    tokenizer = AutoTokenizer.from_pretrained(trained)
    answers = (" negative", " positive")
    words = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in answers]
    assert [len(word) for word in words] == [1, 1]
    right = 0
    for row in read(data / "validation.jsonl"):
        ids = tokenizer(f"Text: {row['text']} Label:", return_tensors="pt")["input_ids"]
        assert ids[0, 0] == tokenizer.bos_token_id
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, -1]
        right += int(logits[words[1][0]] > logits[words[0][0]]) == row["label"]
    assert record["accuracy"] == {"validation": right / N_TEXTS}
    assert 0 < right < N_TEXTS  # the comparison would be empty if one answer fitted all


def test_folder_has_no_pickles_and_says_what_it_is(trained: Path) -> None:
    files = {path.name for path in trained.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "training.json"} <= files
    assert not {path.suffix for path in trained.iterdir()} - {".json", ".safetensors"}
    record = json.loads((trained / "training.json").read_text(encoding="utf-8"))
    assert record["settings"]["seed"] == 3
    assert record["template"] == "Text: {text} Label:"
    assert record["labels"] == {"negative": " negative", "positive": " positive"}
    assert record["training_texts"] == N_TEXTS


def test_tokenizer_gives_texts_and_offsets_back(trained: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(trained)
    text = "Text: naïve 😀  , do n't Label: positive"
    encoded = tokenizer(text, return_offsets_mapping=True)
    assert tokenizer.decode(encoded["input_ids"], skip_special_tokens=True) == text
    covered = {i for start, end in encoded["offset_mapping"] for i in range(start, end)}
    assert covered == {i for i, character in enumerate(text) if not character.isspace()}
    special = [tokenizer.unk_token, tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token]
    assert tokenizer.convert_tokens_to_ids(special) == [0, 1, 2, 3]
    assert Tokenizer.from_file(str(trained / "tokenizer.json")).padding is None


def test_same_seed_gives_the_same_weights(
    script: ModuleType, trained: Path, data: Path, tmp_path: Path
) -> None:
    def weights(folder: Path) -> dict[str, Tensor]:
        state: dict[str, Tensor] = AutoModelForCausalLM.from_pretrained(folder).state_dict()
        return state

    for seed in ("3", "4"):
        out = str(tmp_path / seed)
        script.main(["--data", str(data), "--out", out, "--smoke", "--seed", seed])
    first, again, other = (weights(f) for f in (trained, tmp_path / "3", tmp_path / "4"))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


def test_losses_match_a_loop_over_tokens(script: ModuleType, trained: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(trained).eval()
    tokenizer = AutoTokenizer.from_pretrained(trained)
    texts = ["the plot was dull", "a superb , gripping film about a city"]
    labelled = script.Labelled(texts, [0, 1])
    rows = script.encode(labelled, tokenizer, answered=True)
    text: list[Tensor] = []
    label: list[Tensor] = []
    with torch.no_grad():
        found = script.losses(model, rows, tokenizer.pad_token_id)
        for row in rows:
            for place in range(1, len(row)):
                logits = model(input_ids=torch.tensor([row[:place]])).logits[0, -1]
                answer = place == len(row) - 2
                (label if answer else text).append(-logits.log_softmax(0)[row[place]])
    assert len(label) == 2
    expected = (torch.stack(text).mean(), torch.stack(label).mean())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_answered_prompts_are_those_of_the_tokenizer(script: ModuleType, trained: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(trained)
    texts = ["-lrb- really -rrb- dull .", "'s a fine film", "...", "a film " * 400]
    labelled = script.Labelled(texts, [0, 1, 0, 1])
    *short, long = script.encode(labelled, tokenizer, answered=True)
    for row, text, word in zip(short, texts, ["negative", "positive", "negative"], strict=False):
        assert row == tokenizer(f"Text: {text} Label: {word}</s>")["input_ids"]
    # What is too long loses the end of its text, not the prompt's own.
    assert len(long) == 256
    assert str(tokenizer.decode(long[-5:])).endswith("Label: positive</s>")


def test_dropout_stays_in_training(script: ModuleType, trained: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(trained)
    ids = torch.tensor([[1, 50, 51, 52]])

    def logits() -> Tensor:
        with torch.no_grad():
            output: Tensor = model(input_ids=ids).logits
        return output

    plain = logits()
    with script.dropping_out(model.train(), 0.5):
        assert not torch.allclose(logits(), plain)
        model.eval()
        assert torch.equal(logits(), plain)
    model.train()
    assert torch.equal(logits(), plain)


def test_words_are_left_out_at_the_rate_that_is_asked_for(script: ModuleType) -> None:
    words = [str(i) for i in range(10_000)]
    kept = script.without_words(" ".join(words), 0.25, random.Random(0)).split()
    assert kept == sorted(kept, key=int)
    assert set(kept) <= set(words)
    assert abs(len(kept) / len(words) - 0.75) < 0.02  # standard deviation 0.004
    assert script.without_words("a  b", 0.0, random.Random(0)) == "a  b"
    assert script.without_words("a b", 1.0, random.Random(0)) == "a b"


def test_average_of_weights(script: ModuleType) -> None:
    average, model = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        average.weight.fill_(1.0)
        model.weight.fill_(3.0)
    script.update_average(average, model, 0.75)
    assert average.weight.item() == 1.5
    assert model.weight.item() == 3.0


def test_batches_hold_every_text_once_and_of_similar_length(script: ModuleType) -> None:
    lengths = [(7 * i) % 50 for i in range(103)]
    batches = script.draw_batches(lengths, 10, random.Random(0))
    assert sorted(i for batch in batches for i in batch) == list(range(103))
    padding = sum(max(lengths[i] for i in b) * len(b) - sum(lengths[i] for i in b) for b in batches)
    in_order = [range(i, min(i + 10, 103)) for i in range(0, 103, 10)]
    unsorted = sum(
        max(lengths[i] for i in b) * len(b) - sum(lengths[i] for i in b) for b in in_order
    )
    assert padding < unsorted / 3


def test_label_word_of_several_tokens_is_refused(script: ModuleType) -> None:
    # Nothing occurs twice here, so that the tokenizer learns no merges.
    with pytest.raises(ValueError, match="' negative' became 9 tokens, expected one"):
        script.build_tokenizer(script.Labelled(["dull"], [0]), 700)
