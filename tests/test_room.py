"""What data files take of memory is counted before it is taken."""

from __future__ import annotations

import sys

import pyarrow as pa
import pytest

from peftport.errors import BadInput
from peftport.room import as_objects, as_table, require_room, take, within

CHAT = [{"role": "user", "content": "a"}] * 10
ARRAYS = [
    pa.array(["a", "bcd", None, "x" * 1000]),
    pa.array(["x😀"] * 100),
    pa.array(["a", "b"] * 50).dictionary_encode(),
    pa.array([["ab", "cd"], [], None] * 20),
    pa.array([CHAT, CHAT[:3], None]),
    pa.array(range(1000, 2000)),
    pa.nulls(7),
    pa.chunked_array([["a"], ["b", "c"]]),
]


def size(value) -> int:
    """Bytes of Python's objects, a place in a list for each."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 8 + sys.getsizeof(value) + sum(map(size, inner))


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: str(array.type))
def test_objects_take_no_more_than_is_counted(array):
    assert as_objects(array) >= sum(map(size, array.to_pylist())) - 48 * array.null_count


def test_a_text_that_is_kept_once_counts_as_often_as_it_stands():
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int32()), ["x" * 1000])
    assert texts.nbytes < 10_000
    assert as_table(texts) == 1_000_000
    assert as_table(texts.cast(pa.string())) >= 1_000_000


def test_what_files_take_together_is_limited_within_a_block_alone():
    with within(1000):
        take(600, "a.txt")
        require_room(900, "b.csv")
        with pytest.raises(BadInput, match=r"b\.csv takes more than 1,000 bytes of memory"):
            require_room(1100, "b.csv")
        with pytest.raises(BadInput, match=r"b\.csv takes more than 1,000 bytes"):
            take(600, "b.csv")
    take(10**12, "a.txt")
    with pytest.raises(BadInput, match="takes more than 1,073,741,824 bytes"):
        require_room(2**31, "a.csv")
