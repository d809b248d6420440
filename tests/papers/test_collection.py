"""Real text for rows: splits, answers, and what a folder must hold."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from trichrome.errors import TrichromeError
from trichrome.papers.pattern.collection import (
    VARIABLE,
    collect,
    data_folder,
    titles_and_halves,
    titles_and_rests,
    titles_and_texts,
    titles_and_translations,
)
from trichrome.papers.pattern.paper import Source

SOURCE = Source("made here", "free")
PAIRS = [(f"query {i}", f"passage {i}") for i in range(30)] + [("query 3", "another passage of 3"), ("", "x")]


def test_no_query_is_trained_and_tested_and_all_answers_are_there() -> None:
    found = collect(PAIRS, SOURCE, train=10, test=5, passages=20)
    assert (len(found.train), len(found.test), len(found.passages)) == (10, 5, 20)
    assert not {*found.train.texts} & {*found.test.texts}
    answers = {q: {p for x, p in PAIRS if x == q} for q, _ in PAIRS}
    for split in (found.train, found.test):
        for query, rows in zip(split.texts, split.answers, strict=True):
            assert {found.passages[i] for i in rows} == answers[query]
    again = collect(PAIRS, SOURCE, train=10, test=5, passages=20)
    assert (again.passages, again.train.texts) == (found.passages, found.train.texts)
    other = collect(PAIRS, SOURCE, train=10, test=5, passages=20, seed=1)
    assert other.train.texts != found.train.texts


def test_hits_are_those_of_the_answers() -> None:
    test = collect(PAIRS, SOURCE, train=10, test=5, passages=20).test
    first = np.array([[rows[0], -1] for rows in test.answers])
    assert test.hits(first)[:, 0].all()
    assert not test.hits(first)[:, 1].any()
    wide = test.hits_of(np.array([0, 1]), np.concatenate([test.answers[0], test.answers[1]]))
    n = len(test.answers[0])
    assert wide[0, :n].all()
    assert not wide[0, n:].any()


def test_a_folder_gives_its_english_titles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train").mkdir()
    rows = [
        {"query": f"title {i}", "pos": [f"text {i}"], "neg": [], "lang": "en" if i % 2 else "de"}
        for i in range(40)
    ]
    with gzip.open(tmp_path / "train" / "ddtp.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    found = titles_and_texts(data_folder(), train=10, test=5, passages=100)
    assert len(found.passages) == 20
    assert all(int(text.split()[1]) % 2 for text in found.passages)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(TrichromeError, match="nowhere"):
        data_folder()


def test_translations_are_answers_of_their_english_title(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    rows = [
        {"query": f"title {i} {lang}", "pos": [f"text {i} {lang}"], "neg": [], "lang": lang, "id": str(i)}
        for i in range(30)
        for lang in ("da", "en", "it")
        if not (i % 3 == 0 and lang == "it")  # a third of them in two languages only
    ]
    with gzip.open(tmp_path / "train" / "ddtp.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    found = titles_and_translations(tmp_path, train=10, test=5, passages=100)
    assert len(found.passages) == 60
    for query, answers in zip(found.test.texts, found.test.answers, strict=True):
        number = query.split()[1]
        assert query.endswith(" en")
        assert int(number) % 3
        assert {found.passages[i] for i in answers} == {
            f"text {number} {lang}" for lang in ("da", "en", "it")
        }


def test_without_a_folder_there_are_catalogues() -> None:
    pytest.importorskip("django")
    found = titles_and_texts(None, train=300, test=100, passages=2000)
    assert len(found.test) == 100
    assert np.mean([len(rows) for rows in found.test.answers]) > 3  # one a language


def test_halves_are_two_answers_of_one_title(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    texts = {f"title {i}": " ".join(f"w{i}-{j}" for j in range(20 + i)) for i in range(12)}
    rows = [{"query": q, "pos": [text], "neg": [], "lang": "en"} for q, text in texts.items()]
    with gzip.open(tmp_path / "train" / "ddtp.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    found = titles_and_halves(tmp_path, train=5, test=3, passages=100)
    long = {q for q, text in texts.items() if len(text.split()) >= 24}
    assert {*found.train.texts, *found.test.texts} <= long
    for query, answers in zip(found.train.texts, found.train.answers, strict=True):
        halves = sorted((found.passages[i] for i in answers), key=texts[query].index)
        assert " ".join(halves) == texts[query]
        assert len(halves) == 2
    rests = titles_and_rests(tmp_path, train=5, test=3, passages=100)
    assert {*rests.train.texts, *rests.test.texts} <= long
    for query, answers in zip(rests.test.texts, rests.test.answers, strict=True):
        (only,) = (rests.passages[i] for i in answers)
        assert texts[query].endswith(only)
        assert len(only.split()) == len(texts[query].split()) - len(texts[query].split()) // 2
