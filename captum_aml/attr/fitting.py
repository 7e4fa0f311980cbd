"""Learning a masker over a data set, for all attribution classes."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from captum_aml._utils.modules import frozen_weights, without_inference_tensors
from captum_aml._utils.random import isolated_rng
from captum_aml.attr.base import MaskAttribution
from captum_aml.attr.fingerprints import seen_fingerprint, with_weights
from captum_aml.attr.persistence import masker_description, objective_description
from captum_aml.exceptions import InvalidInputError
from captum_aml.maskers import EmbeddingMasker, explained_layers_of
from captum_aml.masking.call import parse_call
from captum_aml.masking.forward import modules_of
from captum_aml.masking.problem import MaskingProblem
from captum_aml.objectives import Objective
from captum_aml.training import (
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
from captum_aml.training.goal import BuildProblem
from captum_aml.training.losses import FitLoss, ObjectiveLoss
from captum_aml.training.predictions import PredictionCache
from captum_aml.training.regression import RegressionLoss
from captum_aml.training.settings import LossName, Precision, Scheduler
from captum_aml.training.validation_metrics import resolve_metric
from captum_aml.typing import Batch, Batches


class LearningAttribution(MaskAttribution):
    """An attribution that can learn a masker.

    Attributes:
        history_: A record of each epoch, after ``fit``.
        fit_summary_: How fitting went, after ``fit``.
        training_cost_: What fitting took, after ``fit`` or ``from_pretrained``.
    """

    history_: list[EpochRecord] | None = None
    fit_summary_: FitSummary | None = None
    training_cost_: TrainingCost | None = None

    def fit(
        self,
        train_batches: Batches,
        val_batches: Batches | None = None,
        *,
        epochs: int = 5,
        loss: LossName = "objective",
        n_subsets: int = 16,
        learning_rate: float = 1e-4,
        weight_decay: float = 0.01,
        scheduler: Scheduler = "linear",
        warmup_ratio: float = 0.0,
        gradient_accumulation_steps: int = 1,
        max_gradient_norm: float | None = 1.0,
        validations_per_epoch: int = 1,
        patience: int | None = None,
        select_by: str | ValidationMetric = "loss",
        mixed_precision: Precision = "no",
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
                    seen = seen_fingerprint(self._known_fingerprint(), problem)
                    fingerprints.append(with_weights(seen, self.forward_func))
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
            frozen_weights(modules_of(self.forward_func)),
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
        mark_fitted(masker)
        self.masker_, self.history_, self.fingerprint_ = masker, summary.history, fingerprints[0]
        self.fit_summary_ = summary
        self.training_cost_ = TrainingCost(
            n_examples=summary.history[0].n_examples if summary.history else 0,
            epochs=len(summary.history),
            seconds=summary.seconds,
        )
        return self


def _loss(settings: FitSettings, objective: Objective) -> FitLoss:
    if settings.loss == "regression":
        return RegressionLoss(n_subsets=settings.n_subsets)
    return ObjectiveLoss(objective)


def mark_fitted(masker: nn.Module) -> None:
    """Tells a masker that has to know that it is fitted."""
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


__all__ = ["LearningAttribution", "mark_fitted"]
