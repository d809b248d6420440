"""Search: candidates, the missing scores computed, the sum, and why a document was found.

Searcher(encoder, store).search("…", mode="all", k=10) → hits with their three scores
"""

from trichrome.search.explain import (
    Explanation,
    NearToken,
    SharedToken,
    TokenMatch,
    WeighedToken,
    explain,
    weigh,
)
from trichrome.search.feedback import Feedback, Reviser, Rocchio
from trichrome.search.modes import LONG_MODES, M3_MODES, MODE_NAMES, Mode, mode_named
from trichrome.search.retrieve import Ranking, ScoreTable, rank, retrieve
from trichrome.search.searcher import Hit, Searcher

__all__ = [
    "LONG_MODES",
    "M3_MODES",
    "MODE_NAMES",
    "Explanation",
    "Feedback",
    "Hit",
    "Mode",
    "NearToken",
    "Ranking",
    "Reviser",
    "Rocchio",
    "ScoreTable",
    "Searcher",
    "SharedToken",
    "TokenMatch",
    "WeighedToken",
    "explain",
    "mode_named",
    "rank",
    "retrieve",
    "weigh",
]
