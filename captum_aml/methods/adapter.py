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

from captum_aml._utils.autograd import without_derivative
from captum_aml._utils.checks import is_integral
from captum_aml._utils.isolation import ONE_THREAD, seeded
from captum_aml.exceptions import InvalidInputError, NoGradientError
from captum_aml.masking.call import Call, parse_call
from captum_aml.methods.contrast import ContrastForward
from captum_aml.methods.registry import (
    Family,
    MethodOptions,
    MethodOutput,
    MethodSpec,
    Setting,
    TokenMethod,
    register,
)
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
        with ONE_THREAD, torch.inference_mode(False), torch.set_grad_enabled(self.gradients):
            groups = parse_groups(ids, baselines, feature_mask)
            classes = None if target is None else _classes(target, ids)
            if not ids.numel():
                return torch.zeros(ids.shape, device=ids.device)
            call = parse_call(ids, baselines, classes, additional_forward_args, groups)
            scores = self._scores(call)
        return scores.detach().float() * maskable_of(call)

    def each_target(
        self,
        ids: Tensor,
        baselines: Tensor,
        *,
        targets: Tensor,
        foils: Tensor | None = None,
        additional_forward_args: tuple[object, ...] = (),
        feature_mask: Tensor | None = None,
    ) -> Tensor:
        """Scores for several targets of each text; see :func:`captum_aml.methods.each_target`."""
        with ONE_THREAD, torch.inference_mode(False), torch.set_grad_enabled(self.gradients):
            groups = parse_groups(ids, baselines, feature_mask)
            targets = _columns("targets", targets, ids)
            foils = None if foils is None else _columns("foils", foils, ids)
            if foils is not None and foils.shape != targets.shape:
                raise InvalidInputError(
                    f"foils: expected one for each target {tuple(targets.shape)}, got shape "
                    f"{tuple(foils.shape)}"
                )
            if not ids.numel() or not targets.numel():
                return torch.zeros(*targets.shape, ids.shape[1], device=ids.device)
            call = parse_call(ids, baselines, None, additional_forward_args, groups)
            if foils is None:
                scores = self._scores_each(call, targets)
            else:
                scores = self._contrasts_each(call, targets, foils)
        return scores.detach().float() * maskable_of(call)[:, None]

    def _scores_each(self, call: Call, targets: Tensor) -> Tensor:
        """Scores (N, T, L) for targets (N, T) of a call without any."""
        columns = targets.split(1, dim=1)
        return torch.stack([self._scores(replace(call, target=c)) for c in columns], dim=1)

    def _contrasts_each(self, call: Call, targets: Tensor, foils: Tensor) -> Tensor:
        """Scores (N, T, L) for targets (N, T) that are held against foils (N, T).

        By default the difference of scores, since contributions are linear.
        """
        return self._scores_each(call, targets) - self._scores_each(call, foils)

    def _of_pairs(self, call: Call, targets: Tensor, foils: Tensor) -> Tensor:
        """The same by a method that was made for a ``ContrastForward``."""
        of_fact = torch.ones(call.n_examples, 1, dtype=torch.long, device=targets.device)
        scores = []
        for pairs in torch.stack([targets, foils], dim=-1).unbind(dim=1):
            args = (*call.additional_forward_args, pairs)
            scores.append(self._scores(replace(call.with_args(args), target=of_fact)))
        return torch.stack(scores, dim=1)


def each_target(
    method: TokenMethod,
    ids: Tensor,
    baselines: Tensor,
    *,
    targets: Tensor,
    foils: Tensor | None = None,
    additional_forward_args: tuple[object, ...] = (),
    feature_mask: Tensor | None = None,
) -> Tensor:
    """Scores for several targets of each text, each as the method gives them for it alone.

    The averaged mask gradient runs the model once for all targets, and goes back once for each; a
    fitted masker proposes for all from one pass of the model; perturbation methods run each variant
    of a text once. The others take one target after the other.

    With foils it is explained why the target and not the foil, the difference of their outputs.
    Methods by name are asked for the difference itself, a fitted masker where it was told both in
    its fit (``contrasts``); of an instance it is the difference of its scores for each.

    Args:
        method: The method.
        ids: Token ids (N, L).
        baselines: As for :class:`TokenMethod`, like the arguments after ``foils``.
        targets: The explained classes of each text (N, T).
        foils: What each of them is held against (N, T). Default: None
        additional_forward_args: The forward function's further arguments.
        feature_mask: Groups of tokens (N, L). Default: None

    Returns:
        Scores (N, T, L).

    Raises:
        InvalidInputError: An argument has a wrong shape, dtype or range.
    """
    if isinstance(method, Adapter):
        return method.each_target(
            ids,
            baselines,
            targets=targets,
            foils=foils,
            additional_forward_args=additional_forward_args,
            feature_mask=feature_mask,
        )

    def alone(classes: Tensor) -> Tensor:
        scores = [
            method(
                ids,
                baselines,
                target=column,
                additional_forward_args=additional_forward_args,
                feature_mask=feature_mask,
            )
            for column in classes.unbind(dim=1)
        ]
        return torch.stack(scores, dim=1)

    return alone(targets) if foils is None else alone(targets) - alone(foils)


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


def _columns(name: str, classes: Tensor, ids: Tensor) -> Tensor:
    """Several classes of each example (N, T), checked."""
    if classes.dim() != 2 or len(classes) != len(ids):
        raise InvalidInputError(
            f"{name}: expected classes ({len(ids)}, T), got shape {tuple(classes.shape)}"
        )
    if not classes.shape[1]:
        return classes
    return torch.stack([_classes(column, ids) for column in classes.unbind(dim=1)], dim=1)


def classes_of(call: Call) -> Tensor:
    """The explained classes of a call (N,)."""
    assert call.target is not None
    return call.target[:, 0]


def examples_of(call: Call) -> Iterator[Call]:
    """The N calls with one example each."""
    return (call.rows(row, row + 1) for row in range(call.n_examples))


def logits_of(forward_func: ForwardFunc, *, n_classes: int = 1) -> Callable[..., Tensor]:
    """The forward function with its result checked: ids and arguments to numbers (N, C).

    Args:
        forward_func: Token ids to numbers (N, C): logits of classes or labels, or values.
        n_classes: The smallest C that holds the explained classes. Default: 1.

    Raises:
        InvalidInputError: The result is of another shape.
        NoGradientError: A gradient is wanted and cannot come through the whole of the function.
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
        if torch.is_grad_enabled() and without_derivative(result):
            raise NoGradientError(
                "forward_func: its result has no gradient, or through a part of it only, since an "
                "operation has no derivative, such as that of dynamic int8 layers; explain it by a "
                "method that perturbs inputs, such as lime or occlusion"
            )
        return result.float()

    return logits


class Recall:
    """The logits of a text's variants, remembered for the next of its targets.

    A method that perturbs a text looks at the same variants whatever the target, or at many of
    them. What else the forward function is given is the same for all variants.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, Tensor] = {}

    def logits(self, function: Callable[..., Tensor], ids: Tensor, *args: object) -> Tensor:
        """What the function gives for ids (M, L), without a pass where all of them are known."""
        keys = [row.tobytes() for row in ids.cpu().numpy()]
        if any(key not in self._known for key in keys):
            self._known.update(zip(keys, function(ids, *args), strict=True))
        return torch.stack([self._known[key] for key in keys])


@dataclass(frozen=True)
class Subject:
    """The forward function of a scoring function, and its options.

    Attributes:
        forward_func: Token ids to numbers (N, C).
        embedding_layer: The layer inside it that embeds the ids.
        n_steps: Steps or samples.
        seed: Seed of everything random.
        batch_size: The most examples in one pass of the model.
        output: What the numbers are.
        n_classes: The smallest C that holds the explained classes.
        recall: What is known of a text's variants, where there are several targets. Default: None
    """

    forward_func: ForwardFunc
    embedding_layer: nn.Module
    n_steps: int
    seed: int
    batch_size: int
    output: MethodOutput = "logits"
    n_classes: int = 1
    recall: Recall | None = None

    def logits(self, ids: Tensor, *args: object) -> Tensor:
        """Ids and further arguments to checked numbers (N, C)."""
        function = logits_of(self.forward_func, n_classes=self.n_classes)
        if self.recall is not None:
            return self.recall.logits(function, ids, *args)
        return function(ids, *args)

    def probabilities(self, ids: Tensor, *args: object) -> Tensor:
        """What is explained (N, C): probabilities of classes or labels, log-odds, or the value."""
        logits = self.logits(ids, *args)
        if self.output in ("log_odds", "value"):
            return logits
        return logits.softmax(dim=-1) if self.output == "logits" else logits.sigmoid()


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

    @property
    def output(self) -> MethodOutput:
        """What the forward function gives."""
        return self.subject.output

    def _scores_each(self, call: Call, targets: Tensor) -> Tensor:
        if not self.uses_target:
            return self._scores(call)[:, None].expand(-1, targets.shape[1], -1)
        if self.gradients or not self.one_by_one:
            return super()._scores_each(call, targets)
        scores = []
        subject = replace(self.subject, n_classes=int(targets.max()) + 1)
        for example, own in zip(examples_of(call), targets.split(1), strict=True):
            method = replace(self, subject=replace(subject, recall=Recall()))
            scores += [method._scores(replace(example, target=t)) for t in own.split(1, dim=1)]
        return torch.cat(scores).reshape(*targets.shape, -1)

    def _contrasts_each(self, call: Call, targets: Tensor, foils: Tensor) -> Tensor:
        forward = ContrastForward(self.subject.forward_func)
        # The difference as it is: a probability made of it would hardly change where it is large.
        subject = replace(self.subject, forward_func=forward, output="log_odds")
        return replace(self, subject=subject)._of_pairs(call, targets, foils)

    def _scores(self, call: Call) -> Tensor:
        subject = self.subject
        if call.target is None and self.uses_target:
            with torch.no_grad():
                logits = subject.logits(*call.inputs, *call.additional_forward_args)
            call = replace(call, target=logits.argmax(dim=-1)[:, None])
        if call.target is not None:
            n_classes = max(subject.n_classes, int(classes_of(call).max()) + 1)
            subject = replace(subject, n_classes=n_classes)
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
                forward_func,
                embedding_layer,
                n_steps,
                options.seed,
                options.batch_size,
                options.output,
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
