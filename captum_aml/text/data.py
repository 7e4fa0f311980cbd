"""The reader of texts: strings, or texts with labels, of files, streams and the Hugging Face hub.

Every format is a function from a stream to rows; who takes rows checks their cells. An error says
where the source is wrong.
"""

from __future__ import annotations

import ast
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from captum_aml._utils.optional import require
from captum_aml._utils.rows import Lines, json_row, missing_column, shown, table_rows, text_rows
from captum_aml.exceptions import InvalidInputError
from captum_aml.text.choices import has_options
from captum_aml.text.columns import Column, choose_columns, is_missing
from captum_aml.text.failing import OnError
from captum_aml.text.inputs import Span, Unreadable, without_surrogates

_DEFAULT_SPLIT = "validation"
_FEATURE = "a data set of the hub"
_PARQUET_ROWS = 256
#: The first rows of a file, which tell its columns.
_SAMPLED = 64


@dataclass(frozen=True)
class LabelledText:
    """A text with what people say about it.

    Attributes:
        text: The text, which is not blank.
        label: Its class, as an index or a name; None where it is not known.
        rationale: Spans ``[start, end)`` of the characters of ``text`` that people give as the
            reason for the label; empty where they saw none, None where there is no annotation.
            :func:`captum_aml.metrics.rationale_spans` makes them of a 0 or 1 for each word.
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

    The columns for label, rationale and id may be missing, and are not read where they are None.
    A rationale is a list of spans ``[start, end)`` of characters, or of a 0 or 1 for each word,
    see :func:`captum_aml.metrics.rationale_spans`. What is NaN is none, and whole numbers may be
    written as pandas writes a column with gaps, such as 1.0. Of a text that is a list of words they
    are joined by spaces. Lone surrogates in texts, which no encoding can hold, become U+FFFD.

    Attributes:
        source: The file, folder or id. What exists on disk is taken from there.
        split: The split of a data set of the hub; files have none. Default: "validation"
        limit: How many texts to take from the start. Default: all.
        text_column: The column with the texts. Default: "text".
        label_column: The column with the labels, integers or strings; None for no labels.
            Default: "label".
        rationale_column: The column with the rationales, or None. Default: "rationale".
        id_column: The column with what the data set calls a text, or None. Default: "id".

    Raises:
        InvalidInputError: The limit is not positive, the format is unknown, there is no such file,
            or a file was given a split.
    """

    source: str | os.PathLike[str]
    split: str | None = None
    limit: int | None = None
    text_column: str = "text"
    label_column: str | None = "label"
    rationale_column: str | None = "rationale"
    id_column: str | None = "id"

    def __post_init__(self) -> None:
        if self.limit is not None and not (is_int(self.limit) and self.limit >= 1):
            raise InvalidInputError(f"limit: expected 1 or more, got {self.limit!r}")
        file, name = Path(self.source), os.fspath(self.source)
        if is_text_file(file):
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
                not a string, a label is no integer or string, a span is not within its text, a
                rationale has not a number for each word, or the data set cannot be had. The
                message names file and line.
            ImportError: pyarrow or ``datasets`` is needed and not installed.
            OSError: The file cannot be opened.
        """
        columns = _Columns(
            self.text_column, self.label_column, self.rationale_column, self.id_column
        )
        file = Path(self.source)
        if is_text_file(file):
            rows = _file_rows(file, columns)
        else:
            split = self.split or _DEFAULT_SPLIT
            rows = _hub_rows(os.fspath(self.source), split, self.limit, columns)
        with closing(rows):  # the file, too, also after an error
            for row in islice(rows, self.limit):
                if row.problem is not None:
                    raise row.problem
                try:
                    item = labelled_text(row.text, row.label, row.rationale, row.id)
                except InvalidInputError as error:
                    raise InvalidInputError(f"{row.place}: {error}") from None
                yield item

    def load(self) -> list[LabelledText]:
        """The texts as a list.

        Raises:
            InvalidInputError: There is no text at all, or as for reading them one by one.
        """
        texts = list(self)
        if not texts:
            raise InvalidInputError(
                f"data: expected one text or more, got none in {os.fspath(self.source)!r}"
            )
        return texts


def read_texts(path: str | os.PathLike[str], *, column: str = "text") -> Iterator[str]:
    """Texts of a file in one of the formats of :class:`TextSource`, as strings.

    They are read as they are taken, so that the file's size does not matter. An empty text in a
    column is a text, too.

    Args:
        path: The file.
        column: The field or column that holds the text. Default: "text".

    Raises:
        InvalidInputError: The extension is unknown; or, as texts are taken, a line is broken,
            lacks the column, or is not UTF-8. The message names file and line.
        ImportError: pyarrow is needed and not installed.
        OSError: The file cannot be opened.
    """
    return cast("Iterator[str]", read_rows(path, column=column))  # as of one column, without errors


def read_rows(
    path: str | os.PathLike[str], *, column: Column | None = "text", errors: OnError = "raise"
) -> Iterator[str | tuple[str, str] | Mapping[str, Any] | Unreadable]:
    """Texts of a file, as ``read_texts`` reads them, or pairs.

    Args:
        path: The file.
        column: The column with the texts, or the two with the texts of pairs. None: those that
            :func:`~captum_aml.text.columns.choose_columns` takes, told from the first rows; rows
            with options to choose from are given as mappings. Default: "text".
        errors: Whether a broken row is an error, or with "skip" an element that says what is wrong
            with it. Default: "raise".

    Raises:
        InvalidInputError: As for ``read_texts``; with "skip" where nothing behind it can be read.
        ImportError: pyarrow is needed and not installed.
        OSError: The file cannot be opened.
    """
    file = Path(path)
    if file.suffix.lower() not in _FORMATS:
        raise InvalidInputError(
            f"file: expected one of the formats {', '.join(_FORMATS)}, got {os.fspath(path)!r}"
        )
    columns = _told_columns(file) if column is None else _Columns(column)
    rows = _file_rows(file, columns)

    def texts() -> Iterator[str | tuple[str, str] | Mapping[str, Any] | Unreadable]:
        with closing(rows):
            for row in rows:
                text = _text_of(row, columns.texts)
                if isinstance(text, Unreadable) and errors == "raise":
                    raise InvalidInputError(text.reason)
                yield text

    return texts()


def _told_columns(file: Path) -> _Columns:
    """The columns that texts are taken from where nobody names one."""
    # A pipe can be read once.
    if file.suffix.lower() == ".txt" or (file.exists() and not file.is_file()):
        return _Columns("text")
    found: list[Mapping[str, Any]] = []
    # What is wrong with a row is said when texts are taken.
    with suppress(InvalidInputError), closing(_file_rows(file, _EveryColumn(()))) as rows:
        for row in islice(rows, _SAMPLED):
            if row.problem is None:
                found.append(row.text)
    if not found:
        return _Columns("text")
    there = Counter(name for row in found for name in row)
    names = [name for name, count in there.items() if 2 * count >= len(found)]
    if has_options(names):
        return _EveryColumn(())
    is_delimited = file.suffix.lower() in (".csv", ".tsv")

    def sample(name: str) -> object:
        """The first string of a column, which numbers in a delimited file are not."""
        cells = [row[name] for row in found if not is_missing(row.get(name)) and row[name] != ""]
        strings = [cell for cell in cells if isinstance(cell, str)]
        texts = [cell for cell in strings if not (is_delimited and _is_number(cell))]
        return texts[0] if texts else math.inf if strings else next(iter(cells), None)

    try:
        chosen = choose_columns(names, None, sample)
    except InvalidInputError as error:
        raise InvalidInputError(
            f"{os.fspath(file)}: {error} (--column, given twice for pairs)"
        ) from None
    return _Columns(chosen[0] if len(chosen) == 1 else chosen)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _text_of(
    row: _Row, names: tuple[str, ...]
) -> str | tuple[str, str] | Mapping[str, Any] | Unreadable:
    if row.problem is not None:
        return Unreadable(str(row.problem))
    if isinstance(row.text, Mapping) and not names:
        return row.text
    cells = tuple(map(_joined, row.text if isinstance(row.text, tuple) else (row.text,)))
    for name, cell in zip(names, cells, strict=True):
        if not isinstance(cell, str):
            return Unreadable(f"{row.place}: expected a string in {name!r}, got {shown(cell)}")
    return cells if isinstance(row.text, tuple) else cells[0]


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
    label, rationale, identity = map(_without_floats, (label, rationale, identity))
    text = _joined(text)
    if identity is not None and not isinstance(identity, str) and not is_int(identity):
        raise InvalidInputError(f"id: expected a string or an integer, got {shown(identity)}")
    return LabelledText(
        text=without_surrogates(text) if isinstance(text, str) else text,
        label=label,
        rationale=None if rationale is None else _spans(rationale, text),
        id=None if identity is None else str(identity),
    )


def _spans(rationale: Any, text: Any) -> tuple[Any, ...]:
    """Of a rationale in either form, the spans, which ``LabelledText`` checks."""
    if not isinstance(rationale, list | tuple):
        raise InvalidInputError(
            "rationale: expected a list of spans [start, end), or of 0 or 1 for each word, got "
            f"{shown(rationale)}"
        )
    if rationale and isinstance(text, str) and all(isinstance(m, int | float) for m in rationale):
        # It loads torch, which few files need.
        from captum_aml.metrics import rationale_spans

        return tuple(rationale_spans(text, rationale))
    return tuple(tuple(span) if isinstance(span, list) else span for span in rationale)


def _joined(text: Any) -> Any:
    """A text that is a list of words as a string, anything else as it is."""
    is_split = isinstance(text, list) and all(isinstance(word, str) for word in text)
    return " ".join(text) if is_split else text


def _without_floats(value: Any) -> Any:
    """A cell as it was before pandas made a column with gaps one of floats."""
    if not isinstance(value, float):
        return value
    if value != value:
        return None
    return int(value) if value.is_integer() else value


def is_int(value: object) -> bool:
    """Whether it is an integer, which truth values are not here."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_text_file(source: str | os.PathLike[str]) -> bool:
    """Whether it is read as a file: by its extension, of a source that is no folder."""
    file = Path(source)
    return file.suffix.lower() in _FORMATS and not file.is_dir()


# Cells hold values of any type, which those who take the row check.
class _Row(NamedTuple):
    place: str
    text: Any  # a tuple of two cells for a pair, a mapping of all
    label: Any = None
    rationale: Any = None
    id: Any = None
    problem: InvalidInputError | None = None  # what is wrong with the row as a whole


@dataclass(frozen=True)
class _Columns:
    text: str | tuple[str, ...]
    label: str | None = None
    rationale: str | None = None
    id: str | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        return (self.text,) if isinstance(self.text, str) else self.text

    def require(self, there: Iterable[str], place: str) -> None:
        """Refuses a row, or a table, without a column for the texts."""
        for name in self.texts:
            if name not in there:
                raise InvalidInputError(f"{place}: {missing_column(name, there)}")

    def wanted(self, there: Iterable[str], name: str) -> list[str]:
        self.require(there, name)
        return [c for c in there if c in (*self.texts, self.label, self.rationale, self.id)]

    def cells(self, row: Mapping[str, Any]) -> Any:
        """The text's cell, or both of a pair."""
        found = tuple(row[name] for name in self.texts)
        return found[0] if isinstance(self.text, str) else found

    def row(self, place: str, cells: Mapping[str, Any]) -> _Row:
        self.require(cells, place)
        label, rationale, identity = (
            None if name is None else cells.get(name)
            for name in (self.label, self.rationale, self.id)
        )
        return _Row(place, self.cells(cells), label, rationale, identity)

    def row_of_strings(self, place: str, cells: Mapping[str, str]) -> _Row:
        """From a row of a table that holds nothing but strings."""
        row = self.row(place, {name: cell or None for name, cell in cells.items()})
        return row._replace(text=self.cells(cells), rationale=_list_cell(row.rationale))


@dataclass(frozen=True)
class _EveryColumn(_Columns):
    """All columns of a file, none by its name: rows as mappings."""

    def wanted(self, there: Iterable[str], name: str) -> list[str]:
        return list(there)

    def cells(self, row: Mapping[str, Any]) -> Any:
        return row

    def row_of_strings(self, place: str, cells: Mapping[str, str]) -> _Row:
        lists = {n: _list_cell(c) for n, c in cells.items() if c.lstrip().startswith("[")}
        return _Row(place, {**cells, **lists})


def _list_cell(cell: str | None) -> Any:
    """A list, as of a rationale, written as in JSON or Python; another string as it is."""
    if cell is None or not cell.strip():
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            return read(cell.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            pass
    return cell


def _jsonl_rows(stream: BinaryIO, name: str, columns: _Columns) -> Iterator[_Row]:
    lines = Lines(stream, name)
    for line in lines:
        if not line.strip():
            continue
        try:
            yield columns.row(lines.place, json_row(line, lines))
        except InvalidInputError as error:
            yield _Row(lines.place, None, problem=error)


def _table_rows(
    stream: BinaryIO, name: str, columns: _Columns, *, delimiter: str
) -> Iterator[_Row]:
    lines = Lines(stream, name)
    for cells in table_rows(lines, delimiter=delimiter, columns=columns.texts):
        if isinstance(cells, InvalidInputError):
            yield _Row(lines.place, None, problem=cells)
        else:
            yield columns.row_of_strings(lines.place, cells)


def _txt_rows(stream: BinaryIO, name: str, columns: _Columns) -> Iterator[_Row]:
    lines = Lines(stream, name)
    return (_Row(lines.place, line) for line in text_rows(lines))


def _parquet_rows(stream: BinaryIO, name: str, columns: _Columns) -> Iterator[_Row]:
    require("pyarrow", package="pyarrow", feature="reading parquet", extra="benchmark")
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(stream)
        wanted = columns.wanted(table.schema_arrow.names, name)
        batches = table.iter_batches(batch_size=_PARQUET_ROWS, columns=wanted)
        rows = (cells for batch in batches for cells in batch.to_pylist())
        yield from _numbered(name, rows, columns)
    # Damage is reported as an ArrowInvalid, or as an OSError without a number.
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InvalidInputError(f"{name}: expected a parquet file ({error})") from None


_FORMATS: dict[str, Callable[[BinaryIO, str, _Columns], Iterator[_Row]]] = {
    ".jsonl": _jsonl_rows,
    ".csv": partial(_table_rows, delimiter=","),
    ".tsv": partial(_table_rows, delimiter="\t"),
    ".parquet": _parquet_rows,
    ".txt": _txt_rows,
}


def _file_rows(file: Path, columns: _Columns) -> Generator[_Row, None, None]:
    """Rows of a file, which is opened at once and closed when they are taken."""
    stream = file.open("rb")
    return _closing(stream, _FORMATS[file.suffix.lower()](stream, os.fspath(file), columns))


def _closing(stream: BinaryIO, rows: Iterator[_Row]) -> Generator[_Row, None, None]:
    with stream:
        yield from rows


def _hub_rows(
    source: str, split: str, limit: int | None, columns: _Columns
) -> Generator[_Row, None, None]:
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
    data = data.select_columns(columns.wanted(data.column_names, source))
    if limit is not None:
        data = data.select(range(min(limit, len(data))))
    rows: Iterable[Mapping[str, Any]] = data
    label = columns.label
    if label is not None and isinstance(data.features.get(label), datasets.ClassLabel):
        rows = ({**cells, label: None if cells[label] == -1 else cells[label]} for cells in data)
    return _numbered(source, rows, columns)


def _numbered(
    name: str, rows: Iterable[Mapping[str, Any]], columns: _Columns
) -> Generator[_Row, None, None]:
    return (columns.row(f"{name}, row {i}", cells) for i, cells in enumerate(rows, start=1))
