"""Teachers: their scores against direct computation, and files that carry them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaForSequenceClassification

from tests.tiny import TEXTS, tiny_encoder, tiny_tokenizer
from trichrome import scoring
from trichrome.encoder import TruncationWarning
from trichrome.errors import TrichromeError
from trichrome.formats.flagembedding import read_examples, write_examples
from trichrome.records import TrainingExample
from trichrome.training.teachers import HybridTeacher, open_teacher, score_file

PASSAGES = [text for text in TEXTS if text]
PAIRS = [(query, passage) for query in PASSAGES[:2] for passage in PASSAGES]
ROWS = [
    TrainingExample("the cat", ("the old cat sings over the river",), ("a dog", "green moon"), lang="en"),
    TrainingExample("moon", ("light under the moon", "what is a moon?"), (), positive_scores=(3.0, 2.0)),
    TrainingExample("bird", ("small bird",), ("river",), positive_scores=(1.0,), negative_scores=(0.5,)),
]


def cross_encoder(path: Path, labels: int) -> Path:
    """A folder with a tiny random classifier of pairs."""
    torch.manual_seed(0)
    config = XLMRobertaConfig(
        vocab_size=tiny_tokenizer().get_vocab_size(), hidden_size=16, num_hidden_layers=1,
        num_attention_heads=2, intermediate_size=32, max_position_embeddings=34, type_vocab_size=1,
        pad_token_id=1, bos_token_id=0, eos_token_id=2, num_labels=labels,
    )  # fmt: skip
    model = XLMRobertaForSequenceClassification(config).eval()
    for weight in model.parameters():
        weight.data.normal_(0, 0.3)
    model.save_pretrained(path)
    PreTrainedTokenizerFast(
        tokenizer_object=tiny_tokenizer(), bos_token="<s>", pad_token="<pad>", eos_token="</s>",
        unk_token="<unk>", sep_token="</s>", cls_token="<s>",
    ).save_pretrained(path)  # fmt: skip
    return path


@pytest.mark.parametrize("labels", [1, 2])
def test_a_cross_encoder_scores_pairs_as_its_model_does_one_by_one(tmp_path: Path, labels: int):
    folder = cross_encoder(tmp_path / "model", labels)
    teacher = open_teacher(str(folder), max_tokens=32)
    pairs = [pair for pair in PAIRS if len(pair[1]) < 60]
    made = teacher.score(pairs)
    model = XLMRobertaForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    for (query, passage), score in zip(pairs, made, strict=True):
        with torch.inference_mode():
            logits = model(**tokenizer(query, passage, return_tensors="pt")).logits[0]
        wanted = logits[0] if labels == 1 else logits[1] - logits[0]
        assert score == pytest.approx(float(wanted), abs=1e-4)
    assert len(set(np.round(made, 4).tolist())) > 3
    assert teacher.score([]).shape == (0,)


def test_long_pairs_are_cut_and_counted(tmp_path: Path):
    teacher = open_teacher(str(cross_encoder(tmp_path / "model", 1)))  # reads 34 − 2 tokens
    with pytest.warns(TruncationWarning, match="1 of 2 texts were cut to 32 tokens"):
        made = teacher.score([("moon", "the river " * 40), ("moon", "the river")])
    assert np.isfinite(made).all()


def test_what_is_no_teacher_is_refused(tmp_path: Path):
    with pytest.raises(TrichromeError, match="3 labels"):
        open_teacher(str(cross_encoder(tmp_path / "three", 3)))
    folder = cross_encoder(tmp_path / "masked", 1)
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace("ForSequenceClassification", "ForMaskedLM"))
    with pytest.raises(TrichromeError, match="head would be random"):
        open_teacher(str(folder))
    with pytest.raises(TrichromeError, match="no cross-encoder could be opened"):
        open_teacher(str(tmp_path / "absent"))
    with pytest.raises(TrichromeError, match="needs an encoder"):
        open_teacher("hybrid")
    with pytest.raises(TrichromeError, match="no output sparse"):
        HybridTeacher(tiny_encoder(sparse=False))


@pytest.mark.parametrize("weights", [(1.0, 0.3, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 1.0)])
def test_the_hybrid_teacher_sums_the_three_scores(weights: tuple[float, float, float]):
    encoder = tiny_encoder()
    teacher = HybridTeacher(encoder, weights, kept=3)
    queries = encoder.encode([q for q, _ in PAIRS], kind="query")
    passages = encoder.encode([p for _, p in PAIRS], multivector_dtype="float16")
    parts = {name: scoring.score_pairs(name, queries, passages) for name in encoder.signals}
    wanted = scoring.weighted(parts, weights)
    assert np.allclose(teacher.score(PAIRS), wanted, atol=1e-4)
    assert np.allclose(teacher.score(PAIRS[::-1]), wanted[::-1], atol=1e-4)  # some from memory now


class Lengths:
    """The longer the passage, the better."""

    name = "lengths"

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        self.asked += pairs
        return np.array([len(passage) for _, passage in pairs], np.float32)


@pytest.mark.parametrize("block", [1, 2, 99])
def test_a_file_gets_the_scores_of_every_passage(tmp_path: Path, block: int):
    write_examples(tmp_path / "in.jsonl", ROWS)
    report = score_file(tmp_path / "in.jsonl", tmp_path / "out.jsonl.gz", Lengths(), block=block)
    made = list(read_examples(tmp_path / "out.jsonl.gz"))
    for before, after in zip(ROWS, made, strict=True):
        assert (after.query, after.positives, after.negatives) == (
            before.query,
            before.positives,
            before.negatives,
        )
        assert after.positive_scores == tuple(float(len(p)) for p in before.positives)
        assert after.negative_scores == tuple(float(len(n)) for n in before.negatives)
    assert (report.rows, report.scored, report.pairs) == (3, 3, 7)
    assert (report.agree, report.judged) == (2, 2)
    assert (len(report.positives), len(report.negatives)) == (4, 3)


def test_rows_with_scores_keep_them_where_asked(tmp_path: Path):
    write_examples(tmp_path / "in.jsonl", ROWS)
    teacher = Lengths()
    report = score_file(tmp_path / "in.jsonl", tmp_path / "out.jsonl", teacher, missing_only=True)
    made = list(read_examples(tmp_path / "out.jsonl"))
    assert [e.positive_scores for e in made] == [(32.0,), (3.0, 2.0), (1.0,)]
    assert {query for query, _ in teacher.asked} == {"the cat"}
    assert (report.rows, report.scored) == (3, 1)


def test_a_score_that_is_no_number_leaves_no_file(tmp_path: Path):
    class Broken(Lengths):
        def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
            return np.full(len(pairs), np.nan, np.float32)

    write_examples(tmp_path / "in.jsonl", ROWS)
    with pytest.raises(TrichromeError, match="no finite score for query 'the cat'"):
        score_file(tmp_path / "in.jsonl", tmp_path / "out.jsonl", Broken())
    with pytest.raises(TrichromeError, match="is the input"):
        score_file(tmp_path / "in.jsonl", tmp_path / "in.jsonl", Lengths())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.jsonl"]
