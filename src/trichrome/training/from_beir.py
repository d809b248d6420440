"""Training examples from a retrieval task: its judgements say which documents answer which query."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from trichrome.formats.beir import BeirTask, read_task
from trichrome.formats.lines import fault
from trichrome.formats.report import ReadReport
from trichrome.records import Document, Query, TrainingExample


def examples_from_task(
    task: BeirTask | str | Path,
    qrels: str | None = None,
    *,
    least_grade: int = 1,
    skip_bad: bool = False,
    report: ReadReport | None = None,
) -> Iterator[TrainingExample]:
    """One example a query that has a relevant document, in the order of the queries.

    task: a BEIR folder, or one that was read. qrels: which judgements, as in formats.beir.read_qrels.
    least_grade: documents judged so or higher are positives, best first; those judged 0 or lower are
    negatives; what lies between is left out and counted. A passage is the document's title and text; the
    ids of queries and documents ride along.

    report: counts the examples, and lists what was left out: judgements between, judgements of a document
    that the corpus lacks or of an empty one, of a query that is not there, queries without a positive.
    skip_bad: leave out judgements whose document or query is missing or empty; else the first is an error.
    Memory: the judged documents, not the corpus.
    TrichromeError: as above; missing files or bad rows.
    """
    read = task if isinstance(task, BeirTask) else read_task(task, qrels=qrels)
    report = ReadReport() if report is None else report
    missing = _Missing(read.folder, skip_bad, report)
    judged = {document for grades in read.qrels.values() for document in grades}
    documents = {d.id: d for d in read.corpus() if d.id in judged}
    left = set(read.qrels)
    for query in read.queries():
        left.discard(query.id)
        if not query.text.strip():
            missing.say("the query is empty", query.id)
            continue
        grades = read.qrels.get(query.id, {})
        found = _found(grades, documents, missing, query.id)
        positives = sorted((d for d in found if grades[d.id] >= least_grade), key=lambda d: -grades[d.id])
        negatives = [d for d in found if grades[d.id] <= 0]
        for document in found:
            if 0 < grades[document.id] < least_grade:
                report.skip(f"judged relevant, but below {least_grade}", f"{query.id} {document.id}")
        if not positives:
            report.skip("no relevant document", query.id)
            continue
        report.read += 1
        yield _example(query, positives, negatives)
    for id in sorted(left):
        missing.say("judged, but not among the queries", id)


def _found(
    grades: Iterable[str], documents: dict[str, Document], missing: _Missing, query: str
) -> list[Document]:
    found = []
    for id in grades:
        document = documents.get(id)
        if document is None:
            missing.say("judged, but not in the corpus", f"{query} {id}")
        elif not document.content.strip():
            missing.say("judged, but the document is empty", f"{query} {id}")
        else:
            found.append(document)
    return found


def _example(query: Query, positives: list[Document], negatives: list[Document]) -> TrainingExample:
    return TrainingExample(
        query.text,
        tuple(d.content for d in positives),
        tuple(d.content for d in negatives),
        lang=query.lang,
        id=query.id,
        positive_ids=tuple(d.id for d in positives),
        negative_ids=tuple(d.id for d in negatives),
    )


class _Missing:
    """What judgements name and the task does not have: an error, or counted."""

    def __init__(self, folder: Path, skip_bad: bool, report: ReadReport) -> None:
        self._folder, self._skip_bad, self._report = folder, skip_bad, report

    def say(self, what: str, ids: str) -> None:
        """ids: the query's, and the document's."""
        if not self._skip_bad:
            raise fault(f"{self._folder}: {ids}", what, "mend the task, or leave such out with skip_bad=True")
        self._report.skip(what, ids)
