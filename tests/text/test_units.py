"""Words and sentences of an explanation, for tokenizers of every kind and many scripts."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from functools import cache

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from captum_aml.exceptions import InvalidInputError
from captum_aml.text import Explanation
from captum_aml.text.encoding import tokenize
from captum_aml.text.segmentation import sentence_spans, word_spans
from tests._helpers.scripts import TEXTS
from tests._helpers.text_models import EXPLANATION as MASKED
from tests._helpers.text_models import byte_level_tokenizer
from tests._helpers.tokenizer_kinds import KINDS, byte_level, tokenizer_of

# "Unbelievably good!" in the pieces un, believ, ably, good and !
SIGNED = replace(MASKED, scores=(0.5, -0.75, 0.25, -0.5, 0.0), signed=True)
# Tokens that hold the space before a word, as byte-level tokenizers have them.
SPACED = "byte-level, with spaces"


@cache
def tokenizer(kind: str) -> PreTrainedTokenizerFast:
    if kind == "bytes":
        return byte_level_tokenizer()
    return byte_level(trim_offsets=False) if kind == SPACED else tokenizer_of(kind)


def explanation(
    kind: str, text: str | tuple[str, str] | list[str], *, max_length: int | None = None
) -> Explanation:
    """Scores 1, 2, 3, ... for the tokens of a text."""
    (tokenized,) = tokenize(tokenizer(kind), [text], max_length=max_length)
    keep = [i for i, maskable in enumerate(tokenized.maskable) if maskable]
    return replace(
        MASKED,
        text=tokenized.text,
        tokens=tuple(tokenized.tokens[i] for i in keep),
        offsets=tuple(tokenized.offsets[i] for i in keep),
        scores=tuple(float(i) for i in range(1, len(keep) + 1)),
        n_tokens_cut=tokenized.n_tokens_cut,
        parts=tokenized.parts,
        given_words=tokenized.words,
    )


class TestByHand:
    @pytest.mark.parametrize(
        ("pooling", "scores"),
        [("max", [0.5, -0.5, 0.0]), ("sum", [0.0, -0.5, 0.0]), ("mean", [0.0, -0.5, 0.0])],
    )
    def test_words(self, pooling: str, scores: list[float]) -> None:
        words = SIGNED.words(pooling)
        assert [word.text for word in words] == ["Unbelievably", "good", "!"]
        assert [word.span for word in words] == [(0, 12), (13, 17), (17, 18)]
        assert [word.score for word in words] == scores

    def test_the_largest_is_so_by_value(self) -> None:
        assert SIGNED.words()[0].score == 0.5  # not -0.75, nor 0.75

    @pytest.mark.parametrize(
        ("pooling", "score"), [("max", 0.95), ("sum", 2.05), ("mean", 2.05 / 5)]
    )
    def test_sentences(self, pooling: str, score: float) -> None:
        (sentence,) = MASKED.sentences(pooling)
        assert sentence.text == "Unbelievably good!"
        assert sentence.score == pytest.approx(score, abs=1e-15)

    @pytest.mark.parametrize(
        ("kind", "text", "words"),
        [
            ("word-piece", "Un café, 电影 good", ["Un", "café", ",", "电", "影", "good"]),
            ("byte-level", "a 🎬🎬 film", ["a", "🎬", "🎬", "film"]),
            (SPACED, "a 电影 film\n\nbad ", ["a", "电", "影", "film", "bad"]),
            ("unigram", "电影 a  film", ["电", "影", "a", "film"]),
            ("byte-fallback", "👩\u200d👧 cafe\u0301 हाँ", ["👩\u200d👧", "cafe\u0301", "हाँ"]),
        ],
    )
    def test_tokenizers(self, kind: str, text: str, words: list[str]) -> None:
        explained = explanation(kind, text)
        assert [word.text for word in explained.words()] == words
        # Scores count upwards, so the largest is that of a word's last token.
        n = len(explained.scores)
        assert explained.words()[-1].score == n
        assert sum(word.score for word in explained.words("sum")) == n * (n + 1) / 2

    def test_a_token_over_several_words_joins_them(self) -> None:
        joined = replace(MASKED, text="New York is", tokens=("New York", "is"))
        joined = replace(joined, offsets=((0, 8), (9, 11)), scores=(0.25, 0.5))
        assert [word.text for word in joined.words()] == ["New York", "is"]

    def test_a_word_without_tokens_is_left_out(self) -> None:
        # Tokenizers drop control characters, and what does not fit.
        explained = explanation("word-piece", "good \x00 film is bad", max_length=4)
        assert explained.n_tokens_cut > 0
        assert explained.text == "good \x00 film is bad"
        assert [word.text for word in explained.words()] == ["good", "film"]

    def test_a_word_in_part(self) -> None:
        explained = explanation("byte-level", "zzz zzz.", max_length=6)
        assert [(word.text, word.span) for word in explained.words()] == [
            ("zzz", (0, 3)),
            ("zz", (4, 6)),
        ]
        assert [sentence.text for sentence in explained.sentences()] == ["zzz zz"]

    def test_pairs(self) -> None:
        explained = explanation("word-piece", ("a good film", "Is it? no"))
        assert [word.text for word in explained.words()] == [
            "a", "good", "film", "Is", "it", "?", "no",
        ]  # fmt: skip
        assert [s.text for s in explained.sentences()] == ["a good film", "Is it?", "no"]
        assert [s.span for s in explained.sentences()] == [(0, 11), (12, 18), (19, 21)]

    def test_words_that_were_given(self) -> None:
        explained = explanation("word-piece", ["good-ish", "New York", "it's", "no."])
        assert [word.text for word in explained.words()] == ["good-ish", "New York", "it's", "no."]

    def test_a_segmenter(self) -> None:
        explained = explanation("bytes", "电影很好。")
        words = explained.words("mean", segmenter=lambda _: [(0, 2), (2, 4)])
        # Three bytes for each character, counted from 1.
        assert [(word.text, word.score) for word in words] == [
            ("电影", 3.5), ("很好", 9.5), ("。", 14.0),
        ]  # fmt: skip
        whole = explained.sentences("sum", segmenter=lambda text: [(0, len(text))])
        assert [(s.text, s.score) for s in whole] == [("电影很好。", 120.0)]

    def test_empty_and_blank_texts(self) -> None:
        empty = replace(MASKED, text="", tokens=(), offsets=(), scores=())
        assert empty.words() == empty.sentences() == []
        blank = explanation("bytes", "  ")
        assert [(word.text, word.score) for word in blank.words()] == [(" ", 1.0), (" ", 2.0)]

    def test_scores_of_words_and_of_sentences(self) -> None:
        fields = {"tokens": ("ab", "cd. Ef"), "offsets": ((0, 2), (2, 8)), "scores": (0.25, 0.5)}
        words = replace(MASKED, text="abcd. Ef", unit="word", **fields)
        # What a segmenter found while explaining is not found again.
        assert [word.text for word in words.words()] == ["ab", "cd. Ef"]
        assert [s.text for s in words.sentences("sum")] == ["abcd. Ef"]
        assert [s.score for s in words.sentences("sum")] == [0.75]
        sentences = replace(words, unit="sentence")
        assert [s.text for s in sentences.sentences()] == ["ab", "cd. Ef"]
        with pytest.raises(InvalidInputError, match="words: expected scores of tokens or words"):
            sentences.words()

    @pytest.mark.parametrize("pooling", ["min", "MAX", None])
    def test_unknown_pooling(self, pooling: str) -> None:
        for units in (MASKED.words, MASKED.sentences):
            with pytest.raises(InvalidInputError, match=r"pooling: expected one of \('max', 'sum'"):
                units(pooling)

    def test_bad_segmenter(self) -> None:
        with pytest.raises(InvalidInputError, match="segmenter: expected spans in order"):
            MASKED.words(segmenter=lambda _: [(3, 5), (0, 2)])

    def test_a_text_of_a_hundred_thousand_tokens(self) -> None:
        # Where time is not linear this takes minutes.
        text = "good 电🎬. " * 10_000
        explained = explanation("byte-level", text)
        assert len(explained.words()) == 40_000
        assert len(explained.sentences()) == 10_000


# Whole texts, pieces of them that begin and end anywhere, and what stands between.
pieces = st.sampled_from(list(TEXTS.values())).flatmap(
    lambda text: st.tuples(st.integers(0, len(text)), st.integers(0, len(text))).map(
        lambda borders: text[min(borders) : max(borders)]
    )
)
texts = st.lists(
    pieces | st.sampled_from([" ", "  ", "\n\n", ". ", "! ", "\u200d", "\u0301", "\x00"]),
    max_size=8,
).map("".join)


@pytest.mark.parametrize("kind", [*KINDS, SPACED])
@pytest.mark.parametrize("unit", ["word", "sentence"])
class TestAnyScript:
    @pytest.mark.parametrize("script", TEXTS)
    def test_whole_texts(self, kind: str, unit: str, script: str) -> None:
        self.check(explanation(kind, TEXTS[script]), unit)

    @settings(max_examples=40, deadline=None)
    @given(text=texts)
    def test_any_text(self, kind: str, unit: str, text: str) -> None:
        self.check(explanation(kind, text), unit)

    @settings(max_examples=20, deadline=None)
    @given(first=texts, second=texts)
    def test_any_pair(self, kind: str, unit: str, first: str, second: str) -> None:
        self.check(explanation(kind, (first, second)), unit)

    def check(self, explained: Explanation, unit: str) -> None:
        """Compares with a plain search over tokens, units and characters."""
        text = explained.text
        pooled = {
            name: explained.words(name) if unit == "word" else explained.sentences(name)
            for name in ("sum", "max", "mean")
        }
        units = pooled["sum"]
        for other in pooled.values():
            assert [(u.text, u.span) for u in other] == [(u.text, u.span) for u in units]
        assert all(u.text == text[slice(*u.span)] for u in units)
        for (_, (_, end), _), (_, (start, _), _) in itertools.pairwise(units):
            assert end <= start

        # The characters of each token that can be seen, and the units they are in.
        parts = explained.parts or ((0, len(text)),)
        members: list[list[int]] = [[] for _ in units]
        waiting: list[int] = []
        found: int | None = None
        part = 0
        for token, (start, end) in enumerate(explained.offsets):
            visible = [i for i in range(start, end) if not text[i].isspace()]
            if part + 1 < len(parts) and start >= parts[part + 1][0]:
                if found is not None:
                    members[found] += waiting
                    waiting = []
                found, part = None, part + 1
            if not visible:
                waiting.append(token)
                continue
            holders = {
                number
                for i in visible
                for number, u in enumerate(units)
                if u.span[0] <= i < u.span[1]
            }
            assert len(holders) == 1, "a token is in one unit, with all of its characters"
            found = holders.pop()
            members[found] += [*waiting, token]
            waiting = []
        if found is not None:
            members[found] += waiting
            waiting = []
        if not waiting and all(members):
            for number, tokens in enumerate(members):
                scores = [explained.scores[token] for token in tokens]
                assert pooled["sum"][number].score == sum(scores)
                assert pooled["max"][number].score == max(scores)
                assert pooled["mean"][number].score == sum(scores) / len(scores)
        else:
            # White space alone, in the whole text or in one of a pair.
            assert any(not text[a:b].strip() for a, b in parts)
        assert math.fsum(u.score for u in units) == sum(explained.scores)

        borders = {0}
        for start, end in parts:
            lengths = map(len, regex.findall(r"\X", text[start:end]))
            borders |= set(itertools.accumulate(lengths, initial=start))
        assert all({*u.span} <= borders for u in units if u.text.strip())
        find = word_spans if unit == "word" else sentence_spans
        plain = [(a + i, a + j) for a, b in parts for i, j in find(text[a:b])]
        for u in units:
            if u.text.strip():
                assert u.span[0] in {start for start, _ in plain}
                assert u.span[1] in {end for _, end in plain}
