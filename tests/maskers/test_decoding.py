"""Ids back into text: against the tokenizers' own offsets and their own decoding of prefixes."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from captum_aml.exceptions import InvalidInputError
from captum_aml.maskers._decoding import TokenReader, text_of_bytes
from captum_aml.maskers._windows import StoredTokenizer
from tests._helpers.tokenizer_kinds import KINDS, LINES, byte_level, tokenizer_of

#: Words of the lines that the tokenizers know, in any order and with odd spacing, and anything.
KNOWN = st.lists(
    st.sampled_from(
        [*sorted({word for line in LINES for word in line.split()}), "", "\n", "film,"]
    ),
    max_size=8,
).map(" ".join)
WHOLE = byte_level(trim_offsets=False)
ANYTHING = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def reader_of(kind: str) -> TokenReader:
    stored = StoredTokenizer.of("tokenizer", tokenizer_of(kind))
    return TokenReader(stored.backend(), special=stored.special, unknown=stored.unknown)


@given(text=KNOWN | ANYTHING)
def test_byte_level_spans_are_the_offsets_of_the_tokenizer(text: str) -> None:
    encoded = WHOLE(text, return_offsets_mapping=True)
    read = reader_of("byte-level").read(encoded["input_ids"])
    assert read.text == text
    assert list(map(tuple, read.spans.tolist())) == encoded["offset_mapping"]


@pytest.mark.parametrize("kind", KINDS)
@given(text=KNOWN | ANYTHING)
@settings(max_examples=60)
def test_every_prefix_is_what_the_tokenizer_decodes(kind: str, text: str) -> None:
    tokenizer = tokenizer_of(kind)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assume(tokenizer.unk_token_id not in ids)
    backend = tokenizer.backend_tokenizer
    read = reader_of(kind).read(ids)
    spans = read.spans.tolist()
    # A text is read as if in the middle of another: a space may stand before it.
    decoded = backend.decode(ids)
    assert read.text in (decoded, " " + decoded)
    lead = read.text[: len(read.text) - len(decoded)]
    for n in range(1, len(ids) + 1):
        prefix = backend.decode(ids[:n])
        if "\ufffd" not in prefix:
            assert read.text[: spans[n - 1][1]] == (lead + prefix if prefix else lead)
    # Nothing is left out, in order, and tokens share only what they cannot split.
    end = 0
    for start, stop in spans:
        assert start in (end, end - 1)
        end = stop
    assert end == len(read.text)


@pytest.mark.parametrize("kind", ["byte-level", "byte-fallback"])
def test_the_bytes_of_a_character_share_it(kind: str) -> None:
    ids = tokenizer_of(kind)("a🦉b", add_special_tokens=False)["input_ids"]
    read = reader_of(kind).read(ids)
    place = read.text.index("🦉")
    others = [
        read.text[a:b].strip() for a, b in read.spans.tolist() if [a, b] != [place, place + 1]
    ]
    assert "".join(others) == "ab"
    assert len(ids) - len(others) >= 3


def test_a_token_with_parts_of_two_characters_stands_for_both() -> None:
    vocabulary = {token: i for i, token in enumerate(["æ", "Ĺ", "¥", "¥æ", "Ĺ¥"])}
    backend = Tokenizer(models.BPE(vocabulary, []))
    backend.decoder = byte_level().backend_tokenizer.decoder
    reader = TokenReader(backend, special=(), unknown=None)
    # 日日 is E6 97 A5 twice, the middle token holds the end of one and the start of the other.
    read = reader.read([0, 1, 3, 4])
    assert read.text == "日日"
    assert read.spans.tolist() == [[0, 1], [0, 1], [0, 2], [1, 2]]


def test_special_tokens_stand_for_nothing_and_unknown_ones_for_something() -> None:
    tokenizer = tokenizer_of("word-piece")
    ids = tokenizer("good ☂ film")["input_ids"]
    assert tokenizer.unk_token_id in ids
    read = reader_of("word-piece").read(ids)
    assert read.text == " good \ufffd film"
    assert [read.text[a:b] for a, b in read.spans.tolist()] == ["", " good", " \ufffd", " film", ""]


def test_what_is_apart_is_kept_apart() -> None:
    tokenizer, reader = tokenizer_of("byte-level"), reader_of("byte-level")
    first, second = (tokenizer(text)["input_ids"] for text in ("film", "good"))
    read = reader.read([*first, *second], gaps=[len(first)])
    assert read.text == "film good"
    slices = [read.text[a:b] for a, b in read.spans.tolist()]
    assert "".join(slices) == "filmgood"
    # Where there is a space already, there is none more; nor after nothing.
    spaced = tokenizer(" good")["input_ids"]
    assert reader.read([*first, *spaced], gaps=[len(first)]).text == "film good"
    assert reader.read([*first, *spaced], gaps=[0]).text == "film good"
    # After what stands for nothing it is the next word that is apart.
    eos = tokenizer.eos_token_id
    assert reader.read([*first, eos, *second], gaps=[len(first)]).text == "film good"


@given(data=st.binary(max_size=30))
def test_bytes_are_read_as_python_reads_them(data: bytes) -> None:
    text, character = text_of_bytes(data)
    assert text == data.decode(errors="replace")
    assert len(character) == len(data)
    for i in range(len(text)):
        own = data[character.searchsorted(i) : character.searchsorted(i, side="right")]
        assert own.decode(errors="replace") == text[i]


def test_many_broken_bytes_take_linear_time() -> None:
    # Quadratic reading would copy gigabytes.
    text, character = text_of_bytes(b"\xff" * 100_000)
    assert len(text) == len(character) == 100_000


@pytest.mark.parametrize("bad", [-1, 10_000])
def test_ids_of_another_tokenizer_are_refused(bad: int) -> None:
    with pytest.raises(
        InvalidInputError, match=rf"^masker: .*tokenizer, which has 400 .*got {bad}"
    ):
        reader_of("byte-level").read([5, bad])


def test_a_tokenizer_without_a_decoder() -> None:
    backend = Tokenizer(models.WordLevel({"good": 0, "film": 1}, unk_token="good"))
    read = TokenReader(backend, special=(), unknown=None).read([0, 1, 1])
    assert read.text.strip() == backend.decode([0, 1, 1]) == "good film film"
