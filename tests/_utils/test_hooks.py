"""Reading and replacing what a layer takes or gives."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from captum_aml._utils.hooks import LayerPoint, Tap, tensors_in, with_tensors
from captum_aml.exceptions import LayerNotReachedError

Pair = namedtuple("Pair", ["left", "right"])


class Scale(nn.Module):
    """Multiplies by a factor, and counts its calls."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.factor


class Chain(nn.Module):
    """``10 * (2 x) + 1`` by two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Scale(2.0)
        self.second = Scale(10.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x)) + 1


class Twice(nn.Module):
    """Runs one layer on both of its inputs: ``2 a + 100 * (2 b)``."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = Scale(2.0)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.layer(a) + 100 * self.layer(b)


def hooks_of(module: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


X = torch.tensor([[1.0, 2.0], [3.0, 4.0]])


# Nests of tensors


def test_floats_are_found_in_order_and_anything_else_is_passed_over() -> None:
    a, b, c = torch.zeros(1), torch.ones(2), torch.ones(3) * 2
    nest = ([a, torch.tensor([1])], {"b": b, "flag": True}, Pair(None, c), "text")
    assert [t is u for t, u in zip(tensors_in(nest), (a, b, c), strict=True)] == [True] * 3


def test_floats_are_replaced_in_order_and_containers_keep_their_type() -> None:
    ids = torch.tensor([1])
    nest = (
        [torch.zeros(1), ids],
        OrderedDict(b=torch.ones(1)),
        Pair("left", torch.ones(1)),
        BaseModelOutput(last_hidden_state=torch.ones(1)),
    )
    new = [torch.full((1,), float(i)) for i in range(4)]
    out = with_tensors(nest, iter(new))
    assert out[0][0] is new[0]
    assert out[0][1] is ids
    assert type(out[1]) is OrderedDict
    assert out[1]["b"] is new[1]
    assert type(out[2]) is Pair
    assert out[2] == Pair("left", new[2])
    assert type(out[3]) is BaseModelOutput
    assert out[3].last_hidden_state is new[3]


def test_mappings_may_have_keys_that_are_no_names() -> None:
    new = torch.ones(1)
    assert with_tensors({0: torch.zeros(1), "a b": 3}, iter([new])) == {0: new, "a b": 3}


LEAVES = st.sampled_from([None, "text", 3, torch.tensor([1, 2])]) | st.builds(
    lambda v: torch.tensor([float(v)]), st.integers(0, 9)
)
NESTS = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
        | st.builds(Pair, inner, inner)
    ),
    max_leaves=8,
)


def same(a: Any, b: Any) -> bool:
    """The same nest, by identity of its leaves."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a is b


@given(NESTS)
def test_putting_back_what_was_found_changes_nothing(nest: Any) -> None:
    assert same(with_tensors(nest, iter(tensors_in(nest))), nest)


# Reading


@pytest.mark.parametrize(
    ("name", "at_input", "expected"),
    [
        ("first", False, X * 2),
        ("first", True, X),
        ("second", True, X * 2),
        ("second", False, X * 20),
    ],
)
def test_a_point_is_read_where_it_stands(name: str, at_input: bool, expected: Tensor) -> None:
    model = Chain()
    point = LayerPoint(getattr(model, name), at_input)
    tap, tensors, output = Tap.read([point], lambda: model(X), carriers=[None])
    assert tap.calls == (0,)
    assert torch.equal(tensors[0][0], expected)
    assert torch.equal(output, X * 20 + 1)
    assert hooks_of(model) == 0


def test_what_was_read_is_a_copy_outside_the_graph() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(inplace=True))
    with torch.enable_grad():
        _, ((read,),), _ = Tap.read([LayerPoint(model[0])], lambda: model(X), carriers=[None])
    assert not read.requires_grad
    # The in-place layer after it has not touched it.
    assert torch.equal(read, model[0](X).detach())


def test_several_points_are_read_in_one_pass() -> None:
    model = Chain()
    points = [LayerPoint(model.second), LayerPoint(model.first)]
    _, tensors, _ = Tap.read(points, lambda: model(X), carriers=[None, None])
    assert torch.equal(tensors[0][0], X * 20)
    assert torch.equal(tensors[1][0], X * 2)
    assert model.first.calls == 1


def test_the_call_that_takes_the_inputs_is_the_one_that_counts() -> None:
    model = Twice()
    tap, ((read,),), _ = Tap.read(
        [LayerPoint(model.layer)], lambda: model(X, X + 1), carriers=[X + 1]
    )
    assert tap.calls == (1,)
    assert torch.equal(read, (X + 1) * 2)


@pytest.mark.parametrize("carrier", [None, X * 7])
def test_a_layer_that_runs_twice_is_ambiguous_without_its_inputs(carrier: Tensor | None) -> None:
    model = Twice()
    with pytest.raises(
        LayerNotReachedError, match=r"layer: .* runs Scale 2 times for 1 input; expected"
    ):
        Tap.read([LayerPoint(model.layer)], lambda: model(X, X + 1), carriers=[carrier])
    assert hooks_of(model) == 0


def test_a_layer_that_never_runs_is_named() -> None:
    model = Chain()
    with pytest.raises(LayerNotReachedError, match="layer: the forward function never ran Linear"):
        Tap.read([LayerPoint(nn.Linear(2, 2))], lambda: model(X), carriers=[None])


def test_a_layer_without_floats_is_named() -> None:
    class Ids(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.long()

    layer = Ids()
    with pytest.raises(LayerNotReachedError, match="output of Ids holds no floating point tensor"):
        Tap.read([LayerPoint(layer)], lambda: layer(X), carriers=[None])


def test_an_input_by_keyword_is_not_read() -> None:
    """Captum takes a layer's positional arguments for its input; so do we."""
    layer = Scale(2.0)
    with pytest.raises(LayerNotReachedError, match="input of Scale holds no floating point"):
        Tap.read([LayerPoint(layer, at_input=True)], lambda: layer(x=X), carriers=[None])
    # Its output can be read and replaced all the same.
    tap, ((read,),), _ = Tap.read([LayerPoint(layer)], lambda: layer(x=X), carriers=[None])
    assert torch.equal(read, X * 2)
    with tap.replacing([(X,)]):
        assert torch.equal(layer(x=X), X)


def test_hooks_are_gone_after_an_exception() -> None:
    model = Chain()

    def broken() -> Tensor:
        model(X)
        raise RuntimeError("the user's own error")

    with pytest.raises(RuntimeError, match="the user's own error"):
        Tap.read([LayerPoint(model.first)], broken, carriers=[None])
    assert hooks_of(model) == 0


# Reading again, for the baselines


def test_a_second_reading_reads_another_pass() -> None:
    model = Chain()
    tap, _, _ = Tap.read([LayerPoint(model.first)], lambda: model(X), carriers=[None])
    ((read,),) = tap.read_again(lambda: model(X * 0 + 5))
    assert torch.equal(read, torch.full_like(X, 10.0))
    assert hooks_of(model) == 0


def test_a_second_reading_takes_the_same_call() -> None:
    model = Twice()
    tap, _, _ = Tap.read([LayerPoint(model.layer)], lambda: model(X, X + 1), carriers=[X + 1])
    ((read,),) = tap.read_again(lambda: model(X * 0, X * 0 + 3))
    assert torch.equal(read, torch.full_like(X, 6.0))


def test_a_layer_that_the_baselines_do_not_reach_is_named() -> None:
    model = Chain()
    tap, _, _ = Tap.read([LayerPoint(model.first)], lambda: model(X), carriers=[None])
    with pytest.raises(LayerNotReachedError, match="output of Scale was reached for the inputs"):
        tap.read_again(lambda: X)
    assert hooks_of(model) == 0


# Replacing


@pytest.mark.parametrize(
    ("name", "at_input", "expected"),
    [
        ("first", False, 70.0 + 1),  # 10 * 7 + 1
        ("first", True, 140.0 + 1),  # 10 * (2 * 7) + 1
        ("second", True, 70.0 + 1),
        ("second", False, 7.0 + 1),
    ],
)
def test_a_replaced_value_flows_on_from_where_it_stands(
    name: str, at_input: bool, expected: float
) -> None:
    model = Chain()
    point = LayerPoint(getattr(model, name), at_input)
    tap, _, _ = Tap.read([point], lambda: model(X), carriers=[None])
    with tap.replacing([(torch.full_like(X, 7.0),)]):
        assert torch.equal(model(X), torch.full_like(X, expected))
    assert hooks_of(model) == 0
    assert torch.equal(model(X), X * 20 + 1)


def test_only_the_call_that_counts_is_replaced() -> None:
    model = Twice()
    tap, _, _ = Tap.read([LayerPoint(model.layer)], lambda: model(X, X + 1), carriers=[X + 1])
    with tap.replacing([(torch.full_like(X, 5.0),)]):
        assert torch.equal(model(X, X + 1), 2 * X + 500)


def test_the_gradient_reaches_what_was_put_in() -> None:
    model = Chain()
    tap, _, _ = Tap.read([LayerPoint(model.first)], lambda: model(X), carriers=[None])
    put_in = torch.ones_like(X, requires_grad=True)
    with torch.enable_grad(), tap.replacing([(put_in,)]):
        model(X).sum().backward()
    assert torch.equal(put_in.grad, torch.full_like(X, 10.0))


def test_several_points_of_several_tensors_get_their_own() -> None:
    class Split(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Any]:
            return {"sum": x + 1, "ids": torch.tensor([3]), "rest": [x + 2]}

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.split, self.scale = Split(), Scale(2.0)

        def forward(self, x: Tensor) -> Tensor:
            parts = self.split(x)
            return parts["sum"] * parts["ids"] + 10 * parts["rest"][0] + 100 * self.scale(x)

    model = Model()
    points = [LayerPoint(model.scale), LayerPoint(model.split)]
    tap, tensors, _ = Tap.read(points, lambda: model(X), carriers=[None, None])
    assert [len(t) for t in tensors] == [1, 2]
    one, two, three = (torch.full_like(X, v) for v in (1.0, 2.0, 3.0))
    with tap.replacing([(one,), (two, three)]):
        assert torch.equal(model(X), torch.full_like(X, 2 * 3 + 10 * 3 + 100 * 1))


def test_hooks_are_gone_when_a_replaced_pass_fails() -> None:
    model = Chain()
    tap, _, _ = Tap.read([LayerPoint(model.first)], lambda: model(X), carriers=[None])
    with pytest.raises(KeyError), tap.replacing([(X,)]):
        raise KeyError("anything")
    assert hooks_of(model) == 0
