"""Fitting heads on a frozen base: it learns, the base stays as it was, the same seed gives the same heads."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import WORDS, tiny_encoder
from trichrome.encoder import load, save
from trichrome.training.fit_heads import Pair, batches_of, hidden_states, losses, main, read_pairs

CONTENT = [w for w in WORDS if len(w) > 3]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Questions about a word, and passages that hold it, in one language and in one to be kept out."""
    with gzip.open(tmp_path / "words.jsonl.gz", "wt") as file:
        for i, word in enumerate(CONTENT * 8):
            row = {"query": f"where is the {word}", "pos": [f"the {word} {i}"], "neg": [], "lang": "xx"}
            file.write(json.dumps(row) + "\n")
        file.write(json.dumps({"query": "a", "pos": ["b"], "neg": [], "lang": "et-xx"}) + "\n")
    return tmp_path


def fit(data: Path, out: Path, epochs: int) -> dict[str, Any]:
    if not (data / "model").exists():
        save(tiny_encoder(), data / "model")
    main(data, out, str(data / "model"), "words", "et", 100, epochs=epochs, batch=8, rate=1e-2)
    return load(out, device="cpu").network.heads.state_dict()


def mean_loss(data: Path, heads: dict[str, torch.Tensor]) -> dict[str, float]:
    encoder = load(data / "model", device="cpu")
    encoder.network.heads.load_state_dict(heads)
    pairs = read_pairs(data, ["words"], {"et"}, 100, seed=0)[: len(CONTENT)]
    states = [
        hidden_states(encoder, [getattr(p, kind) for p in pairs], kind, 32) for kind in ("query", "passage")
    ]
    rows = range(len(pairs))
    twins = torch.zeros(len(pairs), len(pairs), dtype=torch.bool)
    made = losses(encoder.network.heads, states[0].batch(rows, 1), states[1].batch(rows, 1), twins, False)
    return {k: v.item() for k, v in made.items()}


def test_both_heads_learn_and_the_seed_decides(data: Path) -> None:
    before = fit(data, data / "none", epochs=0)
    after = fit(data, data / "one", epochs=6)
    again = fit(data, data / "two", epochs=6)
    assert all(torch.equal(after[k], again[k]) for k in after)
    start, end = mean_loss(data, before), mean_loss(data, after)
    assert end["sparse"] < 0.8 * start["sparse"]
    assert end["multivector"] < start["multivector"]


def test_languages_are_kept_out(data: Path) -> None:
    assert all(p.query != "a" for p in read_pairs(data, ["words"], {"et"}, 1000, seed=0))
    assert any(p.query == "a" for p in read_pairs(data, ["words"], set(), 1000, seed=0))


def test_no_pair_is_dropped_and_groups_stay_together() -> None:
    pairs = [Pair(str(i), str(i), f"g{i % 3}", False) for i in range(50)]
    batches = batches_of(pairs, 8, seed=1)
    assert sorted(i for b in batches for i in b) == list(range(50))
    assert sum(len({pairs[i].group for i in b}) == 1 for b in batches) >= 6
    assert batches == batches_of(pairs, 8, seed=1)


def test_a_twin_of_the_positive_is_no_negative() -> None:
    encoder = tiny_encoder()
    texts = ["the moon", "the moon", "a dog sings"]
    q, p = (hidden_states(encoder, texts, k, 32).batch(range(3), 1) for k in ("query", "passage"))
    twins = torch.tensor([[False, True, False], [True, False, False], [False] * 3])
    masked = losses(encoder.network.heads, q, p, twins, False)["multivector"]
    alone = losses(encoder.network.heads, q, p, torch.zeros_like(twins), False)["multivector"]
    assert masked < alone
