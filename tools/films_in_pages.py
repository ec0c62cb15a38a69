"""A Sphinx extension: a picture of the class ``film`` moves, and stands still for who wants that.

A page shows ``films/NAME.webp``, and ``films/NAME.still.webp`` in print and to readers whose system
asks for less motion; ``pages.js`` adds the button that stops and starts it.
"""

from html import escape
from pathlib import Path, PurePosixPath

from docutils import nodes
from PIL import Image
from sphinx.application import Sphinx

STILL = "print, (prefers-reduced-motion: reduce)"


def add_stills(app: Sphinx, doctree: nodes.document) -> None:
    """Write the two files of each film, before Sphinx gathers pictures."""
    root = "../" * app.env.docname.count("/")
    for image in list(doctree.findall(nodes.image)):
        if "film" not in image["classes"]:
            continue
        path = PurePosixPath(image["uri"])
        where = f"{root}{path.as_posix().removeprefix('../')}"
        with Image.open(Path(app.srcdir, app.env.docname).parent / path) as film:
            width, height = film.size
        html = (
            f'<picture class="film"><source media="{STILL}"'
            f' srcset="{where.removesuffix(path.suffix)}.still{path.suffix}">'
            f'<img src="{where}" alt="{escape(image["alt"])}" width="{width}" height="{height}">'
            "</picture>"
        )
        image.replace_self(nodes.raw("", html, format="html"))


def setup(app: Sphinx) -> dict[str, bool]:
    """Run as soon as a page is read."""
    app.connect("doctree-read", add_stills, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
