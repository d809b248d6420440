"""Training the queries against an index: what it finds and changes, what comes of it, what is refused."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.tiny import WORDS, tiny_encoder
from trichrome import Document
from trichrome.encoder import load, save
from trichrome.errors import ModelMismatch, TrichromeError
from trichrome.index import copy_store, create_store_for, index_documents, open_store
from trichrome.index.copying import copy_with_centroids, open_copy
from trichrome.index.exact import ExactStore
from trichrome.index.manifests import QUANTISER
from trichrome.index.pq import ProductQuantiser, train_quantiser
from trichrome.search import Searcher
from trichrome.training.batches import BatchSettings
from trichrome.training.diagnostics import read_log
from trichrome.training.loop import Watch
from trichrome.training.query_side import queries
from trichrome.training.recipe import Evaluation, Objective, Optimiser, QuerySide, Recipe

pytest.importorskip("accelerate")
pytest.importorskip("peft")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny model, its index of 60 documents, and 40 queries made of words of a document."""
    monkeypatch.setenv("TRICHROME_CACHE", str(tmp_path / "cache"))
    encoder = tiny_encoder()
    save(encoder, tmp_path / "tiny")
    draw = random.Random(0)
    texts = [" ".join(draw.choices(WORDS, k=7)) for _ in range(60)]
    documents = [Document(f"d{i}", text) for i, text in enumerate(texts)]
    with create_store_for(encoder, tmp_path / "index", kind="exact") as store:
        index_documents(store, encoder, documents)
    with (tmp_path / "questions.jsonl").open("w") as file:
        for i in range(40):
            words = " ".join(draw.sample(texts[i].split(), draw.randint(2, 5)))
            file.write(json.dumps({"query": words, "pos": [texts[i]], "pos_ids": [f"d{i}"]}) + "\n")
    return tmp_path


def recipe(work: Path, name: str = "run", **changes: Any) -> Recipe:
    settings: dict[str, Any] = {
        "model": str(work / "tiny"),
        "data": (str(work / "questions.jsonl"),),
        "output": work / name,
        "steps": 10,
        "dropout": 0.0,
        "batches": BatchSettings(max_rows=16, query_tokens=16, passage_tokens=32, by="any"),
        "optimiser": Optimiser(rate=1e-3, warmup=0.2),
        "objective": Objective(ranking="lambda_rank", temperature=0.1),
        "queries": QuerySide(str(work / "index"), depth=30),
        "checkpoint_every": 4,
    }
    return Recipe(**{**settings, **changes})


@pytest.mark.parametrize("ranking", ["lambda_rank", "pairwise", "infonce"])
def test_it_learns_and_leaves_a_query_tower(work: Path, ranking: Any) -> None:
    index = sorted((path, path.read_bytes()) for path in (work / "index").rglob("*") if path.is_file())
    objective = Objective(ranking=ranking, temperature=0.1)
    trained = queries(recipe(work, steps=40, objective=objective))
    assert trained.finished
    assert trained.model is not None
    log = read_log(work / "run" / "log.jsonl")
    for name, better in (("mrr/dense", 1), ("loss/total", -1)):
        assert better * sum(r[name] for r in log[-6:]) > better * sum(r[name] for r in log[:6]) + 0.1 * (
            name[0] == "m"
        )
    tower = load(trained.model, device="cpu")
    assert tower.signals == ("dense",)
    assert tower.queries_of == load(work / "tiny").fingerprint != tower.fingerprint
    assert index == sorted(
        (path, path.read_bytes()) for path in (work / "index").rglob("*") if path.is_file()
    )
    rows = [json.loads(line) for line in (work / "questions.jsonl").read_text().splitlines()]
    with open_store(work / "index") as store:
        first = {
            name: np.mean([
                Searcher(encoder, store).search(row["query"], "dense", k=1)[0].id == row["pos_ids"][0]
                for row in rows
            ])
            for name, encoder in (("before", load(work / "tiny", device="cpu")), ("after", tower))
        }  # fmt: skip
    assert first["after"] > first["before"] + 0.1
    with pytest.raises(TrichromeError, match="queries only"):
        tower.encode(["the moon"])


@pytest.mark.parametrize("changes", [{}, {"train": "lowrank"}], ids=["all", "lowrank"])
def test_a_stopped_run_goes_on_to_the_same_bits(work: Path, changes: dict[str, Any]) -> None:
    queries(recipe(work, "whole", **changes))
    left = iter([False] * 7)
    stopped = queries(recipe(work, "parts", **changes), Watch(stop=lambda: next(left, True)))
    assert (stopped.steps, stopped.finished) == (7, False)
    queries(recipe(work, "parts", **changes))
    one, other = (load_file(work / run / "model" / "model.safetensors") for run in ("whole", "parts"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_parts_of_a_batch_give_the_gradient_of_the_whole(work: Path) -> None:
    """Rows of the index that are found, and so the loss, don't depend on how a batch is cut."""
    for name, tokens in (("whole", 4096), ("parts", 20)):
        queries(recipe(work, name, steps=3, sub_batch_tokens=tokens))
    logs = [read_log(work / name / "log.jsonl") for name in ("whole", "parts")]
    for one, other in zip(*logs, strict=True):
        for figure in ("loss/total", "mrr/dense", "accuracy/dense", "grad/backbone"):
            assert one[figure] == pytest.approx(other[figure], rel=1e-3)


def test_rows_without_an_answer_are_refused_or_left_out(work: Path) -> None:
    with (work / "questions.jsonl").open("a") as file:
        file.write(json.dumps({"query": "nothing answers", "pos": ["this"], "pos_ids": ["d999"]}) + "\n")
    with pytest.raises(TrichromeError, match="1 of 41 rows"):
        queries(recipe(work))
    made = queries(recipe(work, skip_bad=True))
    assert made.finished
    log = read_log(work / "run" / "log.jsonl")
    assert sum(r["unanswered"] for r in log) > 0


def test_what_is_refused(work: Path) -> None:
    for changes, said in (
        ({"queries": QuerySide()}, r"queries\.index"),
        ({"queries": QuerySide(str(work / "nowhere"))}, "nowhere"),
        ({"objective": Objective(ranking="mann_whitney")}, "compares queries"),
        ({"evaluation": Evaluation((work / "task",))}, r"evaluation\.tasks"),
        ({"measure_sizes": True}, "measure_sizes"),
    ):
        with pytest.raises(TrichromeError, match=said):
            queries(recipe(work, **changes))
    save(tiny_encoder(prompts={"query": "what ", "passage": ""}), work / "other")
    with pytest.raises(ModelMismatch, match="start from that model"):
        queries(recipe(work, model=str(work / "other")))
    trained = queries(recipe(work, steps=2))
    again = queries(recipe(work, "again", model=str(trained.model), steps=2))  # a query tower may go on
    assert again.encoder.queries_of == trained.encoder.queries_of


@pytest.fixture
def codes(work: Path) -> Path:
    """The index as codes of 4 bytes a document, too few to rank well."""
    with open_store(work / "index") as store:
        vectors = store.embeddings(store.rows_of([f"d{i}" for i in range(60)])).dense
        quantiser = train_quantiser(vectors, 4)
        with open_copy(store.manifest, work / "codes", kind="exact", quantiser=quantiser) as made:
            copy_store(store, made)
    return work / "codes"


def test_centroids_learn_with_the_queries(work: Path, codes: Path) -> None:
    side = QuerySide(str(codes), depth=30)
    alone = queries(recipe(work, "alone", steps=40, queries=side))
    rates = Optimiser(rate=1e-3, centroid_rate=1e-2, warmup=0.2)
    trained = queries(recipe(work, steps=40, queries=side, optimiser=rates))
    assert trained.finished
    assert alone.model is not None
    assert trained.model is not None
    assert not (work / "alone" / "index").exists()
    losses = [read_log(work / name / "log.jsonl")[-1]["loss/total"] for name in ("alone", "run")]
    assert losses[1] < losses[0]
    tower = load(trained.model, device="cpu")
    with open_store(codes) as before, open_store(work / "run" / "index") as after:
        assert isinstance(before, ExactStore)
        assert isinstance(after, ExactStore)
        ids = [f"d{i}" for i in range(60)]
        np.testing.assert_array_equal(
            before.dense_codes(before.rows_of(ids)), after.dense_codes(after.rows_of(ids))
        )
        assert before.quantiser is not None
        assert after.quantiser is not None
        np.testing.assert_array_equal(before.quantiser.rotation, after.quantiser.rotation)
        assert np.abs(before.quantiser.centroids - after.quantiser.centroids).max() > 1e-3
        assert (before.manifest, dict(before.scan())) == (after.manifest, dict(after.scan()))
        rows = [json.loads(line) for line in (work / "questions.jsonl").read_text().splitlines()]
        first = [
            np.mean([
                Searcher(encoder, store).search(row["query"], "dense", k=1)[0].id == row["pos_ids"][0]
                for row in rows
            ])
            for encoder, store in ((load(work / "tiny", device="cpu"), before), (tower, after))
        ]  # fmt: skip
    assert first[1] > first[0] + 0.2


def test_training_with_centroids_goes_on_to_the_same_bits(work: Path, codes: Path) -> None:
    side, rates = QuerySide(str(codes), depth=30), Optimiser(rate=1e-3, centroid_rate=1e-2)
    queries(recipe(work, "whole", queries=side, optimiser=rates))
    left = iter([False] * 7)
    stop = Watch(stop=lambda: next(left, True))
    queries(recipe(work, "parts", queries=side, optimiser=rates), stop)
    assert not (work / "parts" / "index").exists()
    queries(recipe(work, "parts", queries=side, optimiser=rates))
    one, other = (ProductQuantiser.load(work / run / "index" / QUANTISER) for run in ("whole", "parts"))
    np.testing.assert_array_equal(one.centroids, other.centroids)


def test_centroids_need_codes(work: Path, codes: Path) -> None:
    rates = Optimiser(rate=1e-3, centroid_rate=1e-2)
    with pytest.raises(TrichromeError, match="dense codes"):
        queries(recipe(work, optimiser=rates))
    other = train_quantiser(np.eye(32, dtype=np.float32), 4)
    with pytest.raises(TrichromeError, match="not of a quantiser of this rotation"):
        copy_with_centroids(codes, work / "new", other)
    assert not (work / "new").exists()
