"""A Sphinx extension: a deck of slides for each chapter, made from its built page.

A deck is a file of its own in ``slides`` beside the pages, with their mathematics, pictures and
numbers: the question of the chapter, then for each section its first words, its equations with the
words before them, its figures, its short cells with what they print, and the exercises.
"""

import re
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from copy import copy
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from bs4 import BeautifulSoup, Tag
from docutils.nodes import make_id
from sphinx.application import Sphinx

CHAPTER = re.compile(r"\d\d-[\w-]+\.html")
LINES = 14  #: of a cell that a slide shows
ROOM = 0.9  #: of a slide, before its letters shrink
SKIPPED = {"Summary"}
SLIDE = re.compile(r'<section class="slide" id="slide-(\d+)" data-in="([^"]*)"')
LINK = re.compile(
    r'<a class="slides" href="../slides/(?P<deck>[^"]+)"'
    r' data-sections="(?P<sections>[^"]+)">slides</a>'
)


class Slide(NamedTuple):
    """One slide: the title of its section, what stands below, and the names of those around it."""

    title: str
    parts: list[str]
    names: list[str]


def slides_of(article: Tag) -> Iterator[Slide]:
    """The slides of a chapter, in the order of its page."""
    chapter = article.find("section")
    title = inner(chapter.find("h1"))
    opening = [str(p) for p in before_sections(chapter) if p.name in ("p", "ul")]
    yield Slide(title, opening[:1], [])
    goals = [part for part in opening[1:] if part.startswith("<ul")]
    if goals:
        yield Slide("After this chapter you can", goals[:1], [])
    for section in chapter.find_all("section", recursive=False):
        yield from slides_of_section(section)


def before_sections(chapter: Tag) -> Iterator[Tag]:
    """What a chapter says before its first section."""
    for child in chapter.find_all(True, recursive=False):
        if child.name == "section":
            return
        yield child


def slides_of_section(section: Tag) -> Iterator[Slide]:
    """The slides of a section, and of those in it: as many pieces on each as there is room for."""
    title = inner(heading(section))
    if heading(section).get_text().rstrip("#") in SKIPPED:
        return
    around = [*section.find_parents("section")[:-1], section]
    titles = [heading(each).get_text().rstrip("#").replace("’", "'") for each in around]
    names = [make_id(title) for title in titles]
    parts: list[str] = []
    room = ROOM
    for piece in pieces(section):
        need = sum(size(part) for part in piece)
        if parts and need > room:
            yield Slide(title, parts, names)
            parts, room = [], ROOM
        parts += piece
        room -= need
    if parts:
        yield Slide(title, parts, names)
    for inside in section.find_all("section", recursive=False):
        yield from slides_of_section(inside)


def pieces(section: Tag) -> Iterator[list[str]]:
    """What a section shows, each with the paragraph before it; first, the words it opens with."""
    said: list[str] = []
    opening = True
    for child in section.find_all(True, recursive=False):
        if child.name == "p":
            if opening and said:
                yield said
                opening = False
            said = [str(child)]
        elif shown := list(worth_showing(child)):
            yield [*said, *shown]
            said, opening = [], False
        elif "widget" in child.get("class", []):
            said = []  # what moves stays on the page
    if opening and said:
        yield said


def size(part: str) -> float:
    """How much of a slide a part of it fills, about."""
    if "<img" in part:
        return 0.8
    text = BeautifulSoup(part, "html.parser").get_text().strip()
    if "<pre" in part:
        return 0.1 + 0.05 * len(text.splitlines())
    if part.startswith('<div class="math'):
        return 0.1 + 0.09 * text.count("\\\\")
    return 0.05 + len(text) / 1400


def worth_showing(block: Tag) -> Iterator[str]:
    """What a slide shows of a block: equation, table, box, exercise, figure, or a short cell."""
    classes = block.get("class", [])
    box = "admonition" in classes and "solution" not in classes
    if box or block.name == "figure" or {"math", "pst-scrollable-table-container"} & set(classes):
        yield str(block)
    elif "cell" in classes:
        figures = block.find_all("figure")
        yield from (str(figure) for figure in figures)
        code = block.select_one(".cell_input pre")
        folded = block.find("details", class_="hide") is not None
        output = block.select_one(".cell_output .stream, .cell_output .text_plain")
        if not figures and code and not folded and output:
            if len(code.get_text().strip().splitlines()) <= LINES:
                yield str(block.select_one(".cell_input"))
            yield str(output)


def heading(section: Tag) -> Tag:
    """The heading of a section."""
    return section.find(["h2", "h3"])


def inner(title: Tag) -> str:
    """The words of a heading, without the link to itself."""
    title = copy(title)
    for link in title.select("a.headerlink"):
        link.decompose()
    return title.decode_contents().strip()


def deck(page: Path) -> str:
    """A whole deck as HTML.

    Args:
        page: the built page of the chapter.
    """
    soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    article = soup.find("article", class_="bd-article")
    slides = list(slides_of(article))
    mathjax = [str(s) for s in soup.find_all("script") if "mathjax" in str(s).lower()]
    name = BeautifulSoup(slides[0].title, "html.parser").get_text()
    sections = []
    for number, slide in enumerate(slides, 1):
        level = "h1" if number == 1 else "h2"
        sections.append(
            f'<section class="slide" id="slide-{number}" data-in="{" ".join(slide.names)}">'
            '<div class="content">'
            f"<{level}>{slide.title}</{level}>{''.join(slide.parts)}</div></section>"
        )
    html = f"""<!DOCTYPE html>
<html lang="en" data-theme="light">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(name)} · slides</title>
<link rel="stylesheet" href="../_static/pygments.css">
<link rel="stylesheet" href="../_static/slides/slides.css">
{"".join(mathjax)}
<script defer src="../_static/slides/slides.js"></script>
</head>
<body>
<main class="mathjax_ignore">
{"".join(sections)}
</main>
<nav aria-label="Slides">
<a href="../book/{page.name}">the chapter</a>
<button type="button" id="back" aria-label="Back">‹</button>
<output id="place" aria-label="Slide"></output>
<button type="button" id="on" aria-label="On">›</button>
</nav>
</body>
</html>
"""
    return re.sub(r'href="([^"]*)"', lambda m: f'href="{moved(m[1], page.name)}"', html)


def numbered(page: str, folder: Path) -> str:
    """The page for teachers, in which links to slides say which ones they are.

    Args:
        page: its HTML.
        folder: where the decks are.

    Raises:
        ValueError: if a section that is named there has no slide.
    """

    def number(link: re.Match[str]) -> str:
        slides = SLIDE.findall((folder / link["deck"]).read_text(encoding="utf-8"))
        ends = []
        for section in link["sections"].split():
            inside = [int(n) for n, names in slides if section in names.split()]
            if not inside:
                raise ValueError(f"{link['deck']} has no slide of {section}")
            ends += [inside[0], inside[-1]]
        first, last = ends[0], ends[-1]
        name = f"{first} to {last}" if last > first else f"{first}"
        return f'<a class="slides" href="../slides/{link["deck"]}#slide-{first}">{name}</a>'

    return LINK.sub(number, page)


def moved(link: str, page: str) -> str:
    """A link of a page, as it reads from the folder of the decks."""
    if link.startswith("#"):
        return f"../book/{page}{link}"
    if re.match(r"\w+:|\.\./", link):
        return link
    return f"../book/{link}"


def make(app: Sphinx, error: Any) -> None:
    """Write the decks of all chapters that were built."""
    if error or app.builder.format != "html":
        return
    folder = Path(app.outdir, "slides")
    folder.mkdir(exist_ok=True)
    pages = [p for p in sorted(Path(app.outdir, "book").glob("*.html")) if CHAPTER.match(p.name)]
    with ProcessPoolExecutor(2) as executor:
        for page, html in zip(pages, executor.map(deck, pages), strict=True):
            (folder / page.name).write_text(html, encoding="utf-8")
    plans = Path(app.outdir, "book", "for-teachers.html")
    if plans.is_file():
        plans.write_text(numbered(plans.read_text(encoding="utf-8"), folder), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Run when every page has been written."""
    app.connect("build-finished", make)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
