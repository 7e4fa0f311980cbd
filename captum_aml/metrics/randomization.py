r"""Randomization test: dependence of scores on what the model has learned.

.. math:: \rho\bigl(a(\theta), a(\tilde\theta)\bigr)

is the rank correlation (Spearman's) of an example's scores under the model's weights
:math:`\theta` with its scores under random weights :math:`\tilde\theta`, where each parameter
tensor W is drawn anew with its own mean and spread,

.. math:: \tilde W = \mathrm{mean}(W) + \mathrm{std}(W) \, \epsilon,
    \qquad \epsilon \sim \mathcal{N}(0, 1).

Near 0 is right; near 1 the scores would be the same for a model that has learned nothing, so they
do not explain this one. Lower is better, down to 0.

Source: Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018 (model parameter
randomization test). Deviations: they draw weights as at the start of training, which a plain module
does not reveal; they go through the layers, one more or another one at a time, here the given
modules are randomized at once; they also correlate absolute values, here scores are ranked as they
are, as in all our metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from captum_aml._utils.checks import as_count
from captum_aml._utils.isolation import seeded
from captum_aml._utils.optional import require
from captum_aml.exceptions import InvalidInputError
from captum_aml.metrics.scoring import parse_scores
from captum_aml.readout import as_float


def parameter_randomization(
    explain: Callable[[], Tensor],
    model: nn.Module,
    *,
    tokens: Tensor | None = None,
    seed: int = 0,
    modules: Sequence[nn.Module] | None = None,
) -> Tensor:
    """Rank correlation of scores with those of the same model with random weights.

    Lower is better, down to 0; see the module for the equation. Afterwards the model's parameters
    and buffers hold what they held, to the bit, also if ``explain`` fails; meanwhile a copy of them
    takes as much memory as they do. Random generators of torch, NumPy and Python keep their state.

    Args:
        explain: Gives the scores (N, L) of the same N examples by the model as it is at the time.
            It should fix the explained classes, since random weights predict others. Both calls run
            with the same random numbers.
        model: The explained model. It is changed in place: not safe while others use it.
        tokens: Bool (N, L), the positions that count. Default: None, all.
        seed: Seed of the weights and of ``explain``. Default: 0
        modules: The parts of ``model`` to randomize. Default: None, all of it. Every floating point
            parameter in them is drawn anew once, so tied ones stay tied; one whose elements are all
            equal has no spread and stays as it is.

    Returns:
        Tensor (N,), at least float32, from -1 to 1; NaN for an example with constant scores, as
        those of fewer than two tokens are, before or after.

    Raises:
        ImportError: SciPy is not installed.
        InvalidInputError: ``explain`` gives anything but such scores, or another shape the second
            time; an argument has a wrong type, shape or dtype; a module is not part of the model;
            or there is no parameter to randomize.
        NonFiniteError: A score that counts is NaN or infinite.
    """
    require("scipy", package="SciPy", feature="parameter_randomization")
    seed = as_count("seed", seed)
    parameters = _parameters(model, modules)
    state = _State.of(model)
    try:
        with seeded(seed):
            before, counted = parse_scores(explain(), tokens, name="explain")
        state.restore()
        _randomize(parameters, seed)
        with seeded(seed):
            again = explain()
        if isinstance(again, Tensor) and again.shape != before.shape:
            raise InvalidInputError(
                f"explain: expected scores of shape {tuple(before.shape)} with random weights as "
                f"with the model's own, got {tuple(again.shape)}"
            )
        after, _ = parse_scores(again, counted, name="explain with random weights")
    finally:
        state.restore()
    values = [
        _spearman(a[here], b[here])
        for a, b, here in zip(before.cpu(), after.cpu(), counted.cpu(), strict=True)
    ]
    return before.new_tensor(values)


@dataclass(frozen=True)
class _State:
    """A model's parameters and buffers: which tensors they are, and a copy of their values."""

    places: list[tuple[nn.Module, str, Tensor]]
    values: list[tuple[Tensor, Tensor]]

    @classmethod
    def of(cls, model: nn.Module) -> _State:
        places = [
            (module, name, tensor)
            for module in model.modules()
            for named in (module.named_parameters, module.named_buffers)
            for name, tensor in named(recurse=False, remove_duplicate=False)
        ]
        distinct = {id(tensor): tensor for _, _, tensor in places}
        return cls(places, [(tensor, tensor.detach().clone()) for tensor in distinct.values()])

    def restore(self) -> None:
        for tensor, value in self.values:
            # By way of .data, for the caller's graphs: the same bits as before are no change.
            tensor.data.copy_(value)
        for module, name, tensor in self.places:
            # A buffer that was replaced, not written to.
            if getattr(module, name, None) is not tensor:
                setattr(module, name, tensor)


def _parameters(model: nn.Module, modules: Sequence[nn.Module] | None) -> list[nn.Parameter]:
    """The distinct parameters to randomize."""
    if not isinstance(model, nn.Module):
        raise InvalidInputError(f"model: expected a torch module, got {type(model).__name__}")
    if modules is None:
        return list(model.parameters())
    if not isinstance(modules, Iterable):
        raise InvalidInputError(
            f"modules: expected a sequence of the model's modules, got {type(modules).__name__}"
        )
    parts = set(model.modules())
    for i, module in enumerate(modules):
        if module not in parts:
            raise InvalidInputError(
                f"modules[{i}]: expected a module of the model, got {type(module).__name__}, which "
                "is not part of it"
            )
    return list({id(p): p for module in modules for p in module.parameters()}.values())


def _randomize(parameters: Sequence[nn.Parameter], seed: int) -> None:
    # Drawn on the CPU, so that they are the same on every device, and not from the numbers that
    # explain draws.
    generator = torch.Generator().manual_seed(seed + 1)
    changed = False
    for parameter in parameters:
        if not parameter.is_floating_point() or bool((parameter == parameter.flatten()[:1]).all()):
            continue
        values = as_float(parameter.data)
        noise = torch.randn(values.shape, generator=generator, dtype=values.dtype)
        drawn = values.mean() + values.std(correction=0) * noise.to(values.device)
        parameter.data.copy_(drawn)
        changed = True
    if not changed:
        raise InvalidInputError(
            "modules: expected a floating point parameter with elements that differ, got "
            f"{len(parameters)} parameters and none of that kind"
        )


def _spearman(a: Tensor, b: Tensor) -> float:
    """Spearman's rank correlation of two rows, equal values sharing their mean rank."""
    from scipy.stats import spearmanr

    if any(bool((row == row[:1]).all()) for row in (a, b)):
        return torch.nan
    return float(spearmanr(a.numpy(), b.numpy()).statistic)
