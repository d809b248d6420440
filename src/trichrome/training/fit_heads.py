"""Fit the sparse and multi-vector heads of an encoder whose base stays frozen.

    python -m trichrome.training.fit_heads --data DIR --model small-base --out runs/small-heads

DIR holds FlagEmbedding JSONL files (query, pos). It does what `trichrome train heads` does, faster: because
the base is frozen, every token's hidden state is computed once; the heads then train on those states in
minutes on a CPU. The loss is InfoNCE over in-batch passages for each head (M3 paper, eq. 6) plus the
distillation of the sparse head from the sum of all three scores (eq. 8); batches come from one file and one
language, so that their negatives mean something.
"""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from rich.console import Console
from rich.progress import Progress, track
from torch import Tensor

from trichrome import scoring
from trichrome.encoder.batching import collate, token_budget_batches
from trichrome.encoder.checkpoints import NewHeads, load, save
from trichrome.encoder.encoder import Encoder
from trichrome.encoder.heads import Batch, Heads
from trichrome.encoder.tokenizer import Tokens
from trichrome.formats.flagembedding import read_examples

TEMPERATURE = 0.02  # M3 paper
console = Console(stderr=True)


@dataclass(frozen=True)
class Pair:
    """A query and a passage that answers it.

    group: a batch is of one group where that has enough pairs. bitext: the two share no words.
    """

    query: str
    passage: str
    group: str
    bitext: bool


@dataclass(frozen=True)
class States:
    """Frozen hidden states of the scored tokens of N texts, one after another.

    offsets [N+1], hidden [ΣT, d] in bfloat16, ids [ΣT]; dense [N, d].
    """

    offsets: Tensor
    hidden: Tensor
    ids: Tensor
    dense: Tensor

    def batch(self, rows: Sequence[int], pad_id: int) -> tuple[Tensor, Batch, Tensor]:
        """hidden [B, L, d], the Batch behind it, and dense [B, d] of the chosen texts."""
        parts = [slice(int(self.offsets[i]), int(self.offsets[i + 1])) for i in rows]
        hidden = torch.nn.utils.rnn.pad_sequence([self.hidden[p].float() for p in parts], batch_first=True)
        ids = torch.nn.utils.rnn.pad_sequence([self.ids[p] for p in parts], True, pad_id)
        lengths = torch.tensor([p.stop - p.start for p in parts])
        mask = torch.arange(hidden.shape[1]) < lengths[:, None]
        return hidden, Batch(ids, mask, mask), self.dense[list(rows)]


def read_pairs(data: Path, files: Sequence[str], keep_out: set[str], per_group: int, seed: int) -> list[Pair]:
    """At most `per_group` pairs of each file and language; languages of `keep_out` are left out."""
    pairs: list[Pair] = []
    draw = random.Random(seed)
    for name in files:
        by_language: dict[str, list[Pair]] = defaultdict(list)
        for example in read_examples(data / f"{name}.jsonl.gz"):
            lang = example.lang or ""
            spoken = set(lang.lower().replace("_", "-").split("-"))
            if not spoken & keep_out:
                group = name if "-" in lang and name in ("udhr", "bible") else f"{name}/{lang}"
                bitext = name in ("udhr", "bible")
                by_language[group].append(Pair(example.query, example.positives[0], group, bitext))
        for group in sorted(by_language):
            found = by_language[group]
            pairs += draw.sample(found, min(per_group, len(found)))
    return pairs


def hidden_states(encoder: Encoder, texts: Sequence[str], kind: str, longest: int) -> States:
    """Run the frozen base over all texts, at most `longest` tokens each."""
    tokens = [_cut(t, longest) for t in encoder.tokenizer.encode(texts, kind)]
    counts = torch.tensor([sum(t.scored) for t in tokens])
    offsets = F.pad(counts.cumsum(0), (1, 0))
    hidden = torch.empty(int(offsets[-1]), encoder.dense_dim, dtype=torch.bfloat16)
    ids = torch.empty(int(offsets[-1]), dtype=torch.long)
    dense = torch.empty(len(texts), encoder.dense_dim)
    batches = token_budget_batches([len(t.ids) for t in tokens], 4096)
    with torch.inference_mode():
        for rows in track(batches, f"{kind}: frozen hidden states", console=console):
            batch = collate([tokens[i] for i in rows], encoder.config.pad_id)
            made = encoder.network.backbone(batch.ids, batch.mask)  # [B, L, d]
            dense[rows] = F.normalize(encoder.network.heads.pool(made.float(), batch), dim=-1)
            for row, i in enumerate(rows):
                place = slice(int(offsets[i]), int(offsets[i + 1]))
                hidden[place] = made[row][batch.scored[row]]
                ids[place] = batch.ids[row][batch.scored[row]]
    return States(offsets, hidden, ids, dense)


def _cut(tokens: Tokens, longest: int) -> Tokens:
    if len(tokens.ids) <= longest:
        return tokens
    return Tokens(
        [*tokens.ids[: longest - 1], tokens.ids[-1]], [*tokens.scored[: longest - 1], True], tokens.cut
    )


def start_from_principal_directions(heads: Heads, hidden: Tensor) -> None:
    """Let the multi-vector projection begin with the directions that hold most of the states' energy, and
    the sparse head with small positive weights, so that no token is silent."""
    assert heads.multivector is not None
    assert heads.sparse is not None
    sample = hidden[torch.randperm(len(hidden))[:100_000]].float()
    _, vectors = torch.linalg.eigh(sample.T @ sample)  # ascending
    with torch.no_grad():
        heads.multivector.weight.copy_(vectors[:, -len(heads.multivector.weight) :].T)
        heads.multivector.bias.zero_()
        heads.sparse.weight.normal_(std=0.01)
        heads.sparse.bias.fill_(0.1)


def batches_of(pairs: Sequence[Pair], size: int, seed: int) -> list[list[int]]:
    """Shuffled indices in batches of one group; groups smaller than a batch are put together by language
    order of the file, none is dropped."""
    draw = random.Random(seed)
    groups: dict[str, list[int]] = defaultdict(list)
    for i, pair in enumerate(pairs):
        groups[pair.group].append(i)
    batches, rest = [], []
    for group in sorted(groups):
        rows = groups[group]
        draw.shuffle(rows)
        whole = len(rows) - len(rows) % size
        batches += [rows[i : i + size] for i in range(0, whole, size)]
        rest += rows[whole:]
    batches += [rest[i : i + size] for i in range(0, len(rest), size) if len(rest[i : i + size]) > 1]
    draw.shuffle(batches)
    return batches


def losses(
    heads: Heads,
    queries: tuple[Tensor, Batch, Tensor],
    passages: tuple[Tensor, Batch, Tensor],
    twins: Tensor,
    bitext: bool,
) -> dict[str, Tensor]:
    """The losses of one batch of B pairs; pair i's passage is query i's positive.

    twins [B, B]: passages with the text of another query's positive are no negatives for it.
    """
    q, p = heads(queries[0], queries[1], dense=False), heads(passages[0], passages[1], dense=False)
    target = torch.arange(len(queries[2]))
    scores = {
        "dense": scoring.dense_scores(queries[2], passages[2]) / TEMPERATURE,
        "multivector": scoring.multivector_scores(q.vectors, p.vectors, q.vector_mask, p.vector_mask)
        / TEMPERATURE,
    }
    made = {"multivector": F.cross_entropy(scores["multivector"].masked_fill(twins, -torch.inf), target)}
    raw = scoring.multivector_scores(
        F.normalize(queries[0], dim=-1), F.normalize(passages[0], dim=-1), q.vector_mask, p.vector_mask
    )
    made["raw"] = F.cross_entropy(scores["multivector"], (raw / TEMPERATURE).softmax(-1))
    if bitext:  # a translation shares next to no token: it can teach the sparse head nothing
        return made
    scores["sparse"] = (
        scoring.sparse_scores(queries[1].ids, q.sparse_weights, passages[1].ids, p.sparse_weights)
        / TEMPERATURE
    )
    teacher = scoring.weighted(scores).detach().softmax(-1)
    made["sparse"] = F.cross_entropy(scores["sparse"].masked_fill(twins, -torch.inf), target)
    made["distil"] = F.cross_entropy(scores["sparse"], teacher)
    return made


def train(
    heads: Heads,
    pairs: Sequence[Pair],
    queries: States,
    passages: States,
    pad_id: int,
    epochs: int,
    size: int,
    rate: float,
    seed: int,
) -> None:
    """AdamW with a linear warm-up and decay over the cached states."""
    plan = list(itertools.chain.from_iterable(batches_of(pairs, size, seed + e) for e in range(epochs)))
    optimizer = torch.optim.AdamW(heads.parameters(), lr=rate, weight_decay=0.01)
    warmup = max(1, len(plan) // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, 1 - step / max(1, len(plan)))
    )
    recent: dict[str, float] = {}
    with Progress(console=console) as bar:
        job = bar.add_task("heads", total=len(plan))
        for done, rows in enumerate(plan):
            texts = [pairs[i].passage for i in rows]
            twins = torch.tensor(
                [[a == b and i != j for j, b in enumerate(texts)] for i, a in enumerate(texts)]
            )
            made = losses(
                heads,
                queries.batch(rows, pad_id),
                passages.batch(rows, pad_id),
                twins,
                pairs[rows[0]].bitext,
            )
            total = torch.stack(list(made.values())).sum()
            torch.autograd.backward(total)
            torch.nn.utils.clip_grad_norm_(heads.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            if len(plan) < 20 or not done % (len(plan) // 20):
                console.log(f"step {done} of {len(plan)}", {k: round(v, 3) for k, v in recent.items()})
            recent |= {k: 0.95 * recent.get(k, v.item()) + 0.05 * v.item() for k, v in made.items()}
            bar.update(job, advance=1, description=" ".join(f"{k} {v:.3f}" for k, v in recent.items()))
    console.print("final losses:", {k: round(v, 4) for k, v in recent.items()})


#: Sets whose licences let weights trained on them be shipped.
FILES = (
    "ddtp,lohelp,gnome,man,jaquad-train,jsquad-valid,pquad-val,drcd-dev,cmrc-trial,amqa-train,arcd-train,"
    "faquad-train,heq-val,iapp-train,udhr,bible,wordnet"
)


def main(
    data: Annotated[Path, typer.Option(help="Folder of FlagEmbedding JSONL files (NAME.jsonl.gz).")],
    out: Annotated[Path, typer.Option(help="Model folder to write.")],
    model: Annotated[str, typer.Option(help="Encoder whose base is frozen.")] = "small-base",
    files: Annotated[str, typer.Option(help="Which files, by NAME.")] = FILES,
    keep_out: Annotated[str, typer.Option(help="Languages not to train on.")] = "eu,et,el",
    per_group: Annotated[int, typer.Option(help="Most pairs of one file and language.")] = 250,
    query_tokens: Annotated[int, typer.Option(help="Tokens of a query that are read.")] = 40,
    passage_tokens: Annotated[int, typer.Option(help="Tokens of a passage that are read.")] = 112,
    epochs: int = 4,
    batch: int = 32,
    rate: float = 2e-3,
    seed: int = 0,
) -> None:
    """Fit the sparse and multi-vector heads of an encoder on its frozen hidden states."""
    torch.manual_seed(seed)
    encoder = load(model, new_heads=NewHeads(), device="cpu", dtype="bfloat16")
    pairs = read_pairs(data, files.split(","), set(keep_out.split(",")), per_group, seed)
    console.print(f"{len(pairs)} pairs of {len({p.group for p in pairs})} groups")
    queries = hidden_states(encoder, [p.query for p in pairs], "query", query_tokens)
    passages = hidden_states(encoder, [p.passage for p in pairs], "passage", passage_tokens)
    heads = encoder.network.heads
    start_from_principal_directions(heads, passages.hidden)
    heads.train()
    train(heads, pairs, queries, passages, encoder.config.pad_id, epochs, batch, rate, seed)
    whole = load(model, new_heads=NewHeads(), device="cpu", dtype="float32")
    whole.network.heads.load_state_dict(heads.state_dict())
    save(Encoder(whole.network, whole.tokenizer.tokenizer, whole.config, "cpu"), out)
    console.print(f"wrote {out}")


if __name__ == "__main__":
    typer.run(main)
