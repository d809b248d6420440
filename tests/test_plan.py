"""docs/scale.md: its tables are those of the results and assumptions, and the arithmetic is right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import plan
from benchmarks.plan_tables import TABLES, Figures
from trichrome.errors import TrichromeError

#: Round figures: a passage is 100 tokens, and takes 1,000 bytes in shards.
MEASURED: dict[str, Any] = {
    "dtype": "bfloat16",
    "passages": 1000,
    "tokens": 100_000,
    "characters": 300_000,
    "passages_per_second": {"encoder": 100.0, "cluster": 90.0},
    "shard_bytes": {
        "dense": 200_000, "sparse_ids": 60_000, "sparse_weights": 40_000, "multivector": 500_000,
        "payload": 150_000, "id": 40_000, "rest": 10_000,
    },
    "store_bytes": {
        "exact": {
            "dense": 500.0, "dense+sparse": 700.0, "dense+sparse+multivector": 1500.0,
            "load_per_second": 2000.0,
        },
        "embedded": {
            "dense": 600.0, "dense+sparse": 900.0, "dense+sparse+multivector": 2000.0,
            "load_per_second": 1000.0,
        },
    },
    "products_per_second": 1e8,
    "cores": 2,
}  # fmt: skip
ENCODED: dict[str, Any] = {
    "machine": {"processor": "abacus", "cores": 2},
    "tokens": 100_000,
    "rounds": [{"trichrome-bf16@default": {"seconds": s}} for s in (9.0, 10.0, 30.0)],
}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for name, values in (("plan", MEASURED), ("encode", ENCODED)):
        (tmp_path / f"{name}.json").write_text(json.dumps(values))
    return tmp_path


def test_the_page_says_what_the_results_say() -> None:
    page = plan.PAGE.read_text("utf-8")
    assert plan.fill(page, plan.RESULTS) == page, "run python -m benchmarks.plan"
    assert all(f"<!-- plan:{name} -->" in page for name in TABLES)


def test_the_arithmetic(results: Path) -> None:
    assumed = json.loads(plan.ASSUMPTIONS.read_text("utf-8"))
    figures = Figures(MEASURED, ENCODED, assumed)
    # 10,000 tokens/s of 2 cores are 100 passages/s, 90 of them reach the shards; 32 such pairs, at 80 %
    assert figures.machine_rate == pytest.approx(100 * 0.9 * 32 * 0.8)
    assert figures.encode_hours == pytest.approx(1e8 / 2304 / 3600)
    made = {name: table(figures) for name, table in TABLES.items()}
    assert "| machine-hours | 12 |" in made["encoding"]
    assert "| cost, interruptible machines | $12 |" in made["encoding"]  # 12.06 h × 64 × $0.015
    assert "| **all** | **1,000** | **1,500** | **2,000** |" in made["bytes"]
    assert "| multivector | 500 | 800 | 1,100 |" in made["bytes"]
    assert "| **100,000,000 passages** | 100 GB | 150 GB | 200 GB |" in made["bytes"]
    assert "| disk | 400 GB | 180 GB |" in made["index"]
    assert "| passes over the dense column | 245 |" in made["mining"]
    assert "| read in all | 4.90 TB |" in made["mining"]
    for name, row in assumed.items():
        if name != "date":
            assert f"| {name.replace('_', ' ')} | " in made["assumptions"]
            assert row["why"] in made["assumptions"]


def test_what_is_not_measured_or_not_known_is_said(results: Path, tmp_path: Path) -> None:
    text = "<!-- plan:bytes -->\nold\n<!-- /plan -->\n"
    filled = plan.fill(text, results)
    assert "| dense | 200 | 500 | 600 |" in filled
    assert plan.fill(filled, results) == filled
    (results / "plan.json").unlink()
    assert "Not reckoned yet: plan.json is not measured" in plan.fill(filled, results)
    with pytest.raises(TrichromeError, match="no table is called 'speed'"):
        plan.fill(text.replace("bytes", "speed"), results)
    (results / "plan.json").write_text("{}")
    with pytest.raises(TrichromeError, match="not of this version"):
        plan.fill(text, results)
