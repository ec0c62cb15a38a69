"""Open every built page in headless Chromium, as a file, and report what is wrong with it.

Usage: ``python tools/browse.py _build/html [--screenshots DIR] [--chromium PATH]``

A fault is: a request that leaves the folder or finds no file, an error in the console, TeX that
was not turned into mathematics, a reference that was not resolved, a picture that is missing or
has no alt text, a link inside the book that leads nowhere, a page wider than a phone of 390
pixels, a search that finds nothing.  The exit status is 1 if there is any.
"""

import argparse
import base64
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urldefrag, urlsplit

from websocket import WebSocket, WebSocketTimeoutException, create_connection

WIDE, PHONE = (1280, 900), (390, 844)
SLICE = 1800  # pixels of a page in one picture: more cannot be read
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
]

#: What a page is asked once its mathematics are set.
INSPECT = r"""
(() => {
  const faults = [];
  const short = (text) => text.trim().replace(/\s+/g, " ").slice(0, 80);
  for (const node of document.querySelectorAll("mjx-merror, [data-mjx-error]"))
    faults.push("TeX error: " + short(node.getAttribute("data-mjx-error") || node.textContent));
  for (const node of document.querySelectorAll(".math"))
    if (!node.querySelector("mjx-container")) faults.push("TeX left: " + short(node.textContent));
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const parent = walker.currentNode.parentElement;
    if (parent.closest("code, pre, script, style, noscript, textarea, mjx-container")) continue;
    const text = walker.currentNode.textContent;
    if (/\$|\\\(|\\\[|\\begin\{/.test(text)) faults.push("TeX left: " + short(text));
    if (text.includes("???")) faults.push("unresolved: " + short(parent.textContent));
    if (/\{(eq|ref|numref|cite|doc)[^}]*\}`/.test(text)) faults.push("role left: " + short(text));
  }
  for (const image of document.images) {
    const name = image.src.slice(0, 4) === "data" ? "data:" : image.src.split("/").pop();
    const alt = image.getAttribute("alt");
    // Sphinx writes the path where there is no text; beside its own words a logo may have none.
    const words = alt && !/\.(png|svg|jpe?g|gif)$/.test(alt);
    if (image.closest("article") ? !words : alt === null) faults.push("no alt text: " + name);
    if (image.complete && !image.naturalWidth) faults.push("picture missing: " + name);
  }
  return {
    faults,
    title: document.title,
    ids: [...document.querySelectorAll("[id]")].map((node) => node.id),
    links: [...document.querySelectorAll("a[href]")].map((node) => node.href),
    mathematics: document.querySelectorAll("mjx-container").length,
  };
})()
"""

#: The elements that make a page wider than its window, those inside a scrolling box left out.
OVERFLOW = r"""
(() => {
  const root = document.scrollingElement;
  if (root.scrollWidth <= window.innerWidth) return [];
  const scrolls = (node) => {
    for (let up = node.parentElement; up && up !== document.body; up = up.parentElement)
      if (getComputedStyle(up).overflowX !== "visible") return true;
    return false;
  };
  const wide = [...document.body.querySelectorAll("*")].filter(
    (node) => node.getBoundingClientRect().right > window.innerWidth + 1 && !scrolls(node));
  const names = wide.slice(0, 3).map((node) => node.tagName + "." + node.className);
  return [root.scrollWidth + " px wide: " + (names.join(", ") || "?")];
})()
"""

SETTLED = r"""
(async () => {
  if (document.readyState !== "complete")
    await new Promise((done) => addEventListener("load", done, { once: true }));
  if (window.MathJax?.startup?.promise) await window.MathJax.startup.promise;
  await document.fonts.ready;
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
})()
"""


class Browser:
    """A headless Chromium with one tab, spoken to over its debugging protocol."""

    def __init__(self, chromium: str) -> None:
        self.profile = Path(tempfile.mkdtemp(prefix="book-pages-"))
        self.process = subprocess.Popen(
            [chromium, *FLAGS, f"--user-data-dir={self.profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.count = 0
        self.events: list[dict[str, Any]] = []
        self.socket = self._connect()
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def _connect(self) -> WebSocket:
        written = self.profile / "DevToolsActivePort"
        deadline = time.monotonic() + 60
        while not (written.is_file() and written.read_text().strip()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("Chromium did not start")
            time.sleep(0.1)
        port = written.read_text().split()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as reply:
            tab = next(target for target in json.load(reply) if target["type"] == "page")
        return create_connection(tab["webSocketDebuggerUrl"], timeout=60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        self.process.terminate()
        self.process.wait(timeout=30)
        shutil.rmtree(self.profile, ignore_errors=True)

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; what happens meanwhile joins ``events``."""
        self.count += 1
        self.socket.send(json.dumps({"id": self.count, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == self.count:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']['message']}")
                return message["result"]
            if "method" in message:
                self.events.append(message)

    def listen(self, seconds: float) -> None:
        """Gather the events of the next moments."""
        deadline = time.monotonic() + seconds
        try:
            while (left := deadline - time.monotonic()) > 0:
                self.socket.settimeout(left)
                self.events.append(json.loads(self.socket.recv()))
        except WebSocketTimeoutException:
            pass
        finally:
            self.socket.settimeout(60)

    def ask(self, script: str) -> Any:
        """The value of a JavaScript expression; a promise is waited for."""
        reply = self.send(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in reply:
            raise RuntimeError(str(reply["exceptionDetails"]))
        return reply["result"].get("value")

    def window(self, size: tuple[int, int], scheme: str = "light") -> None:
        """Take the size of a screen, in CSS pixels, and a colour scheme."""
        width, height = size
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.send("Emulation.setEmulatedMedia", features=[feature])

    def open(self, url: str) -> None:
        """Open a page and wait until its mathematics and its fonts are there."""
        self.events.clear()
        self.send("Page.navigate", url=url)
        deadline = time.monotonic() + 60
        while self.ask("location.href + document.readyState").startswith("about:blank"):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{url} did not open")
            time.sleep(0.05)
        self.listen(0.1)
        self.ask(SETTLED)

    def picture(self, stem: Path) -> None:
        """Store the whole page as PNG, one window after another, as a reader scrolls."""
        window, page = self.ask("[innerHeight, document.scrollingElement.scrollHeight]")
        for i, top in enumerate(range(0, page, window)):
            self.ask(f"scrollTo({{top: {top}, behavior: 'instant'}}), {SETTLED}")
            shot = self.send("Page.captureScreenshot")
            stem.with_name(f"{stem.name}-{i:02d}.png").write_bytes(base64.b64decode(shot["data"]))


def trouble(events: list[dict[str, Any]]) -> list[str]:
    """The requests that left the folder or failed, and the errors of the console."""
    found, urls = [], {}
    for event in events:
        name, params = event["method"], event["params"]
        if name == "Network.requestWillBeSent":
            url = urls[params["requestId"]] = params["request"]["url"]
            if urlsplit(url).scheme not in ("file", "data", "blob", "about"):
                found.append(f"outside request: {url}")
        elif name == "Network.loadingFailed":
            url = urls.get(params["requestId"], "?")
            found.append(f"request failed: {url} {params['errorText']}")
        elif name == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            thrown = details.get("exception", {}).get("description", details["text"])
            found.append(f"exception: {thrown.splitlines()[0]}")
        elif name == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
            said = [str(arg.get("value", arg.get("description"))) for arg in params["args"]]
            found.append(f"console error: {' '.join(said)[:200]}")
        elif name == "Log.entryAdded" and params["entry"]["level"] == "error":
            found.append(f"console error: {params['entry']['text'][:200]}")
    return found


def dead_links(pages: dict[str, dict[str, Any]], root: Path) -> dict[str, list[str]]:
    """For each page the links inside the book whose file or anchor does not exist."""
    dead: dict[str, list[str]] = {}
    for name, page in pages.items():
        for link in page["links"]:
            if urlsplit(link).scheme != "file":
                continue
            file, anchor = urldefrag(link)
            path = Path(unquote(urlsplit(file).path))
            target = path.relative_to(root).as_posix() if path.is_relative_to(root) else ""
            known = pages.get(target)
            if not target or not path.is_file():
                dead.setdefault(name, []).append(f"dead link: {link}")
            elif known and anchor and unquote(anchor) not in known["ids"]:
                dead.setdefault(name, []).append(f"dead anchor: {target}#{unquote(anchor)}")
    return dead


def search(browser: Browser, root: Path, word: str) -> list[str]:
    """Type a word into the page of search, and see that it finds a page that exists."""
    browser.open((root / "search.html").as_uri() + f"?q={word}")
    results = "[...document.querySelectorAll('#search-results li a')].map((a) => a.href)"
    deadline = time.monotonic() + 15
    while not (links := browser.ask(results)) and time.monotonic() < deadline:
        browser.listen(0.2)
    browser.listen(1.0)
    faults = trouble(browser.events)
    if not links:
        faults.append(f"search for {word!r} finds nothing")
    for link in links:
        if not Path(unquote(urlsplit(link).path)).is_file():
            faults.append(f"search for {word!r} finds a page that does not exist: {link}")
    return faults


def main() -> int:
    """Open every page, print a line for each and for each of its faults."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("html", type=Path, help="the built folder")
    parser.add_argument("--screenshots", type=Path, metavar="DIR", help="store pictures here")
    parser.add_argument("--chromium", default="chromium", help="the browser to run")
    parser.add_argument("--word", default="trajectory", help="what to search for")
    arguments = parser.parse_args()
    root = arguments.html.resolve()
    files = sorted(root.rglob("*.html"))
    files = [file for file in files if "_static" not in file.relative_to(root).parts]
    if not files:
        parser.error(f"no page in {root}; run `make book` first")
    if not shutil.which(arguments.chromium):
        parser.error(f"no {arguments.chromium}; install Chromium or name it with --chromium PATH")
    if arguments.screenshots:
        arguments.screenshots.mkdir(parents=True, exist_ok=True)

    pages: dict[str, dict[str, Any]] = {}
    faults: dict[str, list[str]] = {}
    with Browser(arguments.chromium) as browser:
        for file in files:
            name = file.relative_to(root).as_posix()
            if 'http-equiv="Refresh"' in file.read_text(encoding="utf-8"):
                continue
            browser.window(WIDE)
            browser.open(file.as_uri())
            pages[name] = browser.ask(INSPECT)
            browser.window(PHONE)
            browser.listen(0.3)
            overflow = browser.ask(OVERFLOW)
            faults[name] = pages[name]["faults"] + trouble(browser.events) + overflow
            if not arguments.screenshots:
                continue
            for scheme in ("light", "dark"):
                for kind, (width, _) in (("wide", WIDE), ("phone", PHONE)):
                    browser.window((width, SLICE), scheme)
                    browser.open(file.as_uri())
                    stem = name.removesuffix(".html").replace("/", "-")
                    browser.picture(arguments.screenshots / f"{stem}-{kind}-{scheme}")
        faults["search.html"] += search(browser, root, arguments.word)
    for name, dead in dead_links(pages, root).items():
        faults[name] += dead

    for name, found in faults.items():
        print(f"{name}: {pages[name]['mathematics']} formulas, {len(found)} faults")
        for fault in found:
            print(f"  {fault}")
    total = sum(map(len, faults.values()))
    print(f"{len(pages)} pages, {total} faults")
    return total > 0


if __name__ == "__main__":
    sys.exit(main())
