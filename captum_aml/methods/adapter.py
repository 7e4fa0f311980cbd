"""The one adapter between a token method's call and what computes its scores.

A method that is a function of the call's canonical form is registered by decorating it with
:func:`scoring_method`.

Groups of tokens that share a score (N, L) number the features of each example from 0, and are -1
where there is nothing to explain. A call of a token method has them as its ``feature_mask``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor, nn

from captum_aml._utils.checks import is_integral
from captum_aml._utils.isolation import seeded
from captum_aml.exceptions import InvalidInputError
from captum_aml.masking.call import Call, parse_call
from captum_aml.methods.registry import Family, MethodOptions, MethodSpec, Setting, register
from captum_aml.typing import ForwardFunc


class Adapter(ABC):
    """A token method; see :class:`~captum_aml.methods.TokenMethod`."""

    #: Whether scores are taken with gradients enabled.
    gradients: bool = True

    @abstractmethod
    def _scores(self, call: Call) -> Tensor:
        """Scores (N, L) of a call of one tensor of ids, whose groups are its ``feature_mask``.

        Its target is None where the predicted classes are meant.
        """

    def __call__(
        self,
        ids: Tensor,
        baselines: Tensor,
        *,
        target: Tensor | int | None = None,
        additional_forward_args: tuple[object, ...] = (),
        feature_mask: Tensor | None = None,
    ) -> Tensor:
        """See ``TokenMethod``."""
        # Callers may be in no_grad or inference mode, where there would be no gradients to read.
        with torch.inference_mode(False), torch.set_grad_enabled(self.gradients):
            groups = parse_groups(ids, baselines, feature_mask)
            classes = None if target is None else _classes(target, ids)
            if not ids.numel():
                return torch.zeros(ids.shape, device=ids.device)
            call = parse_call(ids, baselines, classes, additional_forward_args, groups)
            scores = self._scores(call)
        return scores.detach().float() * maskable_of(call)


def groups_of(call: Call) -> Tensor:
    """The groups of a call's tokens (N, L)."""
    assert call.feature_mask is not None
    return call.feature_mask[0]


def maskable_of(call: Call) -> Tensor:
    """True where there is something to explain (N, L)."""
    return groups_of(call) >= 0


def count_groups(groups: Tensor) -> int:
    """The largest number of features that an example has."""
    return int(groups.max()) + 1 if groups.numel() else 0


def shares(groups: Tensor) -> bool:
    """Whether any feature has several tokens."""
    if not groups.numel():
        return False
    return bool((groups.amax(dim=1) + 1 < (groups >= 0).sum(dim=1)).any())


def group_sums(scores: Tensor, call: Call) -> Tensor:
    """Scores of tokens (N, L) as those of their groups: the sums over the groups' tokens."""
    groups = groups_of(call)
    if not shares(groups):
        return scores
    counted = torch.where(groups >= 0, scores, 0.0)
    places = groups.clamp(min=0)
    return torch.zeros_like(counted).scatter_add(1, places, counted).gather(1, places)


def group_norms(norms: Tensor, call: Call) -> Tensor:
    """Norms of tokens' vectors (N, L) as those of the vectors that groups make of them."""
    return group_sums(norms.square(), call).sqrt() if shares(groups_of(call)) else norms


def parse_groups(ids: Tensor, baselines: Tensor, feature_mask: Tensor | None) -> Tensor:
    """Checks ids, baselines and feature mask, and numbers the features (N, L).

    Raises:
        InvalidInputError: One has a wrong shape or dtype.
    """
    if ids.dim() != 2 or ids.is_floating_point():
        raise InvalidInputError(
            f"ids: expected integer token ids (N, L), got {ids.dtype} of shape {tuple(ids.shape)}"
        )
    if baselines.shape != ids.shape or baselines.dtype != ids.dtype:
        raise InvalidInputError(
            f"baselines: expected {ids.dtype} of shape {tuple(ids.shape)} as the ids, got "
            f"{baselines.dtype} of shape {tuple(baselines.shape)}"
        )
    if feature_mask is not None:
        if not isinstance(feature_mask, Tensor):
            raise InvalidInputError(
                "feature_mask: expected a tensor of integer group ids or None, got "
                f"{type(feature_mask).__name__}"
            )
        if feature_mask.shape != ids.shape or not is_integral(feature_mask):
            raise InvalidInputError(
                f"feature_mask: expected integer group ids of shape {tuple(ids.shape)} as the "
                f"ids, got {feature_mask.dtype} of shape {tuple(feature_mask.shape)}"
            )
    return number_groups(ids != baselines, feature_mask)


def number_groups(maskable: Tensor, feature_mask: Tensor | None) -> Tensor:
    """The feature of each token, numbered within each example from 0 in order of appearance.

    Args:
        maskable: True where there is something to explain (N, L).
        feature_mask (Tensor, optional): Group ids (N, L). None: every token is a feature.

    Returns:
        Numbers (N, L), -1 where there is nothing to explain.
    """
    if feature_mask is None:
        return torch.where(maskable, maskable.cumsum(dim=1) - 1, -1)
    groups = torch.full(maskable.shape, -1, device=maskable.device)
    for row, mask in enumerate(feature_mask.to(maskable.device)):
        places = maskable[row].nonzero().flatten()
        values, inverse = torch.unique(mask[places], return_inverse=True)
        order = torch.arange(len(places), device=places.device)
        first = torch.full_like(values, len(places), dtype=torch.long)
        first.scatter_reduce_(0, inverse, order, "amin")
        # The rank of a group's first token among the first tokens.
        groups[row, places] = first.argsort().argsort()[inverse]
    return groups


def _classes(target: Tensor | int, ids: Tensor) -> Tensor:
    """The explained class of each example (N,)."""
    n_examples = ids.shape[0]
    classes = torch.as_tensor(target, device=ids.device)
    if classes.is_floating_point() or classes.shape not in ((), (n_examples,)):
        raise InvalidInputError(
            f"target: expected one class or a class per example ({n_examples},), got "
            f"{classes.dtype} of shape {tuple(classes.shape)}"
        )
    if n_examples and int(classes.min()) < 0:
        raise InvalidInputError(f"target: expected classes from 0, got {int(classes.min())}")
    return classes.long().expand(n_examples)


def classes_of(call: Call) -> Tensor:
    """The explained classes of a call (N,)."""
    assert call.target is not None
    return call.target[:, 0]


def examples_of(call: Call) -> Iterator[Call]:
    """The N calls with one example each."""
    return (call.rows(row, row + 1) for row in range(call.n_examples))


def logits_of(forward_func: ForwardFunc, *, n_classes: int = 1) -> Callable[..., Tensor]:
    """The forward function with its result checked: ids and arguments to logits (N, C).

    Args:
        forward_func: Token ids to logits (N, C).
        n_classes: The smallest C that holds the explained classes. Default: 1.
    """

    def logits(ids: Tensor, *args: object) -> Tensor:
        result = forward_func(ids, *args)
        if not isinstance(result, Tensor) or result.dim() != 2:
            came = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
            raise InvalidInputError(f"forward_func: expected logits (N, C), got {came}")
        if result.shape[1] < n_classes:
            raise InvalidInputError(
                f"target: expected classes from 0 to {result.shape[1] - 1}, got {n_classes - 1}"
            )
        return result.float()

    return logits


@dataclass(frozen=True)
class Subject:
    """The forward function of a scoring function, and its options.

    Attributes:
        forward_func: Token ids to logits (N, C).
        embedding_layer: The layer inside it that embeds the ids.
        n_steps: Steps or samples.
        seed: Seed of everything random.
        batch_size: The most examples in one pass of the model.
        n_classes: The smallest C that holds the explained classes.
    """

    forward_func: ForwardFunc
    embedding_layer: nn.Module
    n_steps: int
    seed: int
    batch_size: int
    n_classes: int = 1

    def logits(self, ids: Tensor, *args: object) -> Tensor:
        """Ids and further arguments to checked logits (N, C)."""
        return logits_of(self.forward_func, n_classes=self.n_classes)(ids, *args)

    def probabilities(self, ids: Tensor, *args: object) -> Tensor:
        """Class probabilities (N, C) instead of logits, which all methods explain."""
        return self.logits(ids, *args).softmax(dim=-1)


#: What the scores of most methods are.
CONTRIBUTION = "contribution to the probability of the explained class"

#: Scores (N, L) of a call of N examples, in which the explained classes are filled in.
Scorer: TypeAlias = Callable[[Subject, Call], Tensor]


@dataclass(eq=False, kw_only=True)
class ScoringMethod(Adapter):
    """A token method that is a function of the call; what ``scoring_method`` makes.

    Attributes:
        score: What scores. Tokens of one group get one score.
        subject: What it explains.
        settings: What is recorded.
        gradients: Whether ``score`` takes gradients.
        uses_target: Whether scores depend on the explained class; a pass of the model to find the
            predicted ones is saved where they do not.
        one_by_one: Whether every example is scored on its own, from the same seed, so that none
            depends on the others; those with nothing to explain are left out.
    """

    score: Scorer
    subject: Subject
    settings: Mapping[str, Setting]
    gradients: bool
    uses_target: bool
    one_by_one: bool

    def _scores(self, call: Call) -> Tensor:
        subject = self.subject
        if call.target is None and self.uses_target:
            with torch.no_grad():
                logits = subject.logits(*call.inputs, *call.additional_forward_args)
            call = replace(call, target=logits.argmax(dim=-1)[:, None])
        if call.target is not None:
            subject = replace(subject, n_classes=int(classes_of(call).max()) + 1)
        if not self.one_by_one:
            return self.score(subject, call)
        ids = call.inputs[0]
        result = torch.zeros(ids.shape, device=ids.device)
        for row, example in enumerate(examples_of(call)):
            if maskable_of(example).any():
                with seeded(subject.seed):
                    result[row] = self.score(subject, example)[0].detach().to(result)
        return result


def sampled(subject: Subject) -> dict[str, Setting]:
    """The settings of methods that draw samples."""
    return {"n_samples": subject.n_steps, "seed": subject.seed}


def scoring_method(
    name: str,
    summary: str,
    *,
    family: Family,
    aliases: tuple[str, ...] = (),
    steps: tuple[str, int] | None = None,
    settings: Callable[[Subject], Mapping[str, Setting]] = lambda _: {},
    signed: bool = True,
    relative: bool = False,
    score: str = "",
    stochastic: bool = False,
    gradients: bool = False,
    uses_target: bool = True,
    one_by_one: bool = False,
    check: Callable[[Subject], object] | None = None,
) -> Callable[[Scorer], Scorer]:
    """Registers the decorated function, a ``Scorer``, as a method.

    Its arguments are fields of :class:`~captum_aml.methods.MethodSpec` and ``ScoringMethod``, but
    for ``steps``: what ``n_steps`` counts, and the method's own number; ``settings``, from which
    what is recorded is made; and ``check``, which refuses what the method cannot do.
    """

    def decorate(scores: Scorer) -> Scorer:
        def factory(
            forward_func: ForwardFunc, embedding_layer: nn.Module, options: MethodOptions
        ) -> ScoringMethod:
            n_steps = options.n_steps or (0 if steps is None else steps[1])
            subject = Subject(
                forward_func, embedding_layer, n_steps, options.seed, options.batch_size
            )
            if check is not None:
                check(subject)
            return ScoringMethod(
                score=scores,
                subject=subject,
                settings=settings(subject),
                gradients=gradients,
                uses_target=uses_target,
                one_by_one=one_by_one,
            )

        counted = None if steps is None else f"{steps[0]} ({steps[1]})"
        register(
            MethodSpec(
                name,
                summary,
                factory,
                aliases=aliases,
                family=family,
                signed=signed,
                stochastic=stochastic,
                steps=counted,
                relative=relative,
                score=score,
            )
        )
        return scores

    return decorate
