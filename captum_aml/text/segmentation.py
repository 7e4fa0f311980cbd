"""Words and sentences of a text.

Both follow the rules of Unicode's Standard Annex 29, with the properties of characters from the
package ``regex``; where we depart from the annex, the functions say so. No grapheme cluster (what
is read as one character: a letter with its accents, a flag, a family of emoji) is ever cut. Time is
linear in the length of the text.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Literal, TypeAlias

import regex

from captum_aml._utils.graphemes import match_spans
from captum_aml.text.inputs import Span

#: What a score stands for; with "sentence+word" for a word in the highest sentences, for a whole
#: sentence elsewhere.
Unit: TypeAlias = Literal["token", "word", "sentence", "sentence+word"]

#: Finds the words, or the sentences, of a text: their spans, in order.
Segmenter: TypeAlias = Callable[[str], Iterable[Span]]

# Whole grapheme clusters up to the next word boundary.
_WORD = regex.compile(r"\X+?\b", regex.WORD)
# All punctuation, mathematical and currency signs, but no emoji.
_SIGNS = frozenset(("Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Sm", "Sc", "Sk"))
_HYPHENS = "-\N{HYPHEN}\N{NON-BREAKING HYPHEN}"

# White space, but not where a mark combines with it.
_BLANKS = regex.compile(r"(?:\s(?![\p{GCB=Extend}\p{GCB=SpacingMark}\p{GCB=ZWJ}]))*+")
_CLUSTER = regex.compile(r"\X")

# Where a sentence may end: after full stops of any script with closing brackets and quotes, or at
# the end of a line. SB properties are those of the annex. A quote that opens in one language closes
# in another; it opens where a word follows at once.
_CANDIDATE = regex.compile(
    r"""
    (?P<stops>[\p{SB=STerm}\p{SB=ATerm}…][\p{SB=STerm}\p{SB=ATerm}…\p{SB=Extend}\p{SB=Format}]*+)
    (?P<close>
        (?:(?![\p{Pi}\p{Ps}])\p{SB=Close} | \p{Pi}(?![\p{L}\p{N}]) | [\p{SB=Extend}\p{SB=Format}])*+
    )
    (?P<space>[\p{SB=Sp}\p{SB=Extend}\p{SB=Format}]*+)
    |
    (?P<line>[\r\n\p{SB=Sep}])\s*+
    """,
    regex.VERBOSE,
)
_CERTAIN = regex.compile(r"\p{SB=STerm}")
_LINE_END = regex.compile(r"[\r\n\p{SB=Sep}]")
_GOES_ON = regex.compile(r"[\p{SB=SContinue}\p{SB=STerm}\p{SB=ATerm}…]")
_CAPITAL = regex.compile(r"[\p{SB=Upper}]")
_BEGINS = regex.compile(r"[\p{SB=Upper}\p{SB=OLetter}]")
_UNCASED = regex.compile(r"\p{SB=OLetter}")
_LOWER_NEXT = regex.compile(
    r"[^\p{SB=OLetter}\p{SB=Upper}\p{SB=Lower}\p{SB=STerm}\p{SB=ATerm}\p{SB=Sep}\r\n"
    r"\N{HORIZONTAL ELLIPSIS}]*+\p{SB=Lower}"
)
_NUMBER = regex.compile(r"\p{SB=Numeric}")
_WORD_BEFORE = regex.compile(r"[\p{L}\p{M}]+(?:\.[\p{L}\p{M}]+)*$")
_ENUMERATION = regex.compile(r"[\W_]*+(?:\p{Nd}{1,3}|\p{L})")

_LONGEST_ABBREVIATION = 8
_ABBREVIATIONS = frozenset(
    """
    adm approx bros bzw ca capt cf cmdr col cpl d.h dept dr e.g ed eds eg esp est fr gen gov hon hr
    i.e ie insb lt maj messrs mlle mm mme mr mrs ms mt mx prof rep rev sen sgt sr sra srta st u.a
    viz vs z.b
    """.split()  # noqa: SIM905  # a list of them would be a page long
)
# These are abbreviations before a number only.
_OF_NUMBERS = frozenset(
    "abb abs art bd ch fig figs kap no nos nr op p pp s sec vol vols".split()  # noqa: SIM905
)


def word_spans(text: str) -> list[Span]:
    """The words of a text, in order; punctuation marks and emoji are words of their own.

    Word boundaries are the default ones of Unicode's Standard Annex 29: "don't", "3.5", "1,000",
    "a_b" and "한국어" are one word each. In addition, words joined by a single hyphen are one
    ("well-kept", "2020-01-31"), and so is a repeated sign ("...", "!!"). White space belongs to no
    word.

    Scripts that put no spaces between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese) take a
    dictionary to split, which the annex leaves to others: here every Chinese character and every
    character of hiragana is a word, as is every grapheme cluster of Thai, whereas a stretch of
    katakana is one. For real words name a segmenter of the language where one is taken, see
    :mod:`captum_aml.text.segmenters`, or give a function of your own.

    Args:
        text: Any text.
    """
    spans: list[Span] = []
    for start, end in match_spans(_WORD, text):
        if spans and spans[-1][1] == start and _continues(text, spans[-1], start, end):
            spans[-1] = (spans[-1][0], end)
        else:
            # Some versions of regex keep a mark at the very beginning and the space after it.
            visible = len(text[start:end].rstrip())
            if visible:
                spans.append((start, start + visible))
    return spans


def _continues(text: str, before: Span, start: int, end: int) -> bool:
    """Whether the piece from start to end belongs to the word that ends where it begins."""
    first, last = text[start], text[start - 1]
    if end == start + 1 and first in _HYPHENS:
        joins = last.isalnum() and end < len(text) and text[end].isalnum()
        return joins or last == first
    if last in _HYPHENS and first.isalnum():
        return start - 2 >= before[0] and text[start - 2].isalnum()
    return end == start + 1 and first == last and unicodedata.category(first) in _SIGNS


def sentence_spans(text: str) -> list[Span]:
    """The sentences of a text, in order, without the white space around them.

    The rules of Unicode's Standard Annex 29 with the full stops of all scripts. Closing quotes and
    brackets belong to the sentence. Departures from it:

    - Common English, German, French and Spanish abbreviations ("Dr.", "e.g.", "No. 5"), initials
      ("J. Smith") and the number of a list's item ("2. Then") end no sentence.
    - A blank line ends a sentence; a line break does unless the next line goes on in lower case.
    - A full stop after a space ends a sentence, as in texts split into tokens ("good . the plot").
    - Before lower case a full stop ends no sentence; in a text without capitals it does.
    - "?" and "!" end no sentence inside an address ("/?q=1"), nor in quotes before lower case.

    These are rules of thumb ("in the U.S. Army" is cut); where they do not do, give a segmenter.
    Thai has no full stops; its lines are its sentences.

    Args:
        text: Any text.
    """
    rules = _SentenceRules(text)
    borders = [0, *rules.ends(), len(text)]
    spans = (trimmed(text, span) for span in pairwise(borders))
    return [(start, end) for start, end in spans if end > start]


class _SentenceRules:
    """Decides of every candidate in a text whether a sentence ends there."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.capitals = _CAPITAL.search(text) is not None

    def ends(self) -> Iterable[int]:
        """Starts of the sentences after the first one."""
        begin = certain_until = 0
        for match in _CANDIDATE.finditer(self.text):
            end = match.end()
            if end == len(self.text):
                return
            if match["line"] is not None:
                ends = match.start() == certain_until or self._line_ends(match, end)
            elif _LINE_END.match(self.text, end):
                # The line's end decides, and will not be asked again after "?" and the like.
                certain_until = end if _CERTAIN.search(match["stops"]) else 0
                continue
            elif _CERTAIN.search(match["stops"]):
                ends = self._certain_stop_ends(match, end)
            else:
                ends = self._full_stop_ends(match, begin, end)
            # What combines with a space must not be torn from it.
            cluster = _CLUSTER.match(self.text, end - 1)
            if ends and cluster is not None and cluster.end() == end:
                yield end
                begin = end

    def _line_ends(self, match: regex.Match[str], end: int) -> bool:
        lines = match[0].replace("\r\n", "\n")
        paragraph = "\N{PARAGRAPH SEPARATOR}" in lines or len(_LINE_END.findall(lines)) > 1
        return paragraph or not (self.capitals and self.text[end].islower())

    def _certain_stop_ends(self, match: regex.Match[str], end: int) -> bool:
        if _GOES_ON.match(self.text, end):
            return False
        if match["close"] and match["space"]:
            return not self.text[end].islower()
        alone = bool(match["space"]) or match["stops"][-1] not in "?!"
        return alone or _BEGINS.match(self.text, end) is not None

    def _full_stop_ends(self, match: regex.Match[str], begin: int, end: int) -> bool:
        text = self.text
        if not match["space"]:
            if match["stops"][-1] == "\N{FULLWIDTH FULL STOP}":
                return True
            return bool((_BEGINS if match["close"] else _UNCASED).match(text, end))
        if _GOES_ON.match(text, end):
            return False
        single = match["stops"] == "."
        stop = match.start()
        if single and stop > begin and text[stop - 1].isspace():
            return text[begin:stop].rstrip()[-1:] != "."
        if _LOWER_NEXT.match(text, end) and (self.capitals or not single):
            return False
        return not (single and not match["close"] and self._abbreviates(begin, stop, end))

    def _abbreviates(self, begin: int, stop: int, end: int) -> bool:
        text = self.text
        if _ENUMERATION.fullmatch(text, begin, min(stop, begin + 8)) and stop <= begin + 8:
            return True
        # One character more than the longest, to tell a longer word from it.
        found = _WORD_BEFORE.search(text, max(begin, stop - _LONGEST_ABBREVIATION - 1), stop)
        if found is None:
            return False
        word = found[0]
        if len(word) == 1 and word.isupper():
            return word != "I"
        word = word.lower()
        numbered = word in _OF_NUMBERS and _NUMBER.match(text, end) is not None
        return word in _ABBREVIATIONS or numbered


def trimmed(text: str, span: Span) -> Span:
    """A span without the white space around it."""
    piece = text[slice(*span)]
    blanks = _BLANKS.match(piece)
    start = blanks.end() if blanks else 0
    return span[0] + start, span[0] + max(start, len(piece.rstrip()))
