"""A Sphinx extension: a page carries the equations of other pages that it refers to.

``pages.js`` shows them where a reader points at their numbers; a page that is opened as a file may
not fetch them.
"""

import json
import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

ELSEWHERE = re.compile(r'href="[^"#]+#equation-(eq-[\w-]+)"')


def gather(app: Sphinx, doctree: nodes.document) -> None:
    """Keep the TeX of each equation that has a label."""
    known = app.env.__dict__.setdefault("equations_of_the_book", {})
    for block in doctree.findall(nodes.math_block):
        if block.get("label"):
            known[block["label"]] = block.astext()


def carry(app: Sphinx, _page: str, _template: str, context: dict[str, Any], _tree: Any) -> None:
    """Put those that a page refers to behind its text, as JSON."""
    known = app.env.__dict__.get("equations_of_the_book", {})
    labels = sorted(set(ELSEWHERE.findall(context.get("body", ""))) & known.keys())
    if labels:
        text = json.dumps({label: known[label] for label in labels}, ensure_ascii=False)
        text = text.replace("</", "<\\/")
        context["body"] += f'<script type="application/json" id="equations">{text}</script>'


def setup(app: Sphinx) -> dict[str, bool]:
    """Gather while pages are read, carry while they are written."""
    app.connect("doctree-read", gather)
    app.connect("html-page-context", carry)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
