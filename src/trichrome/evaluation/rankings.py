"""Rankings: what one system found for every query of a task, as columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Rankings(Mapping[str, "dict[str, float]"]):
    """A Run (query id → document id → score) that keeps millions of entries small.

    query_ids: Q ids. document_ids: N ids. offsets: [Q+1]; query q owns documents[offsets[q]:offsets[q+1]],
    best first. documents: [ΣK] int32 positions in document_ids. scores: [ΣK] float32.
    """

    query_ids: Sequence[str]
    document_ids: Sequence[str]
    offsets: NDArray[np.int64]
    documents: NDArray[np.int32]
    scores: NDArray[np.float32]

    def __post_init__(self) -> None:
        if len(self.offsets) != len(self.query_ids) + 1 or len(self.documents) != len(self.scores):
            raise ValueError(
                f"rankings: {len(self.query_ids)} queries, {len(self.offsets)} offsets, "
                f"{len(self.documents)} documents and {len(self.scores)} scores don't fit together"
            )
        object.__setattr__(self, "_place", {query: i for i, query in enumerate(self.query_ids)})

    @classmethod
    def from_rows(
        cls,
        query_ids: Sequence[str],
        document_ids: Sequence[str],
        rows: Sequence[tuple[NDArray[Any], NDArray[Any]]],
    ) -> Rankings:
        """From (positions in document_ids, scores) of each query, best first."""
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(documents) for documents, _ in rows], out=offsets[1:])
        documents = np.concatenate([np.empty(0, np.int32), *(d for d, _ in rows)]).astype(np.int32)
        scores = np.concatenate([np.empty(0, np.float32), *(s for _, s in rows)]).astype(np.float32)
        return cls(query_ids, document_ids, offsets, documents, scores)

    def __getitem__(self, query: str) -> dict[str, float]:
        place: int = self._place[query]  # type: ignore[attr-defined]
        part = slice(int(self.offsets[place]), int(self.offsets[place + 1]))
        ids = (self.document_ids[i] for i in self.documents[part])
        return dict(zip(ids, self.scores[part].tolist(), strict=True))

    def __iter__(self) -> Iterator[str]:
        return iter(self.query_ids)

    def __len__(self) -> int:
        return len(self.query_ids)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The columns, to be saved."""
        return {"offsets": self.offsets, "documents": self.documents, "scores": self.scores}
