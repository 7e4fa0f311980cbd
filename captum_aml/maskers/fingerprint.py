"""Fingerprint of the explained model, so that no masker is used with the wrong one.

It has the model's sizes, and a few of its weights, which distinguish it from others of the same
sizes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from captum_aml.exceptions import CheckpointError

_T = TypeVar("_T")

#: How many values are taken from all parameters, and how many more from the last matrix: of two
#: classifiers that were made from one encoder, the head differs most.
_FROM_ALL, _FROM_LAST = 48, 16

#: What two values may differ by: a share of the larger, above the rounding of bfloat16 (1/256), and
#: a share of the values' standard deviation.
_RELATIVE, _OF_SPREAD = 0.01, 1e-3

_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class ModelFingerprint:
    """Properties that identify a model well enough to refuse a masker of another one.

    Attributes:
        embedding_dim: Channels of a masked token, or None where tokens have none.
        vocab_size: Entries of the word embeddings, or None where there are none.
        n_classes: Outcomes of the explained distribution, or None if not known.
        model_type: The architecture by the name that transformers gives it, or None if not known.
        hidden_size: Channels of its hidden states, or None likewise.
        num_hidden_layers: Its layers, or None likewise.
        n_weights: The number of its weights, or None if not known.
        weights: The values of a few of them, chosen by their places, or None likewise.
    """

    embedding_dim: int | None
    vocab_size: int | None
    n_classes: int | None
    model_type: str | None = None
    hidden_size: int | None = None
    num_hidden_layers: int | None = None
    n_weights: int | None = None
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Takes the list that JSON makes of the weights.

        Raises:
            TypeError: They are no numbers.
        """
        if self.weights is not None:
            if not isinstance(self.weights, (list, tuple)) or not all(
                isinstance(value, (int, float)) for value in self.weights
            ):
                raise TypeError("expected a list of numbers for weights")
            object.__setattr__(self, "weights", tuple(map(float, self.weights)))

    @classmethod
    def of(
        cls,
        model: nn.Module | None,
        embedding_layer: nn.Module | None = None,
        *,
        classifies: bool = False,
    ) -> ModelFingerprint:
        """The properties of a model that are known without running it, and without its weights.

        Args:
            model: The explained model, where it is known.
            embedding_layer: The layer that embeds ids, where there is one.
            classifies: Whether the labels of its configuration are the explained outcomes.
        """
        config = getattr(model, "config", None)
        n_labels = _setting(config, "num_labels", int) if classifies else None
        return cls(
            embedding_dim=getattr(embedding_layer, "embedding_dim", None),
            vocab_size=getattr(embedding_layer, "num_embeddings", None),
            n_classes=n_labels if n_labels is not None and n_labels > 1 else None,
            model_type=_setting(config, "model_type", str),
            hidden_size=_setting(config, "hidden_size", int),
            num_hidden_layers=_setting(config, "num_hidden_layers", int),
        )

    def with_weights_of(self, model: nn.Module | None) -> ModelFingerprint:
        """This fingerprint with what identifies a model's weights, where they can be read.

        For fitting and loading only: a model that is changed afterwards may be explained, as by
        randomization checks, and calls need not pay for it.
        """
        n_weights, weights = (None, None) if model is None else _sampled_weights(model)
        return self if weights is None else replace(self, n_weights=n_weights, weights=weights)

    def check(self, model: ModelFingerprint) -> None:
        """Compares a saved fingerprint with what is known of a model.

        Raises:
            CheckpointError: They differ; the message names the field and both values, or says that
                the weights do.
        """
        sizes = {k: v for k, v in asdict(self).items() if k not in ("n_weights", "weights")}
        for name, saved in sizes.items():
            found = getattr(model, name)
            if saved is not None and found is not None and saved != found:
                raise CheckpointError(
                    f"masker: it was fitted for a model with {name}={saved}, "
                    f"but this one has {name}={found}"
                )
        # Another number of weights puts others into the same places: a wrapper may have its own.
        if (
            self.weights is not None
            and model.weights is not None
            and self.n_weights == model.n_weights
            and not _same_weights(self.weights, model.weights)
        ):
            raise CheckpointError(
                "masker: it was fitted for another model, or for other weights of it (the sizes "
                "are the same, but the weights differ)"
            )


def _sampled_weights(model: nn.Module) -> tuple[int | None, tuple[float, ...] | None]:
    """The number of a model's weights, and values at places that depend on their shapes only.

    Each parameter tensor counts the same, whatever its size: the table of word embeddings would
    otherwise hide all else.

    Returns:
        Nones where there are no floating point weights of 16 bits or more, where they are not in
        memory, or where one is not finite.
    """
    parameters = [
        p
        for p in model.parameters()
        if p.numel() and p.is_floating_point() and p.element_size() > 1
    ]
    if not parameters or any(p.is_meta for p in parameters):
        return None, None
    last = next((p for p in reversed(parameters) if p.dim() > 1), parameters[-1])
    chosen = [
        parameters[round(i * (len(parameters) - 1) / (_FROM_ALL - 1))] for i in range(_FROM_ALL)
    ]
    values = tuple(
        _value_at(parameter, (0.5 + i * _GOLDEN) % 1)
        for i, parameter in enumerate([*chosen, *[last] * _FROM_LAST])
    )
    if not all(map(math.isfinite, values)):
        return None, None
    return sum(p.numel() for p in parameters), values


def _same_weights(saved: Sequence[float], found: Sequence[float]) -> bool:
    """Whether two samples are of one model, whatever the precision and the device of each."""
    if len(saved) != len(found):
        return False
    mean = math.fsum(saved) / len(saved)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in saved) / len(saved))
    return all(
        abs(a - b) <= _RELATIVE * max(abs(a), abs(b)) + _OF_SPREAD * spread
        for a, b in zip(saved, found, strict=True)
    )


@torch.no_grad()
def _value_at(parameter: Tensor, place: float) -> float:
    """The element at a share of the way through a tensor."""
    number = int(place * parameter.numel())
    index = []
    for size in reversed(parameter.shape):
        number, rest = divmod(number, size)
        index.append(rest)
    return float(parameter[tuple(reversed(index))])


def _setting(config: object, name: str, kind: type[_T]) -> _T | None:
    """A setting of a model's configuration, which need not be one of transformers."""
    value = getattr(config, name, None)
    return value if isinstance(value, kind) else None
