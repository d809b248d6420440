"""Hard negatives out of an encoded corpus, with the same rules, draws and reports as on one machine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from trichrome.cluster.connect import Cluster
from trichrome.cluster.folder import EncodedCorpus
from trichrome.cluster.pool import ClusterPool, Passed
from trichrome.errors import ModelMismatch, TrichromeError
from trichrome.negatives import MineReport, MineSettings, PairScorer, Sample, mine_files
from trichrome.negatives.pool import MiningEncoder


def mine_shards(
    paths: Sequence[Path],
    outs: Sequence[Path],
    corpus: EncodedCorpus,
    encoder: MiningEncoder | None,
    settings: MineSettings,
    sample: Sample | None = None,
    *,
    cluster: Cluster | None = None,
    threads: int = 1,
    rescorer: PairScorer | None = None,
    described: str = "",
    progress: Callable[[str, str, int, int], None] | None = None,
    passed: Passed | None = None,
    done: Callable[[Path, MineReport, bool], None] | None = None,
) -> list[MineReport]:
    """As `negatives.mine_files`, with candidates from an encoded corpus instead of a pool.

    encoder: of the queries, the corpus' own. settings.block: queries of one pass over the shards. threads:
    of an actor. passed: called as (what, tasks done, of how many) during a pass. A file that is mined
    already from this corpus in this way is left as it is.
    TrichromeError: another model than the corpus', an output that it lacks, sources that need all texts.
    """
    if encoder is not None and settings.signals and encoder.fingerprint != corpus.encoding.fingerprint:
        raise ModelMismatch(
            f"{corpus.out}: encoded with {corpus.encoding.model!r} (fingerprint "
            f"{corpus.encoding.fingerprint:.12}), not with {encoder.name!r} ({encoder.fingerprint:.12}); "
            "mine with that model, or encode the corpus with this one"
        )
    for source in (*settings.sources, *settings.fill):
        if source.name.startswith("bm25"):
            raise TrichromeError(
                f"{source.name} counts words over all texts, which no machine of a cluster holds; choose "
                "sparse, dense, hybrid, random or topic"
            )
    cluster = cluster or Cluster()
    with cluster.connected(threads):
        pool = ClusterPool(corpus, cluster, settings.signals, threads=threads, passed=passed)
        return mine_files(
            paths, outs, encoder, settings, sample,
            pool=pool, rescorer=rescorer, described=f"{described} {_content(corpus)}",
            progress=progress, done=done,
        )  # fmt: skip


def _content(corpus: EncodedCorpus) -> str:
    """A hash of all that the corpus holds."""
    digest = hashlib.sha256("".join(info.checksum for info in corpus.infos).encode())
    return digest.hexdigest()
