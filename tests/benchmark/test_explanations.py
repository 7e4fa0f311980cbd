"""Explanations made elsewhere: read, aligned with their texts, carried over to other tokens."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captum_aml.benchmark.explanations import (
    GivenExplanation,
    align_tokens,
    read_explanations,
    scores_for_tokens,
)
from captum_aml.exceptions import InvalidInputError
from captum_aml.text import Explanation, LabelledText, write_explanations


def write(folder: Path, *rows: object) -> Path:
    path = folder / "a.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    return path


WORDS = {"text": "so good", "tokens": ["so", "good"], "scores": [0, 0.5]}


class TestReading:
    def test_tokens(self, tmp_path: Path) -> None:
        assert read_explanations(write(tmp_path, WORDS)) == [
            GivenExplanation(LabelledText("so good"), ((0, 2), (3, 7)), (0.0, 0.5))
        ]

    @pytest.mark.parametrize("field", ["offsets", "spans"])
    def test_character_spans_and_what_else_is_known(self, tmp_path: Path, field: str) -> None:
        row = {
            "text": "🎬 so good",
            field: [[5, 9], [0, 1], [0, 1], [2, 2]],
            "scores": [1, -0.25, 0.1, 1e300],
            "method": "a/b",
            "seed": 3,
            "target": "positive",
            "id": 7,
            "label": 1,
            "rationale": [[2, 9]],
            "other": None,
        }
        assert read_explanations(write(tmp_path, row)) == [
            GivenExplanation(
                LabelledText("🎬 so good", 1, ((2, 9),), "7"),
                ((5, 9), (0, 1), (0, 1), (2, 2)),
                (1.0, -0.25, 0.1, 1e300),
                "a/b",
                3,
                "positive",
            )
        ]

    def test_offsets_count_where_tokens_are_given_too(self, tmp_path: Path) -> None:
        row = {**WORDS, "tokens": ["[CLS]", "?"], "offsets": [[0, 2], [3, 7]]}
        assert read_explanations(write(tmp_path, row))[0].spans == ((0, 2), (3, 7))

    @pytest.mark.parametrize("name", ["a.jsonl", "a.JSONL"])
    def test_what_the_package_writes_itself(self, tmp_path: Path, name: str) -> None:
        explanation = Explanation(
            text="So unbéarable 🎬",
            tokens=("so", "un", "##bear", "##able", "[UNK]"),
            offsets=((0, 2), (3, 5), (5, 9), (9, 13), (14, 15)),
            scores=(0.1, 1 / 3, -2.5e-17, 0.0, 1.0),
            predicted=1,
            predicted_label="positive",
            probability=0.9,
            target=0,
            target_label="negative",
            target_probability=0.1,
            method="aml",
            signed=False,
            settings={"seed": 0},
        )
        write_explanations(tmp_path / name, [explanation])
        [given] = read_explanations(tmp_path / name)
        assert given.example == LabelledText(explanation.text)
        assert given.spans == explanation.offsets
        assert given.scores == explanation.scores
        assert (given.method, given.target, given.seed) == ("aml", 0, None)

    def test_one_text_many_times(self, tmp_path: Path) -> None:
        rows = [
            WORDS,
            {**WORDS, "method": "a"},
            {**WORDS, "method": "a", "seed": 1},
            {**WORDS, "method": "a", "seed": 2},
            {**WORDS, "method": "a", "seed": 2, "target": 0},
            {**WORDS, "method": "a", "seed": 2, "id": "x"},
        ]
        assert len(read_explanations(write(tmp_path, *rows))) == 6

    def test_byte_order_mark_blank_lines_and_lone_surrogates(self, tmp_path: Path) -> None:
        path = tmp_path / "a.jsonl"
        path.write_bytes(
            b'\xef\xbb\xbf\r\n{"text": "\\ud83d x", "spans": [[2, 3]], "scores": [1]}\r\n\r\n'
        )
        [given] = read_explanations(path)
        assert (given.example.text, given.spans) == ("\ufffd x", ((2, 3),))

    def test_long_text(self, tmp_path: Path) -> None:
        words = [f"w{i}" for i in range(3000)]
        row = {"text": " ".join(words), "tokens": words, "scores": [1.0] * 3000}
        [given] = read_explanations(write(tmp_path, row))
        assert [given.example.text[a:b] for a, b in given.spans] == words


class TestBadFiles:
    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"text": " "}, "text: expected words to explain"),
            ({"text": None}, "text: expected a string, got null"),
            ({"scores": None}, "scores: expected a list, got null"),
            ({"scores": "0.5"}, "scores: expected a list, got '0.5'"),
            ({"scores": [0.5]}, "scores: expected one for each of the 2 tokens, got 1"),
            ({"scores": [1, 2, 3]}, "scores: expected one for each of the 2 tokens, got 3"),
            ({"scores": [1, math.nan]}, "scores: expected finite numbers, got nan"),
            ({"scores": [1, -math.inf]}, "scores: expected finite numbers, got -inf"),
            ({"scores": [1, 10**400]}, "scores: expected finite numbers, got 1000"),
            ({"scores": [1, "2"]}, "scores: expected finite numbers, got '2'"),
            ({"scores": [1, None]}, "scores: expected finite numbers, got null"),
            ({"scores": [1, True]}, "scores: expected finite numbers, got True"),
            ({"tokens": None}, "tokens: expected one of 'tokens', 'offsets' and 'spans', got 'tex"),
            ({"tokens": "so good"}, "tokens: expected a list, got 'so good'"),
            ({"tokens": ["so", 3]}, "tokens: expected strings, got 3"),
            ({"tokens": ["so", "bad"]}, "tokens: .* token 2 'bad', which does not stand behind"),
            ({"tokens": ["good", "so"]}, "tokens: .* token 2 'so'"),
            ({"tokens": ["[CLS]", "so"]}, "token 1 .*leave special tokens out"),
            ({"offsets": [[0, 2]]}, "scores: expected one for each of the 1 offsets, got 2"),
            ({"offsets": [[0, 2], [3, 8]]}, r"offsets: .* 7 characters, got \[3, 8\]"),
            ({"offsets": [[0, 2], [3, 2]]}, r"offsets: .*got \[3, 2\]"),
            ({"offsets": [[0, 2], [-1, 2]]}, r"offsets: .*got \[-1, 2\]"),
            ({"offsets": [[0, 2], [3, 4.5]]}, r"offsets: .*got \[3, 4.5\]"),
            ({"offsets": [[0, 2], [3]]}, r"offsets: .*got \[3\]"),
            ({"offsets": 3}, "offsets: expected a list, got 3"),
            ({"offsets": [[0, 2], [3, 7]], "spans": [[0, 2], [3, 7]]}, "offsets: .*got both"),
            ({"method": 3}, "method: expected a name, got 3"),
            ({"seed": 0.5}, "seed: expected an integer, got 0.5"),
            ({"target": [0]}, r"target: expected an index or a name, got \[0\]"),
            ({"label": 0.5}, "label: expected an index, a name or nothing, got 0.5"),
            ({"rationale": [[0, 8]]}, "rationale: .*within the text's 7 characters"),
        ],
    )
    def test_the_line_is_named(
        self, tmp_path: Path, changed: dict[str, object], message: str
    ) -> None:
        path = write(tmp_path, {**WORDS, "id": "first"}, {**WORDS, **changed})
        with pytest.raises(InvalidInputError, match=message) as error:
            read_explanations(path)
        assert str(error.value).startswith(f"{path}, line 2: ")

    @pytest.mark.parametrize("field", ["text", "scores"])
    def test_missing_fields(self, tmp_path: Path, field: str) -> None:
        row = {name: value for name, value in WORDS.items() if name != field}
        with pytest.raises(InvalidInputError, match=f"line 1: expected a column '{field}', got '"):
            read_explanations(write(tmp_path, row))

    def test_broken_line(self, tmp_path: Path) -> None:
        path = tmp_path / "a.jsonl"
        path.write_text(json.dumps(WORDS) + "\n\n{broken\n")
        with pytest.raises(InvalidInputError, match="line 3: expected a JSON object"):
            read_explanations(path)

    def test_twice_the_same(self, tmp_path: Path) -> None:
        row = {**WORDS, "method": "a", "seed": 1}
        path = write(tmp_path, row, WORDS, {**row, "scores": [7, 7]})
        with pytest.raises(InvalidInputError, match=r"line 3: .*second one after line 1; .*'id'"):
            read_explanations(path)

    def test_none(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInputError, match=r"a\.jsonl: expected explanations, got none"):
            read_explanations(write(tmp_path))

    def test_format(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInputError, match=r"format \.jsonl, got .*a\.csv"):
            read_explanations(tmp_path / "a.csv")

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            read_explanations(tmp_path / "a.jsonl")


class TestAlignment:
    @pytest.mark.parametrize(
        ("text", "tokens", "found"),
        [
            ("a b a", ["a", "b", "a"], ["a", "b", "a"]),
            ("unbearable!", ["un", "##bear", "##able", "!"], ["un", "bear", "able", "!"]),
            ("so good", ["so", "Ġgood"], ["so", "good"]),
            ("so good", ["▁so", "▁", "go", "od"], ["so", "", "go", "od"]),
            ("## a ##b", ["##", "a", "##b"], ["##", "a", "##b"]),
            ("sing ##ing", ["s", "##ing", "##ing"], ["s", "ing", "##ing"]),
            ("The cat saw the dog", ["the", "cat", "saw", "the", "dog"],
             ["The", "cat", "saw", "the", "dog"]),
            ("let us go to the US", ["US"], ["US"]),
            ("The dog saw the dog", ["the", "dog"], ["The", "dog"]),
            ("the dog saw The dog", ["The", "dog"], ["The", "dog"]),
            ("Café ÜBER", ["cafe", "ub", "##er"], ["Café", "ÜB", "ER"]),
            ("cafe\u0301 au", ["cafe", "au"], ["cafe", "au"]),
            ("🎬🎬 ok", ["🎬", "##🎬", "ok"], ["🎬", "🎬", "ok"]),
            ("ﬁne", ["fi", "##ne"], ["ﬁ", "ne"]),
            ("日本語", ["日", "##本", "##語"], ["日", "本", "語"]),
            ("İstanbul", ["istanbul"], ["İstanbul"]),
            ("a  b", ["", "b"], ["", "b"]),
            ("skips some words", ["skips", "words"], ["skips", "words"]),
        ],
    )  # fmt: skip
    def test_tokens_are_found(self, text: str, tokens: list[str], found: list[str]) -> None:
        spans = align_tokens(tokens, text)
        assert [text[a:b] for a, b in spans] == found
        assert spans == sorted(spans)

    def test_the_right_one_of_several_places(self) -> None:
        assert align_tokens(["the", "the"], "The or the") == [(0, 3), (7, 10)]
        assert align_tokens(["US"], "us or US") == [(6, 8)]
        assert align_tokens(["us"], "US or us") == [(0, 2)]
        assert align_tokens(["or", "US"], "us or US us") == [(3, 5), (6, 8)]

    @given(
        words=st.lists(
            st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1), min_size=1
        ),
        gaps=st.lists(st.sampled_from([" ", "  ", "\n", "\u3000 "]), min_size=20),
    )
    def test_words_of_any_text(self, words: list[str], gaps: list[str]) -> None:
        text, expected = "", []
        for word, gap in zip(words, gaps, strict=False):
            marks = word.startswith(("##", "Ġ", "▁"))
            if not marks:
                expected.append((len(text), len(text) + len(word)))
                text += word + gap
        assert align_tokens([text[a:b] for a, b in expected], text) == expected

    @pytest.mark.shared
    def test_as_the_tokenizer_of_a_model(self) -> None:
        transformers = pytest.importorskip("transformers")
        shared = Path(__file__).parents[3] / "shared"
        if not (shared / "models" / "minilm-sst2").exists():
            pytest.skip("there is no shared model")
        tokenizer = transformers.AutoTokenizer.from_pretrained(shared / "models" / "minilm-sst2")
        path = shared / "data" / "imdb_cad" / "validation.jsonl"
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()[:100]]
        for row in rows:
            encoded = tokenizer(row["text"], add_special_tokens=False, return_offsets_mapping=True)
            tokens = tokenizer.convert_ids_to_tokens(encoded["input_ids"])
            if "[UNK]" not in tokens:
                assert align_tokens(tokens, row["text"]) == encoded["offset_mapping"]


def naive(
    spans: list[tuple[int, int]], scores: list[float], offsets: list[tuple[int, int]]
) -> list[float]:
    """Every pair of a token and a span."""
    carried = []
    for start, end in offsets:
        sharing = [
            score
            for (a, b), score in zip(spans, scores, strict=True)
            if set(range(a, b)) & set(range(start, end))
        ]
        highest, lowest = max(sharing, default=0.0), min(sharing, default=0.0)
        carried.append(highest if highest >= -lowest else lowest)
    return carried


SPAN = st.tuples(st.integers(0, 15), st.integers(0, 15)).map(lambda s: (min(s), max(s)))


class TestScoresForTokens:
    @pytest.mark.parametrize(
        ("spans", "scores", "offsets", "carried"),
        [
            # A word's score goes to each of its tokens.
            ([(0, 6)], [0.5], [(0, 2), (2, 6)], [0.5, 0.5]),
            # A token of several spans gets the strongest, whatever its sign.
            ([(0, 2), (2, 6)], [0.5, 0.25], [(0, 6)], [0.5]),
            ([(0, 2), (2, 6)], [0.5, -0.75], [(0, 6)], [-0.75]),
            ([(0, 2), (2, 6)], [-0.5, 0.5], [(0, 6)], [0.5]),
            # A token that only touches a span shares nothing with it.
            ([(0, 2)], [1.0], [(2, 4), (0, 0), (1, 1)], [0.0, 0.0, 0.0]),
            ([(0, 2)], [-1.0], [(1, 4)], [-1.0]),
            # Overlapping spans, and an empty one.
            ([(0, 4), (1, 2), (1, 1)], [0.1, -0.2, 9.0], [(0, 1), (1, 2)], [0.1, -0.2]),
            ([], [], [(0, 1)], [0.0]),
            ([(0, 1)], [1.0], [], []),
        ],
    )
    def test_by_hand(
        self,
        spans: list[tuple[int, int]],
        scores: list[float],
        offsets: list[tuple[int, int]],
        carried: list[float],
    ) -> None:
        assert scores_for_tokens(spans, scores, offsets) == carried

    @given(
        given=st.lists(st.tuples(SPAN, st.integers(-4, 4).map(float)), max_size=8),
        offsets=st.lists(SPAN, max_size=8),
    )
    def test_as_a_naive_loop(
        self, given: list[tuple[tuple[int, int], float]], offsets: list[tuple[int, int]]
    ) -> None:
        spans, scores = [span for span, _ in given], [score for _, score in given]
        expected = naive(spans, scores, offsets)
        assert scores_for_tokens(spans, scores, offsets) == expected
        assert scores_for_tokens(spans[::-1], scores[::-1], offsets) == expected

    @given(
        offsets=st.lists(st.integers(1, 3), max_size=8).map(
            lambda sizes: [(sum(sizes[:i]), sum(sizes[: i + 1])) for i in range(len(sizes))]
        ),
        data=st.data(),
    )
    def test_the_same_tokens_keep_their_scores(
        self, offsets: list[tuple[int, int]], data: st.DataObject
    ) -> None:
        finite = st.floats(allow_nan=False, allow_infinity=False)
        scores = data.draw(st.lists(finite, min_size=len(offsets), max_size=len(offsets)))
        assert scores_for_tokens(offsets, scores, offsets) == scores

    @pytest.mark.parametrize(
        ("scores", "message"),
        [
            ([1.0], "one for each of the 2 spans, got 1"),
            ([1.0, math.nan], "finite numbers, got nan"),
            ([math.inf, 1.0], "finite numbers, got inf"),
        ],
    )
    def test_bad_scores(self, scores: list[Any], message: str) -> None:
        with pytest.raises(InvalidInputError, match=f"scores: expected {message}"):
            scores_for_tokens([(0, 1), (1, 2)], scores, [(0, 2)])
