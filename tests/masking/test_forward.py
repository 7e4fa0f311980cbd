"""The forward function: what is known of it without running it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_aml._utils.hooks import unwrapped
from captum_aml.exceptions import InvalidInputError
from captum_aml.masking.call import parse_call
from captum_aml.masking.forward import (
    argument_named,
    find_device_ids,
    find_embedding_layer,
    forwarded_args,
    largest_embedding,
    modules_of,
    run_forward,
    underlying_model,
)
from captum_aml.masking.sites import InputSite
from tests._helpers.models import PlantedClassifier, tiny_encoder

IDS = torch.tensor([[3, 1, 4], [5, 9, 2]])


class PartNamedModule(PlantedClassifier):
    """A model one of whose parts is called as what ``DataParallel`` calls the model it wraps."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Linear(2, 2)


class Holder:
    """A function with a model as its attribute, as a text model is."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __call__(self, ids: Tensor) -> Tensor:
        result: Tensor = self.model(ids)
        return result


# The model


@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: model,
        nn.DataParallel,
        lambda model: model.forward,
        functools.partial,
        lambda model: functools.partial(nn.DataParallel(model)),
        Holder,
        lambda model: Holder(nn.DataParallel(model)),
    ],
    ids=["itself", "parallel", "method", "partial", "parallel partial", "model", "parallel model"],
)
@pytest.mark.parametrize("make", [PlantedClassifier, PartNamedModule])
def test_the_model_and_its_embeddings_are_found(
    make: Callable[[], PlantedClassifier], wrap: Callable[[nn.Module], Callable[..., Any]]
) -> None:
    model = make()
    assert underlying_model(wrap(model)) is model
    assert find_embedding_layer(wrap(model)) is model.embedding
    assert any(part is model for m in modules_of(wrap(model)) for part in m.modules())


def test_a_part_called_module_is_no_wrapper() -> None:
    model = PartNamedModule()
    assert unwrapped(model) is model
    capture = InputSite(model, ()).capture(parse_call(IDS))
    assert torch.equal(capture.features[0], model.embedding(IDS).detach())


def test_a_function_that_shows_no_model_has_none() -> None:
    model = PlantedClassifier()
    assert underlying_model(lambda x: model(x)) is None
    assert find_embedding_layer(lambda x: model(x)) is None


@pytest.mark.parametrize("wrap", ["itself", "method", "closure", "attribute", "partial"])
def test_modules_are_found_in_every_kind_of_forward_function(wrap: str) -> None:
    model = tiny_encoder("bert")

    def closure(ids: Tensor) -> Tensor:
        return model(ids).logits

    forms: dict[str, Any] = {
        "itself": model,
        "method": model.forward,
        "closure": closure,
        "attribute": Holder(model),
        "partial": functools.partial(closure),
    }
    assert any(m is model for m in modules_of(forms[wrap]))


# Its embedding layer


def test_the_embedding_layer_of_a_hugging_face_model_is_found() -> None:
    model = PlantedClassifier()
    assert find_embedding_layer(nn.DataParallel(model)) is model.embedding
    assert find_embedding_layer(lambda x: x) is None


def test_a_model_that_cannot_name_its_embeddings_has_none() -> None:
    """As models of transformers without a table of words: their getter raises."""

    class Wordless(nn.Module):
        def get_input_embeddings(self) -> nn.Module:
            raise NotImplementedError("no words here")

    assert find_embedding_layer(Wordless()) is None


def test_the_words_are_the_largest_embedding_of_a_layer() -> None:
    words = nn.Embedding(10, 2)
    assert largest_embedding(nn.Sequential(nn.Embedding(4, 2), words)) is words
    assert largest_embedding(nn.Linear(2, 2)) is None


# Its devices


def test_only_several_devices_of_a_parallel_model_count() -> None:
    model = nn.DataParallel(nn.Linear(2, 2))
    assert find_device_ids(model) is None
    model.device_ids = [0, 1]
    assert find_device_ids(model) == [0, 1]
    assert find_device_ids(model, [1, 0]) == [1, 0]
    assert find_device_ids(model, [1]) is None
    own = nn.Linear(2, 2)
    own.device_ids = 7  # whatever it may mean
    assert find_device_ids(own) is None


# Arguments by name


class Masked(nn.Module):
    def forward(self, ids: Tensor, attention_mask: Tensor | None = None, flag: int = 3) -> Tensor:
        return ids


def closure(ids: Tensor, attention_mask: Tensor) -> Tensor:
    return ids


def test_an_argument_is_found_by_its_name() -> None:
    mask = torch.ones(2, 3)
    functions: list[Any] = [Masked(), closure, functools.partial(closure)]
    for function in functions:
        assert argument_named(function, (IDS,), (mask,), "attention_mask") is mask


def test_an_argument_is_found_inside_data_parallel() -> None:
    mask = torch.ones(2, 3)
    assert argument_named(nn.DataParallel(Masked()), (IDS,), (mask,), "attention_mask") is mask


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace.*is deprecated")
def test_an_argument_that_is_not_there_is_none() -> None:
    mask = torch.ones(2, 3)
    assert argument_named(Masked(), (IDS,), (), "attention_mask") is None
    assert argument_named(lambda *args: args[0], (IDS,), (mask,), "attention_mask") is None
    assert argument_named(closure, (IDS,), (), "attention_mask") is None
    traced = torch.jit.trace(lambda x, m: x * m, (IDS, mask))
    assert argument_named(traced, (IDS,), (mask,), "attention_mask") is None


def test_an_argument_is_found_inside_a_partial() -> None:
    mask = torch.ones(2, 3)
    named = functools.partial(closure, attention_mask=mask)
    assert argument_named(named, (IDS,), (), "attention_mask") is mask
    assert argument_named(functools.partial(closure, IDS), (), (mask,), "attention_mask") is mask


# Arguments of one function as another takes them


def known(ids: object, attention_mask: object, token_type_ids: object) -> None: ...


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda ids: None, ()),
        (lambda ids, mask: None, ("mask",)),
        (lambda ids, mask=None: None, ("mask",)),
        (lambda ids, mask, segments: None, ("mask", "types")),
        (lambda ids, mask=None, segments=None: None, ("mask", "types")),
        (lambda ids, *args: None, ("mask", "types")),
        (lambda ids, mask, *args: None, ("mask", "types")),
        # By name, in whatever order.
        (lambda ids, token_type_ids, attention_mask: None, ("types", "mask")),
        (lambda ids, token_type_ids=None: None, ("types",)),
        # The order of the BERT models of transformers in Captum's tutorials.
        (
            lambda inputs, token_type_ids=None, position_ids=None, attention_mask=None: None,
            ("types", None, "mask"),
        ),
        # What has no name of the other's gets what is left over, if it needs something.
        (lambda ids, token_type_ids, mask: None, ("types", "mask")),
        (lambda ids, flag=True, attention_mask=None: None, (True, "mask")),
        (functools.partial(lambda ids, mask, scale: None, scale=2), ("mask",)),
        (max, ("mask", "types")),  # no signature
    ],
)
def test_what_a_function_takes(function: Callable[..., Any], expected: tuple[object, ...]) -> None:
    assert forwarded_args(("mask", "types"), known, function) == expected


def test_the_same_function_gets_everything() -> None:
    assert forwarded_args((1, 2, 3), known, known) == (1, 2, 3)


def test_without_the_other_function_it_is_the_order_that_counts() -> None:
    def reversed_order(ids: object, token_type_ids: object, attention_mask: object) -> None: ...

    assert forwarded_args(("mask", "types"), None, reversed_order) == ("mask", "types")
    assert forwarded_args(("mask", "types"), None, lambda ids, m: None) == ("mask",)
    assert forwarded_args((), None, lambda ids, m=None: None) == (None,)


def test_modules_are_read_by_their_forward() -> None:
    class Model(nn.Module):
        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return ids * mask

    for model in (Model(), nn.DataParallel(Model()), functools.partial(Model())):
        assert forwarded_args(("mask", "types"), known, model) == ("mask",)
    assert forwarded_args(("mask",), Model(), lambda ids, mask: None) == ("mask",)


def test_too_few_arguments() -> None:
    with pytest.raises(
        InvalidInputError, match=r"function needs \['a', 'b'\] after the ids, got 1 arguments"
    ):
        forwarded_args((1,), known, lambda ids, a, b: None)


@pytest.mark.parametrize(
    "look_up",
    [
        nn.Embedding(5, 2),
        lambda x: torch.eye(5)[x],
        lambda x: torch.eye(5).gather(1, x),
        lambda x: torch.eye(5).index_select(0, x[0]),
        torch.nn.functional.one_hot,
    ],
    ids=["embedding", "indexing", "gather", "index_select", "one_hot"],
)
def test_a_function_that_looks_up_what_it_got_as_numbers_is_named(look_up: Any) -> None:
    message = r"^embedding_layer: integer inputs need .* pass embedding_layer=, or use the Layer"
    with pytest.raises(InvalidInputError, match=message):
        run_forward(look_up, (torch.ones(1, 3),), ())


def test_other_errors_of_a_function_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        run_forward(nn.Linear(2, 1), (torch.ones(1, 3),), ())
    with pytest.raises(IndexError, match="out of range"):
        run_forward(nn.Embedding(5, 2), (torch.tensor([[7]]),), ())
    with pytest.raises(RuntimeError, match="Long, Int"):  # of ids the fault is another's
        run_forward(
            lambda x, y: nn.Embedding(5, 2)(y), (torch.ones(1, 3).long(),), (torch.ones(1),)
        )
