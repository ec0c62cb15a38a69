"""A Sphinx extension: a page with formulas says why they are raw where scripts are off.

A script sets them; MathML beside each would make a page half as heavy again for nearly nobody.
What a reader without scripts gets is the TeX, which ``custom.css`` sets like code.
"""

from typing import Any

from sphinx.application import Sphinx

NOTE = (
    '<noscript><p class="without-scripts">A script of this page sets its formulas.'
    " Without scripts they stand here as they were written, in TeX.</p></noscript>"
)


def note(_app: Sphinx, _page: str, _template: str, context: dict[str, Any], _tree: Any) -> None:
    """Put the note behind the title of a page that has a formula."""
    body = context.get("body", "")
    if 'class="math' in body:
        context["body"] = body.replace("</h1>", f"</h1>\n{NOTE}", 1)


def setup(app: Sphinx) -> dict[str, bool]:
    """Run when the text of a page is HTML."""
    app.connect("html-page-context", note)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
