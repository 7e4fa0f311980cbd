"""Texts of one tokenizer as windows of another, with the tokens that share characters."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer
from typing_extensions import Self

from captum_aml.exceptions import InvalidInputError
from captum_aml.maskers._alignment import overlapping
from captum_aml.maskers._decoding import TokenReader

if TYPE_CHECKING:  # importing transformers takes seconds
    from transformers import PreTrainedTokenizerBase

#: The most numbers of four bytes that remembered alignments may hold.
_CACHE_SIZE = 16_000_000

#: What an entry costs beside its arrays' content, in numbers.
_ENTRY_SIZE = 256


@dataclass(frozen=True)
class StoredTokenizer:
    """The content of a fast tokenizer: the caller's own has settings that change.

    Attributes:
        content: Its inner tokenizer as ``tokenizer.json`` has it, without padding or cutting.
        special: The ids of its special tokens.
        unknown: The id of its unknown token, if that is not one of the others.
        padding: The id of its padding token, if it has one.
    """

    content: str
    special: tuple[int, ...]
    unknown: int | None
    padding: int | None

    @classmethod
    def of(cls, name: str, tokenizer: PreTrainedTokenizerBase | StoredTokenizer) -> StoredTokenizer:
        """Keeps a tokenizer.

        Args:
            name: The argument's name, for an error.
            tokenizer: A fast tokenizer, or what was kept of one.

        Raises:
            InvalidInputError: It is none.
        """
        if isinstance(tokenizer, StoredTokenizer):
            return tokenizer
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if not isinstance(backend, Tokenizer):
            raise InvalidInputError(
                f"{name}: expected a fast tokenizer of transformers, which knows the characters of "
                f"its tokens, got {type(tokenizer).__name__}; load it with "
                "AutoTokenizer.from_pretrained(..., use_fast=True), or save it in the "
                "tokenizer.json format"
            )
        others = ("bos", "eos", "cls", "sep", "pad", "mask")
        taken = {getattr(tokenizer, f"{kind}_token_id", None) for kind in others}
        unknown = getattr(tokenizer, "unk_token_id", None)
        special = {i for i, token in backend.get_added_tokens_decoder().items() if token.special}
        content = backend.to_str()
        if backend.padding is not None or backend.truncation is not None:
            copy = Tokenizer.from_str(content)
            copy.no_padding()
            copy.no_truncation()
            content = copy.to_str()
        return cls(
            content=content,
            special=tuple(sorted(special | set(map(int, tokenizer.all_special_ids)))),
            unknown=None if unknown is None or unknown in taken else int(unknown),
            padding=tokenizer.pad_token_id,
        )

    @classmethod
    def from_description(
        cls, description: Mapping[str, Any], files: Mapping[str, bytes]
    ) -> StoredTokenizer:
        """The tokenizer of a :attr:`description`, given contents by their SHA-256."""
        return cls(
            content=files[description["sha256"]].decode(),
            special=tuple(description["special"]),
            unknown=description["unknown"],
            padding=description["padding"],
        )

    @property
    def description(self) -> dict[str, Any]:
        """Its ids and the checksum of its content, as JSON values."""
        return {
            "sha256": self.digest,
            "special": list(self.special),
            "unknown": self.unknown,
            "padding": self.padding,
        }

    @property
    def digest(self) -> str:
        """SHA-256 of the content."""
        return hashlib.sha256(self.content.encode()).hexdigest()

    def backend(self) -> Tokenizer:
        """The inner tokenizer, a new one.

        Raises:
            InvalidInputError: The content is no tokenizer's.
        """
        try:
            return Tokenizer.from_str(self.content)
        except Exception as error:  # tokenizers raises nothing more special
            raise InvalidInputError(f"tokenizer: it cannot be read ({error})") from error


@dataclass(frozen=True)
class Alignment:
    """The model's tokens of a text beside the masker's.

    The masker's tokens are numbered window by window, special ones included.

    Attributes:
        window_lengths: The number of tokens in each window, at least one window.
        ids: The masker's tokens, (S,).
        types: Their token types, (S,).
        added: Which of them the masker's tokenizer put around a window, (S,).
        has_text: The model's tokens that stand for characters, (T,).
        tokens: For each pair of tokens that share a character the model's, (P,).
        others: The masker's, (P,).
    """

    window_lengths: tuple[int, ...]
    ids: npt.NDArray[np.int32]
    types: npt.NDArray[np.int32]
    added: npt.NDArray[np.bool_]
    has_text: npt.NDArray[np.bool_]
    tokens: npt.NDArray[np.int32]
    others: npt.NDArray[np.int32]

    @property
    def size(self) -> int:
        """About how many numbers of four bytes it holds."""
        return _ENTRY_SIZE + 3 * len(self.ids) + len(self.has_text) + 2 * len(self.tokens)


class Aligner:
    """Aligns the ids of one tokenizer with those of another, and remembers what it aligned.

    Copies share the tokenizers, which are never changed, but not the memory: fitting sees the same
    texts in every epoch, and whoever gets a copy or a pickled masker does not want them.

    Args:
        model: The tokenizer of the ids, which is the model's.
        masker: The tokenizer that makes windows, which is the masker's.
        max_length: The most tokens of a window, special ones included; None for one window.

    Raises:
        InvalidInputError: A tokenizer cannot be read, or a window would have no room for text.
    """

    def __init__(
        self, model: StoredTokenizer, masker: StoredTokenizer, *, max_length: int | None
    ) -> None:
        self.model = model
        self.masker = masker
        self.max_length = max_length
        self._reader = TokenReader(model.backend(), special=model.special, unknown=model.unknown)
        self._backend = masker.backend()
        # Where the text spells a special token, it is text.
        self._backend.encode_special_tokens = True
        if max_length is not None:
            least = self._backend.num_special_tokens_to_add(is_pair=False) + 1
            if max_length < least:
                raise InvalidInputError(
                    f"max_length: expected at least {least}, which leaves room for a token beside "
                    f"the special ones, got {max_length}"
                )
            self._backend.enable_truncation(max_length, stride=0)
        self._known: OrderedDict[bytes, Alignment] = OrderedDict()
        self._size = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        twin = type(self).__new__(type(self))
        twin.__dict__.update(self.__dict__, _known=OrderedDict(), _size=0)
        return twin

    def __getstate__(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "masker": self.masker,
            "max_length": self.max_length,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        Aligner.__init__(self, **state)

    def align(self, ids: npt.NDArray[np.int64], places: npt.NDArray[np.int64]) -> Alignment:
        """Aligns one text.

        Args:
            ids: The ids of the text, (T,).
            places: Where they stand in their sequence, (T,), in ascending order: where one does not
                follow on the one before, the words there are kept apart.

        Raises:
            InvalidInputError: An id is not in the model's vocabulary.
        """
        gaps = np.flatnonzero(np.diff(places) != 1) + 1
        key = ids.tobytes() + b"|" + gaps.tobytes()
        found = self._known.get(key)
        if found is not None:
            self._known.move_to_end(key)
            return found
        made = self._made(ids.tolist(), gaps.tolist())
        self._known[key] = made
        self._size += made.size + len(key) // 4
        while self._size > _CACHE_SIZE and len(self._known) > 1:
            oldest, dropped = self._known.popitem(last=False)
            self._size -= dropped.size + len(oldest) // 4
        return made

    def _made(self, ids: Sequence[int], gaps: Sequence[int]) -> Alignment:
        read = self._reader.read(ids, gaps)
        first = self._backend.encode(read.text)
        windows: list[Encoding] = [first, *first.overflowing]
        added = np.concatenate([np.array(w.special_tokens_mask, dtype=bool) for w in windows])
        spans = np.concatenate(
            [np.array(w.offsets, dtype=np.int64).reshape(-1, 2) for w in windows]
        )
        spans[added] = 0
        tokens, others = overlapping(read.spans, spans)
        return Alignment(
            window_lengths=tuple(len(w.ids) for w in windows),
            ids=np.concatenate([np.array(w.ids, dtype=np.int32) for w in windows]),
            types=np.concatenate([np.array(w.type_ids, dtype=np.int32) for w in windows]),
            added=added,
            has_text=read.spans[:, 1] > read.spans[:, 0],
            tokens=tokens.astype(np.int32),
            others=others.astype(np.int32),
        )
