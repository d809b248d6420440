"""Cutting documents into passages."""

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trichrome.errors import TrichromeError
from trichrome.formats.passages import Offsets, cut_document, cut_documents
from trichrome.records import Document

Spans = list[tuple[int, int]]


def words(text: str) -> Spans:
    return [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]


def words_with_space(text: str) -> Spans:
    return [match.span() for match in re.finditer(r"\s?\w+|\s|[^\w\s]", text)]


def characters(text: str) -> Spans:
    return [(i, i + 1) for i in range(len(text))]


def utf8_bytes(text: str) -> Spans:
    return [(i, i + 1) for i, character in enumerate(text) for _ in character.encode("utf-8", "replace")]


def letters_only(text: str) -> Spans:
    """A tokenizer that drops what it does not know."""
    return [match.span() for match in re.finditer(r"[a-y]", text)]


tokenizers = st.sampled_from([words, words_with_space, characters, utf8_bytes, letters_only])
texts = st.text(st.sampled_from("abcz 。.!\n\t字ไé😀'"), max_size=120) | st.text(
    st.characters(exclude_categories=("Cs",)), max_size=80
)


@settings(max_examples=300, deadline=None)
@given(texts, tokenizers, st.integers(1, 12), st.integers(0, 6), st.sampled_from(["", "A title"]))
def test_passages_cover_the_text_in_order(
    text: str, offsets: Offsets, max_tokens: int, overlap: int, title: str
) -> None:
    overlap = min(overlap, max_tokens // 2)
    document = Document("d", text, title, "xx", {"year": 1})
    passages = cut_document(document, offsets, max_tokens=max_tokens, overlap=overlap)
    spans = [(passage.metadata["start"], passage.metadata["end"]) for passage in passages]

    covered = {i for start, end in spans for i in range(start, end)}  # type: ignore[arg-type]
    assert covered >= {i for i, character in enumerate(text) if not character.isspace()}
    assert all(a < c and b < d for (a, b), (c, d) in pairwise(spans))  # type: ignore[operator]
    for passage, (start, end) in zip(passages, spans, strict=True):
        assert passage.text == text[start:end]  # type: ignore[misc]
        assert (passage.title, passage.lang) == (title, "xx")
        assert (passage.metadata["document"], passage.metadata["year"]) == ("d", 1)
    if len(passages) == 1 and passages[0].id == "d":
        assert spans == [(0, len(text))]
    else:
        assert [passage.id for passage in passages] == [f"d#{k}" for k in range(len(passages))]

    # No passage holds more tokens than allowed, unless a single character does.
    room = max(max_tokens - (len(offsets(title)) + 1 if title else 0), (max_tokens + 1) // 2)
    for start, end in spans:
        tokens = [span for span in offsets(text) if span[0] >= start and span[1] <= end]  # type: ignore[operator]
        assert len(tokens) <= room or len({span[0] for span in tokens}) == 1


def cut(text: str, offsets: Offsets = words, **settings: int) -> list[str]:
    return [passage.text for passage in cut_document(Document("d", text), offsets, **settings)]


def test_ends_are_chosen_in_the_last_quarter() -> None:
    assert cut("a b c d e f. g h i", max_tokens=8) == ["a b c d e f.", "g h i"]
    assert cut("a b c d e\n\nf. g h i", max_tokens=8) == ["a b c d e\n\nf.", "g h i"]  # too early: < 3/4
    assert cut("a b c d e f\n\ng. h i", max_tokens=8) == [
        "a b c d e f",
        "g. h i",
    ]  # paragraph before sentence
    assert cut("a b c d e f\ng h i", max_tokens=8) == ["a b c d e f", "g h i"]
    assert cut('a b c d "e." f g h i', max_tokens=8) == ['a b c d "e."', "f g h i"]
    assert cut("3.14159 2.71828 1.61803", characters, max_tokens=16) == ["3.14159 2.71828", "1.61803"]


def test_scripts_without_spaces() -> None:
    assert cut("小船浮在水上。大船也浮在水上。", characters, max_tokens=9) == [
        "小船浮在水上。",
        "大船也浮在水上。",
    ]
    thai = "เรือลอยน้ำ" * 3
    passages = cut(thai, characters, max_tokens=8)
    assert "".join(passages) == thai
    assert max(map(len, passages)) == 8


def test_overlap() -> None:
    text = " ".join(f"w{i}" for i in range(20))
    passages = cut(text, max_tokens=8, overlap=3)
    assert passages[0] == "w0 w1 w2 w3 w4 w5 w6 w7"
    assert passages[1].startswith("w5 w6 w7 w8")
    assert passages[-1].endswith("w19")


def test_characters_are_never_cut_in_two() -> None:
    assert cut("船船船", utf8_bytes, max_tokens=4) == ["船", "船", "船"]
    assert cut("船船船", utf8_bytes, max_tokens=1) == ["船", "船", "船"]  # a character of three tokens


def test_the_title_counts() -> None:
    document = Document("d", "a b c d e f", title="one two three")
    assert [p.text for p in cut_document(document, words, max_tokens=8)] == ["a b c d", "e f"]
    assert len(cut_document(document, words, max_tokens=10)) == 1


def test_short_and_empty_documents_stay_whole() -> None:
    given = [Document("a", ""), Document("b", " \n"), Document("c", " one two ")]
    passages = list(cut_documents(given, words, max_tokens=2))
    assert [(p.id, p.text) for p in passages] == [("a", ""), ("b", " \n"), ("c", " one two ")]
    assert passages[2].metadata == {"document": "c", "start": 0, "end": 9}


def test_metadata_of_the_same_name_is_kept() -> None:
    (passage,) = cut_document(Document("d", "x", metadata={"start": "May"}), words, max_tokens=9)
    assert passage.metadata == {"start": 0, "end": 1, "document": "d", "original_start": "May"}


@pytest.mark.parametrize(
    "text", ["word. " * 170_000, "水" * 1_000_000, " " * 1_000_000 + "x", "." * 1_000_000]
)
def test_a_megabyte_is_cut(text: str) -> None:
    """Anything but linear would not come back."""
    passages = cut_document(Document("d", text), characters, max_tokens=512, overlap=64)
    assert passages[0].metadata["start"] == len(text) - len(text.lstrip())
    assert passages[-1].metadata["end"] == len(text.rstrip())


def test_settings_that_make_no_sense() -> None:
    document = Document("d", "a b c d")
    for settings_, what in [
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"max_tokens": 4, "overlap": 3}, "overlap is 3: it must lie from 0 to 2"),
        ({"max_tokens": 4, "overlap": -1}, "overlap is -1"),
    ]:
        with pytest.raises(TrichromeError, match=what):
            cut_document(document, words, **settings_)
    with pytest.raises(TrichromeError, match="'d': the tokens' offsets run backwards"):
        cut_document(document, lambda text: [(2, 3), (0, 1)], max_tokens=1)
