"""A tiny XLM-R with both heads, encoded by FlagEmbedding and by trichrome: outputs and scores agree.

With FlagEmbedding installed (`make parity`) the two run side by side, and TRICHROME_RECORD=1 writes its
outputs to recorded.json; without it trichrome is held against that record.
"""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tiny import TEXTS, tiny_encoder
from trichrome import scoring
from trichrome.encoder import load, save

RECORD = Path(__file__).parent / "recorded.json"
HAS_FLAGEMBEDDING = importlib.util.find_spec("FlagEmbedding") is not None
HAS_SENTENCE_TRANSFORMERS = importlib.util.find_spec("sentence_transformers") is not None

#: Queries and passages whose five pair scores are compared; unpadded, so one pair at a time.
PAIRS = [[TEXTS[0], TEXTS[2]], [TEXTS[0], TEXTS[6]], [TEXTS[1], TEXTS[6]], [TEXTS[5], TEXTS[5]]]
#: FlagEmbedding's names, and our weights of (dense, sparse, multivector).
MODES = {
    "dense": (1.0, 0.0, 0.0),
    "sparse": (0.0, 1.0, 0.0),
    "colbert": (0.0, 0.0, 1.0),
    "sparse+dense": (0.4, 0.2, 0.0),
    "colbert+sparse+dense": (0.4, 0.2, 0.4),
}


def flagembedding_outputs(folder: Path) -> dict[str, Any]:
    """What FlagEmbedding makes of the texts, as plain JSON."""
    from FlagEmbedding import BGEM3FlagModel

    model = BGEM3FlagModel(str(folder), use_fp16=False, devices="cpu")
    one_by_one = [
        model.encode([t], max_length=64, return_dense=True, return_sparse=True, return_colbert_vecs=True)
        for t in TEXTS
    ]
    pairs = [
        model.compute_score(
            [pair], max_query_length=64, max_passage_length=64, weights_for_different_modes=[0.4, 0.2, 0.4]
        )
        for pair in PAIRS
    ]
    return {
        "dense": [made["dense_vecs"][0].tolist() for made in one_by_one],
        "sparse": [{int(k): float(v) for k, v in made["lexical_weights"][0].items()} for made in one_by_one],
        "multivector": [made["colbert_vecs"][0].tolist() for made in one_by_one],
        "pairs": {mode: [float(made[mode][0]) for made in pairs] for mode in MODES},
    }


def assert_agrees(expected: dict[str, Any]) -> None:
    embeddings = tiny_encoder().encode(TEXTS)
    assert embeddings.multivector is not None
    np.testing.assert_allclose(embeddings.dense, expected["dense"], atol=1e-5)
    for i, (ours, theirs) in enumerate(zip(embeddings.sparse_dicts(), expected["sparse"], strict=True)):
        assert ours == pytest.approx({int(k): v for k, v in theirs.items()}, abs=1e-5), TEXTS[i]
    for i, theirs in enumerate(expected["multivector"]):
        np.testing.assert_allclose(embeddings.multivector.row(i), theirs, atol=1e-5)

    queries = embeddings[[TEXTS.index(q) for q, _ in PAIRS]]
    passages = embeddings[[TEXTS.index(p) for _, p in PAIRS]]
    scores = {s: scoring.score_pairs(s, queries, passages) for s in ("dense", "sparse", "multivector")}
    for mode, weights in MODES.items():
        ours = scoring.weighted(scores, weights, normalise=True)
        np.testing.assert_allclose(ours, expected["pairs"][mode], atol=1e-5, err_msg=mode)


def test_agrees_with_the_recorded_outputs() -> None:
    assert_agrees(json.loads(RECORD.read_text()))


@pytest.mark.skipif(not HAS_FLAGEMBEDDING, reason="FlagEmbedding is not installed: make parity")
def test_agrees_with_flagembedding(tmp_path: Path) -> None:
    save(tiny_encoder(), tmp_path / "m3", "flagembedding")
    expected = flagembedding_outputs(tmp_path / "m3")
    if os.environ.get("TRICHROME_RECORD"):
        RECORD.write_text(json.dumps(expected) + "\n")
    assert_agrees(expected)


@pytest.mark.skipif(not HAS_FLAGEMBEDDING, reason="FlagEmbedding is not installed: make parity")
def test_flagembedding_scores_depend_on_padding(tmp_path: Path) -> None:
    """Why pairs are compared one at a time: padding lifts its negative multi-vector maxima to 0."""
    from FlagEmbedding import BGEM3FlagModel

    encoder = tiny_encoder(multivector_dim=2)  # two dimensions: negative cosines are common
    save(encoder, tmp_path / "m3", "flagembedding")
    model = BGEM3FlagModel(str(tmp_path / "m3"), use_fp16=False, devices="cpu", colbert_dim=2)
    words = ["a", "b", "c", "zyx", "moon", "dog", "月光川", "?"]
    short = encoder.encode(words, outputs=("multivector",))
    q, p = np.unravel_index(scoring.score("multivector", short, short).argmin(), (len(words), len(words)))
    pairs = [[words[q], words[p]], [words[q], TEXTS[6]]]
    kinds = {"max_query_length": 64, "max_passage_length": 64}
    theirs = [model.compute_score(some, **kinds)["colbert"][0] for some in (pairs[:1], pairs)]
    assert theirs[1] - theirs[0] > 0.01  # the same pair, alone and beside a longer one

    ours = [encoder.encode([w for _, w in some])[:1] for some in (pairs[:1], pairs)]
    scores = [scoring.score("multivector", short[[q]], one).item() for one in ours]
    assert scores[0] == pytest.approx(theirs[0], abs=1e-5)
    assert scores[1] == pytest.approx(scores[0], abs=1e-6)


@pytest.mark.skipif(
    not HAS_SENTENCE_TRANSFORMERS, reason="sentence-transformers is not installed: make parity"
)
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_agrees_with_sentence_transformers(tmp_path: Path, pooling: str) -> None:
    from sentence_transformers import SentenceTransformer

    encoder = tiny_encoder(pooling=pooling, prompts={"query": "what ", "passage": ""})
    save(encoder, tmp_path / "st", "flagembedding")
    model = SentenceTransformer(str(tmp_path / "st"), device="cpu")
    assert model.max_seq_length == 64
    for kind in ("query", "passage"):
        theirs = model.encode(TEXTS, prompt_name=kind)
        np.testing.assert_allclose(encoder.encode(TEXTS, kind, "dense").dense, theirs, atol=1e-5)
    again = load(tmp_path / "st", device="cpu")
    assert again.config.pooling == pooling
    assert again.config.prompts == encoder.config.prompts
