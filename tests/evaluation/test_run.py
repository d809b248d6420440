"""evaluate, end to end on a tiny task: the real exact store, BM25, metrics, caches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.evaluation.tiny_task import WordEncoder, make_task
from trichrome.embeddings import SIGNALS, Embeddings, Sparse
from trichrome.errors import TrichromeError
from trichrome.evaluation import BASELINES, METRICS, Options, Task, evaluate, evaluate_many
from trichrome.evaluation.cache import Cache, content_hash
from trichrome.index import open_store
from trichrome.records import Document
from trichrome.scoring import score
from trichrome.search import Feedback, Rocchio
from trichrome.search.modes import M3_MODES, MODE_NAMES, mode_named
from trichrome.storage import default_cache


@pytest.fixture
def options(tmp_path) -> Options:
    return Options(cache=tmp_path, samples=200)


def exact_run(
    encoder: WordEncoder, task: Task, weights: tuple[float, float, float]
) -> dict[str, dict[str, float]]:
    """Every document's weighted score by definition; the corpus is smaller than every depth."""
    q = encoder.encode([q.text for q in task.queries], "query")
    d = encoder.encode([d.content for d in task.documents])
    total = sum(w * score(s, q, d) for s, w in zip(SIGNALS, weights, strict=True))
    return {
        query.id: {
            doc.id: float(total[i, j])
            for j, doc in enumerate(task.documents)
            if not task.within_language or doc.lang == query.lang
        }
        for i, query in enumerate(task.queries)
    }


@pytest.mark.parametrize("within", [False, True])
def test_rankings_and_metrics_are_those_of_brute_force(encoder, options, within) -> None:
    task = make_task(within_language=within)
    report = evaluate(encoder, task, options)
    assert report.systems == (*BASELINES, *MODE_NAMES)
    assert (report.documents, report.queries, report.unjudged) == (40, 24, 1)
    for name, mode in M3_MODES.items():
        expected = exact_run(encoder, task, mode.weights)
        for query in task.queries:
            found = report.rankings[name][query.id]
            exact = expected[query.id]
            if name == "sparse":  # documents without a shared token are not candidates
                exact = {id: s for id, s in exact.items() if s > 0}
            assert found == pytest.approx(exact, abs=2e-3)  # token vectors are stored in float16
            assert list(found.values()) == sorted(found.values(), reverse=True)
            relevant = next(iter(task.qrels[query.id]))
            rank = 1 + sum(s > found[relevant] for s in found.values())
            tied = sum(s == found[relevant] for s in found.values())
            if tied == 1:
                row = report.query_ids.index(query.id)
                values = {metric: column[row] for metric, column in report.per_query[name].items()}
                assert values["nDCG@10"] == pytest.approx(1 / np.log2(1 + rank) if rank <= 10 else 0)
                assert values["MRR@10"] == pytest.approx(1 / rank if rank <= 10 else 0)
                assert values["Recall@100"] == 1
    # both tokenisations are the same words here
    assert report.means["bm25-words"] == pytest.approx(report.means["bm25-tokenizer"])


def test_with_feedback_every_mode_ranks_by_its_own_better_query(encoder, options) -> None:
    task = make_task(within_language=True)
    plain = evaluate(encoder, task, options)
    feedback = Feedback(Rocchio(1.0, 2.0), documents=2)
    modes = tuple(mode_named(name) for name in ("dense", "sparse"))
    report = evaluate(encoder, task, replace(options, feedback=feedback, modes=modes))
    assert report.settings["feedback"] == "2 documents, rocchio 1 2"
    assert "feedback" not in plain.settings
    documents = encoder.encode([d.content for d in task.documents])
    for mode in modes:
        [signal] = mode.sources
        for query in task.queries[::5]:
            best = list(plain.rankings[signal][query.id])[:2]
            rows = [i for id in best for i, d in enumerate(task.documents) if d.id == id]
            asked = encoder.encode([query.text], "query")[0]
            revised = feedback.reviser.revise(asked, documents[rows])
            one = Embeddings(
                revised.dense[None], Sparse.from_rows([(revised.token_ids, revised.token_weights)])
            )
            exact = score(signal, one, documents)[0]
            wanted = {d.id: exact[i] for i, d in enumerate(task.documents) if d.lang == query.lang}
            found = report.rankings[signal][query.id]
            assert found == pytest.approx({id: wanted[id] for id in found}, abs=1e-5)
            assert max(found.values()) == pytest.approx(max(wanted.values()), abs=1e-5)
    assert report.rankings["dense"][task.queries[0].id] != plain.rankings["dense"][task.queries[0].id]
    # the cache keeps them apart, and another number of documents
    assert evaluate(encoder, task, options).means == plain.means
    other = replace(options, feedback=replace(feedback, documents=3), modes=modes)
    assert evaluate(encoder, task, other).rankings["dense"] != report.rankings["dense"]


def test_languages_and_means_agree(encoder, task, options) -> None:
    report = evaluate(encoder, task, options)
    assert report.language_queries == {"en": 12, "sw": 12}
    for system in report.systems:
        for metric in METRICS:
            of_languages = [report.languages[lang][system][metric] for lang in ("en", "sw")]
            assert report.means[system][metric] == pytest.approx(np.mean(of_languages))
            assert report.means[system][metric] == pytest.approx(report.per_query[system][metric].mean())
    assert len(report.comparisons) == 21
    c = report.compare("all", "bm25-words")
    assert c.difference == pytest.approx(
        report.means["all"]["nDCG@10"] - report.means["bm25-words"]["nDCG@10"]
    )
    assert c.low <= c.difference <= c.high


def test_a_second_run_encodes_nothing_and_says_the_same(encoder, task, options) -> None:
    first = evaluate(encoder, task, options)
    assert len(encoder.encoded) == 40 + 24
    second = evaluate(encoder, task, options)
    assert len(encoder.encoded) == 64
    assert replace(second, seconds={}) == replace(first, seconds={})
    # other modes, and fewer queries: the documents' store serves them too
    evaluate(encoder, task, replace(options, modes=(mode_named("all", depth=5),)))
    assert len(encoder.encoded) == 64
    evaluate(encoder, task, replace(options, max_queries=3))
    assert len(encoder.encoded) == 64 + 3
    # searching within languages is another run over the same store
    within = evaluate(encoder, make_task(within_language=True), options)
    assert len(encoder.encoded) == 67
    assert within.means != first.means


def test_what_changes_an_encoding_is_encoded_again(encoder, task, options) -> None:
    evaluate(encoder, task, options)
    changed = [Document("d0", "other words", lang="sw"), *task.documents[1:]]
    evaluate(encoder, replace(task, documents=changed), options)
    assert len(encoder.encoded) == 64 + 40
    assert "other words" in encoder.encoded
    evaluate(encoder, task, replace(options, settings={"precision": "bfloat16"}))
    assert len(encoder.encoded) == 104 + 64
    another = WordEncoder(fingerprint="x" * 64)
    evaluate(another, task, options)
    assert len(another.encoded) == 64


def test_an_interrupted_encoding_goes_on_where_it_stopped(
    encoder, task, options, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr("trichrome.evaluation.cache.CHUNK", 16)

    class Interrupted(WordEncoder):
        def encode(self, texts, kind="passage", outputs=SIGNALS):
            if kind == "passage" and len(self.encoded) >= 24 + 32:
                raise KeyboardInterrupt
            return super().encode(texts, kind, outputs)

    with pytest.raises(KeyboardInterrupt):
        evaluate(Interrupted(), task, options)
    (building,) = (tmp_path / "stores").iterdir()
    assert building.suffix == ".building"
    with open_store(building / "store") as store:
        assert store.count() == 32
    resumed = evaluate(encoder, task, options)
    assert len(encoder.encoded) == 8
    assert not building.exists()
    whole = evaluate(WordEncoder(), task, replace(options, cache=tmp_path / "other"))
    assert resumed.means == whole.means


def test_outputs_that_are_absent_leave_modes_out_and_say_so(task, options) -> None:
    encoder = WordEncoder(signals=("dense",))
    report = evaluate(encoder, task, options)
    assert report.systems == (*BASELINES, "dense")
    assert report.settings["left_out"] == ["sparse", "multivector", "dense+sparse", "all"]
    with pytest.raises(TrichromeError, match="the encoder words has no sparse output"):
        evaluate(encoder, task, replace(options, modes=(M3_MODES["sparse"],)))


def test_progress_and_many_tasks(encoder, task, within, options) -> None:
    seen = []
    within = replace(within, name="within")
    suite = evaluate_many(
        encoder, iter([task, within]), options, {"within": "long"}, lambda *told: seen.append(told)
    )
    assert [r.task for r in suite.reports] == ["tiny", "within"]
    assert suite.reports[1].settings["modes"]["all"]["weights"] == [0.15, 0.5, 0.35]
    assert suite.means["all"]["nDCG@10"] == pytest.approx(
        np.mean([r.means["all"]["nDCG@10"] for r in suite.reports])
    )
    assert ("tiny", "encode documents", 40, 40) in seen
    assert ("within", "search", 24, 24) in seen


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keep": 10}, "keep must be at least 100"),
        ({"preset": "short"}, "unknown preset"),
        ({"baselines": ("bm26",)}, "unknown baselines bm26"),
        ({"modes": (M3_MODES["all"], M3_MODES["all"])}, "the same name"),
    ],
)
def test_wrong_options_are_refused(changes, message) -> None:
    with pytest.raises(TrichromeError, match=message):
        Options(**changes)


def test_the_cache_folder_and_its_names(encoder, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("TRICHROME_CACHE", str(tmp_path / "here"))
    assert default_cache() == tmp_path / "here"
    monkeypatch.delenv("TRICHROME_CACHE")
    assert default_cache().parts[-2:] == (".cache", "trichrome")
    assert content_hash(["ab", "c"]) != content_hash(["a", "bc"]) != content_hash(["a"], ["bc"])
    cache = Cache(tmp_path, encoder, {}, lambda *_: None)
    tags = (("", None), ("t", None), ("", "sw"))
    names = {cache.corpus_key([Document("d", "x", title, lang)]) for title, lang in tags}
    assert len(names) == 3


def test_without_the_extra_the_error_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "bm25s", None)
    from trichrome.search.bm25 import BM25

    with pytest.raises(TrichromeError, match=r"pip install 'trichrome\[eval\]'"):
        BM25([["a"]])
