"""Corpora on disk: the same as in memory, resumed after a stop, never half-written."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.tiny import TEXTS, tiny_encoder
from trichrome.encoder.corpus import encode_corpus


def test_the_file_holds_what_encode_returns(tmp_path: Path) -> None:
    encoder = tiny_encoder()
    made = encode_corpus(
        encoder, iter(TEXTS), tmp_path / "c.safetensors", chunk=3, multivector_dtype="float32"
    )
    whole = encoder.encode(TEXTS)
    np.testing.assert_allclose(made.dense, whole.dense, atol=1e-6)
    assert [r.keys() for r in made.sparse_dicts()] == [r.keys() for r in whole.sparse_dicts()]
    np.testing.assert_allclose(made.multivector.vectors, whole.multivector.vectors, atol=1e-5)
    assert isinstance(made.dense, np.memmap)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.json", "c.safetensors"]


def test_finished_chunks_are_not_encoded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = tiny_encoder()
    path = tmp_path / "c.safetensors"

    def breaks() -> Iterator[str]:
        yield from TEXTS[:4]
        raise RuntimeError("the disk was unplugged")

    with pytest.raises(RuntimeError):
        encode_corpus(encoder, breaks(), path, chunk=2)
    assert not path.exists()
    encoded: list[str] = []
    real = encoder.encode

    def watched(texts, *args, **kwargs):  # type: ignore[no-untyped-def]
        encoded.extend(texts)
        return real(texts, *args, **kwargs)

    monkeypatch.setattr(encoder, "encode", watched)
    changed = [*TEXTS[:2], "another", *TEXTS[3:]]
    assert len(encode_corpus(encoder, changed, path, chunk=2)) == len(TEXTS)
    assert encoded == changed[2:]  # the first chunk was there; the second has changed


def test_an_empty_corpus(tmp_path: Path) -> None:
    made = encode_corpus(tiny_encoder(), [], tmp_path / "c.safetensors")
    assert len(made) == 0
    assert made.dense.shape == (0, 32)
