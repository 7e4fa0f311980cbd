"""AML and LA by name, tuned and from a fitted masker."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from captum_aml import AMLAttribution, LAAttribution, methods
from captum_aml.exceptions import CheckpointError, InvalidInputError
from tests._helpers.methods import IDS, LINEAR, MASK, REFERENCE, run
from tests._helpers.models import tiny_encoder
from tests._helpers.text_models import BagOfTokens


class TestMasks:
    """AML and LA by name. Id 3 alone decides; the others hardly matter."""

    WEIGHTS = (0.0, 0.0, 0.0, 8.0, 0.1, -0.1, 0.0)

    def model(self) -> BagOfTokens:
        return BagOfTokens(list(self.WEIGHTS), offset=-4.0, link="logistic")

    @pytest.mark.parametrize("name", ["aml", "la"])
    def test_the_deciding_token_comes_first(self, name: str) -> None:
        scores = run(name, self.model(), target=1)
        assert scores.shape == IDS.shape
        assert torch.all((scores >= 0) & (scores <= 1))
        assert torch.all(scores[IDS == REFERENCE] == 0)
        decides = IDS == 3
        assert scores[decides].min() > scores[~decides].max() + 0.2

    @pytest.mark.parametrize("name", ["aml", "la"])
    def test_a_text_scores_the_same_alone_as_in_a_batch(self, name: str) -> None:
        together = run(name, self.model(), n_steps=10)
        alone = run(
            name,
            self.model(),
            n_steps=10,
            ids=IDS[:1, :4],
            reference=REFERENCE[:1, :4],
            mask=MASK[:1, :4],
        )
        assert torch.allclose(together[:1, :4], alone, atol=1e-4)

    def test_settings_tell_what_was_done(self) -> None:
        model = self.model()
        settings = methods.create("aml", model, model.embedding, seed=4).settings
        assert (settings["n_steps"], settings["seed"], settings["masker"]) == (50, 4, None)
        assert "size_weight=1.0" in str(settings["objective"])

    @pytest.mark.parametrize(
        ("name", "attribution"), [("aml", AMLAttribution), ("la", LAAttribution)]
    )
    def test_a_saved_masker_explains_in_one_pass(
        self, name: str, attribution: type[AMLAttribution], tmp_path: Path
    ) -> None:
        model = self.model()
        fitted = attribution(model, embedding_layer=model.embedding, output="logits")
        batch = {
            "inputs": IDS,
            "baselines": REFERENCE,
            "target": torch.tensor([1, 1]),
            "additional_forward_args": (MASK,),
        }
        fitted.fit([batch], epochs=2).save_pretrained(tmp_path / "masker")
        method = methods.create(name, model, model.embedding, masker=tmp_path / "masker")
        scores = method(IDS, REFERENCE, target=1, additional_forward_args=(MASK,))
        assert method.settings["n_steps"] == 0
        assert method.settings["masker"] == str(tmp_path / "masker")
        expected = fitted.attribute(
            IDS, baselines=REFERENCE, target=1, additional_forward_args=(MASK,)
        )
        assert torch.allclose(scores, expected, atol=1e-6)

        tuned = methods.create(name, model, model.embedding, masker=tmp_path / "masker", n_steps=30)
        assert tuned.settings["n_steps"] == 30
        assert not torch.allclose(
            tuned(IDS, REFERENCE, target=1, additional_forward_args=(MASK,)), scores, atol=1e-3
        )

    def test_a_folder_without_a_masker(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"masker"):
            methods.create("aml", LINEAR, LINEAR.embedding, masker=tmp_path)

    @pytest.mark.parametrize("name", ["aml", "la"])
    def test_tuned_is_tuned_from_the_masker_and_free_has_none(
        self, name: str, tmp_path: Path
    ) -> None:
        model = self.model()
        attribution = (AMLAttribution if name == "aml" else LAAttribution)(
            model, embedding_layer=model.embedding, output="logits"
        )
        batch = {"inputs": IDS, "baselines": REFERENCE, "additional_forward_args": (MASK,)}
        attribution.fit([batch], epochs=1).save_pretrained(tmp_path / "masker")
        call = {"target": 1, "additional_forward_args": (MASK,)}

        def scores(name: str, **options: object) -> torch.Tensor:
            return methods.create(name, model, model.embedding, **options)(IDS, REFERENCE, **call)

        folder = tmp_path / "masker"
        assert torch.equal(
            scores(f"{name}-tuned", masker=folder), scores(name, masker=folder, n_steps=10)
        )
        assert torch.equal(scores(f"{name}-free"), scores(name))
        tuned = methods.create(f"{name}-tuned", model, model.embedding, masker=folder)
        assert (tuned.settings["n_steps"], tuned.settings["tune"]) == (10, "mask")
        free = methods.create(f"{name}-free", model, model.embedding)
        assert (free.settings["n_steps"], free.settings["masker"]) == (50, None)

    @pytest.mark.parametrize("name", ["aml", "la"])
    def test_tuned_masker_tunes_the_masker(self, name: str, tmp_path: Path) -> None:
        model = self.model()
        attribution_class = AMLAttribution if name == "aml" else LAAttribution
        settings = {"embedding_layer": model.embedding, "output": "logits"}
        attribution = attribution_class(model, **settings)
        batch = {"inputs": IDS, "baselines": REFERENCE, "additional_forward_args": (MASK,)}
        attribution.fit([batch], epochs=1).save_pretrained(tmp_path / "masker")
        method = methods.create(
            f"{name}-tuned-masker", model, model.embedding, masker=tmp_path / "masker"
        )
        assert (method.settings["n_steps"], method.settings["tune"]) == (10, "masker")
        call = {"target": 1, "additional_forward_args": (MASK,)}
        scores = method(IDS, REFERENCE, **call)
        expected = attribution_class(
            model, masker=attribution.masker_, tune="masker", **settings
        ).attribute(IDS, baselines=REFERENCE, n_steps=10, **call)
        assert torch.equal(scores, expected)
        proposed = attribution.attribute(IDS, baselines=REFERENCE, **call)
        mask_tuned = attribution.attribute(IDS, baselines=REFERENCE, n_steps=10, **call)
        assert not torch.allclose(scores, proposed, atol=1e-5)
        assert not torch.allclose(scores, mask_tuned, atol=1e-3)

    @pytest.mark.parametrize(
        "name", ["aml-tuned", "la-tuned", "aml-tuned-masker", "la-tuned-masker"]
    )
    def test_tuned_needs_a_masker_and_a_step(self, name: str) -> None:
        with pytest.raises(InvalidInputError, match=f"method '{name}' expects a fitted masker"):
            methods.create(name, LINEAR, LINEAR.embedding)
        with pytest.raises(InvalidInputError, match="n_steps: expected a positive number"):
            methods.create(name, LINEAR, LINEAR.embedding, n_steps=0, masker="folder")

    @pytest.mark.parametrize(
        "name", ["aml-free", "la-free", "aml-free-attention", "la-free-attention"]
    )
    def test_free_takes_no_masker_and_needs_a_step(self, name: str) -> None:
        with pytest.raises(InvalidInputError, match=f"method '{name}' uses none; those that do"):
            methods.create(name, LINEAR, LINEAR.embedding, masker="folder")
        with pytest.raises(InvalidInputError, match="n_steps: expected a positive number"):
            methods.create(name, LINEAR, LINEAR.embedding, n_steps=0)

    @pytest.mark.parametrize(
        ("name", "attribution"), [("aml", AMLAttribution), ("la", LAAttribution)]
    )
    def test_through_attention(self, name: str, attribution: type[AMLAttribution]) -> None:
        model = tiny_encoder("bert").eval()
        ids = torch.randint(5, 30, (3, 6), generator=torch.Generator().manual_seed(1))
        reference = torch.full_like(ids, 4)
        reference[:, 0] = ids[:, 0]
        mask = torch.ones_like(ids)

        def forward(ids: Tensor, attention_mask: Tensor) -> Tensor:
            logits: Tensor = model(input_ids=ids, attention_mask=attention_mask).logits
            return logits

        layer = model.get_input_embeddings()
        method = methods.create(f"{name}-free-attention", forward, layer, n_steps=4, seed=2)
        assert method.settings["perturbation"] == "attention"
        found = method(ids, reference, additional_forward_args=(mask,))
        expected = attribution(
            forward, embedding_layer=layer, output="logits", perturbation="attention", seed=2
        ).attribute(ids, baselines=reference, additional_forward_args=(mask,), n_steps=4)
        assert torch.equal(found, expected.float())

    @pytest.mark.parametrize("name", ["aml", "la", "aml-free-attention"])
    def test_the_models_outputs_are_kept(self, name: str) -> None:
        model = tiny_encoder("bert").eval()
        ids = torch.randint(5, 30, (3, 6), generator=torch.Generator().manual_seed(1))
        call = {"additional_forward_args": (torch.ones_like(ids),)}

        def forward(ids: Tensor, attention_mask: Tensor) -> Tensor:
            logits: Tensor = model(input_ids=ids, attention_mask=attention_mask).logits
            return logits

        method = methods.create(name, forward, model.get_input_embeddings(), n_steps=2)
        assert method.last_outputs is None
        method(ids, torch.full_like(ids, 4), **call)
        with torch.no_grad():
            expected = forward(ids, torch.ones_like(ids))
        assert torch.allclose(method.last_outputs, expected, atol=1e-6)
        method(ids[:2], torch.full_like(ids[:2], 4), additional_forward_args=(ids[:2] * 0 + 1,))
        assert torch.allclose(method.last_outputs, expected[:2], atol=1e-6)

    def test_no_outputs_of_an_earlier_call(self) -> None:
        model = self.model()
        method = methods.create("aml-free-attention", model, model.embedding, n_steps=2)
        method.attribution.last_outputs_ = torch.zeros(2, 2)
        assert torch.all(method(IDS, IDS, additional_forward_args=(MASK,)) == 0)
        assert method.last_outputs is None

    def test_a_model_without_attention_is_refused_there(self) -> None:
        with pytest.raises(InvalidInputError, match="takes an additive attention mask"):
            run("aml-free-attention", self.model(), n_steps=2)
