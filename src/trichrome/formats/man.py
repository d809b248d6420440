"""Manual pages: roff source rendered to text by the system's mandoc, groff or man."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess

#: A page's suffix: a section number and perhaps letters, as in ls.1, openssl.1ssl.gz, intro.3p
SUFFIX = re.compile(r"\.[1-9][a-z]{0,8}(\.gz)?$")
_ROFF = re.compile(rb"^[.'][ \t]*(TH|Dd|so)[ \t]", re.MULTILINE)
_LINK = re.compile(rb"\A(?:[.']\\\".*\n)*\.so[ \t]+\S+\s*\Z")
_OVERSTRIKE = re.compile(".\b")
_SECONDS = 60

# Lines are made longer than any paragraph, so that nothing is hyphenated or padded to a margin.
_COMMANDS = {
    "mandoc": ["mandoc", "-T", "utf8", "-O", "width=1000"],
    "groff": [
        *("groff", "-k", "-Kutf8", "-t", "-e", "-mandoc", "-Tutf8"),  # UTF-8 in and out, tables, equations
        *("-rLL=1000n", "-rHY=0", "-P-c", "-P-b", "-P-u", "-P-o"),  # long lines, no bold or underlining
    ],
    "man": ["man", "-l", "-"],
}


class NoRenderer(ValueError):
    """None of mandoc, groff and man is on the PATH."""


@functools.cache
def find_renderer() -> str | None:
    """Which of mandoc, groff and man is on the PATH, in this order."""
    return next((name for name in _COMMANDS if shutil.which(name)), None)


def is_roff(source: bytes) -> bool:
    """Whether a file named like a page is one: a .TH, .Dd or .so request is in its first 64 KB."""
    return _ROFF.search(source[: 1 << 16]) is not None


def is_link(source: bytes) -> bool:
    """Whether a page is only a `.so` request, that is, another name of a page that is read by itself."""
    return len(source) < 4096 and _LINK.match(source) is not None


def man_text(source: str) -> tuple[str, str]:
    """(text, title) of a manual page, its running header and footer left out; the title is its NAME section.

    NoRenderer: mandoc, groff and man are all missing. ValueError: the renderer failed, or ran for 60 seconds.
    """
    name = find_renderer()
    if name is None:
        raise NoRenderer("no program to render manual pages")
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "LC_ALL": "C.UTF-8",
        "MANWIDTH": "1000",
        "MANROFFOPT": "-c",
        "MANPAGER": "cat",
    }
    try:
        done = subprocess.run(
            _COMMANDS[name], input=source.encode(), capture_output=True, timeout=_SECONDS, env=environment
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"{name} did not finish in {_SECONDS} seconds") from None
    except OSError as error:
        raise ValueError(f"{name} could not be started ({error.strerror})") from None
    rendered = _OVERSTRIKE.sub("", done.stdout.decode("utf-8", "replace"))
    if not rendered.strip():
        reason = done.stderr.decode("utf-8", "replace").strip().split("\n")[-1]
        raise ValueError(f"{name} rendered nothing ({reason or f'exit status {done.returncode}'})")
    return _tidy(rendered)


def _tidy(rendered: str) -> tuple[str, str]:
    lines = [line.rstrip() for line in rendered.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    # The footer stands at the margin or, where its left part is empty, far to the right.
    if lines and (not lines[-1].startswith(" ") or lines[-1].startswith(" " * 100)):
        lines.pop()
    start = next((i for i, line in enumerate(lines) if line), 0) + 1  # past the header
    body: list[str] = []
    for line in lines[start:]:
        if line or (body and body[-1]):
            # The usual indent of 7 goes; what stands deeper, examples above all, keeps the difference.
            body.append(line.removeprefix("       "))
    text = "\n".join(body).strip("\n")
    # "NAME\nls - list directory contents\n\nSYNOPSIS": whatever the section is called in the page's language
    name_lines = text.split("\n\n", 1)[0].split("\n")[1:]
    return text, " ".join(" ".join(name_lines).split())
