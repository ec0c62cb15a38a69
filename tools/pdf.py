"""Print the built book as one PDF: ``make pdf``, after ``make book``.

All pages are put one behind the other into one page, so that references between chapters are
links and headings become the outline, and Chromium prints it.  It is printed twice, since only a
printed book knows the numbers of its pages, which the table of contents needs.  Solutions are open,
the code of the checks is left out and their verdicts stay; films stand still.
"""

import os
import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from html import escape
from pathlib import Path

import yaml
from bs4 import BeautifulSoup, Tag
from playwright.sync_api import Page, sync_playwright
from pypdf import PdfReader, PdfWriter
from pypdf.generic import DictionaryObject, NameObject, TextStringObject

ROOT = Path(__file__).resolve().parents[1]
HTML = ROOT / "_build" / "html"
BOUND = HTML / "book" / "bound.html"  #: where the pages' own paths to pictures and styles hold
BOOK = ROOT / "_build" / "ppo-line-by-line.pdf"
COLUMNS = 8  #: of a table that becomes a list
LINE = re.compile(r"(?P<page>[\w-]+)\.html(?:#(?P<anchor>.+))?")
#: What a page has that a printed book does not.
LEFT_OUT = ".widget, .headerlink, details.hide, script, .sd-card-footer, .doors, button"
STYLE = """
@page { size: A4; margin: 20mm 18mm 22mm; @bottom-center { content: counter(page);
  font: 9pt "DejaVu Sans", sans-serif; } }
@page :first { @bottom-center { content: none; } }
html { font-size: 12px; }
h1 { font-size: 2rem; }
h2 { font-size: 1.5rem; }
h3 { font-size: 1.2rem; }
body { background: #fff; }
article.bd-article { padding: 0; }
.leaf { break-after: page; }
.cover { height: 235mm; display: flex; flex-direction: column; justify-content: center;
  align-items: flex-start; }
.cover h1 { font-size: 3.4rem; margin: 0 0 1rem; }
.cover img { max-width: 60mm; margin: 2rem 0; }
.contents p { display: flex; margin: 0.25rem 0; }
.contents p.part { font-weight: 600; margin-top: 1rem; }
.contents a { color: inherit; text-decoration: none; }
.contents i { flex: 1; border-bottom: 1px dotted #888; margin: 0 0.4rem 0.25rem; }
.pst-scrollable-table-container, div.highlight pre, div.math { overflow: visible !important; }
table.table { font-size: 0.85em; break-inside: auto !important; }
table.table code { white-space: normal !important; overflow-wrap: anywhere; }
tr { break-inside: avoid; }
td, th { min-width: 0 !important; }
table.table, table.table:has(th:nth-child(5)) {
  max-width: 100% !important; width: 100% !important; }
table.table:has(th:nth-child(5)) { font-size: 0.75em; }
table.table td { max-width: none !important; }
table.list, table.list :is(tbody, tr, td) { display: block; border: 0; padding: 0.05rem 0; }
table.list thead { display: none; }
table.list tr { border-top: 1px solid #c8ccd0; padding: 0.4rem 0; break-inside: avoid; }
table.list td > p { display: inline; }
table.list td > b.head { display: inline !important; margin-right: 0.4rem;
  color: #555; font-weight: normal; }
svg.way { height: 232mm !important; width: auto !important; max-width: 100% !important; }
p.verdict { color: #1d6f42; margin: 0.3rem 0; }
figure img, img { max-width: 100% !important; max-height: 150mm; width: auto; height: auto; }
.eqno { float: right; }
div.cell_input:has(pre) { break-inside: auto; }
"""


def files() -> list[tuple[str, list[str]]]:
    """The pages of each part, as their files' names without the suffix, with the part's caption."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    parts = [("", [toc["root"]])]
    parts += [
        (part.get("caption", ""), [c["file"] for c in part["chapters"]]) for part in toc["parts"]
    ]
    return [(caption, [Path(file).name for file in pages]) for caption, pages in parts]


def article_of(name: str) -> tuple[Tag, BeautifulSoup]:
    """The text of a page, with anchors of its own, and the whole page."""
    soup = BeautifulSoup(
        (HTML / "book" / f"{name}.html").read_text(encoding="utf-8"), "html.parser"
    )
    article = soup.find("article", class_="bd-article")
    for node in article.select(LEFT_OUT):
        node.decompose()
    for verdict in article.select("details.verdict"):
        line = verdict.summary.extract()
        line.name, line["class"] = "p", "verdict"
        add_number(line, article)
        verdict.replace_with(line)
    for table in article.find_all("table") if name == "ledger" else ():
        list_rows(table)
    for node in article.find_all(id=True):
        node["id"] = f"{name}--{node['id']}"
    for node in article.find_all(attrs={"marker-end": True}):
        node["marker-end"] = node["marker-end"].replace("(#", f"(#{name}--")
    for link in article.find_all("a", href=True):
        link["href"] = anchor(name, link["href"])
    article["id"] = name
    return article, soup


def list_rows(table: Tag) -> None:
    """Make a list of a table whose formulas are too long for a column of paper."""
    heads = [head.get_text() for head in table.select("thead th")]
    if len(heads) < COLUMNS:
        return
    table["class"] = [*table.get("class", []), "list"]
    for row in table.select("tbody tr"):
        for head, cell in list(zip(heads, row.find_all("td"), strict=True))[1:]:
            if not cell.get_text().strip():
                cell.decompose()
                continue
            name = BeautifulSoup(f'<b class="head">{escape(head)}:</b>', "html.parser")
            cell.insert(0, name)


def add_number(line: Tag, article: Tag) -> None:
    """Put the number of its equation before a verdict, as the page does with a script."""
    link = line.find("a", href=True)
    equation = article.find(id=link["href"].lstrip("#")) if link else None
    number = equation.select_one(".eqno") if equation else None
    if number:
        label = link.get_text()
        link.string = number.get_text()
        link.insert_after(f" {label}")


def anchor(name: str, link: str) -> str:
    """A link as it reads in the bound book."""
    if link.startswith("#"):
        return f"#{name}--{link[1:]}"
    match = LINE.fullmatch(link)
    if not match:
        return link
    return f"#{match['page']}--{match['anchor']}" if match["anchor"] else f"#{match['page']}"


def bind(numbers: dict[str, int]) -> str:
    """The book as one page.

    Args:
        numbers: the page on which each chapter begins, by the name of its file, or none yet.
    """
    contents, articles, head = [], [], ""
    for caption, names in files():
        if caption:
            contents.append(f'<p class="part">{escape(caption)}</p>')
        for name in names:
            article, soup = article_of(name)
            head = head or "".join(
                str(node)
                for node in soup.head.find_all(["link", "style", "script"])
                if node.name != "script" or "mathjax" in str(node).lower()
            )
            title = article.find("h1").get_text() if caption else "About this book"
            contents.append(
                f'<p><a href="#{name}">{escape(title)}</a><i></i>{numbers.get(name, "")}</p>'
            )
            articles.append(f'<div class="leaf"></div>{article}')
    today = datetime.now(UTC).date()
    return f"""<!DOCTYPE html>
<html lang="en" data-theme="light"><head><meta charset="utf-8"><title>PPO, line by line</title>
{head}<style>{STYLE}</style></head><body>
<section class="cover"><h1>PPO, line by line</h1><p>A derivation that checks itself.</p>
<img src="../_static/ridge.svg" alt=""><p>Printed on {today:%d %B %Y}.
The text is under CC BY 4.0, the code under the MIT License.</p></section>
<div class="leaf"></div><section class="contents"><h1>Contents</h1>{"".join(contents)}</section>
<main>{"".join(articles)}</main></body></html>
"""


def print_book(page: Page, numbers: dict[str, int]) -> None:
    """Bind, set the mathematics, and print."""
    BOUND.write_text(bind(numbers), encoding="utf-8")
    page.emulate_media(media="print", reduced_motion="reduce")
    page.goto(BOUND.as_uri())
    page.evaluate("async () => { await MathJax.startup.promise; await document.fonts.ready; }")
    page.pdf(path=BOOK, prefer_css_page_size=True, print_background=True, outline=True, tagged=True)
    titles = page.locator("h1, h2, h3, h4, h5, h6").all_text_contents()
    name_outline([title.strip() for title in titles])


def name_outline(titles: list[str]) -> None:
    """Give the outline the words of the headings, which Chromium writes twice.

    Args:
        titles: of all headings, in the order of the book.
    """
    writer = PdfWriter(clone_from=BOOK)
    entries = list(outline_of(writer.root_object["/Outlines"]))
    if len(entries) != len(titles):
        return
    for entry, title in zip(entries, titles, strict=True):
        entry[NameObject("/Title")] = TextStringObject(title)
    writer.write(BOOK)


def outline_of(parent: DictionaryObject) -> Iterator[DictionaryObject]:
    """The entries below one, each before those below it."""
    entry = parent.get("/First")
    while entry is not None:
        found = entry.get_object()
        yield found
        yield from outline_of(found)
        entry = found.get("/Next")


def first_pages() -> dict[str, int]:
    """The page on which each anchor of the printed book stands; a chapter's is its file's name."""
    reader = PdfReader(BOOK)
    named = reader.named_destinations
    return {
        name.lstrip("/"): reader.get_destination_page_number(place) + 1
        for name, place in named.items()
    }


def main() -> None:
    """Print twice, and say where the book is."""
    chromium = shutil.which(os.environ.get("CHROMIUM", "chromium"))
    if not chromium:
        raise SystemExit("no chromium: install Chromium, or name it with CHROMIUM=PATH")
    if not (HTML / "index.html").is_file():
        raise SystemExit(f"no pages in {HTML}: run `make book` first")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(300_000)
        print_book(page, {})
        print_book(page, first_pages())
        browser.close()
    BOUND.unlink()
    size, pages = BOOK.stat().st_size / 1e6, len(PdfReader(BOOK).pages)
    print(f"{BOOK.relative_to(ROOT)}: {pages} pages, {size:.1f} MB")


if __name__ == "__main__":
    main()
