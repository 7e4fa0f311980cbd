"""A masker with another tokenizer: what it reads, how logits come back, fitting and saving."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertModel,
    ByT5Tokenizer,
    GPT2Config,
    GPT2ForSequenceClassification,
    PreTrainedTokenizerFast,
)

from captum_aml import AlignedMasker, AMLAttribution, LayerAMLAttribution, TransformerMasker
from captum_aml._utils.files import content_digest
from captum_aml.exceptions import CheckpointError, InvalidInputError
from captum_aml.maskers import MaskerInputs
from captum_aml.maskers._decoding import TokenReader
from captum_aml.maskers._windows import StoredTokenizer
from captum_aml.training import FitCallback, FitState
from captum_aml.tuning._updates import MatrixUpdate, applied
from tests._helpers.tokenizer_kinds import KINDS, LINES, byte_level, tokenizer_of, word_piece

C = 3
#: float32 through two layers, where the same sums are taken in another order or batch.
ROUNDING = {"rtol": 0, "atol": 2e-5}
POOLS = {"max": max, "min": min, "mean": lambda values: sum(values) / len(values)}
TEXT = "the film was not good"


class Table(nn.Module):
    """A logit for each id, its place in the window, and the first class's probability."""

    def __init__(self, size: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.table = nn.Parameter(torch.randn(size, generator=generator))
        self.seen: list[MaskerInputs] = []

    def forward(self, inputs: MaskerInputs) -> Tensor:
        self.seen.append(inputs)
        (ids,) = inputs.inputs
        places = torch.arange(ids.shape[1], device=ids.device)
        return self.table[ids] + 0.01 * places + inputs.probabilities[:, :1]


def encoder(size: int, *, positions: int = 64) -> BertModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return BertModel(
            BertConfig(
                vocab_size=size,
                hidden_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=32,
                max_position_embeddings=positions,
                initializer_range=0.5,
            )
        ).eval()


def transformer(tokenizer: Any, *, n_classes: int = C, positions: int = 64) -> TransformerMasker:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return TransformerMasker(
            encoder(len(tokenizer), positions=positions), n_classes=n_classes
        ).eval()


def aligned(
    of_model: str = "byte-level",
    own: str = "word-piece",
    *,
    inner: nn.Module | None = None,
    **s: Any,
) -> AlignedMasker:
    tokenizer = tokenizer_of(own)
    return AlignedMasker(
        transformer(tokenizer) if inner is None else inner,
        tokenizer=tokenizer_of(of_model),
        masker_tokenizer=tokenizer,
        **s,
    )


def shown(
    rows: Sequence[Sequence[int]],
    *,
    maskable: Sequence[Sequence[int]] | None = None,
    attention: Tensor | None = None,
    q: Tensor | None = None,
) -> MaskerInputs:
    ids = torch.tensor(rows)
    takes_part = torch.ones(ids.shape) if maskable is None else torch.tensor(maskable)
    return MaskerInputs(
        features=(torch.zeros(*ids.shape, 1),),
        inputs=(ids,),
        probabilities=torch.full((len(rows), C), 1 / C) if q is None else q,
        maskable=(takes_part.bool(),),
        attention_mask=attention,
    )


def ids_of(kind: str, text: str, **settings: Any) -> list[int]:
    return tokenizer_of(kind)(text, add_special_tokens=False, **settings)["input_ids"]


# --- The pool property ----------------------------------------------------------------------------


WORDS = sorted(
    {word for line in LINES for word in line.split()} | {"", "\n", "☂", "film,", "x" * 9}
)
TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=8).map(" ".join)


def naive(
    spans: Sequence[Sequence[int]],
    own: Sequence[Sequence[int]],
    logits: Sequence[float],
    pooling: str,
) -> list[float]:
    """What the tokens with these spans get, character by character."""
    pools: list[float | None] = []
    for a in spans:
        partners = [
            logit
            for b, logit in zip(own, logits, strict=True)
            if any(a[0] <= c < a[1] for c in range(*b))
        ]
        pools.append(POOLS[pooling](partners) if partners else None)
    found = [pool for pool in pools if pool is not None]
    lowest = min(found) if found else 0.0
    return [
        pool if pool is not None else (lowest if a[1] > a[0] else 0.0)
        for pool, a in zip(pools, spans, strict=True)
    ]


@pytest.mark.parametrize("own", KINDS)
@pytest.mark.parametrize("pooling", POOLS)
@given(text=TEXTS | st.text(st.characters(exclude_categories=["Cs"]), max_size=12))
@settings(max_examples=40)
def test_each_token_gets_the_pool_of_those_that_share_its_characters(
    own: str, pooling: str, text: str
) -> None:
    """Spans of both sides are those that the two tokenizers themselves give for the text."""
    of_model, tokenizer = BYTE_LEVEL, tokenizer_of(own)
    ours = of_model(text, return_offsets_mapping=True)
    if not ours["input_ids"]:
        return
    theirs = tokenizer(text, return_offsets_mapping=True)
    inner = Table(len(tokenizer))
    masker = AlignedMasker(inner, tokenizer=of_model, masker_tokenizer=tokenizer, pooling=pooling)
    q = torch.tensor([[0.5, 0.3, 0.2]])
    logits = masker(shown([ours["input_ids"]], q=q))
    (given,) = inner.seen
    assert given.inputs[0][0, : len(theirs["input_ids"])].tolist() == theirs["input_ids"]
    expected = naive(
        ours["offset_mapping"],
        [
            (0, 0) if special else span
            for span, special in zip(
                theirs["offset_mapping"],
                tokenizer(text, return_special_tokens_mask=True)["special_tokens_mask"],
                strict=True,
            )
        ],
        [
            float(inner.table.detach()[i]) + 0.01 * p + 0.5
            for p, i in enumerate(theirs["input_ids"])
        ],
        pooling,
    )
    torch.testing.assert_close(logits[0], torch.tensor(expected), rtol=0, atol=1e-6)


BYTE_LEVEL = byte_level(trim_offsets=False)


@pytest.mark.parametrize("own", KINDS)
@pytest.mark.parametrize("of_model", KINDS)
@given(text=TEXTS)
@settings(max_examples=10)
def test_any_tokenizer_explains_any_other(of_model: str, own: str, text: str) -> None:
    """As above, with spans read from the ids (see ``tests/maskers/test_decoding.py``)."""
    stored = StoredTokenizer.of("tokenizer", tokenizer_of(of_model))
    reader = TokenReader(stored.backend(), special=stored.special, unknown=stored.unknown)
    ids = tokenizer_of(of_model)(text)["input_ids"]
    if not ids:
        return
    read = reader.read(ids)
    theirs = tokenizer_of(own)(
        read.text, return_offsets_mapping=True, return_special_tokens_mask=True
    )
    inner = Table(len(tokenizer_of(own)))
    logits = aligned(of_model, own, inner=inner, pooling="mean")(shown([ids]))
    spans = [
        (0, 0) if special else span
        for span, special in zip(
            theirs["offset_mapping"], theirs["special_tokens_mask"], strict=True
        )
    ]
    values = [
        float(inner.table.detach()[i]) + 0.01 * p + 1 / C for p, i in enumerate(theirs["input_ids"])
    ]
    expected = naive(read.spans.tolist(), spans, values, "mean")
    torch.testing.assert_close(logits[0], torch.tensor(expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize("of_model", KINDS)
def test_a_masker_with_the_same_tokenizer_gives_its_own_logits(of_model: str) -> None:
    """A token for a token: nothing is pooled, whichever way the tokenizer writes words."""
    tokenizer = tokenizer_of(of_model)
    inner = Table(len(tokenizer))
    masker = AlignedMasker(inner, tokenizer=tokenizer, masker_tokenizer=tokenizer)
    ids = ids_of(of_model, "the film was good")  # no token of it is a lone space
    logits = masker(shown([ids]))
    (given,) = inner.seen
    own = given.inputs[0][0].tolist()
    start = next(i for i in range(len(own)) if own[i : i + len(ids)] == ids)
    places = 0.01 * torch.arange(start, start + len(ids))
    torch.testing.assert_close(logits[0], inner.table[ids] + places + 1 / C)


# --- What is read ---------------------------------------------------------------------------------


def test_only_what_can_be_masked_is_read() -> None:
    inner = Table(300)
    masker = aligned(inner=inner)
    prompt, text, end = (ids_of("byte-level", t) for t in ("Text: ", TEXT, "\nLabel:"))
    eos = tokenizer_of("byte-level").eos_token_id
    row = [eos, *prompt, *text, *end]
    maskable = [0] * (1 + len(prompt)) + [1] * len(text) + [0] * len(end)
    logits = masker(shown([row], maskable=[maskable]))
    (given,) = inner.seen
    assert tokenizer_of("word-piece").decode(given.inputs[0][0]) == f"[CLS] {TEXT} [SEP]"
    assert given.attention_mask is not None
    assert given.token_type_ids is not None
    assert given.inputs[0].shape == given.attention_mask.shape == given.token_type_ids.shape
    kept = torch.tensor(maskable) == 1
    assert torch.equal(logits[0, ~kept], torch.zeros(int((~kept).sum())))
    alone = masker(shown([text]))
    torch.testing.assert_close(logits[0, kept], alone[0])


def test_both_texts_of_a_pair_are_kept_apart() -> None:
    inner = Table(300)
    masker = aligned(inner=inner)
    first, middle, second = (ids_of("byte-level", t) for t in ("the film", "?\nThen: ", "was good"))
    maskable = [1] * len(first) + [0] * len(middle) + [1] * len(second)
    masker(shown([[*first, *middle, *second]], maskable=[maskable]))
    assert tokenizer_of("word-piece").decode(inner.seen[0].inputs[0][0]) == (
        "[CLS] the film was good [SEP]"
    )


def test_a_spelled_special_token_is_text() -> None:
    inner = Table(300)
    tokenizer = tokenizer_of("word-piece")
    aligned(inner=inner)(shown([ids_of("byte-level", "good [SEP] film [CLS]")]))
    own = inner.seen[0].inputs[0][0].tolist()
    assert own.count(tokenizer.sep_token_id) == own.count(tokenizer.cls_token_id) == 1
    assert (own[0], own[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)


def test_what_the_masker_drops_outranks_nothing() -> None:
    ids = ids_of("byte-level", "good\nfilm")
    line_break = ids_of("byte-level", "\n")[0]
    masker = aligned(inner=Table(300))
    logits = masker(shown([ids]))[0]
    place = ids.index(line_break)
    others = [v for i, v in enumerate(logits.tolist()) if i != place]
    assert float(logits[place].detach()) == min(others)
    # It is a constant: pushing it down moves no logit of the masker.
    (gradient,) = torch.autograd.grad(logits[place], masker.parameters(), retain_graph=True)
    assert not bool(gradient.any())
    (gradient,) = torch.autograd.grad(logits.sum(), masker.parameters())
    assert bool(gradient.any())


@pytest.mark.parametrize("text", ["\n", " ", ""])
def test_a_text_that_the_masker_drops_altogether(text: str) -> None:
    masker = aligned()
    eos = tokenizer_of("byte-level").eos_token_id
    ids = [eos, *ids_of("byte-level", text), eos]
    logits = masker(shown([ids]))
    assert torch.equal(logits, torch.zeros(1, len(ids)))
    assert logits.requires_grad


def test_a_masker_without_special_tokens_takes_an_empty_text() -> None:
    own = tokenizer_of("byte-level")
    masker = aligned("word-piece", "byte-level", inner=transformer(own))
    special = tokenizer_of("word-piece").cls_token_id
    assert torch.equal(masker(shown([[special, special]])), torch.zeros(1, 2))


@pytest.mark.parametrize("side", ["left", "right", "none"])
def test_padding_does_not_change_a_proposal(side: str) -> None:
    masker = aligned()
    ids = ids_of("byte-level", TEXT)
    alone = masker(shown([ids]))
    n = len(ids)
    word = ids_of("byte-level", " film")[0]
    padding = [word] * 4  # what stands there does not matter
    longer = ids_of("byte-level", TEXT + " and slow")[: n + 4]
    row, start = {
        "left": ([*padding, *ids], 4),
        "right": ([*ids, *padding], 0),
        "none": ([*padding[:2], *ids, *padding[:2]], 2),
    }[side]
    attention = torch.zeros(2, n + 4)
    attention[0, start : start + n] = 1
    attention[1, : len(longer)] = 1
    longer = longer + [0] * (n + 4 - len(longer))
    for mask in (attention, attention.bool(), attention.long()):
        logits = masker(shown([row, longer], attention=mask))
        torch.testing.assert_close(logits[0, start : start + n], alone[0], **ROUNDING)
    # Without an attention mask, padding is what is not maskable.
    maskable = attention.long().tolist()
    logits = masker(shown([row, longer], maskable=maskable))
    torch.testing.assert_close(logits[0, start : start + n], alone[0], **ROUNDING)


def test_a_proposal_does_not_depend_on_the_batch() -> None:
    masker = aligned(max_length=6)
    texts = [TEXT, "good", "a gripping , beautifully shot film ; not bad at all !", "\n"]
    rows = [ids_of("byte-level", text) for text in texts]
    q = torch.rand(len(rows), C, generator=torch.Generator().manual_seed(0)).softmax(1)
    length = max(map(len, rows))
    attention = torch.tensor([[1] * len(r) + [0] * (length - len(r)) for r in rows])
    together = masker(shown([r + [0] * (length - len(r)) for r in rows], attention=attention, q=q))
    for i, row in enumerate(rows):
        alone = masker(shown([row], q=q[i : i + 1]))
        torch.testing.assert_close(together[i, : len(row)], alone[0], **ROUNDING)
        assert torch.equal(together[i, len(row) :], torch.zeros(length - len(row)))


# --- Windows --------------------------------------------------------------------------------------


def test_a_long_text_is_read_in_windows_that_are_told_the_same() -> None:
    """Each window by hand: the same words with the special tokens, one after another."""
    tokenizer = tokenizer_of("word-piece")
    text = "the film was good but the plot was very slow at first"
    pieces = ids_of("word-piece", text)
    inner = transformer(tokenizer)
    masker = aligned(inner=inner, max_length=7)
    q = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
    ids = ids_of("byte-level", text)
    short = ids_of("byte-level", "good film")
    padded = short + [0] * (len(ids) - len(short))
    attention = torch.tensor([[1] * len(ids), [1] * len(short) + [0] * (len(ids) - len(short))])
    windows = masker.windows(shown([ids, padded], attention=attention, q=q))
    expected = [
        [tokenizer.cls_token_id, *pieces[i : i + 5], tokenizer.sep_token_id]
        for i in range(0, len(pieces), 5)
    ]
    assert len(expected) > 2
    assert windows.examples.tolist() == [0] * len(expected) + [1]
    logits: list[Tensor] = []
    for row, window in zip(windows.inputs.inputs[0], expected, strict=False):
        assert row[: len(window)].tolist() == window
        alone = inner(shown([window], q=q[:1], attention=torch.ones(1, len(window))))
        logits += list(alone[0, 1:-1])
    got = masker(shown([ids, padded], attention=attention, q=q))[0]
    offsets = BYTE_LEVEL(text, return_offsets_mapping=True)["offset_mapping"]
    own_offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"][1:-1]
    hand = naive(offsets, own_offsets, torch.stack(logits).tolist(), "max")
    torch.testing.assert_close(got, torch.tensor(hand), **ROUNDING)


def test_windows_default_to_what_the_masker_takes() -> None:
    # One position is the prediction's.
    assert aligned(inner=transformer(tokenizer_of("word-piece"), positions=10)).max_length == 9
    short = AlignedMasker(
        transformer(tokenizer_of("word-piece")),
        tokenizer=tokenizer_of("byte-level"),
        masker_tokenizer=word_piece(max_length=8),
    )
    assert short.max_length == 8
    assert aligned(inner=Table(300)).max_length is None
    for bad, message in (
        (2, "at least 3"),
        (0, "at least 3"),
        (64, "at most the 63"),
        (1.5, "int"),
    ):
        with pytest.raises(InvalidInputError, match=f"^max_length: .*{message}"):
            aligned(max_length=bad)


def test_a_text_of_a_hundred_thousand_characters() -> None:
    ids = ids_of("byte-level", " ".join(["the film was not good"] * 4500))
    masker = aligned(inner=Table(300), max_length=64)
    logits = masker(shown([ids]))[0]
    assert len(ids) > 20_000
    # Each word reads the same wherever it stands, but for its place in the window.
    assert bool(logits.detach().abs().max() < 5)
    period = len(ids_of("byte-level", " the film was not good"))
    values = logits.detach()[1 : 1 + period * 100].view(100, period)
    assert float((values - values[0]).abs().max()) <= 0.01 * 64


# --- Errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tokenizer", "masker_tokenizer"])
def test_a_slow_tokenizer_is_refused(name: str) -> None:
    tokenizers: dict[str, Any] = {
        "tokenizer": tokenizer_of("byte-level"),
        "masker_tokenizer": tokenizer_of("word-piece"),
        name: ByT5Tokenizer(),
    }
    with pytest.raises(
        InvalidInputError, match=rf"^{name}: expected a fast tokenizer.*got ByT5Tokenizer; "
    ):
        AlignedMasker(Table(300), **tokenizers)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"^pooling: expected one of .*'sum'"):
        aligned(pooling="sum")
    with pytest.raises(InvalidInputError, match=r"^masker: expected a torch.nn.Module, got str"):
        aligned(inner="bert")  # type: ignore[arg-type]


def test_only_ids_can_be_read() -> None:
    masker = aligned()
    floats = MaskerInputs(
        features=(torch.zeros(1, 3, 4),),
        inputs=(torch.zeros(1, 3, 4),),
        probabilities=torch.ones(1, C),
        maskable=(torch.ones(1, 3, dtype=torch.bool),),
    )
    with pytest.raises(
        InvalidInputError, match=r"^masker: an AlignedMasker explains one .*float32"
    ):
        masker(floats)
    with pytest.raises(InvalidInputError, match=r"^masker: expected ids of the explained.* 4000"):
        masker(shown([[4000]]))
    # Where it can not be masked it is not read.
    good = ids_of("byte-level", "good")
    masker(shown([[4000, *good]], maskable=[[0] + [1] * len(good)]))
    with pytest.raises(InvalidInputError, match="classes"):
        masker(shown([good], q=torch.ones(1, 2) / 2))


def test_the_callers_tokenizers_stay_as_they_are() -> None:
    tokenizers = [byte_level(), word_piece()]
    ids = tokenizers[0](LINES[0])["input_ids"]
    for tokenizer in tokenizers:
        tokenizer.backend_tokenizer.enable_truncation(5)
        tokenizer.backend_tokenizer.enable_padding(length=5)
    before = [t.backend_tokenizer.to_str() for t in tokenizers]
    masker = AlignedMasker(
        transformer(tokenizers[1]),
        tokenizer=tokenizers[0],
        masker_tokenizer=tokenizers[1],
        max_length=20,
    )
    masker(shown([ids]))
    assert [t.backend_tokenizer.to_str() for t in tokenizers] == before
    # Nor do theirs change ours: they pad and cut to five tokens.
    assert masker.windows(shown([ids])).inputs.inputs[0].shape[1] > 5
    content = masker.files[masker.config["masker_tokenizer"]["sha256"]].decode()
    assert '"truncation":null' in content.replace(" ", "")


# --- Memory ---------------------------------------------------------------------------------------


def test_alignments_are_made_once_and_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    masker = aligned()
    ids = ids_of("byte-level", TEXT)
    first = masker(shown([ids]))
    aligner = masker._aligner
    made = []
    original = type(aligner)._made
    monkeypatch.setattr(
        type(aligner), "_made", lambda self, *a: made.append(a) or original(self, *a)
    )
    # Padding and the prediction make no other text of it.
    assert torch.equal(masker(shown([ids])), first)
    padded = masker(shown([[0, 0, *ids]], maskable=[[0, 0] + [1] * len(ids)]))
    torch.testing.assert_close(padded[0, 2:], first[0], **ROUNDING)
    assert not made
    for twin in (copy.deepcopy(masker), pickle.loads(pickle.dumps(masker))):
        assert not twin._aligner._known
        assert torch.equal(twin(shown([ids])), first)
    assert len(made) == 2
    assert all(name.startswith("masker.") for name in masker.state_dict())


def test_the_oldest_alignments_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captum_aml.maskers._windows._CACHE_SIZE", 1500)
    masker = aligned()
    rows = [ids_of("byte-level", text) for text in LINES]
    expected = [aligned()(shown([row])) for row in rows]
    for _ in range(2):
        for row, logits in zip(rows, expected, strict=True):
            assert torch.equal(masker(shown([row])), logits)
    aligner = masker._aligner
    assert 1 <= len(aligner._known) < 6
    keys = sum(len(key) // 4 for key in aligner._known)
    assert aligner._size == keys + sum(entry.size for entry in aligner._known.values()) <= 1500


# --- As part of an attribution --------------------------------------------------------------------


def decoder(n_classes: int = 2) -> GPT2ForSequenceClassification:
    tokenizer = tokenizer_of("byte-level")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return GPT2ForSequenceClassification(
            GPT2Config(
                vocab_size=len(tokenizer),
                n_positions=96,
                n_embd=16,
                n_layer=1,
                n_head=2,
                num_labels=n_classes,
                pad_token_id=tokenizer.eos_token_id,
            )
        ).eval()


def batch_of(texts: Sequence[str], *, side: str = "right") -> dict[str, Any]:
    """What ``attribute`` takes for these texts, behind a prompt that is not explained."""
    tokenizer = tokenizer_of("byte-level")
    prompt, eos = ids_of("byte-level", "Text:"), tokenizer.eos_token_id
    rows = [[*prompt, *ids_of("byte-level", " " + text)] for text in texts]
    length = max(map(len, rows))
    left = [(length - len(r)) if side == "left" else 0 for r in rows]
    ids = torch.tensor(
        [[eos] * n + r + [eos] * (length - len(r) - n) for n, r in zip(left, rows, strict=True)]
    )
    attention = torch.zeros_like(ids)
    reference = ids.clone()
    for i, (n, row) in enumerate(zip(left, rows, strict=True)):
        attention[i, n : n + len(row)] = 1
        reference[i, n + len(prompt) : n + len(row)] = eos
    return {"inputs": ids, "baselines": reference, "additional_forward_args": (attention,)}


def forward_of(model: nn.Module) -> Any:
    def forward(ids: Tensor, attention_mask: Tensor) -> Tensor:
        return model(ids, attention_mask=attention_mask).logits

    return forward


def attribution_of(model: Any, masker: nn.Module | None, **settings: Any) -> AMLAttribution:
    return AMLAttribution(
        forward_of(model),
        embedding_layer=model.get_input_embeddings(),
        masker=masker,
        **settings,
    )


@pytest.mark.parametrize("loss", ["objective", "regression"])
def test_fitting_reaches_the_encoder(loss: str) -> None:
    masker = aligned(inner=transformer(tokenizer_of("word-piece"), n_classes=2))
    assert not masker.fitted
    batch = batch_of(LINES[:4])
    attribution = attribution_of(decoder(), masker).fit(
        [batch], epochs=2, learning_rate=1e-2, loss=loss, mixed_precision="bf16"
    )
    fitted = attribution.masker_
    assert isinstance(fitted, AlignedMasker)
    assert fitted.fitted
    assert not masker.fitted
    changed = {
        name
        for (name, new), old in zip(fitted.named_parameters(), masker.parameters(), strict=True)
        if not torch.equal(new, old)
    }
    assert any(name.startswith("masker.encoder.encoder.layer.0") for name in changed)
    assert any(name.startswith("masker.prediction") for name in changed)
    # Word embeddings are frozen, as published.
    assert not any("word_embeddings" in name for name in changed)
    ours = attribution.attribute(**batch)
    assert ours.shape == batch["inputs"].shape
    assert bool((ours[batch["inputs"] == batch["baselines"]] == 0).all())
    at_layer = LayerAMLAttribution(
        attribution.forward_func,
        attribution.embedding_layers[0],
        masker=fitted,
    ).attribute(**batch)
    torch.testing.assert_close(at_layer.sum(-1), ours, **ROUNDING)


class _StopError(Exception):
    pass


class StopAfter(FitCallback):
    """Ends a run as a crash would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, state: FitState) -> None:
        if state.step == self.step:
            raise _StopError


def test_a_stopped_fit_goes_on_bit_for_bit(tmp_path: Path) -> None:
    batches = [batch_of(LINES[i : i + 3]) for i in (0, 3, 6)]

    def fitted(folder: str, **settings: Any) -> Any:
        masker = aligned(inner=transformer(tokenizer_of("word-piece"), n_classes=2))
        return attribution_of(decoder(), masker).fit(
            batches, epochs=2, checkpoint_dir=tmp_path / folder, save_every=1, **settings
        )

    whole = fitted("whole").masker_
    with pytest.raises(_StopError):
        fitted("stopped", callbacks=[StopAfter(4)])
    # The run's own file is written again and again: tokenizers are no part of it.
    assert all(f.stat().st_size < 20_000 for f in (tmp_path / "stopped").glob("*.json"))
    resumed = fitted("stopped", resume=True).masker_
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_it_proposes_the_same() -> None:
    masker = aligned(max_length=9)
    rows = [ids_of("byte-level", text) for text in (TEXT, TEXT)]
    on_cpu = masker(shown(rows))
    inputs = shown(rows)
    moved = replace(
        inputs,
        features=tuple(t.to("cuda") for t in inputs.features),
        inputs=tuple(t.to("cuda") for t in inputs.inputs),
        probabilities=inputs.probabilities.to("cuda"),
        maskable=tuple(t.to("cuda") for t in inputs.maskable),
    )
    logits = masker.to("cuda")(moved)
    assert logits.device.type == "cuda"
    torch.testing.assert_close(logits.cpu(), on_cpu, rtol=0, atol=1e-3)  # TF32 may be on


def saved(folder: Path) -> tuple[AMLAttribution, dict[str, Any]]:
    masker = aligned(
        inner=transformer(tokenizer_of("word-piece"), n_classes=2), pooling="mean", max_length=9
    )
    batch = batch_of(LINES[:4])
    attribution = attribution_of(decoder(), masker).fit([batch], epochs=1, learning_rate=1e-2)
    attribution.save_pretrained(folder)
    return attribution, batch


LOAD = """
import sys
from safetensors.torch import save_file
from captum_aml import AMLAttribution
from tests.maskers.test_aligned import LINES, batch_of, decoder, forward_of
model = decoder()
loaded = AMLAttribution.from_pretrained(
    sys.argv[1], forward_of(model), embedding_layer=model.get_input_embeddings()
)
save_file({"scores": loaded.attribute(**batch_of(LINES[:4]))}, sys.argv[2])
"""


@pytest.mark.slow
def test_a_saved_masker_gives_the_same_scores_in_another_process(tmp_path: Path) -> None:
    attribution, batch = saved(tmp_path / "masker")
    expected = attribution.attribute(**batch)
    assert not torch.equal(expected[0], expected[1])
    subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path / "masker"), str(tmp_path / "scores")],
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert torch.equal(load_file(tmp_path / "scores")["scores"], expected)


def test_the_folder_holds_both_tokenizers_in_files_with_checksums(tmp_path: Path) -> None:
    attribution, _ = saved(tmp_path)
    names = {file.name for file in tmp_path.iterdir()}
    contents = sorted(tmp_path.glob("masker-*.json"))
    assert len(contents) == 2
    assert len(names) == 4
    assert (tmp_path / "config.json").stat().st_size < 10_000
    # They are tokenizer.json files like any other.
    lengths = {
        len(PreTrainedTokenizerFast(tokenizer_file=str(file)).get_vocab()) for file in contents
    }
    assert lengths == {400, 300}
    # Saved again, nothing is left behind; damaged, it is reported.
    attribution.save_pretrained(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == names
    model = decoder()
    where = {"embedding_layer": model.get_input_embeddings()}
    content = contents[0].read_bytes()
    contents[0].write_bytes(content[:-1] + b" ")
    with pytest.raises(CheckpointError, match=rf"{contents[0].name}: damaged or truncated"):
        AMLAttribution.from_pretrained(tmp_path, forward_of(model), **where)
    contents[0].unlink()
    with pytest.raises(CheckpointError, match="its tokenizers cannot be read"):
        AMLAttribution.from_pretrained(tmp_path, forward_of(model), **where)
    contents[0].write_bytes(content)
    config = json.loads((tmp_path / "config.json").read_text())
    config["files"][0]["file"] = "../elsewhere.json"
    del config["sha256"]
    (tmp_path / "config.json").write_text(json.dumps({**config, "sha256": content_digest(config)}))
    with pytest.raises(CheckpointError, match="expected a tokenizers file name"):
        AMLAttribution.from_pretrained(tmp_path, forward_of(model), **where)


def test_another_masker_in_the_same_folder_leaves_no_tokenizers(tmp_path: Path) -> None:
    saved(tmp_path)
    batch = batch_of(LINES[:2])
    plain = attribution_of(decoder(), None).fit([batch], epochs=1)
    plain.save_pretrained(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_masker_of_the_users_own_inside_comes_back(tmp_path: Path) -> None:
    class Own(Table):
        pass

    batch = batch_of(LINES[:4])
    model = decoder()
    attribution = attribution_of(model, aligned(inner=Own(300))).fit(
        [batch], epochs=1, learning_rate=0.1
    )
    attribution.save_pretrained(tmp_path)
    where = {"embedding_layer": model.get_input_embeddings()}
    with pytest.raises(CheckpointError, match=r"^masker: .*class of your own; build the Aligned"):
        AMLAttribution.from_pretrained(tmp_path, forward_of(model), **where)
    for other, message in (
        (aligned(inner=Own(300), pooling="min"), "pooling"),
        (aligned(own="unigram", inner=Own(300)), "masker_tokenizer"),
        (aligned("unigram", inner=Own(300)), "tokenizer"),
        (aligned(inner=Own(300), max_length=9), "max_length"),
    ):
        with pytest.raises(CheckpointError, match=f"{message}: expected that of the saved masker"):
            AMLAttribution.from_pretrained(tmp_path, forward_of(model), masker=other, **where)
    loaded = AMLAttribution.from_pretrained(
        tmp_path, forward_of(model), masker=aligned(inner=Own(300)), **where
    )
    assert torch.equal(loaded.attribute(**batch), attribution.attribute(**batch))


def test_it_is_built_again_from_json() -> None:
    masker = aligned(pooling="min", max_length=12)
    config = json.loads(json.dumps(masker.config))
    again = AlignedMasker.from_config(config, masker.files).eval()
    again.load_state_dict(masker.state_dict())
    inputs = shown([ids_of("byte-level", TEXT)])
    assert torch.equal(again(inputs), masker(inputs))
    assert again.config == masker.config
    files = {**masker.files, config["tokenizer"]["sha256"]: b"{}"}
    with pytest.raises(InvalidInputError, match=r"^tokenizer: it cannot be read"):
        AlignedMasker.from_config(config, files)


def test_it_starts_from_a_folder(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("word-piece")
    encoder(len(tokenizer)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    state = torch.random.get_rng_state()
    started = AlignedMasker.from_pretrained(
        str(tmp_path), tokenizer=tokenizer_of("byte-level"), n_classes=C, seed=3, pooling="mean"
    ).eval()
    assert torch.equal(torch.random.get_rng_state(), state)
    by_hand = AlignedMasker(
        TransformerMasker.from_pretrained(tmp_path, n_classes=C, seed=3),
        tokenizer=tokenizer_of("byte-level"),
        masker_tokenizer=tokenizer,
        pooling="mean",
    ).eval()
    inputs = shown([ids_of("byte-level", TEXT)])
    assert torch.equal(started(inputs), by_hand(inputs))


# --- Tuning the masker ----------------------------------------------------------------------------


def tuned_masker(**settings: Any) -> AlignedMasker:
    masker = aligned(inner=transformer(tokenizer_of("word-piece"), n_classes=2), **settings)
    masker.fitted = True
    return masker


@pytest.mark.parametrize("max_length", [63, 6])
def test_tuning_the_masker_is_for_each_text_by_itself(max_length: int) -> None:
    """With windows of four tokens the texts have from one to several of them."""
    masker = tuned_masker(max_length=max_length)
    model = decoder()
    texts = [LINES[1], "good", LINES[0], "slow at first"]
    settings = {"scores": "mask", "tune": "masker", "learning_rate": 1e-3}
    attribution = attribution_of(model, masker, **settings)
    batch = batch_of(texts)
    windows = masker.windows(
        shown(batch["inputs"].tolist(), maskable=(batch["inputs"] != batch["baselines"]).tolist())
    )
    n_windows = [int((windows.examples == i).sum()) for i in range(4)]
    assert (n_windows == [1] * 4) == (max_length == 63)
    together = attribution.attribute(**batch, n_steps=4)
    terms = attribution.last_terms_
    untuned = attribution.attribute(**batch, n_steps=0)
    for i, text in enumerate(texts):
        alone = batch_of([text])
        scores = attribution.attribute(**alone, n_steps=4)
        n = scores.shape[1]
        torch.testing.assert_close(together[i, :n], scores[0], rtol=0, atol=1e-4)
        if text != "good":
            assert float((untuned[i, :n] - scores[0]).abs().max()) > 1e-3
    before = attribution.evaluate(**batch)
    assert terms is not None
    assert bool((terms.total <= before.total + 1e-6).all())
    assert float(terms.total.sum()) < float(before.total.sum()) - 1e-3


def test_windows_share_the_changes_of_their_text() -> None:
    """The change of one linear map, for a text of two windows, against autograd on a copy."""
    torch.manual_seed(0)
    linear, parts = nn.Linear(4, 3), torch.tensor([0, 0, 1])
    x, weights = torch.randn(3, 5, 4), torch.randn(3, 5, 3)
    update = MatrixUpdate(linear, [1], 2, rank=9, seed=0, parts=parts)
    with torch.no_grad():
        update.coefficients.normal_()
    with applied([update]):
        out = linear(x)
    update.note(torch.autograd.grad((out * weights).sum(), update.edges))
    # All inputs and the bias are free: row n of the coefficients is the change of (W, b)^T.
    change = update.coefficients.detach().clone().requires_grad_()
    own = change[parts]
    expected = linear(x).detach() + x @ own[:, :4] + own[:, 4:]
    torch.testing.assert_close(out, expected)
    (gradient,) = torch.autograd.grad((expected * weights).sum(), change)
    torch.testing.assert_close(update.coefficients.grad, gradient)
