"""Attribution to the forward function's inputs."""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor, nn

from captum_aml._captum import log_usage
from captum_aml._utils.random import isolated_rng
from captum_aml.attr.explain import ScoreKind, TuneKind
from captum_aml.attr.pretrained import PretrainedAttribution
from captum_aml.exceptions import InvalidInputError
from captum_aml.masking.call import parse_call
from captum_aml.masking.sites import InputSite, Site
from captum_aml.objectives import Objective
from captum_aml.perturbation import Perturbation
from captum_aml.typing import Baselines, ForwardFunc, Target, TensorOrTuple


class InputMaskAttribution(PretrainedAttribution):
    """Masks the inputs themselves: floats directly, ids at the layer that embeds them."""

    def __init__(
        self,
        forward_func: ForwardFunc,
        *,
        embedding_layer: nn.Module | tuple[nn.Module, ...] | None = None,
        masker: nn.Module | None = None,
        objective: Objective | None = None,
        perturbation: str | Perturbation = "blend",
        output: str = "auto",
        scores: ScoreKind = "mask",
        tune: TuneKind = "mask",
        learning_rate: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            forward_func,
            masker=masker,
            objective=objective,
            perturbation=perturbation,
            output=output,
            scores=scores,
            tune=tune,
            learning_rate=learning_rate,
            seed=seed,
        )
        layers = embedding_layer if isinstance(embedding_layer, tuple) else (embedding_layer,)
        for layer in layers:
            if layer is not None and not isinstance(layer, nn.Module):
                raise InvalidInputError(
                    f"embedding_layer: expected a torch.nn.Module, got {type(layer).__name__}"
                )
        self.embedding_layers = tuple(layer for layer in layers if layer is not None)

    def _site(self) -> Site:
        return InputSite(self.forward_func, self.embedding_layers)

    @overload
    def attribute(
        self,
        inputs: TensorOrTuple,
        baselines: Baselines = ...,
        target: Target = ...,
        additional_forward_args: object | None = ...,
        feature_mask: TensorOrTuple | None = ...,
        n_steps: int | None = ...,
        internal_batch_size: int | None = ...,
        return_convergence_delta: Literal[False] = ...,
        show_progress: bool = ...,
    ) -> TensorOrTuple: ...

    @overload
    def attribute(
        self,
        inputs: TensorOrTuple,
        baselines: Baselines = ...,
        target: Target = ...,
        additional_forward_args: object | None = ...,
        feature_mask: TensorOrTuple | None = ...,
        n_steps: int | None = ...,
        internal_batch_size: int | None = ...,
        *,
        return_convergence_delta: Literal[True],
        show_progress: bool = ...,
    ) -> tuple[TensorOrTuple, Tensor]: ...

    @log_usage(part_of_slo=True)
    def attribute(
        self,
        inputs: TensorOrTuple,
        baselines: Baselines = None,
        target: Target = None,
        additional_forward_args: object | None = None,
        feature_mask: TensorOrTuple | None = None,
        n_steps: int | None = None,
        internal_batch_size: int | None = None,
        return_convergence_delta: bool = False,
        show_progress: bool = False,
    ) -> TensorOrTuple | tuple[TensorOrTuple, Tensor]:
        """Scores every token by the share of it that the learned mask keeps.

        Args:
            inputs (Tensor or tuple[Tensor, ...]): Integer ids (N, ...), which need an embedding
                layer, or floating point values (N, ...), with N examples along dimension 0.
            baselines (scalar, Tensor, tuple of scalar or Tensor, optional): What a removed token is
                replaced with, in every form that Captum takes. Positions that equal their baseline
                are not masked and score 0. Default: None, which stands for 0
            target (int, tuple, Tensor or list, optional): The explained output, in every form that
                Captum takes. Default: None, the predicted class of each example
            additional_forward_args (Any, optional): Further positional arguments of the forward
                function; tensors have N examples along dimension 0. Default: None
            feature_mask (Tensor or tuple[Tensor, ...], optional): Integer group ids: elements of
                one group share a mask value and a score, those that equal their baseline too.
                Default: None
            n_steps (int, optional): Tuning steps for these very inputs; 0 takes the fitted masker's
                proposal as it is. Default: 0 with a fitted masker, otherwise 50
            internal_batch_size (int, optional): The most rows of a forward call. Default: None,
                all at once: twice the number of examples while tuning AML
            return_convergence_delta (bool, optional): Whether to return the scores' sum minus
                ``F(inputs) - F(baselines)`` too. Default: False
            show_progress (bool, optional): Whether to show a progress bar. Default: False

        Returns:
            **attributions**, or the pair of **attributions** and **delta**:

            - attributions (Tensor or tuple[Tensor, ...]): one score per id, or scores in the shape
              and dtype of float inputs (float32 for half precision, as Captum's own). Of (N, L, D)
              a token's score is spread evenly over its D channels, so that the sum over the last
              dimension gives it. In [0, 1], higher is more important, unless
              ``scores="contribution"``.
            - delta (Tensor): (N,).

        Raises:
            InvalidInputError: An argument is not as described; the message names it.
            NoGradientError: The forward function cannot be differentiated (when tuning).
            NonFiniteError: The forward function gave NaN or an infinite value.
            NotFittedError: ``n_steps=0``, or ``tune="masker"``, without a fitted masker.
        """
        with torch.inference_mode(False), torch.no_grad(), isolated_rng(self.seed):
            call = parse_call(inputs, baselines, target, additional_forward_args, feature_mask)
            explained = self._explain(
                call,
                self._site(),
                n_steps=n_steps,
                internal_batch_size=internal_batch_size,
                with_delta=return_convergence_delta,
                show_progress=show_progress,
            )
        attributions = explained.attributions if call.is_tuple else explained.attributions[0]
        if explained.delta is not None:
            return attributions, explained.delta
        return attributions


__all__ = ["InputMaskAttribution"]
