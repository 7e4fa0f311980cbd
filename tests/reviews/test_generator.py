from __future__ import annotations

import hashlib
import json
import math
import random
import re
from collections import Counter, defaultdict

import pytest

from captum_aml.reviews import (
    LABELS,
    MAX_REVIEWS,
    NEGATORS,
    Review,
    generate_reviews,
    review_splits,
)
from captum_aml.reviews.grammar import GRAMMAR

WORD_PAIRS: list[dict[str, str]] = [
    *GRAMMAR["words"].values(),
    *(adjectives["mild"] for adjectives in GRAMMAR["adjectives"].values()),
    *(adjectives["strong"] for adjectives in GRAMMAR["adjectives"].values()),
]
NEGATIVE_WORDS = {word for pair in WORD_PAIRS for word in pair["negative"].split()}
POSITIVE_WORDS = {word for pair in WORD_PAIRS for word in pair["positive"].split()}
OPINION_WORDS = NEGATIVE_WORDS | POSITIVE_WORDS
CONTRASTS = {"but", "yet", "although", "though", "while", "despite"}


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


@pytest.fixture(scope="module")
def reviews() -> list[Review]:
    return generate_reviews(10_000, seed=3)


# The words ----------------------------------------------------------------------------------------


def test_both_polarities_have_equally_many_words() -> None:
    for pair in WORD_PAIRS:
        assert len(pair["negative"].split()) == len(pair["positive"].split()), pair


def test_no_word_has_two_meanings() -> None:
    assert not NEGATIVE_WORDS & POSITIVE_WORDS
    assert not NEGATORS & OPINION_WORDS


# What is generated --------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_reviews() -> None:
    assert generate_reviews(300, seed=5) == generate_reviews(300, seed=5)
    assert generate_reviews(300, seed=5) != generate_reviews(300, seed=6)


def test_the_bundled_classifier_s_reviews_are_still_those_it_was_trained_on() -> None:
    # Any change of the grammar, of its data or of the order of draws changes later texts too.
    reviews = [(r.text, r.label, r.deciding) for r in generate_reviews(2000)]
    digest = hashlib.sha256(json.dumps(reviews).encode()).hexdigest()
    assert digest == ("0b8aa669c0461addaccfda777e28d55bfb3841ac349116d01fb271a54bcb1e5f")


def test_a_smaller_number_gives_the_beginning_of_a_larger_one() -> None:
    assert generate_reviews(101, seed=1) == generate_reviews(300, seed=1)[:101]


def test_global_random_state_is_not_touched() -> None:
    before = random.getstate()
    generate_reviews(10)
    assert random.getstate() == before


def test_no_text_comes_twice(reviews: list[Review]) -> None:
    assert len({review.text for review in reviews}) == len(reviews)


@pytest.mark.slow
def test_the_largest_number_of_different_texts_can_be_made() -> None:
    reviews = generate_reviews(MAX_REVIEWS)
    assert len({review.text for review in reviews}) == MAX_REVIEWS >= 50_000


@pytest.mark.parametrize("n", [0, 1, 2, 7, 500, 501])
def test_labels_are_balanced(n: int) -> None:
    reviews = generate_reviews(n)
    n_positive = sum(review.label for review in reviews)
    assert len(reviews) == n
    assert n_positive in {n // 2, n - n_positive, (n + 1) // 2}
    assert abs(n - 2 * n_positive) == n % 2


def test_labels_do_not_alternate(reviews: list[Review]) -> None:
    # Pairs of labels come in either order, so the first of a pair is positive half of the time.
    # 5,000 pairs: four standard deviations are 4 * 0.5 / sqrt(5000) = 0.028.
    first = [review.label for review in reviews[::2]]
    assert abs(sum(first) / len(first) - 0.5) < 0.028


def test_texts_are_short_and_well_formed(reviews: list[Review]) -> None:
    for review in reviews:
        assert 6 <= len(review.text.split()) <= 30
        # Words, single spaces and plain punctuation: no slot or mark of the grammar is left.
        assert re.fullmatch(r"([A-Z][A-Za-z]*( |, |[.!] ?)?|[a-z]+( |, |[.!] ?))+", review.text)
        for sentence in re.split(r"(?<=[.!]) ", review.text):
            assert sentence[0].isupper()
            assert sentence[-1] in ".!"


def test_articles_agree_with_the_next_word(reviews: list[Review]) -> None:
    # No word here begins with a vowel letter that is spoken as a consonant, or the reverse.
    articles = {
        (article.lower(), follower[0].lower() in "aeiou")
        for review in reviews
        for article, follower in re.findall(r"\b([Aa]n?) (\w+)", review.text)
    }
    assert articles == {("a", False), ("an", True)}


def test_verbs_agree_with_their_subject(reviews: list[Review]) -> None:
    text = " ".join(review.text.lower() for review in reviews)
    for singular in ("film", "soup", "staff", "music", "room", "screen"):
        assert f"the {singular} was" in text
        assert f"the {singular} were" not in text
    for plural in ("characters", "vegetables", "songs", "buttons", "paintings"):
        assert f"the {plural} were" in text
        assert f"the {plural} was" not in text


def test_vocabulary_is_several_hundred_words(reviews: list[Review]) -> None:
    vocabulary = {word for review in reviews for word in words_of(review.text)}
    assert 400 <= len(vocabulary) <= 800
    assert min(len(NEGATIVE_WORDS & vocabulary), len(POSITIVE_WORDS & vocabulary)) >= 40


# Which words decide -------------------------------------------------------------------------------


def test_spans_are_whole_words_in_order(reviews: list[Review]) -> None:
    for review in reviews:
        words = {match.span() for match in re.finditer(r"\w+", review.text)}
        assert set(review.deciding) <= words
        assert list(review.deciding) == sorted(set(review.deciding))
        assert review.deciding_words == tuple(review.text[s:e] for s, e in review.deciding)


def test_one_to_three_words_decide(reviews: list[Review]) -> None:
    counts = Counter(len(review.deciding) for review in reviews)
    assert set(counts) == {1, 2, 3}
    assert counts[1] > 0.4 * len(reviews)
    assert counts[2] > 0.3 * len(reviews)


def label_by_rule(deciding_words: tuple[str, ...]) -> int:
    """Looks each opinion word up; an odd number of negators before it turns it round."""
    votes = set()
    n_negators = 0
    for word in (word.lower() for word in deciding_words):
        if word in NEGATORS:
            n_negators += 1
        else:
            assert word in OPINION_WORDS
            votes.add((int(word in POSITIVE_WORDS) + n_negators) % 2)
            n_negators = 0
    assert n_negators == 0, "a negator without an opinion word"
    (label,) = votes
    return label


def test_a_rule_finds_every_label_from_the_deciding_words(reviews: list[Review]) -> None:
    assert [label_by_rule(r.deciding_words) for r in reviews] == [r.label for r in reviews]


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("negative", "bad awful boring rude dirty hated disappointed badly disaster painful"),
        ("positive", "good superb gripping friendly clean loved impressed well treat delicious"),
    ],
)
def test_a_word_that_decides_alone_means_what_a_reader_thinks(
    reviews: list[Review], label: str, words: str
) -> None:
    for word in words.split():
        labels = {LABELS[r.label] for r in reviews if r.deciding_words == (word,)}
        assert labels == {label}


def test_denial_turns_a_word_round(reviews: list[Review]) -> None:
    labels = defaultdict(set)
    for review in reviews:
        if len(review.deciding) == 2:
            labels[tuple(word.lower() for word in review.deciding_words)].add(review.label)
    assert labels["not", "good"] == {0}
    assert labels["hardly", "boring"] == {1}
    assert labels["never", "bad"] == {1}
    assert labels["nobody", "enjoyed"] == {0}
    # Every negator decides somewhere.
    assert {first for first, _ in labels} >= NEGATORS


def test_opinions_that_do_not_decide_stand_in_a_contrast(reviews: list[Review]) -> None:
    n_contrasts = 0
    for review in reviews:
        others = [
            match.group().lower()
            for match in re.finditer(r"\w+", review.text)
            if match.span() not in review.deciding and match.group().lower() in OPINION_WORDS
        ]
        if others:
            n_contrasts += 1
            (other,) = others
            assert int(other in POSITIVE_WORDS) == 1 - review.label
            assert CONTRASTS & set(words_of(review.text))
    assert n_contrasts > 0.2 * len(reviews)


# What does not decide -----------------------------------------------------------------------------


def neutral_words(review: Review) -> list[str]:
    return [word for word in words_of(review.text) if word not in OPINION_WORDS]


@pytest.mark.parametrize("n_words", [1, 2])
def test_no_other_word_or_pair_of_words_is_evidence(reviews: list[Review], n_words: int) -> None:
    # The number of positive texts among the n that hold a word is binomial(n, 1/2), with a
    # standard deviation of sqrt(n) / 2. Five of them, for a few hundred words and about a
    # thousand pairs at once: a false alarm in fewer than 1 of 1,000 seeds.
    counts: dict[tuple[str, ...], list[int]] = defaultdict(lambda: [0, 0])
    for review in reviews:
        words = neutral_words(review)
        for gram in set(zip(*(words[i:] for i in range(n_words)), strict=False)):
            counts[gram][review.label] += 1
    frequent = {gram: pair for gram, pair in counts.items() if sum(pair) >= 100}
    assert len(frequent) > 200
    for gram, (n_negative, n_positive) in frequent.items():
        n = n_negative + n_positive
        assert abs(n_positive / n - 0.5) < 5 * 0.5 / math.sqrt(n), gram


@pytest.mark.parametrize("word", sorted((NEGATORS | CONTRASTS) - {"nothing"} | {"very", "really"}))
def test_signal_words_are_common_and_say_nothing(reviews: list[Review], word: str) -> None:
    labels = [review.label for review in reviews if word in words_of(review.text)]
    assert len(labels) >= 100
    assert abs(sum(labels) / len(labels) - 0.5) < 4 * 0.5 / math.sqrt(len(labels))


@pytest.mark.parametrize("negator", sorted(NEGATORS))
def test_negators_also_stand_in_neutral_facts(reviews: list[Review], negator: str) -> None:
    deciding = sum(negator in map(str.lower, review.deciding_words) for review in reviews)
    present = sum(negator in words_of(review.text) for review in reviews)
    assert deciding >= 20
    assert present - deciding >= 20


def test_a_classifier_of_the_other_words_is_at_chance(reviews: list[Review]) -> None:
    # Naive Bayes, fitted on one half and scored on the other.
    half = len(reviews) // 2
    counts: dict[str, list[int]] = defaultdict(lambda: [1, 1])
    for review in reviews[:half]:
        for word in set(neutral_words(review)):
            counts[word][review.label] += 1
    n_right = 0
    for review in reviews[half:]:
        score = sum(
            math.log(counts[word][1] / counts[word][0])
            for word in set(neutral_words(review))
            if word in counts
        )
        n_right += int(score > 0) == review.label
    # Four standard deviations of a fair coin: 4 * 0.5 / sqrt(5000) = 0.028.
    assert abs(n_right / half - 0.5) < 0.028


# Splits and errors --------------------------------------------------------------------------------


def test_splits_cut_one_pool_and_share_no_text() -> None:
    splits = review_splits(n_train=400, n_validation=100, n_test=150, seed=9)
    assert [len(part) for part in splits] == [400, 100, 150]
    assert [*splits.train, *splits.validation, *splits.test] == generate_reviews(650, seed=9)
    texts = [{review.text for review in part} for part in splits]
    assert not texts[0] & texts[1]
    assert not texts[0] & texts[2]
    assert not texts[1] & texts[2]


@pytest.mark.parametrize("n", [-1, MAX_REVIEWS + 1])
def test_a_number_out_of_range_is_an_error(n: int) -> None:
    with pytest.raises(ValueError, match=r"n must be from 0 to 100,000, but it is -?\d"):
        generate_reviews(n)


@pytest.mark.parametrize("name", ["n_train", "n_validation", "n_test"])
def test_a_negative_split_is_an_error(name: str) -> None:
    sizes = {"n_train": 4, "n_validation": 4, "n_test": 4, name: -2}
    with pytest.raises(ValueError, match=rf"{name} must be 0 or more, but it is -2"):
        review_splits(**sizes)


def test_splits_that_are_too_large_are_an_error() -> None:
    with pytest.raises(ValueError, match="the sum is 100,001"):
        review_splits(n_train=MAX_REVIEWS, n_validation=1, n_test=0)
