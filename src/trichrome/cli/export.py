"""`trichrome export`: a model as an ONNX graph, for onnxruntime on CPUs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from trichrome.cli.console import note, out, print_json
from trichrome.cli.settings import JsonOption
from trichrome.errors import TrichromeError

#: What --precision says, in the words of the library.
_PRECISIONS = {"fp32": "float32", "int8": "int8"}


def export(
    model: Annotated[str, typer.Argument(help="small (built in), a model folder, or a hub id.")],
    to: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder.")],
    format: Annotated[Literal["onnx"], typer.Option(help="One graph of all three heads.")] = "onnx",
    precision: Annotated[
        Literal["fp32", "int8"], typer.Option(help="Of the network's products; int8 is the faster.")
    ] = "fp32",
    pooling: Annotated[
        Literal["cls", "mean", "mcls"] | None, typer.Option(help="Of dense, instead of the model's own.")
    ] = None,
    leave_out: Annotated[
        str | None,
        typer.Option(help="Products that int8 leaves in fp32, of qkv,out,up,down; 0.down in one layer."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Export a model: a folder that every command takes as --model, and trichrome.load opens."""
    import trichrome
    from trichrome.encoder.export import LEAVE_OUT, export_onnx

    if leave_out is not None and precision != "int8":
        raise TrichromeError("--leave-out says what int8 leaves in fp32; give --precision int8 with it")
    kept = LEAVE_OUT if leave_out is None else tuple(name.strip() for name in leave_out.split(","))
    note(f"{model}: {format}, {precision}")
    encoder = trichrome.load(model, pooling=pooling, device="cpu", backend="torch")
    report = export_onnx(encoder, to, _PRECISIONS[precision], leave_out=kept)
    if as_json:
        print_json(report.to_json())
        return
    out.print(f"wrote       {report.folder}, {report.megabytes:,.1f} MB", markup=False, soft_wrap=True)
    out.print(f"dense       cosine with torch at least {report.dense:.6f}")
    if report.sparse is not None:
        out.print(f"sparse      weights within {report.sparse:.6f}")
    if report.multivector is not None:
        out.print(f"multivector cosine with torch at least {report.multivector:.6f}")
