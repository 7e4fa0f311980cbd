"""The setup of a fit from its configuration: texts, model, first masker, lines of progress."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from tqdm import tqdm

from captum_aml.cli.config import FitConfig
from captum_aml.cli.console import say
from captum_aml.exceptions import CaptumAMLError, InvalidInputError
from captum_aml.maskers.registry import masker_names
from captum_aml.metrics.registry import metric_of
from captum_aml.text.batches import TextBatches
from captum_aml.text.data import LabelledText, TextSource, is_text_file
from captum_aml.text.fitting import (
    TextRecipe,
    attention_removal,
    default_masker,
    text_attribution,
    text_recipe,
)
from captum_aml.text.inputs import TextLike
from captum_aml.text.models.base import TextModel
from captum_aml.text.saved import model_fingerprint
from captum_aml.training.callbacks import FitCallback, FitState

if TYPE_CHECKING:
    from captum_aml.attr import AMLAttribution, LAAttribution
    from captum_aml.objectives import AMLObjective, LAObjective
    from captum_aml.training import MaskerScore

#: Of the training texts, the share that is held out where there are no validation texts.
_HELD_OUT = 10


class TrainingTexts(Iterable[str]):
    """The strings of a source but those that are held out, read anew each time.

    Args:
        source: The texts.
        held_out: Numbers of texts to leave out, from 0.
    """

    def __init__(self, source: TextSource, held_out: Container[int]) -> None:
        self._source = source
        self._held_out = held_out

    def __iter__(self) -> Iterator[str]:
        return (item.text for i, item in enumerate(self._source) if i not in self._held_out)


def load_data(config: FitConfig) -> tuple[TrainingTexts, list[LabelledText], str]:
    """Reads all texts once, so that mistakes in them are reported before anything is fitted.

    Without validation texts every so many-th text of the data is held out: a tenth of them, and no
    more than ``validation_limit``.

    Returns:
        The training texts, the validation texts, and a digest of all texts in their order.

    Raises:
        InvalidInputError: A file is missing or broken, or has too few texts.
    """
    split = config.split
    if split is None and not is_text_file(config.data):
        split = "train"
    # Columns that are not needed are not read: what they hold does not matter.
    source = TextSource(
        config.data,
        split=split,
        limit=config.limit,
        text_column=config.text_column,
        label_column=None,
        rationale_column=None,
        id_column=None,
    )
    compares = any(metric_of(name).group == "plausibility" for name in config.metrics)
    rated = replace(source, rationale_column="rationale" if compares else None)
    digest, n_texts = hashlib.sha256(), 0
    for item in source:
        digest.update(item.text.encode() + b"\n")
        n_texts += 1
    if n_texts == 0:
        raise InvalidInputError(f"data: expected texts to fit on, got none in {config.data!r}")
    if n_texts == 1:
        raise InvalidInputError(
            f"data: expected two texts or more, got one in {config.data!r}; a masker learns from "
            "many, hundreds at least"
        )
    held_out: frozenset[int] = frozenset()
    if config.validation is not None:
        validation = replace(
            rated, source=config.validation, split=None, limit=config.validation_limit
        ).load()
    else:
        n_held_out = min(config.validation_limit, max(1, n_texts // _HELD_OUT))
        held_out = frozenset(i * n_texts // n_held_out for i in range(n_held_out))
        validation = [item for i, item in enumerate(rated) if i in held_out]
    for item in validation:
        digest.update(b"validation" + item.text.encode() + b"\n")
    return TrainingTexts(source, held_out), validation, digest.hexdigest()


@dataclass(frozen=True)
class FitSetup:
    """Everything that is needed to fit.

    Attributes:
        config: The configuration, with nothing left to choose.
        text_model: The model to explain.
        digest: Of all texts in their order.
        training: Training batches.
        validation: Validation batches.
        n_validation: The number of texts in them.
        score: The metrics to select by, or None for the loss.
        masker: What the masker starts from.
    """

    config: FitConfig
    text_model: TextModel
    digest: str
    training: TextBatches
    validation: list[dict[str, Any]]  # keyword arguments of ``attribute``
    n_validation: int
    score: MaskerScore | None
    masker: nn.Module

    def attribution(self, objective: AMLObjective | LAObjective) -> AMLAttribution | LAAttribution:
        """An attribution with the first masker and an objective; it is not fitted."""
        assert self.config.perturbation is not None
        return text_attribution(
            self.text_model,
            self.config.method,
            masker=self.masker,
            objective=objective,
            perturbation=self.config.perturbation,
            seed=self.config.seed,
        )

    @property
    def identity(self) -> dict[str, Any]:  # JSON values
        """Settings and digests in which a resumed run has to agree."""
        # Neither changes what is learned, or is covered by the digests.
        names = ("device", "tracker", "save_every", "max_skipped_steps", "model", "data")
        settings = {
            k: v for k, v in self.config.to_dict().items() if k not in (*names, "validation")
        }
        return {
            **settings,
            "model_weights": model_fingerprint(self.text_model),
            "texts": self.digest,
        }


def prepare(config: FitConfig) -> FitSetup:
    """Reads the texts, loads the model, makes the first masker, and says what was chosen.

    Args:
        config: The configuration.

    Raises:
        InvalidInputError: Texts, model or masker are not what they should be.
        CheckpointError: The masker to start from is of another model.
    """
    texts, validation_texts, digest = load_data(config)
    text_model = replace(config, device=_device(config.device)).load()
    training = TextBatches(text_model, texts, batch_size=config.batch_size, seed=config.seed)
    config = replace(config, masker=config.masker or default_masker(text_model))
    recipe = _recipe(config, text_model, training.first)
    config = replace(
        config,
        perturbation=recipe.perturbation,
        loss=config.loss or recipe.loss,
        learning_rate=config.learning_rate or recipe.learning_rate,
    )
    n_validation = len(validation_texts)
    where = "" if config.validation is not None else ", held out of the data"
    say(f"{training.n_texts} training texts, {n_validation} validation texts{where}.")
    _check_lengths(training, text_model)
    score = None
    if config.metrics:
        from captum_aml.text.validation import validation_batches
        from captum_aml.training import MaskerScore

        validation, rationales = validation_batches(text_model, validation_texts)
        score = MaskerScore(config.metrics, validation, rationales, convention=config.preset)
    else:
        strings = [item.text for item in validation_texts]
        validation = list(TextBatches(text_model, strings, batch_size=32, shuffle=False))
    return FitSetup(
        config, text_model, digest, training, validation, n_validation, score, recipe.masker
    )


def _check_lengths(training: TextBatches, text_model: TextModel) -> None:
    survey = training.survey()
    if survey.n_truncated:
        are = "text is" if survey.n_truncated == 1 else "texts are"
        say(
            f"{survey.n_truncated} of the {survey.n_texts} training {are} longer than the "
            f"{text_model.max_length} tokens that are taken, and cut."
        )
    if survey.n_without_tokens == survey.n_texts:
        raise InvalidInputError("data: expected texts with tokens to explain, got none")


def _check_perturbation(
    config: FitConfig, text_model: TextModel, texts: Sequence[TextLike]
) -> None:
    if config.perturbation in (None, "blend"):
        return
    taken = attention_removal(text_model, texts)
    if config.perturbation != taken:
        others = "'blend'" if taken is None else f"'blend' or {taken!r}"
        raise InvalidInputError(
            f"perturbation: expected {others}, as the model's logits under the additive mask of "
            f"{config.perturbation!r} are not those under its own, got {config.perturbation!r}"
        )


def _recipe(config: FitConfig, text_model: TextModel, texts: Sequence[TextLike]) -> TextRecipe:
    """The recipe, with what it chose said."""
    _check_perturbation(config, text_model, texts)
    name = config.masker
    try:
        recipe = text_recipe(
            text_model,
            texts,
            method=config.method,
            masker=name,
            perturbation=config.perturbation,
            seed=config.seed,
        )
    except CaptumAMLError:
        raise
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InvalidInputError(
            f"masker: expected {', '.join(masker_names())}, a folder with a fitted masker, or an "
            f"encoder (a folder or a hub id), but {name!r} cannot be loaded: {reason}"
        ) from None
    if config.perturbation is None and recipe.perturbation == "blend":
        say("Perturbation: blend, as the model takes no additive attention mask.")
    elif config.perturbation is None:
        say(
            f"Perturbation: {recipe.perturbation}, which the model takes; --perturbation blend is "
            "the papers'."
        )
    if hasattr(recipe.masker, "windows"):
        say(
            "Masker: an encoder with a tokenizer of its own; scores are carried over by characters."
        )
    return recipe


def _device(name: str) -> str:
    """The device of this process: each of several takes a GPU of its own."""
    if name == "auto" and int(os.environ.get("WORLD_SIZE", "1")) > 1 and torch.cuda.is_available():
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return name


class FitLines(FitCallback):
    """A line for every validation and epoch, with the time left."""

    def on_fit_start(self, state: FitState) -> None:
        """Says where a run that goes on stands."""
        self._start, self._first = time.perf_counter(), state.step
        if state.step:
            self._write(f"Goes on after step {state.step} of {state.n_steps}.")

    def on_validation_end(self, state: FitState) -> None:
        """Says what the validation gave."""
        assert state.validation is not None
        best = ", the best so far" if state.validation.improved else ""
        self._write(
            f"Epoch {state.epoch}/{state.n_epochs}, step {state.step}/{state.n_steps or '?'}: "
            f"training loss {means_text(state.epoch_means)}; "
            f"validation {means_text(state.validation.means)}{best}{self._left(state)}"
        )

    def _left(self, state: FitState) -> str:
        now, done = time.perf_counter(), state.step - self._first
        since, self._start, self._first = now - self._start, now, state.step
        if not done or state.n_steps is None or state.step >= state.n_steps:
            return ""
        # By the pace since the last validation: the first epoch computes what later ones reuse.
        seconds = since / done * (state.n_steps - state.step)
        left = f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
        return f"; about {left} left"

    def _write(self, line: str) -> None:
        tqdm.write(line, file=sys.stderr)


def means_text(means: Mapping[str, float]) -> str:
    """Means in words: the total, and in brackets the rest."""
    rest = ", ".join(f"{name} {value:.4f}" for name, value in means.items() if name != "total")
    return f"{means.get('total', float('nan')):.4f}" + (f" ({rest})" if rest else "")
