"""LLMAMLAttribution: what it explains, how it reads prompts, and that it fits beside Captum's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from captum.attr import (
    FeatureAblation,
    ImageMaskInput,
    LayerIntegratedGradients,
    LLMAttribution,
    LLMAttributionResult,
    LLMGradientAttribution,
    TextTemplateInput,
    TextTokenInput,
)
from torch import Tensor, nn
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from captum_aml import (
    AMLAttribution,
    AMLObjective,
    LAAttribution,
    LayerAMLAttribution,
    LLMAMLAttribution,
)
from captum_aml.attr.llm.forward import TargetLogProbability
from captum_aml.exceptions import CheckpointError, InvalidInputError, NotFittedError
from captum_aml.maskers import AlignedMasker, EmbeddingMasker, SharedMasker, TransformerMasker
from captum_aml.perturbation import AttentionRemoval, ForwardState
from captum_aml.training import FitCallback
from tests._helpers.decoders import DECODERS, bpe_tokenizer, decoder_config, language_model
from tests._helpers.planted_lm import (
    VOCABULARY,
    PlantedLM,
    log_probability,
    planted_prompt,
    word_tokenizer,
)
from tests._helpers.text_models import bert_classifier, word_piece_tokenizer

PROMPT = "Text: the film was good Label:"
TARGET = " positive film"
EXPLANATIONS = (AMLAttribution, LAAttribution)


@pytest.fixture(scope="module")
def byte_level() -> PreTrainedTokenizerFast:
    return bpe_tokenizer(eos_token="<eos>")


@pytest.fixture(scope="module")
def metaspace() -> PreTrainedTokenizerFast:
    return bpe_tokenizer(metaspace=True)


@pytest.fixture(scope="module")
def llama(byte_level: PreTrainedTokenizerFast) -> PreTrainedModel:
    return language_model("llama", len(byte_level))


def planted(
    method: type[Any] = AMLAttribution, **settings: Any
) -> tuple[LLMAMLAttribution, PlantedLM]:
    model = PlantedLM()
    return LLMAMLAttribution(method(model, **settings), word_tokenizer()), model


def gemma(vocabulary_size: int) -> PreTrainedModel:
    """Its embeddings are scaled, and tied to what it reads its logits with."""
    torch.manual_seed(0)
    return GemmaForCausalLM(
        GemmaConfig(
            vocab_size=vocabulary_size,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            initializer_range=0.5,
            pad_token_id=None,
        )
    ).eval()


def plain_log_probs(model: nn.Module, prompt: list[int], target: list[int]) -> list[float]:
    """One token after the other, each by a pass of its own over everything before it."""
    values = []
    for place, token in enumerate(target):
        ids = torch.tensor([prompt + target[:place]])
        with torch.no_grad():
            logits = model(ids, use_cache=False).logits[0, -1]
        values.append(float(logits.double().log_softmax(dim=-1)[token]))
    return values


# --- the forward function -------------------------------------------------------------------------


class Wrapped(nn.Module):
    """Says nothing of the arguments that its model takes, as adapters do."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        assert kwargs["use_cache"] is False
        return self.model(*args, **kwargs)


@pytest.mark.parametrize("kind", [*DECODERS, "gemma", "llama wrapped"])
def test_log_probabilities_are_those_of_a_plain_loop(
    kind: str, byte_level: PreTrainedTokenizerFast
) -> None:
    n = len(byte_level)
    model = gemma(n) if kind == "gemma" else language_model(kind.removesuffix(" wrapped"), n)
    rows = [([5, 9, 40, 7], [3, 8, 100]), ([77, 2], [9]), ([4, 4, 90, 12, 1], [6, 2])]
    length = max(len(p) + len(t) for p, t in rows)
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    mask, target_mask = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
    expected = []
    for row, (prompt, target) in enumerate(rows):
        end = len(prompt) + len(target)
        ids[row, :end], mask[row, :end] = torch.tensor(prompt + target), 1
        target_mask[row, len(prompt) : end] = True
        expected.append(sum(plain_log_probs(model, prompt, target)) / len(target))
    function = TargetLogProbability(Wrapped(model) if "wrapped" in kind else model)
    with torch.no_grad():
        values = function(ids, mask, target_mask)
    # The kernels of a batch add up in another order.
    torch.testing.assert_close(values, torch.tensor(expected), atol=2e-5, rtol=1e-5)
    state = ForwardState(
        (torch.ones(ids.shape),), (torch.zeros(ids.shape),), (mask, target_mask), 0
    )
    for removal in (AttentionRemoval(), AttentionRemoval(causal=True)):
        args = removal(state, (torch.ones(ids.shape),)).args
        with torch.no_grad():
            values = function(ids, *args)
        torch.testing.assert_close(values, torch.tensor(expected), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", DECODERS)
def test_hidden_tokens_are_what_padding_is_to_the_model(
    kind: str, byte_level: PreTrainedTokenizerFast
) -> None:
    model = language_model(kind, len(byte_level))
    ids = torch.tensor([[5, 9, 40, 7, 3, 8]])
    target_mask = torch.tensor([[False] * 4 + [True] * 2])
    keep = torch.tensor([[0.0, 0.0, 1.0, 1.0, 1.0, 1.0]])
    state = ForwardState(
        (torch.ones(ids.shape),), (torch.zeros(ids.shape),), (torch.ones_like(ids), target_mask), 0
    )
    with torch.no_grad():
        logits = model(
            ids, attention_mask=keep.long(), position_ids=torch.arange(6).unsqueeze(0)
        ).logits
    expected = logits[0, 3:5].log_softmax(dim=-1)[[0, 1], [3, 8]].mean()
    for causal in (False, True):
        args = AttentionRemoval(causal=causal, floor=1e-30)(state, (keep,)).args
        with torch.no_grad():
            value = TargetLogProbability(model)(ids, *args)
        torch.testing.assert_close(value[0], expected, atol=1e-5, rtol=1e-5)


def test_log_probability_of_a_planted_answer_is_the_derived_one() -> None:
    model = PlantedLM().eval()
    words, _, answer = planted_prompt(8, seed=0)
    ids = torch.tensor([[VOCABULARY.index(word) for word in [*words, *answer.split()]]])
    target_mask = torch.zeros(ids.shape, dtype=torch.bool)
    target_mask[:, -2:] = True
    value = TargetLogProbability(model)(ids, torch.ones_like(ids), target_mask)
    expected = (log_probability(8) + log_probability(9)) / 2
    assert value.item() == pytest.approx(expected, abs=1e-5)


# --- what is found --------------------------------------------------------------------------------


def planted_rows(
    llm: LLMAMLAttribution, seed: int, **call: Any
) -> tuple[LLMAttributionResult, Tensor, Tensor]:
    """Scores (3, 8) of a planted answer as a whole and of its two tokens, and what decides them."""
    words, (colour, number), answer = planted_prompt(8, seed=seed)
    result = llm.attribute(" ".join(words), target=answer, **call)
    assert result.input_tokens == words
    assert result.output_tokens == answer.split()
    assert result.token_attr is not None
    deciding = torch.zeros(3, 8, dtype=torch.bool)
    deciding[[0, 0, 1, 2], [colour, number, colour, number]] = True
    return result, torch.cat([result.seq_attr.unsqueeze(0), result.token_attr]), deciding


@pytest.mark.parametrize("method", EXPLANATIONS)
@pytest.mark.parametrize("seed", range(3))
def test_planted_words_are_found(method: type[Any], seed: int) -> None:
    llm, _ = planted(method)
    result, rows, deciding = planted_rows(llm, seed)
    probabilities = torch.tensor([log_probability(8), log_probability(9)]).exp()
    torch.testing.assert_close(result.output_probs, probabilities, atol=1e-5, rtol=0)
    torch.testing.assert_close(rows[0].sum(), rows[1:].sum(dim=1).mean(), atol=1e-4, rtol=0)
    # The others take a little of the attention.
    assert float(rows[~deciding].abs().max()) < 0.1 * float(rows[deciding].min())


@pytest.mark.parametrize("settings", [{}, {"tune": "mask"}], ids=["proposed", "tuned"])
@pytest.mark.parametrize("method", EXPLANATIONS)
@pytest.mark.parametrize("seed", range(3))
def test_masks_keep_planted_words(method: type[Any], settings: dict[str, Any], seed: int) -> None:
    llm, _ = planted(method, multiply_by_inputs=False, **settings)
    _, rows, deciding = planted_rows(llm, seed, n_steps=50 if settings else None)
    assert bool(((rows >= 0) & (rows <= 1)).all())
    if settings:
        assert float(rows[deciding].min()) > 0.6
        assert float(rows[~deciding].max()) < 0.2
    else:
        assert float(rows[deciding].min()) > 0.5 > float(rows[~deciding].max())


@pytest.mark.parametrize("tunes", [False, True])
def test_long_answers_leave_the_inverse_term_a_signal(tunes: bool) -> None:
    # A probability of about one half for each of 20 tokens is a millionth for all of them, whose
    # complement LA could not change; their geometric mean it can.
    model = PlantedLM(says=3.0)
    settings: dict[str, Any] = {"scores": "mask", "tune": "mask"} if tunes else {}
    llm = LLMAMLAttribution(LAAttribution(model, **settings), word_tokenizer())
    words, places, answer = planted_prompt(8, seed=0)
    result = llm.attribute(
        " ".join(words), target=" ".join([answer] * 10), n_steps=50 if tunes else None
    )
    assert result.output_probs is not None
    assert float(result.output_probs.prod()) < 1e-5
    kept = result.seq_attr > 0.3  # tuned masks of the others are at 0.04
    assert set(kept.nonzero().flatten().tolist()) == set(places)


@pytest.mark.parametrize("kind", DECODERS)
@pytest.mark.parametrize("method", EXPLANATIONS)
def test_scores_sum_to_what_the_prompt_does_to_log_probabilities(
    kind: str, method: type[Any], byte_level: PreTrainedTokenizerFast
) -> None:
    model = language_model(kind, len(byte_level))
    llm = LLMAMLAttribution(method(model), byte_level)
    prompt, target = byte_level.encode(PROMPT), byte_level.encode(TARGET)
    result = llm.attribute(PROMPT, target=TARGET)
    assert result.token_attr is not None
    nothing = [byte_level.eos_token_id] * len(prompt)
    ends = [torch.tensor(plain_log_probs(model, ids, target)) for ids in (prompt, nothing)]
    change = ends[0] - ends[1]
    torch.testing.assert_close(result.token_attr.sum(dim=1), change, atol=1e-4, rtol=0)
    torch.testing.assert_close(result.seq_attr.sum(), change.mean(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("method", EXPLANATIONS)
def test_removal_through_attention_finds_the_word_of_each_token(method: type[Any]) -> None:
    llm, _ = planted(method, perturbation="causal-attention")
    words, places, answer = planted_prompt(8, seed=0)
    inp = TextTemplateInput("a " + "{} " * 8 + "b", values=words)
    result = llm.attribute(inp, target=answer)
    assert result.token_attr is not None
    assert result.token_attr.argmax(dim=1).tolist() == list(places)


def explained_alone(
    model: PreTrainedModel, method: type[Any], prompt: TextTokenInput, target: list[int]
) -> Tensor:
    """The last token's explanation, by the attribution itself, of a function of embeddings."""
    embed = model.get_input_embeddings()
    ids, table = prompt.inp_tensor, embed.weight.detach()

    def log_probability_of_last(embeddings: Tensor) -> Tensor:
        following = table[torch.tensor(target)].expand(embeddings.shape[0], -1, -1)
        logits = model(inputs_embeds=torch.cat([embeddings, following], dim=1)).logits
        return logits[:, -2].log_softmax(dim=-1)[:, target[-1]]

    # A function of embeddings has no attention mask to hide them from.
    attribution = method(log_probability_of_last, output="log_probability", perturbation="blend")
    baselines = torch.full_like(ids, prompt.baselines)
    scores = attribution.attribute(table[ids], baselines=table[baselines], n_steps=10)
    return scores.sum(dim=-1)[0]


@pytest.mark.parametrize("method", EXPLANATIONS)
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_token_is_explained_as_it_would_be_alone(
    kind: str, method: type[Any], byte_level: PreTrainedTokenizerFast
) -> None:
    model = language_model(kind, len(byte_level))
    prompt = TextTokenInput(PROMPT, byte_level, baselines=byte_level.eos_token_id)
    target = byte_level.encode(TARGET)
    llm = LLMAMLAttribution(method(model, perturbation="blend"), byte_level)
    result = llm.attribute(prompt, target=TARGET, n_steps=10)
    assert result.token_attr is not None
    for token in range(len(target)):
        alone = explained_alone(model, method, prompt, target[: token + 1])
        torch.testing.assert_close(result.token_attr[token], alone, atol=1e-4, rtol=0)


def test_one_target_token_has_one_explanation(
    llama: PreTrainedModel, byte_level: PreTrainedTokenizerFast
) -> None:
    llm = LLMAMLAttribution(AMLAttribution(llama), byte_level)
    first = torch.tensor(byte_level.encode(TARGET)[:1])
    one = llm.attribute(PROMPT, target=first, n_steps=10)
    several = llm.attribute(PROMPT, target=TARGET, n_steps=10)
    assert one.token_attr is not None
    assert several.token_attr is not None
    torch.testing.assert_close(one.token_attr[0], one.seq_attr, atol=0, rtol=0)
    torch.testing.assert_close(one.seq_attr, several.token_attr[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("perturbation", ["auto", "blend", "causal-attention"])
def test_parts_of_a_batch_give_what_the_batch_gives(
    perturbation: str, llama: PreTrainedModel, byte_level: PreTrainedTokenizerFast
) -> None:
    llm = LLMAMLAttribution(AMLAttribution(llama, perturbation=perturbation), byte_level)
    inp = TextTokenInput(PROMPT, byte_level, skip_tokens=byte_level.encode(PROMPT)[:1])
    whole = llm.attribute(inp, target=TARGET, n_steps=10)
    assert whole.token_attr is not None
    for most in (1, 2, 7):
        n_rows: list[int] = []
        handle = llama.register_forward_hook(
            lambda _, __, output, seen=n_rows: seen.append(len(output.logits))
        )
        parts = llm.attribute(inp, target=TARGET, n_steps=10, internal_batch_size=most)
        handle.remove()
        assert max(n_rows) == (most if most < 7 else 6)  # two masks of three rows
        torch.testing.assert_close(parts.output_probs, whole.output_probs, atol=1e-5, rtol=0)
        torch.testing.assert_close(parts.token_attr, whole.token_attr, atol=1e-4, rtol=0)
        torch.testing.assert_close(parts.seq_attr, whole.seq_attr, atol=1e-4, rtol=0)


def test_contributions_sum_to_the_difference_of_log_probabilities() -> None:
    llm, model = planted()
    words, _, answer = planted_prompt(8, seed=1)
    result = llm.attribute(" ".join(words), target=answer)
    expected = (log_probability(8) + log_probability(9)) / 2
    nothing = torch.tensor([[0] * 8 + [VOCABULARY.index(word) for word in answer.split()]])
    with torch.no_grad():
        log_probs = model.eval()(nothing, use_cache=False).logits[0, 7:9].log_softmax(dim=-1)
    removed = float(log_probs[[0, 1], nothing[0, 8:]].mean())
    assert float(result.seq_attr.sum()) == pytest.approx(expected - removed, abs=1e-4)


def test_half_precision_gives_scores_in_float32(byte_level: PreTrainedTokenizerFast) -> None:
    model = language_model("llama", len(byte_level)).to(torch.bfloat16)
    for perturbation in ("blend", "causal-attention"):
        inp = TextTemplateInput("Text: {} film was {}", values=["the", "good"])
        method = AMLAttribution(model, perturbation=perturbation)
        result = LLMAMLAttribution(method, byte_level).attribute(inp, target=TARGET, n_steps=4)
        assert result.seq_attr.dtype == torch.float32
        assert bool(result.seq_attr.isfinite().all())
        method = AMLAttribution(model, perturbation=perturbation, scores="mask")
        result = LLMAMLAttribution(method, byte_level).attribute(inp, target=TARGET, n_steps=4)
        assert result.seq_attr.dtype == torch.float32
        assert bool(((result.seq_attr >= 0) & (result.seq_attr <= 1)).all())


# --- how prompts are read -------------------------------------------------------------------------


class Spy:
    """Records what reaches the forward function."""

    def __init__(self, llm: LLMAMLAttribution) -> None:
        self.calls: list[dict[str, Any]] = []
        attribute = llm.attr_method.attribute

        def spy(**call: Any) -> Any:
            self.calls.append(call)
            return attribute(**call)

        llm.attr_method.attribute = spy

    def tokens(self, tokenizer: PreTrainedTokenizerFast) -> list[tuple[str, str, int]]:
        """The first row's tokens: as they are, removed, and the feature they belong to.

        Up to the target, without the token that follows it.
        """
        (call,) = self.calls
        ids, reference, groups = (call[k][0] for k in ("inputs", "baselines", "feature_mask"))
        _, target_mask = call["additional_forward_args"]
        start = int(target_mask[0].nonzero()[0])
        assert torch.equal(ids[start:], reference[start:])
        return [
            (tokenizer.decode([i]), tokenizer.decode([r]), f)
            for i, r, f in zip(ids.tolist(), reference.tolist(), groups.tolist(), strict=True)
        ][:-1]


def read_by(
    inp: Any, tokenizer: PreTrainedTokenizerFast, **settings: Any
) -> tuple[list[tuple[str, str, int]], LLMAttributionResult]:
    model = language_model("llama", len(tokenizer))
    llm = LLMAMLAttribution(AMLAttribution(model), tokenizer, **settings)
    spy = Spy(llm)
    result = llm.attribute(inp, target=torch.tensor([7]), n_steps=2)
    return spy.tokens(tokenizer), result


def words_read(inp: Any, **settings: Any) -> tuple[list[tuple[str, str, int]], Any]:
    """Of words that are tokens; the last one is the target."""
    llm = LLMAMLAttribution(AMLAttribution(PlantedLM()), word_tokenizer(), **settings)
    spy = Spy(llm)
    result = llm.attribute(inp, target="RED", n_steps=2)
    return spy.tokens(word_tokenizer()), result


def test_only_values_of_a_template_are_masked() -> None:
    inp = TextTemplateInput("a {} b {} c", values=["red d", "one"])
    tokens, result = words_read(inp)
    assert tokens == [
        ("a", "a", 2),
        ("red", "<unk>", 0),
        ("d", "<unk>", 0),
        ("b", "b", 2),
        ("one", "<unk>", 1),
        ("c", "c", 2),
        ("RED", "RED", 2),
    ]
    assert result.input_tokens == ["red d", "one"]
    assert result.seq_attr.shape == (2,)


def test_equal_values_and_values_within_others_are_told_apart() -> None:
    inp = TextTemplateInput("red {} a {} {}", values=["red", "red a red", "a"])
    tokens, _ = words_read(inp)
    assert [feature for _, _, feature in tokens] == [3, 0, 3, 1, 1, 1, 2, 3]


def test_values_shown_twice_or_out_of_order_are_found() -> None:
    inp = TextTemplateInput("{1} a {0} b {1}", values=["red", "one two"])
    tokens, _ = words_read(inp)
    assert [feature for _, _, feature in tokens] == [1, 1, 2, 0, 2, 1, 1, 2]


@pytest.mark.parametrize(
    "template",
    [
        "a {colour} b {number}",
        lambda colour, number: f"a {colour} b {number}",
        lambda colour, number: f"a {colour.lower().strip()} b {number:>3}",
    ],
)
def test_named_values_and_functions(template: str | Callable[..., str]) -> None:
    values = {"number": "one", "colour": "red"}
    tokens, result = words_read(TextTemplateInput(template, values=values))
    assert [feature for _, _, feature in tokens] == [2, 1, 2, 0, 2]
    assert result.input_tokens == ["one", "red"]


def test_values_that_a_function_changes_are_found() -> None:
    inp = TextTemplateInput(lambda c: f"a {c.lower().strip()} b", values=[" RED "])
    tokens, _ = words_read(inp)
    assert [text for text, removed, _ in tokens if removed == "<unk>"] == ["red"]


def test_grouped_values_are_masked_together() -> None:
    inp = TextTemplateInput("{} a {} {}", values=["red", "one", "b"], mask=[5, 2, 5])
    tokens, result = words_read(inp)
    groups = [feature for _, _, feature in tokens]
    assert groups[0] == groups[3] != groups[2]
    assert result.seq_attr.shape == (3,)
    assert result.seq_attr[0] == result.seq_attr[2] != result.seq_attr[1]
    named = TextTemplateInput(
        "{x} a {y} {z}", values={"x": "red", "y": "one", "z": "b"}, mask={"x": 5, "y": 2, "z": 5}
    )
    torch.testing.assert_close(words_read(named)[1].seq_attr, result.seq_attr, atol=0, rtol=0)


def test_a_group_has_the_score_that_its_words_need() -> None:
    inp = TextTemplateInput("{} {} {} {}", values=["a", "red", "b", "one"], mask=[0, 1, 0, 1])
    for method in (
        AMLAttribution(PlantedLM()),
        AMLAttribution(PlantedLM(), scores="mask", tune="mask"),
    ):
        llm = LLMAMLAttribution(method, word_tokenizer())
        result = llm.attribute(inp, target="RED ONE", n_steps=50)
        assert result.token_attr is not None
        assert bool((result.token_attr[:, [1, 3]] > 0.6).all())
        assert bool((result.token_attr[:, [0, 2]] < 0.2).all())


def test_baseline_strings_are_cut_or_filled_with_the_baseline_token() -> None:
    inp = TextTemplateInput(
        "{} {} {} {}",
        values=["red a b", "one", "c d", "e"],
        baselines=["blue", "two a b", "", "f"],
    )
    removed = ["blue", "<unk>", "<unk>", "two", "<unk>", "<unk>", "f"]
    assert [r for _, r, _ in words_read(inp)[0]][:-1] == removed
    named = [r for _, r, _ in words_read(inp, baseline="h")[0]][:-1]
    assert named == [{"<unk>": "h"}.get(token, token) for token in removed]


@pytest.mark.parametrize("values", [["red", "one"], {"x": "red", "y": "one"}])
def test_baselines_may_come_from_a_function(values: Any) -> None:
    named = isinstance(values, dict)
    inp = TextTemplateInput(
        "{x} a {y}" if named else "{} a {}",
        values=values,
        baselines=(lambda: {"y": "two", "x": "blue"}) if named else (lambda: ["blue", "two"]),
    )
    assert [r for _, r, _ in words_read(inp)[0]] == ["blue", "a", "two", "RED"]


def test_an_unchanged_value_and_an_empty_one_score_nothing() -> None:
    inp = TextTemplateInput("a {} {} {}", values=["red", "", "b"], baselines=["blue", "c", "b"])
    _, result = words_read(inp)
    assert result.seq_attr[0] > 0
    assert result.seq_attr[1:].tolist() == [0.0, 0.0]


def test_tokens_at_a_border_belong_to_the_value_they_overlap(
    metaspace: PreTrainedTokenizerFast,
) -> None:
    tokens, _ = read_by(TextTemplateInput("Text: {} film", values=["a gripping"]), metaspace)
    text = "".join(token for token, _, feature in tokens if feature == 0)
    assert "gripping" in text
    assert tokens[0][:2] == ("<s>", "<s>")
    assert all(token == removed for token, removed, feature in tokens if feature != 0)


def test_a_token_of_two_values_belongs_to_the_one_with_most_of_it() -> None:
    # Words are not split: "red" is one token.
    inp = TextTemplateInput("a {}{} {}", values=["r", "ed", "b"])
    tokens, result = words_read(inp)
    assert [(token, feature) for token, _, feature in tokens] == [
        ("a", 3),
        ("red", 1),
        ("b", 2),
        ("RED", 3),
    ]
    # It adds up to what the token contributes.
    assert result.seq_attr[0] == result.seq_attr[1] != result.seq_attr[2]
    llm, _ = planted()
    token = llm.attribute(
        TextTemplateInput("a {} {}", values=["red", "b"]), target="RED", n_steps=2
    )
    torch.testing.assert_close(result.seq_attr[:2].sum(), token.seq_attr[0])
    llm, _ = planted(scores="mask")
    result, token = (
        llm.attribute(each, target="RED", n_steps=2)
        for each in (inp, TextTemplateInput("a {} {}", values=["red", "b"]))
    )
    assert result.seq_attr.tolist() == token.seq_attr[[0, 0, 1]].tolist()
    other = TextTemplateInput("a {}{} {}", values=["re", "d", "b"], baselines=["two ", "one", "c"])
    tokens, result = words_read(other)
    assert [removed for _, removed, _ in tokens] == ["a", "two", "c", "RED"]
    assert [feature for _, _, feature in tokens] == [3, 0, 2, 3]
    assert result.seq_attr[0] == result.seq_attr[1]


@pytest.mark.parametrize("value", ["日本の映画", "é👍🏽e\u0301", "עברית", "Ġ▁ <s>"])
def test_every_token_of_a_value_in_any_script_is_its_own(
    value: str, byte_level: PreTrainedTokenizerFast
) -> None:
    inp = TextTemplateInput("Text:{}Label:{}", values=[value, "x"])
    tokens, _ = read_by(inp, byte_level)
    inside = byte_level.encode(value)
    features = [feature for _, _, feature in tokens]
    start = len(byte_level.encode("Text:"))
    assert features[start : start + len(inside)] == [0] * len(inside)
    assert features.count(0) == len(inside)


def test_skipped_tokens_and_the_baseline_of_a_token_input() -> None:
    tokenizer = word_tokenizer()
    for skip, baseline in ((["a", "c"], "h"), ([VOCABULARY.index("a"), VOCABULARY.index("c")], 17)):
        inp = TextTokenInput("a red c one", tokenizer, skip_tokens=skip, baselines=baseline)
        tokens, result = words_read(inp)
        assert [(t, r) for t, r, _ in tokens] == [
            ("a", "a"),
            ("red", "h"),
            ("c", "c"),
            ("one", "h"),
            ("RED", "RED"),
        ]
        assert result.input_tokens == ["red", "one"]
        assert result.seq_attr.shape == (2,)


def test_special_tokens_of_a_plain_string_are_no_features(
    metaspace: PreTrainedTokenizerFast,
) -> None:
    tokens, result = read_by("the film was good", metaspace)
    assert tokens[0][:2] == ("<s>", "<s>")
    assert all(removed == "<unk>" for _, removed, _ in tokens[1:-1])
    assert len(result.input_tokens) == len(tokens) - 2
    inp = TextTokenInput("the film was good", metaspace, baselines="<unk>", skip_tokens=["<s>"])
    torch.testing.assert_close(read_by(inp, metaspace)[1].seq_attr, result.seq_attr)


# --- targets --------------------------------------------------------------------------------------


def test_what_the_model_writes_is_explained_without_a_target(
    llama: PreTrainedModel, byte_level: PreTrainedTokenizerFast
) -> None:
    llm = LLMAMLAttribution(AMLAttribution(llama), byte_level)
    ids = torch.tensor([byte_level.encode(PROMPT)])
    written = llama.generate(ids, max_new_tokens=4, do_sample=False)[0, ids.shape[1] :]
    own = llm.attribute(PROMPT, gen_args={"max_new_tokens": 4, "do_sample": False}, n_steps=4)
    given = llm.attribute(PROMPT, target=written, n_steps=4)
    assert own.output_tokens == given.output_tokens
    torch.testing.assert_close(own.token_attr, given.token_attr, atol=0, rtol=0)
    assert len(llm.attribute(PROMPT, n_steps=2).output_tokens) == 25  # Captum's default


def test_sampled_targets_are_the_same_again(
    llama: PreTrainedModel, byte_level: PreTrainedTokenizerFast
) -> None:
    sampling = {"max_new_tokens": 6, "do_sample": True, "temperature": 1.5}

    def sampled(seed: int) -> LLMAttributionResult:
        llm = LLMAMLAttribution(AMLAttribution(llama, seed=seed), byte_level)
        return llm.attribute(PROMPT, gen_args=sampling, n_steps=4)

    first, again, other = sampled(0), sampled(0), sampled(1)
    assert first.output_tokens == again.output_tokens != other.output_tokens
    torch.testing.assert_close(first.token_attr, again.token_attr, atol=0, rtol=0)


def test_a_target_may_be_text_or_its_ids(
    llama: PreTrainedModel, metaspace: PreTrainedTokenizerFast
) -> None:
    model = language_model("llama", len(metaspace))
    llm = LLMAMLAttribution(AMLAttribution(model), metaspace)
    ids = metaspace.encode("positive", add_special_tokens=False)
    text = llm.attribute("the film", target="positive", n_steps=2)
    given = llm.attribute("the film", target=torch.tensor(ids, dtype=torch.int32), n_steps=2)
    assert len(text.output_tokens) == len(ids)
    torch.testing.assert_close(text.token_attr, given.token_attr, atol=0, rtol=0)


def test_answers_that_end_within_a_character_are_shown(
    llama: PreTrainedModel, byte_level: PreTrainedTokenizerFast
) -> None:
    half = byte_level.encode("é")[:1]
    llm = LLMAMLAttribution(AMLAttribution(llama), byte_level)
    result = llm.attribute(PROMPT, target=torch.tensor(half), n_steps=2)
    assert len(result.output_tokens) == 1


# --- beside Captum's ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", DECODERS)
def test_captums_calls_run_with_the_name_changed(
    kind: str, byte_level: PreTrainedTokenizerFast
) -> None:
    model = language_model(kind, len(byte_level))
    wrappers: list[Any] = [
        LLMAttribution(FeatureAblation(model), byte_level),
        LLMAMLAttribution(AMLAttribution(model), byte_level),
        LLMAMLAttribution(LAAttribution(model), byte_level),
    ]
    template = TextTemplateInput(
        template="{} lives in {}, {} and is a {}. {} personal interests include",
        values=["Dave", "Palm Coast", "FL", "lawyer", "His"],
        baselines=["Sarah", "Seattle", "WA", "doctor", "Her"],
        mask=[0, 1, 1, 2, 0],
    )
    tokens = TextTokenInput(PROMPT, byte_level, skip_tokens=byte_level.encode("Label:"))
    for inp in (template, tokens):
        results = [
            wrapper.attribute(
                inp, TARGET, 1, None, use_cached_outputs=False, forward_in_tokens=False
            )
            for wrapper in wrappers
        ]
        captums = results[0]
        for result in results[1:]:
            assert isinstance(result, LLMAttributionResult)
            assert result.input_tokens == captums.input_tokens
            assert result.output_tokens == captums.output_tokens
            assert result.seq_attr.shape == captums.seq_attr.shape
            assert result.token_attr.shape == captums.token_attr.shape
            assert result.inp is inp
            assert list(result.seq_attr_dict) == list(captums.seq_attr_dict)


def test_the_call_of_captums_gradient_methods_runs_with_the_name_changed(
    llama: PreTrainedModel, byte_level: PreTrainedTokenizerFast
) -> None:
    inp = TextTokenInput(PROMPT, byte_level, skip_tokens=byte_level.encode("Label:"))
    layer = llama.get_input_embeddings()
    captums = LLMGradientAttribution(LayerIntegratedGradients(llama, layer), byte_level).attribute(
        inp, target=TARGET, n_steps=2
    )
    ours = LLMAMLAttribution(AMLAttribution(llama), byte_level).attribute(
        inp, target=TARGET, n_steps=2
    )
    assert ours.token_attr is not None
    assert ours.token_attr.shape == captums.token_attr.shape
    assert (ours.input_tokens, ours.output_tokens) == (captums.input_tokens, captums.output_tokens)


def test_both_find_the_planted_words() -> None:
    words, places, answer = planted_prompt(6, seed=5)
    model, tokenizer = PlantedLM().eval(), word_tokenizer()
    inp = TextTokenInput(" ".join(words), tokenizer)
    ours = LLMAMLAttribution(AMLAttribution(model), tokenizer).attribute(inp, target=answer)
    captums = LLMAttribution(FeatureAblation(model), tokenizer).attribute(
        inp, target=answer, use_cached_outputs=False, forward_in_tokens=True
    )
    for result in (ours, captums):
        assert result.token_attr is not None
        assert result.token_attr.argmax(dim=1).tolist() == list(places)


def test_plots_are_drawn(tmp_path: Path) -> None:
    plt = pytest.importorskip("matplotlib.pyplot")
    llm, _ = planted()
    result = llm.attribute("a red one b", target="RED ONE", n_steps=4)
    before = plt.get_fignums()
    for number, plot in enumerate((result.plot_token_attr, result.plot_seq_attr)):
        figure, axes = plot()
        figure.savefig(tmp_path / f"{number}.png")
        assert [label.get_text() for label in axes.get_xticklabels()] == result.input_tokens
        plt.close(figure)
        assert (tmp_path / f"{number}.png").stat().st_size > 1000
    assert plt.get_fignums() == before


# --- nothing of the caller's changes --------------------------------------------------------------


def state_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "training": [m.training for m in model.modules()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "gradients": [p.grad for p in model.parameters()],
        "weights": [p.detach().double().sum().item() for p in model.parameters()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        "config": model.config.to_dict(),
        "generation": model.generation_config.to_dict(),
        "padding": (tokenizer.padding_side, tokenizer.truncation_side, len(tokenizer)),
        "random": torch.get_rng_state().tolist(),
        "grad mode": torch.is_grad_enabled(),
    }


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("use_cache", [True, False])
def test_model_and_tokenizer_stay_as_they_are(
    fails: bool, use_cache: bool, byte_level: PreTrainedTokenizerFast
) -> None:
    model = language_model("llama", len(byte_level))
    model.config.use_cache = model.generation_config.use_cache = use_cache
    model.train()
    model.model.layers[0].eval()
    next(model.parameters()).requires_grad_(False)
    method = AMLAttribution(model, perturbation="causal-attention")
    llm = LLMAMLAttribution(method, byte_level)
    if fails:

        def failing(*_: Any, **__: Any) -> Any:
            raise RuntimeError("planted")

        model.lm_head.forward = failing
    before = state_of(model, byte_level)
    own = dict(vars(method))
    inp = TextTemplateInput("Text: {} film was {}", values=["the", "good"])
    for call in (
        lambda: llm.attribute(inp, gen_args={"max_new_tokens": 2}, n_steps=2),
        lambda: llm.attribute(inp, target=TARGET, n_steps=2),
        lambda: llm.fit([inp] * 2, [TARGET] * 2, epochs=1),
    ):
        if fails:
            with pytest.raises(Exception, match="planted"):
                call()
        else:
            call()
        assert state_of(model, byte_level) == before
    assert vars(method) == own


def test_dropout_and_gradients_of_weights_are_off_inside() -> None:
    llm, model = planted()
    prompt, target = "a red one b", "RED ONE"
    expected = llm.attribute(prompt, target=target, n_steps=6)
    seen = []
    handle = model.register_forward_hook(
        lambda *_: seen.append((model.training, model.embedding.weight.requires_grad))
    )
    for training in (True, False):
        model.train(training)
        result = llm.attribute(prompt, target=target, n_steps=6)
        assert model.training is model.dropout.training is training
        assert model.embedding.weight.requires_grad
        torch.testing.assert_close(result.token_attr, expected.token_attr, atol=0, rtol=0)
    handle.remove()
    assert set(seen) == {(False, False)}


def test_runs_inside_inference_mode(
    llama: PreTrainedModel, byte_level: PreTrainedTokenizerFast
) -> None:
    llm = LLMAMLAttribution(AMLAttribution(llama), byte_level)
    expected = llm.attribute(TextTokenInput(PROMPT, byte_level), target=TARGET, n_steps=4)
    with torch.inference_mode():
        inp = TextTokenInput(PROMPT, byte_level)
        result = llm.attribute(inp, target=torch.tensor(byte_level.encode(TARGET)), n_steps=4)
    torch.testing.assert_close(result.token_attr, expected.token_attr, atol=0, rtol=0)


# --- fitted maskers -------------------------------------------------------------------------------


def planted_data(n: int, start: int) -> tuple[list[str], list[str]]:
    found = [planted_prompt(5 + seed % 4, seed=seed) for seed in range(start, start + n)]
    return [" ".join(words) for words, _, _ in found], [answer for _, _, answer in found]


def test_a_fitted_masker_finds_planted_words_in_one_pass(tmp_path: Path) -> None:
    model = PlantedLM()
    shared = SharedMasker.from_model(
        model, layers=["embedding"], state_size=16, n_classes=2, width=32
    )
    val_prompts, val_targets = planted_data(8, 500)
    prompts, targets = planted_data(96, 100)
    llm = LLMAMLAttribution(AMLAttribution(model, masker=shared), word_tokenizer()).fit(
        prompts,
        targets,
        val_prompts=val_prompts,
        val_targets=val_targets,
        batch_size=12,
        epochs=40,
        learning_rate=5e-3,
    )
    assert llm.is_fitted
    assert llm.attr_method.history_[-1].validation is not None
    for seed in range(5):
        words, places, answer = planted_prompt(9, seed=seed)
        result = llm.attribute(" ".join(words), target=answer)
        # It sees what is explained: a token, with which the row ends, or the whole answer.
        rows = torch.cat([result.seq_attr.unsqueeze(0), result.token_attr])
        kept = [set((row > 0.5).nonzero().flatten().tolist()) for row in rows]
        assert kept == [set(places), {places[0]}, {places[1]}]
    llm.save_pretrained(tmp_path)
    loaded = LLMAMLAttribution.from_pretrained(
        tmp_path,
        model,
        word_tokenizer(),
        masker=SharedMasker.from_model(
            model, layers=["embedding"], state_size=16, n_classes=2, width=32
        ),
    )
    again = loaded.attribute(" ".join(words), target=answer)
    torch.testing.assert_close(again.token_attr, result.token_attr, atol=0, rtol=0)
    torch.testing.assert_close(again.seq_attr, result.seq_attr, atol=0, rtol=0)


class Stopping(FitCallback):
    """Ends a run after its second epoch, as a crash would."""

    epochs = 0

    def on_epoch_end(self, *_: Any) -> None:
        self.epochs += 1
        if self.epochs == 2:
            raise RuntimeError("stopped")


def test_a_resumed_fit_ends_with_the_same_weights(tmp_path: Path) -> None:
    prompts, targets = planted_data(24, 100)

    def fit(callbacks: tuple[FitCallback, ...] = (), **settings: Any) -> dict[str, Tensor]:
        llm = LLMAMLAttribution(AMLAttribution(PlantedLM()), word_tokenizer())
        llm.fit(prompts, targets, callbacks=callbacks, epochs=3, learning_rate=1e-2, **settings)
        assert llm.attr_method.masker_ is not None
        return llm.attr_method.masker_.state_dict()

    whole = fit()
    with pytest.raises(RuntimeError, match="stopped"):
        fit((Stopping(),), checkpoint_dir=tmp_path)
    resumed = fit(checkpoint_dir=tmp_path, resume=True)
    for name, weight in whole.items():
        assert torch.equal(resumed[name], weight), name


def test_the_best_weights_may_be_chosen_by_a_metric() -> None:
    prompts, targets = planted_data(24, 100)
    llm = LLMAMLAttribution(AMLAttribution(PlantedLM()), word_tokenizer())
    llm.fit(
        prompts,
        targets,
        val_prompts=prompts[:8],
        val_targets=targets[:8],
        epochs=4,
        learning_rate=1e-2,
        select_by="comprehensiveness",
    )
    figures = [epoch.validation["comprehensiveness"] for epoch in llm.attr_method.history_]
    assert max(figures) > 0.3
    assert llm.attr_method.fit_summary_.best.value == max(figures)


@pytest.mark.parametrize("kind", DECODERS)
def test_hidden_states_are_read_without_a_masker_of_ones_own(
    kind: str, byte_level: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = language_model(kind, len(byte_level))
    llm = LLMAMLAttribution(LAAttribution(model, scores="mask"), byte_level)
    prompts = [PROMPT, TextTemplateInput("{} and {}", values=["a dull plot", "the film"])]
    llm.fit(prompts, gen_args={"max_new_tokens": 3}, epochs=2)
    assert isinstance(llm.attr_method.masker_, SharedMasker)
    results = [llm.attribute(prompt, target=TARGET) for prompt in prompts]
    assert all(bool((r.token_attr > 0).all()) for r in results)
    llm.save_pretrained(tmp_path)
    loaded = LLMAMLAttribution.from_pretrained(tmp_path, model, byte_level, scores="mask")
    assert isinstance(loaded.attr_method, LAAttribution)
    for prompt, result in zip(prompts, results, strict=True):
        again = loaded.attribute(prompt, target=TARGET)
        torch.testing.assert_close(again.token_attr, result.token_attr, atol=0, rtol=0)
    tuned = loaded.attribute(PROMPT, target=TARGET, n_steps=2)
    assert tuned.seq_attr.shape == results[0].seq_attr.shape
    with pytest.raises(CheckpointError, match="fitted for"):
        LLMAMLAttribution.from_pretrained(
            tmp_path, language_model(kind, len(byte_level), seed=1), byte_level
        )


def test_an_encoder_with_another_tokenizer_explains_what_a_decoder_writes(
    byte_level: PreTrainedTokenizerFast, llama: PreTrainedModel, tmp_path: Path
) -> None:
    own = word_piece_tokenizer()
    encoder = TransformerMasker.from_model(bert_classifier(len(own)), n_classes=2)
    masker = AlignedMasker(encoder, tokenizer=byte_level, masker_tokenizer=own)
    llm = LLMAMLAttribution(AMLAttribution(llama, masker=masker), byte_level)
    prompts = ["the film was good", TextTemplateInput("{} and {}", values=["a plot", "the film"])]
    llm.fit(prompts, [TARGET, TARGET], epochs=1)
    results = [llm.attribute(prompt, target=TARGET) for prompt in prompts]
    llm.save_pretrained(tmp_path)
    loaded = LLMAMLAttribution.from_pretrained(tmp_path, llama, byte_level)
    assert isinstance(loaded.attr_method.masker_, AlignedMasker)
    for prompt, result in zip(prompts, results, strict=True):
        again = loaded.attribute(prompt, target=TARGET)
        torch.testing.assert_close(again.seq_attr, result.seq_attr, atol=0, rtol=0)
        assert bool((result.seq_attr > 0).all())


def test_without_layers_the_methods_own_masker_is_made() -> None:
    llm = LLMAMLAttribution(AMLAttribution(PlantedLM()), word_tokenizer())
    prompts, targets = planted_data(48, 100)
    llm.fit(prompts, targets, batch_size=12, epochs=8, learning_rate=1e-2)
    assert isinstance(llm.attr_method.masker_, EmbeddingMasker)
    words, places, answer = planted_prompt(9, seed=0)
    result = llm.attribute(" ".join(words), target=answer)
    assert set(result.seq_attr.topk(2).indices.tolist()) == set(places)


@pytest.mark.parametrize("method", EXPLANATIONS)
def test_both_methods_are_explained_fitted_saved_and_loaded(
    method: type[Any], tmp_path: Path
) -> None:
    llm, model = planted(method)
    name = f"LLM {method.get_name()}"
    assert llm.get_name() == name
    with pytest.raises(NotImplementedError, match=f"for {name}$"):
        llm.attribute_future()
    prompts, targets = planted_data(48, 100)
    llm.fit(prompts, targets, batch_size=12, epochs=8, learning_rate=1e-2, loss="regression")
    assert isinstance(llm.attr_method, method)
    assert llm.get_name() == name
    words, places, answer = planted_prompt(9, seed=0)
    result = llm.attribute(" ".join(words), target=answer)
    assert set(result.seq_attr.topk(2).indices.tolist()) == set(places)
    llm.save_pretrained(tmp_path)
    for scores in ("contribution", "mask"):
        loaded = LLMAMLAttribution.from_pretrained(
            tmp_path, model, word_tokenizer(), scores=scores, seed=5
        )
        assert isinstance(loaded.attr_method, method)
        assert loaded.get_name() == name
        assert (loaded.attr_method.scores, loaded.attr_method.seed) == (scores, 5)
        assert type(loaded.attr_method.objective) is type(llm.attr_method.objective)
        llm.attr_method.scores = scores
        result = llm.attribute(" ".join(words), target=answer)
        again = loaded.attribute(" ".join(words), target=answer)
        torch.testing.assert_close(again.seq_attr, result.seq_attr, atol=0, rtol=0)


def test_an_objective_of_ones_own_is_given_when_a_masker_is_loaded(tmp_path: Path) -> None:
    class Mine(AMLObjective):
        pass

    llm, model = planted(objective=Mine())
    llm.fit(*planted_data(12, 100), epochs=1).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="pass it as objective="):
        LLMAMLAttribution.from_pretrained(tmp_path, model, word_tokenizer())
    loaded = LLMAMLAttribution.from_pretrained(
        tmp_path, model, word_tokenizer(), objective=Mine(), output="logits"
    )
    assert isinstance(loaded.attr_method.objective, Mine)
    assert loaded.attr_method.output == "log_probability"


def test_one_pass_needs_a_fitted_masker(
    llama: PreTrainedModel, byte_level: PreTrainedTokenizerFast
) -> None:
    llm = LLMAMLAttribution(AMLAttribution(llama), byte_level)
    assert not llm.is_fitted
    with pytest.raises(NotFittedError, match="n_steps=0"):
        llm.attribute(PROMPT, target=TARGET, n_steps=0)
    with pytest.raises(NotFittedError, match="nothing to save"):
        llm.save_pretrained("nowhere")


def test_a_masker_for_classes_is_refused(tmp_path: Path) -> None:
    def forward(x: Tensor) -> Tensor:
        return torch.stack([x.sum(dim=(1, 2)), x[:, 0, 0]], dim=1)

    method = AMLAttribution(forward)
    method.fit([torch.randn(4, 3, 2)], epochs=1)
    method.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="LLMAMLAttribution"):
        LLMAMLAttribution.from_pretrained(tmp_path, PlantedLM(), word_tokenizer())


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: FeatureAblation(m), "FeatureAblation; captum.attr.LLMAttribution takes it"),
        (
            lambda m: LayerIntegratedGradients(m, m.get_input_embeddings()),
            "LayerIntegratedGradients; captum.attr.LLMGradientAttribution takes it",
        ),
        (lambda m: LayerAMLAttribution(m, m.get_input_embeddings()), "got LayerAMLAttribution"),
        (lambda m: AMLAttribution, "got AMLAttribution"),
        (lambda m: AMLAttribution(lambda ids: ids), "made with the language model itself"),
        (lambda m: AMLAttribution(nn.Linear(2, 2)), "embedding_layer: expected the layer"),
        (lambda m: AMLAttribution(language_model("t5", 20)), "an encoder-decoder"),
    ],
)
def test_methods_that_do_not_fit_are_refused(make: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        LLMAMLAttribution(make(PlantedLM()), word_tokenizer())


class SlowTokenizer:
    """As Captum takes it, without offsets."""

    unk_token_id = 0

    def encode(self, text: str, **_: Any) -> Any:
        ids = word_tokenizer().encode(text)
        return torch.tensor([ids]) if "return_tensors" in _ else ids

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [VOCABULARY[i] for i in ids]

    def decode(self, ids: Any) -> str:
        return word_tokenizer().decode(ids)

    def __call__(self, text: str, **settings: Any) -> Any:
        raise NotImplementedError("return_offset_mapping is not available")


def test_slow_tokenizers_do_for_tokens_and_not_for_templates() -> None:
    llm = LLMAMLAttribution(AMLAttribution(PlantedLM()), SlowTokenizer())
    result = llm.attribute(TextTokenInput("a red one", SlowTokenizer()), target="RED", n_steps=2)
    assert (result.input_tokens, result.output_tokens) == (["a", "red", "one"], ["RED"])
    with pytest.raises(InvalidInputError, match=r"fast tokenizer.*slow SlowTokenizer"):
        llm.attribute(TextTemplateInput("a {}", values=["red"]), target="RED")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"inp": ["a"]}, "inp: expected captum.attr.TextTokenInput.*got list"),
        ({"inp": ""}, "inp: expected a prompt with at least one feature"),
        ({"inp": TextTemplateInput("a", values=[])}, "at least one feature"),
        ({"inp": TextTemplateInput("a", values=["b"])}, "the value 0, 'b', cannot be found"),
        ({"inp": TextTemplateInput("a {x}", values={"x": "b", "y": "c"})}, "the value 'y', 'c'"),
        ({"inp": TextTemplateInput("a {} {}", values=["b"])}, "template for 1 values.*IndexError"),
        ({"inp": TextTemplateInput(lambda v: f"{len(v)} {v}", values=["b"])}, "does not depend"),
        ({"inp": TextTemplateInput(lambda v: v.split(), values=["b"])}, "gives a string, got list"),
        ({"inp": TextTemplateInput("{}", ["b"], baselines=lambda: ["c", "d"])}, "one baseline for"),
        ({"target": ""}, "target: expected at least one token, got ''"),
        ({"target": torch.tensor([], dtype=torch.long)}, "target: expected at least one token"),
        ({"target": torch.tensor([[1, 2]])}, r"token ids \(T,\), got shape \(1, 2\)"),
        ({"target": torch.tensor([0.5])}, "target: expected.*got torch.float32"),
        ({"target": [1, 2]}, "target: expected a string or token ids.*got list"),
        ({"target": torch.tensor([99])}, "target: expected token ids from 0 to 17"),
        ({"target": None}, "PlantedLM has no method `generate`"),
        ({"gen_args": {"max_new_tokens": 2}}, "gen_args: expected None"),
        ({"num_trials": 0}, "num_trials"),
        ({"n_steps": -1}, "n_steps"),
    ],
)
def test_bad_calls_say_what_is_wrong(call: dict[str, Any], message: str) -> None:
    llm, _ = planted()
    with pytest.raises(InvalidInputError, match=message):
        llm.attribute(**{"inp": "a red one", "target": "RED", **call})


def test_images_are_no_text() -> None:
    image = pytest.importorskip("PIL.Image").new("RGB", (2, 2))
    llm, _ = planted()
    with pytest.raises(InvalidInputError, match="got ImageMaskInput, which is no text"):
        llm.attribute(ImageMaskInput(image), target="RED")


def test_more_tokens_than_the_model_takes(byte_level: PreTrainedTokenizerFast) -> None:
    model = language_model("gpt2", len(byte_level))
    llm = LLMAMLAttribution(AMLAttribution(model), byte_level)
    fits = TextTokenInput("z" * 124, byte_level)
    assert fits.n_itp_features == 124
    target = torch.tensor([1, 2, 3, 4])
    assert llm.attribute(fits, target=target, n_steps=2).seq_attr.shape == (124,)
    with pytest.raises(InvalidInputError, match=r"at most 128 tokens together.*got 125 and 4"):
        llm.attribute("z" * 125, target=target)
    with pytest.raises(InvalidInputError, match=r"at most 128 tokens together.*got 128 and 1"):
        llm.attribute("z" * 128)


def test_a_tokenizer_of_another_model_is_noticed() -> None:
    tokenizer = bpe_tokenizer(eos_token="<eos>")
    llm = LLMAMLAttribution(AMLAttribution(PlantedLM()), tokenizer)
    with pytest.raises(InvalidInputError, match=r"inp: .*does the tokenizer belong to the model"):
        llm.attribute(PROMPT, target=TARGET)


def test_baseline_tokens_are_looked_for() -> None:
    with pytest.raises(InvalidInputError, match=r"baseline: expected an entry.*'nowhere'"):
        LLMAMLAttribution(AMLAttribution(PlantedLM()), word_tokenizer(), baseline="nowhere")
    tokenizer = bpe_tokenizer()
    model = language_model("llama", len(tokenizer))
    with pytest.raises(InvalidInputError, match="no mask, unk, eos, pad token"):
        LLMAMLAttribution(AMLAttribution(model), tokenizer).attribute(PROMPT, target=TARGET)
    llm = LLMAMLAttribution(AMLAttribution(model), tokenizer, baseline="Ġ")
    assert llm.attribute(PROMPT, target=TARGET, n_steps=2).seq_attr.numel() > 1


class Deaf(PlantedLM):
    """Takes no mask of four dimensions."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> Any:
        assert attention_mask is None or attention_mask.dim() == 2, "two dimensions, please"
        return super().forward(input_ids, attention_mask, use_cache=False)


def test_models_without_additive_masks_are_noticed() -> None:
    method = AMLAttribution(Deaf(), perturbation="causal-attention")
    llm = LLMAMLAttribution(method, word_tokenizer())
    message = r"additive mask of four dimensions.*'blend'"
    inp = TextTemplateInput("a {} {}", values=["red", "one"])
    with pytest.raises(InvalidInputError, match=message):
        llm.attribute(inp, target="RED")
    with pytest.raises(InvalidInputError, match=message):
        llm.fit([inp], ["RED"])


def test_a_sliding_window_shorter_than_the_prompt_is_noticed(
    byte_level: PreTrainedTokenizerFast,
) -> None:
    torch.manual_seed(0)
    config = decoder_config("mistral", len(byte_level), sliding_window=4)
    model = MistralForCausalLM(config).eval()
    ids = torch.tensor([[5, 9, 40, 7, 3, 8, 77]])
    target_mask = torch.tensor([[False] * 6 + [True]])
    value = TargetLogProbability(model)(ids, torch.ones_like(ids), target_mask)
    expected = plain_log_probs(model, ids[0, :6].tolist(), [77])
    assert value.item() == pytest.approx(expected[0], abs=1e-5)
    llm = LLMAMLAttribution(AMLAttribution(model, perturbation="causal-attention"), byte_level)
    with pytest.raises(InvalidInputError, match="prompts beyond a sliding window"):
        llm.attribute(TextTemplateInput("Text: {} Label:", values=["a film"]), target=TARGET)


def test_auto_hides_tokens_from_attention_where_the_model_takes_it(
    byte_level: PreTrainedTokenizerFast,
) -> None:
    for kind in DECODERS:
        llm = LLMAMLAttribution(AMLAttribution(language_model(kind, len(byte_level))), byte_level)
        llm.attribute(PROMPT, target=TARGET, n_steps=2)
        assert llm.attr_method.perturbation_ == "blend+attention"
    llm = LLMAMLAttribution(AMLAttribution(Deaf()), word_tokenizer())
    words, places, answer = planted_prompt(8, seed=0)
    result = llm.attribute(" ".join(words), target=answer)
    assert llm.attr_method.perturbation_ == "blend"
    assert set(result.seq_attr.topk(2).indices.tolist()) == set(places)


def test_auto_leaves_the_window_of_a_longer_prompt_alone(
    byte_level: PreTrainedTokenizerFast,
) -> None:
    torch.manual_seed(0)
    config = decoder_config("mistral", len(byte_level), sliding_window=12)
    model = MistralForCausalLM(config).eval()
    target = torch.tensor([7])
    llm = LLMAMLAttribution(AMLAttribution(model), byte_level)
    llm.attribute("the film", target=target)
    assert llm.attr_method.perturbation_ == "blend+attention"
    result = llm.attribute(f"{PROMPT} {PROMPT} {PROMPT}", target=target)
    assert llm.attr_method.perturbation_ == "blend"
    alone = LLMAMLAttribution(AMLAttribution(model, perturbation="blend"), byte_level)
    expected = alone.attribute(f"{PROMPT} {PROMPT} {PROMPT}", target=target)
    torch.testing.assert_close(result.seq_attr, expected.seq_attr, atol=0, rtol=0)


def test_blended_tokens_may_all_be_hidden() -> None:
    words, places, answer = planted_prompt(8, seed=0)
    for perturbation in ("blend+attention", "blend+causal-attention"):
        llm, _ = planted(perturbation=perturbation)
        result = llm.attribute(" ".join(words), target=answer)
        assert set(result.seq_attr.topk(2).indices.tolist()) == set(places)
        deaf = LLMAMLAttribution(
            AMLAttribution(Deaf(), perturbation=perturbation), word_tokenizer()
        )
        with pytest.raises(InvalidInputError, match=r"additive mask of four dimensions"):
            deaf.attribute(" ".join(words), target=answer)


def test_removal_through_attention_needs_something_that_stays() -> None:
    llm, _ = planted(perturbation="causal-attention")
    for inp in ("a red one", TextTemplateInput("{} {}", values=["a red", "one"])):
        with pytest.raises(InvalidInputError, match="a prompt of which something stays"):
            llm.attribute(inp, target="RED")
    with pytest.raises(InvalidInputError, match="a prompt of which something stays"):
        llm.fit([TextTemplateInput("a {}", values=["red"]), "a red one"], ["RED", "RED"])


@pytest.mark.parametrize(
    ("prompts", "targets", "message"),
    [
        ("a red", ["RED"], "prompts: expected a sequence of prompts, got str"),
        ([], [], "prompts: expected at least one"),
        (["a red"], ["RED", "BLUE"], "targets: expected one for each of the 1 prompts, got 2"),
        (["a red"], "RED", "targets: expected one for each of the 1 prompts, got one string"),
        (["a red", "b"], ["RED", ""], "target: expected at least one token"),
    ],
)
def test_bad_training_data_says_what_is_wrong(prompts: Any, targets: Any, message: str) -> None:
    llm, _ = planted()
    with pytest.raises(InvalidInputError, match=message):
        llm.fit(prompts, targets)


def test_models_that_return_something_else_are_noticed() -> None:
    class Returns(PlantedLM):
        def forward(self, input_ids: Tensor, **_: Any) -> Any:
            return {"loss": input_ids.sum()}

    llm = LLMAMLAttribution(AMLAttribution(Returns()), word_tokenizer())
    with pytest.raises(InvalidInputError, match=r"causal language model.*\(N, L, V\), got dict"):
        llm.attribute("a red one", target="RED")


def test_captums_arguments_in_captums_order() -> None:
    llm = LLMAMLAttribution(AMLAttribution(PlantedLM()), word_tokenizer())
    named = llm.attribute(PROMPT, TARGET, n_steps=2)
    assert torch.equal(
        llm.attribute(PROMPT, TARGET, 1, None, True, None, False, n_steps=2).seq_attr,
        named.seq_attr,
    )


def test_what_is_written_without_a_target_fits_the_model() -> None:
    tokenizer = bpe_tokenizer(eos_token="</s>")
    model = language_model("gpt2", len(tokenizer))
    llm = LLMAMLAttribution(AMLAttribution(model), tokenizer)
    text = "film " * 200
    ids = tokenizer(text)["input_ids"][:126]
    prompt = tokenizer.decode(ids)
    n_left = 128 - len(tokenizer(prompt)["input_ids"])
    result = llm.attribute(prompt, n_steps=2)
    assert len(result.output_tokens) <= n_left
