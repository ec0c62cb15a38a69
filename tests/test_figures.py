"""How drawings become SVG, and what the pages make of them and of formulas."""

import matplotlib.pyplot as plt
import no_breaks
import numpy as np
import pytest
import two_themes
from matplotlib.figure import Figure

from ppo_lib.book import climbs
from ppo_lib.book.evidence import interval, middle
from ppo_lib.book.figures import COLORS, GREY, RUNG, RUNG_NAME, plot_middle, svg


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
