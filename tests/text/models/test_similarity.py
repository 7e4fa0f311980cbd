"""Similarity of two texts: values by hand, removal of one text's tokens, sentence-transformers."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertModel

from captum_aml.exceptions import InvalidInputError
from captum_aml.text import SimilarityModel, TextExplainer, TextRegressor
from captum_aml.text.models.pooling import MODES, pooled, token_shares
from tests._helpers.text_models import bert_classifier, word_piece_tokenizer

TOKENIZER = word_piece_tokenizer()
PAIR = ("the film was good", "a very great plot, but slow at first")


@pytest.fixture(scope="module")
def model() -> BertModel:
    torch.manual_seed(0)
    return BertModel(bert_classifier(len(TOKENIZER)).config).eval()


def states(model: BertModel, text: str) -> Tensor:
    """Hidden states (L, D) of a text by itself."""
    with torch.no_grad():
        found: Tensor = model(**TOKENIZER(text, return_tensors="pt")).last_hidden_state[0]
    return found


def cosine(model: BertModel, a: str, b: str) -> float:
    """By hand, of means."""
    vectors = (states(model, text).mean(dim=0) for text in (a, b))
    return float(F.cosine_similarity(*vectors, dim=0))


class TestPooling:
    def test_values(self) -> None:
        hidden = torch.tensor([[[1.0, -1.0], [3.0, -5.0], [9.0, 9.0]]])
        expected = {
            "mean": [2.0, -3.0],
            "cls": [1.0, -1.0],
            "max": [3.0, -1.0],
            "lasttoken": [3.0, -5.0],
            "weightedmean": [7 / 3, -11 / 3],
            "mean_sqrt_len_tokens": [2.0 * 2**0.5, -3.0 * 2**0.5],
        }
        assert set(expected) == set(MODES)
        for mode, values in expected.items():
            found = pooled(hidden, torch.tensor([[1.0, 1.0, 0.0]]), (mode,))
            torch.testing.assert_close(found, torch.tensor([values]))
        both = pooled(hidden, torch.tensor([[1.0, 1.0, 0.0]]), ("cls", "mean"))
        assert both.tolist() == [[1.0, -1.0, 2.0, -3.0]]

    def test_a_hidden_token_is_left_out_by_its_share(self) -> None:
        lowest = torch.finfo(torch.float32).min
        added = torch.tensor([[[[0.0, 0.25, lowest]]]])
        added[..., 1] = torch.tensor(0.25).log()
        shares = token_shares(added)
        torch.testing.assert_close(shares, torch.tensor([[1.0, 0.25, 0.0]]))
        mean = pooled(torch.tensor([[[1.0], [6.0], [100.0]]]), shares, ("mean",))
        assert mean.tolist() == [[2.0]]


class TestValue:
    def test_is_the_cosine_whatever_is_beside_it(self, model: BertModel) -> None:
        text_model = SimilarityModel(model, TOKENIZER)
        pairs = [PAIR, ("a", "bad film"), PAIR[::-1], ("", "good")]
        expected = [[cosine(model, *pair)] for pair in pairs]
        torch.testing.assert_close(text_model.predict(pairs), torch.tensor(expected))

    def test_prompts_are_read_and_not_explained(self, model: BertModel) -> None:
        text_model = SimilarityModel(model, TOKENIZER, prompts=("is it ", "not "), similarity="dot")
        (explanation,) = TextExplainer(text_model, method="occlusion")(*PAIR)
        vectors = [
            states(model, prompt + text).mean(dim=0)
            for prompt, text in zip(("is it ", "not "), PAIR, strict=True)
        ]
        assert explanation.value == pytest.approx(float(vectors[0] @ vectors[1]), rel=1e-5)
        assert explanation.tokens[:5] == ("the", "film", "was", "good", "a")
        assert explanation.probability is None

    def test_tokens_are_taken_from_one_text_beside_the_other(self, model: BertModel) -> None:
        explainer = TextExplainer(model, TOKENIZER, task="sentence-similarity", method="occlusion")
        (explanation,) = explainer(*PAIR)
        without = cosine(model, "the [MASK] was good", PAIR[1])
        expected = cosine(model, *PAIR) - without
        assert explanation.scores[1] == pytest.approx(expected, abs=1e-5)

    def test_contributions_sum_to_what_each_text_adds(self, model: BertModel) -> None:
        (explanation,) = TextExplainer(model, TOKENIZER, task="sentence-similarity")(*PAIR)
        assert explanation.settings["perturbation"] == "blend+attention"
        empty = [" ".join(["[MASK]"] * n) for n in (4, 9)]
        whole = cosine(model, *PAIR)
        added = (whole - cosine(model, empty[0], PAIR[1])) + (
            whole - cosine(model, PAIR[0], empty[1])
        )
        assert sum(explanation.scores) == pytest.approx(added, abs=1e-3)


# In the form of sentence-transformers 5, of which only names and attributes are known here.
class Transformer(nn.Module):
    def __init__(self, model: BertModel) -> None:
        super().__init__()
        self.auto_model = model


class Pooling(nn.Module):
    pooling_mode_cls_token = True
    pooling_mode_mean_tokens = False


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.linear = nn.Linear(16, 4)

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sentence_embedding": self.linear(features["sentence_embedding"]).tanh()}


class SentenceTransformer(nn.Sequential):
    tokenizer = TOKENIZER
    prompts = {"query": "is it "}  # noqa: RUF012
    default_prompt_name = "query"
    similarity_fn_name = "cosine"
    max_seq_length = 20


def by_hand(model: BertModel, dense: Dense) -> float:
    with torch.no_grad():
        a, b = (dense.linear(states(model, f"is it {text}")[0]).tanh() for text in PAIR)
    return float(F.cosine_similarity(a, b, dim=0))


class TestSentenceTransformers:
    def test_an_object(self, model: BertModel) -> None:
        dense = Dense()
        explainer = TextExplainer(SentenceTransformer(Transformer(model), Pooling(), dense))
        (explanation,) = explainer(*PAIR)
        assert explanation.value == pytest.approx(by_hand(model, dense), abs=1e-5)
        assert explainer.text_model.max_length == 20
        with pytest.raises(InvalidInputError, match="expected a pooling after"):
            TextExplainer(SentenceTransformer(Transformer(model), dense))

    def test_a_folder(self, model: BertModel, tmp_path: Path) -> None:
        dense = Dense()
        model.save_pretrained(tmp_path)
        TOKENIZER.save_pretrained(tmp_path)
        kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Dense": "Dense"}
        modules = [
            {"idx": i, "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(kinds.items())
        ]
        files: dict[str, Any] = {
            "modules.json": modules,
            "1_Pooling/config.json": {"pooling_mode_cls_token": True},
            "2_Dense/config.json": {
                "in_features": 16,
                "out_features": 4,
                "activation_function": "torch.nn.modules.activation.Tanh",
            },
            "config_sentence_transformers.json": {
                "prompts": {"query": "is it "},
                "default_prompt_name": "query",
            },
            "sentence_bert_config.json": {"max_seq_length": 20},
        }
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(json.dumps(content))
        weights = {f"linear.{name}": value for name, value in dense.linear.state_dict().items()}
        save_file(weights, tmp_path / "2_Dense/model.safetensors")
        explainer = TextExplainer(tmp_path, device="cpu")
        assert explainer(*PAIR)[0].value == pytest.approx(by_hand(model, dense), abs=1e-5)
        loaded = SimilarityModel.from_pretrained(tmp_path, device="cpu")
        assert (loaded.max_length, loaded.pooling) == (20, ("cls",))
        (tmp_path / "modules.json").write_text(json.dumps([*modules, modules[0]]))
        with pytest.raises(InvalidInputError, match="got Pooling, Dense, Transformer"):
            TextExplainer(tmp_path, device="cpu")

    def test_a_cross_encoder_is_a_regression_model(self) -> None:
        reranker = bert_classifier(len(TOKENIZER), labels=("LABEL_0",))
        kind = type("CrossEncoder", (SimpleNamespace,), {})
        explainer = TextExplainer(kind(model=reranker, tokenizer=TOKENIZER), method="random")
        assert type(explainer.text_model) is TextRegressor

    def test_the_package_itself(self, model: BertModel, tmp_path: Path) -> None:
        package = pytest.importorskip("sentence_transformers")
        model.save_pretrained(tmp_path)
        TOKENIZER.save_pretrained(tmp_path)
        theirs = package.SentenceTransformer(str(tmp_path), device="cpu")
        theirs.save(str(tmp_path / "saved"))
        expected = float(theirs.similarity(*(theirs.encode(text) for text in PAIR)))
        for given in (theirs, tmp_path / "saved"):
            (explanation,) = TextExplainer(given, method="random", device="cpu")(*PAIR)
            assert explanation.value == pytest.approx(expected, abs=1e-5)


def test_mistakes(model: BertModel, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="task='sentence-similarity'"):
        TextExplainer(model, TOKENIZER)
    model.save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    with pytest.raises(InvalidInputError, match=r"lacks the weights.*task='sentence-similarity'"):
        TextExplainer(tmp_path)
    with pytest.raises(InvalidInputError, match="texts: expected pairs"):
        TextExplainer(model, TOKENIZER, task="sentence-similarity")("a film")
    with pytest.raises(InvalidInputError, match="pooling: expected one of mean, cls"):
        SimilarityModel(model, TOKENIZER, pooling="median")
    with pytest.raises(InvalidInputError, match="similarity: expected one of cosine, dot"):
        SimilarityModel(model, TOKENIZER, similarity="manhattan")
