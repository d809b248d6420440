"""Reports: JSON and back, Markdown, TREC runs, the picture."""

import json
from dataclasses import replace

import pytest

from trichrome.errors import TrichromeError
from trichrome.evaluation import (
    Options,
    Report,
    Suite,
    comparison_table,
    evaluate,
    language_table,
    markdown,
    plot_bars,
)
from trichrome.formats.trec import read_run


@pytest.fixture
def report(encoder, task, tmp_path) -> Report:
    return evaluate(encoder, task, Options(cache=tmp_path / "cache", samples=100))


def test_json_round_trip(report, tmp_path) -> None:
    report.save(tmp_path / "r.json", per_query=True)
    read = Report.load(tmp_path / "r.json")
    assert read == report
    for system in report.systems:
        for metric, column in report.per_query[system].items():
            assert read.per_query[system][metric].tolist() == column.tolist()
    slim = Report.from_json(report.to_json())
    assert slim == replace(report, query_ids=(), query_langs=())
    suite = Suite((report, slim))
    assert Suite.from_json(json.loads(json.dumps(suite.to_json()))).means == suite.means == report.means


def test_what_is_no_report_is_refused(report, tmp_path) -> None:
    (tmp_path / "r.json").write_text('{"task": "x"}')
    with pytest.raises(TrichromeError, match=r"r\.json: not a report"):
        Report.load(tmp_path / "r.json")
    with pytest.raises(TrichromeError, match="no list of tasks"):
        Suite.from_json({})
    with pytest.raises(TrichromeError, match="no comparison"):
        report.compare("all", "nothing")


def test_markdown_by_hand(report) -> None:
    def with_means(name: str, **values: float) -> Report:
        means = {system: {"nDCG@10": value} for system, value in values.items()}
        return replace(report, task=name, means=means, queries=1234)

    table = markdown([with_means("a", dense=0.5, sparse=0.25), with_means("b", dense=0.1)][:1])
    assert (
        table
        == "| nDCG@10 | queries | dense | sparse |\n|---|--:|--:|--:|\n| a | 1,234 | **50.0** | 25.0 |\n"
    )
    absent = markdown([replace(report, means={}), report])
    assert absent.splitlines()[2].startswith("| tiny | 24 | – |")
    two = markdown([report, report]).splitlines()
    assert two[-1].replace("mean |  |", "tiny | 24 |") == two[-2]
    assert language_table(report).splitlines()[2].startswith("| en | 12 |")
    assert len(comparison_table(report).splitlines()) == 2 + 21


def test_comparisons_can_be_turned_round(report) -> None:
    forth, back = report.compare("dense", "all"), report.compare("all", "dense")
    assert (back.a, back.b, back.difference) == ("all", "dense", -forth.difference)
    assert (back.low, back.high, back.p) == (-forth.high, -forth.low, forth.p)


def test_trec_runs(report, tmp_path) -> None:
    paths = report.write_runs(tmp_path / "runs")
    assert [p.name for p in paths][:3] == [
        "tiny.bm25-tokenizer.trec",
        "tiny.bm25-words.trec",
        "tiny.dense.trec",
    ]
    for path, rankings in zip(paths, report.rankings.values(), strict=True):
        assert read_run(path) == {query: hits for query, hits in rankings.items() if hits}


def test_the_picture_is_a_png_with_every_group(report, tmp_path) -> None:
    plot_bars([report], tmp_path / "one.png")
    plot_bars([report, report], tmp_path / "two.png")
    for name in ("one.png", "two.png"):
        assert (tmp_path / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    width = [int.from_bytes((tmp_path / n).read_bytes()[16:20], "big") for n in ("one.png", "two.png")]
    assert width[1] >= width[0] > 500
