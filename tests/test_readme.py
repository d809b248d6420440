"""The README: its Python prints what it shows, its commands exist, its tables are those of the results."""

import contextlib
import io
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from benchmarks import page, tables
from trichrome.cli.main import app
from trichrome.errors import TrichromeError
from trichrome.evaluation import Report

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
NAMES = (
    "README.md",
    "CONTRIBUTING.md",
    *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))),
)
PAGES = {name: (ROOT / name).read_text("utf-8") for name in NAMES}

_NUMBER = re.compile(r"-?\d+\.?\d*")


def python_blocks() -> list[tuple[str, str]]:
    """(code, what it is shown to print) of each Python block."""
    return re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", README, re.DOTALL)


def test_the_python_runs_and_prints_what_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("bm25s")
    blocks = python_blocks()
    assert len(blocks) == README.count("```python") >= 5
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRICHROME_CACHE", str(tmp_path / "cache"))
    namespace: dict[str, Any] = {}
    for code, shown in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, "README.md", "exec"), namespace)
        got = printed.getvalue()
        assert _NUMBER.sub("0", got).split() == _NUMBER.sub("0", shown).split(), got
        numbers = [[float(n) for n in _NUMBER.findall(text)] for text in (got, shown)]
        assert numbers[0] == pytest.approx(numbers[1], abs=0.03), got  # processors round differently
    namespace["store"].close()


def shell_lines() -> list[str]:
    """Every line of the pages' shell blocks, and every `trichrome …` in their text."""
    lines: list[str] = []
    for text in PAGES.values():
        for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
            lines += [line for line in block.splitlines() if line]
        lines += re.findall(r"`((?:trichrome|python -m|make) [^`\n]*)`", text)
    for i, line in enumerate(lines):  # a process that others start has its command all the same
        lines[i] = re.sub(r"^.* -m trichrome\.cli\.main ", "trichrome ", line)
    return lines


def test_the_commands_exist_with_their_options() -> None:
    group = typer.main.get_command(app)
    commands: dict[str, Any] = group.commands  # type: ignore[attr-defined]
    named = set()
    for line in shell_lines():
        if not line.startswith("trichrome "):
            continue
        _, name, *arguments = shlex.split(line, comments=True)
        assert name in commands, line
        command = commands[name]
        named.add(name)
        if hasattr(command, "commands"):  # a group: the word after it is the command
            if not arguments and command.invoke_without_command:
                continue
            assert arguments, line
            assert arguments[0] in command.commands, line
            command = command.commands[arguments[0]]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {a for a in arguments if re.match(r"--?[a-z]", a)} <= known, line
    assert named == set(commands), "the README leaves a command out"


def test_the_modules_and_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    checked = 0
    for line in shell_lines():
        if line.startswith("make "):
            assert re.search(rf"^{line.split()[1]}:", makefile, re.MULTILINE), line
        elif line.startswith("python -m "):
            module = line.split()[2].replace(".", "/")
            assert any((ROOT / place / f"{module}.py").is_file() for place in ("src", ".")), line
        checked += line.startswith(("make ", "python -m "))
    assert checked >= 8


def test_the_scripts_that_are_run_exist() -> None:
    scripts = [line.split()[1] for line in shell_lines() if re.match(r"python [a-z]", line)]
    assert "examples/standard_library.py" in scripts
    assert all((ROOT / script).is_file() for script in scripts)


def test_a_page_is_filled_with_what_its_commands_print(tmp_path: Path) -> None:
    text = "```sh\ntrichrome --help\n```\n\nno\n\n```sh\necho a; echo b >&2\n```\n\n```text\nold\n```\n"
    assert [block["code"] for block in page.blocks(text)] == ["echo a; echo b >&2\n"]
    printed = page.run(page.blocks(text)[0]["code"], tmp_path)
    assert page.replaced(text, 1, printed) == text.replace("old", "a\nb")
    with pytest.raises(SystemExit, match="exit code 3"):
        page.run("exit 3", tmp_path)


def test_the_links_between_pages_lead_somewhere() -> None:
    for name, text in PAGES.items():
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
            assert (ROOT / name).parent.joinpath(target).exists(), f"{name}: {target}"


def test_the_tables_are_those_of_the_results() -> None:
    for name, text in PAGES.items():
        assert tables.fill(text, tables.RESULTS) == text, f"{name}: run python -m benchmarks.tables"
    everything = "".join(PAGES.values())
    assert set(re.findall(r"<!-- results:(\w+) -->", everything)) == set(tables.TABLES)


def test_tables_are_filled_from_results(tmp_path: Path) -> None:
    text = "".join(f"{n}\n<!-- results:{n} -->\nold\n<!-- /results -->\n" for n in ("crash", "quality"))
    nothing = tables.fill(text, tmp_path)
    assert "Not measured yet: `python -m benchmarks.crash`." in nothing
    machine = {"processor": "abacus", "cores": 2, "packages": {"torch": "2"}}
    row = {"kills": 24, "checked": 5000, "lost": 0, "half": 0, "different": 1}
    crash = {"stores": {"exact": row}, "documents": 400, "changes": 500, "machine": machine}
    (tmp_path / "crash.json").write_text(json.dumps(crash))
    means = {system: {"nDCG@10": v, "Recall@100": v} for system, v in (("dense", 0.5), ("all", 0.75))}
    report = Report("tiny", "small", "0", 9, 3, 0, 2, 0, {}, means, {}, {}, (), {})
    quality = {"machine": machine, "dtype": "float32", "means": {}, "tasks": [report.to_json()]}
    (tmp_path / "quality.json").write_text(json.dumps(quality))
    filled = tables.fill(nothing, tmp_path)
    assert filled.startswith("crash\n<!-- results:crash -->\n| store | kills")
    assert "| exact | 24 | 5,000 | 0 | 0 | 1 |" in filled
    assert "| tiny | 3 | 50.0 | **75.0** |" in filled
    assert "tiny 2 of 9" in filled
    assert "Not measured" not in filled
    assert tables.fill(filled, tmp_path) == filled


def test_speed_tables_are_filled_from_results() -> None:
    machine = {"processor": "abacus", "cores": 2, "packages": {"torch": "2"}}
    fast, slow = {"seconds": 10.0, "peak_mib": 100.0}, {"seconds": 40.0, "peak_mib": 2000.0}
    rounds = [
        {"matrix_rate": {}, "trichrome@default": fast, "other@8": slow},
        {"matrix_rate": {}, "trichrome@default": {**fast, "seconds": 30.0}},
    ]
    encoded = tables.encode(
        {
            **{"machine": machine, "texts": 200, "tokens": 9000, "real_texts": False, "rounds": rounds},
            "ratios": {"ratio_other_best": 2.0, "ratio_peak_memory_best": 0.05},
        }
    )
    assert "| trichrome | default | 10.0 | 100 MiB | 2 |" in encoded
    assert "| other | 8 | 5.0 | 2,000 MiB | 1 |" in encoded
    assert "| speed, trichrome ÷ other best | 2.00 |" in encoded
    assert "200 made-up texts, 9,000 tokens" in encoded
    row = {"p50_ms": 0.5, "p95_ms": 1.25, "p50_ms_with_encoding": 12.0, "recall10": 0.998}
    searched = tables.search(
        {"machine": machine, "passages": 50_000, "queries": 300, "stores": {"exact": {"modes": {"all": row}}}}
    )
    assert "| exact | all | 0.50 ms | 1.25 ms | 12.0 ms | 0.998 |" in searched


def test_results_of_another_kind_are_one_clear_error(tmp_path: Path) -> None:
    text = "<!-- results:crash -->\n<!-- /results -->"
    for wrong in ("{", "{}", '{"stores": {"exact": {"kills": "many"}}}'):
        (tmp_path / "crash.json").write_text(wrong)
        with pytest.raises(TrichromeError, match=r"crash\.json: .*run python -m benchmarks\.crash"):
            tables.fill(text, tmp_path)
    with pytest.raises(TrichromeError, match="no table is called 'speed'"):
        tables.fill(text.replace("crash", "speed"), tmp_path)
