"""Plain documents: folders of text, Markdown, HTML, PDF and manual pages; and telling formats apart."""

import gzip
import io
import json
import os
import shutil
from pathlib import Path

import pypdf
import pytest

from trichrome.errors import TrichromeError
from trichrome.formats import files, man, markup, read_documents
from trichrome.records import Document

PAGE = r""".\" a comment
.TH FLOAT 1 "2026-01-01" "boats 1.0" "User Commands"
.SH NAME
float \- keep a \fBboat\fR above the water
.SH DESCRIPTION
The command keeps a boat, or a très petit bateau, or 船, afloat for as long as nobody drills a hole into it.
.TP
.B \-\-slowly
Let it sink a little.
"""


def pdf_file(text: str) -> bytes:
    """A PDF of one page, written by hand; `text` is ASCII without parentheses."""
    stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET"
    parts = [
        "<</Type/Catalog/Pages 2 0 R>>",
        "<</Type/Pages/Kids[3 0 R]/Count 1>>",
        "<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        f"<</Length {len(stream)}>>stream\n{stream}\nendstream",
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        "<</Title(On Boats)>>",
    ]
    out, places = "%PDF-1.4\n", []
    for number, part in enumerate(parts, 1):
        places.append(len(out))
        out += f"{number} 0 obj{part}endobj\n"
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    end = f"trailer<</Size 7/Root 1 0 R/Info 6 0 R>>\nstartxref\n{len(out)}\n%%EOF\n"
    return (out + f"xref\n0 7\n0000000000 65535 f \n{table}{end}").encode()


def encrypted(data: bytes, password: str) -> bytes:
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(data))
    writer.encrypt(user_password=password, owner_password="owner", algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def put(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_a_folder_is_read_whole_and_what_is_not_is_counted(tmp_path: Path) -> None:
    put(tmp_path / "notes.txt", "Über Boote\n")
    put(tmp_path / "sub" / "deep" / "guide.md", "Intro\n\n# How to float #\n\nBe light.\n")
    put(
        tmp_path / "sub" / "page.html",
        "<title>A &amp; B</title><p>One <b>two</b><p>three<script>x()</script>",
    )
    put(tmp_path / "sub" / "paper.pdf", pdf_file("Boats float."))
    put(tmp_path / "packed.txt.gz", gzip.compress(b"packed words"))
    put(tmp_path / ".git" / "config.txt", "hidden")
    put(tmp_path / ".hidden.txt", "hidden")
    put(tmp_path / "photo.jpg", b"\xff\xd8")
    put(tmp_path / "table.csv", "a,b")
    put(tmp_path / "libboat.so.6", b"\x7fELF\0")
    put(tmp_path / "release-1.2", "not a manual page")
    put(tmp_path / "program.txt", b"\x7fELF\0\0")
    put(tmp_path / "empty.txt", " \n")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")

    source = read_documents(tmp_path)
    assert source.format == "files"
    assert {document.id: (document.title, document.text) for document in source} == {
        "notes.txt": ("", "Über Boote\n"),
        "packed.txt.gz": ("", "packed words"),
        "sub/deep/guide.md": ("How to float", "Intro\n\n# How to float #\n\nBe light.\n"),
        "sub/page.html": ("A & B", "One two\nthree"),
        "sub/paper.pdf": ("On Boats", "Boats float."),
    }
    assert source.report.read == 5
    assert source.report.skipped == {
        "hidden": [".git/", ".hidden.txt"],
        "no text": ["empty.txt"],
        "broken link": ["gone.txt"],
        "binary": ["libboat.so.6", "program.txt"],
        "link to a folder": ["loop/"],
        "unknown suffix": ["photo.jpg", "release-1.2", "table.csv"],
    }
    assert source.report.summary().startswith("5 read, 10 skipped: 3 unknown suffix (photo.jpg, …); 2 hidden")
    assert next(iter(source)).metadata == {"path": "notes.txt", "format": "txt"}
    assert [d.metadata for d in source if d.id.endswith("pdf")] == [
        {"path": "sub/paper.pdf", "format": "pdf", "pages": 1}
    ]


def test_a_single_file(tmp_path: Path) -> None:
    path = put(tmp_path / "note.txt", b"\xef\xbb\xbfwith a byte order mark")
    assert list(read_documents(path)) == [
        Document("note.txt", "with a byte order mark", metadata={"path": "note.txt", "format": "txt"})
    ]
    utf16 = put(tmp_path / "utf16.txt", "шлюпка".encode("utf-16"))
    assert next(iter(read_documents(utf16))).text == "шлюпка"
    for name, content, what in [
        ("table.csv", "a,b", "no known kind of document; give txt, md"),
        ("empty.txt", "", "no text; "),
        ("image.txt", b"\0\1", "binary; "),
    ]:
        with pytest.raises(TrichromeError, match=f"{name}: {what}"):
            list(read_documents(put(tmp_path / name, content)))


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.txt", b"good \xc3\x28 bad", "invalid UTF-8: byte 0xc3 at byte offset 5; "),
        ("b.txt", b"\xef\xbb\xbfgood \xff", "invalid UTF-8: byte 0xff at byte offset 8; "),
        ("c.html", b"<meta charset='klingon'><p>x", "unknown charset 'klingon'; "),
        (
            "d.html",
            b"<meta charset=shift_jis><p>\xff\xff",
            r"invalid shift_jis: byte 0xff at byte offset 27; ",
        ),
        ("e.txt.gz", gzip.compress(b"many words " * 99)[:-12], "the gzip file is cut or damaged; "),
        ("f.pdf", b"%PDF-1.4 and nothing more", r"the PDF is damaged \("),
        ("g.pdf", pdf_file("x")[:200], r"the PDF is damaged \("),
        ("h.pdf", encrypted(pdf_file("secret"), "key"), "the PDF is encrypted: it needs a password; "),
    ],
)
def test_bad_files_are_errors_or_counted(tmp_path: Path, name: str, content: bytes, what: str) -> None:
    path = put(tmp_path / name, content)
    put(tmp_path / "z.txt", "fine")
    with pytest.raises(TrichromeError, match=what) as caught:
        list(read_documents(tmp_path))
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)

    source = read_documents(tmp_path, skip_bad=True)
    assert [document.id for document in source] == ["z.txt"]
    assert list(source.report.skipped.values()) == [[name]]


def test_a_pdf_encrypted_without_a_password_is_read(tmp_path: Path) -> None:
    path = put(tmp_path / "open.pdf", encrypted(pdf_file("For all to read."), ""))
    assert [document.text for document in read_documents(path)] == ["For all to read."]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions don't bind this user")
def test_unreadable_files(tmp_path: Path) -> None:
    put(tmp_path / "locked.txt", "x").chmod(0)
    with pytest.raises(TrichromeError, match=r"locked\.txt: can't be read \(Permission denied\)"):
        list(read_documents(tmp_path))


def test_a_long_text_file(tmp_path: Path) -> None:
    text = "ยาวมาก" * 60_000  # > 1 MB in UTF-8, no white space
    assert next(iter(read_documents(put(tmp_path / "long.txt", text)))).text == text


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# Boats\ntext", "Boats"),
        ("text\n\nBoats\n=====\n", "Boats"),
        ("---\ntitle: 'On boats'\nyear: 1\n---\n# Other", "On boats"),
        ("---\nyear: 1\n---\n# Boats", "Boats"),
        ("```sh\n# a comment\n```\n## Boats ##", "Boats"),
        ("- item\n---\ntext #no heading\n#neither", ""),
        ("", ""),
    ],
)
def test_markdown_titles(text: str, title: str) -> None:
    assert markup.markdown_title(text) == title


def test_html_blocks() -> None:
    page = """<html><head><title> Two
        words </title><style>p {}</style></head><body><nav>Home</nav><h1>Boats</h1>
        <p>They <em>fl</em>oat<br>and   sink.</p><ul><li>one<li>two</ul>
        <pre>  if x:
    y</pre><table><tr><td>a<td>b
<tr><td>c</table>end &lt;b&gt;<!-- no --><script>no()</script></body></html>"""
    assert markup.html_text(page) == (
        "Boats\nThey float\nand sink.\none\ntwo\n  if x:\n    y\na b\nc\nend <b>",
        "Two words",
    )
    assert markup.html_text("<p>x<h1>Head</h1>") == ("x\nHead", "Head")
    deep = "<div>" * 3000 + "deep" + "</div>" * 3000
    assert markup.html_text(deep) == ("deep", "")


def test_html_charsets(tmp_path: Path) -> None:
    page = "<meta charset=windows-1251><p>лодка"
    assert next(iter(read_documents(put(tmp_path / "a.html", page.encode("cp1251"))))).text == "лодка"


needs_renderer = pytest.mark.skipif(
    not any(shutil.which(name) for name in ("mandoc", "groff", "man")), reason="no mandoc, groff or man here"
)


@needs_renderer
def test_manual_pages(tmp_path: Path) -> None:
    put(tmp_path / "man1" / "float.1", PAGE)
    put(tmp_path / "man1" / "sink.1p.gz", gzip.compress(PAGE.replace("float", "sink").encode()))
    put(tmp_path / "man1" / "alias.1", ".so man1/float.1\n")
    source = read_documents(tmp_path)
    page, other = source
    assert page.title == "float - keep a boat above the water"
    assert page.metadata == {"path": "man1/float.1", "format": "man"}
    assert page.text.startswith(
        "NAME\nfloat - keep a boat above the water\n\nDESCRIPTION\nThe command keeps a boat,"
    )
    assert "très petit bateau, or 船, afloat" in page.text
    assert page.text.rstrip().endswith("Let it sink a little.")  # neither header nor footer
    assert "2026" not in page.text
    assert other.title == "sink - keep a boat above the water"
    assert source.report.skipped == {"manual page that is a link to another": ["man1/alias.1"]}


def test_no_renderer_for_manual_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path / "float.1", PAGE)
    monkeypatch.setenv("PATH", str(tmp_path))
    man.find_renderer.cache_clear()
    try:
        with pytest.raises(
            TrichromeError, match=r"no program to render manual pages; install one: `apt install"
        ):
            list(read_documents(path))
        source = read_documents(path, skip_bad=True)
        assert list(source) == []
        assert source.report.skipped == {"no program to render manual pages": ["float.1"]}
    finally:
        man.find_renderer.cache_clear()


def test_suffixes() -> None:
    known = {
        "a.TXT": "txt",
        "a.markdown": "md",
        "a.htm": "html",
        "ls.1": "man",
        "x.3pm.gz": "man",
        "a.md.gz": "md",
    }
    assert {name: files.format_of(name) for name in known} == known
    assert [files.format_of(name) for name in ("a.gz", "a", "a.10", "a.0", "txt")] == [None] * 5


# Telling formats apart

ROW = '{"id": "a", "text": "b"}'


@pytest.mark.parametrize(
    ("name", "content", "format"),
    [
        ("rows.jsonl", ROW, "jsonl"),
        ("rows.txt", ROW, "jsonl"),
        ("rows", "\n" + ROW, "jsonl"),
        ("rows.json", ROW + "\n" + ROW, "jsonl"),
        ("rows.jsonl", '{"cut', "jsonl"),
        ("rows.jsonl", "no JSON at all", "jsonl"),
        ("rows.jsonl", '{"docid": "a", "text": "b"}', "miracl"),
        ("rows.jsonl", "<DOC>\n<DOCNO>1", "trec"),
        ("dev.jsonl", '{"data": [], "version": "1"}', "squad"),
        ("code.txt", "{\n  return 1;\n}", "files"),
        ("list.md", "[a link](there)", "files"),
        ("config.md", '{"key": 1}', "files"),
        ("page.html", "<!DOCTYPE html><p>x", "files"),
        ("long.jsonl", json.dumps({"id": "a", "text": "w " * 300_000}), "jsonl"),
    ],
)
def test_formats_are_told_by_content(tmp_path: Path, name: str, content: str, format: str) -> None:
    assert read_documents(put(tmp_path / name, content)).format == format


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        (
            "train.jsonl",
            '{"query": "q", "pos": ["p"]}',
            r"training rows, .* trichrome\.formats\.flagembedding",
        ),
        ("rows.json", '[{"id": "a"}]', r"a JSON array, .*one object a line"),
        ("rows.json", '{\n "id": "a"\n}', "neither JSONL nor SQuAD"),
    ],
)
def test_what_holds_no_documents_is_refused(tmp_path: Path, name: str, content: str, what: str) -> None:
    with pytest.raises(TrichromeError, match=what):
        read_documents(put(tmp_path / name, content))


def test_folders_are_told_by_content(tmp_path: Path) -> None:
    put(tmp_path / "parts" / "b.jsonl", ROW)
    put(tmp_path / "parts" / "a.jsonl", ROW.replace('"a"', '"first"'))
    source = read_documents(tmp_path / "parts")
    assert (source.format, [document.id for document in source]) == ("jsonl", ["first", "a"])
    put(tmp_path / "parts" / "notes.txt", "words")
    source = read_documents(tmp_path / "parts")
    assert (source.format, [document.id for document in source]) == ("files", ["notes.txt"])
    assert source.report.skipped == {"unknown suffix": ["a.jsonl", "b.jsonl"]}
    put(tmp_path / "not_beir" / "corpus.jsonl", "words")
    put(tmp_path / "not_beir" / "notes.txt", "words")
    assert read_documents(tmp_path / "not_beir").format == "files"
    put(tmp_path / "cut_beir" / "corpus.jsonl", '{"_id": "a", "te')
    put(tmp_path / "cut_beir" / "queries.jsonl", "")
    with pytest.raises(TrichromeError, match=r"corpus\.jsonl:1: the JSON is cut"):
        list(read_documents(tmp_path / "cut_beir"))


def test_missing_paths_and_unknown_formats(tmp_path: Path) -> None:
    with pytest.raises(TrichromeError, match="absent: no such file or folder; check the path"):
        read_documents(tmp_path / "absent")
    with pytest.raises(
        TrichromeError, match=r"unknown format 'word'; choose one of beir, jsonl, squad, trec"
    ):
        read_documents(tmp_path, format="word")
    with pytest.raises(TrichromeError, match=r"no corpus\.jsonl or corpus\.jsonl\.gz"):
        list(read_documents(tmp_path, format="beir"))
    path = put(tmp_path / "a.txt", ROW)
    assert [document.text for document in read_documents(path, format="files")] == [ROW]
