"""What ``captum-aml fit`` and ``captum-aml search`` can be told, by flags or in a YAML file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captum_aml._optional import require
from captum_aml._utils.rows import shown
from captum_aml.exceptions import InvalidInputError
from captum_aml.training.rates import HEAD_LEARNING_RATE, LEARNING_RATE

if TYPE_CHECKING:
    from captum_aml.objectives import AMLObjective, LAObjective
    from captum_aml.training import FitSettings

METHODS = ("aml", "la")

#: Other names that people know a setting by.
_ALIASES = {"lr": "learning_rate"}
_OF_OBJECTIVE = ("prediction_weight", "inverse_weight", "size_weight", "size_penalty")
_OF_FIT = (
    "n_subsets",
    "epochs",
    "learning_rate",
    "weight_decay",
    "scheduler",
    "warmup_ratio",
    "gradient_accumulation_steps",
    "max_gradient_norm",
    "validations_per_epoch",
    "patience",
    "mixed_precision",
    "max_skipped_steps",
    "save_every",
    "seed",
)


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """Everything that decides what a fit learns, under the names that flags and files share.

    Attributes:
        model: The classifier, or the language model, a local folder or a hub id.
        data: Training texts, a file or a data set of the hub.
        split: The split of a data set of the hub; None for ``train``.
        validation: Validation texts; None holds some of the data out.
        limit: The most training texts, those held out included; None for all.
        validation_limit: The most validation texts.
        text_column: The column with the texts.
        max_length: Texts are cut to this many tokens; None for what the model takes.
        template: The prompt of a language model; None for a classifier.
        labels: Its label words with commas between.
        baseline: The vocabulary entry that stands for a removed token; None for the usual one.
        method: ``aml`` or ``la``.
        masker: ``transformer``, ``shared``, a fitted masker's folder, or an encoder's folder or id;
            None for what fits the model.
        perturbation: How a mask is applied; None for what fits the model.
        recipe: A named way of fitting, or None.
        prediction_weight: Weight of AML's prediction term.
        inverse_weight: Weight of the inverse term.
        size_weight: Weight of the mask-size term.
        size_penalty: ``bce`` or ``l1``.
        batch_size: Texts in a batch.
        loss: ``objective``, ``regression``, or None for what did best with the method.
        n_subsets: See :class:`~captum_aml.training.FitSettings`, as for the settings below.
        epochs: See :class:`~captum_aml.training.FitSettings`, as for the settings below.
        learning_rate: See there; None for what did well with the masker.
        weight_decay: See there.
        scheduler: See there.
        warmup_ratio: See there.
        gradient_accumulation_steps: See there.
        max_gradient_norm: See there.
        validations_per_epoch: See there.
        patience: See there.
        select_by: ``loss``, a measure of the benchmark, or several with commas between: their sum,
            each with the sign of its direction.
        preset: The convention of these measures.
        mixed_precision: See there.
        max_skipped_steps: See there.
        save_every: See there.
        seed: Seed of everything random.
        tracker: Trackers with commas between, or None.
        device: Where the model runs.

    Raises:
        InvalidInputError: A value is of a wrong type or out of range, or two contradict.
    """

    model: str
    data: str
    split: str | None = None
    validation: str | None = None
    limit: int | None = None
    validation_limit: int = 200
    text_column: str = "text"
    max_length: int | None = None
    template: str | None = None
    labels: str | None = None
    baseline: str | None = None
    method: str = "aml"
    masker: str | None = None
    perturbation: str | None = None
    recipe: str | None = None
    prediction_weight: float | None = None
    inverse_weight: float = 1.0
    size_weight: float = 1.0
    size_penalty: str = "bce"
    batch_size: int = 8
    loss: str | None = None
    n_subsets: int = 16
    epochs: int = 6
    learning_rate: float | None = None
    weight_decay: float = 0.01
    scheduler: str = "linear"
    warmup_ratio: float = 0.0
    gradient_accumulation_steps: int = 1
    max_gradient_norm: float | None = 1.0
    validations_per_epoch: int = 1
    patience: int | None = None
    select_by: str = "loss"
    preset: str = "default"
    mixed_precision: str = "no"
    max_skipped_steps: int = 10
    save_every: int | None = None
    seed: int = 0
    tracker: str | None = None
    device: str = "auto"

    @classmethod
    def of(
        cls, file: Mapping[str, Any], flags: Mapping[str, Any], *, defaults: Mapping[str, Any]
    ) -> FitConfig:
        """A configuration from a file and flags, where a flag that was given wins.

        Args:
            file: What the file says, by name.
            flags: What was given on the command line; None stands for not given.
            defaults: Values for what neither says, where they differ from the class's own.

        Raises:
            InvalidInputError: A name is unknown, one that is needed is missing, or a value is not
                as described.
        """
        given = {name: value for name, value in flags.items() if value is not None}
        values = {**_known(file), **given}
        for name in ("model", "data"):
            if values.get(name) is None:
                raise InvalidInputError(f"{name}: expected --{name}, or {name!r} in the file")
        kinds = {field.name: str(field.type) for field in fields(cls)}
        values = {name: _typed(name, value, kinds[name]) for name, value in values.items()}
        if values.get("recipe") is not None:
            values = _with_recipe(values)
        return cls(**{**defaults, **values})

    def __post_init__(self) -> None:
        # The objects that they become check the rest.
        self.objective()
        self.settings()
        if self.chosen_loss == "regression":
            self._check_regression()
        for name in ("batch_size", "validation_limit"):
            if getattr(self, name) < 1:
                raise InvalidInputError(f"{name}: expected 1 or more, got {getattr(self, name)}")
        if self.limit is not None and self.limit < 2:
            raise InvalidInputError(f"limit: expected 2 or more, got {self.limit}")
        if self.metrics:
            from captum_aml.benchmark.masker_score import directions

            directions(self.metrics, self.preset)
        if (self.template is None) != (self.labels is None):
            raise InvalidInputError(
                "template: expected template and labels together, got one without the other"
            )
        if self.perturbation is not None:
            from captum_aml.perturbation import resolve_perturbation

            resolve_perturbation(self.perturbation)

    def _check_regression(self) -> None:
        if self.method == "la":
            raise InvalidInputError(
                "loss: expected 'objective' with method la, got 'regression', which knows nothing "
                "of LA"
            )
        for name in _OF_OBJECTIVE:
            if getattr(self, name) not in (None, 1.0, "bce"):
                raise InvalidInputError(
                    f"{name}: expected none, since loss=regression does not use it, got "
                    f"{getattr(self, name)}; give loss=objective with it"
                )

    @property
    def metrics(self) -> list[str]:
        """The measures to select by; none for the loss."""
        if self.select_by == "loss":
            return []
        return [name.strip() for name in self.select_by.split(",") if name.strip()]

    @property
    def chosen_loss(self) -> str:
        """The loss, where none was named the one that did best: regression knows nothing of LA."""
        return self.loss or ("regression" if self.method == "aml" else "objective")

    @property
    def chosen_rate(self) -> float:
        """The learning rate, where none was named that which did well with the masker."""
        if self.learning_rate is not None:
            return self.learning_rate
        return HEAD_LEARNING_RATE if self.masker == "shared" else LEARNING_RATE

    @property
    def trackers(self) -> list[str]:
        """The trackers' names."""
        return [name.strip() for name in (self.tracker or "").split(",") if name.strip()]

    def objective(self) -> AMLObjective | LAObjective:
        """The objective with its weights.

        Raises:
            InvalidInputError: The method is unknown, or a weight is not one of it.
        """
        from captum_aml.objectives import AMLObjective, LAObjective

        if self.method not in METHODS:
            raise InvalidInputError(f"method: expected one of {METHODS}, got {self.method!r}")
        values = {name: getattr(self, name) for name in _OF_OBJECTIVE}
        weight = values.pop("prediction_weight")
        if self.method == "aml":
            return AMLObjective(prediction_weight=1.0 if weight is None else weight, **values)
        if weight is not None:
            raise InvalidInputError(
                f"prediction_weight: expected none, as la has no prediction term, got {weight}"
            )
        return LAObjective(**values)

    def settings(self) -> FitSettings:
        """The settings of ``fit``, but for where the run is kept and what it is selected by."""
        from captum_aml.training import FitSettings

        values = {name: getattr(self, name) for name in _OF_FIT}
        values["learning_rate"] = self.chosen_rate
        # Which needs a folder, as the command has and this object does not.
        save_every = values.pop("save_every")
        if save_every is not None and save_every < 1:
            raise InvalidInputError(f"save_every: expected 1 or more, got {save_every}")
        return FitSettings.from_dict({"loss": self.chosen_loss, **values})

    def to_dict(self) -> dict[str, str | int | float | None]:
        """The values by name, without those that are None by default and here."""
        values = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if getattr(self, field.name) is not None or field.default is not None
        }
        values["loss"], values["learning_rate"] = self.chosen_loss, self.chosen_rate
        # None there stands for the method's own: 1, or no such term.
        objective = self.objective()
        return {
            name: getattr(objective, name) if name in _OF_OBJECTIVE else values[name]
            for name in (field.name for field in fields(self))
            if name in values or (name in _OF_OBJECTIVE and hasattr(objective, name))
        }


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a YAML file says, by name.

    Raises:
        InvalidInputError: It is no YAML, or no mapping.
        ImportError: PyYAML is not installed.
        OSError: It cannot be read.
    """
    require("yaml", package="PyYAML", feature="--config", extra="train")
    import yaml

    try:
        content = yaml.safe_load(Path(path).read_bytes())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{os.fspath(path)}: expected YAML ({error})") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InvalidInputError(
            f"{os.fspath(path)}: expected names with values such as 'epochs: 5', got "
            f"{shown(content)}"
        )
    try:
        return _known(content)
    except InvalidInputError as error:
        raise InvalidInputError(f"{os.fspath(path)}: {error}") from None


def config_text(values: Mapping[str, Any], *, comment: str) -> str:
    """Values as YAML, under a comment of one line."""
    require("yaml", package="PyYAML", feature="writing a configuration", extra="train")
    import yaml

    text: str = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
    return f"# {comment}\n{text}"


def _known(values: Mapping[Any, Any]) -> dict[str, Any]:
    known = [field.name for field in fields(FitConfig)]
    result: dict[str, Any] = {}
    for given, value in values.items():
        name = str(given).replace("-", "_")
        name = _ALIASES.get(name, name)
        if name not in known:
            raise InvalidInputError(f"config: expected some of {', '.join(known)}, got {given!r}")
        if name in result:
            raise InvalidInputError(f"config: expected {name!r} once, got it twice")
        result[name] = value
    return result


def _typed(name: str, value: Any, kind: str) -> Any:  # what YAML, or the command line, gave
    """A value of a field's type; a number that YAML took for a word, such as 1e-4, as a number."""
    if value is None and kind.endswith("None"):
        return None
    kind = kind.removesuffix(" | None")
    if kind == "str" and isinstance(value, str):
        return value
    if kind == "int" and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind == "float" and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            pass
    # Words that YAML takes for something else: `select_by: loss` is none of them, `no` is.
    if name == "mixed_precision" and value is False:
        return "no"
    if kind == "str" and isinstance(value, list) and all(isinstance(v, str) for v in value):
        return ",".join(value)
    expected = {"str": "a string", "int": "an integer", "float": "a number"}[kind]
    raise InvalidInputError(f"{name}: expected {expected}, got {shown(value)}")


def _with_recipe(values: dict[str, Any]) -> dict[str, Any]:
    from captum_aml.training import recipe_of

    recipe = recipe_of(values["recipe"])
    for name, fixed in recipe.fixed.items():
        if name in values and values[name] != fixed:
            raise InvalidInputError(
                f"recipe: {recipe.name!r} has {name}={fixed}, got {values[name]}; leave out one of "
                "the two"
            )
    return {**values, **recipe.fixed}


__all__ = ["METHODS", "FitConfig", "config_text", "read_config"]
