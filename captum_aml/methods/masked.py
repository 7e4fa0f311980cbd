"""The methods that learn a mask over the tokens: AML and LA."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from captum_aml._utils.modules import evaluating
from captum_aml.attr import AMLAttribution, LAAttribution
from captum_aml.attr.base import MaskAttribution
from captum_aml.exceptions import InvalidInputError
from captum_aml.masking.attention import taken_removal
from captum_aml.masking.forward import argument_named, underlying_model
from captum_aml.methods._inputs import parse_groups, shares
from captum_aml.methods.registry import Factory, MethodOptions, MethodSpec, Setting
from captum_aml.perturbation import AttentionRemoval
from captum_aml.typing import ForwardFunc

_TokenMask: TypeAlias = AMLAttribution | LAAttribution


@dataclass(frozen=True)
class MaskMethod:
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
    through_attention: bool = False

    @property
    def last_outputs(self) -> Tensor | None:
        """Logits (N, C) of the last call's texts, if it ran the model on them as they are."""
        return self.attribution.last_outputs_

    def __call__(
        self,
        ids: Tensor,
        reference_ids: Tensor,
        *,
        target: Tensor | int | None = None,
        additional_forward_args: tuple[object, ...] = (),
        feature_mask: Tensor | None = None,
    ) -> Tensor:
        """See ``TokenMethod``."""
        groups = None
        if feature_mask is not None:
            # What is not explained has a group of its own there, so that it counts for no other.
            groups = parse_groups(ids, reference_ids, feature_mask)
            groups = groups if shares(groups) else None
        if self.through_attention and not isinstance(
            self.attribution.perturbation, AttentionRemoval
        ):
            if not bool((ids != reference_ids).any()):
                self.attribution.last_outputs_ = None
                return torch.zeros(ids.shape, device=ids.device)
            self._choose_removal(ids, reference_ids, additional_forward_args)
        scores = self.attribution.attribute(
            ids,
            baselines=reference_ids,
            target=target,
            additional_forward_args=additional_forward_args,
            feature_mask=groups,
            n_steps=self.n_steps,
        )
        assert isinstance(scores, Tensor)
        return scores.detach().float()

    def _choose_removal(self, ids: Tensor, reference_ids: Tensor, args: tuple[object, ...]) -> None:
        function = self.attribution.forward_func
        mask = argument_named(function, (ids,), args, "attention_mask")
        places = [i for i, arg in enumerate(args) if arg is mask and isinstance(arg, Tensor)]
        removal = None
        if places:
            model = underlying_model(function)
            # Dropout would tell one pass from another.
            with torch.inference_mode(False), nullcontext() if model is None else evaluating(model):
                removal = taken_removal(
                    function, ids.clone(), ids != reference_ids, _cloned(args), places[0]
                )
        if removal is None:
            raise InvalidInputError(
                "forward_func: expected a model that takes an additive attention mask, so that "
                "tokens can be removed through attention; use the method without '-attention'"
            )
        self.attribution.perturbation = removal


def mask_settings(attribution: MaskAttribution, n_steps: int | None) -> dict[str, Setting]:
    """What decides the scores of an attribution by a learned mask, as plain values.

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


def _cloned(args: tuple[object, ...]) -> tuple[object, ...]:
    """Tensors that may take part in a graph, whatever mode they were made in."""
    return tuple(arg.clone() if isinstance(arg, Tensor) else arg for arg in args)


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
        if isinstance(masker, str | os.PathLike):
            name = os.fspath(masker)
            attribution = attribution_class.from_pretrained(
                name,
                forward_func,
                embedding_layer=embedding_layer,
                output="logits",
                tune=tune,
                seed=options.seed,
            )
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
            attribution = attribution_class(
                forward_func,
                embedding_layer=embedding_layer,
                masker=masker,
                output="logits",
                tune=tune,
                seed=options.seed,
            )
        n_steps = default_n_steps if options.n_steps is None else options.n_steps
        settings = {**mask_settings(attribution, n_steps), "masker": name}
        if through_attention:
            settings["perturbation"] = "attention"
        return MaskMethod(attribution, n_steps, settings, through_attention)

    return factory


def _specs(
    name: str,
    attribution_class: type[AMLAttribution] | type[LAAttribution],
    summary: str,
) -> tuple[MethodSpec, ...]:
    """An attribution's entries: as it comes, tuned in either form, and without a masker.

    The second and the last say by their names what the first does with ``n_steps`` and ``masker``.
    """
    return (
        MethodSpec(
            name=name,
            summary=summary,
            factory=_factory(attribution_class, None),
            family="learned",
            signed=False,
            steps="tuning steps (0 with a fitted masker, else 50)",
            takes_masker=True,
        ),
        MethodSpec(
            name=f"{name}-tuned",
            summary=f"{name}, tuned for each text from the fitted masker's proposal",
            factory=_factory(attribution_class, 10),
            family="learned",
            signed=False,
            steps="tuning steps (10)",
            takes_masker=True,
            requires_masker=True,
        ),
        MethodSpec(
            name=f"{name}-tuned-masker",
            summary=f"{name}, the fitted masker itself tuned for each text",
            factory=_factory(attribution_class, 10, "masker"),
            family="learned",
            signed=False,
            steps="tuning steps (10)",
            takes_masker=True,
            requires_masker=True,
        ),
        MethodSpec(
            name=f"{name}-free",
            summary=f"{name}, tuned for each text without a masker",
            factory=_factory(attribution_class, 50),
            family="learned",
            signed=False,
            steps="tuning steps (50)",
        ),
        MethodSpec(
            name=f"{name}-free-attention",
            summary=f"{name} without a masker, removing tokens through attention",
            factory=_factory(attribution_class, 50, through_attention=True),
            family="learned",
            signed=False,
            steps="tuning steps (50)",
        ),
    )


METHODS = (
    *_specs(
        "aml",
        AMLAttribution,
        "attributive masking learning: the least to keep that preserves the prediction",
    ),
    *_specs(
        "la",
        LAAttribution,
        "learned attribution: the least to remove that changes the prediction",
    ),
)
