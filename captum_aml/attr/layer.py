"""Attribution to the input or output of a layer, or of several that do not depend on each other."""

from __future__ import annotations

import itertools
from typing import Any, Literal, overload

from torch import Tensor, nn
from typing_extensions import Unpack

from captum_aml._captum import LayerAttribution, LLMGradientAttribution, accept, log_usage
from captum_aml.attr.base import MaskAttribution
from captum_aml.attr.explain import AttributionResult
from captum_aml.attr.settings import AttributionOptions
from captum_aml.exceptions import InvalidInputError
from captum_aml.masking.call import parse_targets
from captum_aml.masking.sites import LayerSite, Site
from captum_aml.typing import Baselines, ForwardFunc, Target, TensorOrTuple

LayerScores = TensorOrTuple | list[TensorOrTuple]


def checked_layers(layer: nn.Module | list[nn.Module] | None) -> tuple[nn.Module, ...]:
    """The layers to explain.

    Raises:
        InvalidInputError: One is not a module, or there is none.
    """
    if layer is None:
        raise InvalidInputError(
            "layer: expected a torch.nn.Module, or a list of them, got None; "
            "assign it to the attribute layer before a call"
        )
    layers = layer if isinstance(layer, list) else [layer]
    for each in layers:
        if not isinstance(each, nn.Module):
            raise InvalidInputError(
                f"layer: expected a torch.nn.Module, or a list of them, got {type(each).__name__}"
            )
    if not layers:
        raise InvalidInputError("layer: expected at least one layer, got an empty list")
    return tuple(layers)


class LayerMaskAttribution(LayerAttribution, MaskAttribution):
    """Attribution by a learned mask at a layer; the final classes name the objective.

    Captum's ``LLMGradientAttribution`` takes them.
    """

    def __init__(
        self,
        forward_func: ForwardFunc,
        layer: nn.Module | list[nn.Module] | None,
        device_ids: list[int] | None = None,
        multiply_by_inputs: bool = True,
        **options: Unpack[AttributionOptions],
    ) -> None:
        if layer is not None:
            checked_layers(layer)
        LayerAttribution.__init__(self, forward_func, layer, device_ids)
        MaskAttribution.__init__(
            self, forward_func, multiply_by_inputs=multiply_by_inputs, **options
        )

    def _site(self, *, at_input: bool = False) -> Site:
        # Checked here again: one of None is set later, as code for Captum's methods does.
        return LayerSite(
            self.forward_func,
            checked_layers(self.layer),
            at_input=at_input,
            device_ids=self.device_ids,
        )

    # Any in the first form: its argument list would say nothing but the type of the result.
    @overload
    def attribute(
        self,
        inputs: TensorOrTuple,
        *args: Any,
        return_convergence_delta: Literal[True],
        **kwargs: Any,
    ) -> tuple[LayerScores, Tensor]: ...

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
        attribute_to_layer_input: bool = ...,
        grad_kwargs: dict[str, Any] | None = ...,
        *,
        feature_mask: TensorOrTuple | None = ...,
        foil: Target = ...,
        show_progress: bool = ...,
        skip_tokens: object = ...,
    ) -> LayerScores: ...

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
        attribute_to_layer_input: bool = ...,
        grad_kwargs: dict[str, Any] | None = ...,
        *,
        feature_mask: TensorOrTuple | None = ...,
        foil: Target = ...,
        show_progress: bool = ...,
        skip_tokens: object = ...,
    ) -> LayerScores | tuple[LayerScores, Tensor]: ...

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
        attribute_to_layer_input: bool = False,
        grad_kwargs: dict[str, Any] | None = None,
        *,
        feature_mask: TensorOrTuple | None = None,
        foil: Target = None,
        show_progress: bool = False,
        skip_tokens: object = None,
    ) -> LayerScores | tuple[LayerScores, Tensor]:
        """Scores every position of the layer by its contribution to the output, or by its mask.

        The baselines are passed through the layer, as Layer Integrated Gradients does. The
        arguments up to ``grad_kwargs`` are those of
        :meth:`captum.attr.LayerIntegratedGradients.attribute`, in its order.

        Args:
            inputs (Tensor or tuple[Tensor, ...]): The forward function's inputs, with N examples
                along dimension 0.
            baselines (scalar, Tensor, tuple of scalar or Tensor, optional): The forward function's
                inputs with everything removed, in every form that Captum takes. Positions where
                the layer holds the same for both are not masked and score 0. Default: None, which
                stands for 0
            target (int, tuple, Tensor or list, optional): As for inputs, see
                :meth:`captum_aml.attr.AMLAttribution.attribute`. Default: None
            additional_forward_args (Any, optional): As for inputs. Default: None
            n_steps (int, optional): As for inputs. Default: 0 with a fitted masker, otherwise 16
            method (str, optional): As for inputs: without effect. Default: gausslegendre
            internal_batch_size (int, optional): As for inputs. Default: None
            return_convergence_delta (bool, optional): As for inputs. Default: False
            attribute_to_layer_input (bool, optional): Whether to attribute to the layer's input
                rather than its output. Default: False
            grad_kwargs (dict, optional): Taken as Captum's method takes it, and without effect: the
                gradients here are of the mask. Default: None
            feature_mask (Tensor or tuple[Tensor, ...], optional): Integer group ids for the layer's
                tensors, by element or, of (N, L, D), by position (N, L). Default: None
            foil (int, tuple, Tensor or list, optional): As for inputs. Default: None
            show_progress (bool, optional): As for inputs. Default: False
            skip_tokens (list, optional): As for inputs: without effect. Default: None

        Returns:
            **attributions**, or the pair of **attributions** and **delta**:

            - attributions (Tensor, tuple[Tensor, ...] or list): scores as for inputs, in the shape
              and dtype of the layer's tensor; a tuple where it has several, a list where several
              layers were given.
            - delta (Tensor): (N,).

        Raises:
            InvalidInputError: There is no layer yet; or an argument, as for inputs.
            LayerNotReachedError: The forward function did not run the layer, or not just once.
            NoGradientError, NonFiniteError, NotFittedError: As for inputs.
        """
        _, (result,) = self._explain(
            self._site(at_input=attribute_to_layer_input),
            (inputs, baselines, target, additional_forward_args, feature_mask, foil),
            n_steps=n_steps,
            internal_batch_size=internal_batch_size,
            with_delta=return_convergence_delta,
            show_progress=show_progress,
        )
        attributions = self._by_layer(result)
        return attributions if result.delta is None else (attributions, result.delta)

    @log_usage(part_of_slo=True)
    def attribute_each(
        self,
        inputs: TensorOrTuple,
        targets: list[Target] | Tensor,
        *,
        foils: list[Target] | Tensor | None = None,
        baselines: Baselines = None,
        additional_forward_args: object | None = None,
        n_steps: int | None = None,
        internal_batch_size: int | None = None,
        attribute_to_layer_input: bool = False,
        feature_mask: TensorOrTuple | None = None,
        show_progress: bool = False,
    ) -> list[LayerScores]:
        """Scores every position of the layer for several targets of each example.

        See :meth:`captum_aml.attr.AMLAttribution.attribute_each`.

        Args:
            inputs (Tensor or tuple[Tensor, ...]): As for :meth:`attribute`.
            targets (list or Tensor): T targets, each in a form that :meth:`attribute` takes, or a
                tensor (N, T) of classes.
            foils (list or Tensor, optional): The foil of each target, None in the list where it has
                none. Default: None, no foils
            baselines (scalar, Tensor, tuple of scalar or Tensor, optional): As for
                :meth:`attribute`, like the arguments after it. Default: None
            additional_forward_args (Any, optional): Default: None
            n_steps (int, optional): Default: 0 with a fitted masker, otherwise 16
            internal_batch_size (int, optional): Default: None
            attribute_to_layer_input (bool, optional): Default: False
            feature_mask (Tensor or tuple[Tensor, ...], optional): Default: None
            show_progress (bool, optional): Default: False

        Returns:
            list: the attributions for each of the T targets.

        Raises:
            InvalidInputError, LayerNotReachedError: As for :meth:`attribute`.
            NoGradientError, NonFiniteError, NotFittedError: As for :meth:`attribute`.
        """
        (target, foil), *others = parse_targets(targets, foils)
        _, results = self._explain(
            self._site(at_input=attribute_to_layer_input),
            (inputs, baselines, target, additional_forward_args, feature_mask, foil),
            targets=others,
            n_steps=n_steps,
            internal_batch_size=internal_batch_size,
            show_progress=show_progress,
        )
        return [self._by_layer(result) for result in results]

    def _by_layer(self, result: AttributionResult) -> LayerScores:
        """Attributions in the form of the layers."""
        rest = iter(result.attributions)
        by_layer: list[TensorOrTuple] = []
        for size in result.sizes:
            tensors = tuple(itertools.islice(rest, size))
            by_layer.append(tensors if size > 1 else tensors[0])
        return by_layer if isinstance(self.layer, list) else by_layer[0]


accept(LLMGradientAttribution, LayerMaskAttribution)
