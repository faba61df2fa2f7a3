import pytest

from peftport.errors import BadInput
from peftport.lab import tasks as lab


@pytest.mark.parametrize("task", lab.TASKS)
def test_splits_have_their_sizes_are_balanced_and_share_no_text(task):
    seen: set[str] = set()
    classes = len(lab.label_words(task))
    for split, size in lab.SIZES.items():
        texts, labels = lab.rows(task, split)
        assert len(texts) == len(labels) == size
        assert set(labels) == set(range(classes))
        assert all(abs(labels.count(c) / size - 1 / classes) < 0.07 for c in range(classes))
        assert len({*texts}) == size and not seen & {*texts}
        seen |= {*texts}


def test_every_domain_has_a_task_of_two_classes_and_one_of_three():
    assert {task.removesuffix("-three") for task in lab.TASKS} == {*lab.DOMAINS}
    assert len(lab.TASKS) == 2 * len(lab.DOMAINS)
    assert lab.label_words("films") == ("negative", "positive")
    assert lab.label_words("films-three") == ("negative", "mixed", "positive")


def test_the_same_rows_every_time():
    lab.all_rows.cache_clear()
    first = lab.rows("films", "test")
    lab.all_rows.cache_clear()
    assert lab.rows("films", "test") == first


@pytest.mark.parametrize("task", ["food", "food-three"])
def test_the_stated_share_of_labels_is_wrong(task):
    """Reviews of every class come in turn, so a wrong label is seen by its place."""
    _, labels = lab.all_rows(task)
    classes = len(lab.label_words(task))
    wrong = sum(label != index % classes for index, label in enumerate(labels)) / len(labels)
    assert wrong == pytest.approx(lab.LABEL_NOISE, abs=0.015)


@pytest.mark.parametrize(
    ("task", "split", "named"),
    [("film", "test", "films"), ("films", "tests", "test"), ("food-tree", "test", "food-three")],
)
def test_an_unknown_task_or_split_is_named_with_the_nearest(task, split, named):
    with pytest.raises(BadInput, match=f"Did you mean '{named}'"):
        lab.rows(task, split)
