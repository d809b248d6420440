"""Explanations of a pair whose tokens and vectors are set by hand."""

import re
from dataclasses import dataclass, replace

import numpy as np
import pytest

from trichrome.embeddings import Embedding
from trichrome.encoder import Encoder, load
from trichrome.errors import TrichromeError
from trichrome.index import create_store_for, index_documents
from trichrome.records import Document
from trichrome.search import Searcher
from trichrome.search.explain import explain, weigh

WORDS = ["<eos>", "red", "fox", "blue", "whale", "the"]


@dataclass
class Spans:
    ids: np.ndarray
    spans: np.ndarray


class WordEncoder:
    """One token a word, and an end-of-text token."""

    def token(self, id: int) -> str:
        return WORDS[id]

    def token_spans(self, text: str, kind: str) -> Spans:
        found = list(re.finditer(r"\s*\w+", text))  # the space before a word is in its span, as in XLM-R
        ids = [WORDS.index(m.group().lower().strip()) for m in found] + [0]
        return Spans(np.array(ids), np.array([m.span() for m in found] + [(0, 0)]))


QUERY = Embedding(
    token_ids=np.array([1, 2]),
    token_weights=np.array([0.5, 2.0], np.float32),
    multivector=np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32),  # red fox <eos>
)
PASSAGE = Embedding(
    token_ids=np.array([1, 2, 4]),
    token_weights=np.array([1.0, 1.5, 3.0], np.float32),
    multivector=np.array(  # Fox the red fox whale <eos>
        [[0, 0.6, 0.8], [0, 0, 0], [0.8, 0.6, 0], [0, 0.8, 0.6], [0.6, 0, -0.8], [0.1, 0, -0.9]],
        np.float16,
    ),
)


def test_tokens_spans_and_sums_by_hand() -> None:
    why = explain(WordEncoder(), "red fox", QUERY, "Fox: the red fox, whale", PASSAGE)
    first, second = why.shared
    assert (first.token, first.query_weight, first.passage_weight, first.contribution) == ("fox", 2, 1.5, 3)
    assert (first.query_spans, first.passage_spans) == (((4, 7),), ((0, 3), (13, 16)))
    assert (second.token, second.contribution, second.passage_spans) == ("red", 0.5, ((9, 12),))
    assert why.sparse == pytest.approx(3.5)
    assert [(m.query_token, m.query_span, m.passage_token, m.passage_span) for m in why.matches] == [
        ("red", (0, 3), "red", (9, 12)),
        ("fox", (4, 7), "fox", (13, 16)),
        ("<eos>", (0, 0), "fox", (0, 3)),
    ]
    assert [m.cosine for m in why.matches] == pytest.approx([0.8, 0.8, 0.8], abs=1e-3)
    assert why.multivector == pytest.approx(0.8, abs=1e-3)


def test_runners_up_are_the_next_nearest_and_change_nothing_else() -> None:
    text = "Fox: the red fox, whale"
    plain = explain(WordEncoder(), "red fox", QUERY, text, PASSAGE)
    why = explain(WordEncoder(), "red fox", QUERY, text, PASSAGE, runners_up=2)
    assert [replace(match, runners_up=()) for match in why.matches] == list(plain.matches)
    second = why.matches[1]  # fox: by its second number
    assert [(near.token, near.span) for near in second.runners_up] == [("fox", (0, 3)), ("red", (9, 12))]
    assert [near.cosine for near in second.runners_up] == pytest.approx([0.6, 0.6], abs=1e-3)
    every = explain(WordEncoder(), "red fox", QUERY, text, PASSAGE, runners_up=16)
    assert {len(match.runners_up) for match in every.matches} == {5}  # of six tokens


def test_a_text_is_weighed_token_by_token() -> None:
    tokens = weigh(WordEncoder(), "the red  fox", "query", replace(QUERY, multivector=None))
    assert [(t.token, t.span, t.weight) for t in tokens] == [
        ("the", (0, 3), 0.0),
        ("red", (4, 7), 0.5),
        ("fox", (9, 12), 2.0),
    ]
    dense_only = Embedding(dense=np.ones(2, np.float32))
    assert {t.weight for t in weigh(WordEncoder(), "red fox", "query", dense_only)} == {0.0}
    with pytest.raises(TrichromeError, match="this query has 2 tokens, but 3 token vectors"):
        weigh(WordEncoder(), "red", "query", QUERY)


def test_absent_signals_are_absent_from_the_explanation() -> None:
    dense_only = Embedding(dense=np.ones(2, np.float32))
    why = explain(WordEncoder(), "red fox", dense_only, "the fox", dense_only)
    assert (why.shared, why.matches, why.sparse, why.multivector) == ((), (), None, None)


def test_another_text_than_the_encoded_one_is_refused() -> None:
    with pytest.raises(TrichromeError, match="this passage has 4 tokens, but 6 token vectors are stored"):
        explain(WordEncoder(), "red fox", QUERY, "the red fox", PASSAGE)


@pytest.fixture(scope="module")
def small() -> Encoder:
    return load("small")


def test_the_built_in_model_explains_its_own_scores(small, tmp_path) -> None:
    documents = [
        Document("whale", "The blue whale is the largest animal on earth.", "Whales"),
        Document("kujira", "シロナガスクジラは地球で最も大きい動物です。"),
        Document("fox", "Foxes hunt at night."),
    ]
    with create_store_for(small, tmp_path / "store", kind="exact") as store:
        index_documents(store, small, documents)
        searcher = Searcher(small, store)
        query = "largest animal on earth"
        hits = searcher.search(query, "multivector")
        assert {hit.id for hit in hits[:2]} == {"whale", "kujira"}
        assert hits[0].content == documents[0].content
        assert "_hash" not in hits[0].payload
        for hit in hits:
            why = searcher.explain(query, hit)
            assert why.sparse == pytest.approx(hit.sparse, abs=1e-4)
            assert why.multivector == pytest.approx(hit.multivector, abs=1e-4)
        why = searcher.explain(query, hits[0])
    spots = {
        query[a:b]: {hits[0].content[c:d] for c, d in t.passage_spans}
        for t in why.shared
        for a, b in t.query_spans
    }
    assert spots.items() >= {"largest": {"largest"}, "animal": {"animal"}, "earth": {"earth"}}.items()
    matched = {query[slice(*m.query_span)]: hits[0].content[slice(*m.passage_span)] for m in why.matches}
    assert matched["animal"] == "animal"
