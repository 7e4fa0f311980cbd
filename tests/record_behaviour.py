"""The record of behaviour: what the package gives today, to be compared with what it gives later.

``record FILE`` runs every method, the attribution classes, short fits and the command line on
bundled reviews and on real texts, all seeded, and writes the numbers and words that come out.
``compare A B`` lists where two such files differ. A refactoring that only moves code leaves no
difference::

    python tests/record_behaviour.py record before.json
    python tests/record_behaviour.py record after.json
    python tests/record_behaviour.py compare before.json after.json

Times, memory, versions, paths and digests of files are left out: they differ between two runs of
the same code. Two records are to be made on the same machine with the same number of threads; the
script uses one. It reads only public names of the package, so that it outlives what is moved.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import torch
from captum.attr import FeatureAblation, LayerIntegratedGradients, TextTemplateInput, TextTokenInput
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

# --- Everything of the package that the script uses stands here. ---------------------------------
import captum_aml
from captum_aml import (
    AMLAttribution,
    LAAttribution,
    LayerAMLAttribution,
    LayerLAAttribution,
    LLMAMLAttribution,
    methods,
)
from captum_aml.reviews import (
    load_reviews_classifier,
    load_reviews_splits,
    reviews_classifier_path,
    reviews_masker_path,
)
from captum_aml.text import TextExplainer

JSON: TypeAlias = Any

_CLI = "captum_aml.cli"
_SHARED = Path(__file__).resolve().parents[1].parent / "shared"

#: Fields of what the package writes that differ between two runs of the same code, or between two
#: places that the code lies in.
_LEFT_OUT = {
    "seconds",
    "peak_memory_mib",
    "versions",
    "environment",
    "captum_aml_version",
    # Versions and the machine among a benchmark's settings.
    "captum",
    "device",
    "torch",
    "transformers",
    # Of files in which times and versions stand.
    "sha256",
    # A sentence with times.
    "summary",
}
#: Digests in the names of files. They are those of exact bytes, which 1e-7 in a score changes.
_DIGEST = re.compile(r"-(?:[0-9a-f]{16}|[0-9a-f]{12}-[0-9a-f]{12})(?=\.(?:safetensors|jsonl?)\b)")


# --- Accessors: what may be called something else later is read here. ----------------------------


def terms_of(attribution: Any) -> Any:
    """The objective's terms for the masks of the last call."""
    return attribution.last_terms_


def best_step_of(attribution: Any) -> Any:
    """The tuning step that each mask of the last call was found at."""
    return attribution.best_step_


def output_kind_of(attribution: Any) -> Any:
    """How the outputs of the last call were read."""
    return attribution.output_


def outputs_of(attribution: Any) -> Any:
    """What the model gave for the last call's inputs."""
    return attribution.last_outputs_


def masker_of(attribution: Any) -> nn.Module:
    """The fitted masker."""
    masker = attribution.masker_
    assert isinstance(masker, nn.Module)
    return masker


def fingerprint_of(attribution: Any) -> Any:
    """What identifies the model that a masker was fitted for."""
    return attribution.fingerprint_


def history_of(attribution: Any) -> Any:
    """A record of each epoch of a fit."""
    return attribution.history_


def fit_summary_of(attribution: Any) -> Any:
    """How a fit went."""
    return attribution.fit_summary_


def training_cost_of(attribution: Any) -> Any:
    """What a fit took."""
    return attribution.training_cost_


def fitted_of(explainer: TextExplainer) -> Any:
    """The attribution that an explainer fitted."""
    return explainer.attribution_


def text_model_of(explainer: TextExplainer) -> Any:
    """The model and its tokenizer as a forward function."""
    return explainer.text_model


def batch_of(text_model: Any, texts: Sequence[str]) -> dict[str, Any]:
    """Texts as the keyword arguments of ``attribute``."""
    batch = text_model.collate(text_model.tokenize(texts))
    return {
        "inputs": batch.input_ids,
        "baselines": text_model.baselines(batch),
        "additional_forward_args": batch.forward_args,
    }


def rows_of(batch: Mapping[str, Any], start: int, end: int) -> dict[str, Any]:
    """Some of a batch's examples, padded as all of it is."""
    args = tuple(arg[start:end] for arg in batch["additional_forward_args"])
    return {
        "inputs": batch["inputs"][start:end],
        "baselines": batch["baselines"][start:end],
        "additional_forward_args": args,
    }


def words_of(explanation: Any) -> JSON:
    """What one explanation says: labels, probabilities, settings and scores."""
    return {
        "n_tokens": len(explanation.tokens),
        "scores": list(explanation.scores),
        "predicted": explanation.predicted,
        "predicted_label": explanation.predicted_label,
        "probability": explanation.probability,
        "explained": explanation.target,
        "target_label": explanation.target_label,
        "target_probability": explanation.target_probability,
    }


# --- Values ---------------------------------------------------------------------------------------


def plain(value: Any) -> JSON:
    """A value as JSON; a large tensor as sums over its last dimension with its mean and spread."""
    if isinstance(value, Tensor):
        return of_tensor(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def of_tensor(tensor: Tensor) -> JSON:
    """A tensor's shape and values."""
    tensor = tensor.detach().cpu()
    if not tensor.dtype.is_floating_point:
        return {"shape": list(tensor.shape), "values": tensor.tolist()}
    exact = tensor.double()
    if tensor.dim() <= 2:
        return {"shape": list(tensor.shape), "values": exact.tolist()}
    return {
        "shape": list(tensor.shape),
        "sums": exact.sum(dim=-1).tolist(),
        **mean_and_std(tensor),
    }


def mean_and_std(tensor: Tensor) -> dict[str, float]:
    """The mean and the population's standard deviation of all elements."""
    exact = tensor.detach().cpu().double()
    return {"mean": float(exact.mean()), "std": float(exact.std(correction=0))}


def of_weights(weights: Mapping[str, Tensor]) -> JSON:
    """Shape, mean and spread of every weight, by name."""
    return {
        name: {"shape": list(tensor.shape), **mean_and_std(tensor)}
        for name, tensor in sorted(weights.items())
    }


class Scrubber:
    """Takes out of JSON values what differs between two runs of the same code.

    Args:
        folder: The run's temporary folder.
        shared: The folder with real models and data, if there is one.
    """

    def __init__(self, folder: Path, shared: Path | None) -> None:
        places = {
            str(reviews_masker_path("aml")): "<masker aml>",
            str(reviews_masker_path("la")): "<masker la>",
            str(reviews_classifier_path()): "<classifier>",
            str(folder): "<folder>",
            str(Path(captum_aml.__file__).parent): "<package>",
        }
        if shared is not None:
            places[str(shared)] = "<shared>"
        self._places = places

    def __call__(self, value: JSON) -> JSON:
        """The value without times, versions, digests of files, and with names for places."""
        if isinstance(value, dict):
            kept = {name: item for name, item in value.items() if name not in _LEFT_OUT}
            return {self(name): self(item) for name, item in kept.items()}
        if isinstance(value, list):
            return [self(item) for item in value]
        if not isinstance(value, str):
            return value
        for place, name in self._places.items():
            value = value.replace(place, name)
        return _DIGEST.sub("-<digest>", value)


# --- What is explained ----------------------------------------------------------------------------


@dataclass
class Setup:
    """The models and texts of a record, each made once.

    Attributes:
        folder: A temporary folder.
        shared: The folder with real models and data; None where it is absent.
        notes: What was left out, in words.
    """

    folder: Path
    shared: Path | None
    notes: list[str] = field(default_factory=list)

    @cached_property
    def splits(self) -> Any:
        """The reviews of the bundled classifier."""
        return load_reviews_splits()

    @cached_property
    def reviews(self) -> list[str]:
        """Held-out reviews to explain."""
        return [review.text for review in self.splits.test[:20]]

    @cached_property
    def training_texts(self) -> list[str]:
        """Reviews to fit maskers on."""
        return [review.text for review in self.splits.train[:24]]

    @cached_property
    def validation_texts(self) -> list[str]:
        """Reviews to validate fits on."""
        return [review.text for review in self.splits.validation[:8]]

    @cached_property
    def reviews_model(self) -> tuple[PreTrainedModel, Any]:
        """The bundled classifier and its tokenizer, without gradients."""
        model, tokenizer = load_reviews_classifier()
        return model.eval().requires_grad_(False), tokenizer

    @cached_property
    def reviews_text_model(self) -> Any:
        """The bundled classifier as a forward function."""
        return text_model_of(self.explainer(method="saliency"))

    @cached_property
    def reviews_batch(self) -> dict[str, Any]:
        """Eight of the reviews as the arguments of ``attribute``."""
        return batch_of(self.reviews_text_model, self.reviews[:8])

    def explainer(self, **settings: Any) -> TextExplainer:
        """An explainer of the bundled classifier."""
        model, tokenizer = self.reviews_model
        return TextExplainer(model, tokenizer, device="cpu", **settings)

    def real_path(self, name: str) -> str:
        """The folder of a real model."""
        assert self.shared is not None
        return str(self.shared / "models" / name)

    def real_texts(self, split: str, n: int) -> list[str]:
        """The first real texts of 8 to 25 words."""
        assert self.shared is not None
        lines = (self.shared / "data" / "sst2" / f"{split}.jsonl").read_text("utf-8").splitlines()
        texts = (json.loads(line)["text"] for line in lines)
        return [text for text in texts if 8 <= len(text.split()) <= 25][:n]


# --- 1: methods through the front door ------------------------------------------------------------

#: They run a model hundreds of times for a text.
_EXPENSIVE = ("lime", "kernel-shap", "shapley-sampling", "shap", "lime-text")

#: Steps or samples on real texts, where the method's own number would take minutes.
_REAL_STEPS = {
    "integrated-gradients": 8,
    "gradient-shap": 6,
    "smooth-grad": 4,
    "lime": 60,
    "kernel-shap": 60,
    "shapley-sampling": 3,
    "shap": 60,
    "lime-text": 60,
}
_REAL_TUNING = 4


def explained(explainer: TextExplainer, texts: Sequence[Any], **call: Any) -> JSON:
    """What an explainer says about texts; what all of them share stands once."""
    found = explainer(texts, **call)
    first = found[0]
    return {
        "method": first.method,
        "signed": first.signed,
        "unit": first.unit,
        "settings": plain(first.settings),
        "texts": [words_of(explanation) for explanation in found],
    }


def tokens_of(explainer: TextExplainer, texts: Sequence[Any]) -> JSON:
    """The tokens that texts consist of, where they stand, and what each text is."""
    return [
        {
            "text": explanation.text,
            "tokens": list(explanation.tokens),
            "offsets": plain(explanation.offsets),
            "words": plain(explanation.words()),
            "n_tokens_cut": explanation.n_tokens_cut,
        }
        for explanation in explainer(texts)
    ]


def unless_not_installed(setup: Setup, name: str, explain: Callable[[], JSON]) -> JSON:
    """What a method gives; a note in place of it where its package is absent."""
    try:
        return explain()
    except ImportError as error:
        setup.notes.append(f"method {name} left out: {error}")
        return None


def masker_for(name: str, maskers: Mapping[str, str]) -> dict[str, Any]:
    """The masker that a method cannot do without, as a setting."""
    if not methods.spec(name).requires_masker:
        return {}
    return {"masker": maskers[name.split("-")[0]]}


def methods_on_reviews(setup: Setup) -> JSON:
    """Every method with its own number of steps, on the bundled reviews."""
    maskers = {name: str(reviews_masker_path(name)) for name in ("aml", "la")}
    found: dict[str, JSON] = {
        "available": list(methods.available()),
        "tokens": tokens_of(setup.explainer(method="saliency"), setup.reviews),
    }
    for name in methods.available():
        explainer = setup.explainer
        found[name] = unless_not_installed(
            setup,
            name,
            lambda name=name, explainer=explainer: explained(  # type: ignore[misc]
                explainer(method=name, **masker_for(name, maskers)), setup.reviews
            ),
        )
    return found


def maskers_on_reviews(setup: Setup) -> JSON:
    """AML and LA with the bundled maskers: as they propose, and tuned in both forms."""
    found = {}
    for name in ("aml", "la"):
        folder = str(reviews_masker_path(name))
        for steps in (0, 3):
            explainer = setup.explainer(method=name, masker=folder, n_steps=steps)
            found[f"{name}, {steps} steps"] = explained(explainer, setup.reviews)
        for method in (f"{name}-tuned", f"{name}-published"):
            explainer = setup.explainer(method=method, masker=folder)
            found[f"{method}, 3 steps"] = explained(explainer, setup.reviews, n_steps=3)
        loaded = TextExplainer.from_pretrained(folder, *setup.reviews_model, device="cpu")
        found[f"{name}, loaded"] = explained(loaded, setup.reviews)
    return found


def other_calls_on_reviews(setup: Setup) -> JSON:
    """Units, targets, other seeds, pairs, lists of words, batches of one and Captum's own."""
    reviews = setup.reviews[:4]
    found = {}
    for unit in ("word", "sentence"):
        for name in ("mask-gradient", "la", "integrated-gradients", "occlusion", "attention"):
            explainer = setup.explainer(method=name, unit=unit)
            two = [f"{a} {b}" for a, b in zip(reviews[:2], reviews[2:], strict=True)]
            found[f"{name}, {unit}"] = explained(explainer, two)
    for target in (0, "positive"):
        for name in ("aml", "saliency"):
            explainer = setup.explainer(method=name, n_steps=6 if name == "aml" else None)
            found[f"{name}, target {target}"] = explained(explainer, reviews, target=target)
    for name in ("random", "gradient-shap", "smooth-grad"):
        found[f"{name}, seed 7"] = explained(setup.explainer(method=name, seed=7), reviews)
    single = setup.explainer(method="aml", n_steps=6, batch_size=1)
    found["aml, batches of one"] = explained(single, reviews)
    pair = setup.explainer(method="occlusion")
    found["occlusion, pair and words"] = explained(pair, [tuple(reviews[:2]), reviews[2].split()])
    cut = setup.explainer(method="occlusion", max_length=8)
    found["occlusion, cut"] = explained(cut, reviews)
    found["occlusion, cut, tokens"] = tokens_of(cut, reviews)
    text_model = setup.reviews_text_model
    integrated = LayerIntegratedGradients(text_model, text_model.embedding_layer)
    found["captum, integrated gradients"] = explained(
        setup.explainer(method=integrated, n_steps=10), reviews
    )
    found["captum, ablation"] = explained(
        setup.explainer(method=FeatureAblation(text_model)), reviews
    )
    return found


def methods_on_real_texts(setup: Setup) -> JSON:
    """Every method with few steps on SST-2, with maskers that are fitted in a moment."""
    if setup.shared is None:
        return None
    model = setup.real_path("minilm-sst2")
    texts = setup.real_texts("validation", 20)
    text_model = text_model_of(TextExplainer(model, method="saliency", device="cpu"))
    maskers: dict[str, str] = {}
    found: dict[str, JSON] = {}
    for name in ("aml", "la"):
        fitted = TextExplainer(text_model, method=name)
        fitted.fit(setup.real_texts("train", 16), epochs=1, n_subsets=4)
        maskers[name] = str(setup.folder / f"real-{name}")
        fitted.save_pretrained(maskers[name])
        found[f"{name}, fitted"] = of_fit(fitted_of(fitted))
        found[f"{name}, explained"] = explained(fitted, texts)
    found["tokens"] = tokens_of(TextExplainer(text_model, method="saliency"), texts)
    for name in methods.available():
        spec = methods.spec(name)
        steps = _REAL_STEPS.get(name, None if spec.steps is None else _REAL_TUNING)
        for unit in ("token", "word"):
            few = texts[:2] if unit == "word" else texts[:4] if name in _EXPENSIVE else texts
            settings = {"method": name, "unit": unit, "n_steps": steps}
            found[f"{name}, {unit}"] = unless_not_installed(
                setup,
                name,
                lambda settings=settings, name=name, few=few: explained(  # type: ignore[misc]
                    TextExplainer(text_model, **settings, **masker_for(name, maskers)), few
                ),
            )
    emotion = setup.real_path("minilm-emotion")
    for name in ("mask-gradient", "integrated-gradients", "attention-rollout", "occlusion"):
        steps = None if methods.spec(name).steps is None else 6
        explainer = TextExplainer(emotion, method=name, n_steps=steps, device="cpu")
        found[f"{name}, emotion"] = explained(explainer, texts[:4])
    return found


# --- 2: the attribution classes -------------------------------------------------------------------


def of_call(attribution: Any, result: tuple[Any, Tensor]) -> JSON:
    """What ``attribute`` gave, and what the attribution notes about it."""
    scores, delta = result
    return {
        "scores": plain(scores),
        "delta": plain(delta),
        "terms": plain(terms_of(attribution)),
        "best_step": plain(best_step_of(attribution)),
        "output": output_kind_of(attribution),
        "outputs": plain(outputs_of(attribution)),
    }


def attribution_classes(setup: Setup) -> JSON:
    """AML and LA at the inputs and at a layer: masks, contributions, terms and deltas."""
    model: Any = setup.reviews_model[0]
    text_model = setup.reviews_text_model
    batch = setup.reviews_batch
    at_inputs = {"embedding_layer": text_model.embedding_layer}
    at_layer = {"layer": model.bert.embeddings}
    kinds: dict[str, tuple[Any, dict[str, Any]]] = {
        "aml": (AMLAttribution, at_inputs),
        "la": (LAAttribution, at_inputs),
        "layer aml": (LayerAMLAttribution, at_layer),
        "layer la": (LayerLAAttribution, at_layer),
    }
    found: dict[str, JSON] = {}
    for name, (kind, place) in kinds.items():
        for scores in ("mask", "contribution"):
            for tune in (None, "mask"):
                attribution = kind(text_model, **place, scores=scores, tune=tune)
                call = {**batch, "n_steps": 6, "return_convergence_delta": True}
                result = attribution.attribute(**call)
                found[f"{name}, {scores}, tune={tune}"] = of_call(attribution, result)
        # Nothing but defaults, the model itself as forward function, chunks, one class.
        attribution = kind(model, **(at_layer if "layer" in place else {}))
        found[f"{name}, chunks"] = of_call(
            attribution,
            attribution.attribute(
                batch["inputs"],
                batch["baselines"],
                target=1,
                additional_forward_args=batch["additional_forward_args"][:1],
                n_steps=6,
                internal_batch_size=6,
                return_convergence_delta=True,
            ),
        )
    for perturbation in ("attention", "blend"):
        attribution = AMLAttribution(text_model, **at_inputs, perturbation=perturbation)
        groups = torch.arange(batch["inputs"].shape[1]).div(2, rounding_mode="floor")
        result = attribution.attribute(
            **batch,
            feature_mask=groups.expand_as(batch["inputs"]).contiguous(),
            n_steps=6,
            return_convergence_delta=True,
        )
        found[f"aml, {perturbation}, feature mask"] = of_call(attribution, result)
    return found


def fitted_attributions(setup: Setup) -> JSON:
    """The classes with the bundled maskers: the terms of their proposals, tuning in both forms."""
    text_model, batch = setup.reviews_text_model, setup.reviews_batch
    found: dict[str, JSON] = {}
    for name, kind in (("aml", AMLAttribution), ("la", LAAttribution)):
        for tune in ("mask", "masker"):
            attribution = kind.from_pretrained(
                reviews_masker_path(name),
                text_model,
                embedding_layer=text_model.embedding_layer,
                output="logits",
                tune=tune,
            )
            if tune == "mask":
                found[f"{name}, evaluate"] = plain(attribution.evaluate(**batch))
                found[f"{name}, fingerprint"] = plain(fingerprint_of(attribution))
                found[f"{name}, weights"] = of_weights(masker_of(attribution).state_dict())
            for steps in (0, 5):
                result = attribution.attribute(
                    **batch, n_steps=steps, return_convergence_delta=True
                )
                found[f"{name}, {tune}, {steps} steps"] = of_call(attribution, result)
    return found


# --- 3: language models ---------------------------------------------------------------------------

_WORDS = ("good", "bad", "gripping", "dull")
_VOCABULARY = (
    *("<unk>", "<eos>", "Text", "Label", ":", ".", "a", "the", "film", "plot", "story", "was"),
    *("not", "and", "very", "never", "slow", "positive", "negative", *_WORDS),
)


def decoder() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A tiny random decoder, and a tokenizer whose tokens are words."""
    ids = {word: number for number, word in enumerate(_VOCABULARY)}
    words = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", eos_token="<eos>", pad_token="<eos>"
    )
    config = LlamaConfig(
        vocab_size=len(ids),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=128,
        bos_token_id=None,
        eos_token_id=None,
        initializer_range=0.5,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
    return model.eval().requires_grad_(False), tokenizer


def of_written(result: Any) -> JSON:
    """What explains a language model's answer."""
    return {
        "seq_attr": plain(result.seq_attr),
        "token_attr": plain(result.token_attr),
        "input_tokens": list(result.input_tokens),
        "output_tokens": list(result.output_tokens),
        "output_probs": plain(result.output_probs),
    }


def language_model(setup: Setup) -> JSON:
    """``LLMAMLAttribution`` on a tiny decoder, and classification by prompt with it."""
    model, tokenizer = decoder()
    text = "Text : the film was very good and not slow . Label :"
    prompts: dict[str, Any] = {
        "string": text,
        "tokens": TextTokenInput(text, tokenizer, baselines=0, skip_tokens=[ids("Text")]),
        "template": TextTemplateInput("Text : {} film was {} Label :", values=["the", "good"]),
    }
    found: dict[str, JSON] = {}
    for name, kind in (("aml", AMLAttribution), ("la", LAAttribution)):
        for inp, prompt in prompts.items():
            for scores in ("mask", "contribution"):
                llm = LLMAMLAttribution(kind(model, scores=scores), tokenizer)
                result = llm.attribute(prompt, target=" positive film", n_steps=6)
                found[f"{name}, {inp}, {scores}"] = {
                    **of_written(result),
                    "terms": plain(terms_of(llm.attr_method)),
                }
    hidden = LLMAMLAttribution(AMLAttribution(model, perturbation="causal-attention"), tokenizer)
    found["aml, causal attention"] = of_written(
        hidden.attribute(prompts["tokens"], target=" positive", n_steps=6)
    )
    written = LLMAMLAttribution(AMLAttribution(model), tokenizer)
    found["aml, written"] = of_written(
        written.attribute(
            text,
            gen_args={"max_new_tokens": 3, "do_sample": False},
            n_steps=4,
            internal_batch_size=4,
        )
    )
    fitted = LLMAMLAttribution(AMLAttribution(model), tokenizer)
    fitted.fit(
        [f"Text : the {noun} was {word} Label :" for noun in ("film", "plot") for word in _WORDS],
        [" positive", " negative"] * len(_WORDS),
        batch_size=4,
        epochs=2,
        learning_rate=1e-3,
    )
    found["aml, fit"] = of_fit(fitted.attr_method)
    found["aml, fitted"] = of_written(fitted.attribute(text, target=" positive"))
    for name in ("mask-gradient", "integrated-gradients", "occlusion", "saliency", "random"):
        explainer = TextExplainer(
            model,
            tokenizer,
            method=name,
            template="Text : {text} Label :",
            labels={"no": "negative", "yes": "positive"},
        )
        texts = ["a gripping film", "the plot was not good and the film was dull ."]
        found[f"{name}, prompt"] = explained(explainer, texts)
    return found


def ids(word: str) -> int:
    """A word's number in the tiny decoder's vocabulary."""
    return _VOCABULARY.index(word)


# --- 4: fits --------------------------------------------------------------------------------------


def of_fit(attribution: Any) -> JSON:
    """What a fit left behind: fingerprint, history, summary, and what can be told of weights."""
    return {
        "fingerprint": plain(asdict(fingerprint_of(attribution))),
        "history": plain(history_of(attribution)),
        "fit summary": plain(fit_summary_of(attribution)),
        "cost": plain(training_cost_of(attribution)),
        "masker": type(masker_of(attribution)).__name__,
        "perturbation": attribution.perturbation.name,
        "weights": of_weights(masker_of(attribution).state_dict()),
    }


def text_fits(setup: Setup) -> JSON:
    """``TextExplainer.fit`` with both losses, for AML and LA, and with both usual maskers."""
    cases: dict[str, tuple[str, dict[str, Any]]] = {
        "aml, regression": ("aml", {"loss": "regression"}),
        "aml, objective": ("aml", {"loss": "objective"}),
        "la, objective": ("la", {"loss": "objective"}),
        "aml, shared": ("aml", {"masker": "shared"}),
        "aml, blend": ("aml", {"perturbation": "blend", "patience": 1}),
    }
    found: dict[str, JSON] = {}
    for name, (method, settings) in cases.items():
        explainer = setup.explainer(method=method)
        explainer.fit(setup.training_texts, setup.validation_texts, epochs=2, **settings)
        folder = setup.folder / "text fit" / name
        explainer.save_pretrained(folder)
        loaded = TextExplainer.from_pretrained(folder, *setup.reviews_model, device="cpu")
        found[name] = {
            **of_fit(fitted_of(explainer)),
            "explained": explained(explainer, setup.reviews[:5]),
            "loaded": explained(loaded, setup.reviews[:5]),
            "files": of_masker_folder(folder),
        }
    return found


def layer_fits(setup: Setup) -> JSON:
    """``fit`` of the attribution classes with both losses, with the masker that they make."""
    text_model = setup.reviews_text_model
    # Padded together: the masker that is made for embeddings has one length.
    whole = batch_of(text_model, setup.training_texts)
    batches = [rows_of(whole, start, start + 8) for start in range(0, 24, 8)]
    places: dict[str, Callable[[], Any]] = {
        "layer aml": lambda: LayerAMLAttribution(text_model, text_model.model.bert.embeddings),
        "layer la": lambda: LayerLAAttribution(text_model, text_model.model.bert.embeddings),
        "aml": lambda: AMLAttribution(text_model, embedding_layer=text_model.embedding_layer),
    }
    found: dict[str, JSON] = {}
    for name, make in places.items():
        for loss in ("objective", "regression"):
            attribution = make()
            attribution.fit(
                batches[:2], batches[2:], epochs=2, loss=loss, n_subsets=8, learning_rate=1e-3
            )
            result = attribution.attribute(**batches[0], return_convergence_delta=True)
            found[f"{name}, {loss}"] = {
                **of_fit(attribution),
                "evaluate": plain(attribution.evaluate(**batches[2])),
                "explained": of_call(attribution, result),
            }
    chosen = LayerAMLAttribution(text_model, text_model.model.bert.embeddings)
    chosen.fit(
        batches[:2],
        batches[2:],
        epochs=2,
        validations_per_epoch=2,
        select_by="aopc-comprehensiveness",
        scheduler="cosine",
        warmup_ratio=0.2,
    )
    found["layer aml, chosen by a metric"] = of_fit(chosen)
    return found


# --- 5: the command line --------------------------------------------------------------------------


def command(setup: Setup, *arguments: str) -> str:
    """Runs a command in the temporary folder and gives what it printed."""
    environment = {
        **os.environ,
        # The package that this process uses, wherever the command is run.
        "PYTHONPATH": str(Path(captum_aml.__file__).resolve().parents[1]),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "100",
    }
    done = subprocess.run(
        [sys.executable, "-m", _CLI, *arguments],
        cwd=setup.folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{arguments[0]} failed with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def of_lines(text: str) -> JSON:
    """JSON lines as values."""
    return [json.loads(line) for line in text.splitlines()]


def of_masker_folder(folder: Path) -> JSON:
    """The files of a masker's folder: their names, the configuration, and the weights."""
    weights = next(folder.glob("masker-*.safetensors"))
    return {
        "names": files_in(folder),
        "config": json.loads((folder / "config.json").read_text("utf-8")),
        "weights": of_weights(load_file(weights)),
    }


def number_or_text(cell: str) -> float | str:
    """A table's cell as a number, so that it is compared as one, or as it is."""
    try:
        return float(cell)
    except ValueError:
        return cell


def files_in(folder: Path) -> list[str]:
    """The names of all files below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    """Writes JSON lines, and gives the file's name for a command."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


def reviews_file(setup: Setup, n: int) -> str:
    """A file of reviews with labels and rationales."""
    rows = [
        {
            "text": review.text,
            "label": review.label,
            "rationale": [list(s) for s in review.deciding],
        }
        for review in setup.splits.test[:n]
    ]
    return write_rows(setup.folder / "reviews.jsonl", rows)


def command_explain(setup: Setup) -> JSON:
    """``explain`` in its forms, and ``evaluate`` of what it printed."""
    model = str(reviews_classifier_path())
    texts = setup.reviews[:5]
    found: dict[str, JSON] = {}
    runs = {
        "aml": ("--method", "aml", "--masker", str(reviews_masker_path("aml"))),
        "ig": ("--method", "ig", "--steps", "10", "--unit", "word", "--target", "positive"),
    }
    for name, arguments in runs.items():
        printed = command(setup, "explain", *texts, "--model", model, *arguments)
        found[name] = of_lines(printed)
        file = setup.folder / f"explained-{name}.jsonl"
        file.write_text(printed, "utf-8")
    table = setup.folder / "explained.csv"
    command(
        setup,
        "explain",
        *texts,
        *("--model", model, "--method", "saliency"),
        "--output",
        str(table),
    )
    rows = list(csv.reader(io.StringIO(table.read_text("utf-8"))))
    found["table"] = [[number_or_text(cell) for cell in row] for row in rows]
    scored = setup.folder / "evaluated"
    command(
        setup,
        *("evaluate", str(setup.folder / "explained-aml.jsonl"), "--model", model),
        *("--out", str(scored)),
    )
    found["evaluate"] = json.loads((scored / "results.json").read_text("utf-8"))
    found["evaluate, files"] = files_in(scored)
    return found


def command_benchmark(setup: Setup) -> JSON:
    """``benchmark`` with cheap methods, two seeds and every metric."""
    out = setup.folder / "benchmark"
    metrics = command(
        setup, *("benchmark", "--model", "-", "--data", "-"), *("--metrics", "list")
    ).splitlines()
    names = [line.split()[0] for line in metrics if line and not line[0].isspace()]
    command(
        setup,
        *("benchmark", "--model", str(reviews_classifier_path()), "--out", str(out)),
        *("--data", reviews_file(setup, 6), "--seeds", "0,1"),
        *("--methods", "aml,aml-tuned,la,saliency,gradient-shap,attention"),
        *("--masker", str(reviews_masker_path("aml")), "--masker", str(reviews_masker_path("la"))),
        *("--steps", "gradient-shap=5", "--metrics", ",".join(names), "--device", "cpu"),
    )
    explanations = sorted((out / "explanations").iterdir())
    return {
        "metrics": metrics,
        "results": json.loads((out / "results.json").read_text("utf-8")),
        "files": files_in(out),
        "explanations": {file.name: of_lines(file.read_text("utf-8")) for file in explanations},
    }


def command_fit(setup: Setup) -> JSON:
    """``fit`` for an epoch, and ``explain`` with what it made."""
    model, out = str(reviews_classifier_path()), setup.folder / "fit"
    data = write_rows(setup.folder / "train.jsonl", [{"text": t} for t in setup.training_texts])
    command(
        setup,
        *("fit", "--model", model, "--data", data, "--out", str(out)),
        *("--epochs", "1", "--device", "cpu"),
    )
    printed = command(setup, "explain", *setup.reviews[:3], "--model", model, "--masker", str(out))
    return {
        **of_masker_folder(out),
        "history": json.loads((out / "history.json").read_text("utf-8")),
        "settings": (out / "fit.yaml").read_text("utf-8").splitlines(),
        "explained": of_lines(printed),
    }


def command_search(setup: Setup) -> JSON:
    """``search`` with two trials: what they tried, and what was best."""
    try:
        import optuna  # noqa: F401
    except ImportError:
        setup.notes.append("search left out: optuna is not installed")
        return None
    out = setup.folder / "search"
    data = write_rows(setup.folder / "search.jsonl", [{"text": t} for t in setup.training_texts])
    command(
        setup,
        *("search", "--model", str(reviews_classifier_path()), "--data", data),
        *("--out", str(out), "--trials", "2", "--epochs", "1", "--batch-size", "8"),
        *("--device", "cpu"),
    )
    return {
        "search": json.loads((out / "search.json").read_text("utf-8")),
        "best": (out / "best.yaml").read_text("utf-8").splitlines(),
        "files": files_in(out),
    }


# --- record ---------------------------------------------------------------------------------------

SECTIONS: tuple[Callable[[Setup], JSON], ...] = (
    methods_on_reviews,
    maskers_on_reviews,
    other_calls_on_reviews,
    methods_on_real_texts,
    attribution_classes,
    fitted_attributions,
    language_model,
    text_fits,
    layer_fits,
    command_explain,
    command_benchmark,
    command_fit,
    command_search,
)


def record(file: Path, shared: Path, only: Sequence[str] = ()) -> int:
    """Writes a record; what fails stands in it, by its kind, and makes the exit status 1.

    Args:
        file: The file to write.
        shared: The folder with real models and data.
        only: The names of the sections to record; () for all.
    """
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print(f"captum_aml: {captum_aml.__file__}", file=sys.stderr)
    found: dict[str, JSON] = {}
    failed = 0
    with tempfile.TemporaryDirectory(prefix="behaviour-") as folder:
        there = (shared / "models").is_dir()
        setup = Setup(Path(folder).resolve(), shared.resolve() if there else None)
        if not there:
            setup.notes.append("real texts left out: the shared folder is absent")
        scrub = Scrubber(setup.folder, setup.shared)
        for section in SECTIONS:
            name = section.__name__
            if only and name not in only:
                continue
            start = time.perf_counter()
            try:
                found[name] = scrub(section(setup))
            except Exception as error:
                traceback.print_exc()
                found[name] = {"error": type(error).__name__}
                failed += 1
            seconds = time.perf_counter() - start
            n = sum(1 for _ in leaves(found[name]))
            print(f"{name}: {n} values in {seconds:.1f} s", file=sys.stderr)
        document = {"notes": sorted(set(map(scrub, setup.notes))), "sections": found}
    file.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", "utf-8")
    return 1 if failed else 0


# --- compare --------------------------------------------------------------------------------------


def leaves(value: JSON, path: str = "") -> Iterator[tuple[str, JSON]]:
    """The single values of a JSON document, each with the path to it; empty containers, too."""
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from leaves(item, f"{path}/{name}")
    elif isinstance(value, list) and value:
        for number, item in enumerate(value):
            yield from leaves(item, f"{path}/{number}")
    else:
        yield path, value


def agree(a: JSON, b: JSON, tolerance: float) -> bool:
    """Whether two single values are the same; floating-point numbers within the tolerance."""
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (a, b))
    if not numbers or (isinstance(a, int) and isinstance(b, int)):
        return type(a) is type(b) and bool(a == b)
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) and math.isnan(b)
    return bool(a == b or abs(a - b) <= tolerance * (1 + max(abs(a), abs(b))))


def compare(a: Path, b: Path, tolerance: float, renamed: Mapping[str, str]) -> int:
    """Prints where the second record differs from the first; 1 where it does or lacks values.

    Args:
        a: The first record.
        b: The second.
        tolerance: What numbers may differ by, absolutely and relatively.
        renamed: New names of the first record's keys, for values that are not found by the old.
    """
    first, second = (dict(leaves(json.loads(file.read_text("utf-8")))) for file in (a, b))

    def now(path: str) -> str:
        """The path under which the second record has a value of the first."""
        *folders, name = path.split("/")
        last = "/".join([*folders, renamed.get(name, name)])
        every = "/".join(renamed.get(part, part) for part in path.split("/"))
        return next((found for found in (path, last, every) if found in second), path)

    first = {now(path): value for path, value in first.items()}
    shared = [path for path in first if path in second]
    differ = [path for path in shared if not agree(first[path], second[path], tolerance)]
    missing = [path for path in first if path not in second]
    new = [path for path in second if path not in first]
    for path in differ:
        print(f"differs {path}: {first[path]!r} -> {second[path]!r}")
    for path in missing:
        print(f"missing {path}: {first[path]!r}")
    for path in new:
        print(f"new     {path}: {second[path]!r}")
    print(
        f"{len(shared)} values compared, {len(differ)} differ, {len(missing)} missing, "
        f"{len(new)} new"
    )
    return 1 if differ or missing else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record", help="write what the package gives")
    recording.add_argument("file", type=Path)
    recording.add_argument("--shared", type=Path, default=_SHARED, help="real models and data")
    recording.add_argument(
        "--only",
        action="append",
        default=[],
        choices=[section.__name__ for section in SECTIONS],
        help="a section to record, perhaps several times (all)",
    )
    comparing = commands.add_parser("compare", help="list where two records differ")
    comparing.add_argument("a", type=Path)
    comparing.add_argument("b", type=Path)
    comparing.add_argument("--tolerance", type=float, default=1e-6)
    comparing.add_argument(
        "--renamed",
        action="append",
        default=[],
        metavar="OLD=NEW",
        help="a key that has another name in the second record, perhaps several times",
    )
    given = parser.parse_args(arguments)
    if given.command == "record":
        return record(given.file, given.shared, given.only)
    renamed = dict(pair.split("=", 1) for pair in given.renamed)
    return compare(given.a, given.b, given.tolerance, renamed)


if __name__ == "__main__":
    sys.exit(main())
