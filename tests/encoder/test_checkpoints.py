"""Layouts: what is written reads back the same; what is missing or misshapen is named."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import ModernBertConfig, ModernBertModel

from tests.tiny import TEXTS, tiny_encoder
from trichrome.encoder import NewHeads, load, save
from trichrome.encoder.positions import extend_positions
from trichrome.errors import TrichromeError


@pytest.fixture
def m3(tmp_path: Path) -> Path:
    """A folder in FlagEmbedding's layout."""
    save(tiny_encoder(), tmp_path / "m3", "flagembedding")
    return tmp_path / "m3"


@pytest.mark.parametrize("layout", ["trichrome", "flagembedding"])
@pytest.mark.parametrize("first_position", [0, 2], ids=["bert", "xlm-roberta"])
def test_round_trip(layout: str, first_position: int, tmp_path: Path) -> None:
    encoder = tiny_encoder()
    shape = encoder.config.backbone
    changed = type(shape)(**{**shape.__dict__, "first_position": first_position})
    encoder = tiny_encoder(pooling="mean", prompts={"query": "what ", "passage": ""}, backbone=changed)
    save(encoder, tmp_path / "model", layout)
    again = load(tmp_path / "model", device="cpu", max_tokens=64)
    a, b = encoder.encode(TEXTS, "query"), again.encode(TEXTS, "query")
    assert np.array_equal(a.dense, b.dense)
    assert a.sparse_dicts() == b.sparse_dicts()
    assert np.array_equal(a.multivector.vectors, b.multivector.vectors)
    if layout == "trichrome":
        assert again.config == encoder.config
        assert again.fingerprint == encoder.fingerprint
    assert not [p for p in tmp_path.iterdir() if p.name != "model"]  # no temporary folder is left


def test_a_query_tower_keeps_whose_indexes_it_searches(tmp_path: Path) -> None:
    teacher = tiny_encoder()
    tower = tiny_encoder(queries_of=teacher.fingerprint)
    save(tower, tmp_path / "tower")
    again = load(tmp_path / "tower", device="cpu")
    assert again.queries_of == teacher.fingerprint
    assert again.fingerprint == tower.fingerprint != teacher.fingerprint
    assert np.array_equal(again.encode(TEXTS, "query").dense, teacher.encode(TEXTS, "query").dense)
    for encode in (again.encode, again.tokenizer.encode):
        with pytest.raises(TrichromeError, match=rf"queries only.*{teacher.fingerprint[:12]}"):
            encode(TEXTS, "passage")
    with pytest.raises(TrichromeError, match="layout flagembedding can't say"):
        save(tower, tmp_path / "theirs", "flagembedding")
    assert not (tmp_path / "theirs").exists()
    assert "queries_of" not in teacher.config.to_json()  # what was written before there were towers
    with pytest.raises(TrichromeError, match="queries_of must be"):
        tiny_encoder(queries_of=3)


@pytest.mark.parametrize("file", ["sparse_linear.pt", "colbert_linear.pt"])
def test_a_missing_head_is_named(m3: Path, file: str) -> None:
    (m3 / file).unlink()
    with pytest.raises(TrichromeError, match=rf"{file} missing.*new_heads"):
        load(m3)


def test_a_misshapen_head_is_named(m3: Path) -> None:
    torch.save({"weight": torch.zeros(1, 31), "bias": torch.zeros(1)}, m3 / "sparse_linear.pt")
    with pytest.raises(TrichromeError, match=r"sparse_linear\.pt: expected weight \[·, 32\].*\[1, 31\]"):
        load(m3)


def test_a_pickle_with_code_is_refused(m3: Path) -> None:
    torch.save({"weight": Path("x")}, m3 / "colbert_linear.pt")
    with pytest.raises(TrichromeError, match=r"colbert_linear\.pt: cannot be read as a state dict"):
        load(m3)


def test_new_heads_only_when_asked_for(m3: Path) -> None:
    for file in ("sparse_linear.pt", "colbert_linear.pt"):
        (m3 / file).unlink()
    with pytest.raises(TrichromeError, match=r"sparse_linear\.pt and colbert_linear\.pt missing"):
        load(m3)
    one, two = (load(m3, new_heads=NewHeads(multivector_dim=8, seed=3), device="cpu") for _ in range(2))
    assert one.fingerprint == two.fingerprint
    assert one.encode(["a cat"]).multivector.vectors.shape[1] == 8
    np.testing.assert_allclose(one.encode(TEXTS).dense, tiny_encoder().encode(TEXTS).dense, atol=1e-6)


def test_another_architecture(tmp_path: Path) -> None:
    """ModernBERT through transformers: loads with new heads, saves in our layout, opens again."""
    torch.manual_seed(0)
    shape = ModernBertConfig(
        vocab_size=tiny_encoder().config.backbone.vocab_size, hidden_size=32, num_hidden_layers=2,
        num_attention_heads=4, intermediate_size=48, max_position_embeddings=64, pad_token_id=1,
        bos_token_id=0, eos_token_id=2, cls_token_id=0, sep_token_id=2, global_attn_every_n_layers=2,
        local_attention=8,
    )  # fmt: skip
    ModernBertModel(shape).save_pretrained(tmp_path / "modern")
    donor = tmp_path / "donor"
    save(tiny_encoder(), donor, "flagembedding")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (tmp_path / "modern" / name).write_bytes((donor / name).read_bytes())
    encoder = load(tmp_path / "modern", new_heads=NewHeads(multivector_dim=16), device="cpu")
    assert encoder.config.architecture == "modernbert"
    alone = np.concatenate([encoder.encode([t]).dense for t in TEXTS])
    np.testing.assert_allclose(encoder.encode(TEXTS).dense, alone, atol=1e-5)
    save(encoder, tmp_path / "ours")
    again = load(tmp_path / "ours", device="cpu")
    np.testing.assert_allclose(again.encode(TEXTS).dense, encoder.encode(TEXTS).dense, atol=1e-6)
    assert again.fingerprint == encoder.fingerprint


def test_an_extended_encoder_is_saved_with_its_positions(tmp_path: Path) -> None:
    encoder = tiny_encoder()
    longer = extend_positions(encoder.network.backbone, 256)  # type: ignore[arg-type]
    config = type(encoder.config)(**{**encoder.config.__dict__, "backbone": longer, "max_tokens": 256})
    save(type(encoder)(encoder.network, encoder.tokenizer.tokenizer, config, "cpu"), tmp_path / "long")
    again = load(tmp_path / "long", device="cpu")
    assert len(again.encode(["dog" + " dog" * 199]).multivector.row(0)) == 201


def test_what_is_not_a_model(tmp_path: Path, m3: Path) -> None:
    with pytest.raises(TrichromeError, match="no such model folder"):
        load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrichromeError, match=r"config\.json is missing: not a model folder"):
        load(tmp_path / "empty")
    (m3 / "config.json").write_text("{")
    with pytest.raises(TrichromeError, match=r"config\.json: not valid JSON"):
        load(m3)


def test_our_layout_checks_itself(tmp_path: Path) -> None:
    save(tiny_encoder(), tmp_path / "m")
    settings = json.loads((tmp_path / "m" / "trichrome.json").read_text())
    for change, message in [
        ({"format": 99}, "another format version"),
        ({"colour": 1}, r"unknown encoder settings \['colour'\]"),
        (
            {"multivector_dim": 7},
            r"model\.safetensors: heads\.multivector\.weight is \[32, 32\], expected \[7, 32\]",
        ),
    ]:
        (tmp_path / "m" / "trichrome.json").write_text(json.dumps({**settings, **change}))
        with pytest.raises(TrichromeError, match=message):
            load(tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").unlink()
    (tmp_path / "m" / "trichrome.json").write_text(json.dumps(settings))
    with pytest.raises(TrichromeError, match=r"model\.safetensors is missing"):
        load(tmp_path / "m")


def test_saving_never_overwrites(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "mine").write_text("kept")
    with pytest.raises(TrichromeError, match="not an empty folder"):
        save(tiny_encoder(), tmp_path / "m")
    with pytest.raises(TrichromeError, match="unknown layout 'onnx'"):
        save(tiny_encoder(), tmp_path / "n", "onnx")
    with pytest.raises(TrichromeError, match="needs both"):
        save(tiny_encoder(sparse=False), tmp_path / "n", "flagembedding")
    assert (tmp_path / "m" / "mine").read_text() == "kept"
    assert not (tmp_path / "n").exists()


def test_golden_values_of_bge_m3() -> None:
    """The numbers of its model card (fp16 there); runs where the weights are in the local hub cache."""
    from huggingface_hub import try_to_load_from_cache

    if not isinstance(try_to_load_from_cache("BAAI/bge-m3", "sparse_linear.pt"), str):
        pytest.skip("the weights of BAAI/bge-m3 are not in the hub cache")
    encoder = load("BAAI/bge-m3")
    from trichrome import scoring

    queries = encoder.encode(["What is BGE M3?", "Defination of BM25"], "query")
    passages = encoder.encode(
        [
            "BGE M3 is an embedding model supporting dense retrieval, lexical matching and multi-vector "
            "interaction.",
            "BM25 is a bag-of-words retrieval function that ranks a set of documents based on the query "
            "terms appearing in each document",
        ]
    )
    dense = scoring.score("dense", queries, passages)
    np.testing.assert_allclose(dense, [[0.6265, 0.3477], [0.3499, 0.678]], atol=2e-3)
    sparse = scoring.score("sparse", queries, passages)
    np.testing.assert_allclose(sparse[0, 0], 0.19554901, atol=2e-3)
    sparse_queries = scoring.score("sparse", queries, queries)
    np.testing.assert_allclose(sparse_queries[0, 1], 0.0, atol=1e-6)
    multi = scoring.score("multivector", queries, passages)
    np.testing.assert_allclose(multi[0], [0.7797, 0.4620], atol=2e-3)
