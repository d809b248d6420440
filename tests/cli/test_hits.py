"""How hits are drawn: bars, words, snippets."""

from __future__ import annotations

import pytest
from rich.text import Text

from trichrome.cli.hits import BAR, SNIPPET, _bar, highlights, isolated, snippet, word_around
from trichrome.search.explain import Explanation, SharedToken, TokenMatch


@pytest.mark.parametrize("share", [-1.0, 0.0, 0.01, 0.5, 0.99, 1.0, 7.0])
def test_bars_have_one_width(share: float):
    assert len(_bar(share)) == BAR


def test_bars_grow():
    assert (_bar(0.0), _bar(0.5), _bar(1.0)) == ("·" * BAR, "█" * 4 + "·" * 4, "█" * BAR)


@pytest.mark.parametrize(
    ("text", "piece", "word"),
    [
        ("the passwords differ", "word", "passwords"),
        ("the passwords differ", " pass", "passwords"),
        ("คุณต้องใส่รหัสผ่าน", "รหัส", "รหัส"),
        ("パスワードを入力", "パス", "パス"),
        ("пароль слишком простой", "ишк", "слишком"),
        ("कृपया पासवर्ड डालें", "पास", "पासवर्ड"),
        ("비밀번호를 입력", "번호", "비밀번호를"),
        ("%(name)s is taken", "name", "name"),
    ],
)
def test_words_are_whole_where_spaces_part_them(text: str, piece: str, word: str):
    start = text.index(piece)
    assert text[slice(*word_around(text, (start, start + len(piece))))] == word


def test_a_snippet_shows_what_is_highlighted():
    text = "filler words " * 200 + "the answer stands here " + "more filler " * 200
    start = text.index("answer")
    shown = snippet(text, [((start, start + 6), "bold yellow")])
    assert len(shown) <= SNIPPET + 2
    assert shown.plain.startswith("…")
    assert shown.plain.endswith("…")
    (span,) = shown.spans
    assert shown.plain[span.start : span.end] == "answer"


def test_a_short_text_is_shown_whole_on_one_line():
    shown = snippet("one\ntwo\tthree\x1b[31m", [])
    assert shown.plain == "one two three [31m"


def test_what_adds_more_to_the_score_is_brighter():
    text = "night trains carry a dog"
    shared = tuple(
        SharedToken(i, word, 1.0, part, part, ((0, 1),), ((text.index(word), text.index(word) + len(word)),))
        for i, (word, part) in enumerate((("night", 0.9), ("trains", 0.5), ("dog", 0.1)))
    )
    match = TokenMatch("haul", (0, 4), "carry", (13, 18), 0.9)
    marks = highlights("haul", text, Explanation(shared, (match,), 1.5, 0.9))
    assert {text[slice(*span)]: style for span, style in marks} == {
        "night": "bold black on yellow",
        "trains": "bold yellow",
        "carry": "underline green",
        "dog": "yellow",
    }


@pytest.mark.parametrize("text", ["שלום 21:40 Wien", "مرحبا"])
def test_text_from_right_to_left_is_isolated(text: str):
    shown = isolated(Text(text, "bold"))
    assert shown.plain == f"\u2068{text}\u2069"


def test_other_text_stays_as_it_is():
    assert isolated(Text("夜行列車 café 12")).plain == "夜行列車 café 12"
