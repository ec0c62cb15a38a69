"""A Sphinx extension: no line begins with the punctuation behind a formula, or ends before one.

A browser may break a line on both sides of a formula; what belongs to it is held by a span.
"""

import re
from typing import Any

from sphinx.application import Sphinx

FORMULA = r'<span class="math notranslate nohighlight">\\\(.*?\\\)</span>'
HELD = re.compile(rf"([(\[“‘]*)({FORMULA})((?:’s\b)?[,.;:!?)\]”]*)", re.DOTALL)


def hold(body: str) -> str:
    """A page in which formulas hold their brackets, commas and full stops."""

    def span(match: re.Match[str]) -> str:
        before, _, behind = match.groups()
        return f'<span class="held">{match[0]}</span>' if before or behind else match[0]

    return HELD.sub(span, body)


def change(_app: Sphinx, _page: str, _template: str, context: dict[str, Any], _tree: Any) -> None:
    """Change the text of a page, where it has one."""
    if "body" in context:
        context["body"] = hold(context["body"])


def setup(app: Sphinx) -> dict[str, bool]:
    """Run when the text of a page is HTML."""
    app.connect("html-page-context", change)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
