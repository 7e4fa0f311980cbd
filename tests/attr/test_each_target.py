"""Several targets of each example: each as it is alone, for the forward passes of one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_aml import AMLAttribution, LAAttribution, LayerAMLAttribution
from captum_aml.exceptions import InvalidInputError, NotFittedError
from tests._helpers.models import PlantedClassifier, planted_texts


class Counting(nn.Module):
    """A random network of ids, (N, L) to (N, C), that counts its rows and calls.

    Its numbers come out as they are, or as the sigmoid or the softmax of them.
    """

    def __init__(self, n_outputs: int = 4, link: str = "") -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.embedding = nn.Embedding(30, 8)
            self.hidden = nn.Linear(8, 12)
            self.head = nn.Linear(12, n_outputs)
        self.link = link
        self.rows: list[int] = []

    def forward(self, ids: Tensor) -> Tensor:
        self.rows.append(len(ids))
        hidden = torch.tanh(2 * self.hidden(self.embedding(ids).sum(dim=1)))
        z: Tensor = self.head(hidden)
        return {"": z, "sigmoid": z.sigmoid(), "softmax": z.softmax(1)}[self.link]

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding


IDS, _ = planted_texts(5, 6, seed=0)
TARGETS: list[Any] = [2, None, [0, 1, 2, 3, 0], torch.tensor([3, 3, 1, 1, 0]), (1,)]
READ = {"logits": "", "independent_logits": "", "independent_probabilities": "sigmoid"}
READ |= {"auto": "", "probabilities": "softmax"}


def assert_each_alone(attribution: Any, targets: list[Any], **options: Any) -> None:
    together = attribution.attribute_each(IDS, targets, **options)
    assert len(together) == len(targets)
    for scores, target in zip(together, targets, strict=True):
        alone = attribution.attribute(IDS, target=target, **options)
        torch.testing.assert_close(scores, alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("output", READ)
def test_each_target_is_explained_as_it_is_alone(output: str) -> None:
    attribution = AMLAttribution(Counting(link=READ[output]), output=output)
    assert_each_alone(attribution, TARGETS)
    assert_each_alone(attribution, TARGETS[:2], internal_batch_size=4, n_steps=4)


@pytest.mark.parametrize("output", ["auto", "independent_logits", "value"])
def test_targets_in_an_output_of_several_places(output: str) -> None:
    model = Counting(6)

    def forward(ids: Tensor) -> Tensor:
        return model(ids).reshape(-1, 2, 3)

    attribution = AMLAttribution(forward, output=output, embedding_layer=model.embedding)
    assert_each_alone(attribution, [(1, 2), (0, 0), [(0, 1), (1, 1), (0, 2), (1, 0), (0, 0)]])


@pytest.mark.parametrize("tune", [None, "mask"])
def test_values_are_each_their_own_column(tune: Any) -> None:
    attribution = AMLAttribution(Counting(), output="value", tune=tune)
    assert_each_alone(attribution, [t for t in TARGETS if t is not None], n_steps=4)


@pytest.mark.parametrize("method", [AMLAttribution, LAAttribution])
@pytest.mark.parametrize("scores", ["mask", "contribution"])
def test_tuned_masks_and_their_terms(method: Any, scores: Any) -> None:
    attribution = method(Counting(), output="independent_logits", tune="mask", scores=scores)
    assert_each_alone(attribution, [1, 3], n_steps=3)
    terms = attribution.last_terms_
    attribution.attribute_each(IDS, [1, 3], n_steps=3)
    torch.testing.assert_close(attribution.last_terms_.total, terms.total)


@pytest.mark.parametrize("options", [{}, {"n_steps": 3}], ids=["proposed", "tuned"])
def test_a_fitted_masker(options: dict[str, int]) -> None:
    attribution = AMLAttribution(Counting(), output="independent_logits")
    attribution.fit([IDS], epochs=2, learning_rate=0.01)
    assert_each_alone(attribution, TARGETS, **options)


def test_layers_tuples_and_groups() -> None:
    model = Counting()
    layer = LayerAMLAttribution(model, model.hidden)
    for at_input in (False, True):
        assert_each_alone(layer, [0, 3], attribute_to_layer_input=at_input)
    several = LayerAMLAttribution(model, [model.hidden])
    (first, _) = several.attribute_each(IDS, [0, 3])
    assert isinstance(first, list)
    grouped = AMLAttribution(model)
    assert_each_alone(grouped, [0, 3], feature_mask=torch.arange(6).expand(5, -1) // 2)
    tensors = grouped.attribute_each((IDS,), [0, 3])
    assert all(isinstance(each, tuple) for each in tensors)


def test_a_tensor_holds_a_target_in_each_column() -> None:
    attribution = AMLAttribution(Counting())
    targets = torch.tensor([[0, 3]] * 5)
    for scores, alone in zip(
        attribution.attribute_each(IDS, targets),
        attribution.attribute_each(IDS, [0, 3]),
        strict=True,
    ):
        assert torch.equal(scores, alone)


@pytest.mark.parametrize("output", ["logits", "independent_logits", "value"])
@pytest.mark.parametrize("rows", [None, 7])
def test_several_targets_cost_the_forward_rows_of_one(output: str, rows: int | None) -> None:
    calls = []
    for targets in ([1], [1, 0, 2, 3]):
        model = Counting()
        AMLAttribution(model, output=output).attribute_each(IDS, targets, internal_batch_size=rows)
        calls.append(model.rows)
        assert rows is None or max(calls[-1]) <= rows
    assert calls[0] == calls[1]


def test_a_fitted_masker_takes_one_pass_of_the_model() -> None:
    model = Counting()
    attribution = AMLAttribution(model, output="independent_logits", scores="mask")
    attribution.fit([IDS], epochs=1)
    model.rows.clear()
    attribution.attribute_each(IDS, [0, 1, 2, 3])
    assert model.rows == [5]


def test_contributions_are_complete_and_planted_evidence_is_found_for_each_class() -> None:
    ids, places = planted_texts(20, 8, seed=1)
    model = PlantedClassifier()
    decided = torch.tensor([0, 1])[(ids.gather(1, places[:, None])[:, 0] == 2).long()] + 1
    for_class, against = AMLAttribution(model).attribute_each(ids, [decided, 3 - decided])
    assert isinstance(for_class, Tensor)
    assert isinstance(against, Tensor)
    assert torch.equal(for_class.argmax(dim=1), places)
    difference = model(ids) - model(ids * 0)
    for scores, target in ((for_class, decided), (against, 3 - decided)):
        expected = difference.gather(1, target[:, None])[:, 0]
        torch.testing.assert_close(scores.sum(dim=1), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("targets", [[], (0, 1), torch.tensor([0, 1]), torch.zeros(5, 0).long()])
def test_what_is_no_list_of_targets_is_named(targets: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"^targets: expected a list of one target"):
        AMLAttribution(Counting()).attribute_each(IDS, targets)


def test_a_target_that_does_not_fit_is_named() -> None:
    with pytest.raises(InvalidInputError, match=r"^target: expected indices below \(4,\)"):
        AMLAttribution(Counting()).attribute_each(IDS, [0, 4])
    with pytest.raises(NotFittedError):
        AMLAttribution(Counting()).attribute_each(IDS, [0, 1], n_steps=0)
