"""The built pages in a real browser: `make test-browser`, after `make book`."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = os.environ.get("CHROMIUM", "chromium")
HTML = Path(__file__).resolve().parents[2] / "_build" / "html"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Pictures are for people to look at, and only made when asked for."""
    parser.addoption("--screenshots", metavar="DIR", help="store pictures of all pages here")


def pytest_configure() -> None:
    """Say in plain words what is missing, before anything runs."""
    if not shutil.which(CHROMIUM):
        message = f"no {CHROMIUM}: install Chromium, or name it with CHROMIUM=PATH"
        raise pytest.UsageError(message)
    if not (HTML / "index.html").is_file():
        raise pytest.UsageError(f"no pages in {HTML}: run `make book` first")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, headless: $CHROMIUM, or the one that is installed."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=shutil.which(CHROMIUM), args=["--no-sandbox"]
        )
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A tab of its own, as wide as a laptop."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    yield context.new_page()
    context.close()
