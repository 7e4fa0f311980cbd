r"""Token ids back into text, with the characters that each token stands for.

Every token is turned into bytes, and the bytes of all of them are read together. A character whose
bytes are spread over several tokens, as byte-level tokenizers and byte fallback do, belongs to all
of them. How a token is written depends on what stands before it, so it is decoded behind its
predecessor; that takes two short calls for a token, and a text of any length linear time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from captum_aml.exceptions import InvalidInputError
from captum_aml.maskers._alignment import Integers, token_spans

#: What stands for a token that stands for anything.
_UNKNOWN = " \N{REPLACEMENT CHARACTER}".encode()


@dataclass(frozen=True)
class ReadText:
    """A text and its tokens.

    Attributes:
        text: The text.
        spans: The characters of each token, half-open, (T, 2); empty for a token without any.
    """

    text: str
    spans: Integers


class TokenReader:
    """Reads the ids of one tokenizer.

    A text's first token is written as in the middle of a text, that is with the space that many
    tokenizers put before a word: whatever stands for that space alone has a character then, too. An
    unknown token stands for U+FFFD, and special tokens for nothing.

    Args:
        backend: The tokenizer.
        special: Ids of tokens that stand for nothing.
        unknown: The id of what stands for unknown characters, if there is one.
    """

    def __init__(self, backend: Tokenizer, *, special: Iterable[int], unknown: int | None) -> None:
        self._backend = backend
        self._unknown = unknown
        self._special = frozenset(special) - {unknown}
        kinds = _decoder_kinds(backend)
        self._is_byte_level = "ByteLevel" in kinds
        self._has_byte_fallback = "ByteFallback" in kinds

    def read(self, ids: Sequence[int], gaps: Iterable[int] = ()) -> ReadText:
        """The text that ids make.

        Args:
            ids: Token ids (T,).
            gaps: Indices of ids that do not follow on the one before, because something was left
                out between them: words on both sides are kept apart by a space that is no token's.

        Raises:
            InvalidInputError: An id is none of the tokenizer's.
        """
        left_out = set(gaps)
        parts: list[bytes] = []
        places: list[int] = []
        before, is_apart = b"", False
        for index, part in enumerate(self._bytes(ids)):
            is_apart |= index in left_out
            if part:
                if is_apart and before and not (_blank(before, -1) or _blank(part, 0)):
                    parts.append(b" ")
                before, is_apart = part, False
            places.append(len(parts))
            parts.append(part)
        text, character = text_of_bytes(b"".join(parts))
        return ReadText(
            text, _in_characters(token_spans([len(p) for p in parts])[places], character)
        )

    def _bytes(self, ids: Sequence[int]) -> list[bytes]:
        """The bytes of each token."""
        parts: list[bytes] = []
        previous: int | None = None
        for token_id in ids:
            if token_id in self._special:
                parts.append(b"")
                continue
            token = self._backend.id_to_token(token_id) if token_id >= 0 else None
            if token is None:
                raise InvalidInputError(
                    f"masker: expected ids of the explained model's tokenizer, which has "
                    f"{self._backend.get_vocab_size()} entries, got {token_id}"
                )
            if token_id == self._unknown:
                parts.append(_UNKNOWN)
            elif self._is_byte_level:
                parts.append(_byte_level(token))
            elif self._has_byte_fallback and (byte := _fallback_byte(token)) is not None:
                parts.append(byte)
            else:
                parts.append(self._behind(token_id if previous is None else previous, token_id))
            previous = token_id
        return parts

    def _behind(self, previous: int, token_id: int) -> bytes:
        alone = self._backend.decode([previous], skip_special_tokens=False)
        both = self._backend.decode([previous, token_id], skip_special_tokens=False)
        if both.startswith(alone):
            return both[len(alone) :].encode()
        # No decoder known to us rewrites what stands before; this much is the same in any case.
        pairs = enumerate(zip(alone, both, strict=False))
        shared = next((i for i, (a, b) in pairs if a != b), min(len(alone), len(both)))
        return both[shared:].encode()


def text_of_bytes(data: bytes) -> tuple[str, Integers]:
    """Bytes as UTF-8, and for each byte the index of its character.

    What is no UTF-8 becomes U+FFFD, one for each longest start of a character, as everywhere.
    """
    starts = (np.frombuffer(data, dtype=np.uint8) & 0xC0) != 0x80
    view = memoryview(data)  # whose slices are no copies
    pieces: list[str] = []
    position = 0
    while True:
        try:
            pieces.append(str(view[position:], "utf-8"))
            break
        except UnicodeDecodeError as error:
            low, high = position + error.start, position + error.end
            pieces += [str(view[position:low], "utf-8"), "\N{REPLACEMENT CHARACTER}"]
            starts[low:high] = False
            starts[low] = True
            position = high
    return "".join(pieces), np.cumsum(starts, dtype=np.int64) - 1


def _in_characters(spans: Integers, character: Integers) -> Integers:
    """Spans of bytes as spans of the characters that these bytes are of."""
    n_characters = int(character[-1]) + 1 if len(character) else 0
    bounded = np.append(character, n_characters)
    first = bounded[spans[:, 0]]
    last = np.where(spans[:, 1] > spans[:, 0], bounded[spans[:, 1] - 1] + 1, first)
    return np.stack([first, last], axis=1)


def _decoder_kinds(backend: Tokenizer) -> set[str]:
    decoder = backend.decoder
    if decoder is None:
        return set()
    # What a decoder consists of can only be read from its serialized form.
    described = json.loads(decoder.__getstate__())
    return {part["type"] for part in (described, *described.get("decoders", ()))}


def _alphabet() -> dict[str, int]:
    """The characters that byte-level tokenizers write bytes with."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in visible]
    written = {chr(byte): byte for byte in visible}
    return {**written, **{chr(256 + index): byte for index, byte in enumerate(others)}}


_BYTES = _alphabet()


def _byte_level(token: str) -> bytes:
    try:
        return bytes(_BYTES[character] for character in token)
    except KeyError:  # an added token is written as it is
        return token.encode()


def _fallback_byte(token: str) -> bytes | None:
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        try:
            return bytes([int(token[3:5], 16)])
        except ValueError:
            return None
    return None


def _blank(data: bytes, place: int) -> bool:
    """Whether a character of a token, its first or its last, is white space."""
    return data.decode(errors="replace")[place].isspace()
