"""Labelled texts, from files and from the Hugging Face hub."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from captum_aml._optional import require
from captum_aml._utils.rows import Lines, json_rows, missing_column, shown, table_rows, text_rows
from captum_aml.exceptions import InvalidInputError
from captum_aml.text.inputs import Span

_ID_COLUMN = "id"
_DEFAULT_SPLIT = "validation"
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_FEATURE = "a data set of the hub"
_PARQUET_ROWS = 256


@dataclass(frozen=True)
class LabelledText:
    """A text with what people say about it.

    Attributes:
        text: The text, which is not blank.
        label: Its class, as an index or a name; None where it is not known.
        rationale: Spans ``[start, end)`` of the characters of ``text`` that people give as the
            reason for the label; empty where they saw none, None where nobody was asked.
        id: What the data set calls it.

    Raises:
        InvalidInputError: The text is blank, or a field has another form than described.
    """

    text: str
    label: int | str | None = None
    rationale: tuple[Span, ...] | None = None
    id: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise InvalidInputError(f"text: expected a string, got {shown(self.text)}")
        if not self.text.strip():
            raise InvalidInputError(f"text: expected words to explain, got {shown(self.text)}")
        label_is_valid = self.label is None or isinstance(self.label, str) or is_int(self.label)
        if not label_is_valid:
            raise InvalidInputError(
                f"label: expected an index, a name or nothing, got {shown(self.label)}"
            )
        for span in self.rationale or ():
            check_span("rationale", span, self.text)


@dataclass(frozen=True)
class TextSource:
    """Texts of a local file, or of a data set of the Hugging Face hub, read each time anew.

    - ``.jsonl``: an object on every line. Blank lines are skipped.
    - ``.csv`` and ``.tsv``: a header and rows, quoted as usual. An empty label or rationale is
      none; a rationale is written as in JSON.
    - ``.parquet``: through pyarrow.
    - ``.txt``: a text on every line, without labels. Blank lines are skipped.
    - a folder, or an id such as ``"glue:sst2"``, whose part after the colon names the
      configuration: through the ``datasets`` library. Where the data set declares its classes,
      its label -1 stands for none.

    The columns for label, rationale and ``id`` may be missing. Rationales are lists of spans
    ``[start, end)`` of characters. Lone surrogates in texts, which no encoding can hold, become
    U+FFFD.

    Attributes:
        source: The file, folder or id. What exists on disk is taken from there.
        split: The split of a data set of the hub; files have none. Default: "validation"
        limit: How many texts to take from the start. Default: all.
        text_column: The column with the texts. Default: "text".
        label_column: The column with the labels, integers or strings. Default: "label".
        rationale_column: The column with the rationales. Default: "rationale".

    Raises:
        InvalidInputError: The limit is not positive, the format is unknown, there is no such file,
            or a file was given a split.
    """

    source: str | os.PathLike[str]
    split: str | None = None
    limit: int | None = None
    text_column: str = "text"
    label_column: str = "label"
    rationale_column: str = "rationale"

    def __post_init__(self) -> None:
        if self.limit is not None and not (is_int(self.limit) and self.limit >= 1):
            raise InvalidInputError(f"limit: expected 1 or more, got {self.limit!r}")
        file, name = Path(self.source), os.fspath(self.source)
        if file.suffix.lower() in _FORMATS and not file.is_dir():
            if self.split is not None:
                raise InvalidInputError(
                    f"split: expected none, as {name!r} is a file, got {self.split!r}"
                )
        elif file.is_file():
            raise InvalidInputError(
                f"data: expected one of the formats {', '.join(_FORMATS)}, got {name!r}"
            )
        elif not file.exists() and (file.is_absolute() or len(file.parts) > 2):
            raise InvalidInputError(f"data: there is no file or folder {name!r}")

    def __iter__(self) -> Iterator[LabelledText]:
        """The texts, one after the other.

        Raises:
            InvalidInputError: The text column is missing, a line is broken, a text is blank or
                not a string, a label is no integer or string, a span is not within its text, or
                the data set cannot be had. The message names file and line.
            ImportError: pyarrow or ``datasets`` is needed and not installed.
            OSError: The file cannot be opened.
        """
        columns = _Columns(self.text_column, self.label_column, self.rationale_column)
        file = Path(self.source)
        if file.suffix.lower() in _FORMATS and not file.is_dir():
            items = _FORMATS[file.suffix.lower()](file, columns)
        else:
            split = self.split or _DEFAULT_SPLIT
            items = _read_hub(os.fspath(self.source), split, self.limit, columns)
        return islice(items, self.limit)


def load_texts(
    source: str | os.PathLike[str],
    *,
    split: str | None = None,
    limit: int | None = None,
    text_column: str = "text",
    label_column: str = "label",
    rationale_column: str = "rationale",
) -> list[LabelledText]:
    """The texts of a :class:`TextSource`, which describes the arguments, as a list.

    Raises:
        InvalidInputError: There is no text at all, or a text or argument is not as described
            there. The message names file and line.
        ImportError: pyarrow or ``datasets`` is needed and not installed.
        OSError: The file cannot be opened.
    """
    texts = list(TextSource(source, split, limit, text_column, label_column, rationale_column))
    if not texts:
        raise InvalidInputError(
            f"data: expected one text or more, got none in {os.fspath(source)!r}"
        )
    return texts


def data_fingerprint(texts: Iterable[LabelledText]) -> str:
    """SHA-256 of texts, labels and rationales in their order, in hexadecimal digits."""
    digest = hashlib.sha256()
    for item in texts:
        line = json.dumps([item.text, item.label, item.rationale])
        digest.update(line.encode("ascii") + b"\n")
    return digest.hexdigest()


def label_indices(texts: Sequence[LabelledText], label_names: Sequence[str]) -> list[int | None]:
    """The model's class index for the label of each text; None where a text has no label.

    An integer is an index. A string is a class name, whose capitals count only where two names
    differ in nothing else; or an index written in digits, where no class has that name.

    Args:
        texts: The texts.
        label_names: The model's class names by index.

    Raises:
        InvalidInputError: A label is none of the model's. The message names it, the number of
            its text, counted from 1, and the labels there are.
    """
    exact = {name: index for index, name in enumerate(label_names)}
    folded: dict[str, list[int]] = {}
    for index, name in enumerate(label_names):
        folded.setdefault(name.casefold(), []).append(index)

    def find(label: int | str) -> int | None:
        if isinstance(label, str):
            alike = folded.get(label.casefold(), [])
            if label in exact or len(alike) == 1:
                return exact.get(label, alike[0])
            index = int(label) if re.fullmatch("[0-9]{1,9}", label) else -1
        else:
            index = label
        return index if 0 <= index < len(label_names) else None

    indices: list[int | None] = []
    for number, item in enumerate(texts, start=1):
        found = None if item.label is None else find(item.label)
        if found is None and item.label is not None:
            known = ", ".join(f"{i} ({name!r})" for i, name in enumerate(label_names))
            raise InvalidInputError(
                f"label: expected one of the model's classes {known}, got {item.label!r} for "
                f"text {number}"
            )
        indices.append(found)
    return indices


def check_span(name: str, span: object, text: str, *, may_be_empty: bool = False) -> None:
    """Checks that a pair of integers is a span ``[start, end)`` of the characters of a text.

    Raises:
        InvalidInputError: It is not; the message begins with the name.
    """
    if isinstance(span, (list, tuple)) and len(span) == 2 and all(map(is_int, span)):
        start, end = span
        if 0 <= start <= end <= len(text) and (may_be_empty or start < end):
            return
    raise InvalidInputError(
        f"{name}: expected spans [start, end) within the text's {len(text)} characters, got "
        f"{shown(span)}"
    )


# Cells hold values of any type, which `LabelledText` checks.
def labelled_text(text: Any, label: Any, rationale: Any, identity: Any) -> LabelledText:
    """A labelled text from the cells of a row, as JSON would hold them.

    Raises:
        InvalidInputError: A cell has another form than ``LabelledText`` describes.
    """
    if rationale is not None:
        if not isinstance(rationale, list):
            raise InvalidInputError(
                f"rationale: expected a list of spans [start, end), got {shown(rationale)}"
            )
        rationale = tuple(tuple(span) if isinstance(span, list) else span for span in rationale)
    if identity is not None and not isinstance(identity, str) and not is_int(identity):
        raise InvalidInputError(f"id: expected a string or an integer, got {shown(identity)}")
    return LabelledText(
        text=_LONE_SURROGATE.sub("\ufffd", text) if isinstance(text, str) else text,
        label=label,
        rationale=rationale,
        id=None if identity is None else str(identity),
    )


def is_int(value: object) -> bool:
    """Whether it is an integer, which truth values are not here."""
    return isinstance(value, int) and not isinstance(value, bool)


# What a row holds is only known once it is checked.
_Row: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class _Columns:
    text: str
    label: str
    rationale: str

    def check(self, there: Iterable[str]) -> None:
        if self.text not in there:
            raise InvalidInputError(missing_column(self.text, there))

    def wanted(self, there: Iterable[str]) -> list[str]:
        self.check(there)
        return [c for c in there if c in (self.text, self.label, self.rationale, _ID_COLUMN)]

    def labelled(self, row: _Row) -> LabelledText:
        self.check(row)
        return labelled_text(
            row[self.text], row.get(self.label), row.get(self.rationale), row.get(_ID_COLUMN)
        )

    def labelled_cells(self, row: Mapping[str, str]) -> LabelledText:
        """From a row of a table that holds nothing but strings."""
        rationale = row.get(self.rationale, "").strip()
        try:
            spans = json.loads(rationale) if rationale else None
        except (ValueError, RecursionError):
            spans = rationale
        label, identity = (row.get(name) or None for name in (self.label, _ID_COLUMN))
        return labelled_text(row[self.text], label, spans, identity)


def _read_jsonl(file: Path, columns: _Columns) -> Iterator[LabelledText]:
    return _read_lines(file, json_rows, columns.labelled)


def _read_csv(file: Path, columns: _Columns) -> Iterator[LabelledText]:
    rows = partial(table_rows, delimiter=",", column=columns.text)
    return _read_lines(file, rows, columns.labelled_cells)


def _read_tsv(file: Path, columns: _Columns) -> Iterator[LabelledText]:
    rows = partial(table_rows, delimiter="\t", column=columns.text)
    return _read_lines(file, rows, columns.labelled_cells)


def _read_txt(file: Path, columns: _Columns) -> Iterator[LabelledText]:
    return _read_lines(file, text_rows, lambda line: labelled_text(line, None, None, None))


_T = TypeVar("_T")


def _read_lines(
    file: Path, rows: Callable[[Lines], Iterator[_T]], labelled: Callable[[_T], LabelledText]
) -> Iterator[LabelledText]:
    with file.open("rb") as stream:
        lines = Lines(stream, os.fspath(file))
        for row in rows(lines):
            try:
                item = labelled(row)
            except InvalidInputError as error:
                raise lines.error(str(error)) from None
            yield item


def _read_rows(name: str, rows: Iterable[_Row], columns: _Columns) -> Iterator[LabelledText]:
    for number, row in enumerate(rows, start=1):
        try:
            item = columns.labelled(row)
        except InvalidInputError as error:
            raise InvalidInputError(f"{name}, row {number}: {error}") from None
        yield item


def _read_parquet(file: Path, columns: _Columns) -> Iterator[LabelledText]:
    require("pyarrow", package="pyarrow", feature="reading parquet", extra="benchmark")
    import pyarrow
    from pyarrow import parquet

    name = os.fspath(file)
    with file.open("rb") as stream:
        try:
            table = parquet.ParquetFile(stream)
            try:
                wanted = columns.wanted(table.schema_arrow.names)
            except InvalidInputError as error:
                raise InvalidInputError(f"{name}: {error}") from None
            batches = table.iter_batches(batch_size=_PARQUET_ROWS, columns=wanted)
            rows = (row for batch in batches for row in batch.to_pylist())
            yield from _read_rows(name, rows, columns)
        # Damage is reported as an ArrowInvalid, or as an OSError without a number.
        except (pyarrow.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise InvalidInputError(f"{name}: expected a parquet file ({error})") from None


def _read_hub(
    source: str, split: str, limit: int | None, columns: _Columns
) -> Iterator[LabelledText]:
    require("datasets", package="datasets", feature=_FEATURE, extra="benchmark")
    import datasets

    name, _, configuration = (source, "", "") if Path(source).exists() else source.partition(":")
    try:
        data = datasets.load_dataset(name, configuration or None, split=split)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise InvalidInputError(
            f"data: expected a file ({', '.join(_FORMATS)}), or a data set of the hub that can be "
            f"had, got {source!r} with split {split!r} ({error})"
        ) from None
    if not isinstance(data, datasets.Dataset):
        raise InvalidInputError(f"split: expected the name of one split, got {split!r}")
    try:
        data = data.select_columns(columns.wanted(data.column_names))
    except InvalidInputError as error:
        raise InvalidInputError(f"{source}: {error}") from None
    if limit is not None:
        data = data.select(range(min(limit, len(data))))
    rows: Iterable[_Row] = data
    if isinstance(data.features.get(columns.label), datasets.ClassLabel):
        rows = ({**row, columns.label: _known(row[columns.label])} for row in rows)
    yield from _read_rows(source, rows, columns)


def _known(label: int | None) -> int | None:
    return None if label == -1 else label


_FORMATS: dict[str, Callable[[Path, _Columns], Iterator[LabelledText]]] = {
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
    ".txt": _read_txt,
}
