r"""Soft sufficiency and comprehensiveness: elements of embeddings are dropped at random.

A token's score, scaled to :math:`a_i \in [0, 1]` over the example (lowest to highest), is the
probability that each element of its embedding is kept:

.. math::
    X'_{ij} &= X_{ij} b_{ij}, \quad b_{ij} \sim \mathrm{Bernoulli}(a_i)
        &\quad \text{soft sufficiency} &= 1 - \max(0, p(X) - p(X')) \\
    X''_{ij} &= X_{ij} b_{ij}, \quad b_{ij} \sim \mathrm{Bernoulli}(1 - a_i)
        &\quad \text{soft comprehensiveness} &= \max(0, p(X) - p(X''))

Both are better the higher they are. The normalized forms relate them to what dropping everything
does, :math:`s_0 = 1 - \max(0, p(X) - p(0))`: :math:`(s - s_0) / (1 - s_0)` for sufficiency, cut off
at 0, and :math:`c / (1 - s_0)` for comprehensiveness, cut off at 1.

Source: Zhao and Aletras, "Incorporating Attribution Importance for Improving Faithfulness Metrics",
ACL 2023. There the normalized forms are reported; where dropping everything changes nothing they
are undefined (NaN here), and just before that they explode, which is why they are not the default.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from captum_aml._utils.checks import as_count, is_integral
from captum_aml._utils.hooks import run_with_output
from captum_aml.exceptions import InvalidInputError
from captum_aml.masking.call import Call, parse_call
from captum_aml.masking.forward import find_embedding_layer
from captum_aml.metrics.evaluation import RemovalEvaluator
from captum_aml.metrics.registry import Metric, MetricInputs, register_metric
from captum_aml.metrics.scoring import EvaluationOptions, score_examples
from captum_aml.typing import Baselines, ForwardFunc, Target, TensorOrTuple

#: Draws per example of the registered metrics.
_REGISTERED_SAMPLES = 5


class SoftOptions(EvaluationOptions, total=False):
    """Those, and how embeddings are dropped: keyword arguments of the soft metrics.

    Attributes:
        embedding_layer: For ids, the layer that embeds them. Default: None, found where the forward
            function is a Hugging Face model.
        normalize: Whether to relate the value to that of dropping everything. Default: False.
        n_samples: Draws per example, whose values are averaged. Default: 10.
        seed: Seed of the draws, the same for every example. Default: 0.
    """

    embedding_layer: nn.Module | None
    normalize: bool
    n_samples: int
    seed: int


def soft_sufficiency(
    forward_func: ForwardFunc,
    inputs: TensorOrTuple,
    attributions: TensorOrTuple,
    baselines: Baselines = None,
    additional_forward_args: object | None = None,
    target: Target = None,
    **options: Unpack[SoftOptions],
) -> Tensor:
    """The share of the prediction that soft removal by importance keeps; higher is better.

    Arguments and errors are those of :func:`~captum_aml.metrics.comprehensiveness`, with those of
    :class:`SoftOptions` in place of its own options. The forward function gives probabilities or
    logits, the inputs are token ids (N, L) or embeddings (N, L, D).

    Returns:
        A value in [0, 1] per example, (N,), float64 on the CPU; NaN without a token.

    Raises:
        LayerNotReachedError: The forward function does not run the embedding layer once.
    """
    call = parse_call(inputs, baselines, target, additional_forward_args)
    return _soft(forward_func, call, attributions, complement=False, **options)


def soft_comprehensiveness(
    forward_func: ForwardFunc,
    inputs: TensorOrTuple,
    attributions: TensorOrTuple,
    baselines: Baselines = None,
    additional_forward_args: object | None = None,
    target: Target = None,
    **options: Unpack[SoftOptions],
) -> Tensor:
    """The share of the prediction that goes with the important tokens; higher is better.

    Arguments, result and errors are those of :func:`soft_sufficiency`.
    """
    call = parse_call(inputs, baselines, target, additional_forward_args)
    return _soft(forward_func, call, attributions, complement=True, **options)


def _soft(
    forward_func: ForwardFunc,
    call: Call,
    attributions: TensorOrTuple,
    *,
    complement: bool,
    embedding_layer: nn.Module | None = None,
    normalize: bool = False,
    n_samples: int = 10,
    seed: int = 0,
    **options: Unpack[EvaluationOptions],
) -> Tensor:
    score = partial(
        soft_of,
        layer=_layer(forward_func, call.inputs[0], embedding_layer),
        complement=complement,
        normalize=normalize,
        n_samples=as_count("n_samples", n_samples, least=1),
        seed=as_count("seed", seed),
    )
    return score_examples(score, forward_func, call, attributions, **options)


def _layer(forward_func: ForwardFunc, inputs: Tensor, given: nn.Module | None) -> nn.Module | None:
    """The layer whose output is dropped from; None where the inputs are embeddings themselves."""
    if inputs.dim() != (2 if is_integral(inputs) else 3):
        raise InvalidInputError(
            f"inputs: expected token ids (N, L) or embeddings (N, L, D), got {inputs.dtype} of "
            f"shape {tuple(inputs.shape)}"
        )
    if not is_integral(inputs):
        return None
    layer = given if given is not None else find_embedding_layer(forward_func)
    if layer is None:
        raise InvalidInputError(
            "embedding_layer: expected the layer that embeds the ids, since the forward function "
            "is no Hugging Face model; got None"
        )
    return layer


def soft_of(
    evaluator: RemovalEvaluator,
    scores: Tensor,
    layer: nn.Module | None,
    *,
    complement: bool,
    normalize: bool,
    n_samples: int,
    seed: int,
) -> Tensor:
    """Soft sufficiency, or comprehensiveness, (N,) from an evaluator and scores (N, L)."""
    importance = _scaled(scores.to(evaluator.tokens.device), evaluator.tokens)
    chance = importance
    if complement:
        chance = (1 - importance).masked_fill(~evaluator.tokens, 1.0)
    losses = torch.zeros(evaluator.n_examples, dtype=torch.float64)
    for sample in range(n_samples):
        losses += _losses(evaluator, layer, chance, (seed, sample)) / n_samples
    empty = torch.tensor(evaluator.n_tokens) == 0
    result = losses if complement else 1 - losses
    if normalize:
        nothing = torch.zeros_like(chance).masked_fill(~evaluator.tokens, 1.0)
        full = _losses(evaluator, layer, nothing, (seed, 0))
        empty |= full == 0
        scale = torch.where(empty, 1.0, full)
        result = (losses / scale).clamp(max=1) if complement else (1 - losses / scale).clamp(min=0)
    return result.masked_fill(empty, torch.nan)


def _scaled(scores: Tensor, tokens: Tensor) -> Tensor:
    """Scores from 0 at an example's lowest to 1 at its highest, (N, L); 1 outside its tokens."""
    low = scores.masked_fill(~tokens, torch.inf).amin(dim=1, keepdim=True)
    high = scores.masked_fill(~tokens, -torch.inf).amax(dim=1, keepdim=True)
    span = high - low
    # Equal scores say nothing about the tokens: half of each stays.
    scaled = torch.where(span > 0, (scores - low) / torch.where(span > 0, span, 1.0), 0.5)
    return scaled.masked_fill(~tokens, 1.0)


def _losses(
    evaluator: RemovalEvaluator, layer: nn.Module | None, chance: Tensor, seed: tuple[int, int]
) -> Tensor:
    """The cost of dropping elements once, (N,), from the chance of each token's to be kept."""
    # Padding gets a chance of 0 when inputs are laid out; a token's differs from it by the 1.
    noisy = evaluator.extended(
        lambda forward_func: _Dropping(forward_func, layer, seed), (chance + 1).float()
    )
    evaluator.n_passes += noisy.n_passes
    return (evaluator.originals - noisy.originals).clamp(min=0)


class _Dropping:
    """The forward function with one argument more: the chance of elements to be kept, plus one."""

    def __init__(
        self, forward_func: ForwardFunc, layer: nn.Module | None, seed: tuple[int, int]
    ) -> None:
        self.forward_func = forward_func
        self.layer = layer
        # One number from two, different for different pairs.
        self.seed = int(np.random.SeedSequence(seed).generate_state(1)[0])

    def __call__(self, inputs: Tensor, *args: Any) -> Any:  # the user's arguments and result
        chance = args[-1]
        if self.layer is None:
            dropped = inputs * self._kept(chance, inputs)
            return self.forward_func(dropped, *args[:-1])

        def drop(output: Tensor) -> Tensor | None:
            fits = output.shape[:2] == chance.shape
            return output * self._kept(chance, output) if fits else None

        return run_with_output(
            self.layer,
            drop,
            lambda: self.forward_func(inputs, *args[:-1]),
            (*chance.shape, "D"),
        )

    def _kept(self, chance: Tensor, embeddings: Tensor) -> Tensor:
        """Draws which elements stay, (B, L, D), the same for an example whatever its batch is."""
        kept = torch.zeros(embeddings.shape)
        for row, chances in enumerate(chance.cpu()):
            real = chances > 0
            generator = torch.Generator().manual_seed(self.seed)
            draws = torch.rand((int(real.sum()), *embeddings.shape[2:]), generator=generator)
            kept[row, real] = (draws < chances[real, None] - 1).float()
        return kept.to(embeddings)


def _register(title: str, what: str, *, complement: bool) -> None:
    """Registers a soft metric, not normalized."""

    def compute(inputs: MetricInputs, scores: Tensor, *_: object) -> Tensor:
        evaluator = inputs.evaluator
        layer = _layer(evaluator.forward_func, evaluator.inputs, inputs.embedding_layer)
        return soft_of(
            evaluator,
            scores,
            layer,
            complement=complement,
            normalize=False,
            n_samples=_REGISTERED_SAMPLES,
            seed=0,
        )

    name = "soft-comprehensiveness" if complement else "soft-sufficiency"
    description = (
        f"Probability {what} tokens' embeddings are dropped at random, not normalized; "
        f"{_REGISTERED_SAMPLES} draws (Zhao and Aletras 2023)."
    )
    metric = Metric(name, title, True, "faithfulness", description)
    register_metric(metric, is_default=False)(compute)


_register("Soft comp.", "lost when elements of important", complement=True)
_register("Soft suff.", "kept when elements of unimportant", complement=False)
