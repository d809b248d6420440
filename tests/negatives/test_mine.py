"""Mining as a whole: every source, every rule, every place that candidates come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.tiny_task import word_ids
from tests.negatives.small import UntiedEncoder, documents, examples, filled_store, memory_pool, table
from trichrome import scoring
from trichrome.errors import TrichromeError
from trichrome.formats.flagembedding import read_examples
from trichrome.negatives import (
    MemoryPool,
    MineReport,
    MineSettings,
    Pool,
    Rules,
    Source,
    StorePool,
    mine,
    mined,
)
from trichrome.records import Document, TrainingExample
from trichrome.search.bm25 import BM25

CORPUS = documents()
ROWS = examples(CORPUS)
UNJUDGED = MineSettings(judge="none", rules=Rules(), draw="top")


def run(
    settings: MineSettings, rows: Sequence[TrainingExample] = ROWS, pool: Pool | None = None, **more
) -> tuple[list[TrainingExample], MineReport]:
    report = MineReport()
    pool = pool or memory_pool(CORPUS, settings)
    return list(mined(rows, pool, UntiedEncoder(), settings, report, **more)), report


def only(source: str, **changes) -> MineSettings:
    return replace(UNJUDGED, sources=(Source.parse(source),), **changes)


# sources


def brute(name: str, example: TrainingExample, corpus: list[Document]) -> list[str]:
    """The corpus' ids, best first by one score, without those that score 0 sparsely."""
    encoder = UntiedEncoder()
    query, passages = encoder.encode([example.query]), encoder.encode([d.content for d in corpus])
    if name == "bm25":
        index = BM25([word_ids(d.content) for d in corpus])
        return [corpus[i].id for i in index.search(word_ids(example.query), len(corpus))[0]]
    scores = {s: scoring.score(s, query, passages)[0] for s in ("dense", "sparse", "multivector")}
    total = scoring.weighted(scores) if name == "hybrid" else scores[name]
    order = np.argsort(-total, kind="stable")
    return [corpus[i].id for i in order if name != "sparse" or total[i] > 0]


@pytest.mark.parametrize("name", ["bm25", "dense", "sparse", "hybrid"])
def test_each_source_gives_its_window_of_ranks(name: str):
    made, report = run(only(f"{name}:3-9", negatives=20))
    for example in made:
        wanted = brute(name, example, CORPUS)
        if name == "hybrid":  # its candidates are the nine best of either list
            lists = {*brute("dense", example, CORPUS)[:9], *brute("sparse", example, CORPUS)[:9]}
            wanted = [id for id in wanted if id in lists]
        window = [id for id in wanted[2:9] if id not in (example.positive_ids or ())]
        assert list(example.negative_ids or ()) == window
    assert report.found[name] == sum(
        min(9, len(brute(name, e, CORPUS))) - 2 for e in ROWS if name != "hybrid"
    ) or (report.found[name] == 7 * len(ROWS))


def test_random_negatives_depend_on_the_seed_and_the_query_alone():
    made, report = run(only("random:12", negatives=12))
    backwards = run(only("random:12", negatives=12, block=3), ROWS[::-1])[0][::-1]
    assert [e.negatives for e in made] == [e.negatives for e in backwards]
    other = run(only("random:12", negatives=12, seed=1))[0]
    assert [e.negatives for e in made] != [e.negatives for e in other]
    assert report.found["random"] == 12 * len(ROWS)
    assert len({t for e in made for t in e.negatives}) > 50  # all over the corpus


def test_topic_negatives_answer_other_queries():
    made, _ = run(only("topic:50", negatives=50, topic_size=5))
    answers = {text for e in ROWS for text in e.positives}
    assert all(set(e.negatives) < answers for e in made)
    assert len({len(e.negatives) for e in made}) > 1  # topics differ in size
    assert sum(len(e.negatives) for e in made) > 0


def test_windows_of_several_sources_are_joined_and_each_passage_comes_once():
    joined = replace(UNJUDGED, sources=(Source("dense", 1, 10), Source("sparse", 1, 10)), negatives=30)
    made, report = run(joined)
    for example in made:
        ids = list(example.negative_ids or ())
        wanted = {*brute("dense", example, CORPUS)[:10], *brute("sparse", example, CORPUS)[:10]}
        assert len(ids) == len(set(ids))
        assert set(ids) == wanted - set(example.positive_ids or ())
    assert report.considered < report.found["dense"] + report.found["sparse"]


# rules


def test_nothing_mined_breaks_a_rule_and_every_candidate_is_accounted_for():
    settings = MineSettings(
        sources=(Source("dense", 1, 40), Source("bm25", 1, 40)),
        negatives=5,
        judge="hybrid",
        rules=Rules(absolute_margin=0.05, relative_margin=0.9, ceiling=1.2),
        scores="judge",
    )
    made, report = run(settings)
    for example in made:
        assert not set(example.negatives) & set(example.positives)
        lowest = min(example.positive_scores or ())
        for score in example.negative_scores or ():
            assert score <= min(lowest - 0.05, 0.9 * lowest, 1.2) + 1e-5
    assert {"own positive", "absolute margin", "relative margin", "ceiling"} >= set(report.removed) - {
        rule for rule, n in report.removed.items() if not n
    }
    left = report.considered - sum(report.removed.values())
    assert report.drawn <= left
    assert report.counts == {n: sum(len(e.negatives) == n for e in made) for n in report.counts}
    assert report.short == sum(len(e.negatives) < 5 for e in made) / len(made)
    assert len(report.scores["negatives"]) == report.drawn == sum(len(e.negatives) for e in made)


def test_the_adaptive_margin_looks_at_the_candidates_of_each_query():
    settings = MineSettings(
        sources=(Source("dense", 1, 30),), negatives=60, rules=Rules(adaptive_margin=1.5), scores="judge"
    )
    made, report = run(settings)
    encoder = UntiedEncoder()
    content = {d.id: d.content for d in CORPUS}
    for example in made:
        ids = brute("dense", example, CORPUS)[:30]
        others = [content[id] for id in ids if id not in (example.positive_ids or ())]
        query = encoder.encode([example.query])
        scores = scoring.score("dense", query, encoder.encode(others))[0]
        limit = min(example.positive_scores or ()) - 1.5 * scores.std(ddof=1)
        clear = abs(scores - limit) > 1e-5
        kept = {text for text, s, c in zip(others, scores, clear, strict=True) if s <= limit and c}
        near = {text for text, c in zip(others, clear, strict=True) if not c}
        assert kept <= set(example.negatives) <= kept | near
    assert report.removed["adaptive margin"] == report.considered - report.drawn - sum(
        report.removed[rule] for rule in ("own positive", "same query", "same id", "same text")
    )


def test_written_scores_are_those_of_the_judge():
    settings = MineSettings(sources=(Source("dense", 1, 9),), judge="hybrid", rules=Rules(), scores="judge")
    example = run(settings)[0][0]
    encoder = UntiedEncoder()
    query, texts = encoder.encode([example.query]), encoder.encode([*example.positives, *example.negatives])
    wanted = scoring.weighted({s: scoring.score(s, query, texts)[0] for s in encoder.signals})
    given = [*(example.positive_scores or ()), *(example.negative_scores or ())]
    assert np.allclose(given, wanted, atol=2e-3)  # token vectors are kept in float16


def test_passages_that_answer_under_another_name_are_left_out():
    texts = ["the cat sings", "The  CAT sings", "a cat hums", "the dog sings", "the bird sings", "cat"]
    corpus = [Document(f"d{i}", text) for i, text in enumerate(texts)]
    rows = [
        TrainingExample("cat", (texts[0],), id="song"),
        TrainingExample("Cat", (texts[3],), id="other"),  # the same query: its answer counts for both
        TrainingExample("bird", (texts[4],), id="song"),  # about the same as the first
    ]
    made_of = table(corpus)
    for row in rows:
        made_of.add(row.positives[0], row_id=row.id)
    pool = MemoryPool.encode(made_of, UntiedEncoder(), (), lambda *_: None)
    made, report = run(only("random:6", negatives=6), rows, pool)
    # d0 is the first row's; d1 says the same; d3 and d4 answer rows of the same query or id; d5 is the query
    assert made[0].negatives == ("a cat hums",)
    assert made[1].negatives == ("a cat hums",)
    assert set(made[2].negatives) == {"a cat hums", "the dog sings", "cat"}
    assert report.removed == {
        "own positive": 3, "own negative": 0, "same query": 4, "same id": 4, "same text": 2,
    }  # fmt: skip


def test_a_rescorer_is_a_second_judge():
    class Lengths:
        """Prefers passages with a large first number."""

        name = "lengths"

        def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
            return np.array([int(p.split()[0][4:]) for _, p in pairs], np.float32)

    settings = MineSettings(
        sources=(Source("random", 1, 30),),
        negatives=10,
        rules=Rules(),
        rescore_rules=Rules(absolute_margin=2),
        rescored=15,
        scores="rescorer",
    )
    made, report = run(settings, rescorer=Lengths())
    for example in made:
        assert example.positive_scores == tuple(float(p.split()[0][4:]) for p in example.positives)
        assert example.negative_scores == tuple(float(p.split()[0][4:]) for p in example.negatives)
        assert all(score <= min(example.positive_scores) - 2 for score in example.negative_scores)
    assert report.removed["rescored absolute margin"] > 0
    assert len(report.scores["rescored negatives"]) == report.drawn
    with pytest.raises(TrichromeError, match="rescorer"):
        run(settings)


# the rest of the settings


def test_candidates_stay_within_the_language():
    made, report = run(only("dense:60", negatives=60, within_language=True))
    lang = {d.content: d.lang for d in CORPUS}
    assert all(lang[text] == e.lang for e in made for text in e.negatives)
    assert all(len(e.negatives) == 30 - len(set(e.positives)) for e in made if len(e.positives) == 1)
    assert report.candidates == 60


def test_fill_sources_serve_only_queries_left_short():
    settings = MineSettings(
        sources=(Source("dense", 1, 6),), negatives=5, draw="top", rules=Rules(relative_margin=0.9)
    )
    before, report = run(settings)
    assert 0 < report.short < 1
    after, filled = run(replace(settings, fill=(Source("random", 1, 60),)))
    assert filled.short < report.short
    for old, new in zip(before, after, strict=True):
        assert set(old.negatives) <= set(new.negatives)
        assert old.negatives == new.negatives or len(old.negatives) < 5
    assert filled.found["random"] == 60 * sum(len(e.negatives) < 5 for e in before)


def test_own_negatives_are_kept_where_asked_and_never_mined_again():
    rows = [replace(e, negatives=(CORPUS[40].content, "quite another text")) for e in ROWS]
    settings = only("random:60", negatives=60)
    replaced, _ = run(settings, rows)
    assert all("quite another text" not in e.negatives for e in replaced)
    kept, report = run(replace(settings, keep=True, negatives=9), rows)
    assert all(e.negatives[:2] == (CORPUS[40].content, "quite another text") for e in kept)
    assert all(len(e.negatives) == len(set(e.negatives)) == 9 for e in kept)
    assert (report.kept, report.drawn, report.short) == (2 * len(rows), 7 * len(rows), 0)


def test_queries_left_short_are_counted():
    made, report = run(only("dense:4", negatives=4))
    assert report.short == sum(len(e.negatives) < 4 for e in made) / len(made) > 0


def test_an_output_that_is_not_there_is_named():
    encoder = UntiedEncoder(signals=("dense",))
    with pytest.raises(TrichromeError, match=r"sparse.*words has no such output"):
        mine(
            ROWS,
            memory_pool(CORPUS, UNJUDGED),
            "out.jsonl",
            encoder,
            replace(UNJUDGED, sources=(Source("sparse"),)),
        )
    with pytest.raises(TrichromeError, match="there is no model"):
        mine(ROWS, memory_pool(CORPUS, UNJUDGED), "out.jsonl", None)
    assert not Path("out.jsonl").exists()


# stores


@pytest.mark.parametrize("within_language", [False, True])
def test_memory_exact_and_embedded_stores_mine_the_same(tmp_path: Path, within_language: bool):
    settings = MineSettings(
        sources=(
            Source("hybrid", 3, 25),
            Source("sparse", 1, 10),
            Source("bm25", 1, 10),
            Source("random", 1, 5),
        ),
        negatives=6,
        judge="hybrid",
        draw="bins",
        rules=Rules(relative_margin=0.9, adaptive_margin=0.5),
        within_language=within_language,
    )
    rows = [*ROWS, TrainingExample("word1 word2", ("word1 word7 not in the corpus",), lang="en")]
    made = {"memory": run(settings, rows)}
    for kind in ("exact", "embedded"):
        with filled_store(tmp_path / kind, kind, CORPUS) as store:
            made[kind] = run(settings, rows, StorePool(store))
    for kind in ("exact", "embedded"):
        report, wanted = made[kind][1], made["memory"][1]
        for name in ("found", "removed", "counts", "considered", "above", "drawn", "candidates", "queries"):
            assert getattr(report, name) == getattr(wanted, name), (kind, name)
        assert [set(e.negatives) for e in made[kind][0]] == [set(e.negatives) for e in made["memory"][0]]
    assert made["memory"][1].removed["relative margin"] > 0


def test_a_passage_of_the_positive_document_is_no_negative(tmp_path: Path):
    corpus = [
        Document("a#0", "word1 word2", metadata={"document": "a"}),
        Document("a#1", "word1 word3", metadata={"document": "a"}),
        Document("b", "word1 word4"),
    ]
    row = TrainingExample("word1", ("word1 word2",), positive_ids=("a",))
    with filled_store(tmp_path / "store", "exact", corpus) as store:
        made, report = run(only("dense:9"), [row], StorePool(store))
    assert made[0].negative_ids == ("b",)
    assert report.removed["same id"] == 2


def test_texts_are_encoded_once(tmp_path: Path):
    encoder = UntiedEncoder()
    settings = MineSettings(sources=(Source("dense", 1, 20), Source("topic", 1, 20)), negatives=3)
    pool = MemoryPool.encode(table(CORPUS), encoder, settings.signals, lambda *_: None)
    report = mine(ROWS, pool, tmp_path / "out.jsonl.gz", encoder, settings)
    assert sorted(encoder.encoded) == sorted([d.content for d in CORPUS] + [e.query for e in ROWS])
    assert len(list(read_examples(tmp_path / "out.jsonl.gz"))) == report.queries == len(ROWS)
