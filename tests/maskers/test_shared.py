"""The masker that reads what the explained model computes anyway."""

from __future__ import annotations

import copy
import functools
import json
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedModel,
)

from captum_aml import AMLAttribution, LayerAMLAttribution, SharedMasker
from captum_aml.exceptions import CheckpointError, InvalidInputError, LayerNotReachedError
from captum_aml.maskers import ExplainedLayers, MaskerInputs
from captum_aml.maskers.base import explained_layers_of
from captum_aml.masking.call import parse_call
from captum_aml.masking.problem import MaskingProblem
from captum_aml.masking.sites import InputSite
from captum_aml.perturbation import resolve_perturbation
from captum_aml.text import TextBatches, TextClassifier
from tests._helpers.models import (
    ENCODERS,
    VOCABULARY,
    PlantedClassifier,
    planted_texts,
    tiny_encoder,
)
from tests._helpers.text_models import bert_classifier, word_piece_tokenizer

C = 3
#: float32 through two layers, where the same sums are taken in another order or batch.
ROUNDING = {"rtol": 0, "atol": 2e-5}


def tiny_decoder(kind: str) -> PreTrainedModel:
    common: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "num_labels": C,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "initializer_range": 0.3,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: PreTrainedModel
        if kind == "gpt2":
            model = GPT2ForSequenceClassification(
                GPT2Config(**common, n_embd=16, n_layer=3, n_head=2, n_positions=12)
            )
        else:
            model = LlamaForSequenceClassification(
                LlamaConfig(
                    **common,
                    hidden_size=16,
                    num_hidden_layers=3,
                    num_attention_heads=2,
                    intermediate_size=32,
                )
            )
    return model.eval()


def tiny(kind: str, *, n_labels: int = C) -> PreTrainedModel:
    if kind in ("gpt2", "llama"):
        return tiny_decoder(kind)
    return tiny_encoder(kind, n_labels=n_labels)


def masker_of(model: nn.Module, **settings: Any) -> SharedMasker:
    torch.manual_seed(0)
    return SharedMasker.from_model(model, width=8, **settings).eval()


def random_ids(n: int, length: int) -> Tensor:
    return torch.randint(3, VOCABULARY, (n, length))


def problem_of(
    masker: nn.Module, model: Any, ids: Tensor, attention: Tensor | None = None
) -> MaskingProblem:
    """A problem whose pass read what the masker asks for."""
    embeddings = (masker.explained_layers.model.get_input_embeddings(),)
    call = parse_call(
        ids,
        torch.zeros_like(ids),
        None,
        (torch.ones_like(ids) if attention is None else attention,),
    )
    return MaskingProblem.build(
        call, InputSite(model, embeddings), resolve_perturbation("blend"), "logits", (masker,)
    )


def batch_of(ids: Tensor) -> dict[str, Any]:
    return {
        "inputs": ids,
        "baselines": torch.zeros_like(ids),
        "additional_forward_args": (torch.ones_like(ids),),
    }


class Counted:
    """A forward function around a model, that counts its passes."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.passes = 0

    def __call__(self, ids: Tensor, attention_mask: Tensor) -> Tensor:
        self.passes += 1
        return self.model(ids, attention_mask=attention_mask).logits


# What it reads


@pytest.mark.parametrize("kind", [*ENCODERS, "gpt2", "llama"])
def test_the_states_are_those_that_the_model_itself_gives_out(kind: str) -> None:
    model = tiny(kind)
    masker = masker_of(model)
    ids = random_ids(2, 6)
    problem = problem_of(masker, Counted(model), ids)
    read = [problem.hidden[point] for point in masker.explained_layers.points]
    with torch.no_grad():
        expected = model.base_model(
            ids, attention_mask=torch.ones_like(ids), output_hidden_states=True
        ).hidden_states
    assert len(read) == len(expected) == len(masker.explained_layers)
    for state, other in zip(read[:-1], expected[:-1], strict=True):
        assert torch.equal(state, other)
    # Of models with a last normalization some versions give the last state after it.
    names = {"modernbert": "final_norm", "gpt2": "ln_f", "llama": "norm"}
    after = [read[-1]]
    if kind in names:
        after.append(model.base_model.get_submodule(names[kind])(read[-1]))
    assert any(torch.equal(state, expected[-1]) for state in after)
    assert not any(state.requires_grad for state in read)


def test_a_fitted_pass_is_one_pass_of_the_model() -> None:
    model = tiny("bert")
    forward = Counted(model)
    masker = masker_of(model)
    masker.fitted = True
    attribution = AMLAttribution(
        forward,
        embedding_layer=model.get_input_embeddings(),
        masker=masker,
        output="logits",
        scores="mask",
    )
    ids = random_ids(3, 5)
    scores = attribution.attribute(**batch_of(ids))
    assert forward.passes == 1
    with torch.no_grad():
        problem = problem_of(masker, forward, ids)
        torch.testing.assert_close(scores, torch.sigmoid(problem.propose(masker)))
    forward.passes, attribution.scores = 0, "contribution"
    attribution.attribute(**batch_of(ids))
    assert forward.passes == 2  # the baselines' value, too


def test_layers_that_share_their_weights_are_read_after_their_last_run() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AlbertForSequenceClassification(
            AlbertConfig(
                vocab_size=VOCABULARY,
                embedding_size=8,
                hidden_size=16,
                num_hidden_layers=3,
                num_attention_heads=2,
                intermediate_size=32,
                num_labels=C,
            )
        ).eval()
    masker = masker_of(model)
    ids = random_ids(2, 5)
    problem = problem_of(masker, model, ids)
    given, result = (problem.hidden[point] for point in masker.explained_layers.points)
    states = model.albert(
        ids, attention_mask=torch.ones_like(ids), output_hidden_states=True
    ).hidden_states
    assert torch.equal(given, states[0])
    assert torch.equal(result, states[-1])


def test_nothing_is_read_for_maskers_that_do_not_ask_and_no_hook_stays() -> None:
    model = tiny("bert")
    problem = problem_of(masker_of(model), model, random_ids(2, 4))
    assert problem.hidden
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    call = parse_call(random_ids(2, 4), 0, None, None)
    plain = MaskingProblem.build(
        call, InputSite(model, ()), resolve_perturbation("blend"), "logits", (nn.Linear(2, 2), None)
    )
    assert plain.hidden == {}
    with pytest.raises(InvalidInputError, match=r"masker: .* not read in this problem"):
        plain.propose(masker_of(model))


# What it computes


@torch.no_grad()
def test_the_logits_by_loops() -> None:
    """The module's equation, token by token, with one attention head."""
    model = tiny("bert")
    masker = masker_of(model).double()
    for parameter in masker.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    states = tuple(torch.randn(1, 4, 16, dtype=torch.float64) for _ in range(3))
    q = torch.tensor([[0.2, 0.3, 0.5]], dtype=torch.float64)
    attention = torch.tensor([[1, 1, 1, 0]])
    logits = masker(
        MaskerInputs(
            features=(torch.zeros(1, 4, 1),),
            inputs=(torch.zeros(1, 4, dtype=torch.long),),
            probabilities=q,
            maskable=(torch.ones(1, 4, dtype=torch.bool),),
            attention_mask=attention,
            hidden_states=states,
        )
    )

    def norm(v: Tensor, layer: Any = None) -> Tensor:
        scaled = (v - v.mean()) / (v.var(unbiased=False) + 1e-5).sqrt()
        return scaled if layer is None else scaled * layer.weight + layer.bias

    def apply(layer: Any, v: Tensor) -> Tensor:
        return layer.weight @ v + layer.bias

    def gelu(v: Tensor) -> Tensor:
        return torch.stack([0.5 * x * (1 + math.erf(x / math.sqrt(2))) for x in v])

    prediction = q[0] @ masker.prediction.classes + masker.prediction.shared
    shares = masker.mixture.weights.exp() / masker.mixture.weights.exp().sum()
    x = []
    for t in range(4):
        mixed = sum(s * norm(h[0, t]) for s, h in zip(shares, states, strict=True))
        x.append(apply(masker.project, mixed) + prediction)
    block = masker.block
    triples = [apply(block.queries_keys_values, norm(v, block.attention_norm)) for v in x]
    for t in range(4):
        query = triples[t][:8]
        weights = [math.exp(float(query @ triples[j][8:16]) / math.sqrt(8)) for j in range(3)]
        seen = sum(w * triples[j][16:] for j, w in enumerate(weights)) / sum(weights)
        y = x[t] + apply(block.attended, seen)
        z = y + apply(block.mlp[3], gelu(apply(block.mlp[1], norm(y, block.mlp[0]))))
        expected = apply(masker.readout[1], norm(z, masker.readout[0]))
        assert logits[0, t].item() == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.parametrize("kind", [*ENCODERS, "llama"])
@pytest.mark.parametrize(("left", "right"), [(0, 4), (3, 0)])
def test_padding_does_not_change_a_proposal(kind: str, left: int, right: int) -> None:
    model = tiny(kind)
    # Of these the explained model itself is moved by padding on the left.
    if left and kind not in ("deberta-v2", "modernbert"):
        return
    masker = masker_of(model)
    ids = random_ids(2, 5)
    padded = torch.cat([random_ids(2, left), ids, random_ids(2, right)], dim=1)
    attention = torch.zeros_like(padded)
    attention[:, left : left + 5] = 1
    alone = problem_of(masker, model, ids)
    joined = problem_of(masker, model, padded, attention)
    if left or kind == "llama":
        # The model reads its prediction at the first token, or at the last: padding here.
        masker.prediction.classes.data.zero_()
    got = masker(_inputs(joined, masker))[:, left : left + 5]
    torch.testing.assert_close(got, masker(_inputs(alone, masker)), **ROUNDING)


def _inputs(problem: MaskingProblem, masker: SharedMasker) -> MaskerInputs:
    return MaskerInputs(
        features=problem.capture.features,
        inputs=problem.call.inputs,
        probabilities=problem.readout.aim,
        maskable=(problem.call.inputs[0] != 0,),
        attention_mask=problem.call.additional_forward_args[0],
        hidden_states=tuple(problem.hidden[point] for point in masker.explained_layers.points),
    )


def test_without_an_attention_mask_only_maskable_tokens_are_looked_at() -> None:
    masker = masker_of(tiny("bert"))
    states = tuple(torch.randn(1, 5, 16) for _ in range(3))
    maskable = torch.tensor([[True, False, True, False, False]])
    inputs = MaskerInputs(
        (torch.zeros(1, 5, 1),), (torch.zeros(1, 5),), torch.full((1, C), 1 / C), (maskable,)
    )

    def logits(given: tuple[Tensor, ...]) -> Tensor:
        return masker(MaskerInputs(**{**vars(inputs), "hidden_states": given}))

    other = tuple(torch.where(maskable.unsqueeze(2), s, torch.randn(16)) for s in states)
    assert torch.equal(logits(states)[maskable], logits(other)[maskable])
    # An example of which nothing can be seen has finite logits all the same.
    object.__setattr__(inputs, "maskable", (torch.zeros_like(maskable),))
    assert logits(states).isfinite().all()


def test_a_proposal_does_not_depend_on_the_batch() -> None:
    model = tiny("bert")
    masker = masker_of(model)
    ids = random_ids(4, 6)
    together = problem_of(masker, model, ids).propose(masker)
    for i in range(4):
        alone = problem_of(masker, model, ids[i : i + 1]).propose(masker)
        torch.testing.assert_close(alone[0], together[i], **ROUNDING)


def test_every_weight_of_the_head_learns_and_none_of_the_model() -> None:
    model = tiny("bert")
    masker = masker_of(model)
    problem = problem_of(masker, model, random_ids(2, 6))
    problem.propose(masker).square().sum().backward()
    # Softmax ignores what is added to every key: a third of one bias cannot learn.
    silent = [n for n, p in masker.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []
    assert all(p.grad is None for p in model.parameters())


def test_hidden_states_in_half_precision_are_read() -> None:
    model = tiny("bert").to(torch.bfloat16)
    masker = masker_of(model)
    problem = problem_of(masker, model, random_ids(2, 6))
    assert next(iter(problem.hidden.values())).dtype == torch.bfloat16
    proposal = problem.propose(masker)
    assert proposal.dtype == torch.float32
    assert proposal.isfinite().all()


# The explained model is referred to, not owned


def test_the_model_is_no_part_of_the_masker_and_copies_read_the_same_one() -> None:
    model = tiny("bert")
    masker = masker_of(model)
    owned = {id(p) for p in masker.parameters()}
    assert not owned & {id(p) for p in model.parameters()}
    assert not any("bert" in name or "encoder" in name for name in masker.state_dict())
    assert model not in set(masker.modules())
    twin = copy.deepcopy(masker)
    assert twin.explained_layers.model is model
    assert twin.explained_layers.points == masker.explained_layers.points
    assert twin.project.weight is not masker.project.weight
    masker.to(torch.float64).train()
    assert next(model.parameters()).dtype == torch.float32
    assert not model.training


def test_pickling_leaves_the_model_out() -> None:
    model = tiny("bert")
    masker = masker_of(model)
    again = pickle.loads(pickle.dumps(masker))
    with pytest.raises(InvalidInputError, match=r"masker: .*not there; call .*bind"):
        _ = again.explained_layers.points
    again.explained_layers.bind(model)
    ids = random_ids(2, 4)
    proposals = [problem_of(m, model, ids).propose(m) for m in (masker, again)]
    assert torch.equal(*proposals)


def test_a_wrapped_masker_still_asks() -> None:
    masker = masker_of(tiny("bert"))
    assert explained_layers_of(nn.DataParallel(masker)) is masker.explained_layers
    assert explained_layers_of(nn.Linear(2, 2)) is None
    assert explained_layers_of(None) is None


# Through the attribution


def reviews() -> tuple[TextClassifier, list[dict[str, Any]]]:
    tokenizer = word_piece_tokenizer()
    classifier = TextClassifier(bert_classifier(len(tokenizer)), tokenizer)
    texts = ["the film was good", "an awful plot but a great actor", "slow", "very gripping !"]
    return classifier, list(TextBatches(classifier, texts, batch_size=2))


def test_fitting_lowers_the_loss_and_leaves_the_model_alone() -> None:
    classifier, batches = reviews()
    masker = SharedMasker.from_model(classifier.model)
    state = copy.deepcopy(classifier.model.state_dict())
    settings = {"embedding_layer": classifier.embedding_layer, "output": "logits"}
    attribution = AMLAttribution(classifier, masker=masker, **settings)
    attribution.fit(batches, batches, epochs=8, learning_rate=5e-3)
    history = attribution.history_
    assert history[-1].validation["total"] < history[0].train["total"] - 0.1
    assert attribution.masker_.explained_layers.model is classifier.model
    assert all(torch.equal(t, state[n]) for n, t in classifier.model.state_dict().items())
    assert all(p.grad is None for p in classifier.model.parameters())
    tuned = attribution.attribute(**batches[0], n_steps=3)
    assert tuned.isfinite().all()


class Shallow(PlantedClassifier):
    """With states that can be read; nothing depends on them."""

    def __init__(self) -> None:
        super().__init__()
        self.states = nn.Linear(8, 8)

    def forward(self, ids: Tensor) -> Tensor:
        embedded = self.embedding(ids)
        self.states(embedded)
        return embedded[..., :3].sum(dim=1) + self.bias


class Reader(nn.Module):
    """A masker of a user's own that reads a layer of any network."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.explained_layers = ExplainedLayers(model, ["states"], with_input=True)
        self.readout = nn.Linear(8 + 8 + C, 1)

    def forward(self, inputs: MaskerInputs) -> Tensor:
        assert inputs.hidden_states is not None
        prediction = inputs.probabilities.unsqueeze(1).expand(-1, inputs.inputs[0].shape[1], -1)
        return self.readout(torch.cat([*inputs.hidden_states, prediction], dim=-1)).squeeze(-1)


@pytest.mark.parametrize("own", [True, False])
def test_a_network_without_configuration_and_a_masker_of_ones_own(
    own: bool, tmp_path: Path
) -> None:
    """The token that decides comes first in texts never seen, also after saving and loading."""
    torch.manual_seed(0)
    model = Shallow()

    def masker() -> nn.Module:
        if own:
            return Reader(model)
        return SharedMasker.from_model(
            model, layers=["states"], state_size=8, n_classes=C, width=16
        )

    attribution = AMLAttribution(model, masker=masker())
    batches = [planted_texts(16, 6, seed=seed)[0] for seed in range(8)]
    attribution.fit(batches, epochs=12, learning_rate=0.02)
    ids, places = planted_texts(40, 6, seed=99)
    scores = attribution.attribute(ids)
    assert (scores.argmax(dim=1) == places).all()

    attribution.save_pretrained(tmp_path)
    given = {"masker": masker()} if own else {}
    loaded = AMLAttribution.from_pretrained(tmp_path, model, **given)
    assert torch.equal(loaded.attribute(ids), scores)


def test_it_comes_back_with_the_model_that_it_is_loaded_for(tmp_path: Path) -> None:
    classifier, batches = reviews()
    model = classifier.model
    embeddings = {"embedding_layer": classifier.embedding_layer}
    masker = SharedMasker.from_model(model)
    attribution = AMLAttribution(classifier, masker=masker, output="logits", **embeddings)
    attribution.fit(batches, epochs=1)
    expected = attribution.attribute(**batches[0])
    attribution.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())["masker"]
    assert config["type"] == "shared"

    def logits(ids: Tensor, attention_mask: Tensor, *rest: Tensor) -> Tensor:
        return classifier(ids, attention_mask, *rest)

    for forward in (classifier, model, nn.DataParallel(model), functools.partial(model)):
        loaded = AMLAttribution.from_pretrained(tmp_path, forward, **embeddings)
        assert loaded.masker_.explained_layers.model is model
        assert torch.equal(loaded.attribute(**batches[0]), expected)
    # From a function nobody can tell which model it runs.
    with pytest.raises(CheckpointError, match=r"masker: .*pass masker=SharedMasker.from_model"):
        AMLAttribution.from_pretrained(tmp_path, logits, **embeddings)
    fresh = SharedMasker.from_model(model)
    loaded = AMLAttribution.from_pretrained(tmp_path, logits, masker=fresh, **embeddings)
    assert torch.equal(loaded.attribute(**batches[0]), expected)
    # At the embeddings as a layer it proposes the same.
    layer = LayerAMLAttribution.from_pretrained(tmp_path, classifier, classifier.embedding_layer)
    torch.testing.assert_close(layer.attribute(**batches[0]).sum(-1), expected)


def test_made_from_the_encoder_it_comes_back_for_the_classifier_around_it(tmp_path: Path) -> None:
    model = tiny("bert")
    ids = random_ids(3, 5)
    masker = SharedMasker.from_model(model.bert, n_classes=C)
    attribution = AMLAttribution(model, masker=masker).fit([batch_of(ids)], epochs=1)
    attribution.save_pretrained(tmp_path)
    loaded = AMLAttribution.from_pretrained(tmp_path, model)
    assert loaded.masker_.explained_layers.model is model.bert
    assert torch.equal(loaded.attribute(**batch_of(ids)), attribution.attribute(**batch_of(ids)))


# Bad input


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"hidden_size": 32, "embedding_size": 8}, "hidden_size=16.*hidden_size=32"),
        ({"num_hidden_layers": 3}, "num_hidden_layers=2.*num_hidden_layers=3"),
    ],
)
def test_a_masker_of_another_model_is_refused(
    other: dict[str, int], named: str, tmp_path: Path
) -> None:
    model = tiny("electra")  # its embeddings are as wide in both
    attribution = AMLAttribution(model, masker=masker_of(model))
    attribution.fit([batch_of(random_ids(3, 5))], epochs=1).save_pretrained(tmp_path)
    another = type(model)(type(model.config)(**{**model.config.to_dict(), **other})).eval()
    with pytest.raises(CheckpointError, match=f"^masker: .*{named}"):
        AMLAttribution.from_pretrained(tmp_path, another)
    with pytest.raises(CheckpointError, match=f"^masker: .*{named}"):
        AMLAttribution.from_pretrained(tmp_path, another, masker=masker_of(another))


def test_a_masker_of_another_architecture_is_refused(tmp_path: Path) -> None:
    model = tiny("bert")
    attribution = AMLAttribution(model, masker=masker_of(model))
    attribution.fit([batch_of(random_ids(3, 5))], epochs=1).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"^masker: .*model_type=bert.*model_type=roberta"):
        AMLAttribution.from_pretrained(tmp_path, tiny("roberta"))
    other_head = SharedMasker.from_model(model, width=16)
    with pytest.raises(CheckpointError, match=r"^masker: .*width=8.*width=16"):
        AMLAttribution.from_pretrained(tmp_path, model, masker=other_head)


def test_a_forward_function_of_another_model_is_named() -> None:
    masker = masker_of(tiny("bert"))
    with pytest.raises(LayerNotReachedError, match=r"^masker: .*BertLayer.*never ran"):
        AMLAttribution(tiny("bert"), masker=masker).fit([batch_of(random_ids(2, 4))], epochs=1)


def test_a_model_that_runs_twice_is_named() -> None:
    model = tiny("bert")

    def both(ids: Tensor, attention_mask: Tensor) -> Tensor:
        return model(ids, attention_mask).logits + model(ids.flip(1), attention_mask).logits

    with pytest.raises(LayerNotReachedError, match=r"^masker: .*BertLayer several times"):
        problem_of(masker_of(model), both, random_ids(2, 4))


def test_states_that_do_not_fit_the_tokens_are_named() -> None:
    model = tiny("bert")
    masker = masker_of(model)

    def shorter(ids: Tensor, attention_mask: Tensor) -> Tensor:
        embedded = model.get_input_embeddings()(ids)
        return model(inputs_embeds=embedded[:, 1:]).logits

    problem = problem_of(masker, shorter, random_ids(2, 6))
    with pytest.raises(InvalidInputError, match=r"^masker: .*\(2, 6, 16\).*\(2, 5, 16\)"):
        problem.propose(masker)
    head = SharedMasker.from_model(model, layers=["classifier"])
    with pytest.raises(LayerNotReachedError, match=r"^masker: .*\(2, L, D\).*\(2, 3\)"):
        problem_of(head, model, random_ids(2, 6))
    ids = random_ids(2, 4)
    with pytest.raises(InvalidInputError, match=r"^masker: .*no hidden states"):
        masker(MaskerInputs((ids,), (ids,), torch.rand(2, C), (ids > 0,)))


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda m: SharedMasker.from_model(m, layers=["bert.other"]), "names: .*bert.other"),
        (lambda m: SharedMasker.from_model(m, layers=[]), "names: .*at least one"),
        (lambda m: SharedMasker.from_model(m, n_classes=0), "n_classes: "),
        (lambda m: SharedMasker.from_model(m, width=48), "width: .*multiple of 32.*48"),
        (lambda m: SharedMasker.from_model(lambda x: x), "model: .*torch.nn.Module, got function"),
        (lambda m: SharedMasker.from_model(PlantedClassifier()), "layers: .*PlantedClassifier"),
        (
            lambda m: SharedMasker.from_model(PlantedClassifier(), layers=["embedding"]),
            "state_size: .*None",
        ),
        (
            lambda m: SharedMasker.from_model(
                PlantedClassifier(), layers=["embedding"], state_size=8
            ),
            "n_classes: .*None",
        ),
    ],
)
def test_settings_are_checked(make: Any, named: str) -> None:
    with pytest.raises(InvalidInputError, match=f"^{named}"):
        make(tiny("bert"))


def test_an_attribute_of_another_kind_is_named() -> None:
    class Mine(nn.Module):
        explained_layers = ("encoder.layer.0",)

    with pytest.raises(InvalidInputError, match=r"^masker: .*ExplainedLayers.*tuple"):
        explained_layers_of(Mine())
