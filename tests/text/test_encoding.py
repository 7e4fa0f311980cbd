"""Tokens, their characters, padding and the baseline token."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from captum_aml.exceptions import InvalidInputError
from captum_aml.text.encoding import baseline_ids, baseline_token, collate, tokenize
from tests._helpers.text_models import byte_level_tokenizer, word_piece_tokenizer

WORD_PIECE = word_piece_tokenizer()
BYTES = byte_level_tokenizer()


def pieces(tokenizer: PreTrainedTokenizerFast, text: str) -> list[str]:
    (tokenized,) = tokenize(tokenizer, [text])
    spans = zip(tokenized.offsets, tokenized.maskable, strict=True)
    return [text[start:end] for (start, end), maskable in spans if maskable]


class TestOffsets:
    def test_word_pieces_point_into_the_text(self) -> None:
        (tokenized,) = tokenize(WORD_PIECE, ["Unbelievable  film!"])
        assert tokenized.tokens == ("[CLS]", "un", "##believ", "##able", "film", "!", "[SEP]")
        assert tokenized.offsets == ((0, 0), (0, 2), (2, 8), (8, 12), (14, 18), (18, 19), (0, 0))
        assert tokenized.maskable == (False, True, True, True, True, True, False)

    def test_chinese_characters_one_by_one(self) -> None:
        assert pieces(WORD_PIECE, "日本語の映画") == ["日", "本", "語", "の", "映", "画"]

    def test_emoji_beyond_the_basic_plane_count_as_one_character(self) -> None:
        assert pieces(WORD_PIECE, "good 🎬 film") == ["good", "🎬", "film"]

    def test_combining_accent_belongs_to_its_letter(self) -> None:
        # "cafe" with a combining acute accent: the tokenizer drops the accent.
        text = "cafe\u0301 film"
        assert pieces(WORD_PIECE, text)[-1] == "film"
        assert pieces(WORD_PIECE, text)[0].startswith("cafe")

    def test_every_byte_of_an_emoji_points_at_the_emoji(self) -> None:
        (tokenized,) = tokenize(BYTES, ["a🎬"])
        assert tokenized.offsets == ((0, 1), (1, 2), (1, 2), (1, 2), (1, 2))

    @settings(max_examples=60, deadline=None)
    @given(st.text(max_size=40))
    def test_spans_lie_in_the_text_and_in_order(self, text: str) -> None:
        for tokenizer in (WORD_PIECE, BYTES):
            (tokenized,) = tokenize(tokenizer, [text])
            assert len(tokenized.text) == len(text)
            spans = [
                span
                for span, maskable in zip(tokenized.offsets, tokenized.maskable, strict=True)
                if maskable
            ]
            assert all(0 <= start <= end <= len(text) for start, end in spans)
            assert [s for s, _ in spans] == sorted(s for s, _ in spans)

    def test_lone_surrogates_become_the_replacement_character(self) -> None:
        (tokenized,) = tokenize(WORD_PIECE, ["good \ud83d film"])
        assert tokenized.text == "good \ufffd film"
        assert tokenized.offsets[-2] == (7, 11)


class TestTokenize:
    def test_what_the_user_types_is_maskable_even_if_it_looks_special(self) -> None:
        (tokenized,) = tokenize(WORD_PIECE, ["good [SEP] film"])
        assert tokenized.tokens == ("[CLS]", "good", "[SEP]", "film", "[SEP]")
        assert tokenized.maskable == (False, True, True, True, False)

    @pytest.mark.parametrize("text", ["", " ", " \n\t "])
    def test_blank_text_has_special_tokens_only(self, text: str) -> None:
        (tokenized,) = tokenize(WORD_PIECE, [text])
        assert tokenized.tokens == ("[CLS]", "[SEP]")
        assert not any(tokenized.maskable)

    def test_text_without_any_token_gets_one_special_token(self) -> None:
        (tokenized,) = tokenize(BYTES, [""])
        assert tokenized.tokens == ("<eos>",)
        assert tokenized.maskable == (False,)
        assert collate(BYTES, [tokenized]).input_ids.shape == (1, 1)

    def test_no_texts_at_all(self) -> None:
        assert tokenize(WORD_PIECE, []) == []

    def test_counts_the_tokens_it_cuts(self) -> None:
        whole, cut = tokenize(WORD_PIECE, ["good film", "good " * 30], max_length=10)
        assert (len(whole), whole.n_tokens_cut) == (4, 0)
        assert (len(cut), cut.n_tokens_cut) == (10, 22)

    def test_a_cut_leaves_no_trace_in_the_tokenizer(self) -> None:
        tokenize(WORD_PIECE, ["good " * 30], max_length=10)
        (tokenized,) = tokenize(WORD_PIECE, ["good " * 30])
        assert len(tokenized) == 32

    @pytest.mark.parametrize("text", [None, 3, b"good", ("a", "b", "c")])
    def test_what_is_no_string_is_named(self, text: object) -> None:
        with pytest.raises(InvalidInputError, match=r"texts: expected strings.* position 1"):
            tokenize(WORD_PIECE, ["good", text])

    def test_slow_tokenizer_is_refused(self) -> None:
        class Slow:
            is_fast = False

        with pytest.raises(InvalidInputError, match=r"expected a fast tokenizer.*the slow Slow"):
            tokenize(Slow(), ["good"])


class TestCollate:
    def test_pads_on_the_right(self) -> None:
        texts = tokenize(WORD_PIECE, ["good", "a good film"])
        batch = collate(WORD_PIECE, texts, extra_inputs=["token_type_ids", "unknown_input"])
        good = WORD_PIECE.convert_tokens_to_ids("good")
        assert batch.input_ids[0].tolist() == [2, good, 3, 0, 0]
        assert batch.attention_mask.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
        assert batch.maskable.tolist() == [
            [False, True, False, False, False],
            [False, True, True, True, False],
        ]
        assert list(batch.extra_inputs) == ["token_type_ids"]
        assert len(batch.forward_args) == 2
        assert batch.forward_args[0] is batch.attention_mask

    def test_pads_on_the_left_where_the_tokenizer_does(self) -> None:
        tokenizer = byte_level_tokenizer()
        tokenizer.padding_side = "left"
        batch = collate(tokenizer, tokenize(tokenizer, ["a", "abc"]))
        assert batch.attention_mask.tolist() == [[0, 0, 1], [1, 1, 1]]
        assert batch.maskable.tolist() == [[False, False, True], [True, True, True]]
        assert tokenizer.pad_token is None, "the tokenizer stays as it is"

    def test_agrees_with_the_tokenizers_own_padding(self) -> None:
        texts = ["good", "a very good film !", ""]
        expected = WORD_PIECE(texts, padding=True, return_tensors="pt")
        batch = collate(WORD_PIECE, tokenize(WORD_PIECE, texts), extra_inputs=["token_type_ids"])
        assert torch.equal(batch.input_ids, expected["input_ids"])
        assert torch.equal(batch.attention_mask, expected["attention_mask"])
        assert torch.equal(batch.extra_inputs["token_type_ids"], expected["token_type_ids"])

    def test_no_texts(self) -> None:
        with pytest.raises(InvalidInputError, match="texts: expected at least one"):
            collate(WORD_PIECE, [])


class TestBaseline:
    def test_mask_token_where_there_is_one(self) -> None:
        baseline = baseline_token(WORD_PIECE)
        assert (baseline.token, baseline.kind) == ("[MASK]", "mask")

    @pytest.mark.parametrize(
        ("tokens", "kind"),
        [
            ({"unk_token": "a", "pad_token": "b", "eos_token": "c"}, "unk"),
            ({"pad_token": "b", "eos_token": "c"}, "eos"),
            ({"pad_token": "b"}, "pad"),
        ],
    )
    def test_next_best_otherwise(self, tokens: dict[str, str], kind: str) -> None:
        tokenizer = byte_level_tokenizer(eos=None)
        tokenizer.add_special_tokens(tokens)
        assert baseline_token(tokenizer).kind == kind
        assert baseline_token(tokenizer).token == tokens[f"{kind}_token"]

    def test_the_users_choice(self) -> None:
        baseline = baseline_token(WORD_PIECE, "the")
        assert baseline.id == WORD_PIECE.convert_tokens_to_ids("the")
        assert baseline.kind == "given"

    def test_an_unknown_choice(self) -> None:
        with pytest.raises(InvalidInputError, match=r"baseline: .*got 'zebra'"):
            baseline_token(WORD_PIECE, "zebra")

    def test_nothing_to_choose_from(self) -> None:
        with pytest.raises(InvalidInputError, match="to stand for a removed token"):
            baseline_token(byte_level_tokenizer(eos=None))

    def test_references_replace_maskable_tokens_only(self) -> None:
        batch = collate(WORD_PIECE, tokenize(WORD_PIECE, ["good", "a [SEP] film"]))
        reference = baseline_ids(batch, baseline_token(WORD_PIECE))
        assert reference.tolist() == [[2, 4, 3, 0, 0], [2, 4, 4, 4, 3]]
