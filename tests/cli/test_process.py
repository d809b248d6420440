"""The command as a process: start-up, exit codes, tracebacks, Ctrl-C, a closed pipe."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trichrome.cli.main import app
from trichrome.index import open_store

COMMAND = [sys.executable, "-m", "trichrome.cli.main"]


def call(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, env={**os.environ, **environment}
    )


def test_help_does_not_wait_for_heavy_packages():
    code = (
        "import sys, trichrome.cli.main as m\n"
        "try: m.app(['--help'])\n"
        "except SystemExit: pass\n"
        "print([p for p in ('torch', 'numpy', 'transformers', 'numba', 'qdrant_edge') if p in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "index" in done.stdout


def test_every_command_is_there():
    assert {command.name or command.callback.__name__ for command in app.registered_commands} == {
        "copy", "demo", "encode", "eval", "export", "index", "info", "mine", "score", "search", "serve",
        "train",
    }  # fmt: skip


def test_exit_codes_and_tracebacks(home: Path):
    assert call("--version").returncode == 0
    assert call("search", "--mode").returncode == 2
    failed = call("search", "nowhere", "x")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.startswith("error: there is no index 'nowhere'")
    assert "Traceback" not in failed.stderr
    debugged = call("search", "nowhere", "x", TRICHROME_DEBUG="1")
    assert debugged.returncode == 1
    assert "Traceback" in debugged.stderr


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT for another process")
def test_ctrl_c_keeps_what_is_stored_and_the_same_command_goes_on(home: Path, tmp_path: Path):
    source, store = tmp_path / "documents.jsonl", tmp_path / "store"
    rows = [{"id": str(i), "text": f"Number {i}: " + "words " * (i % 8)} for i in range(4000)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ("index", source, "--to", f"{store}/", "--kind", "exact")
    process = subprocess.Popen(
        [*COMMAND, *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not (store / "manifest.json").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "stopped; " in err
    assert "goes on from there" in err
    assert "Traceback" not in err
    assert out == ""
    with open_store(store) as opened:
        kept = opened.count()
    assert kept < len(rows)
    again = call(*command, "--json")
    assert again.returncode == 0, again.stderr
    summary = json.loads(again.stdout)
    assert (summary["unchanged"], summary["stored"]) == (kept, len(rows))
