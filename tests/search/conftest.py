"""Fixtures of the search tests."""

import pytest

from tests.search.brute import Corpus, random_embeddings
from trichrome.records import Payload


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    payloads: list[Payload] = [{"text": f"text {i}", "lang": "en" if i % 3 else "sw"} for i in range(80)]
    return Corpus(random_embeddings(80, seed=1), random_embeddings(12, seed=2), payloads)
