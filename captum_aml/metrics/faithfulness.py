r"""Faithfulness by removal: what happens to the prediction without the tokens a ranking puts first.

With :math:`p(S)` the target's probability (or the forward function's plain value) when
exactly the tokens in :math:`S` are left, :math:`X` all :math:`T` tokens of an example and
:math:`R_k` the :math:`k` with the highest scores:

.. math::
    \mathrm{comprehensiveness} &= p(X) - p(X \setminus R_k) \\
    \mathrm{sufficiency} &= p(X) - p(R_k) \\
    \mathrm{log\ odds} &= \log p(X \setminus R_k) - \log p(X)

Signed and unsigned scores are ranked alike: by value, highest first, ties by position. The AOPC
forms (area over the perturbation curve, ``aopc=True``) average over several :math:`k`. Which ones,
how the average is taken and how tokens are removed is the
:class:`~captum_aml.metrics.Convention`'s. An example without any token to remove has no value: NaN.

Sources: DeYoung et al., "ERASER: A Benchmark to Evaluate Rationalized NLP Models", ACL 2020
(section 4.2); Shrikumar et al., ICML 2017, for log-odds; Samek et al., 2017, for AOPC.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor
from typing_extensions import Unpack

from captum_aml.masking.call import Call, parse_call
from captum_aml.metrics.conventions import Convention, resolve_convention
from captum_aml.metrics.evaluation import RemovalEvaluator
from captum_aml.metrics.registry import Metric, MetricInputs, register_metric
from captum_aml.metrics.removal import Removal
from captum_aml.metrics.scoring import EvaluationOptions, ranks, score_examples
from captum_aml.typing import Baselines, ForwardFunc, Target, TensorOrTuple

_F = TypeVar("_F", bound=Callable[..., Tensor])


class RemovalOptions(EvaluationOptions, total=False):
    """Those, and what is removed: keyword arguments of the metrics of faithfulness by removal.

    Attributes:
        aopc: Whether to average over the convention's several k, rather than to take the one that
            its ``share`` stands for. Default: False.
        convention: A :class:`Convention`, or ``default``, ``aml``, ``eraser``, ``ferret``,
            ``naopc``. Default: "default".
        removal: ``delete``, ``mask``, ``pad`` or a :class:`Removal`. Default: None, the
            convention's.
    """

    aopc: bool
    convention: str | Convention
    removal: str | Removal | None


def comprehensiveness(
    forward_func: ForwardFunc,
    inputs: TensorOrTuple,
    attributions: TensorOrTuple,
    baselines: Baselines = None,
    additional_forward_args: object | None = None,
    target: Target = None,
    **options: Unpack[RemovalOptions],
) -> Tensor:
    r"""The probability lost without the top tokens; higher is better.

    .. math:: p(X) - p(X \setminus R_k)

    Args:
        forward_func: What is explained.
        inputs: Token ids (N, L), embeddings (N, L, D) or other floats (N, ...), a token each.
        attributions: Scores as a method returned them: the inputs' shape, or (N, L).
        baselines: As in Captum; where an input equals its baseline there is no token. Default:
            None, zero.
        additional_forward_args: The forward function's further arguments. Default: None.
        target: Class or output index, as in Captum. Default: None, each example's predicted class.
        **options: ``aopc``, ``convention`` and ``removal``, see :class:`RemovalOptions`;
            ``output``, ``batch_size`` and ``show_progress``, see :class:`EvaluationOptions`.

    Returns:
        A difference of probabilities per example, (N,), in [-1, 1], float64 on the CPU.

    Raises:
        InvalidInputError: An argument has a wrong type, shape or range.
        NonFiniteError: Scores, or the model's output, are NaN or infinite.
    """
    call = parse_call(inputs, baselines, target, additional_forward_args)
    return _scored(comprehensiveness_of, forward_func, call, attributions, **options)


def sufficiency(
    forward_func: ForwardFunc,
    inputs: TensorOrTuple,
    attributions: TensorOrTuple,
    baselines: Baselines = None,
    additional_forward_args: object | None = None,
    target: Target = None,
    **options: Unpack[RemovalOptions],
) -> Tensor:
    r"""The probability lost with the top tokens alone; lower is better.

    .. math:: p(X) - p(R_k)

    Arguments, result and errors are those of :func:`comprehensiveness`. A convention with
    ``free_at_zero`` scores :math:`k = 0` as 0 without measuring it.
    """
    call = parse_call(inputs, baselines, target, additional_forward_args)
    return _scored(sufficiency_of, forward_func, call, attributions, **options)


def log_odds(
    forward_func: ForwardFunc,
    inputs: TensorOrTuple,
    attributions: TensorOrTuple,
    baselines: Baselines = None,
    additional_forward_args: object | None = None,
    target: Target = None,
    **options: Unpack[RemovalOptions],
) -> Tensor:
    r"""The change of the log-probability without the top tokens, in nats; lower is better.

    .. math:: \log p(X \setminus R_k) - \log p(X)

    Arguments, result and errors are those of :func:`comprehensiveness`, but the removal is the
    convention's ``log_odds_removal``, and the forward function has to give probabilities.
    """
    call = parse_call(inputs, baselines, target, additional_forward_args)
    return _scored(log_odds_of, forward_func, call, attributions, **options)


def _scored(
    of: Callable[..., Tensor],
    forward_func: ForwardFunc,
    call: Call,
    attributions: TensorOrTuple,
    *,
    aopc: bool = False,
    convention: str | Convention = "default",
    removal: str | Removal | None = None,
    **options: Unpack[EvaluationOptions],
) -> Tensor:
    score = partial(of, convention=resolve_convention(convention), removal=removal, aopc=aopc)
    return score_examples(score, forward_func, call, attributions, **options)


def _registered(
    title: str, what: str, *, higher: bool, removal: str = "convention"
) -> Callable[[_F], _F]:
    """Registers a metric's AOPC form, and its form at the convention's own share."""

    def register(of: _F) -> _F:
        name = of.__name__.removesuffix("_of").replace("_", "-")
        averaged = "averaged over the convention's numbers of tokens"
        for aopc, own_name, own_title, counts in (
            (True, f"aopc-{name}", f"AOPC {title}", averaged),
            (False, name, title.capitalize(), "as many as the convention's share"),
        ):
            description = f"{what}, {counts}; removal by {{removal}}."
            metric = Metric(own_name, own_title, higher, "faithfulness", description)

            @register_metric(metric, removal=removal, is_default=aopc)
            def _(inputs: MetricInputs, scores: Tensor, *rest: object, aopc: bool = aopc) -> Tensor:
                return of(inputs.evaluator, scores, *rest, aopc=aopc)

        return of

    return register


@_registered("comp.", "Probability lost without the top tokens", higher=True)
def comprehensiveness_of(
    evaluator: RemovalEvaluator,
    scores: Tensor,
    convention: Convention,
    removal: str | Removal | None = None,
    *,
    aopc: bool = False,
) -> Tensor:
    """Comprehensiveness (N,) from an evaluator and scores (N, U)."""
    rows, _, below = _subsets(evaluator, scores, convention, aopc=aopc)
    values = evaluator.values(rows, ~below, removal or convention.removal)
    return _mean(evaluator, rows, evaluator.originals[rows.cpu()] - values, convention, aopc=aopc)


@_registered("suff.", "Probability lost with the top tokens alone", higher=False)
def sufficiency_of(
    evaluator: RemovalEvaluator,
    scores: Tensor,
    convention: Convention,
    removal: str | Removal | None = None,
    *,
    aopc: bool = False,
) -> Tensor:
    """Sufficiency (N,) from an evaluator and scores (N, U)."""
    rows, counts, below = _subsets(evaluator, scores, convention, aopc=aopc)
    losses = torch.zeros(len(rows), dtype=torch.float64)
    measured = counts > 0 if convention.free_at_zero else torch.ones_like(counts, dtype=torch.bool)
    chosen = measured.to(rows.device)
    values = evaluator.values(rows[chosen], below[chosen], removal or convention.removal)
    losses[measured] = evaluator.originals[rows[chosen].cpu()] - values
    return _mean(evaluator, rows, losses, convention, aopc=aopc)


@_registered(
    "log-odds",
    "Change of the log-probability without the top tokens, in nats",
    higher=False,
    removal="log-odds",
)
def log_odds_of(
    evaluator: RemovalEvaluator,
    scores: Tensor,
    convention: Convention,
    removal: str | Removal | None = None,
    *,
    aopc: bool = False,
) -> Tensor:
    """Log-odds (N,) from an evaluator and scores (N, U)."""
    rows, _, below = _subsets(evaluator, scores, convention, aopc=aopc)
    values = evaluator.log_values(rows, ~below, removal or convention.log_odds_removal)
    changes = values - evaluator.log_originals[rows.cpu()]
    return _mean(evaluator, rows, changes, convention, aopc=aopc)


def _subsets(
    evaluator: RemovalEvaluator, scores: Tensor, convention: Convention, *, aopc: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The top-k subsets of all examples: their rows (V,), their sizes (V,), their units (V, U)."""
    pairs = [
        (row, k)
        for row, n_tokens in enumerate(evaluator.n_tokens)
        if n_tokens
        for k in (convention.counts(n_tokens) if aopc else [convention.count(n_tokens)])
    ]
    table = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)
    device = evaluator.tokens.device
    rows, counts = table[:, 0].to(device), table[:, 1]
    places = ranks(scores, evaluator.tokens)
    return rows, counts, places[rows] < counts.to(device)[:, None]


def _mean(
    evaluator: RemovalEvaluator, rows: Tensor, values: Tensor, convention: Convention, *, aopc: bool
) -> Tensor:
    """Means over each example's values, (N,); NaN where it has none."""
    rows = rows.cpu()
    sums = torch.zeros(evaluator.n_examples, dtype=torch.float64).index_add(0, rows, values)
    counts = rows.bincount(minlength=evaluator.n_examples)
    divisors = [
        (convention.divide_by(n) if aopc else n) if n else torch.nan for n in counts.tolist()
    ]
    return sums / torch.tensor(divisors, dtype=torch.float64)
