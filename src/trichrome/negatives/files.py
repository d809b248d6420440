"""Mining for files of examples: read, sample, build the pool, mine, write; finished files are kept."""

from __future__ import annotations

import hashlib
import heapq
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trichrome.errors import TrichromeError
from trichrome.formats.flagembedding import read_examples
from trichrome.formats.report import ReadReport
from trichrome.negatives.filters import Answers, PairScorer, keys_of
from trichrome.negatives.mine import check_encoder, mine
from trichrome.negatives.pool import MemoryPool, MiningEncoder, PassageTable, Pool, Progress, plain
from trichrome.negatives.report import MineReport
from trichrome.negatives.settings import MineSettings
from trichrome.records import Document, TrainingExample
from trichrome.storage import write_json

#: The report beside an output: what it was made from and what came of it.
REPORT_SUFFIX = ".mine.json"


@dataclass(frozen=True)
class Sample:
    """Which rows and candidates of a file are used.

    max_rows: rows of each language, drawn by the seed; all where None. max_candidates: further passages of
    each language beside those of the rows drawn; all of the file where None. without: languages to leave out
    ("en" leaves out "de-en" too). skip_bad: leave bad rows out and count them.
    """

    max_rows: int | None = None
    max_candidates: int | None = None
    without: tuple[str, ...] = ()
    skip_bad: bool = False
    seed: int = 0

    def wants(self, lang: str | None) -> bool:
        """Whether rows of this language are used."""
        spoken = set((lang or "").lower().replace("_", "-").split("-"))
        return not spoken & {name.lower() for name in self.without}


@dataclass(frozen=True)
class FilePart:
    """What was read of one file.

    examples: the rows drawn, in the order of the file. table: their passages and further candidates.
    answers: what all rows of the file know of the queries drawn. read: the reader's report.
    """

    examples: list[TrainingExample]
    table: PassageTable
    answers: dict[str, Answers]
    read: ReadReport


def read_part(
    path: Path, sample: Sample, settings: MineSettings | None = None, candidates: bool = True
) -> FilePart:
    """Read a file once to draw its rows and once for what they share with the others.

    settings: say what a row's language is. candidates: whether the file's positives may be drawn as
    negatives; else a corpus gives them.
    """
    rows = read_examples(path, skip_bad=sample.skip_bad)
    language = (settings or MineSettings()).language
    chosen: dict[str | None, list[tuple[float, int, TrainingExample]]] = defaultdict(list)
    further: dict[str | None, list[tuple[float, int, TrainingExample]]] = defaultdict(list)
    for number, example in enumerate(rows):
        if not sample.wants(example.lang):
            continue
        place = _place(sample.seed, number)
        lang = language(example.lang)
        left = _keep(chosen[lang], (place, number, example), sample.max_rows)
        if candidates and left is not None:
            _keep(further[lang], left, sample.max_candidates)
    table = PassageTable()
    examples = [e for _, _, e in sorted((r for rows in chosen.values() for r in rows), key=lambda r: r[1])]
    others = [e for _, _, e in sorted((r for rows in further.values() for r in rows), key=lambda r: r[1])]
    for example in (*examples, *others):
        ids = example.positive_ids or (None,) * len(example.positives)
        for text, doc_id in zip(example.positives, ids, strict=True):
            table.add(text, language(example.lang), doc_id, example.id, candidate=candidates)
    report = rows.report
    asked = {plain(example.query) for example in examples}
    same: dict[str, Answers] = {}
    for example in rows:  # what one row knows of a query counts for all, those that were not drawn too
        if (query := plain(example.query)) in asked:
            known = same.get(query, Answers())
            same[query] = Answers(known.texts | set(example.positives), known.keys | keys_of(example))
    return FilePart(examples, table, same, report)


def _keep(heap: list[Any], row: tuple[float, int, Any], most: int | None) -> tuple[float, int, Any] | None:
    """Add a row to those of the lowest places; the row that had to go, if one had."""
    entry = (-row[0], row[1], row[2])
    if most is None or len(heap) < most:
        heapq.heappush(heap, entry)
        return None
    gone = heapq.heappushpop(heap, entry) if most else entry
    return (-gone[0], gone[1], gone[2])


def _place(seed: int, number: int) -> float:
    """A row's place in a random order, whatever is read beside it."""
    digest = hashlib.blake2b(f"{seed} {number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64


def mine_files(
    paths: Sequence[Path],
    outs: Sequence[Path],
    encoder: MiningEncoder | None,
    settings: MineSettings,
    sample: Sample | None = None,
    *,
    corpus: Callable[[], Iterable[Document]] | None = None,
    pool: Pool | None = None,
    rescorer: PairScorer | None = None,
    device: str = "cpu",
    described: str = "",
    progress: Callable[[str, str, int, int], None] | None = None,
    done: Callable[[Path, MineReport, bool], None] | None = None,
) -> list[MineReport]:
    """Mine for several files, each out of its own positives, of a corpus, or of a pool (a store).

    A file whose output is there already, made from the same input by the same settings, is left as it is, so
    that a run that was stopped goes on where it stopped. described: what else the result depends on (the
    corpus, the rescorer, the model's precision). progress: called as (file, stage, done, total).
    done: called with (output, its report, whether it was there already) after each file.
    TrichromeError: see mine and read_examples; an output that is one of the inputs.
    """
    sample = sample or Sample()
    check_encoder(encoder, settings)
    if len({out.resolve() for out in outs} | {path.resolve() for path in paths}) < len(outs) + len(paths):
        raise TrichromeError("each input needs an output of its own, and no output may be an input")
    reports = []
    for path, out in zip(paths, outs, strict=True):
        made_from = _made_from(path, encoder, settings, sample, f"{described} {rescorer and rescorer.name}")
        known = _finished(out, made_from)
        report = known
        if report is None:
            told = _telling(progress, path.name)
            report = _mine_file(
                path, out, encoder, settings, sample, corpus, pool, rescorer, device, told, made_from
            )
        reports.append(report)
        if done is not None:
            done(out, report, known is not None)
    return reports


def _mine_file(
    path: Path,
    out: Path,
    encoder: MiningEncoder | None,
    settings: MineSettings,
    sample: Sample,
    corpus: Callable[[], Iterable[Document]] | None,
    pool: Pool | None,
    rescorer: PairScorer | None,
    device: str,
    progress: Progress,
    made_from: str,
) -> MineReport:
    progress("read", 0, 1)
    part = read_part(path, sample, settings, candidates=corpus is None and pool is None)
    if not part.examples:
        raise TrichromeError(f"{path}: no row is left to mine for ({part.read.summary()})")
    for document in corpus() if corpus is not None else ():
        part.table.add(document.content, document.lang, document.id)
    progress("read", 1, 1)
    if pool is None:
        pool = MemoryPool.encode(part.table, encoder, settings.signals, progress, device)
    Path(f"{out}{REPORT_SUFFIX}").unlink(missing_ok=True)  # of an older output, which is replaced now
    report = mine(
        part.examples, pool, out, encoder, settings,
        rescorer=rescorer, answers=part.answers, progress=progress,
    )  # fmt: skip
    skipped = part.read.skipped
    write_json(
        Path(f"{out}{REPORT_SUFFIX}"),
        {"made_from": made_from, "input": str(path), "skipped": skipped, **report.to_json()},
    )
    return report


def _finished(out: Path, made_from: str) -> MineReport | None:
    """The report of an output that needs no mining any more."""
    beside = Path(f"{out}{REPORT_SUFFIX}")
    if not (out.is_file() and beside.is_file()):
        return None
    try:
        row = json.loads(beside.read_text("utf-8"))
        return MineReport.from_json(row) if row["made_from"] == made_from else None
    except (KeyError, TypeError, ValueError):  # not a report of ours: mine again
        return None


def _made_from(
    path: Path, encoder: MiningEncoder | None, settings: MineSettings, sample: Sample, described: str
) -> str:
    """A hash of the input's bytes, the model and all settings."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise TrichromeError(f"{path}: can't be read ({error.strerror}); check the path") from None
    model = "" if encoder is None else encoder.fingerprint
    rest = [model, asdict(settings), asdict(sample), described]
    digest.update(json.dumps(rest, sort_keys=True).encode())
    return digest.hexdigest()


def _telling(progress: Callable[[str, str, int, int], None] | None, name: str) -> Progress:
    def tell(stage: str, done: int, total: int) -> None:
        if progress is not None:
            progress(name, stage, done, total)

    return tell


def iter_outs(paths: Sequence[Path], out: Path) -> Iterator[Path]:
    """Where each input's output goes: `out` itself for one input, else a file of the input's name in the
    folder `out`. TrichromeError: two inputs of one name."""
    if len(paths) == 1 and not out.is_dir():
        yield out
        return
    names = [path.name for path in paths]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise TrichromeError(f"two inputs are named {twice[0]}: mine them into two folders")
    for name in names:
        yield out / name
