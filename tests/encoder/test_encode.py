"""encode: order, padding, batches, pooling, precision, cuts, workers, bad input."""

import os
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny import TEXTS, tiny_encoder
from trichrome.embeddings import Embeddings
from trichrome.encoder import Encoder, Progress, TruncationWarning
from trichrome.encoder.batching import token_budget_batches
from trichrome.encoder.heads import Network
from trichrome.errors import TrichromeError


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return tiny_encoder()


def assert_same(a: Embeddings, b: Embeddings, atol: float = 1e-5) -> None:
    np.testing.assert_allclose(a.dense, b.dense, atol=atol)
    for x, y in zip(a.sparse_dicts(), b.sparse_dicts(), strict=True):
        assert x == pytest.approx(y, abs=atol)
    np.testing.assert_array_equal(a.multivector.offsets, b.multivector.offsets)
    np.testing.assert_allclose(a.multivector.vectors, b.multivector.vectors, atol=atol)


@pytest.mark.parametrize("pooling", ["cls", "mean", "mcls"])
def test_neither_batch_nor_padding_changes_an_output(pooling: str) -> None:
    encoder = tiny_encoder(pooling=pooling, mcls_every=8)
    alone = Embeddings.concatenate([encoder.encode([t]) for t in TEXTS])
    assert_same(encoder.encode(TEXTS), alone)
    assert_same(encoder.encode(TEXTS, token_budget=70), alone)
    back = encoder.encode(TEXTS[::-1])
    assert_same(back[list(range(len(TEXTS)))[::-1]], alone)


def test_poolings_by_hand(encoder: Encoder) -> None:
    """Against hidden states taken from the network itself."""
    tokens = encoder.tokenizer.encode([TEXTS[1]], "passage")[0]
    hidden = encoder.network.backbone(torch.tensor([tokens.ids]))[0]  # [L, d]

    def unit(x: torch.Tensor) -> np.ndarray:
        return torch.nn.functional.normalize(x, dim=-1).detach().numpy()

    np.testing.assert_allclose(encoder.encode([TEXTS[1]]).dense[0], unit(hidden[0]), atol=1e-6)
    mean = encoder.with_pooling("mean").encode([TEXTS[1]])
    np.testing.assert_allclose(mean.dense[0], unit(hidden.mean(0)), atol=1e-6)


def test_mcls_puts_a_cls_before_every_window() -> None:
    encoder = tiny_encoder(pooling="mcls", mcls_every=4)
    text = "a dog sings over the moon a cat"  # 8 words = 8 tokens
    tokens = encoder.tokenizer.encode([text], "passage")[0]
    at = [i for i, t in enumerate(tokens.ids) if t == 0]
    assert at == [0, 5]
    assert len(tokens.ids) == 8 + 2 + 1
    hidden = encoder.network.backbone(torch.tensor([tokens.ids]))[0]
    expected = torch.nn.functional.normalize((hidden[0] + hidden[5]) / 2, dim=0).detach().numpy()
    made = encoder.encode([text])
    np.testing.assert_allclose(made.dense[0], expected, atol=1e-6)
    assert len(made.multivector.row(0)) == 9  # the inserted CLS is no token of the text


def test_multivector_rows_are_the_tokens_that_spans_name(encoder: Encoder) -> None:
    for text in TEXTS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TruncationWarning)
            made = encoder.encode([text])
        spans = encoder.token_spans(text)
        assert len(spans.ids) == len(made.multivector.row(0))
        assert spans.ids[-1] == 2  # EOS stays, CLS goes
        assert spans.spans[-1].tolist() == [0, 0]
    assert [TEXTS[0][a:b].strip() for a, b in encoder.token_spans(TEXTS[0]).spans[:4]] == [
        "what",
        "is",
        "a",
        "moon",
    ]


def test_a_prompt_is_read_but_not_scored() -> None:
    encoder = tiny_encoder(prompts={"query": "what is ", "passage": ""})
    query, passage = encoder.encode(["the moon"], "query"), encoder.encode(["the moon"])
    full = encoder.encode(["what is the moon"])
    np.testing.assert_allclose(query.dense, full.dense, atol=1e-6)
    assert set(query.sparse_dicts()[0]) <= set(passage.sparse_dicts()[0]) | set(full.sparse_dicts()[0])
    what = encoder.tokenizer.tokenizer.token_to_id("▁what")
    assert what not in query.sparse_dicts()[0]
    np.testing.assert_allclose(query.multivector.row(0), full.multivector.row(0)[2:], atol=1e-6)
    spans = encoder.token_spans("the moon", "query").spans
    assert ["the moon"[a:b].strip() for a, b in spans[:2]] == ["the", "moon"]


def test_special_tokens_have_no_sparse_weight(encoder: Encoder) -> None:
    made = encoder.encode([*TEXTS, "𓀀 the"])
    assert not {i for row in made.sparse_dicts() for i in row} & {0, 1, 2, 3}
    assert all((w > 0) for row in made.sparse_dicts() for w in row.values())


def test_a_cut_is_counted(encoder: Encoder) -> None:
    seen: list[Progress] = []
    with pytest.warns(
        TruncationWarning, match=r"1 of 2 texts were cut to 64 tokens \(38 tokens not read\)"
    ) as caught:
        made = encoder.encode(["dog" + " dog" * 99, "cat"], progress=seen.append)
    assert (caught[0].message.texts, caught[0].message.tokens) == (1, 38)
    assert seen[-1].texts == seen[-1].total == 2
    assert seen[-1].truncated == 1
    assert np.diff(made.multivector.offsets).tolist() == [63, 2]


def test_a_megabyte_is_read_and_counted(encoder: Encoder) -> None:
    with pytest.warns(TruncationWarning):
        made = encoder.encode(["the old cat sings " * 58_000])
    assert len(made) == 1


def test_outputs_can_be_chosen(encoder: Encoder) -> None:
    assert encoder.encode(["a"], outputs=("sparse",)).signals == ("sparse",)
    assert encoder.encode(["a"], outputs=("multivector", "dense")).signals == ("dense", "multivector")
    assert encoder.encode([]).dense.shape == (0, 32)
    assert encoder.encode(["a cat"], multivector_dtype="float16").multivector.vectors.dtype == np.float16
    with pytest.raises(TrichromeError, match="no output 'lexical', only dense, sparse, multivector"):
        encoder.encode(["a"], outputs=("lexical",))


@pytest.mark.parametrize(
    ("texts", "kind", "error", "message"),
    [
        (["a", 3], "passage", TypeError, "text 1 must be a string, got int"),
        (["a"], "document", TrichromeError, "kind must be 'query' or 'passage', got 'document'"),
        (["fine", "bad \ud800"], "query", TrichromeError, "text 1 holds a lone surrogate"),
    ],
)
def test_bad_input(encoder: Encoder, texts: Any, kind: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        encoder.encode(texts, kind)


def test_bfloat16_stays_near() -> None:
    exact, rough = tiny_encoder().encode(TEXTS), tiny_encoder().to(dtype="bfloat16").encode(TEXTS)
    assert (exact.dense * rough.dense).sum(-1).min() > 0.99
    with pytest.raises(TrichromeError, match="unknown precision 'int8'"):
        tiny_encoder().to(dtype="int8")


def test_same_input_same_bits(encoder: Encoder) -> None:
    a, b = encoder.encode(TEXTS), tiny_encoder().encode(TEXTS)
    assert np.array_equal(a.dense, b.dense)
    assert np.array_equal(a.sparse.weights, b.sparse.weights)
    assert np.array_equal(a.multivector.vectors, b.multivector.vectors)


def test_fingerprints_tell_models_apart(encoder: Encoder) -> None:
    assert encoder.fingerprint == tiny_encoder(name="another name").fingerprint
    prints = {
        encoder.fingerprint,
        tiny_encoder(pooling="mean").fingerprint,
        encoder.with_pooling("mcls").fingerprint,
        encoder.with_pooling("mcls", 8).fingerprint,
        tiny_encoder(prompts={"query": "what ", "passage": ""}).fingerprint,
    }
    assert len(prints) == 5


def test_batches_keep_to_the_budget() -> None:
    lengths = [3, 50, 7, 7, 1, 120, 30]
    batches = token_budget_batches(lengths, 64)
    assert sorted(i for b in batches for i in b) == list(range(7))
    assert batches[0] == [5]  # longer than the budget: alone
    assert all(len(b) * max(lengths[i] for i in b) <= 64 for b in batches[1:])


def test_two_workers_give_the_same(encoder: Encoder) -> None:
    assert_same(encoder.encode(TEXTS, devices=["cpu", "cpu"], token_budget=64), encoder.encode(TEXTS))


class Dies(torch.nn.Module):
    """A backbone whose process ends in the middle of a forward pass, as one does when memory runs out."""

    def __init__(self, backbone: torch.nn.Module) -> None:
        super().__init__()
        self.config = backbone.config

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        os._exit(9)


def test_a_dead_worker_is_an_error() -> None:
    whole = tiny_encoder()
    network = Network(Dies(whole.network.backbone), whole.network.heads)
    encoder = Encoder(network, whole.tokenizer.tokenizer, whole.config, "cpu")
    with pytest.raises(TrichromeError, match="an encoding worker died"):
        encoder.encode(TEXTS, devices=["cpu"])
