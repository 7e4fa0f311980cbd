"""The registry of methods: names, what each method is, and how it is made."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, get_args

from torch import Tensor, nn

from captum_aml.exceptions import InvalidInputError
from captum_aml.typing import ForwardFunc

if TYPE_CHECKING:
    from captum_aml.attr import AMLAttribution, LAAttribution

#: A value that is recorded with a result and can be written as JSON.
Setting: TypeAlias = str | int | float | bool | None


#: What learned methods take for a fitted masker.
MaskerLike: TypeAlias = "str | os.PathLike[str] | nn.Module | AMLAttribution | LAAttribution"


#: What the forward function gives (N, C): scores of classes that exclude each other, log-odds of
#: labels that do not, log-odds that are explained themselves, or one value.
MethodOutput: TypeAlias = Literal["logits", "independent_logits", "log_odds", "value"]

#: What a method goes by. A user's own may be "other".
Family: TypeAlias = Literal["learned", "gradient", "perturbation", "attention", "random", "other"]
_FAMILIES: tuple[str, ...] = get_args(Family)


class TokenMethod(Protocol):
    """Explains token ids; what ``create`` gives."""

    @property
    def settings(self) -> Mapping[str, Setting]:
        """Everything that decides the scores, to be recorded with them."""
        ...

    def __call__(
        self,
        ids: Tensor,
        baselines: Tensor,
        *,
        target: Tensor | int | None = None,
        additional_forward_args: tuple[object, ...] = (),
        feature_mask: Tensor | None = None,
    ) -> Tensor:
        """Scores tokens.

        Args:
            ids: Token ids (N, L).
            baselines: The same ids with the baseline token wherever there is something to
                explain (N, L). Where the two agree the score is 0.
            target (Tensor or int, optional): The explained class, one for all or one per example
                (N,). Default: None, each example's predicted class.
            additional_forward_args: The forward function's further arguments; tensors have N
                rows.
            feature_mask (Tensor, optional): Integer group ids (N, L), each example's for itself:
                the tokens of a group, a word's for instance, share one score. Where there is
                nothing to explain they count for nothing. Default: None, a group for each token.

        Returns:
            Scores (N, L) in float32, higher where a token, or its group, supports the target
            more.

        Raises:
            InvalidInputError: An argument has a wrong shape, dtype or range.
        """
        ...


@dataclass(frozen=True)
class MethodOptions:
    """The options of :func:`create`, as a factory is given them."""

    n_steps: int | None = None
    seed: int = 0
    batch_size: int = 32
    masker: MaskerLike | None = None
    output: MethodOutput = "logits"


Factory: TypeAlias = Callable[[ForwardFunc, nn.Module, MethodOptions], TokenMethod]


_OF_CLASS = "the {} of the explained class"
_QUANTITY = re.compile(_OF_CLASS.format("(probability|logit|log-odds|output)"))


@dataclass(frozen=True)
class ScoreMeaning:
    """What a method's scores say, for whoever shows them.

    Attributes:
        signed: Whether a score can be for the explained class, above 0, or against it, below 0.
        relative: Whether unsigned scores, 0 or more, are to be read relative to the largest of
            their text; else they are in [0, 1].
        score: What a score is, such as "contribution to the logit of the explained class"; "" where
            it is not known.
    """

    signed: bool = True
    relative: bool = False
    score: str = ""

    def of_value(self) -> ScoreMeaning:
        """The same for a forward function that gives a value, which is of no class."""
        score = _QUANTITY.sub("the value", self.score).removesuffix(" for the explained class")
        return replace(self, score=score)

    def of_log_odds(self) -> ScoreMeaning:
        """The same where log-odds are explained in place of the probability."""
        return replace(self, score=_QUANTITY.sub(_OF_CLASS.format("log-odds"), self.score))

    def of_contrast(self, compared: str = "") -> ScoreMeaning:
        """The same where it is explained why the explained class and not another, the foil.

        Args:
            compared: What the two are compared by, where it is not what the scores are of.
                Default: "".
        """

        def of_both(found: re.Match[str]) -> str:
            quantity = found[1] if found[1] == "output" or not compared else compared
            if quantity == "probability":
                return f"{_OF_CLASS.format('log-odds')} against the foil"
            return f"{_OF_CLASS.format(quantity)} less that of the foil"

        score = _QUANTITY.sub(of_both, self.score)
        if score.endswith(" for the explained class"):
            score += " rather than the foil"
        return replace(self, score=score)


@dataclass(frozen=True)
class MethodSpec:
    """A method's entry in the registry.

    Attributes:
        name: What users write, and what results are recorded under.
        summary: One line on what it does.
        factory: Makes it from a forward function that gives numbers (N, C), the layer that embeds
            the ids, and options, which say what the numbers are.
        aliases: Other names that users may write.
        family: What its scores come from. Default: "other".
        signed: Whether a score can be for the explained class, above 0, or against it, below 0.
        stochastic: Whether another seed gives other scores; where it can use a fitted masker,
            with one.
        steps: What ``n_steps`` counts. None where the method has nothing to count.
        takes_masker: Whether it can use a fitted masker.
        requires_masker: Whether it cannot do without one.
        relative: Whether unsigned scores, 0 or more, are to be read relative to the largest of
            their text; else they are in [0, 1].
        score: What a score is, such as "contribution to the logit of the explained class".
            Displays put the label in the place of these last three words; of a value see
            ``ScoreMeaning.of_value``. Default: "", not known.
    """

    name: str
    summary: str
    factory: Factory
    aliases: tuple[str, ...] = ()
    family: Family = "other"
    signed: bool = True
    stochastic: bool = False
    steps: str | None = None
    takes_masker: bool = False
    requires_masker: bool = False
    relative: bool = False
    score: str = ""

    @property
    def meaning(self) -> ScoreMeaning:
        """What the scores say."""
        return ScoreMeaning(self.signed, self.relative, self.score)

    @property
    def names(self) -> tuple[str, ...]:
        """The name and the aliases."""
        return (self.name, *self.aliases)


_REGISTRY: dict[str, MethodSpec] = {}


def register(method: MethodSpec, *, replace: bool = False) -> None:
    """Adds a method under its name and its aliases.

    Args:
        method: The entry.
        replace: Whether it may take the place of another of that name. Default: False.

    Raises:
        InvalidInputError: The name or an alias is empty, given twice, or stands for another
            method.
    """
    if not all(method.names):
        raise InvalidInputError(f"method: expected a name, got an empty one among {method.names}")
    if len(set(method.names)) != len(method.names):
        raise InvalidInputError(
            f"method: expected a name and aliases that differ, got {', '.join(method.names)}"
        )
    if method.name in _REGISTRY and not replace:
        raise InvalidInputError(
            f"method: {method.name!r} is registered already; give replace=True to replace it"
        )
    taken = {n: s.name for s in _REGISTRY.values() if s.name != method.name for n in s.names}
    for name in method.names:
        if name in taken:
            raise InvalidInputError(
                f"method: {method.name!r} cannot be called {name!r}, which stands for the method "
                f"{taken[name]!r}"
            )
    _REGISTRY[method.name] = method


def available() -> tuple[str, ...]:
    """The methods' names, without aliases: by family, then in the order of their registration."""
    return tuple(sorted(_REGISTRY, key=lambda name: _FAMILIES.index(_REGISTRY[name].family)))


def spec(name: str) -> MethodSpec:
    """A method's entry, by its name or an alias.

    Raises:
        InvalidInputError: There is no method of that name; the message lists those there are.
    """
    for entry in _REGISTRY.values():
        if name in entry.names:
            return entry
    raise InvalidInputError(f"method: expected one of {', '.join(available())}, got {name!r}")


def create(
    name: str,
    forward_func: ForwardFunc,
    embedding_layer: nn.Module,
    *,
    n_steps: int | None = None,
    seed: int = 0,
    batch_size: int = 32,
    masker: MaskerLike | None = None,
    output: MethodOutput = "logits",
) -> TokenMethod:
    """Makes a method.

    Args:
        name: One of ``available()``, or an alias.
        forward_func: ``(ids, *additional_forward_args) -> numbers (N, C)``.
        embedding_layer: The layer inside it that turns ids (N, L) into embeddings (N, L, D).
        n_steps (int, optional): Steps or samples. Default: None, the method's own number.
        seed: Seed of everything random. Default: 0.
        batch_size: The most examples in one pass of the model, where the method makes many
            variants of a text. It never changes a score. Default: 32.
        masker (optional): A folder with a fitted masker, a masker module, or an attribution that
            was fitted for this very forward function, for the methods that learn a mask.
            Default: None.
        output: What the numbers are. ``logits``: scores of C classes that exclude each other;
            ``independent_logits``: log-odds of C labels that do not; ``log_odds``: the same of C
            outcomes whose probabilities are next to 0 or 1, so that log-odds themselves are
            explained by every method; ``value``: a value, C = 1. Default: ``logits``.

    Raises:
        InvalidInputError: The name or the output is unknown, or the method has no use for an
            option.
        CheckpointError: The masker's folder is damaged or belongs to another model.
        ImportError: The method needs a package that is not installed.
    """
    method = spec(name)
    if n_steps is not None:
        if method.steps is None:
            raise InvalidInputError(f"n_steps: method {name!r} has no steps to choose")
        # Without a step, a masker's own proposal remains: what its method gives unless it is tuned.
        least = 0 if method.takes_masker and not method.requires_masker else 1
        if n_steps < least:
            raise InvalidInputError(
                f"n_steps: expected a positive number of {method.steps}, got {n_steps}"
            )
    if masker is not None and not method.takes_masker:
        with_masker = ", ".join(n for n in available() if _REGISTRY[n].takes_masker)
        raise InvalidInputError(
            f"masker: method {name!r} uses none; those that do are {with_masker}"
        )
    if masker is None and method.requires_masker:
        raise InvalidInputError(
            f"masker: method {name!r} expects a fitted masker, its folder or the module, got none"
        )
    if batch_size < 1:
        raise InvalidInputError(f"batch_size: expected 1 or more, got {batch_size}")
    if output not in get_args(MethodOutput):
        raise InvalidInputError(
            f"output: expected one of {', '.join(get_args(MethodOutput))}, got {output!r}"
        )
    options = MethodOptions(
        n_steps=n_steps, seed=seed, batch_size=batch_size, masker=masker, output=output
    )
    return method.factory(forward_func, embedding_layer, options)
