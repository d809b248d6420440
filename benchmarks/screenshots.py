"""Pictures of the page for the documentation, by the built-in model on a real index.

    trichrome demo
    python -m benchmarks.screenshots [--index demo] [--to FOLDER]

Serves the index on a free port, opens the page in a headless Chromium, and takes: the list of hits with a
word of the query pointed at, the reasons of a hit, the comparison of the five rankings, all of that in the
dark, and a phone. What the documentation shows goes to docs/ as WebP, so that it stays small, the rest to
FOLDER.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlencode

import typer

from benchmarks.browser import chromium
from trichrome.cli.settings import existing_store, open_model
from trichrome.index import open_store
from trichrome.serving import create_app, server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

DOCS = Path(__file__).parents[1] / "docs"
QUERY = "cookies are switched off in my browser"
HEBREW = "שכחתי את הסיסמה שלי"
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
#: What the documentation's picture may weigh.
LARGEST = 200_000


@dataclass(frozen=True)
class Shot:
    """One picture. address: of the page's state. point: a word of the query that is pointed at, why: whether
    the first hit's reasons are open, follow: the place of a hit that is followed through the rankings."""

    name: str
    address: dict[str, str]
    scheme: Any = "light"
    phone: bool = False
    point: str = ""
    why: bool = False
    follow: int | None = None


SHOTS = (
    Shot("page", {"q": QUERY}, point="switched"),
    Shot("start", {}),
    Shot("why", {"q": QUERY}, why=True),
    Shot("compare", {"q": QUERY, "view": "compare"}, follow=1),
    Shot("hebrew", {"q": HEBREW}, point="הסיסמה"),
    Shot("error", {"q": QUERY, "index": "nowhere"}),
    Shot("page-dark", {"q": QUERY}, "dark", point="switched"),
    Shot("start-dark", {}, "dark"),
    Shot("why-dark", {"q": QUERY}, "dark", why=True),
    Shot("compare-dark", {"q": QUERY, "view": "compare"}, "dark", follow=1),
    Shot("page-phone", {"q": QUERY}, phone=True),
    Shot("compare-phone", {"q": QUERY, "view": "compare"}, "dark", phone=True, follow=1),
)


def main(
    index: Annotated[str, typer.Option(help="An index of the built-in model.")] = "demo",
    to: Annotated[Path, typer.Option(help="Folder of the pictures that docs/ does not show.")] = Path(
        "build/page"
    ),
    only: Annotated[str, typer.Option(help="Names of pictures, by commas; all by default.")] = "",
) -> None:
    """Take the pictures."""
    wanted = [shot for shot in SHOTS if not only or shot.name in only.split(",")]
    to.mkdir(parents=True, exist_ok=True)
    with served(index) as url, chromium() as browser:
        if browser is None:
            raise SystemExit("no Chromium: apt-get install chromium, or playwright install chromium")
        for shot in wanted:
            picture = take(browser, url, shot)
            path = DOCS / "page.webp" if shot.name == "page" else to / f"{shot.name}.png"
            path.write_bytes(small(picture) if path.parent == DOCS else picture)
            print(path, f"{path.stat().st_size:,} bytes")


@contextmanager
def served(index: str) -> Iterator[str]:
    """The address of a server over one index, in a thread of this process."""
    encoder = open_model("small", "auto")
    running = server(create_app(encoder, {index: open_store(existing_store(index))}), "127.0.0.1", 0)
    socket = running.config.bind_socket()
    thread = threading.Thread(target=running.run, kwargs={"sockets": [socket]})
    thread.start()
    try:
        while not running.started and thread.is_alive():
            time.sleep(0.05)
        yield f"http://127.0.0.1:{socket.getsockname()[1]}"
    finally:
        running.should_exit = True
        thread.join()


def take(browser: Browser, url: str, shot: Shot) -> bytes:
    """One picture, as PNG."""
    size: Any = PHONE if shot.phone else WIDE
    context = browser.new_context(
        viewport=size,
        color_scheme=shot.scheme,
        device_scale_factor=2 if shot.phone else 1.5,
        is_mobile=shot.phone,
        has_touch=shot.phone,
        reduced_motion="reduce",
    )
    context.set_default_timeout(120_000)
    try:
        page = context.new_page()
        page.goto(f"{url}/?{urlencode(shot.address)}")
        pose(page, shot)
        picture: bytes = page.screenshot()
        return picture
    finally:
        context.close()


def pose(page: Page, shot: Shot) -> None:
    """Wait for what is to be seen, and point at it."""
    page.locator(".hit, .cell, .beginning, .failure").first.wait_for()
    if page.locator(".failure").count() == 0:
        page.wait_for_function("document.getElementById('about').textContent.includes('language')")
    if shot.point:
        page.locator(".word", has_text=shot.point).first.hover()
    if shot.why:
        page.locator(".open-why").first.click()
    if shot.follow is not None:
        cell = page.locator(".cell[data-column='0']").nth(shot.follow)
        cell.tap() if shot.phone else cell.hover()
    page.wait_for_timeout(300)


def small(picture: bytes) -> bytes:
    """The same picture as WebP. SystemExit where that is still too large."""
    from PIL import Image

    packed = io.BytesIO()
    Image.open(io.BytesIO(picture)).convert("RGB").save(packed, "WEBP", quality=90, method=6)
    if packed.tell() > LARGEST:
        raise SystemExit(f"the picture has {packed.tell():,} bytes, more than {LARGEST:,}")
    return packed.getvalue()


if __name__ == "__main__":
    typer.run(main)
