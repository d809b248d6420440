"""The searcher: hits with three scores, refusals in words."""

import numpy as np
import pytest

from trichrome.embeddings import SIGNALS, Embeddings
from trichrome.errors import ModelMismatch, TrichromeError
from trichrome.scoring import score
from trichrome.search import Hit, Mode, Searcher


class FixedEncoder:
    """Gives the i-th of some fixed outputs for the text "i"."""

    name = "tiny"
    signals = SIGNALS
    queries_of: str | None = None

    def __init__(self, outputs: Embeddings, fingerprint: str = "f" * 64) -> None:
        self.outputs_of, self.fingerprint = outputs, fingerprint

    def encode(self, texts, kind="passage", outputs=SIGNALS) -> Embeddings:
        assert kind == "query"
        return self.outputs_of[[int(text) for text in texts]].select(*outputs)

    def token(self, id: int) -> str:
        return str(id)

    def token_spans(self, text: str, kind: str):
        raise NotImplementedError


@pytest.fixture
def searcher(corpus) -> Searcher:
    return Searcher(FixedEncoder(corpus.queries), corpus.store())


@pytest.mark.parametrize("mode", ["dense", "sparse", "multivector", "dense+sparse", "all"])
def test_hits_carry_their_three_scores_in_every_mode(corpus, searcher, mode) -> None:
    hits = searcher.search("4", mode, k=7)
    assert len(hits) == 7
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    rows = searcher.store.rows_of([hit.id for hit in hits])
    for signal in SIGNALS:
        exact = score(signal, corpus.queries[[4]], corpus.documents[rows])[0]
        assert [getattr(hit, signal) for hit in hits] == pytest.approx(exact, abs=1e-6)
    assert hits[0].text == f"text {rows[0]}"
    assert searcher.search(corpus.queries[4], mode, k=7) == hits


def test_where_weights_depth_and_fusion_reach_the_ranking(searcher) -> None:
    assert {hit.lang for hit in searcher.search("0", where={"lang": "sw"})} == {"sw"}
    by_sparse = searcher.search("0", "all", weights=(0, 1, 0), candidates="sparse")
    assert [h.id for h in by_sparse] == [h.id for h in searcher.search("0", "sparse")]
    shallow = searcher.search("0", "multivector", k=3, depth=3)
    assert {h.id for h in shallow} == {h.id for h in searcher.search("0", "dense", k=3)}
    assert 1 / 61 < searcher.search("0", "all", k=1, fusion="rrf")[0].score <= 3 / 61 + 1e-6
    own = Mode("mine", ("dense", "sparse"), 50, (1.0, 1.0, 0.0))
    for hit in searcher.search("0", own):
        assert hit.score == pytest.approx(hit.dense + hit.sparse, abs=1e-6)
    assert len(searcher.search("0", "dense", k=80)) == 80


def test_a_store_of_another_model_is_refused(corpus) -> None:
    with pytest.raises(ModelMismatch, match="built with model 'tiny'"):
        Searcher(FixedEncoder(corpus.queries, "e" * 64), corpus.store())


def test_a_query_tower_searches_the_store_of_the_encoder_it_learnt_from(corpus) -> None:
    tower = FixedEncoder(corpus.queries, "e" * 64)
    tower.queries_of = "f" * 64
    hits = Searcher(tower, corpus.store()).search("4", k=7)
    assert hits == Searcher(FixedEncoder(corpus.queries), corpus.store()).search("4", k=7)
    tower.queries_of = "d" * 64
    with pytest.raises(ModelMismatch, match="built with model 'tiny'"):
        Searcher(tower, corpus.store())


def test_an_absent_signal_is_named(corpus) -> None:
    encoder = FixedEncoder(corpus.queries)
    searcher = Searcher(encoder, corpus.store("sparse", "multivector"))
    with pytest.raises(TrichromeError, match=r"mode all needs dense, .* this store has no dense output"):
        searcher.search("0")
    hits = searcher.search("0", "sparse")
    assert hits[0].dense is None
    assert hits[0].multivector is not None
    assert searcher.search("0", "multivector", candidates="sparse")
    with pytest.raises(TrichromeError, match="this query has no multivector"):
        Searcher(encoder, corpus.store()).search(corpus.queries.select("dense", "sparse")[0], "multivector")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"query": "  "}, "query is empty"),
        ({"query": "0", "k": 0}, "k must be at least 1"),
        ({"query": "0", "fusion": "max"}, "unknown fusion"),
        ({"query": "0", "mode": Mode("m", ("dense",), 5, (1.0, 0.0, 0.0)), "depth": 3}, "brings its own"),
    ],
)
def test_wrong_requests_are_refused(searcher, arguments, message) -> None:
    with pytest.raises(TrichromeError, match=message):
        searcher.search(**arguments)


def test_a_hit_reads_its_payload() -> None:
    hit = Hit("d", 1.0, payload={"title": "T", "text": "body", "lang": "fa"})
    assert (hit.title, hit.text, hit.lang, hit.content) == ("T", "body", "fa", "T\nbody")
    assert (Hit("d", np.float32(1.0)).text, Hit("d", 1.0).lang) == ("", None)
