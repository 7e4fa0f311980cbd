"""Checks that every attribution class must pass on every case.

Each is a function of a :class:`Method`, which makes attributions, and of a :class:`Case`, and is
entered in ``CHECKS`` with the tags that a case needs for it. What they compare with is Captum's own
method for the same call, a plain loop over examples, or an identity. Most run for tuned masks and
for the default call alike; checks of one of them say so. What the default call alone promises is in
``tests/_helpers/default_call.py``.
"""

from __future__ import annotations

import functools
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import pytest
import torch
from captum.attr import (
    GradientAttribution,
    IntegratedGradients,
    LayerAttribution,
    LayerIntegratedGradients,
    NoiseTunnel,
)
from captum.metrics import infidelity, infidelity_perturb_func_decorator, sensitivity_max
from torch import Tensor, nn

from captum_aml import (
    AMLAttribution,
    AMLObjective,
    LAAttribution,
    LAObjective,
    LayerAMLAttribution,
    LayerLAAttribution,
    MaskerInputs,
)
from captum_aml.exceptions import InvalidInputError, LayerNotReachedError
from tests._helpers.cases import Case

#: Few steps at a high learning rate, and a small weight on the mask's size: masks then soon depend
#: on everything that a call says.
STEPS = 3
LEARNING_RATE = 0.5
SIZE_WEIGHT = 0.1

#: What is asked for: masks that are tuned, or what a call with no options gives.
Family = Literal["mask", "default"]

#: Batches round differently from single examples, by a few 1e-7 in float32, and Adam divides small
#: gradients by their own size: over a few steps masks come to differ by some 1e-6.
BATCH_TOLERANCE = 2e-5


@dataclass(frozen=True)
class Method:
    """One attribution class and one way to call it, as a factory.

    Attributes:
        cls: The class.
        objective: Its objective.
        family: ``mask`` for masks that are tuned for ``STEPS`` steps, ``default`` for the default
            call: no options but those that name what is explained.
    """

    cls: type[Any]
    objective: AMLObjective | LAObjective
    family: Family = "mask"

    @property
    def at_layer(self) -> bool:
        """Whether a layer is explained."""
        return issubclass(self.cls, LayerAttribution)

    @property
    def n_passes(self) -> int:
        """The forward passes of a tuning step for each example: x[m] and x[1 - m], or one."""
        return 2 if isinstance(self.objective, AMLObjective) else 1

    def where(self, case: Case) -> dict[str, Any]:
        """The constructor arguments that say what of a case is explained."""
        if self.at_layer:
            return {"layer": case.layer}
        return {"embedding_layer": case.embedding_layer}

    @property
    def settings(self) -> dict[str, Any]:
        """The constructor arguments that every object gets."""
        if self.family == "default":
            return {}
        return {
            "objective": self.objective,
            "learning_rate": LEARNING_RATE,
            "scores": "mask",
            "tune": "mask",
        }

    @property
    def loading(self) -> dict[str, Any]:
        """The same for ``from_pretrained``: what a saved folder does not hold."""
        return {k: v for k, v in self.settings.items() if k in ("learning_rate", "scores")}

    @property
    def steps(self) -> dict[str, Any]:
        """The arguments of ``attribute`` that every call gets."""
        return {} if self.family == "default" else {"n_steps": STEPS}

    def __call__(self, case: Case, **settings: Any) -> Any:
        """An attribution object for a case."""
        return self.cls(case.forward, **{**self.where(case), **self.settings, **settings})

    def scores(self, case: Case, **call: Any) -> tuple[Tensor, ...]:
        """Attributions of a case as a tuple of tensors."""
        return flat(self(case).attribute(case.inputs, **{**case.call, **self.steps, **call}))

    def captum(self, case: Case, **call: Any) -> Any:
        """What Captum's own counterpart gives for the same call."""
        forward = case.tensor_forward or case.forward
        arguments = {**case.call, **call}
        if self.at_layer:
            method = LayerIntegratedGradients(forward, case.layer)
            return method.attribute(case.inputs, n_steps=3, **arguments)
        return IntegratedGradients(forward).attribute(case.inputs, n_steps=3, **arguments)


#: Tuned masks, by class.
METHODS = {
    method.cls.__name__: method
    for method in (
        Method(AMLAttribution, AMLObjective(size_weight=SIZE_WEIGHT)),
        Method(LAAttribution, LAObjective(size_weight=SIZE_WEIGHT)),
        Method(LayerAMLAttribution, AMLObjective(size_weight=SIZE_WEIGHT)),
        Method(LayerLAAttribution, LAObjective(size_weight=SIZE_WEIGHT)),
    )
}

#: The default call, by class.
DEFAULT_CALLS = {name: replace(method, family="default") for name, method in METHODS.items()}


@dataclass(frozen=True)
class Check:
    """A named check.

    Attributes:
        run: The check.
        needs: Tags that a case must have; one with a ``!`` it must not have.
        only: Whether it is for the ``input`` or the ``layer`` classes only, or None.
        family: The only family that it is for, or None.
    """

    run: Callable[[Method, Case], None]
    needs: frozenset[str]
    only: str | None
    family: Family | None

    def applies(self, method: Method, tags: frozenset[str]) -> bool:
        """Whether it can be run for a class on a case of these tags."""
        if self.family not in (None, method.family):
            return False
        if method.at_layer and ("layer" not in tags or self.only == "input"):
            return False
        if not method.at_layer and self.only == "layer":
            return False
        # By default the two objectives go one way, and differ in what is differentiated.
        is_second = method.family == "default" and method.n_passes == 1
        if is_second and self.family is None and "core" not in tags:
            return False
        return all((t[1:] not in tags) if t.startswith("!") else (t in tags) for t in self.needs)


CHECKS: dict[str, Check] = {}


def check(
    needs: str = "", *, only: str | None = None, family: Family | None = None
) -> Callable[[Callable[[Method, Case], None]], Callable[[Method, Case], None]]:
    """Enters a check in the list."""

    def enter(run: Callable[[Method, Case], None]) -> Callable[[Method, Case], None]:
        CHECKS[run.__name__] = Check(run, frozenset(needs.split()), only, family)
        return run

    return enter


# --- Comparing ------------------------------------------------------------------------------------


def flat(attributions: Any) -> tuple[Tensor, ...]:
    """The tensors of a tensor, a tuple, or a list of either, in order."""
    if isinstance(attributions, Tensor):
        return (attributions,)
    return tuple(t for part in attributions for t in flat(part))


def joined(tensors: Sequence[Tensor]) -> Tensor:
    """All values of each example, (N, ...)."""
    return torch.cat([t.reshape(len(t), -1).double() for t in tensors], dim=1)


def assert_same(got: Any, expected: Any, *, tolerance: float = 0.0) -> None:
    """Compares attributions, by default bit by bit."""
    got, expected = flat(got), flat(expected)
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


def form(value: Any) -> Any:
    """The structure of attributions: nesting, shapes, dtypes and devices."""
    if isinstance(value, Tensor):
        return tuple(value.shape), value.dtype, value.device
    return type(value).__name__, [form(v) for v in value]


def differs(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    """Whether attributions differ by more than rounding: what should matter does."""
    return bool((joined(a) - joined(b)).abs().max() > 1e-5)


def assert_ranked_alike(a: Tensor, b: Tensor) -> None:
    """Whether two scores (N, T) order each example's tokens alike, but for ties by rounding."""
    for x, y in ((a, b), (b, a)):
        y = y.gather(1, x.argsort(dim=1))
        slack = 1e-5 * y.abs().amax(dim=1, keepdim=True)
        assert bool((y.diff(dim=1) >= -slack).all())


def picked(output: Tensor, target: Any) -> Tensor:
    """One value per example by plain indexing, the target in any of Captum's forms."""
    values = []
    for i, row in enumerate(output):
        each = target
        if isinstance(target, Tensor):
            each = int(target) if target.numel() == 1 else int(target[i])
        elif isinstance(target, list):
            each = target[i]
        for index in () if each is None else each if isinstance(each, tuple) else (each,):
            row = row[index]
        values.append(row.reshape(()))
    return torch.stack(values)


def predicted(output: Tensor) -> Any:
    """The target that stands for the predicted class; None for one value per example."""
    if output.dim() == 2 and output.shape[1] > 1:
        return output.argmax(dim=1)
    return None


# --- The caller's state ---------------------------------------------------------------------------

_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)


def _tensors_in(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, tuple | list):
        return [t for v in value for t in _tensors_in(v)]
    return []


class Snapshot:
    """Everything of the caller's that must be left as it was."""

    def __init__(self, case: Case, *others: nn.Module) -> None:
        roots = (*case.modules, *others)
        self.modules = {id(m): m for root in roots for m in root.modules()}
        self.tensors = {
            f"input {i}": t
            for i, t in enumerate(_tensors_in((case.inputs, case.baselines, case.args)))
        }
        for module in self.modules.values():
            own = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
            self.tensors.update({f"{type(module).__name__} {id(module)} {n}": t for n, t in own})
        self.before = self._now()

    def _now(self) -> dict[str, Any]:
        now: dict[str, Any] = {}
        for key, module in self.modules.items():
            name = f"{type(module).__name__} {key}"
            now[f"{name} training"] = module.training
            for hooks in _HOOKS:
                now[f"{name} {hooks}"] = list(getattr(module, hooks).values())
        for name, tensor in self.tensors.items():
            now[f"{name} value"] = tensor.detach().clone()
            now[f"{name} requires_grad"] = tensor.requires_grad
            # The gradient itself: it must be the same object with the same values.
            grad = None if tensor.is_inference() or not tensor.is_leaf else tensor.grad
            now[f"{name} grad is"] = id(grad)
            now[f"{name} grad"] = None if grad is None else grad.clone()
        now["torch's random state"] = torch.get_rng_state()
        now["NumPy's random state"] = np.random.get_state(legacy=False)["state"]["key"].copy()
        now["NumPy's position"] = np.random.get_state(legacy=False)["state"]["pos"]
        now["Python's random state"] = random.getstate()
        now["grad mode"] = torch.is_grad_enabled()
        now["inference mode"] = torch.is_inference_mode_enabled()
        now["default dtype"] = torch.get_default_dtype()
        return now

    def assert_kept(self) -> None:
        """Compares with how things are now."""
        now = self._now()
        assert now.keys() == self.before.keys()
        for name, before in self.before.items():
            if isinstance(before, Tensor):
                assert torch.equal(now[name], before), f"{name} changed"
            elif isinstance(before, np.ndarray):
                assert np.array_equal(now[name], before), f"{name} changed"
            else:
                assert now[name] == before, f"{name} changed from {before} to {now[name]}"


def _unusual(case: Case) -> Case:
    """The case in a state that a careless implementation would reset."""
    for module in case.modules:
        module.train()
        for i, child in enumerate(module.children()):
            child.train(i % 2 == 1)
        for i, parameter in enumerate(module.parameters()):
            parameter.requires_grad_(i % 3 != 0)
            parameter.grad = torch.full_like(parameter, 0.5) if i % 2 else None
    layers = case.layer if isinstance(case.layer, list) else [case.layer]
    for layer in layers:
        if layer is not None:
            layer.register_forward_hook(lambda *_: None)
            layer.register_forward_pre_hook(lambda *_: None)
    inputs = []
    for i, tensor in enumerate(case.tensors):
        own = tensor.clone()
        if own.is_floating_point() and i % 2 == 0:
            own.requires_grad_(True)
            own.grad = torch.full_like(own, 0.25)
        inputs.append(own)
    return replace(case, inputs=tuple(inputs) if isinstance(case.inputs, tuple) else inputs[0])


class _InterruptedError(Exception):
    pass


class Counted:
    """A forward function that counts its calls and rows, and can fail at one of them."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        self.forward = forward
        self.fails_at: int | None = None
        self.reset()
        self.error: type[BaseException] = _InterruptedError

    def reset(self) -> None:
        """Starts to count anew."""
        self.calls = 0
        self.rows: list[int] = []
        self.rows_with_gradient: list[int] = []

    def __call__(self, *args: Any) -> Any:
        if self.calls == self.fails_at:
            raise self.error(f"at call {self.calls}")
        self.calls += 1
        self.rows.append(len(args[0]))
        if torch.is_grad_enabled():
            self.rows_with_gradient.append(len(args[0]))
        return self.forward(*args)


def named_embeddings(case: Case) -> Case:
    """The same case with its embedding layer named, for a forward function that hides it."""
    if case.embedding_layer is None and not case.is_float:
        return replace(case, embedding_layer=case.forward.get_input_embeddings())
    return case


# --- 1. Like Captum's own methods -----------------------------------------------------------------


def _assert_like_captum(method: Method, case: Case, **call: Any) -> None:
    attributions, delta = method(case).attribute(
        case.inputs, n_steps=2, return_convergence_delta=True, **case.call, **call
    )
    if method.at_layer or case.is_float:
        expected, expected_delta = method.captum(case, return_convergence_delta=True, **call)
        assert form(attributions) == form(expected)
    else:
        # Integrated Gradients takes no ids: one score per id, in the dtype of the embeddings.
        expected_delta = torch.zeros(case.n_examples)
        assert form(attributions) == form(
            tuple(torch.zeros(t.shape) for t in case.tensors)
            if isinstance(case.inputs, tuple)
            else torch.zeros(case.inputs.shape)
        )
    assert form(delta) == form(expected_delta)
    assert not any(t.requires_grad for t in flat(attributions))


@check()
def same_form_as_captums_counterpart(method: Method, case: Case) -> None:
    _assert_like_captum(method, case)


@check("!tuple core")
def same_form_for_a_tuple_of_one_input(method: Method, case: Case) -> None:
    _assert_like_captum(method, replace(case, inputs=(case.inputs,)))


@check("core", only="layer")
def same_form_for_a_list_of_layers(method: Method, case: Case) -> None:
    listed = replace(case, layer=[case.layer])
    _assert_like_captum(method, listed)
    # One layer in a list is the same problem as the layer itself.
    assert_same(method.scores(listed), method.scores(case))


@check("float", only="layer")
def same_form_at_the_input_of_a_layer(method: Method, case: Case) -> None:
    _assert_like_captum(method, case, attribute_to_layer_input=True)


@check("core")
def is_one_of_captums_attributions(method: Method, case: Case) -> None:
    attribution = method(case)
    assert isinstance(attribution, GradientAttribution)
    assert isinstance(attribution, LayerAttribution) == method.at_layer
    assert attribution.has_convergence_delta()
    assert attribution.multiplies_by_inputs == (method.family == "default")
    assert method(case, scores="contribution").multiplies_by_inputs
    assert not method(case, scores=None, multiply_by_inputs=False).multiplies_by_inputs
    assert attribution.forward_func is case.forward
    # Captum's log_usage: NoiseTunnel calls what it wraps.
    assert callable(method.cls.attribute.__wrapped__)


# --- 2. Forms of target and baselines -------------------------------------------------------------


def uniform_target_forms(index: tuple[int, ...], n: int) -> Iterator[Any]:
    """Every form of a target that is the same for all examples."""
    yield index
    yield [index] * n
    if len(index) == 1:
        (i,) = index
        yield i
        yield torch.tensor(i)
        yield torch.tensor([i])
        yield [i] * n
        yield torch.tensor([i] * n)
        yield torch.tensor([i] * n, dtype=torch.int32)


def varied_target(case: Case) -> list[tuple[int, ...]]:
    """A target that differs between examples."""
    sizes = case.output_shape
    return [tuple((i + j) % size for j, size in enumerate(sizes)) for i in range(case.n_examples)]


def varied_target_forms(rows: list[tuple[int, ...]]) -> Iterator[Any]:
    """Every form of a target that differs between examples."""
    yield rows
    if len(rows[0]) == 1:
        yield [i for (i,) in rows]
        yield torch.tensor([i for (i,) in rows])


@check("classes core")
def every_form_of_target_is_the_same(method: Method, case: Case) -> None:
    zero, one = ((k,) * len(case.output_shape) for k in (0, 1))
    plain = method.scores(case, target=zero)
    assert differs(plain, method.scores(case, target=one)), "the target has no influence"
    for target in uniform_target_forms(zero, case.n_examples):
        assert_same(method.scores(case, target=target), plain)
    rows = varied_target(case)
    plain = method.scores(case, target=rows)
    assert differs(plain, method.scores(case, target=zero)), "the target has no influence"
    for target in varied_target_forms(rows):
        assert_same(method.scores(case, target=target), plain)


@check("classes core")
def a_target_picks_that_output(method: Method, case: Case) -> None:
    # With output="value" only the picked value counts: the same as picking it oneself.
    rows = varied_target(case)
    forward = case.tensor_forward or case.forward

    def chosen(*args: Any) -> Tensor:
        output = forward(*args)
        index = torch.tensor(rows).repeat(len(output) // len(rows), 1)
        return output[(torch.arange(len(output)), *index.unbind(1))]

    named = named_embeddings(case)
    expected = flat(
        method(replace(named, forward=chosen), output="value").attribute(
            case.inputs, **method.steps, **{**case.call, "target": None}
        )
    )
    got = method(case, output="value").attribute(
        case.inputs, **method.steps, **{**case.call, "target": rows}
    )
    # The same numbers in another order of operations, amplified by Adam.
    assert_same(got, expected, tolerance=BATCH_TOLERANCE)


@check("classes core !multidim")
def no_target_is_the_predicted_class(method: Method, case: Case) -> None:
    classes = case.outputs(case.tensors).argmax(dim=1)
    assert_same(method.scores(case, target=None), method.scores(case, target=classes))


@check("core")
def every_form_of_baselines_is_the_same(method: Method, case: Case) -> None:
    def with_form(*forms: Any) -> tuple[Tensor, ...]:
        is_tuple = isinstance(case.inputs, tuple)
        return method.scores(case, baselines=tuple(forms) if is_tuple else forms[0])

    spelled = tuple(torch.ones_like(t) for t in case.tensors)
    plain = with_form(*spelled)
    n = len(case.tensors)
    one: tuple[Any, ...] = tuple(b[:1] for b in spelled)
    assert_same(with_form(*[1] * n), plain)
    assert_same(with_form(*[1.0] * n), plain)
    assert_same(with_form(*one), plain)
    mixed = [(1, one[i], spelled[i])[i % 3] for i in range(n)]
    assert_same(with_form(*mixed), plain)
    if not isinstance(case.inputs, tuple):
        # A tuple of one baseline is Captum's form too.
        assert_same(method.scores(case, baselines=(spelled[0],)), plain)
    zeros = with_form(*(torch.zeros_like(t) for t in case.tensors))
    assert_same(method.scores(case, baselines=None), zeros)


@check("core classes")
def baselines_count(method: Method, case: Case) -> None:
    zeros, ones = (tuple(torch.full_like(t, k) for t in case.tensors) for k in (0, 1))
    if not isinstance(case.inputs, tuple):
        zeros, ones = zeros[0], ones[0]
    assert differs(method.scores(case, baselines=zeros), method.scores(case, baselines=ones))


# --- 3. An example does not depend on its batch ---------------------------------------------------


def _tolerance(case: Case) -> float:
    return 1e-12 if case.tensors[0].dtype == torch.float64 else BATCH_TOLERANCE


@check()
def batch_equals_single(method: Method, case: Case) -> None:
    if len(case.output_shape) > 0 and case.output_shape[-1] > 1:
        # Forms of target give the same to the bit (above), so that one stands for all.
        case = replace(case, target=varied_target(case))
    together = method.scores(case)
    for i in range(case.n_examples):
        expected = tuple(t[i : i + 1] for t in together)
        assert_same(method.scores(case.rows([i])), expected, tolerance=_tolerance(case))


@check("classes core !multidim")
def batch_equals_single_without_a_target(method: Method, case: Case) -> None:
    # Each example's own predicted class, as each example sees it.
    together = method.scores(case, target=None)
    for i in range(2):
        expected = tuple(t[i : i + 1] for t in together)
        got = method.scores(case.rows([i]), target=None)
        assert_same(got, expected, tolerance=_tolerance(case))


@check("core")
def internal_batch_size_changes_nothing(method: Method, case: Case) -> None:
    whole = method(case)
    expected = whole.attribute(case.inputs, **method.steps, **case.call)
    for size in (1, 2, 3, 7):
        counted = Counted(case.forward)
        parts = method(replace(named_embeddings(case), forward=counted))
        got = parts.attribute(case.inputs, **method.steps, internal_batch_size=size, **case.call)
        assert max(counted.rows) <= size
        assert_same(got, expected, tolerance=_tolerance(case))
        assert parts.output_ == whole.output_
        assert parts.perturbation_ == whole.perturbation_
        if method.family == "mask":
            torch.testing.assert_close(
                parts.last_terms_.total, whole.last_terms_.total, rtol=1e-4, atol=1e-5
            )
            assert parts.best_step_.shape == (case.n_examples,)


@check("core")
def permuted_examples_have_permuted_scores(method: Method, case: Case) -> None:
    order = torch.randperm(case.n_examples, generator=torch.Generator().manual_seed(1)).tolist()
    assert order != sorted(order)
    # Baselines spelled out, so that they travel with their examples.
    baselines = case.baseline_tensors
    spelled = replace(case, baselines=baselines if isinstance(case.inputs, tuple) else baselines[0])
    expected = tuple(t[order] for t in method.scores(spelled))
    assert_same(method.scores(spelled.rows(order)), expected, tolerance=_tolerance(case))


@check("padding")
def padding_changes_nothing(method: Method, case: Case) -> None:
    assert case.padded is not None
    longer = case.padded(4)
    (expected,), (got,) = method.scores(case), method.scores(longer)
    length = expected.shape[1]
    assert got.shape[1] == length + 4
    assert_same(got[:, :length], expected, tolerance=_tolerance(case))
    if not method.at_layer or not case.is_float:
        # The padding equals its baseline.
        assert bool((got[:, length:] == 0).all())


@check("padding")
def a_fitted_masker_does_not_see_batch_or_padding(method: Method, case: Case) -> None:
    assert case.padded is not None
    attribution = method(case)
    attribution.fit([{"inputs": case.inputs, **case.call}], epochs=2)
    expected = attribution.attribute(case.inputs, **case.call)
    values = expected[expected != 0]
    assert float(values.max() - values.min()) > 1e-3, "the proposals do not differ"
    longer = case.padded(3)
    got = attribution.attribute(longer.inputs, **longer.call)[:, : expected.shape[1]]
    if not method.at_layer or not case.is_float:
        assert_same(got, expected, tolerance=BATCH_TOLERANCE)
    for i in range(case.n_examples):
        alone = case.rows([i])
        got = attribution.attribute(alone.inputs, **alone.call)
        assert_same(got, expected[i : i + 1], tolerance=BATCH_TOLERANCE)
    got = attribution.attribute(case.inputs, internal_batch_size=2, **case.call)
    assert_same(got, expected, tolerance=BATCH_TOLERANCE)


# --- 4. Nothing of the caller's changes -----------------------------------------------------------


@check()
def nothing_of_the_callers_changes(method: Method, case: Case) -> None:
    case = _unusual(case)
    before = Snapshot(case)
    for scores in ("mask", "contribution"):
        method(case, scores=scores).attribute(
            case.inputs, n_steps=2, return_convergence_delta=True, **case.call
        )
        before.assert_kept()


@check()
def computing_the_delta_changes_nothing(method: Method, case: Case) -> None:
    case = _unusual(case)
    attribution = method(case)
    attributions = attribution.attribute(case.inputs, **method.steps, **case.call)
    before = Snapshot(case)
    attribution.compute_convergence_delta(
        attributions, case.baselines, case.inputs, case.target, case.args or None
    )
    before.assert_kept()


@check("core")
def nothing_changes_when_the_forward_function_fails(method: Method, case: Case) -> None:
    case = named_embeddings(_unusual(case))
    counted = Counted(case.forward)
    broken = replace(case, forward=counted)
    before = Snapshot(case)
    call = {"n_steps": 2, "return_convergence_delta": True, **case.call}
    method(broken).attribute(case.inputs, **call)
    n_calls = counted.calls
    # The inputs, the masks of the mask gradient, and the baselines for the delta; while tuning two
    # steps and the last mask as well.
    assert n_calls >= (3 if method.family == "default" else 6)
    for error in (_InterruptedError, KeyboardInterrupt):
        for k in range(n_calls):
            counted.calls, counted.fails_at, counted.error = 0, k, error
            with pytest.raises(error, match=f"at call {k}"):
                method(broken).attribute(case.inputs, **call)
            before.assert_kept()
    # And afterwards everything works as before.
    counted.calls, counted.fails_at = 0, None
    assert_same(
        method(broken).attribute(case.inputs, n_steps=2, **case.call),
        method(case).attribute(case.inputs, n_steps=2, **case.call),
    )


@check("core")
def grad_modes_change_nothing(method: Method, case: Case) -> None:
    # Copies lie elsewhere in memory, where a sum may be vectorized in other blocks.
    tolerance = _tolerance(case)
    expected = method.scores(case, return_convergence_delta=True)
    case = _unusual(case)
    for module in case.modules:
        module.eval()
    before = Snapshot(case)
    with torch.no_grad():
        got = method.scores(case, return_convergence_delta=True)
        assert not torch.is_grad_enabled()
    assert_same(got, expected, tolerance=tolerance)
    with torch.inference_mode():
        got = method.scores(case, return_convergence_delta=True)
        assert torch.is_inference_mode_enabled()
    assert_same(got, expected, tolerance=tolerance)
    before.assert_kept()

    def copied(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(copied(v) for v in value)
        return value.detach().clone() if isinstance(value, Tensor) else value

    with torch.inference_mode():
        made_here = replace(
            case,
            inputs=copied(case.inputs),
            baselines=copied(case.baselines),
            args=copied(case.args),
        )
        assert all(t.is_inference() for t in made_here.tensors)
        got = method.scores(made_here, return_convergence_delta=True)
    assert_same(got, expected, tolerance=tolerance)
    before.assert_kept()
    # They can also be handed to code outside.
    got = method.scores(made_here, return_convergence_delta=True)
    assert_same(got, expected, tolerance=tolerance)


@check("core")
def the_forward_function_runs_to_its_end(method: Method, case: Case) -> None:
    # Many a forward function tidies up behind itself on its last lines, without `finally`.
    open_calls = []

    def forward(*args: Any) -> Any:
        open_calls.append(args)
        output = case.forward(*args)
        open_calls.pop()
        return output

    wrapped = replace(named_embeddings(case), forward=forward)
    method(wrapped).attribute(case.inputs, **method.steps, **case.call)
    assert not open_calls


# --- 5. Repeatability -----------------------------------------------------------------------------


@check("core")
def the_same_seed_gives_the_same(method: Method, case: Case) -> None:
    attribution = method(case)
    first = attribution.attribute(case.inputs, **method.steps, **case.call)
    again = attribution.attribute(case.inputs, **method.steps, **case.call)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        other = method(case).attribute(case.inputs, **method.steps, **case.call)
    assert_same(again, first)
    assert_same(other, first)


# --- 6. Scores ------------------------------------------------------------------------------------


def features_of(method: Method, case: Case, inputs: Sequence[Tensor]) -> list[Tensor]:
    """What is masked, read with a plain hook or from the embedding layers themselves."""
    if method.at_layer:
        seen: list[Tensor] = []
        handle = case.layer.register_forward_hook(
            lambda _, __, output: seen.extend(t.clone() for t in flat(output))
        )
        case.outputs(inputs)
        handle.remove()
        return seen
    if case.is_float:
        return list(inputs)
    layers = named_embeddings(case).embedding_layer
    layers = layers if isinstance(layers, tuple) else (layers,) * len(inputs)
    with torch.no_grad():
        return [layer(x) for layer, x in zip(layers, inputs, strict=True)]


def has_channels(method: Method, case: Case, feature: Tensor) -> bool:
    """Whether the last dimension of what is masked holds the channels of tokens."""
    return feature.dim() == 3 or not (method.at_layer or case.is_float)


def unmasked(method: Method, case: Case) -> list[Tensor]:
    """The tokens that are the same in the inputs and the baselines."""
    same = []
    for x, b in zip(
        features_of(method, case, case.tensors),
        features_of(method, case, case.baseline_tensors),
        strict=True,
    ):
        same.append((x == b).all(-1) if has_channels(method, case, x) else x == b)
    return same


@check(family="mask")
def scores_are_between_0_and_1_and_0_where_nothing_is_masked(method: Method, case: Case) -> None:
    # Half of the elements of the first input are as in the baseline.
    first = case.tensors[0].clone()
    removed = case.baseline_tensors[0]
    first[:, ::2] = removed[:, ::2]
    tensors = (first, *case.tensors[1:])
    case = replace(case, inputs=tensors if isinstance(case.inputs, tuple) else first)
    got = method.scores(case)
    for scores, same in zip(got, unmasked(method, case), strict=True):
        by_token = scores.sum(-1) if scores.dim() == 3 else scores
        assert bool((by_token[same] == 0).all())
        assert bool((by_token[~same] > 0).all())
        # A rounding error for each of a token's channels.
        assert bool((by_token <= 1 + 1e-6).all())
    if not method.at_layer:
        assert any(bool(same.any()) for same in unmasked(method, case))


@check("core")
def with_nothing_to_mask_scores_are_0(method: Method, case: Case) -> None:
    baselines = case.tensors if isinstance(case.inputs, tuple) else case.inputs
    for scores in ("mask", "contribution"):
        attribution = method(case, scores=scores)
        got, delta = attribution.attribute(
            case.inputs,
            n_steps=2,
            return_convergence_delta=True,
            **{**case.call, "baselines": baselines},
        )
        assert form(got) == form(method(case).attribute(case.inputs, n_steps=2, **case.call))
        assert all(bool((t == 0).all()) for t in flat(got))
        assert bool((delta == 0).all())


@check("core", only="input")
def one_example_with_nothing_to_mask_leaves_the_others_alone(method: Method, case: Case) -> None:
    baselines = tuple(b.clone() for b in case.baseline_tensors)
    for b, x in zip(baselines, case.tensors, strict=True):
        b[1] = x[1]
    call = {
        **case.call,
        "baselines": baselines if isinstance(case.inputs, tuple) else baselines[0],
    }
    others = [i for i in range(case.n_examples) if i != 1]
    expected = tuple(t[others] for t in method.scores(case))
    for size in (None, 2):
        attribution = method(case)
        got = flat(
            attribution.attribute(case.inputs, **method.steps, internal_batch_size=size, **call)
        )
        assert all(bool((t[1] == 0).all()) for t in got)
        assert_same(tuple(t[others] for t in got), expected, tolerance=_tolerance(case))
        if method.family == "mask":
            # What is known of the masks is known of every example, in order.
            assert attribution.best_step_.shape == (case.n_examples,)
            assert attribution.last_terms_.total.shape == (case.n_examples,)


@check("sequence", only="input")
def channels_share_their_tokens_score(method: Method, case: Case) -> None:
    (scores,) = method.scores(case)
    assert_same(scores, scores[..., :1].expand_as(scores))
    # The same problem with one factor for each position in place of its channels.
    x, b = case.inputs, case.baseline_tensors[0]
    forward = case.forward
    reduced = replace(
        case,
        forward=lambda z, *args: forward(_at(z.unsqueeze(-1), x, b), *args),
        inputs=(x != b).any(-1).to(x.dtype),
        baselines=None,
    )
    (by_token,) = method.scores(reduced)
    assert_same(scores.sum(-1), by_token, tolerance=BATCH_TOLERANCE)


def _at(z: Tensor, x: Tensor, b: Tensor) -> Tensor:
    """The point b + z (x - b), with x and b repeated to the rows of z."""
    times = len(z) // len(x)
    x, b = torch.cat([x] * times), torch.cat([b] * times)
    return b + z * (x - b)


@check("float", only="input")
def a_feature_mask_makes_one_feature_of_a_group(method: Method, case: Case) -> None:
    # Pairs of elements, in groups that reach across the tensors of a tuple.
    xs, bs = case.tensors, case.baseline_tensors
    groups = [((torch.arange(x[0].numel()) // 2) % 3).reshape(x.shape[1:]) for x in xs]
    n_groups = 1 + max(int(g.max()) for g in groups)

    # Explaining the groups is explaining z in F(b + z (x - b)) with one z for each group.
    def forward(z: Tensor, *args: Any) -> Any:
        points = [_at(z[:, g], x, b) for g, x, b in zip(groups, xs, bs, strict=True)]
        return case.forward(*points, *args)

    # A group in which everything equals its baseline is not masked.
    present = torch.zeros(case.n_examples, n_groups, dtype=xs[0].dtype)
    for g, x, b in zip(groups, xs, bs, strict=True):
        for k in range(n_groups):
            present[:, k] += ((x != b) & (g == k)).flatten(1).any(1)
    (scores,) = method.scores(
        replace(case, forward=forward, inputs=present.clamp(max=1), baselines=None)
    )
    if method.family == "default":
        # A mask value is that of every element, a contribution is shared by them.
        scores = scores / torch.bincount(torch.cat([g.flatten() for g in groups]))
    expected = tuple(scores[:, g] for g in groups)
    # The ids may be any integers, spelled out or shared by all examples.
    shared = [10 * g.unsqueeze(0) - 7 for g in groups]
    spelled = [g.expand_as(x) for g, x in zip(shared, xs, strict=True)]
    for masks in (shared, spelled):
        mask = tuple(masks) if isinstance(case.inputs, tuple) else masks[0]
        got = method.scores(case, feature_mask=mask)
        assert_same(got, expected, tolerance=_tolerance(case))
        got = method.scores(case, feature_mask=mask, internal_batch_size=4)
        assert_same(got, expected, tolerance=_tolerance(case))


@check("ids", only="input")
def a_feature_mask_of_ids_makes_one_feature_of_a_group(method: Method, case: Case) -> None:
    masks = tuple(
        ((torch.arange(x.shape[1]) // 2 + k) % 3).unsqueeze(0) for k, x in enumerate(case.tensors)
    )
    got = method.scores(case, feature_mask=masks if isinstance(case.inputs, tuple) else masks[0])
    for i in range(case.n_examples):
        values: dict[int, set[float]] = {}
        for scores, mask in zip(got, masks, strict=True):
            assert scores.shape[1:] == mask.shape[1:]
            for group, score in zip(mask[0].tolist(), scores[i].tolist(), strict=True):
                values.setdefault(group, set()).add(score)
        assert all(len(v) == 1 for v in values.values())
        assert len(values) == 3
    # A group for each id is no grouping at all.
    count = 0
    own = []
    for x in case.tensors:
        own.append(torch.arange(count, count + x.shape[1]).unsqueeze(0))
        count += x.shape[1]
    ungrouped = method.scores(
        case, feature_mask=tuple(own) if isinstance(case.inputs, tuple) else own[0]
    )
    assert_same(ungrouped, method.scores(case), tolerance=_tolerance(case))
    assert differs(got, ungrouped), "the feature mask has no influence"


@check("sequence", only="input")
def a_feature_mask_by_position_is_one_by_element(method: Method, case: Case) -> None:
    length, channels = case.inputs.shape[1:]
    positions = (torch.arange(length) // 2).unsqueeze(0)
    by_element = positions.unsqueeze(-1).expand(1, length, channels)
    (expected,) = method.scores(case, feature_mask=by_element)
    (got,) = method.scores(case, feature_mask=positions)
    # By position a score is spread over the channels. By element each has its group's mask value,
    # or an equal part of its contribution.
    times = channels if method.family == "mask" else 1
    assert_same(got * times, expected, tolerance=_tolerance(case))
    assert got.shape == expected.shape == case.inputs.shape
    (alone,) = method.scores(case, feature_mask=torch.arange(length).unsqueeze(0))
    assert_same(alone, method.scores(case), tolerance=_tolerance(case))


# --- 7. Captum's own tools ------------------------------------------------------------------------


@check("float !tuple core")
def noise_tunnel_without_noise_gives_the_same(method: Method, case: Case) -> None:
    (expected,) = method.scores(case)
    for kind, value in (
        ("smoothgrad", expected),
        ("smoothgrad_sq", expected**2),
        ("vargrad", torch.zeros_like(expected)),
    ):
        got, delta = NoiseTunnel(method(case)).attribute(
            case.inputs,
            nt_type=kind,
            nt_samples=3,
            stdevs=0.0,
            **method.steps,
            return_convergence_delta=True,
            **case.call,
        )
        # Captum adds up squares before it takes the mean: rounding of their size.
        size = max(1.0, float(expected.abs().max()) ** 2)
        assert_same(got, value, tolerance=size * _tolerance(case))
        assert delta.shape == (3 * case.n_examples,)


@check("float !tuple core")
def noise_tunnel_is_the_mean_over_single_noisy_examples(method: Method, case: Case) -> None:
    case = case.rows([0, 1])
    n, samples = 2, 2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        noise = torch.normal(0, torch.full((n * samples, *case.inputs.shape[1:]), 0.3))
    # NoiseTunnel repeats each example in place, and draws its noise before it calls us.
    noisy = case.inputs.repeat_interleave(samples, dim=0) + noise
    values = []
    deltas = []
    for i in range(n):
        alone = case.rows([i])
        for k in range(samples):
            scores, delta = method(alone).attribute(
                noisy[i * samples + k].unsqueeze(0),
                **method.steps,
                return_convergence_delta=True,
                **alone.call,
            )
            values.append(scores)
            deltas.append(delta)
    each = torch.cat(values).reshape(n, samples, *values[0].shape[1:])
    mean, mean_square = each.mean(1), (each**2).mean(1)
    for kind, expected in (
        ("smoothgrad", mean),
        ("smoothgrad_sq", mean_square),
        ("vargrad", mean_square - mean**2),
    ):
        for extra in ({}, {"internal_batch_size": 4}):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(5)
                got, delta = NoiseTunnel(method(case)).attribute(
                    case.inputs,
                    nt_type=kind,
                    nt_samples=samples,
                    stdevs=0.3,
                    **method.steps,
                    return_convergence_delta=True,
                    **case.call,
                    **extra,
                )
            # Rounding as in BATCH_TOLERANCE, in a few squares and differences more.
            assert_same(got, expected, tolerance=1e-4)
            torch.testing.assert_close(delta, torch.cat(deltas), rtol=1e-4, atol=1e-3)


@check("float tuple")
def noise_tunnel_takes_a_tuple(method: Method, case: Case) -> None:
    expected = method.scores(case)
    got = NoiseTunnel(method(case)).attribute(
        case.inputs,
        nt_samples=2,
        stdevs=(0.0,) * len(case.tensors),
        **method.steps,
        **case.call,
    )
    assert_same(got, expected, tolerance=_tolerance(case))


def _as_given(case: Case, tensors: Sequence[Tensor]) -> Any:
    return tuple(tensors) if len(tensors) > 1 else tensors[0]


@check("float", only="input")
def infidelity_is_that_of_a_plain_loop(method: Method, case: Case) -> None:
    forward = case.tensor_forward or case.forward
    attributions = method.scores(case)
    generator = torch.Generator().manual_seed(3)
    samples = 3
    noise = [
        torch.randn(len(x) * samples, *x.shape[1:], generator=generator).to(x.dtype) * 0.1
        for x in case.tensors
    ]

    def perturb(inputs: Any) -> Any:
        moved = [x - e for x, e in zip(flat(inputs), noise, strict=True)]
        return _as_given(case, noise), _as_given(case, moved)

    got = infidelity(
        forward,
        perturb,
        case.inputs,
        _as_given(case, attributions),
        additional_forward_args=case.args or None,
        target=case.target,
        n_perturb_samples=samples,
    )
    expected = []
    for i in range(case.n_examples):
        alone = case.rows([i])
        at_input = picked(alone.outputs(alone.tensors), alone.target)[0]
        total = 0.0
        for k in range(samples):
            moves = [e[i * samples + k] for e in noise]
            moved = [x - e for x, e in zip(alone.tensors, moves, strict=True)]
            change = at_input - picked(alone.outputs(moved), alone.target)[0]
            product = sum(float((e * a[i]).sum()) for e, a in zip(moves, attributions, strict=True))
            total += (product - float(change)) ** 2
        expected.append(total / samples)
    torch.testing.assert_close(
        got.double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-3, atol=1e-5
    )


@check("float", only="input")
def contributions_have_no_infidelity_when_all_is_removed(method: Method, case: Case) -> None:
    # Removing everything changes the output by the sum of the contributions, by definition.
    attributions = method(case, scores="contribution").attribute(
        case.inputs, **method.steps, **case.call
    )

    @infidelity_perturb_func_decorator(True)
    def remove(inputs: Any, baselines: Any = None) -> Any:
        repeated = [
            b.repeat_interleave(len(x) // len(b), dim=0)
            for x, b in zip(flat(inputs), case.baseline_tensors, strict=True)
        ]
        return _as_given(case, repeated)

    got = infidelity(
        case.tensor_forward or case.forward,
        remove,
        case.inputs,
        attributions,
        baselines=_as_given(case, case.baseline_tensors),
        additional_forward_args=case.args or None,
        target=case.target,
        n_perturb_samples=2,
    )
    torch.testing.assert_close(got, torch.zeros_like(got), rtol=0, atol=1e-8)


@check("float core")
def sensitivity_max_is_that_of_a_plain_loop(method: Method, case: Case) -> None:
    def explain(inputs: Any, **arguments: Any) -> tuple[Tensor, ...]:
        # sensitivity_max hands over a tuple of one tensor, and of what comes back it takes the
        # first dimension for that of a tuple: layer methods have to be wrapped for it.
        return flat(method(case).attribute(inputs, **arguments))

    explanation = explain if method.at_layer else method(case).attribute
    call = {**method.steps, "target": case.target, "n_perturb_samples": 2}
    # Captum expands these by itself; a scalar among several baselines it cannot.
    call["baselines"] = _as_given(case, case.baseline_tensors)
    if case.args:
        call["additional_forward_args"] = case.args
    still = sensitivity_max(explanation, case.inputs, perturb_func=lambda x: x, **call)
    # Each example is repeated, so that it may round differently.
    torch.testing.assert_close(still, torch.zeros_like(still), rtol=0, atol=1e-4)

    def shift(inputs: Any) -> Any:
        return _as_given(case, [x + 0.2 for x in flat(inputs)])

    got = sensitivity_max(explanation, case.inputs, perturb_func=shift, **call)
    shifted = replace(case, inputs=shift(case.inputs), baselines=call["baselines"])
    before = joined(method.scores(case))
    after = joined(method.scores(shifted))
    expected = (after - before).norm(dim=1) / before.norm(dim=1)
    torch.testing.assert_close(got.double(), expected, rtol=1e-3, atol=1e-4)


# --- 8. Convergence delta -------------------------------------------------------------------------


def differences(case: Case, target: Any) -> Tensor:
    """F(x) - F(b) at the target, one example at a time."""
    if target is None:
        target = predicted(case.outputs(case.tensors))
    values = []
    for i in range(case.n_examples):
        alone = replace(case, baselines=_as_baselines(case), target=target).rows([i])
        at_inputs = picked(alone.outputs(alone.tensors), alone.target)
        at_baselines = picked(alone.outputs(alone.baseline_tensors), alone.target)
        values.append(at_inputs - at_baselines)
    return torch.cat(values).double()


def _as_baselines(case: Case) -> Any:
    baselines = case.baseline_tensors
    return baselines if isinstance(case.inputs, tuple) else baselines[0]


@check()
def delta_is_the_sum_minus_the_change(method: Method, case: Case) -> None:
    targets = [case.target]
    if len(case.output_shape) < 2:
        targets.append(None)
    for target in targets:
        change = differences(case, target)
        both = method.family == "mask" and target is not None
        for scores in ("mask", "contribution") if both else ("contribution",):
            attribution = method(case, scores=scores)
            attributions, delta = attribution.attribute(
                case.inputs,
                **method.steps,
                return_convergence_delta=True,
                **{**case.call, "target": target},
            )
            sums = joined(flat(attributions)).sum(1)
            # Rounding of sums over a few hundred values of size one.
            close = {"rtol": 1e-4, "atol": 2e-4 * max(1.0, float(change.abs().max()))}
            torch.testing.assert_close(delta.double(), sums - change, **close)
            again = attribution.compute_convergence_delta(
                attributions, case.baselines, case.inputs, target, case.args or None
            )
            torch.testing.assert_close(again, delta, **close)
            if scores == "contribution":
                # An example whose mask is 0 everywhere has nothing to share out.
                assert bool((sums.abs() > 0).any())
                torch.testing.assert_close(sums, change, **close)


@check()
def the_outputs_for_unmasked_inputs_are_kept(method: Method, case: Case) -> None:
    expected = case.outputs(case.tensors)
    for settings, call in (
        ({}, method.steps),
        ({}, {**method.steps, "internal_batch_size": 2}),
        ({"scores": "contribution"}, {"n_steps": 2, "return_convergence_delta": True}),
        ({"masker": KnownMasker()}, {"n_steps": 0, "internal_batch_size": 3}),
    ):
        attribution = method(case, **settings)
        assert attribution.last_outputs_ is None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values that are the same for the baselines
            attribution.attribute(case.inputs, **case.call, **call)
        kept = attribution.last_outputs_
        if expected.dim() > 2:
            assert kept is None
            continue
        assert_same(kept, expected.detach(), tolerance=_tolerance(case))
        assert not kept.requires_grad
        with torch.inference_mode():
            attribution.attribute(case.inputs, **{**case.call, **call, "n_steps": 2})
        assert_same(attribution.last_outputs_, kept, tolerance=_tolerance(case))
    single = case.rows([0])
    attribution.attribute(single.inputs, **single.call, n_steps=2)
    kept = attribution.last_outputs_
    if expected.dim() <= 2:
        assert_same(kept, expected[:1], tolerance=_tolerance(case))
    # Evaluating is another thing than explaining, and leaves them alone.
    attribution.evaluate(case.inputs, **case.call)
    assert attribution.last_outputs_ is kept
    with pytest.raises(InvalidInputError):
        attribution.attribute(case.inputs, **{**case.call, "target": 10**6})
    assert attribution.last_outputs_ is None


@check("core", family="mask")
def contributions_of_a_tuned_mask_are_its_shares(method: Method, case: Case) -> None:
    mask = joined(method.scores(case))
    parts = method(case, scores="contribution").attribute(case.inputs, **method.steps, **case.call)
    got = joined(flat(parts))
    change = differences(case, case.target).unsqueeze(1)
    shares = mask / mask.sum(1, keepdim=True) * change
    # A share of a loss would be the largest for the least important.
    gains = change > 0
    torch.testing.assert_close(
        torch.where(gains, got, 0), torch.where(gains, shares, 0), rtol=1e-4, atol=1e-5
    )
    here = mask > 0
    for i in range(case.n_examples):
        assert_ranked_alike(got[i : i + 1, here[i]], mask[i : i + 1, here[i]])


# --- 9. Forward functions of every kind -----------------------------------------------------------


@check("core")
def wrapped_forward_functions_are_explained_alike(method: Method, case: Case) -> None:
    expected = method.scores(case)
    named = named_embeddings(case)

    def closure(*args: Any) -> Any:
        return case.forward(*args)

    for forward in (
        closure,
        functools.partial(case.forward),
        torch.nn.DataParallel(case.forward),
        *([case.tensor_forward] if case.tensor_forward else []),
    ):
        assert_same(method.scores(replace(named, forward=forward)), expected)


def _traced(case: Case) -> Any:
    with warnings.catch_warnings():
        # Tracing warns of every Python number; these functions do not branch on any.
        warnings.simplefilter("ignore")
        return torch.jit.trace(
            case.tensor_forward or case.forward, (*case.tensors, *case.args), check_trace=False
        )


@check("float traceable", only="input")
def a_traced_forward_function_is_explained_alike(method: Method, case: Case) -> None:
    got = method.scores(replace(case, forward=_traced(case)))
    assert_same(got, method.scores(case), tolerance=_tolerance(case))


@check("traceable", only="layer")
def layers_of_a_traced_function_are_refused(method: Method, case: Case) -> None:
    with pytest.raises(LayerNotReachedError, match=r"^layer: .* never ran .*traced"):
        method.scores(replace(case, forward=_traced(case)))


@check("ids traceable", only="input")
def ids_of_a_traced_function_are_refused(method: Method, case: Case) -> None:
    named = replace(named_embeddings(case), forward=_traced(case))
    with pytest.raises(LayerNotReachedError, match=r"never ran .*traced"):
        method.scores(named)
    with pytest.raises(ValueError, match=r"^embedding_layer: integer inputs need"):
        method.scores(replace(named, embedding_layer=None))


# --- 10. Maskers ----------------------------------------------------------------------------------


class KnownMasker(nn.Module):
    """Proposes a logit that can be worked out: a third of the sum over a token's channels."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1 / 3))
        self.seen: list[MaskerInputs] = []

    def forward(self, inputs: MaskerInputs) -> tuple[Tensor, ...]:
        """Logits of the tokens' shapes."""
        self.seen.append(inputs)
        return tuple(
            self.scale * (f if p.dim() == f.dim() else f.flatten(p.dim()).sum(-1))
            for f, p in zip(inputs.features, inputs.maskable, strict=True)
        )


@check(family="mask")
def a_masker_of_the_users_own_proposes(method: Method, case: Case) -> None:
    masker = KnownMasker().train()
    attribution = method(case, masker=masker)
    assert attribution.is_fitted
    got = flat(attribution.attribute(case.inputs, **case.call))
    (seen,) = masker.seen
    assert masker.training
    features = features_of(method, case, case.tensors)
    assert_same(seen.features, features)
    assert_same(seen.inputs, case.tensors)
    same_as_removed = unmasked(method, case)
    assert all(torch.equal(a, ~b) for a, b in zip(seen.maskable, same_as_removed, strict=True))
    for score, f, same in zip(got, features, same_as_removed, strict=True):
        channelled = has_channels(method, case, f)
        logit = (f.sum(-1) if channelled else f) / 3
        expected = logit.sigmoid().masked_fill(same, 0.0)
        if channelled and score.dim() == f.dim():
            expected = (expected / f.shape[-1]).unsqueeze(-1).expand_as(f)
        # One rounding of a sum and one of a sigmoid.
        assert_same(score, expected.to(score), tolerance=1e-6)
    # It starts tuning too: its proposal is the mask of step 0.
    attribution.attribute(case.inputs, **{**case.call, "n_steps": 1})
    own = method(case)
    own.attribute(case.inputs, **{**case.call, "n_steps": 1})
    assert differs([attribution.last_terms_.total], [own.last_terms_.total])


@check("classes", family="mask")
def a_masker_is_conditioned_on_the_target(method: Method, case: Case) -> None:
    rows = varied_target(case)
    masker = KnownMasker()
    attribution = method(case, masker=masker)
    attribution.attribute(case.inputs, **{**case.call, "target": rows})
    output = case.outputs(case.tensors)
    for i, given in enumerate(masker.seen[0].probabilities):
        scores = output[i]
        for index in rows[i][:-1]:
            scores = scores[index]
        chosen = rows[i][-1]
        if attribution.output_ == "logits":
            scores = scores.softmax(-1)
        elif attribution.output_ == "log_probabilities":
            scores = scores.exp()
        is_predicted = int(scores.argmax()) == chosen
        expected = scores if is_predicted else torch.eye(len(scores))[chosen]
        torch.testing.assert_close(given, expected.to(given), rtol=1e-5, atol=1e-6)


@check("core", family="mask")
def a_masker_of_a_wrong_size_is_refused(method: Method, case: Case) -> None:
    class Short(KnownMasker):
        def forward(self, inputs: MaskerInputs) -> tuple[Tensor, ...]:
            return tuple(t[..., :-1] for t in super().forward(inputs))

    with pytest.raises(InvalidInputError, match=r"^masker: expected logits of shapes .* got "):
        method(case, masker=Short()).attribute(case.inputs, **case.call)


@check("core")
def a_saved_masker_gives_the_same_scores(method: Method, case: Case) -> None:
    batch = {"inputs": case.inputs, **case.call}
    attribution = method(case).fit([batch], epochs=3, learning_rate=0.01)
    expected = [attribution.attribute(case.inputs, n_steps=k, **case.call) for k in (0, 2)]
    with TemporaryDirectory() as folder:
        attribution.save_pretrained(folder)
        loaded = method.cls.from_pretrained(
            folder, case.forward, **method.where(case), **method.loading
        )
    assert loaded.is_fitted
    for k, scores in zip((0, 2), expected, strict=True):
        assert_same(loaded.attribute(case.inputs, n_steps=k, **case.call), scores)
