"""Parts of model folders read with errors that say which file is wrong: JSON, tensors, tokenizers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from trichrome.errors import TrichromeError

_PROBE = "A text, ein Täxt, 一文。\U0001f642 123"


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. TrichromeError where it is absent or something else."""
    try:
        values = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise TrichromeError(f"{path} is missing: not a model folder") from None
    except (ValueError, RecursionError) as error:
        raise TrichromeError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise TrichromeError(f"{path}: a JSON object is needed, not a {type(values).__name__}")
    return values


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. TrichromeError where it is absent or damaged."""
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
        raise TrichromeError(f"{path}: not a whole safetensors file ({error}); copy it again") from None


def read_tokenizer(path: Path, rows: int | None) -> Tokenizer:
    """The tokenizer in a file; see `check_tokenizer`."""
    try:
        made = Tokenizer.from_file(str(path))
    except Exception as error:  # noqa: BLE001 - the library raises no class of its own
        raise TrichromeError(f"{path}: not a tokenizer ({error})") from None
    check_tokenizer(made, path, rows)
    return made


def check_tokenizer(tokenizer: Tokenizer, path: Path, rows: int | None) -> None:
    """TrichromeError unless it can cut texts, into ids below `rows` (of the table of words) where that is
    known."""
    try:
        tokenizer.encode(_PROBE)
    except Exception as error:  # noqa: BLE001 - the library raises no class of its own
        raise TrichromeError(f"{path}: not a tokenizer that can be used ({error})") from None
    most = max([tokenizer.get_vocab_size() - 1, *tokenizer.get_added_tokens_decoder()])
    if rows is not None and most >= rows:
        raise TrichromeError(f"{path}: the token id {most} is beyond the network's {rows} words")


@contextmanager
def placed(path: Path) -> Iterator[None]:
    """Say in what file the settings stand that a block finds wrong."""
    try:
        yield
    except TrichromeError as error:
        if str(path) in str(error):
            raise
        raise TrichromeError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise TrichromeError(f"{path}: missing or of another kind ({error!r})") from None
