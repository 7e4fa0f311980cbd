"""What the synthetic reviews are about: things, their parts, and neutral facts around them.

Nothing in this module speaks for either label. Fact sentences use slots in braces, which
:mod:`captum_aml.reviews._grammar` fills; they also use "not", "never", "no", "but" and the like
in neutral ways, so that these words alone say nothing.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """A part of a thing that can be praised or blamed.

    Args:
        noun (str): the noun without an article.
        kind (str): which adjectives fit, a key of ``_lexicon.MILD``.
        plural (bool, optional): whether the noun is in the plural. Default: False.
    """

    noun: str
    kind: str
    plural: bool = False


@dataclass(frozen=True)
class Domain:
    """One kind of thing that reviews are written about.

    Args:
        kind (str): which adjectives fit the thing itself, a key of ``_lexicon.MILD``.
        things (tuple of str): singular nouns for the thing.
        parts (tuple of Part): parts that can be praised or blamed.
        tails (tuple of str): what may follow the thing ("about two brothers").
        makings (tuple of (str, str)): subject with its verb, and a participle ("the film was",
            "shot"), between which an adverb fits.
        halves (tuple of (str, str)): two things in the singular that can be told apart, such as an
            earlier and a later stretch of the experience.
        facts (tuple of str): neutral sentences, without the final period.
    """

    kind: str
    things: tuple[str, ...]
    parts: tuple[Part, ...]
    tails: tuple[str, ...]
    makings: tuple[tuple[str, str], ...]
    halves: tuple[tuple[str, str], ...]
    facts: tuple[str, ...]


def _parts(kind: str, singular: str = "", plural: str = "") -> tuple[Part, ...]:
    return (
        *(Part(noun, kind) for noun in singular.split()),
        *(Part(noun, kind, plural=True) for noun in plural.split()),
    )


FILM = Domain(
    kind="story",
    things=("film", "movie", "thriller", "comedy", "drama"),
    parts=(
        *_parts("story", "plot script dialogue ending", "jokes"),
        *_parts("performance", "acting cast"),
        *_parts("sound", "soundtrack music"),
        *_parts("display", "scenery", "costumes pictures"),
    ),
    tails=(
        "about two brothers",
        "about a lost letter",
        "about a village by the sea",
        "about a trip to {city}",
    ),
    makings=(
        ("the film was", "made"),
        ("the film was", "shot"),
        ("the script was", "written"),
        ("the parts were", "acted"),
        ("the scenes were", "edited"),
    ),
    halves=(("the first half", "the second half"), ("the first hour", "the rest")),
    facts=(
        "we saw it on a {day} {daypart} with {people}",
        "it runs for {few} hours",
        "the story takes place in {city} in the {season}",
        "the lead role goes to an actor from {city}",
        "we sat in row {number}",
        "it has no subtitles",
        "I had not read the book before",
        "the tickets cost {amount} dollars",
        "despite the rain, we walked home",
        "there were {number} people in the theater",
        "my {person} bought the tickets",
        "it is the {ordinal} part of a series",
        "nobody in our row said a word",
        "we went by {vehicle}, although we live nearby",
        "it rained that {day}, but we went anyway",
    ),
)

BOOK = Domain(
    kind="story",
    things=("book", "novel", "story", "memoir", "mystery"),
    parts=(
        *_parts("story", "plot beginning ending", "chapters dialogues characters"),
        *_parts("display", "cover", "drawings maps"),
    ),
    tails=(
        "about three sisters",
        "about a teacher from {city}",
        "about a family by the sea",
    ),
    makings=(
        ("the book was", "written"),
        ("the story was", "told"),
        ("the text was", "translated"),
        ("the pages were", "printed"),
        ("the last chapter was", "written"),
    ),
    halves=(("the first chapter", "the last chapter"), ("the first half", "the second half")),
    facts=(
        "I read it on the {vehicle} in {month}",
        "it has {number} chapters",
        "the story begins in a {color} house near {city}",
        "my {person} gave it to me in {month}",
        "I borrowed it from the library on a {day}",
        "the author lives in {city}",
        "I have not read the {ordinal} part",
        "it has nothing to do with the film",
        "the cover is {color}",
        "I had never heard of the author before",
        "it took me {number} days to read it",
        "I bought it in {city}, but I read it at home",
        "although it has {number} chapters, it fits in my pocket",
        "there is no map in it",
    ),
)

RESTAURANT = Domain(
    kind="place",
    things=("restaurant", "cafe", "diner", "bistro", "place"),
    parts=(
        *_parts("food", "soup pasta fish salad bread chicken rice", "vegetables desserts"),
        *_parts("service", "waiter waitress staff chef"),
        *_parts("place", "terrace kitchen"),
    ),
    tails=(
        "near the station",
        "on the main square",
        "in the middle of {city}",
    ),
    makings=(
        ("the fish was", "cooked"),
        ("the soup was", "seasoned"),
        ("the vegetables were", "prepared"),
        ("the place was", "run"),
        ("the table was", "set"),
    ),
    halves=(("the front room", "the back room"), ("the old terrace", "the new terrace")),
    facts=(
        "we went there for {meal} on a {day}",
        "we had a table near the {spot}",
        "there are {number} tables inside",
        "the menu changes every {season}",
        "we paid {amount} dollars for {meal}",
        "my {person} had the {dish}, and I had the {other_dish}",
        "my {person} had the {dish}, but I did not",
        "we did not order coffee",
        "it is hardly ten minutes from our house",
        "despite the rain, we walked there",
        "there is no parking on that street",
        "the kitchen closes at {number}",
        "we came by {vehicle} with {people}",
        "although it was {month}, we sat outside",
        "I had never been there before",
    ),
)

HOTEL = Domain(
    kind="place",
    things=("hotel", "inn", "hostel", "lodge", "guesthouse"),
    parts=(
        *_parts("place", "room lobby bathroom terrace lounge garden", "bedrooms hallways"),
        *_parts("service", "manager porter receptionist staff", "maids"),
        *_parts("food", "breakfast"),
    ),
    tails=(
        "by the lake",
        "in the middle of {city}",
        "with {number} rooms",
    ),
    makings=(
        ("the room was", "furnished"),
        ("the lobby was", "decorated"),
        ("the hotel was", "run"),
        ("the garden was", "planned"),
        ("the hallways were", "lit"),
    ),
    halves=(("our first room", "our second room"), ("the ground floor", "the top floor")),
    facts=(
        "we stayed for {number} nights in {month}",
        "our room was on the {ordinal} floor",
        "it has {number} floors and no pool",
        "breakfast starts at {number}",
        "it is scarcely a mile from the station",
        "we booked it through my {person}",
        "the walls are {color}",
        "we arrived by {vehicle} on a {day}",
        "nobody asked for our names",
        "we paid {amount} dollars per night",
        "the window faces a {color} house",
        "we had never been to {city} before",
        "I took the stairs, but my {person} took the elevator",
        "although it was {month}, the heating was on",
    ),
)

PHONE = Domain(
    kind="device",
    things=("phone", "tablet", "laptop", "camera", "device"),
    parts=(
        *_parts("device", "screen battery keyboard charger case", "buttons"),
        *_parts("sound", "speaker ringtone"),
        *_parts("display", "design", "icons photos"),
    ),
    tails=(
        "with {few} lenses",
        "with a {color} case",
        "from a company in {city}",
    ),
    makings=(
        ("the case was", "made"),
        ("the device was", "designed"),
        ("the parts were", "made"),
        ("the manual was", "written"),
        ("the menus were", "organized"),
    ),
    halves=(("the first one", "the second one"), ("the old model", "the new model")),
    facts=(
        "I bought it in {month}",
        "it came in a {color} box",
        "my {person} has the same one",
        "I pay {amount} dollars a month for it",
        "I use it on the {vehicle} every {daypart}",
        "I do not use it for games",
        "it has {few} lenses and no radio",
        "I had never owned a {color} one before",
        "I charge it every {day}",
        "the shop in {city} had {number} of them",
        "it weighs scarcely more than a book",
        "there is nothing else in the box",
        "I wanted the {color} one, but my {person} chose this one",
        "although I work in {city}, I ordered it from home",
    ),
)

CONCERT = Domain(
    kind="performance",
    things=("concert", "show", "performance", "recital", "musical"),
    parts=(
        *_parts("performance", "singer drummer pianist choir", "dancers musicians"),
        *_parts("sound", "music", "songs"),
        *_parts("display", "stage", "lights costumes"),
    ),
    tails=(
        "in the old town hall",
        "with a choir from {city}",
        "with {number} musicians",
        "in a small theater in {city}",
    ),
    makings=(
        ("the songs were", "performed"),
        ("the music was", "arranged"),
        ("the piano was", "played"),
        ("the evening was", "planned"),
        ("the first song was", "played"),
    ),
    halves=(("the first song", "the last song"), ("the first half", "the second half")),
    facts=(
        "we saw it on a {day} in {month}",
        "the musicians come from {city}",
        "they played for {few} hours",
        "we stood near the {spot}",
        "there were {number} people on the stage",
        "the tickets cost {amount} dollars",
        "my {person} drove us home",
        "I had never been to the town hall before",
        "there was no break",
        "despite the rain, we walked home",
        "we had hardly sat down when the lights went out",
        "we came by {vehicle} with {people}",
        "I knew nothing about the musicians before",
        "my {person} wore a {color} hat",
        "my {person} went home after {few} songs, but I did not",
    ),
)

MUSEUM = Domain(
    kind="story",
    things=("museum", "tour", "lecture", "festival", "gallery"),
    parts=(
        *_parts("display", "sculpture", "paintings photographs models"),
        *_parts("service", "guide", "guards"),
        *_parts("place", "hall entrance courtyard library"),
        *_parts("story", "talk", "stories"),
    ),
    tails=(
        "on the main square",
        "about ships and the sea",
        "about the history of {city}",
        "for children and adults",
    ),
    makings=(
        ("the rooms were", "arranged"),
        ("the paintings were", "lit"),
        ("the history was", "explained"),
        ("the signs were", "written"),
        ("the tour was", "organized"),
    ),
    halves=(("the first part", "the last part"), ("the first talk", "the second talk")),
    facts=(
        "we went there on a {day} with {people}",
        "it has {number} rooms on {few} floors",
        "the doors open at {number}",
        "we walked there from the station",
        "we did not visit the shop",
        "despite the rain, we walked home",
        "there is nothing else on that street",
        "we paid {amount} dollars at the door",
        "my {person} took {number} pictures",
        "there is no elevator in the building",
        "nobody else was there in the {daypart}",
        "it is hardly a mile from the station",
        "we took the {vehicle}, although it is not far",
        "I had never been to {city} before",
        "I went upstairs, but my {person} waited at the {spot}",
    ),
)

GAME = Domain(
    kind="story",
    things=("game", "puzzle", "sequel", "quiz", "adventure"),
    parts=(
        *_parts("story", "plot", "missions riddles characters levels"),
        *_parts("display", "artwork", "cards figures"),
        *_parts("device", "board box"),
        *_parts("sound", "soundtrack"),
    ),
    tails=(
        "for {few} players",
        "about a city under the sea",
        "for children and adults",
        "with {amount} cards",
    ),
    makings=(
        ("the rules were", "explained"),
        ("the levels were", "designed"),
        ("the cards were", "drawn"),
        ("the story was", "told"),
        ("the pieces were", "made"),
    ),
    halves=(("the first round", "the second round"), ("the first level", "the last level")),
    facts=(
        "we played it on a {day} {daypart} with {people}",
        "it takes {few} or {number} players",
        "I had not played the {ordinal} part before",
        "the box is {color}",
        "one round takes {amount} minutes",
        "my {person} won the {ordinal} round",
        "there is no timer in the box",
        "I got it from my {person} in {month}",
        "it has {number} levels",
        "I had never heard of it before",
        "I took the {color} pieces, and my {person} took the {other_color} ones",
        "my {person} wanted to go first, but I did too",
        "although it was {daypart}, we played {few} rounds",
        "nobody at the table knew the rules",
    ),
)

DOMAINS = (FILM, BOOK, RESTAURANT, HOTEL, PHONE, CONCERT, MUSEUM, GAME)

# Neutral sentences that fit any domain.
GENERAL_FACTS = (
    "my {person} told me about it",
    "my {person} asked about it on the {vehicle}",
    "I am writing this on a {day} {daypart}",
    "I am writing this at home in {city}",
    "I have not told my {other_person} about it yet",
    "I wanted to wait until {month}, but my {person} did not",
    "I do not write reviews every {season}",
    "nobody else at work knows it",
    "we talked about it at {meal}",
    "it was a {day} in {month}",
    "despite the cold, I am writing this outside",
    "my {person} still has the receipt",
    "it was not my idea but that of my {person}",
    "while I wrote this, my {person} made tea",
    "there is nothing more to report from {city}",
)

# Neutral openings of a full sentence.
OPENINGS = (
    "in my opinion, ",
    "all in all, ",
    "to be honest, ",
    "on the whole, ",
    "looking back, ",
    "in short, ",
    "as I told my {person}, ",
    "after some thought, I can say that ",
    "I must say that ",
    "as far as I can tell, ",
)

# Neutral words for the slots of the same name; a slot "other_color" takes another color.
_SLOT_LISTS = {
    "day": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
    "daypart": "morning afternoon evening",
    "month": "January February March April May June July August September October November "
    "December",
    "season": "spring summer autumn winter",
    "city": "Boston Chicago Denver London Paris Vienna",
    "color": "red blue green black white yellow",
    "few": "two three four",
    "number": "five six seven eight nine ten eleven twelve",
    "amount": "fifteen twenty thirty forty fifty sixty",
    "ordinal": "second third fourth fifth",
    "vehicle": "bus train tram ferry",
    "meal": "lunch dinner supper",
    "dish": "steak pizza stew curry noodles beans",
    "spot": "window door corner exit",
    "person": "brother sister mother father cousin aunt uncle neighbor boss friend wife husband "
    "daughter son",
}
SLOT_WORDS: dict[str, tuple[str, ...]] = {
    **{name: tuple(words.split()) for name, words in _SLOT_LISTS.items()},
    "people": ("two friends", "my parents", "our neighbors", "the children"),
}
