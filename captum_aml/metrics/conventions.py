r"""The conventions that faithfulness figures depend on, as values that can be named and compared.

A metric takes the top :math:`k` of an example's :math:`T` tokens. Libraries differ in which
:math:`k`, in what happens where a share of a short text is less than one token, in what the sum is
divided by, and in how tokens are removed. A :class:`Convention` states all of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

from captum_aml.exceptions import InvalidInputError
from captum_aml.metrics.removal import Removal, resolve_removal

Rounding = Literal["floor", "ceil", "round"]
Divisor = Literal["count", "count+1"]

#: Shares are kept apart from the integers they stand for by no more than this: 0.2 of 5 tokens is
#: one token, although 0.2 * 5 may come out a little above 1.
_SLACK = 1e-9


@dataclass(frozen=True, kw_only=True)
class Convention:
    r"""A choice of top tokens, of averages over them, and of their removal.

    Attributes:
        name: What to call it in a result.
        shares: Shares of the tokens for the AOPC forms, each in (0, 1]; None for every number of
            tokens from 1 to :math:`T`.
        share: The share for the single-threshold forms.
        rounding: How a share becomes a number of tokens.
        at_least: The smallest number of tokens, 0 or 1.
        repeats: Whether shares that come to the same number of tokens all count, or once.
        divisor: The AOPC forms divide the sum by the number of values, or by one more.
        free_at_zero: Whether sufficiency with no token kept is scored 0, the best value, instead of
            being measured.
        removal: How tokens are removed: ``delete``, ``mask``, ``pad`` or a
            :class:`~captum_aml.metrics.Removal`.
        log_odds_removal: The same for log-odds.

    Raises:
        InvalidInputError: A value is out of range.
    """

    name: str = "custom"
    shares: tuple[float, ...] | None = (0.01, 0.05, 0.1, 0.2, 0.5)
    share: float = 0.2
    rounding: Rounding = "ceil"
    at_least: int = 1
    repeats: bool = True
    divisor: Divisor = "count"
    free_at_zero: bool = False
    removal: str | Removal = "delete"
    log_odds_removal: str | Removal = "mask"

    def __post_init__(self) -> None:
        named = [("shares", share) for share in self.shares or ()] + [("share", self.share)]
        for name, share in named:
            if not 0 < share <= 1:
                raise InvalidInputError(f"{name}: expected a share in (0, 1], got {share!r}")
        if self.shares is not None and not self.shares:
            raise InvalidInputError("shares: expected at least one, got none")
        for name, words in {"rounding": Rounding, "divisor": Divisor}.items():
            if (given := getattr(self, name)) not in get_args(words):
                raise InvalidInputError(f"{name}: expected one of {get_args(words)}, got {given!r}")
        if self.at_least not in (0, 1):
            raise InvalidInputError(f"at_least: expected 0 or 1, got {self.at_least!r}")
        resolve_removal(self.removal)
        resolve_removal(self.log_odds_removal, argument="log_odds_removal")

    def count(self, n_tokens: int, share: float | None = None) -> int:
        """The number of tokens that a share of ``n_tokens`` stands for.

        Args:
            n_tokens: The example's number of tokens T.
            share (float, optional): Default: None, the convention's own ``share``.
        """
        exact = n_tokens * (self.share if share is None else share)
        if self.rounding == "floor":
            k = math.floor(exact + _SLACK)
        elif self.rounding == "ceil":
            k = math.ceil(exact - _SLACK)
        else:
            k = math.floor(exact + 0.5 + _SLACK)
        return min(max(k, self.at_least), n_tokens)

    def counts(self, n_tokens: int) -> list[int]:
        """The numbers of tokens that the AOPC forms average over, for an example with T tokens."""
        if self.shares is None:
            return list(range(1, n_tokens + 1))
        counts = [self.count(n_tokens, share) for share in self.shares]
        return counts if self.repeats else sorted({k for k in counts if k > 0})

    def divide_by(self, n_values: int) -> int:
        """The divisor of the sum of ``n_values`` values."""
        return n_values + 1 if self.divisor == "count+1" else n_values

    @property
    def description(self) -> str:
        """The convention in words."""
        if self.shares is None:
            shares = "every number of tokens from one to all"
        else:
            shares = ", ".join(f"{100 * share:g}%" for share in self.shares) + " of the tokens"
            rounded = {"floor": "down", "ceil": "up", "round": "to the nearest"}[self.rounding]
            shares += f", rounded {rounded}"
            shares += ", at least one token" if self.at_least else ", possibly none"
            shares += "" if self.repeats else ", equal numbers once"
        divided = "their mean" if self.divisor == "count" else "their sum divided by one too many"
        free = "; sufficiency of no token is scored 0" if self.free_at_zero else ""
        removal = resolve_removal(self.removal).name
        log_odds = resolve_removal(self.log_odds_removal).name
        return f"{shares}; {divided}{free}; removal by {removal} (log-odds by {log_odds})"


#: Named conventions. ``default`` has no value that comes for free: at least one token is taken and
#: the mean is a mean. The others follow what is published under their names.
PRESETS: MappingProxyType[str, Convention] = MappingProxyType(
    {
        convention.name: convention
        for convention in (
            Convention(name="default"),
            # Barkan et al. (2024a), as in the reference code.
            Convention(
                name="aml", rounding="floor", at_least=0, divisor="count+1", free_at_zero=True
            ),
            # DeYoung et al. (2020): the mean over given thresholds.
            Convention(name="eraser", rounding="round"),
            # Attanasio et al. (2023), without its option to look at positive scores only.
            Convention(
                name="ferret",
                shares=tuple(step / 10 for step in range(1, 11)),
                rounding="floor",
                at_least=0,
                repeats=False,
            ),
            # Edin et al. (2024): one token after the other, replaced by the mask token.
            Convention(name="naopc", shares=None, removal="mask"),
        )
    }
)


def resolve_convention(convention: str | Convention) -> Convention:
    """A convention given by itself or by the name of a preset.

    Raises:
        InvalidInputError: There is no such preset; the message lists those there are.
    """
    if isinstance(convention, Convention):
        return convention
    if convention not in PRESETS:
        raise InvalidInputError(
            f"convention: expected a Convention or one of {', '.join(PRESETS)}, got {convention!r}"
        )
    return PRESETS[convention]
