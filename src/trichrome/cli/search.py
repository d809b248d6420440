"""`trichrome search`: one question to an index."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from trichrome.cli.console import counting_cuts, note, print_json
from trichrome.cli.hits import print_hits
from trichrome.cli.settings import FeedbackOption, JsonOption, ReviserOption, existing_store, open_model
from trichrome.errors import TrichromeError

if TYPE_CHECKING:
    from trichrome.embeddings import Embedding
    from trichrome.records import JSON
    from trichrome.search import Feedback, Hit, Searcher

#: search.MODE_NAMES, written out: importing them would make `--help` wait.
ModeName: TypeAlias = Literal["dense", "sparse", "multivector", "dense+sparse", "all"]

_BOUNDS = {">=": "gte", ">": "gt", "<=": "lte", "<": "lt"}
_CONDITION = re.compile(r"([^=<>]+)(>=|<=|>|<|=)(.*)", re.DOTALL)


def search(
    name: Annotated[str, typer.Argument(help="The index, a path with a slash, or a URL.")],
    query: Annotated[str, typer.Argument(help="What to search for, in any language.")],
    mode: Annotated[ModeName, typer.Option(help="Which scores rank.")] = "all",
    k: Annotated[int, typer.Option("-k", min=1, help="How many hits.")] = 5,
    where: Annotated[
        list[str] | None,
        typer.Option("--filter", help="lang=ja or year>=2020; several must all hold."),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Of dense, sparse and multivector: 1,0.3,1 by default.")
    ] = None,
    depth: Annotated[
        int | None, typer.Option(min=1, help="Candidates from each first-stage list: 200 by default.")
    ] = None,
    fusion: Annotated[
        Literal["weighted", "rrf"], typer.Option(help="Sum of scores, or of ranks.")
    ] = "weighted",
    preset: Annotated[
        Literal["m3", "long"], typer.Option(help="The paper's weights, for passages or long documents.")
    ] = "m3",
    feedback: FeedbackOption = 0,
    reviser: ReviserOption = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show which tokens made the scores.")] = False,
    model: Annotated[str | None, typer.Option("--model", "-m", help="If the index's was moved.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Search an index by meaning, by words, by tokens, or by all three.

    In the text: yellow, words shared with the query, the brighter the more they add to the sparse score;
    green and underlined, the nearest neighbours of the query's tokens (multi-vector).
    """
    place = existing_store(name)
    filters = conditions(where or [])
    wanted = three_weights(weights)
    twice = feedback_of(feedback, reviser)
    from trichrome.index import open_store, read_manifest
    from trichrome.search import Searcher

    settings = read_manifest(place).settings
    encoder = open_model(model or str(settings.get("model", "small")), str(settings.get("dtype", "auto")))
    with open_store(place) as store, counting_cuts() as cut:
        searcher: Searcher = Searcher(encoder, store)
        encoded = searcher.encode(query)
        hits = searcher.search(
            encoded, mode, k, filters, wanted, depth, fusion, preset=preset, feedback=twice
        )
        if cut():
            note(f"the query is longer than the {encoder.config.max_tokens} tokens that the model reads: cut")
        if as_json:
            print_json([hit_json(searcher, query, encoded, hit, explain) for hit in hits])
        else:
            print_hits(searcher, query, encoded, hits, explain)


def conditions(pairs: list[str]) -> dict[str, JSON] | None:
    """key=value pairs and bounds (year>=2020, year<2024) as a filter; bounds of one key make one range.

    A value that is a JSON number, boolean, list or object counts as that (year=2024, lang=["ja","ko"]),
    anything else as a string.
    """
    found: dict[str, JSON] = {}
    for pair in pairs:
        parts = _CONDITION.fullmatch(pair)
        if parts is None:
            raise TrichromeError(f"--filter {pair!r}: write key=value, such as lang=ja, or year>=2020")
        key, sign, text = parts.groups()
        value: JSON
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        if sign in _BOUNDS:
            if not isinstance(value, (int, float)) or isinstance(value, bool):
                raise TrichromeError(f"--filter {pair!r}: {sign} compares with a number, not with {text!r}")
            known = found.setdefault(key, {})
            if isinstance(known, dict) and _BOUNDS[sign] not in known:
                known[_BOUNDS[sign]] = value
                continue
        if key in found:
            raise TrichromeError(f'--filter {key!r} is given twice; for any of several write {key}=["a","b"]')
        found[key] = value
    return found or None


def feedback_of(documents: int, reviser: Path | None) -> Feedback | None:
    """What --feedback and --reviser ask for."""
    if documents == 0:
        if reviser is not None:
            raise TrichromeError("--reviser goes with --feedback: say how many documents, such as 5")
        return None
    from trichrome.search import Feedback, Rocchio
    from trichrome.search.revisers import LearnedReviser

    return Feedback(Rocchio() if reviser is None else LearnedReviser.load(reviser), documents)


def three_weights(text: str | None) -> list[float] | None:
    """ "1,0.3,1" as numbers."""
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise TrichromeError(f"--weights {text!r}: write three numbers, such as 1,0.3,1") from None


def hit_json(searcher: Searcher, query: str, encoded: Embedding, hit: Hit, explain: bool) -> dict[str, Any]:
    """A hit as JSON values."""
    payload = {key: value for key, value in hit.payload.items() if key != "_hash"}
    scores = {"score": hit.score, "dense": hit.dense, "sparse": hit.sparse, "multivector": hit.multivector}
    found: dict[str, Any] = {"id": hit.id, **scores, "payload": payload}
    if explain:
        found["explanation"] = asdict(searcher.explain(query, hit, encoded))
    return found
