"""Labels take one form in every format, come in one order, and have one word each."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftport.errors import BadInput
from peftport.tasks.labels import (
    Classes,
    canonical,
    class_order,
    classes_from_data,
    classes_from_mapping,
)


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (1, 1),
        ("1", 1),
        (" -3 ", -3),
        (2.0, 2),
        ("2.0", 2),
        (True, "true"),
        ("False", "false"),
        ("great ", "great"),
        ("007", "007"),
        ("1.5", "1.5"),
    ],
)
def test_a_label_has_one_form_however_a_file_writes_it(value: object, label: object) -> None:
    assert canonical(value) == label
    assert type(canonical(value)) is type(label)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "no label"),
        ("  ", "no label"),
        (0.37, "0.37, which is not a whole number"),
        (float("nan"), "nan, which is not a whole number"),
        (["a"], "type list"),
    ],
)
def test_what_is_no_label_is_named(value: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        canonical(value)


@given(st.one_of(st.integers(), st.text(), st.booleans()))
def test_the_form_of_a_label_is_final(value: object) -> None:
    try:
        label = canonical(value)
    except ValueError:
        assert isinstance(value, str) and not value.strip()
    else:
        assert canonical(label) == label
        assert canonical(str(label)) == label


def test_numbers_come_by_value_and_before_text() -> None:
    assert class_order([10, "b", 9, "a", 10]) == (9, 10, "a", "b")


def test_labels_that_are_text_are_their_own_words() -> None:
    classes = classes_from_data(["sad", "glad", "sad"], None, None, "x.csv")
    assert classes.labels == classes.words == ("glad", "sad")


def test_class_names_in_the_data_become_words_in_their_order() -> None:
    classes = classes_from_data([1, 0], ("negative", "positive", "unclear"), None, "x")
    assert classes.labels == (0, 1, 2)
    assert classes.words == ("negative", "positive", "unclear")


def test_zero_and_one_are_terrible_and_great_with_a_notice(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    assert classes_from_data([1, 0], None, None, "x.csv").words == ("terrible", "great")
    assert "x.csv: the labels 0 and 1 are read as 'terrible' and 'great'" in caplog.text


def test_other_numbers_have_no_words_of_their_own() -> None:
    assert classes_from_data([1, 2, 3], None, None, "x.csv").words is None


@pytest.mark.parametrize("words", [("bad", "so", "good"), {"1": "bad", 3: "good", 2: "so"}])
def test_given_words_are_in_class_order_or_by_label(words: object) -> None:
    classes = classes_from_data([3, 1, 2], None, words, "x.csv")  # type: ignore[arg-type]
    assert classes.words == ("bad", "so", "good")


def test_a_mapping_is_put_in_class_order_and_may_use_the_names_in_the_data() -> None:
    assert classes_from_mapping({1: "good", 0: "bad"}, None, "t.yaml").words == ("bad", "good")
    named = classes_from_mapping({"pos": "good", "neg": "bad"}, ("neg", "pos"), "t.yaml")
    assert (named.labels, named.words) == ((0, 1), ("bad", "good"))


@pytest.mark.parametrize("mapping", [{"neg": "bad", 0: "worse", 1: "good"}, {0: "a", "neg": "b"}])
def test_a_label_by_its_number_and_by_its_name_is_twice_the_same(mapping) -> None:
    with pytest.raises(BadInput, match=r"t\.yaml has one label twice, as .* and as "):
        classes_from_mapping(mapping, ("neg", "pos"), "t.yaml")
    swapped = classes_from_mapping({0: "zero", 1: "one"}, ("1", "0"), "t.yaml")
    assert swapped.words == ("one", "zero")


def test_a_word_has_no_space_around_it_whoever_says_it() -> None:
    """A space is put before it where a host reads it after a template."""
    given = classes_from_data([0, 1], None, (" bad", "good "), "x.csv")
    named = classes_from_data([0, 1], (" bad", "good "), None, "x.csv")
    mapped = classes_from_mapping({0: " bad", 1: "good "}, None, "t.yaml")
    assert given.words == named.words == mapped.words == ("bad", "good")


def test_labels_become_their_places_in_class_order() -> None:
    assert Classes((5, 7), None, "t").of([7, 5, 7], "x.csv") == [1, 0, 1]


def test_an_unknown_label_is_named_with_its_row_its_file_and_what_is_known() -> None:
    classes = classes_from_mapping({0: "bad", 1: "good"}, None, "t.yaml")
    with pytest.raises(BadInput) as error:
        classes.of([0, 1, 2], "x.csv")
    assert str(error.value) == (
        "row 3 of x.csv has the label 2, which has no label word: t.yaml has the labels 0, 1. "
        "Add it to `labels` in a task YAML, or correct the row."
    )


@pytest.mark.parametrize(
    ("found", "words", "message"),
    [
        ([1, 1], None, "at least two labels; x.csv has only the label 1"),
        ([0, 1, 2], ("bad", "good"), r"2 label words \(bad, good\) for the 3 labels of x.csv"),
        ([0, 1], {0: "bad"}, "label 1 of x.csv has no label word; there are words for 0"),
        ([0, 1], ("bad", " "), "label word of 1 in x.csv is empty"),
    ],
)
def test_words_that_do_not_fit_are_refused(found: list[int], words: object, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        classes_from_data(found, None, words, "x.csv")  # type: ignore[arg-type]
