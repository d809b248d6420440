"""The modes are the paper's, and wrong settings are refused in words."""

import pytest

from trichrome.errors import TrichromeError
from trichrome.search.modes import LONG_MODES, M3_MODES, MODE_NAMES, Mode, mode_named


def test_the_papers_depths_and_weights() -> None:
    assert MODE_NAMES == ("dense", "sparse", "multivector", "dense+sparse", "all")
    assert {m.name: (m.sources, m.depth, m.weights) for m in M3_MODES.values()} == {
        "dense": (("dense",), 1000, (1, 0, 0)),
        "sparse": (("sparse",), 1000, (0, 1, 0)),
        "multivector": (("dense",), 200, (0, 0, 1)),
        "dense+sparse": (("dense", "sparse"), 1000, (1, 0.3, 0)),
        "all": (("dense",), 200, (1, 0.3, 1)),
    }
    assert LONG_MODES["dense+sparse"].weights == (0.2, 0.8, 0)
    assert LONG_MODES["all"].weights == (0.15, 0.5, 0.35)


def test_a_mode_can_be_changed() -> None:
    mode = mode_named("all", weights=(1, 2, 3), depth=7, candidates="union")
    assert mode == Mode("all", ("dense", "sparse"), 7, (1, 2, 3))
    assert mode_named("all", preset="long") == LONG_MODES["all"]
    assert M3_MODES["sparse"].needed == ("sparse",)
    assert M3_MODES["multivector"].signals == ("multivector",)
    assert M3_MODES["multivector"].needed == ("dense", "multivector")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "colbert"}, "unknown mode 'colbert'; there are dense, sparse"),
        ({"name": "all", "preset": "short"}, "unknown preset"),
        ({"name": "all", "candidates": "both"}, "unknown candidates"),
        ({"name": "all", "weights": (1, 2)}, "three weights"),
        ({"name": "all", "weights": (0, 0, 0)}, "not all 0"),
        ({"name": "all", "weights": (1, -1, 0)}, "weight ≥ 0"),
        ({"name": "all", "depth": 0}, "at least 1"),
    ],
)
def test_wrong_settings_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(TrichromeError, match=message):
        mode_named(**arguments)
