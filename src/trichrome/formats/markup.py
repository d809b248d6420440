"""Text and title out of Markdown and HTML."""

from __future__ import annotations

import codecs
import re

_FENCE = re.compile(r" {0,3}(```|~~~)")
_ATX = re.compile(r" {0,3}#{1,6}[ \t]+(\S.*?)(?:[ \t]+#+)?[ \t]*$")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_FRONT_TITLE = re.compile(r"title:[ \t]*(\S.*?)[ \t]*$", re.IGNORECASE)


def markdown_title(text: str) -> str:
    """The title of a Markdown text: `title:` in its front matter, else the first heading, else ''.

    Headings inside of code fences don't count. The text itself needs no conversion: its syntax is light.
    """
    lines = text.split("\n")
    start = 0
    if lines[0].rstrip() == "---":  # YAML front matter, whose end looks like an underlined heading
        end = next((i for i, line in enumerate(lines[1:], 1) if line.rstrip() in ("---", "...")), 0)
        for line in lines[1:end]:
            if found := _FRONT_TITLE.match(line):
                return found[1].strip("\"'")
        start = end + 1
    fence = ""
    for i in range(start, len(lines)):
        line = lines[i].rstrip("\r")
        if mark := _FENCE.match(line):
            if not fence:
                fence = mark[1]
            elif fence == mark[1]:
                fence = ""
        elif not fence:
            if heading := _ATX.match(line):
                return heading[1]
            above = lines[i - 1].strip() if i > start else ""
            if above and _UNDERLINE.match(line) and above[0] not in "-*+>|=#":
                return above
    return ""


_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.-]+)", re.IGNORECASE)
_DROPPED = frozenset(["script", "style", "nav", "noscript", "template", "svg", "head", "iframe"])
_INLINE = frozenset(
    tag
    for line in (
        "a abbr acronym b bdi bdo big cite code data del dfn em font i img ins kbd label mark q rp rt ruby",
        "s samp small span strike strong sub sup td th time tt u var wbr",
    )
    for tag in line.split()
)


def html_charset(data: bytes) -> str:
    """The encoding an HTML page declares in its first 2 KB, or UTF-8. ValueError: no such encoding."""
    found = _CHARSET.search(data[:2048])
    name = found[1].decode("ascii") if found else "utf-8"
    try:
        known = codecs.lookup(name).name
        b"".decode(known)  # some codecs (hex, zip) are not of text
    except LookupError:
        raise ValueError(f"unknown charset {name!r}") from None
    # What could be read byte by byte is not in UTF-16, whatever it says (so the HTML standard).
    return "utf-8" if known.startswith("utf-16") else known


def html_text(page: str) -> tuple[str, str]:
    """(text, title) of an HTML page: one line a block, white space collapsed except inside of <pre>.

    Scripts, styles, navigation and what is never shown are left out. The title is <title>'s, else the
    first <h1>'s.
    """
    from selectolax.lexbor import LexborHTMLParser, LexborNode  # loaded only where there is HTML

    tree = LexborHTMLParser(page)
    node = tree.css_first("head > title") or tree.css_first("h1")
    title = " ".join(node.text().split()) if node is not None else ""
    body = tree.body
    if body is None:
        return "", title
    blocks: list[str] = []
    current: list[str] = []
    preformatted = 0

    def end_block() -> None:
        joined = "".join(current)
        text = joined.strip("\n") if preformatted else " ".join(joined.split())
        if text.strip():
            blocks.append(text)
        current.clear()

    # An explicit stack: pages nest deeper than Python's. A string is the end of the element of that name.
    stack: list[LexborNode | str] = [body]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            end_block()
            preformatted -= item == "pre"
            continue
        tag = item.tag or ""
        if tag == "-text":
            current.append(item.text_content or "")
        elif tag == "br":
            if preformatted:
                current.append("\n")
            else:
                end_block()
        elif tag not in _DROPPED and not tag.startswith("-"):
            if tag not in _INLINE:
                end_block()
                preformatted += tag == "pre"
                stack.append(tag)
            elif tag in ("td", "th"):  # the cells of a row stay on its line
                current.append(" ")
            stack.extend(reversed(list(item.iter(include_text=True))))
    end_block()
    return "\n".join(blocks), title
