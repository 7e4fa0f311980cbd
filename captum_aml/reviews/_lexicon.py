"""The words that carry an opinion in the synthetic reviews, and the words that turn it round.

Every list comes in a negative and a positive form of the same length, in the order of the labels
(0 negative, 1 positive). Equal lengths are what makes the rest of a text independent of its
label: the generator consumes the same random draws whichever label it writes.

A *mild* word is gradable ("good", "slow"): it takes "very" and can be denied ("not good" is
negative). A *strong* word ("superb", "awful") is never denied, because "not superb" is not clearly
negative.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WordPair:
    """Words of the two polarities, equally many of each.

    Args:
        negative (tuple of str): words that speak for label 0.
        positive (tuple of str): words that speak for label 1.
    """

    negative: tuple[str, ...]
    positive: tuple[str, ...]

    def __getitem__(self, label: int) -> tuple[str, ...]:
        return self.positive if label else self.negative


def _pair(negative: str, positive: str) -> WordPair:
    pair = WordPair(tuple(negative.split()), tuple(positive.split()))
    assert len(pair.negative) == len(pair.positive), (len(pair.negative), len(pair.positive))
    return pair


GENERAL_MILD = _pair(
    "bad poor disappointing unpleasant lousy",
    "good nice impressive pleasant lovely",
)
GENERAL_STRONG = _pair(
    "awful terrible horrible dreadful dismal abysmal atrocious appalling horrendous "
    "pathetic miserable disastrous",
    "excellent great wonderful superb fantastic terrific brilliant magnificent marvelous "
    "outstanding amazing splendid",
)

# Adjectives by the kind of thing that they describe.
MILD = {
    "story": _pair(
        "boring dull predictable tedious confusing silly shallow repetitive tiresome",
        "gripping moving clever original charming funny engaging interesting entertaining",
    ),
    "performance": _pair(
        "wooden stiff awkward sloppy feeble clumsy uninspired",
        "convincing confident graceful polished lively expressive inspired",
    ),
    "food": _pair(
        "bland stale greasy unappetizing tasteless unsatisfying",
        "tasty fresh flavorful appetizing delicate satisfying",
    ),
    "service": _pair(
        "rude unfriendly impolite unhelpful careless grumpy impatient arrogant",
        "friendly polite helpful attentive welcoming cheerful patient courteous",
    ),
    "place": _pair(
        "dirty shabby uncomfortable cramped gloomy noisy smelly uninviting",
        "clean cozy comfortable spacious tidy peaceful elegant inviting",
    ),
    "device": _pair(
        "unreliable flimsy sluggish impractical clunky faulty fragile",
        "reliable sturdy responsive practical handy dependable durable",
    ),
    "sound": _pair(
        "shrill grating monotonous dreary harsh muddy",
        "catchy soothing rousing melodic uplifting tuneful",
    ),
    "display": _pair(
        "ugly drab unimaginative gaudy dated blurry",
        "beautiful striking imaginative tasteful colorful vivid",
    ),
}
STRONG = {
    "story": _pair("mindless pointless unbearable", "captivating fascinating unforgettable"),
    "performance": _pair("lifeless laughable", "dazzling electrifying"),
    "food": _pair("disgusting inedible", "delicious heavenly"),
    "service": _pair("hostile insulting", "gracious exceptional"),
    "place": _pair("filthy hideous", "spotless gorgeous"),
    "device": _pair("useless worthless", "flawless ingenious"),
    "sound": _pair("deafening painful", "enchanting thrilling"),
    "display": _pair("hideous ghastly", "breathtaking exquisite"),
}

# "The film was badly made": always beside a participle.
ADVERBS_MILD = _pair(
    "badly poorly carelessly clumsily sloppily",
    "well beautifully carefully neatly skillfully",
)
ADVERBS_STRONG = _pair(
    "terribly horribly dreadfully miserably",
    "superbly brilliantly perfectly wonderfully",
)

# "The book was a treat": every noun takes the article "a".
NOUNS_MILD = _pair(
    "mess disaster failure bore letdown disappointment",
    "treat joy pleasure success masterpiece triumph",
)
NOUNS_STRONG = _pair("nightmare fiasco catastrophe", "gem delight marvel")

# What a visitor feels ("we enjoyed it") and what a thing does to one ("it bored us"), as
# past tense and, in the same order, as the base form that follows "did not".
FEELINGS_PAST = _pair("disliked hated regretted", "enjoyed liked loved")
FEELINGS_BASE = _pair("dislike hate regret", "enjoy like love")
FEELINGS_STRONG = _pair("despised loathed detested", "adored admired appreciated")
EFFECTS_PAST = _pair(
    "bored disappointed annoyed frustrated bothered",
    "impressed pleased charmed delighted amused",
)
EFFECTS_BASE = _pair(
    "bore disappoint annoy frustrate bother",
    "impress please charm delight amuse",
)
EFFECTS_STRONG = _pair(
    "disgusted angered appalled horrified",
    "amazed enchanted dazzled overwhelmed",
)

# Words that turn the next opinion word round.
NEGATORS = frozenset({"not", "never", "hardly", "scarcely", "no", "nothing", "nobody"})

_ALL_PAIRS = (
    GENERAL_MILD,
    GENERAL_STRONG,
    *MILD.values(),
    *STRONG.values(),
    ADVERBS_MILD,
    ADVERBS_STRONG,
    NOUNS_MILD,
    NOUNS_STRONG,
    FEELINGS_PAST,
    FEELINGS_BASE,
    FEELINGS_STRONG,
    EFFECTS_PAST,
    EFFECTS_BASE,
    EFFECTS_STRONG,
)
NEGATIVE_WORDS = frozenset(word for pair in _ALL_PAIRS for word in pair.negative)
POSITIVE_WORDS = frozenset(word for pair in _ALL_PAIRS for word in pair.positive)
assert not NEGATIVE_WORDS & POSITIVE_WORDS
assert not NEGATORS & (NEGATIVE_WORDS | POSITIVE_WORDS)
