"""Indexing a stream of documents with a real (tiny) network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.tiny import TEXTS, tiny_encoder
from trichrome.embeddings import Embeddings
from trichrome.encoder import Encoder
from trichrome.errors import TrichromeError
from trichrome.index import IndexReport, Store, create_store_for, document_of, index_documents, open_store
from trichrome.records import Document

WORDS = [text for text in TEXTS if text]


def documents(n: int, start: int = 0) -> list[Document]:
    def document(i: int) -> Document:
        text, title = f"{WORDS[i % len(WORDS)]} {i}", "moon" if i % 2 else ""
        return Document(f"d{i}", text, title, "en" if i % 3 else None, {"n": i})

    return [document(i) for i in range(start, start + n)]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return tiny_encoder()


@pytest.fixture
def store(kind: str, folder: Path, encoder: Encoder) -> Iterator[Store]:
    with create_store_for(encoder, folder / "store", kind=kind, multivector_dtype="float32") as made:
        yield made


class Counting:
    """An encoder that notes what it encoded, and fails at the text `poison`."""

    def __init__(self, encoder: Encoder, poison: str = "") -> None:
        self.encoder, self.poison = encoder, poison
        self.texts: list[str] = []

    def encode(self, texts: Sequence[str], kind: str) -> Embeddings:
        assert kind == "passage"
        if self.poison in texts:
            raise RuntimeError("out of memory")
        self.texts += texts
        return self.encoder.encode(texts, kind)


def counts(report: IndexReport) -> dict[str, int]:
    names = ("added", "updated", "skipped", "failed", "deleted", "encoded")
    return {name: n for name in names if (n := getattr(report, name))}


def assert_indexed(store: Store, encoder: Encoder, wanted: Iterable[Document]) -> None:
    """Every document is stored as it is, under its own vectors."""
    wanted = {document.id: document for document in wanted}
    assert {id: document_of(id, payload) for id, payload in store.scan()} == wanted
    encoded = encoder.encode([document.content for document in wanted.values()], "passage")
    for stored, fresh in zip(store.embeddings(store.rows_of(list(wanted))), encoded, strict=True):
        assert stored.dense is not None
        assert fresh.dense is not None
        assert stored.dense @ fresh.dense > 0.999
        assert stored.token_ids is not None
        assert fresh.token_ids is not None
        assert stored.token_ids.tolist() == fresh.token_ids.tolist()
        assert stored.multivector is not None
        assert fresh.multivector is not None
        assert stored.multivector.shape == fresh.multivector.shape


def test_documents_are_stored_as_encoded(store: Store, encoder: Encoder) -> None:
    reports: list[dict[str, int]] = []
    report = index_documents(
        store, encoder, documents(20), batch=8, progress=lambda now: reports.append(counts(now))
    )
    assert counts(report) == {"added": 20, "encoded": 20}
    assert report.stored == 20
    assert report.seconds > 0
    assert [r["encoded"] for r in reports] == [8, 16, 20, 20]
    assert_indexed(store, encoder, documents(20))


def test_the_source_is_read_as_a_stream(store: Store, encoder: Encoder) -> None:
    pulled = 0
    most_ahead = 0

    def source() -> Iterator[Document]:
        nonlocal pulled
        for i in range(4000):
            pulled += 1
            yield Document(f"d{i}", "a")

    def look(report: IndexReport) -> None:
        nonlocal most_ahead
        most_ahead = max(most_ahead, pulled - report.encoded)
        if report.encoded >= 300:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index_documents(store, encoder, source(), batch=50, read_ahead=100, progress=look)
    assert store.count() == 300
    assert 0 < most_ahead <= 100


def test_unchanged_documents_are_skipped_and_changed_ones_replaced(store: Store, encoder: Encoder) -> None:
    index_documents(store, encoder, documents(12))
    again = Counting(encoder)
    assert counts(index_documents(store, again, documents(12))) == {"skipped": 12}
    assert again.texts == []

    changed = documents(14)
    changed[3] = Document("d3", "the moon sings", "moon", None, {"n": 3})
    changed[4] = Document("d4", changed[4].text, "", "fr", {"n": 4})  # only the language
    changed[5] = Document("d5", changed[5].text, "moon", changed[5].lang, {"n": 5.5})  # only metadata
    report = index_documents(store, again, changed)
    assert counts(report) == {"added": 2, "updated": 3, "skipped": 9, "encoded": 5}
    assert sorted(again.texts) == sorted(changed[i].content for i in (3, 4, 5, 12, 13))
    assert report.stored == store.count() == 14
    assert_indexed(store, encoder, changed)


def test_prune_deletes_what_the_source_no_longer_holds(store: Store, encoder: Encoder) -> None:
    index_documents(store, encoder, documents(10))
    assert counts(index_documents(store, encoder, documents(4, start=3))) == {"skipped": 4}
    assert store.count() == 10
    report = index_documents(
        store, encoder, [*documents(4, start=3), Document("d0", " ")], prune=True, batch=2
    )
    assert counts(report) == {"skipped": 4, "failed": 1, "deleted": 5}
    assert sorted(id for id, _ in store.scan()) == [
        "d0",
        "d3",
        "d4",
        "d5",
        "d6",
    ]  # d0 failed, but is a source


def test_a_run_that_failed_is_picked_up_where_it_stopped(
    store: Store, encoder: Encoder, folder: Path
) -> None:
    source = documents(30)
    poisoned = Counting(encoder, poison=source[17].content)
    with pytest.raises(RuntimeError, match="out of memory"):
        index_documents(store, poisoned, source, batch=4, read_ahead=4)
    assert store.count() == len(poisoned.texts) == 16
    assert_indexed(store, encoder, source[:16])
    store.close()
    with open_store(folder / "store") as again:
        rest = Counting(encoder)
        assert counts(index_documents(again, rest, source)) == {"added": 14, "skipped": 16, "encoded": 14}
        assert sorted(rest.texts) == sorted(d.content for d in source[16:])
        assert_indexed(again, encoder, source)


def test_documents_that_cannot_be_stored_are_named(store: Store, encoder: Encoder) -> None:
    source = [
        *documents(3),
        Document("d1", "a second one"),
        Document("blank", "  ", ""),
        Document("taken", "a", metadata={"text": "mine"}),
        Document("nan", "a", metadata={"x": float("nan")}),
        Document("half\ud800", "a"),
    ]
    report = index_documents(store, encoder, source)
    assert counts(report) == {"added": 3, "failed": 5, "encoded": 3}
    reasons = dict(report.failures)
    assert "given before" in reasons["d1"]
    assert "neither title nor text" in reasons["blank"]
    assert "may not use the name 'text'" in reasons["taken"]
    assert "not a JSON number" in reasons["nan"]
    assert "half\ud800" in reasons
    assert_indexed(store, encoder, documents(3))


def test_a_title_alone_is_a_document(store: Store, encoder: Encoder) -> None:
    index_documents(store, encoder, [Document("t", "", "green river")])
    assert_indexed(store, encoder, [Document("t", "", "green river")])


def test_no_documents(store: Store, encoder: Encoder) -> None:
    assert counts(index_documents(store, encoder, [])) == {}


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"read_ahead": 0}])
def test_sizes_must_be_positive(store: Store, encoder: Encoder, wrong: dict[str, int]) -> None:
    with pytest.raises(TrichromeError, match="must be positive"):
        index_documents(store, encoder, documents(2), **wrong)  # type: ignore[arg-type]
