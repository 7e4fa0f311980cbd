r"""Readout of a forward function's output as log-probabilities for objectives.

However the output is read, the result for N examples is a distribution over C outcomes, one of
which is the target class:

=============================  =============================================  ==================
``output``                     the forward function returns                   distribution
=============================  =============================================  ==================
``logits``                     scores of classes along the last dimension     their softmax
``probabilities``              probabilities along the last dimension         as they are
``log_probabilities``          log-probabilities along the last dimension     their exponential
``independent_probabilities``  a probability of each label for itself         :math:`(1 - p, p)`
``independent_logits``         the log-odds of each label for itself          :math:`(1 - p, p)`
``probability``                one probability per example                    :math:`(1 - p, p)`
``log_probability``            one log-probability per example                :math:`(1 - p, p)`
``value``                      one value per example, of any kind             :math:`(1 - r, r)`
=============================  =============================================  ==================

Independent probabilities are those of labels that do not exclude each other, such as the sigmoid of
several outputs; :math:`p` is that of the target's label. Independent logits are what the sigmoid is
taken of, one for each label or one in all; nothing tells them from the logits of classes, so that
``auto`` never takes them for what they are. A logit of a class may be minus infinity, which rules
the class out, but not the target's, nor those of all other classes.

For a plain value there is no distribution; in its place stands the *retained fraction*

.. math:: r(m) = \frac{F(x[m]) - F(x[0])}{F(x) - F(x[0])},

where :math:`x[0]` has every token removed (for the inputs themselves, the baselines). It is 1 for
the input and 0 for the baselines, and does not change when :math:`F` is scaled or shifted.

The last five kinds read the one value that the target selects, as Captum does; the first three
read the distribution that the target points into.

A *foil* is the outcome b that the target a is held against: why a and not b. What is read is then
one log-odds for each example, of a against b, as a distribution over these two outcomes:

.. math:: d = z_a - z_b, \qquad (1 - p, p) \text{ with } p = \frac{e^d}{1 + e^d}.

For classes that exclude each other :math:`d` is :math:`\log p_a / p_b`, whether the forward
function gives logits, probabilities or their logarithms; for independent labels it is the
difference of two log-odds, likewise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from captum_aml.exceptions import InvalidInputError, NonFiniteError

OutputKind = Literal[
    "logits",
    "probabilities",
    "log_probabilities",
    "independent_probabilities",
    "independent_logits",
    "probability",
    "log_probability",
    "value",
]
_DISTRIBUTIONS = ("logits", "probabilities", "log_probabilities")
_INDEPENDENT = ("independent_probabilities", "independent_logits")

#: Retained fractions are kept this far from 0 and 1 before a logarithm is taken: a fraction below
#: 1 % retained counts as nothing, above 99 % as everything.
FRACTION_MARGIN = 0.01
_LOG_FLOOR = -50.0

#: How far from 1 probabilities may sum: what rounding each of many classes makes.
_SUM_TOLERANCE = {torch.float16: 4e-3, torch.bfloat16: 3e-2}


def check_output_kind(output: str) -> str:
    """Checks the name of an output kind, or ``auto``.

    Raises:
        InvalidInputError: The name is unknown.
    """
    known = ("auto", *get_args(OutputKind))
    if output not in known:
        raise InvalidInputError(f"output: expected one of {known}, got {output!r}")
    return output


def output_tensor(output: Any) -> Tensor:
    """The tensor that a forward function returned, also the ``logits`` of a Hugging Face output.

    One number without dimensions is that of a single row.

    Raises:
        InvalidInputError: There is no floating point tensor.
    """
    tensor = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if not isinstance(tensor, Tensor):
        raise InvalidInputError(
            "forward_func: expected it to return a tensor, or an object with a tensor `logits`, "
            f"got {type(output).__name__}"
        )
    if not tensor.dtype.is_floating_point:
        raise InvalidInputError(
            f"forward_func: expected it to return floating point values, got {tensor.dtype}"
        )
    return tensor.reshape(1) if tensor.dim() == 0 else tensor


def select(output: Tensor, target: Tensor | None) -> Tensor:
    """One value per example: ``output[i, *target[i]]``, as Captum selects it.

    Args:
        output: Tensor (M, ...), where M is a multiple of N.
        target: Indices (N, k), repeated as often as the rows are; None for one value per row.

    Returns:
        Tensor (M,).
    """
    if target is None:
        return output.reshape(output.shape[0])
    rows = torch.arange(output.shape[0], device=output.device)
    target = target.to(output.device).repeat(output.shape[0] // target.shape[0], 1)
    index = (rows, *target.unbind(1))
    return output[index]


class _Clip(torch.autograd.Function):
    """Clips to an interval; outside, the gradient passes only if a step along it leads back."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(values)
        ctx.bounds = (low, high)
        return values.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (values,) = ctx.saved_tensors
        low, high = ctx.bounds
        (grad,) = grads
        # Descent moves against the gradient: below the interval a negative one leads back.
        leads_out = ((values < low) & (grad > 0)) | ((values > high) & (grad < 0))
        return grad.masked_fill(leads_out, 0.0), None, None


def clip_fraction(values: Tensor) -> Tensor:
    """Clips fractions to [margin, 1 - margin] with a gradient that can lead back inside."""
    # torch leaves Function.apply without types.
    clipped: Tensor = _Clip.apply(values, FRACTION_MARGIN, 1.0 - FRACTION_MARGIN)  # type: ignore[no-untyped-call]
    return clipped


@dataclass(frozen=True)
class Readout:
    """The rule by which the outputs of one call are read.

    Attributes:
        kind: The kind of output, decided.
        target: The target's full index into the output, (N, k), or None where the forward function
            gives one value per example.
        target_class: The target's outcome among the C of the distribution, (N,).
        probabilities: The distribution for the unmasked input, (N, C).
        endpoints: For ``value``, ``F(x[0])`` and ``F(x)``, each (N,).
        n_labels: The number of independent labels, or of outcomes of which a foil is one; 1 for
            other kinds.
        foil: The foil's full index, (N, k); None where the target stands by itself.
    """

    kind: OutputKind
    target: Tensor | None
    target_class: Tensor
    probabilities: Tensor
    endpoints: tuple[Tensor, Tensor] | None = None
    n_labels: int = 1
    foil: Tensor | None = None

    @classmethod
    def resolve(
        cls,
        output: Any,
        target: Tensor | None,
        kind: str,
        n_examples: int,
        foil: Tensor | None = None,
    ) -> Readout:
        """Decides how to read outputs, from the one for the unmasked inputs.

        Args:
            output: What the forward function returned for N examples.
            target: Indices (N, k) into the output's dimensions after the first, or None.
            kind: An output kind, or ``auto``, which looks at all examples together: one value per
                example is a ``value``; rows of numbers from 0 to 1 are ``probabilities`` if all sum
                to 1, otherwise ``independent_probabilities``; rows whose exponentials sum to 1,
                ``log_probabilities``; anything else ``logits``.
            n_examples: The number of examples N.
            foil: Indices of what the target is held against, like those of the target. Default:
                None, nothing.

        Raises:
            InvalidInputError: The output has a wrong shape, or target or foil do not fit it.
            NonFiniteError: The output holds NaN or an infinite value.
        """
        readout = cls._of_target(output, target, kind, n_examples)
        return readout if foil is None else readout._against(foil, output_tensor(output))

    @classmethod
    def _of_target(cls, output: Any, target: Tensor | None, kind: str, n_examples: int) -> Readout:
        """From an output for a target by itself."""
        tensor = output_tensor(output)
        if tensor.shape[0] != n_examples:
            raise InvalidInputError(
                f"forward_func: expected one result for each of the {n_examples} examples along "
                f"dimension 0, got shape {tuple(tensor.shape)}"
            )
        if target is None and tensor.numel() != n_examples and tensor.dim() > 2:
            raise InvalidInputError(
                "target: expected a tuple of indices, since the forward function returns shape "
                f"{tuple(tensor.shape)}; got None"
            )
        target = checked_target(target, tensor)
        single = tensor.numel() == n_examples
        classless = tensor.dim() < 2 or tensor.shape[-1] == 1
        if kind == "auto" and classless:
            kind = "value"
        if kind in (*_DISTRIBUTIONS, "independent_probabilities", "auto") and classless:
            raise InvalidInputError(
                f"output: {kind!r} needs several classes per example, but the forward function "
                f"returns shape {tuple(tensor.shape)}"
            )
        if kind in (*_DISTRIBUTIONS, *_INDEPENDENT, "auto") and not classless:
            return cls._of_classes(tensor, target, kind)
        if target is None and not single:
            raise InvalidInputError(
                f"target: expected an index, since output={kind!r} reads one value per example "
                f"and the forward function returns shape {tuple(tensor.shape)}; got None"
            )
        return cls._of_one(tensor, target, cast(OutputKind, kind))

    @classmethod
    def _of_one(
        cls, tensor: Tensor, target: Tensor | None, kind: OutputKind, n_labels: int = 1
    ) -> Readout:
        """From the one value that the target selects."""
        values = select(tensor, target)
        check_finite(values if kind != "log_probability" else values.exp(), "the unmasked inputs")
        if kind == "value":
            probabilities = torch.stack([torch.zeros_like(values), torch.ones_like(values)], dim=1)
        elif kind == "independent_logits":
            probabilities = torch.stack([-values, values], dim=1).sigmoid()
        else:
            p = values.exp() if kind == "log_probability" else values
            _check_range(p, kind)
            probabilities = torch.stack([1 - p, p], dim=1)
        target_class = torch.ones(len(values), dtype=torch.long, device=values.device)
        return cls(kind, target, target_class, as_float(probabilities), n_labels=n_labels)

    @classmethod
    def _of_classes(cls, tensor: Tensor, target: Tensor | None, kind: str) -> Readout:
        """From the classes that the target points into; without one, from the highest."""
        if target is not None and target.shape[1] != tensor.dim() - 1:
            raise InvalidInputError(
                f"target: expected {tensor.dim() - 1} indices for an output of shape "
                f"{tuple(tensor.shape)}, got {target.shape[1]}"
            )
        rows = as_float(_row(tensor, target))
        decided = _detected(rows, tensor.dtype) if kind == "auto" else cast(OutputKind, kind)
        if decided in _INDEPENDENT:
            target = rows.argmax(dim=1, keepdim=True) if target is None else target
            return cls._of_one(tensor, target, decided, n_labels=rows.shape[1])
        probabilities = _log_probs(rows, decided).exp()
        if target is None:
            target = probabilities.argmax(dim=1, keepdim=True)
        _check_classes(rows, decided, target[:, -1], "the unmasked inputs")
        if decided != "logits":
            _check_range(rows if decided == "probabilities" else rows.exp(), decided)
        return cls(decided, target, target[:, -1], probabilities)

    def _against(self, foil: Tensor, output: Tensor) -> Readout:
        """The same with the target held against a foil, from the output for the unmasked inputs."""
        if self.label is None:
            raise InvalidInputError(
                f"foil: expected None, since output={self.kind!r} reads one value per example, "
                "which has no other outcome to be held against"
            )
        assert self.target is not None
        index = checked_target(foil, output, name="foil")
        assert index is not None
        foil = index
        if bool((foil[:, :-1] != self.target[:, :-1]).any()):
            raise InvalidInputError(
                "foil: expected the target's indices but for the last, which is that of the "
                f"outcome; got {foil.tolist()} for the targets {self.target.tolist()}"
            )
        same = (foil == self.target).all(dim=1)
        if bool(same.any()):
            raise InvalidInputError(
                "foil: expected another outcome than the one that is explained, got the same for "
                f"examples {same.nonzero().flatten().tolist()[:10]}"
            )
        contrast = replace(
            self,
            foil=foil,
            target_class=torch.ones_like(self.target_class),
            n_labels=output.shape[-1],
        )
        log_probs = contrast.log_probs(output, where="the unmasked inputs")
        return replace(contrast, probabilities=log_probs.exp())

    def at(self, rows: Tensor) -> Readout:
        """The same for some of the examples, in any order and as often as wanted, (M,)."""
        ends = self.endpoints
        return replace(
            self,
            target=None if self.target is None else self.target[rows],
            target_class=self.target_class[rows],
            probabilities=self.probabilities[rows],
            endpoints=None if ends is None else (ends[0][rows], ends[1][rows]),
            foil=None if self.foil is None else self.foil[rows],
        )

    @property
    def is_value(self) -> bool:
        """Whether the forward function gives a plain value, which has no log-odds."""
        return self.kind == "value"

    @property
    def label(self) -> Tensor | None:
        """The class or independent label that is explained, (N,); None where there is but one."""
        if self.n_labels == 1 and self.kind not in _DISTRIBUTIONS:
            return None
        assert self.target is not None
        return self.target[:, -1]

    @cached_property
    def condition(self) -> Tensor:
        """What a masker is told of the outcome to explain, (N, C).

        Of several independent labels the one-hot vector of the explained one, since the
        distribution does not say which that is; with a foil that of the target minus the foil's;
        otherwise the ``aim``.
        """
        if self.n_labels == 1 or self.label is None:
            return self.aim
        told = F.one_hot(self.label, self.n_labels)
        if self.foil is not None:
            told = told - F.one_hot(self.foil[:, -1], self.n_labels)
        return told.to(self.probabilities)

    @cached_property
    def aim(self) -> Tensor:
        """The distribution that the kept tokens should preserve, (N, C).

        The predicted distribution where the target class is the predicted one, otherwise the target
        class alone.
        """
        one_hot = F.one_hot(self.target_class, self.probabilities.shape[1]).to(self.probabilities)
        predicted = self.probabilities.argmax(dim=1) == self.target_class
        return torch.where(predicted.unsqueeze(1), self.probabilities, one_hot)

    def log_probs(self, output: Any, *, where: str) -> Tensor:
        """Log-probabilities of a further pass.

        Args:
            output: What the forward function returned for M rows, M a multiple of N.
            where: Names the pass in an error.

        Returns:
            Tensor (M, C), float32 or float64.

        Raises:
            NonFiniteError: The output holds NaN or an infinite value.
        """
        if self.foil is None and self.kind in _DISTRIBUTIONS:
            rows = as_float(_row(output_tensor(output), self.target))
            _check_classes(rows, self.kind, self._target_classes(len(rows)), where)
            return _log_probs(rows, self.kind)
        if self.kind == "log_probability":
            # At most the number whose complement is the smallest that counts.
            log_p = as_float(select(output_tensor(output), self.target))
            check_finite(log_p.exp(), where)
            log_p = log_p.clamp(_LOG_FLOOR, -math.exp(_LOG_FLOOR))
            return torch.stack([_log1mexp(log_p), log_p], dim=1)
        values = self.values(output, where=where)
        if self.kind == "independent_logits" or self.foil is not None:
            return F.logsigmoid(torch.stack([-values, values], dim=1))
        if self.kind == "independent_probabilities":  # which may have been a guess
            _check_range(values, self.kind)
        p = clip_fraction(self.retained(values)) if self.is_value else values
        return torch.stack([1 - p, p], dim=1).clamp(min=math.exp(_LOG_FLOOR)).log()

    def log_odds_terms(self, output: Any, *, where: str) -> tuple[Tensor, Tensor]:
        r"""The terms :math:`\log p_c` and :math:`\log(1 - p_c)` of the target class's log-odds.

        Their difference is the log-odds; from logits, :math:`z_c - \log\sum_{k \ne c} e^{z_k}`.
        :math:`1 - p_c` is summed over the other classes, so that nothing is lost where
        :math:`p_c` rounds to 1. For a ``value`` they are those of the retained fraction; its own
        unit has :meth:`values`.

        Args:
            output: What the forward function returned for M rows, M a multiple of N.
            where: Names the pass in an error.

        Returns:
            Two tensors (M,), in nats, float32 or float64.

        Raises:
            NonFiniteError: The output holds NaN or an infinite value.
        """
        log_probs = self.log_probs(output, where=where)
        is_target = F.one_hot(self._target_classes(len(log_probs)), log_probs.shape[1]).bool()
        others = log_probs.masked_fill(is_target, -math.inf)
        return log_probs[is_target], others.logsumexp(dim=1)

    def values(self, output: Any, *, where: str) -> Tensor:
        """The forward function's values at the target, in their own unit; log-odds with a foil.

        Args:
            output: What the forward function returned for M rows, M a multiple of N.
            where: Names the pass in an error.

        Returns:
            Tensor (M,), float32 or float64.

        Raises:
            NonFiniteError: One is NaN or infinite.
        """
        if self.foil is not None:
            fact, foil = self.sides(output, where=where)
            return fact - foil
        values = as_float(select(output_tensor(output), self.target))
        check_finite(values, where)
        return values

    def sides(self, output: Any, *, where: str) -> tuple[Tensor, Tensor]:
        """What a contrast is the difference of: the target's values and the foil's, each (M,).

        Args:
            output: What the forward function returned for M rows, M a multiple of N.
            where: Names the pass in an error.

        Raises:
            NonFiniteError: One is NaN or infinite.
        """
        assert self.foil is not None
        tensor = output_tensor(output)
        fact, foil = (
            self._log_odds(as_float(select(tensor, index)), where=where)
            for index in (self.target, self.foil)
        )
        return fact, foil

    def _log_odds(self, values: Tensor, *, where: str) -> Tensor:
        """An outcome's values (M,) as its log-odds, up to what all classes of a row share."""
        check_finite(values.exp() if self.kind == "log_probabilities" else values, where)
        if self.kind == "log_probabilities":
            return values.clamp(min=_LOG_FLOOR)
        if self.kind not in ("probabilities", "independent_probabilities"):
            return values
        _check_range(values, self.kind)
        least = math.exp(_LOG_FLOOR)
        log_p = values.clamp(min=least).log()
        return (
            log_p if self.kind == "probabilities" else log_p - (1 - values).clamp(min=least).log()
        )

    def _target_classes(self, n_rows: int) -> Tensor:
        """The target's outcome for M rows, M a multiple of N."""
        return self.target_class.repeat(n_rows // self.target_class.shape[0])

    def retained(self, values: Tensor) -> Tensor:
        """The retained fraction of values (M,); 0 where the endpoints do not differ."""
        assert self.endpoints is not None
        low, high = (e.repeat(values.shape[0] // e.shape[0]) for e in self.endpoints)
        span = high - low
        return torch.where(span == 0, values * 0, (values - low) / torch.where(span == 0, 1, span))


def checked_target(target: Tensor | None, tensor: Tensor, name: str = "target") -> Tensor | None:
    """A target as a full, non-negative index into an output.

    Args:
        target: Indices (N, k), or None.
        tensor: The output, (N, ...).
        name: The argument's name. Default: target

    Raises:
        InvalidInputError: It points outside, or at more than one value per example.
    """
    if target is None:
        return None
    sizes = tensor.shape[1:]
    if target.shape[1] > len(sizes):
        raise InvalidInputError(
            f"{name}: expected at most {len(sizes)} indices for an output of shape "
            f"{tuple(tensor.shape)}, got {target.shape[1]}"
        )
    limits = torch.tensor(sizes[: target.shape[1]], device=target.device)
    if bool(((target >= limits) | (target < -limits)).any()):
        raise InvalidInputError(
            f"{name}: expected indices below {tuple(sizes)} for an output of shape "
            f"{tuple(tensor.shape)}, got {target.tolist()}"
        )
    if target.shape[1] < len(sizes):
        if any(size != 1 for size in sizes[target.shape[1] :]):
            raise InvalidInputError(
                f"{name}: expected {len(sizes)} indices for an output of shape "
                f"{tuple(tensor.shape)}, got {target.shape[1]}"
            )
        missing = len(sizes) - target.shape[1]
        target = F.pad(target, (0, missing))
    # Negative indices count from the end, as in Captum; keep the index that they stand for.
    return target.remainder(torch.tensor(sizes, device=target.device)).to(tensor.device)


def _row(tensor: Tensor, target: Tensor | None) -> Tensor:
    """The classes (M, C) that a target (N, k) points into: the last dimension."""
    if target is None or target.shape[1] == 1:
        return tensor
    rows = torch.arange(tensor.shape[0], device=tensor.device)
    prefix = target[:, :-1].repeat(tensor.shape[0] // target.shape[0], 1)
    index = (rows, *prefix.unbind(1))
    return tensor[index]


def as_float(tensor: Tensor) -> Tensor:
    """At least float32: losses are not computed in half precision."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _log_probs(rows: Tensor, kind: OutputKind) -> Tensor:
    if kind == "logits":
        # A class that is ruled out counts like a probability of 0, so that 0 * log 0 is a number.
        return F.log_softmax(rows, dim=-1).masked_fill(rows == -math.inf, _LOG_FLOOR)
    if kind == "probabilities":
        return rows.clamp(min=math.exp(_LOG_FLOOR)).log()
    # Normalizing changes nothing where these are log-probabilities, and makes it harmless to have
    # taken confident logits for them.
    return F.log_softmax(rows.clamp(min=_LOG_FLOOR), dim=-1)


def _log1mexp(log_p: Tensor) -> Tensor:
    """log(1 - p) from log p < 0, by whichever form is exact (Maechler 2012)."""
    # Each branch is given only what it is finite for, since both have a gradient.
    near_one = log_p > -math.log(2)
    first = torch.where(near_one, log_p, -1.0).expm1().neg().log()
    second = torch.where(near_one, -1.0, log_p).exp().neg().log1p()
    return torch.where(near_one, first, second)


def _detected(rows: Tensor, dtype: torch.dtype) -> OutputKind:
    tolerance = _SUM_TOLERANCE.get(dtype, 1e-4)
    ones = torch.ones_like(rows[:, 0])
    if bool(((rows >= 0) & (rows <= 1 + tolerance)).all()):
        exclusive = torch.allclose(rows.sum(1), ones, atol=tolerance, rtol=0)
        return "probabilities" if exclusive else "independent_probabilities"
    if bool((rows <= 0).all()) and torch.allclose(rows.exp().sum(1), ones, atol=tolerance, rtol=0):
        return "log_probabilities"
    return "logits"


class MisreadOutputError(InvalidInputError):
    """Outputs are not of the kind that they were said, or taken, to be."""


def _check_range(values: Tensor, kind: str) -> None:
    if bool(((values < -1e-3) | (values > 1 + 1e-3)).any()):
        raise MisreadOutputError(
            f"output: {kind!r} expects probabilities from 0 to 1, but the forward function's are "
            f"from {values.min().item():.4g} to {values.max().item():.4g}; if these are logits, "
            "pass output='logits'"
        )


def _check_classes(rows: Tensor, kind: OutputKind, target_class: Tensor, where: str) -> None:
    """Checks the numbers of classes, (M, C): what may be minus infinity depends on their kind."""
    if kind == "logits":
        is_target = F.one_hot(target_class, rows.shape[1]).bool()
        ruled_out = (rows == -math.inf) & ~is_target
        some_left = ruled_out.sum(dim=1, keepdim=True) < rows.shape[1] - 1
        rows = rows.masked_fill(ruled_out & some_left, 0.0)
    check_finite(rows.exp() if kind == "log_probabilities" else rows, where)


def check_finite(values: Tensor, where: str) -> None:
    """Checks outputs, (M, ...).

    Raises:
        NonFiniteError: One is NaN or infinite; the message names ``where`` and the rows.
    """
    if not bool(torch.isfinite(values).all()):
        bad = (~torch.isfinite(values)).reshape(values.shape[0], -1).any(1).nonzero().flatten()
        raise NonFiniteError(
            f"forward_func: expected finite outputs, got NaN or an infinite value for {where} "
            f"(rows {bad.tolist()[:10]})"
        )
