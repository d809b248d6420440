"""Where indexes lie, and how a model is opened: what several commands' options mean."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from trichrome.errors import TrichromeError

if TYPE_CHECKING:
    from trichrome.encoder import Encoder
    from trichrome.index import Place

Precision: TypeAlias = Literal["auto", "float32", "bfloat16", "int8"]

#: Options that several commands share.
ModelOption = Annotated[
    str, typer.Option("--model", "-m", help="small (built in), a model folder, or a hub id.")
]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        "--dtype",
        help="Of the network; auto is bfloat16 where the processor computes in it, or what a model was "
        "exported in; int8 runs on onnxruntime.",
    ),
]
FeedbackOption = Annotated[
    int,
    typer.Option("--feedback", min=0, help="Search twice: so many of the first hits make the query better."),
]
ReviserOption = Annotated[
    Path | None,
    typer.Option("--reviser", help="What --feedback makes it with, a trained file; else Rocchio's sum."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else there.")]


def home() -> Path:
    """The folder of all indexes: $TRICHROME_HOME, or ~/.local/share/trichrome."""
    given = os.environ.get("TRICHROME_HOME")
    return Path(given).expanduser() if given else Path.home() / ".local" / "share" / "trichrome"


def store_place(name: str) -> Place:
    """Where an index lies: its URL, or its folder: NAME in `home`, or a path where NAME has a slash."""
    return name if "://" in name else store_path(name)


def store_path(name: str) -> Path:
    """The folder of an index: NAME in `home`, or a path where NAME has a slash."""
    if "://" in name:
        raise TrichromeError(f"{name}: this command takes an index in a folder, not on a server")
    if "/" in name or os.sep in name:
        return Path(name).expanduser()
    if not name.strip() or name.startswith("."):
        raise TrichromeError(f"{name!r} cannot name an index; use a word, or a path such as ./notes")
    return home() / name


def index_names() -> list[str]:
    """The indexes in `home`, sorted."""
    if not home().is_dir():
        return []
    return sorted(p.name for p in home().iterdir() if (p / "manifest.json").is_file() and p.name[0] != ".")


def existing_store(name: str) -> Place:
    """The place of an index that is there. TrichromeError names those that are."""
    from trichrome.index import has_store
    from trichrome.index.urls import is_url, shown

    place = store_place(name)
    if has_store(place):
        return place
    if is_url(place):
        raise TrichromeError(
            f"there is no index at {shown(place)}; make one with `trichrome index PATH --to URL`"
        )
    there = ", ".join(index_names())
    raise TrichromeError(
        f"there is no index {name!r} ({place}); "
        + (f"there are: {there}" if there else "make one with `trichrome index PATH --to NAME`")
    )


def computes_in_bfloat16() -> bool:
    """Whether bfloat16 is faster than float32 here: on a GPU, or a CPU that says so of itself."""
    import torch

    if torch.cuda.is_available():
        return True
    try:
        flags = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        return False
    return any(flag in flags for flag in ("amx_bf16", "avx512_bf16", " bf16"))


def precision(wanted: str) -> str:
    """What an option's value means for a model that was not exported."""
    if wanted == "auto":
        return "bfloat16" if computes_in_bfloat16() else "float32"
    return wanted


def open_model(model: str, dtype: str) -> Encoder:
    """The encoder that --model and --dtype name; opened once in a process."""
    from trichrome.encoder.checkpoints import is_exported

    return _open(model, None if dtype == "auto" and is_exported(model) else precision(dtype))


@cache
def _open(model: str, dtype: str | None) -> Encoder:
    import trichrome

    return trichrome.load(model, dtype=dtype)
