"""mine and score, with the built-in model on a few rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from trichrome.formats.flagembedding import read_examples

FACTS = [
    ("en", "When does the office open?", "The office is open from Sunday to Thursday."),
    ("en", "How do I reset my password?", "Follow the link on the sign-in page to set a new password."),
    ("en", "How long can goods be returned?", "Goods can be sent back within fourteen days."),
    ("en", "Where are backups kept?", "Files are copied every night to another server."),
    ("de", "Wann öffnet das Büro?", "Das Büro ist von Sonntag bis Donnerstag geöffnet."),
    (
        "de",
        "Wie lange kann man Waren zurückgeben?",
        "Waren können binnen vierzehn Tagen zurückgesandt werden.",
    ),
]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    lines = [{"query": q, "pos": [p], "lang": lang, "id": f"{i % 4}"} for i, (lang, q, p) in enumerate(FACTS)]
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8")
    return path


def test_mine_writes_negatives_a_picture_and_what_it_did(run: Command, rows: Path, tmp_path: Path):
    to = tmp_path / "mined.jsonl"
    wide = (
        "--source",
        "dense:1-9",
        "--source",
        "bm25:1-9",
        "--relative-margin",
        1,
        "-n",
        2,
        "--dtype",
        "float32",
    )
    done = run("mine", rows, "--out", to, *wide)
    assert done.code == 0, done.err
    assert "removed: own positive" in done.out
    assert "% short" in done.out
    assert to.with_name("mined.jsonl.png").read_bytes().startswith(b"\x89PNG")
    made = list(read_examples(to))
    assert all(len(e.negatives) == 2 for e in made)
    assert FACTS[4][2] not in made[0].negatives  # rows 0 and 4 have one id: they are translations
    again = run("mine", rows, "--out", to, *wide, "--json")
    report = again.json()["mined.jsonl"]
    assert "finished already" in again.err
    assert (report["queries"], report["drawn"], report["short"]) == (6, 12, 0)
    assert report["removed"]["same id"] > 0


def test_mine_without_a_model_by_words_alone(run: Command, rows: Path, tmp_path: Path):
    done = run(
        "mine", rows, "--out", tmp_path / "out", "--source", "bm25-words:9", "--fill", "random:9",
        "--judge", "none", "--within-language", "--model", "/no/such/model", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    lang = {passage: tag for tag, _, passage in FACTS}
    made = list(read_examples(tmp_path / "out"))
    assert all(lang[text] == e.lang for e in made for text in e.negatives)
    assert [len(e.negatives) for e in made] == [3, 3, 3, 3, 1, 1]


def test_mine_from_an_index(run: Command, notes: object, rows: Path, tmp_path: Path):
    done = run("mine", rows, "--out", tmp_path / "out.jsonl", "--index", "notes", "--source", "sparse:9",
               "--source", "dense:9", "--relative-margin", 1, "--json")  # fmt: skip
    assert done.code == 0, done.err
    made = list(read_examples(tmp_path / "out.jsonl"))
    assert any("forgotten password" in text for e in made for text in e.negatives)
    assert {"password.md", "returns.txt"} & {id for e in made for id in e.negative_ids or ()}


def test_mine_by_an_adaptive_margin(run: Command, rows: Path, tmp_path: Path):
    removed = {}
    for margin in (0, 3):
        done = run("mine", rows, "--out", tmp_path / f"{margin}.jsonl", "--source", "dense:9", "--json",
                   "--relative-margin", 0, "--adaptive-margin", margin)  # fmt: skip
        assert done.code == 0, done.err
        removed[margin] = done.json()[f"{margin}.jsonl"]["removed"].get("adaptive margin", 0)
    assert removed[3] > removed[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--adaptive-margin", "-1"], "a number of standard deviations"),
        (["--source", "faiss:3"], "unknown source 'faiss'"),
        (["--judge", "none", "--draw", "bins"], "score bins need a judge"),
        (["--index", "a", "--corpus", "b"], "not from both"),
        (["--index", "absent"], "no index 'absent'"),
        (["--weights", "1,2"], "three numbers are needed"),
        (["--source", "bm25-words", "--judge", "none", "--scores", "rescorer"], "no rescorer"),
    ],
)
def test_mine_refuses_what_makes_no_sense_in_one_line(
    run: Command, rows: Path, tmp_path: Path, arguments: list[str], message: str
):
    done = run("mine", rows, "--out", tmp_path / "out.jsonl", *arguments)
    assert done.code == 1
    assert message in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "out.jsonl").exists()


def test_score_adds_the_models_scores(run: Command, rows: Path, tmp_path: Path):
    mined, to = tmp_path / "mined.jsonl", tmp_path / "scored.jsonl"
    run("mine", rows, "--out", mined, "--source", "random:9", "--judge", "none", "-n", 3)
    done = run("score", mined, "--out", to, "--json", "--dtype", "float32")
    assert done.code == 0, done.err
    report = done.json()
    assert (report["rows"], report["scored"], report["pairs"]) == (6, 6, 24)
    assert report["mean_positives"] > report["mean_negatives"]
    made = list(read_examples(to))
    assert all(len(e.negative_scores or ()) == 3 for e in made)
    agree = [max(e.negative_scores or ()) < min(e.positive_scores or ()) for e in made]
    assert report["agree"] == sum(agree) / 6 > 0.5
    shown = run("score", to, "--out", tmp_path / "again.jsonl", "--missing-only")
    assert "0 of 6 rows scored" in shown.out
    assert list(read_examples(tmp_path / "again.jsonl")) == made
