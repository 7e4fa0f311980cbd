"""Every method by name on models whose explanations are known."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from captum_aml import methods
from tests._helpers.text_models import BagOfTokens, bert_classifier

# Ids: 0 padding, 1 a special token, 2 the reference token, 3 to 6 words.
WEIGHTS = [9.0, -5.0, 0.05, 0.3, -0.1, 0.15, 0.0]
LINEAR = BagOfTokens(WEIGHTS, offset=5.1, link="linear")
LOGISTIC = BagOfTokens(WEIGHTS, offset=4.8, link="logistic")
IDS = torch.tensor([[1, 3, 4, 5, 0, 0], [1, 4, 3, 3, 6, 5]])
REFERENCE = torch.tensor([[1, 2, 2, 2, 0, 0], [1, 2, 2, 2, 2, 2]])
MASK = (IDS != 0).long()

_PACKAGES = {"shap": "shap", "lime-text": "lime"}


class WithModel:
    """Logits of a transformer, found as its ``model``, as those of a ``TextClassifier``."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __call__(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        logits: Tensor = self.model(input_ids=ids, attention_mask=attention_mask).logits
        return logits


def named(*names: str) -> list[object]:
    """Parameters of a test that skips the names whose package is not installed."""
    return [
        pytest.param(
            name,
            marks=pytest.mark.skipif(
                name in _PACKAGES and importlib.util.find_spec(_PACKAGES[name]) is None,
                reason=f"{name} needs the package {_PACKAGES.get(name)}",
            ),
        )
        for name in names
    ]


def all_names() -> list[object]:
    """All methods that work without a masker."""
    return named(*(n for n in methods.available() if not methods.spec(n).requires_masker))


def few(name: str) -> int | None:
    """A small number of steps, for what does not ask how good the scores are."""
    if methods.spec(name).steps is None:
        return None
    return 4 if methods.spec(name).family == "learned" else 8


def subject(name: str) -> tuple[Callable[..., Tensor], nn.Module]:
    """A model that the method can explain, and its embeddings: additive ones where it can."""
    if methods.spec(name).family == "attention":
        model = bert_classifier(40)
        return WithModel(model), model.get_input_embeddings()
    return LOGISTIC, LOGISTIC.embedding


def run(
    name: str,
    model: BagOfTokens | tuple[Callable[..., Tensor], nn.Module],
    *,
    ids: Tensor = IDS,
    reference: Tensor = REFERENCE,
    mask: Tensor = MASK,
    target: Tensor | int | None = 1,
    n_steps: int | None = None,
    seed: int = 0,
    batch_size: int = 32,
    feature_mask: Tensor | None = None,
) -> Tensor:
    """Scores of the two texts, or of others."""
    forward_func, layer = model if isinstance(model, tuple) else (model, model.embedding)
    method = methods.create(
        name, forward_func, layer, n_steps=n_steps, seed=seed, batch_size=batch_size
    )
    return method(
        ids,
        reference,
        target=target,
        additional_forward_args=(mask,),
        feature_mask=feature_mask,
    )


def token_weights(row: int) -> list[float]:
    """The weights of a text's explained tokens."""
    return [
        WEIGHTS[i]
        for i, r in zip(IDS[row].tolist(), REFERENCE[row].tolist(), strict=True)
        if i != r
    ]


def at_tokens(scores: Tensor, row: int) -> list[float]:
    """The scores of a text's explained tokens."""
    return scores[row][IDS[row] != REFERENCE[row]].tolist()
