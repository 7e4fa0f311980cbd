"""Why one outcome and not another: against differences that are known by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_aml import AMLAttribution, LAAttribution, LayerAMLAttribution
from captum_aml.exceptions import InvalidInputError
from captum_aml.maskers import EmbeddingMasker

#: What each of four numbers says for each of three classes.
WEIGHTS = torch.tensor(
    [[2.0, 0.0, 1.0, 0.0], [0.0, 3.0, 1.0, 0.0], [-1.0, 0.0, 2.0, 0.5]], dtype=torch.float64
)
X = torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.5, -1.0, 2.0, 1.0]], dtype=torch.float64)
BASELINE = torch.tensor([[0.0, 0.5, 0.0, 0.0]], dtype=torch.float64)

#: How outputs are read, and what is done to logits before.
LINKS: dict[str, Any] = {
    "auto": lambda z: z,
    "logits": lambda z: z,
    "probabilities": lambda z: z.softmax(dim=1),
    "log_probabilities": lambda z: z.log_softmax(dim=1),
    "independent_logits": lambda z: z,
    "independent_probabilities": torch.sigmoid,
}


def linear(link: str = "logits") -> Any:
    return lambda x: LINKS[link](x @ WEIGHTS.T)


def by_hand(fact: list[int], foil: list[int]) -> Tensor:
    """What each number contributes to z_a - z_b."""
    return (WEIGHTS[fact] - WEIGHTS[foil]) * (X - BASELINE)


@pytest.mark.parametrize("output", LINKS)
def test_contributions_to_a_linear_difference_are_known(output: str) -> None:
    attribution = AMLAttribution(linear(output), output=output)
    scores, delta = attribution.attribute(
        X, BASELINE, target=[0, 2], foil=[1, 0], return_convergence_delta=True
    )
    expected = by_hand([0, 2], [1, 0])
    # Numbers that say the same for both have no effect, whatever they say for each.
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(delta, torch.zeros_like(delta), rtol=0, atol=1e-9)
    lacking = attribution.compute_convergence_delta(
        scores / 2, BASELINE, X, target=[0, 2], foil=[1, 0]
    )
    torch.testing.assert_close(lacking, -expected.sum(dim=1) / 2, rtol=0, atol=1e-9)


@pytest.mark.parametrize("method", [AMLAttribution, LAAttribution])
@pytest.mark.parametrize("options", [{}, {"tune": "mask"}, {"scores": "mask"}])
def test_each_pair_is_explained_as_it_is_alone(method: Any, options: dict[str, Any]) -> None:
    attribution = method(linear(), output="logits", **options)
    pairs: list[tuple[Any, Any]] = [(0, 1), ([1, 2], 0), (2, None), (1, torch.tensor([0, 2]))]
    together = attribution.attribute_each(
        X, [a for a, _ in pairs], foils=[b for _, b in pairs], baselines=BASELINE
    )
    for scores, (target, foil) in zip(together, pairs, strict=True):
        alone = attribution.attribute(X, BASELINE, target=target, foil=foil)
        torch.testing.assert_close(scores, alone, rtol=0, atol=1e-9)


@pytest.mark.parametrize("scores", ["mask", "contribution"])
def test_a_tuned_mask_keeps_what_speaks_for_the_difference(scores: Any) -> None:
    attribution = AMLAttribution(linear(), output="logits", tune="mask", scores=scores)
    found, delta = attribution.attribute(
        X, BASELINE, target=0, foil=1, n_steps=30, return_convergence_delta=True
    )
    expected = by_hand([0, 0], [1, 1])
    assert found.argmax(dim=1).tolist() == expected.argmax(dim=1).tolist()
    if scores == "contribution":
        torch.testing.assert_close(found.sum(dim=1), expected.sum(dim=1), rtol=0, atol=1e-9)
        torch.testing.assert_close(delta, torch.zeros_like(delta), rtol=0, atol=1e-9)


def test_the_foil_of_the_predicted_class_and_of_a_place() -> None:
    predicted = (X @ WEIGHTS.T).argmax(dim=1).tolist()
    attribution = AMLAttribution(linear(), output="logits")
    scores = attribution.attribute(X, BASELINE, foil=0)
    torch.testing.assert_close(scores, by_hand(predicted, [0, 0]), rtol=0, atol=1e-9)

    def at_places(x: Tensor) -> Tensor:
        z = x @ WEIGHTS.T
        return torch.stack([-z, z], dim=1)

    placed = AMLAttribution(at_places, output="logits")
    found = placed.attribute(X, BASELINE, target=(1, 2), foil=(1, 0))
    torch.testing.assert_close(found, by_hand([2, 2], [0, 0]), rtol=0, atol=1e-9)
    with pytest.raises(InvalidInputError, match=r"^foil: expected the target's indices but for"):
        placed.attribute(X, BASELINE, target=(1, 2), foil=(0, 0))


def test_of_a_layer() -> None:
    layer = nn.Linear(4, 3, bias=False)
    layer.weight = nn.Parameter(WEIGHTS)
    model = nn.Sequential(nn.Identity(), layer)
    attribution = LayerAMLAttribution(model, model[0])
    scores = attribution.attribute(X, BASELINE, target=[0, 2], foil=[1, 0])
    torch.testing.assert_close(scores, by_hand([0, 2], [1, 0]), rtol=0, atol=1e-9)
    (again,) = attribution.attribute_each(X, [[0, 2]], foils=[[1, 0]], baselines=BASELINE)
    assert torch.equal(again, scores)


@pytest.mark.parametrize(
    ("options", "call", "message"),
    [
        (
            {"output": "value"},
            {"target": 0, "foil": 1},
            "foil: expected None, since output='value'",
        ),
        ({}, {"target": 1, "foil": [0, 1]}, r"foil: expected another outcome .* examples \[1\]"),
        ({}, {"foil": [1, 2]}, "foil: expected another outcome"),
        ({}, {"target": 1, "foil": 3}, r"foil: expected indices below \(3,\)"),
        ({}, {"target": 1, "foil": [0]}, "foil: expected one foil for each of the 2 examples"),
        ({}, {"target": 1, "foil": 0.5}, "foil: expected an integer or a tuple"),
    ],
)
def test_what_is_no_foil_is_named(
    options: dict[str, Any], call: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=f"^{message}"):
        AMLAttribution(linear(), **options).attribute(X, BASELINE, **call)


def test_numbers_of_foils() -> None:
    with pytest.raises(InvalidInputError, match=r"^foils: expected one for each of the 2 targets"):
        AMLAttribution(linear()).attribute_each(X, [0, 1], foils=[2])


# Fitted maskers. Ids (N, L): each of six words says something of its own for each of three classes.

SAID = torch.tensor(
    [[0.0, 0.0, 0.0]] * 2
    + [[2.5, 0.0, 0.0], [0.0, 2.5, 0.0], [0.0, 0.0, 2.5]]
    + [[2.0, 2.0, 0.0], [0.0, 2.0, 2.0], [2.0, 0.0, 2.0]]
)


class Said(nn.Module):
    """Ids (N, L) to logits (N, 3): sums of what the words say; id 0 is the baseline."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(SAID)

    def forward(self, ids: Tensor) -> Tensor:
        return self.embedding(ids).sum(dim=1)

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding


def words(n: int, *, seed: int) -> Tensor:
    return torch.randint(1, 8, (n, 6), generator=torch.Generator().manual_seed(seed))


def agreement(attribution: Any) -> float:
    """The mean correlation of scores with the planted differences, over all pairs of classes."""
    ids, found = words(100, seed=1), []
    for fact in range(3):
        for foil in {0, 1, 2} - {fact}:
            scores = attribution.attribute(ids, target=fact, foil=foil)
            planted = SAID[ids, fact] - SAID[ids, foil]
            both = torch.stack([scores.float(), planted])
            centred = both - both.mean(dim=-1, keepdim=True)
            norms = centred.norm(dim=-1).prod(dim=0)
            kept = norms > 1e-6
            found.append(((centred.prod(dim=0)).sum(dim=-1)[kept] / norms[kept]).mean())
    return float(torch.stack(found).mean())


@pytest.mark.parametrize("softmax", [False, True])
def test_a_masker_that_was_not_says_the_difference_of_what_it_says_of_each(softmax: bool) -> None:
    masker = EmbeddingMasker(feature_shapes=[(6, 3)], n_classes=3)
    masker.fitted = True
    model, ids = Said(), words(4, seed=2)

    def forward(x: Tensor) -> Tensor:
        z: Tensor = model(x)
        return z.softmax(dim=1) if softmax else z

    attribution = AMLAttribution(forward, embedding_layer=model.embedding, masker=masker)
    scores, delta = attribution.attribute(ids, target=2, foil=0, return_convergence_delta=True)
    torch.testing.assert_close(delta, torch.zeros(4), rtol=0, atol=1e-5)
    if not softmax:
        fact, foil = attribution.attribute_each(ids, [2, 0])
        torch.testing.assert_close(scores, fact - foil, rtol=0, atol=1e-5)
    with pytest.raises(InvalidInputError, match=r"^foil: tune='masker' expected a masker that was"):
        AMLAttribution(
            forward, embedding_layer=model.embedding, masker=masker, tune="masker"
        ).attribute(ids, target=2, foil=0, n_steps=2)


def test_a_masker_that_was_told_both_knows_the_difference(tmp_path: Path) -> None:
    told = AMLAttribution(Said(), output="independent_logits").fit(
        list(words(480, seed=0).split(16)),
        epochs=6,
        learning_rate=0.02,
        loss="regression",
        contrasts=True,
    )
    assert agreement(told) > 0.9
    told.save_pretrained(tmp_path)
    again = AMLAttribution.from_pretrained(tmp_path, Said())
    ids = words(5, seed=2)
    scores, delta = again.attribute(ids, target=2, foil=0, return_convergence_delta=True)
    assert torch.equal(scores, told.attribute(ids, target=2, foil=0))
    turned = told.attribute(ids, target=0, foil=2)
    torch.testing.assert_close(turned, -scores, rtol=0, atol=1e-5)
    torch.testing.assert_close(delta, torch.zeros(5), rtol=0, atol=1e-5)
