"""Query towers: their losses by hand, what is cut and kept, the stage, and searching with what it leaves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.evaluation.tiny_task import make_task
from tests.tiny import TEXTS, WORDS, tiny_encoder
from tests.training.test_stages import recipe, work
from trichrome.encoder import Encoder, load, save
from trichrome.errors import ModelMismatch, TrichromeError
from trichrome.evaluation import Options, TwoTowers, evaluate
from trichrome.formats.beir import write_beir
from trichrome.index import create_store_for, index_documents
from trichrome.records import Document
from trichrome.search import Searcher
from trichrome.training.diagnostics import read_log
from trichrome.training.encoded import Encoded
from trichrome.training.loop import Watch
from trichrome.training.losses import embedding_match, weight_match
from trichrome.training.query_tower import query_tower
from trichrome.training.recipe import Evaluation
from trichrome.training.towers import TowerSettings, match, shortened, spread_out

pytest.importorskip("accelerate")
pytest.importorskip("peft")

__all__ = ["work"]  # the fixture


# losses


def test_the_two_terms_by_hand() -> None:
    """(3, 4) and (4, 3): squares 1 and 1, cosine 24/25; (1, 0) and (0, 2): squares 1 and 4, cosine 0."""
    made, wanted = torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[4.0, 3.0], [0.0, 2.0]])
    assert embedding_match(made, wanted, cosine=0).item() == pytest.approx((1 + 2.5) / 2)
    assert embedding_match(made, wanted, mse=0).item() == pytest.approx((1 / 25 + 1) / 2)
    both = embedding_match(made, wanted, mse=0.5, cosine=2)
    assert both.item() == pytest.approx(0.5 * 1.75 + 2 * 0.52)
    assert embedding_match(wanted, wanted).item() == pytest.approx(0, abs=1e-6)


def test_between_unit_vectors_both_terms_are_one_loss() -> None:
    draw = torch.Generator().manual_seed(0)
    one, other = (torch.randn(7, 24, generator=draw, dtype=torch.float64) for _ in range(2))
    one, other = one / one.norm(dim=1, keepdim=True), other / other.norm(dim=1, keepdim=True)
    squares, cosines = embedding_match(one, other, cosine=0), embedding_match(one, other, mse=0)
    assert squares.item() == pytest.approx(2 * cosines.item() / 24)


def test_tokens_count_within_their_text_first() -> None:
    """A text of one token, 1 off, and one of two, 2 and 3 off: (1 + 2.5) / 2; what is masked is nothing."""
    made = torch.tensor([[[1.0], [9.0]], [[2.0], [3.0]]])
    mask = torch.tensor([[True, False], [True, True]])
    off = embedding_match(made, torch.zeros_like(made), mask, cosine=0)
    assert off.item() == pytest.approx((1 + (4 + 9) / 2) / 2)
    weights = weight_match(made[..., 0], torch.zeros(2, 2), mask)
    assert weights.item() == pytest.approx(off.item())
    none = torch.zeros_like(mask)
    assert embedding_match(made, torch.zeros_like(made), none).item() == 0
    alone = torch.tensor([[True, True], [False, False]])
    assert weight_match(made[..., 0], torch.zeros(2, 2), alone).item() == pytest.approx((1 + 81) / 2)


def test_gradients_are_the_slopes() -> None:
    draw = torch.Generator().manual_seed(1)
    made = torch.randn(3, 4, 5, generator=draw, dtype=torch.float64, requires_grad=True)
    wanted = torch.randn(3, 4, 5, generator=draw, dtype=torch.float64)
    mask = torch.rand(3, 4, generator=draw) > 0.3
    assert torch.autograd.gradcheck(lambda x: embedding_match(x, wanted, mask), (made,))
    assert torch.autograd.gradcheck(lambda x: weight_match(x[..., 0], wanted[..., 0], mask), (made,))


def test_parts_of_a_batch_add_up_to_it() -> None:
    draw = torch.Generator().manual_seed(2)

    def outputs() -> Encoded:
        ids, mask = torch.zeros(6, 4, dtype=torch.long), torch.ones(6, 4, dtype=torch.bool)
        mask[:3, 2:] = False
        return Encoded(
            ids,
            mask,
            torch.randn(6, 8, generator=draw),
            torch.rand(6, 4, generator=draw),
            torch.randn(6, 4, 5, generator=draw),
        )

    def part(x: Encoded, rows: slice) -> Encoded:
        return Encoded(x.ids[rows], x.vector_mask[rows], *(t[rows] for t in x.tensors()))

    made, wanted = outputs(), outputs()
    whole = match(made, wanted, TowerSettings())
    assert set(whole) == {"dense", "sparse", "multivector", "total"}
    rows = slice(0, 2), slice(2, 6)
    parts = [match(part(made, r), part(wanted, r), TowerSettings()) for r in rows]
    for name, value in whole.items():
        assert value.item() == pytest.approx((2 * parts[0][name].item() + 4 * parts[1][name].item()) / 6)
    alone = match(replace(made, sparse_weights=None, vectors=None), wanted, TowerSettings())
    assert set(alone) == {"dense", "total"}


# what is kept


def test_layers_are_spread_from_the_first_to_the_last() -> None:
    assert spread_out(12, 4) == [0, 4, 7, 11]
    assert spread_out(12, 12) == list(range(12))
    assert spread_out(5, 1) == [0]
    for count in (0, 6):
        with pytest.raises(TrichromeError, match="has 5 layers"):
            spread_out(5, count)


def test_a_shortened_encoder_has_the_layers_and_outputs_that_were_asked_for() -> None:
    encoder = tiny_encoder()
    before = encoder.encode(TEXTS)
    whole = shortened(encoder)
    assert whole.fingerprint == encoder.fingerprint
    short = shortened(encoder, 1, ("dense", "multivector"))
    assert short.config.backbone is not None
    assert (short.config.backbone.layers, short.signals) == (1, ("dense", "multivector"))
    assert short.network.backbone.layers[0] is encoder.network.backbone.layers[0]
    assert {id(p) for p in short.network.parameters()} < {id(p) for p in encoder.network.parameters()}
    assert not np.allclose(short.encode(TEXTS).dense, before.dense)
    assert np.array_equal(encoder.encode(TEXTS).dense, before.dense)  # left as it was
    with pytest.raises(TrichromeError, match="no output 'sparse'"):
        shortened(short, None, ("dense", "sparse"))
    with pytest.raises(TrichromeError, match="has 2 layers; 3 of them"):
        shortened(encoder, 3)


def test_settings_that_make_no_sense_are_refused() -> None:
    for wrong, said in (
        ({"layers": 0}, "layers"),
        ({"outputs": ("sparse",)}, "dense"),
        ({"mse": -1.0}, "weights"),
        ({"mse": 0.0, "cosine": 0.0}, "weights"),
    ):
        with pytest.raises(TrichromeError, match=said):
            TowerSettings(**wrong)  # type: ignore[arg-type]


# the stage


def tower_recipe(work: Path, name: str = "run", **changes: Any) -> Any:
    return recipe(work, name, **{"dropout": 0.0, "tower": TowerSettings(layers=1), **changes})


def near(tower: Encoder, teacher: Encoder) -> list[float]:
    """Mean cosines of dense and token vectors, and 1 − the mean difference of sparse weights, of questions
    that were not learnt from."""
    texts = [f"{a} {b} {c}" for a, b, c in zip(WORDS, WORDS[5:], WORDS[3:], strict=False)]
    made, wanted = (e.encode(texts, "query") for e in (tower, teacher))
    weights = [
        abs(a.get(i, 0) - b.get(i, 0))
        for a, b in zip(made.sparse_dicts(), wanted.sparse_dicts(), strict=True)
        for i in {*a, *b}
    ]
    vectors = (made.multivector.vectors * wanted.multivector.vectors).sum(1).mean()
    return [float((made.dense * wanted.dense).sum(1).mean()), float(vectors), 1 - float(np.mean(weights))]


def test_the_stage_brings_a_tower_near_its_teacher_and_leaves_a_model(work: Path) -> None:
    teacher = load(work / "tiny", device="cpu")
    trained = query_tower(tower_recipe(work, steps=60))
    assert trained.finished
    assert trained.model is not None
    log = read_log(work / "run" / "log.jsonl")
    assert log[-1]["loss/total"] < 0.7 * log[0]["loss/total"]
    for record in (log[0], log[-1]):
        parts = [record[f"loss/{name}"] for name in ("dense", "sparse", "multivector")]
        assert record["loss/total"] == pytest.approx(sum(parts))
    tower = load(trained.model, device="cpu")
    assert tower.queries_of == teacher.fingerprint
    assert tower.config.backbone is not None
    assert tower.config.backbone.layers == 1
    assert (near(tower, teacher) > np.array(near(shortened(teacher, 1), teacher))).all()
    again = tower.encode(["moon"], "query").dense
    assert np.array_equal(again, trained.encoder.encode(["moon"], "query").dense)


def test_a_stopped_run_goes_on_to_the_same_bits_whatever_the_sub_batches(work: Path) -> None:
    query_tower(tower_recipe(work, "whole"))
    left = iter([False] * 7)
    stopped = query_tower(tower_recipe(work, "parts"), Watch(stop=lambda: next(left, True)))
    assert (stopped.steps, stopped.finished) == (7, False)
    assert query_tower(tower_recipe(work, "parts")).finished
    one, other = (load_file(work / run / "model" / "model.safetensors") for run in ("whole", "parts"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    query_tower(tower_recipe(work, "small", sub_batch_tokens=8))
    split = load_file(work / "small" / "model" / "model.safetensors")
    assert all(torch.allclose(one[name], split[name], atol=2e-3) for name in one)


def test_another_encoder_learns_the_dense_output_alone(work: Path) -> None:
    other = tiny_encoder(prompts={"query": "what is ", "passage": ""})
    save(other, work / "other")
    settings = TowerSettings(teacher=str(work / "other"), outputs=("dense",))
    trained = query_tower(tower_recipe(work, tower=settings, steps=3))
    assert trained.encoder.signals == ("dense",)
    assert trained.encoder.queries_of == other.fingerprint
    with pytest.raises(TrichromeError, match=r"different tokens.*outputs: \[dense\]"):
        query_tower(tower_recipe(work, "all", tower=TowerSettings(teacher=str(work / "other"))))


def test_what_the_stage_refuses(work: Path) -> None:
    lacking = work / "dense"
    save(shortened(tiny_encoder(), None, ("dense",)), lacking)
    narrow = tiny_encoder(multivector_dim=16)
    narrow.network.heads.multivector = torch.nn.Linear(32, 16)
    save(narrow, work / "narrow")
    for changes, said in (
        ({"train": "lowrank"}, "trains all weights"),
        ({"measure_sizes": True}, "measure_sizes"),
        ({"tower": TowerSettings(layers=9)}, "has 2 layers"),
        ({"tower": TowerSettings(teacher=str(lacking), outputs=("dense", "sparse"))}, "no output 'sparse'"),
        ({"tower": TowerSettings(teacher=str(work / "narrow"))}, "multivector output is 32 wide"),
    ):
        with pytest.raises(TrichromeError, match=said):
            query_tower(tower_recipe(work, **changes))
    assert not (work / "run" / "model").exists()


# searching and measuring


def test_a_tower_searches_its_teachers_index_and_no_other(work: Path, tmp_path: Path) -> None:
    teacher = load(work / "tiny", device="cpu")
    documents = [Document(f"d{i}", text) for i, text in enumerate(TEXTS) if text.strip()]
    tower = query_tower(tower_recipe(work, steps=60)).encoder
    with create_store_for(teacher, tmp_path / "store") as store:
        index_documents(store, teacher, documents)
        searcher: Searcher = Searcher(tower, store)
        for mode in ("dense", "multivector", "all"):
            hits = searcher.search("the old cat", mode, k=3)
            assert len(hits) == 3
            assert hits[0].sparse is not None
        query, passage = tower.encode(["the old cat"], "query"), teacher.encode([hits[0].text])
        assert hits[0].dense == pytest.approx(float((query.dense @ passage.dense.T)[0, 0]), abs=1e-5)
        assert searcher.explain("the old cat", hits[0]).multivector is not None
        with pytest.raises(TrichromeError, match="queries only"):
            index_documents(store, tower, [Document("new", "a new document")])
    with create_store_for(tower, tmp_path / "own") as store, pytest.raises(ModelMismatch):
        Searcher(tower, store)


def test_two_towers_measure_as_one_and_documents_are_encoded_once(work: Path, tmp_path: Path) -> None:
    teacher = load(work / "tiny", device="cpu")
    options = Options(baselines=(), cache=tmp_path / "cache")
    task = make_task()
    alone = evaluate(teacher, task, options)
    tower = query_tower(tower_recipe(work, steps=2)).encoder
    both = evaluate(TwoTowers(tower, teacher), task, options)
    assert both.fingerprint not in (alone.fingerprint, tower.fingerprint)
    assert len(list((tmp_path / "cache" / "stores").iterdir())) == 1
    vectors = {q.id: tower.encode([q.text], "query").dense[0] for q in task.queries}
    passages = teacher.encode([d.content for d in task.documents]).dense
    found = both.rankings["dense"]
    for i, query in enumerate(task.queries[:5]):
        best = np.argsort(-(passages @ vectors[query.id]), kind="stable")[0]
        ids = found.documents[found.offsets[i] : found.offsets[i + 1]]
        assert task.documents[int(ids[0])].id == task.documents[int(best)].id
    with pytest.raises(ModelMismatch, match="does not search what"):
        TwoTowers(tower, tiny_encoder(pooling="mean"))
    assert evaluate(TwoTowers(teacher, teacher), task, options).means["dense"] == alone.means["dense"]


def test_a_run_measures_the_tower_on_its_teachers_documents(work: Path) -> None:
    task = make_task()
    write_beir(work / "tiny-task", task.documents, task.queries, task.qrels)
    measured = Evaluation(tasks=(work / "tiny-task",), every=2)
    query_tower(tower_recipe(work, steps=4, evaluation=measured))
    log = [r for r in read_log(work / "run" / "log.jsonl") if r.get("kind") == "evaluation"]
    assert [r["step"] for r in log] == [0, 2, 4]
    assert {"tiny-task/dense", "tiny-task/all"} <= set(log[0])
