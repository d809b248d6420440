"""Which texts share a pass, for any lengths."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trichrome.serving.batcher import choose


@given(st.lists(st.integers(1, 600), min_size=1, max_size=40), st.data(), st.integers(1, 4000))
def test_a_pass_holds_the_first_text_and_stays_in_its_budget(
    lengths: list[int], data: st.DataObject, budget: int
) -> None:
    first = data.draw(st.integers(0, len(lengths) - 1))
    chosen = choose(lengths, first, budget)
    assert first in chosen
    assert len(set(chosen)) == len(chosen)
    padded = len(chosen) * max(lengths[i] for i in chosen)
    assert len(chosen) == 1 or padded <= budget
    assert all(2 * lengths[i] + 32 >= padded / len(chosen) for i in chosen)
    left = set(range(len(lengths))) - set(chosen)
    same = [i for i in left if lengths[i] == lengths[first]]
    if same:  # one more of the same length is left behind only where it doesn't fit
        assert (len(chosen) + 1) * max(lengths[i] for i in chosen) > budget


def test_near_lengths_go_together() -> None:
    assert sorted(choose([10, 500, 11, 480, 9, 12], 0, 2048)) == [0, 2, 4, 5]
    assert sorted(choose([10, 500, 11, 480, 9, 12], 1, 2048)) == [1, 3]
    assert choose([3000], 0, 2048) == [0]
