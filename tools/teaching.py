"""A Sphinx extension: the directive ``teaching`` lists what a teacher takes from each chapter.

Chapter, slides, and the exercises with the minutes that they take, all from the notebooks.
"""

import re
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
    """Nothing but the directive."""
    app.add_directive("teaching", Teaching)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
