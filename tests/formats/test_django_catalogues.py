"""Django's catalogues: made up ones for the rules, the installed ones for the truth."""

import gettext
import struct
from pathlib import Path

import pytest

from trichrome.errors import TrichromeError
from trichrome.formats.django_catalogues import SHORTEST, read_catalogues, read_mo

LONG = "This message is long enough to be searched for."
OTHER = "Another message that is also long enough."


def write_mo(path: Path, entries: dict[str, str], order: str = "<") -> None:
    """A compiled catalogue, laid out by the manual: header, two tables, texts."""
    rows = [(k.encode(), v.encode()) for k, v in sorted({"": "Language: xx\n", **entries}.items())]
    at = 28 + 16 * len(rows)
    tables, texts = [b"", b""], b""
    for column in (0, 1):
        for row in rows:
            tables[column] += struct.pack(f"{order}2I", len(row[column]), at + len(texts))
            texts += row[column] + b"\0"
    head = struct.pack(f"{order}7I", 0x950412DE, 0, len(rows), 28, 28 + 8 * len(rows), 0, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + tables[0] + tables[1] + texts)


def main_file(root: Path, lang: str) -> Path:
    return root / "conf/locale" / lang / "LC_MESSAGES/django.mo"


def admin_file(root: Path, lang: str) -> Path:
    return root / "contrib/admin/locale" / lang / "LC_MESSAGES/django.mo"


def test_what_is_left_out_is_counted_by_reason(tmp_path: Path) -> None:
    plural = "%(n)d thing is not available at present.\0%(n)d things are not available at present."
    write_mo(
        main_file(tmp_path, "xx"),
        {LONG: "xx eins", OTHER: OTHER, "Yes": "xx ja", plural: "xx ein Ding\0xx Dinge"},
    )
    write_mo(admin_file(tmp_path, "xx"), {f"menu\x04{LONG}": "xx noch einmal", OTHER: "xx zwei"}, order=">")
    write_mo(main_file(tmp_path, "en_GB"), {LONG: "This message is lengthy enough to be searched for."})
    got = read_catalogues(root=tmp_path)
    assert [(d.text, d.lang, d.metadata["catalogue"]) for d in got.documents] == [
        ("xx ein Ding", "xx", "conf"),
        ("xx eins", "xx", "conf"),
        ("xx zwei", "xx", "contrib.admin"),
    ]
    assert got.report.read == 3
    assert {reason: len(places) for reason, places in got.report.skipped.items()} == {
        f"shorter than {SHORTEST} characters": 1,
        "untranslated": 1,
        "repeated": 1,
    }
    assert {q.text for q in got.queries} == {LONG, OTHER, "%(n)d thing is not available at present."}
    assert all(q.lang == "en" for q in got.queries)


def test_translations_are_relevant_and_so_are_equal_texts_of_the_same_language(tmp_path: Path) -> None:
    write_mo(main_file(tmp_path, "xx"), {LONG: "same", OTHER: "same"})
    write_mo(main_file(tmp_path, "yy"), {LONG: "same", OTHER: "different"})
    got = read_catalogues(root=tmp_path)
    ids = {q.text: q.id for q in got.queries}
    long, other = ids[LONG], ids[OTHER]
    assert got.qrels == {
        long: {f"xx:{long}": 1, f"xx:{other}": 1, f"yy:{long}": 1},
        other: {f"xx:{long}": 1, f"xx:{other}": 1, f"yy:{other}": 1},
    }


def test_bad_input_is_one_clear_error(tmp_path: Path) -> None:
    file = main_file(tmp_path, "xx")
    write_mo(file, {LONG: "xx eins"})
    with pytest.raises(TrichromeError, match=r"no catalogue of the language 'zz'; there are xx"):
        read_catalogues(["zz"], root=tmp_path)
    whole = file.read_bytes()
    for damage, wrong in (
        (whole[:60], "damaged"),
        (b"", "damaged"),
        (b"no catalogue at all, but text", "not a compiled gettext catalogue"),
        (whole.replace(b"xx eins", b"xx \xff\xff\xff\xff"), "damaged"),
    ):
        file.write_bytes(damage)
        with pytest.raises(TrichromeError, match=rf"django\.mo: .*{wrong}"):
            read_catalogues(root=tmp_path)
    with pytest.raises(TrichromeError, match="no translation catalogues"):
        read_catalogues(root=tmp_path / "elsewhere")


def test_the_installed_catalogues_agree_with_gettext() -> None:
    django = pytest.importorskip("django")
    root = Path(django.__file__).parent
    for path in (main_file(root, "ja"), main_file(root, "vi"), admin_file(root, "de")):
        with path.open("rb") as file:
            theirs = gettext.GNUTranslations(file)
        ours: dict[str, set[str]] = {}  # a message may stand there in several contexts
        for message, translation in read_mo(path):
            ours.setdefault(message, set()).add(translation)
        found = {message: theirs.gettext(message) for message in ours}
        assert all(found[m] in ours[m] for m in ours if found[m] != m)
        assert sum(found[m] != m for m in ours) > 40


def test_the_installed_catalogues_hold_many_languages() -> None:
    pytest.importorskip("django")
    every = read_catalogues()
    assert len(every.documents) > 10_000
    assert len({d.lang for d in every.documents}) > 80
    assert len({d.id for d in every.documents}) == len(every.documents)
    some = read_catalogues(["ja", "he"])
    assert {d.lang for d in some.documents} == {"ja", "he"}
    assert set(some.qrels) == {q.id for q in some.queries}
    assert {d.id for d in some.documents} == {id for grades in some.qrels.values() for id in grades}
    texts = {d.id: d.text for d in some.documents}
    password = next(q for q in some.queries if q.text.startswith("Your password can’t be entirely numeric"))
    assert "数字" in texts[f"ja:{password.id}"]
