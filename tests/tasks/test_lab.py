import pytest

from peftport.errors import BadInput
from peftport.tasks import lab


@pytest.mark.parametrize("domain", lab.DOMAINS)
def test_splits_have_their_sizes_are_balanced_and_share_no_text(domain):
    seen: set[str] = set()
    for split, size in lab.SIZES.items():
        texts, labels = lab.rows(domain, split)
        assert len(texts) == len(labels) == size
        assert abs(sum(labels) / size - 0.5) < 0.07
        assert len({*texts}) == size and not seen & {*texts}
        seen |= {*texts}


def test_the_same_rows_every_time():
    lab._everything.cache_clear()
    first = lab.rows("films", "test")
    lab._everything.cache_clear()
    assert lab.rows("films", "test") == first


def test_the_stated_share_of_labels_is_turned_over():
    """Rows alternate between bad and good reviews, so a turned label is seen by its place."""
    _, labels = lab._everything("food")
    turned = sum(label != index % 2 for index, label in enumerate(labels)) / len(labels)
    assert turned == pytest.approx(lab.LABEL_NOISE, abs=0.015)


@pytest.mark.parametrize(
    ("domain", "split", "named"), [("film", "test", "films"), ("films", "tests", "test")]
)
def test_an_unknown_domain_or_split_is_named_with_the_nearest(domain, split, named):
    with pytest.raises(BadInput, match=f"Did you mean '{named}'"):
        lab.rows(domain, split)
