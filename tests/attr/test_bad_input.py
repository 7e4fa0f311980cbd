"""Wrong calls: each gets an error that says what is wrong, and leaves everything as it was."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_aml.exceptions import (
    CaptumAMLError,
    InvalidInputError,
    NoGradientError,
    NonFiniteError,
)
from captum_aml.maskers import MaskerInputs
from tests._helpers.cases import CASES, Case
from tests._helpers.checks import METHODS, KnownMasker, Method, Snapshot


@pytest.fixture(params=METHODS.values(), ids=METHODS.keys())
def method(request: pytest.FixtureRequest) -> Method:
    return request.param


@dataclass(frozen=True)
class Bad:
    """A wrong argument.

    Attributes:
        case: The case that is otherwise fine.
        message: A pattern for the whole message.
        call: What replaces arguments of ``attribute``, given the case.
    """

    case: str
    message: str
    call: Callable[[Case], dict[str, Any]]


def _ids(value: int, *shape: int) -> Tensor:
    return torch.full(shape, value)


BAD = {
    # Inputs.
    "inputs-list": Bad("text", r"inputs: expected a tensor .* got list", lambda c: {"inputs": [1]}),
    "inputs-tuple-of-lists": Bad(
        "text", r"inputs: expected a tensor .* got list", lambda c: {"inputs": ([1], [2])}
    ),
    "inputs-no-tensor": Bad("text", r"inputs: expected .* got an empty", lambda c: {"inputs": ()}),
    "inputs-scalar": Bad(
        "text", r"inputs: expected .* got a tensor without", lambda c: {"inputs": torch.tensor(3)}
    ),
    "inputs-bool": Bad(
        "text", r"inputs: expected .* got torch.bool", lambda c: {"inputs": c.inputs > 3}
    ),
    "inputs-complex": Bad(
        "multi_layer",
        r"inputs: expected .* got torch.complex64",
        lambda c: {"inputs": c.inputs.to(torch.complex64)},
    ),
    "inputs-empty-batch": Bad(
        "text",
        r"inputs: expected at least one example, got .*0, 7",
        lambda c: {"inputs": c.inputs[:0]},
    ),
    "inputs-empty-batch-floats": Bad(
        "sequence", r"inputs: expected at least one ex.* got", lambda c: {"inputs": c.inputs[:0]}
    ),
    "inputs-zero-length": Bad(
        "text",
        r"inputs: expected at least one el.* got .*4, 0",
        lambda c: {"inputs": c.inputs[:, :0]},
    ),
    "inputs-zero-length-floats": Bad(
        "sequence", r"inputs: expected .* got .*4, 0, 5", lambda c: {"inputs": c.inputs[:, :0]}
    ),
    "inputs-not-aligned": Bad(
        "multi_input",
        r"inputs: expected the same number of examples .* got \[4, 4, 3\]",
        lambda c: {"inputs": (*c.inputs[:2], c.inputs[2][:3])},
    ),
    "inputs-id-too-high": Bad(
        "text", r"inputs: expected ids .* got .*20", lambda c: {"inputs": c.inputs.clamp(min=20)}
    ),
    "inputs-id-negative": Bad(
        "text", r"inputs: expected ids .* got .*-1", lambda c: {"inputs": c.inputs - c.inputs - 1}
    ),
    # Baselines.
    "baselines-shape": Bad(
        "text",
        r"baselines: expected shape \(4, 7\) or \(1, 7\), got \(4, 6\)",
        lambda c: {"baselines": _ids(1, 4, 6)},
    ),
    "baselines-rows": Bad(
        "text", r"baselines: expected shape .* got \(2, 7\)", lambda c: {"baselines": _ids(1, 2, 7)}
    ),
    "baselines-without-examples": Bad(
        "text", r"baselines: expected shape .* got \(7,\)", lambda c: {"baselines": _ids(1, 7)}
    ),
    "baselines-dtype": Bad(
        "text",
        r"baselines: expected integer ids .* got torch.float32",
        lambda c: {"baselines": torch.ones(4, 7)},
    ),
    "baselines-fraction": Bad(
        "text", r"baselines: expected an integer id, got 0.5", lambda c: {"baselines": 0.5}
    ),
    "baselines-nan": Bad(
        "text", r"baselines: expected .* got nan", lambda c: {"baselines": float("nan")}
    ),
    "baselines-bool": Bad(
        "multi_layer",
        r"baselines: expected .* got torch.bool",
        lambda c: {"baselines": c.inputs > 0},
    ),
    "baselines-range": Bad(
        "text", r"baselines: expected ids .* got .*20", lambda c: {"baselines": 20}
    ),
    "baselines-negative": Bad(
        "text", r"baselines: expected ids .* got .*-1", lambda c: {"baselines": -1}
    ),
    "baselines-too-few": Bad(
        "multi_input",
        r"baselines: expected one .*3 input tensors, got 2",
        lambda c: {"baselines": (0, 0)},
    ),
    "baselines-one-for-several": Bad(
        "multi_input",
        r"baselines: expected one .*3 input tensors, got 1",
        lambda c: {"baselines": 0.0},
    ),
    "baselines-text": Bad(
        "text", r"baselines: expected .* got str", lambda c: {"baselines": "[MASK]"}
    ),
    "baselines-list": Bad("text", r"baselines: expected .* got list", lambda c: {"baselines": [0]}),
    # Targets.
    "target-range": Bad("text", r"target: expected .*\(3,\).* got .*3", lambda c: {"target": 3}),
    "target-range-negative": Bad("text", r"target: expected .* got .*-4", lambda c: {"target": -4}),
    "target-range-of-one-example": Bad(
        "text", r"target: expected .* got", lambda c: {"target": [0, 1, 5, 0]}
    ),
    "target-too-few": Bad(
        "text", r"target: expected one target .*4 examples, got 3", lambda c: {"target": [0, 1, 2]}
    ),
    "target-too-few-in-tensor": Bad(
        "text",
        r"target: expected one .*4 examples, got 3",
        lambda c: {"target": torch.zeros(3).long()},
    ),
    "target-none-in-list": Bad(
        "text", r"target: expected .* got None", lambda c: {"target": [0, None, 1, 2]}
    ),
    "target-empty": Bad("text", r"target: expected .* got 0", lambda c: {"target": []}),
    "target-empty-tuple": Bad("text", r"target: expected .* got", lambda c: {"target": ()}),
    "target-float": Bad(
        "text", r"target: expected an integer .* got 1.0", lambda c: {"target": 1.0}
    ),
    "target-float-tensor": Bad(
        "text",
        r"target: expected integer .* got torch.float32",
        lambda c: {"target": torch.ones(4)},
    ),
    "target-matrix": Bad(
        "text", r"target: expected .* got shape \(4, 2\)", lambda c: {"target": _ids(0, 4, 2)}
    ),
    "target-text": Bad("text", r"target: expected .* got 'a'", lambda c: {"target": "a"}),
    "target-too-deep": Bad(
        "text", r"target: expected at most 1 .* got 2", lambda c: {"target": (0, 0)}
    ),
    "target-too-shallow": Bad(
        "tagger", r"target: expected 2 indices .* got 1", lambda c: {"target": 1}
    ),
    "target-missing": Bad(
        "tagger", r"target: expected a tuple .*; got None", lambda c: {"target": None}
    ),
    "target-range-of-a-tuple": Bad(
        "tagger", r"target: expected .*\(6, 3\).* got", lambda c: {"target": (2, 3)}
    ),
    "target-mixed-depth": Bad(
        "tagger",
        r"target: expected tuples of one length.* got",
        lambda c: {"target": [(0, 1), (2,)] * 2},
    ),
    "target-of-a-single-value": Bad(
        "scalar", r"target: expected at most 0 .* got 1", lambda c: {"target": 0}
    ),
    # Feature masks.
    "feature_mask-dtype": Bad(
        "text",
        r"feature_mask: expected integer .* got torch.float32",
        lambda c: {"feature_mask": torch.zeros(4, 7)},
    ),
    "feature_mask-bool": Bad(
        "text",
        r"feature_mask: expected integer .* got torch.bool",
        lambda c: {"feature_mask": torch.zeros(4, 7).bool()},
    ),
    "feature_mask-rows": Bad(
        "text",
        r"feature_mask: expected shape .* got \(3, 7\)",
        lambda c: {"feature_mask": _ids(0, 3, 7)},
    ),
    "feature_mask-length": Bad(
        "text",
        r"feature_mask: expected shape .* got \(4, 6\)",
        lambda c: {"feature_mask": _ids(0, 4, 6)},
    ),
    "feature_mask-list": Bad(
        "text", r"feature_mask: expected .* got list", lambda c: {"feature_mask": [0, 1]}
    ),
    "feature_mask-too-many": Bad(
        "text",
        r"feature_mask: expected one .* got 2",
        lambda c: {"feature_mask": (_ids(0, 4, 7),) * 2},
    ),
    # The rest.
    "internal_batch_size-0": Bad(
        "text", r"internal_batch_size: expected .* got 0", lambda c: {"internal_batch_size": 0}
    ),
    "internal_batch_size-float": Bad(
        "text", r"internal_batch_size: expected .* got 2.5", lambda c: {"internal_batch_size": 2.5}
    ),
    "internal_batch_size-bool": Bad(
        "text",
        r"internal_batch_size: expected .* got True",
        lambda c: {"internal_batch_size": True},
    ),
    "n_steps": Bad("text", r"n_steps: expected .* got -3", lambda c: {"n_steps": -3}),
}


# What a call holds is checked before the objective is called: AML stands for LA here.
@pytest.mark.parametrize("method_name", ["AMLAttribution", "LayerAMLAttribution"])
@pytest.mark.parametrize("name", BAD)
def test_a_wrong_argument_is_named(method_name: str, name: str) -> None:
    method, bad = METHODS[method_name], BAD[name]
    case = CASES[bad.case].build()
    masker = KnownMasker().train()
    attribution = method(case, masker=masker)
    before = Snapshot(case, masker)
    call = {"inputs": case.inputs, "n_steps": 2, **case.call, **bad.call(case)}
    with pytest.raises(InvalidInputError, match=f"^{bad.message}") as raised:
        attribution.attribute(**call)
    assert isinstance(raised.value, ValueError)
    before.assert_kept()
    # The object still works.
    attribution.attribute(case.inputs, n_steps=1, **case.call)


def test_the_same_arguments_are_refused_when_fitting(method: Method) -> None:
    case = CASES["text"].build()
    for name in ("inputs-empty-batch", "baselines-shape", "target-range", "feature_mask-dtype"):
        bad = BAD[name]
        batch = {"inputs": case.inputs, **case.call, **bad.call(case)}
        before = Snapshot(case)
        attribution = method(case)
        with pytest.raises(InvalidInputError, match=f"^{bad.message}"):
            attribution.fit([batch], epochs=1)
        before.assert_kept()
        assert not attribution.is_fitted


def test_the_delta_of_a_wrong_target(method: Method) -> None:
    case = CASES["text"].build()
    attribution = method(case)
    scores = attribution.attribute(case.inputs, n_steps=1, **case.call)
    for target in (3, (0, 0), [0, 1]):
        with pytest.raises(InvalidInputError, match=r"^target: expected .* got"):
            attribution.compute_convergence_delta(
                scores, case.baselines, case.inputs, target, case.args
            )


@pytest.mark.parametrize("name", ["AMLAttribution", "LAAttribution"])
def test_ids_need_an_embedding_layer(name: str) -> None:
    case = CASES["text"].build()
    message = r"^embedding_layer: integer inputs need .*pass embedding_layer=.*Layer variant"
    for forward in (case.forward, lambda *args: case.forward(*args)):
        attribution = METHODS[name](replace(case, forward=forward, embedding_layer=None))
        with pytest.raises(InvalidInputError, match=message):
            attribution.attribute(case.inputs, n_steps=1, **case.call)


# --- Forward functions that cannot be explained ---------------------------------------------------


def _linked(case: Case, link: Callable[[Tensor], Any]) -> Case:
    return replace(case, forward=lambda *args: link(case.forward(*args)))


@pytest.mark.parametrize(
    "link",
    [
        lambda t: t.detach(),
        lambda t: torch.from_numpy(t.detach().numpy().copy()),
        lambda t: torch.nn.functional.one_hot(t.argmax(-1), 3).float(),
        lambda t: torch.tensor([0.1, 0.7, 0.2]).expand_as(t),
    ],
    ids=["detached", "through-numpy", "argmax", "constant"],
)
def test_a_result_without_a_gradient_is_refused(
    method: Method, link: Callable[[Tensor], Any]
) -> None:
    case = _linked(CASES["text"].build(), link)
    before = Snapshot(case)
    with pytest.raises(NoGradientError, match=r"^forward_func: .*gradient.*expected") as raised:
        method.scores(case)
    assert isinstance(raised.value, ValueError)
    before.assert_kept()
    with pytest.raises(NoGradientError, match=r"^forward_func: "):
        method(case).fit([{"inputs": case.inputs, **case.call}], epochs=1)
    before.assert_kept()
    # A masker's proposal needs no gradient.
    scores = method(case, masker=KnownMasker()).attribute(case.inputs, **case.call)
    assert bool(torch.isfinite(scores).all())


def test_a_constant_value_is_refused(method: Method) -> None:
    case = _linked(CASES["scalar"].build(), lambda t: torch.full_like(t, 3.0))
    with (
        pytest.warns(UserWarning, match="the same for the inputs and the baselines"),
        pytest.raises(NoGradientError, match=r"^forward_func: "),
    ):
        method.scores(case)


@pytest.mark.parametrize(
    ("link", "got"),
    [
        (lambda t: t.tolist(), "got list"),
        (lambda t: None, "got NoneType"),
        (lambda t: t.argmax(-1), "got torch.int64"),
        (lambda t: t[:-1], r"got shape \(3, 3\)"),
        (lambda t: t.sum(), r"got shape \(1,\)"),
    ],
    ids=["list", "none", "integers", "too-few-rows", "one-number"],
)
def test_a_result_of_a_wrong_form_is_refused(
    method: Method, link: Callable[[Tensor], Any], got: str
) -> None:
    case = _linked(CASES["text"].build(), link)
    before = Snapshot(case)
    with pytest.raises(InvalidInputError, match=rf"^forward_func: expected .*{got}"):
        method.scores(case)
    before.assert_kept()


class _TurnsBad:
    """A forward function whose result for one example is not finite, from some pass on.

    Pass 0 with a gradient has the masks of the averaged mask gradient, pass k is tuning step k - 1.
    """

    def __init__(self, case: Case, value: float, from_pass: int | None) -> None:
        self.case, self.value, self.left = case, value, from_pass

    def __call__(self, *args: Any) -> Tensor:
        output = self.case.forward(*args)
        is_bad = self.left is None
        if self.left is not None and torch.is_grad_enabled():
            is_bad = self.left == 0
            self.left -= 1
        if is_bad:
            bad = torch.zeros_like(output)
            bad[1] = self.value
            output = output + bad
        return output


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_told_with_its_step(method: Method, value: float) -> None:
    case = CASES["text"].build()
    for step, where in {
        None: "the unmasked inputs",
        0: "the masked inputs",
        **{k + 1: f"tuning step {k}" for k in range(3)},
    }.items():
        broken = replace(case, forward=_TurnsBad(case, value, step))
        before = Snapshot(case)
        message = rf"^forward_func: expected finite outputs, got .* for {where} \(rows \[1"
        with pytest.raises(NonFiniteError, match=message) as raised:
            method(broken).attribute(case.inputs, n_steps=3, **case.call)
        assert isinstance(raised.value, ValueError)
        before.assert_kept()


def test_contributions_to_something_infinite_are_refused(method: Method) -> None:
    # The logarithm of nothing: F(x) - F(b) is infinite, and so would be the scores.
    case = CASES["sequence"].build()

    def forward(embeddings: Tensor, attention: Tensor) -> Tensor:
        total = embeddings.square().sum((1, 2)).log()
        return torch.stack([total, -total], dim=1)

    broken = replace(case, forward=forward, layer=None, target=0)
    if method.at_layer:
        identity = nn.Identity()
        broken = replace(broken, forward=lambda e, a: forward(identity(e), a), layer=identity)
    with pytest.raises(NonFiniteError, match="baselines"):
        method(broken, scores="contribution", masker=KnownMasker()).attribute(
            case.inputs, **broken.call
        )


# --- Maskers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "got"),
    [
        (lambda t: t[:, :-1], r"expected logits of shapes .*\(4, 7\).* got .*\(4, 6\)"),
        (lambda t: t[:-1], r"expected logits .* got .*\(3, 7\)"),
        (lambda t: t.unsqueeze(-1), r"expected logits .* got .*\(4, 7, 1\)"),
        (lambda t: (t, t), r"expected logits .* got .*\(4, 7\), \(4, 7\)"),
        (lambda t: t.tolist(), r"expected tensors .* got .*list"),
        (lambda t: None, r"expected tensors .* got .*NoneType"),
        (lambda t: t * float("nan"), r"expected finite .* got"),
        (lambda t: t / 0, r"expected finite .* got"),
    ],
    ids=["short", "few", "channels", "two", "list", "none", "nan", "inf"],
)
@pytest.mark.parametrize("n_steps", [0, 2])
def test_a_wrong_proposal_is_refused(
    method: Method, result: Callable[[Tensor], Any], got: str, n_steps: int
) -> None:
    class Wrong(KnownMasker):
        def forward(self, inputs: MaskerInputs) -> Any:
            (logits,) = super().forward(inputs)
            return result(logits)

    case = CASES["text"].build()
    masker = Wrong().train()
    before = Snapshot(case, masker)
    with pytest.raises(CaptumAMLError, match=f"^masker: {got}"):
        method(case, masker=masker).attribute(case.inputs, n_steps=n_steps, **case.call)
    before.assert_kept()


def test_a_masker_fitted_for_other_inputs_is_refused(method: Method) -> None:
    # Shapes that a masker was not made for, by fitting and then explaining something else.
    case = CASES["multi_layer"].build()
    attribution = method(case).fit([{"inputs": case.inputs, **case.call}], epochs=1)
    other = CASES["images"].build()
    attribution.forward_func = other.forward
    if method.at_layer:
        attribution.layer = other.layer
    with pytest.raises(CaptumAMLError, match=r"^masker: "):
        attribution.attribute(other.inputs, **other.call)


# --- Many wrong calls in a row --------------------------------------------------------------------


def test_wrong_calls_between_right_ones_leave_no_trace(method: Method) -> None:
    case = CASES["text"].build()
    attribution = method(case)
    expected = attribution.attribute(case.inputs, n_steps=3, **case.call)
    names = [name for name, bad in BAD.items() if bad.case == "text"]
    for name in random.Random(0).sample(names, 8):
        call = {"inputs": case.inputs, "n_steps": 2, **case.call, **BAD[name].call(case)}
        with pytest.raises(InvalidInputError):
            attribution.attribute(**call)
        got = attribution.attribute(case.inputs, n_steps=3, **case.call)
        assert torch.equal(got, expected)
