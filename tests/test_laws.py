"""The parts of benchmarks.laws that need no data: intervals, parts of tasks, siblings, exactness."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from benchmarks.laws_batches import EXACT, Batches, exactness
from benchmarks.laws_common import (
    Interval,
    Paired,
    all_above_zero,
    cut_vocabulary,
    drawn_rows,
    over_seeds,
    part_of,
    sentence_pair,
    sibling,
    smallest,
    spoken,
)
from tests.tiny import TEXTS, tiny_encoder
from trichrome.encoder import load, save
from trichrome.evaluation import Task
from trichrome.formats.flagembedding import read_examples, write_examples
from trichrome.records import Document, Query, TrainingExample


def test_every_task_counts_the_same() -> None:
    many = {"a": np.full(1000, 0.5), "b": np.full(1000, 0.4)}
    few = {"a": np.full(10, 0.2), "b": np.full(10, 0.5)}
    paired = Paired([many, few], samples=50)
    assert paired.mean("a") == pytest.approx(35)
    # no query differs from the others of its task, so resampling changes nothing
    difference = paired.difference("a", "b")
    assert (difference.effect, difference.low, difference.high) == pytest.approx((-10, -10, -10))


def test_interval_of_paired_queries_holds_the_effect_and_shrinks_with_queries() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for queries in (20, 2000):
        base = rng.random(queries)
        paired = Paired([{"better": base + rng.normal(0.1, 0.2, queries), "base": base}], samples=500)
        gain = paired.difference("better", "base")
        assert gain.low < gain.effect < gain.high
        widths.append(gain.high - gain.low)
    assert widths[1] < widths[0] / 5


def test_students_interval() -> None:
    # mean 3, standard deviation 1.5811, t(0.975, 4) = 2.7764
    found = over_seeds([1, 2, 3, 4, 5])
    assert (found.effect, found.low, found.high) == pytest.approx((3, 3 - 1.9632, 3 + 1.9632), abs=1e-4)
    with pytest.raises(ValueError, match="at least two"):
        over_seeds([1.0])


def test_a_law_of_several_differences_is_as_good_as_its_weakest() -> None:
    steps = {"one": Interval(3, 1, 5), "two": Interval(2, -0.1, 4)}
    assert smallest(steps) == steps["two"]
    assert not all_above_zero(steps)
    assert all_above_zero({"one": steps["one"]})


def _task() -> Task:
    documents = [Document(f"d{i}", f"text {i}", lang="de" if i % 2 else "en") for i in range(20)]
    queries = [Query(f"q{i}", f"question {i}", lang="de" if i % 2 else "en") for i in range(10)]
    qrels = {f"q{i}": {f"d{i}": 1} for i in range(10)}
    return Task.of("t", documents, queries, qrels, within_language=True)


def test_a_part_of_a_task_keeps_the_answers() -> None:
    part = part_of(_task(), 4, 9)
    assert len(part.queries) == 4
    assert len(part.documents) == 9
    assert {d for q in part.queries for d in part.qrels[q.id]} <= {d.id for d in part.documents}
    answers = {d for q in part.queries for d in part.qrels[q.id]}
    assert {d.id for d in part_of(_task(), 4, 2).documents} == answers
    assert part_of(_task(), None, None) == _task()


def test_languages_of_a_task() -> None:
    german = spoken(_task(), ["de"])
    assert {d.lang for d in german.documents} == {q.lang for q in german.queries} == {"de"}
    assert len(german.queries) == 5


def test_drawn_rows_stay_in_order_and_are_drawn_once(tmp_path: Path) -> None:
    source, out = tmp_path / "all.jsonl", tmp_path / "some.jsonl"
    write_examples(source, [TrainingExample(f"query {i}", (f"passage {i}",)) for i in range(30)])
    drawn = [row.query for row in read_examples(drawn_rows(source, 7, out))]
    assert len(set(drawn)) == 7
    assert drawn == sorted(drawn, key=lambda q: int(q.split()[1]))
    source.unlink()
    assert [row.query for row in read_examples(drawn_rows(source, 7, out))] == drawn


def test_a_sentence_asks_for_the_rest() -> None:
    text = "これは最初の文であり、長い。二番目の文もまた十分に長い。終わりの文もここにあります。"
    pair = sentence_pair(text, random.Random(0))
    assert pair is not None
    assert pair.query in text
    assert pair.query not in pair.positives[0]
    assert len(pair.query) + len(pair.positives[0]) == len(text)
    assert sentence_pair("短い。", random.Random(0)) is None
    assert sentence_pair("これは一つだけの文ですが、とても長い。", random.Random(0)) is None


def test_a_cut_vocabulary_reads_its_texts_as_before() -> None:
    tokenizer = tiny_encoder().tokenizer.tokenizer
    texts = ["the old cat sings", "what is a moon?"]
    cut, kept = cut_vocabulary(tokenizer, texts, (0, 1, 2, 3))
    assert kept == sorted(kept)
    assert cut.get_vocab_size() == len(kept) < tokenizer.get_vocab_size()
    for text in texts:
        old = tokenizer.encode(text, add_special_tokens=False).ids
        assert [kept[i] for i in cut.encode(text, add_special_tokens=False).ids] == old
    assert cut.token_to_id("<mask>") == kept.index(tokenizer.token_to_id("<mask>"))


def test_the_most_frequent_words_and_all_characters_are_kept() -> None:
    tokenizer = tiny_encoder().tokenizer.tokenizer
    cut, kept = cut_vocabulary(tokenizer, ["cat cat cat dog"], (0, 1, 2, 3), most=1)
    pieces = [tokenizer.id_to_token(i) for i in kept]
    assert "▁cat" in pieces
    assert "▁dog" not in pieces
    assert cut.encode("dog", add_special_tokens=False).tokens == ["▁", "d", "o", "g"]


def test_a_sibling_with_all_layers_gives_the_same_outputs(tmp_path: Path) -> None:
    encoder = tiny_encoder()
    made = sibling(encoder, TEXTS)
    assert made.config.backbone.vocab_size < encoder.config.backbone.vocab_size  # type: ignore[union-attr]
    old, new = encoder.encode(TEXTS), made.encode(TEXTS)
    np.testing.assert_allclose(new.dense, old.dense, atol=1e-6)
    np.testing.assert_allclose(new.sparse.weights.sum(), old.sparse.weights.sum(), rtol=1e-5)  # type: ignore[union-attr]
    np.testing.assert_allclose(new.multivector.vectors, old.multivector.vectors, atol=1e-6)  # type: ignore[union-attr]

    save(sibling(encoder, TEXTS, layers=1, sparse=False, multivector_dim=None), tmp_path / "model")
    shallow = load(tmp_path / "model", device="cpu")
    assert shallow.signals == ("dense",)
    assert len(shallow.network.backbone.layers) == 1  # type: ignore[arg-type]


def test_split_batch_is_exact_and_dropout_shows(tmp_path: Path) -> None:
    pairs = [
        ("what is a moon?", "the moon is a light"),
        ("the cat", "the old cat sings over the river"),
        ("green bird", "a small green bird, under the moon."),
        ("river", "the river the river"),
    ]
    write_examples(tmp_path / "rows.jsonl", [TrainingExample(q, (p,)) for q, p in pairs])
    encoder = tiny_encoder()
    network = encoder.network.double()
    batches = Batches(encoder, [tmp_path / "rows.jsonl"], 256)
    batch = batches(0)
    loss, gradient = exactness(network, batch, batches.pad, 16)
    assert max(loss, gradient) < 1e-9 < EXACT

    network.train()  # the whole batch and its parts draw other dropouts
    assert exactness(network, batch, batches.pad, 16)[1] > EXACT
