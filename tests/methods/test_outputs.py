"""Methods on values and on independent labels, and for several targets of each text."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from captum_aml import AMLAttribution, methods
from captum_aml.exceptions import InvalidInputError
from captum_aml.methods.registry import ScoreMeaning
from tests._helpers.methods import IDS, MASK, REFERENCE, all_names, few, named, subject

#: Of each token id its weight for each of three numbers; ids 0 to 2 are what they are blended with.
WEIGHTS = torch.tensor(
    [[0.0, 0, 0], [0, 0, 0], [0, 0, 0], [1.0, -2, 0.5], [0.25, 1, -3], [-0.5, 0, 1], [2, 0.1, 0]]
)
#: What additive values give for every promise of completeness, with the steps that it takes.
ADDITIVE = {
    "mask-gradient": None,
    "aml": None,
    "integrated-gradients": 8,
    "gradient-shap": 8,
    "deep-lift": None,
    "input-x-gradient": None,
    "occlusion": None,
    "kernel-shap": 64,
    "shapley-sampling": 2,
    "shap": 64,
}


class Additive(nn.Module):
    """Ids (N, L) to sums of the tokens' weights, (N, C), and an offset."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(weights)
        self.n_rows = 0

    def forward(self, ids: Tensor, attention_mask: Tensor) -> Tensor:
        self.n_rows += len(ids)
        return (self.embedding(ids) * attention_mask[..., None]).sum(dim=1) - 0.3


def explain(
    name: str, model: Additive, output: methods.MethodOutput, target: int | None, steps: int | None
) -> Tensor:
    method = methods.create(name, model, model.embedding, n_steps=steps, output=output)
    return method(IDS, REFERENCE, target=target, additional_forward_args=(MASK,))


@pytest.mark.parametrize("name", named(*ADDITIVE))
@pytest.mark.parametrize("target", [None, 0])
def test_an_additive_value_is_its_tokens_weights(name: str, target: int | None) -> None:
    scores = explain(name, Additive(WEIGHTS[:, :1]), "value", target, ADDITIVE[name])
    # The least squares of Kernel SHAP are solved in single precision.
    expected = torch.where(IDS == REFERENCE, 0.0, WEIGHTS[IDS, 0])
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", named("saliency", "smooth-grad", "lime", "lime-text", "la"))
def test_other_methods_order_a_values_tokens(name: str) -> None:
    scores = explain(name, Additive(WEIGHTS[:, :1]), "value", None, few(name))
    assert torch.isfinite(scores).all()
    if methods.spec(name).signed:  # id 3 has the largest weight of the first text, id 5 the least
        assert scores[0, 1] > scores[0, 2] > scores[0, 3]
    else:  # the gradient is the same everywhere
        torch.testing.assert_close(scores[0, 1:4], torch.ones(3), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", named("integrated-gradients", "deep-lift", "occlusion", "shap"))
@pytest.mark.parametrize("target", range(3))
def test_independent_labels_are_explained_by_their_own_probability(name: str, target: int) -> None:
    scores = explain(name, Additive(WEIGHTS), "independent_logits", target, None)
    own = WEIGHTS[:, target]

    def p(ids: Tensor) -> Tensor:
        return torch.sigmoid(own[ids].sum(dim=-1) - 0.3)

    if name == "occlusion":
        for place in (1, 2, 3):
            without = IDS[0].clone()
            without[place] = 2
            assert scores[0, place].item() == pytest.approx(float(p(IDS[0]) - p(without)), abs=1e-6)
    else:  # 50 steps of an integral leave as much
        torch.testing.assert_close(scores.sum(dim=1), p(IDS) - p(REFERENCE), rtol=0, atol=2e-4)


@pytest.mark.parametrize("name", ["mask-gradient", "aml", "la", "aml-tuned"])
def test_learned_contributions_sum_to_the_labels_own_log_odds(name: str) -> None:
    scores = explain(name, Additive(WEIGHTS), "independent_logits", 1, None)
    torch.testing.assert_close(scores.sum(dim=1), WEIGHTS[IDS, 1].sum(dim=1), rtol=0, atol=1e-5)
    if name in ("mask-gradient", "aml"):
        torch.testing.assert_close(scores, WEIGHTS[IDS, 1], rtol=0, atol=1e-5)


def test_no_target_is_the_highest_label() -> None:
    assert Additive(WEIGHTS)(IDS, MASK).argmax(dim=1).tolist() == [0, 0]
    for name in ("occlusion", "mask-gradient"):
        highest, first = (
            explain(name, Additive(WEIGHTS), "independent_logits", target, None)
            for target in (None, 0)
        )
        assert torch.equal(highest, first)


@pytest.mark.parametrize(
    ("name", "score"),
    [
        ("mask-gradient", "contribution to the value"),
        ("ig", "contribution to the value"),
        ("occlusion", "drop in the value when replaced alone"),
        ("input-x-gradient", "gradient of the value, times the embedding"),
    ],
)
def test_scores_of_a_value_are_of_no_class(name: str, score: str) -> None:
    model, entry = Additive(WEIGHTS[:, :1]), methods.spec(name)
    made = methods.create(name, model, model.embedding, output="value")
    assert methods.score_meaning(made, entry).score == score
    made = methods.create(name, model, model.embedding, output="independent_logits")
    assert "of the explained class" in methods.score_meaning(made, entry).score


def test_every_known_wording_has_one_for_a_value() -> None:
    for name in methods.available():
        assert "class" not in methods.spec(name).meaning.of_value().score
    mask = ScoreMeaning(signed=False, score="value of the mask for the explained class")
    assert mask.of_value() == ScoreMeaning(signed=False, score="value of the mask")
    given = methods.AttributionMethod(AMLAttribution(Additive(WEIGHTS[:, :1]), output="value"))
    assert given.meaning.score == "contribution to the value"


@pytest.mark.parametrize(
    ("score", "contrast"),
    [
        ("contribution to the logit of {}", "contribution to the logit of {} less that of {}"),
        ("attribution to the output of {}", "attribution to the output of {} less that of {}"),
        (
            "drop in the probability of {} when replaced alone",
            "drop in the log-odds of {} against {} when replaced alone",
        ),
        ("value of the mask for {}", "value of the mask for {} rather than {}"),
        ("attention paid to the token", "attention paid to the token"),
    ],
)
def test_scores_of_a_contrast_are_of_both(score: str, contrast: str) -> None:
    meaning = ScoreMeaning(score=score.format("the explained class")).of_contrast()
    assert meaning.score == contrast.format("the explained class", "the foil")


def test_an_unknown_output_is_named() -> None:
    model = Additive(WEIGHTS)
    with pytest.raises(InvalidInputError, match=r"^output: expected one of logits, .*'numbers'"):
        methods.create("ig", model, model.embedding, output="numbers")  # type: ignore[arg-type]


# Several targets


@pytest.mark.parametrize("name", all_names())
def test_each_target_is_explained_as_it_is_alone(name: str) -> None:
    function, layer = subject(name)
    targets = torch.tensor([[1, 0], [0, 0]])
    for groups in (None, torch.tensor([[0, 1, 1, 2, 0, 0], [0, 1, 1, 2, 2, 2]])):
        method = methods.create(name, function, layer, n_steps=few(name), seed=1)
        rest = {"additional_forward_args": (MASK,), "feature_mask": groups}
        scores = methods.each_target(method, IDS, REFERENCE, targets=targets, **rest)
        assert scores.shape == (2, 2, 6)
        for column in range(2):
            alone = method(IDS, REFERENCE, target=targets[:, column], **rest)
            torch.testing.assert_close(scores[:, column], alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", named("occlusion", "lime", "kernel-shap", "shap", "lime-text"))
def test_variants_of_a_text_are_run_once_for_all_targets(name: str) -> None:
    rows = []
    for n_targets in (1, 2):
        model = Additive(WEIGHTS)
        method = methods.create(name, model, model.embedding, n_steps=few(name), batch_size=4)
        targets = torch.arange(n_targets).expand(2, -1)
        methods.each_target(
            method, IDS, REFERENCE, targets=targets, additional_forward_args=(MASK,)
        )
        rows.append(model.n_rows)
    if name == "shap":  # it looks closer where the values differ more
        assert rows[0] <= rows[1] < 2 * rows[0]
    else:
        assert rows[0] == rows[1] > 0


@pytest.mark.parametrize("name", named(*ADDITIVE, "saliency", "lime", "la"))
def test_a_contrast_is_that_of_the_difference_itself(name: str) -> None:
    model = Additive(WEIGHTS)
    targets, foils = torch.tensor([[0, 1], [2, 0]]), torch.tensor([[1, 2], [1, 2]])
    made = methods.create(name, model, model.embedding, n_steps=few(name), seed=1)
    output: methods.MethodOutput = "logits" if hasattr(made, "attribution") else "log_odds"
    rest = {"additional_forward_args": (MASK,)}
    scores = methods.each_target(made, IDS, REFERENCE, targets=targets, foils=foils, **rest)
    for column in range(2):
        fact, foil = targets[:, column], foils[:, column]

        def difference(ids: Tensor, mask: Tensor, fact: Tensor, foil: Tensor) -> Tensor:
            z = model(ids, mask)
            d = z.gather(1, fact[:, None]) - z.gather(1, foil[:, None])
            return torch.cat([torch.zeros_like(d), d], dim=1)

        by_hand = methods.create(
            name, difference, model.embedding, n_steps=few(name), seed=1, output=output
        )
        wanted = by_hand(IDS, REFERENCE, target=1, additional_forward_args=(MASK, fact, foil))
        torch.testing.assert_close(scores[:, column], wanted, rtol=0, atol=1e-5)


def test_a_method_of_a_users_own_takes_one_target_after_the_other() -> None:
    class Own:
        settings: ClassVar[dict[str, methods.Setting]] = {}

        def __call__(self, ids: Tensor, baselines: Tensor, **given: Tensor) -> Tensor:
            return ids + 10.0 * given["target"][:, None]

    targets = torch.tensor([[1, 2, 3], [4, 5, 6]])
    scores = methods.each_target(Own(), IDS, REFERENCE, targets=targets)
    assert torch.equal(scores, IDS[:, None] + 10.0 * targets[..., None])
    of_contrasts = methods.each_target(
        Own(), IDS, REFERENCE, targets=targets, foils=targets.flip(1)
    )
    assert torch.equal(of_contrasts[0, :, 0], torch.tensor([-20.0, 0.0, 20.0]))


def test_targets_of_no_text_or_of_other_texts() -> None:
    model = Additive(WEIGHTS)
    method = methods.create("occlusion", model, model.embedding)
    nothing = methods.each_target(method, IDS, REFERENCE, targets=torch.zeros(2, 0).long())
    assert nothing.shape == (2, 0, 6)
    with pytest.raises(InvalidInputError, match=r"^targets: expected classes \(2, T\), got"):
        methods.each_target(method, IDS, REFERENCE, targets=torch.zeros(3, 1).long())
    with pytest.raises(InvalidInputError, match=r"^foils: expected one for each target \(2, 1\)"):
        methods.each_target(
            method, IDS, REFERENCE, targets=torch.zeros(2, 1).long(), foils=torch.ones(2, 2).long()
        )
    with pytest.raises(InvalidInputError, match=r"^target: "):
        methods.each_target(
            method,
            IDS,
            REFERENCE,
            targets=torch.tensor([[0, 3]] * 2),
            additional_forward_args=(MASK,),
        )
