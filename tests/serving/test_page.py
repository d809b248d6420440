"""The page in a real browser, against a real server. Skipped where there is no Chromium."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("playwright")
pytest.importorskip("axe_playwright_python")

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from benchmarks.browser import chromium
from tests.serving.live import DOCUMENTS, Live, make_store, running
from tests.tiny import tiny_encoder
from trichrome import Document
from trichrome.encoder import Encoder

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

expect.set_options(timeout=60_000)  # a busy machine is no failure

MARKUP = '<img src="x" onerror="alert(1)"> river'
SERVED = [
    *DOCUMENTS,
    Document("markup", MARKUP, title="<b>bold</b>", lang="en"),
    Document("hebrew", "שכחתי את הסיסמה שלי", lang="he"),
    Document("cats", "🐈🐈 cat 🐈 dog", lang="en"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        if found is None:
            pytest.skip("no Chromium: apt-get install chromium, or playwright install chromium")
        yield found


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    """The tiny one, which gives every word some sparse weight: what is shared is found."""
    made = tiny_encoder()
    assert made.network.heads.sparse is not None
    made.network.heads.sparse.bias.data.fill_(3.0)
    return Encoder(made.network, made.tokenizer.tokenizer, made.config, "cpu")


@pytest.fixture(scope="module")
def live(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    stores = {"notes": make_store(tmp_path_factory.mktemp("page") / "notes", encoder, "exact", SERVED)}
    with running(encoder, stores) as made:
        yield made


@contextmanager
def watched(browser: Browser, expected: str = "$^", **options: Any) -> Iterator[BrowserContext]:
    """A window of its own that must not complain: no script's error, no blocked load, no request elsewhere.

    expected: complaints that belong to the test."""
    complaints: list[str] = []
    context = browser.new_context(reduced_motion="reduce", **options)
    context.set_default_timeout(60_000)
    context.on("console", lambda said: said.type == "error" and complaints.append(said.text))
    context.on("weberror", lambda error: complaints.append(str(error.error)))
    hosts: set[str] = set()
    context.on("request", lambda request: hosts.add(request.url.split("/")[2]))
    try:
        yield context
    finally:
        context.close()
    assert [text for text in complaints if not re.search(expected, text)] == []
    assert len(hosts) <= 1


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with watched(browser) as context:
        yield context.new_page()


def ids(page: Page) -> list[str]:
    return [str(hit.get_attribute("data-id")) for hit in page.locator(".hit").all()]


def found(live: Live, mode: str, **more: Any) -> list[str]:
    body = {"query": "the old cat", "mode": mode, "k": 10, **more}
    return [hit["id"] for hit in live.ok("/indexes/notes/search", body)["hits"]]


def test_a_search_shows_hits_with_three_scores_and_can_be_linked(page: Page, live: Live) -> None:
    page.goto(live.url)
    expect(page.get_by_text("One question, three ways")).to_be_visible()
    expect(page.locator("#about")).to_have_text("7 passages · 4 languages · model tiny")
    page.get_by_role("searchbox").fill("the old cat")
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.get_by_role("status")).to_contain_text("7 hits by all three signals")
    assert ids(page) == found(live, "all")
    first = live.ok("/indexes/notes/search", {"query": "the old cat", "k": 1})["hits"][0]
    for signal in ("dense", "sparse", "multivector"):
        expect(page.locator(f".hit >> nth=0 >> .score.{signal} .number")).to_have_text(f"{first[signal]:.3f}")
    assert page.title() == "the old cat · trichrome"
    again = page.context.new_page()
    again.goto(page.url)
    expect(again.locator(".hit")).to_have_count(7)
    assert ids(again) == ids(page)


def test_rankings_and_languages_are_switched_and_gone_back_from(page: Page, live: Live) -> None:
    page.goto(f"{live.url}/?q=the+old+cat")
    expect(page.get_by_role("status")).to_contain_text("all three")
    for label, mode in (("Multi-vector", "multivector"), ("Sparse", "sparse"), ("Dense", "dense")):
        page.get_by_role("radio", name=label, exact=True).check()
        expect(page.get_by_role("status")).to_contain_text(label.lower())
        assert ids(page) == found(live, mode), mode
        assert f"mode={mode}" in page.url
    page.get_by_label("language").select_option("en")
    expect(page.get_by_role("status")).to_contain_text("4 hits")
    assert ids(page) == found(live, "dense", filter={"lang": "en"})
    page.go_back()
    page.go_back()
    expect(page.get_by_role("status")).to_contain_text("sparse")
    expect(page.get_by_role("radio", name="Sparse", exact=True)).to_be_checked()
    assert ids(page) == found(live, "sparse")


def test_a_reason_adds_up_and_words_light_what_they_matched(page: Page, live: Live) -> None:
    page.goto(f"{live.url}/?q=cat+over+the+river")
    hit = page.locator('.hit[data-id="moon"]')
    hit.get_by_role("button", name="Why").click()
    answer = live.ok("/indexes/notes/search", {"query": "cat over the river", "explain": True})["hits"]
    (why,) = [h["explanation"] for h in answer if h["id"] == "moon"]
    told = [float(cell.inner_text()) for cell in hit.locator(".why .sparse td .amount").all()]
    assert told == pytest.approx([token["contribution"] for token in why["shared"]], abs=6e-4)
    assert len(hit.locator(".why .multivector tbody tr").all()) == len(why["matches"])
    expect(hit.get_by_role("button", name="Why")).to_have_attribute("aria-expanded", "true")

    expect(page.locator(".piece.lit")).to_have_count(0)
    word = page.get_by_role("button", name="river", exact=True)
    word.hover()
    best = next(m for m in why["matches"] if m["query_span"] == [13, 18])
    start, end = best["passage_span"]
    if end > start:
        expect(hit.locator(".piece.lit").filter(has_text=why["content"][start:end])).not_to_have_count(0)
    assert page.locator(".piece.lit").count() > 0
    page.mouse.move(0, 0)
    expect(page.locator(".piece.lit")).to_have_count(0)
    word.click()
    page.mouse.move(0, 0)
    expect(word).to_have_attribute("aria-pressed", "true")
    assert page.locator(".piece.lit").count() > 0
    page.keyboard.press("Escape")
    expect(page.locator(".piece.lit")).to_have_count(0)


def test_hebrew_runs_from_right_to_left_in_whole_words(page: Page, live: Live) -> None:
    page.goto(live.url)
    page.get_by_role("searchbox").fill("שכחתי את הסיסמה")
    page.keyboard.press("Enter")
    hit = page.locator('.hit[data-id="hebrew"]')
    expect(hit).to_be_visible()
    direction = "element => getComputedStyle(element).direction"
    for place in ("#q", ".words", '.hit[data-id="hebrew"] .said', '.hit[data-id="hebrew"] .text'):
        assert page.locator(place).evaluate(direction) == "rtl", place
    assert page.locator('.hit[data-id="moon"] .said').evaluate(direction) == "ltr"
    assert hit.locator(".text").get_attribute("lang") == "he"
    words = [word.inner_text() for word in page.locator(".word").all()]
    assert words == ["שכחתי", "את", "הסיסמה"]
    boxes = [word.bounding_box() for word in page.locator(".word").all()]
    places = [box["x"] for box in boxes if box]
    assert places == sorted(places, reverse=True)
    page.locator(".word").first.focus()
    page.keyboard.press("ArrowLeft")  # onwards
    expect(page.locator(".word").nth(1)).to_be_focused()
    assert {piece.inner_text() for piece in hit.locator(".piece").all()} <= {"שכחתי", "את", "הסיסמה", "שלי"}


def test_places_count_characters_not_utf16_units(page: Page, live: Live) -> None:
    page.goto(f"{live.url}/?q=🐈+cat&mode=sparse")
    expect(page.locator(".word")).to_have_text(["cat"])
    hit = page.locator('.hit[data-id="cats"]')
    expect(hit.locator("mark").filter(has_text="cat")).to_have_text("cat")


def test_markup_in_documents_and_questions_is_text(page: Page, live: Live) -> None:
    page.goto(f"{live.url}/?q=river")
    page.get_by_role("searchbox").fill(MARKUP)
    page.keyboard.press("Enter")
    hit = page.locator('.hit[data-id="markup"]')
    expect(hit.locator("h3")).to_have_text("<b>bold</b>")
    expect(hit.locator(".text")).to_have_text(MARKUP)
    expect(page.locator(".words")).to_have_text(MARKUP)
    page.get_by_role("radio", name="Compare").check()
    expect(page.locator(".comparison")).to_be_visible()
    assert page.locator("main img, main b >> text=bold").count() == 0


def test_an_error_is_shown_as_one_and_mended(browser: Browser, live: Live) -> None:
    with watched(browser, expected=r"404|413|ERR_FAILED") as context:
        page = context.new_page()
        page.goto(live.url)
        page.get_by_role("searchbox").fill("cat " * 80)
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("Too much at once")
        expect(page.get_by_role("alert")).to_contain_text("the model reads 64")
        expect(page.locator("#results")).to_have_attribute("aria-busy", "false")
        page.goto(f"{live.url}/?q=cat&index=elsewhere")
        expect(page.get_by_role("alert")).to_contain_text("There is no index 'elsewhere'")
        page.goto(f"{live.url}/?q=cat")
        expect(page.locator(".hit").first).to_be_visible()
        context.route("**/search", lambda route: route.abort())
        page.get_by_role("button", name="Search", exact=True).click()
        expect(page.get_by_role("alert")).to_contain_text("No connection")
        context.unroute("**/search")
        page.get_by_role("button", name="Try again").click()
        expect(page.locator(".hit").first).to_be_visible()
        expect(page.get_by_role("alert")).to_have_count(0)


def test_nothing_found_is_said_and_the_language_can_be_dropped(page: Page, live: Live) -> None:
    page.goto(f"{live.url}/?q=cat&lang=ja&mode=sparse")
    expect(page.get_by_text("Nothing was found")).to_be_visible()
    page.get_by_role("button", name="Search beyond Japanese").click()
    expect(page.locator(".hit").first).to_be_visible()
    assert "lang=" not in page.url


def test_everything_can_be_done_with_the_keyboard(page: Page, live: Live) -> None:
    page.goto(f"{live.url}/?q=moon")
    expect(page.locator(".hit").first).to_be_visible()
    press = page.keyboard.press
    press("/")
    page.keyboard.type("the old cat")
    press("Enter")
    expect(page.get_by_role("status")).to_contain_text("7 hits")
    expect(page.locator(".words")).to_have_text("the old cat")
    press("ArrowDown")
    expect(page.locator(".hit").nth(0)).to_be_focused()
    press("ArrowDown")
    expect(page.locator(".hit").nth(1)).to_be_focused()
    outline = page.locator(".hit").nth(1).evaluate("element => getComputedStyle(element).outlineStyle")
    assert outline == "solid"
    press("Enter")
    expect(page.locator(".hit").nth(1).locator(".why")).to_be_visible()
    press("Escape")
    expect(page.locator(".why:visible")).to_have_count(0)
    press("ArrowUp")
    press("ArrowUp")
    expect(page.get_by_role("searchbox")).to_be_focused()
    press("Escape")
    press("2")
    expect(page.get_by_role("status")).to_contain_text("by sparse")
    press("c")
    expect(page.locator(".comparison")).to_be_visible()
    page.locator(".cell").first.focus()
    focused = page.locator(".cell:focus")
    press("ArrowDown")
    expect(focused).to_have_attribute("data-row", "1")
    press("ArrowRight")
    expect(focused).to_have_attribute("data-column", "1")
    here = focused.get_attribute("data-id")
    press("Enter")
    expect(page.locator(f'.cell[aria-pressed="true"][data-id="{here}"]')).not_to_have_count(0)
    press("Escape")
    expect(page.locator('.cell[aria-pressed="true"]')).to_have_count(0)


def test_rankings_stand_side_by_side_and_ribbons_follow_a_hit(page: Page, live: Live) -> None:
    page.goto(f"{live.url}/?q=the+old+cat&view=compare")
    expect(page.locator(".ranking")).to_have_count(5)
    for column, mode in enumerate(("dense", "sparse", "multivector", "dense+sparse", "all")):
        cells = page.locator(f'.cell[data-column="{column}"]').all()
        assert [cell.get_attribute("data-id") for cell in cells] == found(live, mode)
    page.locator('.cell[data-column="0"][data-id="moon"]').hover()
    ranks = [found(live, mode).index("moon") + 1 for mode in ("dense", "multivector", "all")]
    for label, rank in zip(("Dense", "Multi", "All"), ranks, strict=True):
        expect(page.locator(".detail .ranks")).to_contain_text(f"{label} {rank}")
    assert page.locator('.ribbon.followed[data-id="moon"] path').count() >= 6
    page.get_by_role("heading", name="Multi").get_by_role("button").click()
    expect(page.get_by_role("status")).to_contain_text("multi-vector")


def test_a_key_is_asked_for_once(browser: Browser, encoder: Encoder, tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", encoder, "exact")
    with (
        running(encoder, {"notes": store}, key="s3cret") as guarded,
        watched(browser, expected="401") as context,
    ):
        page = context.new_page()
        page.goto(f"{guarded.url}/?q=cat")
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("asks for a key")
        dialog.get_by_label("Key").fill("wrong")
        page.keyboard.press("Enter")
        expect(dialog).to_contain_text("does not know that key")
        dialog.get_by_label("Key").fill("s3cret")
        dialog.get_by_role("button", name="Use this key").click()
        expect(page.locator(".hit").first).to_be_visible()
        expect(page.get_by_label("language")).to_be_visible()
        page.reload()
        expect(page.locator(".hit").first).to_be_visible()
        expect(dialog).to_have_count(0)
        assert page.evaluate("sessionStorage.getItem('trichrome-key')") == "s3cret"
        assert page.evaluate("localStorage.length") == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_rule_of_accessibility_is_broken(browser: Browser, live: Live, scheme: Any) -> None:
    with watched(browser, color_scheme=scheme) as context:
        page = context.new_page()
        for path, ready in (
            ("/", ".beginning"),
            ("/?q=the+old+cat", ".hit"),
            ("/?q=cat&view=compare", ".cell"),
        ):
            page.goto(live.url + path)
            expect(page.locator(ready).first).to_be_visible()
            if ready == ".hit":
                page.locator(".open-why").first.click()
            result = Axe().run(page)
            assert result.violations_count == 0, f"{scheme} {path}\n{result.generate_report()}"


@pytest.mark.parametrize("path", ["/", "/?q=the+old+cat", "/?q=the+old+cat&view=compare"])
def test_it_fits_a_phone(browser: Browser, live: Live, path: str) -> None:
    with watched(browser, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True) as context:
        page = context.new_page()
        page.goto(live.url + path)
        expect(page.locator(".beginning, .hit, .cell").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        if "view" in path:
            page.locator(".cell").first.tap()
            expect(page.locator(".detail .ranks")).to_be_visible()


def test_the_files_are_open_strict_and_not_sent_twice(encoder: Encoder) -> None:
    with running(encoder, key="s3cret") as guarded:
        guarded.session.headers.pop("Authorization")
        home = guarded.get("/")
        assert home.status_code == 200
        linked = re.findall(r'(?:href|src)="(page/[^"]+)"', home.text)
        assert len(linked) >= 6
        for path in linked:
            file = guarded.get(f"/{path}")
            assert file.status_code == 200, path
            policy = file.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert guarded.get(f"/{path}", headers={"If-None-Match": file.headers["ETag"]}).status_code == 304
        assert guarded.get("/page/nothing.js").status_code == 401
        assert guarded.get("/page/../app.py").status_code in (401, 404)


def test_no_string_becomes_markup() -> None:
    folder = Path(__file__).parents[2] / "src" / "trichrome" / "serving" / "page"
    files = sorted(folder.glob("*.js"))
    assert len(files) > 5
    for file in files:
        text = file.read_text("utf-8")
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|https?://(?!www\.w3)", text
        )
        for module in re.findall(r'from "\./([^"]+)"', text):
            assert (folder / module).is_file(), f"{file.name}: {module}"
