"""The tables of the README and the pages in docs/, made from benchmarks/results/*.json.

    python -m benchmarks.tables [--check]

What stands between `<!-- results:NAME -->` and `<!-- /results -->` is replaced by the table of NAME. With
--check nothing is written; the exit code is 1 where a page doesn't say what the results say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Annotated, Any, TypeAlias

import typer

from benchmarks.common import RESULTS
from trichrome.errors import TrichromeError
from trichrome.evaluation import Suite, markdown
from trichrome.search.modes import MODE_NAMES
from trichrome.storage import atomic_write

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

Results: TypeAlias = "Mapping[str, Any]"

_BLOCK = re.compile(
    r"(?P<open><!-- results:(?P<name>[\w-]+) -->\n).*?(?P<close><!-- /results -->)", re.DOTALL
)


def main(
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit with 1 if out of date.")
    ] = False,
) -> None:
    """Bring all tables up to date."""
    stale = []
    for page in PAGES:
        old = page.read_text("utf-8")
        try:
            new = fill(old, RESULTS)
        except TrichromeError as error:
            raise SystemExit(f"error: {page.name}: {error}") from None
        if new == old:
            continue
        stale.append(page.name)
        if not check:
            with atomic_write(page) as file:
                file.write(new.encode())
            print(f"wrote {page}")
    if check and stale:
        raise SystemExit(f"error: out of date: {', '.join(stale)}; run python -m benchmarks.tables")
    if not stale:
        print("all tables are up to date")


def fill(text: str, results: Path) -> str:
    """The text with every marked block made anew. TrichromeError: a name without a table, bad results."""

    def block(match: re.Match[str]) -> str:
        return f"{match['open']}{table(match['name'], results)}{match['close']}"

    return _BLOCK.sub(block, text)


def table(name: str, results: Path) -> str:
    """The Markdown of one benchmark's results; a line that says so where it was not run yet."""
    if name not in TABLES:
        raise TrichromeError(f"no table is called {name!r}; there are {', '.join(TABLES)}")
    files, make = TABLES[name]
    paths = [results / f"{file}.json" for file in files]
    command = f"python -m benchmarks.{files[-1]}"
    if not all(path.is_file() for path in paths):
        return f"Not measured yet: `{command}`.\n"
    try:
        return make(*(json.loads(path.read_text("utf-8")) for path in paths))
    except (ValueError, KeyError, TypeError) as error:
        raise TrichromeError(
            f"{paths[-1]}: not the results of this version ({error!r}); run {command}"
        ) from None


def quality(values: Results) -> str:
    """Two tables, a row a task; then how many documents were longer than the model reads."""
    suite = Suite.from_json(values)
    cut = [f"{r.task} {r.cut_documents:,} of {r.documents:,}" for r in suite.reports if r.cut_documents]
    lines = [
        markdown(suite.reports, "nDCG@10"),
        markdown(suite.reports, "Recall@100"),
        f"`{suite.reports[0].model}` in {values['dtype']}; {_machine(values)}",
    ]
    if cut:
        lines.append(
            f"Documents of which only the beginning was read (BM25 read them whole): {', '.join(cut)}."
        )
    return "\n".join(lines) + "\n"


def encode(values: Results) -> str:
    """A row a contender: medians over the rounds; then the ratios, which were taken within rounds."""
    rounds = values["rounds"]
    contenders = dict.fromkeys(key for row in rounds for key in row if key != "matrix_rate")
    lines = ["| | batch | texts/s | peak memory | rounds |", "|---|--:|--:|--:|--:|"]
    for key in contenders:
        name, _, batch = key.partition("@")
        runs = [row[key] for row in rounds if key in row]
        seconds = median(run["seconds"] for run in runs)
        peak = median(run["peak_mib"] for run in runs)
        lines.append(
            f"| {name} | {batch} | {values['texts'] / seconds:.1f} | {peak:,.0f} MiB | {len(runs)} |"
        )
    lines += ["", "| median over the rounds | |", "|---|--:|"]
    lines += [f"| {_meaning(name)} | {ratio:.2f} |" for name, ratio in values["ratios"].items()]
    if one := values.get("one_length"):
        lines += ["", f"| texts of {one['tokens']} tokens | texts/s | ÷ trichrome |", "|---|--:|--:|"]
        for name in one["rounds"][0]:
            seconds = median(row[name] for row in one["rounds"])
            gain = median(row["trichrome"] / row[name] for row in one["rounds"])
            lines.append(f"| {name} | {one['texts'] / seconds:.1f} | {gain:.2f} |")
    texts = "real texts" if values["real_texts"] else "made-up texts"
    lines += ["", f"{values['texts']:,} {texts}, {values['tokens']:,} tokens; {_machine(values)}"]
    return "\n".join(lines) + "\n"


def search(values: Results) -> str:
    """A row a store and mode."""
    lines = [
        "| store | mode | p50 | p95 | p50 with encoding | recall@10 |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for store, figures in values["stores"].items():
        for mode, row in figures["modes"].items():
            lines.append(
                f"| {store} | {mode} | {row['p50_ms']:.2f} ms | {row['p95_ms']:.2f} ms | "
                f"{row['p50_ms_with_encoding']:.1f} ms | {row['recall10']:.3f} |"
            )
    passages = f"{values['passages']:,} passages, {values['queries']:,} queries one at a time"
    lines += ["", f"{passages}; recall against the exact store; {_machine(values)}"]
    return "\n".join(lines) + "\n"


def crash(values: Results) -> str:
    """A row a store."""
    lines = [
        "| store | kills (−9) | documents checked | acknowledged, then lost | batches half there "
        "| final answers that differ |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for store, row in values["stores"].items():
        counts = (row[name] for name in ("kills", "checked", "lost", "half", "different"))
        lines.append(f"| {store} | " + " | ".join(f"{count:,}" for count in counts) + " |")
    lines += ["", f"{values['documents']:,} documents, {values['changes']:,} changes; {_machine(values)}"]
    return "\n".join(lines) + "\n"


def training(base: Results, before: Results, after: Results) -> str:
    """What training changed, nDCG@10: the bare base and `small` before and after it, a row a task."""
    suites = [Suite.from_json(values) for values in (base, before, after)]
    tasks = [r.task for r in suites[-1].reports]
    by_task = [{r.task: r.means for r in suite.reports} for suite in suites]

    def cell(task: str, suite: int, system: str) -> float:
        return 100 * float(by_task[suite][task][system]["nDCG@10"])

    columns: list[tuple[str, list[tuple[int, str]]]] = [
        ("base dense", [(0, "dense")]),
        ("base token states", [(0, "multivector")]),
        ("BM25, same tokens", [(2, "bm25-tokenizer")]),
        *((mode, [(1, mode), (2, mode)]) for mode in MODE_NAMES),
    ]
    lines = [
        "| task | " + " | ".join(name for name, _ in columns) + " |",
        "|---" + "|--:" * len(columns) + "|",
    ]
    for task in (*tasks, "mean"):
        cells = []
        for _, sources in columns:
            figures = [
                sum(cell(t, *source) for t in tasks) / len(tasks) if task == "mean" else cell(task, *source)
                for source in sources
            ]
            cells.append(" → ".join(f"{figure:.1f}" for figure in figures))
        lines.append(f"| {task} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", _machine(after)]) + "\n"


def laws(values: Results) -> str:
    """A row a law."""
    lines = ["| law | effect | interval | holds |", "|---|--:|--:|---|"]
    for name, law in sorted(values.items()):
        if isinstance(law, dict) and "effect" in law:
            holds = "yes" if law["holds"] else "no"
            what = law.get("what", f"({name})")
            lines.append(f"| {what} | {law['effect']:.3g} | {law['low']:.3g} … {law['high']:.3g} | {holds} |")
    return "\n".join(lines) + "\n"


def train(values: Results) -> str:
    """A row a contender of the unified step; then a row a length of the largest batches."""
    step = values["unified_step"]
    lines = ["| one unified step | time | peak memory |", "|---|--:|--:|"]
    for name in ("flagembedding", "trichrome"):
        runs = [row[name] for row in step["rounds"]]
        seconds = median(median(run["seconds"]) for run in runs)
        lines.append(f"| {name} | {seconds:.2f} s | {median(run['peak_mib'] for run in runs):,.0f} MiB |")
    time, memory = step["ratio_step_time"], step["ratio_peak_memory"]
    lines.append(f"| trichrome ÷ flagembedding, median of the rounds | {time:.2f} | {memory:.2f} |")
    lines += ["", "| tokens a passage | pairs in one pass | with split-batch | gain |", "|--:|--:|--:|--:|"]
    for tokens, room in values["largest_batch"].items():
        one, split = room["one_pass"]["pairs"], room["split_batch"]["pairs"]
        gain = f"{room['gain']:.1f} ×" if room["gain"] else "does not fit in one pass"
        lines.append(f"| {int(tokens):,} | {one:,} | {split:,} | {gain} |")
    work = step["work"]
    batch = f"{work['queries']} queries × {work['group']} passages of {work['passage_tokens']} tokens"
    lines += ["", f"{batch}; largest batches within {values['memory_mib']:,} MiB; {_machine(values)}"]
    return "\n".join(lines) + "\n"


def precision(values: Results) -> str:
    """A row a task and mode: nDCG@10 in float32, and the points that the other precisions lose."""
    others = list(values["points_lost"])
    lines = ["| task | mode | float32 | " + " | ".join(f"{name} loses" for name in others) + " |"]
    lines.append("|---|---|--:" + "|--:" * len(others) + "|")
    for task, modes in values["ndcg10"]["float32"].items():
        for mode, score in modes.items():
            lost = (f"{values['points_lost'][name][task][mode]:.2f}" for name in others)
            lines.append(f"| {task} | {mode} | {100 * score:.1f} | " + " | ".join(lost) + " |")
    lines += ["", f"Points of nDCG@10; `{values['model']}`; {_machine(values)}"]
    return "\n".join(lines) + "\n"


def compress(values: Results) -> str:
    """A row a setting of a store."""
    lines = [
        "| store | dense search | token vectors | bytes a document | of these dense search reads "
        "| tokens | points lost: dense | multivector | all | recall@10: dense | multivector | all |",
        "|---|---|---|" + "--:|" * 9,
    ]
    for row in values["settings"]:
        size, lost, found = row["bytes_a_document"], row["lost"], row["recall10"]
        read = size.get("codes") or size.get("dense")
        cells = [row["kind"], row["dense_search"], row["multivector_dtype"], f"{size['all']:,.0f}"]
        cells += [f"{part:,.0f}" if part is not None else "" for part in (read, size.get("tokens"))]
        cells += [f"{lost[mode]:.2f}" for mode in lost] + [f"{found[mode]:.3f}" for mode in found]
        lines.append("| " + " | ".join(cells) + " |")
    tasks = ", ".join(f"{name} ({n:,} documents)" for name, (n, _) in values["tasks"].items())
    tokens = f"{values['tokens_a_document']:.0f} token vectors a document"
    lines += ["", f"Means over {tasks}; {tokens}; points of nDCG@10; {_machine(values)}"]
    return "\n".join(lines) + "\n"


def serve(values: Results) -> str:
    """A row a level: requests a second and latencies of each server, medians over the rounds; the ratios."""
    levels = dict.fromkeys((row["texts"], row["clients"]) for row in values["measured"])
    names = list(values["measured"][0]["contenders"])
    lines = [
        "| | clients | " + " | ".join(f"{name}: requests/s | p50 | p99" for name in names) + " |",
        "|---" * (2 + 3 * len(names)) + "|",
    ]
    for kind, clients in levels:
        of_level = [r for r in values["measured"] if (r["texts"], r["clients"]) == (kind, clients)]
        cells = [kind, str(clients)]
        for name in names:
            for what, digits in (("per_second", 1), ("p50_ms", 0), ("p99_ms", 0)):
                figures = [row["contenders"][name][what] for row in of_level]
                known = [figure for figure in figures if figure is not None]
                cells.append(f"{median(known):,.{digits}f}" if known else "")
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "| requests/s ÷ the better plain server's, median over the rounds | |", "|---|--:|"]
    for name, ratio in values["ratios"].items():
        if name.startswith("ratio") and ratio is not None:
            clients, *rest = name.removeprefix("ratio_throughput_").split("_")
            lines.append(f"| {', '.join([f'{clients} clients', *rest])} | {ratio:.2f} |")
    errors = f"{values['ratios']['errors']} errors, of the plain servers {values['ratios']['errors_plain']}"
    shape = f"{values['rounds']} rounds of {values['seconds']:.0f} s a level; latencies in ms"
    lines += ["", f"{errors}; {shape}; {_machine(values)}"]
    return "\n".join(lines) + "\n"


def crash_serve(values: Results) -> str:
    """One row: what was left after the kills."""
    cells = (values[name] for name in ("kills", "acknowledged", "checked", "lost", "half", "different"))
    lines = [
        "| kills (−9) | acknowledgements | documents checked | lost | half there | answers that differ |",
        "|--:|--:|--:|--:|--:|--:|",
        "| " + " | ".join(f"{cell:,}" for cell in cells) + " |",
    ]
    starts = median(values["starts"])
    lines += [
        "",
        f"Indexes: {' and '.join(values['indexes'])}; ready again after {starts:.1f} s (median); "
        f"{_machine(values)}",
    ]
    return "\n".join(lines) + "\n"


def fuzz(values: Results) -> str:
    """A row a target: how many cases."""
    lines = ["| | cases | failures |", "|---|--:|--:|"]
    for kind, targets in values["kinds"].items():
        counts = values["counts"][kind]
        lines.append(f"| **{kind}** | **{counts['cases']:,}** | **{counts['failures']}** |")
        if kind != "endpoints":  # a hundred rows that say the same
            for name, row in targets.items():
                lines.append(f"| {name} | {row['cases']:,} | {len(row['failures'])} |")
    lines += ["", f"{values['minutes']:.0f} minutes; {_machine(values)}"]
    return "\n".join(lines) + "\n"


TABLES: Mapping[str, tuple[tuple[str, ...], Callable[..., str]]] = {
    "quality": (("quality",), quality),
    "training": (("quality-base", "quality-before", "quality"), training),
    "encode": (("encode",), encode),
    "search": (("search",), search),
    "crash": (("crash",), crash),
    "serve": (("serve",), serve),
    "crash_postgres": (("crash_postgres",), crash),
    "crash_serve": (("crash_serve",), crash_serve),
    "fuzz": (("fuzz",), fuzz),
    "laws": (("laws",), laws),
    "precision": (("precision",), precision),
    "compress": (("compress",), compress),
    "train": (("train",), train),
}


def _meaning(figure: str) -> str:
    """ratio_peak_memory_best → memory, trichrome ÷ FlagEmbedding best."""
    if figure.startswith("fraction_of_matmul"):
        dtype = figure.removeprefix("fraction_of_matmul").replace("_", ", ")
        return f"share of the matrix product's rate{dtype}"
    rest = figure.removeprefix("ratio_")
    if rest.startswith("peak_memory_"):
        return f"peak memory, trichrome ÷ flagembedding {rest.removeprefix('peak_memory_')}"
    return f"speed, trichrome ÷ {rest.replace('_', ' ')}"


def _machine(values: Results) -> str:
    machine = values["machine"]
    return f"{machine['processor']}, {machine['cores']} cores, torch {machine['packages']['torch']}."


if __name__ == "__main__":
    typer.run(main)
