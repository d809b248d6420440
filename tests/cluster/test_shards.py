"""Shards without a cluster: what is written is read, a damaged file is seen, parts are cut by one rule."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.cluster.small import encoding_of, some_documents, write_encoded, write_files
from trichrome.cluster import (
    EncodedCorpus,
    Part,
    encode_part,
    find_parts,
    read_info,
    read_shard,
    verify_shard,
)
from trichrome.cluster.corpus import file_hash
from trichrome.cluster.shards import read_rows, why_unfinished
from trichrome.embeddings import Embeddings
from trichrome.encoder import Encoder
from trichrome.errors import TrichromeError
from trichrome.formats.beir import iter_corpus
from trichrome.formats.jsonl import iter_documents, write_documents
from trichrome.index import document_of
from trichrome.records import Document


def read_all(path: Path) -> tuple[list[str], list[Document], Embeddings]:
    chunks = list(read_shard(path))
    ids = [id for chunk in chunks for id in chunk.ids]
    payloads = [payload for chunk in chunks for payload in chunk.payloads]
    documents = [document_of(id, payload) for id, payload in zip(ids, payloads, strict=True)]
    return ids, documents, Embeddings.concatenate([chunk.embeddings for chunk in chunks])


def test_a_shard_holds_what_the_encoder_gives(tmp_path: Path, encoder: Encoder) -> None:
    part = Part("a", tmp_path / "a.jsonl")
    documents = [*some_documents(20), Document("long", " ".join(["river"] * 90)), Document("none", " ")]
    write_documents(part.path, documents)
    encoding = encoding_of(encoder)
    told: list[int] = []
    info = encode_part(part, tmp_path / "a.parquet", encoder, encoding, told.append)
    assert info == read_info(tmp_path / "a.parquet")
    ids, stored, embeddings = read_all(tmp_path / "a.parquet")
    assert (info.counts.documents, info.counts.cut, info.counts.failed) == (22, 1, 1)
    assert info.counts.failures == [("none", "neither title nor text to encode")]
    assert info.rows == len(ids) == told[-1]
    assert len(told) == -(-len(ids) // 8)
    assert info.langs == {
        "": len([d for d in stored if not d.lang]),
        "en": len([d for d in stored if d.lang]),
    }
    whole = {document.id: document for document in stored if "#" not in document.id}
    for document in documents[:20]:
        assert whole[document.id].metadata.items() >= document.metadata.items()
        assert (whole[document.id].text, whole[document.id].lang) == (document.text, document.lang)
    assert [id for id in ids if "#" in id] == ["long#0", "long#1", "long#2"]
    for start in range(0, len(ids), 8):
        texts = [document.content for document in stored[start : start + 8]]
        fresh, kept = encoder.encode(texts, multivector_dtype="float16"), embeddings[start : start + 8]
        assert fresh.dense is not None
        assert kept.dense is not None
        assert fresh.sparse is not None
        assert kept.sparse is not None
        assert fresh.multivector is not None
        assert kept.multivector is not None
        assert kept.dense.dtype == np.float16
        np.testing.assert_array_equal(kept.dense, fresh.dense.astype(np.float16))
        for name in ("indptr", "ids", "weights"):
            np.testing.assert_array_equal(getattr(kept.sparse, name), getattr(fresh.sparse, name))
        np.testing.assert_array_equal(kept.multivector.vectors, fresh.multivector.vectors)
        np.testing.assert_array_equal(kept.multivector.offsets, fresh.multivector.offsets)


def test_the_same_source_gives_the_same_bytes_and_other_outputs_do_not(
    tmp_path: Path, encoder: Encoder
) -> None:
    part = Part("a", tmp_path / "a.jsonl.gz")
    write_documents(part.path, some_documents(20))
    encoding = encoding_of(encoder)
    made = [tmp_path / name for name in ("one", "two", "three")]
    for path in made[:2]:
        encode_part(part, path, encoder, encoding)
    only = replace(encoding, outputs=("sparse",), dense_dim=None, multivector_dim=None)
    encode_part(part, made[2], encoder, only)
    assert made[0].read_bytes() == made[1].read_bytes()
    assert made[2].stat().st_size < made[0].stat().st_size / 2
    assert next(iter(read_shard(made[2]))).embeddings.signals == ("sparse",)
    with pytest.raises(TrichromeError, match="holds no dense output"):
        list(read_shard(made[2], ["dense"]))
    assert why_unfinished(made[0], encoding, file_hash(part.path)) is None
    assert why_unfinished(made[0], only, file_hash(part.path)) == (
        f"made with outputs {encoding.outputs}, not ('sparse',), dense_dim 32, not None, multivector_dim 32, "
        "not None"
    )
    assert why_unfinished(made[0], encoding, "0" * 64) == "its source has changed"
    assert why_unfinished(tmp_path / "four", encoding, "0" * 64) == "not there yet"


def test_rows_are_read_where_they_are_asked_for(tmp_path: Path) -> None:
    corpus = write_encoded(tmp_path, some_documents(40), 1)
    ids, _, embeddings = read_all(corpus.paths[0])
    rows = np.array([3, 6, 7, 22, 39])
    table = read_rows(corpus.paths[0], rows, ["dense"], columns=("id",))
    assert table.column("id").to_pylist() == [ids[i] for i in rows]
    assert table.schema.names == ["id", "dense"]
    assert embeddings.dense is not None
    got = np.array(table.column("dense").to_pylist(), np.float16)
    np.testing.assert_array_equal(got, embeddings.dense[rows])
    assert read_rows(corpus.paths[0], rows[:0], ["dense"]).num_rows == 0


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def not_parquet(path: Path) -> None:
    path.write_bytes(b"PAR1 and so on")


def turn_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0xFF
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("damage", [cut_short, not_parquet, turn_a_byte])
def test_damage_is_found(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    corpus = write_encoded(tmp_path, some_documents(40), 2)
    for path in corpus.paths:
        verify_shard(path)
    damage(corpus.paths[1])
    with pytest.raises(TrichromeError, match=r"s1\.parquet: .*encode it again"):
        verify_shard(corpus.paths[1])


def test_what_is_missing_or_of_another_model_is_no_corpus(tmp_path: Path) -> None:
    with pytest.raises(TrichromeError, match="not an encoded corpus"):
        EncodedCorpus.open(tmp_path)
    write_encoded(tmp_path / "a", some_documents(9), 3)
    other = write_encoded(tmp_path / "b", some_documents(9), 3, chunk=2)
    stray = tmp_path / "a" / "shards" / "s1.parquet"
    stray.write_bytes(other.paths[1].read_bytes())
    with pytest.raises(TrichromeError, match=r"s1\.parquet: made with chunk 2, not 7"):
        EncodedCorpus.open(tmp_path / "a")
    stray.unlink()
    with pytest.raises(TrichromeError, match="1 of 3 shards are not finished"):
        EncodedCorpus.open(tmp_path / "a")


def test_an_id_that_is_given_twice_is_named(tmp_path: Path) -> None:
    documents = some_documents(12)
    documents[10] = replace(documents[10], id="d1")
    with pytest.raises(TrichromeError, match=r"1 ids are given twice, the first in s0\.parquet row 1 and s2"):
        write_encoded(tmp_path, documents, 3).check_ids()


def test_bad_rows_are_left_out_and_counted_where_that_is_wanted(tmp_path: Path, encoder: Encoder) -> None:
    part = Part("a", tmp_path / "a.jsonl")
    write_documents(part.path, some_documents(6))
    with part.path.open("a") as file:
        file.write('{"id": "no text"}\n{"id": "d1", "text": "again"}\n')
    with pytest.raises(TrichromeError, match=r"a\.jsonl:7: no \"text\""):
        encode_part(part, tmp_path / "a.parquet", encoder, encoding_of(encoder))
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]
    info = encode_part(part, tmp_path / "a.parquet", encoder, encoding_of(encoder, skip_bad=True))
    assert info.counts.left_out == {'no "text"': 1, "duplicate id": 1}
    assert read_info(tmp_path / "a.parquet").rows == 6


# the parts of a corpus


def test_a_folder_of_files_is_sharded_already(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "corpus")
    parts = find_parts(folder, tmp_path / "out")
    assert [part.name for part in parts.parts] == ["part-0", "part-1", "part-2", "part-3"]
    assert parts.parts[1].path == folder / "part-1.jsonl.gz"
    assert parts.rule == "files"
    assert not (tmp_path / "out").exists()
    write_documents(folder / "part-1.jsonl", some_documents(1))
    with pytest.raises(TrichromeError, match="two files would both give the shard 'part-1'"):
        find_parts(folder, tmp_path / "out")


def test_parts_are_cut_in_order_and_the_same_every_time(tmp_path: Path) -> None:
    documents = some_documents(23)
    (tmp_path / "beir").mkdir()
    write_documents(tmp_path / "beir" / "corpus.jsonl", documents, id_name="_id")
    told: list[tuple[str, int]] = []
    made = [
        find_parts(
            tmp_path / "beir", tmp_path / out, 5, progress=lambda stage, done: told.append((stage, done))
        )
        for out in ("a", "b")
    ]
    assert told == [("count", 23), ("cut", 23)] * 2
    read = [list(iter_documents(part.path)) for part in made[0].parts]
    assert [len(part) for part in read] == [4, 5, 4, 5, 5]
    assert [document for part in read for document in part] == list(iter_corpus(tmp_path / "beir"))
    for one, two in zip(made[0].parts, made[1].parts, strict=True):
        assert one.path.read_bytes() == two.path.read_bytes()
    before = made[0].parts[0].path.stat().st_mtime_ns
    assert find_parts(tmp_path / "beir", tmp_path / "a", 5) == made[0]
    assert made[0].parts[0].path.stat().st_mtime_ns == before  # not cut again
    write_documents(tmp_path / "beir" / "corpus.jsonl", documents[:9], id_name="_id")
    again = find_parts(tmp_path / "beir", tmp_path / "a", 5)
    assert again.documents == 9
    assert [d for part in again.parts for d in iter_documents(part.path)] == documents[:9]


def test_bad_rows_end_the_cut_or_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.write('{"id": "a", "text": "one"}\n{"id": "b"}\n{"id": "c", "text": "three"}\n')
    with pytest.raises(TrichromeError, match=r"corpus\.jsonl\.gz:2"):
        find_parts(path, tmp_path / "out", 2)
    assert not list((tmp_path / "out").glob("**/*.jsonl.gz"))
    parts = find_parts(path, tmp_path / "out", 2, skip_bad=True)
    assert (parts.documents, parts.left_out) == (2, {'no "text"': 1})
