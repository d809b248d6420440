"""Mining for files: what is read and drawn of them, and a run that goes on where it stopped."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.negatives.small import UntiedEncoder, documents, examples
from trichrome.errors import TrichromeError
from trichrome.formats.flagembedding import read_examples, write_examples
from trichrome.negatives import MineReport, MineSettings, Rules, Sample, Source, mine_files, read_part
from trichrome.negatives.files import REPORT_SUFFIX, iter_outs
from trichrome.negatives.plots import plot_report
from trichrome.records import TrainingExample

CORPUS = documents()
SETTINGS = MineSettings(sources=(Source("dense", 1, 30),), negatives=3)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz"]
    write_examples(paths[0], examples(CORPUS))
    write_examples(paths[1], examples(CORPUS, count=12, seed=9))
    return paths


def test_rows_are_drawn_by_language_and_candidates_beside_them(files: list[Path]):
    part = read_part(files[0], Sample(max_rows=4, max_candidates=3))
    rows = list(read_examples(files[0]))
    assert [e.lang for e in part.examples].count("en") == 4
    assert [e.lang for e in part.examples].count("sw") == 4
    assert [rows.index(e) for e in part.examples] == sorted(rows.index(e) for e in part.examples)
    drawn = {text for e in part.examples for text in e.positives}
    further = set(part.table.texts) - drawn
    assert sum(any(t in e.positives for t in further) for e in rows) == 6
    assert part.examples == read_part(files[0], Sample(max_rows=4)).examples  # whatever is read beside
    assert part.examples != read_part(files[0], Sample(max_rows=4, seed=1)).examples
    assert set(read_part(files[0], Sample(max_rows=4)).table.texts) == {t for e in rows for t in e.positives}
    only_own = read_part(files[0], Sample(max_rows=4, max_candidates=0))
    assert set(only_own.table.texts) == drawn


def test_languages_are_left_out_alone_and_in_pairs(tmp_path: Path):
    rows = [
        TrainingExample(f"q{i}", (f"p{i}",), lang=lang)
        for i, lang in enumerate(["en", "de-en", "EU_es", None, "et"])
    ]
    write_examples(tmp_path / "rows.jsonl", rows)
    part = read_part(tmp_path / "rows.jsonl", Sample(without=("en", "eu")))
    assert [e.lang for e in part.examples] == [None, "et"]
    assert part.table.texts == ["p3", "p4"]


def test_the_passages_language_counts_in_pairs_of_languages(tmp_path: Path):
    tags = ["de-en", "fr-en", "en-de", "fr-de"] * 4
    rows = [TrainingExample(f"word{i}", (f"word{i} word{i + 1}",), lang=tag) for i, tag in enumerate(tags)]
    write_examples(tmp_path / "rows.jsonl", rows)
    paths = [tmp_path / "rows.jsonl"], [tmp_path / "out.jsonl"]
    settings = replace(
        SETTINGS,
        within_language=True,
        pair_tags=True,
        rules=Rules(),
        sources=(Source("random"),),
        negatives=9,
    )
    mine_files(*paths, UntiedEncoder(), settings, Sample(max_rows=3))
    made = list(read_examples(paths[1][0]))
    side = {row.positives[0]: str(row.lang)[-2:] for row in rows}
    assert sorted(str(e.lang)[-2:] for e in made) == ["de"] * 3 + ["en"] * 3
    assert all({side[t] for t in e.negatives} == {str(e.lang)[-2:]} for e in made)
    assert all(len(e.negatives) == 7 for e in made)  # all others of the language


def test_a_row_that_was_not_drawn_still_says_what_answers_a_query(tmp_path: Path):
    rows = [
        TrainingExample("word1 word2", (f"word1 word2 word{i}",), lang="en", id=f"r{i}") for i in range(3, 20)
    ]
    write_examples(tmp_path / "rows.jsonl", rows)
    mine_files(
        [tmp_path / "rows.jsonl"], [tmp_path / "out.jsonl"], UntiedEncoder(), SETTINGS, Sample(max_rows=2)
    )
    made = list(read_examples(tmp_path / "out.jsonl"))
    assert [e.negatives for e in made] == [(), ()]  # every passage answers the one query


def test_a_finished_file_is_left_alone_until_something_changes(files: list[Path], tmp_path: Path):
    outs = list(iter_outs(files, tmp_path / "out"))
    log: list[tuple[str, bool]] = []

    def run(
        settings: MineSettings = SETTINGS, sample: Sample | None = None, described: str = ""
    ) -> list[MineReport]:
        log.clear()
        return mine_files(
            files, outs, UntiedEncoder(), settings, sample, described=described,
            done=lambda out, report, before: log.append((out.name, before)),
        )  # fmt: skip

    first = run()
    assert log == [("a.jsonl", False), ("b.jsonl.gz", False)]
    content = outs[0].read_bytes()
    outs[1].unlink()  # as if the run had been stopped before the second was whole
    again = run()
    assert log == [("a.jsonl", True), ("b.jsonl.gz", False)]
    assert outs[0].read_bytes() == content
    assert [r.to_json() | {"seconds": 0} for r in again] == [r.to_json() | {"seconds": 0} for r in first]
    for changed in (
        {"settings": replace(SETTINGS, seed=1)},
        {"sample": Sample(max_rows=5)},
        {"described": "bf16"},
    ):
        run(**changed)
        assert [before for _, before in log] == [False, False], changed
    write_examples(files[0], examples(CORPUS, count=9))
    run(described="bf16")
    assert log == [("a.jsonl", False), ("b.jsonl.gz", True)]
    Path(f"{outs[1]}{REPORT_SUFFIX}").write_text("{}")
    run(described="bf16")
    assert log == [("a.jsonl", True), ("b.jsonl.gz", False)]


def test_a_corpus_gives_the_candidates_instead_of_the_positives(files: list[Path], tmp_path: Path):
    corpus = documents(seed=8)
    mine_files(files[:1], [tmp_path / "out.jsonl"], UntiedEncoder(), SETTINGS, corpus=lambda: corpus)
    made = list(read_examples(tmp_path / "out.jsonl"))
    assert {t for e in made for t in e.negatives} <= {d.content for d in corpus}
    text = {d.id: d.content for d in corpus}
    assert all(tuple(text[id] for id in e.negative_ids or ()) == e.negatives for e in made)
    assert sum(len(e.negatives) for e in made) > 50


def test_bad_rows_are_an_error_or_are_counted(files: list[Path], tmp_path: Path):
    files[0].write_text(files[0].read_text() + '{"query": "no passage"}\n')
    with pytest.raises(TrichromeError, match=r'a\.jsonl:26: no "pos"'):
        mine_files(files[:1], [tmp_path / "out.jsonl"], UntiedEncoder(), SETTINGS)
    assert not (tmp_path / "out.jsonl").exists()
    mine_files(files[:1], [tmp_path / "out.jsonl"], UntiedEncoder(), SETTINGS, Sample(skip_bad=True))
    told = json.loads((tmp_path / f"out.jsonl{REPORT_SUFFIX}").read_text())
    assert told["queries"] == 25
    assert list(told["skipped"].values()) == [[f"{files[0]}:26"]]


def test_outputs_never_overwrite_inputs_or_each_other(files: list[Path], tmp_path: Path):
    with pytest.raises(TrichromeError, match="output"):
        mine_files(files[:1], files[:1], UntiedEncoder(), SETTINGS)
    with pytest.raises(TrichromeError, match=r"two inputs are named a\.jsonl"):
        list(iter_outs([files[0], tmp_path / "other" / "a.jsonl"], tmp_path / "out"))
    assert list(iter_outs(files[:1], tmp_path / "one.jsonl")) == [tmp_path / "one.jsonl"]


def test_the_picture_is_a_png(files: list[Path], tmp_path: Path):
    outs = list(iter_outs(files, tmp_path / "out"))
    reports = mine_files(files, outs, UntiedEncoder(), SETTINGS)
    plot_report(dict(zip("ab", reports, strict=True)), tmp_path / "mine.png")
    plot_report({"nothing": MineReport()}, tmp_path / "empty.png")
    for name in ("mine.png", "empty.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
