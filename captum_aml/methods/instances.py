"""A Captum attribution that somebody has made, called as all methods here are."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import nullcontext

import torch
from captum.attr import (
    Attribution,
    FeatureAblation,
    FeaturePermutation,
    InternalInfluence,
    KernelShap,
    LayerActivation,
    LayerConductance,
    LayerDeepLift,
    LayerDeepLiftShap,
    LayerFeaturePermutation,
    LayerGradientShap,
    LayerGradientXActivation,
    LayerIntegratedGradients,
    NoiseTunnel,
    Occlusion,
    PerturbationAttribution,
)
from torch import Tensor, nn

from captum_aml._captum import GradientAttribution, LayerAttribution, without_hook_traces
from captum_aml._utils.checks import as_count
from captum_aml._utils.isolation import seeded
from captum_aml.attr.base import MaskAttribution
from captum_aml.exceptions import InvalidInputError
from captum_aml.masking.call import Call
from captum_aml.masking.forward import forwarded_args
from captum_aml.methods.adapter import (
    Adapter,
    classes_of,
    count_groups,
    examples_of,
    group_sums,
    groups_of,
    logits_of,
    maskable_of,
    shares,
)
from captum_aml.methods.learned import mask_settings, rows_of
from captum_aml.methods.registry import MethodSpec, ScoreMeaning, Setting, TokenMethod
from captum_aml.readout import output_tensor
from captum_aml.typing import ForwardFunc

# What an argument that counts steps or samples may be called.
_STEPS = ("n_steps", "n_samples")
# What takes features, by the name of the argument. A layer's features have channels.
_FEATURES = ("feature_mask", "layer_mask")
# Those whose examples do not depend on each other; others are given one at a time.
_TOGETHER = (
    LayerIntegratedGradients,
    LayerGradientXActivation,
    LayerActivation,
    MaskAttribution,
)
# Why a class cannot explain ids, the first that fits, and what can.
_REFUSED: tuple[tuple[type | tuple[type, ...], str, str], ...] = (
    (NoiseTunnel, "adds noise to its inputs, and ids are no quantities", "method 'smooth-grad'"),
    (
        (LayerGradientShap, LayerConductance, InternalInfluence),
        "goes through values between the inputs and the baselines, and between ids there are none",
        "LayerIntegratedGradients, or method 'gradient-shap'",
    ),
    (LayerDeepLiftShap, "takes many baselines for each text", "LayerDeepLift"),
    (
        (FeaturePermutation, LayerFeaturePermutation),
        "takes what it replaces from other texts of the batch",
        "FeatureAblation",
    ),
)
# What to use at the embedding layer instead of a class that takes gradients of its inputs.
_AT_EMBEDDINGS = {
    "IntegratedGradients": "LayerIntegratedGradients at the embedding layer",
    "InputXGradient": "LayerGradientXActivation at the embedding layer",
    "DeepLift": "LayerDeepLift at the embedding layer",
    "DeepLiftShap": "LayerDeepLift at the embedding layer",
    "LRP": "LayerLRP",
    "Saliency": "method 'saliency'",
    "GradientShap": "method 'gradient-shap'",
}
# The arguments that `attribute` may have: a token method knows them all.
_KNOWN = ("inputs", "baselines", "target", "additional_forward_args", "sliding_window_shapes")


class AttributionMethod(Adapter):
    """A token method by a Captum attribution instance.

    For instance ``AttributionMethod(LayerIntegratedGradients(predict, model.bert.embeddings))``.
    Its scores are what ``attribute`` gives for the ids, summed over channels, 0 where there is
    nothing to explain. Of a token method's arguments ``attribute`` gets those that it takes, and
    the attribution's own forward function those that it takes. What is explained is the output of
    that function: of one that gives a value per example, this value, whatever the target.

    Groups of tokens are features to classes that take a ``feature_mask``, as are tokens where
    there are no groups; of other classes they have the sum of their tokens' scores.

    Args:
        attribution: A layer method at the embedding layer, a perturbation method, or one of this
            package's.
        forward_func: The function that the token method's ``additional_forward_args`` are for,
            such as a ``TextClassifier``; where no target is given its prediction is explained.
            Default: None, the attribution's own.
        n_steps (int, optional): Steps or samples. Default: None, the class's own number.
        seed: Seed of everything random; this package's attributions have their own. Default: 0.
        batch_size: The most examples in one pass where many variants are made. Default: 32.

    Attributes:
        last_outputs: The output of ``forward_func`` for the last call's texts (N, C), if it ran on
            them.

    Raises:
        InvalidInputError: The attribution is no instance of Captum's, or cannot explain ids; or
            it has no steps to choose.
    """

    def __init__(
        self,
        attribution: Attribution,
        forward_func: ForwardFunc | None = None,
        *,
        n_steps: int | None = None,
        seed: int = 0,
        batch_size: int = 32,
    ) -> None:
        _check_explains_ids(attribution)
        self.attribution = attribution
        self._forward_func = forward_func
        self._seed = as_count("seed", seed)
        self._batch_size = as_count("batch_size", batch_size, least=1)
        self._takes = dict(inspect.signature(attribution.attribute).parameters)
        # What its argument for steps or samples is called, if it has one.
        self._counts = next((name for name in _STEPS if name in self._takes), None)
        if n_steps is not None:
            if self._counts is None:
                raise InvalidInputError(
                    f"n_steps: {type(attribution).__name__} has no steps or samples to choose"
                )
            least = 0 if isinstance(attribution, MaskAttribution) else 1
            n_steps = as_count("n_steps", n_steps, least=least)
        self._n_steps = n_steps
        self.gradients = not isinstance(attribution, PerturbationAttribution)
        self.last_outputs: Tensor | None = None
        self._output_shape: tuple[int, ...] | None = None

    @property
    def signed(self) -> bool:
        """Whether scores can be for and against the class; else they are in [0, 1]."""
        return self.meaning.signed

    @property
    def meaning(self) -> ScoreMeaning:
        """What the scores say."""
        if isinstance(self.attribution, MaskAttribution):
            return mask_meaning(self.attribution, "output")
        meaning = ScoreMeaning(score="attribution to the output of the explained class")
        shape = self._output_shape  # known after the first call
        return meaning if shape is None or shape[1:] not in ((), (1,)) else meaning.of_value()

    @property
    def settings(self) -> Mapping[str, Setting]:
        """Everything that decides the scores, to be recorded with them."""
        name = {"attribution": type(self.attribution).__name__}
        if isinstance(self.attribution, MaskAttribution):
            return {**name, **mask_settings(self.attribution, self._n_steps)}
        steps = {}
        if self._counts is not None:
            own = self._takes[self._counts].default if self._n_steps is None else self._n_steps
            steps[self._counts] = own if isinstance(own, int) else None
        return {**name, **steps, "seed": self._seed}

    def _scores(self, call: Call) -> Tensor:
        self.last_outputs = None
        given = call.additional_forward_args
        function = self.attribution.forward_func
        call = call.with_args(forwarded_args(given, self._forward_func, function))
        scores = torch.zeros(call.inputs[0].shape, device=call.inputs[0].device)
        if not maskable_of(call).any():
            return scores
        classes = self._classes(call, given)
        for rows, part in self._parts(call):
            if maskable_of(part).any():
                chosen = None if classes is None else classes[rows]
                scores[rows] = self._attributed(part, chosen).detach().to(scores)
        if self._predicts_itself and isinstance(self.attribution, MaskAttribution):
            self.last_outputs = self.attribution.last_outputs_
        return scores

    def _parts(self, call: Call) -> Iterator[tuple[slice, Call]]:
        """The calls that go through ``attribute`` together."""
        if isinstance(self.attribution, _TOGETHER) and self._outputs(call) is not None:
            yield slice(None), call
        else:
            for row, example in enumerate(examples_of(call)):
                yield slice(row, row + 1), example

    def _outputs(self, call: Call) -> tuple[int, ...] | None:
        """The shape of what the forward function gives for an example; None if for all at once."""
        if self._output_shape is None:
            example = next(examples_of(call))
            with torch.no_grad():
                output = self.attribution.forward_func(
                    *example.inputs, *example.additional_forward_args
                )
            if isinstance(output, int | float):
                output = torch.tensor(output)
            if isinstance(self.attribution, MaskAttribution):
                output = output_tensor(output)  # which reads the outputs of transformers, too
            if not isinstance(output, Tensor):
                raise InvalidInputError(
                    "attribution: expected a forward function that gives a tensor, got one that "
                    f"gives {type(output).__name__}; make the attribution with a function that "
                    "returns its logits, a text model such as TextClassifier for instance"
                )
            self._output_shape = tuple(output.shape)
        return self._output_shape[1:] if self._output_shape else None

    def _classes(self, call: Call, args: tuple[object, ...]) -> Tensor | None:
        """The target of each example (N,), or None for outputs without classes.

        Args:
            call: The call of the attribution.
            args: The further arguments that this method was given.
        """
        shape = self._outputs(call)
        if not shape:
            return None
        if len(shape) > 1:
            raise InvalidInputError(
                "attribution: expected a forward function that gives (N, C) or (N,), got one that "
                f"gives (N, {', '.join(map(str, shape))})"
            )
        if shape[0] == 1:
            return torch.zeros(call.n_examples, dtype=torch.long, device=call.inputs[0].device)
        if call.target is not None:
            classes = classes_of(call)
            if int(classes.max()) >= shape[0]:
                raise InvalidInputError(
                    f"target: expected classes from 0 to {shape[0] - 1}, got {int(classes.max())}"
                )
            return classes
        if self._predicts_itself and isinstance(self.attribution, MaskAttribution):
            return None  # which stands for the predicted class
        predicts, known = self.attribution.forward_func, call.additional_forward_args
        if self._forward_func is not None:
            predicts, known = self._forward_func, args
        with torch.no_grad():
            self.last_outputs = logits_of(predicts)(*call.inputs, *known)
        return self.last_outputs.argmax(dim=-1)

    @property
    def _predicts_itself(self) -> bool:
        """Whether the attribution's own forward function is the one that predicts."""
        return self._forward_func is None or self._forward_func is self.attribution.forward_func

    def _attributed(self, call: Call, classes: Tensor | None) -> Tensor:
        """Scores (N, L)."""
        attribution = self.attribution
        if isinstance(attribution, KernelShap) and count_groups(groups_of(call)) == 1:
            # Captum's sampling of coalitions has none to draw from. The Shapley value of a single
            # feature is the whole difference.
            attribution = FeatureAblation(attribution.forward_func)
        named = {
            "baselines": call.baselines[0],
            "target": classes,
            "additional_forward_args": call.additional_forward_args,
            **self._features(call),
            **({self._counts: self._n_steps} if self._counts and self._n_steps is not None else {}),
            **self._sizes(call),
        }
        takes = inspect.signature(attribution.attribute).parameters
        model = attribution.forward_func
        leaves_traces = isinstance(attribution, LayerDeepLift) and isinstance(model, nn.Module)
        with seeded(self._seed), without_hook_traces(model) if leaves_traces else nullcontext():
            result = attribution.attribute(
                call.inputs[0], **{name: value for name, value in named.items() if name in takes}
            )
        by_token = _by_token(result, call.inputs[0], shares_channels="layer_mask" in takes)
        # Of ours a group's contribution is shared out among its tokens.
        whole = not (isinstance(attribution, MaskAttribution) and attribution.multiplies_by_inputs)
        by_group = whole and self._takes.keys() & set(_FEATURES)
        return by_token if by_group else group_sums(by_token, call)

    def _features(self, call: Call) -> dict[str, Tensor | None]:
        """The argument that groups tokens into features, whatever its name."""
        groups = groups_of(call)
        if isinstance(self.attribution, Occlusion) and shares(groups):
            raise InvalidInputError(
                "feature_mask: expected None for Occlusion, which moves a window over the tokens; "
                "use FeatureAblation"
            )
        if isinstance(self.attribution, PerturbationAttribution):
            return {
                # Nothing changes where there is nothing to explain: any feature will do there.
                "feature_mask": groups.clamp(min=0),
                # At a layer there is no such place: they are a feature of their own.
                "layer_mask": groups[..., None] + 1,
            }
        return {"feature_mask": groups if shares(groups) else None}

    def _sizes(self, call: Call) -> dict[str, object]:
        """The batch size, and arguments that Captum has no default for."""
        sizes: dict[str, object] = {"sliding_window_shapes": (1,)}
        # A value for all examples at once cannot be taken apart into variants.
        at_once = self._batch_size if self._outputs(call) is not None else 1
        if isinstance(self.attribution, MaskAttribution):
            sizes["internal_batch_size"] = rows_of(call, self._batch_size)
        else:
            sizes["perturbations_per_eval"] = at_once
            sizes["internal_batch_size"] = max(at_once, call.n_examples)
        return sizes


def mask_meaning(attribution: MaskAttribution, quantity: str) -> ScoreMeaning:
    """What the scores of one of this package's attributions say.

    Args:
        attribution: The attribution.
        quantity: What its forward function gives for a class.
    """
    meaning = ScoreMeaning(score=f"contribution to the {quantity} of the explained class")
    if attribution.scores == "mask":
        meaning = ScoreMeaning(signed=False, score="value of the mask for the explained class")
    is_value = "value" in (attribution.output, attribution.output_)
    return meaning.of_value() if is_value else meaning


def score_meaning(method: TokenMethod, entry: MethodSpec | None = None) -> ScoreMeaning:
    """What the scores of a method that was made say.

    Args:
        method: The method. What it says itself in ``meaning`` comes first.
        entry: Its entry in the registry. Default: None, there is none.
    """
    own = getattr(method, "meaning", None)
    if isinstance(own, ScoreMeaning):
        return own
    attribution = getattr(method, "attribution", None)
    if isinstance(attribution, MaskAttribution):
        return mask_meaning(attribution, "logit")  # which by their names methods explain
    if entry is not None:
        output = getattr(method, "output", None)
        if output == "log_odds":
            return entry.meaning.of_log_odds()
        return entry.meaning.of_value() if output == "value" else entry.meaning
    return ScoreMeaning(signed=bool(getattr(method, "signed", True)))


def _by_token(result: object, ids: Tensor, *, shares_channels: bool) -> Tensor:
    """Scores (N, L) from what ``attribute`` gave.

    Args:
        result: What it gave.
        ids: Token ids (N, L).
        shares_channels: Whether a token's channels are one feature, whose score each of them has.
    """
    if not isinstance(result, Tensor):
        count = f" of {len(result)}" if isinstance(result, tuple | list) else ""
        raise InvalidInputError(
            "attribution: expected attributions as one tensor, from one layer that gives one, got "
            f"a {type(result).__name__}{count}"
        )
    if result.dim() not in (2, 3) or result.shape[:2] != ids.shape:
        n, length = ids.shape
        raise InvalidInputError(
            f"attribution: expected attributions of shape ({n}, {length}) or ({n}, {length}, "
            f"channels) for ids of shape ({n}, {length}), got {tuple(result.shape)}; attribute to "
            "the layer that embeds the ids"
        )
    if result.dim() == 2:
        return result
    return result.mean(dim=-1) if shares_channels else result.sum(dim=-1)


def _check_explains_ids(attribution: object) -> None:
    """Checks that an attribution can explain token ids.

    Raises:
        InvalidInputError: It is no instance of a Captum attribution, or of one that cannot; the
            message says what can instead.
    """
    if isinstance(attribution, type) and issubclass(attribution, Attribution):
        raise InvalidInputError(
            f"attribution: expected an instance, got the class {attribution.__name__}; make one "
            "with the forward function, and the layer where it takes one"
        )
    if not isinstance(attribution, Attribution):
        raise InvalidInputError(
            "attribution: expected an instance of a Captum attribution, got "
            f"{type(attribution).__name__}"
        )
    name = type(attribution).__name__
    parameters = inspect.signature(attribution.attribute).parameters
    named = [p for p in parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    needs = [p.name for p in named if p.default is p.empty and p.name not in _KNOWN]
    if "inputs" not in parameters or needs:
        raise InvalidInputError(
            f"attribution: expected one that explains inputs and needs nothing else, got {name}, "
            f"which needs {', '.join(needs)}"
        )
    for kind, reason, instead in _REFUSED:
        if isinstance(attribution, kind):
            raise InvalidInputError(
                f"attribution: expected one that explains token ids, got {name}, which {reason}; "
                f"use {instead}"
            )
    at_inputs = isinstance(attribution, GradientAttribution) and not isinstance(
        attribution, LayerAttribution
    )
    # A user's own class may well find the embeddings by itself, as ours do.
    if at_inputs and type(attribution).__module__.startswith("captum."):
        instead = _AT_EMBEDDINGS.get(name, "LayerIntegratedGradients at the embedding layer")
        raise InvalidInputError(
            f"attribution: expected one that explains token ids, got {name}, which takes gradients "
            f"of its inputs, and ids have none; use {instead}"
        )
