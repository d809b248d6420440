"""The exported graph: torch's numbers in every pooling, the same `encode`, and refusals that say why."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.encoder.test_encode import assert_same
from tests.tiny import TEXTS, tiny_encoder
from trichrome.encoder import Encoder, load
from trichrome.encoder.export import export_onnx
from trichrome.encoder.heads import Network
from trichrome.encoder.onnx_backend import DESCRIPTION, GRAPH
from trichrome.encoder.smoothing import smoothing
from trichrome.encoder.transformers_backbone import TransformersBackbone
from trichrome.errors import TrichromeError

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

MORE = [
    "Où se trouve la gare, s'il vous plaît ?",
    "休暇の申請は二週間前までに人事部へ提出してください。",
    "The quick brown fox jumps over the lazy dog. " * 12,
    "لا يمكن حذف الملف",
    "x",
]


@pytest.fixture(scope="module")
def tiny() -> Encoder:
    return tiny_encoder(prompts={"query": "what is ", "passage": ""}, mcls_every=8)


@pytest.fixture(scope="module")
def folder(tiny: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "tiny"
    export_onnx(tiny, path)
    return path


@pytest.fixture(scope="module")
def exported(folder: Path) -> Encoder:
    return load(folder)


def test_it_gives_torchs_outputs(tiny: Encoder, exported: Encoder) -> None:
    """With padding, without, and with a prompt."""
    assert_same(exported.encode(TEXTS), tiny.encode(TEXTS), atol=1e-4)
    assert_same(exported.encode(TEXTS, token_budget=1), tiny.encode(TEXTS), atol=1e-4)
    assert_same(exported.encode(TEXTS, "query"), tiny.encode(TEXTS, "query"), atol=1e-4)


@pytest.mark.parametrize("pooling", ["cls", "mean", "mcls"])
def test_one_graph_has_every_pooling(tiny: Encoder, exported: Encoder, pooling: str) -> None:
    ours, theirs = exported.with_pooling(pooling), tiny.with_pooling(pooling)
    assert ours.fingerprint == theirs.fingerprint
    assert_same(ours.encode(TEXTS), theirs.encode(TEXTS), atol=1e-4)


def test_pooling_may_be_left_out(tmp_path: Path) -> None:
    """Other programs need to know nothing of the third input: its default is the encoder's pooling."""
    import onnxruntime

    encoder = tiny_encoder(pooling="mean")
    export_onnx(encoder, tmp_path / "mean")
    session = onnxruntime.InferenceSession(str(tmp_path / "mean" / GRAPH))
    ids = np.array([encoder.tokenizer.encode([TEXTS[1]], "passage")[0].ids])
    dense, weights, vectors = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
    wanted = encoder.encode([TEXTS[1]])
    np.testing.assert_allclose(dense, wanted.dense, atol=1e-4)
    np.testing.assert_allclose(vectors[0, 1:], wanted.multivector.row(0), atol=1e-4)
    assert weights.shape == ids.shape
    assert weights[0, 0] == weights[0, -1] == 0


def test_outputs_can_be_chosen_and_be_absent(exported: Encoder, tmp_path: Path) -> None:
    assert exported.encode(["a"], outputs=("sparse",)).signals == ("sparse",)
    assert exported.encode([]).dense.shape == (0, 32)
    tokens = exported.tokenizer.encode(["a cat"], "passage")
    assert len(exported.encode_tokens(tokens, ("dense", "multivector"))) == 1
    dense_only = tiny_encoder(sparse=False, multivector_dim=None)
    export_onnx(dense_only, tmp_path / "dense")
    made = load(tmp_path / "dense")
    assert made.signals == ("dense",)
    np.testing.assert_allclose(made.encode(TEXTS).dense, dense_only.encode(TEXTS).dense, atol=1e-4)


def test_int8_stays_near(tiny: Encoder, tmp_path: Path) -> None:
    report = export_onnx(tiny, tmp_path / "int8", "int8")
    made = load(tmp_path / "int8")
    assert made.precision == report.precision == "int8"
    wanted, found = tiny.encode(TEXTS), made.encode(TEXTS)
    assert (wanted.dense * found.dense).sum(1).min() > 0.98
    assert (wanted.multivector.vectors * found.multivector.vectors).sum(1).min() > 0.95
    for a, b in zip(wanted.sparse_dicts(), found.sparse_dicts(), strict=True):
        assert all(abs(a.get(i, 0) - b.get(i, 0)) < 0.3 for i in {*a, *b})
    assert np.abs(wanted.dense - found.dense).max() > 1e-5  # it is not float32 under another name
    partly = export_onnx(tiny, tmp_path / "partly", "int8", leave_out=("qkv", "out", "up", "down"))
    assert partly.dense > report.dense


def test_int8_does_not_depend_on_the_batch(tiny: Encoder, tmp_path: Path) -> None:
    export_onnx(tiny, tmp_path / "int8", "int8")
    made = load(tmp_path / "int8")
    together = made.encode(TEXTS)
    for i, text in enumerate(TEXTS):
        alone, among = made.encode([text]), together[i : i + 1]
        np.testing.assert_allclose(alone.dense, among.dense, atol=1e-5)
        np.testing.assert_allclose(alone.multivector.vectors, among.multivector.vectors, atol=1e-5)
        np.testing.assert_allclose(alone.sparse.weights, among.sparse.weights, atol=1e-5)


def test_smoothing_helps_where_a_channel_is_large() -> None:
    """As in real networks: after a norm one channel is many times larger than the others."""
    encoder = tiny_encoder()
    layer = encoder.network.backbone.layers[0]
    with torch.no_grad():
        layer.norm1.weight[3] *= 30
        layer.up.weight[:, 3] /= 30
    tokens = encoder.tokenizer.encode(TEXTS[1:3], "passage")
    found = smoothing(encoder.network, tokens, 1)
    assert set(found) == {f"{i}.{name}" for i in (0, 1) for name in ("qkv", "out", "up")}
    balance = found["0.up"].channels
    assert balance.argmax() == 3
    read: list[torch.Tensor] = []
    layer.up.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0][0]))
    with torch.inference_mode():
        encoder.network.backbone(torch.tensor([tokens[0].ids]))
    x, w = read[0], layer.up.weight.detach()  # [L, in], [out, in]
    assert (x / balance).abs().max() <= found["0.up"].reach <= 1.2 * (x / balance).abs().max()

    def error(c: torch.Tensor) -> float:
        """Of x W^T with x / c and W · c in 8 bits, as the graph rounds them."""
        step = float((x / c).max() - (x / c).min()) / 255
        rows = (w * c).abs().amax(1, keepdim=True) / 127
        product = ((x / c / step).round() * step) @ ((w * c / rows).round() * rows).T
        return float((product - x @ w.T).abs().max())

    assert error(balance) < 0.5 * error(torch.ones(32))


def test_two_workers_give_the_same(tiny: Encoder, exported: Encoder) -> None:
    assert_same(exported.encode(TEXTS, devices=["cpu", "cpu"], token_budget=64), tiny.encode(TEXTS), 1e-4)


def test_it_is_the_model_it_was_made_from(tiny: Encoder, exported: Encoder, folder: Path) -> None:
    """Stores built with the one answer queries of the other; changed settings make another model."""
    assert exported.fingerprint == tiny.fingerprint
    assert exported.config == tiny.config
    assert (exported.precision, exported.dense_dim) == ("float32", 32)
    assert exported.backend.parameters == tiny.backend.parameters
    shorter = load(folder, max_tokens=16)
    assert shorter.fingerprint not in (tiny.fingerprint, load(folder, max_tokens=17).fingerprint)
    assert load(folder, dtype="float32").fingerprint == tiny.fingerprint


def test_a_query_tower_is_exported_by_its_queries(tmp_path: Path) -> None:
    tower = tiny_encoder(queries_of="f" * 64)
    export_onnx(tower, tmp_path / "tower", "int8")
    made = load(tmp_path / "tower")
    assert (made.queries_of, made.fingerprint) == ("f" * 64, tower.fingerprint)
    with pytest.raises(TrichromeError, match="queries only"):
        made.encode(MORE)


def test_small_agrees_with_torch(tmp_path: Path) -> None:
    torch_small = load("small", device="cpu")
    export_onnx(torch_small, tmp_path / "small")
    small = load(tmp_path / "small")
    for kind in ("passage", "query"):
        assert_same(small.encode(MORE, kind), torch_small.encode(MORE, kind), atol=1e-4)


def test_other_models_are_exported_to_the_cache(
    tiny: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trichrome.encoder import save

    monkeypatch.setenv("TRICHROME_CACHE", str(tmp_path / "cache"))
    save(tiny, tmp_path / "model")
    for dtype in ("float32", "int8"):
        made = load(tmp_path / "model", backend="onnx", dtype=dtype)
        assert (made.precision, made.fingerprint) == (dtype, tiny.fingerprint)
    folders = sorted((tmp_path / "cache" / "onnx").iterdir())
    written = [(folder / GRAPH).stat().st_mtime_ns for folder in folders]
    assert load(tmp_path / "model", dtype="int8").precision == "int8"  # torch has no int8
    assert len(folders) == 2
    assert [(folder / GRAPH).stat().st_mtime_ns for folder in folders] == written


def test_what_a_graph_cannot_do_is_said(tiny: Encoder, exported: Encoder, folder: Path) -> None:
    with pytest.raises(TrichromeError, match="cannot be trained or exported again"):
        _ = exported.network
    with pytest.raises(TrichromeError, match="runs on the CPU, not on cuda"):
        exported.to("cuda")
    with pytest.raises(TrichromeError, match="exported in float32, not bfloat16"):
        load(folder, dtype="bfloat16")
    with pytest.raises(TrichromeError, match="load the model that it was made from"):
        load(folder, backend="torch")
    with pytest.raises(TrichromeError, match="unknown backend 'tensorrt'; there are torch, onnx"):
        load(folder, backend="tensorrt")
    with pytest.raises(TrichromeError, match="unknown precision 'int4'"):
        export_onnx(tiny, folder.parent / "new", "int4")
    with pytest.raises(TrichromeError, match="exists already"):
        export_onnx(tiny, folder)
    with pytest.raises(TrichromeError, match="leave_out: no product is called 'attention'"):
        export_onnx(tiny, folder.parent / "new", "int8", leave_out=("attention",))


def test_other_networks_are_refused(tiny: Encoder, tmp_path: Path) -> None:
    wrapped = TransformersBackbone.__new__(TransformersBackbone)
    wrapped.__dict__ |= tiny.network.backbone.__dict__
    foreign = Encoder(Network(wrapped, tiny.network.heads), tiny.tokenizer.tokenizer, tiny.config, "cpu")
    with pytest.raises(TrichromeError, match="only BERT, RoBERTa and XLM-R networks"):
        export_onnx(foreign, tmp_path / "foreign")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (DESCRIPTION, b"{}", "expected an object of precision, fingerprint"),
        (DESCRIPTION, None, "another version"),
        (GRAPH, b"\x08\x07nonsense", "cannot be opened"),
        (GRAPH, b"", "cannot be opened"),
    ],
)
def test_a_damaged_folder_is_named(
    tiny: Encoder, tmp_path: Path, file: str, content: bytes | None, message: str
) -> None:
    export_onnx(tiny, tmp_path / "x")
    place = tmp_path / "x" / file
    if content is None:
        content = json.dumps({**json.loads(place.read_text()), "format": 99}).encode()
    place.write_bytes(content)
    with pytest.raises(TrichromeError, match=message):
        load(tmp_path / "x")


def test_a_missing_file_is_named(tiny: Encoder, tmp_path: Path) -> None:
    export_onnx(tiny, tmp_path / "x")
    (tmp_path / "x" / "model.onnx.data").unlink()
    with pytest.raises(TrichromeError, match=r"model\.onnx\.data is missing"):
        load(tmp_path / "x")
