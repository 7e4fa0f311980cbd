"""Learning a masker over a data set, for all attribution classes."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from captum_aml._utils.isolation import frozen_weights, isolated_rng, without_inference_tensors
from captum_aml.attr.persistence import objective_description
from captum_aml.exceptions import InvalidInputError
from captum_aml.maskers import EmbeddingMasker
from captum_aml.maskers.base import explained_layers_of
from captum_aml.maskers.checkpoint import TrainingCost
from captum_aml.maskers.fingerprint import ModelFingerprint
from captum_aml.maskers.registry import describe_masker
from captum_aml.masking.forward import modules_of, underlying_model
from captum_aml.masking.problem import MaskingProblem
from captum_aml.objectives import Objective
from captum_aml.perturbation import fitting_removal
from captum_aml.training import FitCallback, FitSettings, FitSummary
from captum_aml.training.callbacks import check_callbacks
from captum_aml.training.data import PredictionCache, reusable
from captum_aml.training.fit import fit_masker
from captum_aml.training.losses import BuildProblem, FitGoal, resolve_metric
from captum_aml.training.regression import RegressionLoss
from captum_aml.training.targets import with_drawn_targets
from captum_aml.typing import Batch, Batches

if TYPE_CHECKING:
    from captum_aml.attr.base import MaskAttribution


def learn(
    attribution: MaskAttribution,
    train_batches: Batches,
    val_batches: Batches | None,
    *,
    settings: FitSettings,
    callbacks: Sequence[FitCallback],
    trackers: Sequence[object],
    show_progress: bool,
) -> FitSummary:
    """Fits a masker for an attribution, which takes it at the end; arguments as for its ``fit``."""
    metric = resolve_metric(settings.select_by)
    callbacks = check_callbacks(callbacks)
    once = settings.epochs == 1
    train_batches = reusable("train_batches", train_batches, once=once)
    if val_batches is not None:
        val_batches = reusable("val_batches", val_batches, once=once)
    fingerprints: list[ModelFingerprint] = []

    def builder(cache: PredictionCache | None) -> BuildProblem:
        def build(batch: Batch) -> MaskingProblem:
            call = attribution._call(**_batch_arguments(batch))
            site = attribution._site()
            capture = None if cache is None else cache.capture(call, site)
            problem = attribution._problem(call, site, capture)
            problem = with_drawn_targets(
                problem, seed=settings.seed or 0, contrasts=settings.contrasts
            )
            if not fingerprints:
                model = underlying_model(attribution.forward_func)
                fingerprints.append(attribution._fingerprint(problem).with_weights_of(model))
            return problem

        return build

    # What is read once only need not be kept.
    # Hidden states are not kept with predictions: a masker that reads them needs every pass.
    cached = settings.cache_predictions and explained_layers_of(attribution.masker) is None
    build = builder(PredictionCache() if cached and settings.epochs > 1 else None)
    several = settings.epochs * settings.validations_per_epoch > 1
    build_validation = builder(PredictionCache() if cached and several else None)

    with (
        torch.inference_mode(False),
        torch.no_grad(),
        isolated_rng(settings.seed or 0),
        frozen_weights(modules_of(attribution.forward_func)),
    ):
        if attribution.masker is None:
            masker = _masker_for(next(iter(train_batches), None), build)
        else:
            masker = without_inference_tensors(copy.deepcopy(attribution.masker))
        view = copy.copy(attribution)
        view.loss_, view.contrasts_ = settings.loss, settings.contrasts

        def metric_values(current: nn.Module, batch: Batch) -> Tensor:
            assert metric is not None
            view.masker_, view.fingerprint_ = current, None
            return metric.function(view, _batch_arguments(batch))

        loss: Objective | RegressionLoss = attribution.objective
        if settings.loss == "regression":
            loss = RegressionLoss(n_subsets=settings.n_subsets)
        summary = fit_masker(
            masker,
            FitGoal(build, loss, build_validation, metric, metric_values),
            train_batches,
            val_batches,
            settings=settings,
            callbacks=callbacks,
            trackers=trackers,
            show_progress=show_progress,
            identity=lambda: {
                "method": attribution._method,
                "objective": objective_description(attribution.objective),
                "perturbation": fitting_removal(attribution.perturbation).name,
                "output": attribution.output,
                "masker": describe_masker(masker),
                "model": asdict(attribution._fingerprint()),
                "validates": val_batches is not None,
            },
        )
        if not fingerprints:  # a run that was over already
            build(next(iter(train_batches)))
    cost = TrainingCost(
        n_examples=summary.history[0].n_examples if summary.history else 0,
        epochs=len(summary.history),
        seconds=summary.seconds,
    )
    attribution._take(masker, fingerprints[0], cost, settings.loss, contrasts=settings.contrasts)
    return summary


def _masker_for(first: Batch | None, build: BuildProblem) -> nn.Module:
    """A masker for whatever the first batch shows, where the user gave none."""
    if first is None:
        raise InvalidInputError("train_batches: expected at least one batch, got none")
    problem = build(first)
    return EmbeddingMasker(
        feature_shapes=[tuple(f.shape[1:]) for f in problem.capture.features],
        token_dims=[d - 1 for d in problem.token_dims],
        n_classes=problem.readout.condition.shape[1],
    ).to(problem.capture.features[0].device)


def _batch_arguments(batch: Batch) -> dict[str, Any]:
    """A batch as keyword arguments of a call."""
    if not isinstance(batch, Mapping):
        return {"inputs": batch}
    known = ("inputs", "baselines", "target", "additional_forward_args", "feature_mask", "foil")
    unknown = [name for name in batch if name not in known]
    if unknown or "inputs" not in batch:
        raise InvalidInputError(
            f"batch: expected 'inputs' and possibly {known[1:]}, got {sorted(batch)}"
        )
    return dict(batch)
