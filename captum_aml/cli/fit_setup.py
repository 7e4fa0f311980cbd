"""From a configuration to what is fitted: model, texts, first masker, attribution."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from captum_aml.attr.aml import AMLAttribution
from captum_aml.attr.la import LAAttribution
from captum_aml.benchmark.provenance import model_fingerprint
from captum_aml.cli.config import FitConfig
from captum_aml.cli.console import quiet_libraries
from captum_aml.cli.fit_data import FitData, load_data
from captum_aml.exceptions import CaptumAMLError, InvalidInputError
from captum_aml.maskers import AlignedMasker
from captum_aml.objectives import AMLObjective, LAObjective
from captum_aml.text import TextBatches, TextModel
from captum_aml.text.data import LabelledText
from captum_aml.text.fitting import attention_removal, first_masker, text_attribution
from captum_aml.text.sources import prompt_of, text_model
from captum_aml.text.validation import validation_batches
from captum_aml.training import MaskerScore

Say = Callable[[str], None]


@dataclass(frozen=True)
class FitSetup:
    """Everything that is needed to fit.

    Attributes:
        config: The configuration, with nothing left to choose.
        classifier: The model to explain.
        data: The texts.
        training: Training batches.
        validation: Validation batches.
        score: The metrics to select by, or None for the loss.
        masker: What the masker starts from.
    """

    config: FitConfig
    classifier: TextModel
    data: FitData
    training: TextBatches
    validation: list[dict[str, Any]]  # keyword arguments of ``attribute``
    score: MaskerScore | None
    masker: nn.Module

    def attribution(self, objective: AMLObjective | LAObjective) -> AMLAttribution | LAAttribution:
        """An attribution with the first masker and an objective; it is not fitted."""
        assert self.config.perturbation is not None
        return text_attribution(
            self.classifier,
            self.config.method,
            masker=self.masker,
            objective=objective,
            perturbation=self.config.perturbation,
            seed=self.config.seed,
        )

    @property
    def identity(self) -> dict[str, Any]:  # JSON values
        """What a run that goes on has to agree in."""
        # Neither changes what is learned, or is told by the digests.
        names = ("device", "tracker", "save_every", "max_skipped_steps", "model", "data")
        settings = {
            k: v for k, v in self.config.to_dict().items() if k not in (*names, "validation")
        }
        return {
            **settings,
            "model_weights": model_fingerprint(self.classifier),
            "texts": self.data.digest,
        }


def prepare(config: FitConfig, say: Say) -> FitSetup:
    """Reads the texts, loads the model and makes the first masker.

    Args:
        config: The configuration.
        say: Is told in a sentence whatever was chosen, or lost.

    Raises:
        InvalidInputError: Texts, model or masker are not what they should be.
        CheckpointError: The masker to start from is of another model.
    """
    data = load_data(config)
    quiet_libraries()
    classifier = text_model(
        config.model,
        prompt=prompt_of(config.template, config.labels),
        baseline=config.baseline,
        max_length=config.max_length,
        device=_device(config.device),
    )
    config = replace(
        config,
        perturbation=_perturbation(config, classifier, data, say),
        masker=config.masker or ("shared" if classifier.is_decoder else "transformer"),
    )
    masker = _first_masker(config, classifier, say)
    training = TextBatches(
        classifier, data.training, batch_size=config.batch_size, seed=config.seed
    )
    _tell_of_texts(data, training, classifier, say)
    score = None
    if config.metrics:
        validation, rationales = validation_batches(classifier, data.validation)
        score = MaskerScore(config.metrics, validation, rationales, convention=config.preset)
    else:
        validation = _plain(classifier, data.validation)
    return FitSetup(config, classifier, data, training, validation, score, masker)


def _plain(classifier: TextModel, items: list[LabelledText]) -> list[dict[str, Any]]:
    texts = [item.text for item in items]
    return list(TextBatches(classifier, texts, batch_size=32, shuffle=False))


def _tell_of_texts(data: FitData, training: TextBatches, classifier: TextModel, say: Say) -> None:
    n_validation = len(data.validation)
    where = ", held out of the data" if data.held_out else ""
    say(f"{data.n_training} training texts, {n_validation} validation texts{where}.")
    survey = training.survey()
    if survey.n_truncated:
        are = "text is" if survey.n_truncated == 1 else "texts are"
        say(
            f"{survey.n_truncated} of the {survey.n_texts} training {are} longer than the "
            f"{classifier.max_length} tokens that are taken, and cut."
        )
    if survey.n_without_tokens == survey.n_texts:
        raise InvalidInputError("data: expected texts with tokens to explain, got none")


def _perturbation(config: FitConfig, classifier: TextModel, data: FitData, say: Say) -> str:
    taken = None if config.perturbation == "blend" else attention_removal(classifier, data.first)
    if config.perturbation is None:
        if taken is None:
            say("Perturbation: blend, as the model takes no additive attention mask.")
            return "blend"
        say(f"Perturbation: {taken}, which the model takes; --perturbation blend is the papers'.")
        return taken
    if config.perturbation not in ("blend", taken):
        others = "'blend'" if taken is None else f"'blend' or {taken!r}"
        raise InvalidInputError(
            f"perturbation: expected {others}, as the model's logits under the additive mask of "
            f"{config.perturbation!r} are not those under its own, got {config.perturbation!r}"
        )
    return config.perturbation


def _first_masker(config: FitConfig, classifier: TextModel, say: Say) -> nn.Module:
    name = config.masker
    try:
        masker = first_masker(name, classifier, method=config.method, seed=config.seed)
    except CaptumAMLError:
        raise
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InvalidInputError(
            "masker: expected transformer, shared, a folder with a fitted masker, or an "
            f"encoder (a folder or a hub id), but {name!r} cannot be loaded: {reason}"
        ) from None
    if isinstance(masker, AlignedMasker):
        say(
            "Masker: an encoder with a tokenizer of its own; scores are carried over by characters."
        )
    return masker


def _device(name: str) -> str:
    """The device of this process: each of several takes a GPU of its own."""
    if name == "auto" and int(os.environ.get("WORLD_SIZE", "1")) > 1 and torch.cuda.is_available():
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return name


__all__ = ["FitSetup", "Say", "prepare"]
