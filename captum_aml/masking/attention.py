"""Removal through attention, where and as a model takes it, found out by trial."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from captum_aml.exceptions import CaptumAMLError
from captum_aml.masking.forward import run_forward
from captum_aml.masking.problem import MaskingProblem
from captum_aml.perturbation import (
    AttentionRemoval,
    Blend,
    ForwardState,
    JointRemoval,
    Perturbation,
)
from captum_aml.readout import output_tensor
from captum_aml.typing import ForwardFunc

# Relative to logits of around one; another mask takes another way through the attention kernels.
_TOLERANCE = 1e-3


def chosen_removal(problem: MaskingProblem) -> Perturbation | None:
    """Blending, and through attention as well where tokens are embedded and the model takes it.

    It is tried out on the example with most tokens.

    Returns:
        The perturbation, or None where no example has a token that can be removed.
    """
    (ids, *others), args = problem.call.inputs, problem.call.additional_forward_args
    maskable, named = problem.layout.maskable, problem.attention_mask
    if not bool(maskable.any()):
        return None
    if others or not problem.site.embeds or maskable.shape != ids.shape[:2]:
        return Blend()
    # A function of the user's own may call it anything.
    fitting = [i for i, arg in enumerate(args) if isinstance(arg, Tensor) and _fits(arg, ids)]
    row = int(maskable.sum(dim=1).argmax())
    example = problem.call.rows(row, row + 1)
    for place in fitting if named is None else [named]:
        try:
            taken = taken_removal(
                problem.site.forward_func,
                example.inputs[0],
                maskable[row : row + 1],
                example.additional_forward_args,
                place,
            )
        except CaptumAMLError:
            raise
        except Exception:  # of a function that holds something of the whole batch
            return Blend()
        if taken is not None:
            return JointRemoval(replace(taken, argument=place))
    return Blend()


def _fits(argument: Tensor, ids: Tensor) -> bool:
    """Whether an argument can be an attention mask (N, L): a truth value for each token."""
    return argument.shape == ids.shape[:2] and bool(((argument == 0) | (argument == 1)).all())


@torch.no_grad()
def taken_removal(
    forward_func: ForwardFunc,
    ids: Tensor,
    maskable: Tensor,
    forward_args: tuple[object, ...],
    attention_mask: int,
) -> AttentionRemoval | None:
    """The removal through attention that a model takes, if it takes one.

    The removals give the model an additive mask (N, 1, Q, L). Whether it takes such a mask, and
    whether its own attention is causal, is tried out: with nothing hidden the logits have to be
    those of the usual mask, with something hidden others, and others again with it half hidden, or
    the mask is taken for one of truth values. Every other token is hidden that can be: with all
    that a token sees hidden alike, it sees all of it.

    Args:
        forward_func: Gives logits.
        ids: Token ids (N, L), or their embeddings (N, L, D).
        maskable: True where one can be removed, bool (N, L).
        forward_args: The forward function's further arguments.
        attention_mask: Which of them is the attention mask (N, L).

    Returns:
        The removal; None also where the function gives another number of rows.
    """
    shown = torch.ones(ids.shape[:2], device=ids.device)
    # Every other token: with all keys hidden alike nothing would change.
    hidden = shown.masked_fill(maskable & (maskable.cumsum(dim=1) % 2 == 1), 0.0)
    half = hidden.clamp(min=0.5)
    state = ForwardState((shown,), (hidden,), forward_args, attention_mask=attention_mask)

    def logits(args: tuple[object, ...]) -> Tensor:
        return output_tensor(run_forward(forward_func, (ids,), args)).float()

    plain = logits(forward_args)
    if plain.shape[0] != ids.shape[0]:
        return None
    tolerance = _TOLERANCE * max(1.0, float(plain.abs().max()))
    for removal in (AttentionRemoval(), AttentionRemoval(causal=True)):
        try:
            with_all, with_none, with_half = (
                logits(removal(state, (keep,)).args) for keep in (shown, hidden, half)
            )
        except CaptumAMLError:
            raise
        except Exception:  # whatever a model says to a mask of four dimensions
            continue
        same = plain.shape == with_all.shape and bool(((plain - with_all).abs() <= tolerance).all())
        if same and not any(torch.equal(with_none, other) for other in (with_all, with_half)):
            return removal
    return None


def hiding_only_nothing(removal: Perturbation, problem: MaskingProblem) -> Perturbation:
    """A chosen removal, which hides tokens of those examples only whose baselines say nothing.

    Baselines of several ids, or embeddings, are content that stands in the tokens' place. The
    difference to explain is the one to that content, which hiding the tokens does not lead to.
    """
    if not isinstance(removal, JointRemoval):
        return removal
    baselines, maskable = problem.call.baselines[0], problem.layout.maskable
    rows = torch.arange(len(baselines), device=maskable.device)
    same = baselines == baselines[rows, maskable.int().argmax(dim=1)].unsqueeze(1)
    if same.dim() > 2:  # of embeddings
        same = same.all(dim=-1)
    hides = (same | ~maskable).all(dim=1)
    if bool(hides.all()):
        return removal
    return replace(removal, hides=hides) if bool(hides.any()) else Blend()
