"""Rows of several sequences: masks, padding, copies of tokens."""

from __future__ import annotations

import torch

from captum_aml.text.encoding import sequences_of, tokenize
from captum_aml.text.inputs import Text
from captum_aml.text.models.stacked import Sequenced, sequence_masks, stack
from tests._helpers.text_models import byte_level_tokenizer, word_piece_tokenizer


def test_masks_of_sequences_are_the_blocks_of_a_row_of_them() -> None:
    n, r, length = 2, 3, 4
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(n, 1, r * length, r * length, generator=generator)
    found = sequence_masks(mask, r)
    assert found.shape == (n * r, 1, length, length)
    for example in range(n):
        for number in range(r):
            own = slice(number * length, (number + 1) * length)
            assert torch.equal(found[example * r + number], mask[example, :, own, own])
    one_row = sequence_masks(mask[:, :, :1], r)
    assert torch.equal(one_row[4], mask[1, :, :1, 4:8])
    assert torch.equal(sequence_masks(mask[:, 0, 0], r)[4], mask[1, 0, 0, 4:8])


def test_tokens_of_the_same_characters_are_copies_in_the_order_of_the_text() -> None:
    text = Text("a film\ngood\nbad plot", parts=((0, 6), (7, 11), (12, 20)))
    given = [
        Sequenced.of([("a film", 0)], [("good", 7)]),
        Sequenced.of([("bad plot", 12)], [("so: ", None), ("a film", 0)]),
    ]
    tokenized = stack(text, given, tokenize(word_piece_tokenizer(), [g.text for g in given]))
    spans = zip(tokenized.offsets, tokenized.maskable, strict=True)
    shown = [text.text[start:end] for (start, end), maskable in spans if maskable]
    assert shown == ["a", "film", "good", "bad", "plot", "a", "film"]
    assert tokenized.copies == (0, 1, 2, 3, 4, 0, 1)
    assert tokenized.sequences == (6, 9)
    first, second = sequences_of(tokenized)
    assert second.tokens == (
        "[CLS]",
        "bad",
        "plot",
        "[SEP]",
        "[UNK]",
        "[UNK]",
        "a",
        "film",
        "[SEP]",
    )
    assert second.model_inputs["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1, 1, 1]
    assert len(first) == 6


def test_the_bytes_of_one_character_are_tokens_of_their_own() -> None:
    text = Text.of("a🎬")
    given = [Sequenced.of([("a🎬", 0)])] * 2
    tokenized = stack(text, given, tokenize(byte_level_tokenizer(), [g.text for g in given]))
    assert tokenized.copies == (0, 1, 2, 3, 4) * 2
