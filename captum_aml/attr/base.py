"""What the attribution classes share: their settings, and the way from a call to scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, get_args

import torch
from torch import Tensor, nn

from captum_aml._captum import GradientAttribution
from captum_aml._utils.checks import as_count, check_learning_rate
from captum_aml._utils.hooks import tensors_in
from captum_aml._utils.modules import without_inference_tensors
from captum_aml._utils.random import isolated_rng
from captum_aml.attr.explain import (
    Explained,
    ScoreKind,
    TuneKind,
    chunk_size,
    explain,
    output_difference,
    propose_mask,
    row_sums,
)
from captum_aml.attr.fingerprints import known_fingerprint, seen_fingerprint
from captum_aml.exceptions import InvalidInputError, NotFittedError
from captum_aml.masking.call import Call, parse_call
from captum_aml.masking.forward import run_forward
from captum_aml.masking.problem import MaskingProblem
from captum_aml.masking.sites import Capture, Site
from captum_aml.objectives import Objective, Terms
from captum_aml.perturbation import Perturbation, resolve_perturbation
from captum_aml.readout import Readout, check_output_kind, checked_target, output_tensor
from captum_aml.training import ModelFingerprint
from captum_aml.typing import Baselines, ForwardFunc, Target, TensorOrTuple

#: Tuning steps where there is no fitted masker to rely on.
DEFAULT_STEPS = 50

#: Learning rates of tuning. From a masker's proposal smaller steps find better masks: larger ones
#: reach a lower loss, but lose what the masker knows from other examples.
RATE_FROM_PROPOSAL = 0.1
RATE_FROM_SCRATCH = 0.3

#: The learning rate of tuning the masker, see :mod:`captum_aml.tuning.masker`.
RATE_FOR_MASKER = 1e-5


class MaskAttribution(GradientAttribution):
    """Attribution by a learned mask; the concrete classes say where it enters and what it learns.

    Attributes:
        masker_: The fitted masker, after ``fit`` or ``from_pretrained``.
        last_terms_: The objective's terms for the masks of the last call, or None after a single
            pass (``n_steps=0``), which does not compute them: see :meth:`evaluate`.
        best_step_: The tuning step at which each of those masks was found, (N,), or None likewise.
        output_: How the last call's outputs were read, for instance what ``auto`` decided.
        last_outputs_: What the forward function gave for the last call's unmasked inputs, (N,) or
            (N, C), so that an explanation and a prediction share a pass. None before, after an
            error, and for outputs of more dimensions, which can be large.
    """

    _method: ClassVar[str]
    _at_layer: ClassVar[bool] = False
    _default_objective: ClassVar[Callable[[], Objective]]

    def __init__(
        self,
        forward_func: ForwardFunc,
        *,
        masker: nn.Module | None,
        objective: Objective | None,
        perturbation: str | Perturbation,
        output: str,
        scores: ScoreKind,
        tune: TuneKind,
        learning_rate: float | None,
        seed: int,
    ) -> None:
        super().__init__(forward_func)
        if not callable(forward_func):
            raise InvalidInputError(
                f"forward_func: expected a callable, got {type(forward_func).__name__}"
            )
        if objective is not None and not (
            callable(objective) and hasattr(objective, "uses_left_out")
        ):
            raise InvalidInputError(
                "objective: expected an object like AMLObjective(), got "
                f"{getattr(objective, '__name__', type(objective).__name__)}"
            )
        if masker is not None and not isinstance(masker, nn.Module):
            raise InvalidInputError(
                f"masker: expected a torch.nn.Module, got {type(masker).__name__}"
            )
        if scores not in get_args(ScoreKind):
            raise InvalidInputError(
                f"scores: expected one of {get_args(ScoreKind)}, got {scores!r}"
            )
        if tune not in get_args(TuneKind):
            raise InvalidInputError(f"tune: expected one of {get_args(TuneKind)}, got {tune!r}")
        if learning_rate is not None:
            check_learning_rate(learning_rate)
        self.masker = masker
        self.objective = objective if objective is not None else type(self)._default_objective()
        self.perturbation = resolve_perturbation(perturbation)
        self.output = check_output_kind(output)
        self.scores = scores
        self.tune = tune
        self.learning_rate = learning_rate
        self.seed = as_count("seed", seed)
        self.masker_: nn.Module | None = None
        self.fingerprint_: ModelFingerprint | None = None
        self.last_terms_: Terms | None = None
        self.best_step_: Tensor | None = None
        self.output_: str | None = None
        self.last_outputs_: Tensor | None = None

    def has_convergence_delta(self) -> bool:
        """True, so that code written for Integrated Gradients runs unchanged."""
        return True

    @property
    def multiplies_by_inputs(self) -> bool:
        """Whether scores are contributions to the output, rather than mask values."""
        return self.scores == "contribution"

    def attribute_future(self) -> None:
        """Not offered, as by most of Captum's own methods."""
        raise NotImplementedError(f"attribute_future is not implemented for {self.get_name()}")

    def compute_convergence_delta(
        self,
        attributions: TensorOrTuple | list[TensorOrTuple],
        start_point: Baselines,
        end_point: TensorOrTuple,
        target: Target = None,
        additional_forward_args: object | None = None,
    ) -> Tensor:
        """How far the scores of each example are from summing to ``F(inputs) - F(baselines)``.

        Args:
            attributions: Attributions of the inputs.
            start_point: The baselines.
            end_point: The inputs.
            target: The explained output, as for ``attribute``; None for the predicted class.
            additional_forward_args: Further arguments of the forward function.

        Returns:
            Tensor (N,): the sum of the scores minus that difference. Near zero with
            ``scores="contribution"``.
        """
        with torch.inference_mode(False), torch.no_grad(), isolated_rng(self.seed):
            call = parse_call(end_point, start_point, target, additional_forward_args)
            output = output_tensor(
                run_forward(self.forward_func, call.inputs, call.additional_forward_args)
            )
            index = checked_target(call.target, output)
            if index is None and output.dim() == 2 and output.shape[1] > 1:
                index = output.argmax(dim=1, keepdim=True)
            difference = output_difference(self.forward_func, call, output, index)
            return row_sums(tensors_in(attributions)) - difference

    @property
    def is_fitted(self) -> bool:
        """Whether there is a masker whose proposals can be used as they are."""
        return self._active_masker() is not None

    def evaluate(
        self,
        inputs: TensorOrTuple,
        baselines: Baselines = None,
        target: Target = None,
        additional_forward_args: object | None = None,
        feature_mask: TensorOrTuple | None = None,
    ) -> Terms:
        """The objective's terms for the fitted masker's own proposals, one value per example.

        Raises:
            NotFittedError: There is no fitted masker.
        """
        masker = self._active_masker()
        if masker is None:
            raise NotFittedError(f"{self.get_name()}: there is no fitted masker; call fit first")
        with torch.inference_mode(False), torch.no_grad(), isolated_rng(self.seed):
            call = parse_call(
                inputs,
                baselines,
                target,
                additional_forward_args,
                feature_mask,
                at_layer=self._at_layer,
            )
            problem = self._problem(call, self._site())
            self._make_ready(masker, problem)
            return problem.evaluate(
                propose_mask(problem, masker), self.objective, where="the proposed masks"
            )

    def _site(self) -> Site:
        """Where the mask enters, when inputs are explained as ``fit`` and ``evaluate`` do."""
        raise NotImplementedError

    def _explain(
        self,
        call: Call,
        site: Site,
        *,
        n_steps: int | None,
        internal_batch_size: int | None,
        with_delta: bool,
        show_progress: bool,
    ) -> Explained:
        """Explains a call in chunks and notes what the caller may want to read afterwards."""
        self.last_terms_ = self.best_step_ = self.output_ = self.last_outputs_ = None
        steps = self._checked_steps(n_steps)
        n_passes = self.objective.uses_kept + self.objective.uses_left_out if steps else 1
        size = chunk_size(internal_batch_size, call.n_examples, n_passes)
        masker = self._active_masker()
        starts = range(0, call.n_examples, size)
        chunks = [call.rows(start, start + size) for start in starts]
        kind = self.output
        undecided = kind == "auto" and len(chunks) > 1
        if undecided and steps:  # a pass costs little beside the steps, and these could be in vain
            kind = self._detected_kind(chunks, call)

        detects = undecided and not steps

        def part(rows: Call, kind: str) -> tuple[Explained, Tensor]:
            problem = MaskingProblem.build(rows, site, self.perturbation, kind, (masker,))
            self._make_ready(masker, problem)
            explained = explain(
                problem,
                self.objective,
                masker,
                n_steps=steps,
                tune=self.tune,
                learning_rate=self.tuning_learning_rate,
                scores=self.scores,
                with_delta=with_delta,
                show_progress=show_progress,
            )
            return explained, output_tensor(problem.capture.output)

        parts, outputs = [], []
        for rows in chunks:
            explained, output = part(rows, kind)
            parts.append(explained)
            if detects or output.dim() <= 2:
                outputs.append(output)
        if detects:
            # Each chunk was read as it looks by itself; all count as they look together.
            kind = _kind_of(outputs, call)
            for index, rows in enumerate(chunks):
                if parts[index].output != kind:
                    parts[index], _ = part(rows, kind)
        explained = Explained.concatenate(parts)
        self.last_terms_ = explained.terms
        self.best_step_ = explained.best_step
        self.output_ = explained.output
        if outputs and outputs[0].dim() <= 2:
            self.last_outputs_ = torch.cat(outputs).detach()
        return explained

    def _detected_kind(self, chunks: list[Call], call: Call) -> str:
        """What ``auto`` decides for all chunks of a call together."""
        outputs = [
            output_tensor(run_forward(self.forward_func, c.inputs, c.additional_forward_args))
            for c in chunks
        ]
        return _kind_of(outputs, call)

    def _problem(self, call: Call, site: Site, capture: Capture | None = None) -> MaskingProblem:
        # Before a fit that is the given masker, which may read the explained model's hidden states.
        maskers = (self.masker, self.masker_)
        return MaskingProblem.build(
            call, site, self.perturbation, self.output, maskers, capture=capture
        )

    def _make_ready(self, masker: nn.Module | None, problem: MaskingProblem) -> None:
        """Moves a masker to the data, after checking that it was fitted for this model.

        Raises:
            CheckpointError: It was fitted for a model of other sizes.
        """
        if masker is None:
            return
        if self.fingerprint_ is not None:
            self.fingerprint_.check(seen_fingerprint(self._known_fingerprint(), problem))
        without_inference_tensors(masker).to(problem.capture.features[0].device)

    def _active_masker(self) -> nn.Module | None:
        """The masker whose proposals count: the fitted one, or a given one that is fitted."""
        if self.masker_ is not None:
            return self.masker_
        if self.masker is not None and getattr(self.masker, "fitted", True):
            return self.masker
        return None

    @property
    def default_n_steps(self) -> int:
        """What ``n_steps=None`` stands for now: 0 with a fitted masker, otherwise 50."""
        return 0 if self.is_fitted else DEFAULT_STEPS

    @property
    def tuning_learning_rate(self) -> float:
        """The learning rate that tuning uses now: the given one, or the default."""
        if self.learning_rate is not None:
            return self.learning_rate
        if self.tune == "masker":
            return RATE_FOR_MASKER
        return RATE_FROM_PROPOSAL if self.is_fitted else RATE_FROM_SCRATCH

    def _checked_steps(self, n_steps: int | None) -> int:
        n_steps = self.default_n_steps if n_steps is None else as_count("n_steps", n_steps)
        if n_steps > 0 and self.tune == "masker" and not self.is_fitted:
            raise NotFittedError(
                f"{self.get_name()}: tune='masker' needs a fitted masker; call fit or "
                "from_pretrained, or tune the mask itself with tune='mask'"
            )
        if n_steps == 0 and not self.is_fitted:
            raise NotFittedError(
                f"{self.get_name()}: n_steps=0 needs a fitted masker; call fit or from_pretrained, "
                "or tune with n_steps above 0"
            )
        return n_steps

    def _known_fingerprint(self) -> ModelFingerprint:
        """What can be told of the explained model without running it."""
        layer = self._site().embedding_layer()
        return known_fingerprint(self.forward_func, layer, output=self.output)


def _kind_of(outputs: list[Tensor], call: Call) -> str:
    """What ``auto`` decides for the outputs of all chunks of a call."""
    return Readout.resolve(torch.cat(outputs), call.target, "auto", call.n_examples).kind


__all__ = ["DEFAULT_STEPS", "MaskAttribution"]
