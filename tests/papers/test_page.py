"""docs/papers.md is what the committed results say."""

from __future__ import annotations

from dataclasses import asdict

from benchmarks import papers
from trichrome.papers.pattern.citations import CITATIONS
from trichrome.papers.pattern.paper import Interval
from trichrome.papers.pattern.record import Outcome, Record
from trichrome.papers.pattern.rows import built, paper


def test_the_page_is_up_to_date() -> None:
    known = papers.every_record()
    assert papers.PAGE.read_text("utf-8") == papers.page(known)
    for name, found in known.items():
        assert (papers.PLOTS / f"{name}.webp").is_file() == bool(found[0].plots)


def test_a_row_that_fails_is_shown_as_failing() -> None:
    row = paper("mw_loss")
    outcomes = [
        Outcome(asdict(e), asdict(Interval(-1.0, -2.0, 0.5, 5, "Student's t over 5 seeds")), met=False)
        for e in row.expects
    ]
    record = Record(
        name="mw_loss", scale="mini", seeds=5, state="fails", claim=row.claim, outcomes=outcomes,
        identities={"a law": True}, figures={"a figure": 0.5}, sources=[{"name": "texts", "licence": "MIT"}],
        plots=[], notes=[], seconds=3.0, machine={},
    )  # fmt: skip
    text = papers.page({"mw_loss": [record]})
    line = next(line for line in text.splitlines() if line.startswith("| 12 |"))
    assert "fails" in line
    assert "**Fails** at scale `mini`" in text
    assert text.count("**no**") == len(row.expects)
    assert text.count("not yet") >= len(CITATIONS) - 1
    assert set(built()) <= {c.name for c in CITATIONS}
