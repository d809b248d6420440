"""How hits are drawn: bars, words, snippets."""

from __future__ import annotations

import pytest

from trichrome.cli.hits import BAR, SNIPPET, _bar, snippet, word_around


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
    shown = snippet(text, [((start, start + 6), "sparse")])
    assert len(shown) <= SNIPPET + 2
    assert shown.plain.startswith("…")
    assert shown.plain.endswith("…")
    (span,) = shown.spans
    assert shown.plain[span.start : span.end] == "answer"


def test_a_short_text_is_shown_whole_on_one_line():
    shown = snippet("one\ntwo\tthree\x1b[31m", [])
    assert shown.plain == "one two three [31m"
