"""Attribution to a forward function's inputs: floats directly, ids where they are embedded."""

from __future__ import annotations

from typing import Any, Literal, overload

from torch import Tensor, nn
from typing_extensions import Unpack

from captum_aml import attr
from captum_aml._captum import LLMAttribution, accept, log_usage
from captum_aml.attr.base import MaskAttribution
from captum_aml.attr.explain import AttributionResult
from captum_aml.attr.settings import AttributionOptions
from captum_aml.exceptions import InvalidInputError
from captum_aml.masking.call import Call, parse_targets
from captum_aml.masking.forward import find_embedding_layer
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
    """Attribution by a learned mask over the inputs; the final classes name the objective.

    Captum's ``LLMAttribution`` takes them: what it explains is not differentiable, and they explain
    the same prompt and target as :class:`~captum_aml.attr.LLMAMLAttribution` does.
    """

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

    def _call(self, *arguments: Any, **named: Any) -> Call:
        # Only a known embedding layer says that integers are ids; otherwise they are numbers.
        known = self.embedding_layers or find_embedding_layer(self.forward_func) is not None
        return super()._call(*arguments, **named, integers_are_ids=bool(known))

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
        foil: Target = ...,
        show_progress: bool = ...,
        skip_tokens: object = ...,
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
        foil: Target = ...,
        show_progress: bool = ...,
        skip_tokens: object = ...,
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
        foil: Target = None,
        show_progress: bool = False,
        skip_tokens: object = None,
    ) -> TensorOrTuple | tuple[TensorOrTuple, Tensor]:
        """Scores every token by its contribution to the output, or by its mask.

        The arguments up to ``return_convergence_delta`` are those of
        :meth:`captum.attr.IntegratedGradients.attribute`, in its order.

        Args:
            inputs (Tensor or tuple[Tensor, ...]): Integer ids (N, ...), which need an embedding
                layer, or numbers (N, ...), with N examples along dimension 0. Integers are ids
                where ``embedding_layer`` is given or the model's ``get_input_embeddings`` names
                one, otherwise numbers, which the forward function gets as floating point values.
            baselines (scalar, Tensor, tuple of scalar or Tensor, optional): What a removed token is
                replaced with, in every form that Captum takes. Positions that equal their baseline
                are not masked and score 0. Default: None, which stands for 0
            target (int, tuple, Tensor or list, optional): Index of the output, in every form that
                Captum takes. Default: None, the predicted class of each example
            additional_forward_args (Any, optional): Further positional arguments of the forward
                function; tensors have N examples along dimension 0. Default: None
            n_steps (int, optional): Passes of the forward function, forward and backward, for each
                example: masks of the averaged mask gradient (in pairs: an odd number is rounded
                up; ``n_steps + 2`` forward passes refine it), or tuning steps with a fitted masker
                or ``tune=``; 0 takes the fitted masker's proposal as it is. Default: 0 with a
                fitted masker, otherwise 16
            method (str, optional): Taken as Captum's methods take it, whatever it is, and without
                effect: no integral is approximated. Default: gausslegendre
            internal_batch_size (int, optional): The most rows of a forward call. Default: None,
                all at once: at most ``n_steps + 2`` times the number of examples
            return_convergence_delta (bool, optional): Whether to return the scores' sum minus
                ``F(inputs) - F(baselines)`` too. Default: False
            feature_mask (Tensor or tuple[Tensor, ...], optional): Integer group ids: elements of
                one group share a mask value and a score, those that equal their baseline too.
                Default: None
            foil (int, tuple, Tensor or list, optional): What the target is held against, in the
                forms of ``target``: explained is why a and not b, the log-odds of a against b, of
                classes their ``z_a - z_b``; see :mod:`captum_aml.readout`. A masker that was fitted
                on ``contrasts`` is told both; of any other it is the difference of what it says of
                a and of b. Default: None
            show_progress (bool, optional): Whether to show a progress bar. Default: False
            skip_tokens (list, optional): Taken from calls of ``LLMAttribution`` written for Captum
                before 0.9, and without effect: a target's special tokens are left out anyway.
                Default: None

        Returns:
            **attributions**, or the pair of **attributions** and **delta**:

            - attributions (Tensor or tuple[Tensor, ...]): one score per id, or scores in the shape
              and dtype of float inputs (float32 for half precision, as Captum's own). Of (N, L, D)
              a token's score is spread evenly over its D channels, so that the sum over the last
              dimension gives it. Signed contributions, whose sum is ``F(inputs) - F(baselines)``;
              with ``scores="mask"`` in [0, 1], higher is more important. With a foil ``F`` is the
              log-odds.
            - delta (Tensor): (N,).

        Raises:
            InvalidInputError: An argument is not as described; the message names it.
            NoGradientError: The forward function cannot be differentiated (when tuning).
            NonFiniteError: The forward function gave NaN or an infinite value.
            NotFittedError: ``n_steps=0``, or ``tune="masker"``, without a fitted masker.
        """
        llm = getattr(self.forward_func, "__self__", None)
        if isinstance(llm, LLMAttribution):
            if not (baselines is target is feature_mask is None):
                raise InvalidInputError(
                    "baselines, target, feature_mask: expected None inside LLMAttribution, whose "
                    "input has them"
                )
            assert isinstance(additional_forward_args, tuple)
            # By the package's face, since what explains prompts is built on the classes here.
            return attr.LLMAMLAttribution.inside(
                llm,
                self,
                *additional_forward_args[:2],
                n_steps=n_steps,
                internal_batch_size=internal_batch_size,
                show_progress=show_progress,
            )
        call, (result,) = self._explain(
            self._site(),
            (inputs, baselines, target, additional_forward_args, feature_mask, foil),
            n_steps=n_steps,
            internal_batch_size=internal_batch_size,
            with_delta=return_convergence_delta,
            show_progress=show_progress,
        )
        attributions = _as_given(call, result)
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
        feature_mask: TensorOrTuple | None = None,
        show_progress: bool = False,
    ) -> list[TensorOrTuple]:
        """Scores every token for several targets of each example.

        The result for a target is what :meth:`attribute` gives for it alone. The forward passes are
        those of one target: without a fitted masker each mask is run once, with a backward pass for
        each target, and a fitted masker proposes for all of them from one pass of the model. Only
        tuning takes one target after the other.

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
            feature_mask (Tensor or tuple[Tensor, ...], optional): Default: None
            show_progress (bool, optional): Default: False

        Returns:
            list: the attributions for each of the T targets.

        Raises:
            InvalidInputError: An argument is not as described; the message names it.
            NoGradientError, NonFiniteError, NotFittedError: As for :meth:`attribute`.
        """
        (target, foil), *others = parse_targets(targets, foils)
        call, results = self._explain(
            self._site(),
            (inputs, baselines, target, additional_forward_args, feature_mask, foil),
            targets=others,
            n_steps=n_steps,
            internal_batch_size=internal_batch_size,
            show_progress=show_progress,
        )
        return [_as_given(call, result) for result in results]


def _as_given(call: Call, result: AttributionResult) -> TensorOrTuple:
    """Attributions in the form of the call's inputs."""
    return result.attributions if call.is_tuple else result.attributions[0]


accept(LLMAttribution, InputMaskAttribution)
