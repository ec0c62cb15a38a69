"""A Sphinx extension: what a teacher takes from each chapter.

The directive ``teaching`` lists chapter, slides, and the exercises with the minutes that they take,
all from the notebooks; ``lectures`` makes the plan of an hour for each chapter from
``book/lectures.toml``.
"""

import re
import tomllib
from html import escape
from pathlib import Path
from typing import NamedTuple

import ledger
import nbformat
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

EXERCISE = re.compile(
    r"^`{3,}\{exercise(?:-start)?\}[^\n]*\n:label: (?P<label>[\w-]+)\n(?:`{3,}\n|\n)?\s*"
    r"\*\*(?P<title>.+?)\.?\*\* \((?P<minutes>\d+) minutes, (?P<level>\w+)\.\)",
    re.MULTILINE,
)


class Exercise(NamedTuple):
    """What the list says of an exercise."""

    label: str
    title: str
    minutes: int
    level: str


def exercises(path: Path) -> list[Exercise]:
    """The exercises of a chapter."""
    cells = nbformat.read(path, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return [
        Exercise(m["label"], m["title"], int(m["minutes"]), m["level"])
        for m in EXERCISE.finditer(text)
    ]


def table() -> list[str]:
    """A Markdown table, a row for each chapter."""
    rows = ["| chapter | slides | exercises | minutes |", "|---|---|---|---|"]
    for number, path in ledger.chapters().items():
        found = exercises(path)
        listed = "; ".join(f"{e.title} ({e.minutes}, {e.level})" for e in found)
        deck = f'<a href="../slides/{path.stem}.html">Slides of chapter {number}</a>'
        total = sum(e.minutes for e in found)
        rows.append(f"| {number}. [](./{path.name}) | {deck} | {listed} | {total or ''} |")
    return rows


LECTURES = ledger.BOOK / "lectures.toml"


class Part(NamedTuple):
    """A part of a lecture: some sections, or an exercise."""

    minutes: int
    sections: list[str]  #: whose slides are shown, from the first to the last
    does: str
    exercise: Exercise | None = None


def lectures() -> dict[int, list[Part]]:
    """The hour of each chapter; an exercise brings its minutes from the notebook."""
    plans = tomllib.loads(LECTURES.read_text(encoding="utf-8"))
    found = {}
    for number, path in ledger.chapters().items():
        known = {e.label: e for e in exercises(path)}
        found[number] = [
            Part(row["minutes"], row["sections"], row["does"])
            if "sections" in row
            else Part(known[row["exercise"]].minutes, [], "", known[row["exercise"]])
            for row in plans[f"{number:02d}"]
        ]
    return found


def plan(path: Path, parts: list[Part]) -> list[str]:
    """The hour of a chapter as a Markdown table.

    How many slides a section has is known when the decks are made: `slides` puts the numbers in.
    """
    table = ["| minutes | slides | what to do |", "|---|---|---|"]
    start = 0
    for part in parts:
        end = start + part.minutes
        shown, does = "", part.does
        if part.exercise:
            to = f"{path.stem}.html#{part.exercise.label}"
            does = f'The exercise <a href="{to}">{escape(part.exercise.title)}</a>.'
        else:
            first, last = (nodes.make_id(part.sections[i]) for i in (0, -1))
            shown = (
                f'<a class="slides" href="../slides/{path.stem}.html"'
                f' data-sections="{first} {last}">slides</a>'
            )
        table.append(f"| {start} to {end} | {shown} | {does} |")
        start = end
    return table


def title_of(path: Path) -> str:
    """The title of a chapter."""
    return nbformat.read(path, as_version=4).cells[0].source.split("\n")[0].removeprefix("# ")


class Lectures(SphinxDirective):
    """``{lectures}``, without arguments."""

    def run(self) -> list[nodes.Node]:
        """A section for each chapter, with its table."""
        self.env.note_dependency(str(LECTURES))
        found = []
        for number, parts in lectures().items():
            path = ledger.chapters()[number]
            section = nodes.section("", ids=[f"hour-{number}"])
            section += nodes.title("", f"{number}. {title_of(path)}")
            self.state.nested_parse(StringList(plan(path, parts), "lectures"), 0, section)
            found.append(section)
        return found


class Teaching(SphinxDirective):
    """``{teaching}``, without arguments."""

    def run(self) -> list[nodes.Node]:
        """Parse the table as if it stood on the page."""
        for path in ledger.chapters().values():
            self.env.note_dependency(str(path))
        box = nodes.container()
        self.state.nested_parse(StringList(table(), "teaching"), 0, box)
        return box.children


def setup(app: Sphinx) -> dict[str, bool]:
    """Nothing but the directives."""
    app.add_directive("teaching", Teaching)
    app.add_directive("lectures", Lectures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
