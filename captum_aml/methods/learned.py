"""The methods that learn a mask over the tokens: AML and LA."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from captum_aml.attr import AMLAttribution, LAAttribution
from captum_aml.attr.base import MaskAttribution
from captum_aml.attr.explain import TuneKind
from captum_aml.exceptions import InvalidInputError
from captum_aml.masking.call import Call
from captum_aml.methods.adapter import Adapter, classes_of, group_sums, groups_of, shares
from captum_aml.methods.contrast import ContrastForward, own_difference
from captum_aml.methods.registry import Factory, MethodOptions, MethodSpec, Setting, register
from captum_aml.typing import ForwardFunc, Target

_TokenMask: TypeAlias = AMLAttribution | LAAttribution


@dataclass(eq=False)
class MaskMethod(Adapter):
    """An attribution that learns a mask, called as all methods are.

    Attributes:
        attribution: The Captum-style attribution.
        n_steps: Masks or tuning steps; None for the attribution's own choice.
        masker: What is recorded of the masker.
        batch_size: The most texts in a forward call; twice as many masked ones.
    """

    attribution: _TokenMask
    n_steps: int | None
    masker: str | None
    batch_size: int

    @property
    def settings(self) -> Mapping[str, Setting]:
        """Everything that decides the scores, to be recorded with them."""
        return {**mask_settings(self.attribution, self.n_steps), "masker": self.masker}

    @property
    def output(self) -> str:
        """How the forward function's numbers are read."""
        return self.attribution.output

    @property
    def last_outputs(self) -> Tensor | None:
        """What the forward function gave for the last call's texts (N, C), if it ran on them."""
        return self.attribution.last_outputs_

    def _scores(self, call: Call) -> Tensor:
        return self._explained(call, [None if call.target is None else classes_of(call)])[:, 0]

    def _scores_each(self, call: Call, targets: Tensor) -> Tensor:
        return self._explained(call, list(targets.unbind(dim=1)))

    def _contrasts_each(self, call: Call, targets: Tensor, foils: Tensor) -> Tensor:
        forward_func = self.attribution.forward_func
        if own_difference(forward_func) is None:
            return self._explained(call, list(targets.unbind(dim=1)), list(foils.unbind(dim=1)))
        attribution = copy.copy(self.attribution)
        attribution.forward_func, attribution.output = ContrastForward(forward_func), "logits"
        return replace(self, attribution=attribution)._of_pairs(call, targets, foils)

    def _explained(
        self, call: Call, targets: list[Target], foils: list[Target] | None = None
    ) -> Tensor:
        """Scores (N, T, L) for each of the targets, which may have foils."""
        groups = groups_of(call)
        results = self.attribution.attribute_each(
            call.inputs[0],
            targets,
            foils=foils,
            baselines=call.baselines[0],
            additional_forward_args=call.additional_forward_args,
            # What is not maskable has a group of its own there, so that it counts for no other.
            feature_mask=groups if shares(groups) else None,
            n_steps=self.n_steps,
            internal_batch_size=rows_of(call, self.batch_size),
        )
        scores = []
        for result in results:
            assert isinstance(result, Tensor)
            of_groups = self.attribution.multiplies_by_inputs
            scores.append(group_sums(result, call) if of_groups else result)
        return torch.stack(scores, dim=1)


def rows_of(call: Call, batch_size: int) -> int:
    """The most rows of a forward call: a batch under a mask and under its complement."""
    return 2 * max(batch_size, call.n_examples)


def mask_settings(attribution: MaskAttribution, n_steps: int | None) -> dict[str, Setting]:
    """The settings of an attribution by a learned mask, as plain values.

    Args:
        attribution: The attribution.
        n_steps: Masks or tuning steps; None for its own choice.
    """
    masker = attribution.masker if attribution.masker_ is None else attribution.masker_
    return {
        "n_steps": attribution.default_n_steps if n_steps is None else n_steps,
        "tune": attribution.tune,
        "learning_rate": attribution.tuning_learning_rate,
        "objective": repr(attribution.objective),
        # What "auto" decided is known after the first call.
        "perturbation": attribution.perturbation_ or attribution.perturbation.name,
        "masker": None if masker is None else type(masker).__name__,
        "seed": attribution.seed,
    }


def _factory(
    attribution_class: type[AMLAttribution] | type[LAAttribution],
    default_n_steps: int | None = None,
    tune: TuneKind | None = None,
) -> Factory:
    """Makes the factory of a name.

    Args:
        attribution_class: What it makes.
        default_n_steps: Masks or tuning steps where the caller names none. Default: None, the
            attribution's own choice.
        tune: What is tuned. Default: None
    """

    def factory(
        forward_func: ForwardFunc, embedding_layer: nn.Module, options: MethodOptions
    ) -> MaskMethod:
        masker = options.masker
        name: str | None = None
        attribution: _TokenMask
        made: dict[str, Any] = {
            "embedding_layer": embedding_layer,
            "output": "independent_logits" if options.output == "log_odds" else options.output,
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
        return MaskMethod(attribution, n_steps, name, options.batch_size)

    return factory


register(
    MethodSpec(
        "mask-gradient",
        "averaged mask gradient of AML's objective, refined on subsets: no masker needed",
        _factory(AMLAttribution),
        family="learned",
        stochastic=True,
        steps="masks (16)",
    )
)
for _name, _class, _summary in (
    (
        "aml",
        AMLAttribution,
        "attributive masking learning: what preserves the prediction if kept",
    ),
    ("la", LAAttribution, "learned attribution: what changes the prediction if removed"),
):
    register(
        MethodSpec(
            _name,
            f"{_summary}; a fitted masker's proposal, or the averaged mask gradient",
            _factory(_class),
            family="learned",
            steps="masks (16), or tuning steps from a fitted masker's proposal (0)",
            takes_masker=True,
        )
    )
    register(
        MethodSpec(
            f"{_name}-tuned",
            f"{_name}, its mask tuned for each text",
            _factory(_class, 10, "mask"),
            family="learned",
            steps="tuning steps (10)",
            takes_masker=True,
        )
    )
    register(
        MethodSpec(
            f"{_name}-published",
            f"{_name} as published: the fitted masker itself tuned for each text",
            _factory(_class, 10, "masker"),
            family="learned",
            steps="tuning steps (10)",
            takes_masker=True,
            requires_masker=True,
        )
    )
