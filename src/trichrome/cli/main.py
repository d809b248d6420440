"""`trichrome`: the commands put together, and the one place where errors become a line and an exit code."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import trichrome
from trichrome.cli.cluster import cluster
from trichrome.cli.console import FAILED, INTERRUPTED, Stopped, complain, debugging, describe, err, out
from trichrome.cli.copy import copy
from trichrome.cli.demo import demo
from trichrome.cli.encode import encode
from trichrome.cli.evaluate import evaluate
from trichrome.cli.export import export
from trichrome.cli.index import index
from trichrome.cli.info import info
from trichrome.cli.mine import mine
from trichrome.cli.papers import papers
from trichrome.cli.score import score
from trichrome.cli.search import search
from trichrome.cli.serve import serve
from trichrome.cli.train import train


class Commands(TyperGroup):
    """typer's group, which turns what a command raises into one line on stderr."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Stopped as stopped:
            err.print(str(stopped), markup=False, soft_wrap=True)
            raise typer.Exit(INTERRUPTED) from None
        except KeyboardInterrupt:
            err.print("stopped")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            raise  # the reader of our output went away: typer ends quietly
        except (ValueError, TypeError, OSError, ImportError, ArithmeticError, LookupError, RuntimeError) as e:
            if debugging() or isinstance(e, (typer.Exit, typer.Abort)):
                raise
            complain(describe(e))
            raise typer.Exit(FAILED) from None


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="One encoder, three signals: dense, sparse and multi-vector retrieval in 100+ languages.",
    epilog="Indexes lie in $TRICHROME_HOME (~/.local/share/trichrome); a NAME with a slash is a path.",
)
app.command(no_args_is_help=True)(index)
app.command(no_args_is_help=True)(search)
app.command(no_args_is_help=True)(copy)
app.command(no_args_is_help=True)(encode)
app.command("eval", no_args_is_help=True)(evaluate)
app.command(no_args_is_help=True)(mine)
app.command(no_args_is_help=True)(score)
app.command(no_args_is_help=True)(train)
app.command(no_args_is_help=True)(export)
app.add_typer(cluster, name="cluster")
app.add_typer(papers, name="papers")
app.command()(serve)
app.command()(info)
app.command()(demo)


def _version(wanted: bool) -> None:
    if wanted:
        out.print(trichrome.__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """What stands before a command."""


if __name__ == "__main__":
    app()
