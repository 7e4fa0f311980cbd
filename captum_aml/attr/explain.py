"""The path from a call to attributions: chunks of examples, a proposal, tuning, scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from captum_aml._utils.checks import as_count
from captum_aml._utils.isolation import evaluating
from captum_aml.attr.contributions import as_logits, completed
from captum_aml.exceptions import InvalidInputError
from captum_aml.maskers.base import NEUTRAL_LOGIT
from captum_aml.masking.call import Call
from captum_aml.masking.forward import run_forward
from captum_aml.masking.problem import MaskingProblem
from captum_aml.objectives import LogOddsObjective, Objective, Terms
from captum_aml.readout import MisreadOutputError, Readout, output_tensor
from captum_aml.typing import ForwardFunc

if TYPE_CHECKING:
    from captum_aml.attr.base import MaskAttribution
    from captum_aml.masking.sites import Site
    from captum_aml.tuning.mask import Tunable, TuningResult

ScoreKind = Literal["mask", "contribution"]
TuneKind = Literal["mask", "masker"]

#: Where tuning starts with neither a masker nor an objective that can propose a mask: almost
#: everything kept. From a mask of one half the model sees two inputs that are nothing like its own.
INITIAL_LOGIT = 2.0

#: The masks of the averaged mask gradient, by default and as a proposal for tuning.
DEFAULT_MASKS = 16


@dataclass(frozen=True)
class AttributionResult:
    """Attributions of N examples, and how they came about.

    Attributes:
        attributions: Scores in the shape of each masked tensor.
        delta: The scores' sum minus ``F(inputs) - F(baselines)``, (N,), if it was requested.
        terms: The objective's terms for the masks, if they were tuned.
        best_step: The step at which each mask was found, (N,), if they were tuned.
        output: How the outputs were read.
        perturbation: How the mask was applied.
        sizes: The number of tensors at each layer; empty where no layer carries the mask.
    """

    attributions: tuple[Tensor, ...]
    delta: Tensor | None
    terms: Terms | None
    best_step: Tensor | None
    output: str
    perturbation: str
    sizes: tuple[int, ...]

    @classmethod
    def concatenate(cls, parts: Sequence[AttributionResult]) -> AttributionResult:
        """The results of several chunks as those of one batch."""
        first = parts[0]
        if len(parts) == 1:
            return first
        deltas = [p.delta for p in parts if p.delta is not None]
        terms = [p.terms for p in parts if p.terms is not None]
        steps = [p.best_step for p in parts if p.best_step is not None]
        kinds, applied = {p.output for p in parts}, {p.perturbation for p in parts}
        # Of a chunk without anything to mask it was not decided.
        applied = applied - {"auto"} or applied
        return cls(
            tuple(torch.cat(ts) for ts in zip(*(p.attributions for p in parts), strict=True)),
            torch.cat(deltas) if deltas else None,
            Terms.concatenate(terms) if terms else None,
            torch.cat(steps) if steps else None,
            ", ".join(sorted(kinds)),
            ", ".join(sorted(applied)),
            first.sizes,
        )


def explain_calls(
    attribution: MaskAttribution,
    calls: Sequence[Call],
    site: Site,
    *,
    n_steps: int,
    internal_batch_size: int | None,
    with_delta: bool,
    show_progress: bool,
) -> tuple[list[AttributionResult], Tensor | None]:
    """Explains calls in chunks of examples whose outputs are all read alike.

    Args:
        attribution: The attribution.
        calls: The calls; they differ in their targets and foils alone.
        site: Where the mask enters.
        n_steps: Masks or tuning steps.
        internal_batch_size: The most rows of a forward call, or None.
        with_delta: Whether to compute the deltas.
        show_progress: Whether to show a progress bar.

    Returns:
        The explanations of all examples for each call, and what the forward function gave for
        them, (N,) or (N, C); None for outputs of more dimensions.
    """
    explained = partial(
        _explained,
        attribution,
        calls,
        site,
        n_steps=n_steps,
        internal_batch_size=internal_batch_size,
        with_delta=with_delta,
        show_progress=show_progress,
    )
    try:
        return explained(attribution.output)
    except MisreadOutputError:
        # The logits of few examples may all lie between 0 and 1; those of masked inputs tell.
        if attribution.output != "auto":
            raise
        return explained("logits")


def _explained(
    attribution: MaskAttribution,
    calls: Sequence[Call],
    site: Site,
    output: str,
    *,
    n_steps: int,
    internal_batch_size: int | None,
    with_delta: bool,
    show_progress: bool,
) -> tuple[list[AttributionResult], Tensor | None]:
    """The same, with outputs of the given kind."""
    call = calls[0]
    size = call.n_examples
    if internal_batch_size is not None:
        size = min(size, as_count("internal_batch_size", internal_batch_size, least=1))
    starts = range(0, call.n_examples, size)
    chunks = [[each.rows(start, start + size) for each in calls] for start in starts]
    masker = attribution._active_masker()

    def chunk(rows: Sequence[Call], output: str) -> tuple[list[AttributionResult], Tensor]:
        problem = MaskingProblem.build(
            rows[0],
            site,
            attribution.perturbation,
            output,
            (masker,),
            max_rows=internal_batch_size,
        )
        attribution._make_ready(masker, problem)
        problem = replace(problem, perturbation=attribution._decided(problem, masker))
        others = [problem.aimed_at(each.target, each.foil) for each in rows[1:]]
        results = explain(
            [problem, *others],
            attribution.objective,
            masker,
            n_steps=n_steps,
            tune=attribution.tune,
            learning_rate=attribution.tuning_learning_rate,
            scores=attribution.scores,
            regressed=attribution._regressed(),
            contrasts=attribution._tells_contrasts(),
            with_delta=with_delta,
            show_progress=show_progress,
            seed=attribution.seed,
        )
        return results, output_tensor(problem.capture.output)

    def detected(outputs: list[Tensor]) -> str:
        return Readout.resolve(torch.cat(outputs), call.target, "auto", call.n_examples).kind

    undecided = output == "auto" and len(chunks) > 1
    if undecided and n_steps:  # a pass costs little beside the steps, and these could be in vain
        function = attribution.forward_func
        passes = [run_forward(function, c.inputs, c.additional_forward_args) for c, *_ in chunks]
        output = detected([output_tensor(each) for each in passes])
    detects = undecided and not n_steps
    parts, outputs = [], []
    for rows in chunks:
        results, given = chunk(rows, output)
        parts.append(results)
        if detects or given.dim() <= 2:
            outputs.append(given)
    if detects:
        # Each chunk was read as it looks by itself; all count as they look together.
        kind = detected(outputs)
        for index, rows in enumerate(chunks):
            if any(part.output != kind for part in parts[index]):
                parts[index], _ = chunk(rows, kind)
    seen = torch.cat(outputs).detach() if outputs and outputs[0].dim() <= 2 else None
    return [AttributionResult.concatenate(each) for each in zip(*parts, strict=True)], seen


def explain(
    problems: Sequence[MaskingProblem],
    objective: Objective,
    masker: nn.Module | None,
    *,
    n_steps: int,
    tune: TuneKind | None = None,
    learning_rate: float,
    scores: ScoreKind,
    regressed: bool = False,
    contrasts: bool = False,
    with_delta: bool,
    show_progress: bool,
    seed: int = 0,
) -> list[AttributionResult]:
    """Explains the examples of problems together, with the settings of an attribution.

    The problems differ in their targets alone, and share passes of the forward function. A fitted
    masker's proposal, and with ``tune`` the averaged mask gradient's, is tuned by ``n_steps``. With
    neither, ``n_steps`` are the masks of the averaged mask gradient. The logits of a masker that
    was ``regressed`` are contributions, and of any other its mask is shared out. A masker that was
    fitted on ``contrasts`` is told target and foil of one, in both orders; of any other it is the
    difference of contributions to the target's side and to the foil's.

    Raises:
        InvalidInputError: A masker that knows no contrasts itself is to be tuned for one.
    """
    # Where nothing is maskable there is nothing to tune, and nothing to differentiate.
    steps = n_steps if bool(problems[0].layout.maskable_units.any()) else 0
    tunes = n_steps > 0 and (masker is not None or tune is not None)
    function, call = problems[0].site.forward_func, problems[0].call
    with_foil = any(problem.readout.foil is not None for problem in problems)
    if with_foil and tunes and tune == "masker" and not contrasts:
        raise InvalidInputError(
            "foil: tune='masker' expected a masker that was fitted on contrasts, by "
            "fit(contrasts=True); this one knows targets by themselves alone"
        )
    at_baselines = None
    if with_foil and masker is not None:
        at_baselines = baselines_output(function, call)
    proposals = _proposals(
        problems,
        objective,
        masker,
        n_masks=DEFAULT_MASKS if tunes and steps else steps,
        to_tune=tunes,
        regressed=regressed,
        contrasts=contrasts,
        at_baselines=at_baselines,
        seed=seed,
    )
    results: list[TuningResult | None] = [None] * len(problems)
    if tunes:
        results = [
            _tuned(
                problem,
                objective,
                masker if tune == "masker" else None,
                proposal.logits,
                n_steps=steps,
                learning_rate=learning_rate,
                show_progress=show_progress,
            )
            for problem, proposal in zip(problems, proposals, strict=True)
        ]
    if at_baselines is None and (with_delta or scores == "contribution"):
        at_baselines = baselines_output(function, call)
    return [
        _scored(problem, proposal, result, at_baselines, scores=scores, with_delta=with_delta)
        for problem, proposal, result in zip(problems, proposals, results, strict=True)
    ]


@dataclass(frozen=True)
class _Proposal:
    """What is known of the units before tuning.

    Attributes:
        logits: Mask logits, (N, U).
        effects: Scores of the same order whose shares are the contributions, (N, U).
        slope: The factor from effects to the forward function's unit, (N,), where it is known.
    """

    logits: Tensor
    effects: Tensor
    slope: Tensor | None = None


def _proposals(
    problems: Sequence[MaskingProblem],
    objective: Objective,
    masker: nn.Module | None,
    *,
    n_masks: int,
    to_tune: bool,
    regressed: bool,
    contrasts: bool,
    at_baselines: Tensor | None,
    seed: int,
) -> list[_Proposal]:
    maskable, dtype = problems[0].layout.maskable_units, _mask_dtype(problems[0])
    if masker is not None:
        with torch.no_grad(), evaluating(masker):
            return [
                _proposed(problem, masker, dtype, regressed=regressed)
                if problem.readout.foil is None
                else _proposed_contrast(
                    problem, masker, at_baselines, dtype, regressed=regressed, told_both=contrasts
                )
                for problem in problems
            ]
    if n_masks == 0 or not isinstance(objective, LogOddsObjective):
        logits = torch.full(maskable.shape, INITIAL_LOGIT, dtype=dtype, device=maskable.device)
        return [_Proposal(logits, torch.sigmoid(logits))] * len(problems)
    # Not loaded for explanations in a single pass, nor for a fit.
    from captum_aml.tuning import mask_gradient

    proposals = []
    found = mask_gradient(problems, objective, n_masks=n_masks, seed=seed, dtype=dtype)
    for problem, unit in zip(problems, found, strict=True):
        effects, ends = unit.effects, problem.readout.endpoints
        if to_tune and ends is not None:
            # Of a value that is below the baselines' an objective retains what takes it down.
            effects = effects * (ends[1] - ends[0]).sign()[:, None].to(effects)
        proposals.append(_Proposal(as_logits(effects), unit.effects, unit.slope))
    return proposals


def _proposed(
    problem: MaskingProblem, masker: nn.Module, dtype: torch.dtype, *, regressed: bool
) -> _Proposal:
    """A masker's proposal, whose logits are contributions if it was ``regressed``."""
    logits = problem.propose(masker).to(dtype)
    return _Proposal(logits, logits - NEUTRAL_LOGIT if regressed else torch.sigmoid(logits))


def _proposed_contrast(
    problem: MaskingProblem,
    masker: nn.Module,
    at_baselines: Tensor | None,
    dtype: torch.dtype,
    *,
    regressed: bool,
    told_both: bool,
) -> _Proposal:
    """A masker's proposal for a contrast, from contributions to both of its sides.

    A masker that is ``told_both`` says what speaks for the target against the foil, and then what
    speaks for the foil against the target: half of the one minus half of the other is the same for
    either order, but for its sign. Any other says what speaks for each of them by itself.

    Args:
        problem: The problem.
        masker: The masker.
        at_baselines: What the forward function gives for the baselines.
        dtype: The mask's dtype.
        regressed: Whether the masker's logits are contributions.
        told_both: Whether it was fitted on contrasts.
    """
    readout = problem.readout
    target, foil = readout.target, readout.foil
    full = readout.sides(problem.capture.output, where="the unmasked inputs")
    removed = readout.sides(at_baselines, where="the baselines")
    fact_difference, foil_difference = (a - b for a, b in zip(full, removed, strict=True))
    if told_both:
        half = (fact_difference - foil_difference) / 2
        asked = ((target, foil, half), (foil, target, -half))
    else:
        asked = ((target, None, fact_difference), (foil, None, foil_difference))
    of_fact, of_foil = (
        completed(
            _proposed(problem.aimed_at(index, other), masker, dtype, regressed=regressed).effects,
            difference.to(dtype),
            problem.layout.maskable_units,
        )
        for index, other, difference in asked
    )
    effects = of_fact - of_foil
    return _Proposal(as_logits(effects), effects, torch.ones_like(effects[:, 0]))


def _tuned(
    problem: MaskingProblem,
    objective: Objective,
    masker: nn.Module | None,
    logits: Tensor,
    *,
    n_steps: int,
    learning_rate: float,
    show_progress: bool,
) -> TuningResult:
    """Masks tuned from logits (N, U), or from what the weights of a masker propose."""
    from captum_aml.tuning import MaskerWeights, MaskLogits, descend

    tunable: Tunable = (
        MaskLogits(logits)
        if masker is None
        else MaskerWeights(problem, masker, n_steps=n_steps, dtype=logits.dtype)
    )
    return descend(
        problem,
        objective,
        tunable,
        n_steps=n_steps,
        learning_rate=learning_rate,
        show_progress=show_progress,
    )


def _scored(
    problem: MaskingProblem,
    proposal: _Proposal,
    tuned: TuningResult | None,
    at_baselines: Tensor | None,
    *,
    scores: ScoreKind,
    with_delta: bool,
) -> AttributionResult:
    """The attributions of one problem.

    Args:
        problem: The problem.
        proposal: What was found of its units.
        tuned: What tuning made of it, or None.
        at_baselines: The forward function's result for the baselines, where it is needed.
        scores: What the attributions are.
        with_delta: Whether the deltas are computed.
    """
    layout, capture = problem.layout, problem.capture
    values, effects, slope = torch.sigmoid(proposal.logits), proposal.effects, proposal.slope
    if tuned is not None:
        values, effects, slope = tuned.mask, tuned.mask, None
    difference = delta = None
    if at_baselines is not None:
        difference = output_difference(problem.readout, capture.output, at_baselines)
        difference = difference.to(values.dtype)
    if scores == "contribution":
        assert difference is not None
        whole = completed(effects, difference, layout.maskable_units, slope)
        values = whole / layout.tokens_per_unit
    attributions = layout.scores(values, problem.site.spreads(problem.call, capture.features))
    if difference is not None and with_delta:
        delta = row_sums(attributions) - difference
    return AttributionResult(
        # Like Captum's own, scores of half precision inputs are float32.
        attributions=tuple(
            a.to(torch.promote_types(f.dtype, torch.float32))
            for a, f in zip(attributions, capture.features, strict=True)
        ),
        delta=delta,
        terms=None if tuned is None else tuned.terms,
        best_step=None if tuned is None else tuned.best_step,
        output=problem.readout.kind,
        perturbation=problem.perturbation.name,
        sizes=capture.sizes,
    )


def propose_mask(problem: MaskingProblem, masker: nn.Module) -> Tensor:
    """The mask that a masker proposes, (N, U), without gradient."""
    with torch.no_grad(), evaluating(masker):
        return torch.sigmoid(problem.propose(masker).to(_mask_dtype(problem)))


def baselines_output(forward_func: ForwardFunc, call: Call) -> Tensor:
    """What the forward function gives for a call's baselines."""
    return output_tensor(run_forward(forward_func, call.baselines, call.additional_forward_args))


def output_difference(readout: Readout, output: Any, at_baselines: Any) -> Tensor:
    """``F(inputs) - F(baselines)`` at the target, (N,); of the log-odds where there is a foil.

    Args:
        readout: How outputs are read.
        output: The forward function's result for the inputs.
        at_baselines: That for the baselines.
    """
    full = readout.values(output, where="the unmasked inputs")
    return full - readout.values(at_baselines, where="the baselines")


def row_sums(tensors: Sequence[Tensor]) -> Tensor:
    """The sum over all elements of each example, (N,)."""
    sums = [t.reshape(t.shape[0], -1).sum(dim=1) for t in tensors]
    return torch.stack(sums).sum(dim=0)


def _mask_dtype(problem: MaskingProblem) -> torch.dtype:
    double = any(f.dtype == torch.float64 for f in problem.capture.features)
    return torch.float64 if double else torch.float32
