"""The book's figures: one style, one set of colours, and the drawing of the ridge."""

import inspect
import io
import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppo_lib.book.evidence import interval, middle
from ppo_lib.exact.mdp import MDP, Trajectories, list_trajectories

try:
    import matplotlib.pyplot as plt
    from cycler import cycler
    from IPython import get_ipython
    from IPython.display import Markdown
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyBboxPatch
except ImportError as error:
    raise ImportError(f"{error}: run pip install 'ppo_lib[book]'") from error

#: Colours that colour-blind readers can tell apart (Okabe and Ito), in order of use.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#8a8a8a"
#: One colour for one quantity, wherever it is drawn.
QUANTITY = {
    "J": COLORS[0],  # the expected return, and the gradient that climbs it
    "return": COLORS[4],  # R(τ), R_t and Q: what followed
    "value": COLORS[2],  # V
    "advantage": COLORS[1],  # A, its estimates and δ
    "ratio": COLORS[5],  # ρ, importance weights
    "surrogate": COLORS[3],
    "kl": COLORS[6],
}
#: One colour for one rung of the ladder, wherever its runs are drawn; rungs that share one are in
#: different chapters.
RUNG = {
    "return": GREY,
    "causal": COLORS[3],
    "reward_to_go": COLORS[4],
    "baseline": COLORS[5],
    "pieces": COLORS[1],
    "one_step": COLORS[3],
    "gae": COLORS[2],
    "targets": COLORS[4],
    "standardise": COLORS[5],
    "reuse": COLORS[1],
    "kl": COLORS[6],
    "clip": COLORS[0],
    "ppo": COLORS[2],
}
#: One name for one rung, in every legend.
RUNG_NAME = {
    "return": "whole return",
    "causal": "past dropped",
    "reward_to_go": "reward-to-go",
    "baseline": "baseline",
    "pieces": "pieces",
    "one_step": "one TD error",
    "gae": "GAE",
    "targets": "targets with λ",
    "standardise": "standardised",
    "reuse": "reuse",
    "kl": "KL penalty",
    "clip": "clip",
    "ppo": "PPO",
}
#: Sizes in inches: as wide as letters of 10 points allow that are still read on a phone.
WIDE = (5.2, 2.9)
SQUARE = (4.2, 4.2)

# Where an SVG has coordinates, which need not be known to a millionth of a point.
_COORDINATES = re.compile(r'(?<= d=")[^"]+|translate\([^)]+\)| [xy]="[^"]+"')
# Marks of one kind, each with the style of all.
_MARKS = re.compile(r'<g((?: clip-path="[^"]*")?)>\s*((?:<use [^>]* style="([^"]*)"/>\s*)+)</g>')
_LONG = re.compile(r"-?\d+\.\d{3,}")
_MOVES = {"left": (-1, 1), "up": (0, 1), "right": (1, 1)}


def set_style() -> None:
    """Set matplotlib's defaults for every figure of the book, and store drawings as `svg`."""
    plt.rcParams.update(
        {
            "figure.figsize": WIDE,
            "figure.dpi": 100,
            "savefig.dpi": 200,
            "svg.hashsalt": "ppo",
            "image.interpolation": "none",
            "figure.constrained_layout.use": True,
            "axes.prop_cycle": cycler(color=COLORS),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.25,
            "font.size": 10,
            "axes.titlesize": 10,
            # Words that lie on a line are read all the same.
            "legend.edgecolor": "none",
            "legend.framealpha": 0.85,
            "lines.linewidth": 1.8,
        }
    )
    shell = get_ipython()
    if shell is not None:
        # To import it is to register PNG, which has to come before SVG takes its place.
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("svg")
        shell.display_formatter.formatters["image/svg+xml"].for_type(Figure, svg)


def svg(figure: Figure) -> str:
    """A figure as SVG, sharp at every size; without a date, the same text in every run."""
    text = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(text, format="svg", bbox_inches="tight", pad_inches=0.03, metadata=nothing)
    drawn = text.getvalue()
    short = _COORDINATES.sub(
        lambda place: _LONG.sub(lambda number: f"{float(number[0]):.2f}", place[0]), drawn
    )
    flat = re.sub(r"\n\s+", "\n", short[short.index("<svg") :])
    return _MARKS.sub(_style_once, flat)


def _style_once(marks: re.Match[str]) -> str:
    clip, uses, style = marks.groups()
    given = f' style="{style}"'
    alike = uses.count(given) == uses.count("<use ")
    return f"<g{clip}{given}>\n{uses.replace(given, '')}</g>" if alike else marks[0]


def draw_ridge(
    mdp: MDP,
    *,
    axes: Axes | None = None,
    policy: Tensor | None = None,
    values: Tensor | None = None,
    title: str = "",
) -> Axes:
    """Draw the world as a grid, climbing from bottom to top.

    Args:
        mdp: a world whose states have cells.
        axes: where to draw; a new figure without it.
        policy: ``[S, A]`` probabilities, drawn as arrows whose width is the probability.
        values: ``[S]``, written into the cells instead of the rewards.
        title: above the drawing.
    """
    axes = axes or plt.figure(figsize=SQUARE).add_subplot()
    rewards = mdp.reward.amax((0, 1))
    for s, (row, column) in enumerate(mdp.cells):
        start = bool(mdp.start[s] > 0)
        paid = float(rewards[s])
        face = "#fdf0d5" if paid else "#eef2f6"
        axes.add_patch(
            FancyBboxPatch(
                (column - 0.4, row - 0.36),
                0.8,
                0.72,
                boxstyle="round,pad=0,rounding_size=0.08",
                facecolor="#dbe9f4" if start else face,
                edgecolor="#5b6770",
                linewidth=2.0 if mdp.terminal[s] else 1.0,
            )
        )
        text = f"+{paid:g}" if paid else ("start" if start else "")
        if values is not None:
            text = f"{float(values[s]):.2f}"
        axes.text(column, row - 0.02, text, ha="center", va="center", fontsize=11, zorder=3)
        if policy is not None and not mdp.terminal[s]:
            _draw_arrows(axes, mdp, row, column, policy[s])
    rows = [row for row, _ in mdp.cells]
    for x in (-0.62, 2.62):
        axes.plot([x, x], [0.5, max(rows) + 0.5], color=COLORS[1], linestyle=":", linewidth=2)
        axes.text(x, 0.25, "drop", ha="center", va="center", color=COLORS[1])
    axes.set(xlim=(-0.95, 2.95), ylim=(-0.5, max(rows) + 0.6), title=title)
    axes.set_aspect("equal")
    axes.axis("off")
    return axes


def _draw_arrows(axes: Axes, mdp: MDP, row: int, column: int, probs: Tensor) -> None:
    for name, prob in zip(mdp.actions, probs.tolist(), strict=True):
        if prob < 0.02:
            continue
        dx, dy = _MOVES[name]
        axes.annotate(
            "",
            xy=(column + 0.42 * dx, row + 0.30 * dy + 0.34),
            xytext=(column + 0.2 * dx, row + 0.30),
            arrowprops={"arrowstyle": "-|>", "color": COLORS[0], "lw": 0.4 + 3.2 * prob},
            zorder=4,
        )


def the_climb(mdp: MDP) -> Trajectories:
    """The one climb that is followed through the book, as a list of one trajectory.

    The climber always means to go up, slips to the left at the second step, and arrives at the
    10: start, 1M, 2L, 3L, 4L, with the rewards 2, 0, 0, 10.
    """
    every = list_trajectories(mdp)
    states = [mdp.states.index(name) for name in ("start", "1M", "2L", "3L", "4L")]
    up = mdp.actions.index("up")
    found = (every.states == torch.tensor(states)).all(1) & (every.actions == up).all(1)
    return Trajectories(*(column[found] for column in every))


def draw_climb(mdp: MDP, *, axes: Axes | None = None, notes: Sequence[str] = ()) -> Axes:
    """Draw `the_climb` on the ridge, with a note beside each of its steps.

    Args:
        mdp: the ridge.
        axes: where to draw; a new figure without it.
        notes: a text for each step, the first step's first; mathematics between dollars.
    """
    axes = draw_ridge(mdp, axes=axes)
    cells = [mdp.cells[s] for s in the_climb(mdp).states[0].tolist()]
    for i, ((row, column), (next_row, next_column)) in enumerate(pairwise(cells)):
        axes.annotate(
            "",
            xy=(next_column, next_row - 0.38),
            xytext=(column, row + 0.38),
            arrowprops={
                "arrowstyle": "-|>",
                "color": COLORS[6],
                "lw": 2.2,
                "shrinkA": 0,
                "shrinkB": 0,
            },
            zorder=5,
        )
        if i < len(notes):
            axes.text(
                max(column, next_column) + 0.14,
                row + 0.5,
                notes[i],
                va="center",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
                zorder=6,
            )
    return axes


def plot_runs(
    axes: Axes,
    steps: Sequence[float] | np.ndarray,
    runs: np.ndarray,
    label: str,
    **kwargs: Any,
) -> None:
    """Draw several runs as the line of their median and the band from the worst to the best.

    Args:
        axes: where to draw.
        steps: ``[P]``, the horizontal axis.
        runs: ``[seeds, P]``.
        label: for the legend; a rung of the ladder has its name there.
        kwargs: passed to the line.
    """
    band = runs.min(axis=0), runs.max(axis=0)
    _plot_in_band(axes, steps, np.median(runs, axis=0), band, 0.15, label, **kwargs)


def plot_middle(
    axes: Axes,
    steps: Sequence[float] | np.ndarray,
    runs: np.ndarray,
    label: str,
    **kwargs: Any,
) -> None:
    """Draw many runs as their interquartile mean and the band of its 95% bootstrap interval.

    Args:
        axes: where to draw.
        steps: ``[P]``, the horizontal axis.
        runs: ``[seeds, P]``.
        label: for the legend; a rung of the ladder has its name and its colour there.
        kwargs: passed to the line.
    """
    style = {"color": RUNG[label]} if label in RUNG else {}
    _plot_in_band(axes, steps, middle(runs), interval(runs), 0.2, label, **style | kwargs)


def _plot_in_band(
    axes: Axes, steps: Any, line: np.ndarray, band: Any, alpha: float, label: str, **kwargs: Any
) -> None:
    """A line, and between the two rows of a band its colour at some strength."""
    label = RUNG_NAME.get(label, label)
    (drawn,) = axes.plot(steps, line, label=label, **kwargs)
    axes.fill_between(steps, *band, color=drawn.get_color(), alpha=alpha, linewidth=0)


def show_source(*functions: Callable[..., object] | type) -> Markdown:
    """The source of functions or classes, from the library as it is now."""
    sources = (inspect.getsource(function).rstrip() for function in functions)
    return Markdown("```python\n" + "\n\n\n".join(sources) + "\n```")
