"""train on a tiny model: what it prints and leaves, how it stops and goes on, what it refuses."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.evaluation.tiny_task import make_task
from tests.training.test_kill import STEPS, write_work
from trichrome.formats.beir import write_beir

pytest.importorskip("accelerate")
pytest.importorskip("peft")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_work(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_train_leaves_a_model_and_shows_the_five_modes(run: Command, work: Path):
    task = make_task()
    write_beir(work / "tiny-task", task.documents, task.queries, task.qrels)
    (work / "recipe.yaml").open("a").write("evaluation: {tasks: [tiny-task], every: 100}\nskip_bad: true\n")
    (work / "pairs.jsonl").open("a").write(
        "{}\n" + json.dumps({"query": "moon " * 30, "pos": ["moon"]}) + "\n"
    )
    shown = run("train", "unified", "-c", "recipe.yaml", "--steps", "4", "--output", "out")
    assert shown.code == 0, shown.err
    assert "41 rows in " in shown.err
    assert "% without length groups" in shown.err
    assert "41 read, 1 skipped: " in shown.err
    assert "pairs.jsonl:41" in shown.err
    assert "1 queries are longer than batches.query_tokens, and cut" in shown.err
    assert "trained 4 steps: out/model" in shown.out
    assert "before" in shown.out
    assert "dense+sparse" in shown.out
    for name in (
        "log.jsonl",
        "training.png",
        "deltas.safetensors",
        "heads.safetensors",
        "model/model.safetensors",
    ):
        assert (work / "out" / name).stat().st_size > 0
    again = run("train", "unified", "-c", "recipe.yaml", "--steps", "4", "--output", "out", "--json").json()
    assert (again["model"], again["steps"]) == ("out/model", 4)
    assert {"loss/total", "loss/dense", "loss/distil_sparse"} <= set(again["losses"])
    assert again["before"]["step"] == 0
    assert again["after"]["step"] == 4
    assert set(again["after"]) - {"step", "kind"} == {
        f"tiny-task/{mode}" for mode in ("dense", "sparse", "multivector", "dense+sparse", "all")
    }
    info = run("info", work / "out" / "model", "--json").json()
    assert info["multivector"] == 32


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT for oneself")
def test_ctrl_c_ends_after_a_step_and_the_same_command_goes_on(run: Command, work: Path):
    log = work / "out" / "log.jsonl"

    def interrupt() -> None:
        deadline = time.monotonic() + 60
        while not log.exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    command = ("train", "heads", "--config", "recipe.yaml", "--output", "out")
    stopped = run(*command)
    assert stopped.code == 130
    done = log.read_bytes().count(b"\n")
    assert 0 < done < STEPS
    assert f"stopped after step {done}; the same command goes on from there" in stopped.err
    assert not (work / "out" / "model").exists()
    resumed = run(*command)
    assert resumed.code == 0, resumed.err
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == list(range(1, STEPS + 1))


START = "model: tiny\ndata: [pairs.jsonl]\noutput: o\n"


@pytest.mark.parametrize(
    ("recipe", "arguments", "message"),
    [
        (None, ("unified",), "r.yaml: can't be read"),
        (START + "optimizer: {}\n", ("unified",), "r.yaml:4: optimizer: no such field"),
        (START + "batches:\n  by: topic\n", ("unified",), "r.yaml:5: batches.by: "),
        (START + "steps: 0\n", ("unified",), "steps must be > 0"),
        (START, ("unified", "--data", "none.jsonl"), "none.jsonl: no such file; mend `data`"),
        (START, ("unified", "--data", "none/*.jsonl"), "none/*.jsonl: no file matches"),
        (START, ("unified", "--data", "bad.jsonl"), 'bad.jsonl:2: no "pos"'),
        (START, ("unified", "--model", "./absent"), "./absent"),
        (START + "train: lowrank\n", ("retromae",), "retromae trains all weights"),
    ],
)
def test_what_cannot_be_trained(
    run: Command, work: Path, recipe: str | None, arguments: tuple[str, ...], message: str
):
    if recipe:
        (work / "r.yaml").write_text(recipe)
    (work / "bad.jsonl").write_text('{"query": "moon", "pos": ["the moon"]}\n{"query": "cat"}\n')
    failed = run("train", *arguments, "-c", "r.yaml")
    assert failed.code == 1
    assert message in failed.err
    assert "Traceback" not in failed.err
    assert "defect" not in failed.err
    assert failed.out == ""
    assert not (work / "o").exists()


def test_a_changed_file_or_setting_does_not_go_on(run: Command, work: Path):
    command = ("train", "heads", "-c", "recipe.yaml", "--steps", "2", "--output", "out")
    assert run(*command).code == 0
    other = run(*command, "--seed", "3")
    assert other.code == 1
    assert "made with other settings (rows_and_processes, seed)" in other.err
    pairs = (work / "pairs.jsonl").read_text()
    (work / "pairs.jsonl").write_text(pairs.replace("the", "a", 1))
    changed = run(*command)
    assert changed.code == 1
    assert "made with other settings (rows_and_processes)" in changed.err


def test_an_unknown_stage_is_a_wrong_argument(run: Command, work: Path):
    assert run("train", "distil", "-c", "recipe.yaml").code == 2


def test_queries_are_trained_against_an_index_and_search_it(run: Command, work: Path):
    pairs = [json.loads(line) for line in (work / "pairs.jsonl").read_text().splitlines()]
    corpus = [{"_id": f"d{i}", "title": "", "text": row["pos"][0]} for i, row in enumerate(pairs)]
    (work / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in corpus))
    made = run("index", "docs.jsonl", "--to", "./docs", "--model", "tiny", "--kind", "exact")
    assert made.code == 0, made.err
    (work / "recipe.yaml").open("a").write("queries: {index: ./docs, depth: 20}\n")
    shown = run("train", "queries", "-c", "recipe.yaml", "--steps", "3", "--output", "q")
    assert shown.code == 0, shown.err
    assert "trained 3 steps: q/model" in shown.out
    found = run("search", "./docs", pairs[0]["query"], "--mode", "dense", "--model", "q/model", "--json")
    assert found.code == 0, found.err
    assert len(found.json()) == 5
    refused = run("index", "docs.jsonl", "--to", "./more", "--model", "q/model")
    assert refused.code == 1
    assert "queries only" in refused.err


def test_a_retriever_and_a_ranker_are_trained_in_turn(run: Command, work: Path):
    """One round of recipes/small/ar2.sh, with its recipes and options."""
    recipes = Path(__file__).parents[2] / "recipes" / "small"
    pairs = [json.loads(line) for line in (work / "pairs.jsonl").read_text().splitlines()]
    (work / "corpus.jsonl").write_text(
        "".join(json.dumps({"_id": f"d{i}", "text": row["pos"][0]}) + "\n" for i, row in enumerate(pairs))
    )

    def done(*command: str) -> None:
        made = run(*command)
        assert made.code == 0, made.err

    window = ("--source", "dense:1-50", "--relative-margin", "0", "--negatives", "7")
    done(
        "mine", "pairs.jsonl", "--corpus", "corpus.jsonl", "--out", "mined.jsonl", "--model", "tiny", *window
    )
    for stage, name, data, model in (
        ("unified", "ar2-ranker", "mined.jsonl", "tiny"),
        ("contrastive", "ar2-retriever", "scored.jsonl", "tiny"),
    ):
        if stage == "contrastive":
            judge = ("--teacher", "hybrid", "--weights", "0,0,1", "--model", "ar2-ranker/model")
            done("score", "mined.jsonl", "--out", "scored.jsonl", *judge)
        config = str(recipes / f"{name}.yaml")
        done("train", stage, "-c", config, "--model", model, "--data", data, "--output", name, "--steps", "3")
    log = [json.loads(line) for line in (work / "ar2-retriever" / "log.jsonl").read_text().splitlines()]
    for record in log:  # no loss but those towards the ranker
        assert "loss/dense" not in record
        parts = record["loss/teacher"] + record["loss/adversarial"]
        assert record["loss/total"] == pytest.approx(parts)
    assert all(record["grad/backbone"] > 0 for record in log)
