"""A forward function with a mask applied: the function that tuning and fitting optimize over."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from captum_aml._utils.autograd import nodes_behind, without_derivative
from captum_aml._utils.hooks import LayerPoint
from captum_aml._utils.isolation import rng_state
from captum_aml.exceptions import InvalidInputError, NoGradientError, NonFiniteError
from captum_aml.maskers import Masker, MaskerInputs
from captum_aml.maskers.base import as_logits, explained_layers_of
from captum_aml.maskers.hidden import HiddenStateReader
from captum_aml.masking.call import Call, repeat_rows
from captum_aml.masking.forward import argument_named
from captum_aml.masking.sites import Capture, Site
from captum_aml.masking.tokens import TokenLayout, mask_of_rows
from captum_aml.objectives import MaskedOutcome, Objective, Terms
from captum_aml.perturbation import ForwardState, Perturbation
from captum_aml.readout import Readout, as_float, check_finite, output_tensor, select


class GradientWatch:
    """Notes whether the model's output has a gradient with respect to the mask.

    An objective's size term always has one, so the loss alone does not show it.
    """

    def __init__(self) -> None:
        self.reached = False

    def attach(self, keep: tuple[Tensor, ...], output: Tensor) -> None:
        """Watches what was handed to the perturbation, and how the output came from it.

        Raises:
            NoGradientError: It came through an operation without a derivative.
        """
        for part in keep:
            if part.requires_grad:
                part.register_hook(self._note)
        sources = {part.grad_fn for part in keep}
        if any(sources & nodes_behind(node) for node in without_derivative(output)):
            # Before the backward pass, in which each of them would give a warning.
            raise _no_gradient(
                ", or through a part of it only, since an operation has no derivative"
            )

    def check(self) -> None:
        """Checks, after the backward pass, that it came through the model.

        Raises:
            NoGradientError: It did not.
        """
        if not self.reached:
            raise _no_gradient()

    def _note(self, grad: Tensor | None) -> None:
        # torch hands None to a hook that only operations without a derivative lead to.
        self.reached = self.reached or grad is not None


def _no_gradient(partly: str = "") -> NoGradientError:
    return NoGradientError(
        f"forward_func: its result has no gradient with respect to the masked inputs{partly}"
        "; expected a differentiable function of them (no detach, no_grad or argmax, no "
        "integer arithmetic such as dynamic int8 layers, no conversion to NumPy, and a result "
        "that depends on them). Without a gradient, explain it by a method that perturbs "
        "inputs, such as captum.attr.FeatureAblation, KernelShap or Lime, or by a masker that "
        "was fitted by regression, with n_steps=0"
    )


@dataclass(frozen=True)
class MaskingProblem:
    """A batch to explain with its forward function, its maskable units and its target.

    Attributes:
        call: The arguments of the call.
        site: Where the mask enters.
        capture: The site's tensors and the output for the unmasked inputs.
        baselines: The site's tensors for the baselines.
        layout: Tokens and mask units.
        readout: How outputs are read.
        perturbation: How the mask is applied.
        draws: Whether the forward function draws random numbers.
        max_rows: The most rows of a forward call, if all examples fit into it; None for any number.
        hidden: Hidden states of the unmasked pass that maskers read.
        removed: Of a value, the forward function's result with everything removed.
    """

    call: Call
    site: Site
    capture: Capture
    baselines: tuple[Tensor, ...]
    layout: TokenLayout
    readout: Readout
    perturbation: Perturbation
    draws: bool = False
    max_rows: int | None = None
    hidden: Mapping[LayerPoint, Tensor] = field(default_factory=dict, repr=False)
    removed: Tensor | None = None
    _states: dict[int, tuple[tuple[Tensor, ...], ForwardState]] = field(
        default_factory=dict, repr=False
    )

    @classmethod
    @torch.no_grad()
    def build(
        cls,
        call: Call,
        site: Site,
        perturbation: Perturbation,
        output: str,
        maskers: Sequence[object] = (),
        *,
        capture: Capture | None = None,
        max_rows: int | None = None,
    ) -> MaskingProblem:
        """Runs the unmasked inputs and lays out what can be masked.

        Args:
            call: The arguments of the call.
            site: Where the mask enters.
            perturbation: How the mask is applied.
            output: The output kind, or ``auto``.
            maskers: Those that will propose masks: the hidden states that they need are read.
            capture: What the unmasked inputs show, where that is known. Default: None, by a pass
            max_rows: The most rows of a forward call. Default: None, any number

        Raises:
            InvalidInputError: The call's arguments do not fit the forward function.
            LayerNotReachedError: The forward function does not run what a masker reads.
            NonFiniteError: The forward function gave NaN or an infinite value.
        """
        read = [
            layers
            for masker in maskers
            if masker is not None and (layers := explained_layers_of(masker))
        ]
        hidden: Mapping[LayerPoint, Tensor] = {}
        state = rng_state()
        if read:  # hidden states are not remembered with the outputs: they need the pass
            reader = HiddenStateReader(
                [point for layers in read for point in layers.points], device_ids=site.device_ids
            )
            with reader.reading():
                capture = site.capture(call)
            hidden = reader.states(call.n_examples)
        elif capture is None:
            capture = site.capture(call)
        draws = rng_state() != state
        readout = Readout.resolve(capture.output, call.target, output, call.n_examples, call.foil)
        baselines = site.baselines(call, capture)
        token_dims = site.token_dims(call, capture.features)
        masks = call.feature_mask
        if masks is not None and call.layer_rows is not None:
            start, n_total = call.layer_rows
            masks = (
                tuple(
                    mask_of_rows(m, f, d, start=start, n_total=n_total)
                    for m, f, d in zip(masks, capture.features, token_dims, strict=False)
                )
                + masks[len(capture.features) :]
            )
        layout = TokenLayout.build(
            capture.features,
            site.maskable(call, capture.features, baselines),
            masks,
            token_dims=token_dims,
        )
        problem = cls(
            call, site, capture, baselines, layout, readout, perturbation, draws, max_rows, hidden
        )
        return problem._with_endpoints() if readout.is_value else problem

    @torch.no_grad()
    def aimed_at(self, target: Tensor | None, foil: Tensor | None = None) -> MaskingProblem:
        """The same problem for other targets of its examples, from the passes that were made.

        Args:
            target: Indices (N, k) into the output's dimensions after the first, or None.
            foil: Those of what the target is held against. Default: None, nothing.

        Raises:
            InvalidInputError: The target or the foil does not fit the output.
        """
        call = replace(self.call, target=target, foil=foil)
        readout = Readout.resolve(
            self.capture.output, target, self.readout.kind, call.n_examples, foil
        )
        problem = replace(self, call=call, readout=readout)
        return problem._with_endpoints() if readout.is_value else problem

    @property
    def token_dims(self) -> tuple[int, ...]:
        """For each masked tensor, how many leading dimensions number its tokens."""
        return self.site.token_dims(self.call, self.capture.features)

    def propose(self, masker: Masker | nn.Module) -> Tensor:
        """A masker's mask logits, (N, U).

        Raises:
            InvalidInputError: The masker's result does not fit the masked tensors.
            NonFiniteError: It holds NaN or an infinite value.
        """
        features = self.capture.features
        dims = self.token_dims
        maskable = self.site.maskable(self.call, features, self.baselines)
        given = MaskerInputs(
            features=features,
            inputs=self.call.inputs,
            probabilities=self.readout.condition,
            maskable=tuple(
                m if m.dim() <= d else m.flatten(d).any(-1)
                for m, d in zip(maskable, dims, strict=True)
            ),
            attention_mask=self._tensor_named("attention_mask"),
            token_type_ids=self._tensor_named("token_type_ids"),
            hidden_states=self._hidden_states(masker),
        )
        try:
            proposal = masker(given)
        except (AttributeError, TypeError) as error:
            raise InvalidInputError(
                "masker: expected a module whose forward takes captum_aml.MaskerInputs and gives "
                f"logits; {type(masker).__name__} failed on them ({error})"
            ) from error
        logits = as_logits(proposal, [f.shape[:d] for f, d in zip(features, dims, strict=True)])
        pooled = self.layout.pool(tuple(as_float(t) for t in logits))
        if not bool(torch.isfinite(pooled).all()):
            raise NonFiniteError("masker: expected finite logits, got NaN or an infinite value")
        return pooled

    def forward(self, masks: Tensor, watch: GradientWatch | None = None) -> Tensor:
        """Runs the forward function under several masks, in one call if ``max_rows`` allows it.

        Args:
            masks: Mask values (R, N, U).
            watch: Notes whether a later backward pass reaches the mask through this pass.

        Returns:
            What the forward function returned for R * N rows, mask by mask.

        Raises:
            InvalidInputError: It returned another number of rows.
        """
        outputs = [
            self._joined(part, watch) for part in masks.split(self.masks_per_call(len(masks)))
        ]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def masks_per_call(self, n_masks: int) -> int:
        """How many of R masks one forward call takes."""
        if self.max_rows is None:
            return n_masks
        return max(1, min(n_masks, self.max_rows // self.call.n_examples))

    def _joined(self, masks: Tensor, watch: GradientWatch | None) -> Tensor:
        inputs, state = self._repeated(masks.shape[0])
        keeps = [self.layout.keep(mask) for mask in masks]
        keep = tuple(torch.cat(parts) for parts in zip(*keeps, strict=True))
        perturbed = self.perturbation(state, keep)
        output = output_tensor(
            self.site.run(inputs, perturbed.args, perturbed.features, self.capture)
        )
        n_rows = masks.shape[0] * self.call.n_examples
        if output.shape[0] != n_rows:
            raise InvalidInputError(
                f"forward_func: expected one result for each of the {n_rows} rows of a call with "
                f"several masks, got shape {tuple(output.shape)}; it may not sum them up"
            )
        if watch is not None:
            watch.attach(keep, output)
        return output

    def evaluate(
        self,
        mask: Tensor,
        objective: Objective,
        *,
        where: str,
        watch: GradientWatch | None = None,
    ) -> Terms:
        """An objective's terms for a mask; the passes it needs are joined.

        Args:
            mask: Mask values (N, U).
            objective: The objective.
            where: Names the pass in an error.
            watch: Notes whether a later backward pass reaches the mask through the model.

        Raises:
            NonFiniteError: The forward function gave NaN or an infinite value.
        """
        passes = [mask] * objective.uses_kept + [1 - mask] * objective.uses_complement
        log_probs = self.readout.log_probs(self.forward(torch.stack(passes), watch), where=where)
        parts = list(log_probs.split(self.call.n_examples))
        kept = parts.pop(0) if objective.uses_kept else None
        complement = parts.pop(0) if objective.uses_complement else None
        outcome = MaskedOutcome(
            kept=kept,
            complement=complement,
            aim=self.readout.aim,
            target_class=self.readout.target_class,
            mask=mask,
            maskable=self.layout.maskable_units,
        )
        with full_precision(mask.device):
            return objective(outcome)

    def _repeated(self, times: int) -> tuple[tuple[Tensor, ...], ForwardState]:
        """The unperturbed pass with its rows repeated; made once, since every step needs it."""
        if times not in self._states:
            features, baselines, inputs = (
                tuple(repeat_rows(t, times) for t in tensors)
                for tensors in (self.capture.features, self.baselines, self.call.inputs)
            )
            state = ForwardState(
                features, baselines, self.call.repeated_args(times), self.attention_mask
            )
            self._states[times] = (inputs, state)
        return self._states[times]

    @property
    def attention_mask(self) -> int | None:
        """Which of the call's further arguments is the attention mask (N, L), if one is."""
        mask = self._tensor_named("attention_mask")
        shape = self.call.inputs[0].shape[:2]
        for place, arg in enumerate(self.call.additional_forward_args):
            if arg is mask and isinstance(arg, Tensor) and arg.shape == shape:
                return place
        return None

    def _hidden_states(self, masker: Masker) -> tuple[Tensor, ...] | None:
        layers = explained_layers_of(masker)
        if layers is None:
            return None
        points = layers.points
        if any(point not in self.hidden for point in points):
            raise InvalidInputError(
                "masker: it reads hidden states that were not read in this problem's pass; name it "
                "among the maskers when the problem is built"
            )
        return tuple(self.hidden[point] for point in points)

    def _tensor_named(self, name: str) -> Tensor | None:
        """The tensor that the forward function is given under a name, or None."""
        given = argument_named(
            self.site.forward_func, self.call.inputs, self.call.additional_forward_args, name
        )
        return given if isinstance(given, Tensor) else None

    def _with_endpoints(self) -> MaskingProblem:
        """The same problem with the values at both ends of the retained fraction."""
        full = select(output_tensor(self.capture.output), self.readout.target)
        maskable = self.layout.maskable_units
        removed = self.removed
        if removed is None:
            removed = self.forward(maskable.new_zeros(1, *maskable.shape, dtype=full.dtype))
        empty = select(removed, self.readout.target)
        endpoints = (as_float(empty), as_float(full))
        check_finite(endpoints[0], "the baselines")
        same = (endpoints[0] == endpoints[1]) & maskable.any(dim=1)
        if bool(same.any()):
            warnings.warn(
                "forward_func: its value is the same for the inputs and the baselines of examples "
                f"{same.nonzero().flatten().tolist()[:10]}; contributions sum to 0, and with "
                "nothing to retain a tuned mask says only what a small one costs",
                stacklevel=2,
            )
        readout = replace(self.readout, endpoints=endpoints)
        return replace(self, readout=readout, removed=removed)


def full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Losses are computed in the precision of their terms, whatever autocast says."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
