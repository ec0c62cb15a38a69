"""A Sphinx extension: a drawn figure has a twin for the dark theme, and letters that can be read.

The twin is the same SVG in other colours: the book's own have their partners in `DARK`, every
other colour gets the opposite lightness.  Both stand in the page, each shown in its theme, at a
size at which letters are as large as the text's; a narrow screen may shrink them to `SMALLEST`,
and from there on the drawing scrolls in its own box.
"""

import base64
import colorsys
import html
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sphinx.application import Sphinx

#: What the figures' colours become; the widgets in ``custom.css`` have the same.
DARK = {
    "#ffffff": "#121212",  # the theme's ground
    "#000000": "#e3e8ec",
    "#0072b2": "#5db2e8",
    "#d55e00": "#f58a4b",
    "#009e73": "#3fc79c",
    "#cc79a7": "#e29ac4",
    "#e69f00": "#e6b041",
    "#56b4e9": "#8fd6fb",
    "#8a8a8a": "#989ea6",
    "#b0b0b0": "#6c747d",  # the grid
    "#fdf0d5": "#3d3420",  # the cells of the ridge
    "#eef2f6": "#2a3038",
    "#dbe9f4": "#24384a",
}
#: Letters in pixels: as large as they are shown, and as small as they may become.
TEXT, SMALLEST = 16.0, 9.5

COLOR = re.compile(r"#[0-9a-fA-F]{6}\b")
RASTER = re.compile(r'(?<=href="data:image/png;base64,)[^"]+')
SIZE = re.compile(r'<svg[^>]*? width="([\d.]+)pt" height="([\d.]+)pt"')
MARKS = re.compile(r'(?:(?<=#)|(?<= id="))[mp][0-9a-f]{10}\b')
LETTERS = re.compile(r"scale\(([\d.]+) -\1\)")
PICTURE = re.compile(r'<img\b[^>]*?\bsrc="(?P<src>[^"]*_images/(?P<file>[^"/]+\.svg))"[^>]*>')


def dark(color: str) -> str:
    """The partner of a colour, ``#rrggbb``, on a dark ground."""
    color = color.lower()
    if color in DARK:
        return DARK[color]
    hue, light, saturation = colorsys.rgb_to_hls(
        *(int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    )
    rgb = colorsys.hls_to_rgb(hue, 0.92 - 0.83 * light, 0.7 * saturation)
    return "#" + "".join(f"{round(255 * part):02x}" for part in rgb)


def dark_raster(data: str) -> str:
    """The same for each pixel of a picture inside a drawing, PNG in base64."""
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        pixels = np.array(image.convert("RGBA"))
    known, where = np.unique(pixels.reshape(-1, 4), axis=0, return_inverse=True)
    for pixel in known:
        partner = dark(f"#{pixel[0]:02x}{pixel[1]:02x}{pixel[2]:02x}")
        pixel[:3] = [int(partner[i : i + 2], 16) for i in (1, 3, 5)]
    out = io.BytesIO()
    Image.fromarray(known[where].reshape(pixels.shape)).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def dark_svg(drawn: str) -> str:
    """A drawing in the colours of the dark theme."""
    pieces = RASTER.split(drawn)
    rasters = [dark_raster(data) for data in RASTER.findall(drawn)]
    pieces = [COLOR.sub(lambda color: dark(color[0]), piece) for piece in pieces]
    text = "".join(piece + raster for piece, raster in zip(pieces, [*rasters, ""], strict=True))
    # matplotlib leaves black out, which every shape has by itself.
    return text.replace("<svg ", f'<svg fill="{DARK["#000000"]}" ', 1)


def light(drawn: str) -> str:
    """A drawing whose marks have short names: a figure of dots names them thousands of times."""
    names: dict[str, str] = {}
    short = MARKS.sub(lambda found: names.setdefault(found[0], f"m{len(names)}"), drawn)
    return short.replace(' xlink:href="#', ' href="#')


def letters(drawn: str) -> list[float]:
    """The sizes of the letters of a drawing, in its own units, smallest first.

    What stands above or below in a formula is not counted.
    """
    return sorted(100 * float(scale) for scale in LETTERS.findall(drawn)) or [10.0]


def smallest(drawn: str, width: float) -> float:
    """The size in pixels of the smallest letters of a drawing that is shown so many pixels wide."""
    return letters(drawn)[0] * width / float(SIZE.search(drawn)[1])


def widths(drawn: str) -> tuple[float, float]:
    """The widths in pixels at which most letters have `TEXT`, and the smallest ones `SMALLEST`."""
    sizes = letters(drawn)
    width = float(SIZE.search(drawn)[1])
    narrow = width * SMALLEST / sizes[0]
    return max(width * TEXT / sizes[len(sizes) // 2], narrow), narrow


def drawings(body: str, sources: dict[str, Path], folder: Path) -> Iterator[tuple[str, str]]:
    """Each picture of a page that is a drawing, and what takes its place.

    Args:
        body: the HTML of the page.
        sources: where the pictures come from, by the name that they have among the pages.
        folder: where the twins are written.
    """
    for match in PICTURE.finditer(body):
        source = sources.get(html.unescape(match["file"]))
        drawn = source.read_text(encoding="utf-8") if source else ""
        if not SIZE.search(drawn):
            continue
        twin = f"{Path(match['file']).stem}-dark.svg"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / twin).write_text(dark_svg(light(drawn)), encoding="utf-8")
        wide, narrow = widths(drawn)
        tag = match[0]
        if "style=" not in tag:
            size = f"width: {wide:.0f}px; min-width: {narrow:.0f}px"
            tag = tag.replace("<img ", f'<img style="{size}" ', 1)
        tag = re.sub(r' class="([^"]*)"', "", tag)
        given = re.search(r' class="([^"]*)"', match[0])
        day, night = (
            tag.replace("<img ", f'<img class="dark-light {name}" ', 1)
            for name in ("in-light", "in-dark")
        )
        night = night.replace(match["file"], twin)
        yield match[0], f'<span class="drawing {given[1] if given else ""}">{day}{night}</span>'


def pair(app: Sphinx, _page: str, _template: str, context: dict[str, Any], _tree: Any) -> None:
    """Put both pictures where a page has one."""
    sources = {
        name: Path(app.srcdir) / path for path, name in getattr(app.builder, "images", {}).items()
    }
    folder = Path(app.outdir) / "_images"
    body = context.get("body", "")
    for old, new in list(drawings(body, sources, folder)):
        body = body.replace(old, new)
    if "body" in context:
        context["body"] = body


def lighten(app: Sphinx, error: Any) -> None:
    """Make the drawings light that Sphinx has put among the pages."""
    if error or app.builder.format != "html":
        return
    for name in app.builder.images.values():
        path = Path(app.outdir, "_images", name)
        if path.suffix == ".svg":
            path.write_text(light(path.read_text(encoding="utf-8")), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Run when the text of a page is HTML, and when all pages are there."""
    app.connect("html-page-context", pair)
    app.connect("build-finished", lighten)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
