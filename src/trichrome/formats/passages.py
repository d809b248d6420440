"""Documents cut into passages of a bounded number of tokens, with an overlap and their positions kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from trichrome.errors import TrichromeError
from trichrome.records import Document, Payload

#: text → (start, end) characters of each of its tokens in order, without special tokens
Offsets = Callable[[str], Sequence[tuple[int, int]]]

# Where a text may well be cut, from worst to best. Inside of a word is 0, inside of a character -1.
_SPACE, _LINE, _SENTENCE, _PARAGRAPH = 1, 2, 3, 4

# One pass over the text finds every such place: the end of a sentence, or any white space. Scripts that write
# no spaces end a sentence with the mark alone.
_BREAK = re.compile(
    r"(?P<sentence>[.!?…؟۔։।॥።။៕][\"'”’»)\]]*(?=\s)|[。！？｡．][\"'”’」』）】》]*)(?P<after>\s*)|(?P<space>\s+)"
)


def cut_documents(
    documents: Iterable[Document], offsets: Offsets, *, max_tokens: int, overlap: int = 0
) -> Iterator[Document]:
    """Stream the passages of documents; see cut_document."""
    for document in documents:
        yield from cut_document(document, offsets, max_tokens=max_tokens, overlap=overlap)


def cut_document(
    document: Document, offsets: Offsets, *, max_tokens: int, overlap: int = 0
) -> list[Document]:
    """Cut a document into passages of at most `max_tokens` tokens, the title's included; linear in its
    length.

    offsets: character spans of the tokens of a text. The count is of the tokens of the whole text: a
    passage that is tokenised by itself may start with another token (a word's piece becomes a word), so
    leave room for one or two, and for special tokens.
    overlap: how many tokens, at most, a passage repeats of the one before; at most half of max_tokens.

    A passage ends, in the last quarter of what it may hold, at the end of a paragraph, else of a sentence,
    else of a line, else of a word, else between two tokens; never inside of a character. It carries the
    document's title (whose tokens count towards at most half of max_tokens) and language, and the text
    between `start` and `end`. Every character of the text that isn't white space is in at least one passage.

    Returns: the passages in order, ids `docid#0`, `docid#1` …; or one passage with the document's own id
    and whole text where nothing has to be cut. Metadata: the document's, and `document` (its id), `start`,
    `end` (characters in Document.text); values the document had under these names are kept as
    `original_document` and so on.
    TrichromeError: max_tokens or overlap out of range, or offsets that run backwards.
    """
    if max_tokens < 1:
        raise TrichromeError(f"max_tokens is {max_tokens}: a passage needs at least one token")
    if not 0 <= overlap <= max_tokens // 2:
        raise TrichromeError(
            f"overlap is {overlap}: it must lie from 0 to {max_tokens // 2}, half of max_tokens; choose less"
        )
    text = document.text
    room = max_tokens
    if document.title:  # its tokens, and one for the line break after it
        room = max(max_tokens - len(offsets(document.title)) - 1, (max_tokens + 1) // 2)
    spans = np.asarray(offsets(text), dtype=np.int64).reshape(-1, 2)  # [tokens, 2]
    if len(spans) <= room:
        return [_passage(document, document.id, 0, len(text))]
    starts = spans[:, 0]  # [tokens]
    if (np.diff(starts) < 0).any() or starts[0] < 0 or spans[-1, 1] > len(text):
        raise TrichromeError(
            f"document {document.id!r}: the tokens' offsets run backwards or out of the text; "
            "give character offsets in the order of the text"
        )

    ranks = _ranks(text, spans)
    cuts: list[tuple[int, int]] = []
    for first, end in _windows(ranks, room, min(overlap, room // 2)):
        start = int(starts[first]) if first else 0
        stop = int(starts[end]) if end < len(spans) else len(text)
        piece = text[start:stop]
        start += len(piece) - len(piece.lstrip())
        stop -= len(piece) - len(piece.rstrip())
        # Where white space has tokens, a stripped passage may lie inside of its neighbour, which stays.
        if cuts and start == cuts[-1][0] and stop > start:
            cuts.pop()
        if start < stop and (not cuts or stop > cuts[-1][1]):
            cuts.append((start, stop))
    return [_passage(document, f"{document.id}#{k}", *cut) for k, cut in enumerate(cuts)]


def _ranks(text: str, spans: NDArray[np.int64]) -> NDArray[np.int8]:
    """How well the text can be cut before each token, [tokens + 1]; -1 inside of a character."""
    starts = spans[:, 0]
    ranks = np.zeros(len(starts) + 1, dtype=np.int8)
    begins, ends, values = [], [], []
    for match in _BREAK.finditer(text):
        space = match["after"] if match["sentence"] else match["space"]
        lines = space.count("\n")
        rank = _PARAGRAPH if lines > 1 else _SENTENCE if match["sentence"] else _LINE if lines else _SPACE
        begins.append(match.end() - len(space))
        ends.append(match.end())
        values.append(rank)
    if begins:
        # A tokenizer may count the white space to the token after it, or as a token: the break is before the
        # first token that starts at or after the white space, and not after its end.
        tokens = np.searchsorted(starts, np.asarray(begins))  # [breaks]
        near = tokens < len(starts)
        near[near] = starts[tokens[near]] <= np.asarray(ends)[near]
        np.maximum.at(ranks, tokens[near], np.asarray(values, dtype=np.int8)[near])
    # Several tokens may share a character (its bytes): no cut before the second of them.
    ranks[1:-1][starts[1:] < np.maximum.accumulate(spans[:-1, 1])] = -1
    ranks[1:-1][starts[1:] == starts[:-1]] = -1
    return ranks


def _windows(ranks: NDArray[np.int8], room: int, overlap: int) -> Iterator[tuple[int, int]]:
    """(first token, token after the last) of each passage: `room` apart at most, or one character."""
    count = len(ranks) - 1
    first = 0
    while count - first > room:
        end = _best(ranks, first + room - room // 4, first + room + 1, first + 1)
        yield first, end
        if end == count:
            return
        back = max(end - overlap, first + 1)
        # Begin the next one well too: at the best boundary in the first quarter of the overlap, then at any.
        following = np.flatnonzero(ranks[back : end + 1] >= 0)
        start = back + int(following[0])
        if overlap:
            early = ranks[back : back + overlap // 4 + 1]
            if early.max() >= 0:
                start = back + int(early.argmax())
        first = min(start, end)
    yield first, count


def _best(ranks: NDArray[np.int8], low: int, high: int, lowest: int) -> int:
    """The last of the best boundaries in low … high-1; where all cut a character, the nearest whole one:
    downwards as far as `lowest`, else upwards."""
    window = ranks[low:high]
    if window.max() >= 0:
        return high - 1 - int(window[::-1].argmax())
    for boundary in range(low - 1, lowest - 1, -1):
        if ranks[boundary] >= 0:
            return boundary
    while ranks[high] < 0:  # ends at the last: the end of the text cuts nothing
        high += 1
    return high


def _passage(document: Document, id: str, start: int, end: int) -> Document:
    metadata: Payload = {**document.metadata}
    for name in ("document", "start", "end"):
        if name in metadata:
            metadata[f"original_{name}"] = metadata[name]
    metadata.update(document=document.id, start=start, end=end)
    return Document(id, document.text[start:end], document.title, document.lang, metadata)
