"""Mining over shards gives what mining on one machine gives, whatever the cut."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.cluster.small import write_encoded
from tests.negatives.small import UntiedEncoder, documents, examples, table
from trichrome.cluster import (
    Cluster,
    ClusterPool,
    EncodedCorpus,
    create_store_of,
    load_encoded,
    mine_shards,
    read_shard,
)
from trichrome.embeddings import Embeddings
from trichrome.errors import ModelMismatch, TrichromeError
from trichrome.formats.flagembedding import read_examples, write_examples
from trichrome.index import Store
from trichrome.negatives import MemoryPool, MineSettings, Rules, Source, StorePool, mine_files
from trichrome.records import Document

pytestmark = pytest.mark.usefixtures("ray")

#: With passages that say the same as others, so that scores tie across shards and rules look at texts. By id,
#: as a store gives its rows to the random source.
MORE = [
    *(Document(f"e{d.id}", d.text.upper(), lang=d.lang) for d in documents()[10:20]),
    *(
        Document(f"d01#{i}", f"word1 word2 word{i}", lang="en", metadata={"document": "d01"})
        for i in range(3)
    ),
]
CORPUS = sorted([*documents(), *MORE], key=lambda document: document.id)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> EncodedCorpus:
    return write_encoded(tmp_path_factory.mktemp("encoded"), CORPUS, 5)


@pytest.fixture(scope="module")
def store(corpus: EncodedCorpus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with create_store_of(corpus, tmp_path_factory.mktemp("store") / "s", kind="exact") as made:
        load_encoded(made, corpus)
        yield made


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    write_examples(path, examples(documents()))
    return path


def test_a_search_finds_what_memory_finds(tmp_path: Path) -> None:
    texts = documents()  # all different: which of two equal scores memory takes last is not said
    corpus = write_encoded(tmp_path, texts, 4)
    made = [chunk.embeddings for path in corpus.paths for chunk in read_shard(path)]
    encoded = Embeddings.concatenate(made)
    wide = Embeddings(np.asarray(encoded.dense, np.float32), encoded.sparse, encoded.multivector)
    memory = MemoryPool(table(texts), wide)
    pool = ClusterPool(corpus, Cluster(actors=2), ("dense", "sparse"))
    queries = UntiedEncoder().encode([e.query for e in examples(texts)])
    for signal, lang, k in (
        ("dense", None, 9),
        ("dense", "sw", 200),
        ("sparse", None, 200),
        ("sparse", "sw", 3),
    ):
        found = pool.search(signal, queries, k, lang)
        wanted = memory.search(signal, queries, k, lang)
        assert [f.tolist() for f in found] == [w.tolist() for w in wanted], (signal, lang, k)


SETTINGS = {
    "dense": MineSettings(sources=(Source("dense", 3, 30),), negatives=5, scores="judge", block=10),
    "hybrid": MineSettings(
        sources=(Source("dense", 1, 15), Source("sparse", 1, 15), Source("hybrid", 1, 10)),
        judge="hybrid", weights=(1.0, 0.3, 1.0), draw="bins", negatives=4, block=100,
        rules=Rules(absolute_margin=0.01, relative_margin=0.97, ceiling=3.0),
    ),
    "language": MineSettings(
        sources=(Source("sparse", 1, 6),), fill=(Source("random", 1, 20),), judge="multivector",
        within_language=True, negatives=7,
    ),
    "unjudged": MineSettings(
        sources=(Source("topic", 1, 20), Source("random", 1, 5)), judge="none", rules=Rules(), topic_size=6,
        negatives=9, keep=True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(SETTINGS))
def test_a_file_is_mined_as_on_one_machine(
    name: str, corpus: EncodedCorpus, store: Store, rows: Path, tmp_path: Path
) -> None:
    encoder, settings = UntiedEncoder(), SETTINGS[name]
    alone, together = tmp_path / "alone.jsonl", tmp_path / "together.jsonl"
    wanted = mine_files([rows], [alone], encoder, settings, pool=StorePool(store))[0]
    passes: list[str] = []
    made = mine_shards(
        [rows], [together], corpus, encoder, settings,
        cluster=Cluster(actors=2 if name == "hybrid" else 1),  # one has two shards in a task
        passed=lambda what, at, total: passes.append(what),
    )[0]  # fmt: skip
    assert together.read_bytes() == alone.read_bytes()
    assert sum(len(e.negatives) for e in read_examples(together)) > 50
    mine, its = made.to_json(), wanted.to_json()
    for report in (mine, its):
        report.pop("seconds")
    assert mine == its
    assert passes
    finished: list[bool] = []
    mine_shards(
        [rows],
        [together],
        corpus,
        encoder,
        settings,
        done=lambda path, report, before: finished.append(before),
    )
    assert finished == [True]


def test_what_cannot_be_mined_is_said(corpus: EncodedCorpus, rows: Path, tmp_path: Path) -> None:
    out = [tmp_path / "out.jsonl"]
    with pytest.raises(ModelMismatch, match=r"encoded with 'words' .* not with 'words'"):
        mine_shards([rows], out, corpus, UntiedEncoder(fingerprint="v" * 64), MineSettings())
    with pytest.raises(TrichromeError, match="bm25 counts words over all texts"):
        mine_shards([rows], out, corpus, UntiedEncoder(), MineSettings(sources=(Source("bm25"),)))
    assert not out[0].exists()
