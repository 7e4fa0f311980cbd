"""Decision of ``output="auto"`` for a call that goes through in chunks, and its cost."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from captum_aml import AMLAttribution, EmbeddingMasker

# By itself the first row looks like probabilities; all rows together do not.
ALIKE = torch.tensor([[2.0, -1.0, 0.5], [-0.4, 3.0, 1.0], [1.5, 0.2, -2.0]])
MIXED = torch.cat([torch.tensor([[0.3, 0.7, 0.9]]), ALIKE[:2]])


class Counting(nn.Module):
    """The first two inputs as the scores of two classes; counts the rows of its passes."""

    def __init__(self) -> None:
        super().__init__()
        self.n_rows = 0

    def forward(self, x: Tensor) -> Tensor:
        self.n_rows += len(x)
        return x[:, :2]


def attribution(model: nn.Module) -> AMLAttribution:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        masker = EmbeddingMasker(feature_shapes=[(3,)], n_classes=2, hidden_size=6)
    masker.fitted = True
    return AMLAttribution(model, masker=masker, scores="mask")


@pytest.mark.parametrize(("inputs", "n_rows"), [(ALIKE, 3), (MIXED, 4)])
def test_one_pass_serves_a_fitted_masker(inputs: Tensor, n_rows: int) -> None:
    """A chunk that looked like something else by itself, and no other, is passed once more."""
    model = Counting()
    whole = attribution(model)
    expected = whole.attribute(inputs, n_steps=0)
    assert model.n_rows == 3
    model.n_rows = 0
    chunked = attribution(model)
    found = chunked.attribute(inputs, n_steps=0, internal_batch_size=1)
    assert model.n_rows == n_rows
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert chunked.output_ == whole.output_ == "logits"


def test_a_chunk_by_itself_is_read_as_it_looks() -> None:
    """Otherwise the test above would compare nothing."""
    alone = attribution(Counting())
    scores = alone.attribute(MIXED[:1], n_steps=0)
    assert alone.output_ == "probabilities"
    whole = attribution(Counting()).attribute(MIXED, n_steps=0)
    assert (scores[0] - whole[0]).abs().max() > 1e-4
