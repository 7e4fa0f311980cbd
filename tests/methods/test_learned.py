"""AML and LA by name, tuned and from a fitted masker."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from captum_aml import AMLAttribution, LAAttribution, methods
from captum_aml.exceptions import CheckpointError, InvalidInputError, NotFittedError
from tests._helpers.methods import IDS, LINEAR, MASK, REFERENCE, WithModel, run
from tests._helpers.models import tiny_encoder
from tests._helpers.text_models import BagOfTokens


class TestMasks:
    """AML and LA by name. Id 3 alone decides; the others hardly matter."""

    WEIGHTS = (0.0, 0.0, 0.0, 8.0, 0.1, -0.1, 0.0)

    def model(self) -> BagOfTokens:
        return BagOfTokens(list(self.WEIGHTS), offset=-4.0, link="logistic")

    @pytest.mark.parametrize("name", ["mask-gradient", "aml", "la", "aml-tuned", "la-tuned"])
    def test_the_deciding_token_comes_first(self, name: str) -> None:
        scores = run(name, self.model(), target=1)
        assert scores.shape == IDS.shape
        assert torch.all(scores[IDS == REFERENCE] == 0)
        decides = IDS == 3
        assert scores[decides].min() > scores[~decides].max() + 0.2
        # Contributions to the logit of class 1, which is the sum of the weights.
        weights = torch.tensor(self.WEIGHTS)
        assert torch.allclose(scores.sum(dim=1), weights[IDS].sum(dim=1), atol=1e-5)

    @pytest.mark.parametrize("name", ["mask-gradient", "aml"])
    def test_tokens_of_additive_log_odds_have_their_weights(self, name: str) -> None:
        assert torch.allclose(
            run(name, self.model(), target=1), torch.tensor(self.WEIGHTS)[IDS], atol=1e-5
        )

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
        assert (settings["n_steps"], settings["seed"], settings["masker"]) == (16, 4, None)
        assert settings["tune"] is None
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
    def test_tuned_goes_on_from_the_maskers_proposal(self, name: str, tmp_path: Path) -> None:
        model = self.model()
        attribution = (AMLAttribution if name == "aml" else LAAttribution)(
            model, embedding_layer=model.embedding, output="logits"
        )
        batch = {"inputs": IDS, "baselines": REFERENCE, "additional_forward_args": (MASK,)}
        attribution.fit([batch], epochs=1).save_pretrained(tmp_path / "masker")
        call = {"target": 1, "additional_forward_args": (MASK,)}

        def scores(name: str, **options: object) -> torch.Tensor:
            return methods.create(
                name, model, model.embedding, masker=tmp_path / "masker", **options
            )(IDS, REFERENCE, **call)

        tuned = scores(f"{name}-tuned")
        assert torch.equal(tuned, scores(name, n_steps=10))
        assert not torch.allclose(tuned, scores(name), atol=1e-3)
        method = methods.create(f"{name}-tuned", model, model.embedding, masker=tmp_path / "masker")
        assert (method.settings["n_steps"], method.settings["tune"]) == (10, "mask")
        # Nothing is drawn where a masker proposes.
        for each in (name, f"{name}-tuned", f"{name}-published"):
            assert torch.equal(scores(each, seed=1), scores(each))
            assert not methods.spec(each).stochastic

    @pytest.mark.parametrize(
        ("name", "attribution"), [("aml", AMLAttribution), ("la", LAAttribution)]
    )
    def test_tuned_without_a_masker_goes_on_from_the_averaged_mask_gradient(
        self, name: str, attribution: type[AMLAttribution]
    ) -> None:
        model = self.model()
        call = {"target": 1, "additional_forward_args": (MASK,)}
        expected = attribution(
            model, embedding_layer=model.embedding, output="logits", tune="mask"
        ).attribute(IDS, baselines=REFERENCE, n_steps=10, **call)
        assert torch.equal(run(f"{name}-tuned", model), expected)
        assert not torch.allclose(run(f"{name}-tuned", model), run(name, model), atol=1e-3)
        # However few the steps, the proposal has all its masks.
        assert torch.isfinite(run(f"{name}-tuned", model, n_steps=1)).all()

    def test_aml_without_a_masker_is_the_averaged_mask_gradient(self) -> None:
        model = tiny_encoder("bert").eval()
        about = WithModel(model), model.get_input_embeddings()
        ids, reference, mask = tokens()
        call = {"ids": ids, "reference": reference, "mask": mask, "seed": 3}
        assert torch.equal(run("aml", about, **call), run("mask-gradient", about, **call))
        assert not torch.allclose(
            run("la", about, **call), run("mask-gradient", about, **call), atol=1e-4
        )

    @pytest.mark.parametrize("name", ["aml", "la"])
    def test_published_tunes_the_masker(self, name: str, tmp_path: Path) -> None:
        model = self.model()
        attribution_class = AMLAttribution if name == "aml" else LAAttribution
        settings = {"embedding_layer": model.embedding, "output": "logits"}
        attribution = attribution_class(model, **settings)
        batch = {"inputs": IDS, "baselines": REFERENCE, "additional_forward_args": (MASK,)}
        attribution.fit([batch], epochs=1).save_pretrained(tmp_path / "masker")
        method = methods.create(
            f"{name}-published", model, model.embedding, masker=tmp_path / "masker"
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

    @pytest.mark.parametrize("name", ["aml-published", "la-published"])
    def test_published_needs_a_masker_and_a_step(self, name: str) -> None:
        with pytest.raises(InvalidInputError, match=f"method '{name}' expects a fitted masker"):
            methods.create(name, LINEAR, LINEAR.embedding)
        with pytest.raises(InvalidInputError, match="n_steps: expected a positive number"):
            methods.create(name, LINEAR, LINEAR.embedding, n_steps=0, masker="folder")

    def test_the_averaged_mask_gradient_takes_no_masker_and_needs_masks(self) -> None:
        with pytest.raises(InvalidInputError, match="method 'mask-gradient' uses none; those that"):
            methods.create("mask-gradient", LINEAR, LINEAR.embedding, masker="folder")
        with pytest.raises(InvalidInputError, match="n_steps: expected a positive number of masks"):
            methods.create("mask-gradient", LINEAR, LINEAR.embedding, n_steps=0)

    @pytest.mark.parametrize("name", ["aml", "la", "aml-tuned", "la-tuned"])
    def test_no_step_needs_a_masker(self, name: str) -> None:
        with pytest.raises(NotFittedError, match="n_steps=0 needs a fitted masker"):
            run(name, self.model(), n_steps=0)

    @pytest.mark.parametrize(
        ("name", "attribution"),
        [("mask-gradient", AMLAttribution), ("aml", AMLAttribution), ("la", LAAttribution)],
    )
    def test_how_masks_were_applied_is_recorded(
        self, name: str, attribution: type[AMLAttribution]
    ) -> None:
        model = tiny_encoder("bert").eval()
        ids, reference, mask = tokens()
        forward, layer = WithModel(model), model.get_input_embeddings()
        method = methods.create(name, forward, layer, n_steps=4, seed=2)
        assert method.settings["perturbation"] == "auto"
        found = method(ids, reference, additional_forward_args=(mask,))
        alone = attribution(forward, embedding_layer=layer, output="logits", seed=2)
        expected = alone.attribute(
            ids, baselines=reference, additional_forward_args=(mask,), n_steps=4
        )
        assert torch.equal(found, expected.float())
        # An encoder takes its attention mask; a bag of tokens has none.
        assert method.settings["perturbation"] == alone.perturbation_ == "blend+attention"
        bag = methods.create(name, LINEAR, LINEAR.embedding)
        bag(IDS, REFERENCE, additional_forward_args=(MASK,))
        assert bag.settings["perturbation"] == "blend"

    @pytest.mark.parametrize("name", ["mask-gradient", "aml", "la", "aml-tuned"])
    def test_the_models_outputs_are_kept(self, name: str) -> None:
        model = tiny_encoder("bert").eval()
        ids, reference, mask = tokens()
        forward = WithModel(model)
        method = methods.create(name, forward, model.get_input_embeddings(), n_steps=2)
        assert method.last_outputs is None
        method(ids, reference, additional_forward_args=(mask,))
        with torch.no_grad():
            expected = forward(ids, mask)
        assert torch.allclose(method.last_outputs, expected, atol=1e-6)
        method(ids[:2], reference[:2], additional_forward_args=(mask[:2],))
        assert torch.allclose(method.last_outputs, expected[:2], atol=1e-6)

    def test_no_outputs_of_an_earlier_call(self) -> None:
        model = self.model()
        method = methods.create("mask-gradient", model, model.embedding, n_steps=2)
        method.attribution.last_outputs_ = torch.zeros(2, 2)
        assert torch.all(method(IDS, IDS, additional_forward_args=(MASK,)) == 0)
        assert torch.allclose(method.last_outputs, model(IDS, MASK), atol=1e-6)

    @pytest.mark.parametrize("name", ["mask-gradient", "la", "aml-tuned"])
    def test_one_token_gets_the_whole_difference(self, name: str) -> None:
        ids, reference = torch.tensor([[1, 3]]), torch.tensor([[1, 2]])
        scores = run(name, self.model(), ids=ids, reference=reference, mask=torch.ones(1, 2))
        assert scores.tolist() == [[0, pytest.approx(8, abs=1e-5)]]


def tokens() -> tuple[Tensor, Tensor, Tensor]:
    """Ids, their reference, and their attention mask, (3, 6)."""
    ids = torch.randint(5, 30, (3, 6), generator=torch.Generator().manual_seed(1))
    reference = torch.full_like(ids, 4)
    reference[:, 0] = ids[:, 0]
    return ids, reference, torch.ones_like(ids)
