"""Where negatives come from, which are false, how many are drawn."""

from trichrome.negatives.files import Sample, mine_files, read_part
from trichrome.negatives.filters import RULES, PairScorer
from trichrome.negatives.mine import mine, mined
from trichrome.negatives.pool import MemoryPool, PassageTable, Pool
from trichrome.negatives.report import MineReport
from trichrome.negatives.settings import MineSettings, Rules, Source
from trichrome.negatives.store_pool import StorePool

__all__ = [
    "RULES",
    "MemoryPool",
    "MineReport",
    "MineSettings",
    "PairScorer",
    "PassageTable",
    "Pool",
    "Rules",
    "Sample",
    "Source",
    "StorePool",
    "mine",
    "mine_files",
    "mined",
    "read_part",
]
