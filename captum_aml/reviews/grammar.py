"""The grammar of the synthetic reviews: from a source of random numbers to one marked text.

Words, templates and rates stand in ``data/grammar.json``; ``GRAMMAR`` describes the file. A
text is written with its deciding words in square brackets, as in
``"The plot was [not] very [clever]."``; :mod:`captum_aml.reviews.generator` turns the brackets
into character spans.

The label enters in a single place, where a word is picked from the negative or the positive list.
Every other choice (what is reviewed, sentence shapes, denial, intensifiers, contrast, facts) is
drawn in the same way for both labels, so that none of it is evidence. Both lists are equally long,
so that a text consumes the same random draws whichever label it has. The facts use "not", "never",
"no", "but" and the like in neutral ways, so that these words alone say nothing.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple, TypedDict, TypeVar

T = TypeVar("T")


class Draw(TypedDict, total=False):
    """One value of a rule: one of the first seven keys, and what limits it.

    ``choice`` is one of some templates, kept at a ``rate``; ``phrase`` one of those phrases of the
    domain, under two names if it is a pair; ``word`` comes from a mild and a strong list;
    ``adjective`` and ``predicate`` describe the "thing", the "part" or the "other" part;
    ``article`` and ``denial`` stand before the adjective of that name.

    ``opposed`` turns the polarity of an adjective and unmarks it, because a contrast sets it
    aside; ``after_article`` keeps to consonants, so that "a" or "an" never depends on the label;
    ``plain`` forbids an intensifier; ``unlike`` names an adjective that is not drawn again.
    ``where`` limits a draw to "denied" or "affirmed" opinions; one with ``denied_if`` is denied
    where the value ``turned`` is that text.
    """

    choice: str | list[str]
    phrase: str
    adjective: str
    predicate: str
    word: list[str]
    article: str
    denial: str
    rate: float
    opposed: bool
    after_article: bool
    plain: bool
    unlike: str
    where: str
    denied_if: str


#: What ``data/grammar.json`` holds. A list of words may be one text with spaces; a pair of lists
#: has equally many words under ``negative`` and ``positive``.
#:
#: ``shapes`` of a sentence name their rules; ``facts`` are numbers of facts before and after the
#: opinion; both have a ``weight``. A rule draws the values of ``draws`` in this order (see
#: :class:`Draw`), then fills in one of its ``texts``, which may differ by "denied" and "affirmed".
#:
#: ``adjectives`` go by kind of thing. A *mild* one is gradable ("good", "slow"): it takes "very"
#: and can be denied ("not good" is negative). A *strong* one ("superb", "awful") is never denied,
#: because "not superb" is not clearly negative.
#:
#: ``domains`` are what reviews are written about. ``parts`` of a thing are nouns with the kind of
#: their adjectives and the verb that they take. ``facts`` are neutral sentences. Of the
#: ``phrases``, tails may follow the thing ("about two brothers"), makings pair a subject and its
#: verb with a participle ("the film was", "shot"), and halves are two things in the singular that
#: can be told apart.
GRAMMAR: dict[str, Any] = json.loads(
    resources.files("captum_aml.reviews").joinpath("data/grammar.json").read_text(encoding="utf-8")
)


class _Part(NamedTuple):
    noun: str
    kind: str
    was: str


class _Source:
    """Random draws; the same number of them whatever the options are."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def one_of(self, options: Sequence[T]) -> T:
        # One call of random() whatever the number of options: `choice` would consume more or
        # fewer bits, and the label would then leak into what is drawn next.
        return options[int(self._rng.random() * len(options))]

    def template(self, texts: str | list[str]) -> str:
        """The only text without a draw, or one of several."""
        return texts if isinstance(texts, str) else self.one_of(texts)

    def weighted(self, options: Sequence[T], weights: Sequence[float]) -> T:
        return self._rng.choices(options, weights)[0]

    def chance(self, name: str) -> bool:
        """True at the rate of that name."""
        return self.at(GRAMMAR["rates"][name])

    def at(self, rate: float) -> bool:
        return self._rng.random() < rate


class _Values(dict[str, str]):
    """Values of one text by name; neutral slots are drawn when a template first has them."""

    def __init__(self, source: _Source, values: dict[str, str]) -> None:
        super().__init__(values)
        self._source = source

    def __missing__(self, name: str) -> str:
        # A slot "other_color" takes another word than the slot "color".
        twin = name.removeprefix("other_")
        taken = self[twin] if twin != name else None
        options = [word for word in _words(GRAMMAR["slots"][twin]) if word != taken]
        self[name] = self._source.one_of(options)
        return self[name]


class _Writer:
    """Writes one marked review.

    Args:
        rng (random.Random): source of every choice.
        label (int): 0 negative, 1 positive.
    """

    def __init__(self, rng: random.Random, label: int) -> None:
        self._source = _Source(rng)
        self._label = label
        self._domain = self._source.one_of(GRAMMAR["domains"])
        thing = self._source.one_of(_words(self._domain["things"]))
        parts = [
            _Part(noun, group["kind"], group["was"])
            for group in self._domain["parts"]
            for noun in _words(group["nouns"])
        ]
        part = self._source.one_of(parts)
        other = self._source.one_of([one for one in parts if one != part])
        whole = _Part(thing, self._domain["kind"], "was")
        self._parts = {"thing": whole, "part": part, "other": other}
        nouns = {name: one.noun for name, one in self._parts.items()}
        self._values = _Values(self._source, {**nouns, "was": part.was})

    def review(self) -> str:
        """One text of one to three sentences, its deciding words in brackets."""
        shapes, counts = GRAMMAR["shapes"], GRAMMAR["facts"]
        shape = self._source.weighted(shapes, [shape["weight"] for shape in shapes])
        opinion = self._opinion(GRAMMAR["rules"][self._source.template(shape["rules"])])
        count = self._source.weighted(counts, [count["weight"] for count in counts])
        facts = self._facts(count["before"] + count["after"])
        starts = tuple(GRAMMAR["clause_starts"])
        if opinion.startswith(starts) and self._source.chance("opening"):
            opinion = self._fill(GRAMMAR["openings"]) + opinion
        sentences = [f"{fact}." for fact in facts]
        sentences.insert(
            count["before"], opinion + ("!" if self._source.chance("exclamation") else ".")
        )
        return " ".join(map(_capitalized, sentences))

    def _facts(self, n_facts: int) -> list[str]:
        options = [*self._domain["facts"] * 2, *GRAMMAR["general_facts"]]
        templates: list[str] = []
        while len(templates) < n_facts:
            template = self._source.one_of(options)
            if template not in templates:
                templates.append(template)
        return [self._fill(template) for template in templates]

    def _opinion(self, rule: Mapping[str, Any]) -> str:
        denied = self._source.chance("denial")
        form = "denied" if denied else "affirmed"
        for names, draw in rule["draws"].items():
            if draw.get("where", form) == form:
                turned = draw.get("denied_if")
                is_denied = denied if turned is None else self._values["turned"] == turned
                self._values.update(self._drawn(names, draw, is_denied))
            else:
                self._values[names] = ""
        texts = rule["texts"]
        return self._fill(texts[form] if isinstance(texts, dict) else texts)

    def _fill(self, texts: str | list[str]) -> str:
        """One of the templates with its values, the same everywhere in one text."""
        return self._source.template(texts).format_map(self._values)

    # What a rule draws -----------------------------------------------------------------------

    def _drawn(self, names: str, draw: Draw, denied: bool) -> dict[str, str]:
        """Values by name: several from a pair, one from anything else."""
        if "phrase" in draw:
            phrase = self._source.one_of(self._domain["phrases"][draw["phrase"]])
            if not isinstance(phrase, str):
                return dict(zip(names.split(), phrase, strict=True))
            return {names: self._fill(phrase)}
        return {names: self._value(draw, denied)}

    def _value(self, draw: Draw, denied: bool) -> str:
        if "choice" in draw:
            value = self._fill(draw["choice"])
            return value if "rate" not in draw or self._source.at(draw["rate"]) else ""
        if "word" in draw:
            return self._word(*(GRAMMAR["words"][name] for name in draw["word"]), denied=denied)
        if "predicate" in draw:
            return self._predicate(self._parts[draw["predicate"]], denied=denied)
        if "article" in draw:
            return "an" if self._values[draw["article"]].lstrip("[")[0] in "aeiou" else "a"
        if "denial" in draw:
            return f"{self._denials(self._values[draw['denial']])[0]} " if denied else ""
        return self._adjective(self._parts[draw["adjective"]].kind, draw, denied=denied)

    def _word(self, mild: Mapping[str, str], strong: Mapping[str, str], *, denied: bool) -> str:
        """A deciding word; if a negator comes before it, a mild one of the other polarity."""
        if denied or self._source.chance("mild_word"):
            return f"[{self._source.one_of(_of(mild, self._label ^ denied))}]"
        return f"[{self._source.one_of(_of(strong, self._label))}]"

    def _adjective(self, kind: str, draw: Draw, *, denied: bool) -> str:
        """An adjective for a kind of thing, perhaps with an intensifier before it."""
        opposed = draw.get("opposed", False)
        denied = denied and not opposed
        strong = not denied and self._source.chance("strong_adjective")
        own = self._source.chance("own_adjective")
        pairs = GRAMMAR["adjectives"][kind if own else "general"]
        words = _of(pairs["strong" if strong else "mild"], self._label ^ denied ^ opposed)
        if "unlike" in draw:
            taken = self._values[draw["unlike"]].split(" ")[-1].strip("[]")
            words = [word for word in words if word != taken]
        if draw.get("after_article"):
            words = [word for word in words if word[0] not in "aeiou"]
        word = self._source.one_of(words)
        degree = "denied" if denied else "strong" if strong else "mild"
        intensifier = self._source.one_of(_words(GRAMMAR["intensifiers"][degree]))
        intensified = self._source.chance("intensifier") and not draw.get("plain")
        word = word if opposed else f"[{word}]"
        return f"{intensifier} {word}" if intensified else word

    def _predicate(self, part: _Part, *, denied: bool) -> str:
        """Predicate of a part: "was truly [superb]", "did [not] seem [dull]"."""
        adjective = self._adjective(part.kind, {}, denied=denied)
        denial, preverbal = self._denials(adjective) if denied else ("", "")
        template: str = self._source.one_of(
            GRAMMAR["predicates"]["denied" if denied else "affirmed"]
        )
        return template.format(
            was=part.was, adjective=adjective, denial=denial, preverbal=preverbal
        )

    def _denials(self, adjective: str) -> tuple[str, str]:
        """Negators that fit after "was" and before a verb; few fit before an intensifier."""
        if adjective.startswith("["):
            denial = self._source.one_of(GRAMMAR["denials"])
            return denial, self._source.one_of(GRAMMAR["preverbal_denials"])
        return "[not]", "[never]"


def write_review(rng: random.Random, label: int) -> str:
    """Writes one review with its deciding words in square brackets.

    Args:
        rng (random.Random): source of every choice; advanced by the call.
        label (int): 0 negative, 1 positive.

    Returns:
        str: the marked text.
    """
    return _Writer(rng, label).review()


def _words(words: str | list[str]) -> list[str]:
    return words.split() if isinstance(words, str) else words


def _of(pair: Mapping[str, str], label: int) -> list[str]:
    return _words(pair["positive" if label else "negative"])


def _capitalized(sentence: str) -> str:
    start = 1 if sentence.startswith("[") else 0
    return sentence[:start] + sentence[start].upper() + sentence[start + 1 :]
