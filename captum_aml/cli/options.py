"""Options that several commands have, and what is made from them."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Collection, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
from typer.models import OptionInfo

from captum_aml.cli.console import quiet_libraries

if TYPE_CHECKING:
    from captum_aml.text import TextModel

#: The names of the tasks, known here without loading what does them.
TASKS = (
    "fill-mask",
    "multi-label-classification",
    "multiple-choice",
    "prompt-classification",
    "question-answering",
    "sentence-similarity",
    "text-classification",
    "text-generation",
    "text-regression",
    "token-classification",
    "zero-shot-classification",
)

Limit = Annotated[
    int | None, typer.Option(min=1, help="Take the first N texts.", show_default="all")
]
Preset = Annotated[
    str,
    typer.Option(
        help="Convention of the metrics: default, aml, eraser, ferret or naopc. It says which "
        "shares of the tokens are taken, how they are rounded, averaged and removed."
    ),
]
TextColumn = Annotated[str, typer.Option(help="The column with the texts.")]
PassSize = Annotated[int, typer.Option(min=1, help="Texts in one pass of the model.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything random.")]


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The model that a command explains."""

    model: Annotated[
        str,
        typer.Option(
            help="A model of transformers, for whichever task: a local folder or a hub id."
        ),
    ]
    task: Annotated[
        str | None,
        typer.Option(
            help="What the model does, where it cannot be told from the model, such as "
            f"sentence-similarity: {', '.join(TASKS)}; or the name of a pipeline of transformers.",
            show_default="told from the model",
        ),
    ] = None
    template: Annotated[
        str | None,
        typer.Option(
            help="The prompt of a language model that classifies by it, as in "
            "'Text: {text} Label:', or the hypothesis of a model of natural language inference, "
            "as in 'It is about {}.'; \\n stands for a line break.",
            show_default=False,
        ),
    ] = None
    labels: Annotated[
        str | None,
        typer.Option(
            help="The label words of a prompt, or labels of your own for a model of natural "
            "language inference, separated by commas, as in 'negative,positive', or with the "
            "classes' names, as in 'negative=bad,positive=good'.",
            show_default=False,
        ),
    ] = None
    baseline: Annotated[
        str | None,
        typer.Option(
            help="The entry of the tokenizer's vocabulary that stands for a removed token.",
            show_default="its mask, unknown, end-of-sequence or padding token, whichever comes "
            "first",
        ),
    ] = None
    max_length: Annotated[
        int | None,
        typer.Option(
            help="Cut texts to this many tokens.", show_default="what the model takes", min=1
        ),
    ] = None
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps, ...")] = "auto"

    def load(self, *, stride: int | None = None) -> TextModel:
        """The model, loaded without notices of libraries.

        Args:
            stride: The tokens that windows of long texts share. Default: None, texts are cut.
        """
        from captum_aml.text.models.sources import prompt_of, text_model

        quiet_libraries()
        return text_model(
            self.model,
            task=self.task,
            prompt=prompt_of(self.template, self.labels),
            baseline=self.baseline,
            max_length=self.max_length,
            stride=stride,
            device=self.device,
        )


def list_methods(given: str | None) -> str | None:
    """A callback of options that take methods: the word ``list`` lists them."""
    if given == "list":
        from captum_aml import methods as registry

        for name in registry.available():
            typer.echo(f"{name:24}{registry.spec(name).summary}")
        raise typer.Exit
    return given


def with_options(
    options: type, *, without: Collection[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator that gives a command an option for every field of a dataclass.

    The command gets the object that they make as its first argument.

    Args:
        options: A dataclass whose fields' types are annotated with a ``typer.Option``.
        without: Fields that keep their default.
    """
    hints = get_type_hints(options, include_extras=True)
    parameters = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(options)
        if field.name not in without
    ]
    n_required = sum(p.default is inspect.Parameter.empty for p in parameters)
    return with_parameters(parameters, n_required, lambda given: options(**given))


def with_parameters(
    made: Sequence[inspect.Parameter],
    n_required: int,
    first: Callable[[dict[str, Any]], object],
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator that gives a command parameters, of whose values its first argument is made.

    Args:
        made: The parameters; what is needed goes first.
        n_required: How many of them stand before the command's own.
        first: Makes the first argument of their values by name.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        _, *own = inspect.signature(command, eval_str=True).parameters.values()

        @functools.wraps(command)
        def run(**given: object) -> None:
            command(first({p.name: given.pop(p.name) for p in made}), **given)

        # What is needed, what the command has of its own, and the rest.
        parameters = [*made[:n_required], *own, *made[n_required:]]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        setattr(run, "__signature__", inspect.Signature(parameters))  # noqa: B010  (it has no type)
        return run

    return decorate


def flag(name: str, hint: Any, default: object) -> inspect.Parameter:
    """A flag that is None where it is not given, so that a file's value counts.

    Args:
        name: The field's name.
        hint: Its type, annotated with a ``typer.Option``, or with a ``Doc`` as its help.
        default: What is shown as its default; ``MISSING`` where one has to be given.
    """
    (about,) = hint.__metadata__
    if isinstance(about, OptionInfo):
        option = copy.copy(about)
    else:
        option = typer.Option(help=about.documentation.replace("``", ""))
    if default is MISSING:
        option.help = f"{option.help} Required."
    elif default is not None:
        option.show_default = f"{default:g}" if isinstance(default, float) else str(default)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[_plain(hint.__origin__) | None, option],
    )


def _plain(kind: Any) -> Any:  # a type, as the typing module has it
    """The type of a flag, without None; that of the words where only some can be given."""
    (first, *_) = getattr(kind, "__args__", (kind,))
    if first is kind:
        return kind
    return type(first) if isinstance(first, str) else _plain(first)
