"""The training log, its warnings and its picture; what a step shows of the three heads."""

import json
from pathlib import Path

import pytest
import torch
from scipy.stats import spearmanr

from tests.tiny import TEXTS, tiny_encoder
from trichrome.encoder.batching import collate
from trichrome.errors import TrichromeError
from trichrome.training.diagnostics import Diagnostics, gradient_norms, observe, read_log, warnings
from trichrome.training.encoded import Encoded, encode, score_matrices
from trichrome.training.observations import average_ranks, correlation, negative_kinds
from trichrome.training.plots import plot_log, smooth
from trichrome.training.target import Target

SIGNALS = ("dense", "sparse", "multivector")


def steps(log: Path) -> list[int]:
    return [r["step"] for r in read_log(log)]


def test_a_log_cut_short_by_a_kill_is_read_and_goes_on(tmp_path: Path) -> None:
    first = Diagnostics(tmp_path)
    for i in range(1, 6):
        first.step({"step": i, "loss/total": 1 / i})
    first.evaluation(5, {"dense": 0.5})
    with first.path.open("a") as file:
        file.write('{"step": 6, "loss/to')
    assert steps(first.path) == [1, 2, 3, 4, 5, 5]

    resumed = Diagnostics(tmp_path)  # from a checkpoint after step 3
    for i in range(4, 8):
        resumed.step({"step": i, "loss/total": 10.0})
    records = read_log(first.path)
    assert [r["step"] for r in records] == [1, 2, 3, 4, 5, 6, 7]
    assert [r["loss/total"] for r in records[2:4]] == [1 / 3, 10.0]


def test_an_evaluation_stays_when_its_step_is_not_done_again(tmp_path: Path) -> None:
    first = Diagnostics(tmp_path)
    first.step({"step": 3, "loss/total": 1.0})
    first.evaluation(3, {"dense": 0.5})
    Diagnostics(tmp_path).step({"step": 4, "loss/total": 1.0})
    assert steps(first.path) == [3, 3, 4]
    again = Diagnostics(tmp_path)  # the same evaluation once more, then on
    again.evaluation(3, {"dense": 0.6})
    again.step({"step": 4, "loss/total": 1.0})
    assert [(r["step"], r.get("dense")) for r in read_log(first.path)] == [(3, None), (3, 0.6), (4, None)]


def test_a_log_is_strict_json_and_refuses_a_step_twice(tmp_path: Path) -> None:
    log = Diagnostics(tmp_path)
    log.step({"step": 1, "loss/total": float("nan"), "task": "été"})
    assert json.loads(log.path.read_text().splitlines()[0])["loss/total"] is None
    with pytest.raises(ValueError, match="step 1 comes after step 1"):
        log.step({"step": 1})
    with pytest.raises(ValueError, match="needs a step"):
        log.step({"loss/total": 1.0})
    log.path.write_text('{"step": 1}\nnonsense\n{"step": 2}\n')
    with pytest.raises(TrichromeError, match=r"log\.jsonl:2: not a record"):
        read_log(log.path)


@pytest.mark.parametrize(
    ("name", "bad", "good", "says"),
    [
        ("loss/sparse", 0.0, 1e-3, "0 for 5 steps"),
        ("loss/total", float("nan"), 3.0, "not a finite number"),
        ("grad/multivector", 0.0, 1e-8, "learns nothing"),
        ("zero/passage", 0.6, 0.4, "no sparse weight"),
        ("alike/dense", 0.999, 0.9, "all alike"),
        ("harder/dense", 0.2, 0.8, "easier than"),
    ],
)
def test_warnings_come_when_they_should_and_once(
    tmp_path: Path, name: str, bad: float, good: float, says: str
) -> None:
    log = Diagnostics(tmp_path)
    said = [w for i in range(6) for w in log.step({"step": i, name: good})]
    assert said == []
    said = [w for i in range(6, 40) for w in log.step({"step": i, name: bad})]
    assert len(said) == 1
    assert said[0].startswith(f"{name}: ")
    assert says in said[0]
    assert sum("warnings" in r for r in read_log(log.path)) == 1
    assert says in warnings(read_log(log.path))[0]  # the file alone says it too
    assert Diagnostics(tmp_path).step({"step": 40, name: bad}) == []  # nor again after a resume


def test_four_steps_are_too_few_for_a_judgement() -> None:
    assert warnings([{"step": i, "zero/query": 1.0} for i in range(4)]) == []
    assert warnings([{"step": i, "zero/query": 1.0, "task": "bible"} for i in range(5)]) != []


def encoded(texts: list[str], kind: str) -> Encoded:
    encoder = tiny_encoder()
    return encode(encoder.network, collate(encoder.tokenizer.encode(texts, kind), 1), SIGNALS)


def test_what_a_batch_shows_of_its_heads() -> None:
    queries, passages = encoded(TEXTS[:2], "query"), encoded(TEXTS[1:], "passage")
    positive = torch.zeros(2, 6, dtype=torch.bool)
    positive[0, 0] = positive[1, 3] = True
    target = Target(positive, torch.ones_like(positive))
    scores = score_matrices(queries, passages)
    seen = observe(queries, passages, scores, target)

    made = tiny_encoder().encode(TEXTS[1:], "passage")
    counts = [len(made.sparse.row(i)[0]) for i in range(6)]
    assert seen["nonzeros/passage"] == pytest.approx(sum(counts) / 6)
    assert seen["zero/passage"] == pytest.approx(sum(c == 0 for c in counts) / 6)
    cosines = made.dense @ made.dense.T
    assert seen["alike/dense"] == pytest.approx((cosines.sum() - 6) / 30, abs=1e-5)
    tokens = made.multivector.vectors
    n = len(tokens)
    assert seen["alike/multivector"] == pytest.approx(
        ((tokens @ tokens.T).sum() - n) / (n * (n - 1)), abs=1e-4
    )
    one, other = scores["dense"].detach(), scores["multivector"].detach()
    rho = [spearmanr(one[i], other[i]).statistic for i in range(2)]
    assert seen["agreement/dense-multivector"] == pytest.approx(sum(rho) / 2, abs=1e-5)
    best = scores["dense"].argmax(1).tolist()
    assert seen["accuracy/dense"] == pytest.approx(((best[0] == 0) + (best[1] == 3)) / 2)
    dense = scores["dense"]
    harder = [
        dense[0, 1:3].mean() > dense[0, 3:].mean(),
        dense[1, 4:].mean() > dense[1, :3].mean(),
    ]
    assert seen["harder/dense"] == pytest.approx(sum(map(bool, harder)) / 2)


def test_a_signal_alone_is_observed_alone() -> None:
    queries, passages = encoded(TEXTS[:2], "query"), encoded(TEXTS[1:3], "passage")
    queries, passages = (Encoded(e.ids, e.vector_mask, dense=e.dense) for e in (queries, passages))
    target = Target(torch.eye(2, dtype=torch.bool), torch.ones(2, 2, dtype=torch.bool))
    seen = observe(queries, passages, score_matrices(queries, passages), target)
    assert set(seen) == {"alike/dense", "accuracy/dense"}  # without own negatives, nothing is "harder"


def test_own_negatives_are_told_from_other_queries_passages() -> None:
    positive = torch.tensor([[1, 1, 0, 0, 0], [0, 0, 0, 1, 0]]).bool()
    mask = torch.tensor([[1, 1, 1, 1, 0], [1, 0, 1, 1, 1]]).bool()
    own, others = negative_kinds(Target(positive, mask))
    assert own.int().tolist() == [[0, 0, 1, 0, 0], [0, 0, 0, 0, 1]]
    assert others.int().tolist() == [[0, 0, 0, 1, 0], [1, 0, 1, 0, 0]]
    in_batch_off = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 0, 1, 1]]).bool()
    own, others = negative_kinds(Target(positive, in_batch_off))
    assert others.int().tolist() == [[0, 0, 0, 1, 1], [1, 1, 1, 0, 0]]
    own, others = negative_kinds(
        Target(positive[[1, 0]], torch.ones_like(mask))
    )  # not in the order of the queries
    assert not bool(own.any() | others.any())


def test_ties_share_their_rank_and_masked_columns_have_no_say() -> None:
    x = torch.tensor([[3.0, 0, 0, 5, 9]])
    y = torch.tensor([[1.0, 0, 2, 7, -9]])
    mask = torch.tensor([[True, True, True, True, False]])
    made = correlation(average_ranks(x, mask), average_ranks(y, mask), mask)
    assert float(made) == pytest.approx(spearmanr([3, 0, 0, 5], [1, 0, 2, 7]).statistic, abs=1e-6)
    constant = correlation(average_ranks(x * 0, mask), average_ranks(y, mask), mask)
    assert float(constant) == 0


def test_gradient_norms_by_part() -> None:
    network = tiny_encoder().network
    assert gradient_norms(network) == {}
    batch = collate(tiny_encoder().tokenizer.encode(TEXTS, "passage"), 1)
    network(batch, dense=False, multivector=False).sparse_weights.sum().backward()
    norms = gradient_norms(network)
    assert set(norms) == {"grad/backbone", "grad/sparse"}
    head = network.heads.sparse
    squares = head.weight.grad.square().sum() + head.bias.grad.square().sum()
    assert norms["grad/sparse"] == pytest.approx(float(squares.sqrt()), rel=1e-5)


def test_the_picture_is_made_from_the_log(tmp_path: Path) -> None:
    log = Diagnostics(tmp_path)
    for i in range(40):
        nan = float("nan") if i == 7 else 1.0
        log.step(
            {"step": i, "loss/total": nan, "loss/dense": 2.0, "grad/backbone": 0.1, "tokens_per_second": 9}
        )
    log.evaluation(39, {"tydi/dense": 0.4, "tydi/all": 0.5})
    plot_log(log.path, tmp_path / "training.png")
    assert (tmp_path / "training.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(TrichromeError, match="no step has been logged"):
        plot_log(tmp_path / "none.jsonl", tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_smoothing_begins_unbiased() -> None:
    assert smooth([2.0, 2.0, 2.0]) == pytest.approx([2.0] * 3)
    assert smooth([0.0, 1.0], keep=0.5) == pytest.approx([0, 2 / 3])
