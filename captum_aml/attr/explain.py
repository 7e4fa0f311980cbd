"""The path from a call to attributions: chunks of examples, a masker's proposal, tuning, scores."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from captum_aml._utils.checks import as_count
from captum_aml._utils.isolation import evaluating
from captum_aml.masking.call import Call
from captum_aml.masking.forward import run_forward
from captum_aml.masking.problem import MaskingProblem
from captum_aml.objectives import Objective, Terms
from captum_aml.readout import Readout, check_finite, output_tensor, select
from captum_aml.typing import ForwardFunc

if TYPE_CHECKING:
    from captum_aml.attr.base import MaskAttribution
    from captum_aml.masking.sites import Site
    from captum_aml.tuning.mask import Tunable, TuningResult

ScoreKind = Literal["mask", "contribution"]
TuneKind = Literal["mask", "masker"]

#: Where tuning starts without a masker: almost everything kept. From a mask of one half the model
#: sees two inputs that are nothing like its own, and tuning ends in worse masks.
INITIAL_LOGIT = 2.0


@dataclass(frozen=True)
class AttributionResult:
    """Attributions of N examples, and how they came about.

    Attributes:
        attributions: Scores in the shape of each masked tensor.
        delta: The scores' sum minus ``F(inputs) - F(baselines)``, (N,), if it was requested.
        terms: The objective's terms for the masks, if they were tuned.
        best_step: The step at which each mask was found, (N,), if they were tuned.
        output: How the outputs were read.
        sizes: The number of tensors at each layer; empty where no layer carries the mask.
    """

    attributions: tuple[Tensor, ...]
    delta: Tensor | None
    terms: Terms | None
    best_step: Tensor | None
    output: str
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
        kinds = {p.output for p in parts}
        return cls(
            tuple(torch.cat(ts) for ts in zip(*(p.attributions for p in parts), strict=True)),
            torch.cat(deltas) if deltas else None,
            Terms.concatenate(terms) if terms else None,
            torch.cat(steps) if steps else None,
            first.output if len(kinds) == 1 else ", ".join(sorted(kinds)),
            first.sizes,
        )


def chunk_size(internal_batch_size: int | None, n_examples: int, n_passes: int) -> int:
    """The examples of one forward call, which may not have more rows than allowed.

    Raises:
        InvalidInputError: ``internal_batch_size`` is not an integer of at least 1.
    """
    if internal_batch_size is None:
        return n_examples
    size = as_count("internal_batch_size", internal_batch_size, least=1)
    if size < n_passes:
        warnings.warn(
            f"internal_batch_size: {size} is less than the {n_passes} passes that each example "
            f"needs together; forward calls have {n_passes} rows",
            stacklevel=4,
        )
    return max(1, size // n_passes)


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
    objective, output = attribution.objective, attribution.output
    n_passes = objective.uses_kept + objective.uses_complement if n_steps else 1
    size = chunk_size(internal_batch_size, call.n_examples, n_passes)
    chunks = [call.rows(start, start + size) for start in range(0, call.n_examples, size)]
    masker = attribution._active_masker()

    def explained(rows: Call, output: str) -> tuple[AttributionResult, Tensor]:
        problem = MaskingProblem.build(rows, site, attribution.perturbation, output, (masker,))
        attribution._make_ready(masker, problem)
        result = explain(
            problem,
            objective,
            masker,
            n_steps=n_steps,
            tune=attribution.tune,
            learning_rate=attribution.tuning_learning_rate,
            scores=attribution.scores,
            with_delta=with_delta,
            show_progress=show_progress,
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
    tune: TuneKind = "mask",
    learning_rate: float,
    scores: ScoreKind,
    with_delta: bool,
    show_progress: bool,
) -> AttributionResult:
    """Explains the examples of one problem together, with the settings of an attribution.

    The masks start from what the masker proposes, with almost everything kept where there is none;
    without steps they are the result.
    """
    result: TuningResult | None = None
    # Where nothing is maskable there is nothing to tune, and nothing to differentiate.
    steps = n_steps if bool(problem.layout.maskable_units.any()) else 0
    if n_steps > 0:
        # Not loaded for explanations in a single pass, nor for a fit.
        from captum_aml.tuning import MaskerWeights, MaskLogits, descend

        tunable: Tunable
        if tune == "masker":
            assert masker is not None
            tunable = MaskerWeights(problem, masker, n_steps=steps, dtype=_mask_dtype(problem))
        else:
            tunable = MaskLogits(_initial_logits(problem, masker))
        result = descend(
            problem,
            objective,
            tunable,
            n_steps=steps,
            learning_rate=learning_rate,
            show_progress=show_progress,
        )
        mask = result.mask
    else:
        mask = torch.sigmoid(_initial_logits(problem, masker))
    spreads = problem.site.spreads(problem.call, problem.capture.features)
    attributions = problem.layout.scores(mask, spreads)
    delta = None
    if scores == "contribution" or with_delta:
        output = output_tensor(problem.capture.output)
        difference = output_difference(
            problem.site.forward_func, problem.call, output, problem.readout.target
        ).to(mask.dtype)
        if scores == "contribution":
            total = row_sums(attributions)
            share = torch.where(total == 0, 0.0, difference / torch.where(total == 0, 1.0, total))
            attributions = tuple(a * share.reshape(-1, *(1,) * (a.dim() - 1)) for a in attributions)
        delta = row_sums(attributions) - difference
    return AttributionResult(
        # Like Captum's own, scores of half precision inputs are float32.
        attributions=tuple(
            a.to(torch.promote_types(f.dtype, torch.float32))
            for a, f in zip(attributions, problem.capture.features, strict=True)
        ),
        delta=delta if with_delta else None,
        terms=None if result is None else result.terms,
        best_step=None if result is None else result.best_step,
        output=problem.readout.kind,
        sizes=problem.capture.sizes,
    )


def propose_mask(problem: MaskingProblem, masker: nn.Module) -> Tensor:
    """The mask that a masker proposes, (N, U), without gradient."""
    return torch.sigmoid(_initial_logits(problem, masker))


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
