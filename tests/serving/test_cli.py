"""`trichrome serve` as a process: it says where it listens, answers, and ends well on SIGTERM."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from typer.testing import CliRunner

from tests.serving.live import make_store
from trichrome.cli.main import app
from trichrome.cli.serve import read_key
from trichrome.encoder import Encoder, save
from trichrome.errors import TrichromeError
from trichrome.index import open_store


def test_a_process_serves_and_ends_on_sigterm(encoder: Encoder, tmp_path: Path) -> None:
    save(encoder, tmp_path / "model")
    make_store(tmp_path / "notes", encoder, "embedded").close()
    command = [sys.executable, "-m", "trichrome.cli.main", "serve", f"{tmp_path}/notes"]
    command += ["--model", f"{tmp_path}/model", "--dtype", "float32", "--port", "0"]
    environment = {**os.environ, "TRICHROME_API_KEY": "s3cret"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"running on (http://127.0.0.1:\d+)", line):
                break
        else:
            pytest.fail("".join(lines))
        url, headers = found[1], {"Authorization": "Bearer s3cret"}
        body = {"documents": [{"id": "late", "text": "the late bird"}]}
        assert requests.get(f"{url}/indexes", timeout=60).status_code == 401
        made = requests.post(f"{url}/indexes/notes/documents", json=body, headers=headers, timeout=60)
        assert made.json()["added"] == 1, made.text
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait(60) == 0, rest
    with open_store(tmp_path / "notes") as store:
        assert store.rows_of(["late"])[0] >= 0


def test_an_index_that_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRICHROME_HOME", str(tmp_path))
    result = CliRunner().invoke(app, ["serve", "nothing"])
    assert result.exit_code == 1
    assert "there is no index 'nothing'" in result.stderr


def test_keys_come_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRICHROME_API_KEY", raising=False)
    assert read_key(None) is None
    monkeypatch.setenv("TRICHROME_API_KEY", "one")
    assert read_key(None) == "one"
    file = tmp_path / "key"
    file.write_text("two\n")
    assert read_key(file) == "two"
    for bad in ("", "a b", "schlüssel"):
        file.write_text(bad)
        with pytest.raises(TrichromeError, match="the key must be"):
            read_key(file)
