"""The book against its own rules: pages, cells, pictures, labels and the checks under them."""

import contextlib
import io
import re
import statistics
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import ledger
import nbformat
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
BOOK = ROOT / "book"
NOTEBOOKS = sorted(BOOK.glob("*.ipynb"))
PAGES = sorted([*BOOK.glob("*.md"), *NOTEBOOKS])

MAX_LINES, MAX_MEDIAN = 25, 9

#: The chapter of each statement's equation.
CHAPTER = {statement.label: statement.chapter for statement in ledger.statements()}

FENCE = re.compile(r"^(`{3,}|~{3,})[ \t]*(\S*).*?\n(.*?)^\1[ \t]*$", re.MULTILINE | re.DOTALL)
CODE_OR_ROLE = re.compile(r"(\{[\w:-]+\})?(`+)(?!`).+?(?<!`)\2(?!`)")
DEFINED = re.compile(r"\$\$[ \t]*\((eq-[\w-]+)\)[ \t]*$|^:label:[ \t]*(eq-[\w-]+)", re.MULTILINE)
REFERRED = re.compile(r"\{eq\}`(?:[^`<]*<)?([\w-]+)>?`")
LABEL = re.compile(r"\beq-[a-z][a-z0-9-]*")
VERDICT = re.compile(
    r"✓ (eq-[a-z][a-z0-9-]*) · (?:"
    r"(?:exact to 1e-\d\d|estimate, \d+ samples, within \d+(?:\.\d+)? standard errors)"
    r" · rejects: \S.*"
    r"|printed · rejects \d+ of \d+ one-token changes(?:; \d+ change nothing: \S.*?)?"
    r"(?: · source: \S.*)?)"
)
LEFT_IN = re.compile(r"\b(?:TODO|FIXME|XXX|TBD)\b|lorem ipsum", re.IGNORECASE)


def name(path: Path) -> str:
    return path.name


def code_cells(path: Path) -> list[Any]:
    """The code cells of a notebook that are not empty."""
    cells = nbformat.read(path, as_version=4).cells
    return [cell for cell in cells if cell.cell_type == "code" and cell.source.strip()]


def texts(path: Path) -> list[str]:
    """The Markdown of a page, cell by cell."""
    if path.suffix == ".md":
        return [path.read_text(encoding="utf-8")]
    cells = nbformat.read(path, as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == "markdown"]


def prose(path: Path) -> str:
    """The Markdown of a page without its examples of code; the text of directives stays."""

    def keep(fence: re.Match[str]) -> str:
        return fence[3] if fence[2].startswith("{") else ""

    text = FENCE.sub(keep, FENCE.sub(keep, "\n\n".join(texts(path))))
    return CODE_OR_ROLE.sub(lambda code: code[0] if code[1] else "", text)


def defined(path: Path) -> list[str]:
    """The labels of the equations of a page."""
    return [first or second for first, second in DEFINED.findall(prose(path))]


def verdicts(path: Path) -> list[str]:
    """The labels that the checks of a notebook have printed a verdict for."""
    return [match[1] for line in ledger.lines_of(path) if (match := VERDICT.fullmatch(line))]


@pytest.fixture(scope="module")
def labels() -> list[str]:
    """The labels of all equations of the book, one entry a definition."""
    return [label for path in PAGES for label in defined(path)]


# -- pages ---------------------------------------------------------------------------------


def test_toc_lists_exactly_the_pages() -> None:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    chapters = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    listed = [toc["root"], *chapters]
    assert sorted(listed) == sorted(f"book/{path.stem}" for path in PAGES)
    numbers = [int(match[1]) for file in listed if (match := re.match(r"book/(\d\d)-", file))]
    assert all(first < second for first, second in pairwise(numbers)), "chapters out of order"


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_page_has_one_title_and_text(path: Path) -> None:
    text = prose(path)
    assert len(re.findall(r"^# \S", text, re.MULTILINE)) == 1, "expected exactly one title"
    body = re.sub(r"^#.*$", "", text, flags=re.MULTILINE)
    assert len(body.split()) > 10, "the page is empty"


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_nothing_is_left_in(path: Path) -> None:
    sources = texts(path)
    if path.suffix == ".ipynb":
        sources += [cell.source for cell in code_cells(path)]
    assert not [match[0] for source in sources for match in LEFT_IN.finditer(source)]


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_written_pictures_have_alt_text(path: Path) -> None:
    text = "\n\n".join(texts(path))
    assert not re.findall(r"!\[\s*\]\([^)]*\)", text), "a picture without alt text"
    for fence in FENCE.finditer(text):
        if fence[2] in ("{figure}", "{image}"):
            assert re.search(r"^:alt:[ \t]*\S", fence[3], re.MULTILINE), fence[0]


def test_front_page_shows_what_its_code_prints() -> None:
    fences = list(FENCE.finditer((BOOK / "index.md").read_text(encoding="utf-8")))
    pairs = [(a[3], b[3]) for a, b in pairwise(fences) if (a[2], b[2]) == ("python", "text")]
    assert pairs, "the front page shows no check"
    for code, shown in pairs:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(code, {})
        assert out.getvalue() == shown


# -- cells ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_cells_were_run_and_did_not_fail(path: Path) -> None:
    cells = code_cells(path)
    counts = [cell.execution_count for cell in cells]
    assert counts == list(range(1, len(cells) + 1)), "run it from its first cell: make execute"
    for cell in cells:
        meant = "raises-exception" in cell.metadata.get("tags", [])
        assert meant or not [out for out in cell.outputs if out.output_type == "error"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_cells_are_short(path: Path) -> None:
    cells = code_cells(path)
    lengths = [len([line for line in cell.source.splitlines() if line]) for cell in cells]
    assert max(lengths) <= MAX_LINES
    # The checks of the print stand folded behind the chapter, and say what its symbols mean.
    taught = [n for n, c in zip(lengths, cells, strict=True) if not c.id.startswith("print-")]
    assert statistics.median(taught) <= MAX_MEDIAN


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_no_cell_hides_its_value_by_a_semicolon(path: Path) -> None:
    # nbval keeps no history, and without it IPython prints the value all the same.
    assert not [c.source for c in code_cells(path) if c.source.rstrip().endswith(";")]


def test_no_two_figures_have_one_name() -> None:
    renders = [cell.metadata.get("mystnb", {}) for path in NOTEBOOKS for cell in code_cells(path)]
    names = [render["figure"]["name"] for render in renders if "figure" in render]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_drawn_pictures_have_alt_text_and_caption(path: Path) -> None:
    names = []
    for cell in code_cells(path):
        kinds = {kind for output in cell.outputs for kind in output.get("data", {})}
        if not any(kind.startswith("image/") for kind in kinds):
            continue
        render = cell.metadata.get("mystnb", {})
        assert render.get("image", {}).get("alt", "").strip(), cell.source
        assert render.get("figure", {}).get("caption", "").strip(), cell.source
        names.append(render["figure"].get("name", ""))
    assert all(name.startswith("fig-") for name in names), names


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_tables_that_a_cell_gives_are_tables_on_the_page(path: Path) -> None:
    for cell in code_cells(path):
        given = [output.get("data", {}).get("text/markdown", "") for output in cell.outputs]
        if any("|---" in text for text in given):
            assert cell.metadata.get("mystnb", {}).get("markdown_format") == "myst", cell.source


# -- equations and their checks ------------------------------------------------------------


def test_each_label_is_defined_once(labels: list[str]) -> None:
    assert not [label for label, count in Counter(labels).items() if count > 1]


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_labels_stand_in_their_chapter(path: Path) -> None:
    for label in defined(path):
        assert re.fullmatch(r"eq-[a-e]\d+|eq-(?=.*[a-z]{3})[a-z0-9-]+", label), label
        if re.fullmatch(r"eq-[a-e]\d+", label):
            assert label in CHAPTER, f"{label} is no statement"
            assert path.name.startswith(f"{CHAPTER[label]:02d}-"), f"{label} is in another chapter"


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_references_to_equations_resolve(path: Path, labels: list[str]) -> None:
    # A caption is text too; it lies in the metadata of its cell.
    text = prose(path)
    if path.suffix == ".ipynb":
        text += "".join(str(cell.metadata.get("mystnb", "")) for cell in code_cells(path))
    assert not set(REFERRED.findall(text)) - set(labels)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_equations_are_checked_where_they_stand(path: Path) -> None:
    assert not set(defined(path)) - set(verdicts(path))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_verdicts_are_whole_and_name_equations(path: Path, labels: list[str]) -> None:
    broken = [
        ln for ln in ledger.lines_of(path) if ln.startswith("✓") and not VERDICT.fullmatch(ln)
    ]
    assert not broken
    assert not set(verdicts(path)) - set(labels)


def test_labels_in_the_library_are_in_the_book(labels: list[str]) -> None:
    for path in sorted((ROOT / "ppo_lib").rglob("*.py")):
        named = set(LABEL.findall(path.read_text(encoding="utf-8")))
        unknown = named - set(labels)
        assert not unknown, f"{path.name} names equations that the book does not have: {unknown}"
