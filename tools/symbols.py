"""A Sphinx extension: what `symbols.js` says of a symbol, taken from the notation page.

Every row of a table with the columns "symbol" and "meaning" is written to ``_static/notation.js``:
its symbols as TeX, its meaning and its name in the code as HTML, and the section that it stands in.
"""

import html
import json
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

PAGE = "book/notation"
#: A section whose symbols belong to some chapters alone, by the numbers of these.
ONLY = {"Language": ["10", "11"], "Several processes": ["09"]}


def as_html(node: nodes.Node) -> str:
    """Text, mathematics and code of a cell; links are left out."""
    if isinstance(node, nodes.math):
        return rf"\({html.escape(node.astext(), quote=False)}\)"
    if isinstance(node, nodes.literal):
        return f"<code>{html.escape(node.astext())}</code>"
    if isinstance(node, nodes.Text):
        return html.escape(node.astext(), quote=False)
    return "".join(as_html(child) for child in node.children)


def rows(page: nodes.document) -> list[dict[str, Any]]:
    """The rows of all tables of symbols."""
    found = []
    for table in page.findall(nodes.table):
        head = [entry.astext() for entry in next(table.findall(nodes.thead)).findall(nodes.entry)]
        if head[:2] != ["symbol", "meaning"]:
            continue
        section = table.parent
        title = section.next_node(nodes.title).astext()
        for row in next(table.findall(nodes.tbody)).findall(nodes.row):
            symbol, meaning, *code = row.children
            found.append(
                {
                    "tex": [part.astext() for part in symbol.findall(nodes.math)],
                    "says": as_html(meaning),
                    "code": as_html(code[0]) if code else "",
                    "title": title,
                    "anchor": section["ids"][0],
                    "only": ONLY.get(title, []),
                }
            )
    return found


def write(app: Sphinx, env: BuildEnvironment) -> None:
    """Write the rows where every page finds them."""
    if app.builder.format != "html":
        return
    data = json.dumps(rows(env.get_doctree(PAGE)), ensure_ascii=False)
    folder = Path(app.outdir) / "_static"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "notation.js").write_text(f"window.notation = {data};\n", encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Write before the pages, which name the file."""
    app.connect("env-check-consistency", write)
    app.add_js_file("notation.js")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
