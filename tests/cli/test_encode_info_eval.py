"""encode, info and eval, with the built-in model on small inputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trichrome
import trichrome.cli.encode as encode_command
from tests.cli.conftest import Command, Outcome
from trichrome.cli.settings import open_model
from trichrome.formats.trec import read_run

TEXTS = ["The file is empty.", "", "ファイルが空です。", "Hello"]


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    path.write_text("\n".join(TEXTS), "utf-8")
    return path


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task of three documents and three queries in two languages."""
    folder = tmp_path_factory.mktemp("tasks") / "tiny"
    folder.mkdir()
    corpus = [("d1", "en", "The password was changed."), ("d2", "de", "Der Drucker hat kein Papier mehr."),
              ("d3", "en", "Bread is baked from flour and water.")]  # fmt: skip
    queries = [
        ("q1", "en", "new password"),
        ("q2", "de", "Papier nachfüllen"),
        ("q3", "en", "how to bake bread"),
    ]
    for name, rows in (("corpus", corpus), ("queries", queries)):
        text = "".join(json.dumps({"_id": i, "lang": lang, "text": t}) + "\n" for i, lang, t in rows)
        (folder / f"{name}.jsonl").write_text(text, "utf-8")
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td2\t1\nq3\td3\t1\n")
    return folder


# encode


def test_encode_writes_all_outputs_and_ids(run: Command, lines: Path, tmp_path: Path):
    to = tmp_path / "made.safetensors"
    done = run("encode", lines, "--to", to, "--kind", "query")
    assert done.code == 0, done.err
    assert done.out == ""
    made = trichrome.Embeddings.load(to)
    assert made.signals == ("dense", "sparse", "multivector")
    assert json.loads(Path(f"{to}.ids.json").read_text()) == ["1", "3", "4"]
    wanted = open_model("small", "float32").encode([t for t in TEXTS if t], kind="query")
    assert np.allclose(made.dense, wanted.dense, atol=1e-5)


def json_lines(outcome: Outcome) -> list[Any]:
    assert outcome.code == 0, outcome.err
    return [json.loads(line) for line in outcome.out.splitlines()]


def test_encode_prints_a_line_of_sparse_weights_for_each_text(run: Command, tmp_path: Path):
    path = tmp_path / "documents.jsonl"
    path.write_text('{"id": "a", "title": "Passwords", "text": "How to choose one."}\n')
    rows = json_lines(run("encode", path, "--json"))
    assert [row.keys() for row in rows] == [{"id", "sparse"}]
    assert rows[0]["id"] == "a"
    assert "▁Password" in rows[0]["sparse"]
    assert all(weight > 0 for weight in rows[0]["sparse"].values())
    assert json_lines(run("encode", "-", "--json", stdin=path.read_text())) == rows
    plain = json_lines(run("encode", "-", "--json", "--outputs", "dense, multivector", stdin="one\n\ntwo\n"))
    assert [row["id"] for row in plain] == ["1", "3"]
    assert [len(row["dense"]) for row in plain] == [384, 384]
    assert len(plain[0]["multivector"][0]) == 128


def test_encode_takes_chunks_and_goes_on_after_a_stop(
    run: Command, lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What Ctrl-C leaves is used: a second run encodes only the chunks that are missing."""
    monkeypatch.setattr(encode_command, "CHUNK", 1)
    to, calls = tmp_path / "made.safetensors", 0
    encoder = open_model("small", "float32")
    whole = encoder.encode

    def stopping(*arguments: Any, **settings: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return whole(*arguments, **settings)

    monkeypatch.setattr(encoder, "encode", stopping)
    stopped = run("encode", lines, "--to", to)
    assert stopped.code == 130
    assert "stopped; 2 texts are kept" in stopped.err
    assert not to.exists()
    done = run("encode", lines, "--to", to)
    assert done.code == 0, done.err
    assert calls == 4
    made = trichrome.Embeddings.load(to)
    assert np.allclose(made.dense, whole([t for t in TEXTS if t]).dense, atol=1e-5)


def test_texts_that_are_cut_are_counted_in_one_line(run: Command):
    done = run("encode", "-", "--json", stdin="short\n" + "long " * 600 + "\n")
    assert len(json_lines(done)) == 2
    assert done.err == "1 of 2 texts were cut to the 512 tokens read\n"


def test_encode_some_outputs(run: Command, lines: Path, tmp_path: Path):
    to = tmp_path / "dense.safetensors"
    assert run("encode", lines, "--to", to, "--outputs", "dense", "--dtype", "bfloat16").code == 0
    assert trichrome.Embeddings.load(to).signals == ("dense",)


@pytest.mark.parametrize(
    ("source", "options", "code", "message"),
    [
        (b"ok\nb\xffd\n", ("--json",), 1, "stdin:2: "),
        (b'{"id": "a", "text": "x"}\n{"id": "a", "text": "y"}\n', ("--json",), 1, "stdin:2: the id 'a'"),
        (b"\n \n", ("--json",), 1, "no text to encode"),
        (b"x\n", (), 2, "--to"),
        (b"x\n", ("--json", "--to", "FILE"), 2, "--to"),
        (b"x\n", ("--to", "FILE", "--outputs", "colbert"), 1, "no output 'colbert'"),
        (b"x\n", ("--to", "FILE", "--kind", "document"), 2, "'passage'"),
    ],
)
def test_what_cannot_be_encoded(
    run: Command, tmp_path: Path, source: bytes, options: tuple[str, ...], code: int, message: str
):
    to = tmp_path / "out.safetensors"
    failed = run("encode", "-", *(str(to) if o == "FILE" else o for o in options), stdin=source)
    assert failed.code == code
    assert message in failed.err
    assert not list(tmp_path.iterdir())


# info


def test_info_of_everything_an_index_and_a_model(run: Command, notes: Outcome):
    everything = run("info", "--json").json()
    assert everything["trichrome"] == trichrome.__version__
    assert everything["indexes"]["notes"].startswith("4 documents, embedded, small")
    index = run("info", "notes", "--json").json()
    assert (index["documents"], index["dense"], index["multivector"]) == ("4", 384, 128)
    model = run("info", "small", "--json").json()
    assert model["fingerprint"] == index["fingerprint"]
    assert model["max_tokens"] == 512
    assert "notes" in run("info").out


def test_info_of_nothing_known(run: Command, notes: Outcome):
    failed = run("info", "unheard-of")
    assert failed.code == 1
    assert "neither an index" in failed.err
    assert "notes" in failed.err


# eval


def test_eval_prints_and_writes_everything(run: Command, task: Path, tmp_path: Path):
    out = tmp_path / "results"
    shown = run("eval", task, "--out", out, "--by-language", "--compare", "all,bm25-words")
    assert shown.code == 0, shown.err
    for system in ("bm25-tokenizer", "bm25-words", "dense", "sparse", "multivector", "dense+sparse", "all"):
        assert system in shown.out
    for text in ("nDCG@10", "Recall@100", "MRR@10", "3 queries, 3 documents", "paired bootstrap", "de"):
        assert text in shown.out
    assert len(list(out.glob("*.trec"))) == 7
    assert (out / "results.png").read_bytes().startswith(b"\x89PNG")
    assert "tiny" in (out / "results.md").read_text()
    saved = json.loads((out / "results.json").read_text())
    printed = run("eval", task, "--json").json()
    assert printed["means"] == saved["means"]
    assert printed["means"]["all"]["nDCG@10"] == 1.0
    run_file = read_run(out / "tiny.all.trec")
    assert max(run_file["q1"], key=run_file["q1"].get) == "d1"


def test_eval_against_earlier_results(run: Command, task: Path, tmp_path: Path):
    earlier = tmp_path / "earlier"
    assert run("eval", task, "--modes", "dense", "--out", earlier).code == 0
    results = earlier / "results.json"
    shown = run("eval", task, "--against", results)
    assert shown.code == 0, shown.err
    assert "tiny: nDCG@10 in %, before: small" in shown.out
    assert "+0.0 … +0.0" in shown.out
    found = run("eval", task, "--against", results, "--json").json()["against"]["tiny"]
    assert list(found) == ["dense"]
    assert (found["dense"]["difference"], found["dense"]["p"]) == (0, 1)
    fewer = run("eval", task, "--against", results, "--max-queries", "2")
    assert fewer.code == 1
    assert "only results on the same task" in fewer.err


def test_eval_of_chosen_modes_in_the_querys_language(run: Command, task: Path):
    found = run(
        "eval", task, "--modes", "dense,all", "--within-language", "--max-queries", "2", "--json"
    ).json()
    report = found["tasks"][0]
    assert report["queries"] == 2
    assert set(report["means"]) == {"bm25-tokenizer", "bm25-words", "dense", "all"}
    assert report["settings"]["within_language"] is True


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--modes", "dense,lexical"), "unknown mode 'lexical'"),
        (("--qrels", "dev"), "it holds qrels.tsv"),
        (("--compare", "all"), "name two systems"),
        (("--compare", "all,splade"), "no comparison"),
        (("--against", "nowhere.json"), "nowhere.json: can't be read"),
    ],
)
def test_what_cannot_be_evaluated(
    run: Command, task: Path, tmp_path: Path, options: tuple[str, ...], message
):
    failed = run("eval", task, *options, "--out", tmp_path / "results")
    assert failed.code == 1
    assert message in failed.err
    assert failed.out == ""
    assert not (tmp_path / "results").exists()


def test_eval_of_a_folder_that_is_no_task(run: Command, tmp_path: Path):
    failed = run("eval", tmp_path)
    assert failed.code == 1
    assert "no corpus.jsonl" in failed.err
