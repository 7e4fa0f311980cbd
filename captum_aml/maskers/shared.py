r"""A head on the hidden states that the explained model computes anyway.

With :math:`h^{(l)}_t` the state of token :math:`t` after layer :math:`l` (0 the embeddings), the
head reads their learned mixture, is conditioned on the prediction :math:`e(q)`
(:class:`~captum_aml.maskers.base.PredictionEmbedding`), lets the tokens look at each other
once, and gives each its logit:

.. math::

    x_t &= W \sum_l \mathrm{softmax}(s)_l \, \mathrm{norm}(h^{(l)}_t) + e(q) \\
    y &= x + \mathrm{attention}(\mathrm{norm}(x)), \quad
    z = y + \mathrm{mlp}(\mathrm{norm}(y)), \quad
    g_t = v \cdot \mathrm{norm}(z_t)

The states come from the pass that makes the prediction, so that a prediction and its explanation
cost about one forward pass together. They carry no gradient into the explained model.

Source: not the papers'. The mixture of layers is that of Peters et al., NAACL 2018 (ELMo).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captum_aml._utils.checks import as_count
from captum_aml._utils.isolation import isolated_rng
from captum_aml.exceptions import InvalidInputError
from captum_aml.maskers.base import MaskerInputs, PredictionEmbedding
from captum_aml.maskers.hidden import ExplainedLayers
from captum_aml.maskers.registry import register_masker

#: Channels of one attention head.
_HEAD_SIZE = 32


class _Mixture(nn.Module):
    """Hidden states (N, L, D) of S layers as one, each normalized and weighted by a softmax."""

    def __init__(self, n_states: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(n_states))

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        mixed = torch.zeros((), dtype=self.weights.dtype, device=self.weights.device)
        for weight, state in zip(self.weights.softmax(dim=0), states, strict=True):
            # Layers differ in scale by orders of magnitude, above all in decoders.
            mixed = mixed + weight * F.layer_norm(state.to(weight), state.shape[-1:])
        return mixed


class _Block(nn.Module):
    """One transformer layer with the normalization first, (N, L, W) to the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.n_heads = max(1, width // _HEAD_SIZE)
        self.attention_norm = nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.attended = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, hidden: Tensor, visible: Tensor) -> Tensor:
        n, length, width = hidden.shape
        joined = self.queries_keys_values(self.attention_norm(hidden))
        parts = joined.reshape(n, length, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)
        # The lowest number, not minus infinity: an example without a visible token is no NaN.
        hide = hidden.new_zeros(visible.shape)
        hide = hide.masked_fill(~visible, torch.finfo(hidden.dtype).min)[:, None, None, :]
        seen = F.scaled_dot_product_attention(parts[0], parts[1], parts[2], attn_mask=hide)
        hidden = hidden + self.attended(seen.transpose(1, 2).reshape(n, length, width))
        result: Tensor = hidden + self.mlp(hidden)
        return result


@register_masker("shared", needs=("model",))
class SharedMasker(nn.Module):
    """Proposes a mask from the explained model's own hidden states, at a few per cent of its cost.

    The explained model is referred to, not owned: it is no part of ``parameters()`` or
    ``state_dict()``, and copies of the masker read the same model. What is explained must run that
    very model, once for a call.

    Args:
        explained_layers: The layers to read.
        state_size: Channels D of their hidden states.
        n_classes: The number of outcomes C of the explained distribution.
        width: Channels of the head. Default: 128

    Raises:
        InvalidInputError: A number is below 1, or the width is above 32 and no multiple of it.
    """

    def __init__(
        self,
        explained_layers: ExplainedLayers,
        *,
        state_size: int,
        n_classes: int,
        width: int = 128,
    ) -> None:
        super().__init__()
        as_count("state_size", state_size, least=1)
        as_count("n_classes", n_classes, least=1)
        if as_count("width", width, least=1) > _HEAD_SIZE and width % _HEAD_SIZE:
            raise InvalidInputError(
                f"width: expected a multiple of {_HEAD_SIZE} above it, got {width}"
            )
        self.fitted = False
        self.explained_layers = explained_layers
        self._state_size, self._width = state_size, width
        self.mixture = _Mixture(len(explained_layers))
        self.project = nn.Linear(state_size, width)
        self.prediction = PredictionEmbedding(n_classes, width)
        self.block = _Block(width)
        self.readout = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 1))

    @classmethod
    def from_model(
        cls,
        model: nn.Module,
        *,
        n_classes: int | None = None,
        layers: Sequence[str] | None = None,
        state_size: int | None = None,
        width: int = 128,
        seed: int = 0,
    ) -> SharedMasker:
        """A masker that reads this model.

        Args:
            model: The explained model: one of Hugging Face of any architecture, or any module
                whose ``layers`` give hidden states (N, L, D).
            n_classes: The number of outcomes. Default: the model's ``num_labels``, at least 2
            layers: Names of the submodules whose outputs are read. Default: every layer of a
                Hugging Face model, and what the first one is given, the embeddings
            state_size: Channels D of the hidden states. Default: the configuration's
                ``hidden_size``
            width: Channels of the head. Default: 128
            seed: The seed of the head's first weights; torch's own state is left as it is.
                Default: 0

        Raises:
            InvalidInputError: The layers, the number of classes or the size cannot be found.
        """
        reads = ExplainedLayers(model, layers)
        config = getattr(reads.model, "config", None)
        if state_size is None:
            state_size = getattr(config, "hidden_size", None)
        if n_classes is None and config is not None:
            # One value per example is explained as two outcomes: retained, or not.
            n_classes = max(2, int(getattr(config, "num_labels", None) or 0))
        for name, value in (("state_size", state_size), ("n_classes", n_classes)):
            if value is None:
                raise InvalidInputError(
                    f"{name}: expected a number, since the {type(reads.model).__name__} has no "
                    "configuration that says it; got None"
                )
        assert state_size is not None
        assert n_classes is not None
        with torch.inference_mode(False), isolated_rng(as_count("seed", seed)):
            return cls(reads, state_size=state_size, n_classes=n_classes, width=width)

    @property
    def config(self) -> dict[str, Any]:
        """The argument of :meth:`from_config`, as JSON values."""
        return {
            "model": _description(self.explained_layers.model),
            "layers": list(self.explained_layers.names),
            "with_input": self.explained_layers.with_input,
            "state_size": self._state_size,
            "n_classes": self.prediction.classes.shape[0],
            "width": self._width,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], model: nn.Module) -> SharedMasker:
        """Builds the network with random weights from :attr:`config`, to read this model.

        Torch's own random state is left as it is.

        Args:
            config: The configuration, and possibly what :meth:`describe` adds of the model.
            model: The explained model.

        Raises:
            InvalidInputError: It was made for another model, or without a path several parts of
                this one could be meant; the message names what differs.
        """
        inner = _part_meant(config, model)
        reads = ExplainedLayers(inner, config["layers"], with_input=config["with_input"])
        with torch.inference_mode(False), isolated_rng(0):
            return cls(
                reads,
                state_size=config["state_size"],
                n_classes=config["n_classes"],
                width=config["width"],
            )

    def describe(self, model: nn.Module | None) -> dict[str, Any]:
        """:attr:`config`, and which part of a model is read, where one is.

        Its name in ``named_modules`` as ``path``, and as ``n_modules`` how many there are: within
        another model the same name may be another part's.
        """
        parts = {} if model is None else dict(model.named_modules())
        read = self.explained_layers.model
        paths = [name for name, part in parts.items() if part is read]
        place = {"path": paths[0], "n_modules": len(parts)} if paths else {}
        return {**self.config, **place}

    def check_config(self, config: Mapping[str, Any]) -> None:
        """Checks that weights saved with a configuration are meant for this masker.

        Raises:
            InvalidInputError: They are not; the message names what differs.
        """
        own = self.config
        _check_same("made for a model with", config["model"], own.pop("model"))
        _check_same("saved with", config, own)

    def forward(self, inputs: MaskerInputs) -> Tensor:
        """One logit for each token, (N, L).

        Raises:
            InvalidInputError: There are no hidden states, or they do not fit the masked tokens.
        """
        states, tokens = inputs.hidden_states, tuple(inputs.maskable[0].shape)
        expected = (*tokens, self._state_size)
        if states is None or len(inputs.maskable) != 1:
            raise InvalidInputError(
                "masker: a SharedMasker explains one masked tensor from hidden states of the "
                f"explained model; got {len(inputs.maskable)} masked tensors and "
                f"{'no' if states is None else len(states)} hidden states"
            )
        shapes = [tuple(state.shape) for state in states]
        if len(shapes) != len(self.explained_layers) or any(shape != expected for shape in shapes):
            raise InvalidInputError(
                f"masker: expected {len(self.explained_layers)} hidden states of shape {expected}, "
                f"one position for each masked token, got {shapes}"
            )
        hidden = self.project(self.mixture(states))
        hidden = hidden + self.prediction(inputs.probabilities).unsqueeze(1)
        logits: Tensor = self.readout(self.block(hidden, _visible(inputs, tokens))).squeeze(-1)
        return logits


def _visible(inputs: MaskerInputs, tokens: tuple[int, ...]) -> Tensor:
    """Tokens that others may look at: not padding, or where it is not known, maskable ones."""
    given = inputs.attention_mask
    if given is not None and tuple(given.shape) == tokens:
        return given > 0
    return inputs.maskable[0]


def _part_meant(config: Mapping[str, Any], model: nn.Module) -> nn.Module:
    """The module that a masker was made from: the model, or a part of it, as its encoder.

    Raises:
        InvalidInputError: There is no such part, or several could be meant.
    """
    made_for, layers = config["model"], config["layers"]
    fitting: dict[str, nn.Module] = {
        name: part
        for name, part in model.named_modules()
        if _description(part) == made_for and set(layers) <= {n for n, _ in part.named_modules()}
    }
    path = config.get("path")
    if path in fitting and config.get("n_modules") == len(list(model.modules())):
        return fitting[str(path)]
    if len(fitting) > 1:
        raise InvalidInputError(
            f"masker: several parts of the {type(model).__name__} have the layers that it reads: "
            f"{', '.join(repr(name) for name in fitting)}. Pass masker=SharedMasker.from_model() "
            "of the right one"
        )
    inner = next(iter(fitting.values()), None)
    if inner is None:
        inner = next((p for p in model.modules() if _description(p) == made_for), model)
        _check_same("made for a model with", made_for, _description(inner))
    return inner


def _description(model: nn.Module) -> dict[str, Any]:
    """A model's properties without its weights, as JSON values."""
    config = getattr(model, "config", None)
    return {
        "class": type(model).__name__,
        "model_type": getattr(config, "model_type", None),
        "num_hidden_layers": getattr(config, "num_hidden_layers", None),
        "hidden_size": getattr(config, "hidden_size", None),
        "vocab_size": getattr(config, "vocab_size", None),
    }


def _check_same(was: str, saved: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Compares what was saved, as it ``was``, with what is there.

    Raises:
        InvalidInputError: They differ; the message names what differs and both values.
    """
    different = [name for name in found if saved.get(name) != found[name]]
    if different:
        before, now = (
            ", ".join(f"{name}={values.get(name)}" for name in different)
            for values in (saved, found)
        )
        raise InvalidInputError(f"masker: it was {was} {before}, but this one has {now}")
