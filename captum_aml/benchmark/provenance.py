"""Provenance of a report's figures: environment, protocol, settings."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import torch

from captum_aml._version import __version__
from captum_aml.benchmark.score import Scored, Scorer
from captum_aml.benchmark.settings import BenchmarkSettings
from captum_aml.metrics.removal import resolve_removal
from captum_aml.text import TextModel

_PACKAGES = (
    "torch",
    "captum",
    "transformers",
    "numpy",
    "scipy",
    "scikit-learn",
    "shap",
    "lime",
)

#: What the protocol says of explanations that a benchmark made.
_HOW_MADE = (
    "The token that stands for a removed one is also what perturbation methods put into a text, "
    "what gradient methods take for their baseline, and what AML and LA blend with, unless their "
    "settings name another perturbation; deletion, which closes the gap, is what none of them "
    "does.",
    "Learned methods are compared with the best other method on the same texts by a paired "
    "permutation test of the mean difference, two-sided, corrected for the number of all "
    "comparisons (Holm). The best other method is chosen by the reported figure itself, which "
    "favours it.",
    "Fitted and tuned explanations have rows of their own. Tuning keeps the step with the lowest "
    "loss of its own objective; this run chose nothing by a reported figure. How a masker was "
    "fitted, and on which texts, is for whoever fitted it to say.",
    "Cost counts texts that pass through the explained model or a masker, forward and backward, "
    "and wall time, per text, without scoring. Peak memory is the most in use beyond what was in "
    "use before a batch.",
)


def environment(text_model: TextModel) -> dict[str, str]:
    """Hardware and versions, which decide times and the last bits of scores; never mixed."""
    device = text_model.device
    name = platform.machine()
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    return {
        "device": f"{device.type} ({name})",
        "dtype": str(text_model.model.dtype).removeprefix("torch."),
        "torch": version("torch"),
        "transformers": version("transformers"),
        "captum": version("captum"),
    }


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide results, as far as they are installed."""
    versions = {"python": platform.python_version(), "captum-aml": __version__}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def protocol(scorer: Scorer, scored: Scored, *, made_here: bool = True) -> list[str]:
    """The protocol of the measurements, in sentences.

    Args:
        scorer: What scored.
        scored: What it found.
        made_here: Whether the explanations were made by this package; else nothing is said about
            how. Default: True.
    """
    convention = scorer.convention
    explained = "the class that the model predicts" if scorer.targets is None else "a given class"
    sentences = [
        f"Every method explains {explained} for each of {len(scorer.data)} texts: one score for "
        "each token of the model's tokenizer. Special tokens are never removed and have no score.",
        "Tokens are ranked by score, highest first, ties by position; signed and unsigned scores "
        "alike.",
        f"Faithfulness follows the convention “{convention.name}”: {convention.description}.",
        f"A token is replaced by {scorer.text_model.baseline.token} where removal is by mask.",
        "Each figure is a mean over texts and seeds with a 95 % bootstrap interval over both.",
    ]
    if made_here:
        sentences += _HOW_MADE
    if not any(entry.limits for entry in scorer.metrics):
        return sentences
    if not scored.n_searched:
        sentences.append(
            f"No text has {scorer.search.max_tokens} tokens or fewer, beyond which the limits of "
            "normalized AOPC are not searched: none has one."
        )
    else:
        sentences.append(
            f"The limits of normalized AOPC were searched for {scored.n_searched} texts of up to "
            f"{scorer.search.max_tokens} tokens, exactly for {scored.n_exact} of them and with a "
            f"beam of {scorer.search.beam_size} beyond, in {scored.search_passes:,} further "
            "passes of the model. Longer texts have no normalized AOPC."
        )
    return sentences


def text_notes(scorer: Scorer) -> Iterator[str]:
    """Notes on the texts for a reader."""
    n_texts = len(scorer.data)
    cut = sum(text.n_tokens_cut > 0 for text in scorer.plan.texts)
    if cut:
        yield (
            f"{cut} of {n_texts} texts are longer than the {scorer.text_model.max_length} tokens "
            "the model takes; what it does not see takes no part in anything."
        )
    known = sum(item.label is not None for item in scorer.data)
    if known:
        right = "whether they are right or not"
        yield f"{known} of {n_texts} texts have a label; predictions are explained {right}."


def recorded_settings(settings: BenchmarkSettings, scorer: Scorer) -> dict[str, object]:
    """Settings as a report records them."""
    return {
        "convention": scorer.convention.name,
        "removal": resolve_removal(scorer.convention.removal).name,
        "metrics": [entry.metric.name for entry in scorer.metrics],
        "seeds": list(settings.seeds),
        "steps": dict(settings.n_steps),
        "batch_size": settings.batch_size,
        "beam_size": settings.search.beam_size,
        "max_search_tokens": settings.search.max_tokens,
        "max_length": scorer.text_model.max_length,
        "threads": torch.get_num_threads(),
        **scorer.text_model.settings,
    }
