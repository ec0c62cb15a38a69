"""A Sphinx extension: the line of text under a result of the search, also where a page is a file.

Sphinx's own script fetches each page for it, which a page opened as a file may not do.  Here the
sentences of all sections are written to ``_static/sentences.js``, which the search page alone
loads, and ``pages.js`` chooses among them.
"""

import json
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

#: What TeX writes in words, and a line of text as a sign.
SIGNS = {
    "mid": " | ", "sim": " ~ ", "le": " ≤ ", "ge": " ≥ ", "ne": " ≠ ", "approx": " ≈ ",
    "sum": "Σ", "prod": "Π", "nabla": "∇", "partial": "∂", "dots": "…", "cdots": "…",
    "cdot": "·", "times": "×", "to": " → ", "in": " ∈ ", "pm": "±", "infty": "∞",
    "Vert": "‖", "lVert": "‖", "rVert": "‖", "log": "log ", "min": "min", "max": "max",
    "quad": " ", "qquad": " ",
}  # fmt: skip
NAMED = re.compile(r"\\(?:math\w+|operatorname|text)\s*\{([^{}]*)\}")
FRACTION = re.compile(r"\\t?frac\s*(?:\{([^{}]*)\}|(\w))\s*(?:\{([^{}]*)\}|(\w))")
ACCENT = re.compile(r"\\(hat|bar|tilde)\s*\{?([A-Za-z])\}?")
ABOVE = {"hat": "\u0302", "bar": "\u0304", "tilde": "\u0303"}
COMMAND = re.compile(r"\\([A-Za-z]+)")
#: What shows no sentence.
SKIPPED = (nodes.raw, nodes.literal_block, nodes.math_block, nodes.image, addnodes.index)


def plain(tex: str) -> str:
    r"""A short formula as a line of text: ``\gamma V(s')`` is γ V(s')."""
    tex = FRACTION.sub(lambda m: f"{m[1] or m[2]}/{m[3] or m[4]}", NAMED.sub(r"\1", tex))
    tex = ACCENT.sub(lambda m: unicodedata.normalize("NFC", m[2] + ABOVE[m[1]]), tex)
    return re.sub(r"\\.|[{}&]", "", COMMAND.sub(sign, tex))


def sign(command: re.Match[str]) -> str:
    """What stands for a command of TeX; nothing for those that only set sizes."""
    name = command[1]
    if name in SIGNS:
        return SIGNS[name]
    case = "CAPITAL" if name[0].isupper() else "SMALL"
    letter = {"lambda": "lamda"}.get(name, name).upper()
    try:
        return unicodedata.lookup(f"GREEK {case} LETTER {letter}")
    except KeyError:
        return ""


def text(node: nodes.Node) -> str:
    """The words of a block, formulas among them."""
    if isinstance(node, SKIPPED):
        return ""
    if isinstance(node, nodes.math):
        return plain(node.astext())
    if isinstance(node, nodes.Text):
        return node.astext()
    return "".join(text(child) for child in node.children)


def sentences(block: nodes.Element) -> Iterator[str]:
    """What a part of a page says, without the sections in it: one sentence a line of the source."""
    for child in block.children:
        if isinstance(child, (nodes.section, nodes.title, addnodes.desc, *SKIPPED)):
            continue
        if isinstance(child, nodes.row):
            yield " · ".join(filter(None, (" ".join(text(cell).split()) for cell in child)))
        elif isinstance(child, nodes.TextElement):
            yield from (" ".join(line.split()) for line in text(child).split("\n"))
        elif isinstance(child, nodes.Element):
            yield from sentences(child)


def sections(doctree: nodes.document) -> Iterator[tuple[str, str, list[str]]]:
    """Anchor, title and sentences of each section of a page, and of each entry of a reference."""
    for section in doctree.findall(nodes.section):
        title = next(section.findall(nodes.title), None)
        name = text(title) if title else ""
        yield section["ids"][0], name, [line for line in sentences(section) if line]
    for entry in doctree.findall(addnodes.desc):
        signature, said = entry.next_node(addnodes.desc_signature), entry.children[-1]
        if signature["ids"]:
            name = signature.next_node(addnodes.desc_name).astext()
            yield signature["ids"][0], name, [line for line in sentences(said) if line]


def gather(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Keep the sentences of a page, in which references are text by now."""
    known = app.env.__dict__.setdefault("sentences_of_the_book", {})
    known[page] = list(sections(doctree))


def load(app: Sphinx, page: str, _template: str, _context: dict[str, Any], _tree: Any) -> None:
    """Name the file on the page that searches."""
    if page == "search":
        app.add_js_file("sentences.js")


def write(app: Sphinx, error: Any) -> None:
    """Write the sentences of all pages."""
    if error or app.builder.format != "html":
        return
    known = app.env.__dict__.get("sentences_of_the_book", {})
    data = json.dumps(known, ensure_ascii=False, separators=(",", ":"))
    path = Path(app.outdir, "_static", "sentences.js")
    path.write_text(f"window.sentences = {data};\n", encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Gather while pages are written, and write behind them."""
    app.connect("doctree-resolved", gather, priority=900)
    app.connect("html-page-context", load)
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": False}
