"""Options of a fit: one dataclass from which flags are made and a YAML file is read."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from captum_aml._utils.optional import require
from captum_aml._utils.options import comma_separated
from captum_aml._utils.rows import shown
from captum_aml.cli.options import (
    Limit,
    ModelOptions,
    Preset,
    Seed,
    TextColumn,
    flag,
    with_parameters,
)
from captum_aml.exceptions import InvalidInputError
from captum_aml.training.recipes import BATCH_SIZE, EPOCHS, default_loss
from captum_aml.training.settings import FitSettings, LossName, TrainingOptions

if TYPE_CHECKING:
    from captum_aml.objectives import AMLObjective, LAObjective

#: Other names that people know an option by.
_ALIASES = {"lr": "learning_rate"}
#: Options that take several names, which a file may have as a list.
_LISTS = ("labels", "select_by", "tracker")
_OF_OBJECTIVE = ("prediction_weight", "inverse_weight", "size_weight", "size_penalty")
#: The least that counts can be which no one else checks; a run is saved by steps in a folder only.
_LEAST = {"batch_size": 1, "validation_limit": 1, "limit": 2, "save_every": 1}
#: What was expected, by the first word of pydantic's name for an error.
_EXPECTED = {"string": "a string", "int": "an integer", "float": "a number"}


ConfigFile = Annotated[
    Path | None,
    typer.Option(help="A YAML file with options by name, as in 'epochs: 5'; flags win."),
]


@dataclass(frozen=True, kw_only=True)
class FitConfig(ModelOptions, TrainingOptions):
    """Everything that decides what a fit learns, under the names that flags and files share.

    Raises:
        InvalidInputError: A value is out of range, or two contradict.
    """

    data: Annotated[
        str,
        typer.Option(
            help="Training texts: a .jsonl, .csv, .tsv, .parquet or .txt file, or a data set of "
            "the hub."
        ),
    ]
    split: Annotated[
        str | None,
        typer.Option(help="The split of a data set of the hub.", show_default="train"),
    ] = None
    validation: Annotated[
        str | None,
        typer.Option(
            help="Validation texts, in a file or data set of their own.",
            show_default="a tenth of the data is held out",
        ),
    ] = None
    limit: Limit = None
    validation_limit: Annotated[
        int, typer.Option(help="Take the first N validation texts.", min=1)
    ] = 200
    text_column: TextColumn = "text"
    method: Annotated[Literal["aml", "la"], typer.Option(help="aml or la.")] = "aml"
    masker: Annotated[
        str | None,
        typer.Option(
            help="What the masker starts from: transformer (a copy of the model's encoder), shared "
            "(a head on its hidden states), another registered name, a folder with a fitted "
            "masker, or another encoder, also one with a tokenizer of its own.",
            show_default="transformer for an encoder, shared for a decoder",
        ),
    ] = None
    perturbation: Annotated[
        str | None,
        typer.Option(
            help="How tokens are removed in training: blend, attention or causal-attention.",
            show_default="through attention where the model takes an additive mask, else blend",
        ),
    ] = None
    recipe: Annotated[
        str | None,
        typer.Option(
            help="published: the papers' settings, which then cannot be given otherwise: blend, "
            "learning rate 4e-5, batches of 20, 10 epochs with 3 validations each, no clipping.",
            show_default="none",
        ),
    ] = None
    prediction_weight: Annotated[
        float | None, typer.Option(help="Weight of AML's prediction term.", show_default="1")
    ] = None
    inverse_weight: Annotated[float, typer.Option(help="Weight of the inverse term.")] = 1.0
    size_weight: Annotated[float, typer.Option(help="Weight of the mask-size term.")] = 1.0
    size_penalty: Annotated[str, typer.Option(help="What the mask's size costs: bce or l1.")] = (
        "bce"
    )
    loss: Annotated[
        LossName | None,
        typer.Option(
            help="What the masker learns from: objective (as published), or regression (what the "
            "removal of random subsets does).",
            show_default="regression; la: objective",
        ),
    ] = None
    epochs: Annotated[int, typer.Option(help="Passes over the texts.", min=1)] = EPOCHS
    learning_rate: Annotated[
        float | None,
        typer.Option(
            "--learning-rate",
            "--lr",
            help="Highest rate.",
            show_default="1e-4, or 1e-3 for a head on hidden states",
        ),
    ] = None
    batch_size: Annotated[int, typer.Option(help="Texts in a batch.", min=1)] = BATCH_SIZE
    select_by: Annotated[
        str,
        typer.Option(
            help="What the best weights are chosen by on the validation texts: loss, a metric of "
            "the benchmark, or several with commas between (their sum, those of which lower is "
            "better subtracted)."
        ),
    ] = "loss"
    preset: Preset = "default"
    save_every: Annotated[
        int | None,
        typer.Option(
            help="Write the run every N steps, too.", show_default="at every validation", min=1
        ),
    ] = None
    seed: Seed = 0
    tracker: Annotated[
        str | None,
        typer.Option(help="tensorboard, or others of Accelerate, with commas between."),
    ] = None

    @classmethod
    def of(
        cls,
        flags: Mapping[str, object],
        file: str | os.PathLike[str] | None = None,
        *,
        defaults: Mapping[str, Any] | None = None,
    ) -> FitConfig:
        """A configuration from flags and a YAML file, where a flag that was given wins.

        Args:
            flags: What was given on the command line; None stands for not given.
            file: A YAML file with values by name. Default: None.
            defaults: Values for what neither says, where they differ from the class's own.

        Raises:
            InvalidInputError: A name is unknown, one that is needed is missing, or a value is not
                as described.
            ImportError: What the configuration needs is not installed; the message says how to
                install it.
        """
        for package, module in {"PyYAML": "yaml", "pydantic": "pydantic"}.items():
            require(module, package=package, feature="captum-aml fit", extra="train")
        given = _typed({name: value for name, value in flags.items() if value is not None})
        values = {**({} if file is None else _read(file)), **given}
        for name in ("model", "data"):
            if values.get(name) is None:
                raise InvalidInputError(f"{name}: expected --{name}, or {name!r} in the file")
        if values.get("recipe") is not None:
            values = _with_recipe(values)
        config = cls(**{**(defaults or {}), **values})
        if "tensorboard" in config.trackers:
            require("tensorboard", package="tensorboard", feature="--tracker", extra="train")
        return config

    def __post_init__(self) -> None:
        # The objects that they become check the rest.
        self.objective()
        self.settings()
        if self.chosen_loss == "regression":
            self._check_regression()
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise InvalidInputError(f"{name}: expected {least} or more, got {value}")
        if self.metrics:
            from captum_aml.metrics.registry import bind, directions

            directions(bind(self.metrics, self.preset))
        if self.template is not None or self.labels is not None:
            from captum_aml.text.models.sources import prompt_of

            prompt_of(self.template, self.labels)
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
        """The metrics to select by; none for the loss."""
        return [] if self.select_by == "loss" else comma_separated(self.select_by)

    @property
    def trackers(self) -> list[str]:
        """The trackers' names."""
        return comma_separated(self.tracker or "")

    @property
    def chosen_loss(self) -> LossName:
        """The loss, where none was named the method's default."""
        return self.loss or default_loss(self.method)

    def objective(self) -> AMLObjective | LAObjective:
        """The objective with its weights.

        Raises:
            InvalidInputError: A weight is out of range, or not one of the method.
        """
        from captum_aml.objectives import AMLObjective, LAObjective

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
        """The settings of ``fit``, but for where the run is kept and what it is selected by.

        The learning rate that is not given depends on the masker, and is that of
        :class:`FitSettings` until the masker is known.
        """
        shared = {field.name: getattr(self, field.name) for field in fields(TrainingOptions)}
        if self.learning_rate is not None:
            shared["learning_rate"] = self.learning_rate
        return FitSettings(
            epochs=self.epochs,
            loss=self.chosen_loss,
            seed=self.seed,
            **shared,
        )

    def to_dict(self) -> dict[str, str | int | float | None]:
        """The values by name, without those that are None by default and here."""
        chosen: dict[str, Any] = {
            "loss": self.chosen_loss,
            # None stands for the method's own there: 1, or no such term.
            "prediction_weight": getattr(self.objective(), "prediction_weight", None),
        }
        values = {field.name: getattr(self, field.name) for field in fields(self)} | chosen
        return {
            field.name: values[field.name]
            for field in option_fields()
            if values[field.name] is not None or field.default is not None
        }


def option_fields() -> list[Field[Any]]:
    """The fields of :class:`FitConfig`: those without a default, its own, and the others'."""
    groups = (FitConfig, ModelOptions, TrainingOptions)

    def place(field: Field[Any]) -> int:
        own = next(i for i, group in enumerate(groups) if field.name in group.__annotations__)
        return -1 if field.default is MISSING else own

    return sorted(fields(FitConfig), key=place)


def config_text(values: Mapping[str, Any], *, comment: str) -> str:
    """Values as YAML, under a comment of one line."""
    import yaml

    text: str = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
    return f"# {comment}\n{text}"


def config_flags(
    *, without: Collection[str] = (), defaults: Mapping[str, object] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator that gives a command a flag for every field of :class:`FitConfig`.

    The command gets their values by name as its first argument, None for those that are not given.

    Args:
        without: Fields that have no flag.
        defaults: Defaults of the command that differ from the fields' own, to be shown.
    """
    ours = defaults or {}
    values = {
        field.name: ours.get(field.name, field.default)
        for field in option_fields()
        if field.name not in without
    }
    flags = [flag(name, _hints()[name], value) for name, value in values.items()]
    return with_parameters(flags, list(values.values()).count(MISSING), lambda given: given)


@functools.cache
def _hints() -> dict[str, Any]:
    return get_type_hints(FitConfig, include_extras=True)


def _read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The options in a YAML file."""
    import yaml

    file = os.fspath(path)
    try:
        content = yaml.safe_load(Path(path).read_bytes())
        if content is not None and not isinstance(content, dict):
            raise InvalidInputError(
                f"expected names with values such as 'epochs: 5', got {shown(content)}"
            )
        return _typed(_known(content or {}))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{file}: expected YAML ({error})") from None
    except InvalidInputError as error:
        raise InvalidInputError(f"{file}: {error}") from None


def _known(values: Mapping[Any, Any]) -> dict[str, Any]:
    known = [field.name for field in option_fields()]
    result: dict[str, Any] = {}
    for given, value in values.items():
        name = str(given).replace("-", "_")
        name = _ALIASES.get(name, name)
        if name not in known:
            raise InvalidInputError(f"config: expected some of {', '.join(known)}, got {given!r}")
        if name in result:
            raise InvalidInputError(f"config: expected {name!r} once, got it twice")
        result[name] = value
    # What YAML takes for something else than the word that it is, and lists for several names.
    if result.get("mixed_precision") is False:
        result["mixed_precision"] = "no"
    for name in _LISTS:
        if isinstance(result.get(name), list):
            result[name] = ",".join(map(str, result[name]))
    return result


def _typed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of the fields' types.

    Raises:
        InvalidInputError: One is of another; the message names it.
    """
    from pydantic import TypeAdapter, ValidationError

    typed = {}
    for name, value in values.items():
        try:
            # YAML takes a number such as 1e-4 for a word.
            typed[name] = TypeAdapter(_hints()[name].__origin__).validate_python(
                value, strict=not isinstance(value, str)
            )
        except ValidationError as error:
            (first, *_) = error.errors()
            kind = first["type"].split("_")[0]
            if kind == "literal":
                words = first["ctx"]["expected"].replace("'", "").replace(" or ", ", ")
                expected = f"one of {words}"
            else:
                expected = _EXPECTED[kind]
            raise InvalidInputError(f"{name}: expected {expected}, got {shown(value)}") from None
    return typed


def _with_recipe(values: dict[str, Any]) -> dict[str, Any]:
    from captum_aml.training.recipes import recipe_of

    recipe = recipe_of(values["recipe"])
    for name, fixed in recipe.items():
        if name in values and values[name] != fixed:
            raise InvalidInputError(
                f"recipe: {values['recipe']!r} has {name}={fixed}, got {values[name]}; leave out "
                "one of the two"
            )
    return {**values, **recipe}
