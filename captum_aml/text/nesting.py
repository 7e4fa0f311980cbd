r"""Sentences first, then the words inside the highest of them: units of two sizes in one text.

A text is explained by its sentences, which have the scores :math:`S_i`. Then the words of the k
sentences with the largest :math:`|S_i|` are explained together, while the rest of the text is kept
as it is: they have the scores :math:`w_{ij}`. What is missing to the sentence's score is shared out
in proportion to their size,

.. math:: s_{ij} = w_{ij} + \Bigl(S_i - \sum_j w_{ij}\Bigr)
    \frac{|w_{ij}|}{\sum_j |w_{ij}|},

so that the words of a sentence add up to its score, and the units of a text to what its sentences
add up to. Where all :math:`w_{ij}` are 0, each word has the same share. In a model that adds up
what its words contribute, nothing is missing. Scores without a sign add up to nothing; there a
sentence has the score of its highest word, as in ``Explanation.sentences()``:

.. math:: s_{ij} = S_i \, w_{ij} / \max_j w_{ij}.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from captum_aml.text.grouping import TokenGroups, group_text
from captum_aml.text.inputs import Span, Text
from captum_aml.text.segmentation import Segmenter


@dataclass(frozen=True)
class NestedGroups:
    """T tokens in W words, and these in S sentences; none of which cuts a word.

    Attributes:
        sentences: The sentences of the tokens.
        words: The words of the tokens.
        parents: The number of each word's sentence (W).
    """

    sentences: TokenGroups
    words: TokenGroups
    parents: tuple[int, ...]

    def opened(self, chosen: Collection[int]) -> TokenGroups:
        """The tokens in the words of the chosen sentences, and in the other sentences whole."""
        units: dict[tuple[int, int], Span] = {}
        keys = []
        for word in self.words.members:
            sentence = self.parents[word]
            inside = sentence in chosen
            key = (sentence, word if inside else -1)
            units[key] = self.words.spans[word] if inside else self.sentences.spans[sentence]
            keys.append(key)
        order = {key: number for number, key in enumerate(sorted(units))}
        return TokenGroups(tuple(units[key] for key in order), tuple(order[key] for key in keys))

    def completed(
        self,
        sentences: Sequence[float],
        words: Sequence[float],
        chosen: Collection[int],
        *,
        signed: bool,
    ) -> list[float]:
        """Scores of the units of ``opened``, in its order.

        Args:
            sentences: The sentences' scores (S).
            words: The words' scores (W); those outside the chosen sentences do not count.
            chosen: The numbers of the sentences whose words are units.
            signed: Whether scores are for or against something, and add up.
        """
        inside: dict[int, list[float]] = {}
        for sentence, score in zip(self.parents, words, strict=True):
            inside.setdefault(sentence, []).append(score)
        scores = []
        for number, score in enumerate(sentences):
            own = inside[number]
            scores += completed(own, score, signed=signed) if number in chosen else [score]
        return scores


def nest(
    text: Text,
    offsets: Sequence[Span],
    *,
    segmenter: Segmenter | str | None = None,
    truncated: bool = False,
) -> NestedGroups:
    """Groups the tokens of a text into words, and these into sentences.

    Args:
        text: The text.
        offsets: Character span of each of T tokens in it.
        segmenter (optional): Finds the words; see
            :func:`~captum_aml.text.grouping.unit_spans`. Default: None.
        truncated: Whether tokens were cut off. Default: False.
    """
    words = group_text(text, offsets, "word", segmenter=segmenter, truncated=truncated)
    parents = group_text(text, words.spans, "sentence", truncated=truncated)
    members = tuple(parents.members[word] for word in words.members)
    return NestedGroups(TokenGroups(parents.spans, members), words, parents.members)


def highest(scores: Sequence[float], k: int) -> tuple[int, ...]:
    """The numbers of the k largest scores by size, in order; of equal ones the first."""
    order = sorted(range(len(scores)), key=lambda number: -abs(scores[number]))
    return tuple(sorted(order[:k]))


def completed(words: Sequence[float], sentence: float, *, signed: bool) -> list[float]:
    """Scores of a sentence's words that make its score; see the module's equations.

    Args:
        words: The words' scores, at least one.
        sentence: The sentence's score.
        signed: Whether scores add up; else the highest of the words is made the sentence's.
    """
    sizes = [abs(word) for word in words]
    if not signed:
        top = max(sizes)
        return [sentence * (size / top if top else 1.0) for size in sizes]
    total = math.fsum(sizes)
    missing = sentence - math.fsum(words)
    if not total:
        return [sentence / len(words)] * len(words)
    return [word + missing * size / total for word, size in zip(words, sizes, strict=True)]
