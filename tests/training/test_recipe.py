"""Recipes: every file in the repository is one, and a wrong one is told with its line."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from trichrome.errors import TrichromeError
from trichrome.training.recipe import Recipe, read_recipe

RECIPES = sorted((Path(__file__).parents[2] / "recipes").rglob("*.yaml"))


def test_there_are_recipes() -> None:
    assert len(RECIPES) >= 6


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: str(p.relative_to(p.parents[1])))
def test_every_recipe_is_valid(path: Path) -> None:
    recipe = read_recipe(path)
    assert recipe.model
    assert recipe.data


def test_the_page_on_training_names_every_field_with_its_default() -> None:
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| (`[^|]+) \| (.*) \|$", page, re.MULTILINE))
    named = {name for cell in rows for name in re.findall(r"`([^`]+)`", cell)}
    blank = Recipe("m", ("d",), Path("o"))
    wanted = set()
    for field in fields(Recipe):
        value = getattr(blank, field.name)
        if field.name == "lowrank":  # its fields share a row
            assert all(f"`{f.name}`" in rows["`lowrank`"] for f in fields(value))
        inner = is_dataclass(value) and field.name != "lowrank"
        wanted |= {f"{field.name}.{f.name}" for f in fields(value)} if inner else {field.name}
    assert wanted <= named
    assert {n for n in named if re.match(r"(batches|optimiser|objective|retromae|evaluation)\.", n)} <= wanted


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_overrides_replace_the_top_level(tmp_path: Path) -> None:
    path = written(tmp_path / "r.yaml", "model: small\ndata: [a.jsonl]\noutput: out\nsteps: 5\n")
    assert read_recipe(path).steps == 5
    assert read_recipe(path, {"steps": 7, "model": None}).steps == 7


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("model: small\ndata: [a]\noutput: o\nbatchs: {}\n", 4, "no such field"),
        ("model: small\ndata: [a]\noutput: o\noptimiser:\n  rate: 1\n  clipp: 2\n", 6, "no such field"),
        ("model: small\ndata: [a]\noutput: o\noptimiser:\n  rate: -1\n", 4, "rate must be > 0"),
        ("model: small\ndata: [a]\noutput: o\nsteps: many\n", 4, "integer"),
        ("model: small\ndata: [a]\noutput: o\nprecision: fp8\n", 4, "float32"),
        ("model: small\noutput: o\n", 1, "data"),
        ("model: small\ndata: [a\noutput: o\n", 3, "not YAML"),
        ("- a\n", 1, "mapping"),
    ],
)
def test_a_wrong_recipe_is_told_with_its_line(tmp_path: Path, text: str, line: int, said: str) -> None:
    path = written(tmp_path / "r.yaml", text)
    with pytest.raises(TrichromeError, match=said) as error:
        read_recipe(path)
    assert str(error.value).startswith(f"{path}:{line}: ")


def test_patterns_and_missing_files(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl"):
        (tmp_path / name).write_text("")
    made = read_recipe(
        written(tmp_path / "r.yaml", f"model: m\ndata: [{tmp_path}/*.jsonl, {tmp_path}/a.jsonl]\noutput: o\n")
    )
    assert [p.name for p in made.files()] == ["a.jsonl", "b.jsonl"]
    for pattern in ("*.gz", "c.jsonl"):
        bad = read_recipe(tmp_path / "r.yaml", {"data": [f"{tmp_path}/{pattern}"]})
        with pytest.raises(TrichromeError, match="mend `data`"):
            bad.files()
