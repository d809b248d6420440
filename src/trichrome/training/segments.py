"""What the M3 paper does with long texts (section 3.3 and appendix A): shuffled segments, and questions about
one paragraph paired with the whole article."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np

from trichrome.records import TrainingExample

#: Shorter texts are left as they are.
LEAST_CHARACTERS = 100


def shuffle_segments(text: str, chance: np.random.Generator) -> str:
    """Cut a long text in three about equal parts, at spaces where there are any near, and shuffle them.

    So a model can't rely on what matters standing at the start. The words stay the same.
    """
    if len(text) < LEAST_CHARACTERS:
        return text
    cuts = [_space_near(text, len(text) * k // 3) for k in (1, 2)]
    parts = [text[: cuts[0]], text[cuts[0] : cuts[1]], text[cuts[1] :]]
    kept = [part.strip() for part in parts]
    return "\n".join(kept[i] for i in chance.permutation(3) if kept[i])


def _space_near(text: str, place: int) -> int:
    """The white space nearest after a place, at most 32 characters on; else the place itself."""
    for i in range(place, min(place + 32, len(text))):
        if text[i].isspace():
            return i
    return place


def long_document_pairs(
    examples: Iterable[TrainingExample],
    article_of: Callable[[TrainingExample], str | None],
    least: int = 2,
) -> Iterator[TrainingExample]:
    """Every question paired with the whole article that its paragraph is from.

    article_of: the article of an example, by its ids for instance; None leaves the example out of any.
    An article is its examples' positives, each text once, in the order met, blank lines between. least:
    articles of fewer texts are no longer than their paragraphs, and yield nothing. The article's name
    becomes the positive's id; negatives, which were chosen for the paragraph, are left out.
    """
    kept: dict[str, list[TrainingExample]] = {}
    for example in examples:
        if (name := article_of(example)) is not None:
            kept.setdefault(name, []).append(example)
    for name, rows in kept.items():
        texts = list(dict.fromkeys(text for row in rows for text in row.positives))
        if len(texts) < least:
            continue
        article = "\n\n".join(texts)
        for row in rows:
            yield replace(
                row,
                positives=(article,),
                negatives=(),
                positive_scores=None,
                negative_scores=None,
                positive_ids=(name,),
                negative_ids=None,
            )
