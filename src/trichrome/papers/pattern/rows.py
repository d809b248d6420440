"""Which rows there are, and what is known of each."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from trichrome import papers
from trichrome.errors import TrichromeError
from trichrome.papers.pattern.citations import CITATIONS, citation
from trichrome.papers.pattern.paper import Paper


def built() -> list[str]:
    """Names of the rows that can be run, in the order of their numbers; nothing is imported."""
    there = {found.name for found in pkgutil.iter_modules(papers.__path__) if not found.ispkg}
    return [c.name for c in CITATIONS if c.name in there]


def paper(name: str) -> Paper:
    """A row that can be run. TrichromeError for one that is not built yet, or unknown."""
    if name not in built():
        cited = citation(name)
        raise TrichromeError(
            f"{name}: row {cited.number} ({cited.title}) is not built yet; there are {', '.join(built())}"
        )
    found = importlib.import_module(f"{papers.__name__}.{name}").PAPER
    assert isinstance(found, Paper)
    return found


def recorded_results() -> Path:
    """The folder of the committed results: of the installed package, or of the repository."""
    installed = Path(papers.__path__[0]) / "results"
    if installed.is_dir():
        return installed
    return Path(papers.__path__[0]).parents[2] / "benchmarks" / "results" / "papers"
