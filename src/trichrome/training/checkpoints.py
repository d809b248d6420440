"""Checkpoints of a run: written whole or not at all, the latest few kept, no pickle.

OUTPUT/checkpoints/step-00000200/
    weights.safetensors    the trained parameters, by name
    optimiser.safetensors  their moments
    state.json             step, recipe
Nothing else is needed to go on: batches, draws and dropout depend on seed and step alone.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from trichrome.encoder.reading import read_object, read_tensors
from trichrome.errors import TrichromeError
from trichrome.storage import sync_directory, write_json
from trichrome.training.optimiser import load_optimiser_state, optimiser_state

WEIGHTS, MOMENTS, STATE = "weights.safetensors", "optimiser.safetensors", "state.json"


@dataclass(frozen=True)
class Checkpoints:
    """folder: where they lie. keep: how many of the latest stay. run: what must be equal to go on."""

    folder: Path
    keep: int
    run: Mapping[str, Any]

    def save(self, step: int, named: Mapping[str, nn.Parameter], optimiser: torch.optim.Optimizer) -> Path:
        """After `step` optimiser steps; the folder takes its name when all is on the disk."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step-{step:08d}"
        if path.exists():
            return path
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".writing-") as temporary:
            made = Path(temporary) / "checkpoint"
            made.mkdir()
            save_file({n: p.detach().cpu().contiguous() for n, p in named.items()}, made / WEIGHTS)
            moments = optimiser_state(optimiser, named)
            save_file({n: t.detach().cpu().contiguous() for n, t in moments.items()}, made / MOMENTS)
            write_json(made / STATE, {"step": step, "run": dict(self.run)})
            for file in made.iterdir():
                with file.open("rb") as opened:
                    os.fsync(opened.fileno())
            made.rename(path)
        sync_directory(self.folder)
        for old in self.steps()[: -self.keep]:
            shutil.rmtree(self.folder / f"step-{old:08d}")
        return path

    def steps(self) -> list[int]:
        """The steps that there are checkpoints of, ascending."""
        return sorted(int(p.name.removeprefix("step-")) for p in self.folder.glob("step-*"))

    def resume(self, named: Mapping[str, nn.Parameter], optimiser: torch.optim.Optimizer) -> int:
        """Load the latest checkpoint into parameters and optimiser; its step, 0 where there is none.

        TrichromeError: the checkpoint is of another recipe or another model.
        """
        for abandoned in self.folder.glob(".writing-*"):
            shutil.rmtree(abandoned, ignore_errors=True)
        steps = self.steps()
        if not steps:
            return 0
        path = self.folder / f"step-{steps[-1]:08d}"
        state = read_object(path / STATE)
        if not isinstance(state.get("run"), dict) or type(state.get("step")) is not int:
            raise TrichromeError(f"{path / STATE}: damaged; remove {path} to go on from the one before")
        differing = sorted(k for k, v in _plain(self.run).items() if state["run"].get(k) != v)
        if differing:
            raise TrichromeError(
                f"{path}: made with other settings ({', '.join(differing)}); "
                "restore them, or train into another output folder"
            )
        weights, moments = read_tensors(path / WEIGHTS), read_tensors(path / MOMENTS)
        if missing := sorted(set(named) ^ set(weights)):
            raise TrichromeError(f"{path / WEIGHTS}: other parameters than this model trains: {missing[0]}")
        if wrong := [name for name, p in named.items() if weights[name].shape != p.shape]:
            raise TrichromeError(f"{path / WEIGHTS}: {wrong[0]} has another shape than in this model")
        if foreign := [name for name in moments if name.partition(".")[2] not in named]:
            raise TrichromeError(f"{path / MOMENTS}: {foreign[0]} belongs to no parameter of this model")
        with torch.no_grad():
            for name, parameter in named.items():
                parameter.copy_(weights[name])
        load_optimiser_state(optimiser, named, moments)
        step: int = state["step"]
        return step


def _plain(run: Mapping[str, Any]) -> dict[str, Any]:
    """As it comes back from JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(run)))
    return plain
