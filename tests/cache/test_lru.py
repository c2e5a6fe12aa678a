from hypothesis import given
from hypothesis import strategies as st

from caterva2.cache.lru import BytesLru


def test_the_least_recently_used_goes_first():
    lru = BytesLru(10)
    lru.put("a", 1, 4)
    lru.put("b", 2, 4)
    assert lru.get("a") == 1
    lru.put("c", 3, 4)
    assert (lru.get("a"), lru.get("b"), lru.get("c")) == (1, None, 3)


def test_too_large_is_not_kept():
    lru = BytesLru(10)
    lru.put("a", 1, 4)
    lru.put("a", 2, 11)
    assert lru.get("a") is None
    assert lru.nbytes == 0


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 12))))
def test_bounded(puts):
    lru = BytesLru(20)
    for key, nbytes in puts:
        lru.put(key, (key, nbytes), nbytes)
        assert lru.nbytes <= 20
        kept = [value for k in range(10) if (value := lru.get(k)) is not None]
        assert len(kept) == len(lru)
        assert sum(n for _, n in kept) == lru.nbytes
