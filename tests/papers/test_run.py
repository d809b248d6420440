"""Every row runs at scale mini, through the command; its state is recorded, its identities hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trichrome.cli.main import app
from trichrome.papers.pattern.citations import CITATIONS
from trichrome.papers.pattern.paper import SCALES
from trichrome.papers.pattern.record import STATES
from trichrome.papers.pattern.rows import built, paper, recorded_results

DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.parametrize("name", built())
def test_a_row_runs_and_its_identities_hold(name: str, tmp_path: Path) -> None:
    """On the training sets where they are, else on a package's texts."""
    pytest.importorskip("django")
    where = ["--data", str(DATA)] if (DATA / "train").is_dir() else []
    command = ["papers", "run", name, "--seeds", "2", "--out", str(tmp_path), "--json", *where]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    (record,) = json.loads(done.stdout)
    assert record == json.loads((tmp_path / f"{name}.mini.json").read_text("utf-8"))
    assert record["state"] in ("works", "fails")
    assert all(record["identities"].values()), record["identities"]
    assert [o["expected"]["measure"] for o in record["outcomes"]] == [e.measure for e in paper(name).expects]
    assert all(source["name"] and source["licence"] for source in record["sources"])


def test_the_list_has_every_row(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["papers", "--json", "--results", str(tmp_path)])
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)
    assert [row["number"] for row in rows] == [c.number for c in CITATIONS]
    assert {row["state"] for row in rows} == {"not yet"}
    shown = CliRunner().invoke(app, ["papers"])
    assert shown.exit_code == 0, shown.output
    recorded = json.loads(CliRunner().invoke(app, ["papers", "--json"]).stdout)
    lines = [" ".join(line.split()) for line in shown.output.splitlines()]
    for row in recorded:  # whole, however narrow the terminal
        assert any(line.startswith(f"{row['number']} {row['name']} {row['state']} ") for line in lines), row


def test_an_unknown_row_is_one_clear_error() -> None:
    for name, said in (("mw_los", "mw_loss"), ("probtree", "not built yet")):
        done = CliRunner().invoke(app, ["papers", "run", name])
        assert done.exit_code == 1
        assert said in done.output
    assert CliRunner().invoke(app, ["papers", "run"]).exit_code == 1


def test_committed_results_are_of_known_rows_and_scales() -> None:
    for path in recorded_results().glob("*.json"):
        name, scale = path.name.removesuffix(".json").split(".")
        assert name in built()
        assert scale in SCALES
        assert json.loads(path.read_text("utf-8"))["state"] in STATES
