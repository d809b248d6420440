"""Results made ahead are those asked for, each made once, errors at their own step."""

from __future__ import annotations

import threading

import pytest

from trichrome.training.ahead import Ahead


def test_steps_in_order_are_made_once_and_ahead() -> None:
    made: list[int] = []
    third = threading.Event()

    def make(step: int) -> int:
        made.append(step)
        if step == 2:
            third.set()
        return step * step

    with Ahead(make, end=6) as ahead:
        assert ahead(0) == 0
        assert third.wait(10)  # made before it is asked for
        assert [ahead(step) for step in range(1, 6)] == [1, 4, 9, 16, 25]
    assert made == list(range(6))


def test_any_step_may_be_asked_for() -> None:
    with Ahead(lambda step: -step, end=100) as ahead:
        assert [ahead(step) for step in (50, 3, 4, 99, 0, 120)] == [-50, -3, -4, -99, 0, -120]


def test_an_error_comes_at_its_step() -> None:
    def make(step: int) -> int:
        if step == 1:
            raise ValueError("step one")
        return step

    with Ahead(make, end=3) as ahead:
        assert ahead(0) == 0
        with pytest.raises(ValueError, match="step one"):
            ahead(1)
        assert ahead(2) == 2
