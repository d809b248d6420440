"""index and search on small documents in four languages, with the built-in model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from tests.cli.conftest import DOCUMENTS, Command, Outcome
from tests.tiny import tiny_encoder
from trichrome.cli.search import ModeName, conditions
from trichrome.encoder import save
from trichrome.errors import TrichromeError
from trichrome.index import open_store
from trichrome.search import MODE_NAMES
from trichrome.search.revisers import DenseReviser, LearnedReviser


def write_jsonl(path: Path, *rows: object) -> Path:
    path.write_text("".join(r if isinstance(r, str) else json.dumps(r) + "\n" for r in rows), "utf-8")
    return path


# index


def test_index_says_what_it_did(notes: Outcome, home: Path):
    summary = notes.json()
    assert summary["format"] == "files"
    assert (summary["documents_read"], summary["added"], summary["stored"]) == (4, 4, 4)
    assert summary["documents_skipped"] == {"unknown suffix": 1}
    assert summary["texts_per_second"] > 0
    with open_store(home / "notes") as store:
        assert store.manifest.settings["passage_tokens"] == 256
        assert {id for id, _ in store.scan()} == set(DOCUMENTS)


def test_unchanged_documents_are_not_encoded_again(run: Command, notes: Outcome, documents: Path):
    shown = run("index", documents, "--to", "notes")
    assert shown.code == 0, shown.err
    assert "0 added, 0 updated, 4 unchanged, 0 deleted" in shown.out
    assert "picture.xyz" in shown.out


def test_an_edited_document_leaves_no_old_passage(run: Command, tmp_path: Path):
    source, text = tmp_path / "source", " ".join(f"Sentence number {i} of a long text." for i in range(40))
    source.mkdir()
    (source / "long.txt").write_text(text)
    (source / "gone.txt").write_text("This file will be removed.")
    store = f"{tmp_path}/store"
    cut = ("--passage-tokens", 32, "--overlap", 4, "--kind", "exact", "--json")
    first = run("index", source, "--to", store, *cut).json()
    assert first["documents_cut"] == 1
    assert first["added"] > 5
    (source / "long.txt").write_text(text[:200])
    (source / "gone.txt").unlink()
    second = run("index", source, "--to", store, *cut).json()
    assert 1 < second["stored"] < first["stored"]
    with open_store(store) as opened:
        left = {id: payload for id, payload in opened.scan() if id.startswith("long.txt")}
        assert {payload["document"] for payload in left.values()} == {"long.txt"}
        assert max(int(payload["end"]) for payload in left.values()) == 200
        assert "gone.txt" in {id for id, _ in opened.scan()}  # another source may hold it: kept
    third = run("index", source, "--to", store, *cut, "--prune").json()
    assert third["deleted"] == 1


def test_an_index_keeps_its_model_and_its_passages(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It is told once how to encode and cut; later runs and searches, from any folder, do the same."""
    monkeypatch.chdir(tmp_path)
    save(tiny_encoder(), tmp_path / "model")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.txt").write_text("the old cat sings over the river " * 8)
    options = ("--model", "model", "--passage-tokens", 16, "--overlap", 2, "--dtype", "float32")
    first = run("index", "source", "--to", "tiny", *options, "--json").json()
    assert first["stored"] > 2
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = run("index", tmp_path / "source", "--to", "tiny", "--json").json()
    assert (again["unchanged"], again["added"], again["deleted"]) == (first["stored"], 0, 0)
    assert run("search", "tiny", "cat", "--json").json()
    for option, value in (("--passage-tokens", 20), ("--overlap", 3), ("--dtype", "bfloat16")):
        failed = run("index", tmp_path / "source", "--to", "tiny", option, value)
        assert failed.code == 1
        assert f"leave {option} out" in failed.err


def test_a_bad_line_stops_with_its_place_and_leaves_nothing(run: Command, home: Path, tmp_path: Path):
    path = write_jsonl(tmp_path / "bad.jsonl", {"id": "1", "text": "one"}, '{"id": "2", "te\n')
    failed = run("index", path, "--to", "bad")
    assert failed.code == 1
    assert failed.err.startswith(f"error: {path}:2: ")
    assert failed.err.count("\n") == 1
    assert not list(home.glob("*bad*"))

    skipping = run("index", path, "--to", "skipping", "--skip-bad", "--json")
    assert skipping.json()["stored"] == 1
    assert sum(skipping.json()["documents_skipped"].values()) == 1


def test_documents_that_cannot_be_stored_are_named(run: Command, tmp_path: Path):
    rows = {"id": "a", "text": "A text."}, {"id": "empty", "text": " "}
    path = write_jsonl(tmp_path / "rows.jsonl", *rows)
    shown = run("index", path, "--to", f"{tmp_path}/store")
    assert shown.code == 0
    assert "empty: neither title nor text" in shown.out
    assert "stored     1 passages" in shown.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("/no/such/folder", "--to", "x"), "/no/such/folder: no such file or folder"),
        (("DOCUMENTS", "--to", ".hidden"), "cannot name an index"),
        (("DOCUMENTS", "--to", "x", "--passage-tokens", "4000"), "more than small reads"),
        (("DOCUMENTS", "--to", "x", "--format", "docx"), "unknown format 'docx'"),
        (("DOCUMENTS", "--to", "x", "--model", "DOCUMENTS"), "config.json is missing: not a model folder"),
        (("DOCUMENTS", "--to", "x", "--overlap", "200"), "overlap"),
    ],
)
def test_what_cannot_be_indexed(
    run: Command, home: Path, documents: Path, options: tuple[str, ...], message: str
):
    failed = run("index", *(str(documents) if o == "DOCUMENTS" else o for o in options))
    assert failed.code == 1
    assert message in failed.err
    assert not (home / "x").exists()


def test_a_model_folder_without_heads_is_refused(run: Command, home: Path, documents: Path, tmp_path: Path):
    save(tiny_encoder(), tmp_path / "model", layout="flagembedding")
    (tmp_path / "model" / "sparse_linear.pt").unlink()
    failed = run("index", documents, "--to", "headless", "--model", tmp_path / "model")
    assert failed.code == 1
    assert "sparse_linear.pt missing" in failed.err
    assert not (home / "headless").exists()


def test_another_model_is_refused(run: Command, notes: Outcome, documents: Path, tmp_path: Path):
    save(tiny_encoder(), tmp_path / "model")
    for command in (
        ("index", documents, "--to", "notes", "--passage-tokens", 8, "--overlap", 0),
        ("search", "notes", "password"),
    ):
        failed = run(*command, "--model", tmp_path / "model")
        assert failed.code == 1
        assert "built with" in failed.err
        assert "small" in failed.err


# search


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("How do I get a new password?", "password.md"),
        ("متى تُحذف النسخ الاحتياطية؟", "sub/backup.txt"),
        ("return a product", "returns.txt"),
        ("opening hours of the office", "office.html"),
    ],
)
def test_the_right_document_is_found_in_four_languages(run: Command, notes: Outcome, query: str, found: str):
    hits = run("search", "notes", query, "--json").json()
    assert hits[0]["id"] == found
    assert {"score", "dense", "sparse", "multivector", "payload"} <= hits[0].keys()
    assert hits[0]["score"] == max(hit["score"] for hit in hits)
    assert "_hash" not in hits[0]["payload"]


def test_every_mode_ranks_by_its_scores(run: Command, notes: Outcome):
    assert get_args(ModeName) == MODE_NAMES
    by_mode = {
        mode: run("search", "notes", "reset a password", "--mode", mode, "--json").json()
        for mode in MODE_NAMES
    }
    for signal in ("dense", "sparse", "multivector"):
        assert all(hit["score"] == pytest.approx(hit[signal], abs=1e-5) for hit in by_mode[signal])
    best = by_mode["all"][0]
    assert best["score"] == pytest.approx(
        best["dense"] + 0.3 * best["sparse"] + best["multivector"], abs=1e-4
    )


def test_weights_and_fusion_change_the_score(run: Command, notes: Outcome):
    weighted = run("search", "notes", "reset a password", "--weights", "2,0,0", "--json").json()
    assert weighted[0]["score"] == pytest.approx(2 * weighted[0]["dense"], abs=1e-4)
    fused = run("search", "notes", "reset a password", "--fusion", "rrf", "--json").json()
    assert fused[0]["score"] == pytest.approx(3 / 61, abs=1e-6)  # first in all three rankings


def test_filters(run: Command, notes: Outcome):
    found = run("search", "notes", "password", "--filter", "format=html", "--json").json()
    assert [hit["id"] for hit in found] == ["office.html"]
    either = run(
        "search", "notes", "password", "--filter", 'format=["html","md"]', "-k", "9", "--json"
    ).json()
    assert {hit["id"] for hit in either} == {"office.html", "password.md"}
    assert "nothing was found" in run("search", "notes", "password", "--filter", "format=pdf").out


def test_filters_compare_numbers():
    bounds = conditions(["year>=2020", "year<2024.5", "lang=ja", "note=a>b=c"])
    assert bounds == {"year": {"gte": 2020, "lt": 2024.5}, "lang": "ja", "note": "a>b=c"}
    for pairs in (["year>=late"], ["year>=1", "year>=2"], ["year=1", "year>=2"], ["lang"], ["=x"]):
        with pytest.raises(TrichromeError, match="--filter"):
            conditions(pairs)


def test_a_range_lets_only_its_documents_through(run: Command, tmp_path: Path):
    rows = [{"id": str(year), "text": "The yearly report.", "year": year} for year in (2019, 2020, 2021)]
    store = f"{tmp_path}/store"
    assert run("index", write_jsonl(tmp_path / "rows.jsonl", *rows), "--to", store).code == 0
    hits = run("search", store, "report", "--filter", "year>=2020", "--filter", "year<2021", "--json").json()
    assert [hit["id"] for hit in hits] == ["2020"]


def test_depth_bounds_the_candidates_and_the_preset_sets_the_weights(run: Command, notes: Outcome):
    options = ("search", "notes", "reset a password", "-k", "1", "--json")
    near = run(*options, "--depth", "1").json()[0]
    best = run(*options, "--preset", "long").json()[0]
    assert near["id"] == best["id"] == "password.md"
    assert best["score"] == pytest.approx(
        0.15 * best["dense"] + 0.5 * best["sparse"] + 0.35 * best["multivector"], abs=1e-4
    )


def test_a_query_that_is_cut_says_so_in_one_line(run: Command, notes: Outcome):
    shown = run("search", "notes", "password " * 600, "--json")
    assert shown.code == 0
    assert shown.err == "the query is longer than the 512 tokens that the model reads: cut\n"


def test_hits_show_scores_bars_and_the_text_on_its_own_line(run: Command, notes: Outcome):
    shown = run("search", "notes", "backup", "-k", "4")
    assert shown.code == 0
    lines = shown.out.splitlines()
    for id in DOCUMENTS:
        assert sum(line.endswith(id) for line in lines) == 1
    assert sum("dense 0." in line and "sparse" in line and "multi" in line for line in lines) == 4
    assert any("█" in line for line in lines)
    arabic = [line for line in lines if "خادم" in line]
    assert arabic
    assert all(
        line.startswith("    ") and not any(c.isascii() and c.isalpha() for c in line) for line in arabic
    )


def test_explain_names_the_tokens(run: Command, notes: Outcome):
    shown = run("search", "notes", "forgotten password", "-k", "1", "--explain").out
    assert "shared tokens → sparse" in shown
    assert "nearest tokens → multi-vector" in shown
    hit = run("search", "notes", "forgotten password", "-k", "1", "--explain", "--json").json()[0]
    assert "▁password" in {token["token"] for token in hit["explanation"]["shared"]}
    assert sum(t["contribution"] for t in hit["explanation"]["shared"]) == pytest.approx(
        hit["sparse"], abs=1e-2
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("search", "nowhere", "x"), 1, "there is no index 'nowhere'"),
        (("search", "notes", "x", "--mode", "lexical"), 2, "'multivector'"),
        (("search", "notes", "  "), 1, "the query is empty"),
        (("search", "notes", "x", "--filter", "lang"), 1, "write key=value"),
        (("search", "notes", "x", "--weights", "1,much,1"), 1, "write three numbers"),
        (("search", "notes", "x", "--weights", "1,1"), 1, "three weights are needed"),
        (("search", "notes", "x", "-k", "0"), 2, "-k"),
    ],
)
def test_what_cannot_be_searched(
    run: Command, notes: Outcome, arguments: tuple[str, ...], code: int, message: str
):
    failed = run(*arguments)
    assert failed.code == code
    assert message in failed.err
    assert failed.out == ""
    assert "Traceback" not in failed.err


def test_an_index_in_use_says_so(run: Command, notes: Outcome, home: Path):
    with open_store(home / "notes"):
        failed = run("search", "notes", "password")
        assert "(in use)" in run("info", "notes").out
    assert failed.code == 1
    assert "open elsewhere" in failed.err


def test_a_search_with_feedback(run: Command, notes: Outcome, tmp_path: Path):
    question = ("search", "notes", "how do I reset my password", "--mode", "dense", "--json")
    plain, twice = run(*question).json(), run(*question, "--feedback", "1").json()
    assert [hit["id"] for hit in twice] == [hit["id"] for hit in plain]
    assert twice[0]["score"] > plain[0]["score"] + 0.01  # nearer to what was found
    LearnedReviser(DenseReviser(384)).save(tmp_path / "r.safetensors")
    learnt = run(*question, "--feedback", "1", "--reviser", tmp_path / "r.safetensors").json()
    assert learnt[0]["score"] not in (plain[0]["score"], twice[0]["score"])
    alone = run(*question, "--reviser", tmp_path / "r.safetensors")
    assert alone.code == 1
    assert "--reviser goes with --feedback" in alone.err
    other = run(*question, "--feedback", "2", "--reviser", tmp_path / "none")
    assert "no reviser, or damaged" in other.err
