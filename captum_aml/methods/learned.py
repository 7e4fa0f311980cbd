"""The methods that learn a mask over the tokens: AML and LA."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from captum_aml._utils.isolation import evaluating
from captum_aml.attr import AMLAttribution, LAAttribution
from captum_aml.attr.base import MaskAttribution
from captum_aml.exceptions import InvalidInputError
from captum_aml.masking.attention import taken_removal
from captum_aml.masking.call import Call
from captum_aml.masking.forward import argument_named, underlying_model
from captum_aml.methods.adapter import Adapter, classes_of, groups_of, maskable_of, shares
from captum_aml.methods.registry import Factory, MethodOptions, MethodSpec, Setting, register
from captum_aml.perturbation import AttentionRemoval
from captum_aml.typing import ForwardFunc

_TokenMask: TypeAlias = AMLAttribution | LAAttribution

#: Of a method that can use a fitted masker, and of one that cannot do without.
_MAY: dict[str, Any] = {"takes_masker": True}
_MUST: dict[str, Any] = {"takes_masker": True, "requires_masker": True}


@dataclass(eq=False)
class MaskMethod(Adapter):
    """An attribution that learns a mask, called as all methods are.

    Attributes:
        attribution: The Captum-style attribution.
        n_steps: Tuning steps; None for the attribution's own choice.
        settings: What is recorded.
        through_attention: Whether tokens are removed through attention, in the way that the first
            call finds the model to take.
    """

    attribution: _TokenMask
    n_steps: int | None
    settings: Mapping[str, Setting]
    through_attention: bool

    @property
    def last_outputs(self) -> Tensor | None:
        """Logits (N, C) of the last call's texts, if it ran the model on them as they are."""
        return self.attribution.last_outputs_

    def _scores(self, call: Call) -> Tensor:
        if self.through_attention and not isinstance(
            self.attribution.perturbation, AttentionRemoval
        ):
            if not bool(maskable_of(call).any()):
                self.attribution.last_outputs_ = None
                return torch.zeros(call.inputs[0].shape, device=call.inputs[0].device)
            self.attribution.perturbation = _removal(self.attribution.forward_func, call)
        groups = groups_of(call)
        scores = self.attribution.attribute(
            call.inputs[0],
            baselines=call.baselines[0],
            target=None if call.target is None else classes_of(call),
            additional_forward_args=call.additional_forward_args,
            # What is not maskable has a group of its own there, so that it counts for no other.
            feature_mask=groups if shares(groups) else None,
            n_steps=self.n_steps,
        )
        assert isinstance(scores, Tensor)
        return scores


def _removal(function: ForwardFunc, call: Call) -> AttentionRemoval:
    """The removal of tokens through attention that a model takes.

    Raises:
        InvalidInputError: It takes none.
    """
    (ids,), args = call.inputs, call.additional_forward_args
    mask = argument_named(function, (ids,), args, "attention_mask")
    places = [i for i, arg in enumerate(args) if arg is mask and isinstance(arg, Tensor)]
    removal = None
    if places:
        model = underlying_model(function)
        # With dropout one pass would differ from another.
        with nullcontext() if model is None else evaluating(model):
            removal = taken_removal(function, ids, maskable_of(call), args, places[0])
    if removal is None:
        raise InvalidInputError(
            "forward_func: expected a model that takes an additive attention mask, so that "
            "tokens can be removed through attention; use the method without '-attention'"
        )
    return removal


def mask_settings(attribution: MaskAttribution, n_steps: int | None) -> dict[str, Setting]:
    """The settings of an attribution by a learned mask, as plain values.

    Args:
        attribution: The attribution.
        n_steps: Tuning steps; None for its own choice.
    """
    masker = attribution.masker if attribution.masker_ is None else attribution.masker_
    return {
        "n_steps": attribution.default_n_steps if n_steps is None else n_steps,
        "tune": attribution.tune,
        "learning_rate": attribution.tuning_learning_rate,
        "objective": repr(attribution.objective),
        "perturbation": attribution.perturbation.name,
        "masker": None if masker is None else type(masker).__name__,
        "seed": attribution.seed,
    }


def _factory(
    attribution_class: type[AMLAttribution] | type[LAAttribution],
    default_n_steps: int | None,
    tune: Literal["mask", "masker"] = "mask",
    *,
    through_attention: bool = False,
) -> Factory:
    """Makes the factory of a name.

    Args:
        attribution_class: What it makes.
        default_n_steps: Tuning steps where the caller names none; None for the attribution's own
            choice.
        tune: What is tuned.
        through_attention: Whether tokens are removed through attention.
    """

    def factory(
        forward_func: ForwardFunc, embedding_layer: nn.Module, options: MethodOptions
    ) -> MaskMethod:
        masker = options.masker
        name: str | None = None
        attribution: _TokenMask
        made: dict[str, Any] = {
            "embedding_layer": embedding_layer,
            "output": "logits",
            "tune": tune,
            "seed": options.seed,
        }
        if isinstance(masker, str | os.PathLike):
            name = os.fspath(masker)
            attribution = attribution_class.from_pretrained(name, forward_func, **made)
        elif isinstance(masker, AMLAttribution | LAAttribution):
            if type(masker) is not attribution_class:
                raise InvalidInputError(
                    f"masker: expected a fitted {attribution_class.__name__}, got a "
                    f"{type(masker).__name__}"
                )
            name = type(masker.masker_).__name__
            attribution = copy.copy(masker)
            attribution.tune, attribution.seed = tune, options.seed
        else:
            name = None if masker is None else type(masker).__name__
            attribution = attribution_class(forward_func, masker=masker, **made)
        n_steps = default_n_steps if options.n_steps is None else options.n_steps
        settings = {**mask_settings(attribution, n_steps), "masker": name}
        if through_attention:
            settings["perturbation"] = "attention"
        return MaskMethod(attribution, n_steps, settings, through_attention)

    return factory


def _register(
    name: str,
    attribution_class: type[AMLAttribution] | type[LAAttribution],
    summary: str,
) -> None:
    """Registers an attribution: as it comes, tuned in either form, and without a masker.

    The second and the last say by their names what the first does with ``n_steps`` and ``masker``.
    """
    factory = partial(_factory, attribution_class)
    tuned = f"{name}, tuned for each text"
    for suffix, what, made, steps, uses in (
        ("", summary, factory(None), "0 with a fitted masker, else 50", _MAY),
        ("-tuned", f"{tuned} from the fitted masker's proposal", factory(10), "10", _MUST),
        (
            "-tuned-masker",
            f"{name}, the fitted masker itself tuned for each text",
            factory(10, "masker"),
            "10",
            _MUST,
        ),
        ("-free", f"{tuned} without a masker", factory(50), "50", {}),
        (
            "-free-attention",
            f"{name} without a masker, removing tokens through attention",
            factory(50, through_attention=True),
            "50",
            {},
        ),
    ):
        register(
            MethodSpec(
                f"{name}{suffix}",
                what,
                made,
                family="learned",
                signed=False,
                steps=f"tuning steps ({steps})",
                **uses,
            )
        )


_register(
    "aml",
    AMLAttribution,
    "attributive masking learning: the least to keep that preserves the prediction",
)
_register(
    "la",
    LAAttribution,
    "learned attribution: the least to remove that changes the prediction",
)
