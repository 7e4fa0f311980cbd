"""Texts from every form: rows, tables, columns, pairs; and never a column's name for a text."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from captum_aml.exceptions import InvalidInputError
from captum_aml.text import TextExplainer
from captum_aml.text.inputs import Text, each_text, given_texts
from tests._helpers.benchmark_runs import tiny_classifier

pandas = pytest.importorskip("pandas")
datasets = pytest.importorskip("datasets")
pyarrow = pytest.importorskip("pyarrow")

TABLES: dict[str, Callable[[dict[str, list[Any]]], Any]] = {
    "mapping": dict,
    "user mapping": UserDict,
    "pandas": pandas.DataFrame,
    "pandas, numbered anew": lambda columns: pandas.DataFrame(columns).iloc[::-1].sort_index(),
    "datasets": datasets.Dataset.from_dict,
    "datasets, streamed": lambda c: datasets.Dataset.from_dict(c).to_iterable_dataset(),
    "pyarrow": pyarrow.table,
    "rows": lambda c: [dict(zip(c, row, strict=True)) for row in zip(*c.values(), strict=True)],
    "rows of a data frame": lambda c: [row for _, row in pandas.DataFrame(c).iterrows()],
    "named tuples": lambda c: list(pandas.DataFrame(c).itertuples(index=False)),
    "rows once": lambda c: (dict(zip(c, r, strict=True)) for r in zip(*c.values(), strict=True)),
}
REVIEWS = ["The room was dirty.", "Lovely garden!", "Rude staff."]


@pytest.fixture(params=TABLES)
def table(request: pytest.FixtureRequest) -> Callable[[dict[str, list[Any]]], Any]:
    return TABLES[request.param]


def strings(texts: Any, *args: Any, **options: Any) -> list[str]:
    return [Text.of(text).text for text in given_texts(texts, *args, **options).texts]


class TestTables:
    @pytest.mark.parametrize(
        ("columns", "column"),
        [
            ({"label": [0, 1, 0], "text": REVIEWS, "source": ["a", "b", "c"]}, None),
            ({"idx": [0, 1, 2], "sentence": REVIEWS, "label_text": ["x", "y", "z"]}, None),
            ({"review": REVIEWS, "stars": [1, 5, 1], "vector": [[0.5], [1.0], [2.0]]}, None),
            ({"text": ["no", "no", "no"], "review": REVIEWS}, "review"),
        ],
    )
    def test_texts_are_those_of_the_column(
        self,
        table: Callable[[dict[str, list[Any]]], Any],
        columns: dict[str, list[Any]],
        column: str | None,
    ) -> None:
        assert strings(table(columns), column=column) == REVIEWS

    @pytest.mark.parametrize(
        ("names", "column"),
        [
            (("premise", "hypothesis"), None),
            (("question", "context"), None),
            (("query", "passage"), None),
            (("query", "document"), None),
            (("sentence1", "sentence2"), None),
            (("text", "text_pair"), None),
            (("body", "title"), ("body", "title")),
        ],
    )
    def test_pairs(
        self,
        table: Callable[[dict[str, list[Any]]], Any],
        names: tuple[str, str],
        column: tuple[str, str] | None,
    ) -> None:
        columns = {names[1]: ["b", "d"], "idx": [0, 1], names[0]: ["a", "c"]}
        texts = [Text.of(text) for text in given_texts(table(columns), column=column).texts]
        assert [text.pieces for text in texts] == [("a", "b"), ("c", "d")]

    def test_lists_of_words_in_a_column_that_is_named(
        self, table: Callable[[dict[str, list[Any]]], Any]
    ) -> None:
        columns = {"tokens": [["so", "good"], ["meh"]], "tags": [[0, 1], [0]]}
        assert strings(table(columns), column="tokens") == ["so good", "meh"]

    @pytest.mark.parametrize(
        "columns",
        [
            {"review": REVIEWS, "sentiment": ["bad", "good", "bad"]},
            {"review": [None] * 3, "label": ["bad", "good", "bad"]},
            {"tokens": [["a"], ["b"], ["c"]], "label": [0, 1, 0]},
            {"question": REVIEWS, "context": REVIEWS, "passage": REVIEWS},
        ],
    )
    def test_no_guess_where_several_could_be_meant(
        self, table: Callable[[dict[str, list[Any]]], Any], columns: dict[str, list[Any]]
    ) -> None:
        listed = ", ".join(map(repr, columns))
        with pytest.raises(InvalidInputError, match=f"column: expected the name.*{listed}"):
            strings(table(columns))

    def test_column_that_is_not_there(self, table: Callable[[dict[str, list[Any]]], Any]) -> None:
        with pytest.raises(InvalidInputError, match=r"columns 'text', 'label'.* got 'review'"):
            strings(table({"text": ["a"], "label": [1]}), column="review")

    def test_columns_without_names(self) -> None:
        frame = pandas.DataFrame([["a", "b"], ["c", "d"]])
        assert strings(frame, column=1) == ["b", "d"]
        assert strings(frame[[0]]) == ["a", "c"]
        with pytest.raises(InvalidInputError, match="there are 0, 1"):
            strings(frame)

    def test_splits_and_twin_columns(self) -> None:
        splits = datasets.DatasetDict(train=datasets.Dataset.from_dict({"text": ["a"]}))
        with pytest.raises(InvalidInputError, match="several by name; choose one of 'train'"):
            strings(splits)
        twins = pandas.DataFrame([["a", "b"]], columns=["text", "text"])
        with pytest.raises(InvalidInputError, match="there are 'text', 'text'"):
            strings(twins)

    def test_length_and_reading_anew_stay(
        self, table: Callable[[dict[str, list[Any]]], Any]
    ) -> None:
        made = table({"text": REVIEWS, "label": [0, 1, 0]})
        texts = given_texts(made, column="text").texts
        assert [Text.of(t).text for t in texts] == REVIEWS
        if not isinstance(made, Iterator):
            assert [Text.of(t).text for t in texts] == REVIEWS
        if hasattr(made, "__len__"):
            assert len(texts) == 3  # type: ignore[arg-type]  # what this asserts

    def test_models_and_batches_take_no_names_for_texts(self) -> None:
        model, frame = tiny_classifier(), pandas.DataFrame({"text": REVIEWS})
        assert len(model.predict(frame)) == len(model.predict({"text": REVIEWS})) == 3
        assert len(model.predict(REVIEWS[0])) == 1


class TestExplainer:
    """Explaining and fitting take the same forms."""

    def test_tables(self, table: Callable[[dict[str, list[Any]]], Any]) -> None:
        explainer = TextExplainer(tiny_classifier(), method="random")
        found = explainer(table({"text": REVIEWS, "label": [0, 1, 0]}), target=[0, 1, 0])
        assert [(e.text, e.row, e.target) for e in found] == [
            (text, row, row % 2) for row, text in enumerate(REVIEWS)
        ]
        pairs = {"title": ["a", "b"], "body": ["good", "bad"], "label": ["x", "y"]}
        found = list(explainer.stream(table(pairs), column=("title", "body")))
        assert [e.text for e in found] == ["a\ngood", "b\nbad"]
        assert [e.parts for e in found] == [((0, 1), (2, 6)), ((0, 1), (2, 5))]

    def test_pairs_by_position(self) -> None:
        explainer = TextExplainer(tiny_classifier(), method="random")
        (both,) = explainer("a film", "good", target=[0, 1])[:1]
        assert [e.target for e in explainer("a film", "good", target=[0, 1])] == [0, 1]
        assert both == explainer({"question": "a film", "context": "good"}, target=0)[0]
        assert [e.text for e in explainer(["a", "b"], ["c", "d"])] == ["a\nc", "b\nd"]

    def test_fit(self) -> None:
        rows = {"label": [0, 1, 0, 1], "review": ["a good film", "bad", "so so", "good"]}
        options: dict[str, Any] = {"epochs": 1, "masker": "shared"}
        scores = []
        for given, column in (
            (rows["review"], None),
            (pandas.DataFrame(rows), None),
            (datasets.Dataset.from_dict({**rows, "label": ["a", "b", "a", "b"]}), "review"),
        ):
            explainer = TextExplainer(tiny_classifier())
            explainer.fit(given, given, column=column, **options)
            scores.append(explainer("a good film")[0].scores)
        assert scores[0] == scores[1] == scores[2]
        with pytest.raises(InvalidInputError, match=r"columns 'label', 'review', .* got 'text'"):
            explainer.fit(pandas.DataFrame(rows), column="text", **options)


class TestRows:
    def test_labels_of_rows_do_not_matter(self) -> None:
        rows = [{"text": "a", "label": 1}, {"text": "b", "label": "x", "id": None}]
        assert [text.text for text in each_text(rows)] == ["a", "b"]
        assert strings({"text": "a", "labels": [0, 1]}) == ["a"]

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ({"text": None}, "texts: expected a string in 'text', got null, at position 1"),
            ({"text": ["a", "b"]}, r"a string in 'text', got \['a', 'b'\], at position 1"),
            ({"review": None, "label": "x"}, "there are 'review', 'label', at position 1"),
            ({"premise": "a", "hypothesis": 3}, "in 'hypothesis', got 3, at position 1"),
            ({}, "there are none, at position 1"),
            (float("nan"), "expected strings, got float at position 1"),
            (pandas.NA, "expected strings, got NAType at position 1"),
        ],
    )
    def test_bad_rows_are_named(self, row: Any, message: str) -> None:
        with pytest.raises(InvalidInputError, match=message):
            list(each_text(["a", row]))

    def test_bad_rows_in_a_column_are_named(self) -> None:
        texts = given_texts(["a", {"text": "b"}, {"body": "c"}], column="body").texts
        *bad, good = texts
        assert Text.of(good).text == "c"
        for text, message in zip(
            bad, ("rows with a column 'body', got str, at position 0", "got 'body'.*1"), strict=True
        ):
            with pytest.raises(InvalidInputError, match=message):
                Text.of(text)

    def test_arrays_of_words(self) -> None:
        words = np.array(["so", "good"])
        assert Text.of(words).words == ((0, 2), (3, 7))


class TestPairs:
    def test_two_strings_or_two_lists(self) -> None:
        assert list(given_texts("a", "b").texts) == [("a", "b")]
        frame = pandas.DataFrame({"q": ["a", "b"], "d": ["c", "d"]}, index=[5, 3])
        for first, second in ((["a", "b"], ("c", "d")), (frame["q"], frame["d"])):
            assert list(given_texts(first, second).texts) == [("a", "c"), ("b", "d")]
        pairs = given_texts(["a", "b", "c"], ["d", "e", "f"]).texts
        assert list(pairs[1:]) == [("b", "e"), ("c", "f")]  # type: ignore[index]

    @pytest.mark.parametrize(
        ("first", "second", "message"),
        [
            (["a", "b"], ["c"], "as many second texts of pairs as first ones, got 1 and 2"),
            ("a", ["b"], "a string beside a string, .* got list beside str"),
            (["a"], "b", "got str beside list"),
            ({"text": "a"}, "b", "got str beside dict"),
        ],
    )
    def test_what_makes_no_pairs(self, first: Any, second: Any, message: str) -> None:
        with pytest.raises(InvalidInputError, match=message):
            given_texts(first, second)

    def test_a_column_beside_what_has_none(self) -> None:
        with pytest.raises(InvalidInputError, match="column: expected none beside text_pair"):
            given_texts(["a"], ["b"], column="text")
        with pytest.raises(InvalidInputError, match=r"column: .* got one text"):
            given_texts("a", column="text")
        with pytest.raises(InvalidInputError, match="one of each"):
            given_texts({"question": "a", "context": ["b"]})
