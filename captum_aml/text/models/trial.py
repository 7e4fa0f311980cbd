"""Trials of a text model: passes that tell how it embeds tokens and what padding does to them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import cycle
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch
from torch import Tensor

from captum_aml._utils.isolation import isolated_rng
from captum_aml.exceptions import InvalidInputError
from captum_aml.text.encoding import TextBatch, TokenizedText, sequences_of
from captum_aml.text.inputs import TextLike
from captum_aml.text.models._sparse import kept_sparse, sparse_parts
from captum_aml.text.models.entry import TokenEntry, find_entry

if TYPE_CHECKING:
    from captum_aml.text.models.base import TextModel

#: The side on which texts are padded.
PaddingSide: TypeAlias = Literal["right", "left"]

# The words of the texts to try a model out on.
_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "more")

# What outputs may differ by, relative to the largest: padding takes another way through kernels.
_TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}


def tried_entry(text_model: TextModel) -> TokenEntry | None:
    """The entry of a text model's tokens; None where an embedding layer of the model embeds them.

    It takes a pass.
    """
    texts = _trial_texts(text_model)
    if not texts:
        return None
    batch = text_model.collate(texts[:1])
    ids, others = batch.input_ids, batch.forward_args[1:]

    def run(entry: TokenEntry | None) -> Tensor:
        with nullcontext() if entry is None else entry.serving(ids, others):
            return _outputs(text_model, batch)

    # Block-sparse attention pads inside, and rows of sequences are cut, which no such text shows.
    always = bool(sparse_parts(text_model.model) or texts[0].sequences)
    with text_model.evaluating(), isolated_rng(0):
        return find_entry(text_model.model, run, ids, always=always)


def tried_padding(text_model: TextModel) -> PaddingSide | None:
    """The side on which padding leaves texts' outputs as they are; None where none is known to.

    Of a model that takes several sequences for a text it is that of single sequences.

    It takes four or five passes: of texts of three lengths, each alone and all together.
    """
    if sparse_parts(text_model.model):
        return None  # its blocks begin at the first and end at the last position, padding or not
    texts = _trial_texts(text_model)
    if len(texts) < 2:
        return None
    # Positions among a task's own inputs count from the left.
    sides: Sequence[PaddingSide] = ["right"] if _has_positions(texts) else ["right", "left"]

    def outputs(texts: Sequence[TokenizedText], side: PaddingSide) -> Tensor:
        return _outputs(text_model, text_model.collate(texts, padding_side=side))

    with text_model.evaluating(), torch.no_grad(), isolated_rng(0):
        try:
            alone = torch.cat([outputs([text], "right") for text in texts])
        except Exception:  # of any type: what the model lacks is said where it is used
            return None
        for side in sides:
            try:
                padded = outputs(texts, side)
            except Exception:  # of any type: it does not take texts of two lengths
                continue
            if _agree(alone, padded):
                return side
    return None


def _trial_texts(text_model: TextModel) -> list[TokenizedText]:
    """A text of an odd number of tokens, which models that pad inside pad, and two longer ones.

    Tokens, but for the special ones, are replaced by others that differ from each other. Where the
    model takes only short texts there are fewer, and none where the task's are of another form.
    """
    tokenizer = text_model.tokenizer
    texts = [sequences_of(text)[0] for text in _tokenized(text_model)]
    if not texts:
        return []
    odd = [text for text in texts if len(text) % 2 and len(text) >= 5]
    short = (odd or texts)[0]
    long = next((text for text in texts if len(text) >= len(short) + 3), short)
    settings = text_model.model.config.get_text_config().to_dict()
    named = {v for k, v in settings.items() if k.endswith("_token_id") and isinstance(v, int)}
    special = {*tokenizer.all_special_ids} | named
    ids = [number for number in range(len(tokenizer)) if number not in special]
    chosen = {len(text): text for text in (short, long, texts[-1])}
    unknown = dict.fromkeys(text_model.own_inputs, ())
    return [
        replace(_with_ids(text, ids), own_inputs={**unknown, **text.own_inputs})
        for text in chosen.values()
    ]


def _tokenized(text_model: TextModel) -> list[TokenizedText]:
    """Texts, each a word longer than the one before, in the first form that the task takes."""
    grown = [" ".join(_WORDS[: n + 1]) for n in range(len(_WORDS))]
    forms: list[list[TextLike]] = [
        [*grown],
        [(text, text) for text in grown],
        [(text, ["one", "two"]) for text in grown],  # with options
        [f"{text} {text_model.tokenizer.mask_token}" for text in grown],
    ]
    for texts in forms:
        try:
            return text_model.tokenize(texts)
        except InvalidInputError:
            continue
    return []


def _with_ids(text: TokenizedText, ids: Sequence[int]) -> TokenizedText:
    others = cycle(ids[:: max(1, len(ids) // len(text))])
    given = text.model_inputs["input_ids"]
    replaced = [
        next(others) if maskable else number
        for number, maskable in zip(given, text.maskable, strict=True)
    ]
    return replace(text, model_inputs={**text.model_inputs, "input_ids": replaced})


def _outputs(text_model: TextModel, batch: TextBatch) -> Tensor:
    """What the model gives for a batch, its rows one after the other.

    Where the task reads it at positions of its own, it is what the model itself gives for each
    token.
    """
    if not _has_positions(batch.texts):
        return text_model.tried(batch).flatten()
    named = {k: v for k, v in batch.extra_inputs.items() if k not in text_model.own_inputs}
    with kept_sparse(sparse_parts(text_model.model)):
        output = text_model.model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, **named
        )
    shown = batch.attention_mask > 0
    found = [t for t in output.values() if isinstance(t, Tensor) and t.shape[:2] == shown.shape]
    return torch.cat([t[row][shown[row]].flatten() for row in range(len(shown)) for t in found])


def _has_positions(texts: Sequence[TokenizedText]) -> bool:
    return any(text.own_inputs and not text.sequences for text in texts)


def _agree(alone: Tensor, padded: Tensor) -> bool:
    if alone.shape != padded.shape or not bool(alone.isfinite().all()):
        return False
    tolerance = _TOLERANCES.get(alone.dtype, 5e-2) * max(1.0, float(alone.abs().max()))
    return bool(((alone - padded).abs() <= tolerance).all())
