"""The packages of the extras, imported when they are first needed."""

from __future__ import annotations

import importlib
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
