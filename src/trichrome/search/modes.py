"""The five retrieval modes: where candidates come from, how many, and what each signal weighs.

Depths and weights are those of the M3 paper's evaluation (arXiv 2402.03216 v4, section 4 and appendix).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, TypeAlias

from trichrome.embeddings import SIGNALS
from trichrome.errors import TrichromeError
from trichrome.scoring import M3_LONG_WEIGHTS, M3_WEIGHTS

#: The signals whose best documents may become candidates. A full multi-vector scan costs too much to be one.
FIRST_STAGE = ("dense", "sparse")

Candidates: TypeAlias = Literal["dense", "sparse", "union"]
Preset: TypeAlias = Literal["m3", "long"]

_SOURCES: Mapping[str, tuple[str, ...]] = {
    "dense": ("dense",),
    "sparse": ("sparse",),
    "union": ("dense", "sparse"),
}


@dataclass(frozen=True, slots=True)
class Mode:
    """One way to rank.

    name: one of MODE_NAMES, or the caller's own.
    sources: the signals whose `depth` best documents are the candidates (their union).
    depth: how many candidates each source gives.
    weights: of the dense, sparse and multivector score in the sum; a signal that weighs 0 is not needed.
    """

    name: str
    sources: tuple[str, ...]
    depth: int
    weights: tuple[float, float, float]

    def __post_init__(self) -> None:
        if not self.sources or set(self.sources) - set(FIRST_STAGE):
            raise TrichromeError(
                f"mode {self.name}: candidates come from dense, sparse or both: {self.sources}"
            )
        if self.depth < 1:
            raise TrichromeError(f"mode {self.name}: the depth must be at least 1, got {self.depth}")
        if len(self.weights) != len(SIGNALS) or min(self.weights) < 0 or not sum(self.weights) > 0:
            raise TrichromeError(
                f"mode {self.name}: needs a weight ≥ 0 for each of {', '.join(SIGNALS)}, not all 0: "
                f"got {self.weights}"
            )

    @property
    def signals(self) -> tuple[str, ...]:
        """The signals that count in the sum."""
        return tuple(name for name, weight in zip(SIGNALS, self.weights, strict=True) if weight)

    @property
    def needed(self) -> tuple[str, ...]:
        """The signals that a store and a query must have: those that count and those that give candidates."""
        counting = self.signals
        return tuple(name for name in SIGNALS if name in counting or name in self.sources)


def _modes(both: tuple[float, float, float], all_three: tuple[float, float, float]) -> Mapping[str, Mode]:
    modes = (
        Mode("dense", ("dense",), 1000, (1.0, 0.0, 0.0)),
        Mode("sparse", ("sparse",), 1000, (0.0, 1.0, 0.0)),
        Mode("multivector", ("dense",), 200, (0.0, 0.0, 1.0)),
        Mode("dense+sparse", ("dense", "sparse"), 1000, both),
        Mode("all", ("dense",), 200, all_three),
    )
    return MappingProxyType({mode.name: mode for mode in modes})


#: The paper's modes for passages (MIRACL, MKQA).
M3_MODES = _modes((1.0, 0.3, 0.0), M3_WEIGHTS)
#: The paper's modes for long documents (MLDR, NarrativeQA).
LONG_MODES = _modes((0.2, 0.8, 0.0), M3_LONG_WEIGHTS)
#: The five names, in the order of the paper's tables.
MODE_NAMES = tuple(M3_MODES)


def mode_named(
    name: str,
    *,
    preset: Preset = "m3",
    weights: Sequence[float] | None = None,
    depth: int | None = None,
    candidates: Candidates | None = None,
) -> Mode:
    """One of the five modes, with other weights, depth or candidates where they are given.

    candidates: "dense", "sparse", or "union" of both lists, which lets the sums reach documents that the
    dense list lacks (the paper re-ranks the dense list only, for `multivector` and `all`).
    """
    if preset not in ("m3", "long"):
        raise TrichromeError(f"unknown preset {preset!r}; there are m3 and long")
    modes = M3_MODES if preset == "m3" else LONG_MODES
    if name not in modes:
        raise TrichromeError(f"unknown mode {name!r}; there are {', '.join(MODE_NAMES)}")
    mode = modes[name]
    if weights is not None:
        values = tuple(float(w) for w in weights)
        if len(values) != 3:
            raise TrichromeError(f"three weights are needed (dense, sparse, multivector), got {len(values)}")
        mode = replace(mode, weights=values)
    if depth is not None:
        mode = replace(mode, depth=depth)
    if candidates is not None:
        if candidates not in _SOURCES:
            raise TrichromeError(f"unknown candidates {candidates!r}; there are {', '.join(_SOURCES)}")
        mode = replace(mode, sources=_SOURCES[candidates])
    return mode
