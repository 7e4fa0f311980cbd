"""Texts from files, with and without labels, and errors that say where a file is wrong."""

from __future__ import annotations

import csv
import io
import json
import re
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captum_aml._utils.rows import Lines, text_rows
from captum_aml.benchmark.plan import label_indices
from captum_aml.exceptions import InvalidInputError
from captum_aml.text import LabelledText, TextSource, read_texts
from captum_aml.text.data import read_rows
from captum_aml.text.inputs import Text, Unreadable

parquet = pytest.importorskip("pyarrow.parquet")
pyarrow = pytest.importorskip("pyarrow")


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return path


def write_jsonl(folder: Path, *rows: dict[str, Any]) -> Path:
    return write(folder, "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


ROWS = [
    {"text": "so good", "label": 1, "rationale": [[3, 7]], "id": "r1"},
    {"text": "é 🎬 bad", "label": 0, "rationale": [], "id": "r2"},
    {"text": "meh", "label": None, "rationale": None, "id": None},
]
ITEMS = [
    LabelledText("so good", 1, ((3, 7),), "r1"),
    LabelledText("é 🎬 bad", 0, (), "r2"),
    LabelledText("meh"),
]


class TestFormats:
    def test_jsonl(self, tmp_path: Path) -> None:
        assert TextSource(write_jsonl(tmp_path, *ROWS)).load() == ITEMS

    def test_parquet(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
        assert TextSource(path).load() == ITEMS

    @pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.tsv", "\t")])
    def test_tables_hold_strings(self, tmp_path: Path, name: str, delimiter: str) -> None:
        rows = [
            ["id", "text", "label", "rationale"],
            ["7", '"so ""good"""', "1", '"[[4, 8]]"'],
            ["", "bad", "", ""],
        ]
        content = "".join(delimiter.join(row) + "\r\n" for row in rows)
        assert TextSource(write(tmp_path, name, content)).load() == [
            LabelledText('so "good"', "1", ((4, 8),), "7"),
            LabelledText("bad"),
        ]

    @pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".parquet"])
    def test_what_pandas_writes(self, tmp_path: Path, ending: str) -> None:
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame(
            {
                "text": ["long " * 40_000, 'so  good, "yes"', "meh"],
                "label": [0, None, 1],  # a column with gaps is one of floats
                "rationale": [[(0, 4)], [True, False, True], None],
                "id": [7, None, 9],
            }
        )
        path = tmp_path / f"a{ending}"
        if ending == ".jsonl":
            frame.to_json(path, orient="records", lines=True)
        elif ending == ".parquet":
            parquet.write_table(
                pyarrow.Table.from_pylist(
                    [
                        {**row, "rationale": [0, 0, 1] if number == 1 else None}
                        for number, row in enumerate(frame.to_dict("records"))
                    ]
                ),
                path,
            )
        else:
            frame.to_csv(path, sep="," if ending == ".csv" else "\t")
        items = TextSource(path).load()
        assert [item.text for item in items] == list(frame["text"])
        assert label_indices(items, ["no", "yes"]) == [0, None, 1]
        end = ((10, 15),)
        assert items[1].rationale == (end if ending == ".parquet" else ((0, 2), *end))
        assert [item.id for item in items][1] is None
        assert [text[:9] for text in read_texts(path)] == ["long long", "so  good,", "meh"]

    @pytest.mark.parametrize(
        ("marks", "spans"),
        [([0, 0, 0], ()), ([1, 1, 0], ((1, 6),)), ([1, 0, 1], ((1, 3), (7, 10)))],
    )
    def test_rationale_by_words(
        self, tmp_path: Path, marks: list[int], spans: tuple[tuple[int, int], ...]
    ) -> None:
        path = write_jsonl(tmp_path, {"text": " it\tis bad ", "rationale": marks})
        assert TextSource(path).load()[0].rationale == spans

    def test_lists_of_words(self, tmp_path: Path) -> None:
        rows = [{"text": ["so", "good", "!"], "rationale": [0, 1, 1]}, {"text": ["meh"]}]
        path = tmp_path / "a.parquet"
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        for source in (write_jsonl(tmp_path, *rows), path):
            items = [LabelledText("so good !", rationale=((3, 9),)), LabelledText("meh")]
            assert TextSource(source).load() == items
            assert list(read_texts(source)) == ["so good !", "meh"]

    @pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
    def test_columns_that_are_none_are_not_read(self, tmp_path: Path, ending: str) -> None:
        path = tmp_path / f"a{ending}"
        row = {"text": "a b", "label": 0.5, "rationale": 0.25, "id": {"a": 1}}
        if ending == ".parquet":
            parquet.write_table(pyarrow.Table.from_pylist([row]), path)
        elif ending == ".jsonl":
            write_jsonl(tmp_path, row)
        else:
            write(tmp_path, "a.csv", 'text,label,rationale,id\na b,0.5,why,"{}"\n')
        none = dict.fromkeys(["label_column", "rationale_column", "id_column"])
        assert TextSource(path, **none).load() == [LabelledText("a b")]
        with pytest.raises(InvalidInputError, match="expected"):
            TextSource(path).load()

    def test_fields_of_any_length(self, tmp_path: Path) -> None:
        limit = csv.field_size_limit()
        path = tmp_path / "a.csv"
        long = "word " * 30_000
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([("text", "label"), (long, "yes"), ("short", long)])
        assert [item.text for item in TextSource(path)] == [long, "short"]
        assert list(read_texts(path)) == [long, "short"]
        assert csv.field_size_limit() == limit

    def test_txt(self, tmp_path: Path) -> None:
        path = write(tmp_path, "A.TXT", " a \r\n\n  \nb")
        assert TextSource(path).load() == [LabelledText(" a "), LabelledText("b")]

    def test_byte_order_mark_blank_lines_and_carriage_returns(self, tmp_path: Path) -> None:
        path = write(tmp_path, "a.jsonl", '\ufeff{"text": "a"}\r\n\r\n  \n{"text": "b\\r\\n"}')
        assert [item.text for item in TextSource(path).load()] == ["a", "b\r\n"]

    def test_long_line(self, tmp_path: Path) -> None:
        text = "word 🎬 " * 10_000
        [item] = TextSource(
            write_jsonl(tmp_path, {"text": text, "rationale": [[0, len(text)]]})
        ).load()
        assert item == LabelledText(text, rationale=((0, len(text)),))

    def test_lone_surrogates_become_the_replacement_character(self, tmp_path: Path) -> None:
        path = write(tmp_path, "a.jsonl", '{"text": "a\\ud83d b\\ud83c\\udfac", "label": "x"}')
        assert TextSource(path).load() == [LabelledText("a\ufffd b🎬", "x")]

    def test_columns_by_name(self, tmp_path: Path) -> None:
        path = write_jsonl(tmp_path, {"body": "a b", "text": 3, "class": "x", "why": [[0, 1]]})
        assert TextSource(
            path, text_column="body", label_column="class", rationale_column="why"
        ).load() == [LabelledText("a b", "x", ((0, 1),))]

    @pytest.mark.parametrize("limit", [1, 2, 3, 4])
    def test_limit_takes_the_first(self, tmp_path: Path, limit: int) -> None:
        assert TextSource(write_jsonl(tmp_path, *ROWS), limit=limit).load() == ITEMS[:limit]

    def test_what_is_beyond_the_limit_is_not_read(self, tmp_path: Path) -> None:
        assert (
            len(TextSource(write(tmp_path, "a.jsonl", '{"text": "a"}\nbroken'), limit=1).load())
            == 1
        )

    def test_parquet_of_many_rows(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        parquet.write_table(pyarrow.table({"text": [f"text {i}" for i in range(1000)]}), path)
        assert [item.text for item in TextSource(path, limit=700).load()] == [
            f"text {i}" for i in range(700)
        ]

    @given(
        rows=st.lists(
            st.fixed_dictionaries(
                {"text": st.text(min_size=1).filter(str.strip)},
                optional={"label": st.integers() | st.text(), "id": st.text()},
            ),
            min_size=1,
            max_size=5,
        )
    )
    def test_any_text_survives(
        self, tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
    ) -> None:
        path = write_jsonl(tmp_path_factory.mktemp("data"), *rows)
        assert TextSource(path).load() == [LabelledText(**row) for row in rows]

    @pytest.mark.shared
    @pytest.mark.parametrize("name", ["sst2", "emotion", "imdb_cad", "movie_rationales"])
    def test_shared_data(self, name: str) -> None:
        path = Path(__file__).parents[3] / "shared" / "data" / name / "validation.jsonl"
        if not path.exists():
            pytest.skip(f"there is no {path}")
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        items = TextSource(path).load()
        assert [(item.text, item.label) for item in items] == [
            (row["text"], row["label"]) for row in rows
        ]
        assert all((item.rationale is not None) == ("rationale" in rows[0]) for item in items)


class TestHub:
    """A local folder goes the way of a data set of the hub, without a network."""

    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        datasets = pytest.importorskip("datasets")
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        folder = tmp_path / "set"
        folder.mkdir()
        for split, text in (("train", "t"), ("validation", "v")):
            rows = [{"text": f"{text} {i}", "label": i - 1, "other": 1.5} for i in range(3)]
            features = datasets.Features(
                text=datasets.Value("string"),
                label=datasets.ClassLabel(names=["neg", "pos"]),
                other=datasets.Value("float64"),
            )
            data = datasets.Dataset.from_list(rows, features=features)
            data.to_parquet(folder / f"{split}.parquet")
        return folder

    def test_validation_is_the_default(self, folder: Path) -> None:
        assert TextSource(folder).load() == [
            LabelledText("v 0", None),
            LabelledText("v 1", 0),
            LabelledText("v 2", 1),
        ]

    def test_split_and_limit(self, folder: Path) -> None:
        assert TextSource(str(folder), split="train", limit=2).load() == [
            LabelledText("t 0", None),
            LabelledText("t 1", 0),
        ]

    def test_split_that_is_not_there(self, folder: Path) -> None:
        with pytest.raises(InvalidInputError, match=r"with split 'dev' \(.*dev"):
            TextSource(folder, split="dev").load()

    def test_column_that_is_not_there(self, folder: Path) -> None:
        with pytest.raises(InvalidInputError, match="column 'body', got 'text', 'label', 'other'"):
            TextSource(folder, text_column="body").load()

    @pytest.mark.parametrize(
        ("source", "name", "configuration"),
        [("glue:sst2", "glue", "sst2"), ("imdb", "imdb", None), ("a/b:c", "a/b", "c")],
    )
    def test_id_and_configuration(
        self,
        monkeypatch: pytest.MonkeyPatch,
        source: str,
        name: str,
        configuration: str | None,
    ) -> None:
        datasets = pytest.importorskip("datasets")
        asked: list[tuple[object, ...]] = []

        def load_dataset(*args: object, **options: object) -> object:
            asked.append((*args, options))
            return datasets.Dataset.from_list([{"text": "a", "label": 4}])

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        assert TextSource(source).load() == [LabelledText("a", 4)]
        assert asked == [(name, configuration, {"split": "validation"})]

    def test_no_network(self, monkeypatch: pytest.MonkeyPatch) -> None:
        datasets = pytest.importorskip("datasets")
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        import huggingface_hub.constants

        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(
            InvalidInputError, match=r"data: expected a file \(\.jsonl.* hub .*got 'no-such/thing'"
        ):
            TextSource("no-such/thing").load()


class TestBadData:
    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("a.jsonl", '{"text": "a"}\n\n{"text": \n', "line 3: .*invalid JSON"),
            ("a.jsonl", '["a"]', "line 1: expected a JSON object, got a list"),
            ("a.jsonl", '{"text": "a"}\n{"body": "a"}', "line 2: .* 'text', got 'body'"),
            ("a.jsonl", '{"text": 3}', "line 1: text: expected a string, got 3"),
            ("a.jsonl", '{"text": null}', "line 1: text: expected a string, got null"),
            ("a.jsonl", '{"text": "a"}\n{"text": ""}', "line 2: text: expected words .*got ''"),
            ("a.jsonl", '{"text": " \\n\\t\u3000"}', "line 1: text: expected words"),
            ("a.jsonl", '{"text": "a", "label": 0.5}', "line 1: label: .*name or nothing, got 0.5"),
            ("a.jsonl", '{"text": "a", "label": true}', "line 1: label: .*got True"),
            ("a.jsonl", '{"text": "a", "id": [1]}', r"line 1: id: .*integer, got \[1\]"),
            ("a.jsonl", '{"text": "a", "rationale": "why"}', "line 1: rationale: expected a list"),
            ("a.jsonl", '{"text": "a b", "rationale": [[0, 1], [2, 4]]}',
             r"line 1: rationale: .* within the text's 3 characters, got \(2, 4\)"),
            ("a.jsonl", '{"text": "a", "rationale": [[-1, 1]]}', r"got \(-1, 1\)"),
            ("a.jsonl", '{"text": "ab", "rationale": [[1, 1]]}', r"got \(1, 1\)"),
            ("a.jsonl", '{"text": "ab", "rationale": [[0, 1.0]]}', r"got \(0, 1.0\)"),
            ("a.jsonl", '{"text": "ab", "rationale": [[0, true]]}', r"got \(0, True\)"),
            ("a.jsonl", '{"text": "ab", "rationale": [0, [0, 1]]}', "rationale: .*, got 0$"),
            ("a.jsonl", '{"text": "a b"}\n{"text": " a  b\\nc ", "rationale": [0, 1]}',
             "line 2: rationale: .* of the text's 3 words, got 2 numbers"),
            ("a.jsonl", '{"text": "a b", "rationale": [0, 2]}', "line 1: rationale: .*, got 2$"),
            ("a.csv", 'text,rationale\na b,"[1]"\n', "line 2: .* 2 words, got 1 numbers"),
            ("a.csv", "id,body\n1,a\n", "line 1: expected a column 'text', got 'id', 'body'"),
            ("a.csv", "id,text\n1,a\n\n2\n", "line 4: expected 2 columns, got 1"),
            ("a.csv", 'id,text\n1,"a\n', "broken table row"),
            ("a.csv", "id,text\n1,a\n2,\n", "line 3: text: expected words to explain"),
            ("a.csv", 'text,rationale\nab,"[[0, 9]]"\n', r"line 2: rationale: .*\(0, 9\)"),
            ("a.csv", "text,rationale\nab,[[0\n", r"line 2: rationale: .*got '\[\[0'"),
            ("a.txt", b"good\n\ncaf\xe9\n", "line 3: .* the byte 0xe9 at position 4"),
            ("a.jsonl", '{"text": "a"}'.encode("utf-16"), "line 1: expected UTF-8"),
        ],
    )  # fmt: skip
    def test_the_line_is_named(
        self, tmp_path: Path, name: str, content: str | bytes, message: str
    ) -> None:
        path = write(tmp_path, name, content)
        with pytest.raises(InvalidInputError, match=message) as error:
            TextSource(path).load()
        assert str(error.value).startswith(f"{path}, line ")

    def test_parquet_rows_are_named(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        parquet.write_table(pyarrow.table({"text": ["a"] * 300 + [" "]}), path)
        with pytest.raises(InvalidInputError, match=r"a\.parquet, row 301: text: expected words"):
            TextSource(path).load()

    def test_parquet_without_the_column(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        parquet.write_table(pyarrow.table({"body": ["a"], "n": [1]}), path)
        with pytest.raises(InvalidInputError, match=r"a\.parquet: .*'text', got 'body', 'n'"):
            TextSource(path).load()

    @pytest.mark.parametrize("keep", [0, 3, 50, -1])
    def test_damaged_parquet(self, tmp_path: Path, keep: int) -> None:
        path = tmp_path / "a.parquet"
        parquet.write_table(pyarrow.table({"text": ["a"] * 100}), path)
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(InvalidInputError, match=r"a\.parquet: expected a parquet file"):
            TextSource(path).load()

    @pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv", "a.txt"])
    def test_no_texts(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(InvalidInputError, match="data: expected one text or more, got none in"):
            TextSource(write(tmp_path, name, "\n\n")).load()

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            TextSource(tmp_path / "a.jsonl").load()

    def test_missing_path(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInputError, match="no file or folder"):
            TextSource(tmp_path / "nothing").load()

    def test_unknown_format(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInputError, match=r"formats \.jsonl, .*, got .*a\.xlsx"):
            TextSource(write(tmp_path, "a.xlsx", "x")).load()

    @pytest.mark.parametrize("limit", [0, -1, True, 1.5])
    def test_limit(self, tmp_path: Path, limit: Any) -> None:
        with pytest.raises(InvalidInputError, match="limit: expected 1 or more"):
            TextSource(write_jsonl(tmp_path, *ROWS), limit=limit).load()

    def test_files_have_no_splits(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInputError, match="split: expected none"):
            TextSource(write_jsonl(tmp_path, *ROWS), split="test").load()

    def test_texts_made_by_hand_are_checked_too(self) -> None:
        with pytest.raises(InvalidInputError, match="text: expected words"):
            LabelledText("  ")
        with pytest.raises(InvalidInputError, match="rationale: expected spans"):
            LabelledText("ab", rationale=((0, 3),))


class TestStrings:
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

    def test_parquet(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        parquet.write_table(pyarrow.table({"text": ["één", "", "🎬\n"], "label": [1, 0, 1]}), path)
        assert list(read_texts(path)) == ["één", "", "🎬\n"]

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
        assert list(text_rows(Lines(io.BytesIO(b"a\n\nb\r\n"), "standard input"))) == ["a", "b"]


class TestRows:
    def test_pairs(self, tmp_path: Path) -> None:
        rows = [{"a": "1", "n": 0, "b": "2"}, {"b": "", "a": "3", "c": None}]
        jsonl = write_jsonl(tmp_path, *rows)
        csv_file = write(tmp_path, "a.csv", "a,n,b\n1,0,2\n3,1,\n")
        table = tmp_path / "a.parquet"
        parquet.write_table(pyarrow.Table.from_pylist([{**row, "n": 0.5} for row in rows]), table)
        for path in (jsonl, csv_file, table):
            assert list(read_rows(path, column=("a", "b"))) == [("1", "2"), ("3", "")]
            with pytest.raises(InvalidInputError, match=r"column 'd', got 'a', .*'b'"):
                list(read_rows(path, column=("a", "d")))

    @pytest.mark.parametrize(
        ("name", "content", "problems"),
        [
            ("a.jsonl",
             '{"text": "a"}\n{"text": \n[1]\n{"body": "b"}\n{"text": 3}\n{"text": "c"}\n',
             ["line 2: .*invalid JSON", "line 3: .*a list", "line 4: .*got 'body'",
              "line 5: .*string in 'text', got 3"]),
            ("a.csv", "text,n\na,1\nb\n\nb,1,2\nc,3\n", ["line 3: .*got 1$", "line 5: .*got 3$"]),
        ],
    )  # fmt: skip
    def test_broken_rows_are_elements(
        self, tmp_path: Path, name: str, content: str, problems: list[str]
    ) -> None:
        path = write(tmp_path, name, content)
        first, *broken, last = read_rows(path, errors="skip")
        assert (first, last) == ("a", "c")
        for row, problem in zip(broken, problems, strict=True):
            assert isinstance(row, Unreadable)
            assert re.search(problem, row.reason)
        with pytest.raises(InvalidInputError, match=problems[0]):
            list(read_rows(path))

    def test_what_ends_a_file_is_an_error(self, tmp_path: Path) -> None:
        for content in ("body\na\n", 'text\na\n"b\n'):
            with pytest.raises(InvalidInputError, match=r"expected a column|broken table row"):
                list(read_rows(write(tmp_path, "a.csv", content), errors="skip"))


class TestBadStrings:
    def test_unknown_format(self, tmp_path: Path) -> None:
        with pytest.raises(
            InvalidInputError,
            match=r"file: .*formats \.jsonl, \.csv, \.tsv, \.parquet, \.txt, got .*a\.xlsx",
        ):
            read_texts(tmp_path / "a.xlsx")

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

    def test_parquet_rows_are_named(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        parquet.write_table(pyarrow.table({"text": ["a", None]}), path)
        with pytest.raises(
            InvalidInputError, match=r"a\.parquet, row 2: expected a string in 'text', got null"
        ):
            list(read_texts(path))

    def test_stream_that_is_not_utf8(self) -> None:
        with pytest.raises(InvalidInputError, match=r"^standard input, line 2: expected UTF-8"):
            list(text_rows(Lines(io.BytesIO(b"a\n\xff"), "standard input")))


class TestColumnsByTheirNames:
    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("a.csv", "id,context,choices\nx,it rained,\"['wet', 'dry']\"\n"),
            ("a.jsonl", '{"id": "x", "context": "it rained", "choices": ["wet", "dry"]}\n'),
            ("a.tsv", "context\tending0\tending1\nit rained\twet\tdry\n"),
        ],
    )
    def test_options_to_choose_from(self, tmp_path: Path, name: str, content: str) -> None:
        (row,) = read_rows(write(tmp_path, name, content), column=None)
        text = Text.of(row)
        assert (text.pieces, text.n_options) == (("it rained", "wet", "dry"), 2)

    def test_a_row_that_lacks_the_column_is_broken(self, tmp_path: Path) -> None:
        path = write(tmp_path, "a.jsonl", '{"sentence": "a", "label": "x"}\n{"label": "y"}\n')
        first, broken = read_rows(path, column=None, errors="skip")
        assert first == "a"
        assert isinstance(broken, Unreadable)
        with pytest.raises(InvalidInputError, match="line 2: expected a column 'sentence'"):
            list(read_rows(path, column=None))
