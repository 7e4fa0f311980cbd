"""The attribution classes' abstract base: the way from a call to scores, fitting and saving."""

from __future__ import annotations

import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Self, Unpack

from captum_aml._captum import GradientAttribution, LayerAttribution
from captum_aml._utils.checks import as_count
from captum_aml._utils.hooks import tensors_in, unwrapped
from captum_aml._utils.isolation import isolated_rng, without_inference_tensors
from captum_aml.attr.explain import (
    DEFAULT_MASKS,
    AttributionResult,
    baselines_output,
    explain_calls,
    output_difference,
    propose_mask,
    row_sums,
)
from captum_aml.attr.fitting import learn
from captum_aml.attr.persistence import restored, saved
from captum_aml.attr.settings import (
    OBJECTIVES,
    AttributionOptions,
    AttributionSettings,
    PretrainedOptions,
    resolve_scores,
)
from captum_aml.exceptions import InvalidInputError, NotFittedError
from captum_aml.maskers.checkpoint import Checkpoint, TrainingCost
from captum_aml.maskers.fingerprint import ModelFingerprint
from captum_aml.masking.attention import chosen_removal, hiding_only_nothing
from captum_aml.masking.call import Call, parse_call
from captum_aml.masking.forward import run_forward, underlying_model
from captum_aml.masking.problem import MaskingProblem
from captum_aml.masking.sites import Capture, Site
from captum_aml.objectives import LogOddsObjective, Objective, Terms
from captum_aml.perturbation import (
    AutomaticRemoval,
    Perturbation,
    fitting_removal,
    resolve_perturbation,
)
from captum_aml.readout import Readout
from captum_aml.training import EpochRecord, FitCallback, FitSettings, FitSummary
from captum_aml.training.settings import FitOptions, LossName
from captum_aml.typing import Baselines, Batches, ForwardFunc, Target, TensorOrTuple

#: The learning rate of tuning a mask. Larger steps reach a lower loss, but lose what the proposal
#: knows from other examples, or other masks.
RATE_FROM_PROPOSAL = 0.1

#: The learning rate of tuning the masker, see :mod:`captum_aml.tuning.masker`.
RATE_FOR_MASKER = 1e-5


class MaskAttribution(GradientAttribution, ABC):
    """Attribution by a learned mask; the final classes say where it enters and what it learns.

    Args:
        forward_func: What is explained: any callable that Captum accepts.
        multiply_by_inputs: Whether scores are contributions to the output; else they are the mask.
        **options: See :class:`~captum_aml.attr.AttributionSettings`

    Attributes:
        masker_: The fitted masker, after ``fit`` or ``from_pretrained``.
        last_terms_: The objective's terms for the masks of the last call if they were tuned, and
            for its last target if it had several; of a masker's proposals see :meth:`evaluate`.
        best_step_: The tuning step at which each of those masks was found, (N,), likewise.
        output_: How the last call's outputs were read, for instance what ``auto`` decided.
        perturbation_: How the last call's masks were applied, likewise.
        history_: A record of each epoch, after ``fit``.
        fit_summary_: How fitting went, after ``fit``.
        training_cost_: What fitting took, after ``fit`` or ``from_pretrained``.
        last_outputs_: What the forward function gave for the last call's unmasked inputs, (N,) or
            (N, C), so that an explanation and a prediction share a pass. None before, after an
            error, and for outputs of more dimensions, which can be large.
    """

    #: The method's name in :data:`~captum_aml.attr.settings.OBJECTIVES`.
    _method: ClassVar[str]

    def __init__(
        self,
        forward_func: ForwardFunc,
        *,
        multiply_by_inputs: bool,
        **options: Unpack[AttributionOptions],
    ) -> None:
        super().__init__(forward_func)
        if not callable(forward_func):
            raise InvalidInputError(
                f"forward_func: expected a callable, got {type(forward_func).__name__}"
            )
        settings = AttributionSettings(**options)
        self.masker = settings.masker
        given = settings.objective
        self.objective: Objective = OBJECTIVES[self._method]() if given is None else given
        self.perturbation = resolve_perturbation(settings.perturbation)
        self.output = settings.output
        self.scores = resolve_scores(settings.scores, multiply_by_inputs=multiply_by_inputs)
        self.tune = settings.tune
        self.learning_rate = settings.learning_rate
        self.seed = settings.seed
        self.masker_: nn.Module | None = None
        self.fingerprint_: ModelFingerprint | None = None
        self.history_: list[EpochRecord] | None = None
        self.fit_summary_: FitSummary | None = None
        self.training_cost_: TrainingCost | None = None
        #: What the fitted masker learned from: ``objective`` or ``regression``.
        self.loss_: LossName = "objective"
        #: Whether it was fitted on contrasts, too.
        self.contrasts_ = False
        self.last_terms_: Terms | None = None
        self.best_step_: Tensor | None = None
        self.output_: str | None = None
        self.perturbation_: str | None = None
        self._auto: tuple[object, int, Perturbation] | None = None
        self.last_outputs_: Tensor | None = None

    @classmethod
    def get_name(cls) -> str:
        """The method's name in figures and tables, such as ``AML`` or ``Layer LA``."""
        return ("Layer " if issubclass(cls, LayerAttribution) else "") + cls._method.upper()

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
        *,
        foil: Target = None,
    ) -> Tensor:
        """The sum of each example's scores minus ``F(inputs) - F(baselines)``.

        Args:
            attributions: Attributions of the inputs.
            start_point: The baselines.
            end_point: The inputs.
            target: Index of the output, as for ``attribute``; None for the predicted class.
            additional_forward_args: Further arguments of the forward function.
            foil: What the target is held against, as for ``attribute``. Default: None

        Returns:
            Tensor (N,): the sum of the scores minus that difference. Near zero with
            ``scores="contribution"``.
        """
        with torch.inference_mode(False), torch.no_grad(), isolated_rng(self.seed):
            call = self._call(end_point, start_point, target, additional_forward_args, foil=foil)
            output = run_forward(self.forward_func, call.inputs, call.additional_forward_args)
            readout = Readout.resolve(output, call.target, self.output, call.n_examples, call.foil)
            at_baselines = baselines_output(self.forward_func, call)
            return row_sums(tensors_in(attributions)) - output_difference(
                readout, output, at_baselines
            )

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
            call = self._call(inputs, baselines, target, additional_forward_args, feature_mask)
            problem = self._problem(call, self._site())
            self._make_ready(masker, problem)
            return problem.evaluate(
                propose_mask(problem, masker), self.objective, where="the proposed masks"
            )

    def fit(
        self,
        train_batches: Batches,
        val_batches: Batches | None = None,
        *,
        callbacks: Sequence[FitCallback] = (),
        trackers: Sequence[object] = (),
        show_progress: bool = False,
        **options: Unpack[FitOptions],
    ) -> Self:
        """Trains a masker over a data set, so that an explanation is a single pass (pAML).

        A batch is what ``attribute`` takes: a tensor, a tuple of tensors, or a mapping with its
        argument names (``inputs``, ``baselines``, ``target``, ``additional_forward_args``,
        ``feature_mask``, ``foil``). Without a target an example is explained for its predicted
        class, and of several independent labels, or for a contrast, for what is drawn
        (:mod:`captum_aml.training.targets`). The masker given to the constructor is the starting
        point and stays as it is; without one, an :class:`~captum_aml.maskers.EmbeddingMasker` is
        made. A second call forgets the first; after ``from_pretrained`` the loaded masker is the
        starting point.

        Started by ``accelerate launch`` or ``torchrun``, all processes fit one masker: each takes
        its own of the batches, and one step is along the mean over all examples. A step whose loss
        or gradient is not finite is skipped and counted. On the CPU, a run that was killed and
        resumed ends with the same weights, bit for bit, as one that was not.

        Args:
            train_batches: An iterable of batches that can be read once for each epoch. Where it
                has no length and one is needed (most schedules; several validations in an epoch),
                it is read once before.
            val_batches: Batches for validation. With them the weights of the best validation are
                kept. Default: None
            callbacks: Instances of :class:`~captum_aml.training.FitCallback`. Default: none
            trackers: Names such as ``tensorboard``, or trackers of Accelerate. Files go to
                ``<checkpoint_dir>/logs``. Default: none
            show_progress: Whether to show a progress bar. Default: False
            **options: How to fit, such as ``epochs``: the fields of
                :class:`~captum_aml.training.FitSettings`, with its defaults. ``seed=None`` stands
                for this object's

        Returns:
            This object, with ``masker_``, ``history_``, ``fit_summary_`` and ``training_cost_``.

        Raises:
            InvalidInputError: A batch or setting is not as described.
            CheckpointError: ``checkpoint_dir`` holds another run, or another process writes it.
            NoGradientError: The forward function cannot be differentiated.
            NonFiniteError: More steps in a row than ``max_skipped_steps`` were skipped, or all of
                them.
        """
        settings = FitSettings(**options)
        if settings.seed is None:
            settings = replace(settings, seed=self.seed)
        summary = learn(
            self,
            train_batches,
            val_batches,
            settings=settings,
            callbacks=callbacks,
            trackers=trackers,
            show_progress=show_progress,
        )
        self.fit_summary_, self.history_ = summary, summary.history
        return self

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Writes the fitted masker to a folder, as safetensors and JSON, atomically.

        Raises:
            NotFittedError: There is no fitted masker.
            CheckpointError: The path is a file.
        """
        saved(self).save(folder)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | os.PathLike[str],
        forward_func: ForwardFunc,
        *args: Any,
        **options: Unpack[PretrainedOptions],
    ) -> Self:
        """Loads a masker that ``save_pretrained`` wrote, from a folder or a hub repository.

        Args:
            folder: A local folder, or a hub id.
            forward_func: The model that the masker was fitted for.
            *args: The constructor's further positional arguments, such as the layer.
            **options: Constructor arguments that replace the saved ones. ``masker`` is needed for
                a class of the user's own only: a module to load the weights into

        Raises:
            CheckpointError: The folder is missing, damaged, or of another model or method, or the
                model's weights are others than at the fit.
        """
        return restored(cls, Checkpoint.load(folder), forward_func, *args, **options)

    def _take(
        self,
        masker: nn.Module,
        fingerprint: ModelFingerprint,
        cost: TrainingCost | None,
        loss: LossName,
        *,
        contrasts: bool,
    ) -> None:
        """Takes a fitted masker, and notes in it that it is, and by what, where it keeps that."""
        if hasattr(masker, "fitted"):
            setattr(masker, "fitted", True)  # noqa: B010  (a module's own attributes have no type)
            setattr(masker, "learned_from", loss)  # noqa: B010
            setattr(masker, "contrasts", contrasts)  # noqa: B010
        self.masker_, self.fingerprint_, self.training_cost_ = masker, fingerprint, cost
        self.loss_, self.contrasts_ = loss, contrasts

    def _fingerprint(self, problem: MaskingProblem | None = None) -> ModelFingerprint:
        """The model's fingerprint, completed by what a pass showed if there was one.

        Before a pass the number of classes is known where the forward function itself is a
        ``...ForSequenceClassification`` of transformers: every configuration there has
        ``num_labels``, but only these models give an output for each, and a function around one
        may give others. And only distributions and independent labels have them as outcomes.
        """
        known = ModelFingerprint.of(
            underlying_model(self.forward_func),
            self._site().embedding_layer(),
            classifies=type(unwrapped(self.forward_func)).__name__.endswith(
                "ForSequenceClassification"
            )
            and self.output not in ("probability", "log_probability", "value"),
        )
        if problem is None:
            return known
        feature = problem.capture.features[0]
        channels = feature.shape[-1] if feature.dim() == 3 else None
        return replace(
            known,
            embedding_dim=channels if known.embedding_dim is None else known.embedding_dim,
            n_classes=problem.readout.condition.shape[1],
        )

    @abstractmethod
    def _site(self) -> Site:
        """The place of the mask, as ``fit`` and ``evaluate`` explain."""

    def _call(self, *arguments: Any, **named: Any) -> Call:
        """The arguments of ``attribute`` up to ``feature_mask``, of whatever kind, checked."""
        return parse_call(*arguments, **named, at_layer=isinstance(self, LayerAttribution))

    def _explain(
        self,
        site: Site,
        arguments: tuple[Any, ...],
        *,
        targets: Sequence[tuple[Target, Target]] = (),
        n_steps: int | None,
        internal_batch_size: int | None,
        with_delta: bool = False,
        show_progress: bool,
    ) -> tuple[Call, list[AttributionResult]]:
        """Explains a call in chunks and notes what the caller may want to read afterwards.

        Args:
            site: Where the mask enters.
            arguments: Those of the call, of whatever kind.
            targets: Targets that are explained after the call's own, with their foils.
            n_steps: As for ``attribute``, like the arguments after it.
            internal_batch_size: The most rows of a forward call.
            with_delta: Whether to compute the deltas.
            show_progress: Whether to show a progress bar.
        """
        with torch.inference_mode(False), torch.no_grad(), isolated_rng(self.seed):
            call = self._call(*arguments)
            self.last_terms_ = self.best_step_ = self.last_outputs_ = None
            self.output_ = self.perturbation_ = None
            results, self.last_outputs_ = explain_calls(
                self,
                [call, *(call.with_target(*each) for each in targets)],
                site,
                n_steps=self._checked_steps(n_steps),
                internal_batch_size=internal_batch_size,
                with_delta=with_delta,
                show_progress=show_progress,
            )
        last = results[-1]
        self.last_terms_, self.best_step_ = last.terms, last.best_step
        self.output_, self.perturbation_ = last.output, last.perturbation
        return call, results

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
            self.fingerprint_.check(self._fingerprint(problem))
        without_inference_tensors(masker).to(problem.capture.features[0].device)

    def _active_masker(self) -> nn.Module | None:
        """The masker whose proposals count: the fitted one, or a given one that is fitted."""
        if self.masker_ is not None:
            return self.masker_
        if self.masker is not None and getattr(self.masker, "fitted", True):
            return self.masker
        return None

    def _regressed(self) -> bool:
        """Whether the active masker's logits are contributions."""
        if self.masker_ is not None:
            return self.loss_ == "regression"
        return getattr(self._active_masker(), "learned_from", "objective") == "regression"

    def _tells_contrasts(self) -> bool:
        """Whether the active masker was fitted on contrasts."""
        if self.masker_ is not None:
            return self.contrasts_
        return bool(getattr(self._active_masker(), "contrasts", False))

    def _decided(self, problem: MaskingProblem, masker: nn.Module | None) -> Perturbation:
        """The perturbation of a problem, tried out where it is ``auto``; see ``chosen_removal``.

        Once for a forward function, and again for inputs of more tokens: a model whose attention
        has a window takes a mask in its place for short inputs only.
        """
        if masker is not None or not isinstance(self.perturbation, AutomaticRemoval):
            return fitting_removal(self.perturbation)
        n_args = len(problem.call.additional_forward_args)
        asked = self.forward_func, problem.attention_mask, n_args
        n_tokens = max(problem.layout.maskable.sum(dim=1).tolist(), default=0)
        if self._auto is None or self._auto[0] != asked or self._auto[1] < n_tokens:
            with isolated_rng(self.seed):  # what a model draws there it draws in this call alone
                chosen = chosen_removal(problem)
            if chosen is None:  # nothing to try it out with, nor to apply it to
                return self.perturbation
            self._auto = asked, n_tokens, chosen
        return hiding_only_nothing(self._auto[2], problem)

    @property
    def default_n_steps(self) -> int:
        """The number of steps for ``n_steps=None``: 0 with a fitted masker, otherwise 16."""
        return 0 if self.is_fitted else DEFAULT_MASKS

    @property
    def tuning_learning_rate(self) -> float:
        """The learning rate that tuning uses now: the given one, or the default."""
        if self.learning_rate is not None:
            return self.learning_rate
        return RATE_FOR_MASKER if self.tune == "masker" else RATE_FROM_PROPOSAL

    def _checked_steps(self, n_steps: int | None) -> int:
        n_steps = self.default_n_steps if n_steps is None else as_count("n_steps", n_steps)
        if self.is_fitted:
            return n_steps
        name = self.get_name()
        if self.tune == "masker":
            raise NotFittedError(
                f"{name}: tune='masker' needs a fitted masker; call fit or from_pretrained, or "
                "tune the mask itself with tune='mask'"
            )
        if n_steps == 0:
            raise NotFittedError(
                f"{name}: n_steps=0 needs a fitted masker; call fit or from_pretrained, or take "
                "n_steps above 0"
            )
        if self.tune is None and not isinstance(self.objective, LogOddsObjective):
            raise InvalidInputError(
                "objective: without a fitted masker expected one with a method "
                f"`log_odds(log_p, log_rest)`, got {type(self.objective).__name__}; tune='mask' "
                "descends it as it is"
            )
        if self.tune is None and n_steps % 2:
            warnings.warn(
                f"n_steps: masks come in complementary pairs, {n_steps + 1} rather than {n_steps}",
                stacklevel=5,
            )
            n_steps += 1
        return n_steps
