"""Encoding on a local Ray: the same bytes whatever the actors, and whatever becomes of them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from tests.cluster.small import encoding_of, some_documents, write_files
from trichrome.cluster import Cluster, Encoding, ModelSource, Progress, encode_part, encode_shards, find_parts
from trichrome.cluster.folder import Manifest, claim
from trichrome.encoder import Encoder
from trichrome.errors import TrichromeError
from trichrome.formats.jsonl import write_documents

pytestmark = pytest.mark.usefixtures("ray")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six files, each many chunks long."""
    return write_files(tmp_path_factory.mktemp("corpus") / "files", files=6, each=240, words=30)


@pytest.fixture(scope="module")
def source(model: Path) -> ModelSource:
    return ModelSource(str(model), "float32")


@pytest.fixture(scope="module")
def encoding(encoder: Encoder) -> Encoding:
    return encoding_of(encoder)


@pytest.fixture(scope="module")
def wanted(
    corpus: Path, encoder: Encoder, encoding: Encoding, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """What every run must give, made in this process by itself."""
    folder = tmp_path_factory.mktemp("wanted")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for part in find_parts(corpus, folder).parts:
            encode_part(part, folder / f"{part.name}.parquet", encoder, encoding)
    finally:
        torch.set_num_threads(before)
    return shards(folder)


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.parquet"))}


def test_any_number_of_actors_gives_the_same_bytes(
    corpus: Path, source: ModelSource, encoding: Encoding, wanted: dict[str, bytes], tmp_path: Path
) -> None:
    seen: list[Progress] = []  # one actor works in the test of restarts, two in that of a death
    report = encode_shards(
        find_parts(corpus, tmp_path), tmp_path, encoding, source, cluster=Cluster(actors=3),
        progress=seen.append,
    )  # fmt: skip
    assert (report.encoded, report.kept, report.redone) == (6, 0, {})
    assert report.counts.documents == 6 * 240
    assert report.passages == report.encoded_passages == seen[-1].passages
    assert (seen[-1].shards, seen[-1].total) == (6, 6)
    assert report.bytes == sum(map(len, wanted.values()))
    assert shards(tmp_path / "shards") == wanted


class Killer(threading.Thread):
    """Stops the process that is writing a shard, and kills it if it was caught in the middle."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.folder, self.over = folder, threading.Event()
        self.killed: list[tuple[int, str]] = []  # pid, and the file that it left unfinished

    def run(self) -> None:
        while not self.over.is_set() and not self.killed:
            for path in self.folder.glob(".*.parquet.*"):
                for pid in self._writers(path):
                    os.kill(pid, signal.SIGSTOP)
                    caught = path.exists()  # stopped before it could give the file its name
                    os.kill(pid, signal.SIGKILL if caught else signal.SIGCONT)
                    if caught:
                        self.killed.append((pid, path.name))
                        return
            time.sleep(0.002)

    @staticmethod
    def _writers(path: Path) -> Iterator[int]:
        for process in psutil.process_iter():
            try:
                if (
                    process.cmdline()[:1] != []
                    and process.cmdline()[0].startswith("ray::")
                    and any(file.path == str(path) for file in process.open_files())
                ):
                    yield process.pid
            except psutil.Error:
                continue


def test_an_actor_killed_in_the_middle_costs_nothing_but_time(
    corpus: Path, source: ModelSource, encoding: Encoding, wanted: dict[str, bytes], tmp_path: Path
) -> None:
    killer, pids = Killer(tmp_path / "shards"), set[int]()
    killer.start()
    report = encode_shards(
        find_parts(corpus, tmp_path), tmp_path, encoding, source, cluster=Cluster(actors=2),
        progress=lambda at: pids.update(at.pids),
    )  # fmt: skip
    killer.over.set()
    killer.join()
    assert len(killer.killed) == 1
    pid, unfinished = killer.killed[0]
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert pid in pids
    assert len(pids) == 3  # two actors, and the one that took the dead one's place
    assert (report.encoded, report.kept) == (6, 0)
    assert shards(tmp_path / "shards") == wanted
    assert [path.name for path in (tmp_path / "shards").iterdir() if path.name.startswith(".")] == []
    assert unfinished.startswith(".part-")


def test_a_restart_makes_what_is_missing_damaged_or_changed(
    corpus: Path, source: ModelSource, encoding: Encoding, wanted: dict[str, bytes], tmp_path: Path
) -> None:
    files = tmp_path / "files"
    files.mkdir()
    for file in corpus.iterdir():
        (files / file.name).write_bytes(file.read_bytes())
    out = tmp_path / "out"
    (out / "shards").mkdir(parents=True)
    for name, data in wanted.items():
        (out / "shards" / name).write_bytes(data)
    (out / "shards" / "part-1.parquet").unlink()
    (out / "shards" / "part-2.parquet").write_bytes(wanted["part-2.parquet"][:-50])
    (out / "shards" / ".part-3.parquet.abc").write_bytes(b"left by a killed process")
    write_documents(files / "part-4.jsonl", some_documents(9, start=5000))

    def run() -> tuple[int, int, dict[str, int]]:
        report = encode_shards(find_parts(files, out), out, encoding, source)
        return report.encoded, report.kept, report.redone

    assert run() == (3, 3, {"damaged": 1, "its source has changed": 1})
    made = shards(out / "shards")
    assert made.keys() == wanted.keys()
    assert {name for name in made if made[name] != wanted[name]} == {"part-4.parquet"}
    assert not list((out / "shards").glob(".*"))
    assert run() == (0, 6, {})


def test_another_model_is_refused_or_encoded_again(
    source: ModelSource, encoder: Encoder, encoding: Encoding, tmp_path: Path
) -> None:
    files, out = write_files(tmp_path / "files", files=2, each=6), tmp_path / "out"
    parts = find_parts(files, out)
    for part in parts.parts:
        encode_part(part, out / "shards" / f"{part.name}.parquet", encoder, encoding)
    assert encode_shards(parts, out, encoding, source).kept == 2
    before = shards(out / "shards")
    shorter = replace(encoding, passage_tokens=10, overlap=2)
    with pytest.raises(TrichromeError, match=r"passage_tokens 40, not 10, overlap 8, not 2; .*--again"):
        encode_shards(parts, out, shorter, source)
    assert shards(out / "shards") == before
    report = encode_shards(parts, out, shorter, source, again=True)
    assert report.redone == {"made with passage_tokens 40, not 10, overlap 8, not 2": 2}
    assert report.counts.cut > 0
    with pytest.raises(TrichromeError, match=r"another corpus or cut \(2 shards, files; now 3, parts/3\)"):
        encode_shards(find_parts(files, out, 3), out, shorter, source)
    with pytest.raises(TrichromeError, match=r"is another model on this machine .*: fingerprint"):
        source.open(replace(encoding, fingerprint="0" * 64))
    with pytest.raises(TrichromeError, match=r"computes in float32 on .*, not in bfloat16"):
        source.open(replace(encoding, dtype="bfloat16"))


def test_a_bad_row_ends_the_run_with_its_place(
    source: ModelSource, encoding: Encoding, tmp_path: Path
) -> None:
    files, out = write_files(tmp_path / "files", files=3, each=6), tmp_path / "out"
    with (files / "part-0.jsonl").open("a") as file:
        file.write('{"id": "no text"}\n')
    with pytest.raises(TrichromeError, match=r"part-0\.jsonl:7: no \"text\""):
        encode_shards(find_parts(files, out), out, encoding, source)
    assert not (out / "shards" / "part-0.parquet").exists()


def test_two_runs_do_not_write_one_folder(source: ModelSource, encoding: Encoding, tmp_path: Path) -> None:
    parts = find_parts(write_files(tmp_path / "files", files=1), tmp_path)
    manifest = Manifest(encoding, "tiny", "files", ["part-0"])
    with claim(tmp_path, manifest, False), pytest.raises(TrichromeError, match="another run is encoding"):
        encode_shards(parts, tmp_path, encoding, source)
