"""A reviser of an index's queries, from questions to a search with it."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from typer import Typer
from typer.testing import CliRunner

from tests.tiny import WORDS, tiny_encoder
from trichrome import Document
from trichrome.encoder import load, save
from trichrome.errors import TrichromeError
from trichrome.formats.flagembedding import read_examples
from trichrome.index import create_store_for, index_documents, open_store
from trichrome.search import Feedback, Searcher
from trichrome.search.revisers import LearnedReviser
from trichrome.training.fit_reviser import fit_reviser, main
from trichrome.training.revision import Settings


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A tiny model, its index of 60 documents, and 40 questions made of words of a document."""
    tiny = tiny_encoder()
    with torch.no_grad():  # as it is drawn, hardly a token has a sparse weight
        tiny.network.heads.sparse.bias.fill_(1)
    save(tiny, tmp_path / "tiny")
    encoder = load(tmp_path / "tiny", device="cpu")
    draw = random.Random(0)
    texts = [" ".join(draw.choices(WORDS, k=7)) for _ in range(60)]
    settings = {"model": str(tmp_path / "tiny")}
    with create_store_for(encoder, tmp_path / "index", kind="exact", settings=settings) as store:
        index_documents(store, encoder, [Document(f"d{i}", text) for i, text in enumerate(texts)])
    with (tmp_path / "questions.jsonl").open("w") as file:
        for i in range(40):
            row = {"query": " ".join(draw.sample(texts[i].split(), 3)), "pos": [texts[i]]}
            file.write(json.dumps(row | ({"pos_ids": [f"d{i}"]} if i % 2 else {})) + "\n")
    return tmp_path


def test_from_questions_to_a_search(work: Path) -> None:
    app = Typer()
    app.command()(main)
    command = ["--index", str(work / "index"), "--data", str(work / "questions.jsonl")]
    command += ["--out", str(work / "r.safetensors"), "--documents", "3", "--steps", "20", "--rows", "16"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    reviser = LearnedReviser.load(work / "r.safetensors")
    assert reviser.dense is not None
    assert reviser.sparse is not None
    encoder = load(work / "tiny", device="cpu")
    with open_store(work / "index") as store:
        searcher = Searcher(encoder, store)
        query = WORDS[3] + " " + WORDS[5]
        plain = searcher.search(query, "dense", k=5)
        twice = searcher.search(query, "dense", k=5, feedback=Feedback(reviser, 3))
    assert len(twice) == 5
    assert [hit.score for hit in plain] != [hit.score for hit in twice]


def test_it_learns_from_the_index(work: Path) -> None:
    """The loss on the questions' answers falls below that of a reviser that is not trained."""
    examples = list(read_examples(work / "questions.jsonl"))
    encoder = load(work / "tiny", device="cpu")
    with open_store(work / "index") as store:
        found = {
            steps: fit_reviser(
                store, encoder, examples, documents=3, settings=Settings(steps=steps, rows=40, rate=3e-3)
            )
            for steps in (1, 80)
        }
        searcher, ranks = Searcher(encoder, store), {}
        for steps, reviser in found.items():
            twice = Feedback(reviser, 3)
            lists = [searcher.search(e.query, "dense", k=60, feedback=twice) for e in examples]
            ranks[steps] = np.mean([[hit.id for hit in hits].index(f"d{i}") for i, hits in enumerate(lists)])
    assert ranks[80] < ranks[1]


def test_what_is_refused(work: Path) -> None:
    with (work / "questions.jsonl").open("a") as file:
        file.write(json.dumps({"query": WORDS[0], "pos": ["this is nowhere"]}) + "\n")
    examples, settings = list(read_examples(work / "questions.jsonl")), Settings(steps=2)
    encoder = load(work / "tiny", device="cpu")
    with open_store(work / "index") as store:
        with pytest.raises(TrichromeError, match="1 of 41 rows"):
            fit_reviser(store, encoder, examples, settings=settings)
        assert fit_reviser(store, encoder, examples, settings=settings, skip_bad=True).dense is not None
        with pytest.raises(TrichromeError, match="no question finds 61 documents"):
            fit_reviser(store, encoder, examples[:40], settings=settings, documents=61)
