"""The grammar of the synthetic reviews: from a source of random numbers to one marked text.

A text is written with its deciding words in square brackets, as in
``"The plot was [not] very [clever]."``; :mod:`captum_aml.reviews.generator` turns the brackets
into character spans.

The label enters in a single place, where a word is picked from the negative or the positive list.
Every other choice (what is reviewed, sentence shapes, denial, intensifiers, contrast, facts) is
drawn in the same way for both labels, so that none of it is evidence.
"""

from __future__ import annotations

import random

from captum_aml.reviews import _lexicon as lexicon
from captum_aml.reviews._domains import DOMAINS, GENERAL_FACTS, OPENINGS, Part
from captum_aml.reviews._phrases import Phrases

_DENIAL_RATE = 0.35
_SHAPE_WEIGHTS = {"simple": 0.58, "contrast": 0.28, "pair": 0.14}
# Facts before and after the opinion, with their weights.
_FACT_COUNTS = {(0, 1): 0.26, (1, 0): 0.26, (1, 1): 0.2, (0, 2): 0.1, (2, 0): 0.1, (0, 0): 0.08}
# What a clause begins with that may follow an opening ("all in all, ...").
_CLAUSE_STARTS = ("the ", "it ", "there ", "everything ", "[nothing] ", "I ", "we ")
_THEMSELVES = ("I", "we")


class _Writer:
    """Writes one marked review.

    Args:
        rng (random.Random): source of every choice.
        label (int): 0 negative, 1 positive.
    """

    def __init__(self, rng: random.Random, label: int) -> None:
        self._say = Phrases(rng, label)
        self._domain = self._say.draw(DOMAINS)
        self._thing = self._say.draw(self._domain.things)
        self._part = self._say.draw(self._domain.parts)
        self._other = self._say.draw([part for part in self._domain.parts if part != self._part])

    def review(self) -> str:
        """One text of one to three sentences, its deciding words in brackets."""
        shape = self._say.draw_weighted(_SHAPE_WEIGHTS)
        write = {"simple": self._simple, "contrast": self._contrast, "pair": self._pair}[shape]
        opinion = write()
        n_before, n_after = self._say.draw_weighted(_FACT_COUNTS)
        facts = self._facts(n_before + n_after)
        before, after = facts[:n_before], facts[n_before:]
        if opinion.startswith(_CLAUSE_STARTS) and self._say.chance(0.3):
            opinion = self._say.fill(self._say.draw(OPENINGS)) + opinion
        mark = "!" if self._say.chance(0.12) else "."
        sentences = [*(f"{fact}." for fact in before), opinion + mark]
        sentences += [f"{fact}." for fact in after]
        return " ".join(map(_capitalized, sentences))

    def _facts(self, n_facts: int) -> list[str]:
        options = [*self._domain.facts, *self._domain.facts, *GENERAL_FACTS]
        templates: list[str] = []
        while len(templates) < n_facts:
            template = self._say.draw(options)
            if template not in templates:
                templates.append(template)
        return [self._say.fill(template) for template in templates]

    # Opinions ------------------------------------------------------------------------------

    def _simple(self) -> str:
        writers = (
            *(self._description,) * 3,
            *(self._whole,) * 2,
            *(self._feeling,) * 2,
            *(self._effect,) * 2,
            *(self._adverb,) * 2,
            self._scope,
            self._noun,
        )
        return self._say.draw(writers)(self._say.chance(_DENIAL_RATE))

    def _description(self, denied: bool) -> str:
        part, who = self._part, self._say.draw(_THEMSELVES)
        adjective = self._say.adjective(part.kind, denied=denied)
        predicate = f"the {part.noun} {self._say.predicate(part, denied=denied)}"
        if not denied:
            return self._say.draw(
                (predicate, predicate, f"{who} found the {part.noun} {adjective}")
            )
        return self._say.draw(
            (
                predicate,
                predicate,
                predicate,
                f"{who} did [not] find the {part.noun} {adjective}",
                f"{who} [never] found the {part.noun} {adjective}",
                f"[nobody] in our group found the {part.noun} {adjective}",
            )
        )

    def _whole(self, denied: bool) -> str:
        thing, kind = self._thing, self._domain.kind
        adjective = self._say.adjective(kind, denied=denied, after_article=True)
        phrase = f"{_article(adjective)} {adjective} {thing}"
        tail = self._say.fill(self._say.draw(self._domain.tails))
        if not denied:
            return self._say.draw(
                (f"it was {phrase}", f"this is {phrase} {tail}", f"{phrase} {tail}")
            )
        denial, _ = self._say.denial(adjective)
        return self._say.draw(
            (
                f"it was {denial} {phrase}",
                f"this is [not] {phrase} {tail}",
                f"[not] {phrase} {tail}",
            )
        )

    def _scope(self, denied: bool) -> str:
        part, thing = self._part, self._thing
        about_part = self._say.adjective(part.kind, denied=denied, plain=True)
        about_thing = self._say.adjective(self._domain.kind, denied=denied)
        everything, something = ("[nothing]",) * 2 if denied else ("everything", "something")
        return self._say.draw(
            (
                f"there was {something} {about_part} about the {part.noun}",
                f"{everything} about the {thing} was {about_thing}",
                f"{everything} about the {thing} seemed {about_thing}",
            )
        )

    def _feeling(self, denied: bool) -> str:
        who, what = self._say.draw(_THEMSELVES), self._say.draw((self._thing, self._part.noun))
        intensifier = self._say.verb_intensifier()
        past = self._say.word(lexicon.FEELINGS_PAST, lexicon.FEELINGS_STRONG, denied=denied)
        base = self._say.word(lexicon.FEELINGS_BASE, lexicon.FEELINGS_BASE, denied=denied)
        if not denied:
            plain = f"{who} {intensifier}{past} the {what}"
            return self._say.draw((plain, plain, f"everyone in our group {past} the {what}"))
        return self._say.draw(
            (
                f"{who} did [not] {base} the {what}",
                f"{who} did [not] {base} the {what}",
                f"{who} [never] {past} the {what}",
                f"[nobody] in our group {past} the {what}",
            )
        )

    def _effect(self, denied: bool) -> str:
        what, whom = self._say.draw((self._thing, self._part.noun)), self._say.draw(("me", "us"))
        intensifier, preverbal = self._say.verb_intensifier(), self._say.preverbal_denial()
        past = self._say.word(lexicon.EFFECTS_PAST, lexicon.EFFECTS_STRONG, denied=denied)
        base = self._say.word(lexicon.EFFECTS_BASE, lexicon.EFFECTS_BASE, denied=denied)
        if not denied:
            return f"the {what} {intensifier}{past} {whom}"
        return self._say.draw(
            (
                f"the {what} did [not] {base} {whom}",
                f"the {what} did [not] {base} {whom}",
                f"the {what} {preverbal} {past} {whom}",
                f"[nothing] about the {what} {past} {whom}",
            )
        )

    def _noun(self, denied: bool) -> str:
        thing = self._thing
        noun = self._say.word(lexicon.NOUNS_MILD, lexicon.NOUNS_STRONG, denied=denied)
        ends = ("", " from start to finish", " in my eyes")
        real = self._say.draw(("", "", "real ", "true "))
        if not denied:
            return f"the {thing} was a {real}{noun}{self._say.draw(ends)}"
        denial = self._say.draw(("[not] a", "[hardly] a", "[scarcely] a", "[no]"))
        return f"the {thing} was {denial} {noun}{self._say.draw(ends[::2])}"

    def _adverb(self, denied: bool) -> str:
        subject, participle = self._say.draw(self._domain.makings)
        adverb = self._say.word(lexicon.ADVERBS_MILD, lexicon.ADVERBS_STRONG, denied=denied)
        denial = self._say.draw(("[not] ", "[not] ", "[hardly] ", "[scarcely] ")) if denied else ""
        return f"{subject} {denial}{adverb} {participle}"

    def _contrast(self) -> str:
        """The flaw or merit in the first place is set aside; what is set against it decides."""
        denied = self._say.chance(_DENIAL_RATE)
        part, thing, kind = self._part, self._thing, self._domain.kind
        whole = Part(thing, kind)
        was = "were" if part.plural else "was"
        flaw, whole_flaw = self._say.flaw(part.kind), self._say.flaw(kind)
        verdict = self._say.predicate(whole, denied=denied)
        other = f"the {self._other.noun} {self._say.predicate(self._other, denied=denied)}"
        early, late = self._say.draw(self._domain.halves)
        final = self._say.adjective(kind, denied=denied)
        if denied:
            final = f"{self._say.denial(final)[0]} {final}"
        concession = self._say.draw(("although", "even though", "though"))
        who, someone = self._say.draw(_THEMSELVES), self._say.fill("my {person}")
        return self._say.draw(
            (
                f"the {thing} was {whole_flaw} at first, but {final} in the end",
                f"the {part.noun} {was} {flaw}, but {other}",
                f"the {part.noun} {was} {flaw}, yet {other}",
                f"{concession} the {part.noun} {was} {flaw}, {other}",
                f"{other}, {concession} the {part.noun} {was} {flaw}",
                f"while the {part.noun} {was} {flaw}, {other}",
                f"despite the {self._say.flaw(part.kind, plain=True)} {part.noun}, {other}",
                f"{early} was {whole_flaw}, but {late} {verdict}",
                f"{who} had expected something {whole_flaw}, but the {thing} {verdict}",
                f"{someone} called it {whole_flaw}, but to me it {verdict}",
            )
        )

    def _pair(self) -> str:
        """Two opinions of the same polarity, of which at most one is denied."""
        part, other = self._part, self._other
        denied = [False, False]
        if self._say.chance(_DENIAL_RATE):
            denied[self._say.draw((0, 1))] = True
        was = "were" if part.plural else "was"
        first = self._say.adjective(part.kind)
        second = self._say.adjective(part.kind, unlike=first, plain=True)
        feeling = self._say.word(lexicon.FEELINGS_PAST, lexicon.FEELINGS_STRONG, denied=False)
        predicate = self._say.predicate(part, denied=denied[0])
        other_predicate = self._say.predicate(other, denied=denied[1])
        who = self._say.draw(_THEMSELVES)
        return self._say.draw(
            (
                f"the {part.noun} {was} {first} and {second}",
                f"the {part.noun} {predicate}, and the {other.noun} {other_predicate}",
                f"{who} {feeling} the {self._thing}, and the {part.noun} {predicate}",
            )
        )


def write_review(rng: random.Random, label: int) -> str:
    """Writes one review with its deciding words in square brackets.

    Args:
        rng (random.Random): source of every choice; advanced by the call.
        label (int): 0 negative, 1 positive.

    Returns:
        str: the marked text.
    """
    return _Writer(rng, label).review()


def _article(phrase: str) -> str:
    return "an" if phrase.lstrip("[")[0] in "aeiou" else "a"


def _capitalized(sentence: str) -> str:
    start = 1 if sentence.startswith("[") else 0
    return sentence[:start] + sentence[start].upper() + sentence[start + 1 :]
