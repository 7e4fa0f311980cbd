"""The published masker, on tiny encoders of six architectures."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from captum_aml import AMLAttribution
from captum_aml.exceptions import InvalidInputError
from captum_aml.maskers import MaskerInputs, TransformerMasker
from captum_aml.masking.sites import InputSite
from captum_aml.text import TextClassifier
from tests._helpers.models import ENCODERS, MAX_LENGTH, VOCABULARY, problem_for, tiny_encoder
from tests._helpers.text_models import bert_classifier, word_piece_tokenizer

C = 3
#: float32 through two layers, where the same sums are taken in another order or batch.
ROUNDING = {"rtol": 0, "atol": 2e-5}


@pytest.fixture(params=ENCODERS)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return tiny_encoder(request.param, n_labels=C)


def masker_of(model: PreTrainedModel) -> TransformerMasker:
    torch.manual_seed(0)
    return TransformerMasker.from_model(model).eval()


def shown(
    ids: Tensor, *, attention: Tensor | None = None, q: Tensor | None = None, features: Any = None
) -> MaskerInputs:
    n = ids.shape[0]
    return MaskerInputs(
        features=(torch.zeros(*ids.shape, 1),) if features is None else features,
        inputs=(ids,),
        probabilities=torch.full((n, C), 1 / C) if q is None else q,
        maskable=(torch.ones(ids.shape, dtype=torch.bool),),
        attention_mask=attention,
    )


def random_ids(n: int, length: int) -> Tensor:
    return torch.randint(3, VOCABULARY, (n, length))  # no special ids: 0 or 1 is padding


def word_table(masker: TransformerMasker) -> nn.Parameter:
    return masker.encoder.get_input_embeddings().weight


def test_the_logits_are_those_of_the_encoder_with_the_prediction_at_the_end(
    model: PreTrainedModel,
) -> None:
    """Written out for one unpadded text, with the encoder's own default positions."""
    masker = masker_of(model)
    ids = random_ids(2, 6)
    q = torch.rand(2, C).softmax(1)
    prediction = q @ masker.prediction.classes + masker.prediction.shared
    joined = torch.cat([word_table(masker)[ids], prediction.unsqueeze(1)], dim=1)
    hidden = masker.encoder(inputs_embeds=joined).last_hidden_state[:, :6]
    first, _, second = masker.head
    expected = (
        torch.tanh(hidden @ first.weight.T + first.bias) @ second.weight.T + second.bias
    ).squeeze(-1)
    torch.testing.assert_close(masker(shown(ids, q=q)), expected, **ROUNDING)


@pytest.mark.parametrize(("left", "right"), [(0, 4), (4, 0), (2, 2)])
def test_padding_does_not_change_a_proposal(model: PreTrainedModel, left: int, right: int) -> None:
    masker = masker_of(model)
    ids = random_ids(2, 6)
    alone = masker(shown(ids))
    padded = torch.cat([random_ids(2, left), ids, random_ids(2, right)], dim=1)
    attention = torch.zeros(2, 6 + left + right)
    attention[:, left : left + 6] = 1
    for mask in (attention, attention.bool(), attention.long()):
        logits = masker(shown(padded, attention=mask))[:, left : left + 6]
        torch.testing.assert_close(logits, alone, **ROUNDING)


def test_padding_is_known_by_its_id_where_there_is_no_attention_mask(
    model: PreTrainedModel,
) -> None:
    masker = masker_of(model)
    ids = random_ids(2, 6)
    padding = torch.full((2, 3), model.config.pad_token_id)
    for padded, start in (
        (torch.cat([ids, padding], dim=1), 0),
        (torch.cat([padding, ids], dim=1), 3),
    ):
        logits = masker(shown(padded))[:, start : start + 6]
        torch.testing.assert_close(logits, masker(shown(ids)), **ROUNDING)


def test_the_prediction_stands_right_after_the_last_token(model: PreTrainedModel) -> None:
    masker = masker_of(model)
    seen: dict[str, Tensor] = {}

    def look(_: nn.Module, args: Any, kwargs: Any) -> None:
        seen.update(kwargs)

    masker.encoder.register_forward_pre_hook(look, with_kwargs=True)
    ids = random_ids(3, 5)
    attention = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 1, 1, 0]])
    q = torch.rand(3, C).softmax(1)
    masker(shown(ids, attention=attention, q=q))
    table = word_table(masker)
    places = [5, 2, 4]  # after the last token of each text
    offset = 2 if model.config.model_type == "roberta" else 0
    for i, place in enumerate(places):
        prediction = masker.prediction(q[i : i + 1])[0]
        expected = [table[t] for t in ids[i].tolist()]
        expected.insert(place, prediction)
        torch.testing.assert_close(seen["inputs_embeds"][i], torch.stack(expected))
        mask = attention[i].tolist()
        mask.insert(place, 1)
        assert seen["attention_mask"][i].tolist() == mask
        # Positions count what is attended to.
        attended = [j for j, m in enumerate(mask) if m]
        positions = seen["position_ids"][i].tolist()
        assert [positions[j] for j in attended] == [offset + k for k in range(len(attended))]


def test_a_text_as_long_as_the_model_takes_works(model: PreTrainedModel) -> None:
    masker = masker_of(model)
    ids = random_ids(2, MAX_LENGTH)
    model(ids)  # the explained model takes it
    logits = masker(shown(ids))
    assert logits.shape == ids.shape
    assert logits.isfinite().all()
    # A shorter one beside it, padded to the same length, is not disturbed.
    short = random_ids(1, 4)
    batch = torch.cat([torch.nn.functional.pad(short, (0, MAX_LENGTH - 4), value=5), ids])
    attention = torch.ones(3, MAX_LENGTH)
    attention[0, 4:] = 0
    together = masker(shown(batch, attention=attention))
    torch.testing.assert_close(together[:1, :4], masker(shown(short)), **ROUNDING)
    torch.testing.assert_close(together[1:], logits, **ROUNDING)


def test_a_proposal_does_not_depend_on_the_batch(model: PreTrainedModel) -> None:
    masker = masker_of(model)
    ids, q = random_ids(4, 6), torch.rand(4, C).softmax(1)
    together = masker(shown(ids, q=q))
    for i in range(4):
        alone = masker(shown(ids[i : i + 1], q=q[i : i + 1]))
        torch.testing.assert_close(alone[0], together[i], **ROUNDING)


def test_the_prediction_is_heard(model: PreTrainedModel) -> None:
    masker = masker_of(model)
    with torch.no_grad():
        masker.prediction.classes.mul_(50)  # its vectors start small
    ids = random_ids(1, 6)
    one = masker(shown(ids, q=torch.tensor([[1.0, 0.0, 0.0]])))
    other = masker(shown(ids, q=torch.tensor([[0.0, 1.0, 0.0]])))
    assert (one - other).abs().mean() > 0.01


def test_the_embeddings_are_frozen_and_everything_else_learns(model: PreTrainedModel) -> None:
    masker = masker_of(model)
    masker(shown(random_ids(2, 6), q=torch.rand(2, C).softmax(1))).square().sum().backward()
    frozen = {id(p) for p in masker.encoder.embeddings.parameters()}
    assert id(word_table(masker)) in frozen
    for name, parameter in masker.named_parameters():
        if id(parameter) in frozen:
            assert not parameter.requires_grad, name
            assert parameter.grad is None, name
        else:
            assert parameter.requires_grad, name
            assert parameter.grad is not None, name
            # Softmax ignores what is added to every key, so that the keys' biases cannot learn.
            if not (name.endswith(("key.bias", "k_lin.bias"))):
                assert parameter.grad.abs().max() > 0, name


def test_every_class_learns_also_the_one_numbered_like_padding(model: PreTrainedModel) -> None:
    assert model.config.pad_token_id < C
    masker = masker_of(model)
    q = torch.full((2, C), 1 / C)
    masker(shown(random_ids(2, 6), q=q)).square().sum().backward()
    gradient = masker.prediction.classes.grad
    assert gradient is not None
    assert (gradient.abs().sum(dim=1) > 0).all()
    # The weights are the same for all, and so are the gradients.
    for c in range(1, C):
        torch.testing.assert_close(gradient[c], gradient[0])


def test_the_explained_model_is_copied_and_stays_as_it_is(model: PreTrainedModel) -> None:
    state = copy.deepcopy(model.state_dict())
    ids = random_ids(2, 6)
    before = model(ids).logits
    model.get_input_embeddings().weight.requires_grad_(True)
    required = {name: p.requires_grad for name, p in model.named_parameters()}
    masker = TransformerMasker.from_model(model)
    encoder = masker.encoder.state_dict()
    for name, tensor in model.base_model.state_dict().items():
        if not name.startswith("pooler"):
            assert torch.equal(encoder[name], tensor), name
    with torch.no_grad():
        for parameter in masker.parameters():
            parameter.add_(1)
    assert all(torch.equal(t, state[name]) for name, t in model.state_dict().items())
    assert {name: p.requires_grad for name, p in model.named_parameters()} == required
    assert torch.equal(model(ids).logits, before)


def test_the_copy_of_a_frozen_model_learns() -> None:
    """An explained model is usually frozen; a masker that starts from it must not be."""
    plain = tiny_encoder("bert", n_labels=C)
    expected = {n for n, p in masker_of(plain).named_parameters() if p.requires_grad}
    masker = masker_of(plain.requires_grad_(False))
    assert {n for n, p in masker.named_parameters() if p.requires_grad} == expected
    assert not any(p.requires_grad for p in plain.parameters())


def test_a_model_of_one_value_has_the_two_outcomes_of_a_retained_fraction() -> None:
    model = tiny_encoder("bert", n_labels=1)
    problem = problem_for(model, random_ids(2, 5))
    assert problem.readout.kind == "value"
    assert problem.propose(masker_of(model)).isfinite().all()


def test_the_configuration_as_json_builds_the_same_network(model: PreTrainedModel) -> None:
    masker = masker_of(model)
    again = TransformerMasker.from_config(json.loads(json.dumps(masker.config))).eval()
    again.load_state_dict(masker.state_dict())
    inputs = shown(random_ids(2, 6), q=torch.rand(2, C).softmax(1))
    assert torch.equal(again(inputs), masker(inputs))
    assert again.config == masker.config
    trainable = {name for name, p in masker.named_parameters() if p.requires_grad}
    assert {name for name, p in again.named_parameters() if p.requires_grad} == trainable


def test_the_way_attention_is_computed_comes_back() -> None:
    model = tiny_encoder("bert")
    model.set_attn_implementation("eager")
    masker = masker_of(model)
    again = TransformerMasker.from_config(json.loads(json.dumps(masker.config))).eval()
    assert again.encoder.config._attn_implementation == "eager"
    again.load_state_dict(masker.state_dict())
    ids = random_ids(3, 6)
    assert torch.equal(again(shown(ids)), masker(shown(ids)))


def test_a_model_in_half_precision_gets_a_masker_that_can_be_trained() -> None:
    model = tiny_encoder("bert").to(torch.bfloat16)
    model.config.dtype = torch.bfloat16  # as after loading such weights
    masker = masker_of(model)
    assert {p.dtype for p in masker.parameters()} == {torch.float32}
    again = TransformerMasker.from_config(json.loads(json.dumps(masker.config))).eval()
    assert {p.dtype for p in again.parameters()} == {torch.float32}
    again.load_state_dict(masker.state_dict())
    inputs = shown(random_ids(2, 6))
    assert torch.equal(again(inputs), masker(inputs))
    assert next(model.parameters()).dtype == torch.bfloat16
    problem = problem_for(model, random_ids(2, 5), output="logits")
    assert problem.propose(masker).isfinite().all()


def test_an_encoder_in_half_precision_is_taken_as_it_is() -> None:
    encoder = tiny_encoder("bert").base_model.to(torch.bfloat16)
    masker = TransformerMasker(encoder, n_classes=C).eval()
    assert masker(shown(random_ids(2, 6))).dtype == torch.bfloat16


def test_a_saved_encoder_can_be_the_start(model: PreTrainedModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    masker = TransformerMasker.from_pretrained(tmp_path, n_classes=C).eval()
    assert masker.prediction.classes.shape[0] == C
    state = model.base_model.state_dict()
    for name, tensor in masker.encoder.state_dict().items():
        assert torch.equal(tensor, state[name]), name


# Sentence pairs


@pytest.mark.parametrize("kind", ["bert", "electra"])
def test_token_types_are_heard_and_the_prediction_has_that_of_the_last_token(kind: str) -> None:
    masker = masker_of(tiny_encoder(kind, n_labels=C))
    seen: dict[str, Tensor] = {}
    masker.encoder.register_forward_pre_hook(
        lambda _, args, kwargs: seen.update(kwargs), with_kwargs=True
    )
    ids = random_ids(2, 5)
    attention = torch.tensor([[1, 1, 1, 1, 0], [0, 1, 1, 1, 1]])
    types = torch.tensor([[0, 0, 1, 1, 0], [1, 0, 0, 1, 1]])
    inputs = shown(ids, attention=attention)
    logits = masker(replace(inputs, token_type_ids=types))
    assert seen["token_type_ids"].tolist() == [[0, 0, 1, 1, 1, 0], [1, 0, 0, 1, 1, 1]]
    single = masker(replace(inputs, token_type_ids=torch.zeros_like(types)))
    assert (logits - single)[attention.bool()].abs().max() > 1e-3
    assert torch.equal(single, masker(inputs))


def test_token_types_reach_the_masker_from_a_model_and_from_a_text_classifier() -> None:
    tokenizer = word_piece_tokenizer()
    model = bert_classifier(len(tokenizer))
    classifier = TextClassifier(model, tokenizer)
    ids, attention = torch.randint(5, 20, (2, 6)), torch.ones(2, 6, dtype=torch.long)
    types = torch.tensor([[0, 0, 0, 1, 1, 1], [0, 1, 1, 1, 1, 1]])

    class Keeps(nn.Module):
        def forward(self, inputs: MaskerInputs) -> Tensor:
            self.inputs = inputs
            return torch.zeros(inputs.inputs[0].shape)

    keeps = Keeps()
    # Both take the types as their third argument; the classifier among its further inputs.
    site = InputSite(classifier, (classifier.embedding_layer,))
    for forward, given in ((model, None), (classifier, site)):
        problem = problem_for(
            forward, ids, site=given, additional_forward_args=(attention, types), output="logits"
        )
        problem.propose(keeps)
        assert keeps.inputs.token_type_ids is not None
        assert torch.equal(keeps.inputs.token_type_ids, types)
        assert torch.equal(keeps.inputs.attention_mask, attention)
    problem_for(model, ids, additional_forward_args=(attention,)).propose(keeps)
    assert keeps.inputs.token_type_ids is None


def test_an_encoder_with_one_token_type_takes_any() -> None:
    model = tiny_encoder("roberta", n_labels=C)
    model.config.type_vocab_size = 1
    inputs = shown(random_ids(2, 4))
    masker = masker_of(model)
    pair = replace(inputs, token_type_ids=torch.tensor([[0, 0, 1, 1]] * 2))
    assert torch.equal(masker(pair), masker(inputs))


# Through the attribution


def test_a_fit_lowers_the_loss_and_a_saved_masker_proposes_the_same(
    model: PreTrainedModel, tmp_path: Path
) -> None:
    ids = random_ids(8, 7)
    batch = {
        "inputs": ids,
        "baselines": torch.full_like(ids, model.config.pad_token_id),
        "additional_forward_args": (torch.ones_like(ids),),
    }
    attribution = AMLAttribution(model, masker=masker_of(model), output="logits")
    before = attribution.fit([batch], epochs=1, learning_rate=1e-9).evaluate(**batch).total.mean()
    attribution.fit([batch], epochs=12, learning_rate=5e-3)
    assert attribution.evaluate(**batch).total.mean() < before - 0.1
    assert torch.equal(word_table(attribution.masker_), model.get_input_embeddings().weight)
    attribution.save_pretrained(tmp_path)
    loaded = AMLAttribution.from_pretrained(tmp_path, model)
    assert torch.equal(loaded.attribute(**batch), attribution.attribute(**batch))


def test_embeddings_are_taken_where_there_are_no_ids(model: PreTrainedModel) -> None:
    masker = masker_of(model)
    ids = random_ids(2, 6)
    embeddings = word_table(masker)[ids].detach()
    inputs = MaskerInputs(
        features=(embeddings,),
        inputs=(embeddings,),
        probabilities=torch.full((2, C), 1 / C),
        maskable=(torch.ones(2, 6, dtype=torch.bool),),
    )
    torch.testing.assert_close(masker(inputs), masker(shown(ids)), **ROUNDING)


# Bad input


def test_ids_of_another_vocabulary_are_named(model: PreTrainedModel) -> None:
    with pytest.raises(InvalidInputError, match=f"masker: .* below {VOCABULARY}, got 31"):
        masker_of(model)(shown(torch.tensor([[4, 31]])))


@pytest.mark.parametrize(
    ("inputs", "features"),
    [
        ((torch.rand(2, 3),), (torch.rand(2, 3),)),
        ((torch.rand(2, 3, 5),), (torch.rand(2, 3, 5),)),
        ((torch.ones(2, 3, 4, dtype=torch.long),), (torch.rand(2, 3, 4, 5),)),
    ],
)
def test_what_is_no_single_sequence_is_named(
    inputs: tuple[Tensor, ...], features: tuple[Tensor, ...]
) -> None:
    masker = masker_of(tiny_encoder("bert"))
    with pytest.raises(InvalidInputError, match=r"masker: .* \(N, L\), .*got inputs") as caught:
        masker(
            MaskerInputs(
                features=features,
                inputs=inputs,
                probabilities=torch.full((2, C), 1 / C),
                maskable=(torch.ones(2, 3, dtype=torch.bool),),
            )
        )
    assert str([tuple(t.shape) for t in inputs]) in str(caught.value)


def test_a_distribution_over_other_classes_is_named() -> None:
    with pytest.raises(InvalidInputError, match=r"masker: .* 3 classes, .* 2"):
        masker_of(tiny_encoder("bert", n_labels=3))(shown(random_ids(2, 4), q=torch.rand(2, 2)))


@pytest.mark.parametrize("n_classes", [0, -1])
def test_the_number_of_classes_is_checked(n_classes: int) -> None:
    model = tiny_encoder("bert")
    with pytest.raises(InvalidInputError, match=f"n_classes: .* at least 1, got {n_classes}"):
        TransformerMasker(model.base_model, n_classes=n_classes)
    with pytest.raises(InvalidInputError, match=f"n_classes: .* at least 1, got {n_classes}"):
        TransformerMasker.from_model(model, n_classes=n_classes)


def test_an_encoder_without_word_embeddings_is_named() -> None:
    class Faceless(nn.Module):
        def get_input_embeddings(self) -> nn.Module:
            return nn.Identity()

    with pytest.raises(InvalidInputError, match=r"encoder: .* word embeddings, got Faceless"):
        TransformerMasker(Faceless(), n_classes=2)  # type: ignore[arg-type]  # that is the point
