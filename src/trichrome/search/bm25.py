"""BM25 by bm25s, with k1 = 0.9 and b = 0.4, over any tokens; and a word analyser for many scripts."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from trichrome.extras import require
from trichrome.search.fuse import best

K1, B = 0.9, 0.4

#: Scripts that put no space between words (or, Korean and Ethiopic, join much into one): character bigrams
#: stand for their words. Han, kana, Hangul, Thai, Lao, Burmese, Ethiopic, Khmer.
_UNSPACED = re.compile(
    "["
    "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
    "\u3040-\u30ff\u31f0-\u31ff"
    "\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff"
    "\u0e00-\u0e7f"
    "\u0e80-\u0eff"
    "\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f"
    "\u1200-\u139f\u2d80-\u2ddf\uab00-\uab2f"
    "\u1780-\u17ff\u19e0-\u19ff"
    "]+"
)


class _WordCharacters(dict[int, int]):
    """For str.translate: letters, marks and digits stay, everything else becomes a space.

    Not the regular expression \\w, which takes the vowel signs of Indic scripts for gaps between words.
    """

    def __missing__(self, code: int) -> int:
        kept = unicodedata.category(chr(code))[0] in "LMN"
        self[code] = code if kept else ord(" ")
        return self[code]


_WORD_CHARACTERS = _WordCharacters()


def words(text: str) -> list[str]:
    """Words in lower case (NFKC); character bigrams for the scripts that put no space between words."""
    tokens: list[str] = []
    for word in unicodedata.normalize("NFKC", text).lower().translate(_WORD_CHARACTERS).split():
        end = 0
        for run in _UNSPACED.finditer(word):
            if run.start() > end:
                tokens.append(word[end : run.start()])
            characters = run.group()
            tokens += [characters[i : i + 2] for i in range(max(1, len(characters) - 1))]
            end = run.end()
        if end < len(word):
            tokens.append(word[end:])
    return tokens


class BM25:
    """An index of tokenised documents.

    The score is Σ over the query's tokens of ln(1 + (N − n + ½)/(n + ½)) · f / (f + k1·(1 − b + b·l/l̄)),
    as in Lucene: f times in the document, in n of N documents, l tokens long, l̄ on average.
    """

    def __init__(self, documents: Sequence[Sequence[Hashable]], k1: float = K1, b: float = B) -> None:
        bm25s = require("bm25s")
        self._vocabulary: dict[Hashable, int] = {}
        place = self._vocabulary
        ids = [[place.setdefault(token, len(place)) for token in document] for document in documents]
        self._index = None
        if place:  # a corpus without a single token has nothing to score
            self._index = bm25s.BM25(k1=k1, b=b, method="lucene")
            vocabulary = {str(i): i for i in range(len(place))}
            self._index.index((ids, vocabulary), create_empty_token=False, show_progress=False)

    def search(self, query: Sequence[Hashable], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Positions and scores of at most k documents, best first, ties by position; a document that shares
        no token with the query is not found."""
        ids = [self._vocabulary[token] for token in query if token in self._vocabulary]
        if not ids or self._index is None:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        scores = np.asarray(self._index.get_scores_from_ids(ids), dtype=np.float32)
        found = np.flatnonzero(scores > 0)
        found = found[best(scores[found], found, k)]
        return found, scores[found]
