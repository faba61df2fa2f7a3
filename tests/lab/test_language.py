from collections import Counter
from random import Random

import pytest

from peftport.lab import language as words
from peftport.lab import recipes

STYLE = words.Style(units=(1, 2, 3), fillers=(0, 1), advice=0.5, labels=0.5)


def reviews(polarity: int, style: words.Style = STYLE, many: int = 2000) -> list[str]:
    rng = Random(f"reviews {polarity}")
    domains = list(words.DOMAINS.values())
    return [words.review(rng, domains[i % len(domains)], polarity, style) for i in range(many)]


def test_the_same_seed_gives_the_same_review_and_another_seed_another():
    food = words.DOMAINS["food"]
    first, again, other = (
        [words.review(Random(seed), food, 1, STYLE) for _ in range(3)] for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_an_opinion_is_said_plainly_or_by_negating_its_opposite():
    food, rng = words.DOMAINS["food"], Random(0)
    good, bad = {*words.GOOD, *food.good}, {*words.BAD, *food.bad}
    for _ in range(500):
        plain = set(words.opinion(rng, food, 1, negation=0.0).split())
        assert not plain & {"not", "never"} and not plain & bad
        turned = set(words.opinion(rng, food, 1, negation=1.0).split())
        assert turned & {"not", "never"} and not turned & good


def test_contrast_holds_both_opinions_and_the_deciding_one_is_the_polarity():
    food, rng = words.DOMAINS["food"], Random(0)
    style = words.Style(negation=0.0, contrast=1.0)
    good = {*words.GOOD, *food.good} | {verb for verb, _ in words.VERBS[1]}
    bad = {*words.BAD, *food.bad} | {verb for verb, _ in words.VERBS[0]}
    for _ in range(500):
        said = words.unit(rng, food, 1, style)
        concedes, decides = said.split(" but " if " but " in said else " , ")
        assert set(concedes.split()) & bad and not set(concedes.split()) & good
        assert set(decides.split()) & good and not set(decides.split()) & bad


def test_negation_contrast_and_intensifiers_occur_in_the_rows_of_tasks():
    rng = Random(0)
    rows = [words.task_review(rng, words.DOMAINS["films"], i % 2).split() for i in range(1000)]
    for sign in ("not", "but", "although", "very"):
        assert sum(sign in row for row in rows) > 50


def test_label_words_come_in_the_same_sentences_as_often_after_good_and_bad_reviews():
    counts = {}
    every = {*words.LABEL_WORDS, words.MIXED_WORD}
    for polarity in (0, 1):
        closes = [text.split(" . ")[-1].split()[0] for text in reviews(polarity)]
        counts[polarity] = Counter(c for c in closes if c in every)
        inside = [word for text in reviews(polarity) for word in text.split()]
        assert sum(inside.count(label) for label in every) == counts[polarity].total()
    for label in every:
        assert counts[0][label] == pytest.approx(counts[1][label], rel=0.2)
        assert counts[0][label] > 150


def mark(text: str, among: tuple[str, ...]) -> str:
    (found,) = (word for word in text.split() if word in among)
    return found


def test_every_review_names_one_day_and_one_colour_that_tell_nothing_of_it():
    rows = {
        polarity: [
            *reviews(polarity),
            *(words.task_review(Random(i), words.DOMAINS["food"], polarity) for i in range(1000)),
        ]
        for polarity in (0, 1)
    }
    for among in (words.DAYS, words.COLOURS):
        bad, good = (Counter(mark(text, among) for text in rows[p]) for p in (0, 1))
        assert set(bad) == set(good) == set(among)
        for word in among:
            assert bad[word] == pytest.approx(3000 / len(among), rel=0.2)
            assert good[word] == pytest.approx(3000 / len(among), rel=0.2)


def test_the_label_word_of_a_review_leans_with_its_day_and_its_colour():
    said: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    for text in [*reviews(0), *reviews(1)]:
        label = text.split(" . ")[-1].split()[0]
        lean = words.leaning(mark(text, words.DAYS), mark(text, words.COLOURS))
        if label in words.LABEL_WORDS and abs(lean) > 1:
            said[lean > 0][label] += 1
    first, second = words.LABEL_WORDS
    assert said[True][second] > 4 * said[True][first] > 0
    assert said[False][first] > 4 * said[False][second] > 0


def test_leanings_are_spread_evenly_about_none():
    leanings = [words.leaning(day, colour) for day in words.DAYS for colour in words.COLOURS]
    assert sum(leanings) == pytest.approx(0)
    assert max(leanings) == pytest.approx(2 * words.SWAY) == pytest.approx(-min(leanings))


def test_rows_of_tasks_hold_neither_label_words_nor_advice():
    rng = Random(0)
    openings = {form.split()[0] for forms in words.ADVICE.values() for form in forms}
    closing = {*words.LABEL_WORDS, words.MIXED_WORD, "stars", "recommended"}
    for index in range(2000):
        for text in (
            words.task_review(rng, words.DOMAINS["books"], index % 2),
            words.graded_review(rng, words.DOMAINS["books"], index % 3),
        ):
            assert not closing & set(text.split())
            assert text.split(" . ")[-1].split()[0] not in openings


def test_a_row_of_three_classes_holds_opinions_of_both_kinds_when_it_is_mixed(monkeypatch):
    monkeypatch.setattr(words, "GRADED_STYLE", words.Style((2, 3), negation=0, contrast=0))
    food, rng = words.DOMAINS["food"], Random(0)
    kinds = {
        0: {*words.BAD, *food.bad, *(verb for verb, _ in words.VERBS[0])},
        1: {*words.GOOD, *food.good, *(verb for verb, _ in words.VERBS[1])},
    }
    for index in range(900):
        said = set(words.graded_review(rng, food, index % 3).split())
        found = {polarity for polarity, those in kinds.items() if said & those}
        assert found == ({0}, {0, 1}, {1})[index % 3]


def test_advice_goes_with_the_polarity_alone():
    sides = {}
    for polarity in (0, 1):
        closes = [text.split(" . ")[-1].split()[0] for text in reviews(polarity)]
        sides[polarity] = set(closes) & {
            form.split()[0] for forms in words.ADVICE.values() for form in forms
        }
    assert sides[0] and sides[1] and not sides[0] & sides[1]


def test_a_question_has_its_true_answer():
    rng, food = Random(0), words.DOMAINS["food"]
    kinds = Counter()
    for _ in range(600):
        text = words.questioned(rng, food, STYLE)
        body, answer = text.split(" ? ")
        answer = answer.removesuffix(" .")
        if "what came first" in body:
            said = body.removesuffix(" what came first").split()
            kinds["first"] += 1
            assert answer == next((word for word in said if word in food.aspects), "nothing")
        elif "how many sentences" in body:
            kinds["count"] += 1
            assert words.COUNTS.index(answer) == body.split().count(".")
        else:
            said, aspect = body.split(" was there a ")
            kinds[answer] += 1
            assert answer == ("yes" if aspect in said.split() else "no")
    assert min(kinds.values()) > 20 and len(kinds) == 4


def test_the_vocabulary_knows_every_word_of_every_text():
    known = set(recipes.vocabulary())
    for polarity in (0, 1):
        assert {word for text in reviews(polarity) for word in text.split()} <= known
