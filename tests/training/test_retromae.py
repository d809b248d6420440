"""RetroMAE: what is masked, what the decoder may see, and the loss against the paper's equations."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import trichrome.training.retromae as module
from tests.tiny import TEXTS, tiny_encoder
from trichrome.encoder.tokenizer import Tokens
from trichrome.errors import TrichromeError
from trichrome.training.observations import gradient_norms
from trichrome.training.retromae import (
    MaskedBatch,
    RetroMAE,
    RetroMAESettings,
    SpecialIds,
    mask_batch,
    special_ids,
)

SETTINGS = RetroMAESettings()


def tiny() -> tuple[RetroMAE, list[Tokens], SpecialIds]:
    encoder = tiny_encoder()
    torch.manual_seed(0)
    model = RetroMAE(encoder.network, SETTINGS)
    for p in (*model.decoder.parameters(), *model.predict.parameters()):
        p.data += 0.2 * torch.randn_like(p)  # so that every term matters in the comparison
    return model.eval(), encoder.tokenizer.encode(TEXTS, "passage"), special_ids(encoder.tokenizer)


def masked(tokens: list[Tokens], special: SpecialIds, seed: int = 0) -> MaskedBatch:
    return mask_batch(tokens, SETTINGS, torch.Generator().manual_seed(seed), special)


def test_shares_of_tokens_are_hidden_and_never_special_ones() -> None:
    _, tokens, special = tiny()
    batch = masked(tokens, special)
    text = torch.tensor([[i in special.unmasked for i in row] for row in batch.ids.tolist()]).logical_not()
    assert torch.equal(batch.decoder_labels != -100, text)
    counts = text.sum(1).tolist()
    hidden = (batch.encoder_labels != -100).sum(1).tolist()
    assert hidden == [max(1, round(0.3 * n)) if n else 0 for n in counts]
    changed = batch.encoder.ids != batch.ids
    assert not bool((changed & (batch.encoder_labels == -100)).any())
    assert bool((batch.encoder.ids == special.mask).any())
    # row i of a text sees CLS, EOS and half of the text's tokens, never itself and no padding
    visible, real = batch.visible, batch.encoder.mask
    assert bool(visible[:, :, 0].all())
    assert not bool((visible & ~real[:, None]).any())
    assert not bool(visible[:, 1:].diagonal(1, 1, 2).any())
    n = counts[-1]
    rows = (visible & text[:, None])[-1][text[-1]].sum(1)  # how many tokens each row sees
    assert set(rows.tolist()) <= {n - round(n / 2), n - round(n / 2) - 1}
    assert len({tuple(r) for r in visible[-1].tolist()}) > n / 2  # each row has a mask of its own


def test_the_generator_alone_decides() -> None:
    _, tokens, special = tiny()
    torch.manual_seed(1)
    one, two, other = masked(tokens, special), masked(tokens, special), masked(tokens, special, 1)
    assert torch.equal(one.visible, two.visible)
    assert torch.equal(one.encoder.ids, two.encoder.ids)
    assert not torch.equal(one.encoder.ids, other.encoder.ids)


def reference(model: RetroMAE, batch: MaskedBatch) -> tuple[float, float]:
    """The two losses in float64 NumPy, token by token, from the paper's equations (no dropout)."""

    def w(layer: torch.nn.Module, x: np.ndarray) -> np.ndarray:
        return x @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()

    def norm(layer: torch.nn.LayerNorm, x: np.ndarray) -> np.ndarray:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + layer.eps)
        return x * layer.weight.detach().double().numpy() + layer.bias.detach().double().numpy()

    def gelu(x: np.ndarray) -> np.ndarray:
        return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2

    backbone = model.network.backbone
    word = backbone.word.weight.detach().double().numpy()
    place = (backbone.position.weight[2:] + backbone.segment.weight[0]).detach().double().numpy()
    with torch.no_grad():
        states = backbone(batch.encoder.ids, batch.encoder.mask).double().numpy()

    def nll(x: np.ndarray, label: int) -> float:
        made = norm(model.predict.norm, gelu(w(model.predict.dense, x)))
        logits = word @ made + model.predict.bias.detach().double().numpy()
        return float(np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[label])

    encoder, decoder = [], []
    d, heads = word.shape[1], model.decoder.heads
    for b in range(len(batch.ids)):
        h = states[b, 0]
        ids = batch.ids[b].tolist()
        h2 = np.stack([h, *(norm(backbone.norm, word[t] + place[j]) for j, t in enumerate(ids) if j)])
        k, v = np.split(w(model.decoder.kv, h2), 2, axis=1)
        for i, token in enumerate(ids):
            if batch.encoder_labels[b, i] != -100:
                encoder.append(nll(states[b, i], token))
            if batch.decoder_labels[b, i] == -100:
                continue
            h1 = norm(backbone.norm, h + place[i])
            q = w(model.decoder.q, h1)
            seen = [j for j in range(len(ids)) if batch.visible[b, i, j]]
            mixed = []
            for part in np.split(np.arange(d), heads):
                energy = np.array([q[part] @ k[j][part] / math.sqrt(d / heads) for j in seen])
                share = np.exp(energy - energy.max()) / np.exp(energy - energy.max()).sum()
                mixed.append(share @ np.stack([v[j][part] for j in seen]))
            x = norm(model.decoder.norm1, h1 + w(model.decoder.out, np.concatenate(mixed)))
            x = norm(model.decoder.norm2, x + w(model.decoder.down, gelu(w(model.decoder.up, x))))
            decoder.append(nll(x, token))
    return float(np.mean(encoder)), float(np.mean(decoder))


def test_the_loss_is_the_papers() -> None:
    model, tokens, special = tiny()
    batch = masked(tokens[:5], special)
    with torch.no_grad():
        made = model(batch)
    encoder, decoder = reference(model, batch)
    assert float(made["encoder"]) == pytest.approx(encoder, rel=1e-5)
    assert float(made["decoder"]) == pytest.approx(decoder, rel=1e-5)
    assert made["total"].item() == pytest.approx(encoder + decoder, rel=1e-5)


def test_blocks_of_logits_change_neither_loss_nor_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens, special = tiny()
    batch = masked(tokens, special)

    def run() -> tuple[Tensor, list[Tensor]]:
        model.zero_grad()
        loss = model(batch)["total"]
        loss.backward()
        return loss.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]

    whole = run()
    monkeypatch.setattr(module, "_LOGITS", 7 * len(model.predict.bias))
    blocks = run()
    assert torch.allclose(whole[0], blocks[0], rtol=1e-5)
    assert len(whole[1]) == len(blocks[1])
    for one, two in zip(whole[1], blocks[1], strict=True):
        assert torch.allclose(one, two, rtol=1e-4, atol=1e-5)


def test_half_the_precision_gives_nearly_the_same() -> None:
    model, tokens, special = tiny()
    batch = masked(tokens, special)
    exact = model(batch)["total"]
    model.network.autocast = torch.bfloat16
    half = model(batch)["total"]
    half.backward()
    assert half.dtype == torch.float32
    assert exact.item() != half.item()
    assert half.item() == pytest.approx(exact.item(), rel=0.03)
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters() if p.grad is not None)


def test_the_decoder_does_not_see_what_it_predicts() -> None:
    model, tokens, special = tiny()
    batch = masked(tokens[-1:], special)
    i = 4
    other = batch.ids.clone()
    other[0, i] += 1
    vector = torch.randn(1, 32)
    with torch.no_grad():
        one, two = (
            model.decoder(
                model.network.backbone,
                vector,
                MaskedBatch(batch.encoder, ids, batch.encoder_labels, batch.decoder_labels, batch.visible),
            )
            for ids in (batch.ids, other)
        )
    assert torch.equal(one[0, i], two[0, i])
    assert not torch.equal(one, two)  # while other rows see it


def test_pretraining_learns_and_leaves_the_heads_alone() -> None:
    model, tokens, special = tiny()
    before = {n: p.clone() for n, p in model.network.heads.named_parameters()}
    rows = masked(tokens, special)
    start = model(rows)["total"].item()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0)
    for seed in range(25):
        optimizer.zero_grad()
        model(masked(tokens, special, seed))["total"].backward()
        optimizer.step()
    assert model(rows)["total"].item() < 0.6 * start
    assert set(gradient_norms(model)) == {"grad/backbone", "grad/decoder", "grad/predict"}
    after = dict(model.network.heads.named_parameters())
    assert all(torch.equal(p, after[n]) for n, p in before.items())


def test_texts_without_a_word_and_settings_without_sense() -> None:
    model, _, special = tiny()
    empty = tiny_encoder().tokenizer.encode(["", ""], "passage")
    loss = model(masked(empty, special))["total"]
    loss.backward()
    assert loss.item() == 0
    with pytest.raises(TrichromeError, match="encoder_mask"):
        RetroMAESettings(encoder_mask=1.0)
