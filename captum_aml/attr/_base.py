"""What the attribution classes share."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, ClassVar, TypeVar, get_args

import torch
from torch import Tensor, nn
from typing_extensions import Self

from captum_aml._call import Call, as_count, parse_call
from captum_aml._captum import GradientAttribution
from captum_aml._hooks import tensors_in
from captum_aml._random import isolated_rng
from captum_aml._sites import Capture, Site, run_forward
from captum_aml.attr._explain import (
    Explained,
    ScoreKind,
    TuneKind,
    chunk_size,
    explain,
    output_difference,
    propose_mask,
    row_sums,
)
from captum_aml.attr._persistence import (
    masker_description,
    masker_files,
    objective_description,
    rebuild_masker,
    rebuild_objective,
)
from captum_aml.exceptions import CheckpointError, InvalidInputError, NotFittedError
from captum_aml.maskers import EmbeddingMasker, explained_layers_of
from captum_aml.maskers._encoders import without_inference_tensors
from captum_aml.maskers.hidden import explained_model
from captum_aml.masking import MaskingProblem
from captum_aml.objectives import Objective, Terms
from captum_aml.perturbation import Perturbation, resolve_perturbation
from captum_aml.readout import Readout, check_output_kind, checked_target, output_tensor
from captum_aml.training import (
    Checkpoint,
    EpochRecord,
    FitCallback,
    FitGoal,
    FitSettings,
    FitSummary,
    ModelFingerprint,
    TrainingCost,
    ValidationMetric,
    fit_masker,
)
from captum_aml.training.callbacks import check_callbacks
from captum_aml.training.feeding import reusable
from captum_aml.training.frozen import frozen_weights
from captum_aml.training.goal import BuildProblem
from captum_aml.training.losses import FitLoss, ObjectiveLoss
from captum_aml.training.predictions import PredictionCache
from captum_aml.training.regression import RegressionLoss
from captum_aml.training.validation_metrics import resolve_metric
from captum_aml.tuning import check_learning_rate
from captum_aml.typing import Baselines, Batch, Batches, ForwardFunc, Target, TensorOrTuple

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
        history_: A record of each epoch, after ``fit``.
        fit_summary_: How fitting went, after ``fit``.
        training_cost_: What fitting took, after ``fit`` or ``from_pretrained``.
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
        self.history_: list[EpochRecord] | None = None
        self.fit_summary_: FitSummary | None = None
        self.training_cost_: TrainingCost | None = None
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

    def fit(
        self,
        train_batches: Batches,
        val_batches: Batches | None = None,
        *,
        epochs: int = 5,
        loss: str = "objective",
        n_subsets: int = 16,
        learning_rate: float = 1e-4,
        weight_decay: float = 0.01,
        scheduler: str = "linear",
        warmup_ratio: float = 0.0,
        gradient_accumulation_steps: int = 1,
        max_gradient_norm: float | None = 1.0,
        validations_per_epoch: int = 1,
        patience: int | None = None,
        select_by: str | ValidationMetric = "loss",
        mixed_precision: str = "no",
        max_skipped_steps: int = 10,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        resume: bool = False,
        save_every: int | None = None,
        cache_predictions: bool = True,
        callbacks: Sequence[FitCallback] = (),
        trackers: Sequence[object] = (),
        seed: int | None = None,
        show_progress: bool = False,
    ) -> Self:
        """Trains a masker over a data set, so that an explanation is a single pass (pAML).

        A batch is what ``attribute`` takes: a tensor, a tuple of tensors, or a mapping with its
        argument names (``inputs``, ``baselines``, ``target``, ``additional_forward_args``,
        ``feature_mask``). The masker given to the constructor is the starting point and stays as it
        is; without one, an :class:`~captum_aml.maskers.EmbeddingMasker` is made. A second call
        forgets the first; after ``from_pretrained`` the loaded masker is the starting point.

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
            epochs: The number of epochs. Default: 5
            loss: What the masker minimizes: ``objective``, as published, or ``regression``, the
                error of what its logits say about the removal of random subsets
                (:mod:`captum_aml.training.regression`). Default: "objective"
            n_subsets: Subsets of each example for ``regression``. Default: 16
            learning_rate: AdamW's highest learning rate. Default: 1e-4
            weight_decay: AdamW's weight decay. Default: 0.01
            scheduler: How the learning rate changes: ``linear`` (to zero), ``cosine``,
                ``cosine_with_restarts``, ``polynomial``, ``constant``, ``constant_with_warmup``
                or ``inverse_sqrt``, as transformers defines them. Default: "linear"
            warmup_ratio: The share of all steps in which the learning rate rises. Default: 0.0
            gradient_accumulation_steps: Batches, in each process, in one step. Default: 1
            max_gradient_norm: Gradients are clipped to this norm, which the papers do not mention;
                None leaves them. Default: 1.0
            validations_per_epoch: Validations in an epoch. Default: 1
            patience: Validations without improvement after which fitting stops. Default: None
            select_by: What the best weights are chosen by: ``loss``, the name of a metric such as
                ``aopc-comprehensiveness`` (see ``captum_aml.training.validation_metrics``), or a
                :class:`~captum_aml.training.ValidationMetric`. Default: "loss"
            mixed_precision: ``no``, ``bf16`` or ``fp16``; losses stay in float32. Default: "no"
            max_skipped_steps: The most steps in a row that may be skipped. Default: 10
            checkpoint_dir: A folder to keep the run in, so that it can be resumed. Default: None
            resume: Whether to go on with the run in that folder, if there is one. The settings,
                the masker, the model and the number of batches have to be those of the run; what
                is in the batches is not compared. Default: False
            save_every: Steps between two writes of the run beside those at every validation and
                epoch. Default: None
            cache_predictions: Whether to keep the explained model's predictions for unmasked
                examples, the first 50,000. A model in training mode, or arguments that are neither
                tensors nor plain values, are never cached. Default: True
            callbacks: Instances of :class:`~captum_aml.training.FitCallback`. Default: none
            trackers: Names such as ``tensorboard``, or trackers of Accelerate. Files go to
                ``<checkpoint_dir>/logs``. Default: none
            seed: The seed of initialization, order and dropout. Default: the constructor's
            show_progress: Whether to show a progress bar. Default: False

        Returns:
            This object, with ``masker_``, ``history_``, ``fit_summary_`` and ``training_cost_``.

        Raises:
            InvalidInputError: A batch or setting is not as described.
            CheckpointError: ``checkpoint_dir`` holds another run, or another process writes it.
            NoGradientError: The forward function cannot be differentiated.
            NonFiniteError: More steps in a row than ``max_skipped_steps`` were skipped, or all of
                them.
        """
        settings = FitSettings(
            epochs=epochs,
            loss=loss,
            n_subsets=n_subsets,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            scheduler=scheduler,
            warmup_ratio=warmup_ratio,
            gradient_accumulation_steps=gradient_accumulation_steps,
            max_gradient_norm=max_gradient_norm,
            validations_per_epoch=validations_per_epoch,
            patience=patience,
            select_by=select_by,
            mixed_precision=mixed_precision,
            max_skipped_steps=max_skipped_steps,
            checkpoint_dir=checkpoint_dir,
            resume=resume,
            save_every=save_every,
            cache_predictions=cache_predictions,
            seed=self.seed if seed is None else seed,
        )
        metric = resolve_metric(settings.select_by)
        callbacks = check_callbacks(callbacks)
        once = settings.epochs == 1
        train_batches = reusable("train_batches", train_batches, once=once)
        if val_batches is not None:
            val_batches = reusable("val_batches", val_batches, once=once)
        fingerprints: list[ModelFingerprint] = []

        def builder(cache: PredictionCache | None) -> BuildProblem:
            def build(batch: Batch) -> MaskingProblem:
                call = parse_call(**_batch_arguments(batch), at_layer=self._at_layer)
                site = self._site()
                capture = None if cache is None else cache.capture(call, site)
                problem = self._problem(call, site, capture)
                if not fingerprints:
                    fingerprints.append(self._with_weights(self._fingerprint_of(problem)))
                return problem

            return build

        # What is read once only need not be kept.
        # Hidden states are not kept with predictions: a masker that reads them needs every pass.
        cached = settings.cache_predictions and explained_layers_of(self.masker) is None
        build = builder(PredictionCache() if cached and settings.epochs > 1 else None)
        several = settings.epochs * settings.validations_per_epoch > 1
        build_validation = builder(PredictionCache() if cached and several else None)

        with (
            torch.inference_mode(False),
            torch.no_grad(),
            isolated_rng(settings.seed or 0),
            frozen_weights(self.forward_func),
        ):
            if self.masker is None:
                masker = _masker_for(next(iter(train_batches), None), build)
            else:
                masker = without_inference_tensors(copy.deepcopy(self.masker))
            view = copy.copy(self)

            def measure(current: nn.Module, batch: Batch) -> Tensor:
                assert metric is not None
                view.masker_, view.fingerprint_ = current, None
                return metric.function(view, _batch_arguments(batch))

            summary = fit_masker(
                masker,
                FitGoal(build, _loss(settings, self.objective), build_validation, metric, measure),
                train_batches,
                val_batches,
                settings=settings,
                callbacks=callbacks,
                trackers=trackers,
                show_progress=show_progress,
                identity={
                    "method": self._method,
                    "objective": objective_description(self.objective),
                    "perturbation": self.perturbation.name,
                    "output": self.output,
                    "masker": masker_description(masker),
                    "model": asdict(self._known_fingerprint()),
                    "validates": val_batches is not None,
                },
            )
            if not fingerprints:  # a run that was over already
                build(next(iter(train_batches)))
        _set_fitted(masker)
        self.masker_, self.history_, self.fingerprint_ = masker, summary.history, fingerprints[0]
        self.fit_summary_ = summary
        self.training_cost_ = TrainingCost(
            n_examples=summary.history[0].n_examples if summary.history else 0,
            epochs=len(summary.history),
            seconds=summary.seconds,
        )
        return self

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

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Writes the fitted masker to a folder, as safetensors and JSON, atomically.

        Raises:
            NotFittedError: There is no fitted masker.
            CheckpointError: The path is a file.
        """
        if self.masker_ is None or self.fingerprint_ is None:
            raise NotFittedError(f"{self.get_name()}: nothing to save yet; call fit first")
        Checkpoint(
            method=self._method,
            masker=masker_description(self.masker_, self.forward_func),
            settings={
                "objective": objective_description(self.objective),
                "perturbation": self.perturbation.name,
                "output": self.output,
            },
            fingerprint=self.fingerprint_,
            tensors=self.masker_.state_dict(),
            training=self.training_cost_,
            files=masker_files(self.masker_),
        ).save(folder)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | os.PathLike[str],
        forward_func: ForwardFunc,
        *args: Any,
        masker: nn.Module | None = None,
        **settings: Any,
    ) -> Self:
        """Loads a masker that ``save_pretrained`` wrote, from a folder or a hub repository.

        Args:
            folder: A local folder, or a hub id.
            forward_func: The model that the masker was fitted for.
            *args: The constructor's further positional arguments, such as the layer.
            masker: For a masker class of the user's own: a module to load the weights into.
            **settings: Constructor arguments that replace the saved ones.

        Raises:
            CheckpointError: The folder is missing, damaged, or of another model or method, or the
                model's weights are others than at the fit.
        """
        checkpoint = Checkpoint.load(folder)
        if checkpoint.method != cls._method:
            raise CheckpointError(
                f"masker: it was fitted for the method {checkpoint.method!r}, "
                f"but this is {cls._method!r}"
            )
        # Loaded inside inference mode, a masker can still be tuned and fitted.
        with torch.inference_mode(False), isolated_rng(0):
            return cls._restored(checkpoint, forward_func, *args, masker=masker, **settings)

    @classmethod
    def _restored(
        cls,
        checkpoint: Checkpoint,
        forward_func: ForwardFunc,
        *args: Any,
        masker: nn.Module | None,
        **settings: Any,
    ) -> Self:
        saved = {k: v for k, v in checkpoint.settings.items() if k in ("perturbation", "output")}
        if settings.get("objective") is None:
            settings["objective"] = rebuild_objective(checkpoint.settings.get("objective"))
        attribution = cls(forward_func, *args, **{**saved, **settings})
        checkpoint.fingerprint.check(attribution._with_weights(attribution._known_fingerprint()))
        module = rebuild_masker(checkpoint, masker, forward_func).eval()
        _set_fitted(module)
        # A later fit goes on from it.
        attribution.masker = module
        attribution.masker_, attribution.fingerprint_ = module, checkpoint.fingerprint
        attribution.training_cost_ = checkpoint.training
        return attribution

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
            self.fingerprint_.check(self._fingerprint_of(problem))
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

    def _fingerprint_of(self, problem: MaskingProblem) -> ModelFingerprint:
        feature = problem.capture.features[0]
        known = self._known_fingerprint()
        channels = feature.shape[-1] if feature.dim() == 3 else None
        return replace(
            known,
            embedding_dim=known.embedding_dim if known.embedding_dim is not None else channels,
            n_classes=problem.readout.probabilities.shape[1],
        )

    def _with_weights(self, fingerprint: ModelFingerprint) -> ModelFingerprint:
        """A fingerprint that tells the model's weights, too.

        For fitting and loading only: a model that is changed afterwards may be explained, as by
        randomization checks, and calls need not pay for it.
        """
        model = explained_model(self.forward_func)
        return fingerprint if model is None else fingerprint.with_weights_of(model)

    def _known_fingerprint(self) -> ModelFingerprint:
        """What can be told of the explained model without running it."""
        layer = self._site().embedding_layer()
        model: Any = getattr(self.forward_func, "module", self.forward_func)  # the user's
        # Every configuration of transformers has num_labels, but only these models return them,
        # and only a distribution has them as outcomes.
        classifies = type(model).__name__.endswith("ForSequenceClassification") and (
            self.output not in ("probability", "log_probability", "value")
        )
        n_labels = getattr(model.config, "num_labels", None) if classifies else None
        config = getattr(explained_model(self.forward_func), "config", None)
        return ModelFingerprint(
            embedding_dim=getattr(layer, "embedding_dim", None),
            vocab_size=getattr(layer, "num_embeddings", None),
            n_classes=n_labels if n_labels is not None and n_labels > 1 else None,
            model_type=_setting(config, "model_type", str),
            hidden_size=_setting(config, "hidden_size", int),
            num_hidden_layers=_setting(config, "num_hidden_layers", int),
        )


def _kind_of(outputs: list[Tensor], call: Call) -> str:
    """What ``auto`` decides for the outputs of all chunks of a call."""
    return Readout.resolve(torch.cat(outputs), call.target, "auto", call.n_examples).kind


_T = TypeVar("_T")


def _setting(config: object, name: str, kind: type[_T]) -> _T | None:
    """A setting of a model's configuration, which need not be one of transformers."""
    value = getattr(config, name, None)
    return value if isinstance(value, kind) else None


def _loss(settings: FitSettings, objective: Objective) -> FitLoss:
    if settings.loss == "regression":
        return RegressionLoss(n_subsets=settings.n_subsets)
    return ObjectiveLoss(objective)


def _set_fitted(masker: nn.Module) -> None:
    if hasattr(masker, "fitted"):
        setattr(masker, "fitted", True)  # noqa: B010  (a module's own attributes have no type)


def _masker_for(first: Batch | None, build: BuildProblem) -> nn.Module:
    """A masker for whatever the first batch shows, where the user gave none."""
    if first is None:
        raise InvalidInputError("train_batches: expected at least one batch, got none")
    problem = build(first)
    return EmbeddingMasker(
        feature_shapes=[tuple(f.shape[1:]) for f in problem.capture.features],
        token_dims=[d - 1 for d in problem.token_dims],
        n_classes=problem.readout.probabilities.shape[1],
    ).to(problem.capture.features[0].device)


def _batch_arguments(batch: Batch) -> dict[str, Any]:
    """A batch as keyword arguments of a call."""
    if not isinstance(batch, Mapping):
        return {"inputs": batch}
    known = ("inputs", "baselines", "target", "additional_forward_args", "feature_mask")
    unknown = [name for name in batch if name not in known]
    if unknown or "inputs" not in batch:
        raise InvalidInputError(
            f"batch: expected 'inputs' and possibly {known[1:]}, got {sorted(batch)}"
        )
    return dict(batch)


__all__ = ["DEFAULT_STEPS", "MaskAttribution"]
