"""Settings of the attribution classes: what their constructors take, checked in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypedDict, get_args

from torch import nn
from typing_extensions import Doc

from captum_aml._utils.checks import as_count, check_learning_rate
from captum_aml._utils.options import documented
from captum_aml.attr.explain import ScoreKind, TuneKind
from captum_aml.exceptions import InvalidInputError
from captum_aml.objectives import AMLObjective, LAObjective, Objective
from captum_aml.perturbation import Perturbation, resolve_perturbation
from captum_aml.readout import check_output_kind

#: The objectives of the methods by name: a method's default, and what a saved masker names.
OBJECTIVES: dict[str, type[AMLObjective] | type[LAObjective]] = {
    "aml": AMLObjective,
    "la": LAObjective,
}

#: The scores of ``scores=None``, unless ``multiply_by_inputs=False`` asks for the mask.
DEFAULT_SCORES: ScoreKind = "contribution"


@documented
@dataclass(kw_only=True)
class AttributionSettings:
    """The settings of an attribution by a learned mask, keyword arguments of its constructor.

    Raises:
        InvalidInputError: A value is not as described.
    """

    masker: Annotated[
        nn.Module | None,
        Doc(
            "A network that proposes masks; see :class:`captum_aml.maskers.Masker`. None: the "
            "averaged mask gradient, or ``fit`` makes a small one. Default: None"
        ),
    ] = None
    objective: Annotated[
        Objective | None,
        Doc(
            "The loss; None: ``AMLObjective()`` for AML and ``LAObjective()`` for LA. Default: None"
        ),
    ] = None
    perturbation: Annotated[
        str | Perturbation,
        Doc(
            "How a mask is applied: ``blend``, ``attention``, ``causal-attention``, both at once "
            "(``blend+attention``, ``blend+causal-attention``), or an object. ``auto``: without a "
            "masker what the first call finds the model to take, else ``blend``, as for baselines "
            "of several ids. Default: auto"
        ),
    ] = "auto"
    output: Annotated[
        str,
        Doc(
            "How the forward function's result is read; see :mod:`captum_aml.readout`. Default: "
            "auto"
        ),
    ] = "auto"
    scores: Annotated[
        ScoreKind | None,
        Doc(
            "``contribution``: signed, in the forward function's unit; an example's sum to "
            "``F(inputs) - F(baselines)``. ``mask``: values in [0, 1], in the same order. Default: "
            "None, which stands for ``contribution``, or for ``mask`` with "
            "``multiply_by_inputs=False``"
        ),
    ] = None
    tune: Annotated[
        TuneKind | None,
        Doc(
            "What ``n_steps`` changes for the given inputs: ``mask``, the mask's own logits, from "
            "the masker's proposal or, without one, from the averaged mask gradient's; or "
            "``masker``, the fitted masker's weights, for each example by itself, as published. "
            "None: without a fitted masker nothing, and with one the mask. Default: None"
        ),
    ] = None
    learning_rate: Annotated[
        float | None,
        Doc("The learning rate for tuning; None: 0.1 for masks, 1e-5 for maskers. Default: None"),
    ] = None
    seed: Annotated[
        int,
        Doc("The seed of whatever is random. Default: 0"),
    ] = 0

    def __post_init__(self) -> None:
        objective, masker = self.objective, self.masker
        if objective is not None and not (
            callable(objective) and hasattr(objective, "uses_complement")
        ):
            raise InvalidInputError(
                "objective: expected an object like AMLObjective(), got "
                f"{getattr(objective, '__name__', type(objective).__name__)}"
            )
        if masker is not None and not isinstance(masker, nn.Module):
            raise InvalidInputError(
                f"masker: expected a torch.nn.Module, got {type(masker).__name__}"
            )
        for name, known in (
            ("scores", (*get_args(ScoreKind), None)),
            ("tune", (*get_args(TuneKind), None)),
        ):
            if getattr(self, name) not in known:
                raise InvalidInputError(
                    f"{name}: expected one of {known}, got {getattr(self, name)!r}"
                )
        if self.learning_rate is not None:
            check_learning_rate(self.learning_rate)
        self.perturbation = resolve_perturbation(self.perturbation)
        self.output = check_output_kind(self.output)
        self.seed = as_count("seed", self.seed)


def resolve_scores(scores: ScoreKind | None, *, multiply_by_inputs: bool) -> ScoreKind:
    """What the scores are, by the setting and by what Captum calls it.

    Raises:
        InvalidInputError: ``multiply_by_inputs`` is no bool, or the two contradict each other.
    """
    if not isinstance(multiply_by_inputs, bool):
        raise InvalidInputError(
            f"multiply_by_inputs: expected a bool, got {type(multiply_by_inputs).__name__}"
        )
    if scores == "contribution" and not multiply_by_inputs:
        raise InvalidInputError(
            "scores: expected 'mask' or None with multiply_by_inputs=False, got 'contribution'"
        )
    if scores is None:
        return DEFAULT_SCORES if multiply_by_inputs else "mask"
    return scores


class AttributionOptions(TypedDict, total=False):
    """The fields of :class:`AttributionSettings` as keyword arguments."""

    masker: nn.Module | None
    objective: Objective | None
    perturbation: str | Perturbation
    output: str
    scores: ScoreKind | None
    tune: TuneKind | None
    learning_rate: float | None
    seed: int


class PretrainedOptions(AttributionOptions, total=False):
    """Those, and what else the constructors take: arguments of ``from_pretrained``."""

    multiply_by_inputs: bool
    embedding_layer: nn.Module | tuple[nn.Module, ...] | None
    layer: nn.Module | list[nn.Module] | None
    device_ids: list[int] | None
