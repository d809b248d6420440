"""The packages of the extras, imported when they are first needed; and which versions are there."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from trichrome.errors import TrichromeError


def require(module: str, extra: str = "eval") -> Any:
    """A module of an extra; where it is absent, an error that says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise TrichromeError(
            f"this needs the package {error.name or module}: pip install 'trichrome[{extra}]'"
        ) from error


def versions(packages: Iterable[str]) -> dict[str, str | None]:
    """The installed version of each package, None where it is absent."""
    found: dict[str, str | None] = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found
