"""What tells the explained model from others, so that no masker is used with the wrong one."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from torch import nn

from captum_aml._utils.modules import unwrapped
from captum_aml.masking.forward import underlying_model
from captum_aml.masking.problem import MaskingProblem
from captum_aml.training import ModelFingerprint
from captum_aml.typing import ForwardFunc

_T = TypeVar("_T")


def known_fingerprint(
    forward_func: ForwardFunc, embedding_layer: nn.Module | None, *, output: str
) -> ModelFingerprint:
    """What can be told of the explained model without running it.

    Args:
        forward_func: What is explained.
        embedding_layer: The layer that embeds ids, where there is one.
        output: The output kind, or ``auto``.
    """
    config = getattr(underlying_model(forward_func), "config", None)
    # Every configuration of transformers has num_labels, but only these models return them, and
    # only a distribution has them as outcomes.
    classifies = type(unwrapped(forward_func)).__name__.endswith("ForSequenceClassification") and (
        output not in ("probability", "log_probability", "value")
    )
    n_labels = _setting(config, "num_labels", int) if classifies else None
    return ModelFingerprint(
        embedding_dim=getattr(embedding_layer, "embedding_dim", None),
        vocab_size=getattr(embedding_layer, "num_embeddings", None),
        n_classes=n_labels if n_labels is not None and n_labels > 1 else None,
        model_type=_setting(config, "model_type", str),
        hidden_size=_setting(config, "hidden_size", int),
        num_hidden_layers=_setting(config, "num_hidden_layers", int),
    )


def seen_fingerprint(known: ModelFingerprint, problem: MaskingProblem) -> ModelFingerprint:
    """What is known, completed by what a pass showed."""
    feature = problem.capture.features[0]
    channels = feature.shape[-1] if feature.dim() == 3 else None
    return replace(
        known,
        embedding_dim=known.embedding_dim if known.embedding_dim is not None else channels,
        n_classes=problem.readout.probabilities.shape[1],
    )


def with_weights(fingerprint: ModelFingerprint, forward_func: ForwardFunc) -> ModelFingerprint:
    """A fingerprint that tells the model's weights, too.

    For fitting and loading only: a model that is changed afterwards may be explained, as by
    randomization checks, and calls need not pay for it.
    """
    model = underlying_model(forward_func)
    return fingerprint if model is None else fingerprint.with_weights_of(model)


def _setting(config: object, name: str, kind: type[_T]) -> _T | None:
    """A setting of a model's configuration, which need not be one of transformers."""
    value = getattr(config, name, None)
    return value if isinstance(value, kind) else None


__all__ = ["known_fingerprint", "seen_fingerprint", "with_weights"]
