"""Texts from files, and errors that say where a file is wrong."""

from __future__ import annotations

import io
from itertools import islice
from pathlib import Path

import pytest

from captum_aml.exceptions import InvalidInputError
from captum_aml.text import read_lines, read_texts


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return path


class TestFormats:
    def test_jsonl(self, tmp_path: Path) -> None:
        path = write(tmp_path, "a.jsonl", '{"text": "één"}\n\n{"label": 1, "text": "🎬\\n"}')
        assert list(read_texts(path)) == ["één", "🎬\n"]

    def test_jsonl_lines_end_at_line_feeds_only(self, tmp_path: Path) -> None:
        path = write(tmp_path, "a.jsonl", '{"text": "a\u2028b\x85c"}\r\n{"text": "d"}\r\n')
        assert list(read_texts(path)) == ["a\u2028b\x85c", "d"]

    def test_csv_with_quotes_and_line_breaks(self, tmp_path: Path) -> None:
        path = write(tmp_path, "a.csv", 'id,text\n1,"a, ""b""\nc"\n\n2,\n3,d\n')
        assert list(read_texts(path)) == ['a, "b"\nc', "", "d"]

    def test_tsv(self, tmp_path: Path) -> None:
        path = write(tmp_path, "a.tsv", "review\tlabel\nso, good\t1\n")
        assert list(read_texts(path, column="review")) == ["so, good"]

    def test_txt_keeps_inner_space_and_skips_blank_lines(self, tmp_path: Path) -> None:
        path = write(tmp_path, "a.txt", " a b \r\n\n   \nc")
        assert list(read_texts(path)) == [" a b ", "c"]

    def test_extension_in_capitals(self, tmp_path: Path) -> None:
        assert list(read_texts(write(tmp_path, "A.TXT", "a"))) == ["a"]

    @pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl"])
    def test_byte_order_mark_is_no_text(self, tmp_path: Path, name: str) -> None:
        content = {"a.txt": "x", "a.csv": "text\nx", "a.jsonl": '{"text": "x"}'}[name]
        assert list(read_texts(write(tmp_path, name, "\ufeff" + content))) == ["x"]

    @pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl"])
    def test_empty_file_has_no_texts(self, tmp_path: Path, name: str) -> None:
        assert list(read_texts(write(tmp_path, name, ""))) == []

    def test_files_are_read_as_texts_are_taken(self, tmp_path: Path) -> None:
        path = write(tmp_path, "a.jsonl", '{"text": "a"}\n' * 3 + "broken")
        assert list(islice(read_texts(path), 3)) == ["a"] * 3

    def test_stream(self) -> None:
        assert list(read_lines(io.BytesIO(b"a\n\nb\r\n"), name="standard input")) == ["a", "b"]


class TestBadFiles:
    def test_unknown_format(self, tmp_path: Path) -> None:
        with pytest.raises(
            InvalidInputError, match=r"formats \.jsonl, \.csv, \.tsv, \.txt, got .*a\.parquet"
        ):
            read_texts(tmp_path / "a.parquet")

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            read_texts(tmp_path / "a.txt")

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("a.jsonl", '{"text": "a"}\n\n{"text": \n', "line 3: .*invalid JSON"),
            ("a.jsonl", '["a"]', "line 1: expected a JSON object, got a list"),
            ("a.jsonl", '{"body": "a", "id": 1}', "line 1: .* column 'text', got 'body', 'id'"),
            ("a.jsonl", "{}", "line 1: expected a column 'text', got none"),
            ("a.jsonl", '{"text": "a"}\n{"text": null}', "line 2: .* string in 'text', got null"),
            ("a.jsonl", '{"text": 3}', "expected a string in 'text', got 3"),
            ("a.jsonl", "[" * 100_000, "line 1: expected a JSON object, got invalid JSON"),
            ("a.csv", "id,body\n1,a\n", "line 1: expected a column 'text', got 'id', 'body'"),
            ("a.csv", "id,text\n1,a\n\n2\n", "line 4: expected 2 columns, got 1"),
            ("a.csv", "text\na,b\n", "line 2: expected 1 columns, got 2"),
            ("a.csv", 'id,text\n1,"a\n', "broken table row"),
            ("a.txt", b"good\n\ncaf\xe9\n", "line 3: .* the byte 0xe9 at position 4"),
            ("a.csv", b"text\n\xff\n", "line 2: expected UTF-8"),
            ("a.jsonl", '{"text": "a"}'.encode("utf-16"), "line 1: expected UTF-8"),
        ],
    )
    def test_the_line_is_named(
        self, tmp_path: Path, name: str, content: str | bytes, message: str
    ) -> None:
        path = write(tmp_path, name, content)
        with pytest.raises(InvalidInputError, match=message) as error:
            list(read_texts(path))
        assert str(error.value).startswith(f"{path}, line ")

    def test_stream_that_is_not_utf8(self) -> None:
        with pytest.raises(InvalidInputError, match=r"^standard input, line 2: expected UTF-8"):
            list(read_lines(io.BytesIO(b"a\n\xff"), name="standard input"))
