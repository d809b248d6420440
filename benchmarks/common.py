"""What all benchmarks share: where data and results lie, and what machine they ran on."""

from __future__ import annotations

import os
import platform
import resource
from pathlib import Path
from typing import Any

from trichrome.extras import versions
from trichrome.storage import write_json

RESULTS = Path(__file__).parent / "results"
SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"

_PACKAGES = ("trichrome", "torch", "onnxruntime", "transformers", "numpy", "numba", "qdrant-edge-py",
             "FlagEmbedding", "sentence-transformers", "bm25s")  # fmt: skip


def machine() -> dict[str, Any]:
    """Processor, cores and package versions, for the record."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "packages": {name: found for name, found in versions(_PACKAGES).items() if found},
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
    return names[0] if names else platform.processor()


def peak_mib() -> float:
    """Most memory that this process held, in MiB. getrusage's ru_maxrss begins, after an exec, at what the
    process that started this one held, which may be more; Linux's VmHWM is this program's own."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def write_results(name: str, values: dict[str, Any]) -> Path:
    """Write benchmarks/results/NAME.json, whole or not at all."""
    path = RESULTS / f"{name}.json"
    write_json(path, values)
    return path
