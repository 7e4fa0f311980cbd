"""The path from a call to attributions: chunks of examples, a proposal, tuning, scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from captum_aml._utils.checks import as_count
from captum_aml._utils.isolation import evaluating
from captum_aml.attr.contributions import as_mask, completed
from captum_aml.masking.call import Call
from captum_aml.masking.forward import run_forward
from captum_aml.masking.problem import MaskingProblem
from captum_aml.objectives import Objective, Terms
from captum_aml.perturbation import AutomaticRemoval
from captum_aml.readout import Readout, check_finite, output_tensor, select
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
        return cls(
            tuple(torch.cat(ts) for ts in zip(*(p.attributions for p in parts), strict=True)),
            torch.cat(deltas) if deltas else None,
            Terms.concatenate(terms) if terms else None,
            torch.cat(steps) if steps else None,
            ", ".join(sorted(kinds)),
            ", ".join(sorted(applied)),
            first.sizes,
        )


def explain_call(
    attribution: MaskAttribution,
    call: Call,
    site: Site,
    *,
    n_steps: int,
    internal_batch_size: int | None,
    with_delta: bool,
    show_progress: bool,
) -> tuple[AttributionResult, Tensor | None]:
    """Explains a call in chunks of examples whose outputs are all read alike.

    Returns:
        The explanations of all examples, and what the forward function gave for them, (N,) or
        (N, C); None for outputs of more dimensions.
    """
    output, size = attribution.output, call.n_examples
    if internal_batch_size is not None:
        size = min(size, as_count("internal_batch_size", internal_batch_size, least=1))
    chunks = [call.rows(start, start + size) for start in range(0, call.n_examples, size)]
    masker = attribution._active_masker()

    def explained(rows: Call, output: str) -> tuple[AttributionResult, Tensor]:
        problem = MaskingProblem.build(
            rows,
            site,
            attribution.perturbation,
            output,
            (masker,),
            max_rows=internal_batch_size,
        )
        attribution._make_ready(masker, problem)
        if masker is None:
            problem = replace(problem, perturbation=attribution._decided(problem))
        result = explain(
            problem,
            attribution.objective,
            masker,
            n_steps=n_steps,
            tune=attribution.tune,
            learning_rate=attribution.tuning_learning_rate,
            scores=attribution.scores,
            regressed=attribution.learned_contributions,
            with_delta=with_delta,
            show_progress=show_progress,
            seed=attribution.seed,
        )
        return result, output_tensor(problem.capture.output)

    def detected(outputs: list[Tensor]) -> str:
        return Readout.resolve(torch.cat(outputs), call.target, "auto", call.n_examples).kind

    undecided = output == "auto" and len(chunks) > 1
    if undecided and n_steps:  # a pass costs little beside the steps, and these could be in vain
        function = attribution.forward_func
        passes = [run_forward(function, c.inputs, c.additional_forward_args) for c in chunks]
        output = detected([output_tensor(each) for each in passes])
    detects = undecided and not n_steps
    parts, outputs = [], []
    for rows in chunks:
        result, given = explained(rows, output)
        parts.append(result)
        if detects or given.dim() <= 2:
            outputs.append(given)
    if detects:
        # Each chunk was read as it looks by itself; all count as they look together.
        kind = detected(outputs)
        for index, rows in enumerate(chunks):
            if parts[index].output != kind:
                parts[index], _ = explained(rows, kind)
    seen = torch.cat(outputs).detach() if outputs and outputs[0].dim() <= 2 else None
    return AttributionResult.concatenate(parts), seen


def explain(
    problem: MaskingProblem,
    objective: Objective,
    masker: nn.Module | None,
    *,
    n_steps: int,
    tune: TuneKind | None = None,
    learning_rate: float,
    scores: ScoreKind,
    regressed: bool = False,
    with_delta: bool,
    show_progress: bool,
    seed: int = 0,
) -> AttributionResult:
    """Explains the examples of one problem together, with the settings of an attribution.

    The proposal is the masker's, or without one the averaged mask gradient's; steps go on from it.
    Without a masker and without ``tune``, the steps are the masks of the averaged mask gradient.

    Args:
        regressed: Whether the masker's logits were fitted as contributions.
    """
    maskable = problem.layout.maskable_units
    proposal = _proposal(
        problem, objective, masker, n_masks=DEFAULT_MASKS if tune else n_steps, seed=seed
    )
    tuned: TuningResult | None = None
    if masker is not None or tune is not None:
        tuned = _tuned(
            problem,
            objective,
            masker,
            torch.logit(proposal),
            n_steps=n_steps,
            tune=tune,
            learning_rate=learning_rate,
            show_progress=show_progress,
        )
def output_difference(
    forward_func: ForwardFunc, call: Call, output: Tensor, target: Tensor | None
) -> Tensor:
    """``F(inputs) - F(baselines)`` at the target, (N,).

    Args:
        forward_func: The forward function.
        call: The call.
        output: The forward function's result for the inputs.
        target: The full index into it, (N, k), or None for one value per example.
    """
    at_baselines = output_tensor(
        run_forward(forward_func, call.baselines, call.additional_forward_args)
    )
    ends = select(output, target), select(at_baselines, target)
    check_finite(ends[0], "the unmasked inputs")
    check_finite(ends[1], "the baselines")
    return ends[0] - ends[1]


def row_sums(tensors: Sequence[Tensor]) -> Tensor:
    """The sum over all elements of each example, (N,)."""
    sums = [t.reshape(t.shape[0], -1).sum(dim=1) for t in tensors]
    return torch.stack(sums).sum(dim=0)


def _initial_logits(problem: MaskingProblem, masker: nn.Module | None) -> Tensor:
    maskable = problem.layout.maskable_units
    dtype = _mask_dtype(problem)
    if masker is None:
        return torch.full(maskable.shape, INITIAL_LOGIT, dtype=dtype, device=maskable.device)
    with torch.no_grad(), evaluating(masker):
        return problem.propose(masker).to(dtype)


def _mask_dtype(problem: MaskingProblem) -> torch.dtype:
    double = any(f.dtype == torch.float64 for f in problem.capture.features)
    return torch.float64 if double else torch.float32
