"""How drawings become SVG, and what the pages make of them and of formulas."""

import importlib
import re
import sys
from types import SimpleNamespace

import matplotlib.pyplot as plt
import no_breaks
import numpy as np
import pytest
import torch
import two_themes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib_inline import backend_inline

from ppo_lib.book import climbs, figures
from ppo_lib.book.evidence import interval, middle
from ppo_lib.book.figures import (
    COLORS,
    GREY,
    RUNG,
    RUNG_NAME,
    SQUARE,
    WIDE,
    draw_climb,
    draw_ridge,
    plot_middle,
    plot_runs,
    show_source,
    svg,
    the_climb,
)
from ppo_lib.exact.mdp import ridge


def luminance(color: str) -> float:
    """Of WCAG 2: https://www.w3.org/TR/WCAG22/#dfn-relative-luminance."""
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def drawing() -> Figure:
    with plt.rc_context({"svg.hashsalt": "ppo", "font.size": 10}):
        figure, axes = plt.subplots(figsize=(5, 3))
        axes.imshow([[0.0, 1.0]], cmap="Blues", interpolation="none")
        axes.text(0, 0, "small", fontsize=8, color="black")
        plt.close(figure)
    return figure


def test_a_drawing_is_the_same_text_twice() -> None:
    with plt.rc_context({"svg.hashsalt": "ppo"}):
        first, second = svg(drawing()), svg(drawing())
    assert first == second
    assert first.startswith("<svg ")
    assert "date" not in first


@pytest.mark.parametrize("color", [*COLORS, GREY])
def test_colors_can_be_seen_on_the_dark_ground(color: str) -> None:
    ground = luminance(two_themes.dark("#ffffff"))
    assert (luminance(two_themes.dark(color)) + 0.05) / (ground + 0.05) > 4.5


def test_the_books_colors_stay_apart_in_the_dark() -> None:
    assert len({two_themes.dark(color) for color in (*COLORS, GREY)}) == len(COLORS) + 1


def test_the_twin_differs_in_its_colors_alone() -> None:
    light = svg(drawing())
    dark = two_themes.dark_svg(light).replace(f'fill="{two_themes.DARK["#000000"]}" ', "", 1)
    blank = [two_themes.RASTER.sub("", two_themes.COLOR.sub("", drawn)) for drawn in (light, dark)]
    assert blank[0] == blank[1]
    assert "#ffffff" not in dark
    assert two_themes.RASTER.findall(light) != two_themes.RASTER.findall(dark)


def test_many_runs_are_a_line_and_the_band_of_its_interval() -> None:
    runs = np.arange(24.0).reshape(8, 3) ** 2
    _, axes = plt.subplots()
    plot_middle(axes, [0, 1, 2], runs, "gae")
    (line,), (band,) = axes.lines, axes.collections
    assert (line.get_label(), line.get_color()) == ("GAE", RUNG["gae"])
    assert line.get_ydata().tolist() == middle(runs).tolist()
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (interval(runs).min(), interval(runs).max())
    plt.close()


# -- the ridge, and what is drawn on it ----------------------------------------------------


def words(axes) -> dict[tuple[float, float], str]:
    return {text.get_position(): text.get_text() for text in axes.texts if text.get_text()}


def arrows(axes) -> list[Annotation]:
    return [text for text in axes.texts if isinstance(text, Annotation)]


def test_every_cell_of_the_ridge_is_drawn_where_it_is() -> None:
    mdp = ridge()
    axes = draw_ridge(mdp, title="the ridge")
    boxes = axes.patches
    middles = [(b.get_x() + b.get_width() / 2, b.get_y() + b.get_height() / 2) for b in boxes]
    expected = [(column, row) for row, column in mdp.cells]
    assert np.allclose(middles, expected)
    # No two of them touch, and the ground of each says whether it pays, or where one starts.
    assert max(max(b.get_width(), b.get_height()) for b in boxes) < 1
    faces = [b.get_facecolor() for b in boxes]
    paid = [0.0, *[2.0, 2.0, 4.0], *[0.0] * 6, *[10.0, 2.0, 4.0]]
    assert [faces.count(face) for face in faces] == [1] + [6] * 12
    assert {face for face, x in zip(faces, paid, strict=True) if x}.isdisjoint(
        {face for face, x in zip(faces, paid, strict=True) if not x}
    )
    widths = [b.get_linewidth() for b in boxes]
    assert min(widths[-3:]) > max(widths[:-3])  # the last row is the end
    said = [text.get_text() for text in axes.texts]
    assert said == ["start", "+2", "+2", "+4", *[""] * 6, "+10", "+2", "+4", "drop", "drop"]
    for text, (x, y) in zip(axes.texts, expected, strict=False):
        assert text.get_position()[0] == x
        assert y - text.get_position()[1] == pytest.approx(0.02)  # letters sit high
    assert {to_hex(face) for face, x in zip(faces, paid, strict=True) if x} == {"#fdf0d5"}
    # The drops are beside the cells, all along, and within what is seen.
    for line, side in zip(axes.lines, (-1, 1), strict=True):
        assert (line.get_xdata() - 1) * side == pytest.approx(1.62)
        assert line.get_ydata().tolist() == [0.5, 4.5]
        assert line.get_color() == COLORS[1]
    for text, side in zip(axes.texts[-2:], (-1, 1), strict=True):
        assert text.get_color() == COLORS[1]
        assert text.get_position() == pytest.approx((1 + side * 1.62, 0.25))
    assert (axes.get_xlim(), axes.get_ylim()) == ((-0.95, 2.95), (-0.5, 4.6))
    assert (axes.get_title(), axes.get_aspect(), axes.axison) == ("the ridge", 1.0, False)
    assert axes.figure.get_size_inches().tolist() == list(SQUARE)
    assert draw_ridge(mdp, axes=axes) is axes
    plt.close("all")


def test_values_stand_in_the_cells_and_arrows_are_as_wide_as_probable() -> None:
    mdp, policy = ridge(), torch.full((14, 3), 1 / 3)
    policy[0] = torch.tensor([0.01, 0.03, 0.96])
    axes = draw_ridge(mdp, policy=policy, values=torch.arange(14) / 8)
    numbers = [text.get_text() for text in axes.texts if not isinstance(text, Annotation)][:13]
    assert numbers[:4] == ["0.00", "0.12", "0.25", "0.38"]
    # Of ten cells three actions each, and one of them is too rare; none at the end.
    drawn = arrows(axes)
    assert len(drawn) == 3 * 10 - 1
    for arrow, side, prob in zip(drawn, (0, 1), (0.03, 0.96), strict=False):
        (x, y), (tip, top) = arrow.get_position(), arrow.xy
        assert (x, y) == pytest.approx((1 + 0.2 * side, 0.3))
        assert (tip, top) == pytest.approx((1 + 0.42 * side, 0.64))
        assert arrow.arrowprops["lw"] == pytest.approx(0.4 + 3.2 * prob)
        assert arrow.arrowprops["color"] == COLORS[0]
    left, up, right = drawn[2:5]  # of the cell 1L, at column 0 and row 1
    assert [arrow.xy[0] for arrow in (left, up, right)] == pytest.approx([-0.42, 0, 0.42])
    assert {round(arrow.xy[1], 9) for arrow in (left, up, right)} == {1.64}
    plt.close("all")


def test_the_climb_of_the_book_and_its_drawing() -> None:
    mdp = ridge()
    climb = the_climb(mdp)
    assert [mdp.states[s] for s in climb.states[0]] == ["start", "1M", "2L", "3L", "4L"]
    assert climb.actions.tolist() == [[1] * 4]
    assert climb.rewards.tolist() == [[2, 0, 0, 10]]
    assert climb.env_probs.tolist() == pytest.approx([0.8 * 0.1 * 0.8 * 0.8])
    axes = draw_climb(mdp, notes=("one", "two"))
    drawn = arrows(axes)
    assert {arrow.arrowprops["color"] for arrow in drawn} == {COLORS[6]}
    assert [arrow.get_position() for arrow in drawn] == [
        pytest.approx((x, row + 0.38)) for row, x in enumerate((1, 1, 0, 0))
    ]
    assert [arrow.xy for arrow in drawn] == [
        pytest.approx((x, row - 0.38)) for row, x in enumerate((1, 0, 0, 0), start=1)
    ]
    places = {text: place for place, text in words(axes).items()}
    assert places["one"] == pytest.approx((1.14, 0.5))
    assert places["two"] == pytest.approx((1.14, 1.5))  # right of its arrow, which goes left
    assert draw_climb(mdp, axes=axes) is axes
    plt.close("all")


def test_some_runs_are_their_median_and_the_band_from_the_worst_to_the_best() -> None:
    runs = np.array([[1.0, 5.0], [2.0, 9.0], [6.0, 7.0]])
    _, axes = plt.subplots()
    plot_runs(axes, [0, 10], runs, "mine", color="#123456")
    (line,), (band,) = axes.lines, axes.collections
    assert (line.get_label(), line.get_color()) == ("mine", "#123456")
    assert line.get_xydata().tolist() == [[0, 2], [10, 7]]
    corners = {tuple(corner) for corner in band.get_paths()[0].vertices.tolist()}
    assert {(0, 1), (0, 6), (10, 5), (10, 9)} <= corners
    assert to_hex(band.get_facecolor()[0]) == "#123456"
    plot_middle(axes, [0, 10], runs, "no rung")
    assert [band.get_alpha() for band in axes.collections] == [0.15, 0.2]
    assert axes.lines[1].get_label() == "no rung"
    plt.close()


def test_the_style_and_how_a_notebook_stores_drawings(monkeypatch) -> None:
    done = []
    monkeypatch.setattr(backend_inline, "set_matplotlib_formats", lambda *x: done.append(x))
    formatter = SimpleNamespace(for_type=lambda *x: done.append(x))
    shell = SimpleNamespace(
        display_formatter=SimpleNamespace(formatters={"image/svg+xml": formatter})
    )
    monkeypatch.setattr(figures, "get_ipython", lambda: shell)
    with plt.rc_context():
        figures.set_style()
        assert plt.rcParams["axes.prop_cycle"].by_key()["color"] == list(COLORS)
        assert plt.rcParams["figure.figsize"] == list(WIDE)
        assert plt.rcParams["font.size"] == plt.rcParams["axes.titlesize"] == 10
        assert not plt.rcParams["axes.spines.top"]
        assert not plt.rcParams["axes.spines.right"]
        assert plt.rcParams["axes.grid"]
        assert plt.rcParams["figure.constrained_layout.use"]
        monkeypatch.setattr(figures, "get_ipython", lambda: None)
        figures.set_style()
    # The formats first: they would put their own drawing of a figure in place of this one.
    assert done == [("svg",), (Figure, svg)]


def test_a_drawing_is_short() -> None:
    figure, axes = plt.subplots()
    axes.scatter([0.123456, 1, 2], [0, 1, 2.345678])
    drawn = svg(figure)
    plt.close(figure)
    # Places are known to a hundredth of a point, and marks of one kind have their style once.
    assert re.search(r' d="[^"]*\.\d\d\b', drawn)
    assert not re.search(r' (d|x|y)="[^"]*\.\d{3}|translate\([^)]*\.\d{3}', drawn)
    assert not re.search(r"\n\s", drawn)
    uses = re.findall(r"<use [^>]*>", drawn)
    assert sum("style" in use for use in uses if "fill: #1f77b4" in use) == 0
    assert drawn.count('style="fill: #1f77b4; stroke: #1f77b4"') == 1
    two = '<g>\n<use x="1" style="fill: red"/>\n<use x="2" style="fill: blue"/>\n</g>'
    assert figures._MARKS.sub(figures._style_once, two) == two
    once = '<g style="fill: red">\n<use x="1"/>\n<use x="2"/>\n</g>'
    assert figures._MARKS.sub(figures._style_once, two.replace("blue", "red")) == once


def test_one_quantity_and_one_rung_have_one_color() -> None:
    blue, vermilion, green, purple, orange, sky, black = COLORS
    assert {
        "J": blue,
        "return": orange,
        "value": green,
        "advantage": vermilion,
        "ratio": sky,
        "surrogate": purple,
        "kl": black,
    } == figures.QUANTITY
    assert list(RUNG.values()) == [
        *(GREY, purple, orange, sky, vermilion, purple, green, orange),
        *(sky, vermilion, black, blue, green),
    ]
    # Rungs that a chapter draws together are told apart.
    names = list(RUNG)
    for first, last in (("return", "baseline"), ("pieces", "standardise"), ("reuse", "ppo")):
        part = [RUNG[name] for name in names[names.index(first) : names.index(last) + 1]]
        assert len(set(part)) == len(part)
    assert (WIDE, SQUARE) == ((5.2, 2.9), (4.2, 4.2))


def test_what_is_needed_to_draw_is_said_where_it_is_not_there(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"run pip install 'ppo_lib\[book\]'"):
        importlib.reload(figures)


def test_source_is_shown_as_it_is() -> None:
    shown = show_source(middle, interval).data
    assert shown.startswith("```python\ndef middle(runs: np.ndarray) -> np.ndarray:\n")
    assert "\n\n\ndef interval(runs" in shown
    assert shown.endswith("axis=0)\n```")


def test_every_rung_has_a_color_and_a_name() -> None:
    assert list(RUNG) == list(RUNG_NAME) == list(climbs.RUNGS)
    assert len(set(RUNG_NAME.values())) == len(RUNG)


def test_letters_are_measured() -> None:
    drawn = svg(drawing())
    width = float(two_themes.SIZE.search(drawn)[1])
    assert two_themes.smallest(drawn, width) == 8
    wide, narrow = two_themes.widths(drawn)
    assert two_themes.smallest(drawn, narrow) == pytest.approx(two_themes.SMALLEST)
    assert wide == pytest.approx(width * two_themes.TEXT / 10)


@pytest.mark.parametrize(
    ("written", "held"),
    [("x F, y", "x [F,] y"), ("(F) y", "[(F)] y"), ("F’s", "[F’s]"), ("F and F", "F and F")],
)
def test_a_formula_holds_its_punctuation(written: str, held: str) -> None:
    formula = r'<span class="math notranslate nohighlight">\(a_t\)</span>'
    expected = held.replace("[", '<span class="held">').replace("]", "</span>")
    assert no_breaks.hold(written.replace("F", formula)) == expected.replace("F", formula)


def test_marks_of_a_drawing_get_short_names_on_the_pages():
    drawn = (
        '<clipPath id="p0123456789"/><path id="mabcdef0123" d="M 0 1"/>'
        '<g clip-path="url(#p0123456789)"><use xlink:href="#mabcdef0123" x="1.5"/></g>'
    )
    assert two_themes.light(drawn) == (
        '<clipPath id="m0"/><path id="m1" d="M 0 1"/>'
        '<g clip-path="url(#m0)"><use href="#m1" x="1.5"/></g>'
    )
