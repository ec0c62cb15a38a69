"""A Sphinx extension: the number of a chapter is the number in its file's name.

Sphinx counts the chapters that it finds.  Chapter 7 stays chapter 7 here while others are
still to be written, and so do the numbers of its equations and figures: (7.1), Fig. 7.1.
"""

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

CHAPTER = re.compile(r"(?:.*/)?(\d\d)-[^/]*")


def renumber(_app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Put the chapter's own number where Sphinx, which ran before, put its position.

    Returns:
        No page: Sphinx has named those to write again already.
    """
    for docname, sections in env.toc_secnumbers.items():
        match = CHAPTER.fullmatch(docname)
        if not match:
            continue
        chapter = int(match[1])
        for anchor, number in sections.items():
            sections[anchor] = number and (chapter, *number[1:])
        marked = [env.titles[docname], *env.tocs[docname].findall(nodes.reference)]
        for node in marked:
            if node.get("secnumber"):
                node["secnumber"] = [chapter, *node["secnumber"][1:]]
        for numbers in env.toc_fignumbers.get(docname, {}).values():
            for label, number in numbers.items():
                numbers[label] = (chapter, *number[1:])
    return []


def title_once(app: Sphinx, page: str, _template: str, context: dict[str, Any], _tree: Any) -> None:
    """Leave the book's title out behind that of the first page, which is the same."""
    if page == app.config.root_doc:
        context["docstitle"] = ""


def setup(app: Sphinx) -> dict[str, bool]:
    """Run after Sphinx has counted, which it does at priority 500."""
    app.connect("env-get-updated", renumber, priority=900)
    app.connect("html-page-context", title_once)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
