"""DeepLIFT against the Rescale rule by hand."""

from __future__ import annotations

import math

import pytest
import torch
from captum.attr import LayerDeepLift
from torch import Tensor, nn
from transformers.activations import ACT2FN

from captum_aml import methods
from captum_aml.exceptions import InvalidInputError
from tests._helpers.methods import IDS, LOGISTIC, MASK, REFERENCE, WithModel, run, token_weights
from tests._helpers.text_models import bert_classifier


class OneLayer(nn.Module):
    """Two classes from one hidden layer over the sum of the embeddings."""

    def __init__(self, activation: nn.Module, *, times: int = 1) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            self.embedding = nn.Embedding(7, 3)
            self.hidden = nn.Linear(3, 5)
            self.read = nn.Linear(5, 2)
        self.activation = activation
        self.unused = nn.Tanh()
        self.times = times

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        values = self.hidden((self.embedding(ids) * mask[..., None]).sum(dim=1))
        self.unused(values.detach().requires_grad_())
        for _ in range(self.times):
            values = self.activation(values)
        logits: Tensor = self.read(values)
        return logits


def subject(activation: nn.Module, **options: int) -> tuple[OneLayer, nn.Module]:
    model = OneLayer(activation, **options)
    return model, model.embedding


def test_a_logistic_probability_is_split_by_the_differences() -> None:
    # The margin is linear, so that a token's share is its part of the margin's difference.
    scores = run("deep-lift", LOGISTIC)
    for row in range(2):
        weights = token_weights(row)
        gap = math.fsum(w - 0.05 for w in weights)
        difference = LOGISTIC.probability([-5.0, *weights]) - LOGISTIC.probability(
            [-5.0] + [0.05] * len(weights)
        )
        expected = [(w - 0.05) / gap * difference for w in weights]
        found = scores[row][IDS[row] != REFERENCE[row]].tolist()
        assert found == pytest.approx(expected, abs=1e-5)


ACTIVATIONS = [nn.ReLU(), nn.Tanh(), nn.GELU(), nn.SiLU(), ACT2FN["gelu"], ACT2FN["gelu_new"]]


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: type(a).__name__)
def test_the_rescale_rule_by_hand(activation: nn.Module) -> None:
    model, layer = subject(activation)
    scores = run("deep-lift", (model, layer))
    with torch.no_grad():
        probabilities = [model(x, MASK).softmax(dim=-1)[:, 1] for x in (IDS, REFERENCE)]
        for row in range(2):
            kept = MASK[row][:, None]
            embeddings = [layer(x[row]) * kept for x in (IDS, REFERENCE)]
            before = [model.hidden(e.sum(dim=0)) for e in embeddings]
            after = [activation(b) for b in before]
            margins = [model.read(a)[1] - model.read(a)[0] for a in after]
            slope = (probabilities[0][row] - probabilities[1][row]) / (margins[0] - margins[1])
            for place in range(IDS.shape[1]):
                difference = embeddings[0][place] - embeddings[1][place]
                expected = 0.0
                for unit in range(5):
                    moved = float(model.hidden.weight[unit] @ difference)
                    rescale = (after[0][unit] - after[1][unit]) / (
                        before[0][unit] - before[1][unit]
                    )
                    read = model.read.weight[1, unit] - model.read.weight[0, unit]
                    expected += float(slope * read * rescale) * moved
                assert scores[row, place].item() == pytest.approx(expected, abs=1e-5)
    # With a rule for everything the scores sum to the difference in probability.
    assert torch.allclose(scores.sum(dim=1), probabilities[0] - probabilities[1], atol=1e-5)


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Tanh()], ids=["relu", "tanh"])
def test_it_is_captums_where_captum_has_the_rule(activation: nn.Module) -> None:
    model, layer = subject(activation)

    class Probability(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.sigmoid = nn.Sigmoid()

        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            logits = self.model(ids, mask)
            return self.sigmoid(logits[:, 1:] - logits[:, :1])

    scores = run("deep-lift", (model, layer))
    for row in range(2):
        cut = slice(row, row + 1)
        expected = LayerDeepLift(Probability(), layer).attribute(
            IDS[cut], baselines=REFERENCE[cut], target=0, additional_forward_args=(MASK[cut],)
        )
        assert torch.allclose(scores[cut], expected.sum(dim=-1), atol=1e-5)


def test_without_rules_it_is_gradient_times_difference() -> None:
    # A function that does not show its modules, here with a transformer inside.
    model = bert_classifier(40)
    layer = model.get_input_embeddings()
    scores = run("deep-lift", (lambda ids, mask: WithModel(model)(ids, mask), layer))
    for row in range(2):
        kept = MASK[row : row + 1]
        text, reference = (layer(x[row : row + 1]).detach() for x in (IDS, REFERENCE))
        text.requires_grad_()
        margins = []
        for embeddings in (text, reference):
            logits = model(inputs_embeds=embeddings, attention_mask=kept).logits
            margins.append(logits[0, 1] - logits[0, 0])
        (gradient,) = torch.autograd.grad(margins[0], text)
        high, low = (m.detach() for m in margins)
        slope = (high.sigmoid() - low.sigmoid()) / (high - low)
        expected = (slope * gradient * (text - reference)).sum(dim=-1)[0].detach()
        expected = expected * (IDS[row] != REFERENCE[row])
        assert torch.allclose(scores[row], expected, atol=1e-5)


def test_the_rules_reach_into_a_transformer() -> None:
    model = bert_classifier(40)
    layer = model.get_input_embeddings()
    seen = run("deep-lift", (WithModel(model), layer))
    hidden = run("deep-lift", (lambda ids, mask: WithModel(model)(ids, mask), layer))
    assert not torch.allclose(seen, hidden, atol=1e-3)


def test_three_classes() -> None:
    # The margin of a class against two others is not linear: their log-sum passes its gradient.
    # Against one that is as good as impossible it is that of two classes.
    model, layer = subject(nn.ReLU())

    class Three(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            logits = self.model(ids, mask)
            return torch.cat([logits, torch.full((len(ids), 1), -50.0)], dim=1)

    three = run("deep-lift", (Three(), layer))
    assert torch.allclose(three, run("deep-lift", (model, layer)), atol=1e-5)


def test_nothing_stays_at_the_modules() -> None:
    for options in ({}, {"target": 9}):
        model, layer = subject(nn.GELU())
        method = methods.create("deep-lift", model, layer)
        if options:
            with pytest.raises(InvalidInputError, match="got 9"):
                method(IDS, REFERENCE, additional_forward_args=(MASK,), **options)
        else:
            method(IDS, REFERENCE, additional_forward_args=(MASK,))
        for module in model.modules():
            assert not {"input", "output", "input_ref"} & set(vars(module))
            assert not module._forward_hooks
            assert not module._forward_pre_hooks
        assert all(p.grad is None for p in model.parameters())


def test_an_activation_that_runs_again() -> None:
    with pytest.raises(InvalidInputError, match=r"activation module to run once.*Tanh"):
        run("deep-lift", subject(nn.Tanh(), times=2))
    # Ours passes its gradient instead, from the second time on.
    assert torch.isfinite(run("deep-lift", subject(nn.GELU(), times=2))).all()


def test_examples_do_not_mix_in_a_softmax_module() -> None:
    about = subject(nn.Softmax(dim=-1))
    together = run("deep-lift", about)
    alone = run("deep-lift", about, ids=IDS[:1], reference=REFERENCE[:1], mask=MASK[:1])
    assert torch.allclose(together[:1], alone, atol=1e-6)
