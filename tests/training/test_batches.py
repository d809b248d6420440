"""Plans: every row once an epoch, the same everywhere, one task and length group a batch, right targets."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny import WORDS, tiny_encoder, tiny_tokenizer
from trichrome.encoder.tokenizer import TextTokenizer
from trichrome.errors import TrichromeError
from trichrome.records import TrainingExample
from trichrome.training.batches import BatchPlan, BatchSettings
from trichrome.training.drawing import draw, passages_of, target_of
from trichrome.training.examples import Examples
from trichrome.training.shuffle import permuted

TOKENIZER = tiny_encoder().tokenizer
SETTINGS = BatchSettings(
    token_budget=600, query_tokens=12, passage_tokens=48, group_size=3, groups=(8, 16, 32, 64)
)


def rows_of(n: int, seed: int = 0, longest: int = 60, languages: str = "a") -> list[dict[str, Any]]:
    """Rows of very different lengths, 0 to 3 negatives each."""
    chance = random.Random(seed)

    def text() -> str:
        return " ".join(chance.choices(WORDS, k=min(longest, int(chance.expovariate(1 / 12)) + 1)))

    return [
        {"query": f"{text()} {i}", "pos": [text()], "neg": [text() for _ in range(i % 4)],
         "lang": chance.choice(languages), "id": f"{seed}-{i}"}
        for i in range(n)
    ]  # fmt: skip


def opened(folder: Path, **files: list[dict[str, Any]]) -> Examples:
    paths = []
    for name, rows in files.items():
        paths.append(folder / f"{name}.jsonl")
        paths[-1].write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Examples.open(paths, cache=folder / "cache")


def planned(folder: Path, examples: Examples, world: int = 1, **changes: Any) -> BatchPlan:
    settings = BatchSettings(**{**vars(SETTINGS), **changes})
    return BatchPlan(examples, TOKENIZER, settings, folder / "cache", world)


@pytest.fixture
def examples(tmp_path: Path) -> Examples:
    return opened(tmp_path, one=rows_of(301, 1, languages="aaaabbbc"), two=rows_of(97, 2), tiny=rows_of(3, 3))


# every row once


@pytest.mark.parametrize("by", ["task", "language", "any"])
@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("budget", [60, 600, 6000])
def test_every_row_is_in_one_batch_of_an_epoch(
    tmp_path: Path, examples: Examples, by: str, grouped: bool, budget: int
) -> None:
    plan = planned(tmp_path, examples, by=by, grouped=grouped, token_budget=budget)
    for epoch in range(3):
        batches = plan.epoch(epoch)
        assert len(batches) == plan.steps(epoch)
        assert sorted(row for batch in batches for row in batch) == list(range(len(examples)))
        assert min(len(batch) for batch in batches) >= 2
        if by != "any":
            assert all(len({examples.task(i) for i in batch}) == 1 for batch in batches)
    assert list(plan.epoch(0)) != list(plan.epoch(1))
    assert plan.report.rows == 401
    assert plan.report.repeated == plan.report.single == 0


def test_a_row_alone_is_kept_and_counted(tmp_path: Path) -> None:
    alone = opened(tmp_path, many=rows_of(40, 1), alone=rows_of(1, 2))
    plan = planned(tmp_path, alone)
    assert plan.report.single == 1
    assert [batch for batch in plan.epoch(0) if len(batch) == 1] == [[40]]
    assert planned(tmp_path, alone, by="any").report.single == 0


def test_one_row_a_batch_where_it_is_asked_for(tmp_path: Path, examples: Examples) -> None:
    plan = planned(tmp_path, examples, max_rows=1)
    assert plan.steps() == plan.report.single == 401


def test_a_batch_of_one_language_and_small_languages_together(tmp_path: Path) -> None:
    rows = rows_of(200, 1, languages="ab") + rows_of(15, 2, languages="cdefghi")
    mixed = opened(tmp_path, one=rows, two=rows_of(30, 3))
    plan = planned(tmp_path, mixed, by="language")
    spoken = [frozenset(mixed.lang(i) for i in batch) for batch in plan.epoch(0)]
    assert all(len(langs) == 1 for langs in spoken if langs & {"a", "b"})
    small = [len(batch) for batch, langs in zip(plan.epoch(0), spoken, strict=True) if not langs & {"a", "b"}]
    assert sum(small) == 15
    assert len(small) < 7  # not one of each
    by_task = planned(tmp_path, mixed, by="language", task_by={"one": "task"})
    assert max(len({mixed.lang(i) for i in batch}) for batch in by_task.epoch(0)) > 1
    with pytest.raises(TrichromeError, match="task_by names three"):
        planned(tmp_path, mixed, task_by={"three": "task"})


def test_batches_keep_to_the_budget_and_to_given_sizes(tmp_path: Path, examples: Examples) -> None:
    plan = planned(tmp_path, examples)
    for step in range(plan.steps()):
        queries, passages = plan.batch_lengths(0, step)
        rows = len(queries)
        if rows > 2:  # two rows are taken even where they are more, and a third rather than left alone
            assert (rows - 1) * (queries.max() + 3 * passages.max()) <= 600
        assert queries.max() <= 12
        assert passages.max() <= 48
    fixed = planned(tmp_path, examples, sizes={8: 5, 16: 4, 32: 3, 64: 2})
    longest = [max(int(fixed.lengths[i][1:].max()) for i in batch) for batch in fixed.epoch(0)]
    for batch, length in zip(fixed.epoch(0), longest, strict=True):
        assert len(batch) <= 5 + 1
        if length > 16:
            assert len(batch) <= 3 + 1
    assert max(len(batch) for batch in planned(tmp_path, examples, max_rows=3).epoch(0)) <= 4


def test_every_process_gets_rows(tmp_path: Path, examples: Examples) -> None:
    plan = planned(tmp_path, examples, world=5)
    batches = list(plan.epoch(0))
    assert min(len(batch) for batch in batches) == 5
    counted = Counter(row for batch in batches for row in batch)
    assert set(counted) == set(range(401))
    assert plan.report.repeated == sum(counted.values()) - 401 == 2  # `tiny` has three rows


# the same everywhere, and again


def test_plans_are_the_same_in_every_process(tmp_path: Path, examples: Examples) -> None:
    plan = planned(tmp_path, examples, by="language", seed=7)
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from pathlib import Path
from tests.training.test_batches import Examples, planned
folder = Path({str(tmp_path)!r})
paths = [folder / f"{{name}}.jsonl" for name in ("one", "two", "tiny")]
plan = planned(folder, Examples.open(paths, cache=folder / "other"), by="language", seed=7)
print([list(plan.epoch(3)), plan.batch(3, 5).passages[0].ids])
"""
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert there.strip() == str([list(plan.epoch(3)), plan.batch(3, 5).passages[0].ids])
    assert list(plan.epoch(3)) != list(planned(tmp_path, examples, by="language", seed=8).epoch(3))


def test_the_key_follows_data_settings_and_processes(tmp_path: Path, examples: Examples) -> None:
    rows = rows_of(97, 2)
    moved = tmp_path / "moved"
    moved.mkdir()
    same = opened(moved, one=rows)
    keys = [
        planned(tmp_path, opened(tmp_path, one=rows)).key,
        planned(tmp_path, same, seed=1).key,
        planned(tmp_path, same, world=2).key,
        planned(tmp_path, opened(tmp_path, other=rows[::-1])).key,
    ]
    assert planned(tmp_path, same).key == keys[0]
    assert len(set(keys)) == 4


def test_a_step_does_not_depend_on_the_steps_before(tmp_path: Path, examples: Examples) -> None:
    changes: dict[str, Any] = {"group_size": 2, "segment_shuffle": 0.5}
    whole = planned(tmp_path, examples, **changes)
    batches = [whole.batch(1, step) for step in range(whole.steps())]
    resumed = planned(tmp_path, examples, **changes)
    for step in (9, 4):
        one, other = resumed.batch(1, step), batches[step]
        assert (one.rows, one.queries, one.passages, one.cut) == (
            other.rows, other.queries, other.passages, other.cut
        )  # fmt: skip
        assert torch.equal(one.target.mask, other.target.mask)
    with pytest.raises(IndexError):
        resumed.batch(1, whole.steps())


# the texts


def test_a_batch_holds_its_rows_texts(tmp_path: Path, examples: Examples) -> None:
    plan = planned(tmp_path, examples, group_size=8, query_tokens=64, passage_tokens=64, all_positives=True)
    limit = TOKENIZER.config.max_tokens
    for step in range(0, plan.steps(), 7):
        batch = plan.batch(0, step)
        rows = [examples[i] for i in batch.rows]
        assert batch.task == examples.task(batch.rows[0])
        assert batch.queries == TOKENIZER.encode([r.query for r in rows], "query")
        texts = [t for r in rows for t in (*r.positives, *r.negatives)]
        assert batch.passages == TOKENIZER.encode(texts, "passage")
        q, p = plan.batch_lengths(0, step)
        assert q.tolist() == [len(t.ids) for t in batch.queries]
        assert p.tolist() == [len(t.ids) for t in batch.passages]
        assert batch.cut == sum(len(t.ids) + t.cut > limit for t in (*batch.queries, *batch.passages))


def test_cuts_are_counted(tmp_path: Path, examples: Examples) -> None:
    plan = planned(tmp_path, examples, query_tokens=6, passage_tokens=9, group_size=8)
    assert plan.report.queries_cut == sum(int(plan.lengths[i][0]) > 6 for i in range(401))
    assert plan.report.passages_cut == sum(int((plan.lengths[i][1:] > 9).sum()) for i in range(401))
    cut = sum(plan.batch(0, step).cut for step in range(plan.steps()))
    assert cut == plan.report.queries_cut + plan.report.passages_cut > 100
    batch = plan.batch(0, 0)
    assert max(len(t.ids) for t in batch.queries) <= 6
    assert all(t.ids[-1] == TOKENIZER.config.eos_id for t in (*batch.queries, *batch.passages))


def test_prompts_stand_before_queries(tmp_path: Path) -> None:
    rows = [{"query": "moon", "pos": ["light"], "prompt": "where is the "}, {"query": "cat", "pos": ["dog"]}]
    plan = planned(tmp_path, opened(tmp_path, rows=rows))
    batch = plan.batch(0, 0)
    wanted = TOKENIZER.encode(["where is the moon", "cat"], "query")
    assert dict(zip(batch.rows, batch.queries, strict=True)) == dict(enumerate(wanted))


def test_draws_change_with_the_epoch_and_reach_every_passage() -> None:
    seen: Counter[int] = Counter()
    for epoch in range(300):
        drawn = draw(3, 10, 5, False, (0, epoch, 2, 17))
        assert drawn == draw(3, 10, 5, False, (0, epoch, 2, 17))
        assert len(drawn.positives) == 1
        assert len(set(drawn.negatives)) == 4
        seen.update(drawn.negatives)
        seen[100 + drawn.positives[0]] += 1
    assert all(80 <= seen[i] <= 160 for i in range(10))  # 120 expected
    assert all(70 <= seen[100 + i] <= 130 for i in range(3))
    assert draw(2, 1, 8, False, (1,)).negatives == [0]
    both = draw(2, 9, 4, True, (1,))
    assert (both.positives, len(both.negatives)) == ([0, 1], 2)
    assert draw(5, 3, 4, True, (1,)).negatives == []


# targets


def target(*examples: TrainingExample, in_batch: bool = True) -> tuple[Any, Any, Any]:
    """positive, mask, teacher with every passage of every example."""
    drawn = [passages_of(e, draw(len(e.positives), len(e.negatives), 99, True, (0,))) for e in examples]
    made = target_of(examples, drawn, in_batch)
    teacher = None if made.teacher is None else made.teacher.tolist()
    return made.positive.int().tolist(), made.mask.int().tolist(), teacher


def test_other_queries_passages_are_negatives_unless_they_answer_too() -> None:
    one = TrainingExample("q1", ("a", "b"), ("n",), positive_ids=("1", "2"), negative_ids=("9",))
    assert target(one, TrainingExample("q2", ("c",), ("a",)))[:2] == (
        [[1, 1, 0, 0, 0], [0, 0, 0, 1, 0]],
        [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]],  # q2's negative has the text of a positive of q1
    )
    by_id = TrainingExample("q2", ("c",), ("d",), positive_ids=("9",), negative_ids=("2",))
    assert target(one, by_id)[1] == [[1, 1, 1, 1, 0], [1, 1, 0, 1, 1]]
    assert target(one, TrainingExample("q2", ("c",), ("a",)), in_batch=False)[1] == [
        [1, 1, 1, 0, 0],
        [0, 0, 0, 1, 1],
    ]


def test_rows_of_one_id_or_one_query_are_not_each_others_negatives() -> None:
    rows = [
        TrainingExample("q1", ("a",), id="x"),
        TrainingExample("q2", ("b",), ("n",), id="x"),
        TrainingExample("q1", ("c",), id="y"),
        TrainingExample("q3", ("d",)),
        TrainingExample("q4", ("e",)),
    ]
    _, mask, teacher = target(*rows)
    #       a  b  n  c  d  e
    assert mask == [
        [1, 0, 1, 0, 1, 1],
        [0, 1, 1, 1, 1, 1],
        [0, 1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1, 1],  # two rows without an id have none in common
        [1, 1, 1, 1, 1, 1],
    ]
    assert teacher is None


def test_a_negative_that_is_the_positive_is_masked() -> None:
    assert target(TrainingExample("q", ("a",), ("a", "n")))[:2] == ([[1, 0, 0]], [[1, 0, 1]])


def test_an_undrawn_positive_of_a_query_is_not_its_negative() -> None:
    one, two = TrainingExample("q1", ("a", "b")), TrainingExample("q2", ("c",), ("b",))
    drawn = [passages_of(one, draw(1, 0, 9, True, (0,))), passages_of(two, draw(1, 1, 9, True, (0,)))]
    assert target_of([one, two], drawn, True).mask.tolist() == [[True, True, False], [True, True, True]]


def test_teacher_scores_stand_at_their_rows_passages() -> None:
    rows = [
        TrainingExample("q1", ("a",), ("n",), positive_scores=(0.9,), negative_scores=(0.25,)),
        TrainingExample("q2", ("b",), ("m",), positive_scores=(0.5,)),
    ]
    nan = float("nan")
    assert str(target(*rows)[2]) == str([[float(np.float32(0.9)), 0.25, nan, nan], [nan, nan, 0.5, nan]])


# padding, shuffling, settings


def test_length_groups_cut_the_padding(tmp_path: Path) -> None:
    examples = opened(tmp_path, one=rows_of(600, 5, longest=45))
    plan = planned(tmp_path, examples, token_budget=3000, max_rows=24)
    grouped, mixed = plan.padding_share(True), plan.padding_share(False)
    assert plan.padding_share() == grouped
    assert grouped < 0.75 * mixed
    real = padded = 0
    for step in range(plan.steps()):
        batch = plan.batch(0, step)
        for side in (batch.queries, batch.passages):
            lengths = [len(t.ids) for t in side]
            real, padded = real + sum(lengths), padded + max(lengths) * len(lengths)
    assert grouped == 1 - real / padded


@pytest.mark.parametrize("n", [1, 2, 3, 1000, 4096, 4097, 5000, 70_000])
def test_a_shuffled_order_has_every_number_once(n: int) -> None:
    whole = permuted(np.arange(n), n, (1, 2))
    assert np.array_equal(np.sort(whole), np.arange(n))
    some = np.array([n - 1, 0, n // 2])
    assert np.array_equal(permuted(some, n, (1, 2)), whole[some])
    with pytest.raises(IndexError):
        permuted(np.array([n]), n, (1, 2))


def test_shuffled_orders_look_random() -> None:
    n, orders = 6000, 200
    made = np.stack([permuted(np.arange(n), n, (seed,)) for seed in range(orders)])
    # the mean of a place over orders, and neighbours' distance, as of independent uniform numbers
    assert abs(made.mean(0) / n - 0.5).max() < 6 * 0.289 / orders**0.5
    steps = np.abs(np.diff(made, axis=1)) / n
    assert abs(steps.mean() - 1 / 3) < 0.003
    assert abs(np.corrcoef(made[0], made[1])[0, 1]) < 6 / n**0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"token_budget": 0}, "token_budget must be > 0"),
        ({"groups": (128, 64)}, "must ascend"),
        ({"sizes": {100: 4}}, "no group's upper bound"),
        ({"by": "file"}, "must be task, language or any"),
        ({"segment_shuffle": 2.0}, "is a share"),
        ({"max_rows": 0}, "max_rows must be > 0"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_settings_check_themselves(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TrichromeError, match=message):
        BatchSettings(**changes)


def test_lengths_beyond_the_tokenizer_are_cut_where_it_cuts(tmp_path: Path) -> None:
    short = TextTokenizer(tiny_tokenizer(), tiny_encoder(max_tokens=10).config)
    examples = opened(tmp_path, one=rows_of(50, 1))
    plan = BatchPlan(examples, short, SETTINGS, tmp_path / "cache")
    assert max(len(t.ids) for t in plan.batch(0, 0).passages) <= 10
    assert plan.report.passages_cut > 0
