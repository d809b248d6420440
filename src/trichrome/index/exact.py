"""The exact store: every score computed, files on disk, memory-mapped. The oracle for every other store.

`commits` describes the files, `segments` what is in one of them.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
from filelock import BaseFileLock
from numpy.typing import NDArray

from trichrome.embeddings import Embedding, Embeddings, MultiVector
from trichrome.errors import TrichromeError
from trichrome.index import commits
from trichrome.index.checks import check_batch, check_query, query_tokens
from trichrome.index.codes import TokenFormat, coded_scores
from trichrome.index.commits import State, assemble, segment_path
from trichrome.index.filters import check_filter
from trichrome.index.manifests import QUANTISER
from trichrome.index.maxsim import maxsim
from trichrome.index.pq import Codes, ProductQuantiser
from trichrome.index.segments import Segment, merge_segments, token_vectors, write_segment
from trichrome.index.seismic import Best, Effort, search_blocks
from trichrome.index.sparse_kernel import accumulate, pair_scores, top_k
from trichrome.index.store import Candidates, Filter, Manifest, no_embeddings
from trichrome.records import Payload

#: So many neighbouring segments of one size class become one: a document is rewritten a few times at most.
_FAN_IN = 8
#: Where codes find a dense search's candidates, so many times k, and these at least, are scored by vectors.
_RESCORED, _LEAST_RESCORED = 8, 256
#: What a sparse search in blocks spends: enough for about 98 of 100 of the exact ten best.
_EFFORT = Effort(cut=16, factor=0.8)
#: A merged segment stays below these, which bound the memory that merging takes.
_MAX_ROWS = 1 << 17
_MAX_BYTES = 1 << 30


class ExactStore:
    """A `Store` that answers exactly. Create and open one through `trichrome.index`."""

    def __init__(self, path: Path, manifest: Manifest, lock: BaseFileLock) -> None:
        """Open the data under `path`; `lock` is held, and released by close."""
        self._path, self._manifest, self._lock = path, manifest, lock
        self._current: State | None = commits.load(path)
        #: What made the dense codes, and reads them; None where dense vectors are kept.
        self.quantiser = _quantiser(path / QUANTISER, manifest)
        for segment in self._current.segments:
            segment.fits(manifest, self.quantiser)
        self._tokens: TokenFormat | None = None
        if manifest.multivector_dim is not None:
            self._tokens = TokenFormat(manifest.multivector_dtype, manifest.multivector_dim)
        self._changing = RLock()  # changes come one after another; a search goes on with the state it took

    @staticmethod
    def create(path: Path, manifest: Manifest) -> None:
        """Write the data of an empty store under `path`."""
        commits.create(path)

    @property
    def manifest(self) -> Manifest:
        return self._manifest

    @property
    def _state(self) -> State:
        if self._current is None:
            raise TrichromeError(f"{self._path}: this store was closed; open it again")
        return self._current

    # changes

    def add(self, ids: Sequence[str], embeddings: Embeddings, payloads: Sequence[Payload]) -> None:
        check_batch(self._manifest, ids, embeddings, payloads)
        texts = [json.dumps(p, ensure_ascii=False, separators=(",", ":")).encode() for p in payloads]
        with self._changing:
            state = self._state
            if not ids:
                return
            rows = np.arange(state.next_row, state.next_row + len(ids), dtype=np.int64)
            replaced = state.positions_of_ids(ids)
            live = np.concatenate([state.live, np.ones(len(ids), np.bool_)])
            live[replaced[replaced >= 0]] = False
            path = segment_path(self._path, state.serial + 1)
            with self._whole_or_not():
                names = [id.encode() for id in ids]
                write_segment(path, rows, names, texts, self._pack(embeddings), self._manifest.dense_search)
                segments = (*state.segments, Segment.open(path))
                self._commit(assemble(segments, live, state.next_row + len(ids), state.serial + 1))
            self._merge_small()

    def delete(self, ids: Sequence[str]) -> int:
        with self._changing:
            state = self._state
            positions = np.unique(state.positions_of_ids(list(dict.fromkeys(ids))))
            positions = positions[positions >= 0]
            if len(positions):
                live = state.live.copy()
                live[positions] = False
                with self._whole_or_not():
                    self._commit(assemble(state.segments, live, state.next_row, state.serial + 1))
            return len(positions)

    def optimize(self) -> None:
        """Merge neighbouring segments up to 2^17 documents or 1 GiB, drop what was deleted, and cut postings
        into blocks where sparse search reads them."""
        blocks = self._manifest.sparse_search == "seismic"
        with self._changing:
            state = self._state
            groups: list[list[int]] = []
            for i in range(len(state.segments)):
                if groups and _fits(state.segments[groups[-1][0] : i + 1]):
                    groups[-1].append(i)
                else:
                    groups.append([i])
            for group in reversed(groups):  # from the end, so that the numbers before stay right
                first, last = group[0], group[-1] + 1
                whole = state.live[state.starts[first] : state.starts[last]].all()
                if len(group) > 1 or not whole or (blocks and state.segments[first].blocks is None):
                    self._merge(first, last, blocks)

    def _merge_small(self) -> None:
        """Merge the newest segments while enough of one size class lie side by side."""
        while len(segments := self._state.segments) >= _FAN_IN:
            tail = segments[-_FAN_IN:]
            if len({_size_class(segment) for segment in tail}) > 1 or not _fits(tail):
                return
            try:
                self._merge(len(segments) - _FAN_IN, len(segments))
            except TrichromeError:  # no room: what was added is stored all the same; optimize() will say so
                return

    def _merge(self, first: int, last: int, blocks: bool = False) -> None:
        state = self._state
        path, old = segment_path(self._path, state.serial + 1), state.segments[first:last]
        masks = [state.live[state.starts[i] : state.starts[i + 1]] for i in range(first, last)]
        with self._whole_or_not():
            kept = merge_segments(path, old, masks, self._manifest.dense_search, blocks)
            merged = (Segment.open(path),) if kept else ()
            before, after = state.live[: state.starts[first]], state.live[state.starts[last] :]
            live = np.concatenate([before, np.ones(kept, np.bool_), after])
            segments = (*state.segments[:first], *merged, *state.segments[last:])
            self._commit(assemble(segments, live, state.next_row, state.serial + 1))
        for segment in old:
            commits.remove(segment.path)

    def _commit(self, state: State) -> None:
        old = self._state
        if state.live.all() or not np.array_equal(state.rows[~state.live], old.rows[~old.live]):
            state = replace(state, dead_file=commits.write_dead(self._path, state))
        else:
            state = replace(state, dead_file=old.dead_file)
        commits.commit(self._path, state)
        self._current = state
        if old.dead_file and old.dead_file != state.dead_file:
            commits.remove(self._path / old.dead_file)

    @contextmanager
    def _whole_or_not(self) -> Iterator[None]:
        """After an error go back to what the disk says counts, and clear away what does not."""
        try:
            yield
        except OSError as error:
            self._current = commits.load(self._path)
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            raise TrichromeError(
                f"{self._path}: could not write ({error.strerror or error}); nothing of this change is "
                f"stored, the {self.count()} documents stored before are; "
                f"{'make room' if full else 'mend that'} and run it again"
            ) from error
        except BaseException:
            self._current = commits.load(self._path)
            raise

    # reading

    def rows_of(self, ids: Sequence[str]) -> NDArray[np.int64]:
        state = self._state
        positions = state.positions_of_ids(ids)
        rows = np.full(len(ids), -1, dtype=np.int64)
        rows[positions >= 0] = state.rows[positions[positions >= 0]]
        return rows

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        return [segment.id(local) for segment, local in self._places(rows)]

    def payloads(self, rows: NDArray[np.int64], fields: Sequence[str] | None = None) -> list[Payload]:
        return [_pick(segment.payload(local), fields) for segment, local in self._places(rows)]

    def documents(self, rows: NDArray[np.int64]) -> list[tuple[str, Payload]]:
        return [(segment.id(local), segment.payload(local)) for segment, local in self._places(rows)]

    def _places(self, rows: NDArray[np.int64]) -> Iterator[tuple[Segment, int]]:
        state = self._state
        return (state.locate(position) for position in state.positions_of_rows(rows).tolist())

    def embeddings(self, rows: NDArray[np.int64]) -> Embeddings:
        found = list(self._state.by_segment(rows))
        if not found:
            return no_embeddings(self._manifest)
        parts = Embeddings.concatenate([segment.embeddings[locals] for segment, locals, _ in found])
        stored = parts[np.argsort(np.concatenate([places for _, _, places in found]))]
        if self.quantiser is not None and stored.dense is not None:
            stored = replace(stored, dense=self.quantiser.decode(stored.dense))
        if stored.multivector is None or self._tokens is None:
            return stored
        floats = self._tokens.unpack(stored.multivector.vectors)
        return replace(stored, multivector=MultiVector(stored.multivector.offsets, floats))

    def _pack(self, embeddings: Embeddings) -> Embeddings:
        """With token vectors, and dense ones, as they are stored."""
        if self.quantiser is not None and embeddings.dense is not None:
            embeddings = replace(embeddings, dense=self.quantiser.encode(embeddings.dense))
        if embeddings.multivector is None or self._tokens is None:
            return embeddings
        packed = self._tokens.pack(embeddings.multivector.vectors)
        return replace(embeddings, multivector=MultiVector(embeddings.multivector.offsets, packed))

    def dense_codes(self, rows: NDArray[np.int64]) -> Codes:
        """[n, M] the dense codes of rows. TrichromeError where this store keeps the vectors themselves."""
        if self.quantiser is None:
            raise TrichromeError(
                f"{self._path}: this store keeps dense vectors, not codes; `trichrome copy` with "
                "--dense-dtype pq makes one of codes"
            )
        codes = np.empty((len(rows), self.quantiser.pieces), np.uint8)
        for segment, locals, places in self._state.by_segment(rows):
            codes[places] = segment.arrays["dense"][locals]
        return codes

    def count(self, where: Filter | None = None) -> int:
        return int(self._allowed(self._state, where).sum())

    def scan(
        self, where: Filter | None = None, fields: Sequence[str] | None = None
    ) -> Iterator[tuple[str, Payload]]:
        state = self._state
        for position in np.flatnonzero(self._allowed(state, where)).tolist():
            segment, local = state.locate(position)
            yield segment.id(local), _pick(segment.payload(local), fields)

    def search(self, signal: str, query: Embedding, k: int, where: Filter | None = None) -> Candidates:
        state = self._state
        check_query(self._path, self._manifest, signal, query, search=True)
        allowed = self._allowed(state, where)
        if signal == "sparse" and self._manifest.sparse_search == "seismic":
            return _search_blocks(state, query, k, allowed)
        by_codes = signal == "dense" and self._manifest.dense_search != "float32" and not self.quantiser
        scores = np.zeros(len(state.rows), dtype=np.float32)
        for i, segment in enumerate(state.segments):
            out = scores[state.starts[i] : state.starts[i + 1]]
            if signal == "sparse":
                accumulate(*query_tokens(query), *segment.postings, out)
            elif self.quantiser is not None:
                self.quantiser.scores(np.asarray(query.dense), segment.arrays["dense"], out)
            elif by_codes and (codes := segment.dense_codes):
                coded_scores(np.asarray(query.dense), self._manifest.dense_search, codes, out)
            else:
                np.dot(segment.arrays["dense"], np.asarray(query.dense, np.float32), out=out)
        if by_codes and k > 0:
            near = np.sort(top_k(scores, allowed, max(_LEAST_RESCORED, _RESCORED * k)))
            allowed = np.zeros_like(allowed)
            allowed[near] = True
            scores[near] = self._scores(state, "dense", query, state.rows[near])
        best = top_k(scores, allowed, k, floor=0.0 if signal == "sparse" else -np.inf)
        return Candidates(state.rows[best], scores[best])

    def scores(self, signal: str, query: Embedding, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        check_query(self._path, self._manifest, signal, query)
        return self._scores(self._state, signal, query, rows)

    def _scores(
        self, state: State, signal: str, query: Embedding, rows: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        scores = np.zeros(len(rows), dtype=np.float32)
        for segment, locals, places in state.by_segment(rows):
            if signal == "dense" and self.quantiser is not None:
                some = np.empty(len(locals), np.float32)
                self.quantiser.scores(np.asarray(query.dense), segment.arrays["dense"][locals], some)
                scores[places] = some
            elif signal == "dense":
                scores[places] = segment.arrays["dense"][locals] @ np.asarray(query.dense, np.float32)
            elif signal == "sparse":
                scores[places] = pair_scores(*query_tokens(query), *segment.sparse, locals)
            elif query.multivector is not None and self._tokens is not None:
                tokens = token_vectors(segment, locals)
                scores[places] = maxsim(query.multivector, tokens, self._tokens.widen)
        return scores

    def scores_of(
        self, query: Embedding, rows: Mapping[str, NDArray[np.int64]]
    ) -> dict[str, NDArray[np.float32]]:
        return {signal: self.scores(signal, query, of_signal) for signal, of_signal in rows.items()}

    def _allowed(self, state: State, where: Filter | None) -> NDArray[np.bool_]:
        """[n] live documents that a filter lets through."""
        if not where:
            return state.live
        check_filter(where)
        masks = [segment.mask(where) for segment in state.segments]
        allowed: NDArray[np.bool_] = state.live & np.concatenate([*masks, np.empty(0, np.bool_)])
        return allowed

    def close(self) -> None:
        with self._changing:
            self._current = None
            self._lock.release()

    def __enter__(self) -> ExactStore:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()


def _search_blocks(state: State, query: Embedding, k: int, allowed: NDArray[np.bool_]) -> Candidates:
    """As `search`; segments that `optimize` has not seen yet are searched exactly."""
    tokens, best = query_tokens(query), Best(max(0, min(k, len(state.rows))))
    for i, segment in enumerate(state.segments):
        first, last = int(state.starts[i]), int(state.starts[i + 1])
        if segment.blocks is not None:
            search_blocks(tokens, segment.blocks, segment.sparse, allowed[first:last], best, _EFFORT, first)
            continue
        scores = np.zeros(len(segment), np.float32)
        accumulate(*tokens, *segment.postings, scores)
        near = top_k(scores, allowed[first:last], k, floor=0.0)
        best.offer(first + near, scores[near])
    positions, found = best.ranked()
    return Candidates(state.rows[positions], found)


def _quantiser(path: Path, manifest: Manifest) -> ProductQuantiser | None:
    """The quantiser of a store that keeps dense codes."""
    if manifest.dense_dtype != "pq":
        return None
    made = ProductQuantiser.load(path)
    if made.dim != manifest.dense_dim:
        raise TrichromeError(f"{path}: damaged (it is for vectors of {made.dim} numbers)")
    return made


def _size_class(segment: Segment) -> int:
    """0 for one document, then one more for each factor of _FAN_IN."""
    return (len(segment).bit_length() - 1) // (_FAN_IN.bit_length() - 1)


def _fits(segments: Sequence[Segment]) -> bool:
    """Whether segments may become one."""
    return (
        sum(len(segment) for segment in segments) <= _MAX_ROWS
        and sum(segment.nbytes for segment in segments) <= _MAX_BYTES
    )


def _pick(payload: Payload, fields: Sequence[str] | None) -> Payload:
    return payload if fields is None else {name: payload[name] for name in fields if name in payload}
