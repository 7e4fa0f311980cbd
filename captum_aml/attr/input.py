"""Attribution to a forward function's inputs: floats directly, ids where they are embedded."""

from __future__ import annotations

from typing import Any, Literal, overload

from torch import Tensor, nn
from typing_extensions import Unpack

from captum_aml._captum import log_usage
from captum_aml.attr.base import MaskAttribution
from captum_aml.attr.settings import AttributionOptions
from captum_aml.exceptions import InvalidInputError
from captum_aml.masking.sites import InputSite, Site
from captum_aml.typing import Baselines, ForwardFunc, Target, TensorOrTuple


def checked_embedding_layers(
    embedding_layer: nn.Module | tuple[nn.Module, ...] | None,
) -> tuple[nn.Module, ...]:
    """The constructor's embedding layers as a tuple.

    Raises:
        InvalidInputError: One is not a module.
    """
    layers = embedding_layer if isinstance(embedding_layer, tuple) else (embedding_layer,)
    for layer in layers:
        if layer is not None and not isinstance(layer, nn.Module):
            raise InvalidInputError(
                f"embedding_layer: expected a torch.nn.Module, got {type(layer).__name__}"
            )
    return tuple(layer for layer in layers if layer is not None)


class InputMaskAttribution(MaskAttribution):
    """Attribution by a learned mask over the inputs; the final classes name the objective."""

    def __init__(
        self,
        forward_func: ForwardFunc,
        multiply_by_inputs: bool = True,
        *,
        embedding_layer: nn.Module | tuple[nn.Module, ...] | None = None,
        **options: Unpack[AttributionOptions],
    ) -> None:
        super().__init__(forward_func, multiply_by_inputs=multiply_by_inputs, **options)
        self.embedding_layers = checked_embedding_layers(embedding_layer)

    def _site(self) -> Site:
        return InputSite(self.forward_func, self.embedding_layers)

    # Any in the first form: its argument list would say nothing but the type of the result.
    @overload
    def attribute(
        self,
        inputs: TensorOrTuple,
        *args: Any,
        return_convergence_delta: Literal[True],
        **kwargs: Any,
    ) -> tuple[TensorOrTuple, Tensor]: ...

    @overload
    def attribute(
        self,
        inputs: TensorOrTuple,
        baselines: Baselines = ...,
        target: Target = ...,
        additional_forward_args: object | None = ...,
        n_steps: int | None = ...,
        method: str = ...,
        internal_batch_size: int | None = ...,
        return_convergence_delta: Literal[False] = ...,
        *,
        feature_mask: TensorOrTuple | None = ...,
        show_progress: bool = ...,
    ) -> TensorOrTuple: ...

    @overload
    def attribute(
        self,
        inputs: TensorOrTuple,
        baselines: Baselines = ...,
        target: Target = ...,
        additional_forward_args: object | None = ...,
        n_steps: int | None = ...,
        method: str = ...,
        internal_batch_size: int | None = ...,
        return_convergence_delta: bool = ...,
        *,
        feature_mask: TensorOrTuple | None = ...,
        show_progress: bool = ...,
    ) -> TensorOrTuple | tuple[TensorOrTuple, Tensor]: ...

    @log_usage(part_of_slo=True)
    def attribute(
        self,
        inputs: TensorOrTuple,
        baselines: Baselines = None,
        target: Target = None,
        additional_forward_args: object | None = None,
        n_steps: int | None = None,
        method: str = "gausslegendre",
        internal_batch_size: int | None = None,
        return_convergence_delta: bool = False,
        *,
        feature_mask: TensorOrTuple | None = None,
        show_progress: bool = False,
    ) -> TensorOrTuple | tuple[TensorOrTuple, Tensor]:
        """Scores every token by the share of it that the learned mask keeps.

        The arguments up to ``return_convergence_delta`` are those of
        :meth:`captum.attr.IntegratedGradients.attribute`, in its order.

        Args:
            inputs (Tensor or tuple[Tensor, ...]): Integer ids (N, ...), which need an embedding
                layer, or floating point values (N, ...), with N examples along dimension 0.
            baselines (scalar, Tensor, tuple of scalar or Tensor, optional): What a removed token is
                replaced with, in every form that Captum takes. Positions that equal their baseline
                are not masked and score 0. Default: None, which stands for 0
            target (int, tuple, Tensor or list, optional): Index of the output, in every form that
                Captum takes. Default: None, the predicted class of each example
            additional_forward_args (Any, optional): Further positional arguments of the forward
                function; tensors have N examples along dimension 0. Default: None
            n_steps (int, optional): Tuning steps for these very inputs; 0 takes the fitted masker's
                proposal as it is. Default: 0 with a fitted masker, otherwise 50
            method (str, optional): Taken as Captum's methods take it, whatever it is, and without
                effect: no integral is approximated. Default: gausslegendre
            internal_batch_size (int, optional): The most rows of a forward call. Default: None,
                all at once: twice the number of examples while tuning AML
            return_convergence_delta (bool, optional): Whether to return the scores' sum minus
                ``F(inputs) - F(baselines)`` too. Default: False
            feature_mask (Tensor or tuple[Tensor, ...], optional): Integer group ids: elements of
                one group share a mask value and a score, those that equal their baseline too.
                Default: None
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
        call, result = self._explain(
            self._site(),
            (inputs, baselines, target, additional_forward_args, feature_mask),
            n_steps=n_steps,
            internal_batch_size=internal_batch_size,
            with_delta=return_convergence_delta,
            show_progress=show_progress,
        )
        attributions = result.attributions if call.is_tuple else result.attributions[0]
        return attributions if result.delta is None else (attributions, result.delta)
