"""Sites where a mask enters: the inputs, the embeddings of ids, or any layer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from captum_aml.exceptions import InvalidInputError, LayerNotReachedError
from captum_aml.masking.call import parse_call
from captum_aml.masking.sites import (
    InputSite,
    LayerSite,
    token_dims,
)
from tests._helpers.models import PlantedClassifier, tiny_encoder

IDS = torch.tensor([[3, 1, 4], [5, 9, 2]])


def embedding(rows: int = 10, *, scale: float = 1.0) -> nn.Embedding:
    """Token i has the vector (i, -i), times a factor."""
    values = torch.arange(float(rows)) * scale
    return nn.Embedding.from_pretrained(torch.stack([values, -values], dim=1))


class SumOfTokens(nn.Module):
    """Logits (0, sum of the first channel of every token)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, ids: Tensor) -> Tensor:
        total = self.layer(ids)[..., 0].flatten(1).sum(dim=1)
        return torch.stack([torch.zeros_like(total), total], dim=1)


class TwoTexts(nn.Module):
    """One embedding for two texts and a number: ``sum(a) - 10 sum(b) + 100 c``."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = embedding()

    def forward(self, a: Tensor, c: Tensor, b: Tensor) -> Tensor:
        return (
            self.layer(a)[..., 0].sum(dim=1) - 10 * self.layer(b)[..., 0].sum(dim=1) + 100 * c[:, 0]
        )


class ScaledEmbedding(nn.Embedding):
    """Embeds and multiplies by ten, as some models do by the root of their width."""

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids) * 10


# Inputs of floats


def test_floats_are_their_own_features() -> None:
    x, b = torch.rand(2, 3), torch.rand(2, 3)
    site = InputSite(lambda t: t.sum(dim=1), ())
    call = parse_call(x, b)
    capture = site.capture(call)
    assert torch.equal(capture.features[0], x)
    assert torch.equal(capture.output, x.sum(dim=1))
    assert torch.equal(site.baselines(call, capture)[0], b)
    assert site.embedding_layer() is None
    assert torch.equal(site.run((x,), (), (b,), capture), b.sum(dim=1))


def test_further_arguments_are_passed_on() -> None:
    site = InputSite(lambda t, factor, word: t.sum(dim=1) * factor + len(word), ())
    call = parse_call(torch.ones(2, 3), additional_forward_args=(torch.tensor([2.0, 5.0]), "four"))
    capture = site.capture(call)
    assert capture.output.tolist() == [10.0, 19.0]
    features = (torch.zeros(2, 3),)
    assert site.run(call.inputs, call.additional_forward_args, features, capture).tolist() == [4, 4]


# Inputs of ids


def test_ids_are_masked_at_their_embeddings() -> None:
    model = SumOfTokens(embedding())
    site = InputSite(model, (model.layer,))
    call = parse_call(IDS, torch.tensor([[3, 0, 0]]))
    capture = site.capture(call)
    assert capture.features[0].tolist() == [
        [[3, -3], [1, -1], [4, -4]],
        [[5, -5], [9, -9], [2, -2]],
    ]
    assert capture.output[:, 1].tolist() == [8, 16]
    baselines = site.baselines(call, capture)
    assert baselines[0][..., 0].tolist() == [[3, 0, 0], [3, 0, 0]]
    assert site.maskable(call, capture.features, baselines)[0].tolist() == [
        [False, True, True],
        [True, True, True],
    ]
    assert site.token_dims(call, capture.features) == (2,)
    assert site.spreads(call, capture.features) == (False,)
    half = tuple((f + b) / 2 for f, b in zip(capture.features, baselines, strict=True))
    assert site.run(call.inputs, (), half, capture)[:, 1].tolist() == [5.5, 9.5]
    # Without the replacement the model is as it was.
    assert model(IDS)[:, 1].tolist() == [8, 16]


def test_baselines_come_from_what_the_layer_really_gives() -> None:
    model = SumOfTokens(ScaledEmbedding.from_pretrained(embedding().weight))
    site = InputSite(model, (model.layer,))
    call = parse_call(IDS, 2)
    capture = site.capture(call)
    assert site.baselines(call, capture)[0][0, :, 0].tolist() == [20, 20, 20]


def test_the_embedding_layer_of_a_hugging_face_model_is_found() -> None:
    model = PlantedClassifier()
    site = InputSite(model, ())
    assert site.embedding_layer() is model.embedding
    capture = site.capture(parse_call(IDS))
    assert torch.equal(capture.features[0], model.embedding(IDS).detach())


def test_ids_of_three_dimensions_are_tokens_too() -> None:
    model = SumOfTokens(embedding())
    site = InputSite(model, (model.layer,))
    call = parse_call(torch.ones(2, 3, 4, dtype=torch.long))
    capture = site.capture(call)
    assert capture.features[0].shape == (2, 3, 4, 2)
    assert site.token_dims(call, capture.features) == (3,)


def test_each_input_finds_its_own_call_of_a_shared_embedding() -> None:
    model = TwoTexts()
    site = InputSite(model, (model.layer,))
    c = torch.tensor([[1.0], [2.0]])
    a, b = IDS, IDS.flip(0)
    call = parse_call((a, c, b), (0, 0.0, 1))
    capture = site.capture(call)
    assert torch.equal(capture.features[0][..., 0], a.float())
    assert torch.equal(capture.features[1], c)
    assert torch.equal(capture.features[2][..., 0], b.float())
    baselines = site.baselines(call, capture)
    assert baselines[0].unique().tolist() == [0]
    assert baselines[2][..., 0].unique().tolist() == [1]
    assert site.spreads(call, capture.features) == (False, True, False)
    # Replaced by (1, c, 2): 3 * 1 - 10 * 3 * 2 + 100 c.
    ones = torch.ones_like(capture.features[0])
    result = site.run(call.inputs, (), (ones, c, 2 * ones), capture)
    assert result.tolist() == [43, 143]


def test_two_inputs_with_the_same_ids_are_no_error() -> None:
    # Which pair of texts comes must not decide whether they can be explained.
    model = TwoTexts()
    site = InputSite(model, (model.layer,))
    c = torch.tensor([[1.0], [2.0]])
    call = parse_call((IDS, c, IDS.clone()), (0, 0.0, 1))
    capture = site.capture(call)
    # Each has its own baselines, although their ids are the same.
    first, _, second = site.baselines(call, capture)
    assert first.unique().tolist() == [0]
    assert second[..., 0].unique().tolist() == [1]
    ones = torch.ones_like(capture.features[0])
    assert site.run(call.inputs, (), (ones, c, 2 * ones), capture).tolist() == [43, 143]


def test_an_embedding_layer_for_each_input_of_ids() -> None:
    first, second = embedding(), embedding(scale=2.0)

    def forward(a: Tensor, b: Tensor) -> Tensor:
        return first(a)[..., 0].sum(dim=1) + second(b)[..., 0].sum(dim=1)

    site = InputSite(forward, (first, second))
    capture = site.capture(parse_call((IDS, IDS)))
    assert torch.equal(capture.features[1], 2 * capture.features[0])


def test_ids_that_are_never_embedded_are_an_error() -> None:
    """The layer runs once, for the first input; the second must not be taken for it."""
    layer = embedding()
    site = InputSite(lambda a, b: layer(a)[..., 0].sum(dim=1) + b.sum(dim=1), (layer,))
    with pytest.raises(LayerNotReachedError):
        site.capture(parse_call((IDS, IDS.flip(0))))


@pytest.mark.parametrize(
    ("inputs", "baselines", "name", "fragments"),
    [
        (torch.tensor([[1, 10]]), None, "inputs", ("ids from 0 to 9", "1 to 10")),
        (torch.tensor([[-1, 3]]), None, "inputs", ("ids from 0 to 9", "-1 to 3")),
        (torch.tensor([[1, 2]]), 11, "baselines", ("ids from 0 to 9", "11 to 11")),
    ],
)
def test_ids_that_cannot_be_embedded_are_named(
    inputs: Tensor, baselines: int | None, name: str, fragments: tuple[str, ...]
) -> None:
    model = SumOfTokens(embedding())
    with pytest.raises(InvalidInputError, match=f"^{name}: ") as caught:
        InputSite(model, (model.layer,)).capture(parse_call(inputs, baselines))
    assert all(f in str(caught.value) for f in fragments)


def test_ids_without_an_embedding_layer_are_an_error_that_says_what_to_do() -> None:
    with pytest.raises(InvalidInputError, match=r"embedding_layer: .*pass embedding_layer="):
        InputSite(lambda x: x.float().sum(dim=1), ()).capture(parse_call(IDS))


def test_the_number_of_embedding_layers_is_checked() -> None:
    layer = embedding()
    with pytest.raises(InvalidInputError, match=r"embedding_layer: .*each of the 1 .*got 2"):
        InputSite(SumOfTokens(layer), (layer, embedding())).capture(parse_call(IDS))


def test_ids_that_are_rearranged_before_embedding_are_an_error() -> None:
    layer = embedding()
    site = InputSite(lambda ids: layer(ids.T)[..., 0].sum(dim=0), (layer,))
    with pytest.raises(LayerNotReachedError) as caught:
        site.capture(parse_call(IDS))
    message = str(caught.value)
    assert message.startswith("embedding_layer: ")
    assert "(2, 3, 'D')" in message
    assert "(3, 2, 2)" in message


# Layers


class Block(nn.Module):
    """Embeddings, then ten times their sum over channels: (N, L, 2) and (N, L)."""

    def __init__(self) -> None:
        super().__init__()
        self.words = embedding()
        self.small = nn.Embedding(2, 2)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        words = self.words(ids)
        return words, words[..., 0] * 10


class BlockModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = Block()
        self.scale = nn.Identity()

    def forward(self, ids: Tensor) -> Tensor:
        words, tens = self.block(ids)
        return self.scale(words)[..., 0].sum(dim=1) + tens.sum(dim=1)


def test_a_layer_with_several_tensors_is_read_and_replaced() -> None:
    model = BlockModel()
    site = LayerSite(model, (model.block,))
    call = parse_call(IDS, torch.tensor([[3, 0, 0]]))
    capture = site.capture(call)
    assert capture.sizes == (2,)
    assert torch.equal(capture.features[1], IDS * 10.0)
    baselines = site.baselines(call, capture)
    assert baselines[1].tolist() == [[30, 0, 0], [30, 0, 0]]
    words, tens = site.maskable(call, capture.features, baselines)
    assert words[..., 0].tolist() == [[False, True, True], [True, True, True]]
    assert tens.tolist() == [[False, True, True], [True, True, True]]
    assert site.token_dims(call, capture.features) == (2, 2)
    assert site.spreads(call, capture.features) == (True, True)
    ones = (torch.ones(2, 3, 2), torch.full((2, 3), 5.0))
    assert site.run(call.inputs, (), ones, capture).tolist() == [18, 18]
    assert model(IDS).tolist() == [88, 176]


def test_a_layers_input_is_another_place_than_its_output() -> None:
    model = tiny_encoder("bert")
    layer = model.bert.encoder.layer[0]
    call = parse_call(IDS)
    at_output = LayerSite(model, (layer,)).capture(call).features[0]
    at_input = LayerSite(model, (layer,), at_input=True).capture(call).features[0]
    hidden = model.bert(IDS, output_hidden_states=True).hidden_states
    # Another pass over the same rows repeats the same operations: equal bit for bit.
    assert torch.equal(at_input, hidden[0].detach())
    assert torch.equal(at_output, hidden[1].detach())


def test_several_layers_are_masked_together() -> None:
    model = BlockModel()
    site = LayerSite(model, (model.scale, model.block.words))
    call = parse_call(IDS)
    capture = site.capture(call)
    assert capture.sizes == (1, 1)
    ones = torch.ones(2, 3, 2)
    # The words' layer feeds the tens only, since the other layer is replaced after it.
    assert site.run(call.inputs, (), (ones, 2 * ones), capture).tolist() == [63, 63]


def test_ids_that_a_deep_embedding_refuses_are_named() -> None:
    model = BlockModel()
    site = LayerSite(model, (model.scale,))
    with pytest.raises(InvalidInputError, match=r"inputs: .*ids from 1 to 99"):
        site.capture(parse_call(torch.tensor([[1, 99]])))
    call = parse_call(IDS, 77)
    capture = site.capture(call)
    with pytest.raises(InvalidInputError, match=r"baselines: .*ids from 77 to 77"):
        site.baselines(call, capture)


def test_the_users_own_index_error_stays_what_it_is() -> None:
    layer = nn.Identity()

    def forward(x: Tensor) -> Tensor:
        layer(x)
        return [x][1]

    with pytest.raises(IndexError, match="list index out of range"):
        LayerSite(forward, (layer,)).capture(parse_call(torch.rand(2, 3)))


def test_a_layer_without_examples_along_its_first_dimension_is_an_error() -> None:
    layer = nn.Identity()

    def forward(x: Tensor) -> Tensor:
        return layer(x.T).sum(dim=0)

    with pytest.raises(LayerNotReachedError, match=r"layer: .* 2 of them, got shape \(3, 2\)"):
        LayerSite(forward, (layer,)).capture(parse_call(torch.rand(2, 3)))


def test_the_words_of_a_layer_are_its_largest_embedding() -> None:
    model = BlockModel()
    assert LayerSite(model, (model.block,)).embedding_layer() is model.block.words


@pytest.mark.parametrize(
    ("shape", "expected"), [((2,), 1), ((2, 3), 2), ((2, 3, 4), 2), ((2, 3, 4, 5), 4)]
)
def test_tokens_are_positions_of_sequences_and_elements_of_anything_else(
    shape: tuple[int, ...], expected: int
) -> None:
    assert token_dims(torch.zeros(shape)) == expected
