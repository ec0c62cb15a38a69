"""Every built page, opened as a file in Chromium: nothing is missing, and everybody can read it."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import axe_playwright_python
import pytest
import two_themes
from playwright.sync_api import Browser, ConsoleMessage, Page, Request

HERE = Path(__file__).parent
HTML = HERE.parents[1] / "_build" / "html"
AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
INSPECT, OVERFLOW, THIN = (
    (HERE / f"{name}.js").read_text(encoding="utf-8") for name in ("inspect", "overflow", "thin")
)
#: Equations that have to be pushed sideways to be read, but for a sign or two.
WIDE = """() => [...document.querySelectorAll("article div.math mjx-container")]
  .filter((box) => box.scrollWidth > box.clientWidth + 12)
  .map((box) => `wide: ${box.closest("div.math").id}`)"""
SETTLED = """async () => {
  if (window.MathJax?.startup?.promise) await MathJax.startup.promise;
  await document.fonts.ready;
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
}"""
#: What a reader types, and the page and section that should come first.
SEARCHES = {
    "GAE": "book/05-gae.html#generalised-advantage-estimation",
    "clip": "book/07-clipping-and-the-trainer.html#second-restraint-clipping",
    "clipped loss": "book/07-clipping-and-the-trainer.html#second-restraint-clipping",
    "time limit": "book/05-gae.html#where-an-episode-ends",
    "learning rate": "book/07-clipping-and-the-trainer.html#the-whole-trainer",
    "exploration": "book/08-every-option.html#what-an-undecided-policy-is-paid",
    "PPO": "book/one-page.html",
    "importance sampling": "book/06-importance-sampling.html#importance-sampling",
    "baseline": "book/03-reward-to-go-and-baseline.html#the-baseline",
    "entropy": "book/08-every-option.html",
    "install": "book/index.html#get-it-running",
}


def pages() -> list[str]:
    """The built pages, without the one that only leads to the first, and without the slides."""
    found = sorted(HTML.rglob("*.html"))
    apart = {"_static", "slides"}
    files = [file for file in found if not apart & set(file.relative_to(HTML).parts)]
    text = {file: file.read_text(encoding="utf-8") for file in files}
    return [
        file.relative_to(HTML).as_posix()
        for file in files
        if 'http-equiv="Refresh"' not in text[file]
    ]


class Listener:
    """What goes wrong in a tab while nobody looks."""

    def __init__(self, page: Page) -> None:
        self.faults: list[str] = []
        page.on("pageerror", lambda error: self.faults.append(f"exception: {error}"))
        page.on("console", self.said)
        page.on("request", self.asked)
        page.on("requestfailed", lambda request: self.faults.append(f"failed: {request.url}"))

    def said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "assert"):
            self.faults.append(f"console: {message.text[:200]}")

    def asked(self, request: Request) -> None:
        if urlsplit(request.url).scheme not in ("file", "data", "blob", "about"):
            self.faults.append(f"outside request: {request.url}")


def visit(page: Page, name: str) -> None:
    page.goto((HTML / name).as_uri())
    page.evaluate(SETTLED)


def theme(page: Page, name: str) -> None:
    page.evaluate("(name) => { document.documentElement.dataset.theme = name; }", name)


def violations(page: Page) -> list[str]:
    """What axe finds, a line for each kind, with the first place."""
    page.evaluate(AXE)
    found = page.evaluate("async () => (await axe.run()).violations")
    return [
        f"{kind['id']} at {len(kind['nodes'])} places, as {kind['nodes'][0]['html'][:160]}"
        for kind in found
    ]


@pytest.mark.parametrize("name", pages())
def test_page_is_whole(page: Page, name: str) -> None:
    listener = Listener(page)
    visit(page, name)
    faults = page.evaluate(INSPECT)
    for width in (390, 360):
        page.set_viewport_size({"width": width, "height": 844})
        page.evaluate(SETTLED)
        faults += page.evaluate(INSPECT) + page.evaluate(OVERFLOW)
        faults += page.evaluate(WIDE) if width == 390 else []
    assert not faults + listener.faults


@pytest.mark.parametrize("name", pages())
def test_page_can_be_read_by_everybody(page: Page, name: str) -> None:
    visit(page, name)
    page.evaluate(THIN)
    theme(page, "light")
    found = violations(page)
    page.set_viewport_size({"width": 390, "height": 844})
    theme(page, "dark")
    assert not found + violations(page)


@pytest.mark.parametrize("query", ["clip", "nothing of this"])
def test_what_was_found_can_be_read_by_everybody(page: Page, query: str) -> None:
    page.goto((HTML / "search.html").as_uri() + f"?q={query.replace(' ', '+')}")
    page.locator("#search-results .search-summary").wait_for()
    theme(page, "light")
    found = violations(page)
    page.set_viewport_size({"width": 390, "height": 844})
    theme(page, "dark")
    assert not found + violations(page)


class Reader(HTMLParser):
    """The anchors and the links of a page."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.ids, self.links = set(), []
        self.feed((HTML / name).read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids.add(given.get("id"))
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])


def test_links_lead_somewhere() -> None:
    read = {name: Reader(name) for name in pages()}
    dead = []
    for name, reader in read.items():
        for link in reader.links:
            if urlsplit(link).scheme:
                continue
            file, anchor = urldefrag(link)
            path = (HTML / name).parent / unquote(file) if file else HTML / name
            target = path.resolve()
            known = target.is_relative_to(HTML) and read.get(target.relative_to(HTML).as_posix())
            if not target.is_file():
                dead.append(f"{name}: {link}")
            elif known and anchor and unquote(anchor) not in known.ids:
                dead.append(f"{name}: {link}, no such anchor")
    assert not dead


def test_a_number_shows_its_equation(page: Page) -> None:
    visit(page, "book/05-gae.html")
    link = page.locator('article p a[href="#equation-eq-d18"]').first
    card = page.locator(".equation-card")
    assert card.is_hidden()
    link.focus()
    formula = page.locator("#equation-eq-d18 mjx-container")
    assert card.locator("mjx-container").inner_html() == formula.inner_html()
    page.keyboard.press("Escape")
    assert card.is_hidden()


def test_a_number_shows_an_equation_of_another_page(page: Page) -> None:
    listener = Listener(page)
    visit(page, "book/one-page.html")
    page.locator('.way a[href$="#equation-eq-d23"]').hover()
    card = page.locator(".equation-card")
    card.locator("mjx-container").wait_for()
    assert "\\[" not in card.inner_text()
    assert card.locator("mjx-assistive-mml").inner_text()
    assert not listener.faults


CARD = "document.querySelector('.symbol-card')"
#: A formula, what a reader points at in it, and what is said of that.
SYMBOLS = {
    ("05-gae", "eq-guess", "1D6FE"): ("the discount", "gamma", "returns-and-the-goal"),
    ("05-gae", "eq-guess", "1D44A"): ("guess of the whole return", "", "values-and-advantages"),
    ("02-policy-gradient", "eq-b9", "1D443"): (
        "probability of",
        "trajectory_probs",
        "trajectories",
    ),
}


@pytest.mark.parametrize(("place", "answer"), SYMBOLS.items())
def test_a_symbol_answers(page: Page, place: tuple[str, ...], answer: tuple[str, ...]) -> None:
    listener = Listener(page)
    chapter, equation, letter = place
    meaning, code, section = answer
    visit(page, f"book/{chapter}.html")
    page.locator("html.symbols-answer").wait_for()
    card = page.locator(".symbol-card")
    assert card.is_hidden()
    symbol = page.locator(f"#equation-{equation} mjx-c[class*='{letter}']").first
    for point in (symbol.hover, symbol.click):
        point()
        card.locator("mjx-container").first.wait_for()
        assert meaning in card.inner_text()
        assert code in card.inner_text()
        assert card.locator("a").first.get_attribute("href").endswith(f"notation.html#{section}")
        page.keyboard.press("Escape")
        assert card.is_hidden()
        page.mouse.move(0, 0)
    assert not listener.faults


def test_symbols_answer_the_keyboard(page: Page) -> None:
    visit(page, "book/05-gae.html")
    page.locator("html.symbols-answer").wait_for()
    formula, card = page.locator("#equation-eq-guess .answers"), page.locator(".symbol-card")
    page.keyboard.press("Tab")
    formula.focus()
    said = []
    for _ in range(3):
        card.locator("mjx-container").first.wait_for()
        said.append(card.inner_text())
        page.keyboard.press("ArrowRight")
        page.wait_for_function(
            "said => document.querySelector('.symbol-card').innerText !== said", arg=said[-1]
        )
    assert "guess of the whole return" in said[0]
    page.keyboard.press("Escape")
    assert card.is_hidden()


def test_a_wide_table_becomes_a_list_on_a_phone(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    visit(page, "book/notation.html")
    page.locator("#values-and-advantages table.stacked").wait_for()
    entry = page.locator("#values-and-advantages table tbody tr").first.locator("td").nth(1)
    assert entry.inner_text().startswith("meaning")
    page.set_viewport_size({"width": 1440, "height": 900})
    page.wait_for_function("!document.querySelector('table.stacked')")
    assert not entry.inner_text().startswith("meaning")


def test_columns_that_do_not_fit_become_lists_on_any_screen_and_on_paper(page: Page) -> None:
    visit(page, "book/ledger.html")
    page.locator("table.stacked").first.wait_for()
    wide = """() => [...document.querySelectorAll(".pst-scrollable-table-container")]
      .filter((box) => box.scrollWidth > box.clientWidth + 1).length"""
    empty = page.locator("td.empty").count()
    for width, height in ((1440, 900), (390, 844), (844, 390), (390, 844)):
        page.set_viewport_size({"width": width, "height": height})
        page.evaluate(SETTLED)
        assert page.evaluate(wide) == 0
        assert page.locator("td.empty").count() == empty
    page.set_viewport_size({"width": 718, "height": 1000})
    page.emulate_media(media="print")
    page.evaluate(SETTLED)
    assert page.evaluate(wide) == 0


def test_paper_is_light_where_the_screen_is_dark(browser: Browser) -> None:
    context = browser.new_context(color_scheme="dark")
    page = context.new_page()
    visit(page, "book/01-basic-concepts.html")
    page.evaluate("""() => addEventListener("beforeprint", () => {
      window.ink = getComputedStyle(document.querySelector("article p")).color;
      window.paper = getComputedStyle(document.body).backgroundColor;
    })""")
    page.pdf()
    ink, paper = page.evaluate("[window.ink, window.paper]")
    assert paper == "rgb(255, 255, 255)"
    assert max(map(int, re.findall(r"\d+", ink))) < 80
    assert page.locator("html").get_attribute("data-theme") == "dark"
    context.close()


@pytest.mark.parametrize("width", [390, 360])
@pytest.mark.parametrize("name", ["07-clipping-and-the-trainer", "ledger", "13-the-evidence"])
def test_nothing_is_cut_on_a_phone(page: Page, name: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    visit(page, f"book/{name}.html")
    page.evaluate(SETTLED)
    cut = page.evaluate("""() => [...document.querySelectorAll("article mjx-math, article td")]
      .filter((box) => !box.closest(".scrolls") && box.clientWidth)
      .filter((box) => box.getBoundingClientRect().right > innerWidth
        || (box.matches("td") && box.scrollWidth > box.clientWidth + 1))
      .map((box) => box.textContent.slice(0, 80))""")
    assert not cut


def test_printed_columns_scroll_and_printed_lines_wrap(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    visit(page, "book/08-every-option.html")
    page.locator("pre.columns.scrolls").first.wait_for()
    wide = page.locator(".cell_output .stream pre").evaluate_all("""(boxes) => boxes
      .filter((box) => box.scrollWidth > box.clientWidth + 1)
      .map((box) => [box.className, box.tabIndex, getComputedStyle(box).maskImage !== "none"])""")
    assert len(wide) > 2
    assert all("columns" in name and tab == 0 and fades for name, tab, fades in wide)


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("name", [name for name in pages() if "book/" in name])
def test_letters_of_drawings_can_be_read(page: Page, name: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    visit(page, name)
    for scheme in ("light", "dark"):
        theme(page, scheme)
        drawn = page.evaluate("""() => [...document.querySelectorAll(".drawing")].map((box) => {
          const shown = [...box.querySelectorAll("img")].filter((image) => image.clientWidth);
          const more = box.scrollWidth > box.clientWidth + 1;
          return [shown.map((image) => image.src), shown[0]?.clientWidth, more, box.tabIndex];
        })""")
        for sources, wide, more, tab in drawn:
            assert len(sources) == 1
            assert ("-dark.svg" in sources[0]) == (scheme == "dark")
            text = Path(unquote(urlsplit(sources[0]).path)).read_text(encoding="utf-8")
            assert two_themes.smallest(text, wide) >= 9.4 or "ridge" in sources[0]
            assert not more or tab == 0


@pytest.mark.parametrize("query", SEARCHES)
def test_search_finds_the_right_page_first(page: Page, query: str) -> None:
    listener = Listener(page)
    page.goto((HTML / "search.html").as_uri() + f"?q={query.replace(' ', '+')}")
    links = page.locator("#search-results li a")
    links.first.wait_for()
    first = urlsplit(links.first.evaluate("(a) => a.href"))
    place = Path(unquote(first.path)).relative_to(HTML).as_posix()
    assert f"{place}#{first.fragment}".startswith(SEARCHES[query])
    assert not listener.faults


@pytest.mark.parametrize("query", SEARCHES)
def test_every_result_of_a_search_shows_a_line_of_text(page: Page, query: str) -> None:
    listener = Listener(page)
    page.goto((HTML / "search.html").as_uri() + f"?q={query.replace(' ', '+')}")
    page.locator(".search-summary", has_text="found").wait_for()
    results = page.locator("#search-results ul.search > li")
    lines = results.locator("p.context").all_inner_texts()
    assert len(lines) == results.count() > 0
    assert all(line.strip() and "\\" not in line for line in lines)
    # The one place that "exploration" leads to says it in other words.
    bold = {word[:4].lower() for word in results.locator("mark").all_inner_texts()}
    assert query == "exploration" or bold >= {word[:4] for word in query.lower().split()}
    assert not listener.faults


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["book/index.html", "book/05-gae.html"])
def test_focus_can_be_seen(browser: Browser, scheme: str, name: str) -> None:
    context = browser.new_context(viewport={"width": 1440, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    visit(page, name)
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    seen = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        mark = page.evaluate("""() => {
          // A card has the ring of the link that covers it.
          const node = document.activeElement, card = node.closest(".sd-card");
          const ring = [node, card].filter(Boolean).some((place) => {
            const style = getComputedStyle(place);
            const outline = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0;
            return outline || style.boxShadow !== "none" && place === node;
          });
          return [node.outerHTML.slice(0, 120), ring];
        }""")
        seen.add(tuple(mark))
    context.close()
    assert len(seen) > 15
    assert not [html for html, visible in seen if not visible]


def test_pictures_are_stored_when_asked_for(
    browser: Browser, request: pytest.FixtureRequest
) -> None:
    folder = request.config.getoption("--screenshots")
    if not folder:
        pytest.skip("no --screenshots DIR")
    for scheme in ("light", "dark"):
        for width in (1440, 390):
            options = {"viewport": {"width": width, "height": 1800}, "color_scheme": scheme}
            context = browser.new_context(**options)
            page = context.new_page()
            for name in pages():
                visit(page, name)
                stem = name.removesuffix(".html").replace("/", "-")
                height = page.evaluate("document.scrollingElement.scrollHeight")
                for i, top in enumerate(range(0, height, 1800)):
                    page.evaluate("(y) => scrollTo({ top: y, behavior: 'instant' })", top)
                    page.screenshot(path=Path(folder) / f"{stem}-{width}-{scheme}-{i:02d}.png")
            context.close()
