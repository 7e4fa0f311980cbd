"""Labels that are drawn for a fit: by hand, by counting, and by what a masker learns from them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from captum_aml import AMLAttribution
from captum_aml.exceptions import InvalidInputError
from captum_aml.masking.call import parse_call
from captum_aml.masking.problem import MaskingProblem
from captum_aml.masking.sites import InputSite
from captum_aml.perturbation import resolve_perturbation
from captum_aml.training.targets import with_drawn_targets

#: The tokens that decide for the labels of ``TwoLabels``.
DECIDING = (1, 2)


class TwoLabels(nn.Module):
    """Ids (N, L) to logits of two labels, each decided by a token of its own; others are neutral.

    Id 0 is the baseline.
    """

    def __init__(self) -> None:
        super().__init__()
        table = torch.zeros(30, 8)
        table[:, 2:] = torch.randn(30, 6, generator=torch.Generator().manual_seed(1))
        table[DECIDING[0], 0] = table[DECIDING[1], 1] = 6.0
        table[0] = 0.0
        self.embedding = nn.Embedding.from_pretrained(table)

    def forward(self, ids: Tensor) -> Tensor:
        return self.embedding(ids)[..., :2].sum(dim=1) - 3.0

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding


def texts(n: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Ids (N, 8) with both deciding tokens, and their places (N, 2)."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 30, (n, 8), generator=generator)
    places = torch.rand(n, 8, generator=generator).argsort(dim=1)[:, :2]
    return ids.scatter(1, places, torch.tensor(DECIDING).expand(n, 2)), places


def problem(model: nn.Module, ids: Tensor, output: str, target: int | None) -> MaskingProblem:
    call = parse_call(ids, target=target)
    return MaskingProblem.build(call, InputSite(model, ()), resolve_perturbation("blend"), output)


def test_a_label_is_drawn_half_by_its_probability_and_half_evenly() -> None:
    neutral = torch.arange(3, 30)
    ids = torch.cartesian_prod(torch.tensor([DECIDING[0]]), neutral, neutral)  # logits 3 and -3
    given = problem(TwoLabels(), ids, "independent_logits", None)
    p = torch.tensor([3.0, -3.0]).sigmoid()
    share = float(p[0] / p.sum()) / 2 + 0.25
    labels = []
    for seed in range(2):
        label = with_drawn_targets(given, seed=seed).readout.label
        assert label is not None
        # Four standard deviations of a share of that many.
        tolerance = 4 * (share * (1 - share) / len(ids)) ** 0.5
        assert float((label == 0).double().mean()) == pytest.approx(share, abs=tolerance)
        labels.append(label)
    assert not torch.equal(*labels)


def test_an_example_has_its_label_in_every_batch() -> None:
    ids, _ = texts(20, seed=0)
    whole = with_drawn_targets(problem(TwoLabels(), ids, "independent_logits", None), seed=3)
    part = with_drawn_targets(problem(TwoLabels(), ids[5:9], "independent_logits", None), seed=3)
    assert whole.readout.label is not None
    assert part.readout.label is not None
    assert torch.equal(part.readout.label, whole.readout.label[5:9])
    assert set(whole.readout.label.tolist()) == {0, 1}


@pytest.mark.parametrize(("output", "target"), [("logits", None), ("independent_logits", 1)])
def test_classes_and_given_targets_stay(output: str, target: int | None) -> None:
    ids, _ = texts(3, seed=0)
    given = problem(TwoLabels(), ids, output, target)
    assert with_drawn_targets(given, seed=0) is given


def test_half_of_the_batches_are_contrasts_of_two_drawn_outcomes() -> None:
    neutral = torch.arange(3, 30)
    ids = torch.cartesian_prod(torch.tensor([DECIDING[0]]), neutral, neutral)
    n_contrasts = 0
    batches = ids.split(4)
    for batch in batches:
        given = problem(TwoLabels(), batch, "logits", None)
        drawn = with_drawn_targets(given, seed=0, contrasts=True)
        again = with_drawn_targets(given, seed=0, contrasts=True)
        if drawn is given:  # explained for the predicted classes
            assert again is given
            continue
        n_contrasts += 1
        target, foil = drawn.readout.target, drawn.readout.foil
        assert target is not None
        assert foil is not None
        assert again.readout.foil is not None
        assert torch.equal(foil, 1 - target)
        assert torch.equal(foil, again.readout.foil)
        told = torch.where(target == 0, torch.tensor([[1, -1]]), torch.tensor([[-1, 1]]))
        assert torch.equal(drawn.readout.condition, told.to(drawn.readout.condition))
    # Four standard deviations of a half of that many.
    assert n_contrasts == pytest.approx(len(batches) / 2, abs=2 * len(batches) ** 0.5)


def test_one_value_has_no_contrasts() -> None:
    x, layer = torch.rand(2, 3), nn.Linear(3, 1)
    given = problem(layer, x, "value", None)
    with pytest.raises(InvalidInputError, match=r"^contrasts: expected False, since output='val"):
        with_drawn_targets(given, seed=0, contrasts=True)
    chosen = problem(layer, x, "value", 0)
    assert with_drawn_targets(chosen, seed=0, contrasts=True) is chosen


@pytest.mark.parametrize("loss", ["objective", "regression"])
def test_one_masker_finds_the_deciding_token_of_each_label(loss: str) -> None:
    ids, _ = texts(192, seed=0)
    attribution = AMLAttribution(TwoLabels(), output="independent_logits", scores="mask")
    attribution.fit(list(ids.split(32)), epochs=9, learning_rate=0.02, loss=loss)
    held_out, places = texts(100, seed=1)
    for label in range(2):
        scores = attribution.attribute(held_out, target=label)
        assert isinstance(scores, Tensor)
        hits = scores.argmax(dim=1) == places[:, label]
        assert float(hits.double().mean()) > 0.95
