"""Loading: state that it leaves alone, modes it works in, and models it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_aml import AMLAttribution, SharedMasker
from captum_aml._utils.files import content_digest
from captum_aml.exceptions import CheckpointError
from captum_aml.maskers import TransformerMasker
from tests._helpers.models import PlantedClassifier, planted_texts
from tests._helpers.text_models import bert_classifier


def ids_of(n: int = 4) -> Tensor:
    return torch.randint(5, 30, (n, 6), generator=torch.Generator().manual_seed(3))


def maskers(model: Any) -> dict[str, nn.Module | None]:
    return {
        "transformer": TransformerMasker.from_model(model),
        "shared": SharedMasker.from_model(model, width=8),
        "embedding": None,
    }


KINDS = ["transformer", "shared", "embedding"]


def saved(kind: str, folder: Path) -> tuple[Any, AMLAttribution]:
    model = bert_classifier(30)
    attribution = AMLAttribution(model, masker=maskers(model)[kind], output="logits")
    attribution.fit([ids_of()], epochs=1).save_pretrained(folder)
    return model, attribution


# Random numbers


@pytest.mark.parametrize("kind", KINDS)
def test_loading_leaves_the_random_state_alone(kind: str, tmp_path: Path) -> None:
    model, _ = saved(kind, tmp_path)
    before = torch.get_rng_state()
    AMLAttribution.from_pretrained(tmp_path, model)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_new_head_is_drawn_from_its_seed(tmp_path: Path) -> None:
    model = bert_classifier(30)
    model.save_pretrained(tmp_path)
    config = TransformerMasker.from_model(model).config
    makers: list[Any] = [
        lambda **s: TransformerMasker.from_model(model, **s),
        lambda **s: TransformerMasker.from_pretrained(tmp_path, n_classes=2, **s),
        lambda **s: SharedMasker.from_model(model, width=8, **s),
    ]
    for make in makers:
        before = torch.get_rng_state()
        one = make().state_dict()
        assert torch.equal(torch.get_rng_state(), before)
        torch.rand(1)
        again, other = make(seed=0).state_dict(), make(seed=1).state_dict()
        assert all(torch.equal(again[name], tensor) for name, tensor in one.items())
        assert not torch.equal(other["prediction.classes"], one["prediction.classes"])
    before = torch.get_rng_state()
    TransformerMasker.from_config(config)
    SharedMasker.from_config(SharedMasker.from_model(model).config, model)
    assert torch.equal(torch.get_rng_state(), before)


# Inference mode


@pytest.mark.parametrize("kind", KINDS)
def test_loaded_in_inference_mode_it_can_be_tuned(kind: str, tmp_path: Path) -> None:
    model, attribution = saved(kind, tmp_path)
    attribution.tune = "masker"
    expected = attribution.attribute(ids_of(), n_steps=2)
    with torch.inference_mode():
        loaded = AMLAttribution.from_pretrained(tmp_path, model, tune="masker")
        inside = loaded.attribute(ids_of(), n_steps=2)
    torch.testing.assert_close(inside.clone(), expected)
    torch.testing.assert_close(loaded.attribute(ids_of(), n_steps=2), expected)


@pytest.mark.parametrize("kind", ["transformer", "shared", "constructed", "pretrained"])
def test_a_masker_made_in_inference_mode_can_be_fitted(kind: str, tmp_path: Path) -> None:
    model = bert_classifier(30)
    model.save_pretrained(tmp_path)
    with torch.inference_mode():
        if kind == "constructed":  # its encoder consists of inference tensors
            masker: Any = TransformerMasker(bert_classifier(30).bert, n_classes=2)
        elif kind == "pretrained":
            masker = TransformerMasker.from_pretrained(tmp_path, n_classes=2)
        else:
            masker = maskers(model)[kind]
        AMLAttribution(model, masker=masker, output="logits").fit([ids_of()], epochs=1)
    AMLAttribution(model, masker=masker, output="logits").fit([ids_of()], epochs=1)


def test_a_masker_of_ones_own_made_in_inference_mode_can_be_tuned() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.readout = nn.Linear(8, 1)

        def forward(self, inputs: Any) -> Tensor:
            return self.readout(inputs.features[0]).squeeze(-1)

    ids, _ = planted_texts(4, 5, seed=0)
    with torch.inference_mode():
        attribution = AMLAttribution(PlantedClassifier(), masker=Own(), tune="masker")
    attribution.forward_func = PlantedClassifier()
    assert attribution.attribute(ids, n_steps=2).isfinite().all()


# Other weights


@pytest.mark.parametrize("kind", KINDS)
def test_another_model_of_the_same_sizes_is_refused(kind: str, tmp_path: Path) -> None:
    saved(kind, tmp_path)
    with pytest.raises(CheckpointError, match="fitted for another model, or for other weights"):
        AMLAttribution.from_pretrained(tmp_path, bert_classifier(30, seed=1))
    # Of a model whose weights could not be read nothing is known of them.
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    for name in ("weights", "n_weights"):
        config["fingerprint"][name] = None
    config["sha256"] = content_digest(config)
    file.write_text(json.dumps(config))
    AMLAttribution.from_pretrained(tmp_path, bert_classifier(30, seed=1))


def test_another_head_on_the_same_encoder_is_refused(tmp_path: Path) -> None:
    model, _ = saved("embedding", tmp_path)
    with torch.no_grad():
        model.classifier.weight.normal_(std=0.02)
    with pytest.raises(CheckpointError, match="other weights"):
        AMLAttribution.from_pretrained(tmp_path, model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_another_precision_is_the_same_model(dtype: torch.dtype, tmp_path: Path) -> None:
    model, _ = saved("embedding", tmp_path)
    AMLAttribution.from_pretrained(tmp_path, model.to(dtype))


def test_around_the_model_more_weights_do_not_matter(tmp_path: Path) -> None:
    """Values at the same places can be compared only where there are as many."""

    class Scaled(nn.Module):
        def __init__(self, model: Any) -> None:
            super().__init__()
            self.scale, self.inner = nn.Parameter(torch.ones(())), model

        def forward(self, *args: Any) -> Tensor:
            return self.inner(*args).logits * self.scale

        def get_input_embeddings(self) -> nn.Module:
            return self.inner.get_input_embeddings()

    model, attribution = saved("transformer", tmp_path)
    loaded = AMLAttribution.from_pretrained(tmp_path, Scaled(model))
    torch.testing.assert_close(loaded.attribute(ids_of()), attribution.attribute(ids_of()))


def test_a_model_changed_after_loading_can_be_explained(tmp_path: Path) -> None:
    """As randomization checks do: what a masker says of a model whose weights were drawn anew."""
    model, _ = saved("transformer", tmp_path)
    loaded = AMLAttribution.from_pretrained(tmp_path, model)
    with torch.no_grad():
        model.classifier.weight.normal_()
    assert loaded.attribute(ids_of()).isfinite().all()
