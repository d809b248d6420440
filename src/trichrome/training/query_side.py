"""The stage `queries`: only the side of the queries is trained, against an index that stays as it is.

Each step searches the index with the query encoder as it then is, and the loss looks at what was found: the
negatives are those that the encoder would really get wrong, at every step (ADORE, arXiv 2104.08051). No
document is encoded, so a step costs what its queries cost, and the index need not be made again.

Where the index holds dense codes (`trichrome copy --dense-dtype pq`) and `optimiser.centroid_rate` is given,
the centroids are trained as well (JPQ, arXiv 2108.00644; see `coded`), and output/index is a copy of that
index with the new ones.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trichrome.encoder.batching import collate
from trichrome.encoder.encoder import Encoder
from trichrome.encoder.tokenizer import TextTokenizer, Tokens
from trichrome.errors import ModelMismatch, TrichromeError
from trichrome.index import Manifest, Store, open_store
from trichrome.index.copying import copy_with_centroids
from trichrome.index.exact import ExactStore
from trichrome.training.batch import TrainingBatch
from trichrome.training.coded import CodedIndex, with_answers
from trichrome.training.encoded import encode
from trichrome.training.frozen import FrozenIndex, ReadIndex, answered, read_index
from trichrome.training.loop import Watch
from trichrome.training.objectives import ranking_loss
from trichrome.training.observations import gradient_norms
from trichrome.training.prepare import prepare
from trichrome.training.recipe import Recipe
from trichrome.training.split_batch import sub_batch_rows
from trichrome.training.stages import Trained, drive, make_accelerator, make_schedule
from trichrome.training.target import Target

#: In the output folder, the index with trained centroids.
INDEX = "index"


def queries(recipe: Recipe, watch: Watch | None = None) -> Trained:
    """Train an encoder's queries for the documents of `recipe.queries.index`, which it searched before.

    The loss is `objective.ranking` over each query's `queries.depth` best documents, and its answers where
    they are not among them. What is trained has the dense output alone, and encodes queries alone.

    TrichromeError: no index; an index of another model, or without dense vectors; rows of the data without a
    positive in the index (left out with skip_bad); a loss that compares queries with each other.
    """
    _check(recipe)
    recipe = replace(recipe, batches=replace(recipe.batches, group_size=1))  # of passages, nothing is read
    accelerator = make_accelerator()
    encoder = prepare(recipe, str(accelerator.device), train_heads=())
    with open_store(str(recipe.queries.index)) as store:
        manifest = store.manifest
        check_start(manifest, encoder)
        read = read_index(store)
        trains_centroids = recipe.optimiser.centroid_rate is not None
        index = _coded(store, read, accelerator.num_processes) if trains_centroids else None
    # batches are planned by passages' tokens too, which a query tower's own tokenizer refuses to count
    encoder.tokenizer = TextTokenizer(encoder.tokenizer.tokenizer, replace(encoder.config, queries_of=None))
    network = accelerator.prepare(encoder.network)
    schedule = make_schedule(recipe, encoder, accelerator)
    answers = read.answers(schedule.plan.examples)
    answered(answers, recipe.skip_bad, str(recipe.queries.index))
    seen_index = (index or FrozenIndex(read.vectors)).to(accelerator.device)
    ranks = accelerator.process_index, accelerator.num_processes

    def backward(step: int) -> dict[str, float]:
        whole = schedule.batch(step)
        mine = share_of(whole, answers, *ranks)
        seen = Seen()
        parts = sub_batch_rows(mine.queries, recipe.sub_batch_tokens)
        for i, part in enumerate(parts):
            batch = collate(part, encoder.config.pad_id).to(accelerator.device)
            own = mine.answers[seen.queries : seen.queries + len(part)]
            with nullcontext() if i == len(parts) - 1 else accelerator.no_sync(network):
                vectors = encode(network, batch, ("dense",)).dense
                assert vectors is not None
                rows, target = with_answers(seen_index.nearest(vectors.detach(), recipe.queries.depth), own)
                scores = seen_index(vectors, rows)  # [B, C]
                loss = ranking_loss(recipe.objective, scores, target)
                accelerator.backward(loss * (len(part) / len(mine.queries)))
            seen.add(loss, scores, target)
        return (
            {"loss/dense": seen.loss, "loss/total": seen.loss}
            | {"accuracy/dense": seen.first / seen.queries, "mrr/dense": seen.reciprocal / seen.queries}
            | gradient_norms(encoder.network)
            | {
                "queries": float(len(whole.queries)),
                "unanswered": float(mine.unanswered),
                "tokens": float(sum(len(t.ids) for t in whole.queries)),
                "cut": float(sum(bool(t.cut) for t in whole.queries)),
            }
        )

    def shape(trained: Encoder) -> Encoder:
        return query_encoder(trained, manifest.fingerprint)

    named = encoder.network if index is None else nn.ModuleDict({"encoder": encoder.network, "index": index})
    trained = drive(recipe, encoder, named, accelerator, backward, schedule, watch or Watch(), shape)
    if trained.finished and index is not None:
        shutil.rmtree(recipe.output / INDEX, ignore_errors=True)  # of an earlier end of this run
        copy_with_centroids(Path(str(recipe.queries.index)), recipe.output / INDEX, index.quantiser())
    return trained


def query_encoder(encoder: Encoder, of: str) -> Encoder:
    """The encoder with its dense output alone, for queries alone. of: the fingerprint of the model that
    encoded the documents."""
    heads = encoder.network.heads
    heads.sparse = heads.multivector = None
    config = replace(encoder.config, sparse=False, multivector_dim=None, queries_of=of)
    return Encoder(encoder.network, encoder.tokenizer.tokenizer, config, "cpu")


def check_start(manifest: Manifest, encoder: Encoder) -> None:
    """ModelMismatch unless the encoder's queries search this index already."""
    if (encoder.queries_of or encoder.fingerprint) != manifest.fingerprint:
        raise ModelMismatch(
            f"the index was made with model {manifest.model!r} (fingerprint {manifest.fingerprint:.12}), and "
            f"the recipe starts from {encoder.name!r} ({encoder.fingerprint:.12}); start from that model"
        )


@dataclass(frozen=True)
class Share:
    """What one process trains on: queries, the longest first, each with its answers' rows. unanswered: the
    batch's queries that have none."""

    queries: list[Tokens]
    answers: list[NDArray[np.int64]]
    unanswered: int


def share_of(whole: TrainingBatch, answers: Sequence[NDArray[np.int64]], rank: int, world: int) -> Share:
    """This rank's share of a batch: ranks take turns along the falling lengths."""
    known = [i for i, row in enumerate(whole.rows) if len(answers[row])]
    if len(known) < world:
        raise TrichromeError(
            f"a batch has {len(known)} queries with an answer in the index, for {world} processes; raise "
            "batches.token_budget, or index the documents that are missing"
        )
    order = sorted(known, key=lambda i: -len(whole.queries[i].ids))[rank::world]
    own = [answers[whole.rows[i]] for i in order]
    return Share([whole.queries[i] for i in order], own, len(whole.rows) - len(known))


@dataclass
class Seen:
    """Of a step so far. loss: the mean over its queries. first: those whose best document answers them.
    reciprocal: the sum of their reciprocal ranks, 0 below the tenth."""

    loss: float = 0.0
    first: int = 0
    reciprocal: float = 0.0
    queries: int = 0

    @torch.no_grad()
    def add(self, loss: Tensor, scores: Tensor, target: Target) -> None:
        """scores [B, C] of some more queries."""
        order = scores.masked_fill(~target.mask, -torch.inf).argsort(dim=1, descending=True, stable=True)
        hits = target.positive.gather(1, order)[:, :10]  # [B, ≤ 10]
        reciprocal = hits.any(1) / (hits.int().argmax(1) + 1)  # [B]
        count = self.queries + len(scores)
        self.loss = (self.loss * self.queries + loss.item() * len(scores)) / count
        self.first += int(hits[:, 0].sum())
        self.reciprocal += float(reciprocal.sum())
        self.queries = count


def _coded(store: Store, read: ReadIndex, processes: int) -> CodedIndex:
    """The index as codes, in the order in which it was read."""
    if not isinstance(store, ExactStore) or store.quantiser is None:
        raise TrichromeError(
            "optimiser.centroid_rate is for an index of dense codes; `trichrome copy INDEX TO --dense-dtype "
            "pq` makes one"
        )
    if processes > 1:
        raise TrichromeError(f"centroids are trained by one process, not by {processes}: start a single one")
    return CodedIndex(store.quantiser, store.dense_codes(store.rows_of(list(read.by_id))))


def _check(recipe: Recipe) -> None:
    if recipe.queries.index is None:
        raise TrichromeError(
            "the stage queries trains against an index: give queries.index, its folder or URL"
        )
    if recipe.objective.ranking == "mann_whitney":
        raise TrichromeError(
            "objective.ranking: mann_whitney compares queries with each other, and here each has its own "
            "documents; take lambda_rank, pairwise or infonce"
        )
    if recipe.measure_sizes:
        raise TrichromeError("measure_sizes is for stages on pairs; give queries a batches.token_budget")
    if recipe.evaluation.tasks:
        raise TrichromeError(
            "evaluation.tasks encodes documents anew, and this stage trains no encoder of documents; measure "
            "the trained model with `trichrome eval` afterwards"
        )
