"""A recipe: everything that decides a training run, as small dataclasses that check their own fields.

Written as YAML (recipes/*.yaml); `read_recipe` says which line is wrong. Needs the extra `train`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from trichrome.encoder.checkpoints import NewHeads
from trichrome.errors import TrichromeError
from trichrome.extras import require
from trichrome.training.batches import BatchSettings
from trichrome.training.lowrank import LowRank
from trichrome.training.retromae import RetroMAESettings
from trichrome.training.towers import TowerSettings

STRICT: Mapping[str, str] = {"extra": "forbid"}


@dataclass(frozen=True)
class Optimiser:
    """AdamW. rate: at its peak; head_rate: that of the heads, where it is another; centroid_rate: that of an
    index's centroids (stage queries, index of dense codes), which stay without one. warmup: the share of the
    steps in which the rate rises. schedule: how it falls afterwards. clip: largest gradient norm."""

    __pydantic_config__: ClassVar = STRICT
    rate: float = 1e-4
    head_rate: float | None = None
    centroid_rate: float | None = None
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    warmup: float = 0.1
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    clip: float = 1.0

    def __post_init__(self) -> None:
        for name in ("rate", "head_rate", "centroid_rate"):
            value = getattr(self, name)
            _require(value is None or value > 0, f"optimiser.{name} must be > 0, got {value}")
        _require(0 <= self.warmup < 1, f"optimiser.warmup is a share of the steps, got {self.warmup}")
        _require(self.clip > 0, f"optimiser.clip must be > 0, got {self.clip}")


@dataclass(frozen=True)
class Objective:
    """The M3 objective and what may be added to it.

    temperature, mix (w), weights (λ), distil, distil_weights: trichrome.training.losses.unified.
    distil_after: self-distillation begins after so many optimiser steps (a resumed run counts on).
    ranking: the loss of the contrastive stage and of queries. rank_cut: of lambda_rank, lower ranks weigh
    nothing. both_directions: with InfoNCE in the contrastive stage, passages look for their queries too.
    flops_queries, flops_passages: weights of the FLOPS regulariser on the sparse output.
    teacher: weight of a loss towards the teacher's scores that the data carries (`trichrome score`), on each
    output; teacher_loss: which; teacher_temperature: divides the teacher's scores (not with margin_mse).
    adversarial: weight of the loss that raises what the teacher can't tell from the positive.
    """

    __pydantic_config__: ClassVar = STRICT
    temperature: float = 0.02
    mix: tuple[float, float, float] = (1.0, 0.3, 1.0)
    weights: tuple[float, float, float] = (1.0, 0.1, 1.0)
    distil: bool = True
    distil_after: int = 0
    distil_weights: tuple[float, float, float] = (1.0, 0.1, 1.0)
    ranking: Literal["infonce", "mann_whitney", "pairwise", "lambda_rank", "none"] = "infonce"
    rank_cut: int | None = None
    both_directions: bool = False
    flops_queries: float = 0.0
    flops_passages: float = 0.0
    teacher: float = 0.0
    teacher_loss: Literal["listwise_kl", "kl", "margin_mse", "wasserstein"] = "listwise_kl"
    teacher_temperature: float = 1.0
    adversarial: float = 0.0

    def __post_init__(self) -> None:
        _require(self.temperature > 0, f"objective.temperature must be > 0, got {self.temperature}")
        _require(
            self.teacher_temperature > 0,
            f"objective.teacher_temperature must be > 0, got {self.teacher_temperature}",
        )
        _require(
            not self.both_directions or self.ranking == "infonce",
            f"objective.both_directions goes with ranking: infonce, not with {self.ranking}",
        )
        _require(
            self.rank_cut is None or (self.rank_cut > 0 and self.ranking == "lambda_rank"),
            "objective.rank_cut is a rank ≥ 1, and goes with ranking: lambda_rank",
        )
        _require(self.distil_after >= 0, f"objective.distil_after must be ≥ 0, got {self.distil_after}")


@dataclass(frozen=True)
class QuerySide:
    """The stage `queries`. index: a folder or URL, of the model that training starts from. depth: documents
    that each query sees, the best by the query encoder as it is."""

    __pydantic_config__: ClassVar = STRICT
    index: str | None = None
    depth: int = 200

    def __post_init__(self) -> None:
        _require(self.depth > 0, f"queries.depth must be > 0, got {self.depth}")


@dataclass(frozen=True)
class Evaluation:
    """tasks: BEIR folders to measure the five modes on, before, every `every` steps and after."""

    __pydantic_config__: ClassVar = STRICT
    tasks: tuple[Path, ...] = ()
    every: int = 500
    max_queries: int | None = 200

    def __post_init__(self) -> None:
        _require(self.every > 0, f"evaluation.every must be > 0, got {self.every}")


@dataclass(frozen=True)
class Recipe:
    """One run of one stage.

    model: what it starts from; new_heads: for an encoder that has none. data: FlagEmbedding JSONL files,
    patterns such as mined/*.jsonl.gz allowed. output: the folder of log, checkpoints and the trained model.
    train: all weights, low-rank deltas and heads, or the heads alone. freeze_embeddings: of words,
    positions and segments, where all weights are trained. dropout: instead of the model's own.
    positions: extend the position table to so many tokens first.
    steps: optimiser steps; by default `epochs` passes over the data.
    sub_batch_tokens: padded tokens that go through the network with a graph at once (split-batch).
    measure_sizes: rows of a batch by length group are the most that this GPU takes at once, measured when the
    run begins and kept in its output folder; instead of batches.token_budget and batches.sizes.
    precision: of the backbone's products in training; heads, scores and losses are float32 always.
    checkpoint_every: optimiser steps; the last `keep` checkpoints are kept.
    """

    __pydantic_config__: ClassVar = STRICT
    model: str
    data: tuple[str, ...]
    output: Path
    new_heads: NewHeads | None = None
    train: Literal["all", "lowrank", "heads"] = "all"
    lowrank: LowRank = field(default_factory=LowRank)
    freeze_embeddings: bool = False
    dropout: float | None = None
    positions: int | None = None
    steps: int | None = None
    epochs: int = 1
    sub_batch_tokens: int = 4096
    measure_sizes: bool = False
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0
    skip_bad: bool = False
    batches: BatchSettings = field(default_factory=BatchSettings)
    optimiser: Optimiser = field(default_factory=Optimiser)
    objective: Objective = field(default_factory=Objective)
    retromae: RetroMAESettings = field(default_factory=RetroMAESettings)
    queries: QuerySide = field(default_factory=QuerySide)
    tower: TowerSettings = field(default_factory=TowerSettings)
    evaluation: Evaluation = field(default_factory=Evaluation)
    checkpoint_every: int = 200
    keep: int = 2

    def __post_init__(self) -> None:
        _require(bool(self.data), "data names no file")
        for name in ("epochs", "sub_batch_tokens", "checkpoint_every", "keep"):
            _require(getattr(self, name) > 0, f"{name} must be > 0, got {getattr(self, name)}")
        _require(self.steps is None or self.steps > 0, f"steps must be > 0, got {self.steps}")
        _require(
            not (self.measure_sizes and self.batches.sizes), "batches.sizes are given, or measured: not both"
        )

    def files(self) -> list[Path]:
        """The data files, in the order given, patterns expanded. TrichromeError: nothing matches."""
        found: list[Path] = []
        for pattern in self.data:
            path = Path(pattern).expanduser()
            if any(c in pattern for c in "*?["):
                parts = path.parts[len(path.anchor and path.parts[:1]) :]
                matches = sorted(Path(path.anchor or ".").glob(str(Path(*parts))))
                if not matches:
                    raise TrichromeError(f"{pattern}: no file matches; mend `data` in the recipe")
                found += matches
            elif path.is_file():
                found.append(path)
            else:
                raise TrichromeError(f"{path}: no such file; mend `data` in the recipe")
        return list(dict.fromkeys(found))


def read_recipe(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe file. overrides: fields of the top level to replace ("steps": 10), None is passed over.

    TrichromeError: unknown fields and wrong values, each with file and line.
    """
    yaml, pydantic = require("yaml", "train"), require("pydantic", "train")
    path = Path(path)
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise TrichromeError(f"{path}: can't be read ({error.strerror}); check the path") from None
    except UnicodeDecodeError as error:
        raise TrichromeError(f"{path}: not UTF-8 at byte {error.start}; a recipe is a text file") from None
    try:
        values = yaml.safe_load(text)
        nodes = yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise TrichromeError(f"{path}:{line}: not YAML ({getattr(error, 'problem', error)})") from None
    if not isinstance(values, dict):
        raise TrichromeError(f"{path}:1: a recipe is a mapping of fields, such as `model: small`")
    values |= {k: v for k, v in (overrides or {}).items() if v is not None}
    try:
        recipe: Recipe = pydantic.TypeAdapter(Recipe).validate_python(values)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        what = {"unexpected_keyword_argument": "no such field", "extra_forbidden": "no such field"}
        said = what.get(first["type"], first["msg"].removeprefix("Value error, "))
        line = _line(nodes, first["loc"])
        raise TrichromeError(f"{path}:{line}: {where + ': ' if where else ''}{said}") from None
    return recipe


def with_output(recipe: Recipe, output: Path) -> Recipe:
    """The same run, written elsewhere."""
    return replace(recipe, output=output)


def _line(node: Any, place: tuple[Any, ...]) -> int:
    """The line of the innermost field of `place` that the file has."""
    line: int = node.start_mark.line + 1
    for part in place:
        children = node.value if isinstance(node.value, list) else []
        found = None
        for i, child in enumerate(children):
            key, value = child if isinstance(child, tuple) else (None, child)
            if (key is not None and key.value == str(part)) or (key is None and i == part):
                found, line = value, (key or value).start_mark.line + 1
        if found is None:
            break
        node = found
    return line


def _require(good: bool, message: str) -> None:
    if not good:
        raise TrichromeError(message)
