"""The demo, with the built-in model on real catalogues: first run, second run, and what it leaves behind."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tiny import TEXTS, tiny_encoder
from trichrome.cli.demo import QUICK_LANGUAGES, EncodeOnce, demo
from trichrome.errors import TrichromeError

pytest.importorskip("django")


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders for the index and the caches; the first test fills them."""
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(autouse=True)
def _elsewhere(homes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRICHROME_HOME", str(homes / "home"))
    monkeypatch.setenv("TRICHROME_CACHE", str(homes / "cache"))


def test_the_figures_of_a_first_and_of_a_second_run(capsys: pytest.CaptureFixture[str]) -> None:
    figures: list[dict[str, Any]] = []
    for _ in range(2):
        demo(quick=True, queries=10, as_json=True)
        figures.append(json.loads(capsys.readouterr().out))
    first, second = figures
    assert first["languages"] == sorted(QUICK_LANGUAGES)
    assert first["encoded"] == first["documents"] > 400
    assert first["queries"] == 10
    assert second["encoded"] == 0
    assert second["means"] == first["means"]
    means = {system: values["nDCG@10"] for system, values in first["means"].items()}
    assert set(means) == {
        *("bm25-tokenizer", "bm25-words", "dense", "sparse", "multivector", "dense+sparse", "all")
    }
    # across languages: a model finds what shared words cannot
    assert means["all"] > 0.7
    assert means["all"] > means["bm25-words"]
    assert means["dense"] > means["sparse"]


def test_five_searches_and_the_table_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    demo(quick=True, queries=10)
    printed = capsys.readouterr().out
    assert printed.count(" search demo-quick ") == 6  # five examples, and what to do next
    assert " serve demo-quick" in printed
    assert printed.count("dense 0.") == 15  # three hits each, with their scores
    for system in ("bm25-tokenizer", "multivector", "dense+sparse", "Recall@100"):
        assert system in printed


def test_an_index_of_another_origin_is_not_overwritten(homes: Path) -> None:
    manifest = homes / "home" / "demo-quick" / "manifest.json"
    values = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**values, "settings": {}}))
    with pytest.raises(TrichromeError, match="did not make"):
        demo(quick=True, queries=10, as_json=True)
    manifest.write_text(json.dumps(values))


def test_a_text_is_encoded_once_a_kind() -> None:
    encoder = tiny_encoder()
    once = EncodeOnce(encoder)
    passages, query = once.encode(TEXTS), once.encode(TEXTS[:1], "query")
    del encoder.backend  # from here on it cannot encode
    again = once.encode(TEXTS[1:3])
    assert np.array_equal(again.dense, passages.dense[1:3])
    assert again.sparse_dicts() == passages.sparse_dicts()[1:3]
    assert np.array_equal(again.multivector.vectors, passages[1:3].multivector.vectors)
    assert np.array_equal(once.encode(TEXTS[:1], "query").dense, query.dense)
    with pytest.raises(AttributeError):
        once.encode(TEXTS[1:2], "query")
