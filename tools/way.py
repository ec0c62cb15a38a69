"""A Sphinx extension: the directive ``way`` draws the map from J to the clipped loss.

Boxes and steps stand in ``book/way.toml``.  What a box says comes from the ledger, its number from
the built book.  Each box is a link to its equation, and each arrow one to the equation that gives
the reason of the step.
"""

import textwrap
import tomllib
from html import escape
from typing import Any, ClassVar, NamedTuple

import ledger
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

MAP = ledger.BOOK / "way.toml"
#: Sizes in the units of the drawing, which is as wide as a phone.
WIDTH, BOX, PITCH, COLUMNS = 360, (156, 40), 56, (4, 200)
LETTERS = 25  #: of a line in a box


class Box(NamedTuple):
    """An equation of the map, and the left upper corner of its box."""

    label: str
    x: int
    y: int


class Step(NamedTuple):
    """From one equation to another, why, and the equation that gives the reason."""

    start: str
    end: str
    why: str
    by: str


def read() -> tuple[dict[str, Box], list[Step]]:
    """The boxes by label, from top to bottom, and the steps."""
    data = tomllib.loads(MAP.read_text(encoding="utf-8"))
    rows = sorted(data["box"], key=lambda row: (row["row"], row["column"]))
    boxes = [Box(row["label"], COLUMNS[row["column"]], row["row"] * PITCH + 4) for row in rows]
    steps = [Step(s["from"], s["to"], s["why"], s.get("by", s["to"])) for s in data["step"]]
    return {box.label: box for box in boxes}, steps


def draw(numbers: dict[str, str], links: dict[str, str]) -> str:
    """The map as an inline SVG.

    Args:
        numbers: of equations, by label.
        links: to equations, by label.
    """
    boxes, steps = read()
    says = {s.label: s.says for s in ledger.statements()}
    height = max(box.y for box in boxes.values()) + BOX[1] + 4
    parts = [
        '<a class="past-the-map" href="#past-the-map">Skip the map</a>'
        f'<svg class="way" viewBox="0 0 {WIDTH} {height}" role="group"'
        ' aria-label="The way from the expected return to the clipped loss, as a map">',
        '<defs><marker id="way-tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7"'
        ' markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z"/></marker></defs>',
    ]
    # Each box is followed by the arrows that leave it, which is the order of the Tab key.
    for label, box in boxes.items():
        name = escape(f"({numbers[label]}) {says[label]}")
        lines = balanced(f"({numbers[label]}) {says[label]}")
        middle = box.y + BOX[1] / 2 - 7 * (len(lines) - 1) + 4
        text = "".join(
            f'<tspan x="{box.x + BOX[0] / 2:g}" y="{middle + 14 * i:g}">{escape(line)}</tspan>'
            for i, line in enumerate(lines)
        )
        parts.append(
            f'<a class="box" href="{links[label]}" aria-label="{name}">'
            f'<rect x="{box.x}" y="{box.y}" width="{BOX[0]}" height="{BOX[1]}" rx="5"/>'
            f"<text>{text}</text></a>"
        )
        for step in (s for s in steps if s.start == label):
            told = f"From ({numbers[step.start]}) to ({numbers[step.end]}): {step.why}"
            if step.by not in (step.start, step.end):
                told += f", ({numbers[step.by]})"
            path = arrow(box, boxes[step.end])
            parts.append(
                f'<a class="step" href="{links[step.by]}" aria-label="{escape(told)}">'
                f'<title>{escape(told)}</title><path class="reach" d="{path}"/>'
                f'<path class="line" d="{path}" marker-end="url(#way-tip)"/></a>'
            )
    return "".join([*parts, '</svg><span id="past-the-map" tabindex="-1"></span>'])


def balanced(text: str) -> list[str]:
    """The text in as few lines as there is room for, and these as short as they can be."""
    lines = textwrap.wrap(text, LETTERS)
    narrower = (textwrap.wrap(text, width) for width in range(10, LETTERS))
    return next((found for found in narrower if len(found) == len(lines)), lines)


def arrow(start: Box, end: Box) -> str:
    """From the lower side to the upper one in a column; else through the gap between columns."""
    width, height = BOX
    if start.x == end.x:
        x = start.x + width / 2
        return f"M{x:g} {start.y + height}V{end.y - 1}"
    rightwards = end.x > start.x
    a = start.x + (width if rightwards else 0)
    b = end.x + (-1 if rightwards else width + 1)
    y, z = start.y + height / 2, end.y + height / 2
    middle = (a + b) / 2
    return f"M{a:g} {y:g}C{middle:g} {y:g} {middle:g} {z:g} {b:g} {z:g}"


class way(nodes.General, nodes.Element):
    """Where the map goes, until equations have numbers."""


class Way(SphinxDirective):
    """``{way}``, without arguments."""

    has_content: ClassVar[bool] = False

    def run(self) -> list[nodes.Node]:
        """Leave a mark, and depend on what the map is made from."""
        self.env.note_dependency(str(MAP))
        self.env.note_dependency(str(ledger.BOOK / "ledger.toml"))
        return [way()]


def put_in(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Draw the map, now that every equation has its number."""
    marks = list(doctree.findall(way))
    if not marks:
        return
    math: Any = app.env.get_domain("math")
    numbers, links = {}, {}
    for label, (where, own) in math.equations.items():
        anchor = f"equation-{label}"
        found = app.env.toc_fignumbers.get(where, {}).get("displaymath", {}).get(anchor, (own,))
        numbers[label] = ".".join(map(str, found))
        links[label] = f"{app.builder.get_relative_uri(page, where)}#{anchor}"
    for mark in marks:
        mark.replace_self(nodes.raw("", draw(numbers, links), format="html"))


def setup(app: Sphinx) -> dict[str, bool]:
    """Read with the page, draw when it is written."""
    app.add_node(way)
    app.add_directive("way", Way)
    app.connect("doctree-resolved", put_in)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
