"""What the front page, the map and the slides promise, in a browser."""

import io
import tomllib
import zipfile
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page
from test_pages import HTML, SETTLED, Listener, violations, visit

ROOT = HTML.parents[1]
DECKS = sorted((HTML / "slides").glob("*.html"))


def test_a_film_moves_and_can_be_stopped(page: Page) -> None:
    visit(page, "book/index.html")
    picture = page.locator("picture.film img")
    shown = "(image) => image.currentSrc.split('/').pop()"
    assert picture.evaluate(shown) == "cartpole.webp"
    page.get_by_role("button", name="Stop the film").click()
    page.wait_for_function(
        "document.querySelector('picture.film img').currentSrc.endsWith('still.webp')"
    )
    page.get_by_role("button", name="Play the film").click()
    page.wait_for_function(
        "document.querySelector('picture.film img').currentSrc.endsWith('/cartpole.webp')"
    )


def test_a_film_stands_still_for_who_asks_for_less_motion(browser: Browser) -> None:
    context = browser.new_context(reduced_motion="reduce")
    page = context.new_page()
    visit(page, "book/index.html")
    source = page.locator("picture.film img").evaluate("(image) => image.currentSrc")
    assert source.endswith("cartpole.still.webp")
    assert page.get_by_role("button", name="Play the film").is_visible()
    context.close()


def test_a_film_is_dark_in_the_dark_and_its_button_large_on_a_phone(browser: Browser) -> None:
    context = browser.new_context(
        color_scheme="dark", viewport={"width": 390, "height": 844}, reduced_motion="reduce"
    )
    page = context.new_page()
    visit(page, "book/index.html")
    picture = page.locator("picture.film img")
    with Image.open(io.BytesIO(picture.screenshot())) as shown:
        ground = shown.convert("L").getpixel((shown.width - 3, 3))
    assert ground < 40
    assert page.get_by_role("button", name="Play the film").bounding_box()["height"] >= 40
    context.close()


def test_films_are_light_and_have_their_stills() -> None:
    films = [f for f in (HTML / "_static" / "films").glob("*.webp") if ".still" not in f.name]
    assert films
    for film in films:
        assert film.stat().st_size <= 400_000, film.name
        assert film.with_suffix(".still.webp").is_file(), film.name


def test_next_leads_to_the_first_chapter(page: Page) -> None:
    visit(page, "book/index.html")
    link = page.locator(".prev-next-footer a.right-next")
    assert link.get_attribute("href") == "01-basic-concepts.html"


def test_every_equation_of_the_map_is_a_box_and_every_step_a_link(page: Page) -> None:
    way = tomllib.loads((ROOT / "book" / "way.toml").read_text(encoding="utf-8"))
    visit(page, "book/one-page.html")
    read = "(links) => links.map((a) => [a.getAttribute('href'), a.getAttribute('aria-label')])"
    boxes = page.locator("svg.way a.box").evaluate_all(read)
    steps = page.locator("svg.way a.step").evaluate_all(read)
    assert {urldefrag(href)[1] for href, _ in boxes} == {
        f"equation-{b['label']}" for b in way["box"]
    }
    reasons = sorted(f"equation-{s.get('by', s['to'])}" for s in way["step"])
    assert sorted(urldefrag(href)[1] for href, _ in steps) == reasons
    for href, name in boxes + steps:
        file, anchor = urldefrag(href)
        assert name
        assert f'id="{anchor}"' in (HTML / "book" / file).read_text(encoding="utf-8")
    first = page.locator("svg.way a.box").first
    first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/02-policy-gradient.html#equation-*")


def test_archives_hold_what_the_page_says(page: Page) -> None:
    visit(page, "book/index.html")
    links = page.locator("a.download").evaluate_all("(links) => links.map((a) => a.href)")
    files = {Path(unquote(urlsplit(link).path)).name: urlsplit(link).path for link in links}
    assert {"ppo-line-by-line.zip", "ppo_lib.zip", "ppo.py"} <= files.keys()
    with zipfile.ZipFile(unquote(files["ppo-line-by-line.zip"])) as archive:
        names = set(archive.namelist())
        inside = {"README.md", "requirements.txt", "book/01-basic-concepts.ipynb"}
        assert {f"ppo-line-by-line/{name}" for name in inside} <= names
        assert not [name for name in names if "_build" in name or ".venv" in name]
    with zipfile.ZipFile(unquote(files["ppo_lib.zip"])) as archive:
        assert {"ppo_lib/pyproject.toml", "ppo_lib/ppo_lib/ppo.py"} <= set(archive.namelist())


@pytest.mark.parametrize("deck", DECKS, ids=lambda deck: deck.stem)
def test_slides_turn_and_ask_nothing_of_the_network(page: Page, deck: Path) -> None:
    listener = Listener(page)
    page.goto(deck.as_uri())
    page.evaluate(SETTLED)
    last = page.locator(".slide").count()
    assert last > 6
    place = page.locator("#place")
    assert place.text_content() == f"1 / {last}"
    page.keyboard.press("ArrowRight")
    assert place.text_content() == f"2 / {last}"
    page.keyboard.press("End")
    assert place.text_content() == f"{last} / {last}"
    page.get_by_role("button", name="Back").click()
    assert place.text_content() == f"{last - 1} / {last}"
    assert page.locator(".slide.here").count() == 1
    assert not page.locator("mjx-merror").count()
    missing = "(images) => images.filter((i) => i.complete && !i.naturalWidth).length"
    assert page.locator("img").evaluate_all(missing) == 0
    assert not listener.faults


@pytest.mark.parametrize("deck", DECKS[4::7], ids=lambda deck: deck.stem)
def test_slides_can_be_read_by_everybody(page: Page, deck: Path) -> None:
    page.goto(deck.as_uri())
    page.evaluate(SETTLED)
    found = violations(page)
    page.set_viewport_size({"width": 390, "height": 844})
    assert not found + violations(page)


def test_there_is_a_deck_for_each_chapter() -> None:
    assert [d.stem for d in DECKS] == [p.stem for p in sorted((ROOT / "book").glob("[01]*.ipynb"))]
