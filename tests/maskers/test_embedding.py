"""The small masker over any float input."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from captum_aml.exceptions import InvalidInputError
from captum_aml.maskers import EmbeddingMasker, MaskerInputs

C = 3


def shown(
    *features: Tensor, maskable: tuple[Tensor, ...] | None = None, q: Tensor | None = None
) -> MaskerInputs:
    n = features[0].shape[0]
    if maskable is None:
        maskable = tuple(
            torch.ones(f.shape[: 2 if f.dim() == 3 else f.dim()], dtype=torch.bool)
            for f in features
        )
    return MaskerInputs(
        features=features,
        inputs=features,
        probabilities=torch.full((n, C), 1 / C) if q is None else q,
        maskable=maskable,
    )


def masker_for(*shapes: tuple[int, ...], hidden_size: int = 8) -> EmbeddingMasker:
    return EmbeddingMasker(feature_shapes=shapes, n_classes=C, hidden_size=hidden_size).eval()


@torch.no_grad()
def test_the_logits_of_a_sequence_by_loops() -> None:
    """Projection, prediction, two residual convolutions and the read-out, position by position."""
    masker = masker_for((4, 2), hidden_size=3).double()
    head = masker.heads[0]
    g = torch.Generator().manual_seed(3)
    x = torch.randn(1, 4, 2, generator=g, dtype=torch.float64)
    maskable = torch.tensor([[True, False, True, True]])
    q = torch.tensor([[0.2, 0.3, 0.5]], dtype=torch.float64)
    (logits,) = masker(shown(x, maskable=(maskable,), q=q))

    prediction = q[0] @ head.prediction.classes + head.prediction.shared
    hidden = []
    for j in range(4):
        h = head.project.weight @ x[0, j] + head.project.bias
        h = (h - h.mean()) / (h.var(unbiased=False) + 1e-5).sqrt()
        h = torch.tanh(h * head.normalize.weight + head.normalize.bias + prediction)
        hidden.append(h if maskable[0, j] else torch.zeros(3, dtype=torch.float64))
    for mixer in head.mixers:
        mixed = []
        for j in range(4):
            h = mixer.bias.clone()
            for k in range(5):
                if 0 <= j + k - 2 < 4:
                    h = h + mixer.weight[:, :, k] @ hidden[j + k - 2]
            gelu = torch.stack([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in h])
            mixed.append(hidden[j] + gelu if maskable[0, j] else torch.zeros_like(h))
        hidden = mixed
    for j in range(4):
        expected = (head.readout.weight[0] @ hidden[j] + head.readout.bias[0]).item()
        assert logits[0, j].item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_padding_does_not_change_a_proposal() -> None:
    masker = masker_for((5, 4))
    x = torch.randn(2, 5, 4)
    (alone,) = masker(shown(x))
    junk = torch.randn(2, 3, 4) * 100
    for left, right in ((0, 3), (3, 0), (1, 2)):
        padded = torch.cat([junk[:, :left], x, junk[:, :right]], dim=1)
        maskable = torch.zeros(2, 8, dtype=torch.bool)
        maskable[:, left : left + 5] = True
        (logits,) = masker(shown(padded, maskable=(maskable,)))
        # The convolution may add the same terms in another order.
        torch.testing.assert_close(logits[:, left : left + 5], alone, rtol=0, atol=1e-6)


def test_a_proposal_does_not_depend_on_the_batch() -> None:
    masker = masker_for((5, 4), (3,))
    x, y = torch.randn(4, 5, 4), torch.randn(4, 3)
    q = torch.rand(4, C).softmax(1)
    together = masker(shown(x, y, q=q))
    for i in range(4):
        alone = masker(shown(x[i : i + 1], y[i : i + 1], q=q[i : i + 1]))
        for a, b in zip(alone, together, strict=True):
            # Matrix products over other batch sizes round differently.
            torch.testing.assert_close(a[0], b[i], rtol=0, atol=1e-6)


def test_the_prediction_is_heard() -> None:
    masker = masker_for((5, 4), (3,))
    features = (torch.randn(2, 5, 4), torch.randn(2, 3))
    one, other = (F.one_hot(torch.full((2,), c), C).float() for c in (0, 1))
    for a, b in zip(
        masker(shown(*features, q=one)), masker(shown(*features, q=other)), strict=True
    ):
        assert (a - b).abs().min() > 0


def test_every_weight_learns() -> None:
    masker = masker_for((5, 4), (3,))
    q = torch.rand(2, C).softmax(1)
    logits = masker(shown(torch.randn(2, 5, 4), torch.randn(2, 3), q=q))
    sum((t * torch.rand_like(t)).sum() for t in logits).backward()
    silent = [name for name, p in masker.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_elements_are_told_apart_by_their_place() -> None:
    """In a table an element's place is its meaning: equal values get different logits."""
    (logits,) = masker_for((3,))(shown(torch.ones(1, 3)))
    assert len(set(logits[0].tolist())) == 3


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4)])
def test_there_is_a_logit_for_every_element_of_any_other_shape(shape: tuple[int, ...]) -> None:
    masker = masker_for(shape)
    x = torch.randn(2, *shape)
    (logits,) = masker(shown(x))
    assert logits.shape == x.shape
    (swapped,) = masker(shown(x.flip(0)))
    torch.testing.assert_close(swapped, logits.flip(0), rtol=0, atol=1e-6)


def test_double_precision_and_half_are_taken() -> None:
    masker = masker_for((5, 4))
    x = torch.randn(2, 5, 4)
    (expected,) = masker(shown(x))
    for dtype, tolerance in ((torch.float64, 1e-6), (torch.float16, 2e-3)):
        # Half precision keeps three digits of the features.
        q = torch.full((2, C), 1 / C, dtype=torch.float64)
        (logits,) = masker(shown(x.to(dtype), q=q))
        torch.testing.assert_close(logits, expected, rtol=0, atol=tolerance)


def test_the_configuration_builds_the_same_network() -> None:
    masker = masker_for((5, 4), (3,))
    again = EmbeddingMasker(**json.loads(json.dumps(masker.config))).eval()
    again.load_state_dict(masker.state_dict())
    features = (torch.randn(2, 5, 4), torch.randn(2, 3))
    for a, b in zip(again(shown(*features)), masker(shown(*features)), strict=True):
        assert torch.equal(a, b)
    assert again.config == masker.config


def test_a_sequence_may_have_any_length() -> None:
    masker = masker_for((5, 4))
    x = torch.randn(1, 9, 4)
    (logits,) = masker(shown(x))
    # Two convolutions of width 5: what is 9 - 1 positions away cannot be seen.
    x[0, 8] += 1
    (moved,) = masker(shown(x))
    changed = (logits != moved)[0].tolist()
    assert changed == [False] * 4 + [True] * 5


@pytest.mark.parametrize(
    "features",
    [
        (torch.zeros(2, 5, 6),),
        (torch.zeros(2, 5),),
        (torch.zeros(2, 5, 4), torch.zeros(2, 3)),
        (torch.zeros(2, 5, 4, 1),),
    ],
)
def test_features_that_it_was_not_made_for_are_named(features: tuple[Tensor, ...]) -> None:
    with pytest.raises(InvalidInputError, match=r"masker: .* shapes \[\[5, 4\]\].*got ") as caught:
        masker_for((5, 4))(shown(*features))
    assert str([list(f.shape[1:]) for f in features]) in str(caught.value)


@pytest.mark.parametrize("shape", [(5, 4), (3,)])
def test_a_distribution_over_other_classes_is_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInputError, match=r"masker: .* 3 classes, .* 2"):
        masker_for(shape)(shown(torch.zeros(2, *shape), q=torch.full((2, 2), 0.5)))
