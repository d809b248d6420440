"""One small folder of documents, indexed once with the built-in model, for all command tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from trichrome.cli.main import app

DOCUMENTS = {
    "password.md": "# Sign-in\n\nTo reset a forgotten password, open the sign-in page and follow the link.",
    "sub/backup.txt": "تُنسخ الملفات كل ليلة إلى خادم آخر، وتُحفظ النسخ الاحتياطية لمدة ثلاثين يوما.",
    "returns.txt": "返品をご希望の場合は、商品到着後14日以内にお問い合わせください。",
    "office.html": "<html><head><title>שעות פתיחה</title></head><body>"
    "<p>המשרד פתוח בימים ראשון עד חמישי.</p></body></html>",
}


@dataclass(frozen=True)
class Outcome:
    """What a command left: its exit code, and what it printed."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Outcome]


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of indexes, and a cache, for this session alone."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRICHROME_HOME", str(folder / "indexes"))
        patch.setenv("TRICHROME_CACHE", str(folder / "cache"))
        patch.setenv("COLUMNS", "100")
        patch.delenv("TRICHROME_DEBUG", raising=False)
        yield folder / "indexes"


@pytest.fixture(scope="session")
def run(home: Path) -> Command:
    """Run a command in this process."""

    def call(*arguments: object, stdin: str | bytes | None = None) -> Outcome:
        result = CliRunner().invoke(app, [str(a) for a in arguments], input=stdin)
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return call


@pytest.fixture(scope="session")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documents")
    for name, text in DOCUMENTS.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    (folder / "picture.xyz").write_bytes(b"\x89")
    return folder


@pytest.fixture(scope="session")
def notes(run: Command, documents: Path) -> Outcome:
    """The index `notes`, and what the command that made it printed."""
    outcome = run("index", documents, "--to", "notes", "--json")
    assert outcome.code == 0, outcome.err
    return outcome
