"""Registry of metrics: each by its name, with its direction, its group and its computation.

A metric is registered beside its code, by :func:`register_metric` over its function. The benchmark,
``fit(select_by=...)`` and the command line then know its name. A name may end in an operator, as in
``aopc-sufficiency@mask``; without one the convention's is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from torch import Tensor, nn

from captum_aml.exceptions import InvalidInputError
from captum_aml.metrics.conventions import PRESETS, Convention, resolve_convention
from captum_aml.metrics.removal import REMOVALS, Removal, resolve_removal

if TYPE_CHECKING:
    from captum_aml.metrics.evaluation import RemovalEvaluator
    from captum_aml.metrics.limits import AOPCLimits

Group = Literal["faithfulness", "plausibility", "complexity"]


@dataclass(frozen=True)
class Metric:
    """Name and meaning of a metric.

    Attributes:
        name: What users write, for instance ``aopc-comprehensiveness``.
        title: A heading of a few words.
        higher_is_better: The direction; None where neither is (entropy, say).
        group: What it is about.
        description: One sentence that says what is measured and how; ``{removal}`` in it stands
            for the operator.
    """

    name: str
    title: str
    higher_is_better: bool | None
    group: Group
    description: str


@dataclass
class MetricInputs:
    """Examples that are scored together; N examples, U units.

    Attributes:
        evaluator: The model's values for subsets of their tokens.
        limits_of: Gives the limits of normalized AOPC for a removal operator.
        rationales: Human rationales by position, (N, U) of bool; None where no example has any.
        embedding_layer: The layer that embeds ids; None to find it.
    """

    evaluator: RemovalEvaluator
    limits_of: Callable[[Removal], AOPCLimits]
    rationales: Tensor | None = None
    embedding_layer: nn.Module | None = None

    @property
    def tokens(self) -> Tensor:
        """The positions that count, (N, U) of bool."""
        return self.evaluator.tokens


#: ``(inputs, scores (N, U), convention, removal) -> values (N,)``; NaN where an example has none.
#: The operator is None for a metric that removes nothing.
MetricFunction: TypeAlias = Callable[[MetricInputs, Tensor, Convention, Removal | None], Tensor]


@dataclass(frozen=True)
class MetricSpec:
    """A metric's entry in the registry; its fields are arguments of :func:`register_metric`."""

    metric: Metric
    compute: MetricFunction
    removal: str | None
    needs_limits: bool
    is_default: bool


@dataclass(frozen=True)
class BoundMetric:
    """A metric with its convention and operator settled.

    Attributes:
        metric: Name and meaning, the operator among them.
        spec: Its entry.
        convention: The convention.
        removal: The operator, or None.
    """

    metric: Metric
    spec: MetricSpec
    convention: Convention
    removal: Removal | None

    def __call__(self, inputs: MetricInputs, scores: Tensor) -> Tensor:
        """Values (N,) for scores (N, U)."""
        return self.spec.compute(inputs, scores, self.convention, self.removal)

    @property
    def limits(self) -> Removal | None:
        """The operator for whose limits it has to be searched, or None."""
        return self.removal if self.spec.needs_limits else None


_REGISTRY: dict[str, MetricSpec] = {}

#: The start of the names of averages over numbers of tokens.
_AOPC = "aopc-"


def register_metric(
    metric: Metric,
    *,
    removal: str | None = None,
    needs_limits: bool = False,
    is_default: bool = True,
    replace: bool = False,
) -> Callable[[MetricFunction], MetricFunction]:
    """Adds a metric under its name: a decorator of the function that computes it.

    A metric of plausibility has no value for examples without a human rationale. One whose name
    begins with ``aopc-`` is an average over numbers of tokens.

    Args:
        metric: Name and meaning.
        removal: The operator it uses by itself: the convention's (``"convention"``), that for
            log-odds (``"log-odds"``), a name, or None where nothing is removed. Default: None.
        needs_limits: Whether it needs a search for the best and the worst ranking. Default: False.
        is_default: Whether a benchmark has it by default. Default: True.
        replace: Whether it may take the place of another one. Default: False.

    Raises:
        InvalidInputError: The name is taken, empty, or holds an ``@`` or a comma.
    """
    name = metric.name
    if not name or "@" in name or "," in name:
        raise InvalidInputError(f"metric: expected a name without '@' and ',', got {name!r}")
    if name in _REGISTRY and not replace:
        raise InvalidInputError(f"metric: {name!r} is registered already")

    def register(compute: MetricFunction) -> MetricFunction:
        _REGISTRY[name] = MetricSpec(metric, compute, removal, needs_limits, is_default)
        return compute

    return register


def available_metrics() -> tuple[str, ...]:
    """The names of all metrics, by group, AOPC forms first."""
    groups = get_args(Group)

    def place(name: str) -> tuple[int, bool]:
        return groups.index(_REGISTRY[name].metric.group), not name.startswith(_AOPC)

    return tuple(sorted(_REGISTRY, key=place))


def metric_of(name: str) -> Metric:
    """Name and meaning of a metric, by its name with or without an operator.

    Raises:
        InvalidInputError: There is none of that name.
    """
    return _bind(name, PRESETS["default"]).metric


def default_metrics(convention: Convention, *, rationales: bool) -> list[str]:
    """The default metrics of a benchmark.

    The AOPC forms come under a second operator, too: masking where the convention deletes, and
    deletion otherwise.

    Args:
        convention: The convention.
        rationales: Whether there are human rationales.
    """
    second = "mask" if resolve_removal(convention.removal).name == "delete" else "delete"
    names = []
    for name in available_metrics():
        spec = _REGISTRY[name]
        if not spec.is_default or (spec.metric.group == "plausibility" and not rationales):
            continue
        names.append(name)
        if name.startswith(_AOPC) and spec.removal == "convention":
            names.append(f"{name}@{second}")
    return names


def bind(names: Sequence[str], convention: str | Convention) -> list[BoundMetric]:
    """Metrics by name.

    Raises:
        InvalidInputError: A name is unknown or given twice, or its operator is.
    """
    convention = resolve_convention(convention)
    bound = [_bind(name, convention) for name in names]
    if not bound:
        raise InvalidInputError("metrics: expected at least one, got none")
    if len({entry.metric.name for entry in bound}) != len(bound):
        raise InvalidInputError(f"metrics: expected each once, got {', '.join(names)}")
    return bound


def _bind(name: str, convention: Convention) -> BoundMetric:
    base, _, operator = name.partition("@")
    if base not in _REGISTRY:
        raise InvalidInputError(
            f"metrics: expected some of {', '.join(available_metrics())}, got {name!r}"
        )
    spec = _REGISTRY[base]
    if operator and (spec.removal is None or operator not in REMOVALS):
        known = "no operator" if spec.removal is None else f"one of {', '.join(REMOVALS)}"
        raise InvalidInputError(f"metrics: expected {known} after {base!r}, got {name!r}")
    metric, removal = replace(spec.metric, name=name), None
    if spec.removal is not None:
        own = {"convention": convention.removal, "log-odds": convention.log_odds_removal}
        removal = resolve_removal(operator or own.get(spec.removal, spec.removal))
        metric = replace(
            metric,
            title=f"{metric.title} ({removal.name})",
            description=metric.description.replace("{removal}", removal.name),
        )
    return BoundMetric(metric, spec, convention, removal)


def directions(metrics: Sequence[BoundMetric]) -> dict[str, int]:
    """By metric 1 where higher is better and -1 where lower is.

    Raises:
        InvalidInputError: A metric has no direction.
    """
    signs = {}
    for entry in metrics:
        higher = entry.metric.higher_is_better
        if higher is None:
            raise InvalidInputError(
                "metrics: expected ones of which it is known whether higher or lower is better, "
                f"got {entry.metric.name!r}"
            )
        signs[entry.metric.name] = 1 if higher else -1
    return signs
