"""What a row is: expectations, intervals, records, citations."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trichrome.errors import TrichromeError
from trichrome.papers.pattern.citations import CITATIONS, citation
from trichrome.papers.pattern.intervals import over_queries, over_seeds
from trichrome.papers.pattern.paper import Expectation, Interval, Measured, Paper, Setting, Source
from trichrome.papers.pattern.record import best_record, file_of, measure, read_record, write_record
from trichrome.papers.pattern.rows import built, paper


def interval(low: float, high: float) -> Interval:
    return Interval((low + high) / 2, low, high, 5, "by hand")


@pytest.mark.parametrize(
    ("direction", "margin", "met", "unmet"),
    [
        ("up", 0.0, (0.1, 1), (-0.1, 1)),
        ("down", 0.0, (-1, -0.1), (-1, 0.1)),
        ("not down", 0.5, (-0.4, 0.1), (-0.6, 3)),
        ("not up", 0.5, (-9, 0.4), (-3, 0.6)),
        ("same", 0.5, (-0.4, 0.4), (-0.4, 0.6)),
    ],
)
def test_an_expectation_holds_where_the_whole_interval_does(
    direction: str, margin: float, met: tuple[float, float], unmet: tuple[float, float]
) -> None:
    expectation = Expectation("x", "points", direction, margin)  # type: ignore[arg-type]
    assert expectation.met(interval(*met))
    assert not expectation.met(interval(*unmet))


def test_an_expectation_without_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="margin"):
        Expectation("x", "points", "up", 0.5)
    with pytest.raises(ValueError, match="finite"):
        interval(float("nan"), 1)


def test_students_interval() -> None:
    """Mean 2, standard deviation √2.5, t(0.975, 4) = 2.776445."""
    found = over_seeds([0, 1, 2, 3, 4])
    half = 2.776445 * (2.5**0.5) / 5**0.5
    assert (found.effect, found.low, found.high) == pytest.approx((2, 2 - half, 2 + half), abs=1e-5)
    assert over_seeds([0.01, 0.03], scale=100).effect == pytest.approx(2)
    with pytest.raises(ValueError, match="two"):
        over_seeds([1.0])


def test_the_bootstrap_is_paired_and_takes_the_mean_of_seeds() -> None:
    draw = np.random.default_rng(0)
    hard = draw.random(400)
    found = over_queries(hard + 0.1, hard, scale=100)  # queries differ much, their differences not at all
    assert (found.low, found.high) == pytest.approx((10, 10))
    seeds = np.stack([hard + 0.3, hard - 0.1])
    assert over_queries(seeds, np.stack([hard, hard]), scale=100).effect == pytest.approx(10)
    loose = over_queries(draw.random(400), draw.random(400))
    assert loose.low < loose.effect < loose.high


def test_57_citations_each_with_a_name_of_its_own() -> None:
    assert [c.number for c in CITATIONS] == list(range(57))
    assert len({c.name for c in CITATIONS}) == 57
    assert all(c.title and c.families and c.link.startswith("https://") for c in CITATIONS)
    with pytest.raises(TrichromeError, match="mw_loss"):
        citation("mw_los")


def test_every_row_declares_its_claim() -> None:
    names = built()
    assert names
    for name in names:
        row = paper(name)
        assert row.citation == citation(name)
        assert row.claim.endswith(".")
        assert row.taken
        assert row.reconstructed
    missing = next(c.name for c in CITATIONS if c.name not in names)
    with pytest.raises(TrichromeError, match="not built yet"):
        paper(missing)


def test_rows_are_small_files() -> None:
    folder = Path(__file__).parents[2] / "src" / "trichrome" / "papers"
    for name in built():
        assert len((folder / f"{name}.py").read_text("utf-8").splitlines()) <= 150, name


def row(low: float, high: float, *, identity: bool = True) -> Paper:
    return Paper(
        citation("mw_loss"),
        claim="Something rises.",
        expects=(Expectation("x", "points", "up"),),
        taken="all",
        reconstructed="nothing",
        run=lambda setting: Measured(
            {"x": interval(low, high)}, [Source("a set", "free")], {"it holds": identity}
        ),
    )


@pytest.mark.parametrize(
    ("low", "high", "identity", "state"),
    [(1, 2, True, "works"), (-1, 2, True, "fails"), (1, 2, False, "fails")],
)
def test_a_record_holds_what_was_found_and_judges_it(
    low: float, high: float, identity: bool, state: str, tmp_path: Path
) -> None:
    record = measure(row(low, high, identity=identity), Setting())
    assert record.state == state
    path = write_record(tmp_path, record)
    assert path == file_of(tmp_path, "mw_loss", "mini")
    again = read_record(path)
    assert again.to_json() == json.loads(json.dumps(record.to_json()))
    larger = replace(record, scale="small", state="works")
    write_record(tmp_path, larger)
    best = best_record(tmp_path, "mw_loss")
    assert best is not None
    assert best.scale == "small"
    assert best_record(tmp_path, "m3") is None


def test_a_run_must_measure_what_it_declared(tmp_path: Path) -> None:
    left_out = replace(row(1, 2), run=lambda setting: Measured({}, [Source("a set", "free")]))
    with pytest.raises(ValueError, match="measured no 'x'"):
        measure(left_out, Setting())


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 99}', '{"format": 1, "name": "a"}'])
def test_a_damaged_record_is_one_clear_error(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.mini.json"
    path.write_text(text)
    with pytest.raises(TrichromeError, match=r"a\.mini\.json"):
        read_record(path)
