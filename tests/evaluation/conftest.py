"""Fixtures of the evaluation tests."""

import pytest

from tests.evaluation.tiny_task import WordEncoder, make_task
from trichrome.evaluation import Task


@pytest.fixture
def encoder() -> WordEncoder:
    return WordEncoder()


@pytest.fixture
def task() -> Task:
    return make_task()


@pytest.fixture
def within() -> Task:
    return make_task(within_language=True)
