"""Run a page's commands and put what they print into it.

    python -m benchmarks.page docs/training.md --work /tmp/library [--first 3] [--last 5]

Every shell block that a text block follows is run, in the page's order, in the folder --work; the text block
is replaced by what came on stdout and stderr. The page is written after each, so what ran stays when a later
one fails.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from trichrome.storage import atomic_write

#: A shell block, and the text block right behind it.
_BLOCK = re.compile(r"```sh\n(?P<code>(?:(?!```).)*)```\n\n```text\n(?P<shown>(?:(?!```).)*)```", re.DOTALL)
ROOT = Path(__file__).parents[1]


def main(
    page: Annotated[Path, typer.Argument(help="A Markdown file.")],
    work: Annotated[Path, typer.Option(help="Folder to run in.")],
    first: Annotated[int, typer.Option(min=1, help="Number of the first block to run.")] = 1,
    last: Annotated[int | None, typer.Option(min=1, help="Number of the last block to run.")] = None,
) -> None:
    """Run the blocks and bring the page up to date."""
    work.mkdir(parents=True, exist_ok=True)
    for link in ("examples", "recipes"):  # the page speaks as from the repository's root
        if not (work / link).exists():
            (work / link).symlink_to(ROOT / link)
    end = len(blocks(page.read_text("utf-8")))
    for number in range(first, min(last or end, end) + 1):
        code = blocks(page.read_text("utf-8"))[number - 1]["code"]
        print(f"{number} of {end}: {code.strip()}", flush=True)
        began = time.perf_counter()
        printed = run(code, work)
        print(f"{printed}{time.perf_counter() - began:.0f} s\n", flush=True)
        new = replaced(page.read_text("utf-8"), number, printed)
        with atomic_write(page) as file:
            file.write(new.encode())


def blocks(text: str) -> list[re.Match[str]]:
    """The blocks that are run."""
    return list(_BLOCK.finditer(text))


def replaced(text: str, number: int, printed: str) -> str:
    """The page with what block `number` (from 1) printed."""
    start, end = blocks(text)[number - 1].span("shown")
    return text[:start] + printed + text[end:]


def run(code: str, work: Path) -> str:
    """What a block prints, stdout and stderr as they come; it ends the program where a command fails."""
    environment = os.environ | {
        "COLUMNS": "100",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(
        ["bash", "-ec", code],
        cwd=work, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{done.stdout}error: exit code {done.returncode} of\n{code}")
    return "\n".join(line.rstrip() for line in done.stdout.splitlines()) + "\n"


if __name__ == "__main__":
    typer.run(main)
