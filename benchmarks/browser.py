"""A Chromium for the page's tests and pictures: the system's, or the one that Playwright downloaded."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from trichrome.extras import require

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "microsoft-edge")


@contextmanager
def chromium() -> Iterator[Browser | None]:
    """A headless Chromium, closed at the end; None where there is none."""
    sync_api = require("playwright.sync_api", "dev")
    with sync_api.sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
        found = next(filter(None, map(shutil.which, _NAMES)), None)
        path = found or (str(own) if own.is_file() else None)
        if path is None:
            yield None
            return
        browser = playwright.chromium.launch(executable_path=path, args=["--font-render-hinting=none"])
        try:
            yield browser
        finally:
            browser.close()
