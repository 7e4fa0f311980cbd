"""Words and sentences, and the tokens in them."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_aml.text.segmentation import (
    sentence_spans,
    word_spans,
)
from tests._helpers.scripts import TEXTS

Span = tuple[int, int]


def words(text: str) -> list[str]:
    return [text[start:end] for start, end in word_spans(text)]


def sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in sentence_spans(text)]


# Every character, and those on which the rules turn more often.
texts = st.lists(
    st.sampled_from([*TEXTS.values(), *" \n\t\r.-'\"?!…,1aBéの我ำ", "\u0301", "\u200d", "🇩", "🏽"])
    | st.text(max_size=3),
    max_size=12,
).map("".join)


class TestWords:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("Don't stop.", ["Don't", "stop", "."]),
            ("can’t", ["can’t"]),
            ("3.5 of 1,000", ["3.5", "of", "1,000"]),
            ("a well-kept secret", ["a", "well-kept", "secret"]),
            ("state\u2010of\u2011the-art", ["state\u2010of\u2011the-art"]),
            ("2020-01-31", ["2020-01-31"]),
            ("this - that -5 a-", ["this", "-", "that", "-", "5", "a", "-"]),
            ("yes--no", ["yes", "--", "no"]),
            ("Wait... what?!! (no)", ["Wait", "...", "what", "?", "!!", "(", "no", ")"]),
            ("snake_case @me #tag", ["snake_case", "@", "me", "#", "tag"]),
            ("e.g. Dr. Who", ["e.g", ".", "Dr", ".", "Who"]),
            ("  two\n\n words\t", ["two", "words"]),
            ("x\r\ny", ["x", "y"]),
            ("", []),
            (" \n\u3000", []),
        ],
    )
    def test_latin(self, text: str, expected: list[str]) -> None:
        assert words(text) == expected

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("cafe\u0301s re\u0301sume\u0301", ["cafe\u0301s", "re\u0301sume\u0301"]),
            ("我喜欢，这个。", ["我", "喜", "欢", "，", "这", "个", "。"]),
            ("この映画はハイ。", ["こ", "の", "映", "画", "は", "ハイ", "。"]),
            ("이 영화는 좋다.", ["이", "영화는", "좋다", "."]),
            ("สน้ำ", ["ส", "น้ำ"]),
            ("हाँ, ज़रूर।", ["हाँ", ",", "ज़रूर", "।"]),
            ("نعم، مُمتاز؟", ["نعم", "،", "مُمتاز", "؟"]),
            ('צה"ל טוב', ['צה"ל', "טוב"]),
            ("Այո։", ["Այո", "։"]),
            ("ነው። አዎ።", ["ነው", "።", "አዎ", "።"]),
            ("🎬🎬 👍🏽👩\u200d👧", ["🎬", "🎬", "👍🏽", "👩\u200d👧"]),
            ("🇩🇪🇫🇷❤\ufe0f1\ufe0f\u20e3", ["🇩🇪", "🇫🇷", "❤\ufe0f", "1\ufe0f\u20e3"]),
        ],
    )
    def test_other_scripts(self, text: str, expected: list[str]) -> None:
        assert words(text) == expected

    def test_flags_keep_their_halves_however_many_there_are(self) -> None:
        assert set(words("🇩🇪" * 1000)) == {"🇩🇪"}
        assert words("x" + "🇩🇪" * 1000 + "🇩")[-2:] == ["🇩🇪", "🇩"]


class TestSentences:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("Good. Bad.", ["Good.", "Bad."]),
            ("Dr. Smith met Mr. Jones. He left.", ["Dr. Smith met Mr. Jones.", "He left."]),
            ("J. R. R. Tolkien. So do I. Yes.", ["J. R. R. Tolkien.", "So do I.", "Yes."]),
            ("See e.g. The Room. Now.", ["See e.g. The Room.", "Now."]),
            ("See 3.5 or No. 5. He said no. Ok.", ["See 3.5 or No. 5.", "He said no.", "Ok."]),
            ("What?! No... Yes!!! Hm", ["What?!", "No...", "Yes!!!", "Hm"]),
            ("It was... fine, etc. and so on.", ["It was... fine, etc. and so on."]),
            ('"Yes!" he said. "No." (So.) Go.', ['"Yes!" he said.', '"No."', "(So.)", "Go."]),
            ("“Why?” She left.", ["“Why?”", "She left."]),
            ("„Ja!“ Dann »Nein.« Gut.", ["„Ja!“", "Dann »Nein.«", "Gut."]),
            ("1. First it is. 2. Then that.", ["1. First it is.", "2. Then that."]),
            ("See x.com/?q=1.5&b!c now. Ok", ["See x.com/?q=1.5&b!c now.", "Ok"]),
            ("a film . see it ! it 's ... good .", ["a film .", "see it !", "it 's ... good ."]),
            ("i loved it. so did he... really", ["i loved it.", "so did he... really"]),
            ("Title\n\na text\ngoes on. Next\nLine", ["Title", "a text\ngoes on.", "Next", "Line"]),
            ("What?\nno", ["What?", "no"]),
            ("One.\r\n\r\n Two", ["One.", "Two"]),
            ("", []),
            (" \n ", []),
            ("...", ["..."]),
        ],
    )  # fmt: skip
    def test_latin(self, text: str, expected: list[str]) -> None:
        assert sentences(text) == expected

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("很好。“是吗？”他说。完", ["很好。", "“是吗？”", "他说。", "完"]),
            ("良い。「はい！」終わり", ["良い。", "「はい！」", "終わり"]),
            ("좋다. 정말? 네!", ["좋다.", "정말?", "네!"]),
            ("है। क्या? हाँ॥ अ", ["है।", "क्या?", "हाँ॥", "अ"]),
            ("هل هذا؟ نعم. جيد۔ لا", ["هل هذا؟", "نعم.", "جيد۔", "لا"]),
            ("Լավ է։ Այո։", ["Լավ է։", "Այո։"]),
            ("ጥሩ ነው። አዎ፧ ሀ", ["ጥሩ ነው።", "አዎ፧", "ሀ"]),
            ("Да! Нет? Так.", ["Да!", "Нет?", "Так."]),
            ("หนัง ดีมาก\nจบ", ["หนัง ดีมาก", "จบ"]),
            ("Super 🎬! 👍🏽 Ja.", ["Super 🎬!", "👍🏽 Ja."]),
        ],
    )
    def test_other_scripts(self, text: str, expected: list[str]) -> None:
        assert sentences(text) == expected


@pytest.mark.parametrize("find", [word_spans, sentence_spans])
class TestBoth:
    @settings(max_examples=300, deadline=None)
    @given(text=texts)
    def test_cover_all_that_is_seen_and_cut_no_character(
        self, find: Callable[[str], list[Span]], text: str
    ) -> None:
        spans = find(text)
        covered = [i for start, end in spans for i in range(start, end)]
        assert covered == sorted(set(covered)), "in order, none overlapping"
        assert all(text[i].isspace() for i in set(range(len(text))) - set(covered))
        borders = set(itertools.accumulate(map(len, regex.findall(r"\X", text)), initial=0))
        for start, end in spans:
            assert end > start
            assert {start, end} <= borders
            assert not text[start:end].isspace()
            assert not text[end - 1].isspace()

    @pytest.mark.parametrize(
        "unit",
        [
            "a",
            " ",
            ".",
            ". ",
            "A. ",
            "我。",
            "🇩🇪",
            "👩\u200d",
            "\u0301",
            '"',
            "(.",
            "1.",
            "a-",
            " \n",
        ],
    )
    def test_a_hundred_thousand_characters(
        self, find: Callable[[str], list[Span]], unit: str
    ) -> None:
        # Where time is not linear this takes minutes.
        text = unit * (100_000 // len(unit))
        assert sum(end - start for start, end in find(text)) <= len(text)
