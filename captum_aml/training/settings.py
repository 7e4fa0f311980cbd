"""Settings of ``fit``, each in one place, checked once. Importing this loads no torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict, get_args

from typing_extensions import Doc

from captum_aml._utils.checks import as_count, check_learning_rate, check_number
from captum_aml._utils.options import documented
from captum_aml.exceptions import InvalidInputError

if TYPE_CHECKING:
    from torch import Tensor

LossName = Literal["objective", "regression"]
#: Schedules of transformers that depend on the step alone: a resumed run has them back by counting.
Scheduler = Literal[
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
]
Precision = Literal["no", "bf16", "fp16"]

#: A resumed run may have other values of these: they do not decide which weights it ends with.
NOT_OF_THE_RUN = ("checkpoint_dir", "resume", "save_every", "max_skipped_steps")


@dataclass(frozen=True)
class ValidationMetric:
    """A figure on validation data by which the best weights are chosen.

    Attributes:
        name: What it is called in the history.
        function: Takes the attribution, with the masker as it is then, and a validation batch as a
            mapping of ``attribute``'s arguments; gives a value per example, (N,). NaN stands for an
            example that has none.
        higher_is_better: Whether the best weights are those with the highest mean.
    """

    name: str
    # The attribution is not typed: its class is built on top of this module.
    function: Callable[[Any, Mapping[str, Any]], Tensor]
    higher_is_better: bool


@documented
@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Options of a fit with the same defaults wherever one is started."""

    n_subsets: Annotated[
        int, Doc("Subsets of each example that ``regression`` learns from, at least 2.")
    ] = 16
    contrasts: Annotated[
        bool,
        Doc(
            "Whether half of the examples are explained for a contrast of two drawn outcomes, so "
            "that the masker can be told both (:mod:`captum_aml.training.targets`)."
        ),
    ] = False
    weight_decay: Annotated[float, Doc("AdamW's weight decay, at least 0.")] = 0.01
    scheduler: Annotated[
        Scheduler,
        Doc(
            "How the learning rate changes: ``linear`` (to zero), ``cosine``, "
            "``cosine_with_restarts``, ``polynomial``, ``constant``, ``constant_with_warmup`` or "
            "``inverse_sqrt``, as transformers defines them."
        ),
    ] = "linear"
    warmup_ratio: Annotated[
        float, Doc("The share of all steps in which the learning rate rises from 0, in [0, 1).")
    ] = 0.0
    gradient_accumulation_steps: Annotated[
        int, Doc("Batches, in each process, that make one optimizer step.")
    ] = 1
    max_gradient_norm: Annotated[
        float | None,
        Doc(
            "Gradients are clipped to this norm, which the papers do not mention; None leaves them."
        ),
    ] = 1.0
    validations_per_epoch: Annotated[
        int, Doc("Validations in an epoch, evenly spread, the last one at its end.")
    ] = 1
    patience: Annotated[
        int | None,
        Doc("Validations without improvement after which fitting stops; None goes on."),
    ] = None
    mixed_precision: Annotated[
        Precision,
        Doc(
            "``no``, ``bf16`` or ``fp16`` for the masked passes and the masker; losses stay in "
            "float32."
        ),
    ] = "no"
    max_skipped_steps: Annotated[
        int, Doc("Steps in a row that may be skipped for a non-finite loss or gradient.")
    ] = 10


@documented
@dataclass(frozen=True, kw_only=True)
class FitSettings(TrainingOptions):
    """The settings of ``fit``, as values that JSON and YAML can hold.

    Raises:
        InvalidInputError: A value is out of range, or two do not go together.
    """

    epochs: Annotated[int, Doc("Passes over the training batches, at least 1.")] = 5
    loss: Annotated[
        LossName,
        Doc(
            "``objective``, the objective's value for the proposed masks, as published; or "
            "``regression``, what removing random subsets does "
            "(:mod:`captum_aml.training.regression`)."
        ),
    ] = "objective"
    learning_rate: Annotated[float, Doc("AdamW's learning rate at its highest, above 0.")] = 1e-4
    select_by: Annotated[
        str | ValidationMetric,
        Doc(
            "What the best weights are chosen by: ``loss``; the name of a metric, "
            "``aopc-comprehensiveness`` say, or several that commas separate, whose sum counts, "
            "each in its better direction; or a :class:`ValidationMetric`."
        ),
    ] = "loss"
    checkpoint_dir: Annotated[
        str | os.PathLike[str] | None,
        Doc("A folder to keep the run in, so that it can be resumed, or None."),
    ] = None
    resume: Annotated[
        bool,
        Doc(
            "Whether to go on with the run that the folder holds, if there is one. The settings, "
            "the masker, the model and the number of batches have to be those of the run; what is "
            "in the batches is not compared."
        ),
    ] = False
    save_every: Annotated[
        int | None,
        Doc(
            "Optimizer steps between two writes of the run; None: at every validation and at the "
            "end of every epoch, which are written in any case."
        ),
    ] = None
    cache_predictions: Annotated[
        bool,
        Doc(
            "Whether to keep the explained model's predictions for unmasked examples, the first "
            "50,000. A model in training mode, or arguments that are neither tensors nor plain "
            "values, are never cached."
        ),
    ] = True
    seed: Annotated[
        int | None,
        Doc("The seed of initialization, order and dropout; None: the attribution's."),
    ] = None

    def __post_init__(self) -> None:
        for name in ("epochs", "gradient_accumulation_steps", "validations_per_epoch"):
            self._set(name, as_count(name, getattr(self, name), least=1))
        self._set("n_subsets", as_count("n_subsets", self.n_subsets, least=2))
        self._set("max_skipped_steps", as_count("max_skipped_steps", self.max_skipped_steps))
        for name, least in (("patience", 1), ("save_every", 1), ("seed", 0)):
            if getattr(self, name) is not None:
                self._set(name, as_count(name, getattr(self, name), least=least))
        check_learning_rate(self.learning_rate)
        check_number("weight_decay", self.weight_decay, "a number of at least 0", lambda v: v >= 0)
        check_number("warmup_ratio", self.warmup_ratio, "a share in [0, 1)", lambda v: 0 <= v < 1)
        if self.max_gradient_norm is not None:
            check_number(
                "max_gradient_norm",
                self.max_gradient_norm,
                "a number above 0 or None",
                lambda v: v > 0,
            )
        for name, known in (
            ("loss", get_args(LossName)),
            ("scheduler", get_args(Scheduler)),
            ("mixed_precision", get_args(Precision)),
        ):
            if getattr(self, name) not in known:
                raise InvalidInputError(
                    f"{name}: expected one of {', '.join(known)}, got {getattr(self, name)!r}"
                )
        for name in ("contrasts", "resume", "cache_predictions"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidInputError(
                    f"{name}: expected True or False, got {getattr(self, name)!r}"
                )
        if self.scheduler == "constant" and self.warmup_ratio > 0:
            raise InvalidInputError(
                f"warmup_ratio: expected 0 with scheduler='constant', got {self.warmup_ratio}; "
                "use 'constant_with_warmup'"
            )
        if not isinstance(self.select_by, str | ValidationMetric):
            raise InvalidInputError(
                f"select_by: expected a name or a ValidationMetric, got {self.select_by!r}"
            )
        if self.checkpoint_dir is None:
            for name in ("resume", "save_every"):
                if getattr(self, name):
                    raise InvalidInputError(
                        f"checkpoint_dir: expected a folder, since {name}={getattr(self, name)}; "
                        "got None"
                    )
        else:
            try:
                self._set("checkpoint_dir", os.fspath(self.checkpoint_dir))
            except TypeError:
                raise InvalidInputError(
                    f"checkpoint_dir: expected a path or None, got {self.checkpoint_dir!r}"
                ) from None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FitSettings:
        """Settings from a mapping, such as a YAML file holds.

        Raises:
            InvalidInputError: A name is unknown, or a value is out of range.
        """
        known = [field.name for field in fields(cls)]
        unknown = [str(name) for name in values if name not in known]
        if unknown:
            raise InvalidInputError(
                f"settings: expected names among {', '.join(known)}, got {', '.join(unknown)}"
            )
        return cls(**values)

    def arguments(self) -> dict[str, Any]:
        """The settings as keyword arguments of ``fit``."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON values; a metric of the user's own is its name."""
        values = self.arguments()
        if isinstance(self.select_by, ValidationMetric):
            values["select_by"] = self.select_by.name
        return values

    def _set(self, name: str, value: Any) -> None:  # a frozen dataclass sets its fields this way
        object.__setattr__(self, name, value)


class FitOptions(TypedDict, total=False):
    """The fields of :class:`FitSettings` as keyword arguments of ``fit``."""

    epochs: int
    loss: LossName
    n_subsets: int
    contrasts: bool
    learning_rate: float
    weight_decay: float
    scheduler: Scheduler
    warmup_ratio: float
    gradient_accumulation_steps: int
    max_gradient_norm: float | None
    validations_per_epoch: int
    patience: int | None
    select_by: str | ValidationMetric
    mixed_precision: Precision
    max_skipped_steps: int
    checkpoint_dir: str | os.PathLike[str] | None
    resume: bool
    save_every: int | None
    cache_predictions: bool
    seed: int | None
