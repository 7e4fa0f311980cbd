"""What the methods share: their checked arguments, what they explain, and their random state."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from captum_aml._utils.checks import is_integral
from captum_aml._utils.random import isolated_rng
from captum_aml.exceptions import InvalidInputError
from captum_aml.typing import ForwardFunc


@dataclass(frozen=True)
class TokenInputs:
    """The checked arguments of one call.

    Attributes:
        ids: Token ids (N, L).
        reference_ids: Baseline ids (N, L).
        target: Explained classes (N,).
        args: The forward function's further arguments.
        groups: The feature of each token (N, L), see ``number_groups``.
    """

    ids: Tensor
    reference_ids: Tensor
    target: Tensor
    args: tuple[object, ...]
    groups: Tensor

    @property
    def explained(self) -> Tensor:
        """True where there is something to explain (N, L)."""
        return self.ids != self.reference_ids

    @property
    def n_classes(self) -> int:
        """The smallest number of classes C that holds the explained ones."""
        return int(self.target.max()) + 1 if len(self.target) else 1

    @property
    def n_groups(self) -> int:
        """The largest number of features that an example has."""
        return int(self.groups.max()) + 1 if self.groups.numel() else 0

    @property
    def is_grouped(self) -> bool:
        """Whether any feature has several tokens."""
        return shares(self.groups)

    def group_sums(self, scores: Tensor) -> Tensor:
        """Scores of tokens (N, L) as those of their groups: the sums over the groups' tokens."""
        return self._pooled(scores) if self.is_grouped else scores

    def group_norms(self, norms: Tensor) -> Tensor:
        """Norms of tokens' vectors (N, L) as those of the vectors that groups make of them."""
        return self._pooled(norms.square()).sqrt() if self.is_grouped else norms

    def _pooled(self, scores: Tensor) -> Tensor:
        places = self.groups.clamp(min=0)
        counted = torch.where(self.explained, scores, 0.0)
        return torch.zeros_like(counted).scatter_add(1, places, counted).gather(1, places)

    def examples(self) -> Iterator[TokenInputs]:
        """The N calls with one example each."""
        n_examples = self.ids.shape[0]
        for row in range(n_examples):
            cut = slice(row, row + 1)
            yield TokenInputs(
                ids=self.ids[cut],
                reference_ids=self.reference_ids[cut],
                target=self.target[cut],
                args=tuple(
                    arg[cut]
                    if isinstance(arg, Tensor) and arg.dim() > 0 and arg.shape[0] == n_examples
                    else arg
                    for arg in self.args
                ),
                groups=self.groups[cut],
            )


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


def probability_of(forward_func: ForwardFunc, *, n_classes: int = 1) -> Callable[..., Tensor]:
    """The function that all methods explain: class probabilities (N, C) instead of logits.

    Args:
        forward_func: Token ids to logits (N, C).
        n_classes: The smallest C that holds the explained classes. Default: 1.
    """
    logits = logits_of(forward_func, n_classes=n_classes)

    def probabilities(ids: Tensor, *args: object) -> Tensor:
        return logits(ids, *args).softmax(dim=-1)

    return probabilities


def parse_inputs(
    forward_func: ForwardFunc,
    ids: Tensor,
    reference_ids: Tensor,
    target: Tensor | int | None,
    args: tuple[object, ...],
    feature_mask: Tensor | None = None,
) -> tuple[TokenInputs, Callable[..., Tensor]]:
    """Checks a call's arguments and fills in the predicted classes.

    Returns:
        The canonical call, and the function of ids and arguments that it explains.

    Raises:
        InvalidInputError: An argument has a wrong shape, dtype or range.
    """
    groups = parse_groups(ids, reference_ids, feature_mask)
    n_examples = ids.shape[0]
    if target is None:
        with torch.no_grad():
            classes = probability_of(forward_func)(ids, *args).argmax(dim=-1)
    else:
        classes = torch.as_tensor(target, device=ids.device)
        if classes.is_floating_point() or classes.shape not in ((), (n_examples,)):
            raise InvalidInputError(
                f"target: expected one class or a class per example ({n_examples},), got "
                f"{classes.dtype} of shape {tuple(classes.shape)}"
            )
        classes = classes.long().expand(n_examples)
    if n_examples and int(classes.min()) < 0:
        raise InvalidInputError(f"target: expected classes from 0, got {int(classes.min())}")
    call = TokenInputs(
        ids=ids, reference_ids=reference_ids, target=classes, args=args, groups=groups
    )
    return call, probability_of(forward_func, n_classes=call.n_classes)


def parse_groups(ids: Tensor, reference_ids: Tensor, feature_mask: Tensor | None) -> Tensor:
    """Checks ids, reference ids and feature mask, and numbers the features (N, L).

    Raises:
        InvalidInputError: One has a wrong shape or dtype.
    """
    if ids.dim() != 2 or ids.is_floating_point():
        raise InvalidInputError(
            f"ids: expected integer token ids (N, L), got {ids.dtype} of shape {tuple(ids.shape)}"
        )
    if reference_ids.shape != ids.shape or reference_ids.dtype != ids.dtype:
        raise InvalidInputError(
            f"reference_ids: expected {ids.dtype} of shape {tuple(ids.shape)} as the ids, got "
            f"{reference_ids.dtype} of shape {tuple(reference_ids.shape)}"
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
    return number_groups(ids != reference_ids, feature_mask)


def shares(groups: Tensor) -> bool:
    """Whether tokens share a feature, of those that ``number_groups`` gives (N, L)."""
    if not groups.numel():
        return False
    return bool((groups.amax(dim=1) + 1 < (groups >= 0).sum(dim=1)).any())


def number_groups(explained: Tensor, feature_mask: Tensor | None) -> Tensor:
    """The feature of each token, numbered within each example from 0 in order of appearance.

    Args:
        explained: True where there is something to explain (N, L).
        feature_mask (Tensor, optional): Group ids (N, L). None: every token is a feature.

    Returns:
        Numbers (N, L), -1 where there is nothing to explain.
    """
    if feature_mask is None:
        return torch.where(explained, explained.cumsum(dim=1) - 1, -1)
    groups = torch.full(explained.shape, -1, device=explained.device)
    for row, mask in enumerate(feature_mask.to(explained.device)):
        places = explained[row].nonzero().flatten()
        values, inverse = torch.unique(mask[places], return_inverse=True)
        order = torch.arange(len(places), device=places.device)
        first = torch.full_like(values, len(places), dtype=torch.long)
        first.scatter_reduce_(0, inverse, order, "amin")
        # The rank of a group's first token among the first tokens.
        groups[row, places] = first.argsort().argsort()[inverse]
    return groups


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Runs a block with seeded global generators and gives them their states back afterwards.

    Captum draws from torch's and NumPy's global generators and takes no others.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with isolated_rng(seed):
        try:
            np.random.seed(seed % 2**32)
            random.seed(seed)
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
