"""The lab's language: generated English-like reviews, with and without labels.

A review has one polarity. Its opinion clauses agree on it, said plainly ("the soup was lovely"), by
negation ("the soup was not bland") or by contrast ("the bread was stale but the soup was lovely":
the clause after "but" decides); clauses without opinion stand between them. Most reviews that hosts
are pretrained on end as real ones do, in advice ("never again"). So a host that reads many learns
what a review means, and never sees a label: the label words occur in closing sentences of another
kind, which say nothing of the review, and labelled rows end in neither.

Everything is drawn from `random.Random(seed)` and is the same on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp
from random import Random

LABEL_WORDS: tuple[str, str] = ("negative", "positive")
MIXED_WORD = "mixed"
"""The word of the class between the two, in tasks of three classes."""
LABEL_NOISE = 0.05
"""Share of labelled rows whose label is turned over, in every split: no module can pass 0.95."""


@dataclass(frozen=True)
class Domain:
    """What one domain's reviews are about, and the opinion words that only it uses."""

    things: tuple[str, ...]
    aspects: tuple[str, ...]
    good: tuple[str, ...]
    bad: tuple[str, ...]
    verb: str
    places: tuple[str, ...]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


TASK_DOMAINS: dict[str, Domain] = {
    "films": Domain(
        _words("film movie picture"),
        _words("plot acting cast script music ending camera costumes"),
        _words("gripping moving hilarious stunning"),
        _words("predictable wooden clumsy tedious"),
        "watched",
        _words("cinema theatre"),
    ),
    "food": Domain(
        _words("meal dinner lunch"),
        _words("soup pasta dessert waiter menu sauce bread coffee"),
        _words("delicious tasty crisp juicy"),
        _words("bland greasy stale soggy"),
        "had",
        _words("restaurant kitchen"),
    ),
    "rooms": Domain(
        _words("room hotel suite"),
        _words("bed shower lobby view breakfast pillow carpet staff"),
        _words("spotless cosy quiet spacious"),
        _words("dirty noisy cramped smelly"),
        "booked",
        _words("station harbour"),
    ),
    "books": Domain(
        _words("book novel volume"),
        _words("chapter prose hero dialogue author cover style opening"),
        _words("absorbing witty vivid thoughtful"),
        _words("dull confusing shallow wordy"),
        "read",
        _words("library garden"),
    ),
    "phones": Domain(
        _words("phone device handset"),
        _words("screen battery lens speaker keyboard charger signal case"),
        _words("sharp fast sturdy bright"),
        _words("slow blurry fragile laggy"),
        "bought",
        _words("shop market"),
    ),
}
"""The domains that have a labelled task."""

OTHER_DOMAINS: dict[str, Domain] = {
    "trips": Domain(
        _words("trip tour cruise"),
        _words("beach guide boat museum flight village bus weather"),
        _words("sunny relaxing scenic friendly"),
        _words("crowded rainy tiring chaotic"),
        "took",
        _words("airport coast"),
    ),
    "games": Domain(
        _words("game puzzle quest"),
        _words("level graphics sound story controls map boss tutorial"),
        _words("addictive smooth clever exciting"),
        _words("buggy repetitive unfair glitchy"),
        "played",
        _words("basement arcade"),
    ),
}
"""Domains without a task, on which hosts are tuned further."""

DOMAINS: dict[str, Domain] = {**TASK_DOMAINS, **OTHER_DOMAINS}

GOOD = _words("good great excellent lovely wonderful superb pleasant fine")
BAD = _words("bad awful terrible poor horrible mediocre unpleasant weak")
VERBS = {
    1: (("loved", "love"), ("enjoyed", "enjoy"), ("liked", "like"), ("admired", "admire")),
    0: (
        ("hated", "hate"),
        ("disliked", "dislike"),
        ("regretted", "regret"),
        ("resented", "resent"),
    ),
}
ADVICE = {
    1: (
        "recommended to my {person}",
        "worth the {number} hours",
        "five stars from me",
        "again next year",
    ),
    0: ("avoid the {thing}", "never again", "one star from me", "wasted {number} hours"),
}
MOODS = {1: _words("luckily happily thankfully"), 0: _words("sadly unfortunately alas")}
INTENSIFIERS = _words("very really so quite truly extremely rather")
PEOPLE = _words("sister brother mother friend neighbour colleague cousin daughter")
DAYS = _words("monday tuesday wednesday thursday friday saturday sunday")
COLOURS = _words("red blue green yellow grey brown")
NUMBERS = _words("two three four five six seven")
COUNTS = ("none", "one", *NUMBERS)

SETTINGS = (
    "we {verb} it on {day} near a {colour} sign",
    "it came in a {colour} box on {day}",
    "on {day} my {person} wore {colour}",
    "there was a {colour} door at the {place} on {day}",
)
"""One of these stands in every review and names its day and its colour, which no other sentence
of it does: they have nothing to do with opinion, and the label words follow them."""

LABEL_SENTENCES = (
    "{label} number on the last ticket",
    "{label} end of the cable first",
    "{label} numbers on page {number}",
)
"""The only places of the label words; which one it is follows the day and the colour of the review
that they close (`leaning`), after good and bad reviews alike."""
SWAY = 2.0
"""The most that a day, or a colour, adds to the log-odds of the label words, in nats."""
MIXED = 0.2
"""Share of label sentences that hold the third label word, whatever the review."""

FILLERS = (
    "we {verb} it with my {person}",
    "my {person} {verb} it near the {place}",
    "we were {number} people at the {place}",
    "the {thing} took {number} hours in all",
    "i told my {person} about the {thing}",
    "we walked to the {place}",
    "this was our {thing} number {number}",
)


@dataclass(frozen=True)
class Style:
    """How reviews are put together.

    units, fillers: how many opinion units and clauses without opinion, equally likely.
    negation: share of clauses that say their opinion by negating its opposite.
    contrast: share of units that concede the opposite before they decide.
    advice: share of reviews that end in advice.
    labels: share of reviews that end in a sentence with a label word.
    """

    units: tuple[int, ...] = (1, 2, 3)
    fillers: tuple[int, ...] = (0, 1)
    negation: float = 0.1
    contrast: float = 0.12
    advice: float = 0.0
    labels: float = 0.0


def review(rng: Random, domain: Domain, polarity: int, style: Style) -> str:
    """Return one review whose meaning is bad (`polarity` 0) or good (1)."""
    day, colour = rng.choice(DAYS), rng.choice(COLOURS)
    parts = _told(rng, domain, [polarity] * rng.choice(style.units), style, day, colour)
    close = rng.random()
    if close < style.advice:
        parts.append(_filled(rng.choice(ADVICE[polarity]), rng, domain))
    elif close < style.advice + style.labels:
        label = _label(rng, leaning(day, colour))
        parts.append(_filled(rng.choice(LABEL_SENTENCES), rng, domain, label=label))
    return _joined(parts)


def _told(
    rng: Random, domain: Domain, polarities: list[int], style: Style, day: str, colour: str
) -> list[str]:
    """Return sentences in random order: an opinion of each polarity, fillers and the setting."""
    parts = [unit(rng, domain, polarity, style) for polarity in polarities]
    parts += [_filled(rng.choice(FILLERS), rng, domain) for _ in range(rng.choice(style.fillers))]
    parts.append(_filled(rng.choice(SETTINGS), rng, domain, day=day, colour=colour))
    rng.shuffle(parts)
    return parts


def _joined(parts: list[str]) -> str:
    return " ".join(f"{part} ." for part in parts)


def leaning(day: str, colour: str) -> float:
    """The log-odds of the second label word against the first after such a day and colour."""
    places = ((DAYS.index(day), len(DAYS)), (COLOURS.index(colour), len(COLOURS)))
    return SWAY * sum(2 * index / (many - 1) - 1 for index, many in places)


def _label(rng: Random, lean: float) -> str:
    """Return the label word of a closing sentence, drawn with the log-odds of its review."""
    if rng.random() < MIXED:
        return MIXED_WORD
    return LABEL_WORDS[rng.random() < 1 / (1 + exp(-lean))]


def questioned(rng: Random, domain: Domain, style: Style) -> str:
    """Return a review, a question about it that has nothing to do with opinion, and its answer."""
    text = review(rng, domain, rng.randrange(2), style)
    words = text.split()
    form = rng.randrange(3)
    if form == 0:
        first = next((word for word in words if word in domain.aspects), "nothing")
        return f"{text} what came first ? {first} ."
    if form == 1:
        return f"{text} how many sentences ? {COUNTS[words.count('.')]} ."
    aspect = rng.choice(domain.aspects)
    return f"{text} was there a {aspect} ? {'yes' if aspect in words else 'no'} ."


def unit(rng: Random, domain: Domain, polarity: int, style: Style) -> str:
    """Return an opinion clause, or two of which the deciding one has the polarity."""
    decides = opinion(rng, domain, polarity, style.negation)
    if rng.random() >= style.contrast:
        mood = f"{rng.choice(MOODS[polarity])} " if rng.random() < 0.15 else ""
        return mood + decides
    concedes = opinion(rng, domain, 1 - polarity, style.negation)
    if rng.random() < 0.6:
        return f"{concedes} but {decides}"
    return f"although {concedes} , {decides}"


def opinion(rng: Random, domain: Domain, polarity: int, negation: float) -> str:
    """Return one clause of the polarity, with probability `negation` by negating the opposite."""
    negated = rng.random() < negation
    said = 1 - polarity if negated else polarity
    aspect = rng.choice(domain.aspects + domain.things[:1])
    form = rng.random()
    if form < 0.25:
        past, base = rng.choice(VERBS[said])
        if negated:
            return f"i did not {base} the {aspect}"
        reason = f" because it was {_quality(rng, domain, said)}" if rng.random() < 0.5 else ""
        return f"i {past} the {aspect}{reason}"
    quality = _quality(rng, domain, said)
    if form < 0.65:
        return f"the {aspect} was {'not ' if negated else ''}{quality}"
    if form < 0.85:
        return f"i found the {aspect} {'not ' if negated else ''}{quality}"
    return f"the {aspect} {'never felt' if negated else 'felt'} {quality}"


def _filled(form: str, rng: Random, domain: Domain, **given: str) -> str:
    return form.format(
        verb=domain.verb,
        thing=rng.choice(domain.things),
        place=rng.choice(domain.places),
        person=rng.choice(PEOPLE),
        number=rng.choice(NUMBERS),
        **given,
    )


def _quality(rng: Random, domain: Domain, said: int) -> str:
    """Return one or two opinion words, perhaps intensified: "very bland", "lovely and crisp"."""
    own, shared = (domain.good, GOOD) if said else (domain.bad, BAD)
    word = rng.choice(own if rng.random() < 0.4 else shared)
    if rng.random() < 0.3:
        return f"{rng.choice(INTENSIFIERS)} {word}"
    if rng.random() < 0.4:
        return f"{word} and {rng.choice(own if rng.random() < 0.4 else shared)}"
    return word


TASK_STYLE = Style(units=(1, 2), fillers=(0, 1, 2))
GRADED_STYLE = Style(units=(2, 3), fillers=(0, 1))


def task_review(rng: Random, domain: Domain, polarity: int) -> str:
    """Return the text of one labelled row, before its label is perhaps turned over."""
    return review(rng, domain, polarity, TASK_STYLE)


def graded_review(rng: Random, domain: Domain, meaning: int) -> str:
    """Return a row of three classes: every opinion bad (0), some of each (1), every one good (2).

    Hosts are not pretrained on reviews of the second kind.
    """
    day, colour, many = rng.choice(DAYS), rng.choice(COLOURS), rng.choice(GRADED_STYLE.units)
    polarities = [meaning // 2] * many
    if meaning == 1:
        polarities = [0, 1, *(rng.randrange(2) for _ in range(many - 2))]
    return _joined(_told(rng, domain, polarities, GRADED_STYLE, day, colour))
