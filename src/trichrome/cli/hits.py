"""Hits on a terminal: three scores as numbers and bars, and the text with the words that matched."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from trichrome.cli.console import out

if TYPE_CHECKING:
    from trichrome.embeddings import Embedding
    from trichrome.search import Explanation, Hit, Searcher

Span = tuple[int, int]

#: First-strong isolate and its end: what stands between them moves nothing around it, whichever way it runs.
_ISOLATE, _ISOLATE_END = "\u2068", "\u2069"

#: One colour a signal: in the scores and the bars; the highlights' are close to it.
COLOURS = {"dense": "blue", "sparse": "yellow", "multivector": "green"}
_LABELS = {"dense": "dense", "sparse": "sparse", "multivector": "multi"}
BAR, SNIPPET, INDENT = 8, 320, 4

#: Of words in the text: by how much they add to the sparse score (least first), and of nearest neighbours.
_SHADES = ("yellow", "bold yellow", "bold black on yellow")
_NEAREST = "underline green"

#: Payload names that are not worth a line: shown elsewhere, or of use to programs only.
_UNSAID = {"text", "title", "lang", "_hash", "document", "start", "end", "path", "format", "pages", "message"}


def print_hits(
    searcher: Searcher, query: str, encoded: Embedding, hits: Sequence[Hit], explain: bool = False
) -> None:
    """Print hits, best first. encoded: what the searcher made of the query. explain: with the tables behind
    the sparse and multi-vector scores.

    A text stands on lines of its own, so that one written from right to left moves nothing else.
    """
    if not hits:
        out.print("nothing was found", style="dim")
    most = {signal: max((getattr(hit, signal) or 0.0 for hit in hits), default=0.0) for signal in COLOURS}
    for rank, hit in enumerate(hits, 1):
        why = searcher.explain(query, hit, encoded)
        out.print(_head(rank, hit), soft_wrap=True)
        out.print(_scores(hit, most), soft_wrap=True)
        _print_text(snippet(hit.text, _within(hit, highlights(query, hit.content, why))))
        if said := [f"{k}: {v}" for k, v in hit.payload.items() if k not in _UNSAID]:
            _print_text(Text(" · ".join(isolated(Text(item)).plain for item in said), style="dim"))
        if explain:
            out.print(Padding(_shared(why), (0, 0, 0, 4)))
            out.print(Padding(_matches(why), (0, 0, 0, 4)))


def _head(rank: int, hit: Hit) -> Text:
    line = Text.assemble((f"{rank:2}  ", "bold"), (f"{hit.score:.4f}  ", "bold"))
    if hit.lang:
        line.append(f"[{hit.lang}] ", "magenta")
    if hit.title:
        line.append(isolated(Text(" ".join(hit.title.split()), "bold"))).append("  ")
    return line.append(isolated(Text(hit.id, "dim")))


def _within(hit: Hit, marks: Sequence[tuple[Span, str]]) -> list[tuple[Span, str]]:
    """The highlights of the text, counted from its start; those of the title left out."""
    before = len(hit.content) - len(hit.text)
    return [((first - before, last - before), style) for (first, last), style in marks if first >= before]


def _print_text(text: Text) -> None:
    """Indented, each line isolated by itself: to a terminal, every line is a paragraph."""
    for line in text.wrap(out, max(20, out.width - 2 * INDENT)):
        line.rstrip()
        out.print(Text(" " * INDENT).append(isolated(line)), soft_wrap=True)


def _scores(hit: Hit, most: Mapping[str, float]) -> Text:
    """The three scores; a bar is full at 1 for the cosines, at the best hit's for sparse, which has no
    upper bound."""
    line = Text("    ")
    for signal, colour in COLOURS.items():
        score = getattr(hit, signal)
        if score is None:
            line.append(f"{_LABELS[signal]} –  ", "dim")
            continue
        full = max(most[signal], 1e-9) if signal == "sparse" else 1.0
        line.append(f"{_LABELS[signal]} ", "dim").append(f"{score:.3f} ", colour)
        line.append(_bar(score / full), colour).append("  ")
    return line


def _bar(share: float) -> str:
    """A share of 0 … 1 in eighths of a character."""
    eighths = round(max(0.0, min(share, 1.0)) * BAR * 8)
    return ("█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()).ljust(BAR, "·")


def highlights(query: str, text: str, why: Explanation) -> list[tuple[Span, str]]:
    """Spans of the text that explain it, each with its style: the tokens shared with the query, the brighter
    the more they add to the sparse score, and the nearest neighbours of those query words that found a
    closer one than the query's words do on average. Grown to whole words."""
    found = []
    most = max((token.contribution for token in why.shared), default=1.0)
    for token in why.shared:  # a third of the most is bold, two thirds are marked
        shade = _SHADES[min(int(3 * token.contribution / most), 2)]
        found += [(word_around(text, span), shade) for span in token.passage_spans]
    words = [m for m in why.matches if _says_something(query, m.query_span)]
    if words:
        mean = sum(match.cosine for match in words) / len(words)
        for match in words:
            if match.cosine >= mean and _says_something(text, match.passage_span):
                found.append((word_around(text, match.passage_span), _NEAREST))
    return sorted(set(found))


def _says_something(text: str, span: Span) -> bool:
    """Whether there is a letter or a digit (the end-of-text token has an empty span)."""
    return any(character.isalnum() for character in text[slice(*span)])


def word_around(text: str, span: Span) -> Span:
    """The span without white space at its ends, grown to the whole word where words are set apart by
    spaces."""
    start, end = span
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if start == end:
        return start, end
    while start > 0 and _joins(text[start - 1]) and _joins(text[start]):
        start -= 1
    while end < len(text) and _joins(text[end]) and _joins(text[end - 1]):
        end += 1
    return start, end


def _joins(character: str) -> bool:
    """A letter, mark or digit of a script that puts spaces between words (not Thai … Burmese, Khmer, kana,
    Han)."""
    code = ord(character)
    unspaced = 0x0E00 <= code <= 0x109F or 0x1780 <= code <= 0x17FF or 0x2E80 <= code <= 0xABFF
    unspaced = unspaced or 0xF900 <= code <= 0xFAFF or code >= 0x20000
    return not unspaced and unicodedata.category(character)[0] in "LMN"


def snippet(text: str, spans: Sequence[tuple[Span, str]]) -> Text:
    """At most SNIPPET characters of a text, where most is highlighted, on one paragraph. spans: with the
    style of each."""
    start = _densest(len(text), [span for span, _ in spans])
    while 0 < start < len(text) and _joins(text[start - 1]) and _joins(text[start]):
        start -= 1  # begin with a whole word
    end = min(len(text), start + SNIPPET)
    shown = Text("…" if start else "")
    before = len(shown)
    shown.append(
        "".join(" " if c.isspace() or unicodedata.category(c) == "Cc" else c for c in text[start:end])
    )
    order = (_NEAREST, *_SHADES)  # the brightest last: it wins where several meet
    for (first, last), style in sorted(spans, key=lambda s: order.index(s[1])):
        if start <= first < end:
            shown.stylize(style, first - start + before, min(last, end) - start + before)
    return shown.append("…") if end < len(text) else shown


def isolated(shown: Text) -> Text:
    """Set apart if it holds anything written from right to left; other text stays as it is."""
    if any(unicodedata.bidirectional(c) in ("R", "AL", "AN") for c in shown.plain):
        return Text.assemble(_ISOLATE, shown, _ISOLATE_END)
    return shown


def _densest(length: int, spans: Sequence[Span]) -> int:
    """Where a window of SNIPPET characters holds the most spans, a little before the first of them."""
    if length <= SNIPPET or not spans:
        return 0
    counts = [
        sum(first <= other[0] and other[1] <= first + SNIPPET * 3 // 4 for other in spans)
        for first, _ in spans
    ]
    first = spans[counts.index(max(counts))][0]
    return max(0, min(first - SNIPPET // 8, length - SNIPPET))


def _shared(why: Explanation) -> Table:
    title = f"shared tokens → sparse {why.sparse:.4f}" if why.sparse is not None else "no sparse output"
    table = Table(
        title=title, title_justify="left", box=None, padding=(0, 2, 0, 0), show_header=bool(why.shared)
    )
    table.add_column("query", justify="right")
    for name in ("passage", "product"):
        table.add_column(name, justify="right")
    table.add_column("token")
    for token in why.shared:
        table.add_row(
            f"{token.query_weight:.3f}",
            f"{token.passage_weight:.3f}",
            Text(f"{token.contribution:.4f}", COLOURS["sparse"]),
            _plain(token.token),
        )
    return table


def _matches(why: Explanation) -> Table:
    score = why.multivector
    title = f"nearest tokens → multi-vector {score:.4f}" if score is not None else "no multi-vector output"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("cosine", justify="right")
    table.add_column("query token")
    table.add_column("passage token")
    for match in why.matches:
        table.add_row(
            Text(f"{match.cosine:.3f}", COLOURS["multivector"]),
            _plain(match.query_token),
            _plain(match.passage_token),
        )
    return table


def _plain(token: str) -> Text:
    """The token without sentencepiece's mark of a word's beginning."""
    return isolated(Text(token.replace("▁", "") or "␣"))
