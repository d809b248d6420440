"""Topics of training queries, which batches keep together (TAS-Balanced, arXiv 2104.06967).

Where a batch's queries are about one thing, each other's passages are worth telling apart from one's own,
even if there are few of them: small batches then teach what otherwise takes large ones.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trichrome.encoder.batching import token_budget_batches
from trichrome.encoder.encoder import Encoder
from trichrome.encoder.tokenizer import TextTokenizer
from trichrome.negatives.topics import centres, nearest_centre
from trichrome.storage import atomic_write, default_cache
from trichrome.training.buckets import Buckets
from trichrome.training.examples import Examples
from trichrome.training.mapped import MappedArray

#: Queries that are encoded at a time, and those that centres are found from at most.
_ENCODED, _SAMPLE = 4096, 1 << 17


def query_topics(
    examples: Examples,
    encoder: Encoder,
    tokenizer: TextTokenizer,
    size: int,
    seed: int,
    cache: str | Path | None = None,
) -> MappedArray:
    """int32 [N]: the topic of each row's query, one of about N / size clusters of dense vectors.

    tokenizer: how queries are read. Made once for these rows, this encoder and seed, and kept; cache: as in
    Examples.open. The vectors lie in an unnamed file meanwhile. Centres come from 131,072 of the rows, drawn
    by the seed, where there are more.
    """
    folder = Path(cache) if cache is not None else default_cache() / "training"
    about = [examples.key, encoder.fingerprint, tokenizer.config.max_tokens, size, seed]
    path = folder / f"{hashlib.sha256(repr(about).encode()).hexdigest()[:32]}.topics"
    if not path.is_file() or path.stat().st_size != 4 * len(examples):
        folder.mkdir(parents=True, exist_ok=True)
        labels = _labels(examples, encoder, tokenizer, size, seed, folder)
        with atomic_write(path) as out:
            out.write(labels.astype(np.int32).tobytes())
    return MappedArray.open(path, np.dtype(np.int32))


def _labels(
    examples: Examples, encoder: Encoder, tokenizer: TextTokenizer, size: int, seed: int, folder: Path
) -> NDArray[np.int64]:
    n = len(examples)
    with tempfile.TemporaryFile(dir=folder) as file:
        vectors = np.memmap(file, np.float16, "w+", shape=(n, encoder.dense_dim))  # [N, D]
        for start in range(0, n, _ENCODED):
            rows = [examples[i] for i in range(start, min(start + _ENCODED, n))]
            texts = [(row.prompt or "") + row.query for row in rows]
            vectors[start : start + len(rows)] = _dense(encoder, tokenizer, texts)
        sample = np.arange(n)
        if n > _SAMPLE:
            sample = np.sort(np.random.default_rng([seed, n]).choice(n, _SAMPLE, replace=False))
        count = min(max(1, round(n / size)), len(sample))
        found = centres(np.asarray(vectors[sample], np.float32), count, seed)
        blocks = (np.asarray(vectors[i : i + _ENCODED], np.float32) for i in range(0, n, _ENCODED))
        return np.concatenate([nearest_centre(block, found) for block in blocks])


def _dense(encoder: Encoder, tokenizer: TextTokenizer, texts: list[str]) -> NDArray[np.float32]:
    """[n, D] unit vectors, without dropout even where the encoder is about to be trained."""
    network = encoder.network
    training = network.training
    network.eval()
    try:
        tokens = tokenizer.encode(texts, "query")
        made = np.empty((len(texts), encoder.dense_dim), np.float32)
        for rows in token_budget_batches([len(t.ids) for t in tokens], encoder.backend.token_budget):
            made[rows] = encoder.encode_tokens([tokens[i] for i in rows], ("dense",)).dense
        return made
    finally:
        network.train(training)


def sort_by_topic(buckets: Buckets, labels: MappedArray) -> list[NDArray[np.int64]]:
    """Put each bucket's rows in the order of their topics, in place, with memory for one bucket's rows.

    Returns where each topic ends [T] in each bucket.
    """
    ends = []
    for k in range(len(buckets.buckets)):
        places = np.arange(buckets.starts[k], buckets.starts[k + 1])
        rows = buckets.order.take(places)
        topics = labels.take(rows)
        by = np.argsort(topics, kind="stable")
        buckets.order.put(places, rows[by])
        ends.append(np.append(np.flatnonzero(np.diff(topics[by])) + 1, len(rows)))
    return ends
